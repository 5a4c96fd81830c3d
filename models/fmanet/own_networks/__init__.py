"""Networks that are no part of flowkit: `fmanet train --network package.module:Class`.

naming.py    a class named on the command line becomes a registered network, known by the hash of its source
probing.py   what such a network must give, tried before anything is written
guard.py     what it must not do while it trains: open the shards, or remember one fold in the next
"""
