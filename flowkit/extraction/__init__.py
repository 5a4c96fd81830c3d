"""`flowkit extract`: from a manifest to committed shards. `pipeline.extract` is the entry."""
