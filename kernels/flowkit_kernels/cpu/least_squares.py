"""Weighted least squares with some unknowns that must not be negative: what `head_fit.py` is made of.

`normal_equations` sums outer products of rows, `add_signed` adds them up where unknowns share columns, `partly_nonnegative` solves
what they lead to. All are plain loops, compiled by Numba, so that the result depends on no number of threads.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from flowkit_kernels.cpu.simd import inlined

Doubles = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

AT_ONCE = 4
"""Columns that are multiplied with another one in one pass: fetching it takes longer than the sums."""
_TOLERANCE = 1e-6
"""Largest change of an unknown in the last sweep."""


@inlined
def normal_equations(columns: Doubles, targets: Doubles, weights: Doubles, matrix: Doubles, vector: Doubles) -> None:
    """Sum weight x column x column, and weight x column x target, for every pair of columns and every column.

    Parameters
    ----------
    columns : (k, n) float64
    targets, weights : (n,) float64
    matrix : (k, k) float64
        Result.
    vector : (k,) float64
        Result.
    """
    unknowns, count = columns.shape
    weighted = np.empty((AT_ONCE, count))
    for i in range(0, unknowns, AT_ONCE):
        for k in range(AT_ONCE):
            p = min(i + k, unknowns - 1)
            vector[p] = 0
            for n in range(count):
                weighted[k, n] = weights[n] * columns[p, n]
            for n in range(count):
                vector[p] += weighted[k, n] * targets[n]
        for j in range(i, unknowns):  # the other half follows by symmetry
            a, b, c, d = 0.0, 0.0, 0.0, 0.0
            for n in range(count):
                value = columns[j, n]
                a += weighted[0, n] * value
                b += weighted[1, n] * value
                c += weighted[2, n] * value
                d += weighted[3, n] * value
            for k, total in enumerate((a, b, c, d)):
                matrix[min(i + k, unknowns - 1), j] = total
    for i in range(unknowns):
        for j in range(i):
            matrix[i, j] = matrix[j, i]


@inlined
def add_signed(
    gram: Doubles, target: Doubles, columns: Indices, places: Indices, signs: Doubles, matrix: Doubles, vector: Doubles
) -> None:
    """Add the normal equations of columns to those of the unknowns that the columns belong to.

    Parameters
    ----------
    gram : (k, k) float64
    target : (k,) float64
        As of `normal_equations`.
    columns, places : (m,) intp
        Columns, each as often as unknowns share it, and the place of the unknown among all.
    signs : (m,) float64
        Sign with which the unknown multiplies the column.
    matrix : (n, n) float64
    vector : (n,) float64
        What is added to.
    """
    for i in range(len(columns)):
        vector[places[i]] += signs[i] * target[columns[i]]
        for j in range(len(columns)):
            matrix[places[i], places[j]] += signs[i] * signs[j] * gram[columns[i], columns[j]]


@inlined
def nonnegative(matrix: Doubles, vector: Doubles, solution: Doubles, sweeps: int) -> None:
    """Minimise `x' matrix x / 2 - vector' x` over x >= 0 by coordinate descent.

    Parameters
    ----------
    matrix : (k, k) float64
        Symmetric and positive definite.
    vector : (k,) float64
    solution : (k,) float64
        Start, not negative; on return the result.
    sweeps : int
        Most passes over all unknowns.
    """
    unknowns = len(vector)
    left = vector.copy()
    for i in range(unknowns):
        if solution[i] != 0:
            for j in range(unknowns):
                left[j] -= matrix[i, j] * solution[i]
    for _ in range(sweeps):
        largest = 0.0
        for i in range(unknowns):
            changed = max(0.0, solution[i] + left[i] / matrix[i, i]) - solution[i]
            if changed != 0:
                solution[i] += changed
                for j in range(unknowns):
                    left[j] -= matrix[i, j] * changed
                largest = max(largest, abs(changed))
        if largest < _TOLERANCE:
            break


@inlined
def partly_nonnegative(matrix: Doubles, vector: Doubles, free: int, solution: Doubles, sweeps: int) -> None:
    """Minimise `x' matrix x / 2 - vector' x` over x whose unknowns from `free` on are at least 0.

    The free unknowns are eliminated, `nonnegative` finds the others, and back substitution the free ones.

    Parameters
    ----------
    matrix : (k, k) float64
        Symmetric and positive definite.
    vector : (k,) float64
    free : int
    solution : (k,) float64
        Start, of which only the unknowns that are not free count; on return the result.
    sweeps : int
        As of `nonnegative`.
    """
    unknowns = len(vector)
    left, right = matrix.copy(), vector.copy()
    for i in range(1, unknowns):
        for p in range(min(i, free)):
            share = left[p, i] / left[p, p]
            if share != 0:
                right[i] -= share * right[p]
                for j in range(i, unknowns):  # the other half follows by symmetry
                    left[i, j] -= share * left[p, j]
    for i in range(free, unknowns):
        for j in range(free, i):
            left[i, j] = left[j, i]
    nonnegative(left[free:, free:].copy(), right[free:].copy(), solution[free:], sweeps)
    for p in range(free - 1, -1, -1):
        total = right[p]
        for j in range(p + 1, unknowns):
            total -= left[p, j] * solution[j]
        solution[p] = total / left[p, p]
