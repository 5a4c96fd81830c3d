"""One small module for each bundled data set: what turns its files into annotations."""
