"""`RunOptions`: how a run is carried out; none of this changes a result."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

from flowkit.errors import ConfigError
from flowkit.extraction.shares import Share
from flowkit_kernels.host import cores

MAX_DEVICE = 9999


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a run is carried out; none of this changes a result.

    Attributes
    ----------
    root : Path, optional
        What the paths of the manifest are relative to; its own folder by default.
    workers : int
        Processes that read and align, and on the CPU compute flow; 0 for one per core. Several GPUs share them, at least one each.
    threads : int
        Threads that compute, over all workers; 0 for one per core.
    batch : int
        Clips whose flow a GPU computes together.
    overwrite : bool
        Discard what the folder holds.
    retry_failed : bool
        Try clips again that failed in an earlier run.
    verify_sources : bool
        Read the frames of committed clips once more and compare their hashes.
    max_error_rate : float
        Share of a run's clips that may fail; looked at after each shard, and the run stops above it.
    timeout_s : float
        Longest time for one clip in a worker.
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
