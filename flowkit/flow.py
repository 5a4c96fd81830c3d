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
from flowkit.action_units import ACTION_UNITS
from flowkit.align import RIGID, Face
from flowkit.errors import ClipError, FailureCode
from flowkit.registration import FlowModel, remove_motion, residual_px
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
        Median |flow| on the rigid part of the face, px; 0 for an invalid phase.
    removed_turn : (2, 2) float64
        Yaw and pitch of the head subtracted from rise and fall, degrees. Zero where nothing was.
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
    stabilise : {"similarity", "affine", "register", "none"}
        The first two subtract a motion of that kind, fitted on the rigid part of the face.
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
    return stabilised(raw, faces, stabilise, threads, where)


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
    stabilise: str,
    threads: int | None = None,
    where: Sequence[str] | None = None,
) -> list[Flow | ClipError]:
    """What `solve` gave, checked, without the motion of the head that is left; arguments as of `dual_phase_flow`."""
    names = where or [f"clip {number}" for number in range(len(faces))]
    finish = partial(_finish, stabilise=stabilise)
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(finish, raw, faces, names))


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


def _finish(raw: npt.NDArray[np.float32], face: Face, where: str, stabilise: str) -> Flow | ClipError:
    try:
        check_flow(raw, where)
    except ClipError as error:
        return error
    rigid = (face.regions & RIGID) > 0
    if stabilise not in ("similarity", "affine"):
        residual = [residual_px(phase, rigid) for phase in raw]
        return Flow(raw, np.zeros((2, 2, 3)), np.array(residual, np.float32))
    rise, fall = (remove_motion(phase, rigid, cast(FlowModel, stabilise)) for phase in raw)
    flow, removed, residuals = (np.stack([rise[i], fall[i]]) for i in range(3))
    return Flow(flow, removed, residuals.astype(np.float32))
