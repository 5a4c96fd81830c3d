"""Synthetic people: the shape of a head, a skin, and the light that it is in.

A person's *texture* is one picture in the coordinates of the bundled photograph at twice its size, with two tiles at its right
side: an eye and the inside of a mouth. It starts from the photograph, or from its mirror image laid over the same features, or
from a mixture of both that changes from place to place. Then come features that the photograph does not have: other brows, lips,
hair and skin tone, a bare forehead, freckles, wrinkles, a shadow of a beard, and the texture of skin.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from importlib import resources

import cv2
import numpy as np
import numpy.typing as npt

from flowkit.face.face_mesh import BLINK, INNER_LIPS, Array, AUField, cage, photo_landmarks
from flowkit.face.landmarks import BROWS, EYES, FACE_OVAL, LIPS
from flowkit.synthetic.draws import generator
from flowkit.synthetic.head import EYE, MOUTH, SKIN, Head, canonical_head, refined, refinements
from flowkit_kernels.cpu import rasteriser

Grey = npt.NDArray[np.float32]

TEXTURE_PX = 600
"""Side of the part of a texture that comes from the photograph."""
EYE_TILE, MOUTH_TILE = (56, 44), (64, 48)
"""Width and height of the tiles, px."""
LUMA = (0.299, 0.587, 0.114)
SKIN_TONE = (0.4, 1.05)
"""Grey value of the skin relative to the photograph's, whose face is light (about 190)."""
_TILE_GAP = 8
_IRIS = 0.19
"""Radius, in heights of the eye's tile."""


@dataclass(frozen=True, slots=True, eq=False)
class Person:
    """One synthetic person.

    Attributes
    ----------
    name : str
    head : Head
    points : (V, 3) float64
        At rest, cm.
    action_units : mapping of (int, str) to (V, 3) float64
        As this person carries them out.
    texture : (h, w) float32
        Grey values.
    places : (V, 2) float32
        Where in the texture each point lies, px.
    lamp : (3,) float64
        Unit vector towards the light.
    ambient : float
        Share of the light that comes from everywhere.
    """

    name: str
    head: Head
    points: Array
    action_units: AUField
    texture: Grey
    places: Grey
    lamp: Array
    ambient: float


def make_person(name: str, seed: int, head: Head | None = None, tone: tuple[float, float] = SKIN_TONE) -> Person:
    """Return a person: the same for the same name, seed and head, whoever else is in the data set.

    Parameters
    ----------
    name : str
    seed : int
    head : Head, optional
        `canonical_head` by default.
    tone : (float, float)
        Range of the skin tone.

    Examples
    --------
    >>> make_person("s01", 0).texture.dtype
    dtype('float32')
    """
    head = head or canonical_head()
    shape, skin, habits = (generator(seed, f"{name}/{part}") for part in ("shape", "skin", "habits"))
    points = own_points(head, shape)
    lamp = np.array([*habits.normal(0, 0.3, 2), 1.0])
    return Person(
        name=name,
        head=head,
        points=points,
        action_units=own_movements(head, habits),
        texture=_texture(skin, tone),
        places=texture_places(head).astype(np.float32),
        lamp=lamp / np.linalg.norm(lamp),
        ambient=float(habits.uniform(0.55, 0.8)),
    )


def own_points(head: Head, rng: np.random.Generator) -> Array:
    """Return the head at rest of one person, (V, 3), cm."""
    weights = np.clip(rng.standard_normal(len(head.differences)), -2.5, 2.5)
    return np.asarray(head.points + np.tensordot(weights, head.differences, 1))


def own_movements(head: Head, rng: np.random.Generator) -> AUField:
    """Return one person's way of moving: action units turned by some degrees, stronger here and weaker there, unequal by side."""
    span = head.points[head.part == SKIN].std(axis=0).max()
    moved = {}
    for key in sorted(head.action_units):
        field = head.action_units[key]
        angles = rng.normal(0, np.radians(8), 3)
        turn = np.eye(3) + np.cross(np.eye(3), angles)  # small angles
        wave = np.cos(head.points @ (rng.normal(0, 0.7, 3) / span) + rng.uniform(0, 2 * np.pi))
        gain = rng.uniform(0.85, 1.15) * (1 + 0.2 * wave)
        moved[key] = field if key[0] == BLINK else (field @ turn.T) * gain[:, None]
    return moved


def texture_places(head: Head) -> Array:
    """Where in a texture each point of a head lies, px of pixel centres."""
    places = head.photo * TEXTURE_PX - 0.5
    for part, (left, top, width, height) in ((EYE, _tile(EYE)), (MOUTH, _tile(MOUTH))):
        mine = head.part == part
        places[mine] = [left, top] + head.photo[mine] * [width - 1, height - 1]
    return places


def _tile(part: int) -> tuple[int, int, int, int]:
    """Left, top, width and height of a tile."""
    left = TEXTURE_PX + _TILE_GAP
    if part == EYE:
        return left, _TILE_GAP, *EYE_TILE
    return left, 2 * _TILE_GAP + EYE_TILE[1], *MOUTH_TILE


# --- the skin


def _texture(rng: np.random.Generator, tone: tuple[float, float]) -> Grey:
    """One person's texture."""
    photo, mirrored = photograph()
    share = _mixture(rng)
    skin = photo * (1 - share) + mirrored * share
    skin = _contrast_of_features(skin, rng)
    if rng.random() < 0.6:
        skin = _bare_forehead(skin, rng)
    skin = _brows(skin, rng)
    skin = skin * (1 + rng.uniform(-0.25, 0.05) * _soft(_polygon(LIPS), 3))
    if rng.random() < 0.3:
        skin = _beard(skin, rng)
    skin = _spots(_wrinkles(skin, rng), rng)
    skin = skin + _grain(rng)
    face = _soft(_polygon(FACE_OVAL), 10)
    colour = rng.uniform(*tone)
    around = _around(skin, colour, rng)
    contrast, brightness = rng.uniform(0.8, 0.95), rng.uniform(-6, 6)
    lit = 118 + contrast * (skin * colour * face + around * (1 - face) - 118) + brightness
    return _with_tiles(np.clip(lit, 10, 235).astype(np.float32), colour, rng)


def _around(skin: Grey, colour: float, rng: np.random.Generator) -> Grey:
    """Hair of another shade, neck and ears of this skin, another collar; no background of the photograph."""
    hair, cloth = rng.uniform(0.25, 1.25), rng.uniform(0.4, 3.0)
    rows, columns = np.indices(skin.shape)
    middle = _points()[:, 0].mean()
    beside = _soft(np.asarray((rows > 250) & (np.abs(columns - middle) > 68), np.float32), 4)
    throat = float(np.median(skin[362:370, int(middle) - 40 : int(middle) + 40]))
    skin = skin + beside * (throat - skin)
    below, collar = (_soft(np.asarray(rows > row, np.float32), px) for row, px in ((250, 6), (392, 4)))
    body = (hair * (1 - below) + min(colour, 1.0) * below) * skin
    return np.asarray(body * (1 - collar) + collar * np.clip(cloth * skin, 12, 170), np.float32)


@functools.cache
def photograph() -> tuple[Grey, Grey]:
    """The bundled photograph as grey texture (600, 600), and its mirror image laid over the features of the photograph."""
    png = np.frombuffer(resources.files("flowkit.assets").joinpath("face.png").read_bytes(), np.uint8)
    bgr = np.asarray(cv2.imdecode(png, cv2.IMREAD_COLOR), np.float32)
    grey = bgr @ np.array(LUMA[::-1], np.float32)
    photo = np.asarray(cv2.resize(grey, (TEXTURE_PX, TEXTURE_PX), interpolation=cv2.INTER_CUBIC), np.float32)
    photo = _closed(photo)
    return photo, _mirrored(photo)


def _closed(photo: Grey) -> Grey:
    """The photograph with lips and lids in place of what shows between them: teeth and eyes are surfaces of their own."""
    openings = sum((_polygon(ring) for ring in (*EYES, INNER_LIPS)), np.zeros(photo.shape, np.float32))
    wide = cv2.dilate((openings > 0).astype(np.uint8), np.ones((5, 5), np.uint8))
    filled = cv2.inpaint(np.clip(np.rint(photo), 0, 255).astype(np.uint8), wide, 4, cv2.INPAINT_TELEA)
    return np.asarray(np.where(wide > 0, filled, photo), np.float32)


def _mirrored(photo: Grey) -> Grey:
    """The photograph with left and right exchanged, feature by feature: the right eye lies where the left one was."""
    frame, triangles = cage(), refinements()[-1].triangles
    places, other = (
        refined(frame.photo[index]) * TEXTURE_PX - 0.5 for index in (np.arange(len(frame.photo)), frame.mirror)
    )
    flat = np.column_stack([places, refined(frame.points)[:, 2]]).astype(np.float32)
    hit, inside = np.empty(photo.shape, np.int32), np.empty((*photo.shape, 2), np.float32)
    rasteriser.rasterise(flat, triangles, hit, inside, np.empty(photo.shape, np.float32))
    result = photo[:, ::-1].copy()
    rasteriser.shade(hit, inside, triangles, other.astype(np.float32), np.ones(len(flat), np.float32), photo, result)
    return _closed(result)


def _mixture(rng: np.random.Generator) -> Grey:
    """Share of the mirrored photograph at each place: nothing, all, half, or other things in other places."""
    kind = rng.integers(4)
    if kind < 3:
        return np.full((TEXTURE_PX, TEXTURE_PX), (0.0, 1.0, 0.5)[kind], np.float32)
    noise = _noise(rng, 60)
    return np.asarray(1 / (1 + np.exp(-2 * noise)), np.float32)


def _contrast_of_features(skin: Grey, rng: np.random.Generator) -> Grey:
    """Folds and shadows of middle size, stronger or weaker."""
    wide, narrow = cv2.GaussianBlur(skin, (0, 0), 22), cv2.GaussianBlur(skin, (0, 0), 3)
    face = _soft(_polygon(FACE_OVAL), 10)
    return np.asarray(skin + face * (rng.uniform(-0.5, 0.35) * (narrow - wide)), np.float32)


def _bare_forehead(skin: Grey, rng: np.random.Generator) -> Grey:
    """The fringe of the photograph replaced by skin."""
    points = _points()
    brow, top = points[[105, 334], 1].min() - 14, points[10, 1]
    rows = np.indices(skin.shape)[0]
    face = _soft(_polygon(FACE_OVAL), 6)
    bare = face / (1 + np.exp((rows - brow) / 5))
    patch = skin[int(points[9, 1]) - 8 : int(points[9, 1]) + 8, int(points[9, 0]) - 12 : int(points[9, 0]) + 12].mean()
    shading = 1 - 0.12 * np.clip((brow - rows) / max(brow - top, 1), 0, 1)
    return np.asarray(skin * (1 - bare) + bare * patch * shading * rng.uniform(0.93, 1.03), np.float32)


def _brows(skin: Grey, rng: np.random.Generator) -> Grey:
    """Brows of another thickness and darkness, hair by hair."""
    strength, thickness, lift = rng.uniform(0.0, 0.6), rng.uniform(1.5, 4.5), rng.uniform(-3, 3)
    mask = np.zeros(skin.shape, np.float32)
    points = _points()
    for brow in BROWS:
        upper = points[list(brow[:5])]
        lower = points[list(brow[5:])][::-1]
        line = (upper[np.argsort(upper[:, 0])] + lower[np.argsort(lower[:, 0])]) / 2 + [0, lift]
        curve = np.rint(line * 16).astype(np.int32).reshape(-1, 1, 2)
        cv2.polylines(mask, [curve], False, 1.0, max(1, round(2 * thickness)), cv2.LINE_AA, 4)
    hairs = np.clip(1 + 0.25 * _noise(rng, 1.5), 0.3, 1.6)
    return np.asarray(skin * (1 - strength * np.clip(_soft(mask, 2.2) * hairs, 0, 1)), np.float32)


def _beard(skin: Grey, rng: np.random.Generator) -> Grey:
    """The shadow of a beard: on chin, jaw and above the upper lip."""
    points, rows = _points(), np.indices(skin.shape)[0]
    lower = 1 / (1 + np.exp((points[2, 1] + 4 - rows) / 5))
    mask = _soft(_polygon(FACE_OVAL), 8) * lower * (1 - _soft(_polygon(LIPS), 3))
    grain = np.clip(1 + 0.18 * _noise(rng, 1.6), 0.2, 2)
    return np.asarray(skin * (1 - rng.uniform(0.08, 0.35) * mask * grain), np.float32)


def _wrinkles(skin: Grey, rng: np.random.Generator) -> Grey:
    """Lines across the forehead and beside the eyes."""
    lines = np.zeros(skin.shape, np.float32)
    points = _points()
    left, right = points[[54, 284], 0]
    for _ in range(rng.integers(0, 5)):
        height = rng.uniform(points[10, 1] + 12, points[9, 1] - 14)
        x = np.linspace(left + 8, right - 8, 30)
        y = height + rng.uniform(-6, 2) * np.cos((x - x.mean()) / np.ptp(x) * np.pi) + rng.normal(0, 0.7, x.size)
        _line(lines, x, y, rng.uniform(0.3, 1))
    for corner, side in ((33, -1), (263, 1)):
        for _ in range(rng.integers(0, 4)):
            x = points[corner, 0] + side * np.linspace(5, rng.uniform(12, 22), 8)
            y = points[corner, 1] + rng.uniform(-8, 8) + rng.uniform(-0.4, 0.4) * side * (x - x[0])
            _line(lines, x, y, rng.uniform(0.3, 1))
    return np.asarray(skin * (1 - rng.uniform(0, 0.14) * _soft(lines, 1.3)), np.float32)


def _line(picture: Grey, x: Array, y: Array, strength: float) -> None:
    curve = np.rint(np.column_stack([x, y]) * 16).astype(np.int32).reshape(-1, 1, 2)
    cv2.polylines(picture, [curve], False, strength, 2, cv2.LINE_AA, 4)


def _spots(skin: Grey, rng: np.random.Generator) -> Grey:
    """Freckles and moles."""
    spots = np.zeros(skin.shape, np.float32)
    low, high = _points()[list(FACE_OVAL)].min(axis=0), _points()[list(FACE_OVAL)].max(axis=0)
    for _ in range(rng.integers(4, 60)):
        x, y = np.rint(rng.uniform(low, high) * 16).astype(int)
        cv2.circle(spots, (int(x), int(y)), int(rng.uniform(10, 26)), float(rng.uniform(0.1, 1)), -1, cv2.LINE_AA, 4)
    for _ in range(rng.integers(0, 4)):
        x, y = np.rint(rng.uniform(low, high) * 16).astype(int)
        cv2.circle(spots, (int(x), int(y)), int(rng.uniform(30, 50)), 3.0, -1, cv2.LINE_AA, 4)
    return np.asarray(skin * (1 - rng.uniform(0.02, 0.15) * _soft(spots, 1.5)), np.float32)


def _grain(rng: np.random.Generator) -> Grey:
    """The texture of skin, from pores to blotches, in grey values."""
    fine, middle, wide = rng.uniform((1.5, 1.0, 2.0), (4.5, 3.0, 6.0))
    return np.asarray(fine * _noise(rng, 1.6) + middle * _noise(rng, 5) + wide * _noise(rng, 30), np.float32)


def _with_tiles(skin: Grey, colour: float, rng: np.random.Generator) -> Grey:
    """The texture with an eye and the inside of a mouth beside the face."""
    width = TEXTURE_PX + 2 * _TILE_GAP + max(EYE_TILE[0], MOUTH_TILE[0])
    texture = np.full((TEXTURE_PX, width), float(np.median(skin)), np.float32)
    texture[:, :TEXTURE_PX] = skin
    for part, picture in ((EYE, _eye(colour, rng)), (MOUTH, _mouth(rng))):
        left, top, wide, high = _tile(part)
        texture[top - 4 : top + high + 4, left - 4 : left + wide + 4] = cv2.copyMakeBorder(
            picture, 4, 4, 4, 4, cv2.BORDER_REPLICATE
        )
    return texture


def _eye(colour: float, rng: np.random.Generator) -> Grey:
    """An eyeball: white, iris, pupil, and the shadow of the upper lid."""
    width, height = EYE_TILE
    y, x = np.indices((height, width), np.float32)
    apart = np.hypot(x - (width - 1) / 2, y - (height - 1) / 2) / height
    white, iris = rng.uniform(0.75, 0.95) * 185 * (0.6 + 0.4 * colour), rng.uniform(25, 90)
    in_iris, in_pupil = (1 / (1 + np.exp((apart - radius) * height / 0.8)) for radius in (_IRIS, 0.42 * _IRIS))
    eye = white + (iris - white) * in_iris + (12 - iris) * in_pupil
    shadow = 1 - 0.45 * np.exp(-np.maximum(y - 0.2 * height, 0) / (0.18 * height))
    shadow = shadow * (0.55 + 0.45 * np.exp(-(((x / width - 0.5) / 0.34) ** 6)))
    return np.asarray(cv2.GaussianBlur(np.asarray(eye * shadow, np.float32), (0, 0), 1.2), np.float32)


def _mouth(rng: np.random.Generator) -> Grey:
    """The inside of a mouth: dark, the upper teeth lighter."""
    width, height = MOUTH_TILE
    y, x = np.indices((height, width), np.float32)
    teeth = (
        rng.uniform(70, 120)
        * np.exp(-(((y / height - 0.42) / 0.075) ** 4))
        * np.exp(-(((x / width - 0.5) / 0.27) ** 4))
    )
    return np.asarray(cv2.GaussianBlur(np.asarray(28 + teeth, np.float32), (0, 0), 1.5), np.float32)


# --- small tools


@functools.cache
def _points() -> Array:
    """The 468 landmarks of the photograph in texture px."""
    return photo_landmarks() * TEXTURE_PX - 0.5


def _polygon(ring: tuple[int, ...]) -> Grey:
    mask = np.zeros((TEXTURE_PX, TEXTURE_PX), np.float32)
    cv2.fillPoly(mask, [np.rint(_points()[list(ring)] * 16).astype(np.int32)], 1.0, cv2.LINE_AA, 4)
    return mask


def _soft(mask: Grey, px: float) -> Grey:
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), px), np.float32)


def _noise(rng: np.random.Generator, px: float) -> Grey:
    """Smooth noise of unit variance with features of so many pixels."""
    shrink = max(1, int(px / 4))
    side = TEXTURE_PX // shrink + 1
    noise = cv2.GaussianBlur(rng.standard_normal((side, side), np.float32), (0, 0), px / shrink)
    grown = cv2.resize(noise, (TEXTURE_PX, TEXTURE_PX), interpolation=cv2.INTER_CUBIC)
    return np.asarray(grown / grown.std(), np.float32)
