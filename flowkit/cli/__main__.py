"""`python -m flowkit.cli`, the command `flowkit`."""

from flowkit.cli import main

main()
