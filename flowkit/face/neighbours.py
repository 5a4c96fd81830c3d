"""The mean of a key frame and the frames beside it, registered on it: the noise falls, the face stays as it is.

In a high-speed recording the face hardly moves within some milliseconds, and noise is what hides a faint movement. The mean of N
frames has 1 / sqrt(N) of it. A frame that differs from the key frame by more than noise (a flash, a cut, a blink, a fast movement)
is refused, and so is the same picture once more: it holds the same noise. So a key frame is never blended with another state.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Self

import cv2
import numpy as np
import numpy.typing as npt

from flowkit.face.crops import part_seen
from flowkit.face.registration import Image, Transform, compose, invert

FLASH = 0.03
"""Relative change of the face's brightness above which a frame is refused."""
UNLIKE = 1.4
"""Standard deviation of what registration leaves, relative to that of its bulk, above which a frame is refused: 1 for noise, up to
1.2 for a head that moves fast, 2 to 6 for a blink."""
ALIKE, ELSE = 0.03, 0.2
"""The same relative to the standard deviation of the face: below the one a frame is never refused, above the other always."""
FARTHEST = 0.02
"""Motion of the head, relative to the side of the face, above which a frame is refused."""
SAME_GREY = 0.3
"""Root mean square of a difference of two frames, grey levels, below which they are one picture."""

_SIDE = 100
"""Samples along a side of the face, about, that a frame is registered on."""
_BLUR = 1.0
_STEPS = 2
_LEAST_PX = 0.02
"""Motion that is not undone: a picture that is not resampled keeps all of its detail."""
_LEAST_SAMPLES = 100
_MARGIN_PX = 3.0
_NORMAL = 1.4826
"""Standard deviation relative to the median absolute value, of a normal distribution."""
_FLOOR = 0.1 / 255
"""Noise of rounding to 8 bits, after the blur: less is not seen."""

Beside = Mapping[int, Image]
"""Frames beside a key frame, of its size, by their distance from it: -1 is the frame before it."""
NOTHING_BESIDE: tuple[Beside, Beside, Beside] = ({}, {}, {})


class Mean(NamedTuple):
    """What a key frame became.

    Attributes
    ----------
    picture : (H, W) float32
        The mean where the face is, elsewhere the key frame; the very key frame where nothing was averaged.
    frames : int
        Number of frames that it is the mean of, at least 1.
    refused : bool
        Whether a frame was refused.
    """

    picture: Image
    frames: int = 1
    refused: bool = False


def averaged(key: Image, beside: Beside, transform: Transform, face: npt.NDArray[np.uint8]) -> Mean:
    """Average a key frame with the frames beside it.

    The window grows outwards on both sides, and ends before the first frame that is refused. Where the recording ends, it has one
    side.

    Parameters
    ----------
    key : (H, W) float32 in [0, 1]
    beside : mapping of int to (H, W) float32
    transform : (2, 3) float64
        Px of the key frame -> px of a face crop.
    face : (N, N) uint8
        Positive inside the face, on the grid of that crop.

    Returns
    -------
    Mean

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> still = cv2.GaussianBlur(rng.random((64, 64), np.float32), (0, 0), 3)
    >>> noisy = lambda: still + 0.01 * rng.standard_normal((64, 64), np.float32)
    >>> mean = averaged(noisy(), {-1: noisy(), 1: noisy()}, np.eye(2, 3), np.ones((64, 64), np.uint8))
    >>> mean.frames, round(float((mean.picture - still).std()), 3)
    (3, 0.006)
    """
    if not beside:
        return Mean(key)
    window = _Window.of(key, transform, face)
    total, frames, last = window.part.copy(), 1, {-1: window.part, 1: window.part}
    for distance in range(1, max(map(abs, beside)) + 1):
        found = []
        for side in (-1, 1):
            if side * distance not in beside:
                continue
            part = window.cut(beside[side * distance])
            again = _is_same(part, window.part) or _is_same(part, last[side])
            found.append(None if again else window.registered(part))
            last[side] = part
        registered = [part for part in found if part is not None]
        if len(registered) < len(found):
            return window.mean(key, total, frames, refused=True)
        for part in registered:
            total += part
        frames += len(registered)
    return window.mean(key, total, frames, refused=False)


def average_each(
    frames: Sequence[Image],
    beside: Sequence[Beside],
    transforms: Sequence[Transform],
    face: npt.NDArray[np.uint8],
    valid: tuple[bool, bool],
) -> list[Mean]:
    """Average onset, apex and offset with the frames beside each.

    Parameters
    ----------
    frames, beside, transforms, face
        Three each, and one face, as of `averaged`.
    valid : (bool, bool)
        Rise, fall; the frame that ends a phase which is not valid is seen nowhere, and stays as it is.

    Returns
    -------
    list of three Mean
        Where a phase is not valid, `frames` is that of the frame that stands in.
    """
    means = [averaged(frames[0], beside[0] if any(valid) else {}, transforms[0], face)]
    for key, near, transform, is_valid in zip(frames[1:], beside[1:], transforms[1:], valid, strict=True):
        means.append(averaged(key, near, transform, face) if is_valid else Mean(key, means[-1].frames))
    return means


@dataclass(frozen=True, eq=False)
class _Window:
    """The part of a key frame that shows the face, and what registration needs of it.

    `step` px of the frame are one of the `small` picture; `inside` says which of its pixels show the face.
    """

    place: tuple[slice, slice]
    part: Image
    small: Image
    step: int
    inside: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, key: Image, transform: Transform, face: npt.NDArray[np.uint8]) -> Self:
        size = len(face)
        corners = np.array([[0, 0], [size, 0], [0, size], [size, size]]) - 0.5
        seen, (left, top) = part_seen(key, transform, corners, _MARGIN_PX)
        step = max(1, round(min(seen.shape) / _SIDE))
        height, width = (max(side // step, 1) * step for side in seen.shape)
        place = slice(int(top), int(top) + height), slice(int(left), int(left) + width)
        small = _reduced(key[place], step)
        crop_of_small = compose(transform, compose(np.array([[1, 0, left], [0, 1, top]]), _larger(step)))
        flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
        inside = cv2.warpAffine(face, crop_of_small, small.shape[::-1], flags=flags) > 0
        return cls(place, key[place], small, step, inside)

    def cut(self, picture: Image) -> Image:
        return picture[self.place]

    def mean(self, key: Image, total: Image, frames: int, *, refused: bool) -> Mean:
        if frames == 1:
            return Mean(key, refused=refused)
        picture = key.copy()
        picture[self.place] = total / np.float32(frames)
        return Mean(picture, frames, refused)

    def registered(self, part: Image) -> Image | None:
        """A frame where the key frame has the face; None where it is refused."""
        if np.count_nonzero(self.inside) < _LEAST_SAMPLES:
            return None
        small = _reduced(part, self.step)
        motion, moved = np.eye(2, 3), small
        for _ in range(_STEPS):
            motion = compose(motion, _similarity(-self._solved(moved)[0]))
            if not self._farthest(motion) <= FARTHEST * min(self.part.shape):
                return None
            moved = _warped(small, motion)
        if not self._is_like(*self._solved(moved)):
            return None
        if self._farthest(motion) < _LEAST_PX:
            return part
        larger = _larger(self.step)
        return _warped(part, compose(larger, compose(motion, invert(larger))))

    def _is_like(self, solution: npt.NDArray[np.float64], difference: Image) -> bool:
        """Whether what registration leaves of a difference is noise, given what motion and light explain of it."""
        gain, offset = solution[-2:].tolist()
        grey = self.small[self.inside]
        left = difference - np.einsum("i,ip->p", solution.astype(np.float32), self._model)
        spread = math.sqrt(float(np.einsum("p,p->", left, left, dtype=np.float64)) / left.size)
        bulk = max(_NORMAL * float(np.median(np.abs(left))), _FLOOR)
        mean = max(float(grey.mean(dtype=np.float64)), _FLOOR)
        contrast = float(grey.std(dtype=np.float64))
        return abs(gain + offset / mean) <= FLASH and spread <= min(
            max(UNLIKE * bulk, ALIKE * contrast), ELSE * contrast
        )

    def _solved(self, moved: Image) -> tuple[npt.NDArray[np.float64], Image]:
        """Motion and change of light that explain a difference from the key frame best, and that difference inside the face."""
        difference = moved[self.inside] - self.small[self.inside]
        return np.einsum("ip,p->i", self._solver, difference), difference

    def _farthest(self, motion: Transform) -> float:
        """Largest shift of a corner, px of the frame."""
        height, width = self.small.shape
        corners = np.array([[0, width, 0, width], [0, 0, height, height], [1, 1, 1, 1]])
        return float(np.abs(np.einsum("ij,jp->ip", motion - np.eye(2, 3), corners)).max()) * self.step

    @cached_property
    def _model(self) -> npt.NDArray[np.float32]:
        """Change of each sample with shift right and down, size, rotation, gain and offset, (6, P)."""
        down, right = (slope[self.inside] for slope in np.gradient(self.small))
        y, x = (place.astype(np.float32) for place in np.nonzero(self.inside))
        grey = self.small[self.inside]
        return np.stack([right, down, right * x + down * y, down * x - right * y, grey, np.ones_like(grey)])

    @cached_property
    def _solver(self) -> npt.NDArray[np.float64]:
        """What gives the six unknowns of a difference, (6, P)."""
        normal = np.einsum("ip,jp->ij", self._model, self._model, dtype=np.float64)
        unit = 1 / np.sqrt(normal.diagonal() + 1e-12)
        inverse = unit[:, None] * np.linalg.pinv(normal * unit * unit[:, None]) * unit
        return np.asarray(np.einsum("ij,jp->ip", inverse, self._model))


def _is_same(one: Image, other: Image) -> bool:
    difference = one - other
    square = float(np.einsum("ij,ij->", difference, difference, dtype=np.float64))
    return square < (SAME_GREY / 255) ** 2 * difference.size


def _larger(step: int) -> Transform:
    """Px of a reduced picture -> px of the picture."""
    return np.array([[step, 0, (step - 1) / 2], [0, step, (step - 1) / 2]])


def _reduced(part: Image, step: int) -> Image:
    height, width = part.shape
    small = cv2.resize(part, (width // step, height // step), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.GaussianBlur(small, (0, 0), _BLUR))


def _similarity(solution: npt.NDArray[np.float64]) -> Transform:
    right, down, size, rotation = solution[:4]
    return np.array([[1 + size, -rotation, right], [rotation, 1 + size, down]])


def _warped(picture: Image, motion: Transform) -> Image:
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    size = picture.shape[::-1]
    return np.asarray(cv2.warpAffine(picture, motion, size, flags=flags, borderMode=cv2.BORDER_REPLICATE))
