"""SAMM: one row per clip, subjects as "006" or 6, an apex of -1 where there is none."""

from __future__ import annotations

from collections.abc import Iterator

from flowkit.datasets.base import Annotation
from flowkit.datasets.source import Source


def annotate(source: Source) -> Iterator[Annotation]:
    """Every row of the sheet of micro-expressions."""
    for row in source.table():
        subject = subject_id(row["subject"])
        yield source.annotation(row, subject, {name: row[name] for name in ("action_units", "objective_class")})


def subject_id(text: str) -> str:
    """The folder's name of a subject that the workbook writes as "006" or 6."""
    return f"{int(text):03d}" if text.isascii() and text.isdigit() else text
