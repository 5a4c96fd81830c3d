"""Text files of cells, whatever program saved them: encoding and separator are found out where they are plain.

Spreadsheet programs of half of Europe save CSV with semicolons, Chinese ones in GBK, and "Unicode text" is UTF-16 with tabs.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from flowkit.storage.safe_files import lines, read_regular

SUFFIXES: Final = (".csv", ".tsv", ".txt")
"""Of files that are read as text."""
SEPARATORS: Final = (",", ";", "\t")
MAX_BYTES: Final = 64 << 20
"""An annotation file is a megabyte."""
_MARKS: Final = {
    codecs.BOM_UTF8: ("utf-8-sig", ""),
    codecs.BOM_UTF16_LE: ("utf-16", "UTF-16"),
    codecs.BOM_UTF16_BE: ("utf-16", "UTF-16"),
}


def read_text(path: Path) -> tuple[str, str]:
    """Return the text of a file, and how it is encoded.

    Parameters
    ----------
    path : Path

    Returns
    -------
    text : str
        Bytes that belong to no encoding known here are lone surrogates: `is_readable` finds them.
    encoding : str
        Empty for UTF-8.

    Raises
    ------
    OSError
    """
    content = read_regular(path, MAX_BYTES)
    for mark, (codec, name) in _MARKS.items():
        if content.startswith(mark):
            return content.decode(codec, errors="replace" if name else "surrogateescape"), name
    if b"\0" in content:  # ASCII in UTF-16 without a mark: every other byte is 0
        low = content[::2].count(0) < content[1::2].count(0)
        return content.decode("utf-16-le" if low else "utf-16-be", errors="replace"), "UTF-16"
    for codec, name in (("utf-8", ""), ("gb2312", "GBK")):
        try:
            return content.decode(codec), name
        except UnicodeDecodeError:
            continue
    return content.decode("utf-8", errors="surrogateescape"), ""


def is_readable(text: str) -> bool:
    """Whether every byte of a text was understood."""
    return text.isascii() or not any("\ud800" <= sign <= "\udfff" or sign == "\ufffd" for sign in text)


def tables_of(text: str) -> Iterator[list[list[str]]]:
    """Yield the cells of a text for each separator that occurs in it, the one that occurs in most lines first.

    Parameters
    ----------
    text : str

    Raises
    ------
    csv.Error
        With none of them is it a table; raised when the iterator is used up.
    """
    rows = text.splitlines()
    often = {sign: sum(sign in row for row in rows) for sign in SEPARATORS}
    failed: csv.Error | None = None
    read = False
    for sign in sorted(SEPARATORS, key=lambda sign: -often[sign]):
        if often[sign] or sign == SEPARATORS[0]:
            try:
                yield _cells(text, sign)
                read = True
            except csv.Error as error:
                failed = failed or error
    if failed is not None and not read:
        raise failed


def _cells(text: str, separator: str) -> list[list[str]]:
    stream = io.StringIO(text, newline="")
    return list(csv.reader(lines(stream), delimiter=separator, skipinitialspace=True, strict=True))


def cells_of_width(text: str, width: int) -> list[list[str]]:
    """Return the cells of a text by the separator that gives some row at least so many of them.

    Parameters
    ----------
    text : str
    width : int

    Raises
    ------
    csv.Error
        See `tables_of`.
    """
    grids = list(tables_of(text))
    wide = (grid for grid in grids if any(len(row) >= width for row in grid))
    return next(wide, grids[0])
