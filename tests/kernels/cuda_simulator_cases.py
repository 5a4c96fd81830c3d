"""The backend numba-cuda as a whole, small enough for Numba's simulator: test_cuda_simulator.py runs these with it switched on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernel_scenes import scene
from numba import cuda
from numba.cuda.core import config

from flowkit_kernels import MMCOFParams, TVL1Params, mmcof, reference, tvl1_flow
from flowkit_kernels.errors import DeviceOutOfMemory
from flowkit_kernels.numba_cuda import operations
from flowkit_kernels.numba_cuda.device import in_chunks

SHORT = TVL1Params(warps=1, inner_iterations=2)
STOPPING = TVL1Params(warps=2, outer_iterations=2, inner_iterations=4, epsilon=0.1)
STOPPING_SOON = TVL1Params(warps=1, outer_iterations=2, inner_iterations=2, epsilon=0.1)


def faces(items: int, height: int = 16, width: int = 16) -> Any:
    """(N, 3, H, W): a face, the same one moved, and another."""
    pairs = [scene(height, width, seed) for seed in range(items + 1)]
    return np.stack([[*pairs[n].reference, *pairs[n].moving, *pairs[n + 1].reference] for n in range(items)])


def test_the_simulator_is_on() -> None:
    assert config.ENABLE_CUDASIM


@pytest.mark.parametrize(
    ("size", "params"),
    [
        pytest.param((16, 16), TVL1Params.preset("fixed"), marks=pytest.mark.slow),
        ((21, 33), TVL1Params(scale_step=0.8, warps=2, inner_iterations=3)),  # two levels
        pytest.param(
            (32, 32), TVL1Params(scales=5, scale_step=0.8, warps=1, inner_iterations=3), marks=pytest.mark.slow
        ),  # four
        ((17, 20), TVL1Params(warps=1, inner_iterations=3, median_filtering=1, round_coordinates=True)),
    ],
    ids=["16x16", "21x33", "32x32", "17x20"],
)
def test_the_solver_gives_the_twins_answer(size: tuple[int, int], params: TVL1Params) -> None:
    first, second, _ = scene(*size)
    twin = tvl1_flow(first, second, params, backend="reference")
    difference = abs(tvl1_flow(first, second, params, backend="numba-cuda") - twin)
    assert abs(twin).max() > 0.1
    assert np.median(difference) <= 1e-4
    assert difference.mean() <= 1e-2


@pytest.mark.parametrize(
    "params", [STOPPING_SOON, pytest.param(STOPPING, marks=pytest.mark.slow)], ids=["soon", "later"]
)
def test_pairs_stop_each_for_itself_and_invalid_phases_stay_zero(params: TVL1Params) -> None:
    stack, valid = faces(2), np.array([[True, False], [True, True]])
    flow = operations.tvl1_flow([stack[:, :1], stack[:, 1:]], valid, params, 1)
    twin = reference.tvl1_flow([stack], valid, params)
    assert not flow[0, 1].any()
    assert np.median(abs(flow - twin)) <= 1e-4
    assert abs(flow - twin).mean() <= 1e-2
    for n, phase in np.argwhere(valid):
        pair = stack[n : n + 1, phase : phase + 2]
        alone = operations.tvl1_flow([pair], np.ones((1, 1), bool), params, 1)
        assert flow[n, phase].tobytes() == alone.tobytes()


def test_epsilon_ends_a_warp_after_the_iteration_that_reaches_it() -> None:
    first, second, _ = scene(16, 20)
    easily_pleased = TVL1Params(warps=1, epsilon=1e3, inner_iterations=3, outer_iterations=2)
    stopped = tvl1_flow(first, second, easily_pleased, backend="numba-cuda")
    once = tvl1_flow(first, second, TVL1Params(warps=1, inner_iterations=1), backend="numba-cuda")
    assert stopped.any()
    assert stopped.tobytes() == once.tobytes()


def test_arrays_on_the_device_stay_there_and_give_the_same_bits() -> None:
    stack, valid = faces(2), np.array([[False, False], [True, False]])
    host = operations.tvl1_flow([stack], valid, SHORT, 1)
    device = operations.tvl1_flow([cuda.to_device(stack)], valid, SHORT, 1)
    assert type(device) is type(cuda.to_device(stack))
    assert host[1, 0].any()
    assert device.copy_to_host().tobytes() == host.tobytes()
    flow, region = host[1:], np.ones((1, 16, 16), bool)
    combined = operations.mmcof(cuda.to_device(flow), MMCOFParams(), cuda.to_device(region), 1)
    assert combined.copy_to_host().tobytes() == operations.mmcof(flow, MMCOFParams(), region, 1).tobytes()


def test_nothing_to_compute_gives_zeros() -> None:
    assert not operations.tvl1_flow([faces(1)], np.zeros((1, 2), bool), SHORT, 1).any()


@pytest.mark.parametrize(
    "change",
    [{"gate": "hard"}, {"direction": "rise"}, {"direction": "sum"}, {"region": "image"}, {"modulate": False}],
    ids=str,
)
def test_mmcof_gives_the_twins_answer(change: dict[str, Any]) -> None:
    flow = np.random.default_rng(0).normal(size=(2, 2, 2, 18, 21)).astype(np.float32)
    flow[1, 1] = 0
    params = MMCOFParams(**change)
    together = mmcof(flow, params, backend="numba-cuda")
    np.testing.assert_allclose(together, mmcof(flow, params, backend="reference"), atol=1e-5)
    assert mmcof(flow[1:], params, backend="numba-cuda").tobytes() == together[1:].tobytes()


def test_ranges_are_those_of_each_item_and_nan_where_one_is() -> None:
    images = np.random.default_rng(0).normal(size=(3, 1, 17, 19)).astype(np.float32)
    expected = np.stack([images.min(axis=(1, 2, 3)), images.max(axis=(1, 2, 3))], axis=1)
    images[1, 0, 16, 18] = expected[1] = np.nan
    np.testing.assert_array_equal(operations.ranges(cuda.to_device(images)), expected)
    mask = np.zeros((2, 5, 5), bool)
    mask[1, 4, 4] = True
    np.testing.assert_array_equal(operations.ranges(cuda.to_device(mask)), [[0, 0], [0, 1]])


def test_chunks_shrink_until_they_fit_and_cover_every_item_once() -> None:
    done: list[int] = []

    def compute(chunk: slice) -> None:
        if chunk.stop - chunk.start > 3:
            raise DeviceOutOfMemory("GPU: too small.")
        done.extend(range(chunk.start, chunk.stop))

    in_chunks(11, 100, 1, compute)
    assert done == list(range(11))
    with pytest.raises(DeviceOutOfMemory):
        in_chunks(11, 100, 1, lambda chunk: compute(slice(0, 4)))
