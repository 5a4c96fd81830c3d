"""Where a movement begins, peaks and ends, from the course of several measures over time.

A movement is a rise and a fall. Each begins and ends at rest, and each goes a way of its own: a fall that brings another expression
or comes back by half is still a fall. So in every measure the course is

    c + a rise(t) + b fall(t)

with one onset, apex and offset for all of them, and any a and b. Those moments are chosen that explain most of the course. Rise
and fall may each be early or late on their way (`SHAPES`). Nothing here knows of pictures. Times are frame numbers, so gaps in them
do no harm.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

CANDIDATES = 200
"""How many apexes are tried in a longer clip, before those about the best of them."""
SHAPES = (1.0, 2 / 3, 3 / 2)
"""Powers of the time that has gone by, relative to the length of rise or fall: even, early, late. With an even shape alone, an apex
between uneven ones was found 3 to 6 frames off (benchmarks/spotting.py)."""
EVEN = 0.01
"""Each uneven shape has to leave so much less unexplained than an even one."""


@dataclass(frozen=True, slots=True)
class Peak:
    """The apex of a course.

    Attributes
    ----------
    place : int
        Of the apex among the times.
    shape : (float, float)
        Of rise and fall: from `SHAPES`.
    explained : float
        Share of the course's variance that is one rise and one fall, less what noise would give to them (adjusted R^2), 0 to 1.
    """

    place: int
    shape: tuple[float, float]
    explained: float


def rise_and_fall(
    times: Array, onset: float, apex: float, offset: float, shape: tuple[float, float] = (1.0, 1.0)
) -> Array:
    """Return how far rise and fall have gone, each from 0 to 1, (T, 2).

    Examples
    --------
    >>> rise_and_fall(np.array([0.0, 5.0, 10.0, 20.0]), 0, 10, 20)
    array([[0. , 0. ],
           [0.5, 0. ],
           [1. , 0. ],
           [1. , 1. ]])
    """
    shares = np.stack([(times - onset) / (apex - onset), (times - apex) / (offset - apex)], axis=1)
    gone = np.clip(shares, 0, 1) ** np.array(shape)
    return np.asarray(gone * gone * (3 - 2 * gone))


def find_peak(course: Array, times: Sequence[int]) -> Peak:
    """Find the apex of a clip whose onset and offset are its first and last frame.

    Parameters
    ----------
    course : (T, K) float64
        K measures of equal and independent noise.
    times : sequence of int
        Rising, at least two. The last is no apex, unless it is the only one behind the onset: both phases should have a length.

    Returns
    -------
    Peak
        Anywhere where nothing moves; `explained` is about 0 then.

    Examples
    --------
    >>> find_peak(rise_and_fall(np.arange(31.0), 0, 12, 30) @ [[1.0, 2.0], [-1.0, 0.5]], range(31)).place
    12
    """
    last = len(times) - 1
    if last < 2:
        return Peak(1, (1.0, 1.0), 0.0)
    at = np.asarray(times, np.float64)
    apart = course - course.mean(axis=0)
    total = float(np.einsum("tk,tk->", apart, apart))

    def left(candidate: tuple[int, tuple[float, float]]) -> float:
        place, shape = candidate
        uneven = (shape[0] != 1) + (shape[1] != 1)
        return (total - _explained(course, at, at[0], at[place], at[-1], shape)) * (1 + EVEN * uneven)

    def best(places: range) -> tuple[int, tuple[float, float]]:
        return min(itertools.product(places, itertools.product(SHAPES, SHAPES)), key=left)

    step = max(1, last // CANDIDATES)
    place, shape = best(range(1, last, step))
    if step > 1:
        place, shape = best(range(max(1, place - step), min(last, place + step + 1)))
    free = last - 2
    if free < 1 or total <= 0:
        return Peak(place, shape, 0.0)
    unexplained = left((place, shape)) / free / (total / last)
    return Peak(place, shape, min(max(1 - unexplained, 0.0), 1.0))


def changes(values: Array, times: Sequence[int], peak: Peak) -> Array:
    """By how much values change in the rise and in the fall of a clip.

    Parameters
    ----------
    values : (T, K) float64
    times : sequence of int
        As of `find_peak`.
    peak : Peak

    Returns
    -------
    (2, K) float64
        0 where there are too few frames to tell.
    """
    if len(times) < 3:
        return np.stack([values[-1] - values[0], np.zeros_like(values[0])])
    at = np.asarray(times, np.float64)
    columns = np.column_stack([np.ones_like(at), rise_and_fall(at, at[0], at[peak.place], at[-1], peak.shape)])
    return np.asarray(np.linalg.lstsq(columns, values, rcond=None)[0][1:])


def _explained(
    course: Array, times: Array, onset: float, apex: float, offset: float, shape: tuple[float, float] = (1.0, 1.0)
) -> float:
    """Sum of squares of the course, less its mean, that rise and fall explain."""
    columns = np.column_stack([np.ones_like(times), rise_and_fall(times, onset, apex, offset, shape)])
    basis = np.linalg.qr(columns)[0][:, 1:]
    return float(np.square(np.einsum("ti,tk->ik", basis, course)).sum())
