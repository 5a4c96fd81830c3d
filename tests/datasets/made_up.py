"""Made-up workbooks with the sheets, columns and quirks of the data sets, and made-up frame folders in their layouts.

Nothing here comes out of a data set: names, columns and layouts are those that public loaders
and notes describe, the rest is invented.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xlsxwriter
from PIL import Image

Value = str | int | float | None


@dataclass(frozen=True)
class Formula:
    """A formula cell; without a value it is one that no spreadsheet program has computed."""

    text: str
    value: Value = ""


def workbook(path: Path, sheets: Mapping[str, Sequence[Sequence[Value | Formula]]]) -> Path:
    """An .xlsx file with these rows in these sheets."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with xlsxwriter.Workbook(path) as book:
        for name, rows in sheets.items():
            sheet = book.add_worksheet(name)
            for number, row in enumerate(rows):
                for column, value in enumerate(row):
                    if isinstance(value, Formula):
                        sheet.write_formula(number, column, value.text, None, value.value)
                    elif isinstance(value, str):
                        sheet.write_string(number, column, value)
                    elif value is not None:
                        sheet.write_number(number, column, value)
    return path


@functools.cache
def picture(suffix: str, side: int = 32) -> bytes:
    """A small image that decodes."""
    pixels = np.arange(side * side, dtype=np.uint8).reshape(side, side)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, {"jpg": "JPEG"}.get(suffix, suffix.upper()))
    return stream.getvalue()


def frames(folder: Path, numbers: Iterable[int], name: str = "img{}.jpg", *, empty: bool = True) -> Path:
    """A folder of frames with these numbers; empty files unless they will be decoded."""
    folder.mkdir(parents=True, exist_ok=True)
    suffix = name.rpartition(".")[2]
    for number in numbers:
        (folder / name.format(number)).write_bytes(b"" if empty else picture(suffix))
    return folder


def tree(root: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of everything in a folder, to compare before and after."""
    found = {}
    for path in sorted([root, *root.rglob("*")]):
        status = path.stat()
        found[str(path)] = (status.st_size, status.st_mtime_ns)
    return found


# --- CASME II

CASME2_HEADER = (
    "Subject",
    "Filename",
    None,
    "OnsetFrame",
    "ApexFrame",
    "OffsetFrame",
    None,
    "Action Units",
    "Estimated Emotion",
)
CASME2_ROWS: tuple[tuple[Value, ...], ...] = (
    ("01", "EP02_01f", None, 46, 59, 86, None, "12", "happiness"),
    ("01", "EP03_02", None, 131, 139, 161, None, "R10+L4", "others"),
    ("02", "EP01_11f", None, 46, 91, 121, None, 4, "repression"),
    ("04", "EP12_01f", None, 261, "/", 321, None, "4", "disgust"),
    ("05", "EP09_05f", None, 69, 69, 100, None, "4?", "disgust"),
    ("05", "EP16_04f", None, 20, 50, 50, None, "1+2", "surprise"),
    ("16", "EP01_08", None, 73, 90, 110, None, "4+7", "sadness"),
    ("17", "EP05_09", None, 10, 20, 40, None, "14", "fear"),
)
CASME2_LAYOUTS = {
    "CASME2-RAW": "img{}.jpg",
    "CASME2_RAW_selected": "img{}.jpg",
    "Cropped": "reg_img{}.jpg",
    "Cropped-updated/Cropped": "reg_img{}.jpg",
}


def casme2(
    root: Path,
    *layouts: str,
    numbers: bool = False,
    rows: Sequence[Sequence[Value]] = CASME2_ROWS,
    name: str = "CASME2-coding-20140508.xlsx",
    empty: bool = True,
) -> Path:
    """A CASME II of a few clips, in these layouts; `numbers`: subjects are numbers, not text."""
    shown = [(int(str(row[0])) if numbers else row[0], *row[1:]) for row in rows]
    workbook(root / name, {"Sheet1": [CASME2_HEADER, *shown], "Sheet2": [], "Sheet3": []})
    for layout in layouts:
        for subject, clip, _, onset, _, offset, *_ in rows:
            first, last = int(onset or 0), int(offset or 0)
            if layout == "CASME2-RAW":
                first, last = max(1, first - 5), last + 5
            if layout.startswith("Cropped") and (subject, clip) == ("16", "EP01_08"):
                last = 96
            folder = root / layout / f"sub{int(str(subject)):02d}" / str(clip)
            frames(folder, range(first, last + 1), CASME2_LAYOUTS[layout], empty=empty)
    return root


def objective_classes(root: Path, numbers: bool = False) -> Path:
    """The workbook of objective classes, with the stray rows of its second sheet."""
    names = ["VII", "III", "IV", "V", "V", "II", "VI", "I"]
    rows = [
        (int(str(row[0])) if numbers else row[0], row[1], name) for row, name in zip(CASME2_ROWS, names, strict=True)
    ]
    return workbook(
        root / "CASME2-ObjectiveClasses.xlsx",
        {
            "Sheet1": [("Subject", "Filename", "Objective Class"), *rows],
            "Sheet2": [("01", "EP02_01f", "I"), (3, "x", 2)],
        },
    )
