"""What `flowkit manifest --help` and its completion list: every data set, with those of one's own."""

from __future__ import annotations

import inspect
from typing import Final

import click

from flowkit.cli.common import Command
from flowkit.errors import ConfigError

PLACE: Final = "{data sets}"
"""Line of a help in place of which the list stands."""


class ListsDataSets(Command):
    """A command whose help names the data sets; they are looked up when the help is shown, not when flowkit starts."""

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the help with the list in its place."""
        template = self.help
        self.help = inspect.cleandoc(template or "").replace(PLACE, "\n".join(_lines()))
        try:
            super().format_help_text(ctx, formatter)
        finally:
            self.help = template


def _lines() -> list[str]:
    from flowkit.datasets import listed_sets

    try:
        sets, problem = listed_sets(), []
    except ConfigError as error:
        sets, problem = listed_sets(own=False), ["", "Your own cannot be listed:", *str(error).splitlines()]
    width = max(len(name) for name, _ in sets) + 2
    return [*(f"  {name:<{width}}{description}" for name, description in sets), *problem]


def complete_dataset(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the names that begin as what was typed."""
    from flowkit.datasets import listed_sets

    try:
        sets = listed_sets()
    except ConfigError:  # a completion has no place for messages; the command itself tells
        sets = listed_sets(own=False)
    return [name for name, _ in sets if name.startswith(incomplete.casefold())]
