"""Which column of a sheet holds what: by its header, in whichever row it is, or by number where there is none."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from flowkit.errors import ManifestError
from flowkit.listing import listed

HEADER_WITHIN: Final = 60
"""The header is one of so many first rows."""
MAX_LISTED: Final = 8
Grid = Sequence[Sequence[object]]
_WHOLE: Final = re.compile(r"(-?[0-9]+)\.0+")


@dataclass(frozen=True, slots=True)
class Columns:
    """Where the data of a sheet are.

    Attributes
    ----------
    first : int
        Index of the first row of data.
    places : dict of str to int
        Index of the column of each name.
    unread : list of str
        Headers of the columns that no name has.
    """

    first: int
    places: dict[str, int]
    unread: list[str]


def find_columns(where: str, grid: Grid, form: Mapping[str, Any]) -> Columns:
    """Find the header of a sheet, and the column of each name.

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
        return Columns(0, _by_number(where, grid, wanted), [])
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
            header = [(column, cell_text(value)) for column, value in enumerate(line)]
            return Columns(
                number + 1, found, [name for column, name in header if name and column not in found.values()]
            )
        best = max(best, (held, -number))
    raise ManifestError(_no_header(where, grid, form, -best[1]))


def _by_number(where: str, grid: Grid, wanted: Mapping[str, int]) -> dict[str, int]:
    width = max(map(len, grid), default=0)
    if width < max(wanted.values()):
        names = ", ".join(f"{number} {name}" for name, number in wanted.items())
        raise ManifestError(
            f"{where} must have the columns {names}, and no header; got {width} columns. Check that it is "
            "the right file."
        )
    return {name: number - 1 for name, number in wanted.items()}


def _no_header(where: str, grid: Grid, form: Mapping[str, Any], nearest: int) -> str:
    columns: Mapping[str, Sequence[str]] = form["columns"]
    header = [cell_text(value) for value in grid[nearest]] if grid else []
    there = {plain(text): text for text in header if text}
    advice = []
    for spellings in columns.values():
        if not {plain(spelling) for spelling in spellings} & set(there):
            near = difflib.get_close_matches(plain(spellings[0]), there, 1, 0.6)
            advice.append(f"{spellings[0]} (is it {there[near[0]]!r}?)" if near else spellings[0])
    names = ", ".join(spellings[0] for spellings in columns.values())
    shown = listed([f"{text:.40}" for text in header if text], MAX_LISTED) or "nothing"
    return (
        f"{where} must have a header with {names} in one of its first {HEADER_WITHIN} rows; got row "
        f"{nearest + 1} as the nearest, with {shown}. It lacks "
        f"{', '.join(advice) or 'columns'}. {_way_out(form, there)}Check that it is the right file, or rename its columns in a "
        "copy and name that with --workbook."
    )


def _way_out(form: Mapping[str, Any], there: Mapping[str, str]) -> str:
    """What helps where the labels alone are missing, and objective classes are there."""
    lacking = [
        name for name, spellings in form["columns"].items() if not {plain(word) for word in spellings} & set(there)
    ]
    classes = {plain(word) for word in form.get("optional", {}).get("objective_class", ())}
    helps = lacking == ["label"] and classes & set(there)
    return "To take the objective class for the label, pass --label-from objective_class. " if helps else ""


def plain(text: str) -> str:
    """A name as names are compared: without capitals, blanks, underscores, and the wide letters of Chinese fonts."""
    return re.sub(r"[\s_]+", "", unicodedata.normalize("NFKC", text).casefold())


def cell_text(value: object) -> str:
    """A cell as text: a whole number without a decimal point, nothing for an empty cell, blanks put in order.

    Examples
    --------
    >>> cell_text(46.0), cell_text("1.0"), cell_text(" 4 + 7 ")
    ('46', '1', '4 + 7')
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = "" if value is None else " ".join(str(value).split())
    match = _WHOLE.fullmatch(text)  # pandas writes a column of whole numbers so where one row is empty
    return match[1] if match else text
