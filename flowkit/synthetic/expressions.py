"""Expressions as action units: which an emotion is made of, how strongly, and how they come and go.

An emotion is a distribution over combinations of action units, not one combination: the prototypes of EMFACS (Ekman and Friesen)
and the partial forms that collections of micro-expressions hold most often. A draw varies strength and side, may add an action
unit that has nothing to do with the emotion, and decides what is left at the offset:

- most movements go back almost wholly, some by half or not at all (*incomplete*);
- in some clips the fall brings an action unit of its own (*different*): the face does not run the rise backwards.

`repression` has a fall of its own in nearly half of its clips: a smile that lips pressed together put an end to.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from flowkit.face.face_mesh import BOTH, LEFT, RIGHT

Weights = dict[tuple[int, str], float]
"""Displacement at the peak of each action unit and side, relative to the strongest of the clip."""


@dataclass(frozen=True, slots=True)
class Combination:
    """Action units that come together.

    Attributes
    ----------
    share : float
        How often, relative to the other combinations of the emotion.
    units : mapping of int to float
        Relative strength of each.
    one_sided : bool
        One side moves, the other hardly.
    fall : mapping of int to float
        Action units that come with the fall.
    """

    share: float
    units: Mapping[int, float]
    one_sided: bool = False
    fall: Mapping[int, float] | None = None


def _c(
    share: float, units: dict[int, float], one_sided: bool = False, fall: dict[int, float] | None = None
) -> Combination:
    return Combination(share, units, one_sided, fall)


EMOTIONS: dict[str, tuple[Combination, ...]] = {
    "happiness": (
        _c(0.45, {6: 0.8, 12: 1}),
        _c(0.3, {12: 1}),
        _c(0.1, {12: 1, 25: 0.6}),
        _c(0.1, {12: 1}, True),
        _c(0.05, {6: 1}),
    ),
    "surprise": (
        *(_c(0.4, {1: 1, 2: 0.9}), _c(0.2, {1: 1, 2: 0.9, 5: 0.4}), _c(0.15, {1: 1, 2: 0.9, 5: 0.4, 26: 0.7})),
        *(_c(0.1, {2: 1}), _c(0.1, {1: 1, 2: 0.9, 25: 0.5}), _c(0.05, {5: 0.6, 26: 1})),
    ),
    "disgust": (
        *(_c(0.25, {9: 0.9, 10: 0.7, 4: 0.7}), _c(0.2, {9: 1}), _c(0.2, {4: 0.8, 9: 1}), _c(0.15, {10: 1})),
        *(_c(0.12, {9: 0.8, 10: 1}), _c(0.08, {10: 1, 17: 0.6})),
    ),
    "anger": (
        *(_c(0.3, {4: 1, 7: 0.7}), _c(0.25, {4: 1}), _c(0.2, {4: 1, 5: 0.3, 7: 0.6, 24: 0.5})),
        *(_c(0.15, {4: 1, 24: 0.7}), _c(0.1, {7: 0.8, 24: 1})),
    ),
    "fear": (
        *(
            _c(0.25, {1: 1, 2: 0.7, 4: 0.5, 5: 0.4, 20: 0.8}),
            _c(0.25, {1: 1, 2: 0.7, 4: 0.5}),
            _c(0.2, {1: 1, 4: 0.7, 5: 0.5}),
        ),
        *(_c(0.15, {20: 1}), _c(0.15, {1: 1, 2: 0.8, 5: 0.5, 20: 0.7})),
    ),
    "sadness": (
        *(_c(0.3, {1: 1, 4: 0.6}), _c(0.25, {1: 1, 4: 0.6, 15: 0.9}), _c(0.2, {15: 1}), _c(0.15, {1: 1, 15: 0.8})),
        *(_c(0.1, {15: 1, 17: 0.7}),),
    ),
    "contempt": (_c(0.6, {14: 1}, True), _c(0.2, {12: 0.8, 14: 1}, True), _c(0.2, {14: 1})),
    "repression": (
        *(_c(0.2, {15: 1, 17: 0.7}), _c(0.2, {17: 1, 24: 0.8}), _c(0.15, {24: 1})),
        *(_c(0.25, {12: 1}, fall={24: 0.9, 17: 0.6}), _c(0.2, {6: 0.7, 12: 1}, fall={15: 0.9})),
    ),
}
MEGC2019 = {
    "happiness": 109.0,
    "surprise": 83.0,
    **{
        label: 250 * count / 180
        for label, count in {
            "disgust": 70,
            "anger": 57,
            "repression": 27,
            "contempt": 12,
            "fear": 8,
            "sadness": 6,
        }.items()
    },
}
"""How often each label is in the MEGC2019 composite (See et al. 2019: 250 negative, 109 positive, 83 surprise). The negative clips
of SMIC have no further label; they are split as those of CASME II and SAMM."""
STRAY_UNITS = (1, 4, 6, 7, 14, 17, 24, 25)
"""What a face does beside an expression."""
_STRAY = (0.1, 0.35)
"""Strength of a stray action unit, relative to the expression."""


@dataclass(frozen=True, slots=True)
class Movement:
    """What a face does in one clip, relative to the strongest movement.

    Attributes
    ----------
    apex, offset : Weights
    units : tuple of int
        The action units of the expression itself.
    """

    apex: Weights
    offset: Weights
    units: tuple[int, ...]


def draw_movement(
    rng: np.random.Generator, emotion: str, stray: float = 0.25, incomplete: float = 0.35, different: float = 0.3
) -> Movement:
    """Draw how somebody shows an emotion once.

    Parameters
    ----------
    rng : numpy.random.Generator
    emotion : str
        One of `EMOTIONS`.
    stray : float
        Share of clips with an action unit that has nothing to do with the emotion.
    incomplete : float
        Share of clips in which 30 to 100 % of the movement is left at the offset; otherwise it is less than 30 %.
    different : float
        Share of clips whose fall brings an action unit of its own. Combinations that have one always do.

    Examples
    --------
    >>> draw_movement(np.random.default_rng(0), "contempt").units
    (14,)
    """
    combinations = EMOTIONS[emotion]
    shares = np.array([one.share for one in combinations])
    chosen = combinations[rng.choice(len(combinations), p=shares / shares.sum())]
    uneven = rng.normal(0, 0.2)
    apex: Weights = {}
    for unit, strength in chosen.units.items():
        _add(apex, unit, strength * rng.uniform(0.75, 1.15), uneven, rng, chosen.one_sided)
    if rng.random() < stray:
        _add(apex, int(rng.choice(STRAY_UNITS)), rng.uniform(*_STRAY), uneven, rng)
    left = rng.uniform(0.3, 1) if rng.random() < incomplete else rng.uniform(0, 0.3)
    offset = {key: weight * float(np.clip(left + rng.normal(0, 0.08), 0, 1.1)) for key, weight in apex.items()}
    fall = dict(chosen.fall or {})
    if rng.random() < different and not fall:
        fall = {int(rng.choice(STRAY_UNITS)): rng.uniform(0.2, 0.6)}
    for unit, strength in fall.items():
        _add(offset, unit, strength, uneven, rng)
    return Movement(apex, offset, tuple(sorted(chosen.units)))


def _add(
    weights: Weights, unit: int, strength: float, uneven: float, rng: np.random.Generator, one_sided: bool = False
) -> None:
    """Add an action unit to both sides, or mainly to one."""
    if unit in BOTH_SIDED:
        weights[unit, BOTH] = weights.get((unit, BOTH), 0.0) + strength
        return
    shares = [1 + uneven, 1 - uneven]
    if one_sided:
        shares = [1.0, rng.uniform(0, 0.25)][:: int(rng.choice((1, -1)))]
    for side, share in zip((LEFT, RIGHT), shares, strict=True):
        more = strength * max(0.1 if not one_sided else 0.0, share + rng.normal(0, 0.06))
        weights[unit, side] = weights.get((unit, side), 0.0) + max(0.0, more)


BOTH_SIDED = frozenset({17, 26})
"""Action units of the chin and the jaw."""


@dataclass(frozen=True, slots=True)
class Blink:
    """One closing of the eyes.

    Attributes
    ----------
    middle, half : float
        When they are closed most, and how long closing takes, in frames after the onset.
    closed : float
        1 where the lids meet.
    """

    middle: float
    half: float
    closed: float

    def at(self, t: float) -> float:
        """How far the eyes are closed in frame `t`; opening takes twice as long as closing."""
        apart = (t - self.middle) / (self.half if t < self.middle else 2 * self.half)
        return self.closed * 0.5 * (1 + math.cos(math.pi * apart)) if abs(apart) < 1 else 0.0
