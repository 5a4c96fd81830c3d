"""The version of flowkit, and of the kernels and the network that come with it."""

__version__ = "0.2.0"
