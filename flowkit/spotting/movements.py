"""Movements in a course: everything that may rise and fall back within some tenths of a second to some seconds.

What a face does all the time, such as speech, says little; what it does once, much. So the course of the action units is compared
at each moment, and for each of several lengths, with a hill that rises and falls; and the change found there is measured against
those of the seconds around it, in all action units at once (the inverse of their covariance). A raised brow amid speech stands out,
one more closing of the lips does not. Along that direction the course becomes a curve, in which `scipy.signal` tells by prominence
and width where the peak begins and ends.

Everything is in places of a run, an unbroken stretch of frames. Nothing here says what is an expression: `confidence.py` does.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flowkit.motion.peak_search import rise_and_fall

Array = npt.NDArray[np.float64]

LENGTHS_S = (0.2, 0.3, 0.45, 0.65, 1.0, 1.5, 2.2, 3.2)
"""Lengths that are looked for; peaks between them are found by both neighbours."""
LEAST_SCORE = 40.0
"""A change counts for less: half of it would be noise."""
RISE_SHARE = 0.4
"""Of the hill's length."""
AROUND_S, AROUND_TIMES = 5.0, 5.0
"""A change is measured against those within so many seconds, or so many lengths, on either side,"""
GUARD_S = 0.5
"""but not within half a second, or its length: it would be measured against itself."""
EDGE = 0.85
"""A peak begins and ends where the curve has fallen by so much of its prominence."""
_SAMPLES = 9
"""Samples of a hill: longer ones are searched in a course of fewer samples."""
_STRIDE = 3
"""Samples for which the surroundings are taken to be the same."""
_BLINKING = 0.3
"""Closing of the lids, relative to nearly the most there is, that counts where what blinks leave in the skin is learnt."""
_FEWEST_BLINKS = 10
"""Frames of blinks that are needed for it."""
_STILL = 0.7
"""Share of the frames that are taken to show noise alone."""
_NO_NOISE = 0.003
"""Least noise of a strength, cm: pictures without any would make everything significant. At noise 2 it is 0.015."""
_USUAL_NOISE = 0.01
"""The same of short runs."""
_FEWEST_STEPS = 4
"""Frames per action unit from which on the covariance of noise is estimated."""
_MAD = 1.4826
"""Standard deviation relative to the median absolute value, of a normal distribution."""


@dataclass(frozen=True, slots=True, eq=False)
class Movement:
    """A rise and a fall that may be an expression.

    Attributes
    ----------
    onset, apex, offset : float
        Places in the run.
    length_s : float
        The length by which it was found.
    score : float
        How far it stands out of its surroundings: squared, in standard deviations; about the number of action units where nothing
        moves.
    background : float
        How much there is in these surroundings, relative to noise, per action unit.
    curve : (n,) float64
        The course along its direction, in standard deviations of the noise, from place `begin` on.
    begin : int
    """

    onset: float
    apex: float
    offset: float
    length_s: float
    score: float
    background: float
    curve: Array
    begin: int


def find_movements(units: Array, fps: float) -> list[Movement]:
    """Find everything in a run that rises and falls.

    Parameters
    ----------
    units : (T, K) float64
        Strength of each action unit, cm: see `without_blinks`.
    fps : float

    Returns
    -------
    list of Movement
        By length. They overlap: most of them are the same movement, or a part of one.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> units = 0.02 * rng.standard_normal((300, 4))
    >>> units[150:165, 0] += 0.3 * np.hanning(15)
    >>> best = max(find_movements(units, 30.0), key=lambda movement: movement.score)
    >>> 155 <= best.apex <= 159
    True
    """
    course = units @ whitening(units)
    return [movement for length_s in LENGTHS_S for movement in _of_length(course, length_s, fps)]


def without_blinks(units: Array, lids: Array, fps: float) -> Array:
    """Return strengths (T, K) without what the closing of the eyes, lids (T, L), leaves in them: the same in all blinks."""
    hill = _hill(max(4, round(0.25 * fps)))
    if len(units) < len(hill):
        return units
    closing, change = _changes(lids, hill), _changes(units, hill)
    strength = closing.mean(axis=1)
    blinking = strength > max(_BLINKING * float(np.quantile(strength, 0.995)), 0)
    if np.count_nonzero(blinking) < _FEWEST_BLINKS:
        return units
    closing, change = closing[blinking], change[blinking]
    weights = np.ones(len(closing))
    for _ in range(6):  # what else moves in some blink counts for less
        left = np.linalg.lstsq(closing * weights[:, None], change * weights[:, None], rcond=None)[0]
        apart = np.linalg.norm(change - closing @ left, axis=1)
        weights = 1 / np.maximum(apart, max(float(np.median(apart)), _NO_NOISE))
    return np.asarray(units - lids @ left)


def whitening(units: Array) -> Array:
    """Return the matrix (K, K) by which strengths are multiplied to have independent noise of 1 in every column."""
    steps = np.diff(units, axis=0) / np.sqrt(2)
    floor = _NO_NOISE**2 * np.eye(units.shape[1])
    if len(steps) < _FEWEST_STEPS * units.shape[1]:  # too few to tell how noise goes together
        spread = _MAD * np.median(np.abs(steps), axis=0) if len(steps) else np.zeros(units.shape[1])
        return np.diag(1 / np.maximum(spread, _USUAL_NOISE))
    still, distance = np.ones(len(steps), np.bool_), np.ones(len(steps))
    for _ in range(4):  # steps that are more than noise do not count
        spread = np.cov(steps[still].T) + floor
        distance = np.einsum("ti,ij,tj->t", steps, np.linalg.inv(spread), steps)
        still = distance <= np.quantile(distance, _STILL)
    spread = (np.cov(steps[still].T) + floor) * max(float(np.median(distance)) / units.shape[1], 1e-3)
    values, vectors = np.linalg.eigh(spread)
    return np.asarray(vectors / np.sqrt(values))


def _of_length(course: Array, length_s: float, fps: float) -> Iterator[Movement]:
    """Peaks of what stands out of its surroundings, at one length."""
    from scipy.signal import find_peaks  # here: only searches need it

    length = length_s * fps
    bin_ = max(1, int(length / _SAMPLES))
    count = len(course) // bin_
    rate = fps / bin_
    samples = max(4, round(length_s * rate))
    hill = _hill(samples)
    if count < len(hill):
        return
    binned = course[: count * bin_].reshape(count, bin_, -1).mean(axis=1) * np.sqrt(bin_)
    change = _changes(binned, hill)
    around = int(max(AROUND_S, AROUND_TIMES * length_s) * rate)
    guard = max(int(max(GUARD_S, length_s) * rate), samples)
    background, direction = _surroundings(change, around, guard)
    score = np.einsum("tk,tk->t", direction, change)
    peaks, _ = find_peaks(np.pad(score, 1), height=LEAST_SCORE, distance=3)
    for peak in peaks - 1:
        found = _bounded(course, direction[peak], peak * bin_ + bin_ // 2, length)
        if found is not None:
            onset, apex, offset, curve, begin = found
            yield Movement(onset, apex, offset, length_s, float(score[peak]), float(background[peak]), curve, begin)


def _surroundings(change: Array, around: int, guard: int) -> tuple[Array, Array]:
    """Return how much happens around each sample, (T,), and changes divided by their covariance there, (T, K)."""
    count, units = change.shape
    products = np.einsum("ti,tj->tij", change, change)
    sums = np.concatenate([np.zeros((1, units, units)), np.cumsum(products, axis=0, out=products)])
    del products  # hundreds of megabytes of a recording at 200 frames per second
    at = np.arange(0, count, _STRIDE)
    wide, near = (_ends(at, half, count) for half in (around, guard))
    covariance = sums[wide[1]] - sums[wide[0]]
    covariance -= sums[near[1]]
    covariance += sums[near[0]]
    samples = (wide[1] - wide[0]) - (near[1] - near[0])
    covariance /= np.maximum(samples, 1)[:, None, None]
    background = np.trace(covariance, axis1=1, axis2=2) / units
    inverse = np.linalg.inv(covariance + np.eye(units))
    direction = np.empty_like(change)
    for first in range(_STRIDE):
        here = change[first::_STRIDE]
        direction[first::_STRIDE] = np.einsum("tij,tj->ti", inverse[: len(here)], here)
    return np.repeat(background, _STRIDE)[:count], direction


def _ends(at: npt.NDArray[np.int64], half: int, count: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """First sample up to so many before each place, and the one behind the last up to so many behind."""
    return np.maximum(at - half, 0), np.minimum(at + half + 1, count)


def _bounded(
    course: Array, direction: Array, place: int, length: float
) -> tuple[float, float, float, Array, int] | None:
    """Where the peak of the course along a direction, near a place, begins, is highest, and ends; None where there is none."""
    from scipy.signal import peak_widths

    begin, end = int(max(0, place - 2 * length)), int(min(len(course), place + 2 * length + 1))
    curve = course[begin:end] @ (direction / np.linalg.norm(direction))
    half = int(length / 12)
    smooth = np.convolve(np.pad(curve, half, mode="edge"), np.ones(2 * half + 1) / (2 * half + 1), "valid")
    reach = int(max(2, length / 2))
    low = max(place - begin - reach, 0)
    apex = low + int(np.argmax(smooth[low : place - begin + reach + 1]))
    if apex in (0, len(smooth) - 1):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of peaks without prominence
        width, _, left, right = (float(value[0]) for value in peak_widths(smooth, [apex], rel_height=EDGE))
    if width < 2:
        return None
    return begin + left, float(begin + apex), begin + right, curve, begin


def _hill(length: int) -> Array:
    """A rise and a fall over so many samples between two rests, less what a constant and a slope would be; of length 1."""
    rest = max(2, length // 3)
    at = np.arange(-rest, length + rest + 1, dtype=np.float64)
    risen, fallen = rise_and_fall(at, 0, RISE_SHARE * length, length).T
    hill = risen - fallen
    steady = np.stack([np.ones_like(at), at - at.mean()], axis=1)
    hill -= steady @ np.linalg.lstsq(steady, hill, rcond=None)[0]
    return np.asarray(hill / np.linalg.norm(hill))


def _changes(values: Array, hill: Array) -> Array:
    """How much values (T, K) rise and fall about each sample, (T, K); beyond the ends they stay as they are there."""
    before = len(hill) // 2
    padded = np.pad(values, ((before, len(hill) - 1 - before), (0, 0)), mode="edge")
    return np.stack([np.correlate(column, hill, "valid") for column in padded.T], axis=1)
