"""Statistics that cost less a call than NumPy's: the same values."""

from __future__ import annotations

import math

import numpy as np
import pytest

from flowkit.face.statistics import median


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 337, 6348, 6349])
def test_the_median_is_that_of_numpy_to_the_last_bit(count: int, dtype: type[np.floating]) -> None:
    rng = np.random.default_rng(count)
    for values in (
        rng.normal(size=count).astype(dtype),
        rng.integers(0, 3, count).astype(dtype),
        np.zeros(count, dtype),
    ):
        before = values.copy()
        assert median(values) == float(np.median(values))
        assert np.array_equal(values, before)


@pytest.mark.parametrize("count", [1, 2, 9, 10])
def test_a_nan_anywhere_makes_the_median_nan(count: int) -> None:
    for place in range(count):
        values = np.arange(count, dtype=np.float64)
        values[place] = np.nan
        assert math.isnan(median(values))


def test_infinities_count_like_any_number() -> None:
    assert median(np.array([np.inf, 1.0, 2.0])) == 2
    assert median(np.array([np.inf, np.inf, 2.0])) == np.inf


def test_nothing_has_no_median() -> None:
    assert math.isnan(median(np.zeros(0)))
