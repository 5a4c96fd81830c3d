"""Where tasks run: here, in this process; `run_on_gpus` and `run_on_cluster` hold the other ways.

A placement is given the pending tasks and a `Job`, which crosses process borders, and gives back what became of each task, in
any order. It knows nothing of kernels; the tasks know nothing of where they run.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from flowkit.config import ExtractConfig
from flowkit.errors import EnvironmentMissing
from flowkit.execution.progress import Reporter
from flowkit.execution.stop import Stop
from flowkit.execution.supervised_pool import Submission, SupervisedPool
from flowkit.execution.worker_process import Handler, Outcome, WorkerStartError
from flowkit.extraction.plan import Task
from flowkit.extraction.read_and_align import AlignedClip
from flowkit.extraction.summary import StageSeconds
from flowkit.extraction.task import TaskWork, run_task
from flowkit.inputs.clip import Clip
from flowkit.storage import commit


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
        Processes that do so, and threads that compute flow, over all places.
    batch : int
        As in `RunOptions`.
    timeout_s : float
        Longest time for reading and aligning one clip.
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


@dataclass(frozen=True, slots=True)
class DoneTask:
    """A task that is done: its commit record, and what its stages took."""

    task: Task
    record: commit.Record
    stage_seconds: StageSeconds


class Placement(Protocol):
    """A way to have tasks run."""

    @property
    def processes(self) -> int:
        """How many tasks run at the same time."""

    def workers(self, job: Job) -> int:
        """How many processes read and align."""

    def run(self, tasks: Sequence[Task], job: Job, reporter: Reporter, stop: Stop) -> Generator[DoneTask, None, None]:
        """Have every task run, and yield each when it is done, in any order; closing the iterator ends what runs.

        Raises
        ------
        Interrupted
            `stop` said so; it is asked several times a second.
        EnvironmentMissing, DiskFull, ShardCorrupt, DeviceLost
        """


class InProcess:
    """One task after the other, in this process."""

    processes = 1

    def workers(self, job: Job) -> int:
        """As `Placement.workers`."""
        return job.workers

    def run(self, tasks: Sequence[Task], job: Job, reporter: Reporter, stop: Stop) -> Generator[DoneTask, None, None]:
        """As `Placement.run`, in the tasks' order."""
        with reading_ahead(job, job.workers) as ahead:
            for task, following in itertools.zip_longest(tasks, tasks[1:]):
                yield carry_out(task, ahead.begin(task, following), job, reporter, stop.check)


class ReadAhead:
    """Reads ahead: the clips of one task are consumed while those of the following are being read."""

    def __init__(self, pool: SupervisedPool) -> None:
        self._pool = pool
        self._ahead: dict[int, Submission] = {}

    def begin(self, task: Task, following: Task | None) -> Submission:
        """Clips of a task; after them, those of the following are read."""
        current = self._ahead.pop(task.index, None) or self._pool.submit(task.clips)
        for stale in self._ahead.values():
            stale.cancel()
        self._ahead = {following.index: self._pool.submit(following.clips)} if following else {}
        return current


@contextmanager
def reading_ahead(job: Job, workers: int) -> Iterator[ReadAhead]:
    """Worker processes that read and align clips, for as long as the context lasts."""
    window = 2 * (workers + job.batch)
    with SupervisedPool(job.loader, workers=workers, timeout_s=job.timeout_s, window=window) as pool:
        yield ReadAhead(pool)


def carry_out(
    task: Task,
    feed: Submission,
    job: Job,
    reporter: Reporter,
    poll: Callable[[], None] = lambda: None,
    blamed: Mapping[str, str] = MappingProxyType({}),
    device: str = "",
) -> DoneTask:
    """Have one task run here, on the clips of its feed.

    Parameters
    ----------
    task : Task
    feed : Submission
        Of `ReadAhead.begin`; nothing of it is left afterwards.
    job : Job
    reporter : Reporter
    poll : callable
        Called several times a second; may raise to stop.
    blamed : mapping
        Clips that are set aside, and how each ended a process.
    device : str
        The GPU that computes, for the record.

    Raises
    ------
    EnvironmentMissing
        No worker could be set up.
    DiskFull, ShardCorrupt
    """
    seconds = StageSeconds()
    work = TaskWork(job.config, job.settings, job.threads, job.batch, seconds, reporter, job.run_id, device)
    try:
        record = run_task(task, partial(_outcomes, feed, poll, blamed), job.out, work)
    except WorkerStartError as error:
        poll()  # a signal to the whole process group ends workers too
        raise EnvironmentMissing(
            f"workers: a worker process must be able to start; got: {error}. Run flowkit doctor."
        ) from error
    finally:
        feed.cancel()  # nothing is left of it, unless another run committed the task
    return DoneTask(task, record, seconds)


def _outcomes(
    feed: Submission, poll: Callable[[], None], blamed: Mapping[str, str]
) -> Iterator[tuple[Clip, Outcome[AlignedClip]]]:
    for clip, outcome in feed.outcomes(poll):
        poll()
        yield clip, Outcome("crashed", detail=blamed[clip.clip_id]) if clip.clip_id in blamed else outcome
