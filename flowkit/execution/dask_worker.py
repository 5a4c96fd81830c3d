"""What stands on each worker of a Dask cluster; `cluster.py` is the other side.

A crew is a `SupervisedPool`, so that a process that crashes or hangs takes neither the worker nor other items along.
"""

from __future__ import annotations

import hashlib
import platform
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distributed import WorkerPlugin, get_worker

from flowkit.errors import EnvironmentMissing, FlowkitError
from flowkit.execution.supervised_pool import SupervisedPool
from flowkit.execution.worker_process import Handler, Outcome, WorkerStartError

IDLE_S = 60.0
"""After so long without an item a crew goes home; it is called again by the next."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What a worker must have in common with the client.

    Attributes
    ----------
    file : Path
        One that every machine must see as this one does: it tells whether the file system is shared.
    facts : callable
        Gives names and versions of what decides the last bits; picklable.
    answer : mapping
        What it should give.
    """

    file: Path
    facts: Callable[[], Mapping[str, str]]
    answer: Mapping[str, str]

    def digest(self) -> str:
        """Hash of the file, or what keeps one from reading it."""
        try:
            return hashlib.sha256(self.file.read_bytes()).hexdigest()
        except OSError as error:
            return str(error.strerror)


@dataclass(frozen=True, slots=True)
class Reply:
    """An outcome, and how the worker differs from what the client expects."""

    outcome: Outcome[Any]
    differences: tuple[str, ...]


class _Dismissed(Exception):
    """The crew was told to stop: the run has ended, or the worker is being closed."""


def do(crew: str, item: Any) -> Reply:
    """What Dask runs on a worker."""
    found: Crew = get_worker().plugins[crew]
    return found.do(item)


class Crew(WorkerPlugin):  # type: ignore[misc]
    """The processes of one run on one Dask worker; started by the first item, ended with the run, or when nothing comes."""

    def __init__(
        self,
        name: str,
        handler: Handler,
        expected: Expected,
        digest: str,
        timeout_s: float,
        places: int,
        spent: Callable[[Outcome[Any]], bool],
    ) -> None:
        self.name = name
        self._handler, self._expected, self._digest = handler, expected, digest
        self._timeout_s, self._places, self._spent = timeout_s, places, spent

    def setup(self, worker: Any) -> None:
        """On the worker, before its first item."""
        self._places = self._places or worker.state.nthreads
        self._lock = threading.Lock()
        self._pool: SupervisedPool | None = None
        self._items = 0  # that are being worked on
        self._dismissed = threading.Event()
        self._timer: threading.Timer | None = None
        self._differences: tuple[str, ...] = ()

    def teardown(self, worker: Any) -> None:
        """On the worker, when the run ends or the worker is closed."""
        self._dismissed.set()
        with self._lock:
            self._go_home()

    def do(self, item: Any) -> Reply:
        """Have one item done."""
        try:
            pool = self._enter()
        except FlowkitError as error:
            return Reply(Outcome("raised", error=error), ())
        try:
            ((_, outcome),) = pool.submit([item]).outcomes(self._check)
        except WorkerStartError as error:
            outcome = Outcome("raised", error=_no_process(error))
        finally:
            self._leave()
        return Reply(outcome, self._differences)

    def _check(self) -> None:
        if self._dismissed.is_set():
            raise _Dismissed(f"the crew on {platform.node()} was dismissed")

    def _enter(self) -> SupervisedPool:
        with self._lock:
            self._check()
            if self._timer is not None:
                self._timer.cancel()
            if self._pool is None:
                self._look_around()
                self._pool = self._called()
            self._items += 1
            return self._pool

    def _leave(self) -> None:
        with self._lock:
            self._items -= 1
            if not self._items and self._pool is not None:
                self._timer = threading.Timer(IDLE_S, self._close_if_idle)
                self._timer.daemon = True
                self._timer.start()

    def _called(self) -> SupervisedPool:
        pool = SupervisedPool(
            self._handler,
            workers=self._places,
            timeout_s=self._timeout_s,
            window=self._places,
            parents=True,
            spent=self._spent,
        )
        return pool.__enter__()

    def _look_around(self) -> None:
        """Compare this machine with the client's.

        Raises
        ------
        EnvironmentMissing
            It does not see the same files.
        """
        seen = self._expected.digest()
        if seen != self._digest:
            raise EnvironmentMissing(
                f"cluster: {platform.node()} must see {self._expected.file} as the machine does that runs the command; got "
                f"{'another file' if len(seen) == 64 else seen}. Put clips and --out on a file system that all machines share."
            )
        here, answer = self._expected.facts(), self._expected.answer
        self._differences = tuple(
            f"Note: {platform.node()} computes with other versions than the folder was begun with: {name} {answer.get(name)} -> "
            f"{here.get(name)}. Bytes may differ."
            for name in sorted({*here, *answer})
            if here.get(name) != answer.get(name)
        )

    def _close_if_idle(self) -> None:
        with self._lock:
            if not self._items:
                self._go_home()

    def _go_home(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.__exit__(None, None, None)


def _no_process(error: WorkerStartError) -> EnvironmentMissing:
    return EnvironmentMissing(
        f"cluster: a process on {platform.node()} must be able to start; got: {error}. Run flowkit doctor there."
    )
