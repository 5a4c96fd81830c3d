"""DFME: one row per clip, numbered from 0 in its own folder, with its own frame rate; test sets have no labels.

The names of files and columns are those of the real sheets and of a public loader, and plain data: layouts.toml.
"""

from __future__ import annotations

from collections.abc import Iterator

from flowkit.datasets.base import LAST, Annotation
from flowkit.datasets.source import Source


def annotate(source: Source) -> Iterator[Annotation]:
    """Every row of the sheet; where it has no offset, the clip ends with its last frame."""
    ended = 0
    rows = source.table()
    by_subject = any(source.find(source.tails(subject=row["subject"], clip=row["clip"])[0]) for row in rows)
    for row in rows:
        own, alone = source.tails(subject=row["subject"], clip=row["clip"])
        ended += not row["offset"]
        extra = {
            "action_units": row["action_units"],
            "offset_source": "annotated" if row["offset"] else "last frame",
        }
        yield source.annotation(
            row,
            row["subject"],
            extra,
            offset=row["offset"] or LAST,
            folders=[own if by_subject else alone],  # two people may have a clip of one name
        )
    if ended:
        source.note(f"{ended} clips have no offset in the sheet and end with the last frame of their folder.")
