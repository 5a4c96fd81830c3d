"""How a run of training is carried out: nothing that decides a result, unlike `settings`. Imports no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from flowkit.errors import ConfigError
from flowkit.execution.dask_pool import LOCAL


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a run is carried out; none of this changes a result.

    Attributes
    ----------
    workers : int
        Processes that train; 0 for one a core, on a GPU for one.
    overwrite : bool
        Discard what the folder holds.
    timeout_s : float
        Longest time for one group of networks.
    cluster : str
        Dask cluster that trains: "local" (of `workers` processes), an address, or a scheduler file, whose workers train a network a
        thread; empty for this machine.
    """

    workers: int = 0
    overwrite: bool = False
    timeout_s: float = 86400.0
    cluster: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.workers <= 1024:
            raise ConfigError(f"options: workers must be from 0 to 1024; got {self.workers}. Correct it.")
        if not 0 < self.timeout_s < math.inf:
            raise ConfigError(f"options: timeout_s must be positive; got {self.timeout_s}. Correct it.")
        if self.workers and self.cluster not in ("", LOCAL):
            raise ConfigError(
                f"options: workers must be left out with the cluster {self.cluster}, whose workers train a network a thread; got "
                f"{self.workers}. Leave it out, and start Dask's workers with as many threads."
            )
