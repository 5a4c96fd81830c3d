"""`python -m fmanet.cli`, the command `fmanet`."""

from fmanet.cli import main

main()
