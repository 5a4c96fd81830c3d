"""MM-COF on a GPU, with Numba: the operations of `reference.py`, a block a clip, in float64 throughout.

Magnitudes range over many orders (a flow's tail is tiny), and their squares would leave float32. Each of the few passes works
the weighted magnitudes out anew from the flow: that is cheaper than to keep them.
"""

from __future__ import annotations

import math

from numba import cuda

from flowkit_kernels import numba_shared
from flowkit_kernels.numba_cuda.blocks import F32, F64, THREADS, Array, block_min, block_sum, device, kernel
from flowkit_kernels.numba_shared import MMCOFSettings

gate, unit = device(numba_shared.gate), device(numba_shared.unit)


def mmcof(flow: Array, region: Array, combined: Array, settings: MMCOFSettings) -> None:
    """(N, 2, 2, H, W), (N, H, W) -> (N, 3, H, W), all on the device."""
    count, pixels = len(flow), flow.shape[3] * flow.shape[4]
    planes = flow.reshape(count, 2, 2, pixels), region.reshape(count, pixels), combined.reshape(count, 3, pixels)
    combine[count, THREADS](*planes, settings)


@kernel
def combine(flow: Array, region: Array, combined: Array, settings: MMCOFSettings) -> None:
    """(2 phases, 2 components, H W) -> M' cos a, M' sin a, M' of each clip."""
    n = cuda.blockIdx.x
    parts = cuda.shared.array(THREADS, F64)
    low_1, scale_1 = phase_scale(flow[n, 0], region[n], settings.theta_1, settings.floor_px, parts)
    low_2, scale_2 = phase_scale(flow[n, 1], region[n], settings.theta_2, settings.floor_px, parts)
    threshold = strong_motion(flow[n], region[n], low_1, scale_1, low_2, scale_2, settings.c, parts)
    for i in range(cuda.threadIdx.x, flow.shape[3], THREADS):
        rise = weighted_magnitude(flow[n, 0], i, low_1, scale_1)
        fall = weighted_magnitude(flow[n, 1], i, low_2, scale_2)
        magnitude = modulated_magnitude(rise + fall, threshold, settings)
        cos, sin = direction(rise, fall, flow[n], i, settings)
        combined[n, 0, i] = F32(magnitude * cos)
        combined[n, 1, i] = F32(magnitude * sin)
        combined[n, 2, i] = F32(magnitude)


@device
def phase_scale(phase: Array, region: Array, weight: float, floor_px: float, parts: Array) -> tuple[float, float]:
    """Minimum of the magnitude over the region, and what brings its range to 0..weight; 0 for a phase without motion."""
    low, high = math.inf, -math.inf
    for i in range(cuda.threadIdx.x, region.shape[0], THREADS):
        if region[i]:
            u, v = F64(phase[0, i]), F64(phase[1, i])
            magnitude = math.sqrt(u * u + v * v)
            low, high = min(low, magnitude), max(high, magnitude)
    low, high = block_min(low, parts), -block_min(-high, parts)
    if high - low < floor_px or high == low:
        return low, 0.0
    return low, weight / (high - low)


@device
def weighted_magnitude(phase: Array, i: int, low: float, scale: float) -> float:
    """Mn_p of one pixel times its weight."""
    if scale == 0:
        return 0.0
    u, v = F64(phase[0, i]), F64(phase[1, i])
    return (math.sqrt(u * u + v * v) - low) * scale


@device
def strong_motion(
    flow: Array,
    region: Array,
    low_1: float,
    scale_1: float,
    low_2: float,
    scale_2: float,
    c: float,
    parts: Array,
) -> float:
    """t: mean of M_c plus c standard deviations, over the region."""
    count, total, squares = F64(0), F64(0), F64(0)
    for i in range(cuda.threadIdx.x, region.shape[0], THREADS):
        if region[i]:
            count += F64(1)
            total += weighted_magnitude(flow[0], i, low_1, scale_1) + weighted_magnitude(flow[1], i, low_2, scale_2)
    count = block_sum(count, parts)
    mean = block_sum(total, parts) / count
    for i in range(cuda.threadIdx.x, region.shape[0], THREADS):
        if region[i]:
            rise = weighted_magnitude(flow[0], i, low_1, scale_1)
            fall = weighted_magnitude(flow[1], i, low_2, scale_2)
            squares += (rise + fall - mean) ** 2
    deviation = math.sqrt(block_sum(squares, parts) / count)
    threshold: float = mean + c * deviation
    return threshold


@device
def modulated_magnitude(combined: float, threshold: float, settings: MMCOFSettings) -> float:
    """M' of one pixel: strong motion raised by alpha, weak motion lowered by beta."""
    if settings.modulate:
        combined *= settings.beta + (settings.alpha - settings.beta) * gate(combined - threshold, settings)
    return min(max(combined, 0.0), 1.0)


@device
def direction(rise: float, fall: float, flow: Array, i: int, settings: MMCOFSettings) -> tuple[float, float]:
    """The cosine and sine of a_c at one pixel, from the weighted magnitudes and the flow there."""
    cos, sin = unit(F64(flow[0, 0, i]), F64(flow[0, 1, i]))
    if settings.rise_only:
        return cos, sin
    fall_cos, fall_sin = unit(F64(flow[1, 0, i]), F64(flow[1, 1, i]))
    weight = settings.fall_sign * fall
    turned: tuple[float, float] = unit(rise * cos + weight * fall_cos, rise * sin + weight * fall_sin)
    return turned
