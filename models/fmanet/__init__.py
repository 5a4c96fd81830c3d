"""FMANet: a light network for micro-expressions, trained from flowkit's shards with one subject held out at a time.

`fmanet.cli` is the command `fmanet`; `run.train_run` is the same from Python. Importing this costs nothing.
"""
