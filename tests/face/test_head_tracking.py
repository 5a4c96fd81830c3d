"""A head followed from frame to frame: the warp by a turn, poses from landmarks, and faces that turn before a camera."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import portrait
from flowkit.face.align import Aligner, Face
from flowkit.face.anchor import Anchor
from flowkit.face.face_mesh import CONTROL_POINTS, cage
from flowkit.face.head_motion import head_fields
from flowkit.face.head_shape import NOMINAL_PX, HeadShape
from flowkit.face.head_tracking import pose_between, rescaled, turned
from flowkit.face.landmarks import POINTS
from flowkit.face.transforms import compose, mapped
from flowkit.inputs.clip import Clip
from flowkit.storage.schema import FACE
from flowkit.synthetic.camera import rotation
from sitter import AT_REST, SMILE, Sitter, landmark_settings

Array = npt.NDArray[np.float64]

SIZE = 112
CLIP = Clip("smile_1", "smile_1", 0, 1, 2, "s", "synth", "label")
MESH = cage().points[:CONTROL_POINTS]
WITHIN_DEG = {"s01": 0.5, "s03": 1.8}
"""How near the turn of a person is found: a flow says hardly more than turn times depth, and these heads have the mean depth."""


@pytest.fixture(scope="module")
def person() -> HeadShape:
    return HeadShape.of(portrait.POINTS, portrait.canonical(NOMINAL_PX), NOMINAL_PX)


def pixels(size: int) -> Array:
    return np.stack(np.meshgrid(np.arange(size), np.arange(size))).astype(np.float64)


# --- the warp


@pytest.mark.parametrize("size", [64, 224])
def test_no_turn_moves_nothing(person: HeadShape, size: int) -> None:
    places = turned(person, np.zeros(2), size)
    assert places.dtype == np.float32
    assert np.array_equal(places, pixels(size))


@pytest.mark.parametrize("size", [64, 224])
@pytest.mark.parametrize("axis", [0, 1], ids=["yaw", "pitch"])
def test_a_small_turn_moves_the_face_as_the_fit_says(person: HeadShape, axis: int, size: int) -> None:
    scale, angle = NOMINAL_PX / size, np.eye(2)[axis] * 0.01
    field = head_fields(person.depth(size) * scale, person, scale)[4 + axis] / scale
    moved = turned(person, angle, size) - pixels(size)
    np.testing.assert_allclose(moved, field, atol=0.03 * np.abs(field).max())


def test_a_turn_and_its_opposite_come_back(person: HeadShape) -> None:
    """As far as the depth of a face that has turned is that of the same place."""
    there, back = (turned(person, np.array(turn), NOMINAL_PX) - pixels(NOMINAL_PX) for turn in ((0.03, 0), (-0.03, 0)))
    face, _ = portrait.masks(NOMINAL_PX)
    assert np.abs(there + back)[:, face].mean() < 0.1 * np.abs(there)[:, face].mean()


def test_the_face_grows_on_the_side_that_comes_nearer(person: HeadShape) -> None:
    """Yaw brings the image's left side of the face to the camera, pitch its upper side back: both as in `face_scenes`."""
    flat = np.full_like(person.points, 0.0)
    flat[:, :2] = person.points[:, :2]
    sheet = dataclasses.replace(person, points=flat, _depths={})
    yawed, pitched = (turned(sheet, np.array(turn), NOMINAL_PX) - pixels(NOMINAL_PX) for turn in ((0.2, 0), (0, 0.2)))
    middle, row = int(person.centre[0]), int(person.centre[1])
    left, right = (np.abs(yawed[1][200, middle + dx]) * np.sign(yawed[1][200, middle + dx]) for dx in (-60, 60))
    assert left > 0 > right
    above, below = (pitched[0][row + dy, 200] for dy in (-50, 50))
    assert above > 0 > below


# --- poses from landmarks


def landmarks_of(turn: Array) -> npt.NDArray[np.float32]:
    points = np.full((POINTS, 2), np.nan, np.float32)
    points[:CONTROL_POINTS] = 10 * (MESH @ turn.T)[:, :2] * [1, -1] + [111, 100]
    return points


@pytest.mark.parametrize("onset", [(0, 0, 0), (15, -10, 5)], ids=["frontal", "turned"])
@pytest.mark.parametrize(("yaw", "pitch"), [(0, 0), (8, 0), (0, -6), (-12, 9)])
def test_a_pose_is_read_off_the_landmarks_of_the_same_head(onset: tuple[float, ...], yaw: float, pitch: float) -> None:
    """A yaw, then a pitch, then a motion in the plane."""
    before = rotation(*onset)
    after = rotation(0, pitch, 0) @ rotation(yaw, 0, 0) @ before
    moved = portrait.drift(7, 6, 1.03)
    frame = landmarks_of(after) @ moved[:, :2].T + moved[:, 2]
    shapes = [
        HeadShape.of(points.astype(np.float32), np.eye(2, 3), NOMINAL_PX) for points in (landmarks_of(before), frame)
    ]
    similarity, turn = pose_between(shapes[0], shapes[1], NOMINAL_PX)
    np.testing.assert_allclose(np.degrees(turn), [yaw, pitch], atol=0.05)
    # The warp has perspective, these landmarks have none, and the mean of the face shifts as it turns.
    true = shapes[1].points[:CONTROL_POINTS, :2]
    at = np.rint(shapes[0].points[:CONTROL_POINTS, :2]).astype(int)
    found = mapped(similarity, turned(shapes[0], turn, NOMINAL_PX))[:, at[:, 1], at[:, 0]].T
    face = np.abs(MESH[:, 0]) < 5
    assert np.hypot(*(found - true)[face].T).mean() < 1.5
    if yaw == pitch == 0:
        np.testing.assert_allclose(similarity, moved, atol=1e-2)


def test_a_turn_that_is_not_looked_for_is_none() -> None:
    shapes = [HeadShape.of(landmarks_of(rotation(yaw, 0, 0)), np.eye(2, 3), NOMINAL_PX) for yaw in (0, 10)]
    similarity, turn = pose_between(shapes[0], shapes[1], NOMINAL_PX, turns=False)
    assert not turn.any()
    assert similarity[0, 2] != 0


def test_a_transform_is_the_same_in_crops_of_every_size() -> None:
    transform = portrait.drift(5, 7, 1.1, 224)
    small = rescaled(transform, 0.5)
    point = np.array([30.0, 170.0])
    there = (transform[:, :2] @ point + transform[:, 2] + 0.5) * 0.5 - 0.5
    np.testing.assert_allclose(small[:, :2] @ ((point + 0.5) * 0.5 - 0.5) + small[:, 2], there)
    np.testing.assert_allclose(rescaled(small, 2), transform, atol=1e-12)
    np.testing.assert_allclose(rescaled(np.eye(2, 3), 0.3), np.eye(2, 3), atol=1e-12)
    np.testing.assert_allclose(rescaled(compose(transform, transform), 0.5), compose(small, small), atol=1e-12)


# --- a head before a camera


class Session:
    """A person whose landmarks at the onset are given, and what becomes of further frames."""

    def __init__(self, name: str, folder: Path) -> None:
        self.sitter = Sitter.of(name, average=True, width=240, height=240, pose_deg=0, flat=True)
        self.aligner = Aligner(landmark_settings(folder / f"{name}.csv", self.sitter.landmarks(), SIZE))
        onset = self.sitter.shot(1)
        rgb = np.repeat(np.uint8(255 * onset)[..., None], 3, axis=2)
        self.anchor: Anchor = self.aligner.anchor(CLIP, onset, rgb)

    def carried(
        self,
        apex: tuple[float, ...],
        offset: tuple[float, ...],
        valid: tuple[bool, bool] = (True, True),
        smiling: bool = False,
    ) -> Face:
        frames = self.sitter.shot(2, SMILE if smiling else None, apex), self.sitter.shot(3, None, offset)
        return self.aligner.carry(self.anchor, frames, valid, "clip")

    def error(self, face: Face, frame: int, pose: tuple[float, ...]) -> tuple[float, float]:
        """How far points of the face are from where the warp takes them, and how far they went; means, px of the crop."""
        shape = self.anchor.shape.corrected(face.depth_cm)
        to_crop = self.anchor.transform
        here, there = (
            self.sitter.landmarks(at)[:CONTROL_POINTS] @ to_crop[:, :2].T + to_crop[:, 2] for at in (AT_REST, pose)
        )
        column, row = np.rint(here).astype(int).T
        places = mapped(face.registration[frame], turned(shape, np.radians(face.turn[frame]), SIZE))
        moved = places[:, row, column].T - np.column_stack([column, row])
        inside = (self.anchor.regions[row, column] & FACE) > 0
        left, true = moved - (there - here), there - here
        return tuple(float(np.hypot(*each[inside].T).mean()) for each in (left, true))  # type: ignore[return-value]


@pytest.fixture(scope="module", params=WITHIN_DEG)
def session(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Session:
    return Session(request.param, tmp_path_factory.mktemp("landmarks"))


@pytest.mark.parametrize("smiling", [False, True])
@pytest.mark.parametrize("pose", [(3, 0, 0, 0, 0, 0), (0, -3, 0, 0, 0, 0), (-3, 2, 2, 5, -4, 0.01)])
def test_the_motion_of_a_head_is_found(session: Session, pose: tuple[float, ...], smiling: bool) -> None:
    half = tuple(value / 2 for value in pose)
    face = session.carried(pose, half, smiling=smiling)
    for frame, at in enumerate((pose, half)):
        left, moved = session.error(face, frame, at)
        assert left < 0.2 * moved
        np.testing.assert_allclose(face.turn[frame], at[:2], atol=WITHIN_DEG[session.sitter.subject.name])
    assert not face.landmark_start


@pytest.mark.parametrize("valid", [(True, False), (False, True), (False, False)])
def test_a_phase_that_is_not_valid_has_no_say(session: Session, valid: tuple[bool, bool]) -> None:
    pose = (2.0, 0.0, 0.0, 3.0, 0.0, 0.0)
    apex = pose if valid[0] else AT_REST
    face = session.carried(apex, pose, valid)
    for frame, is_seen in enumerate((valid[0], any(valid))):
        if not is_seen:
            assert np.array_equal(face.registration[frame], np.eye(2, 3))
            assert not face.turn[frame].any()
        else:
            left, moved = session.error(face, frame, pose)
            assert left < 0.2 * moved
    if not valid[1]:
        assert np.array_equal(face.registration[0], face.registration[1])
        assert np.array_equal(face.turn[0], face.turn[1])
    if not any(valid):
        assert not face.depth_cm.any()


def test_a_head_that_keeps_still_is_not_moved_by_a_smile(session: Session) -> None:
    face = session.carried(AT_REST, AT_REST, smiling=True)
    for frame in (0, 1):
        left, _ = session.error(face, frame, AT_REST)
        assert left < 0.15
        assert np.abs(face.turn[frame]).max() < 0.5
