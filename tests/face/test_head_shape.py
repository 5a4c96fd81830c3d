"""The canonical face laid over landmarks: how it is turned, how deep it is, and how action units move it."""

from __future__ import annotations

import pickle

import cv2
import numpy as np
import numpy.typing as npt
import pytest

import portrait
from flowkit.face.face_mesh import CONTROL_POINTS, action_unit_fields, cage
from flowkit.face.head_shape import GRID, NOMINAL_PX, HeadShape
from flowkit.face.landmarks import CANONICAL, POINTS
from flowkit.storage.schema import ACTION_UNITS, DEPTH_MODES
from flowkit.synthetic.camera import rotation

Array = npt.NDArray[np.float64]

MESH = cage().points[:CONTROL_POINTS]
NOWHERE = np.full((POINTS, 2), np.nan, np.float32)
SIZES = (64, 224)


def landmarks_of(
    yaw: float = 0, pitch: float = 0, roll: float = 0, scale: float = 10, size: int = NOMINAL_PX
) -> npt.NDArray[np.float32]:
    """What a distant camera sees of the canonical face, turned by degrees, at px per cm of a crop of `NOMINAL_PX`."""
    flat = scale * (MESH @ rotation(yaw, pitch, roll).T)[:, :2] * [1, -1] + [111, 100]
    points = NOWHERE.copy()
    points[:CONTROL_POINTS] = (flat + 0.5) * size / NOMINAL_PX - 0.5
    return points


@pytest.fixture(scope="module")
def frontal() -> HeadShape:
    """The canonical face where no landmarks are known."""
    return HeadShape.of(NOWHERE, np.eye(2, 3), NOMINAL_PX)


@pytest.fixture(scope="module")
def person() -> HeadShape:
    return HeadShape.of(portrait.POINTS, portrait.canonical(NOMINAL_PX), NOMINAL_PX)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("yaw", "pitch", "roll"), [(0, 0, 0), (25, 0, 0), (0, -20, 0), (-10, 15, 30)])
def test_the_turn_and_the_size_of_a_face_are_read_off_its_landmarks(
    yaw: float, pitch: float, roll: float, size: int
) -> None:
    shape = HeadShape.of(landmarks_of(yaw, pitch, roll, 9.5, size), np.eye(2, 3), size)
    np.testing.assert_allclose(shape.rotation, rotation(yaw, pitch, roll), atol=1e-4)
    assert shape.px_per_cm == pytest.approx(9.5, rel=1e-4)
    depth = 9.5 * (MESH @ rotation(yaw, pitch, roll).T)[:, 2]
    np.testing.assert_allclose(np.ptp(shape.points[:CONTROL_POINTS, 2] - depth), 0, atol=1e-2)


def test_a_frame_and_its_crop_give_the_same_face() -> None:
    angle = np.radians(12)
    to_crop = 0.7 * np.array([[np.cos(angle), -np.sin(angle), 40], [np.sin(angle), np.cos(angle), -30]])
    in_crop = landmarks_of(10, 5)
    in_frame = (in_crop - to_crop[:, 2]) @ np.linalg.inv(to_crop[:, :2]).T
    shape, other = (
        HeadShape.of(in_frame, to_crop, NOMINAL_PX),
        HeadShape.of(in_crop, np.eye(2, 3), NOMINAL_PX),
    )
    np.testing.assert_allclose(shape.points, other.points, atol=1e-2)
    np.testing.assert_allclose(shape.centre, other.centre, atol=1e-2)


@pytest.mark.parametrize("turned", [False, True])
def test_depth_covers_the_whole_crop_and_is_the_same_at_every_size(frontal: HeadShape, turned: bool) -> None:
    shape = HeadShape.of(landmarks_of(20, -10), np.eye(2, 3), NOMINAL_PX) if turned else frontal
    small, large = (shape.depth(size) for size in SIZES)
    for depth in (small, large):
        assert depth.dtype == np.float32
        assert np.isfinite(depth).all()
        assert (depth == 0).mean() < 0.001
        assert np.abs(depth).max() < len(depth)
    shrunk = cv2.resize(large, (64, 64), interpolation=cv2.INTER_AREA) * 64 / 224
    assert np.abs(shrunk - small).mean() < 0.05
    assert (np.abs(shrunk - small) > 0.5).mean() < 0.03  # where the nose or the rim hides something else


def test_the_nose_is_nearest_and_the_rim_is_far(person: HeadShape) -> None:
    depth = person.depth(NOMINAL_PX)
    nose, left_ear, right_ear = np.rint(person.points[[4, 234, 454], :2]).astype(int)
    nearest = np.array(np.unravel_index(depth.argmax(), depth.shape))[::-1]
    assert np.abs(nearest - nose).max() < 5
    for x, y in (left_ear, right_ear):
        assert depth[nose[1], nose[0]] - depth[y, x] > 5 * person.px_per_cm


def test_landmarks_that_are_missing_give_the_canonical_face(frontal: HeadShape) -> None:
    places = np.array(list(CANONICAL.values())) * NOMINAL_PX - 0.5
    np.testing.assert_allclose(frontal.points[list(CANONICAL), :2], places, atol=4)
    np.testing.assert_allclose(frontal.rotation, np.eye(3), atol=1e-6)
    shifted = HeadShape.of(NOWHERE, np.array([[2.0, 0, 50], [0, 2, 70]]), 96)
    assert np.array_equal(shifted.points, frontal.points)


def test_a_face_whose_landmarks_are_given_in_part_is_the_canonical_one(frontal: HeadShape) -> None:
    points = landmarks_of(20, 10)
    points[17] = np.nan
    assert np.array_equal(HeadShape.of(points, np.eye(2, 3), NOMINAL_PX).points, frontal.points)
    only_nine = NOWHERE.copy()
    only_nine[list(CANONICAL)] = landmarks_of(20, 10)[list(CANONICAL)]
    assert np.array_equal(HeadShape.of(only_nine, np.eye(2, 3), NOMINAL_PX).points, frontal.points)


def test_irises_are_not_needed() -> None:
    without = landmarks_of(20, 10)
    given = without.copy()
    given[CONTROL_POINTS:] = 100
    shapes = [HeadShape.of(points, np.eye(2, 3), NOMINAL_PX) for points in (without, given)]
    assert np.array_equal(shapes[0].points, shapes[1].points)
    np.testing.assert_allclose(shapes[0].rotation, rotation(20, 10, 0), atol=1e-4)


@pytest.mark.parametrize("size", SIZES)
def test_a_corrected_depth_is_deeper_by_what_is_said(person: HeadShape, size: int) -> None:
    weights = np.random.default_rng(0).normal(0, 0.3, DEPTH_MODES)
    change = person.corrected(weights).depth(size) - person.depth(size)
    said = person.deeper(weights, size)
    assert said.shape == (size, size)
    inside, _ = portrait.masks(size)
    assert np.abs(change[inside]).mean() > 0.005 * size
    assert np.abs(change - said)[inside].mean() < 0.06 * np.abs(change)[inside].mean()
    np.testing.assert_allclose(person.deeper(2 * weights, size), 2 * said, atol=1e-4 * size)


def test_another_process_gets_the_same_face_and_no_more_than_it_needs(person: HeadShape) -> None:
    shape = person.corrected(np.full(DEPTH_MODES, 0.1))
    expected = shape.depth(224), shape.grid.depth, shape.grid.action_units, shape.grid.modes
    sent = pickle.dumps(shape)
    assert len(sent) < 3 * expected[0].nbytes
    there = pickle.loads(sent)
    found = there.depth(224), there.grid.depth, there.grid.action_units, there.grid.modes
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(there.depth(64), shape.depth(64))


def test_no_correction_changes_nothing(person: HeadShape) -> None:
    assert person.corrected(np.zeros(DEPTH_MODES)) is person
    assert not person.deeper(np.zeros(DEPTH_MODES), 64).any()


def test_corrections_add_up(person: HeadShape) -> None:
    one, other = np.random.default_rng(1).normal(0, 0.3, (2, DEPTH_MODES))
    np.testing.assert_allclose(
        person.corrected(one).corrected(other).points, person.corrected(one + other).points, atol=1e-9
    )


def test_there_is_a_field_for_each_name_that_a_shard_stores(frontal: HeadShape) -> None:
    assert frontal.grid.action_units.shape == (len(ACTION_UNITS), 2, GRID, GRID)
    assert frontal.grid.modes.shape == (DEPTH_MODES, GRID, GRID)
    assert frontal.grid.depth.shape == (GRID, GRID)
    for values in (frontal.grid.action_units, frontal.grid.modes, frontal.grid.depth):
        assert np.isfinite(values).all()


def test_a_field_moves_the_face_as_the_action_unit_of_its_name(frontal: HeadShape) -> None:
    """Of all action units, as far as a grid of 8 px shows lids and lips."""
    moved = np.stack([action_unit_fields()[int(name[:-1]), name[-1]] for name in ACTION_UNITS])[:, :CONTROL_POINTS, :2]
    at = np.ascontiguousarray((frontal.points[:CONTROL_POINTS, :2].T + 0.5) * GRID / NOMINAL_PX - 0.5, np.float32)
    planes = frontal.grid.action_units.reshape(-1, GRID, GRID)
    seen = np.stack([cv2.remap(plane, *at, cv2.INTER_LINEAR) for plane in planes])
    seen = seen.reshape(len(ACTION_UNITS), 2, CONTROL_POINTS).swapaxes(1, 2)
    true = moved * [1, -1] * frontal.px_per_cm
    products = np.einsum("kpc,lpc->kl", seen, true)
    cosines = products / np.sqrt(np.outer((seen**2).sum(axis=(1, 2)), (true**2).sum(axis=(1, 2))))
    assert np.array_equal(cosines.argmax(axis=1), np.arange(len(ACTION_UNITS)))
    assert (np.diag(cosines) > 0.8).all()


def test_left_and_right_are_mirror_images(frontal: HeadShape) -> None:
    fields = dict(zip(ACTION_UNITS, frontal.grid.action_units, strict=True))
    across = np.arange(GRID)[None]
    for name, field in fields.items():
        lengths = np.hypot(*field)
        middle = (lengths * across).sum() / lengths.sum()
        if name.endswith("L"):
            mirrored = fields[name[:-1] + "R"][..., ::-1] * np.array([-1, 1], np.float32)[:, None, None]
            assert np.abs(field - mirrored).mean() < 0.1 * np.abs(field).mean(), name
            assert middle > GRID / 2, name  # the subject's left is the image's right
        elif name.endswith("B"):
            assert middle == pytest.approx((GRID - 1) / 2, abs=0.5)
