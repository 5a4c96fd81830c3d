"""Progress on stderr: a bar on a terminal, else a line every ten seconds; never on stdout, which carries results."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

LINE_EVERY_S = 10.0


class Reporter(Protocol):
    """Is told of a run's course."""

    def note(self, text: str) -> None:
        """Say something once: what is resumed, a warning."""

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

    def start(self, total: int) -> None:
        """Keep quiet."""

    def advance(self, done: int, failed: int) -> None:
        """Keep quiet."""

    def finish(self) -> None:
        """Keep quiet."""


class StderrProgress:
    """Done, failed, rate and time left, on stderr.

    Parameters
    ----------
    things : str
        What is counted.
    """

    def __init__(self, things: str = "clips") -> None:
        self._things = things
        self._console = Console(stderr=True, highlight=False, emoji=False)
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._total = self._done = self._failed = 0
        self._began = self._last = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish()

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        self._console.print(text, markup=False, soft_wrap=True)

    def start(self, total: int) -> None:
        """Begin to count."""
        self._total, self._done, self._failed = total, 0, 0
        self._began = self._last = time.monotonic()
        if sys.stderr.isatty():
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
        self._done += done
        self._failed += failed
        if self._bar is not None:
            self._bar.update(self._task, advance=done, note=f"{self._pace()}/s, {self._failed} failed")
        elif time.monotonic() - self._last >= LINE_EVERY_S:
            self._last = time.monotonic()
            left = (self._total - self._done) / max(self._rate(), 1e-9)
            self.note(
                f"{self._done}/{self._total} {self._things}, {self._failed} failed, {self._pace()} {self._things}/s, "
                f"{left:.0f} s left"
            )

    def finish(self) -> None:
        """Stop the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _rate(self) -> float:
        return self._done / max(time.monotonic() - self._began, 1e-9)

    def _pace(self) -> str:
        rate = self._rate()
        return f"{rate:.1f}" if rate >= 1 else f"{rate:.2f}"
