"""Where the time of a run went: wall and CPU seconds of each stage, on how many clips, and who waited for whom."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from flowkit.execution.worker_process import Interlude

STORE, COMMIT = "store", "commit"
STAGES = ("spot", "read", "align", "flow", "stabilise", "mmcof", STORE, COMMIT)
"""All stages, in the order in which a clip goes through them: "store" puts it into the shard in memory, "commit" is the file's."""
BEFORE_FLOW, BEFORE_STORE = STAGES[:3], STAGES[:-2]
"""What the workers do where a GPU computes the flow, and where the CPU does."""


@dataclass(slots=True)
class Spent:
    """Time that a stage took.

    Attributes
    ----------
    wall_s, cpu_s : float
        Added up over processes and threads.
    clips : int
        On how many clips.
    """

    wall_s: float = 0.0
    cpu_s: float = 0.0
    clips: int = 0

    def add(self, other: Spent) -> None:
        """Add another time of the stage."""
        self.wall_s += other.wall_s
        self.cpu_s += other.cpu_s
        self.clips += other.clips


class StageTimes(dict[str, Spent]):
    """Time of each stage by its name, in the order in which a clip goes through them.

    Examples
    --------
    >>> times = StageTimes()
    >>> with times.measured("read", clips=2):
    ...     pass
    >>> times["read"].clips
    2
    """

    def add(self, stage: str, spent: Spent) -> None:
        """Add to a stage."""
        self.setdefault(stage, Spent()).add(spent)

    def add_all(self, other: StageTimes) -> None:
        """Add to each stage."""
        for stage, spent in other.items():
            self.add(stage, spent)

    @contextmanager
    def measured(self, stage: str, clips: int, cpu: Callable[[], float] = time.process_time) -> Iterator[None]:
        """Add the time of a with-block, unless it raises.

        Parameters
        ----------
        stage : str
        clips : int
        cpu : callable
            Clock of CPU seconds: `time.thread_time` where other threads of the process do something else.
        """
        wall_s, cpu_s = time.perf_counter(), cpu()
        yield
        self.add(stage, Spent(time.perf_counter() - wall_s, cpu() - cpu_s, clips))

    def without(self, part: StageTimes) -> StageTimes:
        """Return what is left without a part of it; all of it where nothing would be left of a stage."""
        left = StageTimes()
        for stage, spent in self.items():
            less = part.get(stage, Spent())
            rest = Spent(spent.wall_s - less.wall_s, spent.cpu_s - less.cpu_s, spent.clips - less.clips)
            left[stage] = rest if rest.clips else spent
        return left


@dataclass(slots=True)
class TaskTimes:
    """Where the time of a task went, or of all tasks of a run.

    Attributes
    ----------
    stages : StageTimes
    first : StageTimes
        Of that, the first clip of each worker process: it loads compiled code and the landmark model.
    handed_over : Spent
        By workers: how long they took to send what they had made.
    workers_waited_s : float
        Added up over workers: how long they waited for a clip.
    started : Spent
        CPU seconds of the start of the workers; how many started, as clips.
    waited_for_clips_s, waited_for_commits_s : float
        How long the process that gathers clips waited for the workers, and for the commit of the task before.
    """

    stages: StageTimes = field(default_factory=StageTimes)
    first: StageTimes = field(default_factory=StageTimes)
    handed_over: Spent = field(default_factory=Spent)
    workers_waited_s: float = 0.0
    started: Spent = field(default_factory=Spent)
    waited_for_clips_s: float = 0.0
    waited_for_commits_s: float = 0.0

    def add_clip(self, times: StageTimes, before: Interlude | None) -> None:
        """Add what a worker took for a clip, and what it did before that."""
        self.stages.add_all(times)
        if before is None:
            return
        self.workers_waited_s += before.waited_s
        if before.started_cpu_s:
            self.first.add_all(times)
            self.started.add(Spent(0.0, before.started_cpu_s, 1))
        else:
            self.handed_over.add(Spent(before.sent_s, before.sent_cpu_s, 1))

    def add(self, other: TaskTimes) -> None:
        """Add those of another task."""
        self.stages.add_all(other.stages)
        self.first.add_all(other.first)
        self.handed_over.add(other.handed_over)
        self.workers_waited_s += other.workers_waited_s
        self.started.add(other.started)
        self.waited_for_clips_s += other.waited_for_clips_s
        self.waited_for_commits_s += other.waited_for_commits_s
