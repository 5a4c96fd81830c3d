"""The apex of a clip that has none, which begins and ends with its expression; `spotting/` searches longer recordings.

All frames are aligned as extraction does: one crop by the onset's landmarks, the head's motion undone, light matched. The head is
looked for in a frame every `KEY_S`; in the frames between, a few Gauss-Newton steps find its pose from those next to them. Then
`expression_course.py` says how strongly each frame shows each action unit, and `peak_search.py` at which frame the rise ends and
the fall begins. No flow is computed.

The confidence is the product of two numbers between 0 and 1: how much of the course of the action units is one rise and one fall,
less what noise would give (adjusted R^2), and m^2 / (m^2 + STILL_PX^2), where m is the motion of the rise. The first is low where
there is noise and no movement, the second where an error of the alignment rises and falls. Both are high where a face moves. The
closing of the eyes counts as no movement.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from flowkit.config import AlignConfig, FrameConfig
from flowkit.errors import ClipError, FailureCode
from flowkit.face.align import Aligner, Face
from flowkit.face.anchor import Anchor
from flowkit.face.crops import face_crop
from flowkit.face.head_motion import similarity_of
from flowkit.face.head_shape import HeadShape
from flowkit.face.registration import Image
from flowkit.face.transforms import Transform, compose, invert, mapped
from flowkit.inputs.clip import Clip
from flowkit.inputs.frames import Sequence, nothing_to_search, open_sequence
from flowkit.inputs.videos import Recordings
from flowkit.motion.expression_course import ExpressionCourse, ExpressionFit
from flowkit.motion.peak_search import changes, find_peak

SIZE = 128
"""Side of the crop, px."""
MARGIN = SIZE // 4
"""What is kept about the crop of each frame, px: registration seldom finds a head that moved further."""
FINER = 1.5
"""What is kept has so many px to one of the crop. At 1, resampling it once more blurs each frame by as much as its shift asks for,
and that looks like motion: the error of the apex doubles."""
_WIDE = np.array([[FINER, 0.0, FINER * (MARGIN + 0.5) - 0.5], [0.0, FINER, FINER * (MARGIN + 0.5) - 0.5]])
KEY_S = 0.05
"""Time between the frames in which the head is looked for."""
USUAL_FPS = 30.0
"""Assumed where the frame rate is unknown: a low one costs time and misses nothing."""
STILL_PX = 0.04
"""Motion that alignment leaves where a head drifts and nothing else moves, root mean square over the skin, px of the crop."""
MOST_STEPS, NEAR_PX = 3, 0.1
"""Gauss-Newton steps of the pose of the head in each frame, and what one must move it by for another: less is left to the fit,
which is linear."""
FACE_PX = 50.0
"""Radius of a face, px of the crop."""
MOST_FRAMES = 2000
"""Of a clip: those of a video are kept in memory, 166 kB each."""
MOST_VALUES = 100
"""Of the curve that is kept."""

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Spotted:
    """What was found in a clip.

    Attributes
    ----------
    onset, apex, offset : int
        Frame numbers: onset and offset are the clip's.
    confidence : float
        0 to 1: low where nothing moved, high where the face moved and the apex is well seen; see the module.
    frames : tuple of int
        Some frames, in order: all of a short clip, at most about `MOST_VALUES` of a long one.
    curve : tuple of float
        Motion there against the onset: root mean square over the skin of the face, px of a crop of `SIZE`.
    """

    onset: int
    apex: int
    offset: int | None
    confidence: float
    frames: tuple[int, ...]
    curve: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return dataclasses.asdict(self)


def spot(
    clip: Clip,
    root: Path,
    frames: FrameConfig,
    aligner: Aligner,
    *,
    recordings: Recordings | None = None,
) -> Spotted:
    """Find the frame of a clip in which the face has moved most: where its rise ends.

    Parameters
    ----------
    clip : Clip
        Its apex is not looked at. Without an offset the search goes on to the last frame.
    root : Path
        The folder that the clip's path starts from.
    frames : FrameConfig
    aligner : Aligner
        Its method, light and steps are those used; its size is not. Whatever its stabilisation is, the head's motion counts for
        none of the face's.
    recordings : Recordings, optional
        Keeps a video open between clips.

    Returns
    -------
    Spotted
        The apex lies behind the onset, and before the last frame unless there is no other. Where nothing moves it lies anywhere,
        and the confidence is low.

    Raises
    ------
    ClipError
        What `open_sequence` and `Aligner.align` raise, or APEX_MISSING: no frame lies behind the onset. A frame that cannot be used
        fails the clip: remove it, and its neighbours are enough.

    Examples
    --------
    >>> with Aligner(AlignConfig()) as aligner:  # doctest: +SKIP
    ...     found = spot(clip, root, FrameConfig(), aligner)
    >>> found.apex, found.confidence  # doctest: +SKIP
    (59, 0.71)
    """
    with open_sequence(clip, root, frames, recordings) as sequence:
        return spot_sequence(clip, sequence, aligner)


def spot_sequence(clip: Clip, sequence: Sequence, aligner: Aligner) -> Spotted:
    """As `spot`, of frames that are open already."""
    frames = _Frames(aligner, clip, sequence)
    if len(frames.numbers) < 2:
        raise nothing_to_search(clip)
    fps = USUAL_FPS if math.isnan(sequence.fps) else sequence.fps
    course = frames.course(max(1, round(KEY_S * fps)))
    peak = find_peak(course.weighted, course.numbers)
    rise_px = float(course.motion_px(changes(course.strength_cm, course.numbers, peak)[0]))
    last = len(course.numbers) - 1
    shown = sorted({*range(0, last + 1, math.ceil((last + 1) / MOST_VALUES)), peak.place, last})
    return Spotted(
        onset=clip.onset,
        apex=course.numbers[peak.place],
        offset=clip.offset,
        confidence=round(peak.explained * rise_px**2 / (rise_px**2 + STILL_PX**2), 4),
        frames=tuple(course.numbers[place] for place in shown),
        curve=tuple(np.round(course.motion_px(course.strength_cm[shown]), 4).tolist()),
    )


@contextmanager
def spotter(root: Path, frames: FrameConfig, align: AlignConfig) -> Iterator[Callable[[Clip], Spotted]]:
    """Set a worker process up and give the function that spots one clip; arguments as of `spot`.

    Raises
    ------
    EnvironmentMissing, ManifestError
        As `Aligner`.
    """
    cv2.setNumThreads(1)  # parallel over clips, not inside one
    with Aligner(align) as aligner, closing(Recordings()) as recordings:
        yield lambda clip: spot(clip, root, frames, aligner, recordings=recordings)


class _Frames:
    """The frames of a sequence that is open, each on the grid of the onset when it is asked for.

    Of each only the crop with its surroundings is kept, in the onset's place: 166 kB, however large the frames are.
    """

    def __init__(self, aligner: Aligner, clip: Clip, sequence: Sequence) -> None:
        anchor = aligner.anchor(clip, sequence.onset_grey, sequence.onset_rgb, SIZE)
        wide = compose(_WIDE, anchor.transform)
        self._aligner = aligner
        self._where = clip.where

        count = 0

        def kept(grey: Image) -> npt.NDArray[np.float16]:
            """In 16 bits: a frame of 8 bits is kept to an eighth of a grey level."""
            nonlocal count
            count += 1
            if count > MOST_FRAMES:
                raise _no_clip(clip)
            return face_crop(grey, wide, round(FINER * (SIZE + 2 * MARGIN))).astype(np.float16)

        # The onset takes the same way as the other frames: what is the same stays the same.
        frame = kept(sequence.onset_grey).astype(np.float32)
        self._anchor: Anchor = dataclasses.replace(
            anchor,
            frame=frame,
            onset=face_crop(frame, invert(_WIDE), SIZE),
            transform=invert(_WIDE),
            landmarks=mapped(wide, anchor.landmarks.T).T,
        )
        self._crops: Mapping[int, Any] = sequence.later(kept)
        self.numbers = [sequence.onset, *self._crops]

    def course(self, step: int) -> ExpressionCourse:
        """Strengths of the action units in all frames; the pose of the head is looked for in every `step`-th and in the last."""
        places = [*range(step, len(self.numbers) - 1, step), len(self.numbers) - 1]
        keys = [self.numbers[place] for place in places]
        faces = [self._carried(number) for number in keys]
        poses = np.array([np.zeros(8), *(_pose(face) for face in faces)])
        poses[0, :6] = np.eye(2, 3).ravel()
        depth_cm = np.mean([face.depth_cm for face in faces], axis=0)
        shape = self._anchor.shape.corrected(depth_cm)
        mean = np.stack([self._anchor.onset, *(face.pixels[1] for face in faces)]).mean(axis=0, dtype=np.float32)
        fit = ExpressionFit.of(self._anchor, mean, float(np.median([face.signal.noise for face in faces])))
        readings = {self.numbers[0]: fit.reading(self._anchor.onset)}
        for number in self.numbers[1:]:
            pose = np.array([np.interp(number, [self.numbers[0], *keys], values) for values in poses.T])
            readings[number] = self._reading(number, fit, shape, pose[:6].reshape(2, 3), pose[6:])
        return fit.course(readings)

    def _reading(
        self, number: int, fit: ExpressionFit, shape: HeadShape, similarity: Transform, turn: Numbers
    ) -> Numbers:
        """What the fit needs of a frame, the head's motion undone: from a pose near the true one, by Gauss-Newton steps."""
        for _ in range(MOST_STEPS):
            picture, _ = self._aligner.place(
                self._anchor, shape, self._grey(number), (similarity, turn), self._named(number)
            )
            reading = fit.reading(picture)
            motion = fit.head(reading)
            if np.abs(motion[:2]).max() + FACE_PX * np.abs(motion[2:]).max() < NEAR_PX:
                break
            similarity = compose(similarity, np.eye(2, 3) + similarity_of(motion, shape, SIZE))
            turn = turn + motion[4:]
        return reading

    def _carried(self, number: int) -> Face:
        """Onset and another frame, aligned as extraction does."""
        grey = self._grey(number)
        return self._aligner.carry(self._anchor, (grey, grey), (True, False), self._named(number))

    def _grey(self, number: int) -> Image:
        return np.asarray(self._crops[number].astype(np.float32))

    def _named(self, number: int) -> str:
        return f"{self._where}, frame {number}"


def _no_clip(clip: Clip) -> ClipError:
    return ClipError(
        FailureCode.ANNOTATION_RANGE,
        f"{clip.where}: clip must have at most {MOST_FRAMES} frames for an apex to be found; got more. Search a recording with "
        "flowkit spot-intervals, or correct onset and offset.",
        clip.path,
    )


def _pose(face: Face) -> Numbers:
    """Similarity and turn (radians) of the first of two frames, (8,)."""
    return np.concatenate([face.registration[0].ravel(), np.radians(face.turn[0])])
