"""Head motion, found in pictures and in flow, against motions that are known."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import plain_registration
import pytest

import portrait
from flowkit.errors import ClipError, FailureCode
from flowkit.face.registration import LOST_BELOW, Registration, RegistrationTarget, match_light, remove_motion
from flowkit.face.transforms import Transform, compose, fit_similarity, invert
from flowkit_kernels.cpu import gauss_newton, operations

SIZE = 224
FACE, RIGID = portrait.masks(SIZE)
ONSET = portrait.picture(SIZE)
ELLIPSE = np.hypot(*(np.mgrid[:SIZE, :SIZE] - 111.5)) < 70


Grey = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


def registered(
    reference: Grey, moving: Grey, mask: Mask, start: Transform | None = None, finest: int = 1
) -> Registration:
    return RegistrationTarget.of(reference, mask).register(moving, start=start, finest=finest)


def register(reference: Grey, moving: Grey, mask: Mask) -> Transform:
    return registered(reference, moving, mask).transform


def bump(peak_px: float) -> npt.NDArray[np.float32]:
    """(2, N, N) flow of a smile."""
    return portrait.true_flow(SIZE, portrait.smile(peak_px)).astype(np.float32)


def field_of(matrix: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    y, x = np.mgrid[:SIZE, :SIZE]
    return np.einsum("ck,kyx->cyx", matrix, np.stack([x, y, np.ones_like(x)])).astype(np.float32)


def test_a_similarity_is_fitted_composed_and_undone_exactly() -> None:
    motion = portrait.drift(12, degrees=20, scale=1.3)
    points = np.random.default_rng(0).uniform(0, 224, (9, 2))
    fitted = fit_similarity(points, points @ motion[:, :2].T + motion[:, 2])
    np.testing.assert_allclose(fitted, motion, atol=1e-9)
    np.testing.assert_allclose(compose(invert(motion), fitted), np.eye(2, 3), atol=1e-9)
    assert np.array_equal(invert(np.eye(2, 3)), np.eye(2, 3))


@pytest.mark.parametrize(
    ("shift", "degrees", "scale"), [(0.5, 0.2, 1.0), (3.5, 1, 1.01), (10, -2, 0.98), (20, 2, 1.02)]
)
def test_drift_up_to_20_px_is_found_under_another_light(shift: float, degrees: float, scale: float) -> None:
    motion = portrait.drift(shift, degrees, scale)
    moving = portrait.picture(SIZE, motion, gain=0.98, noise_seed=1) + np.float32(2 / 255)
    found = register(portrait.picture(SIZE, noise_seed=0), moving, RIGID)
    assert portrait.distance_px(found, motion, FACE) < 0.05


@pytest.mark.parametrize("shift", [0.0, 3.5])
def test_a_smile_hardly_pulls_on_the_registration(shift: float) -> None:
    motion = portrait.drift(shift, shift / 3.5)
    moving = portrait.picture(SIZE, motion, portrait.smile(1.5))
    assert portrait.distance_px(register(ONSET, moving, RIGID), motion, FACE) < 0.15


def test_a_crop_without_landmarks_is_registered_on_an_ellipse() -> None:
    motion = portrait.drift(6, 1)
    assert portrait.distance_px(register(ONSET, portrait.picture(SIZE, motion), ELLIPSE), motion, FACE) < 0.1


@pytest.mark.parametrize("size", [32, 64, 512])
def test_every_size_of_crop_registers(size: int) -> None:
    face, rigid = portrait.masks(size)
    motion = portrait.drift(0.03 * size, 1, size=size)
    found = register(portrait.picture(size), portrait.picture(size, motion), rigid)
    assert portrait.distance_px(found, motion, face) < 0.1


def test_a_mask_too_small_for_the_coarse_levels_is_registered_at_the_fine_ones() -> None:
    mask = np.zeros_like(RIGID)
    mask[97:104, 105:112] = True  # between the samples of the two coarsest levels
    motion = portrait.drift(0.5)
    assert portrait.distance_px(register(ONSET, portrait.picture(SIZE, motion), mask), motion, mask) < 0.1


def test_identical_pictures_give_exactly_the_identity() -> None:
    assert np.array_equal(register(ONSET, ONSET.copy(), RIGID), np.eye(2, 3))


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("blank", ["reference", "moving", "both"])
def test_a_blank_picture_gives_exactly_the_identity(blank: str, level: float) -> None:
    flat = np.full_like(ONSET, level)
    reference = ONSET if blank == "moving" else flat
    moving = ONSET if blank == "reference" else flat
    start = portrait.drift(3)
    for given, expected in ((None, np.eye(2, 3)), (start, start)):
        transform, quality = registered(reference, moving, RIGID, given)
        assert np.array_equal(transform, expected)
        assert np.isnan(quality)


SMALL_RIGID = portrait.masks(96)[1]
SMALL = portrait.picture(96)
CASES = {
    "still": portrait.picture(96, noise_seed=1),
    "drift and light": portrait.picture(96, portrait.drift(4, 2, 1.02, 96), gain=0.8, noise_seed=1),
    "smile": portrait.picture(96, portrait.drift(1.5, 1, 1, 96), portrait.smile(2, 96)),
    "dark": portrait.picture(96, portrait.drift(2, 0, 1, 96), gain=0.2, noise_seed=1),
    "hidden": np.where(np.arange(96) < 40, np.float32(0.5), portrait.picture(96, portrait.drift(1, 0, 1, 96))),
}


@pytest.mark.parametrize("case", CASES)
def test_the_compiled_loops_find_what_plain_numpy_finds(case: str) -> None:
    """The same motion within 0.01 px of the face, though coarse levels are smoothed on smaller pictures."""
    expected, quality = plain_registration.register(SMALL, CASES[case], SMALL_RIGID)
    found = registered(SMALL, CASES[case], SMALL_RIGID)
    assert portrait.distance_px(found.transform, expected, SMALL_RIGID) < 0.01
    assert found.quality == pytest.approx(quality, abs=1e-3)


def test_registration_needs_no_other_code_than_what_is_compiled_ahead() -> None:
    frozen, mask = ONSET.copy(), np.asfortranarray(RIGID)
    frozen.flags.writeable = mask.flags.writeable = False
    register(frozen, np.asfortranarray(ONSET), mask)
    ahead = dict(operations.entries())
    functions: tuple[Any, ...] = (gauss_newton.make_level, gauss_newton.register_level)
    for function in functions:
        assert function.signatures == [ahead[function]]


def test_a_reference_serves_many_pictures_in_any_order() -> None:
    """Nothing that one registration does can be seen in the next."""
    reference, moving = (
        RegistrationTarget.of(ONSET, RIGID),
        [portrait.picture(SIZE, portrait.drift(px, px)) for px in (1, 6)],
    )
    first = [reference.register(picture) for picture in (*moving, *reversed(moving))]
    assert [quality for _, quality in first[:2]] == [quality for _, quality in first[:1:-1]]
    for (transform, _), picture in zip(first, (*moving, *reversed(moving)), strict=True):
        assert np.array_equal(transform, register(ONSET, picture, RIGID))


@pytest.mark.parametrize(("finest", "error_px"), [(8, 0.4), (4, 0.15), (2, 0.1), (1, 0.05)])
def test_coarse_levels_alone_find_the_motion_coarsely(finest: int, error_px: float) -> None:
    motion = portrait.drift(7, 2)
    reference = RegistrationTarget.of(ONSET, RIGID)
    found = reference.register(portrait.picture(SIZE, motion, noise_seed=1), finest=finest)
    assert portrait.distance_px(found.transform, motion, FACE) < error_px
    assert found.quality > 0.99
    assert min(reference.levels) == finest  # finer ones were not made


def test_a_small_mask_registers_at_the_coarsest_level_that_it_has() -> None:
    face, rigid = portrait.masks(32)
    motion = portrait.drift(1, size=32)
    found = registered(portrait.picture(32), portrait.picture(32, motion), rigid, finest=8)
    assert portrait.distance_px(found.transform, motion, face) < 0.2


def test_a_start_from_elsewhere_finds_what_the_identity_cannot() -> None:
    motion = portrait.drift(60, 10, 0.9)
    moving = portrait.picture(SIZE, motion)
    near = compose(portrait.drift(6, -2), motion)
    assert portrait.distance_px(registered(ONSET, moving, RIGID, near).transform, motion, FACE) < 0.1
    lost = registered(ONSET, moving, RIGID)
    assert portrait.distance_px(lost.transform, motion, FACE) > 10
    assert lost.quality < LOST_BELOW


def test_quality_knows_a_face_that_moved_from_what_is_no_face() -> None:
    rng = np.random.default_rng(0)
    stripes = np.broadcast_to(
        np.float32(0.5) + np.float32(0.4) * np.sin(np.arange(SIZE, dtype=np.float32) / 9), ONSET.shape
    )
    others = [
        rng.random(ONSET.shape, np.float32),
        ONSET[::-1].copy(),
        1 - ONSET,
        stripes,
        1 - stripes.T,
        1e6 * blob(20),
    ]
    for moving in others:
        transform, quality = registered(ONSET, moving, RIGID)
        assert np.isfinite(transform).all()
        assert -1.001 < quality < LOST_BELOW
    for gain in (0.1, 1.5):
        moving = portrait.picture(SIZE, portrait.drift(8, 3), portrait.smile(3), gain, noise_seed=1)
        assert registered(ONSET, moving, RIGID).quality > 0.9
    assert registered(stripes, np.roll(stripes, 3, axis=1), ELLIPSE).quality > 0.99


def blob(shift_px: float, scale: float = 1.0) -> npt.NDArray[np.float32]:
    """A broad smooth hill: found from far away."""
    y, x = (np.mgrid[:SIZE, :SIZE] - 111.5) / scale
    return np.exp(-((x - shift_px) ** 2 + (0.8 * y) ** 2) / (2 * 60**2)).astype(np.float32)


def test_no_change_of_size_is_refused() -> None:
    transform, quality = registered(blob(0), blob(0, scale=1.4), ELLIPSE)
    assert transform[0, 0] == pytest.approx(1.4, abs=0.01)
    assert quality > 0.99


def test_too_small_a_mask_and_broken_grey_values_fail_the_clip() -> None:
    broken = ONSET.copy()
    broken[100, 100] = np.nan
    for moving, mask in ((ONSET, np.zeros_like(RIGID)), (broken, RIGID)):
        with pytest.raises(ClipError, match=r"got (0|NaN)") as raised:
            RegistrationTarget.of(ONSET, mask).register(moving)
        assert raised.value.code == FailureCode.REGISTRATION_FAILED


def test_the_number_of_opencv_threads_changes_nothing() -> None:
    moving, threads = portrait.picture(SIZE, portrait.drift(4, 1)), cv2.getNumThreads()
    found = []
    for count in (1, 4):
        cv2.setNumThreads(count)
        found.append(register(ONSET, moving, RIGID))
    cv2.setNumThreads(threads)
    assert np.array_equal(*found)


SIMILARITY = np.array([[0.004, -0.003, 0.6], [0.003, 0.004, -0.5]])
AFFINE = np.array([[0.004, 0.001, 0.6], [-0.002, -0.003, -0.5]])


@pytest.mark.parametrize(("model", "motion"), [("similarity", SIMILARITY), ("affine", AFFINE), ("affine", SIMILARITY)])
def test_a_motion_of_the_whole_face_goes_and_a_local_one_stays(model: str, motion: npt.NDArray[np.float64]) -> None:
    flow = field_of(motion) + bump(1.5)
    left, fitted, residual = remove_motion(flow, RIGID, model)  # type: ignore[arg-type]
    assert np.abs(left - bump(1.5))[:, FACE].max() < 0.03
    np.testing.assert_allclose(field_of(fitted), flow - left, atol=1e-4)
    assert residual < 0.02


def test_no_flow_stays_exactly_none() -> None:
    left, fitted, residual = remove_motion(np.zeros((2, SIZE, SIZE), np.float32), RIGID)
    assert not left.any()
    assert not fitted.any()
    assert residual == 0


def test_light_is_matched_inside_the_mask_whatever_is_outside() -> None:
    moving = 0.9 * ONSET + np.float32(0.05)
    moving[~FACE] = 1
    matched, gain, offset = match_light(ONSET, moving, FACE)
    np.testing.assert_allclose(matched[FACE], ONSET[FACE], atol=1e-5)
    assert (gain, offset) == pytest.approx((1 / 0.9, -0.05 / 0.9), abs=1e-5)


def test_light_that_already_matches_is_left_exactly_as_it_is() -> None:
    matched, gain, offset = match_light(ONSET, ONSET.copy(), FACE)
    assert np.array_equal(matched, ONSET)
    assert (gain, offset) == (1, 0)


def test_the_noise_of_a_blank_picture_is_not_blown_up() -> None:
    noise = np.random.default_rng(0).normal(0.2, 1e-3, ONSET.shape).astype(np.float32)
    matched, gain, _ = match_light(ONSET, noise, FACE)
    assert gain == 1
    assert matched[FACE].mean() == pytest.approx(ONSET[FACE].mean(), abs=1e-4)
