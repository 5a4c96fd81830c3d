"""Chance that depends on a name and a seed alone: what is drawn for one clip is the same whatever else is in the data set."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def generator(seed: int, name: str) -> np.random.Generator:
    """Return the random numbers of one thing.

    Examples
    --------
    >>> generator(0, "s01").integers(100) == generator(0, "s01").integers(100)
    True
    """
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def between(turn: int, end: int, onset: Array, turned: Array, offset: Array, t: float) -> Array:
    """Return the values at frame `t` on a smooth curve through those at 0 (the onset), `turn` and `end` (the offset), flat outside.

    Examples
    --------
    >>> zero, one = np.zeros(1), np.ones(1)
    >>> between(10, 20, zero, one, zero, 5)
    array([0.5])
    """
    t = min(max(t, 0), end)
    if t <= turn:
        return onset + (turned - onset) * smooth(t / turn)
    return turned + (offset - turned) * smooth((t - turn) / (end - turn))


def smooth(share: float) -> float:
    """Return a share of a way that begins and ends at rest."""
    return share * share * (3 - 2 * share)
