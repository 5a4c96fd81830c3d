"""Two clips of the same frames: one movement must not count twice, nor have two labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from flowkit.datasets.base import CORRECT_A_COPY, MAX_NAMED, Annotation
from flowkit.datasets.source import Source
from flowkit.inputs.clip import Clip
from flowkit.labels.toml_form import fold
from flowkit.listing import listed

Pair = tuple[Annotation, Clip]
REASON: Final = "the same frames as another clip, but another label, kind or apex"


def each_interval_once(source: Source, pairs: Sequence[Pair]) -> list[Clip]:
    """Return the clips without those that another clip is already.

    Clips are the same if onset, offset and recording are; without a recording, the folder behind all links counts. A clip with a
    name of its own (no serial) stays before further expressions of rows, whose label is only their row's. Else the first one
    stays; where labels, kinds or apexes differ, all are left out.

    Parameters
    ----------
    source : Source
        Is told what was left out, and what is the same.
    pairs : sequence of (Annotation, Clip)
    """
    groups: dict[tuple[object, ...], list[Pair]] = {}
    for annotation, clip in pairs:
        place = (source.root / clip.path).resolve() if source.options.follow_symlinks else clip.path
        key: tuple[object, ...] = (place, clip.onset, clip.offset)
        if annotation.recording:
            key = (annotation.recording, annotation.onset, annotation.offset)
        groups.setdefault(key, []).append((annotation, clip))
    kept: list[Clip] = []
    same: list[str] = []
    for group in groups.values():
        named = [pair for pair in group if not pair[0].serial] or group
        alike = {(fold(clip.label), clip.apex, dict(clip.extra).get("kind")) for _, clip in named}
        if len(alike) > 1:
            _leave_out(source, group)
        else:
            kept.append(named[0][1])
            same += [f"{clip.clip_id} ({kept[-1].clip_id})" for _, clip in group if clip is not kept[-1]]
    if same:
        source.note(
            f"{len(same)} clips have the frames of another clip and count once, as that: {listed(same, MAX_NAMED)}."
        )
    order = {clip.clip_id: number for number, (_, clip) in enumerate(pairs)}
    return sorted(kept, key=lambda clip: order[clip.clip_id])


def _leave_out(source: Source, group: Sequence[Pair]) -> None:
    places = " and ".join(f"{annotation.where} ({clip.label}, apex {clip.apex})" for annotation, clip in group)
    for _, clip in group:
        source.leave_out(
            clip.clip_id,
            REASON,
            f"{places}: the same frames must have one label, kind and apex; got several. {CORRECT_A_COPY}",
        )
