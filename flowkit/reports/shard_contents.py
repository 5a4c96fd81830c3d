"""What the report of a shard folder shows: its clips, its failures, what was measured, and the clips that are pictured."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from flowkit.errors import ShardCorrupt
from flowkit.storage.folder import ShardFolder
from flowkit.storage.shard_reader import Shard

PHASES: Final = ("rise", "fall")


@dataclass(frozen=True, slots=True)
class Measures:
    """Small columns of the shards that could be read, one row per clip; NaN where older shards have no such column."""

    phase_valid: npt.NDArray[np.bool_]
    residual: npt.NDArray[np.float64]
    registration: npt.NDArray[np.float64]
    turn: npt.NDArray[np.float64]
    removed_turn: npt.NDArray[np.float64]
    separation: npt.NDArray[np.float64]


_MEASURED: Final[Mapping[str, tuple[int, ...]]] = {
    "phase_valid": (2,),
    "residual": (2,),
    "registration": (2, 2, 3),
    "turn": (2, 2),
    "removed_turn": (2, 2),
    "separation": (2,),
}
"""Shape of each for one clip."""


@dataclass(frozen=True, slots=True)
class Contents:
    """All that the page shows."""

    folder: ShardFolder
    clips: list[dict[str, Any]]
    failures: list[dict[str, Any]]
    measures: Measures
    pictured: list[tuple[dict[str, Any], dict[str, Any]]]
    corrupt: tuple[str, ...]


def read(folder: ShardFolder, wanted: int) -> Contents:
    """Return what the page shows of a folder, with at most `wanted` clips to be pictured."""
    corrupt = [
        f"{path}: commit record and its shard must be whole; got something else. Run extract again: it redoes the task."
        for path in folder.invalid
    ]
    sound: dict[int, Shard] = {}
    measured = []
    for shard in folder.shards():
        try:
            with shard:
                measured.append([_measured(shard, name) for name in _MEASURED])
            sound[shard.record.task] = shard
        except ShardCorrupt as error:
            corrupt.append(str(error))
    clips = folder.clips()
    chosen = spread([clip for clip in clips if clip["task"] in sound], wanted)
    pictured = list(_samples(chosen, sound, corrupt))
    return Contents(folder, clips, folder.failures(), _measures(measured), pictured, tuple(corrupt))


def _measured(shard: Shard, name: str) -> npt.NDArray[Any]:
    try:
        return shard.column(name)
    except KeyError:  # of an older schema
        return np.full((len(shard), *_MEASURED[name]), math.nan)


def _measures(columns: Sequence[Sequence[npt.NDArray[Any]]]) -> Measures:
    empty = [np.empty((0, *shape), bool if name == "phase_valid" else float) for name, shape in _MEASURED.items()]
    return Measures(*(np.concatenate(parts) for parts in zip(empty, *columns, strict=True)))


def spread(clips: Iterable[dict[str, Any]], wanted: int) -> list[dict[str, Any]]:
    """At most `wanted` clips: data sets and labels take turns, each with a clip of the subject that was shown least."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for clip in sorted(clips, key=lambda clip: str(clip["clip_id"])):
        groups[clip["dataset"], clip["label"]].append(clip)
    shown: Counter[tuple[str, str]] = Counter()
    chosen: list[dict[str, Any]] = []
    while len(chosen) < wanted and any(groups.values()):
        for _, group in sorted(groups.items()):
            if group and len(chosen) < wanted:
                clip = min(group, key=lambda clip: shown[clip["dataset"], clip["subject"]])
                group.remove(clip)
                shown[clip["dataset"], clip["subject"]] += 1
                chosen.append(clip)
    return chosen


def _samples(
    chosen: Iterable[dict[str, Any]], shards: Mapping[int, Shard], corrupt: list[str]
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    for clip in chosen:
        try:
            with shards[clip["task"]] as shard:
                yield clip, shard.sample(clip["position"])
        except ShardCorrupt as error:
            corrupt.append(str(error))
