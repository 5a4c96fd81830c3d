"""A made-up course is searched: the same intervals however it comes, each once, and none where there is nothing to see."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from face_course import BROWS, FPS, Frames, blink, leave_out, raise_units, still
from flowkit.spotting.course import Course, Use
from flowkit.spotting.intervals import (
    LEAST_CONFIDENCE,
    LEAST_FRAMES,
    LEAST_RISE,
    MICRO_S,
    MOST_OVERLAP,
    Interval,
    IntervalSearch,
    overlap,
    search,
)

Curve = npt.NDArray[np.float32]
HILLS = {400: (6, 8), 1000: (20, 30), 1800: (6, 8), 2500: (5, 7), 3600: (20, 30), 4444: (6, 8), 4900: (40, 60)}
"""Apexes, two of them where blocks meet, and how many frames they rise and fall."""
BLINKS = (200, 700, 1003, 1500, 2300, 3000, 3300, 4000)


def hide(frames: Frames, begin: int, end: int) -> None:
    """Make frames unused, and those behind them another run."""
    frames["run"][end:] += 1
    leave_out(frames, begin, end, Use.HIDDEN)


def of(frames: Frames, fps: float = FPS) -> Course:
    return Course(fps, frames, np.zeros(0, np.int64))


def searched(course: Course, piece_s: float = np.inf, least: float = LEAST_CONFIDENCE) -> tuple[list[Interval], Curve]:
    """Feed a course in pieces that share a frame."""
    whole = IntervalSearch(course.fps, least)
    step = len(course) if np.isinf(piece_s) else round(piece_s * course.fps)
    found = []
    for begin in range(0, len(course) - 1, step):
        found += whole.add(course.part(begin, begin + step + 1))
    found += whole.finish()
    return [one for stretch in found for one in stretch.intervals], np.concatenate([one.curve for one in found])


def expressions(intervals: list[Interval]) -> list[Interval]:
    return [one for one in intervals if one.kind != "blink"]


def strong(intervals: list[Interval]) -> list[Interval]:
    """The expressions that move more than noise does."""
    return [one for one in expressions(intervals) if one.motion_px > 0.2]


@pytest.fixture(scope="module")
def course() -> Course:
    """Nearly three minutes: three blocks."""
    frames = still(5117)
    for apex, (rise, fall) in HILLS.items():
        raise_units(frames, apex, rise, fall)
    for apex in BLINKS:
        blink(frames, apex)
    return of(frames)


@pytest.fixture(scope="module")
def found(course: Course) -> tuple[list[Interval], Curve]:
    """What is found in it in one piece."""
    return searched(course)


@pytest.mark.parametrize("piece_s", [7, 61])
def test_pieces_change_nothing(course: Course, found: tuple[list[Interval], Curve], piece_s: float) -> None:
    intervals, curve = searched(course, piece_s)
    assert intervals == found[0]
    assert np.array_equal(curve, found[1], equal_nan=True)


def test_every_hill_is_found_once_also_where_blocks_meet(found: tuple[list[Interval], Curve]) -> None:
    intervals = strong(found[0])
    assert len(intervals) == len(HILLS)
    for one, (apex, (rise, fall)) in zip(intervals, HILLS.items(), strict=True):
        assert abs(one.apex - apex) <= 1 + 0.1 * (rise + fall)
        assert one.onset == pytest.approx(apex - rise, abs=2 + 0.15 * (rise + fall))
        assert one.offset == pytest.approx(apex + fall, abs=2 + 0.15 * (rise + fall))
        assert one.confidence > 0.9
        assert one.region == "brows"
        assert set(one.action_units.split("+")) == set(BROWS)


def test_every_blink_is_found_once(found: tuple[list[Interval], Curve]) -> None:
    intervals = [one for one in found[0] if one.kind == "blink"]
    assert [one.apex for one in intervals] == pytest.approx(BLINKS, abs=1)
    assert all(one.blink and one.region == "eyes" and one.action_units == "45" for one in intervals)


def test_little_is_found_where_nothing_is(found: tuple[list[Interval], Curve]) -> None:
    assert len(expressions(found[0])) <= len(HILLS) + 2


def test_intervals_rise_before_they_fall(found: tuple[list[Interval], Curve]) -> None:
    for one in found[0]:
        assert one.onset < one.apex < one.offset
        assert one.onset_s == pytest.approx(one.onset / FPS, abs=1e-3)
        assert one.offset_s == pytest.approx(one.offset / FPS, abs=1e-3)
    for one in expressions(found[0]):
        assert one.apex - one.onset >= LEAST_RISE
        assert one.offset - one.onset >= LEAST_FRAMES


def test_no_two_expressions_are_much_the_same(found: tuple[list[Interval], Curve]) -> None:
    intervals = expressions(found[0])
    for place, one in enumerate(intervals):
        for other in intervals[place + 1 :]:
            assert overlap((one.onset, one.offset), (other.onset, other.offset)) <= MOST_OVERLAP


def test_micro_expressions_last_at_most_half_a_second(found: tuple[list[Interval], Curve]) -> None:
    kinds = {one.kind for one in expressions(found[0])}
    assert kinds == {"micro", "macro"}
    for one in expressions(found[0]):
        assert (one.kind == "micro") == (one.offset - one.onset <= MICRO_S * FPS), one


def test_only_an_expression_over_a_blink_is_marked(found: tuple[list[Interval], Curve]) -> None:
    assert {one.apex for one in strong(found[0]) if one.blink} == {
        one.apex for one in strong(found[0]) if one.onset <= 1006 and one.offset >= 1000
    }
    assert any(one.blink for one in strong(found[0]))
    assert not all(one.blink for one in strong(found[0]))


def test_the_curve_has_a_value_for_each_frame_and_is_highest_in_movements(
    course: Course, found: tuple[list[Interval], Curve]
) -> None:
    curve = found[1]
    assert len(curve) == len(course)
    assert np.isfinite(curve).all()
    for apex in HILLS:
        assert curve[apex] > 5 * np.median(curve)


def test_nothing_less_sure_than_asked_for_is_found(course: Course) -> None:
    part = course.part(0, 800)
    of_least = {least: search(part, 0, 800, least).intervals for least in (0.01, 0.4, 0.95, 0.99995)}
    for least, intervals in of_least.items():
        assert all(one.confidence >= round(least, 4) for one in expressions(list(intervals)))
    assert len(of_least[0.01]) > len(of_least[0.95]) > len(of_least[0.99995])
    assert strong(list(of_least[0.01])) == strong(list(of_least[0.95])) != []


def test_frames_that_were_not_used_split_what_is_searched() -> None:
    frames = still(1500)
    for apex in (300, 600, 900, 1200):
        raise_units(frames, apex, 15, 20)
    hide(frames, 600, 605)
    hide(frames, 890, 960)
    intervals, curve = searched(of(frames))
    unused = np.flatnonzero(frames["run"] < 0)
    assert np.array_equal(np.flatnonzero(np.isnan(curve)), unused)
    for one in intervals:
        assert not ((unused >= one.onset) & (unused <= one.offset)).any(), one
    assert {300, 1200} <= {round(one.apex, -1) for one in strong(intervals)}
    assert not any(900 <= one.apex <= 960 for one in intervals)


def test_runs_of_other_scenes_are_searched_by_themselves() -> None:
    """The strengths of a second run begin at another rest: the step between them is no movement."""
    frames = still(900)
    raise_units(frames, 200, 10, 14)
    raise_units(frames, 700, 10, 14)
    frames["units"][450:] += 1
    frames["run"][450:] = 1
    intervals, curve = searched(of(frames))
    assert [round(one.apex, -1) for one in strong(intervals)] == [200, 700]
    assert np.isfinite(curve).all()
    assert curve[400:500].max() < curve[200]


def test_short_runs_are_not_searched_and_have_a_curve() -> None:
    frames = still(70)
    raise_units(frames, 35, 4, 5)
    for begin in range(14, 70, 15):
        hide(frames, begin, begin + 1)
    intervals, curve = searched(of(frames))
    assert intervals == []
    assert np.isfinite(curve[frames["run"] >= 0]).all()


def test_a_recording_without_a_face_shows_nothing() -> None:
    frames = still(4000)
    hide(frames, 0, 4000)
    intervals, curve = searched(of(frames), 20)
    assert intervals == []
    assert np.isnan(curve).all()
    assert len(curve) == 4000


def test_a_recording_without_frames_shows_nothing() -> None:
    whole = IntervalSearch(FPS)
    assert list(whole.add(Course.of(FPS, [], []))) == []
    assert list(whole.finish()) == []


def test_a_face_at_perfect_rest_shows_nothing() -> None:
    frames = still(900)
    for name in ("units", "lids"):
        frames[name] = 0.5
    intervals, curve = searched(of(frames))
    assert intervals == []
    assert curve == pytest.approx(np.zeros(900), abs=1e-4)


@pytest.mark.parametrize("fps", [60.0, 200.0])
def test_a_micro_expression_is_found_at_other_rates(fps: float) -> None:
    frames = still(round(12 * fps), fps)
    raise_units(frames, round(6 * fps), round(0.15 * fps), round(0.2 * fps))
    (one,) = strong(searched(of(frames, fps))[0])
    assert one.kind == "micro"
    assert one.apex == pytest.approx(6 * fps, abs=0.04 * fps)
    assert one.onset_s == pytest.approx(5.85, abs=0.08)
    assert one.offset_s == pytest.approx(6.2, abs=0.08)


def test_frame_numbers_and_times_are_those_of_the_recording() -> None:
    frames = still(600)
    raise_units(frames, 300, 6, 8)
    early = strong(searched(of(frames))[0])
    frames["number"] += 1000
    frames["seconds"] += 50
    late = strong(searched(of(frames))[0])
    assert [(one.onset + 1000, one.apex + 1000, one.offset + 1000) for one in early] == [
        (one.onset, one.apex, one.offset) for one in late
    ]
    assert [one.onset_s + 50 for one in early] == pytest.approx([one.onset_s for one in late], abs=2e-3)


def test_only_apexes_between_two_places_are_given(course: Course) -> None:
    part = course.part(300, 1100)
    whole = search(part, 0, 800)
    early, late = search(part, 0, 500), search(part, 500, 800)
    assert sorted((*early.intervals, *late.intervals), key=lambda one: (one.onset, one.kind)) == list(whole.intervals)
    assert all(one.apex < 800 for one in early.intervals)
    assert {one.apex for one in early.intervals} != set() != {one.apex for one in late.intervals}
    assert (len(early.curve), len(late.curve)) == (500, 300)
    assert np.array_equal(np.concatenate([early.curve, late.curve]), whole.curve)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ((0, 9), (0, 9), 1.0),
        ((0, 9), (10, 19), 0.0),
        ((0, 9), (9, 18), 1 / 19),
        ((0, 9), (5, 14), 1 / 3),
        ((0, 99), (40, 49), 0.1),
        ((7, 7), (7, 7), 1.0),
        ((0, 9), (50, 60), 0.0),
    ],
)
def test_overlap_counts_both_ends(one: tuple[int, int], other: tuple[int, int], expected: float) -> None:
    assert overlap(one, other) == pytest.approx(expected)
    assert overlap(other, one) == pytest.approx(expected)
