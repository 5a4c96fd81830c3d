"""Training samples at flow level, `flowkit synth --level flow`: true flow of synthetic faces, degraded as extraction degrades it.

No frame is rendered and no flow is estimated, so a sample takes milliseconds. A person has the geometry of a synthetic person
(`head.py`, `people.py`), moves as `expressions.py` says, and turns the head a little. A rasteriser gives the true motion of what
each pixel of the crop shows. The similarity nearest to the head's turn is taken out, and most of what is left of it, as alignment
does; `degradation.py` does the rest.

"""

from __future__ import annotations

import functools
import hashlib
import math
from dataclasses import dataclass
from typing import Any, Final, Literal

import cv2
import numpy as np
import numpy.typing as npt

from flowkit.errors import ConfigError
from flowkit.face.face_mesh import Array
from flowkit.face.landmarks import CANONICAL, LEFT_EYE, RIGHT_EYE
from flowkit.face.regions import regions
from flowkit.face.transforms import fit_similarity
from flowkit.storage.schema import FACE, RIGID
from flowkit.synthetic.camera import CAMERA_CM, PIVOT_CM, rotation
from flowkit.synthetic.degradation import Flow, degrade, nearest_similarity
from flowkit.synthetic.draws import generator
from flowkit.synthetic.expressions import EMOTIONS, MEGC2019, Movement, Weights, draw_movement
from flowkit.synthetic.head import SKIN, Head, canonical_head
from flowkit.synthetic.people import make_person, own_movements, own_points
from flowkit_kernels.cpu import rasteriser

Form = Literal["flow", "pictures"]
PICTURE_PX: Final = 28
"""Side of the pictures of the public data set."""
PEAK_SHARE: Final = (0.001, 0.015)
"""Smallest and largest peak of the motion where nothing else is asked for, as shares of the crop's side."""
PEAK_LIMIT: Final = 0.03
"""Beyond this share of the side a face could fold over itself."""
CONTRAST: Final = (0.75, 1.75)
"""Contrast of a face relative to those that the gradients are taken from: light, exposure and lens."""
TURN_LEFT: Final = 0.27
"""Share of the motion of a turning head, beyond its similarity, that alignment leaves; measured by benchmarks/degradation.py."""
FILE_BYTES: Final = 1 << 25
_GRADIENT_PX: Final = 5.0
"""Blur of the squared gradient, px of a texture: 0.018 of a crop's side, as in benchmarks/degradation.py."""
_LENS_PX: Final = 2.0
"""Blur of textures, px: the pixels of a crop are wider than theirs."""
_SKINS: Final = 8
"""People whose skins say where there is how much texture; rendering one for each person would take longer than all else."""


@dataclass(frozen=True, slots=True)
class FlowConfig:
    """What samples at flow level look like.

    Attributes
    ----------
    samples : int
        A sample is the same however many there are.
    seed : int
    size : int
        Side of the crop, px, 28 to 512. Not for pictures, which have 28 px.
    form : {"flow", "pictures"}
        Flow in px, or what the public 28 x 28 pictures hold: another crop, every component of every picture scaled by its own
        minimum and maximum.
    classes : tuple of str, optional
        Labels, some of the eight emotions; all of them by default.
    label_shares : {"equal", "megc2019"}
        How often each label is drawn: all alike, or as often as in the MEGC2019 composite.
    per_person : int
        Samples of each person.
    peak_px : (float, float), optional
        Smallest and largest peak of the local rise, px of the crop; drawn by the logarithm. By default `PEAK_SHARE`. (0, 0): nobody
        moves.
    turn_deg : float
        Largest turn of the head out of the plane from the onset, about either axis, at apex and offset.
    drift : float
        Largest shift of the head in the plane from the onset, as a share of the side. Alignment undoes it, so what stands still
        behind the head moves the other way.
    pose_deg : float
        How far to the side a head looks at the onset, at most; up and down 0.6 of it, tilted 0.5 of it.
    noise : (float, float)
        Smallest and largest noise of the frames that a sample stands for, grey levels; drawn by the logarithm.
    stray, incomplete, different : float
        See `expressions.draw_movement`.
    """

    samples: int = 1000
    seed: int = 0
    size: int = 112
    form: Form = "flow"
    classes: tuple[str, ...] | None = None
    label_shares: Literal["equal", "megc2019"] = "equal"
    per_person: int = 25
    peak_px: tuple[float, float] | None = None
    turn_deg: float = 0.5
    drift: float = 0.006
    pose_deg: float = 8.0
    noise: tuple[float, float] = (0.5, 4.0)
    stray: float = 0.25
    incomplete: float = 0.35
    different: float = 0.3

    def __post_init__(self) -> None:
        known = tuple(EMOTIONS)
        _check(1 <= self.samples <= 10_000_000, "samples", "from 1 to 10000000", self.samples)
        _check(28 <= self.size <= 512, "size", "from 28 to 512", self.size)
        _check(self.form in ("flow", "pictures"), "form", "flow or pictures", self.form)
        named = bool(self.labels) and set(self.labels) <= set(known) and len(set(self.labels)) == len(self.labels)
        _check(named, "classes", f"different ones of {', '.join(known)}", self.classes)
        _check(self.label_shares in ("equal", "megc2019"), "label_shares", "equal or megc2019", self.label_shares)
        _check(1 <= self.per_person <= 10_000, "per_person", "from 1 to 10000", self.per_person)
        weak, strong = self.peaks_px
        limit = PEAK_LIMIT * self.side
        _check(0 <= weak <= strong <= limit, "peak_px", f"two rising numbers from 0 to {limit:g}", self.peak_px)
        _check(weak > 0 or strong == 0, "peak_px", "two numbers above 0, or 0 0", self.peak_px)
        _check(0 <= self.turn_deg <= 15, "turn_deg", "from 0 to 15", self.turn_deg)
        _check(0 <= self.drift <= 0.1, "drift", "from 0 to 0.1", self.drift)
        quiet, noisy = self.noise
        _check(0.01 <= quiet <= noisy <= 50, "noise", "two rising numbers from 0.01 to 50", self.noise)
        _check(0 <= self.pose_deg <= 30, "pose_deg", "from 0 to 30", self.pose_deg)
        for name in ("stray", "incomplete", "different"):
            _check(0 <= getattr(self, name) <= 1, name, "from 0 to 1", getattr(self, name))

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels asked for, or else all."""
        return tuple(EMOTIONS) if self.classes is None else self.classes

    @property
    def side(self) -> int:
        """Side on which motion is computed, px: of pictures twice that which they have."""
        return self.size if self.form == "flow" else 2 * PICTURE_PX

    @property
    def peaks_px(self) -> tuple[float, float]:
        """Smallest and largest peak, px."""
        return self.peak_px or (PEAK_SHARE[0] * self.side, PEAK_SHARE[1] * self.side)

    @property
    def per_file(self) -> int:
        """Samples of a file: of whole people, some 32 MiB of flow."""
        person = self.per_person * 8 * self.side**2
        return self.per_person * max(1, FILE_BYTES // person)


@dataclass(frozen=True, slots=True, eq=False)
class FlowSample:
    """One sample.

    Attributes
    ----------
    flow : (2 phases, 2 components, S, S) float32
        As extraction would measure it.
    truth : (2, 2, S, S) float32
        The true local motion, px of the computed crop; not stored.
    inside : (2, S, S) bool
        The face; not stored.
    gradient : (2, S, S) float32
        See `degrade`; not stored.
    landmarks : (478, 2) float32
        Of the onset, px of the computed crop; stored with flow, not with pictures.
    region : (S, S) bool
        The face as extraction takes it from the landmarks; stored as they are.
    label : str
    subject : int
    movement : Movement
    peak_px : float
    seed : int
    """

    flow: Flow
    truth: Flow
    inside: npt.NDArray[np.bool_]
    gradient: Flow
    landmarks: Flow
    region: npt.NDArray[np.bool_]
    label: str
    subject: int
    movement: Movement
    peak_px: float
    seed: int


# --- one sample


def make_sample(number: int, config: FlowConfig) -> FlowSample:
    """Return one sample: the same for the same number and settings, whatever else is in the data set.

    Parameters
    ----------
    number : int
        From 0. Samples of one person follow each other.
    config : FlowConfig

    Examples
    --------
    >>> make_sample(0, FlowConfig(size=32)).flow.shape
    (2, 2, 32, 32)
    """
    subject = number // config.per_person
    person = _person(subject, config.seed)
    seed = _seed(number, config.seed)
    rng = np.random.default_rng(seed)
    label = _label(rng, config)
    movement = draw_movement(rng, label, config.stray, config.incomplete, config.different)
    weak, strong = config.peaks_px
    peak = float(weak * (strong / weak) ** rng.uniform()) if weak else 0.0
    pose = rng.uniform(-1, 1, 3) * config.pose_deg * [1, 0.6, 0.5]
    turned = rng.uniform(-1, 1, (2, 2)) * config.turn_deg
    drift = rng.uniform(-1, 1, (2, 2)).astype(np.float32) * np.float32(config.drift * config.side)
    view = (
        _public_view(rng)
        if config.form == "pictures"
        else _canonical_view(person.points[person.head.landmark], pose[2], config.side)
    )
    motion = _motion(person, movement, peak, pose, turned, view, config.side)
    noise = float(np.exp(rng.uniform(*np.log(config.noise))))
    contrast = float(np.exp(rng.uniform(*np.log(CONTRAST))))
    gradient = (
        motion.gradient * np.float32(contrast) * np.float32(config.side / math.sqrt(abs(np.linalg.det(view[:, :2]))))
    )
    gradient = np.where(motion.shown[:, 0], gradient, gradient.mean(where=motion.shown[:, 0]))  # the solver fills walls
    behind = np.stack([drift[0], drift[1] - drift[0]])[..., None, None]
    flow = degrade(np.where(motion.shown, motion.flow, -behind), gradient, motion.rigid, noise, rng)
    if config.form == "pictures":
        flow = _pictures(flow, rng)
    landmarks = motion.rest[person.head.landmark, :2]
    region = regions(landmarks, np.eye(2, 3), config.side) & FACE > 0
    return FlowSample(
        flow, motion.local, motion.inside, gradient, landmarks, region, label, subject, movement, peak, seed
    )


def _label(rng: np.random.Generator, config: FlowConfig) -> str:
    if config.label_shares == "equal":
        return config.labels[int(rng.integers(len(config.labels)))]
    shares = np.array([MEGC2019[label] for label in config.labels])
    return config.labels[int(rng.choice(len(shares), p=shares / shares.sum()))]


@dataclass(frozen=True, slots=True, eq=False)
class _Person:
    """The geometry of one person in float32; `gradient` of the skin's grey levels, from 0 to 1, per cm, at each point."""

    head: Head
    points: Flow
    action_units: dict[tuple[int, str], Flow]
    gradient: Flow


@functools.lru_cache(maxsize=4)
def _person(subject: int, seed: int) -> _Person:
    head = canonical_head()
    shape, habits = (generator(seed, f"flow/{subject}/{part}") for part in ("shape", "habits"))
    movements = {key: field.astype(np.float32) for key, field in own_movements(head, habits).items()}
    return _Person(head, own_points(head, shape).astype(np.float32), movements, _skin_gradients()[subject % _SKINS])


@functools.cache
def _skin_gradients() -> Flow:
    """Gradient of the grey levels, from 0 to 1, per cm, at each point of the head: the skins of some people, (_SKINS, V)."""
    head = canonical_head()
    eyes = head.landmark[[LEFT_EYE, RIGHT_EYE]]
    result = np.empty((_SKINS, len(head.points)), np.float32)
    for skin, gradient in enumerate(result):
        person = make_person(f"skin{skin}", 0, head)
        texture = cv2.GaussianBlur(person.texture / 255, (0, 0), _LENS_PX)
        across, down = (cv2.Sobel(texture, cv2.CV_32F, *order, scale=1 / 8) for order in ((1, 0), (0, 1)))
        energy = cv2.GaussianBlur(across**2 + down**2, (0, 0), _GRADIENT_PX)
        x, y = np.rint(person.places.T).astype(np.intp)
        px_per_cm = np.ptp(person.places[eyes, 0]) / np.ptp(person.points[eyes, 0])
        gradient[:] = np.sqrt(energy[y, x]) * px_per_cm
    return result


@functools.cache
def _rigid() -> Flow:
    """1 at each point of the head where alignment looks for the head's motion, else 0; found on the mean head."""
    head, side = canonical_head(), 256
    points = head.points.astype(np.float32)
    seen = _seen(points, np.zeros(3), _canonical_view(points[head.landmark], 0.0, side))
    area = regions(seen[head.landmark, :2], np.eye(2, 3), side)
    x, y = np.rint(seen[:, :2].T).astype(np.intp).clip(0, side - 1)
    return np.asarray((area[y, x] & RIGID > 0) & (head.part == SKIN), np.float32)


def _seed(number: int, seed: int) -> int:
    digest = hashlib.sha256(f"flow/{seed}/{number}".encode()).digest()
    return int.from_bytes(digest[:8], "big")


@dataclass(frozen=True, slots=True, eq=False)
class _Motion:
    """True motion on the crop: `flow` with what alignment leaves of the head's, `local` without; `shown`: the head.

    `rest` are the points of the head at the onset, (V, 3): px of the crop, and depth.
    """

    flow: Flow
    local: Flow
    shown: npt.NDArray[np.bool_]
    inside: npt.NDArray[np.bool_]
    rigid: npt.NDArray[np.bool_]
    gradient: Flow
    rest: Flow


def _motion(
    person: _Person, movement: Movement, peak: float, pose: Array, turned: Array, view: Array, side: int
) -> _Motion:
    """Rasterise onset and apex, both in the pose of the onset, and interpolate in them what moves."""
    apex, offset = (_displaced(person, weights) for weights in (movement.apex, movement.offset))
    poses = [pose, *(pose + np.array([*turn, 0.0]) for turn in turned)]
    rest = _seen(person.points, pose, view)
    scale = _scale(person, apex, rest, pose, view, peak)
    places = [person.points, person.points + scale * apex, person.points + scale * offset]
    still = [rest, *(_seen(points, pose, view) for points in places[1:])]
    moving = [rest, *(_seen(points, there, view) for points, there in zip(places[1:], poses[1:], strict=True))]
    head = person.head
    result = np.empty((2, 7, side, side), np.float32)
    for phase in (0, 1):
        local, whole = (points[phase + 1] - points[phase] for points in (still, moving))
        carried = np.column_stack([local[:, :2], whole[:, :2], person.gradient, head.part == SKIN, _rigid()])
        carried = carried.astype(np.float32)
        hit, inside = np.empty((side, side), np.int32), np.empty((side, side, 2), np.float32)
        rasteriser.rasterise(still[phase], head.triangles, hit, inside, np.empty((side, side), np.float32))
        rasteriser.interpolate(hit, inside, head.triangles, carried, result[phase])
    local, whole, face, rigid = result[:, :2], result[:, 2:4], result[:, 5] > 0.5, result[:, 6] > 0.5
    turn, weight = whole - local, rigid * result[:, 4] ** 2
    left: Flow = np.stack([field - nearest_similarity(field, share) for field, share in zip(turn, weight, strict=True)])
    shown = result[:, 4:5] > 0  # skin, hair and eyes all have some texture
    return _Motion(local + np.float32(TURN_LEFT) * left, local, shown, face, rigid, result[:, 4], rest)


def _displaced(person: _Person, weights: Weights) -> Flow:
    displaced = np.zeros_like(person.points)
    for key, weight in weights.items():
        displaced += np.float32(weight) * person.action_units[key]
    return displaced


def _scale(person: _Person, apex: Flow, rest: Flow, pose: Array, view: Array, peak: float) -> np.float32:
    """Factor of the movement that gives the rise its peak, px."""
    small = 0.01
    skin = person.head.part == SKIN
    there = _seen(person.points[skin] + np.float32(small) * apex[skin], pose, view)
    longest = float(np.hypot(*(there - rest[skin])[:, :2].T).max()) / small
    return np.float32(peak / longest if longest else 0)


def _seen(points: Flow, pose: Array, view: Array) -> Flow:
    """Points in crop px, and their depth, (V, 3), from a camera as that of `face_scenes`."""
    turn = rotation(pose[0], pose[1], -pose[2])
    seen = points @ turn.T.astype(np.float32)
    seen += (PIVOT_CM - turn @ PIVOT_CM).astype(np.float32)
    near = np.float32(CAMERA_CM) / (np.float32(CAMERA_CM) - seen[:, 2:])
    linear = (view[:, :2] * [1, -1]).T.astype(np.float32)
    seen[:, :2] = (seen[:, :2] * near) @ linear + view[:, 2].astype(np.float32)
    return seen


def _canonical_view(landmarks: Flow, roll: float, side: int) -> Array:
    """(2, 3): camera px at 1 px per cm -> px of the crop that alignment makes, outer eye corners where it has them."""
    there = _seen(landmarks[[LEFT_EYE, RIGHT_EYE]], np.array([0, 0, roll]), np.eye(2, 3))[:, :2]
    wanted = np.array([CANONICAL[LEFT_EYE], CANONICAL[RIGHT_EYE]]) * side - 0.5
    return fit_similarity(there, wanted)


def _public_view(rng: np.random.Generator) -> Array:
    """(2, 3) of the public pictures: the box of a face detector, chin to hair, made square."""
    side = 2 * PICTURE_PX
    height = rng.uniform(18.5, 24.5)
    width = height * rng.uniform(0.7, 0.82)
    top = rng.normal(11.3, 0.6)
    linear = np.diag([side / width, side / height])
    return np.column_stack([linear, [side * (0.5 + rng.normal(0, 0.02)) - 0.5, top * side / height - 0.5]])


def _pictures(flow: Flow, rng: np.random.Generator) -> Flow:
    """(2, 2, 28, 28): every component brought to 256 grey levels by its own minimum and maximum, and read back."""
    if rng.random() < 0.5:
        start = rng.integers(2, size=2)
        small = flow[..., start[0] :: 2, start[1] :: 2]
    else:
        small = flow.reshape(2, 2, PICTURE_PX, 2, PICTURE_PX, 2).mean(axis=(3, 5))
    low, high = small.min(axis=(2, 3), keepdims=True), small.max(axis=(2, 3), keepdims=True)
    grey = np.rint((small - low) / np.maximum(high - low, 1e-9) * 255)
    spread = grey.std(axis=(2, 3), keepdims=True)
    return np.asarray(
        (grey - np.median(grey, axis=(2, 3), keepdims=True)) / np.where(spread > 0, spread, 1), np.float32
    )


def _check(ok: bool, name: str, expectation: str, value: Any) -> None:
    if not ok:
        raise ConfigError(f"synth --level flow: {name} must be {expectation}; got {value!r}. Correct it.")
