"""MM-COF of one clip on the CPU, with Numba: the operations of `reference.py` as loops over pixels, in float64 throughout.

Magnitudes range over many orders (a flow's tail is tiny), and their squares would leave float32.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from flowkit_kernels.cpu.simd import inlined, njit
from flowkit_kernels.params import MMCOFParams

Image = npt.NDArray[np.float32]
Region = npt.NDArray[np.bool_]


class Settings(NamedTuple):
    """`MMCOFParams` as the loops want them."""

    theta_1: float
    theta_2: float
    alpha: float
    beta: float
    k: float
    c: float
    floor_px: float
    hard: bool
    modulate: bool
    rise_only: bool
    fall_sign: float

    @classmethod
    def of(cls, params: MMCOFParams) -> Settings:
        """Words become flags, everything else stays."""
        return cls(
            theta_1=float(params.theta_1),
            theta_2=float(params.theta_2),
            alpha=float(params.alpha),
            beta=float(params.beta),
            k=float(params.k),
            c=float(params.c),
            floor_px=float(params.floor_px),
            hard=params.gate == "hard",
            modulate=params.modulate,
            rise_only=params.direction == "rise",
            fall_sign=-1.0 if params.direction == "reverse" else 1.0,
        )


@njit
def combine(flow: Image, region: Region, combined: Image, settings: Settings) -> None:
    """(2 phases, 2 components, H, W) -> M' cos a, M' sin a, M' of one clip, into `combined` (3, H, W)."""
    rise = weighted_magnitude(flow[0], region, settings.theta_1, settings.floor_px)
    fall = weighted_magnitude(flow[1], region, settings.theta_2, settings.floor_px)
    threshold = strong_motion(rise, fall, region, settings.c)
    height, width = region.shape
    for y in range(height):
        for x in range(width):
            magnitude = modulated_magnitude(rise[y, x] + fall[y, x], threshold, settings)
            cos, sin = direction(rise[y, x], fall[y, x], flow, y, x, settings)
            combined[0, y, x] = magnitude * cos
            combined[1, y, x] = magnitude * sin
            combined[2, y, x] = magnitude


@inlined
def weighted_magnitude(phase: Image, region: Region, weight: float, floor_px: float) -> npt.NDArray[np.float64]:
    """Mn_p times its weight: 0..weight over the region; 0 everywhere for a phase without motion."""
    height, width = region.shape
    magnitude = np.empty((height, width), np.float64)
    low, high = np.float64(1e300), np.float64(0)
    for y in range(height):
        for x in range(width):
            u, v = np.float64(phase[0, y, x]), np.float64(phase[1, y, x])
            magnitude[y, x] = math.sqrt(u * u + v * v)
            if region[y, x]:
                low, high = min(low, magnitude[y, x]), max(high, magnitude[y, x])
    if high - low < floor_px or high == low:
        magnitude[:] = 0
        return magnitude
    return (magnitude - low) * (weight / (high - low))


@inlined
def strong_motion(rise: npt.NDArray[np.float64], fall: npt.NDArray[np.float64], region: Region, c: float) -> float:
    """t: mean of M_c plus c standard deviations, over the region."""
    combined = (rise + fall).reshape(-1)[region.reshape(-1)]
    threshold: float = combined.mean() + c * combined.std()
    return threshold


@inlined
def modulated_magnitude(combined: float, threshold: float, settings: Settings) -> float:
    """M' of one pixel: strong motion raised by alpha, weak motion lowered by beta."""
    if settings.modulate:
        combined *= settings.beta + (settings.alpha - settings.beta) * gate(combined - threshold, settings)
    return min(max(combined, 0.0), 1.0)


@inlined
def gate(excess: float, settings: Settings) -> float:
    """0 below the threshold, 1 above it; the sigmoid in a form that cannot overflow."""
    if settings.hard:
        return 1.0 if excess >= 0 else 0.0
    return 0.5 + 0.5 * math.tanh(0.5 * settings.k * excess)


@inlined
def direction(rise: float, fall: float, flow: Image, y: int, x: int, settings: Settings) -> tuple[float, float]:
    """The cosine and sine of a_c at one pixel, from the weighted magnitudes and the flow there."""
    cos, sin = unit(np.float64(flow[0, 0, y, x]), np.float64(flow[0, 1, y, x]))
    if settings.rise_only:
        return cos, sin
    fall_cos, fall_sin = unit(np.float64(flow[1, 0, y, x]), np.float64(flow[1, 1, y, x]))
    weight = settings.fall_sign * fall
    return unit(rise * cos + weight * fall_cos, rise * sin + weight * fall_sin)


@inlined
def unit(x: float, y: float) -> tuple[float, float]:
    """The cosine and sine of the angle of (x, y); the angle of nothing is 0, as atan2 has it."""
    length = math.sqrt(x * x + y * y)
    if length > 0:
        return x / length, y / length
    return 1.0, 0.0
