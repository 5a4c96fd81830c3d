"""Where the face is in the frames of a clip, by each method of the settings: found by MediaPipe, given in a file, or not needed."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from flowkit.config import AlignConfig
from flowkit.errors import ClipError, FailureCode
from flowkit.face.head_shape import STEADY
from flowkit.face.landmarks import CANONICAL, POINTS, FaceLandmarker, Landmarks, check_landmarker
from flowkit.face.landmarks_file import read_landmarks_file
from flowkit.face.registration import Image
from flowkit.inputs.clip import Clip

_SMALL = 0.15
"""Width of a face, relative to the picture's, below which MediaPipe may miss it in the whole picture."""
_AROUND = 1.5
"""Half the sides of a small face's surroundings, relative to its own."""


def check_finder(config: AlignConfig) -> None:
    """Check that a `FaceFinder` could start here, at little cost.

    Raises
    ------
    EnvironmentMissing, ManifestError
        As `FaceFinder`.
    """
    if config.method == "mediapipe":
        check_landmarker(config.face_model)
    elif config.method == "landmarks":
        read_landmarks_file(config.landmarks)


class FaceFinder:
    """Finder of faces by the method of the settings; holds the landmark model, so close it.

    Parameters
    ----------
    config : AlignConfig

    Raises
    ------
    EnvironmentMissing
        Method "mediapipe": its model, its package or a system library is missing.
    ManifestError
        Method "landmarks": the file cannot be used.
    """

    def __init__(self, config: AlignConfig) -> None:
        self._config = config
        self._landmarker = FaceLandmarker(config.face_model) if config.method == "mediapipe" else None
        self._given = read_landmarks_file(config.landmarks) if config.method == "landmarks" else {}

    @property
    def detects(self) -> bool:
        """Whether faces are found in pictures."""
        return self._landmarker is not None

    def close(self) -> None:
        """Release the landmark model."""
        if self._landmarker is not None:
            self._landmarker.close()

    def faces(
        self, rgb: npt.NDArray[np.uint8], *, thorough: bool = True, near: Landmarks | None = None
    ) -> list[Landmarks]:
        """Return the points of every face in a picture, the largest first; none where the method finds none in pictures.

        Parameters
        ----------
        rgb : (H, W, 3) uint8
        thorough : bool
            Whether small faces are looked for, too, where there is no other: see `FaceLandmarker.search`.
        near : (478, 2) float32, optional
            A face that was there a moment ago: a small one is looked for in its surroundings first.
        """
        if self._landmarker is None:
            return []
        if near is not None and float(np.ptp(near[:, 0])) < _SMALL * rgb.shape[1]:
            left, top = np.maximum(near.mean(axis=0) - _AROUND * np.ptp(near, axis=0), 0).astype(int)
            right, bottom = (near.mean(axis=0) + _AROUND * np.ptp(near, axis=0)).astype(int)
            if left < rgb.shape[1] and top < rgb.shape[0] and right > left and bottom > top:
                found = self._landmarker.detect(rgb[top:bottom, left:right])
                if found:
                    return [points + np.array([left, top], np.float32) for points in found]
        return self._landmarker.search(rgb) if thorough else self._landmarker.detect(rgb)

    def locate(self, clip: Clip, onset_rgb: npt.NDArray[np.uint8]) -> tuple[Landmarks, int]:
        """Return the points of the onset, and how many faces were found; 0 if none was looked for.

        Raises
        ------
        ClipError
            FACE_NOT_FOUND or LANDMARKS_MISSING.
        """
        if self._landmarker is not None:
            faces = self._landmarker.search(onset_rgb)
            if not faces:
                height, width = onset_rgb.shape[:2]
                raise ClipError(
                    FailureCode.FACE_NOT_FOUND,
                    f"{clip.where}: onset frame must show a face; got none in {width} x {height} pixels. Check the onset number, "
                    "or set align.method to none or landmarks.",
                    clip.path,
                )
            return faces[0], len(faces)
        if self._config.method == "landmarks":
            return self._look_up(clip), 0
        return np.full((POINTS, 2), np.nan, np.float32), 0

    def _look_up(self, clip: Clip) -> Landmarks:
        points = self._given.get(clip.clip_id)
        missing = list(CANONICAL) if points is None else [i for i in CANONICAL if np.isnan(points[i]).any()]
        if points is None or missing:
            raise ClipError(
                FailureCode.LANDMARKS_MISSING,
                f"{clip.where}: {self._config.landmarks} must give the points {', '.join(map(str, CANONICAL))}; got none for "
                f"{', '.join(map(str, missing))}. Add them.",
                clip.path,
            )
        return points

    def nearest(self, grey: Image, landmarks: Landmarks) -> list[Landmarks]:
        """Return the points of the face in another frame that is nearest to where one was, if there is any."""
        if self._landmarker is None:
            return []
        levels = np.asarray(np.rint(np.clip(grey, 0, 1) * 255), np.uint8)
        faces = self._landmarker.detect(np.asarray(cv2.cvtColor(levels, cv2.COLOR_GRAY2RGB)))
        apart = [float(np.linalg.norm((points - landmarks)[list(STEADY)].mean(axis=0))) for points in faces]
        return [faces[int(np.argmin(apart))]] if faces else []


def no_face(where: str, quality: float) -> ClipError:
    """Return the failure of a frame without a face that matches the onset no better than this."""
    found = "it is blank" if np.isnan(quality) else f"the correlation of their grey values is {quality:.2f}"
    return ClipError(
        FailureCode.FACE_LOST,
        f"{where}: no face was found in this frame, and it does not match the onset: {found}. Something hides the face, or the "
        "frame shows another scene. Check the frame numbers and the picture.",
    )
