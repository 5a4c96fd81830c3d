"""Which column of a sheet holds what: by its header, wherever that stands, or by number where there is none."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from flowkit.errors import ManifestError
from flowkit.listing import listed

HEADER_WITHIN: Final = 60
"""The header stands in one of so many first rows."""
MAX_LISTED: Final = 8
Grid = Sequence[Sequence[object]]


def find_columns(where: str, grid: Grid, form: Mapping[str, Any]) -> tuple[int, dict[str, int]]:
    """Index of the first row of data, and of the column of each name.

    Parameters
    ----------
    where : str
        File and sheet, for messages.
    grid : sequence of sequences
        The cells.
    form : mapping
        A table of layouts.toml: `columns`, `optional`.

    Raises
    ------
    ManifestError
        No row names every column, or there are too few columns.
    """
    wanted: dict[str, Any] = {**form["columns"], **form.get("optional", {})}
    if all(isinstance(place, int) for place in wanted.values()):
        return 0, _by_number(where, grid, wanted)
    best: tuple[int, int] = (-1, 0)
    for number, line in enumerate(grid[:HEADER_WITHIN]):
        there: dict[str, int] = {}
        for column, value in enumerate(line):
            there.setdefault(plain(cell_text(value)), column)
        found = {
            name: there[plain(spelling)]
            for name, spellings in wanted.items()
            for spelling in reversed(spellings)
            if plain(spelling) in there
        }
        held = sum(name in found for name in form["columns"])
        if held == len(form["columns"]):
            return number + 1, found
        best = max(best, (held, -number))
    raise ManifestError(_no_header(where, grid, form["columns"], -best[1]))


def _by_number(where: str, grid: Grid, wanted: Mapping[str, int]) -> dict[str, int]:
    width = max(map(len, grid), default=0)
    if width < max(wanted.values()):
        names = ", ".join(f"{number} {name}" for name, number in wanted.items())
        raise ManifestError(
            f"{where} must have the columns {names}, and no header; got {width} columns. Check that it is "
            "the right file."
        )
    return {name: number - 1 for name, number in wanted.items()}


def _no_header(where: str, grid: Grid, columns: Mapping[str, Sequence[str]], nearest: int) -> str:
    header = [cell_text(value) for value in grid[nearest]] if grid else []
    there = {plain(text): text for text in header if text}
    advice = []
    for spellings in columns.values():
        if not {plain(spelling) for spelling in spellings} & set(there):
            near = difflib.get_close_matches(plain(spellings[0]), there, 1, 0.6)
            advice.append(f"{spellings[0]} (is it {there[near[0]]!r}?)" if near else spellings[0])
    names = ", ".join(spellings[0] for spellings in columns.values())
    return (
        f"{where} must have a header with {names} in one of its first {HEADER_WITHIN} rows; got row "
        f"{nearest + 1} as the nearest, with {listed([text for text in header if text], MAX_LISTED) or 'nothing'}. It lacks "
        f"{', '.join(advice) or 'columns'}. Check that it is the right file, or rename its columns in a copy and name that with "
        "--workbook."
    )


def plain(text: str) -> str:
    """A name as names are compared: without capitals, blanks and underscores."""
    return re.sub(r"[\s_]+", "", text.casefold())


def cell_text(value: object) -> str:
    """A cell as text: a whole number without a decimal point, nothing for an empty cell, blanks put in order."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if value is None else " ".join(str(value).split())
