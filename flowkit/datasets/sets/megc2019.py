"""MEGC2019: the composite of CASME II, SAMM and SMIC-HS, by its official list or by the rule that gives the same counts.

The label of the manifest stays the data set's own word; grouping 3-class of `flowkit.labels` makes the three classes of it.
"""

from __future__ import annotations

import csv
import dataclasses
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from flowkit.datasets.base import Event, Reading, layout
from flowkit.datasets.folders import bare_subject, fold_path
from flowkit.datasets.read import none_left
from flowkit.datasets.tables.columns import cell_text, plain
from flowkit.datasets.tables.text_files import cells_of_width, read_text
from flowkit.errors import ConfigError, ManifestError
from flowkit.inputs.clip import Clip
from flowkit.labels import groupings

NAME: Final = "megc2019"
GROUPING: Final = "3-class"
_COLUMNS: Final = (("dataset", "data"), ("sub", "subject"), ("filenameo", "filename", "clip"), ("label",))
"""What copies of the list call its columns; the official one has no header."""
Key = tuple[str, ...]


def compose(readings: Mapping[str, Reading], list_file: Path | None = None) -> Reading:
    """The clips of the composite, in the order of its data sets.

    Parameters
    ----------
    readings : mapping of str to Reading
        The three data sets by name, each read as a whole.
    list_file : Path, optional
        The official list; without it, one that is in a root; without any, all clips whose label has a class, except those
        that the official list leaves out.

    Returns
    -------
    Reading
        Paths start from the deepest folder that the three roots have in common.

    Raises
    ------
    ManifestError
        The list cannot be used, or no clip is left.
    """
    form = layout(NAME)
    roots = [reading.root for reading in readings.values()]
    listed = _find_list(roots, form) if list_file is None else read_list(list_file, form)
    events = [_of_set(event, reading) for reading in readings.values() for event in reading.events]
    clips = [clip for reading in readings.values() for clip in reading.clips]
    if listed is None:
        out = {_key(name) for name in form["excluded"]}
        clips = [clip for clip in clips if _class_of(clip) and _is_whole(clip) and _key(clip.clip_id) not in out]
        events = [event for event in events if event.kind != "left out" or _is_wanted(event, out)]
        events.append(
            Event("note", "", f"no official list ({form['list'][0]}) is there; clips are chosen by their labels.")
        )
        events += _short_counts(clips, form["clips"])
    else:
        clips, events = _by_list(clips, listed, events)
    if not clips:
        raise none_left(form["title"], events)
    root = Path(os.path.commonpath([reading.root.resolve() for reading in readings.values()]))
    layouts = {
        f"{name}: {place}": number for name, found in readings.items() for place, number in found.layouts.items()
    }
    return Reading(
        NAME,
        form["title"],
        root,
        _from(root, clips, readings),
        events,
        layouts,
        nearest=tuple(clip.clip_id for clip in clips if clip.clip_id in readings[clip.dataset].nearest),
        follow_symlinks=any(reading.follow_symlinks for reading in readings.values()),
    )


def _of_set(event: Event, reading: Reading) -> Event:
    return event if event.clip else dataclasses.replace(event, message=f"{reading.title}: {event.message}")


def _key(text: str) -> Key:
    """A clip's name as it is compared: "casme2/1/EP02_01f" is "casme2/sub01/EP02_01f"."""
    dataset, *rest = fold_path(text)
    return (dataset, *map(bare_subject, rest[:1]), *rest[1:])


def _class_of(clip: Clip) -> str | None:
    """Class of a clip; None where it has none, or its label is unknown, which the reading of its set has noted."""
    try:
        return groupings.grouping(GROUPING).of(clip.dataset, clip.label)
    except ConfigError:
        return None


# --- by rule


def _is_wanted(event: Event, out: Collection[Key]) -> bool:
    """Whether a clip that a set had to leave out would be in the composite, as far as its label says."""
    dataset = event.clip.partition("/")[0]
    try:
        return _key(event.clip) not in out and groupings.grouping(GROUPING).of(dataset, event.label) is not None
    except ConfigError:
        return True


def _is_whole(clip: Clip) -> bool:
    """Whether it is no further expression of a long clip of SMIC-E: those have a fourth part in their name."""
    return len(clip.clip_id.split("/")) == 3


def _short_counts(clips: Sequence[Clip], expected: Mapping[str, Mapping[str, int]]) -> list[Event]:
    """An event for each data set that has other counts than the composite."""
    found = Counter((clip.dataset, _class_of(clip)) for clip in clips)
    events = []
    for dataset, counts in expected.items():
        here = {name: found[dataset, name] for name in counts}
        if here != counts:
            shown = ", ".join(f"{name} {here[name]} of {number}" for name, number in counts.items())
            message = (
                f"{dataset}: the composite must have {sum(counts.values())} clips; got {sum(here.values())} ({shown}). Which "
                "they are, the official list tells: pass it with --list."
            )
            events.append(Event("left out", "", message, "clips of the composite that this copy has not"))
    return events


# --- by the official list


Listed = dict[Key, tuple[str, str]]
"""Name and class of each clip of the list."""


def _find_list(roots: Sequence[Path], form: Mapping[str, Any]) -> Listed | None:
    found = {
        path: read_list(path, form)
        for root in roots
        for path in sorted(root.iterdir())
        if path.name.casefold() in form["list"] and path.is_file()
    }
    lists = list(found.values())
    if len({frozenset((key, label) for key, (_, label) in listed.items()) for listed in lists}) > 1:
        names = ", ".join(map(str, found))
        raise ManifestError(f"{NAME}: official list must be one; got {names}, which differ. Name one with --list.")
    return lists[0] if lists else None


def read_list(path: Path, form: Mapping[str, Any]) -> Listed:
    """Name and class of each clip of the list."""
    try:
        rows = [[cell_text(cell) for cell in row] for row in cells_of_width(read_text(path)[0], len(_COLUMNS))]
    except (OSError, csv.Error) as error:
        raise ManifestError(f"{path}: list must be a CSV file; got {error}. Check it.") from error
    places = _columns(rows[0] if rows else [])
    listed: Listed = {}
    problems = []
    for number, row in enumerate(rows, start=1):
        if not any(row) or (number == 1 and places is not None):
            continue
        cells = [row[place] for place in places or range(len(_COLUMNS)) if place < len(row)]
        dataset = groupings.dataset_name(cells[0]) if cells else ""
        if len(cells) < len(_COLUMNS) or dataset not in form["sets"] or cells[3] not in form["labels"]:
            problems.append(
                f"{path.name}:{number}: row must be dataset,subject,clip,label with a set of {', '.join(form['sets'])} and a label "
                f"of {', '.join(form['labels'])}; got {','.join(row)!r:.80}. Correct it."
            )
            continue
        name, label = f"{dataset}/{cells[1]}/{cells[2]}", form["labels"][cells[3]]
        if listed.setdefault(_key(name), (name, label))[1] != label:
            problems.append(
                f"{path.name}:{number}: clip must have one label; got {label} after {listed[_key(name)][1]}. Correct it."
            )
    if problems or not listed:
        raise ManifestError("\n".join(problems[:20]) or f"{path}: list must name clips; got none. Check the file.")
    return listed


def _columns(header: Sequence[str]) -> list[int] | None:
    """Where the four columns are, by their names; None where there is no header."""
    names = [plain(cell) for cell in header]
    places = [next((n for n, name in enumerate(names) if name in spellings), None) for spellings in _COLUMNS]
    known = [place for place in places if place is not None]
    return known if len(known) == len(_COLUMNS) else None


def _by_list(clips: Sequence[Clip], listed: Listed, events: Sequence[Event]) -> tuple[list[Clip], list[Event]]:
    """The clips of the list with its classes, and the events that matter for them; each clip that is missing is an event."""
    chosen = {_key(clip.clip_id): clip for clip in clips if _key(clip.clip_id) in listed}
    kept = [event for event in events if event.kind != "left out" or _key(event.clip) in listed]
    said = {_key(event.clip) for event in kept if event.kind == "left out"}
    for key, (name, label) in listed.items():
        if key not in chosen and key not in said:
            message = f"the official list names it ({label}), but this copy of the data set has no such clip."
            kept.append(Event("left out", name, message, "clips of the official list that this copy has not"))
        elif key in chosen and _class_of(chosen[key]) != label:
            clip = chosen[key]
            chosen[key] = dataclasses.replace(clip, label=label)
            kept.append(Event("applied", clip.clip_id, f"label {clip.label or 'empty'} -> {label}. The official list."))
    return list(chosen.values()), kept


# --- one root


def _from(root: Path, clips: Sequence[Clip], readings: Mapping[str, Reading]) -> list[Clip]:
    """The same clips with paths from one root, and the same further columns."""
    names = sorted({name for clip in clips for name, _ in clip.extra})
    below = {name: reading.root.resolve().relative_to(root).as_posix() for name, reading in readings.items()}
    return [
        dataclasses.replace(
            clip,
            path=Path(below[clip.dataset], clip.path).as_posix(),
            extra=tuple((name, dict(clip.extra).get(name, "")) for name in names),
        )
        for clip in clips
    ]
