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
from flowkit.face.registration import Image
from flowkit.face.statistics import median
from flowkit.face.transforms import Transform, compose

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
_STEPS = 3
_CONVERGED_PX = 0.1
"""Of the pictures that registration sees: the equations are linear in so small a motion."""
_LEAST_PX = 0.02
"""A shift that is not undone: a picture that is not resampled keeps all of its detail."""
_LEAST_TURN_PX = 0.1
"""What a change of size or a rotation moves at the edge of the face without being undone."""
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


def averaged(key: Image, beside: Beside, transform: Transform, face: npt.NDArray[np.bool_]) -> Mean:
    """Average a key frame with the frames beside it.

    The window grows outwards on both sides, and ends before the first frame that is refused. Where the recording ends, it has one
    side.

    Parameters
    ----------
    key : (H, W) float32 in [0, 1]
    beside : mapping of int to (H, W) float32
    transform : (2, 3) float64
        Px of the key frame -> px of a face crop.
    face : (N, N) bool
        Pixels of that crop that show the face.

    Returns
    -------
    Mean

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> still = cv2.GaussianBlur(rng.random((64, 64), np.float32), (0, 0), 3)
    >>> noisy = lambda: still + 0.01 * rng.standard_normal((64, 64), np.float32)
    >>> mean = averaged(noisy(), {-1: noisy(), 1: noisy()}, np.eye(2, 3), np.ones((64, 64), np.bool_))
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
    face: npt.NDArray[np.bool_],
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

    `step` px of the frame are one of the `small` picture; `inside` has the indices of its P pixels that show the face, the samples.
    """

    place: tuple[slice, slice]
    part: Image
    small: Image
    step: int
    inside: npt.NDArray[np.intp]

    @classmethod
    def of(cls, key: Image, transform: Transform, face: npt.NDArray[np.bool_]) -> Self:
        size = len(face)
        corners = np.array([[0, 0], [size, 0], [0, size], [size, size]]) - 0.5
        seen, (left, top) = part_seen(key, transform, corners, _MARGIN_PX)
        step = max(1, round(min(seen.shape) / _SIDE))
        height, width = (max(side // step, 1) * step for side in seen.shape)
        place = slice(int(top), int(top) + height), slice(int(left), int(left) + width)
        small = _reduced(key[place], step)
        crop_of_small = compose(transform, compose(np.array([[1, 0, left], [0, 1, top]]), _larger(step)))
        flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
        inside = cv2.warpAffine(face.view(np.uint8), crop_of_small, small.shape[::-1], flags=flags)
        return cls(place, key[place], small, step, np.flatnonzero(inside))

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
        if len(self.inside) < _LEAST_SAMPLES:
            return None
        small, shift = _reduced(part, self.step), np.zeros(2)
        for _ in range(_STEPS):
            difference = np.take(_shifted(small, shift), self.inside) - self._grey
            solution = np.einsum("ip,p->i", self._solver, difference)
            shift -= solution[:2]
            if not np.abs(shift).max() * self.step <= FARTHEST * min(self.part.shape):
                return None
            if np.abs(solution[:2]).max() < _CONVERGED_PX:
                break
        if not self._is_like(solution, difference):
            return None
        return self._moved(part, shift * self.step, solution[2:4])

    def _moved(self, part: Image, shift: npt.NDArray[np.float64], turned: npt.NDArray[np.float64]) -> Image:
        """A frame whose head was shifted, and whose size and rotation had changed by these shares, as the key frame has it."""
        if np.abs(turned).max() * max(self.part.shape) < _LEAST_TURN_PX:
            return part if np.abs(shift).max() < _LEAST_PX else _shifted(part, shift)
        size, rotation = -turned
        linear = np.array([[1 + size, -rotation], [rotation, 1 + size]])
        centre = _larger(self.step) @ [*self._centre, 1]
        motion = np.column_stack([linear, centre - linear @ centre + shift])
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        extent = part.shape[::-1]
        return np.asarray(cv2.warpAffine(part, motion, extent, flags=flags, borderMode=cv2.BORDER_REPLICATE))

    def _is_like(self, solution: npt.NDArray[np.float64], difference: Image) -> bool:
        """Whether what registration leaves of a difference is noise, given what motion and light explain of it."""
        gain, offset = solution[-2:].tolist()
        left = difference - np.einsum("i,ip->p", solution.astype(np.float32), self._model)
        spread = math.sqrt(float(np.einsum("p,p->", left, left, dtype=np.float64)) / left.size)
        bulk = max(_NORMAL * median(np.abs(left)), _FLOOR)
        mean = max(float(self._grey.mean(dtype=np.float64)), _FLOOR)
        contrast = float(self._grey.std(dtype=np.float64))
        return abs(gain + offset / mean) <= FLASH and spread <= min(
            max(UNLIKE * bulk, ALIKE * contrast), ELSE * contrast
        )

    @cached_property
    def _grey(self) -> Image:
        """Grey values of the samples, (P,)."""
        return np.take(self.small, self.inside)

    @cached_property
    def _places(self) -> npt.NDArray[np.intp]:
        """X and y of the samples, (2, P)."""
        y, x = np.divmod(self.inside, self.small.shape[1])
        return np.stack([x, y])

    @cached_property
    def _centre(self) -> npt.NDArray[np.float64]:
        """Mean place of the samples, about which size and rotation change."""
        return np.asarray(self._places.mean(axis=1))

    @cached_property
    def _model(self) -> npt.NDArray[np.float32]:
        """Change of each sample with shift right and down, size, rotation, gain and offset, (6, P)."""
        down, right = (np.take(slope, self.inside) for slope in np.gradient(self.small))
        x, y = (self._places - self._centre[:, None]).astype(np.float32)
        grey = self._grey
        return np.stack([right, down, right * x + down * y, down * x - right * y, grey, np.ones_like(grey)])

    @cached_property
    def _solver(self) -> npt.NDArray[np.float64]:
        """What gives the six unknowns of a difference, (6, P)."""
        normal = np.einsum("ip,jp->ij", self._model, self._model, dtype=np.float64)
        unit = 1 / np.sqrt(normal.diagonal() + 1e-12)
        inverse = unit[:, None] * np.linalg.pinv(normal * unit * unit[:, None]) * unit
        return np.asarray(np.einsum("ij,jp->ip", inverse, self._model))


def _is_same(one: Image, other: Image) -> bool:
    return bool(cv2.norm(one, other, cv2.NORM_L2SQR) < (SAME_GREY / 255) ** 2 * one.size)


def _larger(step: int) -> Transform:
    """Px of a reduced picture -> px of the picture."""
    return np.array([[step, 0, (step - 1) / 2], [0, step, (step - 1) / 2]])


def _reduced(part: Image, step: int) -> Image:
    height, width = part.shape
    small = cv2.resize(part, (width // step, height // step), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.GaussianBlur(small, (0, 0), _BLUR))


def _shifted(picture: Image, shift: npt.NDArray[np.float64]) -> Image:
    """The picture whose pixel x is that of another at x + shift, by Keys' cubic convolution.

    `cv2.warpAffine` has another kernel, which puts what lies at a quarter of a pixel 0.05 px off.
    """
    if not shift.any():
        return picture
    x, y = map(_kernel, shift.tolist())
    return np.asarray(cv2.sepFilter2D(picture, -1, x, y, borderType=cv2.BORDER_REPLICATE))


def _kernel(shift: float) -> npt.NDArray[np.float32]:
    reach = math.ceil(abs(shift)) + 1
    away = np.abs(np.arange(-reach, reach + 1) - shift)
    near = (1.5 * away - 2.5) * away * away + 1
    far = ((-0.5 * away + 2.5) * away - 4) * away + 2
    return np.where(away < 1, near, np.where(away < 2, far, 0)).astype(np.float32)
