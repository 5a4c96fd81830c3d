"""Weighted least squares, with and without unknowns that must not be negative, against NumPy and exhaustive search."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest

from flowkit_kernels.cpu.least_squares import add_signed, nonnegative, normal_equations, partly_nonnegative

Array = npt.NDArray[np.float64]


def problem(seed: int, unknowns: int) -> tuple[Array, Array]:
    """A symmetric, positive definite matrix and a vector that would make about half of the unknowns negative."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(2 * unknowns, unknowns))
    return rows.T @ rows / unknowns + 0.1 * np.eye(unknowns), rng.normal(size=unknowns)


def minimised(matrix: Array, vector: Array, start: Array | None = None, sweeps: int = 2000) -> Array:
    solution = np.zeros(len(vector)) if start is None else start.copy()
    nonnegative(matrix, vector, solution, sweeps)
    return solution


def value(matrix: Array, vector: Array, x: Array) -> float:
    return float(x @ matrix @ x / 2 - vector @ x)


def best_of_all_subsets(matrix: Array, vector: Array) -> Array:
    """The best solution without a negative unknown among those that set a subset of the unknowns to zero."""
    best = np.zeros(len(vector))
    for kept in itertools.product((False, True), repeat=len(vector)):
        if any(kept):
            x = np.zeros(len(vector))
            x[list(kept)] = np.linalg.solve(matrix[np.ix_(kept, kept)], vector[list(kept)])
            if (x >= 0).all() and value(matrix, vector, x) < value(matrix, vector, best):
                best = x
    return best


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 8, 103])
@pytest.mark.parametrize("unknowns", [1, 7])
def test_normal_equations_are_sums_of_outer_products(count: int, unknowns: int) -> None:
    rng = np.random.default_rng(count)
    columns, targets, weights = rng.normal(size=(unknowns, count)), rng.normal(size=count), rng.random(count)
    matrix, vector = np.full((unknowns, unknowns), np.nan), np.full(unknowns, np.nan)
    normal_equations(columns, targets, weights, matrix, vector)
    np.testing.assert_allclose(matrix, columns * weights @ columns.T, atol=1e-12)
    np.testing.assert_allclose(vector, columns * weights @ targets, atol=1e-12)
    assert np.array_equal(matrix, matrix.T)


def test_unknowns_that_share_a_column_get_its_equations_with_their_signs() -> None:
    rng = np.random.default_rng(0)
    columns, targets, weights = rng.normal(size=(4, 30)), rng.normal(size=30), rng.random(30)
    gram, target = np.empty((4, 4)), np.empty(4)
    normal_equations(columns, targets, weights, gram, target)
    shared, places, signs = np.array([0, 1, 2, 3, 2, 3]), np.array([6, 0, 1, 2, 3, 4]), np.array([1.0, 1, -1, -1, 1, 1])
    matrix, vector = np.eye(7), np.ones(7)
    add_signed(gram, target, shared, places, signs, matrix, vector)
    wide = np.zeros((7, 30))
    wide[places] = signs[:, None] * columns[shared]
    np.testing.assert_allclose(matrix, np.eye(7) + wide * weights @ wide.T, atol=1e-12)
    np.testing.assert_allclose(vector, 1 + wide * weights @ targets, atol=1e-12)


@pytest.mark.parametrize("seed", range(8))
def test_no_subset_of_the_unknowns_gives_a_better_solution(seed: int) -> None:
    matrix, vector = problem(seed, 6)
    expected = best_of_all_subsets(matrix, vector)
    np.testing.assert_allclose(minimised(matrix, vector), expected, atol=1e-5)


@pytest.mark.parametrize("unknowns", [20, 68])
def test_unknowns_are_positive_at_the_minimum_or_zero_where_they_would_fall(unknowns: int) -> None:
    matrix, vector = problem(unknowns, unknowns)
    x = minimised(matrix, vector)
    slope = matrix @ x - vector
    assert (x >= 0).all()
    assert 0.2 < (x > 0).mean() < 0.8
    np.testing.assert_allclose(slope[x > 0], 0, atol=1e-4)
    assert (slope[x == 0] > -1e-4).all()


def test_the_start_decides_how_long_it_takes_and_not_what_is_found() -> None:
    matrix, vector = problem(1, 20)
    found = minimised(matrix, vector)
    np.testing.assert_allclose(minimised(matrix, vector, np.full(20, 3.0)), found, atol=1e-4)
    np.testing.assert_allclose(minimised(matrix, vector, found, sweeps=1), found, atol=1e-5)


def test_nothing_to_explain_gives_exactly_zero() -> None:
    matrix, vector = problem(0, 20)
    assert not minimised(matrix, 0 * vector).any()
    assert not minimised(matrix, -np.abs(vector)).any()


@pytest.mark.parametrize("free", [1, 5, 11, 12])
def test_free_unknowns_are_solved_for_and_the_others_are_not_negative(free: int) -> None:
    matrix, vector = problem(3, 12)
    before, x = matrix.copy(), np.zeros(12)
    partly_nonnegative(matrix, vector, free, x, 2000)
    assert np.array_equal(matrix, before)
    slope = matrix @ x - vector
    np.testing.assert_allclose(slope[:free], 0, atol=1e-4)
    np.testing.assert_allclose(slope[free:][x[free:] > 0], 0, atol=1e-4)
    assert (x[free:] >= 0).all()
    assert (slope[free:] > -1e-4).all()


def test_a_start_of_the_others_is_where_the_search_begins() -> None:
    matrix, vector = problem(4, 12)
    x = np.zeros(12)
    partly_nonnegative(matrix, vector, 4, x, 2000)
    again = x.copy()
    again[:4] = np.nan  # free ones have no start
    partly_nonnegative(matrix, vector, 4, again, 1)
    np.testing.assert_allclose(again, x, atol=1e-5)
