"""One task: its clips are gathered, then composed into a shard and committed."""

from __future__ import annotations

import itertools
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowkit.config import ExtractConfig
from flowkit.errors import ClipError
from flowkit.execution.progress import Reporter
from flowkit.execution.worker_process import Outcome
from flowkit.extraction.compute import Begun, ComputedClip, Overlap, compute
from flowkit.extraction.plan import Task
from flowkit.extraction.read_and_align import AlignedClip, clip_error
from flowkit.extraction.stage_times import COMMIT, STORE, Spent, TaskTimes
from flowkit.inputs.clip import Clip
from flowkit.storage import commit
from flowkit.storage.schema import Sample
from flowkit.storage.shard_writer import ShardBuilder

ClipOutcome = Outcome[AlignedClip] | Outcome[ComputedClip]
"""What a worker did with a clip: on the CPU all of it, for a GPU what comes before the flow."""


@dataclass(frozen=True, slots=True)
class TaskWork:
    """What a task needs besides its clips.

    `settings` is the configuration as run.json has it, made once: the files that it names may change while a run goes on.
    `run_id` and `device` go into the record: which run it was, and the GPU that computed.
    """

    config: ExtractConfig
    settings: Mapping[str, Any]
    threads: int
    batch: int
    reporter: Reporter
    run_id: str = ""
    device: str = ""

    def begin(self, task: Task) -> Gathered:
        """Return a task of which nothing is gathered yet."""
        return Gathered(task, ShardBuilder(len(task.clips), self.settings))


@dataclass(slots=True)
class Gathered:
    """What the clips of a task became, in their order, and what each stage took.

    `decoded_from_first` gives, by each reason why many frames before a clip had to be decoded, a video. `record` is there if the
    task was committed already, by an earlier run or by another one that was faster.
    """

    task: Task
    shard: ShardBuilder
    began: float = field(default_factory=time.time)
    failures: list[tuple[Clip, ClipError]] = field(default_factory=list)
    times: TaskTimes = field(default_factory=TaskTimes)
    decoded_from_first: dict[str, str] = field(default_factory=dict)
    record: commit.Record | None = None


def committed(task: Task, out: Path) -> commit.Record | None:
    """Return the commit record of a task, if there is one."""
    record = commit.read_record(commit.record_path(out, task.index))
    return record if record is not None and record.content["key"] == task.key else None


def gather(
    made: Gathered, outcomes: Iterator[tuple[Clip, ClipOutcome]], work: TaskWork, overlap: Overlap | None = None
) -> Iterator[None]:
    """Gather what the clips of a task become, and compute what no worker computed; yields after each batch.

    Parameters
    ----------
    made : Gathered
        Empty.
    outcomes : iterator of (Clip, Outcome)
        Each clip of the task, in its order, with the outcome of its worker.
    work : TaskWork
    overlap : Overlap, optional
        Computes a batch while the next is waited for and solved; left out, one after the other.
    """
    before: _Batch | None = None
    for given in _batches(made, outcomes, work.batch):
        batch = _Batch.of(given, made)
        if overlap is None:
            yield from _add(batch, made, work)
            continue
        batch.begun = overlap.begin(batch.aligned, made.times.stages)
        if before is not None:
            yield from _add(before, made, work, overlap)
        before = batch
    if before is not None:
        yield from _add(before, made, work, overlap)


def _batches(
    made: Gathered, outcomes: Iterator[tuple[Clip, ClipOutcome]], size: int
) -> Iterator[list[tuple[Clip, ClipOutcome]]]:
    while True:
        began = time.perf_counter()
        batch = list(itertools.islice(outcomes, size))
        made.times.waited_for_clips_s += time.perf_counter() - began
        if not batch:
            return
        yield batch


@dataclass(slots=True)
class _Batch:
    """Clips on their way into the shard.

    Attributes
    ----------
    clips : list of Clip
    found : mapping of str to Sample or ClipError
        What became of those that nothing is left to compute of.
    aligned : list of AlignedClip
        The others.
    begun : Begun, optional
        Of these, where they are computed with an overlap.
    """

    clips: list[Clip]
    found: dict[str, Sample | ClipError]
    aligned: list[AlignedClip]
    begun: Begun | None = None

    @classmethod
    def of(cls, outcomes: Sequence[tuple[Clip, ClipOutcome]], made: Gathered) -> _Batch:
        """Take what the workers did."""
        batch = cls([clip for clip, _ in outcomes], {}, [])
        for clip, outcome in outcomes:
            if outcome.value is None:
                batch.found[clip.clip_id] = clip_error(clip, outcome)
                continue
            made.times.add_clip(outcome.value.times, outcome.before)
            path, reason = outcome.value.decoded_from_first
            if reason:
                made.decoded_from_first.setdefault(reason, path)
            if isinstance(outcome.value, ComputedClip):
                batch.found[clip.clip_id] = outcome.value.result
            else:
                batch.aligned.append(outcome.value)
        return batch


def _add(batch: _Batch, made: Gathered, work: TaskWork, overlap: Overlap | None = None) -> Iterator[None]:
    """Compute what is left, and put the results in their place."""
    stages = made.times.stages
    if overlap is not None and batch.begun is not None:
        batch.found |= overlap.finish(batch.begun, stages)
    else:
        batch.found |= compute(batch.aligned, work.config, work.threads, stages)
    results = [(clip, batch.found[clip.clip_id]) for clip in batch.clips]
    failed = [(clip, result) for clip, result in results if isinstance(result, ClipError)]
    samples = [result for _, result in results if not isinstance(result, ClipError)]
    made.failures += failed
    with stages.measured(STORE, len(samples), time.thread_time):
        for sample in samples:
            made.shard.add(sample)
    work.reporter.advance(len(results), len(failed))
    yield


def store(made: Gathered, out: Path, work: TaskWork) -> commit.Record:
    """Compose what was gathered into a shard and commit it; nothing happens if the task is committed already.

    Returns
    -------
    Record
        The task's commit record: this run's, or that of another one that was faster.

    Raises
    ------
    DiskFull, ShardCorrupt
        As `commit.publish`.
    """
    if made.record is not None:
        return made.record
    stages = made.times.stages

    def check(image: bytes) -> None:
        made.shard.check(image)
        stages.add(COMMIT, Spent(cpu_s=time.thread_time()))  # all that this thread did, which hashed the image, too

    with stages.measured(COMMIT, len(made.shard), time.thread_time):
        image = made.shard.image() if len(made.shard) else None
        content = record_content(made.task, made.shard.rows, made.failures, made.began, work.run_id, work.device)
        return commit.publish(out, made.task.index, image, content, check)


def record_content(
    task: Task,
    samples: Sequence[Sample],
    failures: Sequence[tuple[Clip, ClipError]],
    began: float,
    run_id: str = "",
    device: str = "",
) -> dict[str, Any]:
    """What the commit record of a task says: its key, where, when and by which run it was done, and a line a clip."""
    rows = {clip.clip_id: clip.row_hash() for clip in task.clips}
    host = platform.node()
    return {
        "key": task.key,
        "run": run_id,
        "host": host,
        "device": device,
        "began": began,
        "ended": time.time(),
        "clips": [
            {
                "clip_id": sample["clip_id"],
                "dataset": sample["dataset"],
                "subject": sample["subject"],
                "label": sample["label"],
                "apex": int(sample["apex"]),
                "row": rows[sample["clip_id"]],
                "source_hash": sample["source_hash"],
                "phase_valid": [bool(valid) for valid in sample["phase_valid"]],
                "qc": sample["qc"],
                **{name: sample[name] for name in ("neighbours_hash",) if name in sample},
            }
            for sample in samples
        ],
        "failures": [
            {
                "clip_id": clip.clip_id,
                "row": rows[clip.clip_id],
                "code": str(error.code),
                "message": error.message,
                "path": error.path or clip.path,
                "host": host,
            }
            for clip, error in failures
        ],
    }
