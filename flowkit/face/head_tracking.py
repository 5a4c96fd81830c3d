"""Where the head of a clip went: its pose at apex and offset relative to the onset, and pictures with that undone.

Registration of grey values takes a smile for a motion of the head, and can be some px off. So it only begins. Then, at half the
size and with few iterations of TV-L1, flow is computed, head motion and expression are told apart in it (`head_motion.py`), the
head's part is undone in the pictures, by a warp in three dimensions, and so on until hardly anything is left. What is left after
that is subtracted from the stored flow.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

import flowkit_kernels
from flowkit.face.head_motion import similarity_of, tell_apart
from flowkit.face.head_shape import CAMERA_CM, NOMINAL_PX, STEADY, HeadShape
from flowkit.face.registration import Image, match_light
from flowkit.face.transforms import Transform, compose, fit_similarity, mapped
from flowkit.storage.schema import DEPTH_MODES
from flowkit_kernels import TVL1Params

Array = npt.NDArray[np.float64]
Places = npt.NDArray[np.float32]

COARSE = 112
"""Side of the pictures in which the head is followed."""
MARGIN = 28
"""What they show around the crop: how far the head may be from where registration left it."""
_SOLVER = TVL1Params(scales=3, warps=2, inner_iterations=10)
_EVEN = 13
"""Side, px, of the surroundings that a pixel is compared with; in wider ones, wandering shading looks like motion."""
_ROUNDS = 5
_CONVERGED_PX = 0.25
"""Mean motion of the head, px of a crop of `NOMINAL_PX`, below which the rest is left to the flow."""


@dataclass(frozen=True, slots=True, eq=False)
class HeadTrack:
    """How the head moved from the onset.

    Attributes
    ----------
    similarity : (2, 2, 3) float64
        Apex, offset: where the turned face lies -> where it is seen, px of the crop.
    turn : (2, 2) float64
        Apex, offset: yaw and pitch, radians.
    depth_cm : (DEPTH_MODES,) float64
        Correction of the depth of the face.
    """

    similarity: Array
    turn: Array
    depth_cm: Array


def turned(shape: HeadShape, turn: Array, size: int) -> Places:
    """Where each pixel of a crop goes when the head turns by yaw and pitch, (2, size, size), px of that crop.

    A turn about the middle of the face, seen by a camera at `CAMERA_CM`.
    """
    across = np.arange(size, dtype=np.float32)
    down = across[:, None]
    if not turn.any():
        return np.array(np.broadcast_arrays(across, down))
    return _turned((across, down, shape.depth(size)), shape, turn.astype(np.float32), size)


def pose_between(onset: HeadShape, frame: HeadShape, size: int, turns: bool = True) -> tuple[Transform, Array]:
    """Return how a head moved between two pictures whose landmarks are known.

    Parameters
    ----------
    onset, frame : HeadShape
    size : int
        Side of the crop.
    turns : bool
        Whether a turn is looked for; otherwise it is 0.

    Returns
    -------
    similarity : (2, 3) float64
        Where the turned face lies -> where it is seen, px of the crop.
    turn : (2,) float64
        Yaw and pitch, radians.
    """
    turn = _yaw_and_pitch(frame.rotation @ onset.rotation.T) if turns else np.zeros(2)
    before, after = (np.array(shape.points[list(STEADY)]) for shape in (onset, frame))
    x, y, z = before.T.astype(np.float32)
    there = _turned((x, y, z), onset, turn.astype(np.float32), NOMINAL_PX)
    return rescaled(fit_similarity(there.T, after[:, :2]), size / NOMINAL_PX), turn


def _turned(
    points: tuple[Places, Places, Places], shape: HeadShape, turn: npt.NDArray[np.float32], size: int
) -> Places:
    """Points x, y and z in px of a crop, of shapes that go together, after a turn, (2, ...): yaw first, then pitch."""
    scale = size / NOMINAL_PX
    centre = ((shape.centre + 0.5) * scale - 0.5).astype(np.float32)
    x, y, z = points[0] - centre[0], points[1] - centre[1], points[2]
    (sine_yaw, sine_pitch), (cosine_yaw, cosine_pitch) = np.sin(turn), np.cos(turn)
    across, ahead = cosine_yaw * x + sine_yaw * z, cosine_yaw * z - sine_yaw * x
    down, ahead = cosine_pitch * y + sine_pitch * ahead, cosine_pitch * ahead - sine_pitch * y
    near = np.float32(1 / (CAMERA_CM * shape.px_per_cm * scale))
    nearer = (1 - near * z) / (1 - near * ahead)
    result = np.empty((2, *nearer.shape), np.float32)
    for line, place, middle in zip(result, (across, down), centre, strict=True):
        np.multiply(place, nearer, out=line)
        line += middle
    return result


def _yaw_and_pitch(rotation: Array) -> Array:
    """Yaw and pitch, radians, of a rotation (3, 3) with y up that is a yaw, then a pitch, then a roll."""
    flip = np.diag([1.0, -1.0, 1.0])
    down = flip @ rotation @ flip
    roll = np.arctan2(-down[0, 1], down[1, 1])
    level = np.array([[np.cos(roll), np.sin(roll), 0], [-np.sin(roll), np.cos(roll), 0], [0, 0, 1]]) @ down
    return np.array([np.arcsin(np.clip(level[0, 2], -1, 1)), np.arcsin(np.clip(-level[2, 1], -1, 1))])


def follow(
    onset: Image,
    crops: tuple[Image, Image],
    shape: HeadShape,
    inside: npt.NDArray[np.bool_],
    face: npt.NDArray[np.bool_],
    valid: tuple[bool, bool],
    turn: Array,
) -> HeadTrack:
    """Follow the head of a clip from where registration left it.

    Parameters
    ----------
    onset : (COARSE, COARSE) float32 in [0, 1]
    crops : two (COARSE + 2 MARGIN, COARSE + 2 MARGIN) float32
        Apex and offset, registered on the onset, with a margin.
    shape : HeadShape
    inside : (GRID, GRID) bool
        See `head_motion.sampled`.
    face : (COARSE, COARSE) bool
        Where the light is matched.
    valid : (bool, bool)
        Rise, fall.
    turn : (2, 2) float64
        Apex, offset: yaw and pitch to begin with, radians.

    Returns
    -------
    HeadTrack
        Its similarities are relative to the crops, in their px.
    """
    similarity, turn, depth_cm = np.stack([np.eye(2, 3)] * 2), turn.copy(), np.zeros(DEPTH_MODES)
    pictures = [_evenly_lit(onset)] * 3
    for _ in range(_ROUNDS):
        for k, crop in enumerate(crops):
            picture = _undone(crop, shape, similarity[k], turn[k])
            pictures[1 + k] = _evenly_lit(match_light(onset, picture, face)[0])
        frames = np.clip(np.stack(pictures), 0, 1)[None]
        flow = flowkit_kernels.phase_flow(frames, _SOLVER, valid=np.array([valid]), backend="cpu", threads=1)[0]
        fit = tell_apart(flow, shape, inside, valid, turn, rough=True)
        steps = np.cumsum(fit.motion, axis=0)
        for k in (0, 1):
            similarity[k] = compose(similarity[k], np.eye(2, 3) + similarity_of(steps[k], shape, COARSE))
        turn, depth_cm = turn + steps[:, 4:], depth_cm + fit.depth_cm
        shape = shape.corrected(fit.depth_cm)
        if fit.moved_px.max() < _CONVERGED_PX:
            break
    return HeadTrack(similarity, turn, depth_cm)


def _undone(crop: Image, shape: HeadShape, similarity: Transform, turn: Array) -> Image:
    """What a crop shows inside its margin, with the head's motion undone."""
    if not turn.any() and np.array_equal(similarity, np.eye(2, 3)):
        return crop[MARGIN:-MARGIN, MARGIN:-MARGIN]  # to the last bit what resampling gives
    across, down = mapped(similarity, turned(shape, turn, COARSE)) + np.float32(MARGIN)
    return np.asarray(cv2.remap(crop, across, down, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE))


def _evenly_lit(picture: Image) -> Image:
    """A picture with the same mean and contrast everywhere: shading changes when a head turns."""
    side = (_EVEN, _EVEN)
    left = picture - cv2.blur(picture, side)
    return np.asarray(left * (0.15 / np.sqrt(cv2.blur(left * left, side) + 1e-4)) + 0.5, np.float32)


def rescaled(transform: Transform, factor: float) -> Transform:
    """A transform of px of a crop as one of px of the same crop at `factor` times its size."""
    back = (
        np.array([[1, 0, (1 - factor) / 2], [0, 1, (1 - factor) / 2]]) / factor
    )  # exact: the identity stays the identity
    return compose(compose(scaling(factor), transform), back)


def scaling(factor: float) -> Transform:
    """Px of a picture -> px of the same picture at `factor` times its size: pixel centres lie at whole numbers."""
    return np.array([[factor, 0, (factor - 1) / 2], [0, factor, (factor - 1) / 2]])
