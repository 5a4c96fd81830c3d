"""A small run of everything that the backend "cuda" computes, for whoever wants to see all kernels at work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from flowkit_kernels import MMCOFParams, TVL1Params, mmcof, tvl1_flow
from flowkit_kernels.backend import load_operations

FIXED = TVL1Params(scales=2, scale_step=0.8, warps=2, inner_iterations=6)
WATCHED = TVL1Params(scales=2, scale_step=0.8, warps=1, outer_iterations=3, inner_iterations=8, epsilon=0.03)
"""Some of the pairs below end early with it, at different iterations, some do not."""
SHAPE = (23, 41)


def faces(count: int, height: int, width: int) -> Any:
    """(2, N, H, W): blurred noise, and the same moved by up to a pixel, each pair by another amount."""
    noise = np.random.default_rng(7).random((count, height + 8, width + 8))
    for axis in (1, 2):
        noise = sum(np.roll(noise, shift, axis) for shift in range(-2, 3)) / 5
    window = (slice(None), slice(4, -4), slice(4, -4))
    moved = [(1 - n / count) * np.roll(pair, 1, 1) + n / count * pair for n, pair in enumerate(noise)]
    return np.stack([noise[window], np.stack(moved)[window]]).astype(np.float32)


def run_everything(shape: tuple[int, int] = SHAPE, backend: str = "cuda") -> dict[str, Any]:
    """What each operation gives, by name."""
    reference, moving = faces(4, *shape)
    phases = np.random.default_rng(8).normal(size=(2, 2, 2, *shape)).astype(np.float32)
    results = {
        "fixed": tvl1_flow(reference, moving, FIXED, backend=backend),
        "watched": tvl1_flow(reference, moving, WATCHED, backend=backend),
        "mmcof": mmcof(phases, MMCOFParams(border_px=2), backend=backend),
    }
    if backend == "cuda":
        operations: Any = load_operations(backend)
        for name, values in (("ranges", reference), ("ranges of a mask", reference > 0.5)):
            results[name] = operations.ranges(_on_device(values))
    return results


def _on_device(values: Any) -> Any:
    import cupy

    return cupy.asarray(values)


TILED = (80, 80)
"""Four tiles, each with halos on two sides, and one tile at the coarser level."""


@contextmanager
def chunks_of(items: int, backend: str) -> Iterator[None]:
    """Let a GPU backend compute so many items at a time, whatever would fit."""
    if backend == "cuda":
        from flowkit_kernels.cuda import batches

        place, name, replaced = batches, "chunk_items", lambda *_, **__: items
    else:
        from flowkit_kernels.numba_cuda import operations as cuda_numba

        whole = cuda_numba.in_chunks
        place, name = cuda_numba, "in_chunks"
        replaced = lambda count, _most, *rest: whole(count, items, *rest)  # noqa: E731 - named by what it replaces
    before = getattr(place, name)
    setattr(place, name, replaced)
    try:
        yield
    finally:
        setattr(place, name, before)


def run_in_parts(backend: str) -> list[Any]:
    """Flow of pairs on tiles with halos, in several chunks: launched one by one, recorded, replayed; and with an early end."""
    reference, moving = faces(5, *TILED)
    with chunks_of(2, backend):
        return [tvl1_flow(reference, moving, params, backend=backend) for params in (FIXED, FIXED, FIXED, WATCHED)]
