"""Weighted least squares with some unknowns that must not be negative: the fit of head motion and expression to a flow.

`normal_equations` sums outer products of rows, `partly_nonnegative` solves what they lead to. All are plain loops, compiled by
Numba, so that the result depends on no number of threads.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from flowkit_kernels.simd import njit

Doubles = npt.NDArray[np.float64]

AT_ONCE = 4
"""Rows that are added in one pass over the matrix: fetching it takes longer than the sums."""
_TOLERANCE = 1e-6
"""Largest change of an unknown in the last sweep."""


@njit
def normal_equations(rows: Doubles, targets: Doubles, weights: Doubles, matrix: Doubles, vector: Doubles) -> None:
    """Sum `weight row row'` and `weight target row` over all rows.

    Parameters
    ----------
    rows : (n, k) float64
    targets, weights : (n,) float64
    matrix : (k, k) float64
        Result.
    vector : (k,) float64
        Result.
    """
    matrix[:] = 0
    vector[:] = 0
    count, unknowns = rows.shape
    for n in range(0, count - count % AT_ONCE, AT_ONCE):
        a, b, c, d = rows[n], rows[n + 1], rows[n + 2], rows[n + 3]
        for i in range(unknowns):
            p, q = weights[n] * a[i], weights[n + 1] * b[i]
            r, s = weights[n + 2] * c[i], weights[n + 3] * d[i]
            vector[i] += p * targets[n] + q * targets[n + 1] + r * targets[n + 2] + s * targets[n + 3]
            for j in range(i, unknowns):  # the other half follows by symmetry
                matrix[i, j] += p * a[j] + q * b[j] + r * c[j] + s * d[j]
    for n in range(count - count % AT_ONCE, count):
        for i in range(unknowns):
            p = weights[n] * rows[n, i]
            vector[i] += p * targets[n]
            for j in range(i, unknowns):
                matrix[i, j] += p * rows[n, j]
    for i in range(unknowns):
        for j in range(i):
            matrix[i, j] = matrix[j, i]


@njit
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


@njit
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
    for p in range(free):
        for i in range(p + 1, unknowns):
            share = left[i, p] / left[p, p]
            if share != 0:
                right[i] -= share * right[p]
                for j in range(p, unknowns):
                    left[i, j] -= share * left[p, j]
    nonnegative(left[free:, free:].copy(), right[free:].copy(), solution[free:], sweeps)
    for p in range(free - 1, -1, -1):
        total = right[p]
        for j in range(p + 1, unknowns):
            total -= left[p, j] * solution[j]
        solution[p] = total / left[p, p]
