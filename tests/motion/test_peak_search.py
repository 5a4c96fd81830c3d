"""The searches find what they should in courses that are known, whatever the shape of the movement and the gaps between frames."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowkit.motion.peak_search import SHAPES, changes, find_peak, rise_and_fall

Array = npt.NDArray[np.float64]
WAYS = np.array([[3.0, 0.0, 1.0, -2.0], [-1.0, 2.5, -1.0, 0.0]])
"""Of a rise and of a fall that is no rise run backwards."""


def course(
    times: npt.ArrayLike,
    onset: float,
    apex: float,
    offset: float,
    ways: Array = WAYS,
    noise: float = 0.0,
    **shape: object,
) -> Array:
    at = np.asarray(times, np.float64)
    clean = rise_and_fall(at, onset, apex, offset, **shape) @ ways  # type: ignore[arg-type]
    return clean + noise * np.random.default_rng(7).standard_normal(clean.shape)


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_the_apex_of_a_clean_course_is_found_exactly(data: st.DataObject) -> None:
    last = data.draw(st.integers(4, 120))
    apex = data.draw(st.integers(2, last - 2))
    peak = find_peak(course(range(last + 1), 0, apex, last), range(last + 1))
    assert peak.place == apex
    assert peak.explained == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("ways", [[[1.0, 2.0], [-1.0, -2.0]], [[1.0, 2.0], [-0.4, -0.8]], [[1.0, 2.0], [0.0, 0.7]]])
def test_a_fall_that_comes_back_by_half_or_goes_elsewhere_is_a_fall(ways: list[list[float]]) -> None:
    found = find_peak(course(range(61), 0, 22, 60, np.array(ways), noise=0.1), range(61))
    assert abs(found.place - 22) <= 3
    assert found.explained > 0.8


@pytest.mark.parametrize("rise", SHAPES)
@pytest.mark.parametrize("fall", SHAPES)
def test_uneven_movements_have_their_apex_where_it_is(rise: float, fall: float) -> None:
    values = course(range(81), 0, 30, 80, noise=0.05, shape=(rise, fall))
    peak = find_peak(values, range(81))
    assert abs(peak.place - 30) <= 1
    assert np.abs(changes(values, range(81), peak) - WAYS).max() < 0.3


def test_a_movement_that_never_comes_back_has_its_apex_where_it_stops() -> None:
    values = course(range(61), 0, 30, 60, np.array([[1.0, 2.0, -1.0], [0.0, 0.0, 0.0]]), noise=0.01)
    assert abs(find_peak(values, range(61)).place - 30) <= 5


def test_gaps_between_the_numbers_do_no_harm() -> None:
    rng = np.random.default_rng(1)
    times = sorted({0, 200, *rng.choice(201, 70, replace=False).tolist()})
    peak = find_peak(course(times, 0, 80, 200, noise=0.05), times)
    assert abs(times[peak.place] - 80) <= 4


def test_a_clip_of_many_frames_is_searched_from_coarse_to_fine() -> None:
    assert find_peak(course(range(1501), 0, 517, 1500, noise=0.2), range(1501)).place == pytest.approx(517, abs=5)


@pytest.mark.parametrize("count", [8, 40, 150])
def test_of_noise_alone_next_to_nothing_is_explained(count: int) -> None:
    found = [
        find_peak(np.random.default_rng(i).standard_normal((count, 30)), range(count)).explained for i in range(10)
    ]
    assert np.mean(found) < 0.12
    assert max(found) < 0.3


def test_more_noise_explains_less() -> None:
    found = [find_peak(course(range(61), 0, 22, 60, noise=noise), range(61)).explained for noise in (0.1, 1.0, 5.0)]
    assert found[0] > found[1] > found[2]


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_a_course_that_stays_is_no_movement(value: float) -> None:
    peak = find_peak(np.full((40, 5), value), range(40))
    assert 1 <= peak.place < 39
    assert peak.explained == 0


@given(st.lists(st.integers(0, 500), min_size=2, max_size=40, unique=True), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=30)
def test_any_course_gives_a_frame_that_is_there_and_not_the_last(numbers: list[int], seed: int) -> None:
    numbers.sort()
    values = np.random.default_rng(seed).standard_normal((len(numbers), 3))
    peak = find_peak(values, numbers)
    assert numbers[peak.place] in (numbers[1:-1] or numbers[1:])
    assert 0 <= peak.explained <= 1
    assert np.isfinite(changes(values, numbers, peak)).all()
