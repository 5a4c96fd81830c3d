"""The canonical face as a coarse mesh with hair and neck, and how each action unit moves it.

The face is the canonical mesh of MediaPipe, which the bundled face model holds: 468 points whose numbers are those of the
landmarks. Around it we put hair, ears and neck (rings that run outward and backward from the outline of the face). The whole is
called the *cage*.

Units: centimetres, the outer eye corners 8.9 apart. Axes: x to the image's right (the subject's left), y up, z towards the camera.

The action units rest on figures measured on another face (assets/action_units.csv, assets/NOTICE): each is a sum of round bumps
about landmarks. They give back the shapes of that face to 15-35 %, and each person gets variations of them.
"""

from __future__ import annotations

import csv
import functools
import io
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources

import numpy as np
import numpy.typing as npt

from flowkit.face.landmarks import EYES, FACE_OVAL, MODEL

Array = npt.NDArray[np.float64]
Triangles = npt.NDArray[np.int32]
CONTROL_POINTS = 468
INNER_LIPS = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95)
"""From one corner of the mouth over the upper lip to the other, and back over the lower lip."""
UPPER_LIDS = ((246, 161, 160, 159, 158, 157, 173), (466, 388, 387, 386, 385, 384, 398))
LOWER_LIDS = ((7, 163, 144, 145, 153, 154, 155), (249, 390, 373, 374, 380, 381, 382))
"""Of the image's left and right eye, from the outer corner inwards; `LOWER_LIDS[e][k]` lies below `UPPER_LIDS[e][k]`."""
BLINK = 45
"""The action unit that closes the eyes."""
LEFT, RIGHT, BOTH = "L", "R", "B"
"""The subject's left side is the image's right, as in FACS. Action units of the middle of the face move both."""
_RINGS = 5
_LOBE, _COLLAR = 0.40, 0.66
"""How far down hair and ears, and the neck, reach in the photograph."""
AUField = dict[tuple[int, str], Array]


# --- the cage


@dataclass(frozen=True, slots=True, eq=False)
class Cage:
    """The coarse mesh of skin and hair, whose first 468 points are MediaPipe's.

    Attributes
    ----------
    points : (C, 3) float64
    triangles : (T, 3) int32
    photo : (C, 2) float64
    is_face : (C,) bool
        Inside the outline of the face.
    mirror : (C,) int
        The point on the other side.
    """

    points: Array
    triangles: Triangles
    photo: Array
    is_face: npt.NDArray[np.bool_]
    mirror: npt.NDArray[np.intp]


def canonical_mesh() -> tuple[Array, Triangles]:
    """Points (468, 3), cm, and triangles (898, 3) of the mesh inside the bundled face model."""
    with zipfile.ZipFile(io.BytesIO(MODEL.read_bytes())) as bundle:
        metadata = bundle.read("geometry_pipeline_metadata_landmarks.binarypb")
    mesh = next(value for field, value in _protobuf(metadata) if field == 1 and isinstance(value, bytes))
    values = [value for field, value in _protobuf(mesh) if field == 3 and isinstance(value, bytes)]
    corners = [value for field, value in _protobuf(mesh) if field == 4]
    points = np.array([struct.unpack("<f", value)[0] for value in values]).reshape(-1, 5)
    return points[:, :3].copy(), np.array(corners, np.int32).reshape(-1, 3)


def _protobuf(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield number and value of each field of a protocol buffer message."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield tag >> 3, value
        else:
            size, at = (4, at) if kind == 5 else (8, at) if kind == 1 else _varint(data, at)
            yield tag >> 3, data[at : at + size]
            at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        byte = data[at]
        at += 1
        result |= (byte & 127) << shift
        if byte < 128:
            return result, at
        shift += 7


def photo_landmarks() -> Array:
    """The 468 points of the bundled photograph, in units of its side."""
    text = resources.files("flowkit.assets").joinpath("face_landmarks.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    return np.array([(float(row["x"]), float(row["y"])) for row in rows])[:CONTROL_POINTS] / 300


@functools.cache
def cage() -> Cage:
    """The coarse mesh, its mouth closed, its eyes and mouth cut open."""
    points, triangles = canonical_mesh()
    photo = photo_landmarks()
    openings = [set(ring) for ring in (*EYES, INNER_LIPS)]
    covers = np.array([any(set(corners) <= ring for ring in openings) for corners in triangles.tolist()])
    points = _mouth_closed(points)
    rim = np.array(
        FACE_OVAL[::-1]
    )  # clockwise on the screen as listed; counter-clockwise as seen from outside with y up
    rings, places = _rings(points, photo, rim)
    order = np.concatenate([rim[None], CONTROL_POINTS + np.arange(rings.size // 3).reshape(_RINGS, -1)])
    around = np.roll(order, -1, axis=1)
    inner, outer, inner_next, outer_next = order[:-1], order[1:], around[:-1], around[1:]
    strips = np.concatenate(
        [
            np.stack([inner, outer, inner_next], axis=-1).reshape(-1, 3),
            np.stack([inner_next, outer, outer_next], axis=-1).reshape(-1, 3),
        ]
    )
    strips = _facing(np.concatenate([points, rings.reshape(-1, 3)]), strips)
    whole = np.concatenate([points, rings.reshape(-1, 3)])
    return Cage(
        points=whole,
        triangles=np.concatenate([triangles[~covers], strips]).astype(np.int32),
        photo=np.concatenate([photo, places.reshape(-1, 2)]),
        is_face=np.arange(len(whole)) < CONTROL_POINTS,
        mirror=np.argmin(((whole * [-1, 1, 1])[:, None] - whole[None]).__pow__(2).sum(axis=2), axis=1),
    )


def _facing(points: Array, triangles: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Triangles turned so that they face away from the middle of the head."""
    a, b, c = points[triangles].swapaxes(0, 1)
    outward = (np.cross(b - a, c - a) * ((a + b + c) / 3 - [0, 0, -4])).sum(axis=1) > 0
    return np.where(outward[:, None], triangles, triangles[:, [0, 2, 1]])


def _mouth_closed(points: Array) -> Array:
    """The canonical mesh with its lips together: it has them 0.5 cm apart."""
    half = len(INNER_LIPS) // 2
    moved = points.copy()
    for k in range(1, half):
        upper, lower = INNER_LIPS[k], INNER_LIPS[-k]
        gap = points[upper] - points[lower] - [0, 0.03, 0]
        for point, share in ((upper, -0.5), (lower, 0.5)):
            apart = ((points - points[point]) ** 2).sum(axis=1)
            on_this_lip = (points[:, 1] >= points[point, 1] - 0.02) == (share < 0)
            nearest = on_this_lip * np.exp(-0.5 * apart / 0.35**2) / 1.6
            moved += share * nearest[:, None] * gap
    for k in range(1, half):
        upper, lower = INNER_LIPS[k], INNER_LIPS[-k]
        middle = (points[upper] + points[lower]) / 2
        overlap = np.array([0, -0.02, 0.02])
        moved[upper], moved[lower] = middle + overlap, middle - overlap
    return moved


def _rings(points: Array, photo: Array, rim: npt.NDArray[np.intp]) -> tuple[Array, Array]:
    """Points (rings, 36, 3) around the face, and their places in the photograph.

    Each line from the rim outward is a quadratic Bezier curve: over the forehead and the temples to the back of the skull, under
    the jaw to the neck.
    """
    start = points[rim]
    angle = np.arctan2(start[:, 1] - 0.5, start[:, 0])[:, None]
    neck = _smooth(np.clip((-np.sin(angle) - 0.15) / 0.45, 0, 1))
    across, up = np.cos(angle), np.sin(angle)
    crown = np.concatenate([9.4 * across, 3.0 + 12.0 * np.maximum(up, -0.6), start[:, 2:] - 3.6], axis=1)
    back = np.concatenate([9.8 * across, 3.0 + 11.8 * np.maximum(up, -0.6), start[:, 2:] - 12], axis=1)
    jaw = np.concatenate([7.2 * across, -9.6 + 1.6 * (up + 1), start[:, 2:] - 3.2], axis=1)
    throat = np.concatenate([6.8 * across, -28 + 3.0 * (up + 1), start[:, 2:] * 0.3 - 3.5], axis=1)
    middle, end = crown + neck * (jaw - crown), back + neck * (throat - back)
    shares = (np.arange(1, _RINGS + 1) / _RINGS)[:, None, None]
    rings = (1 - shares) ** 2 * start + 2 * shares * (1 - shares) * middle + shares**2 * end
    return rings, _ring_places(rings, start, shares, neck, points, photo, rim)


def _ring_places(
    rings: Array, start: Array, shares: Array, neck: Array, points: Array, photo: Array, rim: npt.NDArray[np.intp]
) -> Array:
    """Where the rings lie in the photograph: over the hair, which is fuller there than the skull, and down the neck."""
    scale, shift = _similar(points, photo)
    frontal = rings[..., :2] * [1, -1] * scale + shift
    offset = photo[rim] - (start[:, :2] * [1, -1] * scale + shift)
    centre = photo[rim].mean(axis=0)
    hair = centre + (frontal - centre) * (1 + np.array([0.06, 0.14]) * _smooth(shares)) + offset * (1 - shares)
    lowest = np.maximum(_LOBE, photo[rim, 1:]) + (_LOBE - np.maximum(_LOBE, photo[rim, 1:])) * np.minimum(1, 3 * shares)
    hair[..., 1:] = np.minimum(hair[..., 1:], lowest)
    narrow = centre[0] + (photo[rim, :1] - centre[0]) * (1 - 0.35 * _smooth(np.minimum(1, 2 * shares)))
    down = photo[rim, 1:] + (_COLLAR - photo[rim, 1:]) * np.minimum(1, 2.0 * shares)
    throat = np.concatenate([narrow + 0 * down, down + 0 * narrow], axis=-1)
    return np.asarray(np.clip(hair + neck * (throat - hair), 0.01, 0.99))


def _similar(points: Array, photo: Array) -> tuple[float, Array]:
    """Scale and shift that bring the frontal view of the mesh nearest to the photograph."""
    flat = points[:CONTROL_POINTS, :2] * [1, -1]
    middle, there = flat.mean(axis=0), photo.mean(axis=0)
    scale = float(((flat - middle) * (photo - there)).sum() / ((flat - middle) ** 2).sum())
    return scale, there - scale * middle


def _smooth(share: Array) -> Array:
    return np.asarray(share * share * (3 - 2 * share))


def round_bump(points: Array, centre: Array, radius: float) -> Array:
    """A round bump over points, (n, 1)."""
    return np.asarray(np.exp(-0.5 * ((points - centre) ** 2).sum(axis=1) / radius**2))[:, None]


# --- action units


@functools.cache
def action_unit_fields() -> AUField:
    """Displacement by each action unit and side, over the cage; the larger of both sides 1 cm at its peak."""
    points = cage().points
    flip = np.array([-1.0, 1.0, 1.0])
    lower = _below_the_mouth(points)
    lips = {"": 1.0, "lower": lower, "upper": 1 - lower}
    fields: AUField = {}
    text = resources.files("flowkit.assets").joinpath("action_units.csv").read_text(encoding="utf-8")
    for row in csv.DictReader(text.splitlines()):
        unit, side = int(row["au"]), row["side"]
        vector = np.array([float(row[name]) for name in ("dx_cm", "dy_cm", "dz_cm")])
        bump = round_bump(points, points[int(row["landmark"])], float(row["radius_cm"])) * vector * lips[row["lip"]]
        fields[unit, side] = fields.get((unit, side), np.zeros_like(points)) + bump
    for unit in {unit for unit, side in fields if side == LEFT}:
        fields[unit, RIGHT] = fields[unit, LEFT][cage().mirror] * flip
    for key, field in fields.items():
        fields[key] = field / np.linalg.norm(field[:CONTROL_POINTS], axis=1).max()
    for eye, side in enumerate((RIGHT, LEFT)):
        fields[BLINK, side] = _lids_closed(points, eye)
    return fields


def _below_the_mouth(points: Array) -> Array:
    """Share (C, 1) to which each point follows the lower lip, not the upper: a step between the lips, gradual beside the mouth."""
    half = len(INNER_LIPS) // 2
    upper, lower = points[list(INNER_LIPS[1:half])], points[list(INNER_LIPS[:half:-1])]
    line = (upper + lower) / 2
    height = np.interp(points[:, 0], line[:, 0], line[:, 1])
    softness = np.clip(0.005 + 0.9 * (np.abs(points[:, 0]) - 1.9), 0.005, 1.2)
    return np.asarray(1 / (1 + np.exp(np.clip((points[:, 1] - height) / softness, -50, 50))))[:, None]


def _lids_closed(points: Array, eye: int) -> Array:
    """The displacement that closes an eye: the lids meet, corners and brow stay. Interpolated by Gaussians of half a centimetre."""
    upper, lower = list(UPPER_LIDS[eye]), list(LOWER_LIDS[eye])
    ring = EYES[eye]
    corners = [ring[0], ring[8]]
    brow = [46, 53, 52, 65, 55] if eye == 0 else [276, 283, 282, 295, 285]
    cheek = [111, 117, 118, 119, 120] if eye == 0 else [340, 346, 347, 348, 349]
    gap = points[upper] - points[lower]
    targets = np.concatenate([-0.88 * gap, 0.12 * gap, np.zeros((len(corners + brow + cheek), 3))])
    at = points[upper + lower + corners + brow + cheek]

    def kernel(where: Array) -> Array:
        return np.asarray(np.exp(-0.5 * ((where[:, None] - at[None]) ** 2).sum(axis=2) / 0.45**2))

    weights = np.linalg.solve(kernel(at) + 1e-3 * np.eye(len(at)), targets)
    return kernel(points) @ weights
