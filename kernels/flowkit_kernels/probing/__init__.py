"""Which backends can run on this machine: what the NVIDIA driver says, and why a backend cannot run."""
