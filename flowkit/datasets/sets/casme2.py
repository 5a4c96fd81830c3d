"""CASME II: one row a clip, subjects as "01" or 1, objective classes in a workbook of their own."""

from __future__ import annotations

from collections.abc import Iterator

from flowkit.datasets.base import Annotation, Source
from flowkit.datasets.folders import fold_path


def annotate(source: Source) -> Iterator[Annotation]:
    """Every row of the coding workbook, joined with its objective class where that workbook is there."""
    objective: dict[tuple[str, ...], str] = {}
    if source.has("objective"):
        for row in source.table("objective"):
            objective[fold_path(f"{subject_id(row['subject'])}/{row['clip']}")] = row["objective_class"]
    else:
        source.note("no workbook of objective classes is there; the column objective_class is empty.")
    for row in source.table():
        subject = subject_id(row["subject"])
        found = objective.get(fold_path(f"{subject}/{row['clip']}"), "")
        yield source.annotation(row, subject, {"action_units": row["action_units"], "objective_class": found})


def subject_id(text: str) -> str:
    """The folder's name of a subject that the workbook writes as "01", 1 or "sub01"."""
    digits = text.casefold().removeprefix("sub")
    return f"sub{int(digits):02d}" if digits.isascii() and digits.isdigit() else text
