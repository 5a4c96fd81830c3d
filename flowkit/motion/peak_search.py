"""Where a movement begins, peaks and ends, from few values of it: searches over a function from frame number to motion.

Nothing here knows of pictures. Frames are searched by their place among those there are, so gaps in the numbers do no harm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

PARTS = 6
"""Equal parts of the clip at whose ends the first values are taken. Fewer miss a short movement, more cost a flow each."""
LAST_GAP = 3
"""The search ends when the highest value has its neighbours within so many frames: the flat top of a movement changes by less
than the noise from one frame to the next."""
NEAR, LEAST_NEAR = 0.08, 3
"""Share of the clip, and least number of frames, on each side of the highest value in which `refine` looks."""
SMOOTHING = 1.5
"""Standard deviation, in frames, of the Gaussian with which it smooths; in short clips a twentieth of the clip, at least half a
frame."""
EDGE = 0.2
"""A movement begins and ends at this share of its height above the lowest value on that side: lower, and noise at rest is taken
for movement."""


class Curve(dict[int, float]):
    """Values of a function by frame number, each computed when it is first asked for.

    Parameters
    ----------
    function : callable
        From a frame number to the motion there, 0 or more.
    onset : int
        Where the motion is 0, because it is measured against that frame.
    """

    def __init__(self, function: Callable[[int], float], onset: int) -> None:
        super().__init__({onset: 0.0})
        self._function = function

    def __missing__(self, number: int) -> float:
        value = self[number] = self._function(number)
        return value


@dataclass(frozen=True, slots=True)
class Peak:
    """The frame of the highest value found.

    `confidence` is the share of the peak's height by which the motion goes back after it: 0 where it never does, 1 where it goes
    back to nothing. It does not tell a movement from none: of noise alone, too, some part goes back (benchmarks/spotting.py).
    """

    number: int
    confidence: float


def find_peak(curve: Curve, numbers: Sequence[int]) -> Peak:
    """The frame of strongest motion, by a search from coarse to fine.

    Parameters
    ----------
    curve : Curve
        Holds what was computed, afterwards too. A clip of 100 frames costs at most 12 values, one twice as long two more.
    numbers : sequence of int
        Frame numbers in order, the onset first, at least one behind it. The last is no peak, unless it is the only one: both
        phases of a clip should have a length.

    Returns
    -------
    Peak
        Right to `LAST_GAP` frames where motion rises strictly to one peak and falls strictly from it.
    """
    last = len(numbers) - 1
    sampled = {0} | {max(1, round(part * last / PARTS)) for part in range(1, PARTS + 1)}
    while True:
        places = sorted(sampled)
        at = max(range(1, max(2, len(places) - 1)), key=lambda i: curve[numbers[places[i]]])
        best = places[at]
        between = {(best + other) // 2 for other in places[at - 1 : at + 2] if abs(best - other) > LAST_GAP}
        if not between:
            break
        sampled |= between
    top = curve[numbers[best]]
    lowest = min((curve[numbers[place]] for place in places[at + 1 :]), default=top)
    return Peak(numbers[best], max(0.0, 1 - lowest / top) if top > 0 else 0.0)


def refine(measure: Callable[[int], float], numbers: Sequence[int], peak: int) -> int:
    """The frame about a peak at which another measure, smoothed over frames, is highest.

    Parameters
    ----------
    measure : callable
        Cheaper than the motion: it is taken at every frame about the peak.
    numbers : sequence of int
        As of `find_peak`.
    peak : int
        One of them.

    Returns
    -------
    int
        As `find_peak` never the last, unless it is the only one behind the onset.
    """
    last, at = len(numbers) - 1, numbers.index(peak)
    sigma = min(max(last / 20, 0.5), SMOOTHING)
    reach = max(LEAST_NEAR, round(NEAR * last))
    near = range(max(1, at - reach), max(min(last, at + reach + 1), 2))
    margin = math.ceil(2 * sigma)
    values = {
        place: measure(numbers[place]) for place in range(max(1, near[0] - margin), min(last, near[-1] + margin) + 1)
    }

    def smoothed(place: int) -> float:
        weights = {other: math.exp(-0.5 * ((numbers[other] - numbers[place]) / sigma) ** 2) for other in values}
        return sum(weights[other] * value for other, value in values.items()) / sum(weights.values())

    return numbers[max(near, key=smoothed)]


def find_movement(curve: Curve, numbers: Sequence[int], step: int, longest: int) -> tuple[int, int]:
    """Beginning and end of the strongest movement of a long clip.

    Parameters
    ----------
    curve : Curve
        Motion against the first frame, in which the face should be at rest.
    numbers : sequence of int
        Frame numbers in order, the first one first, at least one behind it.
    step : int
        Every so many frames a value is taken: movements shorter than that may be missed.
    longest : int
        What lasts more frames counts as a new rest, such as a head that has turned.

    Returns
    -------
    onset, offset : int
        Frames close to rest before and behind the movement: to what the motion comes back or, where it never does, to where it
        stays; or the first and the last frame where the movement reaches that far.
    """
    last = len(numbers) - 1
    places = [*range(0, last, step), last]
    values = np.array(
        [curve[numbers[max(place, 1)]] for place in places]
    )  # the 0 of the first frame is no rest: no noise
    reach = max(1, round(longest / step))
    best = int(np.argmax(values - _rest(values, reach)))
    before, after = range(best, max(best - reach, 0) - 1, -1), range(best, min(best + reach, len(places) - 1) + 1)

    def end(side: range) -> int:
        lowest = float(values[list(side)].min())
        level = lowest + EDGE * (float(values[best]) - lowest)
        return numbers[_crossing(curve, numbers, [places[i] for i in side], level)]

    return end(before), end(after)


def _rest(values: npt.NDArray[np.float64], width: int) -> npt.NDArray[np.float64]:
    """Values without every hill that is narrower than so many samples: a morphological opening."""
    kernel = np.ones((1, 2 * (width // 2) + 3), np.uint8)  # odd: an even one would shift what it leaves
    return np.asarray(cv2.morphologyEx(values[None], cv2.MORPH_OPEN, kernel)[0])


def _crossing(curve: Curve, numbers: Sequence[int], places: Sequence[int], level: float) -> int:
    """The first place, on the way from a peak, at which the motion is not above a level; found between samples by bisection."""
    above = places[0]
    for place in places[1:]:
        if curve[numbers[place]] > level:
            above = place
            continue
        while abs(place - above) > 1:
            middle = (place + above) // 2
            if curve[numbers[middle]] > level:
                above = middle
            else:
                place = middle
        return place
    return places[-1]
