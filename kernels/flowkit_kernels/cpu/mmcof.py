"""MM-COF of one clip on the CPU, with Numba: the operations of `reference.py` as loops over pixels, in float64 throughout.

Magnitudes range over many orders (a flow's tail is tiny), and their squares would leave float32.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from flowkit_kernels import numba_shared
from flowkit_kernels.cpu.simd import inlined, njit
from flowkit_kernels.numba_shared import MMCOFSettings

Image = npt.NDArray[np.float32]
Region = npt.NDArray[np.bool_]

gate, unit = inlined(numba_shared.gate), inlined(numba_shared.unit)


@njit
def combine(flow: Image, region: Region, combined: Image, settings: MMCOFSettings) -> None:
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
def modulated_magnitude(combined: float, threshold: float, settings: MMCOFSettings) -> float:
    """M' of one pixel: strong motion raised by alpha, weak motion lowered by beta."""
    if settings.modulate:
        combined *= settings.beta + (settings.alpha - settings.beta) * gate(combined - threshold, settings)
    return min(max(combined, 0.0), 1.0)


@inlined
def direction(rise: float, fall: float, flow: Image, y: int, x: int, settings: MMCOFSettings) -> tuple[float, float]:
    """The cosine and sine of a_c at one pixel, from the weighted magnitudes and the flow there."""
    cos, sin = unit(np.float64(flow[0, 0, y, x]), np.float64(flow[0, 1, y, x]))
    if settings.rise_only:
        return cos, sin
    fall_cos, fall_sin = unit(np.float64(flow[1, 0, y, x]), np.float64(flow[1, 1, y, x]))
    weight = settings.fall_sign * fall
    return unit(rise * cos + weight * fall_cos, rise * sin + weight * fall_sin)
