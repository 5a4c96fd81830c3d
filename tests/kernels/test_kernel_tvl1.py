"""The whole solver: against OpenCV, against known motion, and against itself under other circumstances."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_scenes import BACKENDS, FAST, INTERIOR, backend_params, end_point_error, opencv_flow, scene

from flowkit_kernels import TVL1Params, tvl1_flow

MICRO, FIXED, OPENCV = map(TVL1Params.preset, ("micro", "fixed", "opencv"))
presets = pytest.mark.parametrize("params", [MICRO, FIXED, OPENCV], ids=["micro", "fixed", "opencv"])
backends = backend_params(BACKENDS)
fast = backend_params(FAST)
sizes = pytest.mark.parametrize("size", [(224, 224), (128, 128), (97, 160)], ids=lambda size: f"{size[0]}x{size[1]}")


@fast
@sizes
@pytest.mark.parametrize("params", [MICRO, FIXED], ids=["micro", "fixed"])
def test_a_fixed_schedule_agrees_with_opencvs(backend: str, params: TVL1Params, size: tuple[int, int]) -> None:
    reference, moving, _ = scene(*size)
    ours = tvl1_flow(reference, moving, params, backend=backend)[0]
    difference = abs(ours - opencv_flow(reference, moving, params))[INTERIOR]
    assert difference.mean() <= 3e-3
    assert np.percentile(difference, 99) <= 0.04


@fast
@sizes
def test_the_opencv_preset_agrees_with_opencvs_default(backend: str, size: tuple[int, int]) -> None:
    reference, moving, _ = scene(*size)
    ours = tvl1_flow(reference, moving, OPENCV, backend=backend)[0]
    assert abs(ours - opencv_flow(reference, moving, OPENCV))[INTERIOR].mean() <= 0.015


@fast
@presets
@pytest.mark.parametrize("seed", [1, 2])
def test_known_motion_is_found_as_well_as_opencv_finds_it(backend: str, params: TVL1Params, seed: int) -> None:
    reference, moving, truth = scene(160, 192, seed)
    ours = end_point_error(tvl1_flow(reference, moving, params, backend=backend)[0], truth)
    assert ours <= 1.03 * end_point_error(opencv_flow(reference, moving, params), truth)
    assert ours <= 0.1 * end_point_error(np.zeros_like(truth), truth)


@fast
@presets
@pytest.mark.parametrize("size", [(16, 16), (17, 40), (61, 33)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_any_size_from_16_pixels_gives_the_twins_answer(
    backend: str, params: TVL1Params, size: tuple[int, int]
) -> None:
    reference, moving, _ = scene(*size)
    twin = tvl1_flow(reference, moving, params, backend="reference")
    difference = abs(tvl1_flow(reference, moving, params, backend=backend) - twin)
    assert np.median(difference) <= 1e-4
    # at the border, which such sizes mostly are, the problem itself jumps; with an epsilon, so does the end of a warp
    assert difference.mean() <= (3e-2 if params is OPENCV else 1e-2)


@backends
@presets
def test_no_motion_gives_exactly_none(backend: str, params: TVL1Params) -> None:
    face = scene(45, 64).reference
    assert not tvl1_flow(face, face, params, backend=backend).any()


@backends
def test_flow_says_where_each_reference_pixel_went(backend: str) -> None:
    reference = scene(48, 64).reference
    moving = np.roll(reference, (1, 2), axis=(1, 2))  # down by one, right by two
    u, v = tvl1_flow(reference, moving, backend=backend)[0][INTERIOR]
    assert np.median(u) == pytest.approx(2, abs=0.1)
    assert np.median(v) == pytest.approx(1, abs=0.1)


@fast
@presets
def test_a_pairs_result_depends_on_no_other_pair_and_on_no_thread(backend: str, params: TVL1Params) -> None:
    scenes = [scene(50, 70, seed) for seed in range(5)]
    reference, moving = (np.concatenate(images) for images in list(zip(*scenes, strict=True))[:2])
    alone = [tvl1_flow(reference[n : n + 1], moving[n : n + 1], params, backend=backend)[0] for n in range(5)]
    for threads in (1, 2, 3):
        together = tvl1_flow(reference, moving, params, backend=backend, threads=threads)
        assert together.tobytes() == np.stack(alone).tobytes()
    backwards = tvl1_flow(reference[::-1], moving[::-1], params, backend=backend)
    assert backwards[::-1].tobytes() == np.stack(alone).tobytes()


@fast
def test_a_smaller_call_in_between_changes_nothing(backend: str) -> None:
    reference, moving, _ = scene(96, 96)
    before = tvl1_flow(reference, moving, backend=backend)
    tvl1_flow(*scene(16, 16)[:2], backend=backend)
    assert tvl1_flow(reference, moving, backend=backend).tobytes() == before.tobytes()


def test_what_a_workspace_held_before_changes_nothing() -> None:
    cpu_tvl1 = pytest.importorskip("flowkit_kernels.cpu.tvl1")
    reference, moving, _ = scene(50, 70)
    for params in (FIXED, OPENCV):
        settings, work = cpu_tvl1.Settings.of(params), cpu_tvl1.Workspace.of(50, 70, params)
        for lines in work[1:-1]:
            lines[:] = np.random.default_rng(3).normal(scale=1e3, size=lines.shape)
        flow = np.empty((2, 50, 70), np.float32)
        cpu_tvl1.solve(reference[0], moving[0], flow, settings, work)
        assert flow.tobytes() == tvl1_flow(reference, moving, params, backend="cpu")[0].tobytes()


def test_iterations_that_sweep_together_equal_iterations_one_by_one() -> None:
    """An epsilon that is never reached makes the CPU backend look after each iteration."""
    pytest.importorskip("flowkit_kernels.cpu.operations")
    reference, moving, _ = scene(40, 60)
    few = {"scales": 1, "warps": 1, "outer_iterations": 2, "inner_iterations": 23}  # rounding has no time to grow
    together = tvl1_flow(reference, moving, TVL1Params(**few), backend="cpu")  # type: ignore[arg-type]
    one_by_one = tvl1_flow(reference, moving, TVL1Params(epsilon=1e-12, **few), backend="cpu")  # type: ignore[arg-type]
    assert abs(together).max() > 0.1
    assert abs(together - one_by_one).max() < 1e-5


@backends
def test_epsilon_ends_a_warp_after_the_iteration_that_reaches_it(backend: str) -> None:
    reference, moving, _ = scene(40, 60)
    easily_pleased = TVL1Params(epsilon=1e3, inner_iterations=30, outer_iterations=10, scales=1, warps=2)
    once = TVL1Params(inner_iterations=1, outer_iterations=1, scales=1, warps=2)
    stopped = tvl1_flow(reference, moving, easily_pleased, backend=backend)
    assert abs(stopped).max() > 0.1
    assert abs(stopped - tvl1_flow(reference, moving, once, backend=backend)).max() < 1e-5


@backends
@pytest.mark.parametrize("change", [{"median_filtering": 1}, {"scales": 1}, {"warps": 1}, {"lambda_": 0.05}], ids=str)
def test_every_backend_heeds_every_parameter_alike(backend: str, change: dict[str, float]) -> None:
    reference, moving, _ = scene(48, 56)
    params = TVL1Params(**change)  # type: ignore[arg-type]
    changed = tvl1_flow(reference, moving, params, backend=backend)
    assert abs(changed - tvl1_flow(reference, moving, backend=backend)).mean() > 3e-3
    twin = tvl1_flow(reference, moving, params, backend="reference")
    assert abs(changed - twin)[INTERIOR].mean() <= 3e-3
