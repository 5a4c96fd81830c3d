"""One aligned face a clip: canonical crop, head motion taken out, light matched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import TracebackType
from typing import NamedTuple, Self

import cv2
import numpy as np
import numpy.typing as npt

from flowkit.config import AlignConfig
from flowkit.errors import ClipError, FailureCode
from flowkit.face.anchor import Anchor
from flowkit.face.contrast import Signal
from flowkit.face.crops import crop_scale, face_crop
from flowkit.face.face_finder import FaceFinder, check_finder, no_face
from flowkit.face.head_shape import HeadShape
from flowkit.face.head_tracking import COARSE, MARGIN, HeadTrack, follow, pose_between, rescaled, scaling, turned
from flowkit.face.landmarks import Landmarks
from flowkit.face.neighbours import NOTHING_BESIDE, Beside, average_each
from flowkit.face.picture_steps import Record, View, applied, at_rest, steps_of
from flowkit.face.registration import LOST_BELOW, Image, is_blank, lost
from flowkit.face.transforms import Transform, compose, invert, mapped
from flowkit.inputs.clip import Clip
from flowkit.inputs.frames import Frames
from flowkit.storage.schema import DEPTH_MODES, FACE

LANDMARKS_BELOW = 0.95
"""Quality of a registration below which the frame's own landmarks are looked for: a detection costs as much as all the rest."""


@dataclass(frozen=True)
class Face:
    """Onset, apex and offset on one grid of N x N pixels, and how they got there.

    Attributes
    ----------
    pixels : (3, N, N) float32 in [0, 1]
        Grey onset, apex, offset.
    regions : (N, N) uint8
        Bits FACE and RIGID; 0 beyond the edge of the frame, where there is nothing to see.
    transform : (2, 3) float64
        T0: onset image pixels -> crop pixels.
    registration : (2, 2, 3) float64
        S of apex and offset: onset crop pixels -> crop pixels of that frame under T0, after the turn. Identity without
        stabilisation.
    turn : (2, 2) float64
        Yaw and pitch of the head at apex and offset relative to the onset that were undone in `pixels`, degrees; 0 but with "head".
    landmark_start : bool
        Whether registration of apex or offset began from that frame's own landmarks.
    depth_cm : (DEPTH_MODES,) float64
        Correction of the depth of the face: see `head_shape`.
    records : mapping of str to (2, n) float64
        What the steps recorded of apex and offset: see `picture_steps`. "light" is the gain and the offset (grey in [0, 1]) that
        were applied; (1, 0) without matching.
    landmarks : (478, 2) float32
        Of the onset, in onset image pixels (x, y); NaN where there are none.
    n_faces : int
        Faces found in the onset image; 0 if none was looked for.
    signal : Signal
        Noise and contrast of the crops, and how the solver sees them.
    shape : HeadShape
        The face as a surface over the crop, its depth corrected.
    averaged : three int
        How many frames each picture is the mean of.
    neighbour_refused : bool
        Whether a frame beside a key frame was not averaged with it: see `neighbours.averaged`.
    """

    pixels: npt.NDArray[np.float32]
    regions: npt.NDArray[np.uint8]
    transform: npt.NDArray[np.float64]
    registration: npt.NDArray[np.float64]
    records: Mapping[str, npt.NDArray[np.float64]]
    landmarks: npt.NDArray[np.float32]
    n_faces: int
    signal: Signal
    shape: HeadShape
    turn: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros((2, 2)))
    depth_cm: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(DEPTH_MODES))
    landmark_start: bool = False
    averaged: tuple[int, ...] = (1, 1, 1)
    neighbour_refused: bool = False

    @cached_property
    def is_blank(self) -> npt.NDArray[np.bool_]:
        """Whether onset, apex and offset show no texture inside the face, (3,)."""
        inside = (self.regions & FACE) > 0
        return np.array([is_blank(picture, inside) for picture in self.pixels])

    def comparable(self, valid: tuple[bool, bool]) -> tuple[bool, bool]:
        """Return which of the valid phases show something at both ends: between the others there is no motion to be found."""
        onset, apex, offset = ~self.is_blank
        return bool(valid[0] and onset and apex), bool(valid[1] and apex and offset)


class _Start(NamedTuple):
    """Where a frame lies, found from its grey values and, if need be, its landmarks.

    Attributes
    ----------
    similarity : (2, 3) float64
        As a row of `Face.registration`.
    turn : (2,) float64
        As a row of `Face.turn`.
    from_landmarks : bool
    is_blank : bool
        Whether that frame, or the onset, shows nothing that could be registered.
    """

    similarity: Transform
    turn: npt.NDArray[np.float64]
    from_landmarks: bool = False
    is_blank: bool = False


def check_needs(config: AlignConfig, clips: Sequence[Clip] = ()) -> None:
    """Whether an `Aligner` could start here, at little cost: what must hold before a run touches its folder.

    Parameters
    ----------
    config : AlignConfig
    clips : sequence of Clip
        No step may record what the manifest has a column for.

    Raises
    ------
    EnvironmentMissing, ManifestError, ConfigError
        As `Aligner`.
    """
    steps_of(config, {name for clip in clips for name, _ in clip.extra} if config.steps else ())
    check_finder(config)


class Aligner:
    """Maker of aligned faces; holds the landmark model, so one a process. Close it, or use it in a `with` block.

    Parameters
    ----------
    config : AlignConfig

    Attributes
    ----------
    config : AlignConfig
    finder : FaceFinder

    Raises
    ------
    EnvironmentMissing
        Method "mediapipe": its model, its package or a system library is missing.
    ManifestError
        Method "landmarks": the file cannot be used.
    ConfigError
        A step that `align.steps` names cannot be used.
    """

    def __init__(self, config: AlignConfig) -> None:
        self.config = config
        steps = steps_of(config)
        self._steps, self._at_rest = [step for step in steps if step.is_on(config)], at_rest(steps)
        self.finder = FaceFinder(config)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the landmark model."""
        self.finder.close()

    def align(self, frames: Frames) -> Face:
        """The three frames on one canonical grid, with the head's motion and the change of light taken out.

        Parameters
        ----------
        frames : Frames
            Of one size.

        Returns
        -------
        Face
            A phase that is not valid has the same picture at both ends. Each picture was resampled once, or not at all where
            frames are cropped already and nothing moves.

        Raises
        ------
        ClipError
            SIZE_MISMATCH, FACE_NOT_FOUND, LANDMARKS_MISSING, IMAGE_TOO_SMALL, FACE_LOST or REGISTRATION_FAILED.
        """
        source = frames.source
        _check_sizes(frames)
        anchor = self.anchor(source.clip, frames.grey[0], frames.onset_rgb)
        return self.carry(anchor, frames.grey[1:], source.key.phase_valid, source.clip.where, frames.beside)

    def anchor(self, clip: Clip, onset: Image, onset_rgb: npt.NDArray[np.uint8], size: int = 0) -> Anchor:
        """The onset of a clip on the canonical grid.

        Parameters
        ----------
        clip : Clip
        onset : (H, W) float32 in [0, 1]
        onset_rgb : (H, W, 3) uint8
            What a face detector looks at.
        size : int
            Side of the crop, px; 0 for that of the settings.

        Raises
        ------
        ClipError
            SIZE_MISMATCH, FACE_NOT_FOUND, LANDMARKS_MISSING or IMAGE_TOO_SMALL.
        """
        landmarks, n_faces = self.finder.locate(clip, onset_rgb)
        cropped = self.config.method == "none"
        return Anchor.at(clip, onset, landmarks, n_faces, size or self.config.size, cropped=cropped)

    def carry(
        self,
        anchor: Anchor,
        frames: tuple[Image, Image],
        valid: tuple[bool, bool],
        where: str,
        beside: tuple[Beside, Beside, Beside] = NOTHING_BESIDE,
    ) -> Face:
        """Apex and offset on the grid of their onset.

        Parameters
        ----------
        anchor : Anchor
        frames : two (H, W) float32
            Apex and offset, of the onset's size.
        valid : (bool, bool)
            Rise, fall; the frame that ends a phase which is not valid is replaced by the one before it.
        where : str
            What messages call the clip.
        beside : three mappings of int to (H, W) float32
            Frames beside onset, apex and offset, by their distance: see `neighbours.averaged`.

        Returns
        -------
        Face

        Raises
        ------
        ClipError
            FACE_LOST or REGISTRATION_FAILED.
        """
        starts: list[_Start] = []
        for name, grey, is_valid in zip(("apex", "offset"), frames, valid, strict=True):
            before = starts[-1] if starts else _Start(np.eye(2, 3), np.zeros(2))
            starts.append(self._start(anchor, grey, f"{where}: {name}") if is_valid else before)
        lies = [anchor.transform, *(compose(invert(start.similarity), anchor.transform) for start in starts)]
        means = average_each((anchor.frame, *frames), beside, lies, (anchor.regions & FACE) > 0, valid)
        anchor, frames = anchor.seen_as(means[0].picture), (means[1].picture, means[2].picture)
        track = self._track(anchor, frames, valid, starts)
        shape = anchor.shape.corrected(track.depth_cm)
        pixels, records = [anchor.onset], [self._at_rest]
        for k, name in enumerate(("apex", "offset")):
            picture, record = pixels[-1], records[-1]
            if valid[k]:
                pose = track.similarity[k], track.turn[k]
                picture, record = self.place(anchor, shape, frames[k], pose, f"{where}: {name}")
            pixels.append(picture)
            records.append(record)
        # Cubic resampling and a gain can leave [0, 1] by a little.
        clipped = np.clip(np.stack(pixels), 0, 1)
        face = (anchor.regions & FACE) > 0
        return Face(
            pixels=clipped,
            regions=anchor.regions,
            transform=anchor.transform,
            registration=track.similarity,
            records={name: np.array([record[name] for record in records[1:]], np.float64) for name in self._at_rest},
            landmarks=anchor.landmarks,
            n_faces=anchor.n_faces,
            signal=Signal.of(clipped, face, valid, crop_scale(anchor.transform), self.config.match_contrast),
            shape=shape,
            turn=np.degrees(track.turn),
            depth_cm=track.depth_cm,
            landmark_start=any(start.from_landmarks for start in starts),
            averaged=tuple(mean.frames for mean in means),
            neighbour_refused=any(mean.refused for mean in means),
        )

    def _start(self, anchor: Anchor, grey: Image, where: str) -> _Start:
        """Find the face in a frame: by registration, and by the frame's own landmarks where that does not suffice."""
        crop = face_crop(grey, anchor.transform, len(anchor.onset))
        finest = 1 if self.config.stabilise in ("register", "similarity", "affine") else 4
        transform, quality = anchor.target.register(crop, where, finest=finest)
        start = _Start(transform, np.zeros(2), is_blank=bool(np.isnan(quality)))
        if self.finder.detects and not quality >= LANDMARKS_BELOW:
            faces = self.finder.nearest(grey, anchor.landmarks)
            if not faces and not quality >= LOST_BELOW:
                raise no_face(where, quality)
            for points in faces:
                other, other_quality = self._start_from(anchor, points, grey, where, finest)
                if other_quality > quality:
                    start, quality = other, other_quality
        if quality < LOST_BELOW:
            raise lost(where, quality)
        return start

    def _start_from(
        self, anchor: Anchor, points: Landmarks, grey: Image, where: str, finest: int
    ) -> tuple[_Start, float]:
        """Registration that begins where the landmarks of a frame lie."""
        size = len(anchor.onset)
        turns = self.config.stabilise == "head"
        similarity, turn = pose_between(anchor.shape, HeadShape.of(points, anchor.transform, size), size, turns)
        places = mapped(similarity, turned(anchor.shape, turn, size))
        motion, quality = anchor.target.register(face_crop(grey, anchor.transform, size, places), where, finest=finest)
        return _Start(compose(similarity, motion), turn, True), quality

    def _track(
        self, anchor: Anchor, frames: tuple[Image, Image], valid: tuple[bool, bool], starts: list[_Start]
    ) -> HeadTrack:
        """The motion of the head that is undone in the pictures."""
        similarity, turn = (np.stack([start[i] for start in starts]) for i in (0, 1))
        if self.config.stabilise == "none":
            similarity = np.stack([np.eye(2, 3)] * 2)
        if self.config.stabilise != "head":
            return HeadTrack(similarity, turn, np.zeros(DEPTH_MODES))
        size = len(anchor.onset)
        factor, side = COARSE / size, COARSE + 2 * MARGIN
        smaller = scaling(factor)
        smaller[:, 2] += MARGIN
        # The onset takes the same way as the other frames: what is the same stays the same to the last bit.
        onset, apex, offset = (
            face_crop(grey, compose(smaller, compose(invert(moved), anchor.transform)), side)
            for grey, moved in zip((anchor.frame, *frames), (np.eye(2, 3), *similarity), strict=True)
        )
        onset = onset[MARGIN:-MARGIN, MARGIN:-MARGIN]
        face = cv2.resize(anchor.regions & FACE, (COARSE, COARSE), interpolation=cv2.INTER_NEAREST) > 0
        apex_seen, offset_seen = (not start.is_blank for start in starts)
        comparable = valid[0] and apex_seen, valid[1] and apex_seen and offset_seen
        track = follow(onset, (apex, offset), anchor.shape, anchor.samples, face, comparable, turn)
        small = [rescaled(moved, 1 / factor) for moved in track.similarity]
        moved = [compose(*pair) for pair in zip(similarity, small, strict=True)]
        return HeadTrack(np.stack(moved), track.turn, track.depth_cm)

    def place(
        self, anchor: Anchor, shape: HeadShape, grey: Image, pose: tuple[Transform, npt.NDArray[np.float64]], where: str
    ) -> tuple[Image, Record]:
        """Put one frame, in which the pose of the head is known, on the grid of the onset and apply all steps to it.

        Parameters
        ----------
        anchor, grey, where
            As of `carry`.
        shape : HeadShape
            That of the anchor, or the same with its depth corrected.
        pose : (2, 3) and (2,) float64
            As rows of `Face.registration` and `Face.turn`, the latter in radians.

        Returns
        -------
        (N, N) float32, not clipped, and what the steps recorded
        """
        similarity, turn = pose
        picture = _undone(anchor, shape, grey, similarity, turn)
        if not self._steps:
            return picture, self._at_rest
        face = (anchor.regions & FACE) > 0
        view = View(anchor.onset, picture, face, anchor.shape, anchor.samples, turn)
        picture, record = applied(self._steps, view, where)
        return picture, {**self._at_rest, **record}


def _undone(
    anchor: Anchor, shape: HeadShape, grey: Image, similarity: Transform, turn: npt.NDArray[np.float64]
) -> Image:
    """One frame on the grid of the onset, with the head's motion undone."""
    size = len(anchor.onset)
    if turn.any():
        return face_crop(grey, anchor.transform, size, mapped(similarity, turned(shape, turn, size)))
    return face_crop(grey, compose(invert(similarity), anchor.transform), size)


def _check_sizes(frames: Frames) -> None:
    sizes = [f"{grey.shape[1]} x {grey.shape[0]}" for grey in frames.grey]
    if len(set(sizes)) > 1:
        clip = frames.source.clip
        raise ClipError(
            FailureCode.SIZE_MISMATCH,
            f"{clip.where}: the three frames must have one size; got {', '.join(sizes)}. Use frames of one recording.",
            clip.path,
        )
