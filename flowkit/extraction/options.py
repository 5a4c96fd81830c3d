"""How a run is carried out, and what it did: nothing here changes a result."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowkit.errors import ConfigError, FlowkitError
from flowkit.extraction.shares import Share
from flowkit.extraction.task import StageSeconds
from flowkit_kernels.host import cores

FEED = "read and align"
"""Reading and aligning as one stage: the same workers do both."""
MAX_DEVICE = 9999


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a run is carried out; none of this changes a result.

    Attributes
    ----------
    root : Path, optional
        What the paths of the manifest are relative to; its own folder by default.
    workers : int
        Processes that read and align; 0 for one a core. Several GPUs share them, at least one each.
    threads : int
        Threads that compute flow; 0 for one a core.
    batch : int
        Clips whose flow is computed together.
    overwrite : bool
        Discard what the folder holds.
    retry_failed : bool
        Try clips again that failed in an earlier run.
    verify_sources : bool
        Read the frames of committed clips once more and compare their hashes.
    max_error_rate : float
        Share of a run's clips that may fail; looked at after each shard, and the run stops above it.
    timeout_s : float
        Longest time for reading and aligning one clip.
    devices : tuple of int
        GPUs that a GPU backend computes on, as `flowkit doctor` counts them, one process each; the first by default.
    cluster : str
        Dask cluster that computes: "local", an address, or a scheduler file; empty for this process. `workers` and `threads` are
        then those of one place, one by default; with "local", `workers` are its workers.
    share : Share, optional
        Run this share of the tasks only, and leave what is derived from all shares (index, failures, report) alone.
    """

    root: Path | None = None
    workers: int = 0
    threads: int = 0
    batch: int = 16
    overwrite: bool = False
    retry_failed: bool = False
    verify_sources: bool = False
    max_error_rate: float = 0.1
    timeout_s: float = 120.0
    devices: tuple[int, ...] = ()
    cluster: str = ""
    share: Share | None = None

    def __post_init__(self) -> None:
        checks = {
            "workers": (0 <= self.workers <= 1024, "from 0 to 1024"),
            "threads": (0 <= self.threads <= 1024, "from 0 to 1024"),
            "batch": (1 <= self.batch <= 65536, "from 1 to 65536"),
            "max_error_rate": (0 <= self.max_error_rate <= 1, "from 0 to 1"),
            "timeout_s": (0 < self.timeout_s < math.inf, "positive"),
            "cluster": (
                not (self.cluster and self.devices),
                "without devices: a worker uses the GPU that it was given",
            ),
            "devices": (_are_devices(self.devices), f"indices from 0 to {MAX_DEVICE}, as whole numbers, each once"),
        }
        problems = [
            f"options: {name} must be {expectation}; got {getattr(self, name)}. Correct it."
            for name, (ok, expectation) in checks.items()
            if not ok
        ]
        problems += [] if self.share is None else self._not_with_share()
        if problems:
            raise ConfigError("\n".join(problems))

    def _not_with_share(self) -> list[str]:
        problems = []
        if self.overwrite:
            problems.append(
                "options: overwrite must come without a share; got both, and each share would discard what the others made. Use "
                "another folder, or remove the folder before the shares begin."
            )
        if self.retry_failed:
            problems.append(
                "options: retry_failed must come without a share; got both, and a share that begins later would try again what "
                "another has just tried. When all shares have ended, set it once without a share."
            )
        return problems

    def cores(self, wanted: int) -> int:
        """A number of workers or threads, where 0 means one a core."""
        return wanted or cores()


def _are_devices(given: object) -> bool:
    if not isinstance(given, (tuple, list)):
        return False
    indices = {index for index in given if type(index) is int and 0 <= index <= MAX_DEVICE}  # True is an int, too
    return len(indices) == len(given)


def parse_devices(text: str) -> tuple[int, ...]:
    """Indices of GPUs from a text such as "0,1".

    Raises
    ------
    ConfigError
    """
    parts = text.split(",")
    if not all(re.fullmatch(r"\s*[0-9]{1,4}\s*", part) for part in parts):
        shown = text if len(text) <= 40 else f"{text[:40]}..."
        raise ConfigError(
            f"options: --device must be indices of GPUs, comma-separated; got {shown!r}. Pass --device 0, or --device 0,1."
        )
    return tuple(int(part) for part in parts)


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
        rates = {FEED: self.workers * clips["align"] / feed_s} if feed_s else {}
        return rates | {name: self.processes * clips[name] / s for name, s in seconds.items() if s and clips[name]}

    @property
    def bound_by(self) -> str:
        """The stage that bounds the run, empty if nothing was computed: all but reading and aligning follow each other."""
        rates = self.stage_rates
        chain = {name: rate for name, rate in rates.items() if name != FEED}
        if not chain:
            return ""
        together = 1 / sum(1 / rate for rate in chain.values())
        return FEED if rates.get(FEED, math.inf) < together else min(chain, key=lambda name: chain[name])

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
