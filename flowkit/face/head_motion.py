"""Head motion and expression told apart: both are fitted to the flow together, so that neither takes the other's part.

Inside the face a flow is

    head's motion    six numbers: shift right, shift down, roll, size, yaw and pitch; the fields of the last two are the depth
    + expression     a sum of the fields of action units, each at least 0 in every frame: muscles pull, they do not push
    + noise

Rise and fall are fitted at once: the expression at the apex is one. The prior says that the onset shows little of one, but it may
show one that fades. Where the head has turned, errors of the depth add a motion of their own, along the turn; weights of the modes
of depth are further unknowns.

Samples count for less where an action unit moves the face (fields are known to a third or so), and where they contradict the rest
(Huber). So places that nothing moves decide what the head did.

Units inside the fit: px of a crop of 224, hundredths of a radian, hundredths of the size. Sources of the fields: assets/NOTICE.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

from flowkit.face.head_shape import CAMERA_CM, GRID, NOMINAL_PX, HeadShape
from flowkit.face.transforms import Transform
from flowkit.storage.schema import DEPTH_MODES

if TYPE_CHECKING:
    from flowkit_kernels.cpu.head_fit import Unknowns

Array = npt.NDArray[np.float64]
Flow = npt.NDArray[np.float32]

POSE = 6
"""Shift right and down in px, roll in radians (clockwise), logarithm of the size, yaw and pitch in radians."""
HUNDREDTHS = np.array([1, 1, 100, 100, 100, 100])
"""What one radian or one unit of size is in units of the fit."""

_SHIFT_SD, _TURN_SD, _EXPRESSION_SD_CM, _DEPTH_SD_CM = 3.0, 2.0, 0.08, 0.5
"""Prior standard deviations: of shift, roll and size; of yaw and pitch; of the strength of an action unit; of a mode of depth."""
_ONSET_SD_CM = 0.02
_NOISE_PX, _INDEPENDENT = 0.12, 60.0
"""Noise of a flow in a crop of 224, and how many independent samples of it a face holds."""
_MISFIT = 0.5
"""Error of an action unit's field, relative to its motion."""
_HUBER = 1.5
_STEPS = 3
_SWEEPS = 200
_FEWEST_SAMPLES = 24
_FORESHORTENED = 0.75
"""A place counts while the turned head shows it at least this large, relative to the onset: others are hidden, or nearly."""
_STRAIGHT = np.zeros(2)
_FREE = 2 * POSE + DEPTH_MODES
"""Unknowns that may be negative: all but the action units."""


@dataclass(frozen=True, slots=True, eq=False)
class HeadFit:
    """What a flow says about head and expression.

    Attributes
    ----------
    motion : (2, 6) float64
        Rise, fall: the head's motion in the flow; see `POSE`, px of a crop of `NOMINAL_PX`.
    moved_px : (2,) float64
        Rise, fall: mean length of that motion in the face, px of a crop of `NOMINAL_PX`.
    turn : (2, 2) float64
        Rise, fall: yaw and pitch altogether, with those undone in the pictures; radians.
    depth_cm : (DEPTH_MODES,) float64
        Correction of the depth.
    expression_cm : (2, K) float64
        Apex, offset: strength of each action unit relative to the onset.
    left_px : (2,) float64
        Rise, fall: median length of what neither head nor expression explains, px of a crop of `NOMINAL_PX`; 0 for a phase that is
        not valid.
    separation : (2,) float64
        Rise, fall: standard deviation of the head's motion that the fit leaves open, mean over the face, px of a crop of
        `NOMINAL_PX`; NaN for a phase that is not valid.
    """

    motion: Array
    moved_px: Array
    turn: Array
    depth_cm: Array
    expression_cm: Array
    left_px: Array
    separation: Array


@dataclass(frozen=True, slots=True, eq=False)
class _Samples:
    """Fields at the places that count, in units of the fit; n places.

    Attributes
    ----------
    head : (2, 6, 2, n) float64
        Of each phase.
    modes : (M, n) float64
    units : (K, 2, n) float64
    flow : (2, 2, n) float64
        Phase, component.
    """

    head: Array
    modes: Array
    units: Array
    flow: Array


def head_fields(
    depth: npt.NDArray[np.floating], shape: HeadShape, scale: float = 1.0, turn: Array = _STRAIGHT
) -> Array:
    """Motion by each number of a pose in units of the fit, (6, 2, h, w), in px of a crop of `NOMINAL_PX`.

    Parameters
    ----------
    depth : (h, w) float
        In px of a crop of `NOMINAL_PX`.
    shape : HeadShape
    scale : float
        px of the crop for each sample.
    turn : (2,) float
        Yaw and pitch, radians, that the head has turned by already: what turns on grows narrower, too.
    """
    height, width = depth.shape
    place = np.empty((3, height, width))  # x, y, depth
    place[0] = (np.arange(width) + 0.5) * scale - 0.5 - shape.centre[0]
    place[1] = ((np.arange(height) + 0.5) * scale - 0.5 - shape.centre[1])[:, None]
    place[2] = depth
    near = 1 / (CAMERA_CM * shape.px_per_cm)
    fields = np.zeros((POSE, 2, height, width))
    fields[0, 0] = fields[1, 1] = 100
    fields[2] = -place[1], place[0]
    np.multiply(place[:2], 1 + near * depth, out=fields[3])
    np.einsum("aij,jhw->aihw", _turning(turn), place, out=fields[4:])
    fields[4:] -= place[:2, None] * place[:2] * near
    fields /= 100
    return fields


def _turning(turn: Array) -> Array:
    """Return what (x, y, depth) of a place is multiplied by for its motion by yaw and by pitch, (2 angles, 2 components, 3).

    `turn` is what the head has turned by already. Perspective is left out.
    """
    (sine_yaw, sine_pitch), (cosine_yaw, cosine_pitch) = np.sin(turn), np.cos(turn)
    aside, ahead = np.array([cosine_yaw, 0, sine_yaw]), np.array([-sine_yaw, 0, cosine_yaw])
    yaw = [ahead, -sine_pitch * aside]
    pitch = [np.zeros(3), cosine_pitch * ahead - sine_pitch * np.array([0, 1, 0])]
    return np.array([yaw, pitch])


def tell_apart(
    flow: Flow,
    shape: HeadShape,
    inside: npt.NDArray[np.bool_],
    valid: tuple[bool, bool],
    turn: Array,
    rough: bool = False,
) -> HeadFit:
    """Fit head motion and expression to the flow of both phases.

    Parameters
    ----------
    flow : (2, 2, N, N) float32
        Rise and fall in px of a crop of N, finite.
    shape : HeadShape
    inside : (GRID, GRID) bool
        Samples that count: see `sampled`.
    valid : (bool, bool)
    turn : (2, 2) float64
        Apex, offset: yaw and pitch that were undone in the pictures already, radians.
    rough : bool
        Weigh the samples once less and leave `separation` out (NaN): what follows is refined anyway.
    """
    samples = _samples(flow, shape, inside, turn)
    undone = np.stack([turn[0], turn[1] - turn[0]])
    if samples.flow.shape[-1] < _FEWEST_SAMPLES:
        nothing = np.zeros((2, len(samples.units)))
        none, unknown = np.zeros(2), np.full(2, np.nan)
        return HeadFit(np.zeros((2, POSE)), none, undone, np.zeros(DEPTH_MODES), nothing, none, unknown)
    fit = _Fit.of(samples, 100 * undone, valid, _STEPS - rough)
    return HeadFit(
        motion=fit.motion / HUNDREDTHS,
        moved_px=np.hypot(*np.einsum("pk,pkcn->cpn", fit.motion, samples.head)).mean(axis=1),
        turn=undone + fit.motion[:, 4:] / 100,
        depth_cm=fit.solution[2 * POSE : _FREE],
        expression_cm=fit.strengths[1:] - fit.strengths[0],
        left_px=fit.left,
        separation=np.full(2, np.nan) if rough else np.where(valid, fit.separation(), np.nan),
    )


def sampled(face: npt.NDArray[np.bool_], openings: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Samples of the grid that lie wholly inside the face and not in an opening of the eyes.

    Parameters
    ----------
    face, openings : (N, N) bool

    Returns
    -------
    (GRID, GRID) bool
    """
    return np.asarray((_shrunk(face.astype(np.float32)) > 0.99) & (_shrunk(openings.astype(np.float32)) < 0.3))


def motion_of(motion: Array, turn: Array, depth_cm: Array, shape: HeadShape, size: int) -> Flow:
    """Return the head's motion in rise and fall: what is to be subtracted from a flow, and what was.

    The sum of `head_fields`, by a compiled loop: the fields of a whole crop take longer than all the rest.

    Parameters
    ----------
    motion : (2, 6) float64
    turn : (2, 2) float64
    depth_cm : (DEPTH_MODES,) float64
        As of `HeadFit`.
    shape : HeadShape
    size : int
        Side of the crop.

    Returns
    -------
    (2, 2, size, size) float32
        In px of that crop.
    """
    # Numba takes a third of a second to load, and a process that only plans needs none.
    from flowkit_kernels.cpu.head_fit import motion_field

    scale = size / NOMINAL_PX
    near = 1 / (CAMERA_CM * shape.px_per_cm * scale)
    right_down, roll, growth, angles = motion[:, :2], motion[:, 2], motion[:, 3], motion[:, 4:]
    undone = np.cumsum(turn - angles, axis=0)
    slopes = np.zeros((2, 2, 4))  # of u and v in each phase: by x, y and depth, and what is the same everywhere
    for phase in (0, 1):
        slopes[phase, :, :3] = np.einsum("a,aij->ij", angles[phase], _turning(undone[phase]))
    slopes[:, 0, 1] -= roll
    slopes[:, 1, 0] += roll
    slopes[:, :, 3] = right_down * scale
    nearer = np.column_stack([-near * angles, near * growth, growth])  # what comes nearer grows
    centre = (shape.centre + 0.5) * scale - 0.5
    result = np.empty((2, 2, size, size), np.float32)
    motion_field(
        shape.depth(size),
        shape.deeper(depth_cm, size),
        centre.astype(np.float32),
        nearer.astype(np.float32),
        slopes.astype(np.float32),
        turn.astype(np.float32),
        result,
    )
    return result


def similarity_of(motion: Array, shape: HeadShape, size: int) -> Transform:
    """The part of a motion that is a similarity, in px of a crop of a size: (u, v) = A [x, y, 1]."""
    scale = size / NOMINAL_PX
    x, y, roll, grown = motion[:4]
    linear = np.array([[grown, -roll], [roll, grown]])
    centre = (shape.centre + 0.5) * scale - 0.5
    return np.column_stack([linear, scale * np.array([x, y]) - linear @ centre])


# --- the fit


@functools.cache
def _unknowns(units: int) -> Unknowns:
    """The unknowns with so many action units, in the order of `_Fit.solution`."""
    from flowkit_kernels.cpu.head_fit import Unknowns

    pose = [_SHIFT_SD] * 4 + [_TURN_SD] * 2
    strengths = [_ONSET_SD_CM] * units + [_EXPRESSION_SD_CM] * (2 * units)
    known, unit = np.arange(POSE + DEPTH_MODES), np.arange(units)
    places = []
    for phase in (0, 1):  # what ends it less what it began with
        begin = _FREE + phase * units + unit
        places.append([*(POSE * phase + np.arange(POSE)), *range(2 * POSE, _FREE), *begin, *(begin + units)])
    return Unknowns(
        pose=POSE,
        free=_FREE,
        prior=1 / np.square([*pose, *pose, *[_DEPTH_SD_CM] * DEPTH_MODES, *strengths]),
        columns=np.concatenate([known, len(known) + unit, len(known) + unit]),
        places=np.array(places),
        signs=np.repeat([1.0, -1.0, 1.0], [len(known), units, units]),
    )


def _samples(flow: Flow, shape: HeadShape, inside: npt.NDArray[np.bool_], turn: Array) -> _Samples:
    grid = shape.grid
    scale = NOMINAL_PX / flow.shape[-1]
    small = np.stack([[_shrunk(component) for component in phase] for phase in flow]) * np.float32(scale)
    fields = np.stack([head_fields(grid.depth, shape, NOMINAL_PX / GRID, angles) for angles in turn])
    places = np.flatnonzero(inside & _seen(shape, turn[0]) & _seen(shape, turn[1]))
    found = (values.reshape(*values.shape[:-2], -1) for values in (fields, grid.modes, grid.action_units, small))
    return _Samples(*(values.take(places, axis=-1).astype(np.float64, copy=False) for values in found))


def _seen(shape: HeadShape, turn: Array) -> npt.NDArray[np.bool_]:
    """Places of the grid, (GRID, GRID), that a head turned by yaw and pitch shows: what is left there of an area of the onset."""
    across, down = shape.slopes
    (sine_yaw, sine_pitch), (cosine_yaw, cosine_pitch) = np.sin(turn), np.cos(turn)
    wide, tall = cosine_yaw + sine_yaw * across, cosine_pitch + sine_pitch * cosine_yaw * down
    sheared = sine_yaw * down * sine_pitch * (cosine_yaw * across - sine_yaw)
    return np.asarray(wide * tall - sheared > _FORESHORTENED)


def _shrunk(picture: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.asarray(cv2.resize(picture, (GRID, GRID), interpolation=cv2.INTER_AREA), np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class _Fit:
    """What the fit found.

    Unknowns: the head's motion in the rise and in the fall, modes of depth, action units at onset, apex and offset.

    Attributes
    ----------
    samples : _Samples
    solution : (12 + M + 3 K,) float64
    matrix : (12 + M + 3 K, 12 + M + 3 K) float64
        Normal equations of the last step.
    left : (2,) float64
        Median length of what is left.
    """

    samples: _Samples
    solution: Array
    matrix: Array
    left: Array

    @classmethod
    def of(cls, samples: _Samples, undone: Array, valid: tuple[bool, bool], steps: int) -> _Fit:
        """Fit; `undone` is the turn that was undone in the pictures, (2, 2), hundredths of a radian."""
        # Numba takes a third of a second to load, and a process that only plans needs none.
        from flowkit_kernels.cpu.head_fit import Noise, fit

        count, units = samples.flow.shape[-1], len(samples.units)
        columns = np.empty((2, POSE + DEPTH_MODES + units, 2 * count))
        columns[:, :POSE] = samples.head.reshape(2, POSE, -1)
        columns[:, POSE + DEPTH_MODES :] = samples.units.reshape(units, -1)
        unknowns = _unknowns(units)
        size = len(unknowns.prior)
        found = cls(samples, np.zeros(size), np.empty((size, size)), np.zeros(2))
        noise = Noise(_INDEPENDENT / count / _NOISE_PX**2, _MISFIT / _NOISE_PX, _HUBER, _SWEEPS)
        given = columns, samples.modes, samples.flow.reshape(2, -1), np.array(valid), undone
        fit(*given, unknowns, noise, steps, found.solution, found.matrix, found.left)
        return found

    @property
    def motion(self) -> Array:
        """The head's motion in rise and fall, (2, 6)."""
        return self.solution[: 2 * POSE].reshape(2, POSE)

    @property
    def strengths(self) -> Array:
        """Of the action units at onset, apex and offset, (3, K)."""
        return self.solution[_FREE:].reshape(3, -1)

    def separation(self) -> Array:
        """Standard deviation of the head's motion that the fit leaves open, mean over the samples, (2,)."""
        kept = np.concatenate([np.arange(_FREE), _FREE + np.flatnonzero(self.solution[_FREE:] > 0)])
        covariance = np.linalg.solve(self.matrix[np.ix_(kept, kept)], np.eye(len(kept), 2 * POSE))
        found = []
        for phase in (0, 1):
            at = slice(POSE * phase, POSE * (phase + 1))
            head = self.samples.head[phase]
            spread = np.einsum("ij,jcn->icn", covariance[at, at], head)
            deviation = np.sqrt(np.einsum("icn,icn->n", spread, head))
            # Rayleigh: the median length of noise in two components is 1.18 standard deviations.
            found.append(float(deviation.mean()) * max(1.0, float(self.left[phase]) / (1.18 * _NOISE_PX)))
        return np.array(found)
