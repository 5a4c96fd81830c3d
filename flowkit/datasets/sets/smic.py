"""SMIC (HS, VIS, NIR) in its three distributions; an apex is only in workbooks to which somebody added it.

SMIC_all_raw and SMIC_all_cropped have no annotation file: the folder is the label, its first file the onset, its last the
offset. SMIC-E has long clips and a workbook, with up to three expressions per row. Subjects and clips are called s01 and
s01_ne_01 throughout, however a distribution writes them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from flowkit.datasets.base import FIRST, LAST, MAX_NAMED, Annotation
from flowkit.datasets.folders import PREFIX, bare_subject, fold_path, several_layouts, some_folders, what_to_do
from flowkit.datasets.source import Source
from flowkit.datasets.tables.workbooks import Row
from flowkit.errors import ManifestError
from flowkit.listing import listed

VARIANTS: Final = {"hs", "vis", "nir"}
EXPRESSIONS: Final = ("", "2", "3")
"""Ends of the column names of a row's expressions."""
LABELS: Final = {"ne": "negative", "po": "positive", "sur": "surprise"}
"""What the name of a clip says of its label: s01_ne_01 is negative."""
_CLIP: Final = "s[0-9]+_(?:ne|po|sur)_[0-9]+"
_BY_FOLDER: Final = re.compile(f"(?:.*/)?{PREFIX}[0-9]+/micro/(negative|positive|surprise)/({_CLIP})")
_LONG: Final = re.compile(f"(?:.*/)?{PREFIX}[0-9]+/({_CLIP})")
"""Places of clips as paths are compared: SMIC_all_raw and SMIC_all_cropped, and SMIC-E."""
_MICRO: Final = re.compile(r"(?:.*/)?micro/.+")
_NAMED: Final = re.compile(r"s\d+_(ne|po|sur)_\d+")


@dataclass(frozen=True, slots=True)
class _Place:
    """A folder that a clip has, by the name of subject and clip; `label` is empty in SMIC-E."""

    path: str
    layout: str
    subject: str
    clip: str
    label: str = ""


def annotate(source: Source) -> Iterator[Annotation]:
    """Every clip of one variant, from the workbook where frames are laid out as in SMIC-E, else from the folders."""
    places = _one_layout(source, list(_places(source)))
    if not places and not source.named_workbook and not source.has("main"):
        raise ManifestError(
            f"{source.root}: frames must be in folders such as {' or '.join(source.layout['folders'])}; got "
            f"{some_folders(source.folders)}, and no workbook of {source.layout['title']}. {what_to_do(source.folders)}"
        )
    if any(place.label for place in places.values()) and not source.named_workbook and source.has("main"):
        source.note("the workbook is not read: the folders tell labels and intervals. --workbook reads it.")
    if source.named_workbook or not any(place.label for place in places.values()):
        yield from _from_workbook(source, places)
    else:
        yield from (_from_folder(source, place) for place in places.values())


# --- folders


def _places(source: Source) -> Iterator[_Place]:
    """Every folder under the root that has the place of a clip of this variant, empty ones too."""
    around = "/".join(source.root.resolve().parts[-2:])
    odd = []
    for path in [folder.path for folder in source.folders.folders] + source.folders.empty:
        folded = "/".join(fold_path(path))
        short = _BY_FOLDER.fullmatch(folded)
        match = short or _LONG.fullmatch(folded)
        if match is None:
            ours = _variant(f"{around}/{path}") in (source.layout["variant"], None)
            odd += [path] * bool(ours and _MICRO.fullmatch(folded))
            continue
        person = path.split("/")[-4 if short else -2]
        if bare_subject(fold_path(person)[0]) != bare_subject(match[2 if short else 1].split("_")[0]):
            odd.append(path)
            continue
        above = path.split("/")[: -4 if short else -2]
        if _variant("/".join((around, *above))) in (source.layout["variant"], None):
            clip = name_of(match[2 if short else 1])
            yield _Place(path, "/".join(above) or ".", clip.split("_")[0], clip, match[1] if short else "")
    if odd:
        names = listed(odd, MAX_NAMED)
        source.note(f"{len(odd)} folders are not placed and named as clips are, and are passed over: {names}.")


def _variant(path: str) -> str | None:
    """Which variant the nearest part of a path names."""
    for part in reversed(fold_path(path)):
        named = VARIANTS & set(part.split("_"))
        if len(named) == 1:
            return named.pop()
    return None


def _one_layout(source: Source, places: list[_Place]) -> dict[tuple[str, ...], _Place]:
    """The place of each clip, all of one distribution."""
    if source.frames is not None:
        places = [place for place in places if place.layout == source.frames] or places
    found: dict[tuple[str, ...], _Place] = {}
    for place in places:
        found.setdefault(fold_path(f"{place.subject}/{place.clip}"), place)
    if len(found) < len(places) or len({bool(place.label) for place in places}) > 1:
        raise several_layouts(source.root, Counter(place.layout for place in places))
    return found


def _from_folder(source: Source, place: _Place) -> Annotation:
    return Annotation(
        dataset=source.name,
        subject=place.subject,
        clip=place.clip,
        onset=FIRST,
        apex="",
        offset=LAST,
        label=place.label,
        where=place.path,
        folders=(f"./{place.path}",),
        named_label=label_in(place.clip),
        layout=place.layout,
    )


# --- workbook


def _from_workbook(source: Source, places: Mapping[tuple[str, ...], _Place]) -> Iterator[Annotation]:
    rows = source.table()
    names = {name_of(row["clip"]) for row in rows}
    renamed: Mapping[str, str] = source.layout.get("expressions", {})
    absent = [name for name in source.layout.get("no_row", ()) if name not in {*names, *renamed.values()}]
    if absent:
        source.note(f"clips of the other distributions for which this workbook has no row: {', '.join(absent)}.")
    none = []
    for row in rows:
        own = name_of(row["clip"])
        for number in EXPRESSIONS:
            clip = renamed.get(f"{own}/{number}", own)
            if number and _is_none(source, row, number):
                if not _is_empty(source, row, number):
                    none.append(f"{row.where}, expression {number}")
                continue
            if clip != own and clip in names:
                source.note(f"{row.where}: expression {number} is {clip}, which has a row of its own.")
                continue
            yield _expression(source, row, number, clip, places)
    if none:
        source.note(
            f"{len(none)} pairs of further onsets and offsets are what formulas make of empty cells, and no expressions: they are "
            f"outside FirstF to LastF, or do not end behind their onset: {listed(none, MAX_NAMED)}."
        )


def _is_empty(source: Source, row: Row, number: str) -> bool:
    cells = {row[f"onset{number}"].casefold(), row[f"offset{number}"].casefold()}
    return cells <= {"", "0", *source.layout["missing"]}


def _is_none(source: Source, row: Row, number: str) -> bool:
    """Whether the cells of a further expression hold none: empty, or what a formula makes of empty cells."""
    onset, offset = row[f"onset{number}"], row[f"offset{number}"]
    if _is_empty(source, row, number):
        return True
    if not (_is_number(onset) and _is_number(offset)):
        return False
    first, last = (int(row[name]) if _is_number(row[name]) else 0 for name in ("first", "last"))
    return int(offset) <= int(onset) or int(onset) < first or 0 < last < int(offset)


def _is_number(text: str) -> bool:
    return re.fullmatch(r"-?[0-9]+", text) is not None


def _expression(
    source: Source, row: Row, number: str, clip: str, places: Mapping[tuple[str, ...], _Place]
) -> Annotation:
    """One expression of a row; what the other distributions call a clip of its own has no folder of its own here."""
    own = name_of(row["clip"])
    subject = name_of(row["subject"])
    if label_in(own):  # a clip's name begins with its person
        subject = own.partition("_")[0]
    renamed: Mapping[str, str] = source.layout.get("expressions", {})
    hosts = [key.partition("/")[0] for key, name in renamed.items() if name == clip]
    keys = [fold_path(f"{subject}/{name}") for name in (clip, own, *hosts)]
    known = next((places[key] for key in keys if key in places), None)
    return Annotation(
        dataset=source.name,
        subject=subject,
        clip=clip,
        onset=row[f"onset{number}"],
        apex=row[f"apex{number}"],
        offset=row[f"offset{number}"],
        label=row["label"],
        where=row.where,
        folders=source.tails(subject=subject, clip=clip) if known is None else (f"./{known.path}",),
        layout="" if known is None else known.layout,
        serial=number if clip == own else "",
        named_label=label_in(clip),
        recording=subject,  # numbers of files count all that was recorded of a subject
    )


def name_of(text: str) -> str:
    """Return the name of a subject or clip with numbers of two digits.

    Examples
    --------
    >>> name_of("S1_ne_01"), name_of("s1_sur_3"), name_of("1")
    ('s01_ne_01', 's01_sur_03', 's01')
    """
    plain = text.strip().casefold().replace("-", "_")
    match = re.fullmatch(PREFIX + r"(\d+)(_[a-z]+_)?(\d+)?(\w*)", plain)
    if match is None or (match[3] and not match[2]):
        return text
    return f"s{int(match[1]):02d}{match[2] or ''}{f'{int(match[3]):02d}' if match[3] else ''}{match[4]}"


def label_in(clip: str) -> str:
    """Return the label that the name of a clip states, empty for none."""
    match = _NAMED.fullmatch(clip)
    return LABELS[match[1]] if match else ""
