"""Two clips of the same frames: one movement must not count twice, nor have two labels."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final

from flowkit.datasets.base import CORRECT_A_COPY, MAX_NAMED, Annotation
from flowkit.datasets.source import Source
from flowkit.inputs.clip import Clip
from flowkit.labels.toml_form import fold
from flowkit.listing import listed

Pair = tuple[Annotation, Clip]
REASON: Final = "the same images as another clip, but another interval, person, label, kind or apex"


def each_interval_once(source: Source, pairs: Sequence[Pair]) -> list[Clip]:
    """Return the clips without those that another clip is already.

    Clips are the same if their images are: folder (behind all links), onset and offset. The first one stays; where subjects,
    labels, kinds or apexes differ, all are left out. So are clips of different intervals that were given the same images, which
    only renumbered ones can be. Before that, a further expression of a row (one with a serial) goes whose numbers are those of
    another clip of the same recording: its label is only its row's.

    Parameters
    ----------
    source : Source
        Is told what was left out, and what is the same.
    pairs : sequence of (Annotation, Clip)
    """
    same: list[str] = []
    left = _without_further(pairs, same)
    places = {clip.path: _behind_links(source, clip) for _, clip in left}
    groups: dict[tuple[object, ...], list[Pair]] = {}
    for annotation, clip in left:
        groups.setdefault((places[clip.path], clip.onset, clip.offset), []).append((annotation, clip))
    moved = {name for names in source.renumbered.values() for name in names}
    kept = [pair for group in groups.values() for pair in _one_of(source, group, moved, same)]
    if same:
        source.note(
            f"{len(same)} clips have the frames of another clip and count once, as that: {listed(same, MAX_NAMED)}."
        )
    order = {clip.clip_id: number for number, (_, clip) in enumerate(pairs)}
    return sorted((clip for _, clip in kept), key=lambda clip: order[clip.clip_id])


def _without_further(pairs: Sequence[Pair], same: list[str]) -> list[Pair]:
    """Clips without those further expressions of rows whose numbers are, in the same recording, those of another clip."""
    groups: dict[tuple[str, ...], list[Pair]] = {}
    for annotation, clip in pairs:
        key = (annotation.recording, annotation.onset, annotation.offset) if annotation.recording else (clip.clip_id,)
        groups.setdefault(key, []).append((annotation, clip))
    left: list[Pair] = []
    for group in groups.values():
        named = [pair for pair in group if not pair[0].serial]
        kept, gone = (named, [pair for pair in group if pair[0].serial]) if named else (group[:1], group[1:])
        left += kept
        same += [f"{clip.clip_id} ({kept[0][1].clip_id})" for _, clip in gone]
    return left


def _behind_links(source: Source, clip: Clip) -> Path:
    place = source.root / clip.path
    return place.resolve() if source.options.follow_symlinks else place


def _one_of(source: Source, group: Sequence[Pair], moved: Collection[str], same: list[str]) -> list[Pair]:
    """The clip of a group with the same images that stays; none where they contradict each other."""
    named = [pair for pair in group if not pair[0].serial] or group
    meant = {(annotation.onset, annotation.offset) for annotation, clip in group if clip.clip_id in moved}
    alike = {(fold(clip.label), clip.apex, dict(clip.extra).get("kind")) for _, clip in named}
    people = {clip.subject for _, clip in group}
    if len(alike) > 1 or len(people) > 1 or len(meant) > 1:
        _leave_out(source, group)
        return []
    same += [f"{clip.clip_id} ({named[0][1].clip_id})" for _, clip in group if clip is not named[0][1]]
    return [named[0]]


def _leave_out(source: Source, group: Sequence[Pair]) -> None:
    places = " and ".join(
        f"{annotation.where} ({annotation.onset} to {annotation.offset}, {clip.subject}, {clip.label}, apex {clip.apex})"
        for annotation, clip in group
    )
    for _, clip in group:
        source.leave_out(
            clip.clip_id,
            REASON,
            f"{places}: the same images must be of one interval, person, label, kind and apex; got several. {CORRECT_A_COPY}",
        )
