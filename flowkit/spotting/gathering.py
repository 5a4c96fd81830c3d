"""What is known of a recording when all its parts were searched: intervals, frames that could not be used, cuts, the curve."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from flowkit.errors import FailureCode
from flowkit.inputs.recording_frames import Part, Recording
from flowkit.spotting.course import Course, Use
from flowkit.spotting.intervals import LEAST_CONFIDENCE, SHORTEST_RUN_S, Found, Interval, IntervalSearch

CURVE_HZ: Final = 30.0
"""Values of the curve per second that are kept, at most: each is the largest of some frames."""
UNEVEN: Final = 1.5
"""A frame rate counts as uneven where a twentieth of the distances between frames are so many times the usual one."""
LEAST_STATED: Final = 0.97
"""Share of the stated length that must be there."""
SEVERAL: Final = "several faces: the largest at first, then the one nearest to it, is followed"


@dataclass(frozen=True, slots=True)
class Span:
    """Frames in a row.

    Attributes
    ----------
    first, last : int
        Frame numbers, both included.
    first_s, last_s : float
        Their times, s.
    why : str
    """

    first: int
    last: int
    first_s: float
    last_s: float
    why: str


@dataclass(frozen=True, slots=True, eq=False)
class Searched:
    """A recording that was searched.

    Attributes
    ----------
    path : str
    fps : float
    frames, used : int
        Frames that were read, and of these the ones that a face could be followed in.
    seconds : float
        Length of what was read.
    intervals : tuple of Interval
        By onset; blinks among them.
    unused, several_faces : tuple of Span
    cuts : tuple of (int, float)
        First frames of other scenes, and their times.
    notes : tuple of str
    problems : tuple of (str, str)
        Failure code and message of each part that could not be read.
    every : int
        Frames for one value of the curve.
    curve : (C,) float32
        See `intervals.Found`.
    """

    path: str
    fps: float
    frames: int
    used: int
    seconds: float
    intervals: tuple[Interval, ...]
    unused: tuple[Span, ...] = ()
    several_faces: tuple[Span, ...] = ()
    cuts: tuple[tuple[int, float], ...] = ()
    notes: tuple[str, ...] = ()
    problems: tuple[tuple[str, str], ...] = ()
    every: int = 1
    curve: npt.NDArray[np.float32] = dataclasses.field(default_factory=lambda: np.zeros(0, np.float32))

    @property
    def expressions(self) -> tuple[Interval, ...]:
        """Its intervals without the blinks."""
        return tuple(interval for interval in self.intervals if interval.kind != "blink")

    @property
    def blinks(self) -> tuple[Interval, ...]:
        """The blinks."""
        return tuple(interval for interval in self.intervals if interval.kind == "blink")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        curve = [None if math.isnan(value) else round(value, 4) for value in self.curve.tolist()]
        return {
            "path": self.path,
            "fps": None if math.isnan(self.fps) else self.fps,
            "frames": self.frames,
            "used_frames": self.used,
            "seconds": round(self.seconds, 3),
            "intervals": [interval.to_dict() for interval in self.intervals],
            "unused": [dataclasses.asdict(span) for span in self.unused],
            "several_faces": [dataclasses.asdict(span) for span in self.several_faces],
            "cuts": [{"frame": frame, "s": seconds} for frame, seconds in self.cuts],
            "notes": list(self.notes),
            "problems": [{"code": code, "message": message} for code, message in self.problems],
            "curve": {"frames_per_value": self.every, "motion_px": curve},
        }


class Gathering:
    """Takes the parts of one recording, in order.

    Parameters
    ----------
    recording : Recording
    least_confidence : float
    """

    def __init__(self, recording: Recording, least_confidence: float = LEAST_CONFIDENCE) -> None:
        self._recording = recording
        self._search = IntervalSearch(recording.fps, least_confidence)
        self._every = max(1, round(recording.fps / CURVE_HZ))
        self._intervals: list[Interval] = []
        self._curve: list[npt.NDArray[np.float32]] = []
        self._left = np.zeros(0, np.float32)
        self._unused: list[Span] = []
        self._several: list[Span] = []
        self._cuts: dict[int, float] = {}
        self._problems: dict[tuple[str, str], None] = {}
        self._frames = self._used = self._searched = self._interlaced = 0
        self._distances: list[npt.NDArray[np.float32]] = []
        self._last: int | None = None
        self._end_s = 0.0

    def add(self, course: Course, part: Part | None = None) -> None:
        """Take the next part; `part` says which frames it should have."""
        self._problems |= dict.fromkeys(course.problems)
        course = course if part is None else course.filled(part)
        if not len(course):
            return
        self._distances.append(np.diff(course.frames["seconds"]).astype(np.float32))
        new = course.frames[int(course.frames["number"][0] == self._last) :]
        self._last = int(course.frames["number"][-1])
        self._frames += len(new)
        self._used += int(np.count_nonzero(new["run"] >= 0))
        self._interlaced += course.interlaced
        self._end_s = float(course.frames["seconds"][-1])
        _merge(self._unused, new, [Use(use).meaning if use else "" for use in new["use"].tolist()])
        _merge(self._several, new, [SEVERAL if faces > 1 else "" for faces in new["faces"].tolist()])
        times = dict(zip(course.frames["number"].tolist(), course.frames["seconds"].tolist(), strict=True))
        self._cuts |= {cut: round(times[cut], 3) for cut in course.cuts.tolist()}
        self._take(self._search.add(course))

    def finish(self) -> Searched:
        """Return all that was found."""
        self._take(self._search.finish())
        if len(self._left):
            self._curve.append(np.array([_largest(self._left)], np.float32))
        recording = self._recording
        seconds = self._end_s + 1 / recording.fps if self._frames else 0.0
        return Searched(
            path=recording.path,
            fps=recording.fps,
            frames=self._frames,
            used=self._used,
            seconds=seconds,
            intervals=tuple(sorted(self._intervals, key=lambda one: (one.onset, one.kind))),
            unused=tuple(self._unused),
            several_faces=tuple(self._several),
            cuts=tuple(sorted(self._cuts.items())),
            notes=(*recording.notes, *self._further_notes()),
            problems=(*self._problems, *self._further_problems()),
            every=self._every,
            curve=np.concatenate([np.zeros(0, np.float32), *self._curve]),
        )

    def _take(self, found: Iterable[Found]) -> None:
        for stretch in found:
            self._intervals += stretch.intervals
            self._searched += stretch.searched
            values = np.concatenate([self._left, stretch.curve])
            whole = len(values) // self._every * self._every
            self._left = values[whole:]
            self._curve.append(_largest(values[:whole].reshape(-1, self._every)))

    def _further_notes(self) -> Iterator[str]:
        distances = np.concatenate([np.zeros(0, np.float32), *self._distances])
        usual, long = np.quantile(distances, [0.5, 0.95]).tolist() if len(distances) else (0.0, 0.0)
        if long > UNEVEN * usual:
            yield (
                f"its frame rate varies: frames are {1000 * usual:.0f} to {1000 * long:.0f} ms apart. Short movements may be "
                "missed where they are far apart"
            )
        if self._interlaced:
            yield (
                f"{min(self._interlaced, self._frames)} of {self._frames} frames are interlaced: their lines are of two moments, "
                "which looks like motion. Deinterlace it first: ffmpeg -i IN -vf bwdif OUT"
            )
        if self._cuts:
            yield f"{len(self._cuts)} cuts or pauses: what lies between is searched by itself"
        if self._several:
            yield SEVERAL
        if 0 < self._searched < self._used:
            yield f"{self._used - self._searched} frames lie in stretches of less than half a second: nothing is looked for there"

    def _further_problems(self) -> Iterator[tuple[str, str]]:
        """Why nothing can have been found, or not everything."""
        path, stated, stated_s = self._recording.path, self._recording.stated, self._recording.stated_s
        shortest = math.ceil(SHORTEST_RUN_S * self._recording.fps)
        if self._problems:
            return
        if self._frames < stated - 1:
            yield (
                str(FailureCode.VIDEO_UNREADABLE),
                f"{path}: video must have the {stated} frames that it states; got {self._frames}. The rest is missing, or damaged: "
                "copy the file again.",
            )
        elif self._end_s < LEAST_STATED * stated_s - 0.5:
            yield (
                str(FailureCode.VIDEO_UNREADABLE),
                f"{path}: video must last the {stated_s:.1f} s that it states; got {self._end_s:.1f} s. The rest is missing: copy "
                "the file again.",
            )
        elif not self._frames:
            yield str(FailureCode.VIDEO_UNREADABLE), f"{path}: video must have frames; got none. Copy the file again."
        elif self._frames < shortest:
            yield (
                str(FailureCode.APEX_MISSING),
                f"{path}: recording must last at least half a second, {shortest} frames; got {self._frames}. For clips that "
                "were cut already, write a manifest and use flowkit spot.",
            )
        elif not self._used:
            yield (
                str(FailureCode.FACE_NOT_FOUND),
                f"{path}: recording must show a face; got none that could be used in {self._frames} frames: "
                f"{self._unused[0].why}. Faces of less than a twentieth of the picture's width are not found.",
            )
        elif not self._searched:
            yield (
                str(FailureCode.APEX_MISSING),
                f"{path}: recording must show a face for half a second, {shortest} frames, without a break; got shorter "
                f"stretches, with {len(self._cuts)} cuts or pauses. Number images in steps of 1, and pass their true --fps.",
            )


def _largest(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Largest value along the last axis, frames that were not used left out; NaN where none was."""
    filled = np.where(np.isnan(values), -np.inf, values).max(axis=-1, initial=-np.inf)
    return np.asarray(np.where(np.isneginf(filled), np.nan, filled), np.float32)


def _merge(spans: list[Span], frames: npt.NDArray[Any], why: Sequence[str]) -> None:
    """Add stretches of frames that have a reason to those of earlier parts."""
    if not len(frames):
        return
    bounds = np.flatnonzero(np.array([True, *(a != b for a, b in zip(why[1:], why[:-1], strict=True))]))
    for begin, end in zip(bounds.tolist(), [*bounds[1:].tolist(), len(why)], strict=True):
        if not why[begin]:
            continue
        first, last = frames[begin], frames[end - 1]
        span = Span(
            int(first["number"]),
            int(last["number"]),
            round(float(first["seconds"]), 3),
            round(float(last["seconds"]), 3),
            why[begin],
        )
        goes_on = begin == 0 and spans and spans[-1].why == span.why and spans[-1].last + 1 == span.first
        if goes_on:
            span = dataclasses.replace(span, first=spans[-1].first, first_s=spans[-1].first_s)
            spans.pop()
        spans.append(span)
