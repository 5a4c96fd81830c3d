"""MEGC2019: the composite of CASME II, SAMM and SMIC-HS, by its official list or by the rule that gives the same counts.

The label of the manifest stays the data set's own word; grouping 3-class of `flowkit.labels` makes the three classes of it.
"""

from __future__ import annotations

import csv
import dataclasses
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from flowkit.datasets.base import Event, Reading, layout
from flowkit.datasets.folders import fold_path
from flowkit.errors import ConfigError, ManifestError
from flowkit.inputs.clip import Clip
from flowkit.labels import groupings

NAME: Final = "megc2019"
GROUPING: Final = "3-class"
_COLUMNS: Final = 4
Key = tuple[str, ...]


def compose(readings: Mapping[str, Reading], list_file: Path | None = None) -> Reading:
    """The clips of the composite, in the order of its data sets.

    Parameters
    ----------
    readings : mapping of str to Reading
        The three data sets by name, each read as a whole.
    list_file : Path, optional
        The official list; without it, one that lies in a root; without any, all clips whose label has a class, but for
        two that the official list leaves out.

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
    list_file = list_file or _find_list([reading.root for reading in readings.values()], form["list"])
    listed = None if list_file is None else _read_list(list_file, form)
    events = [_of_set(event, reading) for reading in readings.values() for event in reading.events]
    clips = [clip for reading in readings.values() for clip in reading.clips]
    if listed is None:
        out = {_key(name) for name in form["excluded"]}
        clips = [clip for clip in clips if _class_of(clip) and _is_whole(clip) and _key(clip.clip_id) not in out]
        events = [event for event in events if event.kind != "left out" or _key(event.clip) not in out]
        events.append(
            Event("note", "", f"no official list ({form['list']}) is there; clips are chosen by their labels.")
        )
        events += _short_counts(clips, form["clips"])
    else:
        clips, events = _by_list(clips, listed, events)
    if not clips:
        raise ManifestError(
            f"{form['title']}: must have at least one clip; got none of the list. Check the list and the roots."
        )
    root = Path(os.path.commonpath([reading.root.resolve() for reading in readings.values()]))
    layouts = {
        f"{name}: {place}": number for name, found in readings.items() for place, number in found.layouts.items()
    }
    return Reading(NAME, form["title"], root, _from(root, clips, readings), events, layouts)


def _of_set(event: Event, reading: Reading) -> Event:
    return event if event.clip else dataclasses.replace(event, message=f"{reading.title}: {event.message}")


def _key(text: str) -> Key:
    return fold_path(text)


def _class_of(clip: Clip) -> str | None:
    """Class of a clip; None where it has none, or its label is unknown, which the reading of its set has noted."""
    try:
        return groupings.grouping(GROUPING).of(clip.dataset, clip.label)
    except ConfigError:
        return None


# --- by rule


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
            events.append(Event("left out", "", message))
    return events


# --- by the official list


def _find_list(roots: Sequence[Path], name: str) -> Path | None:
    found = [root / name for root in roots if (root / name).is_file()]
    if len({path.read_bytes() for path in found}) > 1:
        names = ", ".join(map(str, found))
        raise ManifestError(f"{NAME}: official list must be one; got {names}, which differ. Name one with --list.")
    return found[0] if found else None


def _read_list(path: Path, form: Mapping[str, Any]) -> dict[Key, tuple[str, str]]:
    """Name and class of each clip of the list."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [[cell.strip() for cell in row] for row in csv.reader(file, strict=True)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ManifestError(f"{path}: list must be a CSV file in UTF-8; got {error}. Check it.") from error
    if rows and len(rows[0]) == _COLUMNS and rows[0][3].casefold() == "label":
        rows[0] = []  # some copies have a header
    listed: dict[Key, tuple[str, str]] = {}
    problems = []
    for number, row in enumerate(rows, start=1):
        if not any(row):
            continue
        dataset = groupings.dataset_name(row[0])
        if len(row) != _COLUMNS or dataset not in form["sets"] or row[3] not in form["labels"]:
            problems.append(
                f"{path.name}:{number}: row must be dataset,subject,clip,label with a set of {', '.join(form['sets'])} and a label "
                f"of {', '.join(form['labels'])}; got {','.join(row)!r:.80}. Correct it."
            )
        else:
            name = f"{dataset}/{row[1]}/{row[2]}"
            listed[_key(name)] = name, form["labels"][row[3]]
    if problems or not listed:
        raise ManifestError("\n".join(problems[:20]) or f"{path}: list must name clips; got none. Check the file.")
    return listed


def _by_list(
    clips: Sequence[Clip], listed: Mapping[Key, tuple[str, str]], events: Sequence[Event]
) -> tuple[list[Clip], list[Event]]:
    """The clips of the list, and the events that matter for them; each clip that is missing is an event."""
    chosen = {_key(clip.clip_id): clip for clip in clips if _key(clip.clip_id) in listed}
    kept = [event for event in events if event.kind != "left out" or _key(event.clip) in listed]
    told = {_key(event.clip) for event in kept if event.kind == "left out"}
    for key, (name, label) in listed.items():
        if key not in chosen and key not in told:
            message = f"the official list names it ({label}), but this copy of the data set has no such clip."
            kept.append(Event("left out", name, message))
        elif key in chosen and _class_of(chosen[key]) != label:
            clip = chosen[key]
            kept.append(
                Event("note", clip.clip_id, f"its label is {clip.label!r}, but the official list says {label}.")
            )
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
