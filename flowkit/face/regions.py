"""The parts of a crop: the face, the part of it that expressions move least, the skin without the eyes.

Outlines come from landmarks; where there are none, an ellipse stands for the face.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from flowkit.face.head_motion import sampled
from flowkit.face.landmarks import BROWS, EYES, FACE_OVAL, LIPS, Landmarks
from flowkit.face.transforms import Transform
from flowkit.storage.schema import FACE, RIGID

Regions = npt.NDArray[np.uint8]
_ELLIPSE = (0.50, 0.47), (0.30, 0.40)
"""Centre and half axes, in crops, of the face where no landmarks are known."""
_FACE_MARGIN, _EYE_MARGIN, _LIP_MARGIN = 0.03, 0.045, 0.07
"""How far, in crops, the rigid part stays off the face's outline, off eyes and brows, and off the lips."""
_SKIN_MARGIN, _LID_MARGIN = 0.045, 0.02
"""How far, in crops, the skin stays off the face's outline and off the openings of the eyes."""


def regions(landmarks: Landmarks, transform: Transform, size: int) -> Regions:
    """Which pixels of a crop belong to the face, and to the part of it that expressions move least.

    Parameters
    ----------
    landmarks : (478, 2) float32
        In frame px. Unless all outlines are given, a fixed ellipse stands for both regions.
    transform : (2, 3) float64
        Frame px -> crop px.
    size : int

    Returns
    -------
    (size, size) uint8
        Bits FACE (hull of the face's oval) and RIGID (the same without its rim, eyes, brows and lips).
    """
    outlines = _outlines(landmarks, transform)
    if not outlines:
        return _ellipse(size) * np.uint8(FACE | RIGID)
    face = _filled(outlines[:1], size, hull=True)
    rim = round(_FACE_MARGIN * size)
    inner = cv2.erode(face, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * rim + 1, 2 * rim + 1)))
    areas: Regions = face * np.uint8(FACE) | (inner & ~_mobile(outlines, size) & 1) * np.uint8(RIGID)
    return areas


def fit_samples(areas: Regions, landmarks: Landmarks, transform: Transform) -> npt.NDArray[np.bool_]:
    """Where head motion and expression are fitted: inside the face and not in the openings of the eyes, (GRID, GRID)."""
    outlines = _outlines(landmarks, transform)
    openings = _filled(outlines[2:4], len(areas))
    return sampled((areas & FACE) > 0, openings > 0)


def skin_region(areas: Regions, points: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Which pixels of a crop show the skin of the face, away from its outline, and not the eyes, which blinks hide.

    At the outline a head that turns shows and hides what lies behind it, and no fit of motion holds.

    Parameters
    ----------
    areas : (size, size) uint8
        As of `regions`.
    points : (468 or more, 2) float64
        Where the landmarks lie, px of the crop; those of a usual face where none are known.

    Returns
    -------
    (size, size) bool
    """
    size = len(areas)
    oval, _, *eyes_and_brows = _outlines(points, np.eye(2, 3))
    inside = ((areas & FACE) > 0) & (_filled([oval], size, hull=True) > 0)
    outside = _grown((~inside).astype(np.uint8), _SKIN_MARGIN * size)
    eyes = _grown(_filled(eyes_and_brows[:2], size), _LID_MARGIN * size)
    return np.asarray((outside | eyes) == 0)


def _outlines(landmarks: npt.NDArray[np.floating], transform: Transform) -> list[npt.NDArray[np.float64]]:
    """Oval, lips, eyes and brows in crop px, or nothing where some point of them is not given."""
    points = landmarks.astype(np.float64) @ transform[:, :2].T + transform[:, 2]
    outlines = [points[list(outline)] for outline in (FACE_OVAL, LIPS, *EYES, *BROWS)]
    return outlines if all(np.isfinite(outline).all() for outline in outlines) else []


def _mobile(outlines: list[npt.NDArray[np.float64]], size: int) -> Regions:
    _, lips, *eyes_and_brows = outlines
    mobile = _grown(_filled(eyes_and_brows, size), _EYE_MARGIN * size)
    return mobile | _grown(_filled([lips], size, hull=True), _LIP_MARGIN * size)


def _ellipse(size: int) -> Regions:
    centre, half_axes = _ELLIPSE
    unit = (np.arange(size) + 0.5) / size
    across, down = ((unit - centre[axis]) / half_axes[axis] for axis in (0, 1))
    return (across**2 + down[:, None] ** 2 <= 1).astype(np.uint8)


def _filled(outlines: list[npt.NDArray[np.float64]], size: int, hull: bool = False) -> Regions:
    """1 inside polygons, or inside their convex hulls."""
    image = np.zeros((size, size), np.uint8)
    for outline in outlines:
        corners = np.rint(np.clip(outline, -size, 2 * size)).astype(np.int32)
        cv2.fillPoly(image, [cv2.convexHull(corners) if hull else corners], 1)
    return image


def _grown(image: Regions, margin_px: float) -> Regions:
    side = 2 * round(margin_px) + 1
    grown: Regions = cv2.dilate(image, np.ones((side, side), np.uint8))
    return grown
