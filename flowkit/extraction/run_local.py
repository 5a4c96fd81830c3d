"""Where tasks run: here, in this process; `run_on_gpus` and `run_on_cluster` hold the other ways.

A placement is given the pending tasks and a `Job`, which crosses process borders, and gives back what became of each task, in
any order. It knows nothing of kernels; the tasks know nothing of where they run.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Protocol, Self

from flowkit.config import ExtractConfig
from flowkit.errors import EnvironmentMissing
from flowkit.execution.progress import Reporter
from flowkit.execution.stop import Stop
from flowkit.execution.supervised_pool import Submission, SupervisedPool
from flowkit.execution.worker_process import Handler, Outcome, WorkerStartError
from flowkit.extraction.compute import Overlap, whole_clips
from flowkit.extraction.plan import Task
from flowkit.extraction.stage_times import BEFORE_STORE, COMMIT, TaskTimes
from flowkit.extraction.task import ClipOutcome, Gathered, TaskWork, committed, gather, store
from flowkit.inputs.clip import Clip
from flowkit.storage import commit

POLL_S = 0.2
"""How often a run that waits asks whether it was told to stop."""


@dataclass(frozen=True, slots=True)
class Job:
    """What the tasks of a run have in common; picklable.

    Attributes
    ----------
    out : Path
    config : ExtractConfig
    settings : mapping
        The configuration as run.json has it.
    loader : Handler
        Sets up a worker that reads and aligns clips.
    workers, threads : int
        As in `RunOptions`, over all places.
    batch : int
        As in `RunOptions`.
    timeout_s : float
        Longest time for one clip in a worker.
    run_id : str
        Names the run, in its commit records.
    devices : mapping
        What each GPU is, by its index as text.
    """

    out: Path
    config: ExtractConfig
    settings: Mapping[str, Any]
    loader: Handler
    workers: int
    threads: int
    batch: int
    timeout_s: float
    run_id: str = ""
    devices: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def work(self, reporter: Reporter, device: str = "") -> TaskWork:
        """What each task needs besides its clips; `device` names the GPU that computes."""
        return TaskWork(self.config, self.settings, self.threads, self.batch, reporter, self.run_id, device)


@dataclass(frozen=True, slots=True)
class DoneTask:
    """A task that is done: its commit record, what its stages took, and `Gathered.decoded_from_first`."""

    task: Task
    record: commit.Record
    times: TaskTimes
    decoded_from_first: Mapping[str, str] = field(default_factory=dict)


DoneTasks = Generator[DoneTask, None, None]
Prepare = Callable[[], None]
"""Called before the first clip is begun, while processes start."""


class Placement(Protocol):
    """A way to have tasks run."""

    @property
    def by_workers(self) -> tuple[str, ...]:
        """Which stages worker processes do."""

    @property
    def processes(self) -> int:
        """How many tasks run at the same time."""

    def workers(self, job: Job) -> int:
        """How many worker processes there are."""

    def beside(self, job: Job) -> Mapping[str, int]:
        """Which of the stages that the workers do not do run beside the others, and in how many threads per process."""

    def run(self, tasks: Sequence[Task], job: Job, reporter: Reporter, stop: Stop, prepare: Prepare) -> DoneTasks:
        """Have every task run, and yield each when it is done, in any order; closing the iterator ends what runs.

        Raises
        ------
        Interrupted
            `stop` said so; it is asked several times a second.
        EnvironmentMissing, DiskFull, ShardCorrupt, DeviceLost
        """


class InProcess:
    """Worker processes do all that a clip needs; this one gathers the clips, task after task, and commits."""

    processes = 1
    by_workers: tuple[str, ...] = BEFORE_STORE

    def workers(self, job: Job) -> int:
        """As `Placement.workers`."""
        return job.workers

    def beside(self, job: Job) -> Mapping[str, int]:
        """As `Placement.beside`."""
        return {COMMIT: 1}

    def run(self, tasks: Sequence[Task], job: Job, reporter: Reporter, stop: Stop, prepare: Prepare) -> DoneTasks:
        """As `Placement.run`, in the tasks' order."""
        work = replace(job.work(reporter), batch=1)  # nothing is left to compute together
        with Committer(job.out, work) as committer, whole_clips_ahead(job) as ahead:
            ahead.start(sum(len(task.clips) for task in tasks))
            prepare()
            for task, following in itertools.zip_longest(tasks, tasks[1:]):
                made = work.begin(task)
                for _ in gathering(made, ahead.begin(task, following), job.out, work, stop.check):
                    yield from committer.done()
                yield from committer.commit(made, stop.check)
            yield from committer.rest(stop.check)


class Committer:
    """Commits tasks in a thread of its own, one after the other, while the clips of the next are gathered.

    What was begun is finished in any case: the context ends when the commit has.
    """

    def __init__(self, out: Path, work: TaskWork) -> None:
        self._out, self._work = out, work
        self._thread = ThreadPoolExecutor(1, "flowkit-commit")
        self._under_way: Future[DoneTask] | None = None
        self._waited_s = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown()

    def commit(self, made: Gathered, poll: Callable[[], None]) -> Iterator[DoneTask]:
        """Begin to commit a task when the one before is committed, which is yielded; so at most two are in memory.

        Raises
        ------
        DiskFull, ShardCorrupt
            The one before could not be committed.
        """
        yield from self.rest(poll)
        self._under_way = self._thread.submit(commit_one, made, self._out, self._work)

    def done(self) -> Iterator[DoneTask]:
        """Yield the task that was last begun, if it is committed; raises as `commit`."""
        if self._under_way is not None and self._under_way.done():
            future, self._under_way = self._under_way, None
            done = future.result()
            done.times.waited_for_commits_s, self._waited_s = self._waited_s, 0.0
            yield done

    def rest(self, poll: Callable[[], None]) -> Iterator[DoneTask]:
        """Wait for the task that was last begun, if any, and yield it; raises as `commit`."""
        while self._under_way is not None and not self._under_way.done():
            poll()
            began = time.perf_counter()
            wait([self._under_way], timeout=POLL_S)
            self._waited_s += time.perf_counter() - began
        yield from self.done()


def commit_one(made: Gathered, out: Path, work: TaskWork) -> DoneTask:
    """Store a task; raises as `task.store`."""
    return DoneTask(made.task, store(made, out, work), made.times, made.decoded_from_first)


class ReadAhead:
    """Reads ahead: the clips of one task are consumed while those of the following are being read."""

    def __init__(self, pool: SupervisedPool) -> None:
        self._pool = pool
        self._ahead: dict[int, Submission] = {}

    def start(self, clips: int) -> None:
        """Start the workers that so many clips will keep busy."""
        self._pool.start(clips)

    def begin(self, task: Task, following: Task | None) -> Submission:
        """Clips of a task; after them, those of the following are read."""
        current = self._ahead.pop(task.index, None) or self._pool.submit(task.clips)
        for stale in self._ahead.values():
            stale.cancel()
        self._ahead = {following.index: self._pool.submit(following.clips)} if following else {}
        return current


@contextmanager
def reading_ahead(job: Job) -> Iterator[ReadAhead]:
    """Worker processes that read and align clips, for as long as the context lasts."""
    with _pool(job, job.loader) as pool:
        yield ReadAhead(pool)


@contextmanager
def whole_clips_ahead(job: Job) -> Iterator[ReadAhead]:
    """Worker processes that do all that clips need on the CPU, for as long as the context lasts."""
    threads = max(1, job.threads // job.workers)
    with _pool(job, partial(whole_clips, job.loader, job.config, threads)) as pool:
        yield ReadAhead(pool)


def _pool(job: Job, handler: Handler) -> SupervisedPool:
    window = 2 * (job.workers + job.batch)
    return SupervisedPool(handler, workers=job.workers, timeout_s=job.timeout_s, window=window)


def carry_out(
    task: Task,
    feed: Submission,
    job: Job,
    work: TaskWork,
    overlap: Overlap | None = None,
) -> DoneTask:
    """Have one task run here, on the clips of its feed, and wait for it.

    Parameters
    ----------
    task : Task
    feed : Submission
        Of `ReadAhead.begin`; nothing of it is left afterwards.
    job : Job
    work : TaskWork
    overlap : Overlap, optional
        As of `task.gather`.

    Raises
    ------
    EnvironmentMissing
        No worker could be set up.
    DiskFull, ShardCorrupt
    """
    made = work.begin(task)
    for _ in gathering(made, feed, job.out, work, lambda: None, overlap=overlap):
        pass
    return commit_one(made, job.out, work)


def gathering(
    made: Gathered,
    feed: Submission,
    out: Path,
    work: TaskWork,
    poll: Callable[[], None],
    blamed: Mapping[str, str] = MappingProxyType({}),
    overlap: Overlap | None = None,
) -> Iterator[None]:
    """As `task.gather`, from the feed of a task, unless that is committed already; errors as of `carry_out`.

    Parameters
    ----------
    made, work, overlap
        As of `task.gather`.
    feed : Submission
    out : Path
    poll : callable
        Called several times a second; may raise to stop.
    blamed : mapping
        Clips that are set aside, and how each ended a process.
    """
    made.record = committed(made.task, out)
    try:
        if made.record is None:
            yield from gather(made, _outcomes(feed, poll, blamed), work, overlap)
    except WorkerStartError as error:
        poll()  # a signal to the whole process group ends workers too
        raise EnvironmentMissing(
            f"workers: a worker process must be able to start; got: {error}. Run flowkit doctor."
        ) from error
    finally:
        feed.cancel()  # nothing is left of it, unless another run committed the task


def _outcomes(
    feed: Submission, poll: Callable[[], None], blamed: Mapping[str, str]
) -> Iterator[tuple[Clip, ClipOutcome]]:
    for clip, outcome in feed.outcomes(poll):
        poll()
        yield clip, Outcome("crashed", detail=blamed[clip.clip_id]) if clip.clip_id in blamed else outcome
