"""Flow of the same motion at any exposure: noise and contrast of a face, and what the solver makes of them."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import numpy.typing as npt
import pytest

import flowkit_kernels
import portrait
from flowkit.config import AlignConfig
from flowkit.face.align import Aligner, Face
from flowkit.face.contrast import (
    BLUR_PX,
    MAX_BLUR_PX,
    MAX_WEIGHT,
    MIN_BLUR_PX,
    MIN_WEIGHT,
    Signal,
    data_weight,
    measure_noise,
)
from flowkit.motion.flow import solve
from flowkit.storage.schema import FACE
from flowkit_kernels import TVL1Params

SIZE = 96
BOTH = (True, True)
SMILE = portrait.smile(1.5, SIZE)
EVERYWHERE = np.ones((SIZE, SIZE), np.bool_)
CLEAN = [portrait.picture(SIZE, field=field) for field in (None, SMILE, None)]


def photographed(
    clean: list[npt.NDArray[np.float32]], exposure: float, noise: float, seed: int = 0
) -> list[npt.NDArray[np.float32]]:
    """Pictures as a camera of 8 bits takes them; noise in grey levels."""
    rng = np.random.default_rng(seed)
    levels = [np.rint(255 * exposure * one + noise * rng.standard_normal(one.shape)) for one in clean]
    return [np.float32(np.clip(one, 0, 255) / 255) for one in levels]


def aligned(pictures: list[npt.NDArray[np.float32]], match_contrast: bool = True) -> Face:
    config = AlignConfig(method="none", size=SIZE, stabilise="none", match_contrast=match_contrast)
    with Aligner(config) as aligner:
        return aligner.align(portrait.frames(*pictures))


def rise(face: Face) -> npt.NDArray[np.float32]:
    flow: npt.NDArray[np.float32] = solve([face], [BOTH], TVL1Params(), "cpu", 1)[0, 0]
    return flow


def length(face: Face) -> float:
    """How much of the true motion is found: noise adds to the strongest motion, but hardly to this."""
    inside = (face.regions & FACE) > 0
    points = np.stack(np.meshgrid(np.arange(SIZE), np.arange(SIZE)), axis=-1).astype(np.float64)
    found, true = rise(face)[:, inside], np.moveaxis(SMILE(points), -1, 0)[:, inside]
    return float((found * true).sum() / (true * true).sum())


def test_the_same_motion_has_the_same_length_in_the_dark() -> None:
    recordings = [[photographed(CLEAN, exposure, 0.6, seed) for seed in range(3)] for exposure in (1.0, 0.25)]
    bright, dark = (np.mean([length(aligned(pictures)) for pictures in same]) for same in recordings)
    assert dark / bright == pytest.approx(1, abs=0.1)
    before = [np.mean([length(aligned(one, match_contrast=False)) for one in same]) for same in recordings]
    assert before[1] / before[0] < 0.85
    assert not aligned(recordings[0][0]).signal.is_dark


@pytest.mark.parametrize(
    ("exposure", "noise", "dark"), [(1, 0.6, False), (1, 2, False), (0.25, 0.6, False), (0.03, 1, True)]
)
def test_faces_without_contrast_beside_the_noise_are_marked(exposure: float, noise: float, dark: bool) -> None:
    face = aligned(photographed(CLEAN, exposure, noise))
    assert face.signal.is_dark == dark
    assert np.isfinite(rise(face)).all()


@pytest.mark.parametrize("noise", [0.6, 1.0, 2.0, 4.0])
@pytest.mark.parametrize("exposure", [1.0, 0.25])
def test_noise_is_measured_although_the_face_has_texture_and_moves(noise: float, exposure: float) -> None:
    pictures = np.stack(photographed(CLEAN, exposure, noise))
    assert measure_noise(pictures, EVERYWHERE) == pytest.approx(np.hypot(noise, 12**-0.5), rel=0.15)


@pytest.mark.parametrize("side", [48, 96, 160, 288])
def test_noise_is_measured_in_crops_of_any_enlargement(side: int) -> None:
    """What resampling leaves of the noise: neighbours in an enlarged crop share it, a reduced crop has less."""
    pictures = photographed([portrait.picture(side)] * 3, 1.0, 3.0)
    face = aligned(pictures)
    quiet = aligned([portrait.picture(side)] * 3)
    truth = 255 * (face.pixels[0] - quiet.pixels[0])[(face.regions & FACE) > 0].std()
    assert face.signal.noise == pytest.approx(truth, rel=0.2)
    assert face.signal.contrast == pytest.approx(quiet.signal.contrast, rel=0.05)


def test_pictures_without_anything_in_them_fail_nowhere() -> None:
    rng = np.random.default_rng(0)
    black, grey = np.zeros((SIZE, SIZE), np.float32), np.full((SIZE, SIZE), 0.5, np.float32)
    specks = np.float32(rng.random((SIZE, SIZE)) > 0.999)
    for pictures in (
        [black] * 3,
        [grey] * 3,
        [black, grey, black],
        [CLEAN[0], black, CLEAN[0]],
        [black, specks, black],
    ):
        face = aligned(pictures)
        assert np.isfinite(dataclasses.astuple(face.signal)).all()
        assert MIN_WEIGHT <= face.signal.data_weight <= MAX_WEIGHT
        assert np.isfinite(rise(face)).all()
    assert aligned([black] * 3).signal.is_dark
    tiny = Signal.of(np.zeros((3, 16, 16), np.float32), np.eye(16, dtype=np.bool_), enlarged=1e9)
    assert tiny.noise == 0


@pytest.mark.parametrize("exposure", [1.0, 0.1])
def test_identical_frames_move_nothing(exposure: float) -> None:
    onset, apex, _ = photographed(CLEAN, exposure, 1.0)
    still = aligned([onset] * 3)
    assert still.signal.noise == 0
    assert not solve([still], [BOTH], TVL1Params(), "cpu", 1).any()
    frozen = aligned([onset, onset, apex])  # the frozen phase says nothing about the noise
    assert frozen.signal.noise > 0.8
    assert not rise(frozen).any()


def test_phases_without_length_do_not_count() -> None:
    onset, apex, offset = (255 * one for one in photographed(CLEAN, 1.0, 2.0))
    for pictures, valid in (((onset, apex, onset), (True, False)), ((onset, onset + 9, offset + 9), (False, True))):
        noise = measure_noise(np.stack(pictures) / np.float32(255), EVERYWHERE, valid)
        assert noise == pytest.approx(2, rel=0.15)


def test_without_matching_the_solver_sees_the_crops_themselves() -> None:
    face = aligned(photographed(CLEAN, 0.3, 1.0), match_contrast=False)
    assert (face.signal.data_weight, face.signal.blur_px) == (1, 0)
    assert face.signal.contrast > 5
    own = flowkit_kernels.phase_flow(face.pixels[None], TVL1Params(), backend="cpu", threads=1)
    assert solve([face], [BOTH], TVL1Params(), "cpu", 1).tobytes() == own.tobytes()


def test_the_weight_falls_with_contrast_and_with_noise() -> None:
    contrasts = np.geomspace(8, 80, 12)
    weights = [data_weight(0.5, contrast) for contrast in contrasts]
    assert (np.diff(weights) < 0).all()
    np.testing.assert_allclose(weights * contrasts, weights[-1] * contrasts[-1], rtol=0.02)
    assert (np.diff([data_weight(noise, 30.0) for noise in (0.5, 1, 2, 4, 8, 16)]) <= 0).all()
    assert data_weight(5.0, 0.5) == MIN_WEIGHT


def test_weighing_the_pictures_is_weighing_the_data_term() -> None:
    face = aligned(photographed(CLEAN, 0.5, 1.0))
    plain, weighed = (dataclasses.replace(face, signal=Signal(1.0, 20.0, weight)) for weight in (1.0, 4.0))
    stronger = TVL1Params(lambda_=4 * TVL1Params().lambda_)
    np.testing.assert_allclose(
        solve([weighed], [BOTH], TVL1Params(), "cpu", 1), solve([plain], [BOTH], stronger, "cpu", 1), atol=0.02
    )


def test_pictures_are_blurred_and_multiplied() -> None:
    clear, grainy, noisy = (aligned(photographed(CLEAN, 1.0, noise)).signal for noise in (0.0, 2.5, 8.0))
    assert (clear.blur_px, noisy.blur_px) == (MIN_BLUR_PX, MAX_BLUR_PX)
    assert grainy.blur_px == pytest.approx(BLUR_PX * grainy.noise / grainy.contrast)
    pictures = np.random.default_rng(0).random((3, SIZE, SIZE), np.float32)
    sharp, blurred = pictures.copy(), pictures.copy()
    Signal(1.0, 20.0, 2.0, 0.0).apply(sharp)
    assert np.array_equal(sharp, 2 * pictures)
    Signal(1.0, 20.0, 2.0, 1.0).apply(blurred)
    expected = [cv2.GaussianBlur(2 * picture, (0, 0), 1.0) for picture in pictures]
    np.testing.assert_array_equal(blurred, expected)


@pytest.mark.parametrize("side", [32, 224])
def test_what_the_solver_sees_does_not_depend_on_the_threads_of_opencv(side: int) -> None:
    pictures = np.random.default_rng(0).random((3, side, side), np.float32)
    before, seen = cv2.getNumThreads(), []
    for threads in (1, 4):
        cv2.setNumThreads(threads)
        seen.append(pictures.copy())
        Signal(1.0, 20.0, 1.5, 0.7).apply(seen[-1])
    cv2.setNumThreads(before)
    assert seen[0].tobytes() == seen[1].tobytes()
