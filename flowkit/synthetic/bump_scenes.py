"""Synthetic clips of round bumps that move on one photograph, `flowkit synth --motion bumps`: cheap, exact, and kinder than life.

They serve fast tests. `face_scenes.py` has faces that move as faces do; no figure of accuracy may rest on the clips made here.

Every frame is rendered from one public-domain photograph (assets/NOTICE). A point y of the head, in pixels of the onset frame,
lies in frame t at

    X_t(y) = D_t(y + d_t(y)),    d_t(y) = sum over movements m of w_m(t) g_m(y)

D_t is the drift of the head (a similarity), g_m a smooth field of compact support (the bump (1 - r^2/R^2)^3 about a
landmark), w_m(t) a smooth curve in pixels. At the onset D is the identity and every w is 0. Frame t shows at x the grey
value of the head point X_t^-1(x), found by fixed-point iteration to 1e-7 px; so the true flow is a formula, not an estimate.

The classes. A movement in *apex* is there at the apex; one in *offset* is (still, or newly) there at the offset; the rest goes
back, up to a small remainder drawn for each clip.

    label            apex                  offset        rise is that of   fall is that of
    smile            both lip corners up   -             -                 -
    smile_lopsided   both lip corners up   one corner    smile             its own
    smile_frown      both lip corners up   brows lower   smile             its own
    smile_brow       corners and brows up  brows up      its own           smile
    surprise         brows, lids, jaw      -             -                 -
    surprise_held    brows, lids, jaw      jaw           surprise          its own
    frown            brows lower           -             -                 -
    sulk             brows, corners lower  corners       its own           frown

So the rise alone tells 5 groups apart and the fall alone 6; only both tell all 8. A shared fall is shared exactly, because
the fields concerned do not overlap.

Limits: the motion is local, the background drifts with the head, and the head never turns out of the plane. All three are kinder
than real clips.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources

import cv2
import numpy as np
import numpy.typing as npt

from flowkit.errors import ConfigError
from flowkit.face.landmarks import CANONICAL, LEFT_EYE, RIGHT_EYE
from flowkit.synthetic.draws import between, generator
from flowkit.synthetic.scene_settings import SynthConfig, Truth

Array = npt.NDArray[np.float64]

PLATE_SCALE = 2
"""Pixels of the plate (a subject's still picture) per pixel of the photograph."""
PLATE_MARGIN = 128
"""Mirrored border of the plate, so that a drifting frame never looks past its edge."""
LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True, slots=True)
class Bump:
    """A compact displacement about a landmark; lengths are in outer eye distances, axes are those of the head.

    Attributes
    ----------
    point : int
        MediaPipe landmark at the centre.
    u, v : float
        Displacement of the centre (right, down) at full intensity, relative to the clip's peak.
    radius : float
        Nothing moves beyond it.
    up : float
        How far above the landmark the centre lies.
    """

    point: int
    u: float
    v: float
    radius: float
    up: float = 0.0


MOVEMENTS: dict[str, tuple[Bump, ...]] = {
    "smile_left": (Bump(61, -0.5, -0.87, 0.36), Bump(50, -0.05, -0.4, 0.22, up=-0.02)),
    "smile_right": (Bump(291, 0.5, -0.87, 0.36), Bump(280, 0.05, -0.4, 0.22, up=-0.02)),
    "brows_up": (Bump(105, 0.0, -1.0, 0.36, up=0.05), Bump(334, 0.0, -1.0, 0.36, up=0.05)),
    "brows_lower": (Bump(107, 0.35, 0.9, 0.3), Bump(336, -0.35, 0.9, 0.3)),
    "lids_up": (Bump(159, 0.0, -0.4, 0.16), Bump(386, 0.0, -0.4, 0.16)),
    "lips_down": (Bump(61, -0.1, 0.9, 0.33), Bump(291, 0.1, 0.9, 0.33)),
    "jaw_down": (Bump(152, 0.0, 1.0, 0.5, up=0.2),),
}


@dataclass(frozen=True, slots=True)
class Expression:
    """Which movements are there at the apex, and which at the offset."""

    apex: tuple[str, ...]
    offset: tuple[str, ...] = ()


_SMILE = ("smile_left", "smile_right")
_SURPRISE = ("brows_up", "lids_up", "jaw_down")
EXPRESSIONS: dict[str, Expression] = {
    "smile": Expression(_SMILE),
    "smile_lopsided": Expression(_SMILE, ("smile_right",)),
    "smile_frown": Expression(_SMILE, ("brows_lower",)),
    "smile_brow": Expression((*_SMILE, "brows_up"), ("brows_up",)),
    "surprise": Expression(_SURPRISE),
    "surprise_held": Expression(_SURPRISE, ("jaw_down",)),
    "frown": Expression(("brows_lower",)),
    "sulk": Expression(("brows_lower", "lips_down"), ("lips_down",)),
}


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """One made-up person.

    Attributes
    ----------
    name : str
    plate : (S, S) float32
        The still picture that all frames of the subject are rendered from, grey levels 0..255.
    pose : (2, 3) float64
        Onset image px -> plate px.
    landmarks : (478, 2) float64
        In onset image px (x, y).
    gains : (movements,) float64
        How strongly this person carries out each of `MOVEMENTS`.
    """

    name: str
    plate: npt.NDArray[np.float32]
    pose: Array
    landmarks: Array
    gains: Array


@dataclass(frozen=True, slots=True, eq=False)
class Draw:
    """What chance decides about one clip, whatever its class.

    Attributes
    ----------
    peak_px : float
    residual : float
        Share of a movement that is left at the offset where the class lets it go back.
    apex, offset : int
        Frames after the onset.
    drift : (2, 4) float64
        Head at the turn and at the offset: x and y in px, angle in rad, logarithm of the size.
    light : (2, 2) float64
        Gain and added grey levels at the turn and at the offset.
    noise_seed : int
    turn : int
        Frames after the onset at which head and light turn round: the apex, unless they wander.
    """

    peak_px: float
    residual: float
    apex: int
    offset: int
    drift: Array
    light: Array
    noise_seed: int
    turn: int


@dataclass(frozen=True, slots=True, eq=False)
class BumpScene:
    """One clip, ready to be rendered: who shows what, with which luck."""

    clip_id: str
    subject: Subject
    label: str
    draw: Draw
    config: SynthConfig

    @property
    def landmarks(self) -> Array:
        """Of the onset, (478, 2), px."""
        return self.subject.landmarks

    @property
    def facts(self) -> dict[str, str]:
        """Further columns of the manifest: none."""
        return {}

    def render(self, t: int) -> npt.NDArray[np.uint8]:
        """Frame `t` (0 at the onset; the face rests before it and behind the offset) of a clip, (H, W) uint8."""
        return _rendered(self, t)

    def truth(self) -> Truth:
        """The true flow of a clip, by formula (see the module)."""
        return _true_motion(self)


def make_subject(name: str, config: SynthConfig) -> Subject:
    """A made-up person: the same for the same name and seed, whoever else is in the data set."""
    rng = generator(config.seed, name)
    mirrored = bool(rng.integers(2))
    photo, points = _photograph(mirrored)
    size = photo.shape[0]
    bend = rng.uniform(-1, 1, (2, 3)) * 0.006 * size
    phase = rng.uniform(0, 2 * np.pi, (2, 3))
    grid = np.indices((size, size), np.float64)[::-1]
    plate = _sample(photo, grid + _bent(grid, bend, phase, size))
    points = _fixed_point(points.T, lambda q: _bent(q, bend, phase, size)).T
    plate = _toned(plate, points, rng)
    plate += 3 * _grain(rng, size)
    pose = _pose(points, config, rng)
    padded = np.pad(plate, PLATE_MARGIN, mode="reflect")
    to_plate = _inverse(pose) + np.array([[0, 0, PLATE_MARGIN]] * 2)
    gains = rng.uniform(0.85, 1.15, len(MOVEMENTS))
    return Subject(name, padded, to_plate, _apply(pose, points.T).T, gains)


def draw_clip(clip_id: str, config: SynthConfig) -> Draw:
    """What chance decides about a clip: the same for the same id and seed, whatever else is in the data set."""
    rng = generator(config.seed, clip_id)
    rise, fall = rng.integers(config.phase_frames[0], config.phase_frames[1] + 1, 2)
    bounds = [config.drift_px, config.drift_px, math.radians(config.drift_deg), config.drift_scale]
    return Draw(
        peak_px=float(rng.uniform(*config.peaks_px)),
        residual=float(rng.uniform(0, 0.15)),
        apex=int(rise),
        offset=int(rise + fall),
        drift=rng.uniform(-1, 1, (2, 4)) * bounds,
        light=rng.uniform(-1, 1, (2, 2)) * config.light * [1, 128],
        noise_seed=int(rng.integers(2**63)),
        turn=int(
            rng.integers(1, rise + fall) if config.wander else rise
        ),  # last, so that the rest is the same either way
    )


def make_scene(clip_id: str, subject: Subject, label: str, config: SynthConfig) -> BumpScene:
    """One clip of somebody."""
    return BumpScene(clip_id, subject, label, draw_clip(clip_id, config), config)


def _true_motion(scene: BumpScene) -> Truth:
    draw, config, bumps = scene.draw, scene.config, _Bumps(scene.subject)
    apex, offset = _strengths(scene, draw.apex), _strengths(scene, draw.offset)
    drift = np.stack([_drift(scene, t) for t in (0, draw.apex, draw.offset)])
    grid = _grid(config)

    local_rise = bumps.displacement(grid, apex)
    head = bumps.undone(grid, apex)  # the head point that the apex shows at each pixel
    local_fall = head + bumps.displacement(head, offset) - grid

    rise = _apply(drift[1], grid + local_rise) - grid
    head = bumps.undone(_apply(_inverse(drift[1]), grid), apex)
    fall = _apply(drift[2], head + bumps.displacement(head, offset)) - grid

    shape = (2, 2, config.height, config.width)
    flow = np.stack([rise, fall]).astype(np.float32).reshape(shape)
    local = np.stack([local_rise, local_fall]).astype(np.float32).reshape(shape)
    seen = np.ones(flow[:, 0].shape, np.bool_)
    return Truth(flow, local, seen, seen, drift, np.zeros((3, 3)))


def _rendered(scene: BumpScene, t: int) -> npt.NDArray[np.uint8]:
    subject, draw, config = scene.subject, scene.draw, scene.config
    head = _apply(_inverse(_drift(scene, t)), _grid(config))
    head = _Bumps(subject).undone(head, _strengths(scene, t))
    grey = _sample(subject.plate, _apply(subject.pose, head)).reshape(config.height, config.width)
    gain, added = between(draw.turn, draw.offset, np.zeros(2), draw.light[0], draw.light[1], t)
    noise = np.random.default_rng([draw.noise_seed, t % 2**32]).standard_normal(grey.shape, np.float32)
    grey = grey * np.float32(1 + gain) + np.float32(added) + np.float32(config.noise) * noise
    return np.asarray(np.clip(np.rint(grey), 0, 255), np.uint8)


class _Bumps:
    """The fields of all movements of a subject, in onset image px."""

    def __init__(self, subject: Subject) -> None:
        right = subject.landmarks[RIGHT_EYE] - subject.landmarks[LEFT_EYE]
        eyes = float(np.hypot(*right))
        right = right / eyes
        down = np.array([-right[1], right[0]])
        bumps = [(index, bump) for index, name in enumerate(MOVEMENTS) for bump in MOVEMENTS[name]]
        self.movement = [index for index, _ in bumps]
        self.centre = [subject.landmarks[b.point] - b.up * eyes * down for _, b in bumps]
        self.radius = [b.radius * eyes for _, b in bumps]
        self.vector = [b.u * right + b.v * down for _, b in bumps]

    def displacement(self, points: Array, strengths: Array) -> Array:
        """d(y) at points (2, n), for the strength of each movement in px."""
        moved = np.zeros_like(points)
        for movement, centre, radius, vector in zip(self.movement, self.centre, self.radius, self.vector, strict=True):
            if strengths[movement]:
                fall_off = 1 - ((points[0] - centre[0]) ** 2 + (points[1] - centre[1]) ** 2) / radius**2
                inside = np.flatnonzero(fall_off > 0)
                moved[:, inside] += strengths[movement] * vector[:, None] * fall_off[inside] ** 3
        return moved

    def undone(self, points: Array, strengths: Array) -> Array:
        """The y with y + d(y) = points. Where d is zero it stays so: only the rest is iterated."""
        inside = np.flatnonzero(self.displacement(points, strengths).any(axis=0))
        found = points.copy()
        found[:, inside] = _fixed_point(points[:, inside], lambda y: self.displacement(y, strengths))
        return found


def _fixed_point(points: Array, displacement: Callable[[Array], Array]) -> Array:
    """Solve y + displacement(y) = points to 1e-7 px; the displacement must be a contraction."""
    found = points
    for _ in range(100):
        step = points - displacement(found) - found
        found = found + step
        if not step.size or np.abs(step).max() < 1e-7:
            return found
    raise ConfigError("synth: peak_px must keep the face from folding over itself; got too large a motion. Lower it.")


def _strengths(scene: BumpScene, t: int) -> Array:
    """Pixels by which each movement displaces its centre in frame `t`."""
    expression, draw = EXPRESSIONS[scene.label], scene.draw
    apex = np.array([float(name in expression.apex) for name in MOVEMENTS])
    stays = np.array([float(name in expression.offset) for name in MOVEMENTS])
    offset = np.maximum(stays, draw.residual * apex)
    return between(draw.apex, draw.offset, np.zeros_like(apex), apex, offset, t) * scene.subject.gains * draw.peak_px


def _drift(scene: BumpScene, t: int) -> Array:
    """(2, 3): onset px -> px of frame `t`, turning and growing about the middle of the face."""
    draw = scene.draw
    x, y, angle, size = between(draw.turn, draw.offset, np.zeros(4), draw.drift[0], draw.drift[1], t)
    linear = math.exp(size) * _rotation(angle)
    middle = scene.subject.landmarks.mean(axis=0)
    return np.column_stack([linear, middle + np.array([x, y]) - linear @ middle])


def _photograph(mirrored: bool) -> tuple[npt.NDArray[np.float32], Array]:
    """The face as grey plate (S, S), 0..255, and its landmarks in plate px."""
    assets = resources.files("flowkit.assets")
    png = np.frombuffer(assets.joinpath("face.png").read_bytes(), np.uint8)
    bgr = np.asarray(cv2.imdecode(png, cv2.IMREAD_COLOR), np.float32)
    photo = bgr @ np.array(LUMA[::-1], np.float32)
    name = "face_landmarks_mirrored.csv" if mirrored else "face_landmarks.csv"
    rows = csv.DictReader(assets.joinpath(name).read_text(encoding="utf-8").splitlines())
    points = np.array([(float(row["x"]), float(row["y"])) for row in rows])
    photo = np.ascontiguousarray(photo[:, ::-1]) if mirrored else photo
    plate = cv2.resize(photo, None, fx=PLATE_SCALE, fy=PLATE_SCALE, interpolation=cv2.INTER_CUBIC)
    return np.asarray(
        plate, np.float32
    ), points * PLATE_SCALE - 0.5  # mediapipe's 0 is the picture's edge, ours the first pixel's centre


def _bent(points: Array, bend: Array, phase: Array, size: int) -> Array:
    """A gentle static warp, one to two waves across the plate: it makes faces differ."""
    moved = np.zeros_like(points)
    for axis, other in ((0, 1), (1, 0)):
        for k in range(bend.shape[1]):
            moved[axis] += bend[axis, k] * np.sin((2 + k) * np.pi * points[other] / size + phase[axis, k])
    return moved


def _toned(plate: npt.NDArray[np.float32], points: Array, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Other light and another skin; grey levels keep clear of 0 and 255, where light changes would be cut off."""
    skin, contrast, brightness = rng.uniform((0.8, 0.7, -8), (1.05, 0.85, 8))
    mask = np.zeros(plate.shape, np.float32)
    cv2.fillConvexPoly(mask, cv2.convexHull(np.rint(points).astype(np.int32)), 1.0)
    soft = cv2.GaussianBlur(mask, (0, 0), 0.02 * plate.shape[0])
    lit = 128 + contrast * (plate * (1 + (skin - 1) * soft) - 128) + brightness
    return np.asarray(lit, np.float32)


def _grain(rng: np.random.Generator, size: int) -> npt.NDArray[np.float32]:
    """Skin texture of unit variance that moves with the face, without detail that a frame could not show."""
    grain = cv2.GaussianBlur(rng.standard_normal((size, size), np.float32), (0, 0), 0.8 * PLATE_SCALE)
    return np.asarray(grain / grain.std(), np.float32)


def _pose(points: Array, config: SynthConfig, rng: np.random.Generator) -> Array:
    """(2, 3): plate px -> onset image px."""
    zoom, angle, x, y = rng.uniform((1.0, -0.1, -0.04, -0.04), (1.3, 0.1, 0.04, 0.04))
    side, crop_eyes = min(config.width, config.height), CANONICAL[RIGHT_EYE][0] - CANONICAL[LEFT_EYE][0]
    if config.cropped:
        turn, length = 0.0, crop_eyes * side
        middle = np.array([0.5, CANONICAL[LEFT_EYE][1]]) * side - 0.5
    else:
        turn, length = angle, crop_eyes * 0.7 * side / zoom  # a crop of 224 px enlarges frames of 320 px by 1.0 to 1.3
        middle = np.array([config.width * (0.5 + x), config.height * (0.43 + y)])
    eyes = points[RIGHT_EYE] - points[LEFT_EYE]
    scale = length / float(np.hypot(*eyes))
    turn -= math.atan2(eyes[1], eyes[0])
    linear = scale * _rotation(turn)
    return np.column_stack([linear, middle - linear @ (points[LEFT_EYE] + points[RIGHT_EYE]) / 2])


def _rotation(angle: float) -> Array:
    return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


def _grid(config: SynthConfig) -> Array:
    """(2, H * W): x and y of every pixel."""
    return np.indices((config.height, config.width), np.float64)[::-1].reshape(2, -1)


def _apply(transform: Array, points: Array) -> Array:
    return np.asarray(transform[:, :2] @ points + transform[:, 2:])


def _inverse(transform: Array) -> Array:
    linear = np.linalg.inv(transform[:, :2])
    return np.column_stack([linear, -linear @ transform[:, 2]])


def _sample(picture: npt.NDArray[np.float32], points: Array) -> npt.NDArray[np.float32]:
    """Keys' bicubic interpolation (a = -1/2) at points (2, ...), edge replicated.

    Not cv2.remap: OpenCV 4 rounds coordinates to 1/32 px, which is motion that no truth would know of.
    """
    height, width = picture.shape
    x = np.clip(points[0], 1, width - 2.000001)
    y = np.clip(points[1], 1, height - 2.000001)
    column, row = x.astype(np.intp), y.astype(np.intp)
    across, along = _keys(x - column), _keys(y - row)
    flat, first = picture.ravel(), (row - 1) * width + column - 1
    grey = np.zeros(x.shape, np.float32)
    for j in range(4):
        line = across[0] * flat[first + j * width]
        for i in range(1, 4):
            line += across[i] * flat[first + (j * width + i)]
        grey += along[j] * line
    return grey


def _keys(share: Array) -> list[npt.NDArray[np.float32]]:
    """Weights of the four neighbours at -1, 0, 1, 2."""
    f = share.astype(np.float32)
    return [
        f * (f * (1 - f / 2) - np.float32(0.5)),
        f * f * (f * np.float32(1.5) - np.float32(2.5)) + 1,
        f * (f * (2 - f * np.float32(1.5)) + np.float32(0.5)),
        f * f * (f - 1) / 2,
    ]
