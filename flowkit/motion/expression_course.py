"""How strongly every frame of a clip shows each action unit: a linear fit to the aligned pictures, without any flow.

Near the onset the grey values g of an aligned picture change by

    sum of strengths x (field of an action unit . slopes of g)      what is looked for
    + head's six fields . slopes of g                               what alignment has left of the head's motion
    + lids . slopes of g                                            a blink
    + offset, gain, and gain by where the surface points            light

and noise. All of it is linear in its unknowns and what it multiplies is one for the whole clip, so a frame costs some sums over its
pixels. Thousands of pixels decide about some forty numbers: noise that hides a movement in a flow hardly matters here. Pictures are
band-passed: fine detail is noise or resampling, coarse shading is light.

The fields are known to a third or so (`face_mesh.py`). So strengths tell when and how much a face moves better than what moves.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import cv2
import numpy as np
import numpy.typing as npt

from flowkit.face.anchor import Anchor
from flowkit.face.contrast import ROUNDING
from flowkit.face.head_motion import HUNDREDTHS, POSE, head_fields
from flowkit.face.head_shape import NOMINAL_PX
from flowkit.face.regions import skin_region
from flowkit.face.registration import Image
from flowkit.storage.schema import ACTION_UNITS

Array = npt.NDArray[np.float64]

_FINE_PX, _COARSE_PX = 1.0, 6.0
"""Standard deviations of the two Gaussians whose difference is the band, px of a crop of 128."""
_GREY = 255.0
_STRENGTH_SD_CM = 0.08
"""Prior standard deviation of the strength of an action unit."""
_LIDS = ("45L", "45R")
_UNITS = np.array([name not in _LIDS for name in ACTION_UNITS])
"""Which action units are looked for: all but the closing of the eyes."""
_RIDGE, _TINY = 1e-9, 1e-6
"""They keep equations solvable where a picture shows nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class ExpressionCourse:
    """Strengths of the action units from frame to frame.

    Attributes
    ----------
    numbers : tuple of int
        The T frames, in order, the onset first.
    strength_cm : (T, K) float64
        Relative to the onset; K action units: `storage.schema.ACTION_UNITS` without the lids.
    weighted : (T, K) float64
        The same in combinations of action units that noise leaves independent of each other, in standard deviations of the prior or
        of the noise: what is measured well counts for more.
    lengths : (K, K) float64
        v' lengths v is the mean squared motion of the face, px^2, by strengths v.
    """

    numbers: tuple[int, ...]
    strength_cm: Array
    weighted: Array
    lengths: Array

    def motion_px(self, strength_cm: Array) -> Array:
        """Root mean square of the motion of the face by strengths (..., K), px of the crop."""
        squares = np.einsum("...i,ij,...j->...", strength_cm, self.lengths, strength_cm)
        return np.asarray(np.sqrt(np.maximum(squares, 0.0)))


@dataclass(frozen=True, eq=False)
class ExpressionFit:
    """What the pictures of one clip are compared with.

    Attributes
    ----------
    onset : (N, N) float32
    region : (N, N) bool
    nuisances : int
        How many of the columns are none of what is looked for; they come first.
    columns : (L + K, n) float64
        Change of the n pixels of the region, band-passed, grey levels of 0 to 255, for each unknown.
    noise : float
        Of a picture, grey levels.
    lengths : (K, K) float64
        As of `ExpressionCourse`.
    """

    onset: Image
    region: npt.NDArray[np.bool_]
    nuisances: int
    columns: Array
    noise: float
    lengths: Array

    @classmethod
    def of(cls, anchor: Anchor, picture: Image, noise: float) -> Self:
        """Make the columns of a clip.

        Parameters
        ----------
        anchor : Anchor
        picture : (N, N) float32 in [0, 1]
            The mean of aligned frames, whose slopes have less noise than those of one.
        noise : float
            Of one picture, grey levels of 0 to 255.
        """
        size = len(anchor.onset)
        region = skin_region(anchor.regions, (anchor.shape.points[:, :2] + 0.5) * (size / NOMINAL_PX) - 0.5)
        units = _fields(anchor, size)
        smooth = cv2.GaussianBlur(picture * np.float32(_GREY), (0, 0), 0.7)
        down, right = np.gradient(smooth.astype(np.float64))
        head = head_fields(anchor.shape.depth(size) * (NOMINAL_PX / size), anchor.shape, NOMINAL_PX / size)
        fields = np.concatenate([head * (size / NOMINAL_PX), units[~_UNITS], units[_UNITS]])
        moved = -(fields[:, 0] * right + fields[:, 1] * down)  # how grey values change when they move along
        changes = np.concatenate([moved[:POSE], _light(anchor, smooth), moved[POSE:]])
        columns = np.stack([_band(change.astype(np.float32), size)[region] for change in changes]).astype(np.float64)
        shown = np.einsum("kcn,jcn->kj", *[units[_UNITS][..., region]] * 2) / max(np.count_nonzero(region), 1)
        nuisances = len(columns) - int(_UNITS.sum())
        return cls(anchor.onset, region, nuisances, columns, max(noise, ROUNDING), shown)

    def reading(self, picture: Image) -> Array:
        """Sums of a picture's difference to the onset with the columns, (L + K,): all that is needed of a frame."""
        change = _band((picture - self.onset) * np.float32(_GREY), len(picture))[self.region]
        return np.asarray(np.einsum("kn,n->k", self.columns, change.astype(np.float64)))

    def strengths(self, reading: Array) -> Array:
        """All unknowns of a picture, (L + K,), the last two of the first L the lids; action units in cm."""
        return np.asarray(np.linalg.solve(self._equations, reading / self._scale) / self._scale)

    @staticmethod
    def pose(strengths: Array) -> Array:
        """The motion of the head that a picture still shows, (6,): see `head_motion.POSE`; px of a crop of `NOMINAL_PX`."""
        return np.asarray(strengths[:POSE] / HUNDREDTHS)

    def head(self, reading: Array) -> Array:
        """The same, of a reading."""
        return self.pose(self.strengths(reading))

    def course(self, readings: Mapping[int, Array]) -> ExpressionCourse:
        """Strengths in all frames that were read, by their numbers; the onset among them has zeros."""
        numbers = tuple(sorted(readings))
        sums = np.stack([readings[number] for number in numbers], axis=1) / self._scale[:, None]
        other, units = slice(0, self.nuisances), slice(self.nuisances, None)
        share = np.linalg.solve(self._equations[other, other], self._equations[other, units])
        matrix = self._equations[units, units] - np.einsum("ik,ij->kj", share, self._equations[other, units])
        target = sums[units] - np.einsum("ik,it->kt", share, sums[other])
        strength = np.linalg.solve(matrix, target)
        weighted = np.einsum("ji,jt->ti", np.linalg.cholesky(matrix), strength) / self.noise
        return ExpressionCourse(numbers, (strength / self._scale[units, None]).T.copy(), weighted, self.lengths)

    @functools.cached_property
    def _scale(self) -> Array:
        """Length of each column."""
        return np.asarray(np.sqrt(np.square(self.columns).sum(axis=1)) + _TINY)

    @functools.cached_property
    def _equations(self) -> Array:
        """Normal equations of the columns at length 1, with the prior of the strengths."""
        products = np.einsum("in,jn->ij", self.columns, self.columns) / np.outer(self._scale, self._scale)
        prior = np.full(len(products), _RIDGE)
        prior[self.nuisances :] += (self.noise / (_STRENGTH_SD_CM * self._scale[self.nuisances :])) ** 2
        return np.asarray(products + np.diag(prior))


def _fields(anchor: Anchor, size: int) -> Array:
    """Motion by each action unit at a strength of 1 cm, (K, 2, size, size), px of the crop."""
    coarse = anchor.shape.grid.action_units * np.float32(size / NOMINAL_PX)
    fine = [[cv2.resize(part, (size, size), interpolation=cv2.INTER_CUBIC) for part in field] for field in coarse]
    return np.array(fine, np.float64)


def _light(anchor: Anchor, picture: Image) -> Array:
    """Changes of a picture by light, (5, N, N): more everywhere, a gain, and gains by where the surface points."""
    across, down = anchor.shape.slopes
    ahead = 1 / np.sqrt(1 + across**2 + down**2)
    gains = [np.ones_like(ahead), across * ahead, down * ahead, ahead]
    large = [cv2.resize(gain.astype(np.float32), picture.shape[::-1]) * picture for gain in gains]
    return np.stack([np.ones_like(picture), *large]).astype(np.float64)


def _band(picture: Image, size: int) -> Image:
    """A picture without its finest and its coarsest detail."""
    fine, coarse = (cv2.GaussianBlur(picture, (0, 0), sigma * size / 128) for sigma in (_FINE_PX, _COARSE_PX))
    return np.asarray(fine - coarse)
