"""Progress on stderr: a bar on a terminal, else a line every ten seconds; stdout carries results only."""

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
        """Say something once."""

    def start(self, total: int) -> None:
        """So many networks are to be trained."""

    def advance(self, done: int, failed: int) -> None:
        """So many more were trained, so many more failed."""

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
    """Networks done and failed, their rate and the time left, on stderr."""

    def __init__(self) -> None:
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
            columns = (TextColumn("networks"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"))
            self._bar = Progress(*columns, TimeRemainingColumn(), console=self._console)
            self._task = self._bar.add_task("networks", total=total, note="")
            self._bar.start()

    def advance(self, done: int, failed: int) -> None:
        """Count, and say so now and then."""
        self._done += done
        self._failed += failed
        rate = self._done / max(time.monotonic() - self._began, 1e-9)
        if self._bar is not None:
            self._bar.update(self._task, advance=done + failed, note=f"{rate:.2f}/s, {self._failed} failed")
        elif time.monotonic() - self._last >= LINE_EVERY_S:
            self._last = time.monotonic()
            left = (self._total - self._done - self._failed) / max(rate, 1e-9)
            self.note(
                f"{self._done}/{self._total} networks, {self._failed} failed, {rate:.2f} networks/s, {left:.0f} s left"
            )

    def finish(self) -> None:
        """Stop the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
