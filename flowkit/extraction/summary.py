"""`Summary`: what a run did."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowkit.errors import FlowkitError
from flowkit.extraction.shares import Share

READ_AND_ALIGN = "read and align"
"""Reading and aligning as one stage: the same workers do both."""


class StageSeconds(dict[str, float]):
    """Seconds spent in each stage, those of the feed over all its processes; `clips` says on how many clips."""

    def __init__(self, **seconds: float) -> None:
        super().__init__(**seconds)
        self.clips: Counter[str] = Counter()

    def add(self, stage: str, seconds: float, clips: int) -> None:
        """Add to a stage."""
        self[stage] = self.get(stage, 0.0) + seconds
        self.clips[stage] += clips

    def add_all(self, other: StageSeconds) -> None:
        """Add to each stage."""
        for stage, seconds in other.items():
            self.add(stage, seconds, other.clips[stage])

    @contextmanager
    def timed(self, stage: str, clips: int) -> Iterator[None]:
        """Add the time of a with-block."""
        start = time.perf_counter()
        yield
        self.add(stage, time.perf_counter() - start, clips)


@dataclass(slots=True)
class Summary:
    """What a run did. `planned == ok + failed + not_started` always.

    `seconds` leaves `compile_seconds` out, in which kernels were compiled, once per machine: no rate counts them.
    `ok` and `failed` count every clip of the manifest, or of the tasks of `share`, whenever it was done; `computed` counts this
    run's. `workers` processes read and aligned, `processes` did the rest. `stage_seconds` also counts the work on tasks that
    another run committed first.
    """

    out: Path
    planned: int = 0
    ok: int = 0
    failed: int = 0
    not_started: int = 0
    computed: int = 0
    resumed: int = 0
    seconds: float = 0.0
    compile_seconds: float = 0.0
    stage_seconds: StageSeconds = field(default_factory=StageSeconds)
    failure_codes: Counter[str] = field(default_factory=Counter)
    phases_invalid: int = 0
    stopped: FlowkitError | None = None
    workers: int = 1
    processes: int = 1
    share: Share | None = None

    @property
    def stage_rates(self) -> dict[str, float]:
        """Clips a second that each stage could do, had it nothing to wait for; spotting, reading and aligning are one."""
        seconds, clips = dict(self.stage_seconds), self.stage_seconds.clips
        feed_s = sum(seconds.pop(name, 0.0) for name in ("spot", "read", "align"))
        rates = {READ_AND_ALIGN: self.workers * clips["align"] / feed_s} if feed_s else {}
        return rates | {name: self.processes * clips[name] / s for name, s in seconds.items() if s and clips[name]}

    @property
    def bound_by(self) -> str:
        """The stage that bounds the run, empty if nothing was computed: all but reading and aligning follow each other."""
        rates = self.stage_rates
        chain = {name: rate for name, rate in rates.items() if name != READ_AND_ALIGN}
        if not chain:
            return ""
        together = 1 / sum(1 / rate for rate in chain.values())
        return (
            READ_AND_ALIGN
            if rates.get(READ_AND_ALIGN, math.inf) < together
            else min(chain, key=lambda name: chain[name])
        )

    @property
    def exit_code(self) -> int:
        """0 all done; 1 some clips failed; else that of what stopped the run."""
        if self.stopped is not None:
            return self.stopped.exit_code
        return 1 if self.failed else 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "out": str(self.out),
            "shard": None if self.share is None else str(self.share),
            "planned": self.planned,
            "ok": self.ok,
            "failed": self.failed,
            "not_started": self.not_started,
            "computed": self.computed,
            "resumed": self.resumed,
            "phases_invalid": self.phases_invalid,
            "seconds": round(self.seconds, 3),
            "compile_seconds": round(self.compile_seconds, 3),
            "clips_per_s": _rounded(self.computed / self.seconds) if self.seconds else 0.0,
            "stage_seconds": {name: round(value, 3) for name, value in self.stage_seconds.items()},
            "stage_clips": dict(self.stage_seconds.clips),
            "stage_clips_per_s": {name: _rounded(rate) for name, rate in self.stage_rates.items()},
            "bound_by": self.bound_by,
            "workers": self.workers,
            "processes": self.processes,
            "failure_codes": dict(sorted(self.failure_codes.items())),
            "stopped": str(self.stopped) if self.stopped else None,
            "exit_code": self.exit_code,
        }


def _rounded(rate: float) -> float:
    """Four digits, wherever the point is: a slow rate is not 0."""
    return float(f"{rate:.4g}")
