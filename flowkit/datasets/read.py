"""From annotations to clips, the same for every data set: each one distinct, located, corrected, checked.

Whatever is done to a row, or noticed, is an `Event`: nothing is mended or dropped in silence. Nothing is ever written under the
root.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flowkit.datasets.base import MAX_NAMED, Annotation, DataSet, Event, Reading, Source
from flowkit.datasets.corrections import Correction
from flowkit.datasets.corrections import corrections as known_errors
from flowkit.datasets.folders import Folder, fold_path, gaps, layout_of, several_layouts, some_folders
from flowkit.datasets.numbering import impossible, to_clip
from flowkit.errors import ClipError, ConfigError, ManifestError
from flowkit.inputs.clip import Clip
from flowkit.labels import groupings
from flowkit.listing import listed


def read(
    dataset: DataSet,
    root: Path,
    *,
    workbook: Path | None = None,
    frames: str | Path | None = None,
    fixes: bool = True,
    corrections: Path | None = None,
) -> Reading:
    """A data set as clips of a manifest.

    Parameters
    ----------
    dataset : DataSet
    root : Path
        Its folder; nothing is written there.
    workbook, frames : optional
        See `Source`.
    fixes : bool
        Whether known errors are corrected.
    corrections : Path, optional
        Another table of known errors.

    Raises
    ------
    ManifestError
        The folder or its annotation cannot be read as this data set, or no clip is left.
    EnvironmentMissing
        openpyxl is not installed.
    """
    source = Source(dataset.name, root, workbook, frames)
    annotations = _distinct(source, dataset.annotate(source))
    places, found = _locate(source, annotations)
    if fixes:
        annotations = _correct(source, annotations, places, known_errors(dataset.name, corrections))
    clips = []
    for annotation in annotations:
        try:
            clips.append(to_clip(source, annotation, places.get(annotation.clip_id)))
        except ClipError as error:
            source.events.append(Event("left out", annotation.clip_id, error.message))
    if not clips:
        reasons = "\n".join(str(event) for event in source.events[:MAX_NAMED])
        raise ManifestError(
            f"{root}: {dataset.title} must have at least one clip to use; got none of {len(annotations)}.\n{reasons}"
        )
    _remark(source, clips, places)
    return Reading(dataset.name, dataset.title, root, clips, source.events, dict(sorted(found.items())))


def _distinct(source: Source, annotations: Iterable[Annotation]) -> list[Annotation]:
    """Annotations that name a clip, each its own: of two the same one is kept, of two that contradict each other none."""
    groups: dict[tuple[str, ...], list[Annotation]] = {}
    for annotation in annotations:
        if annotation.subject and annotation.clip:
            groups.setdefault(fold_path(annotation.clip_id), []).append(annotation)
        else:
            source.note(
                f"{annotation.where}: row must name a subject and a clip; got only one of them. Not taken for a clip."
            )
    kept = []
    for first, *others in groups.values():
        plain = dataclasses.replace(first, where="")
        differing = [other for other in others if dataclasses.replace(other, where="") != plain]
        places = " and ".join(annotation.where for annotation in (first, *others))
        if differing:
            message = (
                f"{places}: subject and clip must name one clip; got rows that differ. Correct a copy of the file, "
                "and name it with --workbook."
            )
            source.events.append(Event("left out", first.clip_id, message))
            continue
        if others:
            source.note(f"{places} are the same; one is kept.", first.clip_id)
        kept.append(first)
    return kept


def _locate(source: Source, annotations: Sequence[Annotation]) -> tuple[dict[str, Folder], Counter[str]]:
    """Folder of each clip that has one, and how many clips each layout holds."""
    places: dict[str, Folder] = {}
    layouts: Counter[str] = Counter()
    several: Counter[str] = Counter()
    for annotation in annotations:
        for tail in annotation.folders:
            found = source.folders.find(tail)
            if len(found) > 1 and source.frames is not None:
                found = [folder for folder in found if layout_of(folder, tail) == source.frames] or found
            if found:
                (layouts if len(found) == 1 else several).update(layout_of(folder, tail) for folder in found)
                places[annotation.clip_id] = found[0]
                break
    if several:
        raise several_layouts(source.root, several)
    if annotations and not places:
        patterns = " or ".join(source.layout["folders"])
        place = source.root / (source.frames or "")
        raise ManifestError(
            f"{place}: frames must lie in folders such as {patterns}, for instance {annotations[0].folders[0]}; got "
            f"{some_folders(source.folders)}. Check the folder."
        )
    return places, layouts


def _correct(
    source: Source, annotations: list[Annotation], places: Mapping[str, Folder], known: Sequence[Correction]
) -> list[Annotation]:
    """The annotations with their known errors mended; every correction leaves an event."""
    mended: dict[int, Annotation | None] = dict(enumerate(annotations))
    for correction in known:
        name = f"{correction.dataset}/{correction.subject}/{correction.clip}"
        fitting = [n for n, old in enumerate(annotations) if correction.fits(old.subject, old.clip, old.onset)]
        if not fitting:
            source.note(f"correction of {correction.what}: the clip is not in this copy.", name)
        for n in fitting:
            now = mended[n]
            if now is not None:
                mended[n], event = _apply(source, now, places.get(now.clip_id), correction)
                source.events.append(event)
    return [annotation for annotation in mended.values() if annotation is not None]


def _apply(
    source: Source, annotation: Annotation, folder: Folder | None, correction: Correction
) -> tuple[Annotation | None, Event]:
    name = correction.field
    in_extra = name == "action_units"
    present = annotation.extra.get(name, "") if in_extra else "" if name == "exclude" else getattr(annotation, name)
    wrong = name in ("onset", "apex", "offset") and impossible(source, annotation, folder, name)
    refusal = correction.refusal(present, impossible=wrong) or _no_frame(source, folder, correction)
    if refusal:
        return annotation, Event("refused", annotation.clip_id, f"{correction.what}: {refusal}.")
    if name == "exclude":
        return None, Event("applied", annotation.clip_id, f"{correction.what}. {correction.source}.")
    change = f"{name} {present or 'empty'} -> {correction.new or 'empty'}"
    done = Event("applied", annotation.clip_id, f"{change}. {correction.source}.")
    if in_extra:
        return dataclasses.replace(annotation, extra={**annotation.extra, name: correction.new}), done
    changed: dict[str, Any] = {name: correction.new}
    return dataclasses.replace(annotation, **changed), done


def _no_frame(source: Source, folder: Folder | None, correction: Correction) -> str:
    """Why a frame number must not be put in place: these frames lack it; empty if they do not."""
    numeric = correction.field in ("onset", "apex", "offset") and correction.new.isdigit()
    if not numeric or folder is None or "counted" in source.layout or folder.holds(int(correction.new)):
        return ""
    return f"{folder.path} has no frame {correction.new}"


def _remark(source: Source, clips: Sequence[Clip], places: Mapping[str, Folder]) -> None:
    """What is odd but no reason to leave a clip out, once for all clips that have it."""
    groups = groupings.grouping("3-class")
    for label, number in Counter(clip.label for clip in clips).items():
        try:
            groups.of(source.name, label)
        except ConfigError as error:
            source.note(f"{number} clips: {error}")
    for how, names in source.renumbered.items():
        source.note(f"{len(names)} clips count {how}: {listed(names, MAX_NAMED)}.")
    flat = [c.clip_id for c in clips if c.apex is not None and c.apex in (c.onset, c.offset)]
    if flat:
        source.note(
            f"{len(flat)} clips have a phase of no length (the apex is onset or offset): {listed(flat, MAX_NAMED)}."
        )
    holes = {c.clip_id: gaps(places[c.clip_id], c.onset, c.offset or c.onset) for c in clips}
    holes = {name: number for name, number in holes.items() if number}
    if holes:
        holes_shown = listed([f"{name} ({number})" for name, number in holes.items()])
        source.note(f"{len(holes)} clips lack frames between onset and offset, though not these: {holes_shown}.")
