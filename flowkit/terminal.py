"""What both command lines share: how a command ends, how it is stopped, and tables.

stdout carries results only, stderr the rest.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click
from rich.console import Console
from rich.table import Table

from flowkit import streams
from flowkit.commit import FULL, disk_full
from flowkit.errors import DiskFull, EnvironmentMissing, FlowkitError, Interrupted, Terminated
from flowkit.stop import Stop

F = TypeVar("F", bound=Callable[..., Any])
FOLDER = click.Path(file_okay=False, path_type=Path)


class Commands(click.Group):
    """A group whose errors all end the same way: one message on stderr, the exit code of the error's class.

    Attributes
    ----------
    program : str
        Name of the command, for messages.
    extra : str
        The extra of the distribution that brings `packages`, which commands import when they are called.
    packages : tuple of str
    """

    program = "flowkit"
    extra = ""
    packages: tuple[str, ...] = ()

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which a user needs them, not of the alphabet."""
        return list(self.commands)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Parse and run a command, also where a standard stream is closed, full, or knows ASCII only."""
        streams.secure()
        try:
            Path.cwd()  # worker processes start in it
        except OSError as error:
            fail(
                EnvironmentMissing(
                    f"{self.program}: the working folder is gone ({error.strerror}). Change to another one: cd"
                )
            )
        try:
            return super().main(*args, **kwargs)
        except OSError as error:  # while help was printed; `invoke` ends those of commands
            _end(error)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command, and end as its error says."""
        try:
            return super().invoke(ctx)
        except FlowkitError as error:
            fail(error)
        except (KeyboardInterrupt, click.Abort):
            fail(Interrupted(f"{self.program}: command was interrupted. Run it again."))
        except OSError as error:
            _end(error)
        except ModuleNotFoundError as error:
            if error.name not in self.packages:
                raise
            fail(
                EnvironmentMissing(
                    f"{self.program}: the package {error.name} must be installed; got none. Install flowkit-mer with the extra "
                    f"{self.extra}."
                )
            )


def _end(error: OSError) -> NoReturn:
    """End the process as a file or a standard stream that failed asks for."""
    broken = [name for name in ("stdout", "stderr") if streams.is_broken(name)]
    if isinstance(error, BrokenPipeError):  # nobody reads on, as with `| head`
        sys.exit(1)
    if broken:
        kind = DiskFull if error.errno in FULL else EnvironmentMissing
        fail(
            kind(
                f"{broken[0]}: cannot be written ({error.strerror}). Send it elsewhere and run the same command again."
            )
        )
    fail(_system_error(error))


def _system_error(error: OSError) -> FlowkitError:
    path = Path(str(error.filename or "files"))
    if error.errno in FULL:
        return disk_full(path)
    return EnvironmentMissing(f"{path}: must be usable; got {error.strerror}. Check the disk and the permissions.")


def fail(error: FlowkitError) -> NoReturn:
    """End the process with an error's message and exit code."""
    try:
        click.echo(f"Error: {error}", err=True)
    except OSError:  # the exit code says it, too
        streams.is_broken("stderr")
    sys.exit(error.exit_code)


def with_options(settings: Sequence[Callable[[F], F]]) -> Callable[[F], F]:
    """Give a command several options, shown in this order."""

    def add(command: F) -> F:
        for option in reversed(settings):
            command = option(command)
        return command

    return add


@contextmanager
def signals(stop: Stop) -> Iterator[None]:
    """Ctrl-C and SIGTERM ask for an orderly end; the second Ctrl-C ends at once."""

    def interrupt(*_: object) -> None:
        click.echo("Stopping; press Ctrl-C again to stop at once.", err=True)
        stop.request(Interrupted)
        signal.signal(signal.SIGINT, lambda *_: os._exit(Interrupted.exit_code))

    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, interrupt),
        signal.SIGTERM: signal.signal(signal.SIGTERM, lambda *_: stop.request(Terminated)),
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """SIGTERM unwinds the stack as Ctrl-C does, so that nothing temporary stays behind, but ends with its own exit code."""
    came = []

    def interrupt(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not cut the cleaning up short
        came.append(True)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        if came:
            raise Terminated("flowkit: command was stopped by SIGTERM. Run it again.") from None
        raise
    else:
        if came:  # Python lost the exception in a callback
            raise Terminated("flowkit: command was told to stop by SIGTERM, and had ended before it did. Run it again.")
    finally:
        signal.signal(signal.SIGTERM, before)


def show_mapping(title: str, values: Mapping[str, Any]) -> None:
    """Print names and values as a table; names in a mapping within follow a dot."""
    show_rows(title, ("", ""), list(_flat(values)))


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + str(name), "-" if value in ({}, [], None, "") else str(value)


def show_rows(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], *, whole: bool = False) -> None:
    """Print a table; `whole`: in lines as long as they need be, whatever the terminal's width."""
    table = Table(*header, title=title, title_justify="left", show_header=any(header), box=None, pad_edge=False)
    table.collapse_padding = whole
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    # A pipe gets whole lines: a path cut at column 80 is of no use to a program.
    width = None if sys.stdout.isatty() and not whole else 400
    Console(highlight=False, markup=False, emoji=False, width=width).print(table)
