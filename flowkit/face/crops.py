"""A frame resampled to the square crop of the face."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from flowkit.errors import ClipError, FailureCode
from flowkit.face.landmarks import CANONICAL, LEFT_EYE, RIGHT_EYE, Landmarks
from flowkit.face.registration import Image
from flowkit.face.transforms import Transform, compose, fit_similarity, invert, mapped
from flowkit.inputs.clip import Clip
from flowkit.storage.schema import RIGID

MIN_EYE_DISTANCE_PX = 12.0
"""Outer eye corners closer than this: a tenth of a pixel of motion in the crop would be a hundredth in the frame."""
_MIN_RIGID = 0.01
"""Least share of the crop that the rigid part must cover."""
_CUBIC_REACH_PX = 3


def face_crop(grey: Image, transform: Transform, size: int, places: npt.NDArray[np.float32] | None = None) -> Image:
    """Square crop of a frame: resampled once, cubically, after a blur where pixels are merged.

    Parameters
    ----------
    grey : (H, W) float32
    transform : (2, 3) float64
        Frame px -> crop px.
    size : int
    places : (2, size, size) float32, optional
        Where in that crop each pixel is taken from; by default where it lies.

    Returns
    -------
    (size, size) float32
        The frame's edge goes on beyond it. The frame itself, unchanged, if it has that size and the transform is the identity.
    """
    if places is None and grey.shape == (size, size) and np.array_equal(transform, np.eye(2, 3)):
        return grey.copy()
    scale = crop_scale(transform)
    sigma = max(0.5 * np.sqrt(scale**-2 - 1), 0.2) if scale < 1 else 0.0
    corners = np.array([[0, size, 0, size], [0, 0, size, size]]) - 0.5
    if places is not None:
        (left, top), (right, bottom) = places.min(axis=(1, 2)), places.max(axis=(1, 2))
        corners = np.array([[left, right, left, right], [top, top, bottom, bottom]])
    part, corner = part_seen(grey, transform, corners.T, margin_px=4 * sigma + _CUBIC_REACH_PX)
    if sigma:
        part = cv2.GaussianBlur(part, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    shifted = compose(transform, np.column_stack([np.eye(2), corner]))
    how = {"flags" if places is None else "interpolation": cv2.INTER_CUBIC, "borderMode": cv2.BORDER_REPLICATE}
    if places is None:
        return np.asarray(cv2.warpAffine(part, shifted, (size, size), **how), np.float32)
    return np.asarray(cv2.remap(part, *mapped(invert(shifted), places), **how), np.float32)


def shown(grey: Image, transform: Transform, size: int) -> npt.NDArray[np.uint8]:
    """1 where a crop shows a pixel of the frame, 0 beyond the frame's edge, (size, size)."""
    height, width = grey.shape
    inverse, last = invert(transform), size - 1
    corners = np.array([[0, last, 0, last], [0, 0, last, last]]).T @ inverse[:, :2].T + inverse[:, 2]
    if (corners >= 0).all() and (corners <= (width - 1, height - 1)).all():  # then all between them lies inside, too
        return np.ones((size, size), np.uint8)
    return np.asarray(cv2.warpAffine(np.ones(grey.shape, np.uint8), transform, (size, size), flags=cv2.INTER_NEAREST))


def crop_scale(transform: Transform) -> float:
    """Crop px per frame px."""
    (a, b, _), (c, d, _) = transform.tolist()
    return math.sqrt(abs(a * d - b * c))


def part_seen(
    grey: Image, transform: Transform, corners: npt.NDArray[np.floating], margin_px: float
) -> tuple[Image, npt.NDArray[np.float64]]:
    """Return the part of a frame that shows a part of a crop.

    Parameters
    ----------
    grey : (H, W) float32
    transform : (2, 3) float64
        Frame px -> crop px.
    corners : (P, 2) float64
        Places (x, y) in the crop that it must hold.
    margin_px : float
        What it shows around them, px of the frame.

    Returns
    -------
    part : (h, w) float32
        A view, of at least one pixel.
    corner : (2,) float64
        Its upper left pixel (x, y) in the frame.
    """
    inverse = invert(transform)
    seen = corners @ inverse[:, :2].T + inverse[:, 2]
    low, high = seen.min(axis=0) - margin_px, seen.max(axis=0) + margin_px
    columns, rows = map(_within, low.tolist(), high.tolist(), grey.shape[::-1])
    return grey[rows, columns], np.array([columns.start, rows.start], np.float64)


def _within(low: float, high: float, limit: int) -> slice:
    """Pixels from a place to another as far as there are any, at least one."""
    begin = min(max(math.floor(low), 0), limit - 1)
    return slice(begin, min(max(math.ceil(high), begin + 1), limit))


def whole_frame(clip: Clip, onset: Image, size: int) -> Transform:
    """The transform that takes a square frame for the crop."""
    height, width = onset.shape
    if height != width:
        raise ClipError(
            FailureCode.SIZE_MISMATCH,
            f"{clip.where}: cropped frames must be square; got {width} x {height} pixels. Crop them square, or set "
            "align.method=mediapipe.",
            clip.path,
        )
    scale = size / width
    return np.array([[scale, 0, (scale - 1) / 2], [0, scale, (scale - 1) / 2]])


def canonical_crop(clip: Clip, onset: Image, landmarks: Landmarks, size: int) -> Transform:
    """T0: the similarity that best puts the onset's points where the canonical crop has them."""
    height, width = onset.shape
    points = landmarks[list(CANONICAL)].astype(np.float64)
    distance = float(np.linalg.norm(landmarks[RIGHT_EYE] - landmarks[LEFT_EYE]))
    if distance < MIN_EYE_DISTANCE_PX:
        raise ClipError(
            FailureCode.IMAGE_TOO_SMALL,
            f"{clip.where}: outer eye corners must be at least {MIN_EYE_DISTANCE_PX:g} px apart; got {distance:.1f} px in "
            f"{width} x {height} pixels. Use frames of higher resolution.",
            clip.path,
        )
    transform = fit_similarity(points, np.array(list(CANONICAL.values())) * size - 0.5)
    x, y = points.mean(axis=0)
    scale = np.hypot(transform[0, 0], transform[1, 0])
    if not (0 <= x <= width and 0 <= y <= height and size <= scale * 4 * max(width, height)):
        raise ClipError(
            FailureCode.LANDMARKS_MISSING,
            f"{clip.where}: landmarks must lie on a face in the onset frame; got a mean of ({x:.1f}, {y:.1f}) and a crop of "
            f"{size / scale:.0f} px in {width} x {height} pixels. Check that they are those of this frame, in pixels.",
            clip.path,
        )
    return transform


def check_regions(clip: Clip, areas: npt.NDArray[np.uint8]) -> None:
    """Refuse a face that hardly shows: `areas` as of `regions.regions`."""
    share = float(np.mean((areas & RIGID) > 0))
    if share < _MIN_RIGID:
        raise ClipError(
            FailureCode.LANDMARKS_MISSING,
            f"{clip.where}: face without eyes, brows and lips must cover at least {_MIN_RIGID:.0%} of the crop; got {share:.2%}. "
            "Check the outlines in the landmarks.",
            clip.path,
        )
