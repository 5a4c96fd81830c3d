"""MM-COF, magnitude-modulated combined optical flow: its parameters and its entry point."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from flowkit_kernels import checks
from flowkit_kernels.arrays import place


@dataclass(frozen=True, slots=True)
class MMCOFParams:
    """How the flow of the two phases becomes one map.

    Attributes
    ----------
    theta_1, theta_2 : float
        Weights of the rise and of the fall.
    alpha, beta : float
        Gain where the combined magnitude is above the threshold, and where it is below.
    k : float
        Steepness of the soft gate. Up: closer to the hard one.
    c : float
        Threshold: mean + c standard deviations of the combined magnitude. Up: less counts as strong motion.
    gate : {"soft", "hard"}
        Sigmoid, or step.
    direction : {"reverse", "rise", "sum"}
        "reverse": the fall is turned round before the two are added; "rise": the rise's alone; "sum": no turning.
    region : {"face", "image"}
        Where minimum, maximum, mean and deviation are taken: inside the mask (without one: in the image without its
        border), or in the whole image.
    floor_px : float, in pixels
        A phase whose magnitudes differ by less is without motion.
    border_px : int, in pixels
        Width of the border that counts for nothing where there is no mask.
    modulate : bool
        False leaves the modulation out: COF.

    Raises
    ------
    ParameterError

    Examples
    --------
    >>> MMCOFParams(modulate=False).direction
    'reverse'
    """

    theta_1: float = 0.5
    theta_2: float = 0.5
    alpha: float = 1.5
    beta: float = 0.5
    k: float = 20.0
    c: float = 1.0
    gate: Literal["soft", "hard"] = "soft"
    direction: Literal["reverse", "rise", "sum"] = "reverse"
    region: Literal["face", "image"] = "face"
    floor_px: float = 0.05
    border_px: int = 8
    modulate: bool = True

    def __post_init__(self) -> None:
        where = "MMCOFParams"
        for name in ("theta_1", "theta_2", "alpha", "beta", "floor_px"):
            checks.number(where, name, getattr(self, name), "0 or more, and finite", lambda value: 0 <= value < np.inf)
        checks.number(where, "k", self.k, "above 0 and finite", lambda value: 0 < value < np.inf)
        checks.number(where, "c", self.c, "finite", lambda value: abs(value) < np.inf)
        checks.whole_number(where, "border_px", self.border_px, "0 or more", lambda value: value >= 0)
        checks.choice(where, "gate", self.gate, ("soft", "hard"))
        checks.choice(where, "direction", self.direction, ("reverse", "rise", "sum"))
        checks.choice(where, "region", self.region, ("face", "image"))


_DEFAULT = MMCOFParams()


def mmcof(
    flow: Any,
    params: MMCOFParams = _DEFAULT,
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
    placed = place("mmcof", arrays, backend)
    flow = checks.phase_flow("mmcof", placed.arrays[0], placed.ranges)
    if params.region == "image":
        region: Any = np.broadcast_to(np.True_, (len(flow), *flow.shape[-2:]))
    elif mask is not None:
        region = checks.mask("mmcof", placed.arrays[1], flow, placed.ranges)
    else:
        region = _inside_border(flow, params.border_px)
    return placed.give_back(placed.operations.mmcof(flow, params, region, workers))


def _inside_border(flow: Any, border_px: int) -> npt.NDArray[np.bool_]:
    checks.larger_than_border("mmcof", flow, border_px)
    region = np.zeros(flow.shape[-2:], np.bool_)
    height, width = region.shape
    region[border_px : height - border_px, border_px : width - border_px] = True
    return np.broadcast_to(region, (len(flow), height, width))
