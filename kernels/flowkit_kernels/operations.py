"""The operations as callers see them: check the arguments, choose the backend, call it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from flowkit_kernels import checks
from flowkit_kernels.arrays import place
from flowkit_kernels.params import MIN_SIZE, MMCOFParams, TVL1Params

_TVL1, _MMCOF = TVL1Params(), MMCOFParams()


def tvl1_flow(
    reference: Any,
    moving: Any,
    params: TVL1Params = _TVL1,
    *,
    backend: str = "auto",
    threads: int | None = None,
) -> Any:
    """Dense displacement that carries `reference` onto `moving`: moving(x + flow(x)) = reference(x).

    Parameters
    ----------
    reference, moving : (N, H, W) float32 in [0, 1]
        Aligned grey faces, at least 16 x 16 pixels; pair n is computed on its own, and its result does not depend on the
        other pairs, on N or on `threads`. Multiply both pictures of a pair by a factor of up to 16 to multiply `lambda_` for it.
        NumPy arrays; or, for a GPU backend, arrays on one GPU, C-contiguous: CuPy's, or any with `__cuda_array_interface__` or
        DLPack, such as torch's. Those are used where they lie, on the current stream.
    params : TVL1Params
        `lambda_` up: follows the data; down: smoother.
    backend : {"auto", "cuda", "numba-cuda", "cpu", "reference"}
    threads : int, optional
        Pairs that the CPU works on at the same time; every core this process may use, if left out.

    Returns
    -------
    (N, 2, H, W) float32
        u (right), v (down), in pixels of the input. NumPy in gives NumPy out; what came from a GPU stays there, as an array of
        the library of `reference` where that takes DLPack.

    Raises
    ------
    ShapeError
        An image has the wrong shape, dtype, values or place.
    ParameterError
        `threads` is not a positive number, or `backend` not the name of one.
    BackendUnavailable
    DeviceOutOfMemory, DeviceLost
        On a GPU.

    Notes
    -----
    Minimises, over a pyramid from coarse to fine, with I the reference and J the moving image in grey values 0..255,

        sum over x of  |grad u| + |grad v| + lambda |J(x + (u, v)) - I(x)|

    J is linearised about the flow u0, v0 of the last warp, rho = J(x + (u0, v0)) + Jx (u - u0) + Jy (v - v0) - I, and an
    auxiliary field, theta |.|^2 away, splits the sum in two that alternate: a clamp of the data term (`primal_step`) and a
    projected gradient step on the dual variables p of the total variation (`dual_step`). `reference.py` spells it out.

    C. Zach, T. Pock, H. Bischof, A duality based approach for realtime TV-L1 optical flow, DAGM 2007.
    J. Sanchez, E. Meinhardt-Llopis, G. Facciolo, TV-L1 optical flow estimation, Image Processing On Line 3, 2013.

    Examples
    --------
    >>> import numpy as np
    >>> face = np.random.default_rng(0).random((1, 32, 48), dtype=np.float32)
    >>> float(abs(tvl1_flow(face, face)).max())
    0.0
    """
    workers = checks.thread_count("tvl1_flow", threads)
    call = place("tvl1_flow", {"reference": reference, "moving": moving}, backend)
    images = checks.image_pairs("tvl1_flow", call.arrays[0], call.arrays[1], MIN_SIZE, call.ranges)
    count, height, width = images[0].shape
    stacks = [stack.reshape(count, 1, height, width) for stack in images]
    flow = call.operations.tvl1_flow(stacks, np.ones((count, 1), np.bool_), params, workers)
    return call.give_back(flow.reshape(count, 2, height, width))


def phase_flow(
    faces: Any,
    params: TVL1Params = _TVL1,
    *,
    valid: npt.NDArray[np.bool_] | None = None,
    backend: str = "auto",
    threads: int | None = None,
) -> Any:
    """Flow of both phases of each clip: onset to apex (rise), apex to offset (fall).

    The same as `tvl1_flow` of each, with the apex handed over, and its pyramid made, once.

    Parameters
    ----------
    faces : (N, 3, H, W) float32 in [0, 1]
        Aligned grey faces at onset, apex and offset; arrays, and factors of a clip, as in `tvl1_flow`.
    params : TVL1Params
    valid : (N, 2) bool, optional
        Which phases are computed; all, if left out.
    backend : {"auto", "cuda", "numba-cuda", "cpu", "reference"}
    threads : int, optional
        As in `tvl1_flow`.

    Returns
    -------
    (N, 2 phases, 2 components, H, W) float32
        u (right), v (down), in pixels; zero for a phase that is not valid.

    Raises
    ------
    ShapeError, ParameterError, BackendUnavailable, DeviceOutOfMemory, DeviceLost

    Examples
    --------
    >>> import numpy as np
    >>> faces = np.random.default_rng(0).random((1, 3, 32, 48), dtype=np.float32)
    >>> phase_flow(faces, valid=np.array([[True, False]]))[0, 1].any()
    np.False_
    """
    workers = checks.thread_count("phase_flow", threads)
    call = place("phase_flow", {"faces": faces}, backend)
    images = checks.face_triples("phase_flow", call.arrays[0], MIN_SIZE, call.ranges)
    phases = checks.valid_phases("phase_flow", valid, len(images))
    return call.give_back(call.operations.tvl1_flow([images], phases, params, workers))


def mmcof(
    flow: Any,
    params: MMCOFParams = _MMCOF,
    *,
    mask: Any = None,
    backend: str = "auto",
    threads: int | None = None,
) -> Any:
    """Motion of both phases in one map: direction times modulated magnitude, and the magnitude.

    Parameters
    ----------
    flow : (N, 2, 2, H, W) float32
        Phases rise and fall; components u (right) and v (down), in pixels. A phase of zeros is invalid and does not count.
        NumPy arrays, or arrays on one GPU, as in `tvl1_flow`; the result likewise.
    params : MMCOFParams
    mask : (N, H, W) bool, optional
        True inside the face. Only `region="face"` looks at it; without it, the image without its border takes its place.
    backend : {"auto", "cuda", "numba-cuda", "cpu", "reference"}
    threads : int, optional
        Clips that the CPU works on at the same time; every core this process may use, if left out.

    Returns
    -------
    (N, 3, H, W) float32
        M' cos a, M' sin a, M'; M' in [0, 1]. a is the direction of the combined motion, 0 where it has none.

    Raises
    ------
    ShapeError
        Flow or mask has the wrong shape, dtype or values, a mask is empty, or the border leaves nothing of the image.
    ParameterError
        `threads` is not a positive number, or `backend` not the name of one.
    BackendUnavailable

    Notes
    -----
    With M_p = sqrt(u_p^2 + v_p^2), a_p its angle, and min, max, mean, std over the region, for each clip:

        Mn_p = (M_p - min M_p) / (max M_p - min M_p)         0 everywhere if max - min < floor_px
        M_c  = theta_1 Mn_1 + theta_2 Mn_2
        M'   = clip(M_c (beta + (alpha - beta) g), 0, 1)     COF: clip(M_c, 0, 1)
        g    = sigmoid(k (M_c - t)), or 1 if M_c >= t else 0 (hard);   t = mean M_c + c std M_c
        d    = theta_1 Mn_1 (cos a_1, sin a_1) -+ theta_2 Mn_2 (cos a_2, sin a_2);   a = atan2(d_y, d_x), or a_1 ("rise")

    Dual-phase magnitude modulation: arXiv 2510.07810. Its abstract and public summaries give the outline; the form of the
    gate, the default values, the region, the floor and the turning of the fall are this project's completion.

    Examples
    --------
    >>> import numpy as np
    >>> flow = np.random.default_rng(0).normal(size=(1, 2, 2, 32, 32)).astype(np.float32)
    >>> mmcof(flow).shape
    (1, 3, 32, 32)
    """
    workers = checks.thread_count("mmcof", threads)
    arrays = {"flow": flow} if mask is None else {"flow": flow, "mask": mask}
    call = place("mmcof", arrays, backend)
    flow = checks.phase_flow("mmcof", call.arrays[0], call.ranges)
    if params.region == "image":
        region: Any = np.broadcast_to(np.True_, (len(flow), *flow.shape[-2:]))
    elif mask is not None:
        region = checks.mask("mmcof", call.arrays[1], flow, call.ranges)
    else:
        region = _inside_border(flow, params.border_px)
    return call.give_back(call.operations.mmcof(flow, params, region, workers))


def _inside_border(flow: Any, border_px: int) -> npt.NDArray[np.bool_]:
    checks.larger_than_border("mmcof", flow, border_px)
    region = np.zeros(flow.shape[-2:], np.bool_)
    height, width = region.shape
    region[border_px : height - border_px, border_px : width - border_px] = True
    return np.broadcast_to(region, (len(flow), height, width))
