"""The mean of a key frame and the frames beside it: less noise, the same face, and never a blend of two states."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from flowkit.face.crops import face_crop
from flowkit.face.neighbours import average_each, averaged
from flowkit.face.registration import RegistrationTarget

SIDE, NOISE = 160, 2.0
FACE = np.zeros((SIDE, SIDE), np.bool_)
FACE[20:140, 30:130] = True
IDENTITY = np.eye(2, 3)
Image = npt.NDArray[np.float32]


def scene(seed: int = 0) -> Image:
    """Texture of a face's contrast and detail, four times enlarged, so that a shift by less than a pixel is known."""
    rng = np.random.default_rng(seed)
    rough = [(6, 12.0), (20, 40.0)]
    layers = [deviation * _unit(rng, sigma) for sigma, deviation in rough]
    return np.asarray(130 + sum(layers), np.float32)


def _unit(rng: np.random.Generator, sigma: float) -> Image:
    blurred = cv2.GaussianBlur(rng.standard_normal((4 * SIDE + 80, 4 * SIDE + 80)).astype(np.float32), (0, 0), sigma)
    return np.asarray(blurred / blurred.std(), np.float32)


SCENE = scene()


def photographed(number: int, shift: tuple[int, int] = (0, 0), noise: float = NOISE, large: Image = SCENE) -> Image:
    """A frame of 8 bits in [0, 1]; the scene is shifted by quarters of a pixel."""
    right, down = shift
    part = large[40 + down : 40 + down + 4 * SIDE, 40 + right : 40 + right + 4 * SIDE]
    clean = cv2.resize(part, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    grain = np.random.default_rng([7, number + 100]).standard_normal(clean.shape)
    return np.asarray(np.clip(np.rint(clean + noise * grain), 0, 255) / 255, np.float32)


KEY = photographed(0)
TRUTH = photographed(0, noise=0.0)
SHIFTS = {-2: (3, -2), -1: (1, -1), 1: (-2, 1), 2: (-5, 2)}
GOOD = {distance: photographed(distance, shift) for distance, shift in SHIFTS.items()}


def test_noise_falls_by_the_root_of_the_number_of_frames_and_the_face_stays_as_it_is() -> None:
    still = {distance: photographed(distance) for distance in SHIFTS}
    for beside in (still, GOOD):
        mean = averaged(KEY, beside, IDENTITY, FACE)
        assert (mean.frames, mean.refused) == (5, False)
        left = 255 * (mean.picture - TRUTH)[FACE]
        assert left.std() < 1.08 * NOISE / np.sqrt(5)
        motion, _ = RegistrationTarget.of(TRUTH, FACE).register(mean.picture)
        assert np.abs(motion - IDENTITY).max() < 0.02  # px: not moved
        detail = (TRUTH - cv2.GaussianBlur(TRUTH, (0, 0), 1.0))[FACE]
        assert np.dot((mean.picture - TRUTH)[FACE], detail) / np.dot(detail, detail) > -0.05  # not blurred


def test_registration_is_what_keeps_the_face_sharp() -> None:
    blend = np.mean([KEY, *GOOD.values()], axis=0)
    mean = averaged(KEY, GOOD, IDENTITY, FACE).picture
    assert (mean - TRUTH)[FACE].std() < 0.7 * (blend - TRUTH)[FACE].std()


def test_the_frame_outside_the_face_and_the_frames_that_were_given_stay_as_they_are() -> None:
    before = KEY.copy(), GOOD[1].copy()
    crop = np.array([[1.0, 0, -30], [0, 1, -20]])
    mean = averaged(KEY, GOOD, crop, np.ones((100, 100), np.bool_)).picture
    assert np.array_equal(mean[:15], KEY[:15])
    assert np.array_equal(mean[:, 140:], KEY[:, 140:])
    assert not np.array_equal(mean[40:100, 50:110], KEY[40:100, 50:110])
    assert np.array_equal(before[0], KEY)
    assert np.array_equal(before[1], GOOD[1])


def test_the_place_of_the_face_is_that_of_the_crop_also_where_the_crop_is_smaller() -> None:
    crop = np.array([[0.5, 0, -0.25], [0, 0.5, -0.25]])
    half = averaged(KEY, GOOD, crop, FACE[::2, ::2].copy())
    assert half.frames == 5
    assert 255 * (half.picture - TRUTH)[FACE].std() < 1.08 * NOISE / np.sqrt(5)
    assert face_crop(half.picture, crop, SIDE // 2).shape == (SIDE // 2, SIDE // 2)


def _blinking() -> Image:
    frame = GOOD[1].copy()
    frame[50:58, 50:66] = frame[50:58, 94:110] = 120 / 255
    return frame


def _half_in_the_light() -> Image:
    return np.asarray(np.clip(GOOD[1] + np.linspace(0, 0.15, SIDE, dtype=np.float32), 0, 1))


STRANGE = {
    "flash": lambda: np.clip(GOOD[1] + np.float32(0.05), 0, 1),
    "brighter by a factor": lambda: np.clip(GOOD[1] * np.float32(1.08), 0, 1),
    "light from one side": _half_in_the_light,
    "cut": lambda: photographed(1, large=scene(1)),
    "black": lambda: np.zeros_like(KEY),
    "blink": _blinking,
    "far away": lambda: photographed(1, (32, 0)),
    "the key frame again": KEY.copy,
    "almost the key frame again": lambda: KEY + (np.indices(KEY.shape).sum(axis=0) % 20 == 0) * np.float32(1 / 255),
}


@pytest.mark.parametrize("name", STRANGE)
def test_a_key_frame_is_never_blended_with_another_state(name: str) -> None:
    strange = np.asarray(STRANGE[name](), np.float32)
    for side in (-1, 1):
        beside = {**GOOD, side: strange}
        mean = averaged(KEY, beside, IDENTITY, FACE)
        assert mean.picture is KEY
        assert (mean.frames, mean.refused) == (1, True)
        farther = averaged(KEY, {**GOOD, 2 * side: strange}, IDENTITY, FACE)
        assert (farther.frames, farther.refused) == (3, True)
        near = averaged(KEY, {-1: GOOD[-1], 1: GOOD[1]}, IDENTITY, FACE)
        assert np.array_equal(farther.picture, near.picture)


def test_frames_that_are_the_same_among_themselves_count_once() -> None:
    mean = averaged(KEY, {**GOOD, 2: GOOD[1].copy()}, IDENTITY, FACE)
    assert (mean.frames, mean.refused) == (3, True)


@pytest.mark.parametrize("there", [{1}, {-1}, {1, 2}, {-2, -1}, {-1, 1, 2}])
def test_at_the_end_of_a_recording_the_window_has_one_side(there: set[int]) -> None:
    mean = averaged(KEY, {distance: GOOD[distance] for distance in there}, IDENTITY, FACE)
    assert (mean.frames, mean.refused) == (1 + len(there), False)


def test_without_neighbours_the_key_frame_is_used() -> None:
    mean = averaged(KEY, {}, IDENTITY, FACE)
    assert mean.picture is KEY
    assert (mean.frames, mean.refused) == (1, False)


@pytest.mark.parametrize("transform", [np.array([[1.0, 0, 500], [0, 1, 0]]), np.array([[1.0, 0, -158], [0, 1, -158]])])
def test_a_face_beyond_the_edge_of_the_frame_is_not_averaged(transform: npt.NDArray[np.float64]) -> None:
    mean = averaged(KEY, GOOD, transform, np.ones((SIDE, SIDE), np.bool_))
    assert mean.frames == 1


def test_faces_without_texture_are_not_averaged() -> None:
    flat = {d: np.full_like(KEY, 0.5) for d in (-1, 1)}
    assert averaged(np.full_like(KEY, 0.5), flat, IDENTITY, FACE).frames == 1


@pytest.mark.parametrize(
    ("valid", "frames"), [((True, True), (5, 5, 5)), ((True, False), (5, 5, 5)), ((False, False), (1, 1, 1))]
)
def test_the_frame_that_ends_no_valid_phase_is_left_alone(
    valid: tuple[bool, bool], frames: tuple[int, int, int]
) -> None:
    keys = [photographed(10 * number) for number in range(3)]
    means = average_each(keys, [GOOD] * 3, [IDENTITY] * 3, FACE, valid)
    assert tuple(mean.frames for mean in means) == frames
    assert (means[2].picture is keys[2]) == (not valid[1])
