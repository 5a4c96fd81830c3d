"""Three frames brought onto one canonical grid, by each way of finding the face."""

from __future__ import annotations

import csv
import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

import portrait
from flowkit.config import AlignConfig
from flowkit.errors import ClipError, FailureCode
from flowkit.face.align import Aligner, Face
from flowkit.face.crops import face_crop
from flowkit.face.landmarks import BROWS, CANONICAL, EYES, FACE_OVAL, LIPS
from flowkit.face.regions import regions
from flowkit.face.transforms import compose, fit_similarity, invert
from flowkit.inputs.frames import Frames
from flowkit.storage.schema import FACE, RIGID

SIZE = 128
MOTIONS = (portrait.drift(4, 1, size=SIZE), portrait.drift(-5, -0.5, 1.01, size=SIZE))


def whole_frames(gain: float = 1.0) -> Frames:
    """The portrait, and the portrait as the head moved: in pixels of the frame, not of the crop."""
    to_crop = portrait.canonical(SIZE)
    moved = []
    for motion in MOTIONS:
        in_frame = compose(invert(to_crop), compose(motion, to_crop))
        moved.append(gain * cv2.warpAffine(portrait.GREY, in_frame, (300, 300), flags=cv2.INTER_CUBIC, borderMode=1))
    apex, offset = (np.clip(one, 0, 1).astype(np.float32) for one in moved)
    return portrait.frames(portrait.GREY, apex, offset, rgb=portrait.RGB)


def cropped_frames(size: int = SIZE) -> Frames:
    pictures = [portrait.picture(size, motion) for motion in (None, *MOTIONS)]
    return portrait.frames(*pictures)


def landmark_file(folder: Path, points: npt.NDArray[np.float32], clip_id: str = "smile_1") -> AlignConfig:
    path = folder / "landmarks.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("clip_id", "point", "x", "y"))
        writer.writerows((clip_id, i, *map(float, point)) for i, point in enumerate(points) if not np.isnan(point[0]))
    return AlignConfig(method="landmarks", landmarks=str(path), size=SIZE)


def nine_points() -> npt.NDArray[np.float32]:
    points = np.full_like(portrait.POINTS, np.nan)
    points[list(CANONICAL)] = portrait.POINTS[list(CANONICAL)]
    return points


def aligned(config: AlignConfig, frames: Frames) -> Face:
    with Aligner(config) as aligner:
        return aligner.align(frames)


@pytest.fixture(scope="module")
def mediapipe_aligner() -> Iterator[Aligner]:
    with Aligner(AlignConfig(size=SIZE)) as aligner:
        yield aligner


def inside(face: Face) -> npt.NDArray[np.bool_]:
    return (face.regions & FACE) > 0


def test_a_face_is_found_put_in_its_place_and_held_still(mediapipe_aligner: Aligner) -> None:
    face = mediapipe_aligner.align(whole_frames(gain=0.98))
    assert face.n_faces == 1
    assert face.pixels.shape == (3, SIZE, SIZE)
    np.testing.assert_allclose(face.landmarks, portrait.POINTS, atol=0.1)
    np.testing.assert_allclose(face.transform, portrait.canonical(SIZE), atol=0.1)
    for found, motion in zip(face.registration, MOTIONS, strict=True):
        assert portrait.distance_px(found, motion, inside(face)) < 0.05
    np.testing.assert_allclose(face.records["light"], [(1 / 0.98, 0)] * 2, atol=0.01)
    for moved in face.pixels[1:]:
        assert np.abs(moved - face.pixels[0])[inside(face)].mean() < 0.006  # the scene itself was resampled once more


def test_a_frame_without_a_face_fails_the_clip(mediapipe_aligner: Aligner) -> None:
    noise = np.random.default_rng(0).random((240, 320), np.float32)
    with pytest.raises(ClipError) as raised:
        mediapipe_aligner.align(portrait.frames(noise, noise, noise))
    assert raised.value.code == FailureCode.FACE_NOT_FOUND
    assert raised.value.message == (
        "line 3 (smile_1): onset frame must show a face; got none in 320 x 240 pixels. Check the onset number, or set "
        "align.method to none or landmarks."
    )


def test_given_landmarks_do_the_same_without_mediapipe(
    mediapipe_aligner: Aligner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mediapipe", None)  # importing it would fail
    found, given = (
        mediapipe_aligner.align(whole_frames()),
        aligned(landmark_file(tmp_path, portrait.POINTS), whole_frames()),
    )
    assert given.n_faces == 0
    np.testing.assert_allclose(given.transform, found.transform, atol=0.02)
    np.testing.assert_allclose(given.pixels, found.pixels, atol=0.02)


def test_nine_landmarks_are_enough_and_the_regions_are_then_an_ellipse(tmp_path: Path) -> None:
    nine = aligned(landmark_file(tmp_path, nine_points()), whole_frames())
    ellipse = aligned(AlignConfig(method="none", size=SIZE), cropped_frames())
    assert np.array_equal(nine.regions, ellipse.regions)
    assert np.array_equal(np.unique(nine.regions), [0, FACE | RIGID])
    np.testing.assert_allclose(nine.transform, portrait.canonical(SIZE), atol=1e-4)
    assert portrait.distance_px(nine.registration[0], MOTIONS[0], inside(nine)) < 0.1


@pytest.mark.parametrize(("clip_id", "left_out", "named"), [("other", None, "33, 133, .* 5"), ("smile_1", 168, "168")])
def test_a_clip_without_its_landmarks_fails(tmp_path: Path, clip_id: str, left_out: int | None, named: str) -> None:
    points = portrait.POINTS.copy()
    if left_out is not None:
        points[left_out] = np.nan
    with pytest.raises(ClipError, match=rf"must give the points 33, .*; got none for {named}\.") as raised:
        aligned(landmark_file(tmp_path, points, clip_id), whole_frames())
    assert raised.value.code == FailureCode.LANDMARKS_MISSING


@pytest.mark.parametrize(
    ("points", "code", "message"),
    [
        (
            portrait.POINTS * np.float32(0.15),
            FailureCode.IMAGE_TOO_SMALL,
            r"at least 12 px apart; got 9\.\d px in 300 x 300",
        ),
        (np.ones_like(portrait.POINTS), FailureCode.IMAGE_TOO_SMALL, r"got 0\.0 px"),
        (portrait.POINTS + 400, FailureCode.LANDMARKS_MISSING, r"must lie on a face in the onset frame"),
        (1000 * (portrait.POINTS - 140) + 140, FailureCode.LANDMARKS_MISSING, r"must lie on a face in the onset frame"),
    ],
    ids=["small", "one place", "beside", "huge"],
)
def test_landmarks_that_are_no_usable_face_fail_the_clip(
    tmp_path: Path, points: npt.NDArray[np.float32], code: FailureCode, message: str
) -> None:
    with pytest.raises(ClipError, match=message) as raised:
        aligned(landmark_file(tmp_path, points), whole_frames())
    assert raised.value.code == code


def test_an_outline_that_encloses_nothing_fails_the_clip(tmp_path: Path) -> None:
    points = portrait.POINTS.copy()
    points[list(FACE_OVAL)] = 140
    with pytest.raises(ClipError, match=r"must cover at least 1% of the crop; got 0\.00%") as raised:
        aligned(landmark_file(tmp_path, points), whole_frames())
    assert raised.value.code == FailureCode.LANDMARKS_MISSING


def test_cropped_frames_of_the_right_size_are_taken_as_they_are() -> None:
    frames = cropped_frames()
    face = aligned(AlignConfig(method="none", size=SIZE, stabilise="none", match_light=False), frames)
    assert np.array_equal(face.pixels, np.stack(frames.grey))
    assert np.array_equal(face.transform, np.eye(2, 3))
    assert np.array_equal(face.registration, [np.eye(2, 3)] * 2)
    assert np.array_equal(face.records["light"], [(1, 0)] * 2)
    assert np.isnan(face.landmarks).all()
    assert face.n_faces == 0


def test_cropped_frames_are_stabilised_too() -> None:
    face = aligned(AlignConfig(method="none", size=SIZE), cropped_frames())
    for found, motion in zip(face.registration, MOTIONS, strict=True):
        assert portrait.distance_px(found, motion, inside(face)) < 0.1


@pytest.mark.parametrize("size", [96, 256])
def test_cropped_frames_of_another_size_are_resized_with_their_edges_kept(size: int) -> None:
    face = aligned(AlignConfig(method="none", size=SIZE), cropped_frames(size))
    corners = np.array([[-0.5, -0.5, 1], [size - 0.5, size - 0.5, 1]])
    np.testing.assert_allclose(corners @ face.transform.T, [[-0.5, -0.5], [SIZE - 0.5, SIZE - 0.5]])
    assert np.abs(face.pixels[0] - portrait.picture(SIZE))[inside(face)].mean() < 0.01


@pytest.mark.parametrize("method", ["none", "landmarks"])
def test_frames_of_different_sizes_fail_the_clip(tmp_path: Path, method: str) -> None:
    config = (
        landmark_file(tmp_path, portrait.POINTS) if method == "landmarks" else AlignConfig(method="none", size=SIZE)
    )
    onset = portrait.GREY
    with pytest.raises(ClipError, match=r"must have one size; got 300 x 300, 300 x 290, 300 x 300") as raised:
        aligned(config, portrait.frames(onset, onset[:290], onset))
    assert raised.value.code == FailureCode.SIZE_MISMATCH


def test_cropped_frames_must_be_square() -> None:
    oblong = portrait.GREY[:200]
    with pytest.raises(ClipError, match=r"must be square; got 300 x 200 pixels.*align.method=mediapipe") as raised:
        aligned(AlignConfig(method="none", size=SIZE), portrait.frames(oblong, oblong, oblong))
    assert raised.value.code == FailureCode.SIZE_MISMATCH


@pytest.mark.parametrize("valid", [(False, True), (True, False), (False, False)])
def test_both_ends_of_an_invalid_phase_are_one_picture(valid: tuple[bool, bool]) -> None:
    onset, apex, offset = cropped_frames().grey
    apex = apex if valid[0] else onset
    frames = portrait.frames(onset, apex, offset if valid[1] else apex, valid)
    face = aligned(AlignConfig(method="none", size=SIZE), frames)
    for phase in (0, 1):
        still = np.array_equal(face.pixels[phase], face.pixels[phase + 1])
        assert still == (not valid[phase])
    if not valid[0]:
        assert np.array_equal(face.registration[0], np.eye(2, 3))
        assert face.records["light"][0].tolist() == [1, 0]
    if not valid[1]:
        assert np.array_equal(face.registration[0], face.registration[1])
        assert np.array_equal(face.records["light"][0], face.records["light"][1])


def test_identical_frames_stay_identical_to_the_last_bit(mediapipe_aligner: Aligner) -> None:
    face = mediapipe_aligner.align(
        portrait.frames(portrait.GREY, portrait.GREY.copy(), portrait.GREY, rgb=portrait.RGB)
    )
    assert np.array_equal(face.pixels[0], face.pixels[1])
    assert np.array_equal(face.pixels[0], face.pixels[2])
    assert np.array_equal(face.registration, [np.eye(2, 3)] * 2)


def test_grey_values_never_leave_the_unit_range() -> None:
    board = (np.indices((96, 96)).sum(axis=0) // 8 % 2).astype(np.float32)  # cubic resampling overshoots at its edges
    frames = portrait.frames(board, np.roll(board, 1, axis=1), 0.5 * board)
    face = aligned(AlignConfig(method="none", size=SIZE, stabilise="none"), frames)
    assert face.pixels.min() == 0
    assert face.pixels.max() == 1


def test_stabilise_none_leaves_the_motion_of_the_head_alone() -> None:
    face = aligned(AlignConfig(method="none", size=SIZE, stabilise="none"), cropped_frames())
    assert np.array_equal(face.registration, [np.eye(2, 3)] * 2)
    assert np.abs(face.pixels[1] - face.pixels[0])[inside(face)].mean() > 0.02


def test_a_failed_registration_names_the_clip_and_the_frame() -> None:
    onset, apex, _ = cropped_frames().grey
    with pytest.raises(ClipError, match=r"^line 3 \(smile_1\): offset: the face could not be registered") as raised:
        aligned(AlignConfig(method="none", size=SIZE), portrait.frames(onset, apex, apex[::-1].copy()))
    assert "px" not in raised.value.args[0]  # no motion is stated that nothing bears out
    assert raised.value.code == FailureCode.REGISTRATION_FAILED


def test_the_rigid_region_leaves_out_what_expressions_move() -> None:
    to_crop = portrait.canonical(224)
    areas = regions(portrait.POINTS, to_crop, 224)

    def at(points: tuple[int, ...]) -> npt.NDArray[np.uint8]:
        column, row = np.rint(portrait.POINTS[list(points)] @ to_crop[:, :2].T + to_crop[:, 2]).astype(int).T
        return areas[row, column]

    assert set(np.unique(areas)) == {0, FACE, FACE | RIGID}
    for mobile in (*EYES, *BROWS, LIPS):
        assert (at(mobile) == FACE).all()
    assert (at((168, 195, 5, 4, 205, 425, 151)) == FACE | RIGID).all()  # nose, cheeks, forehead
    assert not (at(FACE_OVAL) & RIGID).any()
    assert 0.1 < np.mean((areas & RIGID) > 0) < 0.2


def test_only_the_part_of_a_large_frame_that_the_crop_shows_is_worked_on() -> None:
    frame = cv2.resize(portrait.GREY, (1500, 1500), interpolation=cv2.INTER_CUBIC)
    frame = np.pad(frame, ((100, 300), (400, 20)), mode="reflect")
    eyes = portrait.POINTS[list(CANONICAL)] * 5 + [402, 102]
    transform = fit_similarity(eyes, np.array(list(CANONICAL.values())) * SIZE - 0.5)
    sigma = 0.5 * np.sqrt(1 / abs(np.linalg.det(transform[:, :2])) - 1)
    blurred = cv2.GaussianBlur(frame, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    expected = cv2.warpAffine(blurred, transform, (SIZE, SIZE), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    np.testing.assert_allclose(face_crop(frame, transform, SIZE), expected, atol=1e-4)


def test_settings_are_not_shared_between_aligners() -> None:
    config = AlignConfig(method="none", size=SIZE)
    small = dataclasses.replace(config, size=64)
    with Aligner(config) as one, Aligner(small) as other:
        assert one.align(cropped_frames()).pixels.shape == (3, SIZE, SIZE)
        assert other.align(cropped_frames()).pixels.shape == (3, 64, 64)
