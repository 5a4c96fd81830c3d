"""Known errors corrected in annotations: what corrections.csv says, only where the annotation still has the error."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from flowkit.datasets.base import MAX_NAMED, Annotation, Event
from flowkit.datasets.corrections import ESTIMATED, Correction
from flowkit.datasets.folders import Folder
from flowkit.datasets.numbering import NAMES, impossible, in_order, lacks
from flowkit.datasets.source import Source
from flowkit.listing import listed

_IN_EXTRA: Final = ("action_units",)
"""Fields of a correction that are further columns."""


def correct(
    source: Source, annotations: Sequence[Annotation], places: Mapping[str, Folder], known: Iterable[Correction]
) -> list[Annotation]:
    """Return the annotations with their known errors corrected; each correction leaves an event, or is counted in one.

    Parameters
    ----------
    source : Source
    annotations : sequence of Annotation
    places : mapping of str to Folder
        Where the frames of each clip are, by its id: a frame that is not there is never put in place.
    known : iterable of Correction
    """
    corrected: dict[int, Annotation | None] = dict(enumerate(annotations))
    elsewhere: Counter[str] = Counter()
    for together in _groups(known):
        fitting = [n for n, old in enumerate(annotations) if together[0].fits(old.subject, old.clip, old.onset)]
        if not fitting:
            elsewhere["of clips that are not in this copy"] += len(together)
        for n in fitting:
            now = corrected[n]
            if now is None:
                continue
            needed = [row for row in together if row.field == "exclude" or _present(now, row) != row.new]
            elsewhere["that this copy has already"] += len(together) - len(needed)
            corrected[n], events = _apply(source, now, places.get(now.clip_id), needed)
            if (
                {event.kind for event in events} == {"refused"}
                and _is_estimate(needed)
                and not source.options.estimates
            ):
                elsewhere["that are estimates and do not fit this copy"] += len(events)
            else:
                source.events += events
    for what, number in (+elsewhere).items():
        source.note(f"{number} known corrections {what}.")
    return _marked(source, [annotation for annotation in corrected.values() if annotation is not None])


def _groups(known: Iterable[Correction]) -> list[list[Correction]]:
    """Corrections that are applied together or not at all: the estimates of a clip, its other frame numbers; the rest alone."""
    groups: dict[tuple[object, ...], list[Correction]] = {}
    for row in known:
        together = row.when == ESTIMATED if row.field in NAMES else row.line
        groups.setdefault((row.subject, row.clip, row.onset, together), []).append(row)
    return list(groups.values())


def _is_estimate(rows: Sequence[Correction]) -> bool:
    return any(row.when == ESTIMATED for row in rows)


def _present(annotation: Annotation, correction: Correction) -> str:
    """What a cell holds now."""
    if correction.field == "exclude":
        return ""
    if correction.field in _IN_EXTRA:
        return annotation.extra.get(correction.field, "")
    return str(getattr(annotation, correction.field))


def _apply(
    source: Source, annotation: Annotation, folder: Folder | None, rows: Sequence[Correction]
) -> tuple[Annotation | None, list[Event]]:
    """The annotation with all of these corrections or none, and an event for each."""
    rows = [dataclasses.replace(row, old=getattr(annotation, row.old)) if row.old in NAMES else row for row in rows]
    changed = annotation
    for row in rows:
        changed = changed if row.field == "exclude" else _changed(changed, row)
    refusals = [_refusal(source, annotation, changed, folder, row) for row in rows]
    if any(refusals):
        told = zip(rows, refusals, strict=True)
        return annotation, [
            Event("refused", annotation.clip_id, f"{row.what}: {refusal or 'it goes with another number of the clip'}.")
            for row, refusal in told
        ]
    if rows and rows[0].field == "exclude":
        return None, [Event("applied", annotation.clip_id, f"{rows[0].what}. {rows[0].source}.")]
    wrong = any(row.field in NAMES and impossible(source, annotation, folder, row.field) for row in rows)
    offered = _is_estimate(rows) and not wrong and not source.options.estimates
    events = []
    for row in rows:
        change = f"{row.field} {_present(annotation, row) or 'empty'} -> {row.new or 'empty'}"
        how = f"{change} with --estimates" if offered else change
        events.append(Event("offered" if offered else "applied", annotation.clip_id, f"{how}. {row.source}."))
    return annotation if offered else changed, events


def _refusal(
    source: Source, annotation: Annotation, changed: Annotation, folder: Folder | None, row: Correction
) -> str:
    """Why a correction must not be applied; empty if it may."""
    wrong = row.field in NAMES and impossible(source, annotation, folder, row.field)
    refusal = row.refusal(_present(annotation, row), impossible=wrong)
    if refusal or row.field not in NAMES:
        return refusal
    if folder is not None and lacks(source, changed, folder, row.field):
        if source.options.renumbered:
            return f"{folder.path} has {len(folder.numbers)} images, not one for each frame"
        return f"{folder.path} has no frame {row.new}"
    if (row.when == ESTIMATED or in_order(source, annotation)) and not in_order(source, changed):
        numbers = ", ".join(f"{name} {getattr(changed, name)}" for name in NAMES)
        return f"it would be out of order: {numbers}"
    return ""


def _changed(annotation: Annotation, correction: Correction) -> Annotation:
    name = correction.field
    extra = dict(annotation.extra)
    if name in _IN_EXTRA:
        extra[name] = correction.new
        return dataclasses.replace(annotation, extra=extra)
    if correction.when == ESTIMATED:
        extra[ESTIMATED] = "+".join(filter(None, (extra.get(ESTIMATED, ""), name)))
    values: dict[str, Any] = {name: correction.new, "extra": extra}
    return dataclasses.replace(annotation, **values)


def _marked(source: Source, annotations: list[Annotation]) -> list[Annotation]:
    """The same, each with the column that names its estimates where any has some."""
    estimated = [annotation.clip_id for annotation in annotations if ESTIMATED in annotation.extra]
    if not estimated:
        return annotations
    source.note(
        f"{len(estimated)} clips have estimates, named in the column {ESTIMATED}: {listed(estimated, MAX_NAMED)}."
    )
    return [dataclasses.replace(annotation, extra={ESTIMATED: "", **annotation.extra}) for annotation in annotations]
