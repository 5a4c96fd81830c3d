"""The command line `fmanet`; `main` is its entry point.

options.py, printing.py   what several commands share: options and what they become; what is printed for people
program.py                the program, made of the commands in the other modules
"""

from __future__ import annotations

from fmanet.cli.program import main

__all__ = ["main"]
