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
UNKNOWN: Final = "an unknown encoding"
_USUAL: Final = 0.9
"""Share of the signs of a Chinese text that GB 2312 has at least: rare ones are in names."""
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
        Empty for UTF-8; UNKNOWN where only ASCII was understood.

    Raises
    ------
    OSError
    """
    content = read_regular(path, MAX_BYTES)
    for mark, (codec, name) in _MARKS.items():
        if content.startswith(mark):
            return content.decode(codec, errors="replace" if name else "surrogateescape"), name
    if content.count(0) > len(content) / 5:  # ASCII in UTF-16 without a mark: every other byte is 0
        low = content[::2].count(0) < content[1::2].count(0)
        return content.decode("utf-16-le" if low else "utf-16-be", errors="replace"), "UTF-16"
    for codec, name in (("utf-8", ""), ("gb2312", "GBK")):
        try:
            return content.decode(codec), name
        except UnicodeDecodeError:
            continue
    wide = content.decode("gb18030", errors="replace")
    if _is_chinese(wide):
        return wide, "GBK"
    return content.decode("utf-8", errors="surrogateescape"), UNKNOWN


def _is_chinese(text: str) -> bool:
    """Whether a text decoded as GB 18030 is one: few of its signs are not among the usual ones of GB 2312."""
    signs = [sign for sign in text if not sign.isascii()]
    usual = sum(bool(sign.encode("gb2312", errors="ignore")) for sign in signs)
    return usual >= _USUAL * len(signs)


def is_readable(text: str) -> bool:
    """Return whether every byte of a text was understood."""
    return text.isascii() or not any("\ud800" <= sign <= "\udfff" or sign == "\ufffd" for sign in text)


def tables_of(text: str) -> Iterator[list[list[str]]]:
    """Yield the cells of a text for each separator that occurs in it, the one that occurs in most lines first.

    Parameters
    ----------
    text : str

    Raises
    ------
    csv.Error
        With the most frequent one it is no table; raised when the iterator is used up.
    """
    rows = text.splitlines()
    often = {sign: sum(sign in row for row in rows) for sign in SEPARATORS}
    failed: dict[str, csv.Error] = {}
    ordered = sorted(SEPARATORS, key=lambda sign: -often[sign])
    for sign in ordered:
        if often[sign] or sign == SEPARATORS[0]:
            try:
                yield _cells(text, sign)
            except csv.Error as error:
                failed[sign] = error
    if ordered[0] in failed:
        raise failed[ordered[0]]


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
    first: list[list[str]] = []
    for grid in tables_of(text):
        if any(len(row) >= width for row in grid):
            return grid
        first = first or grid
    return first
