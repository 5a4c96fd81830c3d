"""Other people's formats: import their flow pictures, export shards to files of other programs."""
