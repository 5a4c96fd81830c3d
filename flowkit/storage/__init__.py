"""Shards on disk: the schema, how files are committed, and how they are read and checked again."""
