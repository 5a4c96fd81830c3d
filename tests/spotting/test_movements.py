"""Hills are found where they are, at every length and frame rate; what goes on all the time, and blinks, count for little."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from flowkit.motion.peak_search import rise_and_fall
from flowkit.spotting.movements import LEAST_SCORE, LENGTHS_S, RISE_SHARE, find_movements, whitening, without_blinks

Array = npt.NDArray[np.float64]
UNITS, NOISE = 8, 0.02
BROWS = (0, 1)
SPEECH = (3, 4)


def noise(count: int, units: int = UNITS, seed: int = 1, spread: float = NOISE) -> Array:
    return spread * np.random.default_rng(seed).standard_normal((count, units))


def hill(count: int, onset: float, length: float, where: tuple[int, ...] = BROWS, units: int = UNITS) -> Array:
    """A rise and a fall of 0.2 cm in some action units."""
    risen, fallen = rise_and_fall(
        np.arange(count, dtype=np.float64), onset, onset + RISE_SHARE * length, onset + length
    ).T
    strengths = np.zeros((count, units))
    strengths[:, list(where)] = 0.2 * (risen - fallen)[:, None]
    return strengths


def speech(count: int, fps: float, begin_s: float = 0.0, end_s: float = np.inf) -> Array:
    """Something at 4 Hz that does not stop, in two action units."""
    seconds = np.arange(count) / fps
    strengths = np.zeros((count, UNITS))
    for phase, place in enumerate(SPEECH):
        strengths[:, place] = 0.1 * np.sin(2 * np.pi * 4 * seconds + phase)
    strengths[(seconds < begin_s) | (seconds >= end_s)] = 0
    return strengths


def best_near(units: Array, fps: float, low: float, high: float) -> float:
    return max((one.score for one in find_movements(units, fps) if low <= one.apex <= high), default=0.0)


@pytest.mark.parametrize("fps", [30.0, 60.0, 200.0])
@pytest.mark.parametrize("length_s", LENGTHS_S)
def test_a_hill_is_found_where_it_is_at_every_length_and_rate(length_s: float, fps: float) -> None:
    count, onset, length = round(20 * fps), 9 * fps, length_s * fps
    found = find_movements(noise(count) + hill(count, onset, length), fps)
    best = max(found, key=lambda movement: movement.score)
    assert abs(best.apex - (onset + RISE_SHARE * length)) <= 0.1 * length + 1
    assert abs(best.onset - onset) <= 0.2 * length + 1
    assert abs(best.offset - (onset + length)) <= 0.2 * length + 1
    assert best.score > 2 * LEAST_SCORE
    assert best.length_s in LENGTHS_S


def test_movements_are_given_with_their_curve_and_by_length() -> None:
    found = find_movements(noise(900) + hill(900, 400, 20), 30.0)
    assert [one.length_s for one in found] == sorted(one.length_s for one in found)
    best = max(found, key=lambda movement: movement.score)
    apex = round(best.apex) - best.begin
    assert 0 <= apex < len(best.curve)
    assert best.curve[apex - 2 : apex + 3].mean() > best.curve[:3].mean() + 5
    assert all(one.score >= LEAST_SCORE and one.onset < one.apex < one.offset for one in found)


@pytest.mark.parametrize(("begin_s", "end_s", "times"), [(0, 60, 4.0), (21, 39, 1.5)])
def test_what_goes_on_all_the_time_counts_less_than_what_happens_once(
    begin_s: float, end_s: float, times: float
) -> None:
    """Whether it goes on throughout or for some seconds on either side."""
    fps, count = 30.0, 1800
    around = noise(count) + speech(count, fps, begin_s, end_s)
    once = best_near(around + hill(count, 900, 9), fps, 898, 910)
    amid = best_near(around + hill(count, 900, 9, SPEECH), fps, 898, 910)
    assert once > times * amid
    assert best_near(around, fps, 800, 1000) < 1.5 * LEAST_SCORE


def test_the_background_is_larger_where_something_goes_on() -> None:
    fps, count = 30.0, 1800
    talk = speech(count, fps, 21, 39)
    quiet, busy = (
        next(one.background for one in find_movements(units, fps) if one.length_s == 0.2 and 900 < one.apex < 906)
        for units in (noise(count) + hill(count, 900, 7), noise(count) + hill(count, 900, 7) + talk)
    )
    assert quiet < 1.5
    assert busy > 2 * quiet


def test_a_larger_scale_of_everything_changes_no_place() -> None:
    units = noise(1200) + hill(1200, 300, 9) + hill(1200, 800, 30)
    once, tenfold = find_movements(units, 30.0), find_movements(10 * units, 30.0)
    assert len(once) == len(tenfold) > 3
    for one, other in zip(once, tenfold, strict=True):
        assert (other.length_s, other.apex) == (one.length_s, one.apex)
        assert [other.onset, other.offset] == pytest.approx([one.onset, one.offset], abs=0.05)
        assert other.score == pytest.approx(one.score, rel=0.05)


@pytest.mark.parametrize("fps", [30.0, 200.0])
@pytest.mark.parametrize("value", [0.0, 3.0])
def test_a_face_that_stays_as_it_is_shows_nothing(value: float, fps: float) -> None:
    assert find_movements(np.full((600, 32), value), fps) == []


@pytest.mark.parametrize("count", [10, 12, 15, 20, 33, 34, 40])
def test_a_short_run_without_motion_shows_nothing(count: int) -> None:
    assert find_movements(np.full((count, 32), 0.5), 30.0) == []


def test_the_same_course_gives_the_same_movements() -> None:
    units = noise(600) + hill(600, 300, 12)
    first, second = find_movements(units, 30.0), find_movements(units.copy(), 30.0)
    assert [(one.onset, one.apex, one.offset, one.score) for one in first] == [
        (one.onset, one.apex, one.offset, one.score) for one in second
    ]


def blinks(count: int, every: int) -> Array:
    """Lids that close and open within eight frames."""
    return sum(
        (3 * hill(count, at, 8, (0, 1), 2) for at in range(40, count - 40, every)), start=noise(count, 2, 5, 0.005)
    )


def test_what_blinks_leave_is_removed_and_the_rest_stays() -> None:
    count = 1800
    lids = blinks(count, 70)
    rest = hill(count, 905, 9) + noise(count, seed=2, spread=0.005)
    traces = np.outer(lids.mean(axis=1), [0.4, 0.1, -0.2, 0.3, 0, 0, 0.1, 0])
    cleaned = without_blinks(rest + traces, lids, 30.0)
    assert np.abs(traces).max() > 0.2
    assert np.abs(cleaned - rest).max() < 0.02
    assert best_near(cleaned, 30.0, 904, 914) == pytest.approx(best_near(rest, 30.0, 904, 914), rel=0.15)


def test_what_moves_in_some_blinks_only_is_not_what_blinks_leave() -> None:
    count = 1800
    lids = blinks(count, 70)
    rest = noise(count, seed=2, spread=0.005) + hill(count, 40 + 5 * 70, 8) + hill(count, 40 + 15 * 70, 8)
    cleaned = without_blinks(rest, lids, 30.0)
    assert np.abs(cleaned - rest).max() < 0.04


def test_few_blinks_or_none_change_nothing() -> None:
    units = noise(300) + hill(300, 150, 10)
    assert np.array_equal(without_blinks(units, np.zeros((300, 2)), 30.0), units)
    assert np.array_equal(without_blinks(units[:5], np.ones((5, 2)), 30.0), units[:5])
    assert without_blinks(units[:0], np.zeros((0, 2)), 30.0).shape == (0, UNITS)


@pytest.mark.parametrize("units", [4, 32])
def test_whitened_noise_is_one_in_every_direction(units: int) -> None:
    mixed = 10 * noise(3000, units) @ np.random.default_rng(3).standard_normal((units, units))
    spread = np.linalg.svd(np.cov((mixed @ whitening(mixed)).T), compute_uv=False)
    assert spread.min() > 0.75
    assert spread.max() < 1.45


def test_slow_and_rare_motion_does_not_count_as_noise() -> None:
    units = noise(3000, 4)
    moving = units.copy()
    moving[:, 0] += np.sin(np.arange(3000) / 200)
    moving[1000:1500, 1] += noise(500, 1, 7, 0.5)[:, 0]
    still, other = (np.linalg.norm(whitening(values), axis=1) for values in (units, moving))
    assert other == pytest.approx(still, rel=0.25)
    assert still == pytest.approx(1 / NOISE, rel=0.25)
