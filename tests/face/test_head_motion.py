"""Head motion and expression told apart in flows that are a known sum of both."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import pytest

import portrait
from flowkit.face.head_motion import HeadFit, head_fields, motion_of, similarity_of, tell_apart
from flowkit.face.head_shape import GRID, NOMINAL_PX, HeadShape
from flowkit.face.regions import fit_samples, regions
from flowkit.storage.schema import ACTION_UNITS, DEPTH_MODES, FACE

Array = npt.NDArray[np.float64]

SIZE = 96
BOTH = (True, True)
UNITS_OF_FIT = np.array([1, 1, 100, 100, 100, 100])
POSES = np.array([[1.5, -1.0, 0.010, 0.005, 0.020, -0.015], [-1.0, 0.5, -0.015, 0.002, -0.030, 0.020]])
"""Shift in px of a crop of 224, roll, logarithm of the size, yaw and pitch: of the rise and of the fall."""
SMILE = {"6": 0.10, "12": 0.15}
EXPRESSIONS = {
    "smile": SMILE,
    "disgust": {"9": 0.15, "10": 0.10, "4": 0.10},
    "raised brows": {"1": 0.15, "2": 0.15, "5": 0.05},
    "chin and lips": {"17": 0.10, "24": 0.10},
    "blink": {"45": 0.50},
    "talking": {"25": 0.20, "26": 0.30},
}
"""Action units and their strength, cm."""


class Subject(NamedTuple):
    """The portrait over a crop: its surface, the samples of the fit, and its face."""

    shape: HeadShape
    samples: npt.NDArray[np.bool_]
    face: npt.NDArray[np.bool_]
    size: int

    def head(self, pose: Array, turn: Array | tuple[float, float] = (0.0, 0.0)) -> Array:
        """Flow of the motion alone of a head that has turned by so much, (2, size, size)."""
        scale = NOMINAL_PX / self.size
        fields = head_fields(self.shape.depth(self.size) * scale, self.shape, scale, np.asarray(turn))
        return np.asarray(np.einsum("k,kchw->chw", pose * UNITS_OF_FIT, fields) / scale)

    def expression(self, strengths: dict[str, float]) -> Array:
        """Flow of action units alone, on both sides where only a number is given, (2, size, size)."""
        weights = np.array([strengths.get(name, strengths.get(name[:-1], 0.0)) for name in ACTION_UNITS])
        field = np.einsum("k,kchw->chw", weights, self.shape.grid.action_units) * self.size / NOMINAL_PX
        return np.stack([cv2.resize(plane, (self.size, self.size), interpolation=cv2.INTER_CUBIC) for plane in field])

    def fit(
        self,
        rise: Array,
        fall: Array,
        valid: tuple[bool, bool] = BOTH,
        samples: npt.NDArray[np.bool_] | None = None,
        turn: Array | None = None,
    ) -> HeadFit:
        inside = self.samples if samples is None else samples
        flow = np.stack([rise, fall]).astype(np.float32)
        return tell_apart(flow, self.shape, inside, valid, np.zeros((2, 2)) if turn is None else turn)

    def error(self, fit: HeadFit, *heads: Array | float) -> list[float]:
        """How far what would be removed from each phase is from the head's true motion, mean over the face, px."""
        motion = motion_of(fit.motion, fit.turn, fit.depth_cm, self.shape, self.size)
        return [self.mean(removed - true) for removed, true in zip(motion, heads, strict=True)]

    def mean(self, flow: Array) -> float:
        return float(np.hypot(*flow)[self.face].mean())


def subject(size: int) -> Subject:
    transform = portrait.canonical(size)
    areas = regions(portrait.POINTS, transform, size)
    shape = HeadShape.of(portrait.POINTS, transform, size)
    return Subject(shape, fit_samples(areas, portrait.POINTS, transform), (areas & FACE) > 0, size)


@pytest.fixture(scope="module")
def person() -> Subject:
    return subject(SIZE)


@pytest.fixture(scope="module")
def still(person: Subject) -> Array:
    return np.zeros((2, SIZE, SIZE))


def finite(fit: HeadFit) -> bool:
    """Whether a fit holds numbers where it must."""
    values = (fit.motion, fit.moved_px, fit.turn, fit.depth_cm, fit.expression_cm, fit.left_px)
    return all(bool(np.isfinite(value).all()) for value in values)


@pytest.mark.parametrize("corrected", [False, True])
def test_what_is_removed_is_the_sum_of_the_fields_of_a_pose(person: Subject, still: Array, corrected: bool) -> None:
    depth_cm = np.random.default_rng(0).normal(0, 0.3, DEPTH_MODES) * corrected
    turn = np.array([[0.03, -0.02], [-0.05, 0.01]])
    fit = dataclasses.replace(person.fit(still, still), motion=POSES, turn=turn, depth_cm=depth_cm)
    # A correction of the depth counts wherever the head has turned, before or in this flow.
    deeper = turn[:, :, None, None] * person.shape.deeper(depth_cm, SIZE)
    undone = np.cumsum(turn - POSES[:, 4:], axis=0)
    expected = np.stack([person.head(*phase) for phase in zip(POSES, undone, strict=True)]) + deeper
    np.testing.assert_allclose(motion_of(fit.motion, fit.turn, fit.depth_cm, person.shape, SIZE), expected, atol=1e-4)


def test_the_similarity_of_a_motion_is_its_part_in_the_plane(person: Subject) -> None:
    pose = POSES[0] * [1, 1, 1, 0, 0, 0]
    y, x = np.mgrid[:SIZE, :SIZE]
    moved = np.einsum("ck,kyx->cyx", similarity_of(pose, person.shape, SIZE), np.stack([x, y, np.ones_like(x)]))
    np.testing.assert_allclose(moved, person.head(pose), atol=1e-9)


@pytest.mark.parametrize("number", range(6), ids=["right", "down", "roll", "size", "yaw", "pitch"])
def test_each_number_of_a_pose_is_found_and_removed(person: Subject, number: int) -> None:
    pose = np.zeros(6)
    pose[number] = (2, 2, 0.02, 0.02, 0.03, 0.03)[number]
    head = person.head(pose), person.head(-0.7 * pose)
    fit = person.fit(*head)
    for phase, share in enumerate((1, -0.7)):
        found = fit.motion[phase] * UNITS_OF_FIT
        np.testing.assert_allclose(found, share * pose * UNITS_OF_FIT, rtol=0.06, atol=0.03)
    assert max(person.error(fit, *head)) < 0.03 * person.mean(head[0])
    np.testing.assert_allclose(fit.moved_px, [person.mean(flow) * NOMINAL_PX / SIZE for flow in head], rtol=0.1)
    assert fit.expression_cm.max() < 0.005
    assert np.array_equal(fit.turn, fit.motion[:, 4:])


@pytest.mark.parametrize("name", ACTION_UNITS)
def test_an_action_unit_of_a_still_head_is_left_as_it_is(person: Subject, name: str) -> None:
    flow = person.expression({name: 0.12})
    fit = person.fit(flow, -flow)
    assert max(person.error(fit, 0.0, 0.0)) < 0.015
    assert max(person.error(fit, 0.0, 0.0)) < 0.3 * person.mean(flow)
    found, others = (
        fit.expression_cm[0, ACTION_UNITS.index(name)],
        np.delete(fit.expression_cm[0], ACTION_UNITS.index(name)),
    )
    if not name.startswith("45"):  # openings of the eyes hold no samples
        assert found > max(0.015, 1.2 * others.max())  # 25 is much like 16 and 26


@pytest.mark.parametrize("moving", [False, True], ids=["head still", "head moving"])
@pytest.mark.parametrize("name", EXPRESSIONS)
def test_an_expression_is_left_whatever_the_head_does(person: Subject, name: str, moving: bool) -> None:
    flow = person.expression(EXPRESSIONS[name])
    rise, fall = (moving * person.head(pose) for pose in POSES)
    fit = person.fit(flow + rise, fall - flow)
    assert max(person.error(fit, rise, fall)) < 0.04
    assert max(person.error(fit, rise, fall)) < 0.2 * person.mean(flow)
    assert (fit.expression_cm > -0.01).all()


@pytest.mark.parametrize("moving", [False, True], ids=["head still", "head moving"])
@pytest.mark.parametrize("name", EXPRESSIONS)
def test_a_fall_need_not_undo_the_rise(person: Subject, name: str, moving: bool) -> None:
    flow, other = person.expression(EXPRESSIONS[name]), person.expression({"15": 0.08, "14": 0.06})
    rise, fall = (moving * person.head(pose) for pose in POSES)
    for falling in (-0.4 * flow, other - flow, 0.3 * flow, 0 * flow):
        fit = person.fit(flow + rise, falling + fall)
        assert max(person.error(fit, rise, fall)) < 0.07


@pytest.mark.parametrize("name", EXPRESSIONS)
@pytest.mark.parametrize(
    ("valid", "sign"),
    [((True, False), 1), ((False, True), 1), ((False, True), -1)],
    ids=["comes in the rise", "comes in the fall", "goes in the fall"],
)
def test_one_phase_is_enough(person: Subject, still: Array, name: str, valid: tuple[bool, bool], sign: int) -> None:
    phase = valid.index(True)
    flow, head = sign * person.expression(EXPRESSIONS[name]), person.head(POSES[phase])
    flows, heads = [still, still], [still, still]
    flows[phase], heads[phase] = flow + head, head
    fit = person.fit(flows[0], flows[1], valid)
    assert person.error(fit, *heads)[phase] < 0.08
    assert not fit.motion[1 - phase].any()
    assert not motion_of(fit.motion, fit.turn, fit.depth_cm, person.shape, SIZE)[1 - phase].any()
    assert finite(fit)
    assert np.array_equal(np.isnan(fit.separation), [not one for one in valid])


def test_an_invalid_phase_is_not_looked_at(person: Subject, still: Array) -> None:
    flow = person.expression(SMILE) + person.head(POSES[0])
    given, empty = (person.fit(flow, other, (True, False)) for other in (100 * flow, still))
    for value in ("motion", "depth_cm", "expression_cm", "separation"):
        assert np.array_equal(getattr(given, value), getattr(empty, value), equal_nan=True)


def test_where_nothing_moves_nothing_is_removed(person: Subject, still: Array) -> None:
    for valid in (BOTH, (True, False), (False, True), (False, False)):
        fit = person.fit(still, still, valid)
        assert not fit.motion.any()
        assert not fit.expression_cm.any()
        assert not fit.depth_cm.any()
        assert not motion_of(fit.motion, fit.turn, fit.depth_cm, person.shape, SIZE).any()
        assert np.array_equal(np.isnan(fit.separation), [not one for one in valid])


def test_a_phase_that_is_not_valid_at_all_removes_nothing(person: Subject) -> None:
    flow = person.expression(SMILE) + person.head(POSES[0])
    fit = person.fit(flow, flow, (False, False))
    assert not motion_of(fit.motion, fit.turn, fit.depth_cm, person.shape, SIZE).any()
    assert np.isnan(fit.separation).all()


@pytest.mark.parametrize("name", [name for name in EXPRESSIONS if name != "raised brows"])
def test_an_expression_that_fades_is_not_taken_for_the_head(person: Subject, name: str) -> None:
    """Where the onset shows one already: the wrong frame, or a recording that begins with a smile.

    Brows that sink look too much like a head that nods: they are lost (docs/alignment.md).
    """
    flow = person.expression(EXPRESSIONS[name])
    fit = person.fit(-flow, 0 * flow, (True, False))
    assert person.error(fit, 0 * flow, 0 * flow)[0] < 0.7 * person.mean(flow)


def test_everything_moves_at_once(person: Subject) -> None:
    flow = sum(person.expression(units) for units in EXPRESSIONS.values())
    heads = [person.head(pose) for pose in POSES]
    fit = person.fit(flow + heads[0], heads[1] - flow)
    assert finite(fit)
    assert max(person.error(fit, *heads)) < 0.15 * person.mean(flow)


@pytest.mark.parametrize("length", [1e-12, 30, 1e5])
def test_a_flow_that_no_face_makes_gives_numbers(person: Subject, still: Array, length: float) -> None:
    noise = length * np.random.default_rng(0).standard_normal((2, SIZE, SIZE))
    for rise, fall in ((noise, still), (still, noise), (noise, noise[::-1]), (length + still, still)):
        fit = person.fit(rise, fall)
        assert finite(fit)
        assert np.isfinite(fit.separation).all()
        assert np.isfinite(motion_of(fit.motion, fit.turn, fit.depth_cm, person.shape, SIZE)).all()


@pytest.mark.parametrize("count", [0, 1, 23])
def test_where_too_little_of_a_face_is_seen_nothing_is_removed_and_it_is_said(person: Subject, count: int) -> None:
    few = np.zeros((GRID, GRID), np.bool_)
    few.flat[np.flatnonzero(person.samples)[:count]] = True
    turn = np.array([[0.05, 0.01], [0.02, -0.03]])
    fit = person.fit(person.head(POSES[0]), person.head(POSES[1]), samples=few, turn=turn)
    assert not fit.motion.any()
    assert not motion_of(fit.motion, fit.turn, fit.depth_cm, person.shape, SIZE).any()
    assert np.isnan(fit.separation).all()
    assert finite(fit)
    np.testing.assert_allclose(fit.turn, [[0.05, 0.01], [-0.03, -0.04]])


def test_separation_says_how_much_of_a_face_was_seen(person: Subject) -> None:
    flow, heads = person.expression(SMILE), [person.head(pose) for pose in POSES]
    half, quarter = person.samples.copy(), person.samples.copy()
    half[:, : GRID // 2] = False
    quarter[:, : GRID // 2] = quarter[: GRID // 2] = False
    fits = [person.fit(flow + heads[0], heads[1] - flow, samples=seen) for seen in (person.samples, half, quarter)]
    whole, halved, quartered = (fit.separation for fit in fits)
    assert (whole < 0.9 * halved).all()
    assert (halved < 0.9 * quartered).all()
    assert max(person.error(fits[1], *heads)) < 0.05


def test_separation_is_worse_where_the_flow_is(person: Subject) -> None:
    noise = 0.5 * np.random.default_rng(1).standard_normal((2, 2, GRID, GRID))
    rough = np.stack([[cv2.resize(plane, (SIZE, SIZE)) for plane in phase] for phase in noise])
    heads = [person.head(pose) for pose in POSES]
    smooth, noisy = person.fit(*heads), person.fit(*(np.stack(heads) + rough))
    assert (smooth.separation < noisy.separation).all()
    assert smooth.left_px.max() < 0.02
    assert noisy.left_px.min() > 0.2
    assert person.fit(*(np.stack(heads) + rough), valid=(True, False)).left_px[1] == 0


def test_a_turn_that_was_undone_already_counts_for_the_depth(person: Subject) -> None:
    """An error of the depth moves the face along the turn in the pictures, with no turn left in the flow."""
    turn, depth_cm = np.array([[0.10, 0.0], [0.0, 0.08]]), np.zeros(DEPTH_MODES)
    depth_cm[-1] = 0.4
    steps = np.stack([turn[0], turn[1] - turn[0]])
    flow = steps[:, :, None, None] * person.shape.deeper(depth_cm, SIZE)
    fit = person.fit(flow[0], flow[1], turn=turn)
    assert max(person.error(fit, *flow)) < 0.3 * person.mean(flow[0])
    np.testing.assert_allclose(fit.turn, steps + fit.motion[:, 4:])


@pytest.mark.parametrize("size", [64, 224])
def test_the_size_of_the_crop_does_not_matter(person: Subject, size: int) -> None:
    other = subject(size)
    found = []
    for one in (person, other):
        flow, heads = one.expression(SMILE), [one.head(pose) for pose in POSES]
        found.append(one.fit(flow + heads[0], heads[1] - flow, samples=person.samples))
    one, same = found
    np.testing.assert_allclose(one.motion * UNITS_OF_FIT, same.motion * UNITS_OF_FIT, atol=0.06)
    np.testing.assert_allclose(one.moved_px, same.moved_px, atol=0.02)
    np.testing.assert_allclose(one.separation, same.separation, rtol=0.1)
    removed = [
        motion_of(fit.motion, fit.turn, fit.depth_cm, who.shape, who.size)
        for fit, who in zip(found, (person, other), strict=True)
    ]
    lengths = [
        np.hypot(*each.swapaxes(0, 1))[:, who.face].mean() for each, who in zip(removed, (person, other), strict=True)
    ]
    assert lengths[1] / lengths[0] == pytest.approx(size / SIZE, rel=0.03)


def test_the_number_of_threads_of_blas_changes_no_byte(person: Subject) -> None:
    threadpoolctl = pytest.importorskip("threadpoolctl")
    flow, heads = person.expression(SMILE), [person.head(pose) for pose in POSES]
    found = []
    for threads in (1, 2):
        with threadpoolctl.threadpool_limits(threads):
            fit = subject(SIZE).fit(flow + heads[0], heads[1] - flow)
        found.append(
            b"".join(getattr(fit, name).tobytes() for name in ("motion", "depth_cm", "expression_cm", "separation"))
        )
    assert found[0] == found[1]
