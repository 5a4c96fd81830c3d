"""The intervals of a recording: each expression that was found, with its kind, its place on the face, and how sure it is.

A recording of any length is searched in blocks, each with its surroundings, so memory is constant and the result does not depend on
how the recording was read.
"""

from __future__ import annotations

import dataclasses
import itertools
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from flowkit.spotting.confidence import Measured, confidence, face_motion, measured, region_of
from flowkit.spotting.course import UNITS, Course
from flowkit.spotting.movements import Movement, find_movements, without_blinks

Kind = Literal["micro", "macro", "blink"]
Array = npt.NDArray[np.float64]

MICRO_S: Final = 0.5
"""Longest micro-expression."""
TOLERANCE_S: Final = 0.003
"""Time stamps of videos are rounded, to milliseconds in some."""
LEAST_MOTION_PX: Final = 0.04
"""What moves the face by less, root mean square, is what alignment leaves: see `motion.spotting.STILL_PX`."""
LEAST_CONFIDENCE: Final = 0.4
"""What is less sure is no interval, unless a user asks for it."""
MOST_OVERLAP: Final = 0.2
"""Of two movements that share more (intersection over union), or whose apexes lie in each other, the surer one stays."""
LEAST_FRAMES: Final = 4
"""From onset to offset: of fewer, nobody can tell a rise and a fall."""
LEAST_RISE: Final = 2
"""Frames from onset to apex, at least."""
SHORTEST_RUN_S: Final = 0.5
"""Shorter stretches of used frames are not searched."""
BLOCK_S: Final = 60.0
CONTEXT_S: Final = 20.0
"""What is looked at before and behind a block: a change is measured against its surroundings."""
REST_S: Final = 4.0
"""The curve is relative to the mean over so many seconds on either side."""
_BLINK_NOISE = 5.0
"""And its least size relative to the median step from frame to frame: in noisy pictures lids seem to flutter."""
_BLINK_CM, _BLINK_S = 0.2, (0.06, 0.6)
"""Least closing of the eyes, and shortest and longest blink."""
_SHOWN = 4
"""Action units that are named, at most."""
_SHOWN_SHARE = 0.35
"""And their least motion, relative to the strongest."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A movement of the face.

    Attributes
    ----------
    onset, apex, offset : int
        Frame numbers.
    onset_s, offset_s : float
        Times of these frames since the first of the recording, s.
    kind : {"micro", "macro", "blink"}
    confidence : float
        0 to 1: how probable it is that it is an expression, or for a blink, a blink; see `confidence.py`.
    region : str
        Part of the face.
    action_units : str
        The action units that move most, such as "12L+12R"; a by-product, no FACS coding.
    motion_px : float
        Root mean square of the motion at the apex over the face, px of a crop of 128.
    blink : bool
        Whether the eyes close meanwhile.
    """

    onset: int
    apex: int
    offset: int
    onset_s: float
    offset_s: float
    kind: Kind
    confidence: float
    region: str = ""
    action_units: str = ""
    motion_px: float = 0.0
    blink: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What was found in a stretch of a recording.

    Attributes
    ----------
    intervals : tuple of Interval
        By onset; blinks among them.
    curve : (T,) float32
        Motion of the face in each frame of the stretch, px of a crop of 128, relative to the seconds around it; NaN where the frame
        was not used.
    searched : int
        Frames of the stretch that lie where the face was followed long enough to be searched.
    """

    intervals: tuple[Interval, ...]
    curve: npt.NDArray[np.float32]
    searched: int


class IntervalSearch:
    """Searches a recording whose course comes in parts.

    Parameters
    ----------
    fps : float
    least_confidence : float
    """

    def __init__(self, fps: float, least_confidence: float = LEAST_CONFIDENCE) -> None:
        self._least = least_confidence
        self._block, self._context = max(1, round(BLOCK_S * fps)), max(1, round(CONTEXT_S * fps))
        self._course = Course.of(fps)
        self._begin = 0  # where the next block begins in the course that is kept
        self._last: dict[bool, Interval] = {}

    def add(self, course: Course) -> Iterator[Found]:
        """Take the next part, and yield what can be told by now."""
        self._course = self._course.followed_by(course)
        while len(self._course) >= self._begin + self._block + 2 * self._context:
            yield self._searched(self._begin + self._block)

    def finish(self) -> Iterator[Found]:
        """Yield the rest."""
        if len(self._course) > self._begin:
            yield self._searched(len(self._course))

    def _searched(self, end: int) -> Found:
        """Search the frames up to a place, and keep what the next block needs."""
        low, high = max(0, self._begin - self._context), min(len(self._course), end + self._context)
        found = search(self._course.part(low, high), self._begin - low, end - low, self._least)
        kept = max(0, end - self._context)
        self._course, self._begin = self._course.part(kept, len(self._course)), end - kept
        return dataclasses.replace(found, intervals=tuple(self._new(found.intervals)))

    def _new(self, intervals: Sequence[Interval]) -> Iterator[Interval]:
        """Leave out what the block before has found already."""
        for interval in intervals:
            last = self._last.get(interval.kind == "blink")
            if last is None or overlap((last.onset, last.offset), (interval.onset, interval.offset)) <= MOST_OVERLAP:
                self._last[interval.kind == "blink"] = interval
                yield interval


def search(course: Course, begin: int, end: int, least_confidence: float = LEAST_CONFIDENCE) -> Found:
    """Find the intervals whose apex lies between two places of a course.

    Parameters
    ----------
    course : Course
        With what lies around.
    begin, end : int
    least_confidence : float
    """
    curve = np.full(len(course), np.nan, np.float32)
    intervals: list[Interval] = []
    searched = 0
    for first, last in _runs(course):
        run = course.part(first, last)
        curve[first:last] = _curve(run)
        if last - first >= SHORTEST_RUN_S * course.fps:
            intervals += _in_run(run, begin - first, end - first, least_confidence)
            searched += max(0, min(last, end) - max(first, begin))
    intervals.sort(key=lambda interval: (interval.onset, interval.kind))
    return Found(tuple(intervals), curve[begin:end], searched)


def overlap(one: tuple[float, float], other: tuple[float, float]) -> float:
    """Return the intersection over the union of two intervals of frames, both ends included.

    Examples
    --------
    >>> overlap((0, 9), (5, 14))
    0.3333333333333333
    """
    shared = max(0.0, min(one[1], other[1]) - max(one[0], other[0]) + 1)
    return shared / ((one[1] - one[0] + 1) + (other[1] - other[0] + 1) - shared)


def _runs(course: Course) -> Iterator[tuple[int, int]]:
    """First place of each unbroken stretch of used frames, and the one behind its last."""
    at = 0
    for run, frames in itertools.groupby(course.frames["run"].tolist()):
        count = len(list(frames))
        if run >= 0:
            yield at, at + count
        at += count


def _in_run(run: Course, begin: int, end: int, least: float) -> list[Interval]:
    """Intervals of a run whose apex lies between two places."""
    begin, end = max(begin, 0), min(end, len(run))
    if begin >= end:
        return []
    units, lids, turn = (run.frames[name].astype(np.float64) for name in ("units", "lids", "turn"))
    blinks = list(_blinks(run, lids))
    skin = without_blinks(units, lids, run.fps)
    movements = find_movements(skin, run.fps)
    measures = [measured(movement, skin, lids, turn, run.fps) for movement in movements]
    sure = confidence(np.array([one.measures for one in measures])) if measures else np.zeros(0)
    sure = np.where([one.motion_px >= LEAST_MOTION_PX for one in measures], sure, 0.0)
    found = [
        _expression(run, movements[i], measures[i], float(sure[i]), blinks) for i in resolved(movements, sure, least)
    ]
    first, last = run.frames["number"][[begin, end - 1]].tolist()
    return [interval for interval in (*found, *blinks) if first <= interval.apex <= last]


def resolved(movements: Sequence[Movement], sure: Array, least: float) -> list[int]:
    """Return which movements remain: the surest first, and none that is much the same as a surer one."""
    kept: list[int] = []
    for place in np.argsort(-sure, kind="stable").tolist():
        one = movements[place]
        if sure[place] < least:
            break
        if one.offset - one.onset >= LEAST_FRAMES - 0.5 and not any(_same(one, movements[other]) for other in kept):
            kept.append(place)
    return kept


def _same(one: Movement, other: Movement) -> bool:
    mutual = other.onset <= one.apex <= other.offset and one.onset <= other.apex <= one.offset
    return mutual or overlap((one.onset, one.offset), (other.onset, other.offset)) > MOST_OVERLAP


def _expression(run: Course, movement: Movement, found: Measured, sure: float, blinks: Sequence[Interval]) -> Interval:
    last = len(run) - 1
    onset = min(max(round(movement.onset), 0), last - LEAST_FRAMES)
    offset = min(max(round(movement.offset), onset + LEAST_FRAMES), last)
    apex = min(max(round(movement.apex), onset + LEAST_RISE), offset - 1)
    moments = _moments(run, onset, apex, offset)
    lasts = float(run.frames["seconds"][offset] - run.frames["seconds"][onset])
    return Interval(
        **moments._asdict(),
        kind="micro" if lasts <= MICRO_S + TOLERANCE_S else "macro",
        confidence=round(sure, 4),
        region=region_of(found.units),
        action_units=_named(found.units),
        motion_px=round(found.motion_px, 3),
        blink=any(blink.onset <= moments.offset and blink.offset >= moments.onset for blink in blinks),
    )


class _Moments(NamedTuple):
    onset: int
    apex: int
    offset: int
    onset_s: float
    offset_s: float


def _moments(run: Course, onset: int, apex: int, offset: int) -> _Moments:
    """Frame numbers and times of places of a run."""
    numbers, seconds = (run.frames[name][[onset, apex, offset]].tolist() for name in ("number", "seconds"))
    return _Moments(numbers[0], numbers[1], numbers[2], round(seconds[0], 3), round(seconds[2], 3))


def _named(units: Array) -> str:
    """Name the action units that move most."""
    motion = np.maximum(units, 0) * np.sqrt(np.diag(face_motion()))
    order = [place for place in np.argsort(-motion)[:_SHOWN] if motion[place] > _SHOWN_SHARE * motion.max()]
    return "+".join(UNITS[place] for place in sorted(order))


def _blinks(run: Course, lids: Array) -> Iterator[Interval]:
    """Blinks: the lids close and open again within some tenths of a second."""
    from scipy.signal import find_peaks  # here: only searches need it

    closing = lids.mean(axis=1)
    shortest, longest = (seconds * run.fps for seconds in _BLINK_S)
    smooth = _mean_around(closing, max(0, int(shortest / 4)))
    steps = np.abs(np.diff(smooth))
    least = max(_BLINK_CM, _BLINK_NOISE * float(np.median(steps)) if len(steps) else 0.0)
    window = max(3, int(2 * longest) | 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of peaks without prominence
        peaks, found = find_peaks(smooth, prominence=least, width=(shortest / 2, longest), rel_height=0.85, wlen=window)
    for place, left, right, closed in zip(
        peaks.tolist(), found["left_ips"], found["right_ips"], found["prominences"], strict=True
    ):
        moments = _moments(
            run, min(max(round(left), 0), place - 1), place, min(max(round(right), place + 1), len(run) - 1)
        )
        yield Interval(
            **moments._asdict(),
            kind="blink",
            confidence=round(float(closed / (closed + _BLINK_CM)), 4),
            region="eyes",
            action_units="45",
            blink=True,
        )


def _curve(run: Course) -> npt.NDArray[np.float32]:
    units = run.frames["units"].astype(np.float64)
    apart = units - _mean_around(units, max(1, round(REST_S * run.fps)))
    squares = np.einsum("ti,ij,tj->t", apart, face_motion(), apart)
    return np.asarray(np.sqrt(np.maximum(squares, 0)), np.float32)


def _mean_around(values: Array, half: int) -> Array:
    """Mean of the values up to so many frames before and behind each one."""
    sums = np.concatenate([np.zeros((1, *values.shape[1:])), np.cumsum(values, axis=0)])
    at = np.arange(len(values))
    low, high = np.maximum(at - half, 0), np.minimum(at + half + 1, len(values))
    count = (high - low).reshape(-1, *(1,) * (values.ndim - 1))
    return np.asarray((sums[high] - sums[low]) / count)
