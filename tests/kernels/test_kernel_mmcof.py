"""MM-COF: each line of its definition on cases small enough to know the answer, and the backends against the twin."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from kernel_scenes import BACKENDS, backend_params

from flowkit_kernels import MMCOFParams, mmcof

backends = backend_params(BACKENDS)
PLAIN: dict[str, Any] = {"region": "image", "floor_px": 0.0, "modulate": False}


def random_flow(count: int, height: int = 40, width: int = 56, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(count, 2, 2, height, width)).astype(np.float32)


def mouth_flow() -> npt.NDArray[np.float32]:
    """224 x 224: 1 px of motion at the mouth, 0.3 px of drift, and 1.8 px of nonsense in one border pixel."""
    y, x = np.mgrid[:224, :224]
    flow = np.zeros((1, 2, 2, 224, 224), np.float32)
    flow[0, 0, 0] = 0.3 + 0.7 * np.exp(-((x - 112) ** 2 + (y - 165) ** 2) / 300)
    flow[0, 0, 0, 0, 100] = 1.8
    flow[0, 1] = -flow[0, 0]
    return flow


@backends
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"gate": "hard"},
        {"direction": "rise"},
        {"direction": "sum"},
        {"region": "image"},
        {"modulate": False},
        {"theta_1": 0.8, "theta_2": 0.1, "alpha": 2.0, "beta": 0.2, "k": 5.0, "c": 0.5, "border_px": 3},
    ],
    ids=str,
)
def test_every_backend_gives_the_twins_answer(backend: str, change: dict[str, Any]) -> None:
    flow, params = random_flow(2), MMCOFParams(**change)
    twin = mmcof(flow, params, backend="reference")
    np.testing.assert_allclose(mmcof(flow, params, backend=backend), twin, atol=1e-5)


@backends
def test_magnitudes_are_normalised_by_phase_weighted_and_added(backend: str) -> None:
    flow = random_flow(1)
    rise, fall = np.hypot(flow[0, :, 0], flow[0, :, 1])
    expected = 0.7 * (rise - rise.min()) / np.ptp(rise) + 0.3 * (fall - fall.min()) / np.ptp(fall)
    combined = mmcof(flow, MMCOFParams(theta_1=0.7, theta_2=0.3, **PLAIN), backend=backend)[0]
    np.testing.assert_allclose(combined[2], expected, atol=1e-6)
    np.testing.assert_allclose(np.hypot(combined[0], combined[1]), combined[2], atol=1e-6)


@backends
@pytest.mark.parametrize("gate", ["soft", "hard"])
def test_strong_motion_is_raised_and_weak_motion_lowered(backend: str, gate: Any) -> None:
    magnitude = np.full((32, 32), 0.2, np.float32)
    magnitude[0, 0], magnitude[5, 5], magnitude[16, :8] = 0, 1, 0.6
    flow = np.zeros((1, 2, 2, 32, 32), np.float32)
    flow[:, 0, 0] = magnitude
    params = MMCOFParams(theta_1=1.0, theta_2=0.0, region="image", gate=gate, k=1000.0)
    combined = mmcof(flow, params, backend=backend)[0, 2]
    assert combined[16, 0] == pytest.approx(0.6 * 1.5, abs=1e-5)
    assert combined[20, 20] == pytest.approx(0.2 * 0.5, abs=1e-5)
    assert combined[5, 5] == 1  # 1.5, clipped


@backends
def test_a_fall_that_runs_the_rise_backwards_confirms_it(backend: str) -> None:
    flow = random_flow(1)
    flow[:, 1] = -flow[:, 0]
    alone = flow.copy()
    alone[:, 1] = 0
    both = mmcof(flow, MMCOFParams(**PLAIN), backend=backend)
    rise = mmcof(alone, MMCOFParams(theta_1=1.0, **PLAIN), backend=backend)
    np.testing.assert_allclose(both, rise, atol=1e-6)


@backends
def test_an_invalid_phase_does_not_count(backend: str) -> None:
    flow = random_flow(1)
    flow[:, 1] = 0
    combined = mmcof(flow, MMCOFParams(**PLAIN), backend=backend)[0]
    u, v = flow[0, 0]
    magnitude = np.hypot(u, v)
    np.testing.assert_allclose(combined[2], 0.5 * (magnitude - magnitude.min()) / np.ptp(magnitude), atol=1e-6)
    np.testing.assert_allclose(combined[0], combined[2] * u / magnitude, atol=1e-6)
    np.testing.assert_allclose(combined[1], combined[2] * v / magnitude, atol=1e-6)


@backends
def test_the_fall_is_turned_round_before_it_is_added_unless_direction_is_sum(backend: str) -> None:
    flow = random_flow(1)
    flow[:, 1] = -0.5 * flow[:, 0, ::-1]  # components swapped: the fall is not the rise backwards
    angles = np.arctan2(flow[0, :, 1], flow[0, :, 0])
    weights = [mmcof(flow, MMCOFParams(theta_1=a, theta_2=1 - a, **PLAIN), backend=backend)[0, 2] for a in (1.0, 0.0)]
    for direction, sign in (("reverse", -1), ("sum", 1)):
        x, y = (weights[0] * turn(angles[0]) + sign * weights[1] * turn(angles[1]) for turn in (np.cos, np.sin))
        combined = mmcof(flow, MMCOFParams(direction=direction, **PLAIN), backend=backend)[0]  # type: ignore[arg-type]
        clear = np.hypot(x, y) > 1e-3
        np.testing.assert_allclose((combined[0] * y - combined[1] * x)[clear], 0, atol=1e-5)
        assert ((combined[0] * x + combined[1] * y)[clear & (combined[2] > 0)] > 0).all()


@backends
def test_a_phase_below_the_floor_is_without_motion(backend: str) -> None:
    flow = random_flow(1)
    flow[:, 0] *= 0.04 / np.ptp(np.hypot(flow[0, 0, 0], flow[0, 0, 1]))
    flow[:, 1] = 0
    assert not mmcof(flow, MMCOFParams(region="image"), backend=backend)[0, 2].any()
    assert mmcof(flow, MMCOFParams(region="image", floor_px=0.03), backend=backend)[0, 2].max() > 0.1


@backends
def test_one_wild_border_pixel_sets_the_scale_of_the_image_but_not_of_the_face(backend: str) -> None:
    peaks = [
        mmcof(mouth_flow(), MMCOFParams(region=region, modulate=False), backend=backend)[0, 2, 100:, :].max()  # type: ignore[arg-type]
        for region in ("image", "face")
    ]
    assert peaks[0] < 0.5
    assert peaks[1] > 0.9


@backends
def test_the_mask_is_the_region(backend: str) -> None:
    flow = random_flow(2)
    masks = np.zeros((2, 40, 56), bool)
    masks[0, 8:-8, 8:-8] = True  # the image without its border
    masks[1, :20] = True
    combined = mmcof(flow, mask=masks, backend=backend)
    np.testing.assert_array_equal(combined[0], mmcof(flow[:1], backend=backend)[0])
    assert not np.array_equal(combined[1], mmcof(flow[1:], backend=backend)[0])


@backends
def test_a_clips_result_depends_on_no_other_clip_and_on_no_thread(backend: str) -> None:
    flow = random_flow(5)
    alone = np.concatenate([mmcof(flow[n : n + 1], backend=backend) for n in range(5)])
    for threads in (1, 2, 3):
        assert mmcof(flow, backend=backend, threads=threads).tobytes() == alone.tobytes()


@backends
def test_a_flow_of_negative_nothing_has_the_direction_of_nothing(backend: str) -> None:
    flow = random_flow(1)
    flow[0, 0, :, 5, 5] = (-0.0, 0.0)
    params = MMCOFParams(direction="rise", **PLAIN)
    combined = mmcof(flow, params, backend=backend)[0, :, 5, 5]
    assert combined[0] == pytest.approx(combined[2])
    assert combined[1] == pytest.approx(0)
