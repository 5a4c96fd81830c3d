"""Head motion, found in pictures and in flow, against motions that are known."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest

import portrait
from flowkit.errors import ClipError, FailureCode
from flowkit.registration import compose, fit_similarity, invert, match_light, register, remove_motion

SIZE = 224
FACE, RIGID = portrait.masks(SIZE)
ONSET = portrait.picture(SIZE)
ELLIPSE = np.hypot(*(np.mgrid[:SIZE, :SIZE] - 111.5)) < 70


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
    assert np.array_equal(register(reference, moving, RIGID), np.eye(2, 3))


def blob(shift_px: float, scale: float = 1.0) -> npt.NDArray[np.float32]:
    """A broad smooth hill: found from far away."""
    y, x = (np.mgrid[:SIZE, :SIZE] - 111.5) / scale
    return np.exp(-((x - shift_px) ** 2 + (0.8 * y) ** 2) / (2 * 60**2)).astype(np.float32)


@pytest.mark.parametrize("moving", [blob(70), blob(0, scale=1.4)], ids=["shift", "size"])
def test_a_motion_that_no_head_makes_fails_the_clip(moving: npt.NDArray[np.float32]) -> None:
    with pytest.raises(ClipError, match=r"^line 3 \(a\): apex: face must have moved by at most") as raised:
        register(blob(0), moving, ELLIPSE, "line 3 (a): apex")
    assert raised.value.code == FailureCode.REGISTRATION_FAILED


def test_too_small_a_mask_and_broken_grey_values_fail_the_clip() -> None:
    broken = ONSET.copy()
    broken[100, 100] = np.nan
    for moving, mask in ((ONSET, np.zeros_like(RIGID)), (broken, RIGID)):
        with pytest.raises(ClipError, match=r"got (0|NaN)") as raised:
            register(ONSET, moving, mask)
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
