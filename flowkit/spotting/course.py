"""How a face moved through a recording: strengths of the action units in each frame, and which frames could not be used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from flowkit.inputs.recording_frames import Part
from flowkit.storage.schema import ACTION_UNITS

LIDS: Final = ("45L", "45R")
UNITS: Final = tuple(name for name in ACTION_UNITS if name not in LIDS)
"""The action units whose strengths a course has, in order: all but the closing of the eyes."""
STRENGTHS: Final = ("units", "lids", "turn")
"""Columns that are relative to the beginning of a run."""
FRAME: Final = np.dtype(
    [
        ("number", "<i8"),  # as in a manifest
        ("seconds", "<f8"),  # since the first frame of the recording
        ("run", "<i4"),  # frames of one run are relative to one face at rest; -1 where a frame was not used
        ("use", "u1"),  # see `Use`
        ("faces", "u1"),  # how many there were when last looked for
        ("units", "<f4", len(UNITS)),  # strength of each of `UNITS`, cm, relative to the beginning of the run; else 0
        ("lids", "<f4", len(LIDS)),  # the same of the closing of the eyes
        ("turn", "<f4", 2),  # yaw and pitch of the head, degrees, relative to the beginning of the run; else 0
    ]
)
"""What is known of a frame."""


class Use(IntEnum):
    """Whether a frame could be used, and why not."""

    USED = 0
    NO_FACE = 1
    TURNED_AWAY = 2
    TOO_SMALL = 3
    HIDDEN = 4
    UNREADABLE = 5
    OUTSIDE = 6

    @property
    def meaning(self) -> str:
        """What a user is told."""
        return _MEANINGS[self]


_MEANINGS = {
    Use.USED: "used",
    Use.NO_FACE: "no face was found",
    Use.TURNED_AWAY: "the face is turned away too far",
    Use.TOO_SMALL: "the face is too small",
    Use.HIDDEN: "the face could not be followed: something hides it, or it moved too fast",
    Use.UNREADABLE: "the frame cannot be read",
    Use.OUTSIDE: "the face is partly outside the picture",
}


@dataclass(frozen=True, slots=True, eq=False)
class Course:
    """T frames in order.

    Attributes
    ----------
    fps : float
    frames : (T,) array of `FRAME`
    cuts : (C,) int64
        Numbers of the first frames of another scene.
    interlaced : int
        Frames whose lines are of two moments.
    problems : tuple of (str, str)
        Failure code and message of what could not be read.
    """

    fps: float
    frames: npt.NDArray[Any]
    cuts: npt.NDArray[np.int64]
    interlaced: int = 0
    problems: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(
        cls,
        fps: float,
        frames: Sequence[tuple[Any, ...]] = (),
        cuts: Sequence[int] = (),
        interlaced: int = 0,
        problems: Sequence[tuple[str, str]] = (),
    ) -> Self:
        """Gather frames, each a tuple in the order of `FRAME`."""
        return cls(fps, np.array(list(frames), FRAME), np.array(cuts, np.int64), interlaced, tuple(problems))

    def __len__(self) -> int:
        return len(self.frames)

    def filled(self, part: Part) -> Self:
        """Return the same with a frame that was not used in place of each one of the part that could not be read."""
        missing = part.frames - len(self)
        if missing <= 0:
            return self
        rest = np.zeros(missing, FRAME)
        rest["number"], rest["seconds"] = part.numbers[len(self) :], part.seconds[len(self) :]
        rest["run"], rest["use"] = -1, Use.UNREADABLE
        frames = np.concatenate([self.frames, rest])
        return type(self)(self.fps, frames, self.cuts, self.interlaced, self.problems)

    def part(self, begin: int, end: int) -> Self:
        """Return the frames at some places."""
        frames = self.frames[begin:end]
        return type(self)(self.fps, frames, self.cuts[np.isin(self.cuts, frames["number"])], self.interlaced)

    def followed_by(self, later: Self) -> Self:
        """Return this course and the next part of the same recording.

        Where the last frame here is the first one there, and was used in both, their runs become one.
        """
        if not len(self) or not len(later):
            return later if not len(self) else self
        shared = int(self.frames["number"][-1] == later.frames["number"][0])
        frames = later.frames.copy()
        frames["run"][frames["run"] >= 0] += 1 + int(self.frames["run"].max(initial=-1))
        here, there = self.frames[-1], frames[0]
        if shared and here["run"] >= 0 and there["run"] >= 0:
            same = frames["run"] == there["run"]
            for name in STRENGTHS:
                frames[name][same] += here[name] - there[name].copy()
            frames["run"][same] = here["run"]
        cuts = np.union1d(self.cuts, later.cuts)
        interlaced = self.interlaced + later.interlaced
        return type(self)(self.fps, np.concatenate([self.frames, frames[shared:]]), cuts, interlaced)
