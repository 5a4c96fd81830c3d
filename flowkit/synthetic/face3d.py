"""A second head for `flowkit synth --face3d`: ICT-FaceKit's morphable face, from its folder or from a face3d.npz.

Nothing of it is in this package; `face3d_files.py` reads it. Its shapes are sculpted after scans, its people are those of a scanned
population: a face that our own head and its action units know nothing of, to judge by.

What the model does not bring is made here. *Landmarks:* MediaPipe's canonical mesh is bent onto the face by the points that both
have names for; each landmark is the point of the skin nearest to it. *Places in the photograph:* inside the face a smooth map from
the model's own texture coordinates, in which lips and lids lie apart, through the landmarks; outside, scalp and neck take places of
the canonical head's hair and neck that lie in the same direction, so that none shows the photograph's background. *Behind the
openings:* a dark sheet behind the lips, and one behind each eyeball.

Units and axes are those of `head.py`.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from flowkit.errors import ConfigError
from flowkit.face.face_mesh import (
    BLINK,
    BOTH,
    CONTROL_POINTS,
    LEFT,
    RIGHT,
    Array,
    AUField,
    cage,
    canonical_mesh,
    photo_landmarks,
)
from flowkit.face.landmarks import FACE_OVAL
from flowkit.synthetic.face3d_files import EYEBALLS, FACE, SCALP, SHAPES, WHOLE, FaceModel, Index, read_face
from flowkit.synthetic.head import EYE, HAIR, MOUTH, SKIN, Head, Inset, refinements, sheet

_IBUG = {
    **dict(
        zip((3, 8, 13), (132, 152, 361), strict=True)
    ),  # of the jaw only these: the others are outlines, which move with the view
    **dict(zip(range(17, 27), (70, 63, 105, 66, 107, 336, 296, 334, 293, 300), strict=True)),
    **dict(zip(range(27, 36), (168, 197, 5, 4, 98, 97, 2, 326, 327), strict=True)),
    **dict(zip(range(36, 48), (33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380), strict=True)),
    **dict(zip(range(48, 60), (61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181), strict=True)),
    **dict(zip(range(60, 68), (78, 81, 13, 311, 308, 402, 14, 178), strict=True)),
}
"""Points of iBUG's 68 and the landmarks of MediaPipe at the same place of a face."""
_EYE_RINGS, _INNER_LIPS = (slice(36, 42), slice(42, 48)), slice(60, 68)
"""Of the 68: the image's left and right eye, the inner lips."""
_SMOOTHING_CM = 1.0
"""How loosely the canonical mesh follows the named points."""
_SMOOTHING_PHOTO = 3e-5
"""How loosely the photograph follows the landmarks."""
_FARTHEST_CM = 1.5
"""Root mean square distance between the named points of two faces, beyond which one of them is none."""
_CENTRE_CM = np.array([0.0, 0.0, -4.0])
"""Middle of the head, from which directions are taken."""
_DIRECTION_WIDTH = 0.07
"""Radius, in radians, over which places of the canonical head are averaged."""
_EYE_TILE_CM = np.array([3.22, 2.39])
"""Width and height of the eye's picture on the eyeball."""
_IRIS_CM = 0.45
_BEHIND_EYE_CM, _BEHIND_LIPS_CM = 0.7, 1.5
_EYEBALL_BACK_CM = 0.1
"""How far eyeballs are moved back, so that lids pass in front of them on most people."""
_CLOSED = 1.15
"""Weight of the model's blink that closes the eyes of most people: they differ in how wide theirs are open."""
_CHEEK, _NECK_WIDTH = 0.7, 0.1
"""Share of the face's width in the photograph beyond which places are drawn in; half the width of its neck."""
_EAR_CM = 7.0
"""How far from the middle of the head ears begin, and how high they reach."""
_EAR_TOP_CM = 2.9
_GET = "Get the file or folder again, or leave --face3d out."
_PARTS = np.array([SKIN, HAIR, EYE])
"""Part of a head for each part of the model."""


@functools.lru_cache(maxsize=4)
def load_head(path: str | Path) -> Head:
    """The head that a file or folder describes; read once for each path.

    Parameters
    ----------
    path : str or Path
        A face3d.npz, or a folder of ICT-FaceKit (FaceXModel, or the one above it).

    Returns
    -------
    Head
        With the keys of `canonical_head` in `action_units`.

    Raises
    ------
    ConfigError
        There is no such file or folder, something is missing in it, or it is no such face.

    Examples
    --------
    >>> load_head("ICT-FaceKit/FaceXModel").name  # doctest: +SKIP
    'face3d'
    """
    face = read_face(Path(path))
    points = face.points + _shift(Path(path), face)
    points[face.part == EYEBALLS, 2] -= _EYEBALL_BACK_CM
    sheets = _behind_openings(points, face)
    nearest = _landmarks(points, face)
    try:
        photo = _photo_places(points, face, nearest[:CONTROL_POINTS])
    except np.linalg.LinAlgError as error:
        raise ConfigError(f"{path}: uv must lay the face out flat; got places that do not. {_GET}") from error
    eyeballs = face.part == EYEBALLS
    photo[eyeballs] = _eye_places(points[eyeballs], points, face)
    starts = np.cumsum([len(points), *(len(one.points) for one in sheets)])
    triangles = [face.triangles, *(one.triangles + start for one, start in zip(sheets, starts, strict=False))]
    return Head(
        points=np.concatenate([points, *(one.points for one in sheets)]),
        triangles=np.concatenate(triangles).astype(np.int32),
        part=np.concatenate([_PARTS[face.part], *(np.full(len(one.points), one.part) for one in sheets)]).astype(
            np.uint8
        ),
        landmark=nearest if face.mediapipe is None else _given(points, face, face.mediapipe),
        photo=np.concatenate([photo, *(one.place for one in sheets)]),
        differences=np.stack([_with(sheets, field, follow=True) for field in face.identities]),
        action_units={key: _with(sheets, field, follow=False) for key, field in _action_units(face).items()},
        name="face3d",
    )


# --- where the face lies, and its landmarks


def _shift(path: Path, face: FaceModel) -> Array:
    """What brings the face to where the canonical head is, cm."""
    named = canonical_mesh()[0][list(_IBUG.values())]
    there = face.points[face.landmarks_68[list(_IBUG)]]
    shift = (named - there).mean(axis=0)
    apart = float(np.sqrt(((there + shift - named) ** 2).sum(axis=1).mean()))
    if apart > _FARTHEST_CM:
        raise ConfigError(
            f"{path}: the 68 landmarks must lie as in a face, in cm; got points {apart:.3g} cm from there. {_GET}"
        )
    return np.asarray(shift)


def _landmarks(points: Array, face: FaceModel) -> Index:
    """The points nearest to MediaPipe's landmarks, (478,), by way of the landmarks that have names."""
    canonical, _ = canonical_mesh()
    named = points[face.landmarks_68[list(_IBUG)]]
    bent = _spline(canonical[list(_IBUG.values())], named, canonical, power=1, smoothing=_SMOOTHING_CM)
    on_skin = np.flatnonzero(face.part != EYEBALLS)
    nearest = [on_skin[_nearest(points[on_skin], place)] for place in bent]
    balls = np.flatnonzero(face.part == EYEBALLS)
    for eye in (0, 1):
        middle = _eye_middle(points, face, eye)
        for x, y in ((0, 0), (_IRIS_CM, 0), (0, _IRIS_CM), (-_IRIS_CM, 0), (0, -_IRIS_CM)):
            nearest.append(balls[_nearest(points[balls, :2], middle + np.array([x, y]))])
    return np.array(nearest)


def _given(points: Array, face: FaceModel, mediapipe: Index) -> Index:
    """Landmarks as the file has them; what is not of the iris goes to the skin, which covers the eyeball where the lids are."""
    on_skin = np.flatnonzero(face.part != EYEBALLS)
    nearest = [on_skin[_nearest(points[on_skin], points[point])] for point in mediapipe[:CONTROL_POINTS]]
    return np.append(nearest, mediapipe[CONTROL_POINTS:])


def _nearest(points: Array, place: Array) -> int:
    return int(np.argmin(((points - place) ** 2).sum(axis=1)))


def _spline(at: Array, values: Array, where: Array, power: int, smoothing: float) -> Array:
    """Values given at some places, (n, d) and (n, k), at others, (m, d): the smoothest surface near them, linear far away.

    The kernel is the distance (`power` 1) or its cube (3).
    """

    def kernel(places: Array) -> Array:
        square = (places**2).sum(axis=1)[:, None] + (at**2).sum(axis=1) - 2 * places @ at.T
        return np.asarray((power - 2) * np.maximum(square, 0) ** (power / 2))

    def linear(places: Array) -> Array:
        return np.column_stack([np.ones(len(places)), places])

    count, terms = len(at), at.shape[1] + 1
    system = np.zeros((count + terms, count + terms))
    system[:count, :count] = kernel(at) + smoothing * np.eye(count)
    system[:count, count:] = linear(at)
    system[count:, :count] = linear(at).T
    weights = np.linalg.solve(system, np.concatenate([values, np.zeros((terms, values.shape[1]))]))
    return np.asarray(kernel(where) @ weights[:count] + linear(where) @ weights[count:])


# --- where the face lies in the photograph


def _photo_places(points: Array, face: FaceModel, landmarks: Index) -> Array:
    """Places of all points in the photograph, (V, 2)."""
    around, share = _places_by_direction(points)
    inside = _spline(face.uv[landmarks], photo_landmarks(), face.uv, power=3, smoothing=_SMOOTHING_PHOTO)
    places = _off_the_edge(around + share[:, None] * (inside - around))
    ear = _smooth((np.abs(points[:, 0]) - _EAR_CM) / 0.5) * _smooth((_EAR_TOP_CM - points[:, 1]) / 0.5)
    ear *= _smooth((points[:, 1] + 4.5) / 0.5) * (face.part == SCALP)
    bare = np.column_stack([0.5 + 0.16 * np.sign(points[:, 0]), 0.5 - 0.02 * points[:, 1]])
    places += ear[:, None] * (bare - places)
    return np.clip(places, 0.01, 0.99)


def _off_the_edge(places: Array) -> Array:
    """Places of cheeks, jaw and neck moved sideways, off the outline of the photograph's face, where its background shines in."""
    photo = photo_landmarks()
    moved = places.copy()
    below = _smooth((places[:, 1] - 0.40) / 0.05)
    for outline, side in ((FACE_OVAL[1:18], 1), (FACE_OVAL[:18:-1], -1)):
        rim = photo[list(outline)]
        middle = photo[[10, 152], 0].mean()
        width = np.maximum(side * (np.interp(places[:, 1], rim[:, 1], rim[:, 0]) - middle), _NECK_WIDTH)
        share = side * (places[:, 0] - middle) / width
        beyond = np.maximum(share - _CHEEK, 0) / (1 - _CHEEK)
        moved[:, 0] -= side * below * width * (1 - _CHEEK) * (beyond - 0.8 * np.tanh(beyond / 0.8))
    return moved


def _smooth(share: Array) -> Array:
    share = np.clip(share, 0, 1)
    return np.asarray(share * share * (3 - 2 * share))


def _places_by_direction(points: Array) -> tuple[Array, Array]:
    """Places of the canonical head in the same directions, (V, 2), and the share of its face among them, (V,)."""
    base, step = cage(), refinements()[0]
    there, places, is_face = step(base.points), step(base.photo), step(base.is_face.astype(np.float64))
    cosine = _directions(points) @ _directions(there).T
    weights = np.exp((cosine - cosine.max(axis=1, keepdims=True)) / _DIRECTION_WIDTH**2)
    weights /= weights.sum(axis=1, keepdims=True)
    return weights @ places, _smooth(2 * (weights @ is_face) - 0.5)


def _directions(points: Array) -> Array:
    apart = points - _CENTRE_CM
    return np.asarray(apart / np.linalg.norm(apart, axis=1, keepdims=True))


def _eye_places(eye_points: Array, points: Array, face: FaceModel) -> Array:
    """Places in the eye's picture, whose middle is that of the eyeball seen from the front."""
    middles = np.stack([_eye_middle(points, face, eye) for eye in (0, 1)])
    own = middles[(eye_points[:, 0] > 0).astype(int)]
    return np.asarray(np.clip(0.5 + (eye_points[:, :2] - own) / (_EYE_TILE_CM * [1, -1]), 0.0, 1.0))


def _eye_middle(points: Array, face: FaceModel, eye: int) -> Array:
    """X and y of the middle of the image's left (0) or right (1) eyeball."""
    ball = points[(face.part == EYEBALLS) & ((points[:, 0] > 0) == bool(eye)), :2]
    return np.asarray((ball.min(axis=0) + ball.max(axis=0)) / 2)


# --- behind the openings


def _behind_openings(points: Array, face: FaceModel) -> tuple[Inset, ...]:
    """Sheets behind both eyeballs, seen where lids and eyeball leave a gap, and one behind the lips."""
    eyes = []
    for ring in _EYE_RINGS:
        rim = face.landmarks_68[ring]
        there, triangles, _ = sheet(points[rim], (1.7, 2.0, 0.8), _BEHIND_EYE_CM)
        eyes.append(Inset(there, triangles, _eye_places(there, points, face), rim, EYE))
    rim = face.landmarks_68[_INNER_LIPS]
    return (*eyes, Inset(*sheet(points[rim], (3.8, 2.0, 3.0), _BEHIND_LIPS_CM), rim, MOUTH))


def _with(sheets: tuple[Inset, ...], field: Array, follow: bool) -> Array:
    """A field over the face, over the whole head: a sheet goes along with the rim of its opening, or stays."""
    moved = [field[one.rim].mean(axis=0) if follow else np.zeros(3) for one in sheets]
    return np.concatenate([field, *(np.tile(by, (len(one.points), 1)) for one, by in zip(sheets, moved, strict=True))])


# --- action units


def _action_units(face: FaceModel) -> AUField:
    """Displacement by each action unit and side; the larger of both sides 1 cm at its peak, but lids just closed."""
    fields: AUField = {}
    skin = face.part == FACE
    for unit, bases in SHAPES.items():
        sides = {BOTH: ""} if bases[0] in WHOLE else {LEFT: "_L", RIGHT: "_R"}
        nothing = np.zeros_like(face.points)
        sums = {side: sum((face.shapes[base + end] for base in bases), nothing) for side, end in sides.items()}
        peak = max(np.linalg.norm(field[skin], axis=1).max() for field in sums.values())
        for side, field in sums.items():
            fields[unit, side] = _CLOSED * field if unit == BLINK else field / (peak or 1)
    return fields
