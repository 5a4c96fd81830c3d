"""MMEW: one row per clip; clips are named PersonIndex-EmotionIndex-SampleIndex, and are in a folder of their emotion."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from flowkit.datasets.base import MAX_NAMED, Annotation
from flowkit.datasets.source import Source
from flowkit.listing import listed

_CLIP: Final = re.compile(r"s?0*([0-9]+)-[0-9]+-[0-9]+", re.IGNORECASE)
_SUBJECT: Final = re.compile(r"s?0*([0-9]+)(\.0+)?", re.IGNORECASE)


def annotate(source: Source) -> Iterator[Annotation]:
    """Every row of the sheet; whether its numbers count a clip's frames or a recording's is told by the files."""
    contradicting = []
    for row in source.table():
        subject = subject_id(row["subject"], row["clip"])
        if _SUBJECT.fullmatch(row["subject"]) and subject != subject_id(row["subject"]):
            contradicting.append(f"{row['clip']} ({row['subject']})")
        words = [row["label"], *source.layout["folder_labels"].get(row["label"].casefold(), ())]
        yield source.annotation(
            row,
            subject,
            {"action_units": row["action_units"], "remarks": row["remarks"]},
            folders=[tail for label in words for tail in source.tails(subject=subject, clip=row["clip"], label=label)],
        )
    if contradicting:
        source.note(
            f"{len(contradicting)} rows have another subject than their clip names, which counts: "
            f"{listed(contradicting, MAX_NAMED)}."
        )


def subject_id(text: str, clip: str = "") -> str:
    """The person that a clip's name begins with, else the one of the subject column.

    Examples
    --------
    >>> subject_id("3"), subject_id("3", "S03-01-002")
    ('S03', 'S03')
    """
    match = _CLIP.fullmatch(clip) or _SUBJECT.fullmatch(text)
    return f"S{int(match[1]):02d}" if match else text
