"""The face of one clip as a surface over its crop: how deep it is, and how each action unit would move it.

The canonical mesh (`head.py`) is laid over the landmarks of the onset. Where the landmarks lie says how it is turned; depth is that
of the canonical mesh, turned likewise, which comes nearer to the truth than the depth that the detector estimates and needs none
(benchmarks/README.md). People differ, so the depth can be corrected by `storage.schema.DEPTH_MODES` smooth changes: bumps, and the
relief of the whole face.

Lengths are px of a crop of `NOMINAL_PX` px, whatever the size of the crop is, unless something else is said. Axes: x to the right,
y down, z towards the camera.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from flowkit.face.canonical_face import canonical_places
from flowkit.face.face_mesh import CONTROL_POINTS, action_unit_fields, cage, canonical_mesh
from flowkit.face.landmarks import FACE_OVAL, Landmarks
from flowkit.face.transforms import Transform

Array = npt.NDArray[np.float64]

NOMINAL_PX = 224
GRID = 28
"""Rows and columns of the grid on which motions are fitted: flow and fields are smooth, more samples would say the same again."""
_SMOOTH = 0.7
"""Blur of the grid before slopes are taken from it, in distances of its places."""
CAMERA_CM = 90.0
"""Usual distance of a camera; only its order of magnitude matters."""

STEADY = (
    *(33, 133, 362, 263, 168, 6, 197, 195, 5, 4, 10, 151, 9, 8, 127, 356, 234, 454, 93, 323, 132, 361),
    *(50, 280, 101, 330, 54, 284, 103, 332),
)
"""Landmarks that say how a head is turned: eye corners, ridge of the nose, forehead, sides of the face, cheekbones."""
_BUMPS: tuple[tuple[tuple[int, ...], float], ...] = (
    *(((4,), 1.3), ((197,), 1.3), ((9,), 1.6), ((151,), 2.0), ((10,), 2.0), ((105, 334), 1.5), ((159, 386), 1.3)),
    *(((117, 346), 1.6), ((205, 425), 1.8), ((127, 356), 2.0), ((172, 397), 2.0), ((0,), 1.3), ((17,), 1.4)),
    *(((61, 291), 1.5), ((152,), 2.0)),
)
"""Where people's depth differs, the same on both sides: landmarks, radius in cm."""
_RINGS = ((1.3, 0.8), (3.0, 0.0))
"""What continues the mesh beyond the outline of the face: size relative to it, and how steeply it falls off until there."""


@dataclass(frozen=True, slots=True, eq=False)
class _Mesh:
    """What all faces have in common; P points: the mesh, then the rings around it.

    Attributes
    ----------
    points : (468, 3) float64
        cm; y up.
    triangles : (T, 3) int32
    action_units : (3, P, K) float64
        cm at a strength of 1 cm; 0 in the rings.
    modes : (M, P) float64
        Change of depth, cm.
    """

    points: Array
    triangles: npt.NDArray[np.int32]
    action_units: Array
    modes: Array


@functools.cache
def _mesh() -> _Mesh:
    points = cage().points[:CONTROL_POINTS]
    rim = np.array(FACE_OVAL)
    rows = np.stack([rim, *(CONTROL_POINTS + len(rim) * k + np.arange(len(rim)) for k in range(len(_RINGS)))])
    inner, outer = rows[:-1].ravel(), rows[1:].ravel()
    inner_next, outer_next = np.roll(rows[:-1], -1, axis=1).ravel(), np.roll(rows[1:], -1, axis=1).ravel()
    strips = np.concatenate(
        [np.stack([inner, outer, inner_next], axis=1), np.stack([inner_next, outer, outer_next], axis=1)]
    )
    fields = np.stack([field[:CONTROL_POINTS] for _, field in sorted(action_unit_fields().items())])
    still = np.zeros((len(fields), len(rim) * len(_RINGS), 3))
    modes = np.stack([_mode(points, centres, radius) for centres, radius in _BUMPS] + [_relief(points)])
    return _Mesh(
        points=points,
        triangles=np.concatenate([canonical_mesh()[1], strips[:, ::-1]]).astype(np.int32),
        action_units=np.ascontiguousarray(np.concatenate([fields, still], axis=1).T),
        modes=np.concatenate([modes, *[modes[:, rim]] * len(_RINGS)], axis=1),
    )


def _mode(points: Array, centres: tuple[int, ...], radius: float) -> Array:
    apart = ((points[:, None] - points[list(centres)]) ** 2).sum(axis=2)
    return np.asarray(np.exp(-0.5 * apart / radius**2).sum(axis=1))


def _relief(points: Array) -> Array:
    """A quarter deeper for each cm of the weight."""
    return np.asarray(0.25 * (points[:, 2] - points[:, 2].mean()))


_Surface = tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]
"""What each pixel shows: see `rasteriser.rasterise`."""


class _Laid:
    """What a face has in common with its corrections: where each pixel lies on it, and its fields on the grid.

    Parameters
    ----------
    points : (P, 3) float64
        Before any correction.
    """

    def __init__(self, points: Array) -> None:
        self._points = points
        self._surfaces: dict[int, _Surface] = {}
        self.fields: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave to the process that needs them what would be larger than the pictures."""
        return {**self.__dict__, "_surfaces": {size: found for size, found in self._surfaces.items() if size == GRID}}

    def interpolated(self, carried: Array, size: int) -> npt.NDArray[np.float32]:
        """What the points carry, (P, K), at each pixel of a crop of a size, (K, size, size); 0 where nothing is known."""
        # Numba takes a third of a second to load, and a process that only plans needs none.
        from flowkit_kernels.cpu import rasteriser

        triangles = _mesh().triangles
        if size not in self._surfaces:
            scale = size / NOMINAL_PX
            points = np.column_stack([(self._points[:, :2] + 0.5) * scale - 0.5, self._points[:, 2] * scale])
            hit, inside = np.empty((size, size), np.int32), np.empty((size, size, 2), np.float32)
            depth = np.empty((size, size), np.float32)
            rasteriser.rasterise(points.astype(np.float32), triangles, hit, inside, depth)
            self._surfaces[size] = hit, inside
        result = np.empty((carried.shape[1], size, size), np.float32)
        rasteriser.interpolate(*self._surfaces[size], triangles, carried.astype(np.float32), result)
        return result


@dataclass(frozen=True, eq=False)
class HeadShape:
    """A face over its crop. Costly parts are made when they are asked for, kept, and go along to another process.

    Attributes
    ----------
    points : (P, 3) float64
        The mesh and the rings around it; z is 0 in the mean of the steady landmarks.
    centre : (2,) float64
        What the head turns about in the crop: the mean of the steady landmarks.
    px_per_cm : float
    rotation : (3, 3) float64
        Turns the canonical face (y up) as this one is turned.
    """

    points: Array
    centre: Array
    px_per_cm: float
    rotation: Array
    _laid: _Laid = field(repr=False)
    _depths: dict[int, npt.NDArray[np.float32]] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, landmarks: Landmarks, transform: Transform, size: int) -> HeadShape:
        """Lay the canonical face over landmarks.

        Parameters
        ----------
        landmarks : (478, 2) float32
            Of the onset, frame px. Unless all of the first 468 are given, the canonical face itself is laid over the crop.
        transform : (2, 3) float64
            Frame px -> crop px.
        size : int
            Side of the crop.
        """
        mesh = _mesh()
        flat = landmarks[:CONTROL_POINTS].astype(np.float64) @ transform[:, :2].T + transform[:, 2]
        flat = ((flat + 0.5) * NOMINAL_PX / size) - 0.5
        if not np.isfinite(flat).all():
            flat = canonical_places() * NOMINAL_PX - 0.5
        scale, rotation = _turned(mesh.points[list(STEADY)], flat[list(STEADY)])
        depth = scale * (mesh.points @ rotation[2])
        points = _with_rings(np.column_stack([flat, depth - depth[list(STEADY)].mean()]))
        return cls(points, flat[list(STEADY)].mean(axis=0), scale, rotation, _Laid(points))

    def corrected(self, depth_cm: Array) -> HeadShape:
        """The same with its depth corrected by weights (DEPTH_MODES,) of the modes; each pixel shows the same place of it."""
        if not depth_cm.any():
            return self
        points = self.points.copy()
        points[:, 2] += self.px_per_cm * np.einsum("m,mp->p", depth_cm, _mesh().modes)
        return HeadShape(points, self.centre, self.px_per_cm, self.rotation, self._laid)

    def depth(self, size: int) -> npt.NDArray[np.float32]:
        """Depth at each pixel of a crop of another size, (size, size), in px of that crop; 0 where nothing is known."""
        if size not in self._depths:
            self._depths[size] = self._laid.interpolated(self.points[:, 2:] * (size / NOMINAL_PX), size)[0]
        return self._depths[size]

    def deeper(self, depth_cm: Array, size: int) -> npt.NDArray[np.float32]:
        """How much deeper `corrected` is at each pixel of a crop, (size, size), in px of that crop."""
        change = np.einsum("m,mhw->hw", depth_cm, self.grid.modes) * size / NOMINAL_PX
        return np.asarray(
            cv2.resize(change.astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC), np.float32
        )

    @functools.cached_property
    def grid(self) -> Grid:
        """Depth and fields on the grid of the fit."""
        if self._laid.fields is None:
            mesh = _mesh()
            seen = self.px_per_cm * self.rotation[:2] * [[1], [-1]]
            moved = np.einsum("ai,im->am", seen, mesh.action_units.reshape(3, -1)).reshape(2, len(self.points), -1)
            result = self._laid.interpolated(np.concatenate([*moved, mesh.modes.T * self.px_per_cm], axis=1), GRID)
            units = moved.shape[2]
            self._laid.fields = (
                result[: 2 * units].reshape(2, units, GRID, GRID).swapaxes(0, 1),
                result[2 * units :],
            )
        return Grid(*self._laid.fields, self._laid.interpolated(self.points[:, 2:], GRID)[0])

    @functools.cached_property
    def slopes(self) -> Array:
        """How steeply the face rises to the right and downwards at the places of the grid, (2, GRID, GRID)."""
        smooth = cv2.GaussianBlur(self.grid.depth, (0, 0), _SMOOTH)
        down, across = np.gradient(smooth.astype(np.float64), NOMINAL_PX / GRID)
        return np.stack([across, down])


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """Fields over the crop, at GRID x GRID places.

    Attributes
    ----------
    action_units : (K, 2, GRID, GRID) float32
        Motion by each action unit at a strength of 1 cm.
    modes : (M, GRID, GRID) float32
        Change of depth by each mode at a weight of 1 cm.
    depth : (GRID, GRID) float32
    """

    action_units: npt.NDArray[np.float32]
    modes: npt.NDArray[np.float32]
    depth: npt.NDArray[np.float32]


def _turned(points: Array, flat: Array) -> tuple[float, Array]:
    """Scale and rotation that bring points (P, 3), y up, nearest to their places (P, 2), y down, as a distant camera sees them."""
    there = (flat - flat.mean(axis=0)) * [1, -1]
    linear = np.linalg.lstsq(points - points.mean(axis=0), there, rcond=None)[0].T
    left, scales, right = np.linalg.svd(linear, full_matrices=False)
    (a, b, c), (d, e, f) = rows = (left @ right).tolist()
    return float(scales.mean()), np.array([*rows, [b * f - c * e, c * d - a * f, a * e - b * d]])


def _with_rings(points: Array) -> Array:
    """The mesh with rings around its outline, which cover the rest of the crop."""
    rim = points[list(FACE_OVAL)]
    centre = rim[:, :2].mean(axis=0)
    parts, depth, before = [points], rim[:, 2], 1.0
    for size, slope in _RINGS:
        outward = rim[:, :2] - centre
        depth = depth - slope * (size - before) * np.hypot(*outward.T)
        parts.append(np.column_stack([centre + size * outward, depth]))
        before = size
    return np.concatenate(parts)
