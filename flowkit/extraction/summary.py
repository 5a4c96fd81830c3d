"""`Summary`: what a run did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowkit.errors import FlowkitError
from flowkit.extraction.shares import Share
from flowkit.extraction.stage_times import BEFORE_STORE, TaskTimes

WORKERS = "workers"
"""All that the worker processes do, as one stage."""


@dataclass(slots=True)
class Summary:
    """What a run did. `planned == ok + failed + not_started` always.

    `seconds` leaves `compile_seconds` out, in which kernels were compiled, once per machine: no rate counts them.
    `ok` and `failed` count every clip of the manifest, or of the tasks of `share`, whenever it was done; `computed` counts this
    run's. `workers` processes did the stages `by_workers`, `processes` the others, of which those of `beside` run in so many
    threads of their own. `times` also counts the work on tasks that another run committed first.
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
    times: TaskTimes = field(default_factory=TaskTimes)
    by_workers: tuple[str, ...] = BEFORE_STORE
    beside: Mapping[str, int] = field(default_factory=dict)
    failure_codes: Counter[str] = field(default_factory=Counter)
    phases_invalid: int = 0
    stopped: FlowkitError | None = None
    workers: int = 1
    processes: int = 1
    share: Share | None = None

    @property
    def stage_rates(self) -> dict[str, float]:
        """Clips a second that each stage could do, had it nothing to wait for; what the workers do is one stage.

        The first clip of each worker does not count, unless there is no other.
        """
        times = self.times.stages.without(self.times.first)
        busy_s = sum(times[name].wall_s for name in self.by_workers if name in times)
        rates = {WORKERS: self.workers * times["align"].clips / busy_s} if busy_s else {}
        others = {name: one for name, one in times.items() if name not in self.by_workers and one.wall_s}
        threads = {name: self.processes * self.beside.get(name, 1) for name in others}
        return rates | {name: threads[name] * one.clips / one.wall_s for name, one in others.items() if one.clips}

    @property
    def bound_by(self) -> str:
        """What bounds the run, empty if nothing is known: the workers, a stage beside the others, or the slowest of the others.

        Those follow each other in one thread, so that together they are slower than each of them.
        """
        rates = self.stage_rates
        chain = {name: rate for name, rate in rates.items() if name not in (WORKERS, *self.beside)}
        bounds = {name: rate for name, rate in rates.items() if name not in chain}
        if chain:
            bounds[min(chain, key=lambda name: chain[name])] = 1 / sum(1 / rate for rate in chain.values())
        return min(bounds, key=lambda name: bounds[name], default="") if rates.keys() - {WORKERS} else ""

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
            "stage_seconds": {name: round(spent.wall_s, 3) for name, spent in self.times.stages.items()},
            "stage_cpu_seconds": {name: round(spent.cpu_s, 3) for name, spent in self.times.stages.items()},
            "stage_clips": {name: spent.clips for name, spent in self.times.stages.items()},
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
