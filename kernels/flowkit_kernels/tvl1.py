"""TV-L1 optical flow: its parameters and the entry point that checks, picks the backend and calls it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from flowkit_kernels import checks
from flowkit_kernels.arrays import place

MIN_SIZE = 16
"""Smallest side, in pixels, of an image and of a pyramid level."""


@dataclass(frozen=True, slots=True)
class TVL1Params:
    """Parameters of the solver, under OpenCV's names; the default is the preset "fixed".

    Attributes
    ----------
    tau : float
        Step of the dual update. Up: faster, unstable above 0.25.
    lambda_ : float
        Weight of the data term, on grey values in 0..255. Up: follows the data; down: smoother.
    theta : float
        Coupling of the two halves of the problem. Up: looser.
    scales : int
        Pyramid levels, fewer where a level would be smaller than 16 px. Up: larger motion.
    scale_step : float
        Size of a level relative to the next finer one, in (0, 1).
    warps : int
        Warps of the moving image a level. Up: larger motion at each level.
    outer_iterations : int
        Rounds of median filter and inner iterations a warp.
    inner_iterations : int
        Primal-dual iterations a round. Up: closer to the minimum, slower.
    epsilon : float, in pixels
        A warp ends early when the root mean square update of an iteration is at most this; 0: never.
    median_filtering : {1, 5}, in pixels
        Side of the median filter that opens each outer iteration; 1: off. 5: cleaner edges.
    round_coordinates : bool
        Round the coordinates of the warp to 1/32 px as OpenCV 4 does (OpenCV 5 does not).

    Raises
    ------
    ParameterError

    Examples
    --------
    >>> TVL1Params(lambda_=0.1).inner_iterations
    20
    """

    tau: float = 0.25
    lambda_: float = 0.15
    theta: float = 0.3
    scales: int = 5
    scale_step: float = 0.8
    warps: int = 5
    outer_iterations: int = 1
    inner_iterations: int = 20
    epsilon: float = 0.0
    median_filtering: int = 5
    round_coordinates: bool = False

    def __post_init__(self) -> None:
        where = "TVL1Params"
        for name in ("tau", "lambda_", "theta"):
            checks.number(where, name, getattr(self, name), "above 0 and finite", lambda value: 0 < value < np.inf)
        checks.number(where, "scale_step", self.scale_step, "above 0 and below 1", lambda value: 0 < value < 1)
        checks.number(where, "epsilon", self.epsilon, "0 or more, and finite", lambda value: 0 <= value < np.inf)
        for name in ("scales", "warps", "outer_iterations", "inner_iterations"):
            checks.whole_number(where, name, getattr(self, name), "1 or more", lambda value: value >= 1)
        checks.whole_number(where, "median_filtering", self.median_filtering, "1 or 5", lambda value: value in (1, 5))

    @classmethod
    def preset(cls, name: str) -> TVL1Params:
        """Named set of parameters.

        Parameters
        ----------
        name : {"fixed", "opencv"}
            "fixed", the default: 20 iterations a warp, always, so that the answer is a smooth function of the images.
            "opencv": what `cv2.optflow.DualTVL1OpticalFlow_create()` does, which stops early.

        Raises
        ------
        ParameterError
        """
        checks.choice("TVL1Params.preset", "name", name, ("fixed", "opencv"))
        if name == "opencv":
            return cls(outer_iterations=10, inner_iterations=30, epsilon=0.01)
        return cls()


def level_shapes(shape: tuple[int, ...], params: TVL1Params) -> list[tuple[int, int]]:
    """Height and width of each level of a pyramid, finest first; no level is smaller than 16 px."""
    shapes = [(shape[0], shape[1])]
    for _ in range(params.scales - 1):
        smaller = tuple(round(side * params.scale_step) for side in shapes[-1])
        if min(smaller) < MIN_SIZE:
            break
        shapes.append((smaller[0], smaller[1]))
    return shapes


_DEFAULT = TVL1Params()


def tvl1_flow(
    reference: Any,
    moving: Any,
    params: TVL1Params = _DEFAULT,
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
    placed = place("tvl1_flow", {"reference": reference, "moving": moving}, backend)
    images = checks.image_pairs("tvl1_flow", placed.arrays[0], placed.arrays[1], MIN_SIZE, placed.ranges)
    count, height, width = images[0].shape
    stacks = [stack.reshape(count, 1, height, width) for stack in images]
    flow = placed.operations.tvl1_flow(stacks, np.ones((count, 1), np.bool_), params, workers)
    return placed.give_back(flow.reshape(count, 2, height, width))


def phase_flow(
    faces: Any,
    params: TVL1Params = _DEFAULT,
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
    placed = place("phase_flow", {"faces": faces}, backend)
    images = checks.face_triples("phase_flow", placed.arrays[0], MIN_SIZE, placed.ranges)
    phases = checks.valid_phases("phase_flow", valid, len(images))
    return placed.give_back(placed.operations.tvl1_flow([images], phases, params, workers))
