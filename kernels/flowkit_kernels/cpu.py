"""The CPU backend: pairs shared out over threads that do not hold the interpreter lock, one pair a thread at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from flowkit_kernels.cpu_tvl1 import Settings, Workspace, solve
from flowkit_kernels.mmcof import MMCOFParams
from flowkit_kernels.tvl1 import TVL1Params


def tvl1_flow(
    reference: npt.NDArray[np.float32], moving: npt.NDArray[np.float32], params: TVL1Params, threads: int
) -> npt.NDArray[np.float32]:
    """(N, H, W), (N, H, W) -> (N, 2, H, W); one workspace a thread, whatever N is."""
    count, height, width = reference.shape
    flow = np.empty((count, 2, height, width), np.float32)
    settings = Settings.of(params)

    def work_off(pairs: Iterator[int]) -> None:
        work = Workspace.of(height, width)
        for n in pairs:
            solve(reference[n], moving[n], flow[n], settings, work)

    _share_out(work_off, count, threads)
    return flow


def _share_out(work_off: Callable[[Iterator[int]], None], count: int, threads: int) -> None:
    """Run `work_off` in each thread over one common iterator: whoever is free takes the next pair."""
    pairs = iter(range(count))
    if min(threads, count) == 1:
        work_off(pairs)
        return
    with ThreadPoolExecutor(min(threads, count)) as pool:
        for future in [pool.submit(work_off, pairs) for _ in range(min(threads, count))]:
            future.result()
