"""The searches find what they should on curves that are known, and ask for few values."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit.motion.peak_search import LAST_GAP, LEAST_NEAR, NEAR, Curve, find_movement, find_peak, refine


def hill(peak: float, last: float) -> Callable[[int], float]:
    """Strictly up from 0 to a peak and strictly down to half."""
    return lambda t: t / peak if t <= peak else 1 - 0.5 * (t - peak) / (last - peak)


def cost(curve: Curve) -> int:
    return len(curve) - 1  # the onset's value was given


@given(st.data())
def test_a_curve_with_one_peak_is_climbed_to_within_the_last_gap(data: st.DataObject) -> None:
    last = data.draw(st.integers(2, 2000))
    peak = data.draw(st.integers(1, last - 1))
    curve = Curve(hill(peak, last), 0)
    assert abs(find_peak(curve, range(last + 1)).number - peak) <= LAST_GAP


def test_a_clip_of_100_frames_costs_at_most_12_values() -> None:
    """Every length up to that, every peak."""
    for last in range(2, 100):
        for peak in range(1, last):
            curve = Curve(hill(peak, last), 0)
            find_peak(curve, range(last + 1))
            assert cost(curve) <= 12, (last, peak)


def test_twice_the_frames_cost_two_values_more() -> None:
    def most(last: int) -> int:
        costs = []
        for peak in np.linspace(1, last - 1, 40).astype(int):
            curve = Curve(hill(int(peak), last), 0)
            find_peak(curve, range(last + 1))
            costs.append(cost(curve))
        return max(costs)

    found = [most(100 * 2**doubling - 1) for doubling in range(8)]
    assert found[0] <= 12
    assert all(later - earlier <= 2 for earlier, later in itertools.pairwise(found)), found


@given(st.lists(st.integers(0, 500), min_size=2, max_size=80, unique=True), st.integers(0, 2**32 - 1))
def test_any_curve_gives_a_frame_that_is_there_and_not_the_last(numbers: list[int], seed: int) -> None:
    """Whatever the values and the gaps between the numbers."""
    numbers.sort()
    values = dict(zip(numbers, np.random.default_rng(seed).random(len(numbers)), strict=True))
    curve = Curve(values.__getitem__, numbers[0])
    peak = find_peak(curve, numbers)
    refined = refine(lambda n: values[n], numbers, peak.number)
    allowed = numbers[1:-1] or numbers[1:]
    assert peak.number in allowed
    assert refined in allowed
    assert 0 <= peak.confidence <= 1


def test_no_value_is_computed_twice() -> None:
    asked: list[int] = []

    def motion(number: int) -> float:
        asked.append(number)
        return hill(30, 60)(number)

    find_peak(Curve(motion, 0), range(61))
    assert len(asked) == len(set(asked))
    assert 0 not in asked


def test_confidence_says_how_far_the_motion_goes_back() -> None:
    def confidence(motion: Callable[[int], float]) -> float:
        return find_peak(Curve(motion, 0), range(61)).confidence

    noise = np.random.default_rng(0).normal(0.1, 0.004, 61)
    assert confidence(lambda t: 0.0) == 0
    assert confidence(lambda t: float(noise[t])) < 0.2
    assert confidence(lambda t: t / 60) == 0
    assert confidence(hill(25, 60)) == pytest.approx(0.5, abs=0.03)
    assert confidence(lambda t: math.sin(math.pi * t / 60)) == pytest.approx(1, abs=0.01)


def test_refining_smooths_noise_away() -> None:
    rng = np.random.default_rng(3)
    rough, smooth = [], []
    for _ in range(100):
        peak = int(rng.integers(20, 80))
        values = [1 - ((t - peak) / 40) ** 2 + rng.normal(0, 0.01) for t in range(100)]
        start = peak + int(rng.integers(-4, 5))
        near = range(start - 8, start + 9)
        rough.append(abs(max(near, key=values.__getitem__) - peak))
        smooth.append(abs(refine(values.__getitem__, range(100), start) - peak))
    assert np.mean(smooth) < 0.8 * np.mean(rough)


@pytest.mark.parametrize("last", [1, 2, 3, 10, 99])
def test_refining_stays_near_the_peak(last: int) -> None:
    for peak in range(1, max(2, last)):
        found = refine(float, range(last + 1), peak)  # for ever up
        assert found <= max(1, last - 1)
        assert 0 <= found - peak <= max(LEAST_NEAR, round(NEAR * last))


def movement(t: int, onset: int, apex: int, offset: int) -> float:
    """Rest, up, down, rest."""
    if not onset < t < offset:
        return 0.0
    share = (t - onset) / (apex - onset) if t <= apex else (offset - t) / (offset - apex)
    return share * share * (3 - 2 * share)


@given(
    st.integers(0, 300),
    st.integers(12, 60),
    st.integers(12, 60),
    st.integers(0, 300),
    st.sampled_from([0.0, 0.05, 1.0]),
)
def test_the_ends_of_a_movement_are_found_in_a_long_clip(
    before: int, rise: int, fall: int, after: int, noise: float
) -> None:
    """A movement begins and ends at a fifth of its height, on top of whatever is there at rest."""
    onset, apex, offset = before, before + rise, before + rise + fall
    curve = Curve(lambda t: noise + movement(t, onset, apex, offset), 0)
    first, last = find_movement(curve, range(offset + after + 1), step=10, longest=400)
    assert onset <= first < apex < last <= offset
    assert first - onset <= 0.33 * rise
    assert offset - last <= 0.33 * fall


def test_a_head_that_turned_for_good_is_no_movement() -> None:
    """A step that stays is a new rest; the hill on top of it is found."""

    def motion(t: int) -> float:
        return 3.0 * (t > 150) + movement(t, 700, 720, 750)

    first, last = find_movement(Curve(motion, 0), range(1500), step=10, longest=200)
    assert 700 <= first < 720 < last <= 750


def test_a_movement_that_is_under_way_all_the_time_fills_the_clip() -> None:
    curve = Curve(lambda t: 1 + movement(t + 20, 0, 40, 80), 0)
    first, last = find_movement(curve, range(41), step=5, longest=400)
    assert first <= 4
    assert last >= 36
