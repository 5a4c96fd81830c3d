"""Known errors corrected in annotations: what corrections.csv says, only where the annotation still has the error."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from flowkit.datasets.base import MAX_NAMED, Annotation, Event
from flowkit.datasets.corrections import ESTIMATED, Correction
from flowkit.datasets.folders import Folder
from flowkit.datasets.numbering import NAMES, impossible, lacks
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
    for correction in known:
        fitting = [n for n, old in enumerate(annotations) if correction.fits(old.subject, old.clip, old.onset)]
        if not fitting:
            elsewhere["of clips that are not in this copy"] += 1
        for n in fitting:
            now = corrected[n]
            if now is None:
                continue
            if _present(now, correction) == correction.new and correction.field != "exclude":
                elsewhere["that this copy has already"] += 1
            else:
                corrected[n], event = _apply(source, now, places.get(now.clip_id), correction)
                if event.kind == "refused" and correction.when == ESTIMATED and not source.options.estimates:
                    elsewhere["that are estimates and do not fit this copy"] += 1
                else:
                    source.events.append(event)
    for what, number in elsewhere.items():
        source.note(f"{number} known corrections {what}.")
    return _marked(source, [annotation for annotation in corrected.values() if annotation is not None])


def _present(annotation: Annotation, correction: Correction) -> str:
    """What a cell holds now."""
    if correction.field == "exclude":
        return ""
    if correction.field in _IN_EXTRA:
        return annotation.extra.get(correction.field, "")
    return str(getattr(annotation, correction.field))


def _apply(
    source: Source, annotation: Annotation, folder: Folder | None, correction: Correction
) -> tuple[Annotation | None, Event]:
    if correction.old in NAMES:
        correction = dataclasses.replace(correction, old=getattr(annotation, correction.old))
    name, present = correction.field, _present(annotation, correction)
    wrong = name in NAMES and impossible(source, annotation, folder, name)
    changed = None if name == "exclude" else _changed(annotation, correction)
    refusal = correction.refusal(present, impossible=wrong)
    if not refusal and changed is not None and name in NAMES and lacks(source, changed, folder, name):
        refusal = f"{folder.path if folder else 'the folder'} has no frame {correction.new}"
    if refusal:
        return annotation, Event("refused", annotation.clip_id, f"{correction.what}: {refusal}.")
    if changed is None:
        return None, Event("applied", annotation.clip_id, f"{correction.what}. {correction.source}.")
    change = f"{name} {present or 'empty'} -> {correction.new or 'empty'}"
    if correction.when == ESTIMATED and not wrong and not source.options.estimates:
        return annotation, Event("offered", annotation.clip_id, f"{change} with --estimates. {correction.source}.")
    return changed, Event("applied", annotation.clip_id, f"{change}. {correction.source}.")


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
