"""Macro- and micro-expressions in one sheet: which rows a data set is of, and the column that tells them apart.

A data set of layouts.toml has `kinds`: what the cell of a wanted row begins with.
"""

from __future__ import annotations

from collections import Counter

from flowkit.datasets.base import counted
from flowkit.datasets.source import Source
from flowkit.datasets.tables.workbooks import Row


def is_wanted(source: Source, kind: str) -> bool:
    """Return whether a row is of the set."""
    return kind.casefold().startswith(tuple(source.layout["kinds"]))


def kind_column(source: Source, kind: str) -> dict[str, str]:
    """Return the further column `kind`, "macro" or "micro", of a set that is of both."""
    kinds = source.layout["kinds"]
    return {"kind": next((word for word in kinds if kind.casefold().startswith(word)), kind)} if len(kinds) > 1 else {}


def serial(source: Source, row: Row) -> str:
    """Return what tells the expressions of one video apart: the onset, and the offset where a long one can hold a short one."""
    return f"{row['onset']}-{row['offset']}" if len(source.layout["kinds"]) > 1 else row["onset"]


def passed_over(source: Source, others: Counter[str]) -> None:
    """Note the rows that are not wanted, by their kind."""
    if others:
        wanted = f"{'- and '.join(source.layout['kinds'])}-expressions"
        source.note(f"{others.total()} rows are not of {wanted} and are passed over: {counted(others)}.")
