"""A run's course: on stderr for people, in `logging` for programs; never on stdout, which carries results.

A text of `note` that begins with "Warning: " changes what the user should do: it is shown with --quiet too, and logged as a
warning.
"""

from __future__ import annotations

import logging
import sys
import time
from types import TracebackType
from typing import Any, Protocol, Self

LINE_EVERY_S = 10.0
WARNING = "Warning: "


class Reporter(Protocol):
    """Is told of a run's course."""

    def note(self, text: str) -> None:
        """Say something once: what is resumed, a warning."""

    def detail(self, text: str) -> None:
        """Say what only those ask for who look for a fault: a failed clip, the times of a task."""

    def start(self, total: int) -> None:
        """So many are to be done."""

    def advance(self, done: int, failed: int) -> None:
        """So many more were done, so many of them failed."""

    def finish(self) -> None:
        """Nothing more will come."""


class Silent:
    """Says nothing: the default of the Python API."""

    def note(self, text: str) -> None:
        """Keep quiet."""

    def detail(self, text: str) -> None:
        """Keep quiet."""

    def start(self, total: int) -> None:
        """Keep quiet."""

    def advance(self, done: int, failed: int) -> None:
        """Keep quiet."""

    def finish(self) -> None:
        """Keep quiet."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish()


class _Counting(Silent):
    """Counts, and has a line to say every ten seconds.

    Parameters
    ----------
    things : str
        What is counted.
    """

    def __init__(self, things: str = "clips") -> None:
        self._things = things
        self._total = self._done = self._failed = 0
        self._began = self._last = time.monotonic()

    def start(self, total: int) -> None:
        """Begin to count."""
        self._total, self._done, self._failed = total, 0, 0
        self._began = self._last = time.monotonic()

    def _add(self, done: int, failed: int) -> None:
        self._done += done
        self._failed += failed

    def _line_is_due(self) -> bool:
        due = time.monotonic() - self._last >= LINE_EVERY_S
        if due:
            self._last = time.monotonic()
        return due

    def _line(self) -> str:
        left = (self._total - self._done) / max(self._rate(), 1e-9)
        return (
            f"{self._done}/{self._total} {self._things}, {self._failed} failed, {self._pace()} {self._things}/s, "
            f"{left:.0f} s left"
        )

    def _rate(self) -> float:
        return self._done / max(time.monotonic() - self._began, 1e-9)

    def _pace(self) -> str:
        rate = self._rate()
        return f"{rate:.1f}" if rate >= 1 else f"{rate:.2f}"


class StderrProgress(_Counting):
    """Done, failed, rate and time left, on stderr: a bar on a terminal, else a line every ten seconds.

    Parameters
    ----------
    things : str
        What is counted.
    verbose : bool
        Also print details.
    """

    def __init__(self, things: str = "clips", *, verbose: bool = False) -> None:
        from rich.console import Console

        super().__init__(things)
        self._console = Console(stderr=True, highlight=False, emoji=False)
        self._verbose = verbose
        self._bar: Any = None
        self._task: Any = None

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        self._console.print(text, markup=False, soft_wrap=True)

    def detail(self, text: str) -> None:
        """Print a line above the bar, if wanted."""
        if self._verbose:
            self.note(text)

    def start(self, total: int) -> None:
        """Begin to count."""
        super().start(total)
        if sys.stderr.isatty():
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn(self._things),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"),
                TimeRemainingColumn(),
                console=self._console,
            )
            self._task = self._bar.add_task(self._things, total=total, note="")
            self._bar.start()

    def advance(self, done: int, failed: int) -> None:
        """Count, and say so now and then."""
        self._add(done, failed)
        if self._bar is not None:
            self._bar.update(self._task, advance=done, note=f"{self._pace()}/s, {self._failed} failed")
        elif self._line_is_due():
            self.note(self._line())

    def finish(self) -> None:
        """Stop the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class WarningsOnly(Silent):
    """Prints warnings on stderr and nothing else."""

    def note(self, text: str) -> None:
        """Print a warning."""
        if text.startswith(WARNING):
            sys.stderr.write(f"{text}\n")


class LoggingReporter(_Counting):
    """Hands a run's course to `logging`: for programs that call flowkit.

    Notes and a line every ten seconds have the level INFO, warnings WARNING, details DEBUG. Handlers and levels are the
    program's own affair: flowkit configures nothing.

    Parameters
    ----------
    things : str
        What is counted.
    name : str
        Of the logger.

    Examples
    --------
    >>> import logging
    >>> import flowkit
    >>> logging.basicConfig(level=logging.INFO)  # doctest: +SKIP
    >>> summary = flowkit.extract("clips.csv", "out", reporter=flowkit.LoggingReporter())  # doctest: +SKIP
    INFO:flowkit:Backend cpu, settings 2d1f0c4b5e6a7988.
    INFO:flowkit:120 clips to do
    """

    def __init__(self, things: str = "clips", name: str = "flowkit") -> None:
        super().__init__(things)
        self._logger = logging.getLogger(name)
        self._counts = False

    def note(self, text: str) -> None:
        """Log a note, or a warning."""
        if text.startswith(WARNING):
            self._logger.warning("%s", text.removeprefix(WARNING))
        else:
            self._logger.info("%s", text.removeprefix("Note: "))

    def detail(self, text: str) -> None:
        """Log a detail."""
        self._logger.debug("%s", text)

    def start(self, total: int) -> None:
        """Begin to count."""
        super().start(total)
        self._counts = True
        self._logger.info("%d %s to do", total, self._things)

    def advance(self, done: int, failed: int) -> None:
        """Count, and say so now and then."""
        self._add(done, failed)
        if self._line_is_due():
            self._logger.info("%s", self._line())

    def finish(self) -> None:
        """Log how many were done."""
        if self._counts:
            self._logger.info("%d of %d %s done, %d failed", self._done, self._total, self._things, self._failed)
        self._counts = False
