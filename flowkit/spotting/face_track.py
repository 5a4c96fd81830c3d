"""A face followed through the frames of a recording, in constant memory: the strength of each action unit, frame by frame.

Each frame is compared with an *anchor*, an earlier frame of the same face. The pose of the head is taken from the frame before and
corrected by Gauss-Newton steps of the linear fit of `motion.expression_course`, which tells head, light and action units apart.
When the head has turned, or some seconds have gone by, the frame becomes the next anchor: its landmarks are found, and strengths go
on from those it had. So strengths drift slowly where the head turns, and what lasts a second or less is seen undisturbed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from flowkit.errors import ClipError, FailureCode
from flowkit.face.align import Aligner
from flowkit.face.anchor import Anchor
from flowkit.face.head_motion import similarity_of
from flowkit.face.head_shape import NOMINAL_PX
from flowkit.face.landmarks import FACE_OVAL, Landmarks
from flowkit.face.registration import LOST_BELOW, Image
from flowkit.face.transforms import Transform, compose, invert
from flowkit.inputs.clip import Clip
from flowkit.inputs.recording_frames import Frame
from flowkit.motion.expression_course import ExpressionFit
from flowkit.spotting.course import LIDS, UNITS, Course, Use

SIZE = 128
"""Side of the crop, px."""
MOST_TURN, ANCHOR_S = np.radians(4.0), 3.0
MOST_GROWTH = 0.1
"""A face that has become so much larger or smaller, relatively, gets a new anchor, too."""
WORN_BELOW = 0.93
"""So does one that matches its anchor less well: a broad expression shows what the anchor does not."""
MOST_STEPS, NEAR_PX = 3, 0.15
"""Gauss-Newton steps of the pose in each frame, and the motion, px of the crop, below which the rest is left to the fit."""
FACE_PX = 50.0
"""Radius of a face, px of the crop."""
NOISE = 2.0
"""Noise of a frame, grey levels: what the fit weighs its prior with."""
LOOK_S, LOOK_THOROUGHLY_S = 0.1, 1.0
"""How often a face is looked for where there is none, and in tiles, too."""
MOST_AWAY = 40.0
"""Yaw or pitch of a face, degrees, beyond which half of it is hidden."""
HIDDEN_BELOW, SAME_PLACE, HIDDEN_S = 0.7, 0.1, 0.5
"""A face that matches its anchor less, has moved by less of its width, and for less time, has something before it."""
MOST_OUTSIDE = 0.1
"""Share of the outline of a face that may lie outside the picture."""
PAUSE_S, PAUSE_FRAMES = 0.25, 3
"""What follows a pause of so many seconds, and frames, or more is another scene."""
SCENE = 24, 16
"""Size, px, of the small picture by which cuts are told."""
BLANK = 1e-3
"""Product of the standard deviations of two such pictures below which one of them shows nothing."""
SAME_SCENE = 0.7
"""Correlation of these pictures of two frames below which there is a cut between them."""
SAME_FACE = 0.5
"""A face that is lost, and found in the same frame so many of its widths away, is another one: that is a cut, too."""

Numbers = npt.NDArray[np.float64]
Row = tuple[Any, ...]
Strengths = tuple[Numbers, Numbers, Numbers]
"""Of the action units and the lids, cm, and yaw and pitch of the head, radians, since the beginning of a run."""


@dataclass(frozen=True, slots=True, eq=False)
class _Held:
    """The anchor, and what strengths and turn were in it."""

    anchor: Anchor
    fit: ExpressionFit
    since: float
    lids: Numbers
    units: Numbers
    turn: Numbers


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """A frame compared with the anchor: the pose of the head, strengths, and how well it matches."""

    similarity: Transform
    turn: Numbers
    lids: Numbers
    units: Numbers
    match: float


class FaceTrack:
    """Follows one face; `read` takes frames one after the other.

    Parameters
    ----------
    aligner : Aligner
        Finds faces, and undoes the head's motion in pictures.
    where : str
        What messages call the recording.
    fps : float
    """

    def __init__(self, aligner: Aligner, where: str, fps: float) -> None:
        self._aligner = aligner
        self._clip = Clip(where, where, 0, None, None, "", "", "")
        self.fps = fps
        self.cuts: list[int] = []
        self.interlaced = 0
        self.problems: dict[tuple[str, str], None] = {}
        self._seconds = self._hidden_from = np.inf
        self._held: _Held | None = None
        self._pose: tuple[Transform, Numbers] = np.eye(2, 3), np.zeros(2)
        self._strengths: Strengths = _at_rest()
        self._run = -1
        self._last: Landmarks | None = None
        self._scene: Image | None = None
        self._faces = 0
        self._why = Use.NO_FACE
        self._looked = self._looked_thoroughly = -np.inf

    def course(self, frames: Iterable[Frame]) -> Course:
        """Return the course of some frames, as far as they can be read."""
        rows = list[Row]()
        try:
            for row in self.read(frames):
                rows.append(row)
        except ClipError as error:
            self._failed(error)
        return Course.of(self.fps, rows, self.cuts, self.interlaced, list(self.problems))

    def read(self, frames: Iterable[Frame]) -> Iterator[Row]:
        """Yield what each frame shows, in the order of `course.FRAME`."""
        for frame in frames:
            self.interlaced += frame.interlaced
            try:
                grey = frame.grey()
            except ClipError as error:
                self._failed(error)
                self._let_go(Use.UNREADABLE)
                yield self._unused(frame)
                continue
            if self._is_cut(grey) or self._has_passed(max(PAUSE_S, PAUSE_FRAMES / self.fps), frame, self._seconds):
                self.cuts.append(frame.number)
                self._let_go(Use.NO_FACE)
                self._last, self._looked = None, -np.inf
            self._seconds = frame.seconds
            yield self._reading(frame, grey)

    def _has_passed(self, seconds: float, frame: Frame, since: float) -> bool:
        """Whether so much time has gone by, counted in frames: time stamps are rounded, in some videos to milliseconds."""
        return bool(np.rint((frame.seconds - since) * self.fps) >= np.rint(seconds * self.fps))

    def _failed(self, error: ClipError) -> None:
        """Remember what could not be read, the first of each kind."""
        if not any(code == str(error.code) for code, _ in self.problems):
            self.problems[str(error.code), error.message] = None

    def _is_cut(self, grey: Image) -> bool:
        """Whether a frame shows another scene than the one before."""
        small = cv2.resize(grey, SCENE, interpolation=cv2.INTER_AREA)
        before, self._scene = self._scene, small
        if before is None:
            return False
        blank = small.std() * before.std() < BLANK  # black frames match nothing and are no scene
        return not blank and _correlation(small, before) < SAME_SCENE

    def _reading(self, frame: Frame, grey: Image) -> Row:
        held, before = self._held, self._strengths
        if held is not None:
            seen = self._compared(grey, held)
            if seen.match >= LOST_BELOW:
                self._pose, self._hidden_from = (seen.similarity, seen.turn), np.inf
                self._last = held.anchor.landmarks + _shift(held.anchor, seen.similarity)
                self._strengths = held.units + seen.units, held.lids + seen.lids, held.turn + seen.turn
                if _outside(self._last, grey) > MOST_OUTSIDE:
                    self._let_go(Use.OUTSIDE)
                    return self._unused(frame)
                if self._is_worn(frame, seen, held):
                    self._look(frame, grey, self._strengths)
                return self._used(frame)
            points = self._found(frame)
            if self._is_hidden(frame, seen, points):
                return self._unused(frame)
            self._let_go(Use.HIDDEN)
            # The face was only lost from the last frame to this one: what it showed then is near to what it shows now.
            return self._used(frame) if self._anchored(frame, grey, points, before) else self._unused(frame)
        return self._used(frame) if self._look(frame, grey, None) else self._unused(frame)

    def _is_hidden(self, frame: Frame, seen: _Seen, points: Landmarks | None) -> bool:
        """Whether something passes in front of the face: it is where it was, and looks quite unlike itself, for a short while."""
        if not seen.match < HIDDEN_BELOW or points is None or _moved(points, self._last) > SAME_PLACE:
            return False
        self._hidden_from, self._why = min(self._hidden_from, frame.seconds), Use.HIDDEN
        return not self._has_passed(HIDDEN_S, frame, self._hidden_from)

    def _unused(self, frame: Frame) -> Row:
        return frame.number, frame.seconds, -1, self._why, self._faces, *_at_rest()

    def _used(self, frame: Frame) -> Row:
        units, lids, turn = self._strengths
        return frame.number, frame.seconds, self._run, Use.USED, self._faces, units, lids, np.degrees(turn)

    def _compared(self, grey: Image, held: _Held) -> _Seen:
        """Compare a frame with the anchor, from the pose of the frame before."""
        similarity, turn = self._pose
        for _ in range(MOST_STEPS):
            picture, _ = self._aligner.place(held.anchor, held.anchor.shape, grey, (similarity, turn), self._clip.where)
            strengths = held.fit.strengths(held.fit.reading(picture))
            motion = held.fit.pose(strengths)
            if np.abs(motion[:2]).max() + FACE_PX * np.abs(motion[2:]).max() < NEAR_PX:
                break
            similarity = compose(similarity, np.eye(2, 3) + similarity_of(motion, held.anchor.shape, SIZE))
            turn = turn + motion[4:]
        match = _correlation(*(part[held.fit.region] for part in (held.anchor.onset, picture)))
        first = held.fit.nuisances - len(LIDS)
        return _Seen(similarity, turn, strengths[first : held.fit.nuisances], strengths[held.fit.nuisances :], match)

    def _is_worn(self, frame: Frame, seen: _Seen, held: _Held) -> bool:
        """Whether the anchor is to be replaced: it is old, or the head has turned or come nearer."""
        growth = abs(np.log(np.hypot(seen.similarity[0, 0], seen.similarity[1, 0])))
        differs = np.abs(seen.turn).max() > MOST_TURN or growth > MOST_GROWTH or seen.match < WORN_BELOW
        worn = bool(differs) or self._has_passed(ANCHOR_S, frame, held.since)
        return worn and self._has_passed(LOOK_S, frame, self._looked)

    def _look(self, frame: Frame, grey: Image, on: Strengths | None) -> bool:
        """Find the face in a frame and make it the anchor, unless it was looked for just now; `on` as of `_anchored`."""
        if not self._has_passed(LOOK_S, frame, self._looked):
            return False
        thorough = on is None and self._has_passed(LOOK_THOROUGHLY_S, frame, self._looked_thoroughly)
        if thorough:
            self._looked_thoroughly = frame.seconds
        return self._anchored(frame, grey, self._found(frame, thorough), on)

    def _found(self, frame: Frame, thorough: bool = False) -> Landmarks | None:
        """Return the points of the face in a frame."""
        self._looked = frame.seconds
        faces = self._aligner.finder.faces(frame.rgb(), thorough=thorough, near=self._last)
        self._faces = len(faces)
        return _nearest(faces, self._last)

    def _anchored(self, frame: Frame, grey: Image, points: Landmarks | None, on: Strengths | None) -> bool:
        """Make the face in a frame the anchor; `on` has the strengths and the turn that go on, if any do."""
        try:
            anchor = None if points is None else Anchor.at(self._clip, grey, points, self._faces, SIZE)
            self._why = Use.NO_FACE if self._last is None else Use.HIDDEN
        except ClipError as error:
            anchor, self._why = None, _why(error)
        if anchor is not None and _away(anchor) > MOST_AWAY:
            anchor, self._why = None, Use.TURNED_AWAY
        if anchor is not None and _outside(anchor.landmarks, grey) > MOST_OUTSIDE:
            anchor, self._why = None, Use.OUTSIDE
        if anchor is None:
            if on is not None and points is not None:  # it is there, and cannot be measured
                self._let_go(self._why)
            return False
        if on is not None and _moved(points, self._last) > SAME_FACE:
            self.cuts.append(frame.number)
            on = None
        if on is None:
            self._run += 1
            on = _at_rest()
        self._strengths = units, lids, turn = on
        self._held = _Held(anchor, ExpressionFit.of(anchor, anchor.onset, NOISE), frame.seconds, lids, units, turn)
        self._pose, self._last = (np.eye(2, 3), np.zeros(2)), points
        return True

    def _let_go(self, why: Use) -> None:
        self._held, self._why = None, why


def _correlation(one: Image, other: Image) -> float:
    """Correlation of the values of two pictures; NaN where one has a single value."""
    one, other = one - one.mean(), other - other.mean()
    scale = float(np.sqrt((one**2).sum() * (other**2).sum()))
    return float((one * other).sum()) / scale if scale > 0 else np.nan


def _at_rest() -> Strengths:
    return np.zeros(len(UNITS)), np.zeros(len(LIDS)), np.zeros(2)


def _nearest(faces: list[Landmarks], last: Landmarks | None) -> Landmarks | None:
    """Return the face nearest to where one was; the largest, where none was."""
    if not faces or last is None:
        return faces[0] if faces else None
    return min(faces, key=lambda points: float(np.linalg.norm(points.mean(axis=0) - last.mean(axis=0))))


def _shift(anchor: Anchor, similarity: Transform) -> npt.NDArray[np.float32]:
    """How far a face has gone from where it was in the anchor, frame px, (2,)."""
    middle = np.append(anchor.shape.centre * (SIZE / NOMINAL_PX), 1.0)
    there = compose(invert(anchor.transform), similarity) @ middle
    here = invert(anchor.transform) @ middle
    return np.asarray(there - here, np.float32)


def _moved(points: Landmarks | None, last: Landmarks | None) -> float:
    """How far a face is from where one was, in widths of that one."""
    if points is None or last is None:
        return 0.0
    return float(np.linalg.norm(points.mean(axis=0) - last.mean(axis=0)) / np.ptp(last[:, 0]))


def _away(anchor: Anchor) -> float:
    """How far a face is turned away from the camera, degrees."""
    return float(np.degrees(np.arccos(np.clip(anchor.shape.rotation[2, 2], -1, 1))))


def _outside(points: Landmarks, grey: Image) -> float:
    """Share of the outline of a face that lies outside a frame."""
    outline = points[list(FACE_OVAL)]
    return float(np.mean(((outline < 0) | (outline > np.array(grey.shape[::-1]))).any(axis=1)))


def _why(error: ClipError) -> Use:
    return Use.TOO_SMALL if error.code == FailureCode.IMAGE_TOO_SMALL else Use.NO_FACE
