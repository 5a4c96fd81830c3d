"""What the backends "cpu" and "numba-cuda" share: plain functions of one pixel, and the settings of MM-COF.

Each backend compiles the functions for itself, with its own flags. So none of them may call another: Numba finds no compiled code
behind a plain name.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from flowkit_kernels import reference
from flowkit_kernels.params import MMCOFParams

F32 = np.float32
EPSILON = F32(reference.EPSILON)
WHITE = F32(reference.GREY)
CUBIC = F32(reference.CUBIC)
ONE = F32(1)


class MMCOFSettings(NamedTuple):
    """`MMCOFParams` as compiled code wants them."""

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
    def of(cls, params: MMCOFParams) -> MMCOFSettings:
        """Turn words into flags and leave everything else."""
        return cls(
            theta_1=float(params.theta_1),
            theta_2=float(params.theta_2),
            alpha=float(params.alpha),
            beta=float(params.beta),
            k=float(params.k),
            c=float(params.c),
            floor_px=float(params.floor_px),
            hard=params.gate == "hard",
            modulate=bool(params.modulate),
            rise_only=params.direction == "rise",
            fall_sign=-1.0 if params.direction == "reverse" else 1.0,
        )


def gate(excess: float, settings: MMCOFSettings) -> float:
    """Return 0 below the threshold, 1 above it; the sigmoid in a form that cannot overflow."""
    if settings.hard:
        return 1.0 if excess >= 0 else 0.0
    return 0.5 + 0.5 * math.tanh(0.5 * settings.k * excess)


def unit(x: float, y: float) -> tuple[float, float]:
    """Return the cosine and sine of the angle of (x, y); the angle of nothing is 0, as atan2 has it."""
    length = math.sqrt(x * x + y * y)
    if length > 0:
        return x / length, y / length
    return 1.0, 0.0


def cubic_weights(t: np.float32) -> tuple[np.float32, np.float32, np.float32, np.float32]:
    """Return the weights of the four neighbours at -1, 0, 1, 2 of a point at t in [0, 1)."""
    s = ONE - t
    before = ((CUBIC * (t + ONE) - F32(5) * CUBIC) * (t + ONE) + F32(8) * CUBIC) * (t + ONE) - F32(4) * CUBIC
    left = ((CUBIC + F32(2)) * t - (CUBIC + F32(3))) * t * t + ONE
    right = ((CUBIC + F32(2)) * s - (CUBIC + F32(3))) * s * s + ONE
    return before, left, right, ONE - before - left - right
