"""The bundled face, moved in known ways: pictures whose every displacement is a formula."""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib import resources
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from flowkit.face.landmarks import CANONICAL
from flowkit.face.regions import regions
from flowkit.face.transforms import Transform, fit_similarity, invert
from flowkit.inputs.clip import Clip
from flowkit.inputs.frames import Frames, Source
from flowkit.inputs.key_frames import KeyFrames
from flowkit.storage.schema import FACE, RIGID

Array = npt.NDArray[np.float64]
Field = Callable[[Array], Array]
"""Points (..., 2) of the onset crop -> their displacement, px."""

_ASSETS = resources.files("flowkit.assets")
_PNG = np.frombuffer((_ASSETS / "face.png").read_bytes(), np.uint8)
BGR: npt.NDArray[np.uint8] = cv2.imdecode(_PNG, cv2.IMREAD_COLOR)
RGB: npt.NDArray[np.uint8] = np.ascontiguousarray(BGR[..., ::-1])
GREY: npt.NDArray[np.float32] = cv2.cvtColor(BGR, cv2.COLOR_BGR2GRAY).astype(np.float32) / 255
POINTS: npt.NDArray[np.float32] = np.loadtxt(
    (_ASSETS / "face_landmarks.csv").read_text().splitlines(), delimiter=",", skiprows=1, dtype=np.float32
)[:, 1:]


def canonical(size: int) -> Transform:
    """T0 of the portrait."""
    return fit_similarity(POINTS[list(CANONICAL)], np.array(list(CANONICAL.values())) * size - 0.5)


def masks(size: int) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Face and its rigid part, in the crop."""
    areas = regions(POINTS, canonical(size), size)
    return (areas & FACE) > 0, (areas & RIGID) > 0


def drift(shift_px: float, degrees: float = 0.0, scale: float = 1.0, size: int = 224) -> Transform:
    """A motion of the head about the middle of the crop, down to the right."""
    angle, middle = math.radians(degrees), np.full(2, (size - 1) / 2)
    turn = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return np.column_stack([turn, middle - turn @ middle + shift_px * np.array([0.8, 0.6])])


def smile(peak_px: float, size: int = 224) -> Field:
    """Both lip corners drawn up and outwards."""
    corners = POINTS[[61, 291]] @ canonical(size)[:, :2].T + canonical(size)[:, 2]

    def displacement(points: Array) -> Array:
        moved = np.zeros_like(points)
        for corner, outwards in zip(corners, (-0.5, 0.5), strict=True):
            near = np.exp(-np.square(points - corner).sum(axis=-1) / (2 * (0.06 * size) ** 2))
            moved += peak_px * near[..., None] * np.array([outwards, -0.87])
        return moved

    return displacement


def picture(
    size: int = 224,
    motion: Transform | None = None,
    field: Field | None = None,
    gain: float = 1.0,
    noise_seed: int = -1,
) -> npt.NDArray[np.float32]:
    """Crop by T0 of a frame in which the onset's point x has gone to motion(x + field(x))."""
    grid = np.stack(np.meshgrid(np.arange(size), np.arange(size)), axis=-1).astype(np.float64)
    target = grid if motion is None else _apply(invert(motion), grid)
    points = target
    for _ in range(12 if field else 0):
        points = target - field(points)  # type: ignore[misc]
    where = _apply(invert(canonical(size)), points).astype(np.float32)
    image = cv2.remap(GREY, where[..., 0], where[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE) * gain
    if noise_seed >= 0:
        image = image + np.random.default_rng(noise_seed).normal(0, 1 / 255, image.shape)
    return np.clip(image, 0, 1).astype(np.float32)


def true_flow(size: int, field: Field) -> Array:
    """(2, size, size) displacement of the onset's pixels by a field alone."""
    grid = np.stack(np.meshgrid(np.arange(size), np.arange(size)), axis=-1).astype(np.float64)
    return np.moveaxis(field(grid), -1, 0)


def distance_px(a: Transform, b: Transform, mask: npt.NDArray[np.bool_]) -> float:
    """Mean distance, inside the mask, between where two transforms send a pixel."""
    y, x = np.nonzero(mask)
    points = np.stack([x, y], axis=-1).astype(np.float64)
    return float(np.linalg.norm(_apply(a, points) - _apply(b, points), axis=-1).mean())


def frames(
    onset: npt.NDArray[np.float32],
    apex: npt.NDArray[np.float32],
    offset: npt.NDArray[np.float32],
    valid: tuple[bool, bool] = (True, True),
    rgb: npt.NDArray[np.uint8] | None = None,
) -> Frames:
    """What the reader would give for a clip of three pictures."""
    clip = Clip("smile_1", "s1/smile_1", 0, int(valid[0]), 2, "s1", "portrait", "happiness", line=3)
    key = KeyFrames(0, int(valid[0]), 2 if valid[1] else int(valid[0]), "annotated", valid)
    seen: Any = rgb if rgb is not None else np.repeat(np.uint8(255 * onset)[..., None], 3, axis=2)
    return Frames(Source(clip, key, 200.0, "0" * 32, False, False), (onset, apex, offset), seen)


def _apply(transform: Transform, points: Array) -> Array:
    moved: Array = points @ transform[:, :2].T + transform[:, 2]
    return moved
