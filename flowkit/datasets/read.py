"""From annotations to clips, the same for every data set: each one distinct, located, corrected, checked.

Whatever is done to a row, or noticed, is an `Event`: nothing is changed or dropped in silence. Nothing is ever written under the
root.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from flowkit.datasets.base import (
    CORRECT_A_COPY,
    MAX_NAMED,
    Annotation,
    DataSet,
    Event,
    Reading,
    ReadOptions,
    Unusable,
    reasons_of,
)
from flowkit.datasets.correcting import correct
from flowkit.datasets.corrections import ESTIMATED
from flowkit.datasets.corrections import corrections as known_errors
from flowkit.datasets.folders import Folder, bare_subject, fold_path, gaps, links_not_followed
from flowkit.datasets.locating import locate
from flowkit.datasets.numbering import to_clip
from flowkit.datasets.same_frames import each_interval_once
from flowkit.datasets.source import Source
from flowkit.errors import ConfigError, ManifestError
from flowkit.inputs.clip import Clip
from flowkit.labels import groupings
from flowkit.labels.class_maps import UNLABELLED
from flowkit.labels.toml_form import fold
from flowkit.listing import listed, word_counts

_NO_LABEL: Final = re.compile(r"[-/\\\u2010-\u2015\u2212.?]*|nan|null|#?n/?a")
"""What is in a cell without a label. "none" and "no" may be labels."""


def read(dataset: DataSet, root: Path, options: ReadOptions | None = None) -> Reading:
    """Read a data set as clips of a manifest.

    Parameters
    ----------
    dataset : DataSet
    root : Path
        Its folder; nothing is written there.
    options : ReadOptions, optional

    Raises
    ------
    ManifestError
        The folder or its annotation cannot be read as this data set, or no clip is left.
    ConfigError
        Options contradict each other.
    EnvironmentMissing
        openpyxl is not installed.
    """
    options = options or ReadOptions()
    if not options.fixes and (options.estimates or options.corrections):
        raise ConfigError(
            "--no-fixes: must come without --estimates and --corrections; got it with one of them. Leave one out."
        )
    source = Source(dataset.name, root, options)
    annotations = _distinct(source, _one_spelling(source, dataset.annotate(source)))
    places, found = locate(source, annotations)
    if options.fixes:
        known = known_errors(dataset.name, options.corrections)
        if options.corrections and not known:
            source.note(
                f"{options.corrections} has no correction of {dataset.name}, and takes the place of the bundled ones."
            )
        annotations = correct(source, annotations, places, known)
    annotations = _with_labels(source, annotations)
    _contradictions(source, annotations)
    if options.label_from:
        annotations = _relabelled(source, annotations, options.label_from)
    clips = each_interval_once(source, list(_usable(source, annotations, places)))
    source.keep_notes_of({clip.clip_id for clip in clips})
    if not clips:
        raise none_left(f"{root}: {dataset.title}", source.events)
    _remark(source, clips, places)
    return Reading(
        dataset.name,
        dataset.title,
        root,
        clips,
        source.events,
        dict(sorted(found.items())),
        nearest=tuple(source.nearest),
        follow_symlinks=options.follow_symlinks,
    )


def none_left(where: str, events: Sequence[Event]) -> ManifestError:
    """Return the error for a data set none of whose clips can be used: the reasons, by how many clips they cost."""
    left_out = [event for event in events if event.kind == "left out"]
    if not left_out:
        what = "an annotation that names none, or of which corrections exclude all"
        return ManifestError(f"{where}: must have at least one clip to use; got {what}. Check the file.")
    lines = [f"{where}: must have at least one clip to use; got none of {len(left_out)}. They were left out for:"]
    for reason, number in reasons_of(left_out).items():
        first = next(event for event in left_out if event.reason == reason)
        lines.append(f"  {number} x {reason}, such as {first.clip or 'a row'}: {first.message}")
    return ManifestError("\n".join(lines))


def _one_spelling(source: Source, annotations: Iterable[Annotation]) -> Iterable[Annotation]:
    """The annotations with each subject in one spelling: who is held out must not be in training.

    How the subjects of an own set are called is not known: other spellings of one are only named.
    """
    spellings: dict[tuple[str, ...], str] = {}
    other: list[str] = []
    for annotation in annotations:
        subject = annotation.subject.strip(".")
        known = spellings.setdefault(tuple(map(bare_subject, fold_path(subject))), subject)
        if known != subject:
            other.append(f"{subject} beside {known} ({annotation.where})")
        yield dataclasses.replace(annotation, subject=known if source.is_bundled else subject)
    if other:
        what = "; one counts" if source.is_bundled else ". If they are one person, write one name"
        source.note(f"{len(other)} rows spell a subject otherwise than others do{what}: {listed(other, MAX_NAMED)}.")


def _with_labels(source: Source, annotations: Sequence[Annotation]) -> list[Annotation]:
    """The annotations with one word for no label; an own set knows its labels, and only an empty cell has none."""
    return [
        dataclasses.replace(annotation, label=UNLABELLED) if _is_none(source, annotation.label) else annotation
        for annotation in annotations
    ]


def _is_none(source: Source, label: str) -> bool:
    return bool(_NO_LABEL.fullmatch(fold(label))) if source.is_bundled else not label.strip()


def _distinct(source: Source, annotations: Iterable[Annotation]) -> list[Annotation]:
    """Annotations that name a clip, each its own: of two the same one is kept, of two that contradict each other none."""
    groups: dict[tuple[str, ...], list[Annotation]] = {}
    for annotation in annotations:
        if annotation.subject and annotation.clip:
            groups.setdefault(fold_path(annotation.clip_id), []).append(annotation)
        elif annotation.clip and annotation.onset.isdecimal():
            source.leave_out(
                annotation.clip_id,
                "no subject",
                f"{annotation.where}: row must name a subject; got an empty cell (only one of merged cells has the value). "
                f"{CORRECT_A_COPY}",
            )
        else:
            source.note(f"{annotation.where}: row must name a subject and a clip; got only one. Not taken for a clip.")
    kept = []
    for first, *others in groups.values():
        plain = dataclasses.replace(first, where="")
        differing = [other for other in others if dataclasses.replace(other, where="") != plain]
        places = " and ".join(annotation.where for annotation in (first, *others))
        if differing:
            source.leave_out(
                first.clip_id,
                "rows that contradict each other",
                f"{places}: subject and clip must name one clip; got rows that differ. {CORRECT_A_COPY}",
            )
            continue
        if others:
            source.note(f"{places} are the same; one is kept.", first.clip_id)
        kept.append(first)
    return kept


def _contradictions(source: Source, annotations: Sequence[Annotation]) -> None:
    """Note the labels that the clip's own name contradicts."""
    for annotation in annotations:
        if annotation.named_label and fold(annotation.named_label) != fold(annotation.label):
            source.note(
                f"{annotation.where}: the label is {annotation.label or 'empty'}, but the clip's name says "
                f"{annotation.named_label}. The label is kept. {CORRECT_A_COPY}",
                annotation.clip_id,
            )


def _relabelled(source: Source, annotations: Sequence[Annotation], column: str) -> list[Annotation]:
    """The annotations with a further column in place of the label, and the label as the column `own_label`.

    Raises
    ------
    ManifestError
        There is no such column.
    """
    columns = {name for annotation in annotations for name, text in annotation.extra.items() if text} - {ESTIMATED}
    if annotations and column not in columns:
        raise ManifestError(
            f"--label-from: must be a column of this set that is filled in: {', '.join(sorted(columns)) or 'there is none'}; got "
            f"{column!r}. Correct it."
        )
    empty = [annotation.clip_id for annotation in annotations if _is_none(source, annotation.extra.get(column, ""))]
    nobody = set(empty)
    if empty:
        source.note(f"{len(empty)} clips have no {column} and are {UNLABELLED}: {listed(empty, MAX_NAMED)}.")
    return [
        dataclasses.replace(
            annotation,
            label=UNLABELLED if annotation.clip_id in nobody else annotation.extra[column],
            extra={**annotation.extra, "own_label": annotation.label},
        )
        for annotation in annotations
    ]


def _usable(
    source: Source, annotations: Sequence[Annotation], places: Mapping[str, Folder]
) -> Iterable[tuple[Annotation, Clip]]:
    """Each annotation that can become a clip, with the clip; the others are left out with a reason."""
    for annotation in annotations:
        try:
            yield annotation, to_clip(source, annotation, places.get(annotation.clip_id))
        except Unusable as fault:
            source.leave_out(annotation.clip_id, fault.reason, fault.message, annotation.label)


def _remark(source: Source, clips: Sequence[Clip], places: Mapping[str, Folder]) -> None:
    """What is odd but no reason to leave a clip out, once for all clips that have it."""
    if not source.options.label_from:
        _unknown_labels(source, clips)
    for how, names in source.renumbered.items():
        source.note(f"{len(names)} clips count {how}: {listed(names, MAX_NAMED)}.")
    flat = [c.clip_id for c in clips if c.apex is not None and c.apex in (c.onset, c.offset)]
    for names, what in (
        (source.no_number, "have a 0 before their onset for an apex or offset, which counts as none"),
        (source.nearest, "lack a key frame, and need --nearest in check and extract, too"),
        (
            [f"{name} ({text})" for name, text in source.odd_rates.items()],
            "have a frame rate that is no number; that of the set counts, if it has one",
        ),
        (flat, "have a phase of no length (the apex is onset or offset)"),
    ):
        if names:
            source.note(f"{len(names)} clips {what}: {listed(names, MAX_NAMED)}.")
    holes = {c.clip_id: gaps(places[c.clip_id], c.onset, c.offset or c.onset) for c in clips}
    holes = {name: number for name, number in holes.items() if number}
    if holes:
        holes_shown = listed([f"{name} ({number})" for name, number in holes.items()])
        kept = "" if source.nearest else ", though not these"
        source.note(f"{len(holes)} clips lack frames between onset and offset{kept}: {holes_shown}.")
    if any(event.kind == "left out" for event in source.events) and source.folders.links:
        advice = "They lead in a circle." if source.options.follow_symlinks else "--follow-symlinks follows them."
        source.note(f"{source.root} has{links_not_followed(source.folders)[1:]}. {advice}")


def _unknown_labels(source: Source, clips: Sequence[Clip]) -> None:
    groups = groupings.grouping("3-class")
    counts = word_counts(clip.label for clip in clips)
    if nobody := counts.pop(UNLABELLED, 0):
        source.note(f"{nobody} clips are {UNLABELLED}: no grouping except raw takes them.")
    for label, number in counts.items():
        try:
            groups.of(source.name, label)
        except ConfigError as error:
            source.note(f"{number} clips: {error}")
