"""Rotation, size and shift as matrices: a transform A, (2, 3), sends the pixel x = (x, y) to A [x, y, 1]."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Transform = npt.NDArray[np.float64]


def similarity(factor: complex, shift: complex) -> Transform:
    """The transform that sends x + iy to `factor` (x + iy) + `shift`."""
    return np.array([[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]])


def fit_similarity(source: npt.ArrayLike, target: npt.ArrayLike) -> Transform:
    """Rotation, size and shift that carry points onto others with the least squared error.

    Parameters
    ----------
    source, target : (P, 2) float
        At least two different points (x, y).

    Returns
    -------
    (2, 3) float64
    """
    a, b = (np.asarray(points, np.float64) @ np.array([1, 1j]) for points in (source, target))
    centred = a - a.mean()
    factor = np.vdot(centred, b) / np.vdot(centred, centred).real
    return similarity(factor, b.mean() - factor * a.mean())


def compose(outer: Transform, inner: Transform) -> Transform:
    """The transform that applies `inner` first and `outer` to what comes out."""
    both: Transform = outer[:, :2] @ inner
    both[:, 2] += outer[:, 2]
    return both


def invert(transform: Transform) -> Transform:
    """The transform that undoes another."""
    (a, b, right), (c, d, down) = transform.tolist()
    scale = 1 / (a * d - b * c)
    a, b, c, d = d * scale, -b * scale, -c * scale, a * scale
    return np.array([[a, b, -a * right - b * down], [c, d, -c * right - d * down]])


def mapped(transform: Transform, places: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Places x and y, (2, ...), after a transform."""
    x, y = places
    result = np.empty_like(places)
    for (by_x, by_y, shift), line in zip(transform.astype(np.float32), result, strict=True):
        np.multiply(by_x, x, out=line)
        line += by_y * y
        line += shift
    return result
