"""Optical flow of both phases of a clip, with what registration has left of the head's motion taken out."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import cast

import numpy as np
import numpy.typing as npt

import flowkit_kernels
from flowkit.errors import ClipError, FailureCode
from flowkit.face.align import Face
from flowkit.face.head_motion import motion_of, similarity_of, tell_apart
from flowkit.face.head_shape import NOMINAL_PX
from flowkit.face.regions import fit_samples
from flowkit.face.registration import FlowModel, remove_motion, residual_px
from flowkit.storage.schema import ACTION_UNITS, DEPTH_MODES, RIGID
from flowkit_kernels import TVL1Params


@dataclass(frozen=True, slots=True)
class Flow:
    """What moved in one clip.

    Attributes
    ----------
    flow : (2 phases, 2 components, N, N) float32
        Rise (onset to apex) and fall (apex to offset); u right, v down; px of the crop. Zero where the phase is invalid.
    removed : (2, 2, 3) float64
        What was subtracted from each phase: (u, v) = A [x, y, 1], in px of the crop. Zero where nothing was.
    residual : (2,) float32
        Median length, px, of what was left to explain: with "head" of what is neither the head's motion nor an expression's,
        otherwise of the flow on the rigid part of the face. 0 for an invalid phase.
    removed_turn : (2, 2) float64
        Yaw and pitch of the head subtracted from rise and fall, degrees. Zero where nothing was.
    depth_cm : (DEPTH_MODES,) float64
        Further correction of the depth of the face, on which what was subtracted rests. Zero where nothing was.
    separation : (2,) float32
        How well head and expression could be told apart in rise and fall: standard deviation of the head's motion in the face, px.
        NaN where no such fit was made.
    au_hint : (2, 34) float32
        Strength of each of `ACTION_UNITS` at apex and offset relative to the onset, cm. NaN where no such fit was made.
    """

    flow: npt.NDArray[np.float32]
    removed: npt.NDArray[np.float64]
    residual: npt.NDArray[np.float32]
    removed_turn: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros((2, 2)))
    depth_cm: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(DEPTH_MODES))
    separation: npt.NDArray[np.float32] = field(default_factory=lambda: np.full(2, np.nan, np.float32))
    au_hint: npt.NDArray[np.float32] = field(
        default_factory=lambda: np.full((2, len(ACTION_UNITS)), np.nan, np.float32)
    )


def dual_phase_flow(
    faces: Sequence[Face],
    valid: Sequence[tuple[bool, bool]],
    params: TVL1Params,
    backend: str,
    stabilise: str,
    threads: int | None = None,
    where: Sequence[str] | None = None,
) -> list[Flow | ClipError]:
    """Flow of each clip, or what is wrong with it: `solve`, then `stabilised`.

    Parameters
    ----------
    faces : sequence of Face
        Of one size.
    valid : sequence of (bool, bool)
        Whether rise and fall have a length.
    params : TVL1Params
    backend : str
    stabilise : {"head", "similarity", "affine", "register", "none"}
        "head" subtracts the head's motion, fitted together with the expression; "similarity" and "affine" a motion of that kind,
        fitted on the rigid part of the face.
    threads : int, optional
    where : sequence of str, optional
        What messages call the clips.

    Returns
    -------
    list of Flow or ClipError
        In the order of the faces; FLOW_NONFINITE or FLOW_RANGE fails one clip and no other.

    Raises
    ------
    ShapeError, BackendUnavailable
    """
    raw = solve(faces, valid, params, backend, threads)
    return stabilised(raw, faces, valid, stabilise, threads, where)


def solve(
    faces: Sequence[Face],
    valid: Sequence[tuple[bool, bool]],
    params: TVL1Params,
    backend: str,
    threads: int | None = None,
) -> npt.NDArray[np.float32]:
    """Flow as the solver gives it, of all clips as one batch; arguments as of `dual_phase_flow`.

    The solver sees each clip as its `signal` says: a factor of the grey values is, to the solver, a factor of `lambda_`.

    Returns
    -------
    (n, 2, 2, N, N) float32
    """
    pixels, phases = np.stack([face.pixels for face in faces]), np.array(valid, np.bool_)
    for face, seen in zip(faces, pixels, strict=True):
        face.signal.apply(seen)
    flow: npt.NDArray[np.float32] = flowkit_kernels.phase_flow(
        pixels, params, valid=phases, backend=backend, threads=threads
    )
    return flow


def stabilised(
    raw: npt.NDArray[np.float32],
    faces: Sequence[Face],
    valid: Sequence[tuple[bool, bool]],
    stabilise: str,
    threads: int | None = None,
    where: Sequence[str] | None = None,
) -> list[Flow | ClipError]:
    """What `solve` gave, checked, without the motion of the head that is left; arguments as of `dual_phase_flow`."""
    names = where or [f"clip {number}" for number in range(len(faces))]
    finish = partial(_finish, stabilise=stabilise)
    if len(faces) == 1:  # a new thread would begin with memory of its own
        return [finish(raw[0], faces[0], names[0], valid[0])]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(finish, raw, faces, names, valid))


def check_flow(flow: npt.NDArray[np.float32], where: str) -> None:
    """Refuse a flow that no face can have made.

    Parameters
    ----------
    flow : (..., 2, N, N) float32
    where : str
        What the message calls the clip.

    Raises
    ------
    ClipError
        FLOW_NONFINITE, or FLOW_RANGE: a displacement longer than the crop is wide.
    """
    if max(-flow.min(), flow.max()) * 2**0.5 <= flow.shape[-1]:  # never of what is not finite
        return
    if not np.isfinite(flow).all():
        raise ClipError(
            FailureCode.FLOW_NONFINITE,
            f"{where}: flow must be finite; got NaN or infinity. Look at the frames; lower tvl1.tau if it was raised.",
        )
    longest, size = float(np.hypot(flow[..., 0, :, :], flow[..., 1, :, :]).max()), flow.shape[-1]
    if longest > size:
        raise ClipError(
            FailureCode.FLOW_RANGE,
            f"{where}: displacement must be at most the crop's side, {size} px; got {longest:.1f} px. Look at the frames; the "
            "settings of tvl1 may be extreme.",
        )


def _without_head(raw: npt.NDArray[np.float32], face: Face, valid: tuple[bool, bool]) -> Flow:
    """A flow less the head's part of it, fitted together with the expression."""
    shape, size = face.shape, raw.shape[-1]
    samples = fit_samples(face.regions, face.landmarks, face.transform)
    fitted = face.comparable(valid)
    fit = tell_apart(raw, shape, samples, fitted, np.radians(face.turn))
    motion = motion_of(fit.motion, fit.turn, fit.depth_cm, shape, size)
    motion[~np.array(fitted)] = 0
    return Flow(
        flow=raw - motion,
        removed=np.stack([similarity_of(motion, shape, size) for motion in fit.motion]),
        residual=np.asarray(fit.left_px * size / NOMINAL_PX, np.float32),
        removed_turn=np.degrees(fit.motion[:, 4:]),
        depth_cm=fit.depth_cm,
        separation=np.asarray(fit.separation * size / NOMINAL_PX, np.float32),
        au_hint=_hint(fit.expression_cm, fitted),
    )


def _hint(strengths: npt.NDArray[np.float64], fitted: tuple[bool, bool]) -> npt.NDArray[np.float32]:
    """Strengths at apex and offset; where a phase was not fitted, its end is taken for its beginning."""
    apex = strengths[0] if fitted[0] else np.zeros_like(strengths[0])
    return np.asarray(np.stack([apex, strengths[1] if fitted[1] else apex]), np.float32)


def _finish(
    raw: npt.NDArray[np.float32], face: Face, where: str, valid: tuple[bool, bool], stabilise: str
) -> Flow | ClipError:
    try:
        check_flow(raw, where)
    except ClipError as error:
        return error
    if stabilise == "head":
        return _without_head(raw, face, valid)
    rigid = (face.regions & RIGID) > 0
    if stabilise not in ("similarity", "affine"):
        residual = [residual_px(phase, rigid) for phase in raw]
        return Flow(raw, np.zeros((2, 2, 3)), np.array(residual, np.float32))
    rise, fall = (remove_motion(phase, rigid, cast(FlowModel, stabilise)) for phase in raw)
    flow, removed, residuals = (np.stack([rise[i], fall[i]]) for i in range(3))
    return Flow(flow, removed, residuals.astype(np.float32))
