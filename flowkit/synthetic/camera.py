"""A person before a camera: the picture of any moment, and the true motion of what each pixel shows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from flowkit.face.face_mesh import Array
from flowkit.face.landmarks import CANONICAL, LEFT_EYE, RIGHT_EYE
from flowkit.synthetic.draws import generator
from flowkit.synthetic.expressions import Weights
from flowkit.synthetic.face3d import load_head
from flowkit.synthetic.head import HAIR, SKIN, Head, canonical_head
from flowkit.synthetic.people import Grey, Person, make_person
from flowkit.synthetic.scene_settings import SynthConfig
from flowkit_kernels.cpu import rasteriser

PIVOT_CM = np.array([0.0, -2.0, -2.0])
"""What the head turns about."""
CAMERA_CM = 90.0
SAME_SURFACE_CM = 0.3
"""Two depths that differ by less may be the same place of the face."""
OPTICS_PX = 0.7
"""Blur of lens and sensor, px of the frame: frames hold no detail that they could not show elsewhere."""
BLUR_SAMPLES = 4
_TEXTURE_PX_PER_CM = 13.6


@dataclass(frozen=True, slots=True, eq=False)
class FaceSubject:
    """A person before the camera.

    Attributes
    ----------
    person : Person
    texture : (h, w) float32
        Without detail that the frames could not show.
    pose : (3,) float64
        Yaw, pitch and roll at the onset, degrees.
    view : (2, 3) float64
        Camera px at 1 px per cm -> image px.
    background : (H, W) float32
        Grey levels.
    landmarks : (478, 2) float64
        Of the onset, px.
    """

    person: Person
    texture: Grey
    pose: Array
    view: Array
    background: Grey
    landmarks: Array

    @property
    def name(self) -> str:
        """The person's name."""
        return self.person.name

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the frames."""
        height, width = self.background.shape
        return height, width

    @property
    def rest(self) -> Array:
        """The pose at the onset, (6,), as of `Moment`."""
        return np.array([*self.pose, 0, 0, 0])

    def projected(self, points: Array, pose: Array) -> npt.NDArray[np.float32]:
        """x, y in px and z in cm of points before the head's pose, (V, 3)."""
        return _projected(points, pose, self.view)


@dataclass(frozen=True, slots=True, eq=False)
class Moment:
    """What there is to see of a person at one moment: all that a picture or a flow is made of.

    Attributes
    ----------
    points : (V, 3) float64
        The head's, before its pose, cm.
    pose : (6,) float64
        Yaw, pitch and roll in degrees, x and y in px, logarithm of the size.
    light : (2,) float64
        Gain and added grey levels.
    lamp : (2,) float64
        Turn of the light, degrees.
    """

    points: Array
    pose: Array
    light: Array
    lamp: Array


def make_subject(name: str, config: SynthConfig) -> FaceSubject:
    """A person before the camera: the same for the same name and seed, whoever else is in the data set."""
    person = make_person(name, config.seed, head_of(config), config.tone)
    rng = generator(config.seed, f"{name}/camera")
    pose = rng.uniform(-1, 1, 3) * config.pose_deg * [1, 0.6, 0.5]
    view = _view(person, pose, config, rng)
    pixel = _TEXTURE_PX_PER_CM / float(np.hypot(*view[:, 0]))
    texture = np.asarray(cv2.GaussianBlur(person.texture, (0, 0), OPTICS_PX * pixel), np.float32)
    points = _projected(person.points[person.head.landmark], np.array([*pose, 0, 0, 0]), view)[:, :2]
    return FaceSubject(person, texture, pose, view, _background(rng, config), points.astype(np.float64))


def head_of(config: SynthConfig) -> Head:
    """The head that a data set is made of: read once for each path."""
    return load_head(config.face3d) if config.face3d else canonical_head()


# --- a person before the camera


def displaced(person: Person, weights: Weights) -> Array:
    """Displacement by some action units, (V, 3), cm."""
    displacement = np.zeros_like(person.points)
    for key, weight in weights.items():
        displacement += weight * person.action_units[key]
    return displacement


def px_per_displacement(subject: FaceSubject, displacement: Array) -> float:
    """Largest motion of the skin in the image, px, by a displacement (V, 3) of the face at rest; linear for small ones."""
    person = subject.person
    skin = person.head.part == SKIN
    small = 0.01
    there, here = (
        subject.projected(person.points[skin] + share * displacement[skin], subject.rest)[:, :2].astype(np.float64)
        for share in (small, 0)
    )
    return float(np.hypot(*(there - here).T).max()) / small


def photographed(clean: Callable[[float], Grey], t: int, config: SynthConfig, noise_seed: int) -> npt.NDArray[np.uint8]:
    """Frame `t` as a camera takes it, (H, W): the shutter open for a while, with noise, in whole grey levels."""
    moments = [float(t)]
    if config.motion_blur:
        moments = (t + config.motion_blur * ((np.arange(BLUR_SAMPLES) + 0.5) / BLUR_SAMPLES - 0.5)).tolist()
    grey = np.asarray(np.mean([clean(moment) for moment in moments], axis=0), np.float32)
    if config.noise:
        noise = np.random.default_rng([noise_seed, t % 2**32]).standard_normal(grey.shape, np.float32)
        grey += np.float32(config.noise) * noise
    return np.asarray(np.clip(np.rint(grey), 0, 255), np.uint8)


def picture(subject: FaceSubject, moment: Moment, config: SynthConfig) -> Grey:
    """Grey levels (H, W) of a moment, not rounded."""
    person = subject.person
    triangles = person.head.triangles
    hit, inside, _ = _raster(_seen(subject, moment), triangles, subject.shape)
    light = np.ones(len(moment.points), np.float32) if config.flat else _shading(person, moment)
    result = subject.background.copy()
    rasteriser.shade(hit, inside, triangles, person.places, light, subject.texture, result)
    gain, added = moment.light
    result *= np.float32((1 + gain) * config.exposure)
    result += np.float32(added * config.exposure)
    return result


def _shading(person: Person, moment: Moment) -> npt.NDArray[np.float32]:
    """Factor of the grey level at each point."""
    normals = np.empty(moment.points.shape, np.float32)
    rasteriser.normals(moment.points.astype(np.float32), person.head.triangles, normals)
    towards = rotation(moment.lamp[0], moment.lamp[1], 0) @ person.lamp
    lit = np.maximum(normals @ (towards @ _turn(moment.pose)).astype(np.float32), 0)
    return np.asarray(person.ambient + (1 - person.ambient) * lit, np.float32)


def _seen(subject: FaceSubject, moment: Moment) -> npt.NDArray[np.float32]:
    return subject.projected(moment.points, moment.pose)


# --- geometry


def rotation(yaw: float, pitch: float, roll: float) -> Array:
    """A turn by degrees about the axes y (up), x (to the right) and z (to the camera), (3, 3)."""
    (sy, sp, sr), (cy, cp, cr) = np.sin(np.radians([yaw, pitch, roll])), np.cos(np.radians([yaw, pitch, roll]))
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return np.asarray(about_z @ about_y @ about_x)


def _turn(pose: Array) -> Array:
    """The head's turn, (3, 3); `pose` as of `Moment`. Roll is clockwise, as angles in an image are."""
    return rotation(pose[0], pose[1], -pose[2])


def _projected(points: Array, pose: Array, view: Array) -> npt.NDArray[np.float32]:
    """Points in image px, and their depth, (V, 3); `pose` as of `Moment`."""
    x, y, size = pose[3:]
    turned = (points - PIVOT_CM) @ _turn(pose).T + PIVOT_CM
    depth = turned[:, 2] + CAMERA_CM * (1 - math.exp(-size))
    near = CAMERA_CM / (CAMERA_CM - depth)
    flat = turned[:, :2] * near[:, None] * [1, -1]
    image = flat @ view[:, :2].T + view[:, 2] + [x, y]
    return np.column_stack([image, depth]).astype(np.float32)


def _view(person: Person, pose: Array, config: SynthConfig, rng: np.random.Generator) -> Array:
    """(2, 3): camera px at 1 px per cm -> image px, so that the eyes lie where they should at the onset."""
    zoom, x, y = rng.uniform((1.0, -0.03, -0.02), (1.3, 0.03, 0.02))
    side = min(config.width, config.height)
    crop_eyes = CANONICAL[RIGHT_EYE][0] - CANONICAL[LEFT_EYE][0]
    corners = person.points[person.head.landmark[[LEFT_EYE, RIGHT_EYE]]]
    straight = np.array([0, 0, pose[2] if config.cropped else 0.0])
    frontal = _projected(corners, np.array([*straight, 0, 0, 0]), np.eye(2, 3))[:, :2]
    if config.cropped:
        length, middle = crop_eyes * side, np.array([0.5, CANONICAL[LEFT_EYE][1]]) * side - 0.5
    else:
        length = crop_eyes * 0.7 * side / zoom  # a crop of 224 px enlarges frames of 320 px by 1.0 to 1.3
        middle = np.array([config.width * (0.5 + x), config.height * 0.5 - side * (0.06 - y)])
    apart = frontal[1] - frontal[0]
    angle = -math.atan2(apart[1], apart[0]) if config.cropped else 0.0
    scale = length / float(np.hypot(*apart))
    linear = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    there = _projected(corners, np.array([*pose, 0, 0, 0]), np.eye(2, 3))[:, :2].mean(axis=0)
    return np.column_stack([linear, middle - linear @ there])


def _background(rng: np.random.Generator, config: SynthConfig) -> Grey:
    """A wall, out of focus."""
    height, width = config.height, config.width
    small = rng.standard_normal((18, 18), np.float32)
    noise = cv2.resize(cv2.GaussianBlur(small, (0, 0), 1.2), (width, height), interpolation=cv2.INTER_CUBIC)
    slope = np.linspace(-1, 1, width, dtype=np.float32)[None] * rng.uniform(-15, 15)
    return np.asarray(np.clip(rng.uniform(60, 190) + 14 * noise + slope, 5, 250), np.float32)


def _raster(
    view: npt.NDArray[np.float32], triangles: npt.NDArray[np.int32], shape: tuple[int, int]
) -> tuple[npt.NDArray[np.int32], Grey, Grey]:
    hit, inside, depth = np.empty(shape, np.int32), np.empty((*shape, 2), np.float32), np.empty(shape, np.float32)
    rasteriser.rasterise(view, triangles, hit, inside, depth)
    return hit, inside, depth


def motion(subject: FaceSubject, first: Moment, second: Moment) -> tuple[Grey, npt.NDArray[np.bool_]]:
    """True flow (2, H, W), px, of what each pixel shows at the first moment, and whether the second shows it too, (H, W)."""
    head, shape = subject.person.head, subject.shape
    before, after = _seen(subject, first), _seen(subject, second)
    hit, inside, _ = _raster(before, head.triangles, shape)
    hit_after, _, depth = _raster(after, head.triangles, shape)
    carried = np.column_stack([after[:, :2] - before[:, :2], after[:, 2]]).astype(np.float32)
    result = np.empty((3, *hit.shape), np.float32)
    rasteriser.interpolate(hit, inside, head.triangles, carried, result)
    part = _parts(hit, head)
    there = _parts(hit_after, head)
    edge = cv2.dilate(there, np.ones((3, 3), np.uint8)) != cv2.erode(there, np.ones((3, 3), np.uint8))
    y, x = np.indices(hit.shape)
    column, row = np.floor(x + result[0]).astype(np.intp), np.floor(y + result[1]).astype(np.intp)
    visible = (column >= 0) & (row >= 0) & (column < shape[1] - 1) & (row < shape[0] - 1)
    column, row = np.clip(column, 0, shape[1] - 2), np.clip(row, 0, shape[0] - 2)
    for at in ((row + j, column + i) for j in (0, 1) for i in (0, 1)):
        near = (hit < 0) | (np.abs(depth[at] - result[2]) < SAME_SURFACE_CM)
        visible &= (there[at] == part) & ~edge[at] & near
    return result[:2], visible


def _parts(hit: npt.NDArray[np.int32], head: Head) -> npt.NDArray[np.uint8]:
    """Surface that each pixel shows, 0 for the background; skin and hair are one."""
    surface = np.where(head.part == HAIR, SKIN, head.part)
    return np.where(hit >= 0, surface[head.triangles[hit, 0]], 0).astype(np.uint8)
