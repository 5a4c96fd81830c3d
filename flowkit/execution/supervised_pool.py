"""Worker processes that may crash or hang without taking anything else with them.

`SupervisedPool` hands each worker one item at a time through a pipe of its own, so when a worker dies the item in flight is
known, not guessed. That item is tried once more, in a process that begins only then: whatever ends several workers in turn
takes one attempt of an item, not both. A second death or hang is the item's own fault and becomes its outcome.
(multiprocessing.Pool hangs for ever when a worker is killed, and ProcessPoolExecutor fails every item in flight without
saying which was to blame.)

"""

from __future__ import annotations

import multiprocessing
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, Self

from flowkit.execution.memory import memory_advice
from flowkit.execution.messages import receive, send
from flowkit.execution.worker_process import (
    Handler,
    OneThread,
    Outcome,
    WorkerStartError,
    await_end,
    children_allowed,
    main_hidden,
    serve,
    signals_held_back,
)

ATTEMPTS = 2
MAX_FAILED_STARTS = 3
"""So many workers in a row that end while they start are no accident."""
START_TIMEOUT_S = 300.0
"""How long a worker may take to import and set up before it counts as hanging: a cold network disk is slow."""


@dataclass(slots=True, eq=False)  # two jobs with equal items are two jobs
class _Job:
    item: Any
    attempt: int = 1
    first_worker: int = 0  # no older one may be given it
    outcome: Outcome[Any] | None = None
    cancelled: bool = False


@dataclass(slots=True)
class _Worker:
    process: BaseProcess
    pipe: Connection
    number: int
    job: _Job | None = None
    ready: bool = False
    deadline: float = field(default=float("inf"))


class SupervisedPool:
    """A pool of spawned processes under a supervising thread.

    Parameters
    ----------
    handler : callable
        Picklable; see `Handler`.
    workers : int
        Number of processes.
    timeout_s : float, or callable
        Longest time for one item, or a function of the item that gives it; a worker that takes longer is killed.
    progress : callable, optional
        Gives a value that changes as long as work goes on; each change gives the items in flight the whole time once more.
    window : int
        Most outcomes that wait to be consumed; bounds the memory.
    attempts : int
        How often an item is tried whose worker dies or hangs.
    parents : bool
        Whether workers may start processes of their own, which must end with them as these do.
    spent : callable, optional
        Told each outcome; where it says True, the worker is good for nothing more and is replaced. If that outcome is an
        exception, the item counts as crashed.
    changed : threading.Condition, optional
        Notified of every outcome; several pools may share one, so that one thread can wait for all of them.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        workers: int,
        timeout_s: float | Callable[[Any], float],
        window: int,
        attempts: int = ATTEMPTS,
        parents: bool = False,
        progress: Callable[[], Any] = lambda: None,
        spent: Callable[[Outcome[Any]], bool] = lambda _: False,
        changed: threading.Condition | None = None,
    ) -> None:
        self._handler = handler
        self._count = workers
        self._allowed = timeout_s if callable(timeout_s) else lambda _: timeout_s
        self._window = max(window, workers)
        self._attempts = attempts
        self._parents = parents
        self._progress = progress
        self._seen = progress()
        self._spent = spent
        self._context = multiprocessing.get_context("spawn")
        self._queue: deque[_Job] = deque()
        self._unconsumed = 0  # jobs handed to a worker whose outcome nobody has taken yet
        self._lock = changed or threading.Condition()
        self._closing = False
        self._started = self._failed_starts = self._wanted = 0
        self._broken: Exception | None = None
        self._wake_out, self._wake_in = self._context.Pipe(duplex=False)  # on Windows, `wait` takes no other pipe
        self._waking = threading.Lock()
        self._woken = False  # at most one message is under way, so that sending never waits
        self._workers: list[_Worker] = []
        self._thread = threading.Thread(target=self._supervise, name="flowkit-supervisor", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._closing = True
        self._wake()
        self._thread.join()
        self._wake_out.close()
        self._wake_in.close()

    def submit(self, items: Iterable[Any]) -> Submission:
        """Queue items behind all that were submitted before; work on them starts at once."""
        jobs = [_Job(item) for item in items]
        with self._lock:
            self._queue.extend(jobs)
        self._wake()
        return Submission(self, jobs)

    def start(self, workers: int) -> None:
        """Start so many workers now, at most all; without this, they start as there is work for them."""
        with self._lock:
            self._wanted = min(workers, self._count)
        self._wake()

    def _wake(self) -> None:
        with self._waking:
            if not self._woken:
                self._woken = True
                self._wake_in.send_bytes(b".")

    def _heed(self) -> None:
        with self._waking:
            self._wake_out.recv_bytes()
            self._woken = False

    # -- the consumer's side ---------------------------------------------------------------------------------------

    def _is_settled(self, job: _Job) -> bool:
        with self._lock:
            return job.outcome is not None or self._broken is not None

    def _take(self, job: _Job, poll: Callable[[], None]) -> Outcome[Any]:
        while True:
            poll()  # also where outcomes are always there at once: a run that was told to stop must hear it
            with self._lock:
                if job.outcome is None and self._broken is None:
                    self._lock.wait(timeout=0.2)
                if job.outcome is not None:
                    self._unconsumed -= 1
                    outcome, job.outcome = job.outcome, None
                    break
            if self._broken is not None:
                poll()  # what ended the workers may have ended this process too
                raise WorkerStartError(str(self._broken)) from self._broken
        self._wake()
        return outcome

    def _cancel(self, jobs: list[_Job]) -> None:
        with self._lock:
            for job in jobs:
                job.cancelled = True
                if job in self._queue:
                    self._queue.remove(job)
                    self._unconsumed -= job.attempt > 1
                elif job.outcome is not None:
                    job.outcome = None
                    self._unconsumed -= 1
        self._wake()

    # -- the supervisor's side -------------------------------------------------------------------------------------

    def _supervise(self) -> None:
        try:
            while not self._closing:
                self._staff()
                self._dispatch()
                self._listen()
                self._enforce_deadlines()
        except Exception as error:  # noqa: BLE001 - raised again in the thread that waits for outcomes
            with self._lock:
                self._broken = error
                self._lock.notify_all()
        finally:
            for worker in self._workers:
                self._stop(worker)

    def _staff(self) -> None:
        """Start workers as there is work for them; the dead were removed."""
        with self._lock:
            first = self._queue[0].first_worker if self._queue else 0
            occupied = sum(worker.job is not None or worker.number < first for worker in self._workers)
            wanted = min(self._count, max(len(self._queue) + occupied, self._wanted))
        while len(self._workers) < wanted:
            ours, theirs = self._context.Pipe()
            process = self._context.Process(
                target=serve, args=(OneThread(), self._handler, theirs), daemon=not self._parents
            )
            with main_hidden(), signals_held_back(), children_allowed():
                process.start()
            theirs.close()
            deadline = time.monotonic() + START_TIMEOUT_S
            self._workers.append(_Worker(process, ours, self._started, deadline=deadline))
            self._started += 1

    def _dispatch(self) -> None:
        for worker in self._workers:
            if not worker.ready or worker.job is not None:
                continue
            with self._lock:
                retry = bool(self._queue) and self._queue[0].attempt > 1
                if not self._queue or (self._unconsumed >= self._window and not retry):
                    return
                if worker.number < self._queue[0].first_worker:
                    continue
                job = self._queue.popleft()
                if not retry:
                    self._unconsumed += 1
            worker.job, worker.deadline = job, time.monotonic() + self._allowed(job.item)
            try:
                send(worker.pipe, job.item)
            except OSError:  # it died idle: the job was never begun
                worker.job = None
                self._requeue(job)

    def _listen(self) -> None:
        nearest = min((w.deadline for w in self._workers), default=float("inf"))
        timeout = min(1.0, max(0.0, nearest - time.monotonic()))
        handles: list[Any] = [self._wake_out]
        for worker in self._workers:
            handles += [worker.pipe, worker.process.sentinel]
        events = wait(handles, timeout)
        if self._wake_out in events:
            self._heed()
        for worker in list(self._workers):
            if worker.pipe in events:
                self._receive(worker)
            elif worker.process.sentinel in events:
                self._bury(worker)

    def _receive(self, worker: _Worker) -> None:
        try:
            outcome = receive(worker.pipe)
        except (EOFError, OSError):
            self._bury(worker)
            return
        if isinstance(outcome, WorkerStartError):
            raise WorkerStartError(f"{str(outcome).removesuffix('.')}{memory_advice(str(outcome))}")
        worker.ready, worker.deadline, self._failed_starts = True, float("inf"), 0
        if worker.job is not None:
            job, worker.job = worker.job, None
            if self._spent(outcome):
                self._stop(worker)
                self._workers.remove(worker)
                if outcome.kind == "raised":
                    self._blame(job, Outcome("crashed", error=outcome.error, detail=str(outcome.error)))
                    return
            self._settle(job, outcome)

    def _bury(self, worker: _Worker) -> None:
        await_end(worker.process)
        code = worker.process.exitcode
        self._workers.remove(worker)
        worker.pipe.close()
        how = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
        if worker.job is not None:
            self._blame(worker.job, Outcome("crashed", detail=how))
        elif not worker.ready:
            self._failed_starts += 1
            if self._failed_starts >= MAX_FAILED_STARTS:
                raise WorkerStartError(
                    f"{self._failed_starts} worker processes ended with {how} before they were ready{memory_advice(how)}"
                )

    def _enforce_deadlines(self) -> None:
        now = time.monotonic()
        before, self._seen = self._seen, self._progress()
        if self._seen != before:
            for worker in self._workers:
                if worker.job is not None:
                    worker.deadline = now + self._allowed(worker.job.item)
        for worker in [w for w in self._workers if w.deadline <= now]:
            if worker.job is None:
                raise WorkerStartError(f"a worker process was not ready after {START_TIMEOUT_S:.0f} s")
            self._stop(worker)
            self._workers.remove(worker)
            self._blame(worker.job, Outcome("timeout", detail=f"no answer in {self._allowed(worker.job.item):g} s"))

    def _blame(self, job: _Job, outcome: Outcome[Any]) -> None:
        if job.attempt >= self._attempts or job.cancelled:
            self._settle(job, outcome)
        else:
            job.attempt += 1
            job.first_worker = self._started
            self._requeue(job)

    def _requeue(self, job: _Job) -> None:
        with self._lock:
            if job.attempt == 1:
                self._unconsumed -= 1
            self._queue.appendleft(job)

    def _settle(self, job: _Job, outcome: Outcome[Any]) -> None:
        with self._lock:
            if job.cancelled:
                self._unconsumed -= 1
            else:
                job.outcome = outcome
            self._lock.notify_all()

    @staticmethod
    def _stop(worker: _Worker) -> None:
        worker.process.kill()  # it holds nothing that must be saved
        await_end(worker.process)
        worker.pipe.close()


class Submission:
    """Outcomes of the items of one `submit`, in their order."""

    def __init__(self, pool: SupervisedPool, jobs: list[_Job]) -> None:
        self._pool = pool
        self._jobs = deque(jobs)

    def outcomes(self, poll: Callable[[], None] = lambda: None) -> Iterator[tuple[Any, Outcome[Any]]]:
        """Yield (item, outcome); while waiting, `poll` is called about five times a second and may raise to stop.

        Raises
        ------
        WorkerStartError
            No worker could be set up.
        """
        while self._jobs:
            job = self._jobs[0]
            outcome = self._pool._take(job, poll)
            self._jobs.popleft()
            yield job.item, outcome

    def ready(self) -> bool:
        """Whether `outcomes` would give the next one, or raise, without waiting."""
        return not self._jobs or self._pool._is_settled(self._jobs[0])

    def cancel(self) -> None:
        """Drop what was not consumed yet."""
        self._pool._cancel(list(self._jobs))
        self._jobs.clear()
