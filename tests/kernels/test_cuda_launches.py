"""What the "cuda" backend launches: tiles that cover a level, grids, chunks, and how often the host waits. Nothing runs."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from flowkit_kernels import TVL1Params
from flowkit_kernels.cuda.batches import MAX_PAIRS, chunk_items
from flowkit_kernels.cuda.solver import Limits, Phases, Solver
from flowkit_kernels.cuda.tiling import MAX_THREADS, ROWS, tiling

MICRO, FIXED, OPENCV = map(TVL1Params.preset, ("micro", "fixed", "opencv"))
TURING, HOPPER = Limits(64 * 1024, 40, 4 << 20), Limits(227 * 1024, 132, 60 << 20)


@dataclass
class Recorder:
    """A device that keeps what it is asked to do."""

    limits: Limits = HOPPER
    launches: list[tuple[str, tuple[int, int, int], tuple[int, int, int], tuple[Any, ...], int]] = field(
        default_factory=list
    )
    bytes: int = 0
    reads: int = 0
    still_running: int = 0

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        self.bytes += int(np.prod(shape)) * np.dtype(dtype).itemsize
        return np.lib.stride_tricks.as_strided(np.zeros(1, dtype), shape, (0,) * len(shape))  # takes no memory

    def upload(self, array: Any) -> Any:
        return array

    def read(self, array: Any) -> Any:
        self.reads += 1
        return np.full(array.shape, self.reads <= self.still_running)

    def launch(self, kernel: str, grid: Any, block: Any, *arguments: Any, shared_bytes: int = 0) -> None:
        self.launches.append((kernel, grid, block, arguments, shared_bytes))


def solve(device: Recorder, params: TVL1Params, shape: tuple[int, int], items: int) -> None:
    solver = Solver(device, params, shape, items, 3)
    faces = device.empty((items, 3, *shape), np.float32)
    solver.enter(faces, 0, 3)
    phases = Phases.of(device, np.ones((items, 2), bool))
    solver.leave(solver.solve(phases), phases, faces)


@pytest.mark.parametrize("shared_bytes", [48 * 1024, TURING.shared_bytes, HOPPER.shared_bytes])
@pytest.mark.parametrize("iterations", [1, 7, 20, 30])
@pytest.mark.parametrize("shape", [(16, 16), (16, 300), (61, 33), (128, 128), (224, 224), (480, 640), (97, 1001)])
def test_tiles_own_each_pixel_once_and_reach_far_enough(
    shape: tuple[int, int], iterations: int, shared_bytes: int
) -> None:
    cut = tiling(*shape, iterations, shared_bytes)
    bx, by = cut.block
    assert bx * by <= MAX_THREADS
    assert cut.shared_bytes(watched=True) <= shared_bytes
    assert 1 <= cut.iterations <= min(iterations, cut.halo)
    for side, tiles, own, reach in zip(shape[::-1], cut.tiles, cut.own, (bx, by * ROWS), strict=True):
        owned = np.zeros(side, int)
        for tile in range(tiles):
            first = tile * own
            left = first - (cut.halo if tile else 0)
            owned[first : first + own] += 1
            assert left >= 0
            assert first < side
            assert left + reach >= min(first + own + cut.halo, side)
        assert (owned == 1).all()


@pytest.mark.parametrize("params", [MICRO, FIXED, OPENCV], ids=["micro", "fixed", "opencv"])
def test_the_number_of_launches_does_not_depend_on_the_number_of_pairs(params: TVL1Params) -> None:
    devices = [Recorder() for _ in range(3)]
    for device, items in zip(devices, (1, 5, 64), strict=True):
        solve(device, params, (128, 128), items)
    one, *others = ([launch[0] for launch in device.launches] for device in devices)
    assert all(other == one for other in others)
    assert params is OPENCV or len(one) <= (200 if params is FIXED else 80)


def test_only_the_grid_grows_with_the_pairs() -> None:
    few, many = Recorder(), Recorder()
    solve(few, FIXED, (96, 128), 2)
    solve(many, FIXED, (96, 128), 6)
    planes = ([launch for launch in device.launches if launch[0] != "start_running"] for device in (few, many))
    for one, other in zip(*planes, strict=True):
        assert one[2] == other[2]
        assert other[1] == (*one[1][:2], 3 * one[1][2])


def test_every_scalar_has_the_very_type_that_its_kernel_takes() -> None:
    """A Python float would reach a kernel as a double, and nobody would say so."""
    for params in (MICRO, FIXED, OPENCV):
        device = Recorder()
        solve(device, params, (64, 80), 2)
        scalars = [argument for launch in device.launches for argument in launch[3] if np.ndim(argument) == 0]
        assert scalars
        assert {type(scalar) for scalar in scalars} <= {np.int32, np.float32}


@pytest.mark.parametrize("params", [MICRO, FIXED], ids=["micro", "fixed"])
def test_a_fixed_schedule_never_waits_for_the_gpu(params: TVL1Params) -> None:
    device = Recorder()
    solve(device, params, (128, 128), 4)
    assert device.reads == 0


def test_with_an_epsilon_the_host_asks_once_a_round_and_ends_the_warp_when_no_pair_runs() -> None:
    stopped, running = Recorder(), Recorder(still_running=10**9)
    params = TVL1Params(scales=1, warps=2, outer_iterations=4, inner_iterations=10, epsilon=0.01)
    solve(stopped, params, (64, 64), 2)
    solve(running, params, (64, 64), 2)
    assert stopped.reads == 2  # once a warp
    assert running.reads == 6  # not after the last round, of which nothing depends
    assert sum(launch[0] == "median" for launch in stopped.launches) == 2
    assert sum(launch[0] == "median" for launch in running.launches) == 8


def test_the_apex_is_entered_once_for_both_phases() -> None:
    device = Recorder()
    solve(device, FIXED, (64, 64), 5)
    entered = [launch[1] for launch in device.launches if launch[0] == "grey"]
    assert [grid[2] for grid in entered] == [15]
    shrunk = [launch[1][2] for launch in device.launches if launch[0] == "resize"]
    assert shrunk == [15] * 4  # images
    assert [launch[1][2] for launch in device.launches if launch[0] == "resize_flow"] == [10] * 4


PLENTY = 1 << 36


@pytest.mark.parametrize("limits", [TURING, HOPPER], ids=["turing", "hopper"])
@pytest.mark.parametrize("shape", [(16, 16), (128, 128), (224, 224), (480, 640), (2000, 2000)])
@pytest.mark.parametrize("phases", [1, 2])
@pytest.mark.parametrize("watched", [False, True])
def test_a_chunk_fills_the_gpu_and_no_more_than_a_launch_can_take(
    limits: Limits, shape: tuple[int, int], phases: int, watched: bool
) -> None:
    def items(count: int, free_bytes: int = PLENTY) -> int:
        return chunk_items(limits, shape, phases, count, free_bytes=free_bytes, watched=watched)

    most = items(10**6)
    assert 2 * most * phases <= 65535
    assert most * phases >= min(MAX_PAIRS // 2, limits.multiprocessors * MAX_THREADS // (shape[0] * shape[1]))
    assert items(1) == 1
    for count in (1, 2, 3, 100, 5000):
        assert 1 <= items(count) <= max(2 * count - 1, 1)
    for count in (2 * most + 1, 3 * most + 1):
        chunks = -(-count // items(count))
        assert chunks * items(count) - count < chunks  # all alike, not many full ones and a small rest
    assert items(10**6, free_bytes=0) == 1
    item_bytes = 4 * 19 * phases * shape[0] * shape[1]  # what the solver needs without images and transfer
    assert items(10**6, free_bytes=200_000_000) in range(1, max(2, 200_000_000 // item_bytes))


def test_cutting_a_very_large_level_into_tiles_is_quick() -> None:
    start = time.process_time()
    tiling(2003, 2011, 20, TURING.shared_bytes)
    assert time.process_time() - start < 2
