"""Parameters of the operations, and what follows from them alone: the shapes of a pyramid's levels."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from flowkit_kernels import checks

MIN_SIZE = 16
"""Smallest side, in pixels, of an image and of a pyramid level."""
PRESETS = ("micro", "fixed", "opencv")
"""What `TVL1Params.preset` knows; the first is the default."""


@dataclass(frozen=True, slots=True)
class TVL1Params:
    """Parameters of the solver, under OpenCV's names; the default is the preset "micro".

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
    35
    """

    tau: float = 0.25
    lambda_: float = 0.15
    theta: float = 0.15
    scales: int = 5
    scale_step: float = 0.5
    warps: int = 2
    outer_iterations: int = 1
    inner_iterations: int = 35
    epsilon: float = 0.0
    median_filtering: int = 5
    round_coordinates: bool = False

    def __post_init__(self) -> None:
        where = "TVL1Params"
        for name in ("tau", "lambda_", "theta"):
            checks.number(where, name, getattr(self, name), "above 0 and finite", lambda value: 0 < value < math.inf)
        checks.number(where, "scale_step", self.scale_step, "above 0 and below 1", lambda value: 0 < value < 1)
        checks.number(where, "epsilon", self.epsilon, "0 or more, and finite", lambda value: 0 <= value < math.inf)
        for name in ("scales", "warps", "outer_iterations", "inner_iterations"):
            checks.whole_number(where, name, getattr(self, name), "1 or more", lambda value: value >= 1)
        checks.whole_number(where, "median_filtering", self.median_filtering, "1 or 5", lambda value: value in (1, 5))

    @classmethod
    def preset(cls, name: str) -> TVL1Params:
        """Return a named set of parameters.

        Parameters
        ----------
        name : {"micro", "fixed", "opencv"}
            "micro", the default: as little work as aligned faces need, chosen by `benchmarks/solver.py`.
            "fixed", the default of version 0.1: OpenCV's pyramid and warps, 20 iterations per warp.
            Both run a fixed number of iterations, so that the answer is a smooth function of the images.
            "opencv": what `cv2.optflow.DualTVL1OpticalFlow_create()` does, which stops early.

        Raises
        ------
        ParameterError
        """
        checks.choice("TVL1Params.preset", "name", name, PRESETS)
        if name == "micro":
            return cls()
        fixed = cls(theta=0.3, scale_step=0.8, warps=5, inner_iterations=20)
        return fixed if name == "fixed" else replace(fixed, outer_iterations=10, inner_iterations=30, epsilon=0.01)


_OPENCV_NAMES = {
    "tau": "Tau",
    "lambda_": "Lambda",
    "theta": "Theta",
    "scales": "ScalesNumber",
    "scale_step": "ScaleStep",
    "warps": "WarpingsNumber",
    "outer_iterations": "OuterIterations",
    "inner_iterations": "InnerIterations",
    "epsilon": "Epsilon",
    "median_filtering": "MedianFiltering",
}


def opencv_settings(params: TVL1Params) -> dict[str, float]:
    """Return the same parameters for the setters of `cv2.optflow.DualTVL1OpticalFlow`, by their names without "set".

    Examples
    --------
    >>> opencv_settings(TVL1Params.preset("fixed"))["WarpingsNumber"]
    5
    """
    return {name: getattr(params, ours) for ours, name in _OPENCV_NAMES.items()}


def level_shapes(shape: tuple[int, ...], params: TVL1Params) -> list[tuple[int, int]]:
    """Return the height and width of each level of a pyramid, finest first; no level is smaller than 16 px."""
    shapes = [(shape[0], shape[1])]
    for _ in range(params.scales - 1):
        smaller = tuple(round(side * params.scale_step) for side in shapes[-1])
        if min(smaller) < MIN_SIZE:
            break
        shapes.append((smaller[0], smaller[1]))
    return shapes


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
            checks.number(
                where, name, getattr(self, name), "0 or more, and finite", lambda value: 0 <= value < math.inf
            )
        checks.number(where, "k", self.k, "above 0 and finite", lambda value: 0 < value < math.inf)
        checks.number(where, "c", self.c, "finite", lambda value: abs(value) < math.inf)
        checks.whole_number(where, "border_px", self.border_px, "0 or more", lambda value: value >= 0)
        checks.choice(where, "gate", self.gate, ("soft", "hard"))
        checks.choice(where, "direction", self.direction, ("reverse", "rise", "sum"))
        checks.choice(where, "region", self.region, ("face", "image"))
