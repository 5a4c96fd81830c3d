"""Two clips of the same frames: one movement must not count twice, nor have two labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from flowkit.datasets.base import CORRECT_A_COPY, MAX_NAMED, Annotation
from flowkit.datasets.source import Source
from flowkit.inputs.clip import Clip
from flowkit.labels.toml_form import fold
from flowkit.listing import listed

Pair = tuple[Annotation, Clip]
REASON: Final = "the same images as another clip, but another interval, label, kind or apex"


def each_interval_once(source: Source, pairs: Sequence[Pair]) -> list[Clip]:
    """Return the clips without those that another clip is already.

    Clips are the same if onset, offset and recording are; without a recording, the folder behind all links counts. A clip with a
    name of its own (no serial) stays before further expressions of rows, whose label is only their row's. Else the first one
    stays; where labels, kinds or apexes differ, all are left out. So are clips of different intervals that were given the same
    images, which only renumbered ones can be.

    Parameters
    ----------
    source : Source
        Is told what was left out, and what is the same.
    pairs : sequence of (Annotation, Clip)
    """
    places = {clip.path: _behind_links(source, clip) for _, clip in pairs}
    same: list[str] = []
    left = list(pairs)
    for key in (_annotated_interval, lambda _, clip: (places[clip.path], clip.onset, clip.offset)):
        groups: dict[tuple[object, ...], list[Pair]] = {}
        for annotation, clip in left:
            groups.setdefault(key(annotation, clip), []).append((annotation, clip))
        left = [pair for group in groups.values() for pair in _one_of(source, group, same)]
    if same:
        source.note(
            f"{len(same)} clips have the frames of another clip and count once, as that: {listed(same, MAX_NAMED)}."
        )
    order = {clip.clip_id: number for number, (_, clip) in enumerate(pairs)}
    return sorted((clip for _, clip in left), key=lambda clip: order[clip.clip_id])


def _annotated_interval(annotation: Annotation, clip: Clip) -> tuple[object, ...]:
    """The frames that the annotation means, where they count more than a folder; else the clip itself."""
    if not annotation.recording:
        return (clip.clip_id,)
    return (annotation.recording, annotation.onset, annotation.offset)


def _behind_links(source: Source, clip: Clip) -> Path:
    place = source.root / clip.path
    return place.resolve() if source.options.follow_symlinks else place


def _one_of(source: Source, group: Sequence[Pair], same: list[str]) -> list[Pair]:
    """The clip of a group with the same frames that stays; none where they contradict each other."""
    named = [pair for pair in group if not pair[0].serial] or group
    meant = {(annotation.onset, annotation.offset) for annotation, _ in group}
    alike = {(fold(clip.label), clip.apex, dict(clip.extra).get("kind")) for _, clip in named}
    if len(alike) > 1 or len(meant) > 1:
        _leave_out(source, group)
        return []
    same += [f"{clip.clip_id} ({named[0][1].clip_id})" for _, clip in group if clip is not named[0][1]]
    return [named[0]]


def _leave_out(source: Source, group: Sequence[Pair]) -> None:
    places = " and ".join(
        f"{annotation.where} ({annotation.onset} to {annotation.offset}, {clip.label}, apex {clip.apex})"
        for annotation, clip in group
    )
    for _, clip in group:
        source.leave_out(
            clip.clip_id,
            REASON,
            f"{places}: the same images must be of one interval with one label, kind and apex; got several. {CORRECT_A_COPY}",
        )
