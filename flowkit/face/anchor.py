"""The picture that all other frames of a clip, or of a stretch of a recording, are carried onto."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt

from flowkit.face.crops import canonical_crop, check_regions, face_crop, shown, whole_frame
from flowkit.face.head_shape import HeadShape
from flowkit.face.landmarks import Landmarks
from flowkit.face.regions import fit_samples, regions
from flowkit.face.registration import Image, RegistrationTarget
from flowkit.inputs.clip import Clip
from flowkit.storage.schema import RIGID


@dataclass(frozen=True)
class Anchor:
    """One frame, usually the onset, on the canonical grid.

    Attributes
    ----------
    frame : (H, W) float32
    onset : (N, N) float32
        Its crop.
    regions : (N, N) uint8
        Bits FACE and RIGID; 0 beyond the edge of the frame.
    transform : (2, 3) float64
        Frame px -> crop px.
    landmarks : (478, 2) float32
        Frame px; NaN where there are none.
    n_faces : int
        Faces found in the frame; 0 if none was looked for.
    """

    frame: Image
    onset: npt.NDArray[np.float32]
    regions: npt.NDArray[np.uint8]
    transform: npt.NDArray[np.float64]
    landmarks: npt.NDArray[np.float32]
    n_faces: int

    @classmethod
    def at(
        cls, clip: Clip, frame: Image, landmarks: Landmarks, n_faces: int, size: int, *, cropped: bool = False
    ) -> Self:
        """Put a frame on the canonical grid.

        Parameters
        ----------
        clip : Clip
            What messages name.
        frame : (H, W) float32 in [0, 1]
        landmarks : (478, 2) float32
            Of the face in it, frame px.
        n_faces : int
            How many faces were found; 0 if none was looked for.
        size : int
            Side of the crop, px.
        cropped : bool
            Whether the frame, a square, is the crop already.

        Raises
        ------
        ClipError
            SIZE_MISMATCH, LANDMARKS_MISSING or IMAGE_TOO_SMALL.
        """
        transform = whole_frame(clip, frame, size) if cropped else canonical_crop(clip, frame, landmarks, size)
        areas = regions(landmarks, transform, size) * shown(frame, transform, size)
        check_regions(clip, areas)
        return cls(frame, face_crop(frame, transform, size), areas, transform, landmarks, n_faces)

    @cached_property
    def target(self) -> RegistrationTarget:
        """The onset's rigid part, for other frames to be registered on."""
        return RegistrationTarget.of(self.onset, (self.regions & RIGID) > 0)

    @cached_property
    def shape(self) -> HeadShape:
        """The face as a surface over the crop."""
        return HeadShape.of(self.landmarks, self.transform, len(self.onset))

    @cached_property
    def samples(self) -> npt.NDArray[np.bool_]:
        """Where head motion and expression are fitted: see `head_motion.sampled`."""
        return fit_samples(self.regions, self.landmarks, self.transform)

    def seen_as(self, frame: Image) -> Anchor:
        """Return the same with another picture of the onset."""
        if frame is self.frame:
            return self
        return replace(self, frame=frame, onset=face_crop(frame, self.transform, len(self.onset)))
