"""The frames beside the key frames: how many there may be, and reading those that are there."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from flowkit.inputs.images import Picture, grey
from flowkit.inputs.key_frames import KeyFrames

WITHIN_S = 0.010
"""Time on either side of a key frame in which the face hardly moves."""
MOST_BESIDE = 2
"""Frames on either side that "auto" reads, at most: each costs its decoding."""
SHARE = 5
"""A window reaches at most this part of the way to the next key frame, so that it blends no two states of the face."""

Grey = npt.NDArray[np.float32]


def reaches(key: KeyFrames, fps: float, average: Literal["auto", "off"] | int) -> tuple[int, int, int]:
    """Return how many frames on either side of onset, apex and offset may be averaged with it.

    Parameters
    ----------
    key : KeyFrames
    fps : float
        Frames per second; NaN where unknown.
    average : {"auto", "off"} or int
        The setting `frames.average`.

    Examples
    --------
    >>> key = KeyFrames(1, 12, 16, "annotated", (True, True))
    >>> reaches(key, 200.0, "auto"), reaches(key, 60.0, "auto"), reaches(key, 60.0, 3)
    ((2, 0, 0), (0, 0, 0), (1, 0, 0))
    """
    most = _most(fps, average)
    numbers = (key.onset, key.apex, key.apex if key.offset is None else key.offset)
    different = sorted({*numbers})
    if most == 0 or len(different) < 2:
        return 0, 0, 0
    onset, apex, offset = (min(abs(number - other) for other in different if other != number) for number in numbers)
    return min(most, onset // SHARE), min(most, apex // SHARE), min(most, offset // SHARE)


def _most(fps: float, average: Literal["auto", "off"] | int) -> int:
    if average == "off":
        return 0
    if average != "auto":
        return average // 2
    return (
        0 if math.isnan(fps) else min(math.floor(WITHIN_S * fps + 0.02), MOST_BESIDE)
    )  # 119.88 or 199.9 are 120 and 200


def numbers_beside(numbers: Sequence[int], reach: Sequence[int]) -> list[int]:
    """Return the numbers of the frames beside key frames, sorted."""
    found = itertools.chain.from_iterable(
        range(number - by, number + by + 1) for number, by in zip(numbers, reach, strict=True)
    )
    return sorted({*found} - {*numbers})


class GreyBeside(Mapping[int, Grey]):
    """Grey values in [0, 1] of the frames beside one key frame, by distance, made when they are asked for: all at once take memory.

    Parameters
    ----------
    pictures : mapping of int to Picture
        By distance; without colour.
    full : int
        Full scale of 16-bit samples: that of the key frames.
    """

    def __init__(self, pictures: Mapping[int, Picture], full: int) -> None:
        self._pictures = pictures
        self._full = full

    def __getitem__(self, distance: int) -> Grey:
        return grey(self._pictures[distance], self._full)

    def __iter__(self) -> Iterator[int]:
        return iter(self._pictures)

    def __len__(self) -> int:
        return len(self._pictures)


def by_distance(
    pictures: Mapping[int, Picture], numbers: Sequence[int], reach: Sequence[int], keys: Sequence[Picture]
) -> tuple[list[dict[int, Picture]], bool]:
    """Return the frames beside each key frame that have its size, by distance, and whether one has another.

    Parameters
    ----------
    pictures : mapping of int to Picture
        By frame number.
    numbers, reach : three int
        Of the key frames; as `reaches` gives it.
    keys : three Picture
    """
    found, other_size = [], False
    for key, number, by in zip(keys, numbers, reach, strict=True):
        near = {d: pictures[number + d] for d in range(-by, by + 1) if d and number + d in pictures}
        found.append({d: one for d, one in near.items() if one.pixels.shape[:2] == key.pixels.shape[:2]})
        other_size |= len(found[-1]) < len(near)
    return found, other_size
