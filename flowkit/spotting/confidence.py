"""How probable it is that a movement is an expression: a logistic regression on ten measures of it.

The weights are in assets/expression_confidence.csv. `benchmarks/spotting_confidence.py` fitted them to synthetic people who talk,
blink, turn their heads and show expressions; docs/spotting.md says how well they hold on others. On real faces they are a ranking,
not a probability that anybody measured.
"""

from __future__ import annotations

import csv
import functools
import math
from dataclasses import dataclass
from importlib import resources
from typing import Final

import numpy as np
import numpy.typing as npt

from flowkit.face.head_shape import NOMINAL_PX, HeadShape
from flowkit.face.landmarks import POINTS
from flowkit.motion.peak_search import rise_and_fall
from flowkit.spotting.course import UNITS
from flowkit.spotting.movements import Movement

Array = npt.NDArray[np.float64]

MEASURES: Final = (
    "score",  # logarithm of how far it stands out of its surroundings
    "background",  # logarithm of how much happens around it
    "shape",  # share of its curve that is one rise and one fall
    "pull",  # share of the motion by action units that pull: none pushes
    "lids",  # closing of the eyes meanwhile, cm
    "turned",  # logarithm of 1 and by how much the head turns and comes back meanwhile, degrees
    "mouth",  # share of the motion that is the mouth's
    "mouth_background",  # that, times the background: speech
    "unreturned",  # logarithm of what is left at its end, relative to its peak
    "duration",  # logarithm of its length in s
)
"""What a movement is judged by."""
WEIGHTS: Final = resources.files("flowkit.assets") / "expression_confidence.csv"
CROP: Final = 128
"""Side of the crop that motion is told in, px."""
REGIONS: Final = {
    "brows": (1, 2, 4),
    "eyes": (5, 7),
    "cheeks and nose": (6, 9, 10),
    "mouth": (12, 14, 15, 16, 17, 20, 24, 25, 26),
}
"""Parts of the face, and the action units that move them."""
_NUMBERS = np.array([int(name.rstrip("LRB")) for name in UNITS])
_MOUTH = _NUMBERS >= 16
_END_SHARE = 0.15
"""Share of a movement's length before its onset and behind its offset that counts as rest."""


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """What a movement is.

    Attributes
    ----------
    units : (K,) float64
        Strength of each action unit at the apex relative to onset and offset, cm.
    motion_px : float
        Root mean square of that motion over the face, px of a crop of `CROP`.
    lids : float
        Closing of the eyes meanwhile, cm.
    measures : (M,) float64
        In the order of `MEASURES`.
    """

    units: Array
    motion_px: float
    lids: float
    measures: Array


def measured(movement: Movement, units: Array, lids: Array, turn: Array, fps: float) -> Measured:
    """Measure a movement of a run.

    Parameters
    ----------
    movement : Movement
    units : (T, K) float64
        Strengths, less what blinks leave in them.
    lids : (T, L) float64
    turn : (T, 2) float64
        Yaw and pitch of the head, degrees.
    fps : float
    """
    change, left = _at_apex(units, movement)
    closing = float(_at_apex(lids, movement)[0].mean())
    lengths = face_motion()
    motion = length_px(change)
    parts = np.square(change) * np.diag(lengths)
    pulled, whole = float(parts[change > 0].sum()), max(float(parts.sum()), 1e-12)
    mouth = float(parts[_MOUTH].sum()) / whole
    background = math.log(movement.background + 1)
    measures = {
        "score": math.log(movement.score),
        "background": background,
        "shape": _shape(movement),
        "pull": pulled / whole,
        "lids": closing,
        "turned": math.log1p(float(np.hypot(*_at_apex(turn, movement)[0]))),
        "mouth": mouth,
        "mouth_background": mouth * background,
        "unreturned": math.log(length_px(left) / max(motion, 1e-6) + 0.05),
        "duration": math.log((movement.offset - movement.onset) / fps),
    }
    return Measured(change, motion, closing, np.array([measures[name] for name in MEASURES]))


def confidence(measures: Array) -> Array:
    """Return the probability that movements, (..., M), are expressions, (...)."""
    bias, weights = weights_of()
    return np.asarray(1 / (1 + np.exp(-(bias + np.einsum("...m,m->...", measures, weights)))))


def region_of(units: Array) -> str:
    """Name the part of the face that moves most, and the next, if it moves at least half as much."""
    parts = np.square(units) * np.diag(face_motion())
    motion = {name: math.sqrt(parts[np.isin(_NUMBERS, numbers)].sum()) for name, numbers in REGIONS.items()}
    first, second, *_ = sorted(motion, key=lambda name: -motion[name])
    return f"{first} + {second}" if motion[second] > motion[first] / 2 else first


@functools.cache
def weights_of() -> tuple[float, Array]:
    """Return the bias and the weights of all measures, as they are stored."""
    with WEIGHTS.open(encoding="utf-8") as file:
        stored = {row["measure"]: float(row["weight"]) for row in csv.DictReader(file)}
    return stored["bias"], np.array([stored[name] for name in MEASURES])


def length_px(units: Array) -> float:
    """Root mean square of the motion of the face by strengths (K,), px of a crop of `CROP`."""
    return math.sqrt(max(float(units @ face_motion() @ units), 0.0))


@functools.cache
def face_motion() -> Array:
    """Return (K, K): v' M v is the mean squared motion, px^2, of the canonical face by strengths v."""
    nowhere = np.full((POINTS, 2), np.nan, np.float32)
    fields = HeadShape.of(nowhere, np.eye(2, 3), NOMINAL_PX).grid.action_units[: len(UNITS)].astype(np.float64)
    fields *= CROP / NOMINAL_PX
    moved = np.count_nonzero(np.abs(fields).sum(axis=(0, 1)))
    return np.asarray(np.einsum("kchw,jchw->kj", fields, fields) / moved)


def _at_apex(values: Array, movement: Movement) -> tuple[Array, Array]:
    """By how much values (T, K) differ at the apex from those at rest, and those at the offset from those at the onset."""
    length = movement.offset - movement.onset
    rest = max(2, int(_END_SHARE * length))
    before, behind = (
        _mean(values, movement.onset - rest, movement.onset),
        _mean(values, movement.offset, movement.offset + rest),
    )
    top = _mean(values, movement.apex - max(1, rest // 2), movement.apex + max(1, rest // 2))
    share = (movement.apex - movement.onset) / length
    return top - (before + (behind - before) * share), behind - before


def _mean(values: Array, low: float, high: float) -> Array:
    first = min(max(round(low), 0), len(values) - 1)
    return np.asarray(values[first : max(round(high), first) + 1].mean(axis=0))


def _shape(movement: Movement) -> float:
    """Share of a movement's curve, half its length on either side included, that one rise and one fall explain."""
    length = movement.offset - movement.onset
    at = np.arange(
        max(movement.begin, int(movement.onset - length / 2)),
        min(movement.begin + len(movement.curve), int(movement.offset + length / 2) + 1),
        dtype=np.float64,
    )
    curve = movement.curve[int(at[0]) - movement.begin :][: len(at)]
    apex = movement.apex if movement.onset < movement.apex < movement.offset else (movement.onset + movement.offset) / 2
    risen, fallen = rise_and_fall(at, movement.onset, apex, movement.offset).T
    columns = np.stack([np.ones_like(at), at - at.mean(), risen - fallen], axis=1)
    whole, left = (curve - part @ np.linalg.lstsq(part, curve, rcond=None)[0] for part in (columns[:, :2], columns))
    return 1 - float(left @ left) / max(float(whole @ whole), 1e-9)
