"""Which class, or which action units, each clip of some shards has: from its label, or from what its manifest says of units."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from flowkit.errors import ConfigError, ShardCorrupt
from flowkit.labels.action_units import ACTION_UNIT_TARGETS, are_action_units, unit_class, units_of
from flowkit.labels.groupings import grouping, preview
from flowkit.storage.shard_reader import Shard

LEAST_CLIPS: Final = 5
LEAST_SUBJECTS: Final = 2
"""An action unit that fewer clips or subjects show is no class: hardly anything could be learned or scored."""

Target = int | tuple[int, ...]
"""Number of a class; or for each action unit 1 or 0."""


@dataclass(frozen=True, slots=True)
class Sorted:
    """Classes, the target of each clip (None: left out), and how many are left out, as "dataset/label": count.

    `rare` : units that are no class, and how many clips show them.
    """

    classes: tuple[str, ...]
    targets: list[Target | None]
    excluded: dict[str, int] = field(default_factory=dict)
    rare: dict[str, int] = field(default_factory=dict)


def sorted_clips(shards: Sequence[Shard], name: str) -> Sorted:
    """Return classes and targets of all clips, in the order of the shards.

    Parameters
    ----------
    shards : sequence of Shard
    name : str
        A grouping of labels, or `ACTION_UNIT_TARGETS`.

    Raises
    ------
    ConfigError
        No grouping has that name, it does not know a label, no clip or one class only is left.
    ShardCorrupt
    """
    return _by_units(shards) if name == ACTION_UNIT_TARGETS else _by_label(shards, name)


def _by_label(shards: Sequence[Shard], name: str) -> Sorted:
    labels = [(clip["dataset"], clip["label"]) for shard in shards for clip in shard.record.content["clips"]]
    groups = grouping(name).over(labels)
    if are_action_units(groups.classes):
        raise ConfigError(
            f"dataset: classes of a grouping must not all be named like action units; got {', '.join(groups.classes)} in {name}. "
            f"For units as targets, choose --classes {ACTION_UNIT_TARGETS} of fmanet train."
        )
    words = [groups.of(*label) for label in labels]
    excluded = {
        f"{dataset}/{label}": count
        for dataset, counts in preview(groups, labels).left_out.items()
        for label, count in counts.items()
    }
    targets: list[Target | None] = [None if word is None else groups.classes.index(word) for word in words]
    _check([groups.classes[target] for target in targets if isinstance(target, int)], name, groups.classes, len(words))
    return Sorted(groups.classes, targets, excluded)


def _by_units(shards: Sequence[Shard]) -> Sorted:
    clips = [(clip, extra) for shard in shards for clip, extra in zip(*_with_extra(shard), strict=True)]
    named = [units_of(extra) for _, extra in clips]
    shown = Counter(unit for units in named for unit in units or ())
    people: dict[int, set[tuple[str, str]]] = defaultdict(set)
    for (clip, _), units in zip(clips, named, strict=True):
        for unit in units or ():
            people[unit].add((clip["dataset"], clip["subject"]))
    known = sum(units is not None for units in named)
    kept = [
        unit
        for unit in sorted(shown)
        if LEAST_CLIPS <= shown[unit] <= known - LEAST_CLIPS and len(people[unit]) >= LEAST_SUBJECTS
    ]
    if len(kept) < 2:
        raise ConfigError(
            f"dataset: two action units or more must each be in {LEAST_CLIPS} clips of {LEAST_SUBJECTS} subjects, and absent in "
            f"as many; got {_counts(shown) or 'none'} in {len(clips)} clips. The manifest's column action_units names them; "
            "extract with it, or choose a grouping of labels."
        )
    targets: list[Target | None] = [
        None if units is None else tuple(int(unit in units) for unit in kept) for units in named
    ]
    without = Counter(clip["dataset"] for (clip, _), units in zip(clips, named, strict=True) if units is None)
    return Sorted(
        tuple(map(unit_class, kept)),
        targets,
        {f"{dataset}/no action units": count for dataset, count in without.items()},
        {unit_class(unit): count for unit, count in sorted(shown.items()) if unit not in kept},
    )


def _with_extra(shard: Shard) -> tuple[Sequence[dict[str, Any]], list[dict[str, Any]]]:
    """Clips of a shard, and the further columns that the manifest had of each."""
    with shard:
        texts = shard.column("extra")
    try:
        extra = [json.loads(text) if text else {} for text in texts]
    except ValueError as error:
        raise ShardCorrupt(
            f"{shard.path}: column extra must hold JSON; got something else ({error}). Restore the file from a copy."
        ) from error
    return shard.record.content["clips"], extra


def _counts(shown: Counter[int]) -> str:
    return ", ".join(f"{unit_class(unit)} in {count}" for unit, count in sorted(shown.items()))


def _check(words: Sequence[str], name: str, classes: Sequence[str], clips: int) -> None:
    """Refuse clips of fewer than two classes; `words` are the classes of those that the grouping keeps."""
    if not words:
        raise ConfigError(
            f"dataset: at least one clip must belong to a class of {name} ({', '.join(classes)}); got {clips} that it leaves out. "
            "Choose another grouping."
        )
    if len(set(words)) == 1:
        raise ConfigError(
            f"dataset: clips must belong to two classes of {name} or more; got {len(words)} of {words[0]} alone. Add "
            "folders, or choose another grouping."
        )
