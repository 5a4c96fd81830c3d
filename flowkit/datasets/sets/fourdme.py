"""4DME: one row per clip of the grey video; emotions may be joint, and action units marked (k) were there all the time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from flowkit.datasets.base import MAX_NAMED, Annotation
from flowkit.datasets.source import Source
from flowkit.datasets.tables.workbooks import Row
from flowkit.labels.action_units import moving_units
from flowkit.listing import listed

_UNIT_COLUMN: Final = re.compile("AU([0-9]+)")


def annotate(source: Source) -> Iterator[Annotation]:
    """Every row of the sheet."""
    contradicting = []
    for row in source.table():
        units = row["action_units"]
        annotation = source.annotation(
            row, row["subject"], {"action_units": units, "moving_units": moving_units(units)}
        )
        if _contradicts(row):
            contradicting.append(annotation.clip_id)
        yield annotation
    if contradicting:
        source.note(
            f"{len(contradicting)} rows have a cell of action units that contradicts their columns AU1, AU2 and so on, perhaps "
            f"one of another row: {listed(contradicting, MAX_NAMED)}."
        )


def _contradicts(row: Row) -> bool:
    """Whether the columns of the units say something else than their cell; units without a column never do."""
    columns = {match[1]: text for name, text in row.cells.items() if (match := _UNIT_COLUMN.fullmatch(name)) and text}
    named_units = {str(int(number)) for number in re.findall("[0-9]+", row["action_units"])}
    marked = {number for number, text in columns.items() if text != "0"}
    return bool(columns) and named_units & set(columns) != marked
