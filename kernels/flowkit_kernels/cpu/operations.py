"""The CPU backend: pairs shared out over threads that do not hold the interpreter lock, one pair a thread at a time."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import numpy.typing as npt

from flowkit_kernels.cpu import gauss_newton, half, head_fit, rasteriser, tvl1
from flowkit_kernels.cpu import mmcof as cpu_mmcof
from flowkit_kernels.cpu.code_cache import Entry
from flowkit_kernels.cpu.state import Workspace
from flowkit_kernels.numba_shared import MMCOFSettings
from flowkit_kernels.params import MIN_SIZE, MMCOFParams, TVL1Params


def entries() -> tuple[Entry, ...]:
    """Return what the operations below, registration and the head fit call, with the types of the arguments.

    One each: all arrays are plain.
    """
    image = np.zeros((MIN_SIZE, MIN_SIZE), np.float32)
    flow, combined = np.zeros((2, 2, *image.shape), np.float32), np.zeros((3, *image.shape), np.float32)
    level = gauss_newton.Level(image, 1.0, 0j, 1.0, 1.0)
    triangles, inside, sums = np.zeros((1, 3), np.int32), np.zeros((1, 1, 2), np.float32), np.zeros((1, 1))
    places = np.zeros((1, 1), np.intp)
    unknowns, noise = head_fit.Unknowns(1, 1, sums[0], places[0], places, sums[0]), head_fit.Noise(1.0, 1.0, 1.0, 1)
    calls = (
        (
            tvl1.solve,
            (image, image, flow[0], tvl1.Settings.of(TVL1Params()), Workspace.of(*image.shape, TVL1Params())),
        ),
        (cpu_mmcof.combine, (flow, image > 0, combined, MMCOFSettings.of(MMCOFParams()))),
        (gauss_newton.make_level, (image, 1, image > 0, 1, 1)),
        (gauss_newton.register_level, (level, image, (0j, 0j), 1)),
        (rasteriser.rasterise, (image, triangles, triangles, inside, image)),
        (rasteriser.interpolate, (triangles, inside, triangles, image, combined)),
        (
            head_fit.fit,
            (sums[None], sums, sums, sums[0] > 0, sums, unknowns, noise, 1, sums[0], sums, sums[0]),
        ),
        (head_fit.motion_field, (image, image, image[0], image, flow[0], image, flow)),
        (half.convert, (image[0].view(np.int32), image[0].view(np.int16))),
    )
    return tuple((function, tuple(map(numba.typeof, arguments))) for function, arguments in calls)


ROOMS = 2
"""Workspaces that a thread keeps: that of the flow, and that of whoever follows the head."""
KEPT_PIXELS = 2**20
"""Larger images get a workspace for one call, of some 90 bytes a pixel."""


class _Rooms(threading.local):
    """The workspaces that each thread used last: fresh memory for each clip took a fifth of the time of the clip's flow."""

    def __init__(self) -> None:
        self._kept = functools.lru_cache(maxsize=ROOMS)(Workspace.of)

    def workspace(self, height: int, width: int, params: TVL1Params) -> Workspace:
        """Room for images of this size, with whatever was left in it."""
        return (self._kept if height * width <= KEPT_PIXELS else Workspace.of)(height, width, params)


_rooms = _Rooms()


def tvl1_flow(
    stacks: Sequence[npt.NDArray[np.float32]], valid: npt.NDArray[np.bool_], params: TVL1Params, threads: int
) -> npt.NDArray[np.float32]:
    """As `backend.Operations` says; one workspace a thread, whatever N is."""
    images = [image for stack in stacks for image in stack.swapaxes(0, 1)]  # image s of every item
    height, width = images[0].shape[1:]
    flow = np.zeros((*valid.shape, 2, height, width), np.float32)
    pairs = np.argwhere(valid)
    settings = tvl1.Settings.of(params)

    def work_off(indices: Iterator[int]) -> None:
        work = _rooms.workspace(height, width, params)
        for i in indices:
            n, phase = pairs[i]
            tvl1.solve(images[phase][n], images[phase + 1][n], flow[n, phase], settings, work)

    _share_out(work_off, len(pairs), threads)
    return flow


def mmcof(
    flow: npt.NDArray[np.float32], params: MMCOFParams, region: npt.NDArray[np.bool_], threads: int
) -> npt.NDArray[np.float32]:
    """(N, 2, 2, H, W), (N, H, W) -> (N, 3, H, W)."""
    combined = np.empty((len(flow), 3, *flow.shape[-2:]), np.float32)
    settings = MMCOFSettings.of(params)

    def work_off(clips: Iterator[int]) -> None:
        for n in clips:
            cpu_mmcof.combine(
                flow[n], np.array(region[n]), combined[n], settings
            )  # which may be one for all, read-only

    _share_out(work_off, len(flow), threads)
    return combined


def _share_out(work_off: Callable[[Iterator[int]], None], count: int, threads: int) -> None:
    """Run `work_off` in each thread over one common iterator: whoever is free takes the next pair."""
    indices = iter(range(count))
    workers = min(threads, count)
    if workers <= 1:
        work_off(indices)
        return
    with ThreadPoolExecutor(workers) as pool:
        for future in [pool.submit(work_off, indices) for _ in range(workers)]:
            future.result()
