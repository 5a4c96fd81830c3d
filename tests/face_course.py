"""Courses of a face, frame by frame, made up: at rest, with movements and blinks, and with frames that could not be used."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from flowkit.motion.peak_search import rise_and_fall
from flowkit.spotting.course import FRAME, STRENGTHS, UNITS, Use

Frames = npt.NDArray[Any]
FPS = 30.0
BROWS = ("1L", "1R", "2L", "2R")


def still(count: int, fps: float = FPS, seed: int = 0, noise: float = 0.01) -> Frames:
    """Frames of a face at rest, with the noise of a good camera, cm; the first has the number 0."""
    rng = np.random.default_rng(seed)
    frames = np.zeros(count, FRAME)
    frames["number"] = np.arange(count)
    frames["seconds"] = frames["number"] / fps
    frames["faces"] = 1
    for name in ("units", "lids"):
        frames[name] = noise * rng.standard_normal(frames[name].shape)
    return frames


def hill(count: int, onset: float, apex: float, offset: float) -> npt.NDArray[np.float64]:
    risen, fallen = rise_and_fall(np.arange(count, dtype=np.float64), onset, apex, offset).T
    return np.asarray(risen - fallen)


def raise_units(frames: Frames, apex: int, rise: int = 6, fall: int = 8, units: tuple[str, ...] = BROWS) -> None:
    for name in units:
        frames["units"][:, UNITS.index(name)] += 0.25 * hill(len(frames), apex - rise, apex, apex + fall)


def blink(frames: Frames, apex: int, closing: float = 0.5) -> None:
    frames["lids"] += closing * hill(len(frames), apex - 3, apex, apex + 4)[:, None]


def leave_out(frames: Frames, begin: int, end: int, use: Use) -> None:
    frames["run"][begin:end], frames["use"][begin:end] = -1, use
    for name in STRENGTHS:
        frames[name][begin:end] = 0
