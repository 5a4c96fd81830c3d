"""What the kernels in Numba share: how they are compiled, and what the threads of one block find out together.

No fastmath: the kernels wait for memory and not for arithmetic, `ranges` has to see NaN, and the median has to be exact.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import cuda
from numba.cuda.core import config

Array = Any
"""An array on the device, within a kernel or outside."""
F32, F64 = np.float32, np.float64

THREADS = 128
"""Block of the kernels that give a block to each pair, clip or item."""

config.CUDA_LOW_OCCUPANCY_WARNINGS = 0  # a small batch, or a small level of a pyramid, is nothing to warn of


def kernel(function: Callable[..., None]) -> Any:
    """Compile for the GPU at the first launch; all of them take seconds, and Numba's cache would not see a change in this file."""
    return cuda.jit(function)


def device(function: Callable[..., Any]) -> Any:
    """Compile as a part of the kernels that call it."""
    return cuda.jit(device=True)(function)


@device
def block_sum(value: float, parts: Array) -> float:
    """Sum over the threads of the block, for each of them, always added in the same order."""
    parts[cuda.threadIdx.x] = value
    cuda.syncthreads()
    total: float = parts[0]
    for i in range(1, THREADS):
        total += parts[i]
    cuda.syncthreads()  # nobody may write the next value before everybody has read this one
    return total


@device
def block_min(value: float, parts: Array) -> float:
    """Minimum over the threads of the block, for each of them."""
    parts[cuda.threadIdx.x] = value
    cuda.syncthreads()
    low: float = parts[0]
    for i in range(1, THREADS):
        low = min(low, parts[i])
    cuda.syncthreads()
    return low


@kernel
def item_ranges(items: Array, limits: Array) -> None:
    """(N, M) -> (N, 2): minimum and maximum of each item, NaN if it holds one; a block an item."""
    n = cuda.blockIdx.x
    parts = cuda.shared.array(THREADS, F64)
    low, high, nans = F64(np.inf), F64(-np.inf), F64(0)
    for i in range(cuda.threadIdx.x, items.shape[1], THREADS):
        value = F64(items[n, i])
        if value == value:
            low, high = min(low, value), max(high, value)
        else:
            nans += F64(1)
    low, high, nans = block_min(low, parts), -block_min(-high, parts), block_sum(nans, parts)
    if cuda.threadIdx.x == 0:
        limits[n, 0] = F32(low) if nans == 0 else F32(np.nan)
        limits[n, 1] = F32(high) if nans == 0 else F32(np.nan)
