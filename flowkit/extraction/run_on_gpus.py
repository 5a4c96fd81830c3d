"""Tasks on the GPUs of this machine: one process a device, which a GPU that fails takes with it, and nothing else."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.sharedctypes import RawArray
from pathlib import Path
from typing import Any

from flowkit.errors import DeviceLost, FailureCode
from flowkit.execution.progress import Reporter, Silent
from flowkit.execution.stop import Stop
from flowkit.execution.supervised_pool import ATTEMPTS, START_TIMEOUT_S, SupervisedPool
from flowkit.execution.worker_process import Outcome, WorkerStartError
from flowkit.extraction.compute import Overlap
from flowkit.extraction.plan import Task
from flowkit.extraction.run_local import POLL_S, Committer, DoneTask, DoneTasks, Job, Prepare, gathering, reading_ahead
from flowkit.extraction.stage_times import BEFORE_FLOW, COMMIT
from flowkit.inputs.clip import Clip
from flowkit.storage import durable_files

MAX_DEATHS = 2
"""After so many deaths in a row of the process on a GPU, its task is done clip by clip; after so many with the same clip
alone, that clip fails."""
MAX_BARREN_DEATHS = 4 * MAX_DEATHS
"""After so many deaths in a row without one clip computed between them, it is the GPU that is to blame, and it is taken out."""


class OnDevices:
    """One process a GPU, each with its share of workers and threads; a GPU that fails is taken out, its tasks go to the others.

    A clip that ends the process is found and fails alone. GPUs without a task stand by for one that is given back.
    Nothing is ever computed elsewhere than on a GPU of the list: where none is left, the run ends.

    Parameters
    ----------
    indices : sequence of int
        Which GPUs, as `flowkit_kernels.backend.use_device` counts them.
    use : callable
        Called once in each process with its index, before anything is computed; picklable.
    """

    by_workers: tuple[str, ...] = BEFORE_FLOW

    def __init__(self, indices: Sequence[int], use: Callable[[int], None]) -> None:
        self._indices = tuple(indices)
        self._use = use

    @property
    def processes(self) -> int:
        """One a GPU."""
        return len(self._indices)

    def workers(self, job: Job) -> int:
        """Return how many worker processes there are: at least one per GPU."""
        return max(job.workers, self.processes)

    def beside(self, job: Job) -> Mapping[str, int]:
        """As `Placement.beside`."""
        return {"stabilise": max(1, job.threads // self.processes), COMMIT: 1}

    def run(self, tasks: Sequence[Task], job: Job, reporter: Reporter, stop: Stop, prepare: Prepare) -> DoneTasks:
        """As `Placement.run`.

        Raises
        ------
        DeviceLost
            No GPU is left.
        """
        prepare()
        waiting, changed, tally = deque(tasks), threading.Condition(), _Tally(reporter)
        if len(tasks) < self.processes:
            reporter.note(_idle_note(len(tasks), self.processes))
        with ExitStack() as stack:
            stack.callback(durable_files.remove_stale_temporaries, job.out)  # of processes that ended amid a commit
            devices = [
                stack.enter_context(_Device(index, self._use, share, tally, changed))
                for index, share in zip(self._indices, _shares(job, self.processes, len(tasks)), strict=True)
            ]
            while True:
                _supply(devices, waiting)
                busy = [device for device in devices if device.task is not None]
                if not busy:
                    break
                with changed:
                    changed.wait_for(lambda busy=busy: any(device.ready() for device in busy), POLL_S)  # type: ignore[misc]
                stop.check()
                for device in busy:
                    device.report()
                    if device.ready():
                        yield from device.collect(waiting, reporter, stop)
        if waiting:
            raise _all_lost(devices, waiting[-1], job.out)


def _supply(devices: Sequence[_Device], waiting: deque[Task]) -> None:
    """A task for every GPU that has none, and only then one in reserve, whose clips are read ahead."""
    idle = [device for device in devices if device.task is None and not device.lost]
    for device in idle:
        device.take(waiting)
    for device in idle:
        device.begin(waiting)


def _idle_note(tasks: int, devices: int) -> str:
    return (
        f"Note: {tasks} task{'s' if tasks > 1 else ''} for {devices} devices: the others stand by. A task is one shard; where "
        "all should compute, choose a smaller --shard-clips and another --out."
    )


def _shares(job: Job, places: int, tasks: int) -> list[Job]:
    """The job for each place: those that get a task at once share its workers and threads, and one that stands by inherits."""
    busy = min(places, tasks)
    return [
        replace(job, workers=_share(job.workers, busy, place), threads=_share(job.threads, busy, place))
        for place in range(places)
    ]


def _share(whole: int, parts: int, part: int) -> int:
    return max(1, whole // parts + (part % parts < whole % parts))


def _all_lost(devices: Sequence[_Device], task: Task, out: Path) -> DeviceLost:
    what = "; ".join(f"device {device.index}: {device.lost}" for device in devices)
    return DeviceLost(
        f"extract: at least one GPU must work until the run ends; got none ({what}), lastly at task {task.index}, clips "
        f"{task.clips[0].clip_id} to {task.clips[-1].clip_id}. What was committed in {out} stays. Run flowkit doctor; then the "
        "same command again to go on."
    )


class _Tally:
    """Tells the reporter what was not told before: a task that is redone is not counted twice."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._told: dict[int, tuple[int, int]] = {}

    def tell(self, task: Task, done: int, failed: int) -> None:
        """So many clips of a task were computed, so many of them failed."""
        before = self._told.get(task.index, (0, 0))
        now = max(done, before[0]), max(failed, before[1])
        if now != before:
            self._reporter.advance(now[0] - before[0], now[1] - before[1])
            self._told[task.index] = now


class _Device:
    """One GPU: the process on it, the task that runs there, and the one in reserve.

    `lost` says why it was taken out, and is empty as long as it works.
    """

    def __init__(
        self,
        index: int,
        use: Callable[[int], None],
        job: Job,
        tally: _Tally,
        changed: threading.Condition,
    ) -> None:
        self.index = index
        self.task: Task | None = None
        self.lost = ""
        self._reserve: Task | None = None
        self._unsettled: Task | None = None  # computed, and perhaps not committed yet
        self._deaths = 0  # in a row, at this task
        self._barren = 0  # deaths in a row, at any task, without one clip computed between them
        self._suspected: Counter[str] = Counter()  # deaths with a clip alone
        self._blamed: dict[str, str] = {}  # how each clip that has had enough of them ended the process
        self._tally = tally
        self._counts = RawArray("q", 2)  # only the process on the GPU adds: no lock that it could die with
        self._pool = SupervisedPool(
            partial(_on_device, index, use, job, self._counts),
            workers=1,
            timeout_s=START_TIMEOUT_S + ATTEMPTS * min(job.batch, job.config.shard.clips) * job.timeout_s,  # a batch
            progress=lambda: tuple(self._counts),
            window=1,
            attempts=1,  # how often a task is tried is decided here
            parents=True,
            spent=partial(is_spent, job.run_id),
            changed=changed,
        )

    def __enter__(self) -> _Device:
        self._pool.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._pool.__exit__(*error)

    def take(self, waiting: deque[Task]) -> None:
        """Choose the next task."""
        self.task, self._reserve = self._reserve or (waiting.popleft() if waiting else None), None

    def begin(self, waiting: deque[Task]) -> None:
        """Start on it."""
        if self.task is None:
            return
        self._reserve = waiting.popleft() if waiting else None
        self._deaths, self._suspected, self._blamed = 0, Counter(), {}
        self._submit(self.task)

    def _submit(self, task: Task) -> None:
        self._counts[:] = (0, 0)  # nobody adds to it now
        settle = self._deaths > 0 or self._reserve is None
        order = _Order(task, self._reserve, self._deaths >= MAX_DEATHS, self._blamed, settle)
        self._submission = self._pool.submit([order])

    def ready(self) -> bool:
        """Whether `collect` would not wait."""
        return self._submission.ready()

    def report(self) -> None:
        """Tell how far the task is."""
        if self.task is not None:
            self._tally.tell(self.task, *self._counts)

    def collect(self, waiting: deque[Task], reporter: Reporter, stop: Stop) -> Iterator[DoneTask]:
        """The task that is done; or it is begun anew after a death, or given back with the GPU taken out."""
        if self.task is None:
            return
        try:
            _, outcome = next(self._submission.outcomes(stop.check))
        except WorkerStartError as error:
            self._take_out(f"no process can be started on it ({error})", self.task, waiting, reporter)
            return
        tasks: tuple[DoneTask, ...] | None = outcome.value
        if outcome.kind == "raised" and outcome.error is not None:
            raise outcome.error
        if self._counts[0] > self._counts[1]:
            self._barren = 0
        if tasks is None:
            self._mourn(self.task, outcome.detail, waiting, reporter)
            return
        settled = {done.task.index for done in tasks}
        self._unsettled, self.task = None if self.task.index in settled else self.task, None
        for done in tasks:
            self._tally.tell(done.task, len(done.task.clips), len(done.record.content["failures"]))
            yield done

    def _mourn(self, task: Task, how: str, waiting: deque[Task], reporter: Reporter) -> None:
        """Begin the task anew; clip by clip after two deaths, and without the clip that ends the process even so."""
        self._deaths += 1
        self._barren += 1
        if self._unsettled is not None:  # what was computed of it may be lost with the process
            if self._reserve is not None:
                waiting.appendleft(self._reserve)
            self._reserve, self.task, self._unsettled = task, self._unsettled, None
            task = self.task
        lost = f"its process was lost {self._deaths} times in a row"
        if self._barren >= MAX_BARREN_DEATHS:
            self._take_out(f"{lost} and computed no clip, lastly by: {how}", task, waiting, reporter)
            return
        if self._deaths > MAX_DEATHS:
            clip = self._in_flight(task)
            if clip is None:
                self._take_out(f"{lost} with no clip in flight, lastly by: {how}", task, waiting, reporter)
                return
            self._suspect(clip, how, reporter)
        way = ", clip by clip" if self._deaths >= MAX_DEATHS else ""
        reporter.note(
            f"Note: device {self.index}: its process was lost ({how}). Task {task.index} is begun anew there{way}."
        )
        self._submit(task)

    def _suspect(self, clip: Clip, how: str, reporter: Reporter) -> None:
        self._suspected[clip.clip_id] += 1
        if self._suspected[clip.clip_id] >= MAX_DEATHS:
            self._blamed[clip.clip_id] = f"the loss of the process on device {self.index} ({how})"
            reporter.note(f"Warning: clip {clip.clip_id} ends the process on a GPU: it fails, and its task goes on.")

    def _in_flight(self, task: Task) -> Clip | None:
        """The clip that was computed alone when the process was lost; None if that was no clip, or one that was set aside."""
        clip = task.clips[self._counts[0]] if self._counts[0] < len(task.clips) else None
        return None if clip is None or clip.clip_id in self._blamed else clip

    def _take_out(self, reason: str, task: Task, waiting: deque[Task], reporter: Reporter) -> None:
        for left in (self._reserve, self._unsettled):
            if left is not None:
                waiting.appendleft(left)
        waiting.append(task)  # the others first: it may be to blame
        self.task = self._reserve = self._unsettled = None
        self.lost = reason
        reporter.note(
            f"Warning: device {self.index} is taken out: {reason}. Its tasks go to the other devices, if any."
        )


@dataclass(frozen=True, slots=True)
class _Order:
    """What the process on a GPU is to do.

    Attributes
    ----------
    task : Task
    following : Task, optional
        Whose clips are read ahead.
    alone : bool
        Whether each clip is computed by itself.
    blamed : mapping
        Clips that are set aside, and how they ended a process.
    settle : bool
        Whether to wait for the commit. Otherwise the task is among the done ones of the next order.
    """

    task: Task
    following: Task | None
    alone: bool
    blamed: Mapping[str, str]
    settle: bool


def is_spent(run: str, outcome: Outcome[Any]) -> bool:
    """Whether a process is good for nothing more: its hold on the GPU is gone, or the GPU's memory was not enough."""
    if outcome.value is None:
        return isinstance(outcome.error, DeviceLost)
    tasks: tuple[DoneTask, ...] = outcome.value if isinstance(outcome.value, tuple) else (outcome.value,)
    failures = [one for done in tasks if done.record.is_of(run) for one in done.record.content["failures"]]
    return any(failure["code"] == FailureCode.GPU_OOM for failure in failures)


class _Counts(Silent):
    """A reporter that adds up in memory shared with the parent."""

    def __init__(self, counts: Any) -> None:
        self._counts = counts

    def advance(self, done: int, failed: int) -> None:
        """Add."""
        self._counts[0] += done
        self._counts[1] += failed


@contextmanager
def _on_device(
    index: int, use: Callable[[int], None], job: Job, counts: Any
) -> Iterator[Callable[[_Order], tuple[DoneTask, ...]]]:
    """Life of the process on one GPU: a feed of its own, and one task after the other, committed while the next is computed."""
    use(index)
    work = job.work(_Counts(counts), str(job.devices.get(str(index), {}).get("name", "")))
    with (
        reading_ahead(job) as ahead,
        Overlap(job.config, job.threads) as overlap,
        Committer(job.out, work) as committer,
    ):

        def carry(order: _Order) -> tuple[DoneTask, ...]:
            feed, made, done = ahead.begin(order.task, order.following), work.begin(order.task), list[DoneTask]()
            how, beside = (replace(work, batch=1), None) if order.alone else (work, overlap)
            for _ in gathering(made, feed, job.out, how, _never, order.blamed, beside):
                done += committer.done()
            done += committer.commit(made, _never)
            out_of_memory = any(error.code == FailureCode.GPU_OOM for _, error in made.failures)  # the process will end
            return (*done, *(committer.rest(_never) if order.settle or out_of_memory else ()))

        yield carry


def _never() -> None:
    """The parent ends this process when the run is stopped."""
