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

from flowkit.checking.check import CheckReport, check_manifest
from flowkit.config import FrameConfig
from flowkit.datasets import Reading
from flowkit.inputs.manifest import write_manifest

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


def checked(reading: Reading, folder: Path) -> CheckReport:
    """What `flowkit check` says of the manifest of a reading, with the policy for clips that have no apex."""
    write_manifest(folder / "clips.csv", reading.clips)
    return check_manifest(folder / "clips.csv", reading.root, FrameConfig(missing_apex="midpoint"))


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
    ("05", "EP16_04f", None, 120, 190, 190, None, "1+2", "surprise"),
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


# --- SAMM

SAMM_HEADER = (
    *("Subject", "Filename", "Inducement Code", "Onset Frame", "Apex Frame", "Offset Frame", "Duration", "Micro"),
    *("Action Units", "Estimated Emotion", "Objective Classes", "Notes"),
)
SAMM_ROWS: tuple[tuple[Value, ...], ...] = (
    # subject, clip, onset, apex, offset, action units, emotion, objective class
    ("006", "006_1_2", 5562, 5588, 5632, "4+7+23?", "Anger", 3),
    ("007", "007_6_1", 100, 120, 140, "R12 or L14", "Happiness", 1),
    ("009", "009_3_1", 3577, 3600, 3620, "A/L12", "Contempt", 7),
    ("013", "013_1_9", 5700, 5720, 5739, "ref(4A/B)", "Fear", 2),
    ("028", "028_4_1", 1088, 1143, 1134, "soft focus", "Other", 7),
    ("032", "032_3_1", 4896, 1930, 4970, "2", "Surprise", 2),
    ("032", "032_3_2", 5100, 5127, 5150, "1", "Sadness", 4),
    ("036", "036_7_1", 10, -1, 40, "14", "Disgust", 5),
)


def samm(
    root: Path,
    *,
    numbers: bool = False,
    name: str = "SAMM_Micro_FACS_Codes_v2.xlsx",
    prose: int = 13,
    rows: Sequence[Sequence[Value]] = SAMM_ROWS,
    empty: bool = True,
) -> Path:
    """A SAMM of a few clips: prose above the header, durations as formulas, numbers of four digits in one folder."""
    lines: list[Sequence[Value | Formula]] = [(f"Prose {number}: please cite",) for number in range(prose)]
    lines.append(SAMM_HEADER)
    for subject, clip, onset, apex, offset, units, emotion, objective in rows:
        line = len(lines) + 1
        duration = Formula(f"=F{line}-D{line}+1", int(offset or 0) - int(onset or 0) + 1)
        shown = int(str(subject)) if numbers else subject
        lines.append((shown, clip, 5, onset, apex, offset, duration, "Micro - 1/2", units, emotion, objective, ""))
        pattern = f"{subject}_" + ("{:d}.jpg" if clip == "009_3_1" else "{:05d}.jpg")
        frames(
            root / "SAMM" / str(subject) / str(clip), range(int(onset or 0), int(offset or 0) + 1), pattern, empty=empty
        )
    workbook(root / name, {"MICRO_ONLY": lines})
    return root


# --- SMIC

SMIC_CLIPS = (
    # subject, label, clip, first number, number of frames
    (1, "negative", "ne_01", 12345, 20),
    (1, "positive", "po_01", 20000, 30),
    (3, "surprise", "sur_01", 17581039, 16),
    (9, "surprise", "sur_01", 500, 40),
)
SMIC_E_HEADER = (
    *("Subject", "Filename", None, "OnsetF", "OffsetF", "Onset2F", "Offset2F", "Onset3F", "Offset3F", None, "FirstF"),
    *("LastF", "TotalMF1", "TotalMF2", "TotalMF3", "TotalVL", "Emotion"),
)


def smic(root: Path, variant: str = "HS", *, cropped: bool = False, empty: bool = True) -> Path:
    """SMIC_all_raw or SMIC_all_cropped: no annotation, the folder is the label."""
    name = "reg_image{:06d}.bmp" if cropped else "image{:06d}.bmp"
    for subject, label, clip, first, count in SMIC_CLIPS:
        folder = root / variant / f"s{subject}" / "micro" / label / f"s{subject}_{clip}"
        frames(folder, range(first, first + count), name, empty=empty)
    if variant == "HS":
        frames(root / variant / "s1" / "non_micro" / "s1_non_01", range(5), name)
    return root


def smic_e(root: Path, variant: str = "HS", *, numbers: bool = True, own_row: bool = False) -> Path:
    """SMIC-E: long clips and a workbook of formulas, up to three expressions a row."""
    place = root / "SMIC-E_raw image" / f"{variant}_long"
    vis = [
        ("Subject", "Filename", None, "OnsetF", "OffsetF", "Onset2F", "Offset2F", None, "FirstF", "Emotion"),
        (11, "s11_ne_01", None, 30, 40, None, None, None, 20, "negative"),
        (12, "s12_po_01", None, 50, 60, 70, 80, None, 40, "positive"),
    ]
    rows: list[Sequence[Value | Formula]] = [SMIC_E_HEADER]
    spans: list[tuple[int, str, list[int], str]] = [
        (1, "s1_ne_01", [100, 130], "negative"),
        (3, "s3_ne_20", [200, 220], "negative"),
        (9, "s9_sur_01", [300, 320, 340, 360], "surprise"),
        (11, "s11_po_01", [400, 410, 420, 430, 440, 450], "positive"),
    ]
    if own_row:
        spans.append((9, "s9_sur_02", [340, 360], "surprise"))
    for subject, clip, spanned, emotion in spans:
        cells = [Formula(f"=VIS!D{number + 2}*4", value) for number, value in enumerate(spanned)]
        cells += [Formula("=VIS!Z99", 0)] * (6 - len(cells))
        last = None if clip == "s3_ne_20" else spanned[-1] + 20
        shown: Value = subject if numbers else f"s{subject}"
        rows.append((shown, clip, None, *cells, None, spanned[0] - 20, last, 1, 1, 1, 1, emotion))
        if variant == "HS" and clip != "s9_sur_02":
            folder = place / "SMIC-HS-E" / f"s{subject:02d}" / clip
            frames(folder, range(spanned[0] - 20, spanned[-1] + 21), "image{:06d}.jpg")
    if variant == "VIS":
        for subject, clip, last in ((11, "s11_ne_01", 50), (12, "s12_po_01", 90)):
            frames(place / "SMIC-VIS-E" / f"s{subject}" / clip, range(20, last), "image{:06d}.jpg")
    workbook(place / "SMIC-HS-E_annotation.xlsx", {"HS": rows, "VIS": vis, "Sheet2": [], "Sheet3": []})
    return root
