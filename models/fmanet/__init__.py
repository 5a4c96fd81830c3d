"""FMANet, the network that trains from flowkit's shards. This version only reserves the import name; it holds no model yet."""
