"""CAS(ME)^3: micro-expressions of part A (with apex) and part C (without), as intervals of long videos.

The authors' exception lists are read where they lie under the root: what they call damaged or poor is a fact of the frames.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator
from typing import Final

from flowkit.datasets.base import MAX_NAMED, Annotation, Source, counted
from flowkit.datasets.tables.workbooks import Row
from flowkit.listing import listed

_IMAGE: Final = re.compile(r"(spNO\.[0-9]+)[\s/]+([a-z])[\s/]+(?:color/)?([0-9]+)\.jpg", re.IGNORECASE)
"""An image in an exception list: "spNO.3 J 498.jpg  the image cannot open", ".../spNO.138/a/color/1294.jpg"."""

Images = dict[tuple[str, str], set[int]]
"""Frame numbers by folded subject and video."""


def annotate_a(source: Source) -> Iterator[Annotation]:
    """Every row of part A; of a workbook with an expression type, those of micro-expressions."""
    damaged, poor = _images(source, "damaged"), _images(source, "poor")
    touched: dict[str, list[str]] = {}
    others: Counter[str] = Counter()
    for row in source.table():
        if row["kind"] and not row["kind"].casefold().startswith("micro"):
            others[row["kind"]] += 1
            continue
        annotation = _part_a(source, row)
        broken = _listed(annotation, damaged)
        if set(broken) & _key_frames(annotation):
            source.leave_out(
                annotation.clip_id,
                f"{annotation.where}: key frames must be readable; got {', '.join(map(str, broken))} in the authors' list of "
                "damaged images. Get better copies of them, and take them off the list.",
            )
            continue
        if broken:
            touched.setdefault("damaged, but no key frame", []).append(f"{annotation.clip_id} ({len(broken)})")
        if poor:
            number = len(_listed(annotation, poor))
            annotation = dataclasses.replace(annotation, extra={**annotation.extra, "poor_frames": str(number)})
            if number:
                touched.setdefault("poor", []).append(f"{annotation.clip_id} ({number})")
        yield annotation
    if others:
        source.note(f"{others.total()} rows are not of micro-expressions and are passed over: {counted(others)}.")
    for word, clips in touched.items():
        source.note(f"{len(clips)} clips hold frames that the authors call {word}: {listed(clips, MAX_NAMED)}.")


def annotate_c(source: Source) -> Iterator[Annotation]:
    """Every row of part C, which has no apex."""
    for row in source.table():
        subject = row["subject"].zfill(2)
        yield Annotation(
            dataset=source.name,
            subject=subject,
            clip=row["clip"],
            onset=row["onset"],
            apex="",
            offset=row["offset"],
            label=row["label"],
            where=row.where,
            folders=source.tails(subject=subject, clip=row["clip"]),
            extra={"action_units": re.sub(r"\s*[,\uff0c]\s*", "+", row["action_units"])},
            serial=row["onset"],
        )


def _part_a(source: Source, row: Row) -> Annotation:
    clip, onset = row["clip"].lower(), row["onset"]
    return Annotation(
        dataset=source.name,
        subject=row["subject"],
        clip=clip,
        onset=onset,
        apex=row["apex"],
        offset=row["offset"],
        label=row["label"],
        where=row.where,
        folders=source.tails(subject=row["subject"], clip=clip, onset=onset),
        extra={"action_units": row["action_units"], "objective_class": row["objective_class"]},
        serial=onset,
    )


def _images(source: Source, name: str) -> Images:
    """What the lists of a name in layouts.toml hold; nothing where there are none."""
    found: Images = {}
    for path in source.lists(name):
        for match in _IMAGE.finditer(path.read_text(encoding="utf-8", errors="replace")):
            found.setdefault((match[1].casefold(), match[2].lower()), set()).add(int(match[3]))
    return found


def _key_frames(annotation: Annotation) -> set[int]:
    texts = (annotation.onset, annotation.apex, annotation.offset)
    return {int(text) for text in texts if text.isascii() and text.isdigit()}


def _listed(annotation: Annotation, images: Images) -> list[int]:
    """Those frames of a clip that a list names."""
    numbers = _key_frames(annotation)
    there = images.get((annotation.subject.casefold(), annotation.clip), ())
    return sorted(frame for frame in there if numbers and min(numbers) <= frame <= max(numbers))
