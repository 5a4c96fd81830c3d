"""Courses of neighbouring parts become one: strengths go on where a run does, and nothing is joined that should not be."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from flowkit.spotting.course import FRAME, LIDS, STRENGTHS, UNITS, Course, Use
from flowkit.storage.schema import ACTION_UNITS

FPS = 30.0


def course(first: int, runs: list[int], cuts: tuple[int, ...] = (), seed: int = 0) -> Course:
    """A part whose strengths are multiples of 1/64, so that sums of them are exact; each run begins at rest."""
    rng = np.random.default_rng(seed)
    frames = np.zeros(len(runs), FRAME)
    frames["number"] = first + np.arange(len(runs))
    frames["seconds"] = frames["number"] / FPS
    frames["run"] = runs
    frames["use"] = np.where(frames["run"] < 0, Use.HIDDEN, Use.USED)
    frames["faces"] = 1
    for name in STRENGTHS:
        frames[name] = rng.integers(-64, 64, frames[name].shape) / 64
        frames[name][frames["run"] < 0] = 0
        for run in set(runs) - {-1}:
            frames[name][runs.index(run)] = 0
    return Course(FPS, frames, np.array(cuts, np.int64))


def stretches(joined: Course) -> list[int]:
    """Runs by the order in which they come, whatever they are called."""
    names = [-1, *dict.fromkeys(run for run in joined.frames["run"].tolist() if run >= 0)]
    return [names.index(run) - 1 for run in joined.frames["run"].tolist()]


def relative(frames: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    return np.asarray(frames[name] - frames[name][0])


def test_a_course_has_every_action_unit_once() -> None:
    assert sorted((*UNITS, *LIDS)) == sorted(ACTION_UNITS)
    assert all(use.meaning for use in Use)
    assert len({use.meaning for use in Use}) == len(Use)


def test_a_run_goes_on_through_the_shared_frame() -> None:
    here, there = course(0, [0] * 5), course(4, [0] * 6, seed=1)
    joined = here.followed_by(there)
    assert joined.frames["number"].tolist() == list(range(10))
    assert joined.frames["run"].tolist() == [0] * 10
    assert np.array_equal(joined.frames[:5], here.frames)
    for name in STRENGTHS:
        assert np.abs(here.frames[name][-1]).max() > 0
        assert np.array_equal(relative(joined.frames[4:], name), relative(there.frames, name))
        assert np.array_equal(joined.frames[name][4], here.frames[name][-1])


def test_a_later_run_of_the_next_part_stays_as_it_is() -> None:
    here, there = course(0, [0, 0, 1, 1]), course(3, [0, 0, -1, 1, 1], seed=1)
    joined = here.followed_by(there)
    assert stretches(joined) == [0, 0, 1, 1, 1, -1, 2, 2]
    for name in STRENGTHS:
        assert np.array_equal(joined.frames[name][5:], there.frames[name][2:])


@pytest.mark.parametrize(
    ("here", "there"), [([0, 0, -1], [0, 0, 0]), ([0, 0, 0], [-1, 0, 0]), ([0, 0, -1], [-1, 0, 0])]
)
def test_runs_are_not_joined_where_the_shared_frame_was_unused_in_either(here: list[int], there: list[int]) -> None:
    before, after = course(0, here), course(2, there, seed=1)
    joined = before.followed_by(after)
    assert joined.frames["number"].tolist() == [0, 1, 2, 3, 4]
    assert len({run for run in joined.frames["run"].tolist() if run >= 0}) == 2
    assert np.array_equal(joined.frames[:3], before.frames)
    for name in STRENGTHS:
        assert np.array_equal(joined.frames[name][3:], after.frames[name][1:])


@pytest.mark.parametrize("first", [5, 6, 100])
def test_runs_are_not_joined_where_no_frame_is_shared(first: int) -> None:
    here, there = course(0, [0] * 5), course(first, [0] * 5, seed=1)
    joined = here.followed_by(there)
    assert joined.frames["number"].tolist() == [*range(5), *range(first, first + 5)]
    assert stretches(joined) == [0] * 5 + [1] * 5
    for name in STRENGTHS:
        assert np.array_equal(joined.frames[name][5:], there.frames[name])


def test_joining_leaves_the_parts_as_they_are() -> None:
    here, there = course(0, [0] * 5), course(4, [0] * 5, seed=1)
    before = here.frames.copy(), there.frames.copy()
    here.followed_by(there)
    assert np.array_equal(here.frames, before[0])
    assert np.array_equal(there.frames, before[1])


def test_an_empty_course_adds_nothing() -> None:
    empty, some = Course.of(FPS, [], []), course(3, [0, 0, -1], (4,))
    assert len(empty) == 0
    assert empty.frames.dtype == FRAME
    assert len(empty.followed_by(empty)) == 0
    for joined in (empty.followed_by(some), some.followed_by(empty)):
        assert np.array_equal(joined.frames, some.frames)
        assert joined.cuts.tolist() == [4]
    assert len(empty.part(0, 10)) == 0


def test_a_part_keeps_the_cuts_inside() -> None:
    whole = course(100, [0] * 20, (100, 105, 109, 110, 119))
    part = whole.part(5, 10)
    assert part.frames["number"].tolist() == [105, 106, 107, 108, 109]
    assert part.cuts.tolist() == [105, 109]
    assert part.fps == FPS
    assert whole.part(11, 19).cuts.tolist() == []
    assert whole.part(0, 20).cuts.tolist() == whole.cuts.tolist()


def test_joined_parts_have_the_cuts_and_interlaced_frames_of_both() -> None:
    here = Course(FPS, course(0, [0] * 5).frames, np.array([2]), 3)
    there = Course(FPS, course(4, [0] * 5).frames, np.array([6, 8]), 4)
    joined = here.followed_by(there)
    assert joined.cuts.tolist() == [2, 6, 8]
    assert joined.interlaced == 7


@pytest.mark.parametrize("shared", [[0, 0], [-1, 0], [0, -1], [-1, -1]])
def test_three_parts_become_the_same_in_either_order_of_joining(shared: list[int]) -> None:
    first = course(0, [0, 0, 1, shared[0] + (shared[0] == 0)], (2,))
    second = course(3, [shared[0], 0, -1, 1, shared[1]], (5, 6), seed=1)
    third = course(7, [shared[1], 0, 1, 1], (9,), seed=2)
    left = first.followed_by(second).followed_by(third)
    right = first.followed_by(second.followed_by(third))
    assert stretches(left) == stretches(right)
    assert np.array_equal(left.cuts, right.cuts)
    for name in sorted(set(FRAME.names or ()) - {"run"}):
        assert np.array_equal(left.frames[name], right.frames[name]), name
    assert left.frames["number"].tolist() == list(range(11))


def test_a_course_that_was_cut_anywhere_and_joined_is_the_same_again() -> None:
    whole = course(0, [0] * 10 + [-1] * 3 + [1] * 12, (10,))
    for place in range(1, 24):
        joined = whole.part(0, place + 1).followed_by(whole.part(place, 25))
        assert stretches(joined) == stretches(whole)
        assert joined.cuts.tolist() == [10]
        for name in sorted(set(FRAME.names or ()) - {"run"}):
            assert np.array_equal(joined.frames[name], whole.frames[name]), (place, name)
