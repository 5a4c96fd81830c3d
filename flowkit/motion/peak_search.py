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
_LEAST = 2
"""Bins of the shortest rise and fall in a long clip."""
_GROWTH = 1.4
"""Each length of rise and fall that is tried is so much longer than the one before."""
_STAYING = 0.02
"""How much a change that stays counts beside one that goes back: next to nothing, but where nothing else moves it is found."""
_REST = 0.25
"""Rest before and behind a movement that is looked at with it, as a share of its length."""


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


def find_movement(course: Array, times: Sequence[int], shortest: int, longest: int) -> tuple[int, int]:
    """Find the beginning and the end of the strongest movement of a long clip: of what comes and goes.

    Parameters
    ----------
    course, times
        As of `find_peak`.
    shortest, longest : int
        Frames. What lasts longer counts as a new rest, such as a head that has turned.

    Returns
    -------
    onset, offset : int
        Places among the times, two or more apart where there are three frames or more.
    """
    last = len(times) - 1
    if last < 2:
        return 0, last
    width = max(1, shortest // 4)
    starts = np.arange(0, len(times), width)
    counts = np.diff(starts, append=len(times))
    binned = np.add.reduceat(course, starts, axis=0) / counts[:, None]
    onset, apex, offset = (min(place * width, last) for place in _strongest(binned, max(longest // width, 2 * _LEAST)))
    moments = _apart((onset, apex, offset), last)
    rest = max(1, round(_REST * (offset - onset)))
    begin, end = max(0, onset - rest), min(last, offset + rest)
    part, at = course[begin : end + 1], np.asarray(times[begin : end + 1], np.float64)
    found = _climbed(part, at, tuple(place - begin for place in moments), max(1, width))
    return begin + found[0], begin + found[2]


def _strongest(course: Array, longest: int) -> tuple[int, int, int]:
    """Onset, apex and offset, in samples, of the movement that comes and goes furthest, of all lengths and places."""
    lengths = _lengths(longest - _LEAST)
    reach = max(1, round(_REST * longest))
    padded = np.pad(course, ((reach, reach), (0, 0)), mode="edge")
    best, found = -1.0, (0, min(1, len(course) - 1), len(course) - 1)
    for rise, fall in itertools.product(lengths, lengths):
        if rise + fall > min(longest, len(course) - 1):
            continue
        kernels, weight = _kernels(rise, fall, rest := max(1, round(_REST * (rise + fall))))
        places = len(course) - (rise + fall)
        near = padded[reach - rest : reach - rest + places + kernels.shape[1] - 1]
        up, down = (
            np.stack([np.correlate(measure, kernel, "valid") for measure in near.T], axis=1) for kernel in kernels
        )
        value = weight * _come_and_gone(up, down)
        onset = int(np.argmax(value))
        if value[onset] > best:
            best, found = float(value[onset]), (onset, onset + rise, onset + rise + fall)
    return found


def _lengths(longest: int) -> list[int]:
    lengths = [_LEAST]
    while (longer := max(lengths[-1] + 1, round(_GROWTH * lengths[-1]))) <= longest:
        lengths.append(longer)
    return lengths


def _come_and_gone(up: Array, down: Array) -> Array:
    """How much of rises (n, K) their falls (n, K) undo, squared, (n,); of a head that turns for good the fall undoes nothing."""
    back = np.maximum(-(up * down).sum(axis=1), 0)
    larger = np.maximum(np.square(up).sum(axis=1), np.square(down).sum(axis=1))
    stays = np.square(up - down).sum(axis=1) / 4
    return np.asarray(back**2 / np.maximum(larger, 1e-12) + _STAYING * stays)


def _kernels(rise: int, fall: int, rest: int) -> tuple[Array, float]:
    """What a course is correlated with for its change in rise and fall, (2, n), and the energy of a rise that the fall undoes."""
    at = np.arange(-rest, rise + fall + rest + 1, dtype=np.float64)
    moved = rise_and_fall(at, 0, rise, rise + fall)
    hill = moved[:, 0] - moved[:, 1]
    kernels = np.linalg.pinv(np.column_stack([np.ones_like(at), moved]))[1:]
    return kernels, float(np.square(hill - hill.mean()).sum())


def _climbed(course: Array, times: Array, start: tuple[int, ...], step: int) -> tuple[int, ...]:
    """Places of onset, apex and offset near those given that explain most of a course: climbed to in ever smaller steps."""

    def explained(places: tuple[int, ...]) -> float:
        onset, apex, offset = places
        if not 0 <= onset < apex < offset < len(times):
            return -1.0
        return _explained(course, times, times[onset], times[apex], times[offset])

    best, value = start, explained(start)
    while step:
        tried = [(*best[:i], best[i] + way, *best[i + 1 :]) for i in range(3) for way in (-step, step)]
        values = [explained(places) for places in tried]
        if max(values) > value:
            value = max(values)
            best = tried[values.index(value)]
        else:
            step //= 2
    return best


def _explained(
    course: Array, times: Array, onset: float, apex: float, offset: float, shape: tuple[float, float] = (1.0, 1.0)
) -> float:
    """Sum of squares of the course, less its mean, that rise and fall explain."""
    columns = np.column_stack([np.ones_like(times), rise_and_fall(times, onset, apex, offset, shape)])
    basis = np.linalg.qr(columns)[0][:, 1:]
    return float(np.square(np.einsum("ti,tk->ik", basis, course)).sum())


def _apart(places: tuple[int, int, int], last: int) -> tuple[int, int, int]:
    """Onset, apex and offset at least a frame apart from each other, within the clip."""
    onset = min(places[0], last - 2)
    apex = min(max(places[1], onset + 1), last - 1)
    return onset, apex, max(places[2], apex + 1)
