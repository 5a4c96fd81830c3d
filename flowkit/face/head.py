"""The geometry of heads that `flowkit synth` renders: a surface, how people differ, and how action units move it.

The face is the canonical mesh of MediaPipe, which the bundled face model holds: 468 points whose numbers are those of the
landmarks. Around it we put hair, ears and neck (rings that run outward and backward from the outline of the face), behind its
openings two eyeballs and the inside of the mouth. Two steps of Loop subdivision make the whole smooth enough to be rendered.

Everything is a field over the points of the *cage*, the coarse mesh, and is refined together with it: positions, places in the
photograph, the smooth changes that make one person differ from another, and the displacement by each action unit.

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

SKIN, HAIR, EYE, MOUTH = 1, 2, 3, 4
"""Parts of a head: the face inside its outline; hair, ears and neck; eyeballs; inside of the mouth."""
CONTROL_POINTS = 468
SUBDIVISIONS = 2
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
_EYE_RADIUS_CM = 1.25
_EYE_BEHIND_CM = 0.35
"""How far the front of an eyeball lies behind the rim of its opening, so that lids pass in front of it."""
_MOUTH_BEHIND_CM = 0.7

AUField = dict[tuple[int, str], Array]


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """A surface that can be somebody's, and move.

    Attributes
    ----------
    points : (V, 3) float64
        The mean head, cm.
    triangles : (T, 3) int32
        Counter-clockwise as seen from outside.
    part : (V,) uint8
        `SKIN`, `HAIR`, `EYE` or `MOUTH`.
    landmark : (478,) int
        The point at or nearest to each landmark of MediaPipe.
    photo : (V, 2) float64
        Where each point of skin and hair lies in the bundled photograph, in units of its side, from its left upper corner; for eyes
        and mouth where it lies in a picture of its own, likewise.
    differences : (K, V, 3) float64
        How people differ: weights are drawn from a normal distribution of variance 1; cm.
    action_units : mapping of (int, str) to (V, 3) float64
        Displacement by an action unit on one side, the larger of both sides 1 cm at its peak.
    name : str
    """

    points: Array
    triangles: Triangles
    part: npt.NDArray[np.uint8]
    landmark: npt.NDArray[np.intp]
    photo: Array
    differences: Array
    action_units: AUField
    name: str


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


# --- refinement


@dataclass(frozen=True, slots=True, eq=False)
class Refinement:
    """One step of Loop subdivision: old points first, then one for each edge.

    Attributes
    ----------
    source, weight : (n, w) int, float64
        Each new point is the weighted sum of old ones.
    triangles : (T, 3) int32
    """

    source: npt.NDArray[np.intp]
    weight: Array
    triangles: Triangles

    def __call__(self, values: Array) -> Array:
        """What old points (V, ...) carry, at the new points."""
        result = np.zeros((len(self.source), *values.shape[1:]))
        for column in range(self.source.shape[1]):
            weight = self.weight[:, column].reshape(-1, *[1] * (values.ndim - 1))
            result += weight * values[self.source[:, column]]
        return result


def subdivision(triangles: Triangles, count: int) -> Refinement:
    """The refinement of a mesh of `count` points (Loop, 1987; at open edges the rule for curves)."""
    corners = triangles.astype(np.intp)
    sides = np.concatenate([corners[:, [0, 1]], corners[:, [1, 2]], corners[:, [2, 0]]])
    opposite = np.concatenate([corners[:, 2], corners[:, 0], corners[:, 1]])
    edges, which, uses = np.unique(np.sort(sides, axis=1), axis=0, return_inverse=True, return_counts=True)
    which = which.reshape(-1)
    first = np.unique(which, return_index=True)[1]
    last = len(which) - 1 - np.unique(which[::-1], return_index=True)[1]
    across = np.stack([opposite[first], opposite[last]], axis=1)
    open_edge = uses == 1
    edge_source = np.concatenate([edges, across], axis=1)
    edge_weight = np.where(open_edge[:, None], [0.5, 0.5, 0, 0], [0.375, 0.375, 0.125, 0.125])

    neighbours: list[list[int]] = [[] for _ in range(count)]
    rim: list[list[int]] = [[] for _ in range(count)]
    for (a, b), is_open in zip(edges.tolist(), open_edge.tolist(), strict=True):
        neighbours[a].append(b)
        neighbours[b].append(a)
        if is_open:
            rim[a].append(b)
            rim[b].append(a)
    most = max(map(len, neighbours))
    source, weight = np.zeros((count + len(edges), most + 1), np.intp), np.zeros((count + len(edges), most + 1))
    for i in range(count):
        around = rim[i] or neighbours[i]
        share = 0.125 if rim[i] else _loop_weight(len(around))
        source[i, : len(around) + 1] = [i, *around]
        weight[i, : len(around) + 1] = [1 - share * len(around), *[share] * len(around)]
    source[count:, :4], weight[count:, :4] = edge_source, edge_weight
    middle = count + which.reshape(3, -1)
    (a, b, c), (ab, bc, ca) = corners.T, middle
    finer = np.stack([a, ab, ca, ab, b, bc, ca, bc, c, ab, bc, ca], axis=1).reshape(-1, 3)
    return Refinement(source, weight, finer.astype(np.int32))


def _loop_weight(valence: int) -> float:
    return (0.625 - (0.375 + 0.25 * np.cos(2 * np.pi / valence)) ** 2) / valence if valence else 0.0


@functools.cache
def refinements() -> tuple[Refinement, ...]:
    """The steps from the cage to the rendered surface."""
    steps, triangles, count = [], cage().triangles, len(cage().points)
    for _ in range(SUBDIVISIONS):
        steps.append(subdivision(triangles, count))
        triangles, count = steps[-1].triangles, len(steps[-1].source)
    return tuple(steps)


def refined(values: Array) -> Array:
    """What the points of the cage carry, (C, ...), at those of the rendered surface."""
    for step in refinements():
        values = step(values)
    return values


# --- behind the openings


@dataclass(frozen=True, slots=True, eq=False)
class Inset:
    """A curved sheet behind an opening, which moves with the head and with no action unit.

    Attributes
    ----------
    points : (n, 3) float64
    triangles : (m, 3) int32
    place : (n, 2) float64
        In the picture of its own, unit square.
    rim : (r,) int
        Points of the cage around the opening; it follows their mean.
    part : int
    """

    points: Array
    triangles: Triangles
    place: Array
    rim: npt.NDArray[np.intp]
    part: int


@functools.cache
def insets() -> tuple[Inset, ...]:
    """Left eyeball, right eyeball, inside of the mouth."""
    eyes = [_inset(np.array(ring), (1.6, 1.1, 1.0), _EYE_BEHIND_CM, EYE) for ring in EYES]
    return (*eyes, _inset(np.array(INNER_LIPS), (3.4, 2.6, 1.4), _MOUTH_BEHIND_CM, MOUTH))


def _inset(rim: npt.NDArray[np.intp], axes: tuple[float, float, float], behind: float, part: int) -> Inset:
    """The front of an ellipsoid behind an opening of the cage."""
    return Inset(*sheet(cage().points[rim], axes, behind), rim, part)


def sheet(opening: Array, axes: tuple[float, float, float], behind: float) -> tuple[Array, Triangles, Array]:
    """The front of an ellipsoid behind an opening whose rim is given, (r, 3): points, triangles, places in its own picture."""
    columns, rows = np.meshgrid(np.linspace(-0.92, 0.92, 15), np.linspace(0.92, -0.92, 11))
    radius = np.minimum(np.hypot(columns, rows), 0.999)
    depth = np.sqrt(1 - radius**2) - 1
    middle = (opening.max(axis=0) + opening.min(axis=0)) / 2
    middle[2] = np.percentile(opening[:, 2], 60) - behind
    points = middle + np.stack([columns, rows, depth], axis=-1).reshape(-1, 3) * axes
    number = np.arange(columns.size).reshape(columns.shape)
    a, b, c, d = number[:-1, :-1], number[:-1, 1:], number[1:, :-1], number[1:, 1:]
    triangles = np.concatenate([np.stack(t, axis=-1).reshape(-1, 3) for t in ((a, c, b), (b, c, d))])
    place = np.stack([columns, -rows], axis=-1).reshape(-1, 2) / 2 + 0.5
    return points, triangles.astype(np.int32), place


# --- how people differ

_Difference = tuple[tuple[int, ...], tuple[float, float, float], float]
DIFFERENCES: dict[str, tuple[_Difference, ...]] = {
    "nose length": (((1, 2, 4), (0, -0.28, 0.05), 1.1),),
    "nose depth": (((1, 4, 5), (0, 0.05, 0.4), 1.0),),
    "nose bridge": (((6, 197, 195), (0, 0, 0.22), 0.8),),
    "nose width": (((64, 294), (0.2, 0, 0), 0.7),),
    "eye distance": (((33, 133, 159, 145), (0.2, 0, 0), 1.2),),
    "eye height": (((33, 133, 159, 145), (0, 0.2, 0), 1.4),),
    "eye tilt": (((33, 130), (0, 0.18, 0), 0.8), ((133, 243), (0, -0.1, 0), 0.6)),
    "eye opening": (((159, 158, 160), (0, 0.1, 0), 0.5), ((145, 144, 153), (0, -0.06, 0), 0.5)),
    "brow height": (((105, 66, 63), (0, 0.25, 0.05), 1.2),),
    "brow ridge": (((105, 66, 107, 9), (0, 0, 0.18), 1.1),),
    "mouth width": (((61, 291), (0.28, 0, -0.05), 1.1),),
    "mouth height": (((0, 17, 13, 14, 61, 291), (0, 0.22, 0), 1.6),),
    "lip fullness": (((0, 37, 267), (0, 0.12, 0.1), 0.6), ((17, 84, 314), (0, -0.14, 0.12), 0.6)),
    "chin length": (((152, 148, 377), (0, -0.5, 0), 2.2),),
    "chin depth": (((152, 199, 175), (0, 0, 0.35), 1.6),),
    "jaw width": (((172, 136, 58), (0.5, 0, 0), 2.4),),
    "cheek fullness": (((205, 50, 187), (0.3, 0, 0.25), 1.7),),
    "cheekbone": (((117, 111, 116), (0.25, 0.05, 0.2), 1.4),),
    "forehead": (((10, 151, 67, 297), (0, 0.1, 0.35), 2.4),),
    "temple": (((127, 162, 21), (0.35, 0, 0), 2.2),),
}
"""Smooth changes of proportion: round bumps about landmarks, displacement outward, up and
forward at one standard deviation (cm), radius (cm). What is listed for one side happens on the other too."""
_PROPORTIONS = np.array([0.035, 0.045, 0.05])
"""Standard deviation of width, height and depth, relative."""
_UNEVEN_CM, _UNEVEN_RADIUS_CM, _UNEVEN_FIELDS = 0.07, 3.0, 14
"""Smooth changes that no list names, and that are not the same on both sides."""


def _cage_differences() -> Array:
    """(K, C, 3): how people differ, over the cage."""
    points = cage().points
    fields = [np.eye(3)[axis] * share * points for axis, share in enumerate(_PROPORTIONS)]
    for bumps in DIFFERENCES.values():
        field = np.zeros_like(points)
        for centres, (outward, up, forward), radius in bumps:
            for centre in {*centres, *cage().mirror[list(centres)].tolist()}:
                vector = [np.sign(round(points[centre, 0], 3)) * outward, up, forward]
                field += _round(points, points[centre], radius) * vector
        fields.append(field * np.linalg.norm(bumps[0][1]) / np.linalg.norm(field, axis=1).max())
    rng = np.random.default_rng(0)
    for _ in range(_UNEVEN_FIELDS):
        centre = points[rng.integers(CONTROL_POINTS)]
        fields.append(_round(points, centre, _UNEVEN_RADIUS_CM) * rng.standard_normal(3) * _UNEVEN_CM)
    return np.stack(fields)


def _round(points: Array, centre: Array, radius: float) -> Array:
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
        bump = _round(points, points[int(row["landmark"])], float(row["radius_cm"])) * vector * lips[row["lip"]]
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


# --- the head


@functools.cache
def canonical_head() -> Head:
    """The project's own head."""
    base, sheets = cage(), insets()
    is_face = refined(base.is_face.astype(np.float64)) > 0.5
    skin = refined(base.points)
    starts = np.cumsum([len(skin), *(len(sheet.points) for sheet in sheets)])
    part = np.concatenate([np.where(is_face, SKIN, HAIR), *(np.full(len(s.points), s.part) for s in sheets)])
    triangles = [refinements()[-1].triangles]
    triangles += [sheet.triangles + start for sheet, start in zip(sheets, starts, strict=False)]
    differences = _cage_differences()
    return Head(
        points=np.concatenate([skin, *(sheet.points for sheet in sheets)]),
        triangles=np.concatenate(triangles).astype(np.int32),
        part=part.astype(np.uint8),
        landmark=np.concatenate([np.arange(CONTROL_POINTS), _irises(starts)]),
        photo=np.concatenate([refined(base.photo), *(sheet.place for sheet in sheets)]),
        differences=np.stack([_with_insets(field, follow=True) for field in differences]),
        action_units={key: _with_insets(field, follow=False) for key, field in action_unit_fields().items()},
        name="canonical",
    )


def _irises(starts: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Points of the eyeballs nearest to landmarks 468 to 477: the middle and four sides of each iris."""
    columns, rows = 15, 11
    offsets = (0, 1, -columns, -1, columns)
    middle = (rows // 2) * columns + columns // 2
    return np.array([starts[eye] + middle + offset for eye in (0, 1) for offset in offsets])


def _with_insets(field: Array, follow: bool) -> Array:
    """A field over the cage, over the whole head: what lies behind an opening goes along with its rim, or stays."""
    behind = [
        np.tile(field[sheet.rim].mean(axis=0) if follow else np.zeros(3), (len(sheet.points), 1)) for sheet in insets()
    ]
    return np.concatenate([refined(field), *behind])
