"""CASME II: one row per clip, subjects as "01" or 1; objective classes in a column (2019), or in a workbook of their own (2014)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from flowkit.datasets.base import MAX_NAMED, Annotation
from flowkit.datasets.folders import fold_path
from flowkit.datasets.source import Source
from flowkit.datasets.tables.workbooks import Row
from flowkit.listing import listed

ROMAN: Final = ("I", "II", "III", "IV", "V", "VI", "VII")


def annotate(source: Source) -> Iterator[Annotation]:
    """Every row of the coding workbook, with its own objective class, else that of the workbook of classes if it is there."""
    rows = source.table()
    listed_classes = _classes(source)
    own = {_key(row): row for row in rows if row["objective_class"]}
    if not own:
        _say_where_from(source, listed_classes)
    differing = [
        f"{subject_id(row['subject'])}/{row['clip']}"
        for key, row in own.items()
        if key in listed_classes and _number(listed_classes[key]) != _number(row["objective_class"])
    ]
    if differing:
        source.note(
            f"{len(differing)} rows have another objective class in the workbook of classes, which is of another edition; the "
            f"coding workbook's own counts: {listed(differing, MAX_NAMED)}."
        )
    for row in rows:
        found = row["objective_class"] or ("" if own else listed_classes.get(_key(row), ""))
        yield source.annotation(
            row, subject_id(row["subject"]), {"action_units": row["action_units"], "objective_class": found}
        )


def _classes(source: Source) -> dict[tuple[str, ...], str]:
    """Objective class of each clip by the workbook of classes; nothing where it is not there."""
    return {_key(row): row["objective_class"] for row in source.joined("objective")}


def _key(row: Row) -> tuple[str, ...]:
    return fold_path(f"{subject_id(row['subject'])}/{row['clip']}")


def _number(objective_class: str) -> str:
    """An objective class as a number, which some workbooks write as a Roman one."""
    return str(ROMAN.index(objective_class) + 1) if objective_class in ROMAN else objective_class


def _say_where_from(source: Source, classes: Mapping[tuple[str, ...], str]) -> None:
    if classes:
        source.note("objective_class is from the workbook of objective classes; other editions have other classes.")
    else:
        source.note("no workbook of objective classes is there; the column objective_class is empty.")


def subject_id(text: str) -> str:
    """The name of a subject that the workbook writes as "01", 1, "S01" or "sub01"."""
    digits = text.casefold().removeprefix("sub").removeprefix("s")
    return f"sub{int(digits):02d}" if digits.isascii() and digits.isdigit() else text
