"""The heads that `flowkit synth` renders: a smooth surface, and how people differ.

Two steps of Loop subdivision make the cage of `face.face_mesh` smooth enough to be rendered. Behind its openings lie two eyeballs
and the inside of the mouth. Everything is a field over the points of the cage and is refined together with it: positions, places
in the photograph, the smooth changes that make one person differ from another, and the displacement by each action unit.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flowkit.face.face_mesh import (
    CONTROL_POINTS,
    INNER_LIPS,
    Array,
    AUField,
    Triangles,
    action_unit_fields,
    cage,
    round_bump,
)
from flowkit.face.landmarks import EYES

SKIN, HAIR, EYE, MOUTH = 1, 2, 3, 4
"""Parts of a head: the face inside its outline; hair, ears and neck; eyeballs; inside of the mouth."""
SUBDIVISIONS = 2
_EYE_BEHIND_CM = 0.35
"""How far the front of an eyeball lies behind the rim of its opening, so that lids pass in front of it."""
_MOUTH_BEHIND_CM = 0.7


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
                field += round_bump(points, points[centre], radius) * vector
        fields.append(field * np.linalg.norm(bumps[0][1]) / np.linalg.norm(field, axis=1).max())
    rng = np.random.default_rng(0)
    for _ in range(_UNEVEN_FIELDS):
        centre = points[rng.integers(CONTROL_POINTS)]
        fields.append(round_bump(points, centre, _UNEVEN_RADIUS_CM) * rng.standard_normal(3) * _UNEVEN_CM)
    return np.stack(fields)


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
