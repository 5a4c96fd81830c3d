"""The command line `flowkit`; `main` is its entry point.

common.py, options.py   what all commands of both programs share, and options that several commands share
printing.py             what each command prints for people
program.py              the program, made of the commands in the other modules
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowkit.cli.program import main

__all__ = ["main"]


def __getattr__(name: str) -> Any:
    """Load the program at its first use: `fmanet` takes `common` alone."""
    if name == "main":
        from flowkit.cli.program import main

        return main
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
