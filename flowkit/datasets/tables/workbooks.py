"""Annotation files as rows of named cells: .xlsx by openpyxl, text files likewise; what can be wrong with one is said by name.

Every cell becomes text, a whole number without a decimal point, nothing for an empty one: the same workbook exists with subjects as
text and as numbers. Formulas count by the value that the spreadsheet program stored with them.
"""

from __future__ import annotations

import csv
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any, Final

from flowkit.datasets.tables import text_files
from flowkit.datasets.tables.columns import MAX_LISTED, Columns, cell_text, find_columns, plain
from flowkit.errors import EnvironmentMissing, ManifestError
from flowkit.listing import listed
from flowkit.storage.safe_files import regular

SUFFIXES: Final = (".xlsx", ".xlsm", ".xls", ".csv", ".tsv")
MAX_UNPACKED_BYTES: Final = 256 << 20
"""An annotation workbook is a megabyte; one that unpacks to more than this is a bomb."""
_OLE: Final = bytes.fromhex("d0cf11e0a1b11ae1")
"""First bytes of an .xls file, and of an .xlsx file with a password."""
_DAMAGE: Final = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, SyntaxError, KeyError, ValueError, TypeError),
    *(AttributeError, IndexError, NotImplementedError, OverflowError, RecursionError, MemoryError),
)
"""What openpyxl and the modules under it raise on damaged files; an XML error is a SyntaxError."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row: the text of its cells by the names of layouts.toml, and where it is."""

    where: str
    cells: Mapping[str, str]

    def __getitem__(self, name: str) -> str:
        """Text of a cell; empty where the cell is, or where the file has no such column."""
        return self.cells.get(name, "")


@dataclass(frozen=True, slots=True)
class Table:
    """What an annotation file holds.

    Attributes
    ----------
    where : str
        File and sheet, for messages.
    rows : list of Row
        Without the blank ones.
    unread : list of str
        Headers of the columns that were not read.
    encoding : str
        Of a text file that is not UTF-8; else empty.
    """

    where: str
    rows: list[Row]
    unread: list[str]
    encoding: str = ""


@dataclass(frozen=True, slots=True)
class _Sheet:
    """A sheet as a grid; `formulas` are the (row, column) from 0 of those formulas that have no stored value."""

    name: str
    grid: Sequence[Sequence[object]]
    formulas: frozenset[tuple[int, int]] = field(default_factory=frozenset)
    encoding: str = ""

    def cell_name(self, row: int, column: int) -> str:
        letters = ""
        column += 1
        while column:
            column, rest = divmod(column - 1, 26)
            letters = chr(ord("A") + rest) + letters
        return f"{self.name}!{letters}{row + 1}"


def find_file(root: Path, there: Sequence[str], form: Mapping[str, Any], what: str) -> Path:
    """The one annotation file of a form among the spreadsheets of a folder.

    Parameters
    ----------
    root : Path
    there : sequence of str
        Every spreadsheet under the root, relative to it.
    form : mapping
        A table of layouts.toml.
    what : str
        How messages call the file.

    Returns
    -------
    Path

    Raises
    ------
    ManifestError
        There is none, or there are several.
    """
    fitting = fitting_files(there, form)
    if not fitting:
        for name in there:
            refuse(root / name, form)
    if len(fitting) == 1:
        return root / fitting[0]
    if fitting:
        raise ManifestError(
            f"{root}: {what} must be one file; got {len(fitting)}: {listed(fitting, MAX_LISTED)}. Name the one to read "
            "with --workbook."
        )
    patterns = " or ".join(form["files"])
    old = [
        name
        for name in there
        for pattern in form["files"]
        if _fits(name, str(PurePosixPath(pattern).with_suffix(".xls*")))
    ]
    if old:
        raise ManifestError(f"{root / old[0]}: {_unreadable_kind(Path(old[0]))}")
    ancient = " An .xls file is never read: save it as .xlsx." if any(_is_xls(name) for name in there) else ""
    raise ManifestError(
        f"{root}: folder must hold {what}, a file named {patterns}; got {listed(there, MAX_LISTED) or 'no spreadsheet'}. Check "
        f"the folder, or name the file with --workbook.{ancient}"
    )


def _is_xls(name: str) -> bool:
    return name.casefold().endswith(".xls")


def fitting_files(there: Sequence[str], form: Mapping[str, Any]) -> list[str]:
    """The spreadsheets that the first pattern of a form fits that fits any."""
    by_pattern = ([name for name in there if _fits(name, pattern)] for pattern in form["files"])
    return next(filter(None, by_pattern), [])


def refuse(path: Path, form: Mapping[str, Any]) -> None:
    """Raise for a file that layouts.toml says not to read, such as an older version.

    Raises
    ------
    ManifestError
    """
    for pattern, reason in form.get("refused", {}).items():
        if _fits(path.name, pattern):
            raise ManifestError(f"{path}: annotation must be another file; got {reason}.")


def read_table(path: Path, form: Mapping[str, Any], *, unlabelled: bool = False) -> Table:
    """Read an annotation file.

    Parameters
    ----------
    path : Path
        .xlsx, or text with commas, semicolons or tabs.
    form : mapping
        A table of layouts.toml: `sheets`, `columns`, `optional`.
    unlabelled : bool
        Whether the column of labels may be missing.

    Returns
    -------
    Table

    Raises
    ------
    ManifestError
        The file cannot be read, or has not the sheets, columns or stored values that it should have.
    EnvironmentMissing
        openpyxl is not installed.
    """
    if unlabelled and "label" in form["columns"]:
        columns = dict(form["columns"])
        form = {**form, "optional": {**form.get("optional", {}), "label": columns.pop("label")}, "columns": columns}
    is_text = path.suffix.lower() in text_files.SUFFIXES
    sheet, columns_found = _read_text(path, form) if is_text else _read_workbook(path, form)
    used = set(columns_found.places.values())
    empty = [(row, column) for row, column in sheet.formulas if row >= columns_found.first and column in used]
    if empty:
        cells = [sheet.cell_name(*cell) for cell in sorted(empty)]
        raise ManifestError(
            f"{path}: formulas must have stored values; got {len(cells)} without: {listed(cells, MAX_LISTED)}. Open the "
            "file in a spreadsheet program, save it there, and run again."
        )
    where = f"{path.name}: {sheet.name}" if sheet.name else path.name
    return Table(where, list(_rows(path, sheet, columns_found)), columns_found.unread, sheet.encoding)


def _rows(path: Path, sheet: _Sheet, columns: Columns) -> Iterator[Row]:
    for number, line in enumerate(sheet.grid[columns.first :], start=columns.first + 1):
        cells = {name: cell_text(line[column]) for name, column in columns.places.items() if column < len(line)}
        where = f"{path.name}: {sheet.name} row {number}" if sheet.name else f"{path.name}:{number}"
        if foreign := [name for name, text in cells.items() if not text_files.is_readable(text)]:
            raise ManifestError(
                f"{path}: file must be CSV in UTF-8, UTF-16 or GBK; got bytes of another encoding in row {number}, "
                f"{foreign[0]}. Save it as CSV UTF-8."
            )
        if any(cells.values()):
            yield Row(where, cells)


# --- files


def _read_text(path: Path, form: Mapping[str, Any]) -> tuple[_Sheet, Columns]:
    """A text file, by the separator with which it has the columns that it should have."""
    refused: ManifestError | None = None
    try:
        if _first_bytes(path).startswith((_OLE, b"PK\x03\x04")):
            raise ManifestError(
                f"{path}: file must be text; got a workbook under that name. Rename it to .xlsx or .xls."
            )
        text, encoding = text_files.read_text(path)
        for grid in text_files.tables_of(text):
            try:
                return _Sheet("", grid, encoding=encoding), find_columns(f"{path}: file", grid, form)
            except ManifestError as error:
                refused = refused or error
    except OSError as error:
        raise ManifestError(_cannot_open(path, error)) from error
    except csv.Error as error:
        raise ManifestError(f"{path}: file must be CSV; got {error}. Save it again as CSV UTF-8.") from error
    raise refused or ManifestError(f"{path}: file must hold a table; got nothing. Check that it is the right file.")


def _read_workbook(path: Path, form: Mapping[str, Any]) -> tuple[_Sheet, Columns]:
    _check_file(path)
    values = _load(path, data_only=True)
    name = _choose_sheet(path, values, form.get("sheets", ()), form.get("other_sheets", ()))
    grid = list(values[name].iter_rows(values_only=True))
    columns = find_columns(f"{path}: {name}", grid, form)
    return _Sheet(name, grid, frozenset(_formulas_without_value(path, name, grid))), columns


def _formulas_without_value(path: Path, name: str, grid: Sequence[Sequence[object]]) -> Iterator[tuple[int, int]]:
    """Only a second look tells an empty cell from a formula whose value nobody stored."""
    formulas = _load(path, data_only=False)
    for row, line in enumerate(formulas[name].iter_rows()):
        for column, cell in enumerate(line):
            if cell.data_type == "f" and grid[row][column] is None:
                yield row, column


def _first_bytes(path: Path) -> bytes:
    with open(path, "rb", opener=regular) as file:
        return file.read(len(_OLE))


def _check_file(path: Path) -> None:
    """Refuse what is no workbook, or one that should not be opened, before openpyxl sees it."""
    try:
        start = _first_bytes(path)
        if path.suffix.lower() in (".xls", ".xlsm"):
            raise ManifestError(f"{path}: {_unreadable_kind(path)}")
        if start == _OLE:
            raise ManifestError(
                f"{path}: workbook must open without a password; got one that is locked by a password, or an .xls file under "
                "another name. Save it as .xlsx without a password."
            )
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
    except OSError as error:
        raise ManifestError(_cannot_open(path, error)) from error
    except zipfile.BadZipFile as error:
        raise ManifestError(_damaged(path, error)) from error
    if any("vbaproject" in part.filename.lower() for part in parts):
        raise ManifestError(f"{path}: {_unreadable_kind(path.with_suffix('.xlsm'))}")
    unpacked = sum(part.file_size for part in parts)
    if unpacked > MAX_UNPACKED_BYTES:
        raise ManifestError(
            f"{path}: workbook must unpack to at most {MAX_UNPACKED_BYTES >> 20} MB; got {unpacked >> 20} MB. That is no "
            "annotation file: check where it comes from."
        )


def _load(path: Path, *, data_only: bool) -> Any:
    try:
        from openpyxl import load_workbook
    except ImportError as error:
        raise EnvironmentMissing(
            "openpyxl: package must be installed to read workbooks; got none. Install it: pip install 'flowkit-mer[datasets]'."
        ) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about styles and validation lists, which nobody reads here
            with path.open("rb") as file:  # openpyxl leaves a damaged file open that it opened itself
                return load_workbook(file, data_only=data_only, keep_links=False)
    except OSError as error:
        raise ManifestError(_cannot_open(path, error)) from error
    except _DAMAGE as error:
        raise ManifestError(_damaged(path, error)) from error


def _choose_sheet(path: Path, workbook: Any, sheets: Sequence[str], others: Sequence[str]) -> str:
    """A sheet of one of these names; else the only one that is not empty, and not known as one of the others."""
    by_name: dict[str, str] = {plain(sheet.title): sheet.title for sheet in workbook.worksheets}
    for name in sheets:
        if plain(name) in by_name:
            return by_name[plain(name)]
    passed = {plain(name) for name in others}
    filled = [
        sheet.title
        for sheet in workbook.worksheets
        if plain(sheet.title) not in passed and (sheet.max_row > 1 or sheet["A1"].value is not None)
    ]
    if len(filled) == 1:
        return str(filled[0])
    raise ManifestError(
        f"{path}: workbook must have a sheet named {' or '.join(sheets) or 'anything, alone'}; got "
        f"{listed([sheet.title for sheet in workbook.worksheets], MAX_LISTED)}. Check that it is the right file, or "
        "name another with --workbook."
    )


def _fits(name: str, pattern: str) -> bool:
    return fnmatchcase(PurePosixPath(name).name.casefold(), pattern.casefold())


def _unreadable_kind(path: Path) -> str:
    kind = "one with macros, which flowkit never opens" if path.suffix.lower() == ".xlsm" else "an old .xls file"
    return f"workbook must be .xlsx without macros; got {kind}. Save it as .xlsx in a spreadsheet program."


def _cannot_open(path: Path, error: OSError) -> str:
    lock = path.with_name(f"~${path.name}")
    step = "Close the spreadsheet program that has it open." if lock.exists() else "Check the path and the permissions."
    if path.is_symlink() and not path.exists():
        step = "It is a link: get its file (git annex get, dvc pull)."
    return f"{path}: annotation file must be readable; got {error.strerror or error}. {step}"


def _damaged(path: Path, error: BaseException) -> str:
    reason = " ".join(str(error).split()) or type(error).__name__
    return f"{path}: workbook must be a whole .xlsx file; got a damaged one ({reason:.120}). Get or save it again."
