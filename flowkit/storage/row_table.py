"""Rows of commit records and manifests by the million: kept by column, and made without the garbage collector.

As dicts, the lines of a million clips would take more than a gigabyte.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import itemgetter
from typing import Any, overload

SAMPLED = 16
"""Values of a column in which a text must repeat for the others to be looked at: ids and hashes never do."""


class Rows(Sequence[dict[str, Any]]):
    """A sequence of dicts with the same keys, each made when it is asked for; equal texts of a column are stored once.

    Parameters
    ----------
    rows : sequence of dict

    Raises
    ------
    ValueError, KeyError
        They are no dicts, or not all have the keys of the first.
    """

    __slots__ = ("_columns", "_length")

    def __init__(self, rows: Sequence[dict[str, Any]]) -> None:
        if set(map(type, rows)) - {dict}:
            raise ValueError("rows: each must be a dict; got something else.")
        names = tuple(rows[0]) if rows else ()
        if set(map(len, rows)) - {len(names)}:
            raise ValueError(f"rows: each must have the keys {', '.join(names)}; got others.")
        self._length = len(rows)
        self._columns = {name: _shared([*map(itemgetter(name), rows)]) for name in names}

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[dict[str, Any]]:
        names = tuple(self._columns)
        return (dict(zip(names, row, strict=True)) for row in zip(*self._columns.values(), strict=True))

    @overload
    def __getitem__(self, row: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, row: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, row: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(row, slice):
            return [self[number] for number in range(*row.indices(self._length))]
        if not -self._length <= row < self._length:
            raise IndexError(f"rows: row must be less than {self._length}; got {row}.")
        return {name: column[row] for name, column in self._columns.items()}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and [*self] == [*other]

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Rows({[*self]!r})"

    def column(self, name: str) -> list[Any]:
        """What each row has under a name; empty without rows.

        Raises
        ------
        KeyError
            The rows have no such key.
        """
        return self._columns[name] if self._length else []


def column(rows: Sequence[Mapping[str, Any]], name: str) -> list[Any]:
    """What each row has under a name, whether they are kept by column or not."""
    return rows.column(name) if isinstance(rows, Rows) else [row[name] for row in rows]


def _shared(values: list[Any]) -> list[Any]:
    """The same values; of equal texts, and of equal lists of plain values, one object for all, unless they hardly repeat."""
    kinds = set(map(type, values))
    first: dict[Any, Any] = {}
    if kinds == {str} and len(set(values[:SAMPLED])) < len(values[:SAMPLED]):
        return [*map(first.setdefault, values, values)]
    if kinds == {list}:
        try:
            return [*map(first.setdefault, map(tuple, values), values)]
        except TypeError:  # lists in lists
            return values
    return values


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Hold Python's garbage collector back while a million small objects come and none goes.

    It would look through all of them again and again and find nothing.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
