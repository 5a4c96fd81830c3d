"""Flow carried from a face's own shape onto the canonical face, where a place is the same part of everybody's face.

A crop brings the eyes of all people to the same places, and leaves a long face long: a corner of the mouth lies where it lies in
that face. A thin-plate spline through landmarks of the onset says where each place of the canonical face lies in the crop, and the
flow is taken from there. Vectors stay as they are: the crop has turned and scaled them already.

Positions are rounded to `STEP` px, so that the last bits of a machine's linear algebra change nothing.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

from flowkit.errors import ConfigError
from flowkit.face.face_mesh import CONTROL_POINTS, cage
from flowkit.face.landmarks import CANONICAL, FACE_OVAL, Landmarks
from flowkit.face.transforms import Transform, fit_similarity

Array = npt.NDArray[np.float64]
Picture = npt.NDArray[np.float32]

ANCHORS = (
    *FACE_OVAL[::2],
    *(33, 133, 159, 145, 362, 263, 386, 374),  # eyes: corners, middle of the lids
    *(70, 105, 107, 336, 334, 300),  # brows
    *(9, 151, 168, 6, 1, 2, 98, 327, 129, 358),  # forehead, nose
    *(61, 291, 0, 17, 13, 14, 37, 267, 84, 314),  # lips
    *(50, 280, 205, 425, 118, 347),  # cheeks
)
"""Landmarks that the spline goes through, nearly."""
STIFFNESS = 0.01
"""How much the spline may miss its anchors by to stay smooth, in units of the spline: a landmark is good to a pixel or two."""
STEP = 1 / 256
"""px."""
FARTHEST_PX = 1e5
"""From the corner of the crop, of an anchor."""


def canonical_places() -> Array:
    """Return where the landmarks of the canonical face lie in a crop, (468, 2) float64, in crops."""
    flat = cage().points[:CONTROL_POINTS, :2] * [1, -1]
    transform = fit_similarity(flat[list(CANONICAL)], np.array(list(CANONICAL.values())))
    return np.asarray(flat @ transform[:, :2].T + transform[:, 2])


def can_be_carried(landmarks: Landmarks, transform: Transform) -> bool:
    """Return whether landmarks (478, 2) hold all that the spline goes through, at places that a face may have."""
    return bool((np.abs(_own_anchors(landmarks, transform)) < FARTHEST_PX).all())


def canonical_flow(
    flow: npt.NDArray[np.floating], inside: npt.NDArray[np.bool_], landmarks: Landmarks, transform: Transform, size: int
) -> tuple[Picture, Picture]:
    """Carry the flow of a clip onto the canonical face.

    Parameters
    ----------
    flow : (2, 2, H, H) float
        Phase, component; what lies outside the face is left behind.
    inside : (H, H) bool
        The face.
    landmarks : (478, 2) float32
        Of the onset, px of the frame.
    transform : (2, 3) float64
        Frame px -> crop px.
    size : int
        Side of the result, px. Where it is smaller than H, each of its pixels is the mean of four places.

    Returns
    -------
    (2, 2, size, size) float32
        In the unit of the flow as given: px of the crop of H px. Zero outside the face.
    (size, size) float32
        Share of each pixel that lies inside the face.

    Raises
    ------
    ConfigError
        A landmark that the spline goes through is not given, or lies nowhere near.

    Examples
    --------
    >>> clip = next(flowkit.ShardFolder.open("out").shards()).sample(0)
    >>> face = (clip["regions"] & 1) > 0
    >>> flowkit.canonical_flow(clip["flow"], face, clip["landmarks"], clip["transform"], 28)[0].shape
    (2, 2, 28, 28)
    """
    if not can_be_carried(landmarks, transform):
        raise ConfigError(
            "canonical_flow: landmarks must hold the points of flowkit.face.canonical_face.ANCHORS; got NaN, or places far "
            "from the crop. Extract the clip with landmarks, or take its flow as it is."
        )
    side = flow.shape[-1]
    fold = 1 if size >= side else 2
    factor = max(1, side // (fold * size))
    planes = np.concatenate([flow.reshape(4, side, side) * inside, inside[None]]).astype(np.float32)
    places = ((_own_anchors(landmarks, transform) + 0.5) / factor).T @ _weights(fold * size)
    places = (np.rint(places / STEP) * STEP - 0.5).astype(np.float32)
    taken = _sampled(_shrunk(planes, factor), places).reshape(5, fold * size, fold * size)
    *carried, share = _shrunk(taken, fold)
    return np.stack(carried).reshape(2, 2, size, size), share


def _own_anchors(landmarks: Landmarks, transform: Transform) -> Array:
    """Where a face's anchors lie in its crop, px, (A, 2); NaN where one is not given."""
    with np.errstate(all="ignore"):
        return np.asarray(landmarks[list(ANCHORS)].astype(np.float64) @ transform[:, :2].T + transform[:, 2])


@functools.lru_cache(maxsize=4)
def _weights(size: int) -> Array:
    """How much of each anchor's own place the place of each canonical pixel is, (A, size * size)."""
    anchors = canonical_places()[list(ANCHORS)]
    count = len(anchors)
    affine = np.column_stack([np.ones(count), anchors])
    stiff = _bending(anchors, anchors) + STIFFNESS * np.eye(count)
    system = np.block([[stiff, affine], [affine.T, np.zeros((3, 3))]])
    middle = (np.arange(size) + 0.5) / size
    pixels = np.stack(np.meshgrid(middle, middle), axis=-1).reshape(-1, 2)
    basis = np.column_stack([_bending(pixels, anchors), np.ones(len(pixels)), pixels])
    return np.ascontiguousarray(np.linalg.solve(system.T, basis.T)[:count])


def _bending(points: Array, centres: Array) -> Array:
    """r^2 log r between each point and each centre: the spline's basis (Bookstein 1989), (P, C)."""
    squared = ((points[:, None] - centres) ** 2).sum(axis=2)
    return np.asarray(0.5 * squared * np.log(np.maximum(squared, 1e-12)))


def _shrunk(planes: Picture, factor: int) -> Picture:
    """Means over squares of `factor` pixels; what does not fill a square at the right and the lower edge is left out."""
    if factor == 1:
        return planes
    side = planes.shape[-1] // factor
    whole = planes[:, : side * factor, : side * factor]
    return np.asarray(whole.reshape(-1, side, factor, side, factor).mean(axis=(2, 4)))


def _sampled(planes: Picture, places: Picture) -> Picture:
    """Planes (K, H, W) at places (2, P), x and y in pixels, bilinear, 0 outside: (K, P)."""
    count, height, width = planes.shape
    padded = np.zeros((count, height + 3, width + 3), np.float32)
    padded[:, 1:-2, 1:-2] = planes
    places = np.clip(places + 1, 0, np.array([[width + 1], [height + 1]], np.float32))
    column, row = corner = places.astype(np.intp)
    x, y = (places - corner).astype(np.float32)
    at = row * (width + 3) + column
    pixels = padded.reshape(count, -1)
    left, right = ((above, above + width + 3) for above in (at, at + 1))
    (a, c), (b, d) = ((pixels.take(one, axis=1) for one in side) for side in (left, right))
    return np.asarray((a * (1 - x) + b * x) * (1 - y) + (c * (1 - x) + d * x) * y)
