"""What both command lines share: how a command shows its help, what it says on stderr, how it ends and is stopped, and tables.

stdout carries results only, stderr the rest: with --quiet errors and warnings, with --verbose also details.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar

import click
from click.shell_completion import CompletionItem

from flowkit._version import __version__
from flowkit.doctor.unforeseen import broken_package, report
from flowkit.errors import DiskFull, EnvironmentMissing, FlowkitError, Interrupted, Terminated
from flowkit.execution import standard_streams
from flowkit.execution.memory import memory_advice
from flowkit.execution.progress import WARNING, StderrProgress, WarningsOnly
from flowkit.execution.stop import Stop
from flowkit.settings_io import listing, to_toml, write_settings
from flowkit.storage.durable_files import FULL, disk_full

F = TypeVar("F", bound=Callable[..., Any])
FOLDER = click.Path(file_okay=False, path_type=Path)
VERBOSITY = "flowkit.verbosity"
"""Where a click context keeps what --quiet and --verbose said."""
NARROW = 52
SECTIONS = "__sections__"
"""Attribute of a command's function: under which title each option is shown."""


class _Documented(click.Command):
    """Its help fits narrow terminals, and ends with `epilog`: an example, one command per line, not wrapped, to be copied."""

    def get_help(self, ctx: click.Context) -> str:
        """Format the help; click by itself never takes fewer than 50 columns."""
        columns = shutil.get_terminal_size().columns
        if columns < NARROW:
            ctx.terminal_width = max(columns - 2, 20)
        return super().get_help(ctx)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the example."""
        if self.epilog:
            with formatter.section("Example"):
                for line in self.epilog.splitlines():
                    formatter.write(f"{'':>{formatter.current_indent}}{line}\n")


class Command(_Documented):
    """A command with --quiet and --verbose, whose help shows options under the titles of `with_options`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += [
            click.Option(
                ["-q", "--quiet"],
                is_flag=True,
                expose_value=False,
                callback=_remember_verbosity,
                help="Print nothing on stderr but errors and warnings.",
            ),
            click.Option(
                ["-v", "--verbose"],
                is_flag=True,
                expose_value=False,
                callback=_remember_verbosity,
                help="Print details on stderr: versions, places, each failed clip, times.",
            ),
        ]

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; with --verbose, first say what runs."""
        if verbosity() == "verbose":
            click.echo(
                f"flowkit {__version__} in {Path(__file__).parents[1]}, Python {platform.python_version()} ({sys.executable})",
                err=True,
            )
        return super().invoke(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each group of options under its title, those without one last."""
        titles: Mapping[str, str] = getattr(self.callback, SECTIONS, {})
        rest = "Other options" if titles else "Options"
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx) if isinstance(param, click.Option) else None
            if record is not None:
                sections.setdefault(titles.get(param.name or "", rest), []).append(record)
        for title in sorted(sections, key=rest.__eq__):  # a stable sort
            with formatter.section(title):
                formatter.write_dl(sections[title], col_max=min(30, formatter.width // 3))


class Commands(_Documented, click.Group):
    """A group whose errors all end the same way: one message on stderr, the exit code of the error's class.

    Attributes
    ----------
    program : str
        Name of the command, for messages.
    extra : str
        The extra of the distribution that brings `packages`, which commands import when they are called.
    packages : tuple of str
    """

    command_class = Command
    group_class = type
    program = "flowkit"
    extra = ""
    packages: tuple[str, ...] = ()

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which a user needs them, not of the alphabet."""
        return list(self.commands)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Parse and run a command, also where a standard stream is closed, full, or knows ASCII only."""
        standard_streams.secure()
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
        except (click.ClickException, click.exceptions.Exit):
            raise
        except FlowkitError as error:
            fail(error)
        except (KeyboardInterrupt, click.Abort):
            fail(Interrupted(f"{self.program}: command was interrupted. Run it again."))
        except Exception as error:  # noqa: BLE001 - the last resort: words instead of a traceback
            self._end_with(error)

    def _end_with(self, error: Exception) -> NoReturn:
        """End as an error deserves that no command foresaw."""
        if isinstance(error, BrokenPipeError):
            _end(error)
        if verbosity() == "verbose":
            traceback.print_exception(error)
        package = broken_package(error)
        if isinstance(error, ModuleNotFoundError) and error.name in self.packages:
            fail(
                EnvironmentMissing(
                    f"{self.program}: the package {error.name} must be installed; got none. Install flowkit-mer with the extra "
                    f"{self.extra}."
                )
            )
        if package:
            why = " ".join(str(error).split())
            fail(
                EnvironmentMissing(
                    f"{self.program}: the package {package} cannot be imported ({type(error).__name__}: {why}). Run flowkit "
                    "doctor: it says what to install."
                )
            )
        if isinstance(error, OSError) and error.errno is not None:
            _end(error)
        if isinstance(error, MemoryError) or "can't start new thread" in str(error):
            advice = memory_advice("MemoryError") or ". End what else runs, or use a larger machine"
            fail(EnvironmentMissing(f"{self.program}: the memory is full{advice}."))
        click.echo(f"Error: {report(error, self.program)}", err=True)
        sys.exit(1)


def command(name: str, cls: type[Command] = Command, **settings: Any) -> Callable[[Callable[..., Any]], Command]:
    """Return a decorator that makes a `Command` of a function; settings as of `click.command`."""
    return click.command(name, cls=cls, **settings)


def group(name: str, **settings: Any) -> Callable[[Callable[..., Any]], Commands]:
    """Return a decorator that makes a group of commands of a function; settings as of `click.group`."""
    return click.group(name, cls=Commands, **settings)


def _remember_verbosity(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and ctx.meta.setdefault(VERBOSITY, param.name) != param.name:
        raise click.UsageError("--quiet and --verbose exclude each other. Leave one out.", ctx)


def verbosity() -> Literal["quiet", "verbose", ""]:
    """What the command that runs was told."""
    ctx = click.get_current_context(silent=True)
    found: Literal["quiet", "verbose", ""] = "" if ctx is None else ctx.meta.get(VERBOSITY, "")
    return found


def progress(things: str = "clips") -> StderrProgress | WarningsOnly:
    """The reporter of the command that runs, as --quiet and --verbose say."""
    return WarningsOnly() if verbosity() == "quiet" else StderrProgress(things, verbose=verbosity() == "verbose")


def say(text: str) -> None:
    """Print a note on stderr; with --quiet only if it is a warning."""
    if verbosity() != "quiet" or text.startswith(WARNING):
        click.echo(text, err=True)


def _end(error: OSError) -> NoReturn:
    """End the process as a file or a standard stream that failed asks for."""
    broken = [name for name in ("stdout", "stderr") if standard_streams.is_broken(name)]
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
        standard_streams.is_broken("stderr")
    sys.exit(error.exit_code)


def with_options(options: Sequence[Callable[[F], F]], section: str = "") -> Callable[[F], F]:
    """Give a command several options, shown in this order, under a title of their own if one is given."""

    def add(command: F) -> F:
        for option in reversed(options):
            command = option(command)
            if section:
                vars(command).setdefault(SECTIONS, {})[vars(command)["__click_params__"][-1].name] = section
        return command

    return add


def setting_options(example: str, defaults: Callable[[], Any]) -> list[Callable[[F], F]]:
    """The options --config and --set, the latter with completion of names.

    Parameters
    ----------
    example : str
        An assignment.
    defaults : callable
        Gives an instance of the settings class.
    """

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        names = (f"{setting.name}=" for setting in listing(defaults()))
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]

    return [
        click.option(
            "--config",
            "config_file",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="Settings as TOML; flags win over it.",
        ),
        click.option(
            "--set",
            "assignments",
            multiple=True,
            metavar="KEY=VALUE",
            shell_complete=complete,
            help=f"One setting, such as {example}; the command settings lists them.",
        ),
    ]


def show_settings(
    settings: Any, title: Sequence[str], left_out: Mapping[str, str], out: Path | None, overwrite: bool, as_json: bool
) -> None:
    """Print settings as TOML or JSON, or write them into a file and print its name."""
    if out is not None:
        write_settings(out, to_toml(settings, title, left_out), overwrite=overwrite)
    if as_json:
        rows = [{**setting.to_dict(), "left_out": left_out.get(setting.name)} for setting in listing(settings)]
        click.echo(json.dumps(rows, indent=1))
    else:
        click.echo(to_toml(settings, title, left_out) if out is None else f"{out}\n", nl=False)


@contextmanager
def signals(stop: Stop) -> Iterator[None]:
    """Ctrl-C and SIGTERM ask for an orderly end; the second Ctrl-C ends at once."""

    def interrupt(*_: object) -> None:
        # First, so that whoever reads the line may press it at once: this handler must not be entered twice.
        signal.signal(signal.SIGINT, lambda *_: os._exit(Interrupted.exit_code))
        stop.request(Interrupted)
        click.echo("Stopping; press Ctrl-C again to stop at once.", err=True)

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
    from rich.console import Console  # here, so that completion in a shell does without
    from rich.table import Table

    table = Table(*header, title=title, title_justify="left", show_header=any(header), box=None, pad_edge=False)
    table.collapse_padding = whole
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    # A pipe gets whole lines: a path cut at column 80 is of no use to a program.
    width = None if sys.stdout.isatty() and not whole else 400
    Console(highlight=False, markup=False, emoji=False, width=width).print(table)
