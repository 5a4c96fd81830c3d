"""How copies of data sets look after years in laboratories: each change leaves the clips as they are."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import made_up
import pytest

from flowkit.datasets import Reading, read_dataset

WORKBOOK = "CASME2-coding-20140508.xlsx"


def clips(reading: Reading) -> dict[str, tuple[object, ...]]:
    return {clip.clip_id: (clip.onset, clip.apex, clip.offset, clip.label, clip.subject) for clip in reading.clips}


def rewritten(root: Path, rows: list[tuple[made_up.Value, ...]], sheet: str = "Sheet1") -> Path:
    made_up.workbook(root / WORKBOOK, {sheet: rows, "Notes": []})
    return root


def all_rows() -> list[tuple[made_up.Value, ...]]:
    return [made_up.CASME2_HEADER, *made_up.CASME2_ROWS]


def double_folder(root: Path) -> Path:
    """As archives unpack: CASME2/CASME2/..."""
    (root / "Cropped").rename(root / "inner")
    (root / "Cropped").mkdir()
    (root / "inner").rename(root / "Cropped" / "Cropped")
    return root


def leftovers(root: Path) -> Path:
    """What macOS and Windows leave in folders."""
    shutil.copytree(root / "Cropped", root / "__MACOSX" / "Cropped")
    for folder in [path for path in root.rglob("*") if path.is_dir()]:
        for name in ("Thumbs.db", ".DS_Store", "desktop.ini", "._reg_img59.jpg", "~$notes.xlsx"):
            (folder / name).write_bytes(b"")
    return root


def capitals(root: Path) -> Path:
    for path in sorted((root / "Cropped").rglob("*"), reverse=True):
        path.rename(path.with_name(path.name.upper()))
    return root


def padded(root: Path) -> Path:
    for path in (root / "Cropped").rglob("*.jpg"):
        path.rename(path.with_name(f"reg_img{int(path.stem.removeprefix('reg_img')):07d}.jpg"))
    return root


def images(suffix: str) -> Callable[[Path], Path]:
    def change(root: Path) -> Path:
        for path in (root / "Cropped").rglob("*.jpg"):
            path.rename(path.with_suffix(suffix))
        return root

    change.__name__ = f"images as {suffix}"
    return change


def csv_with_a_mark(root: Path) -> Path:
    (root / WORKBOOK).unlink()
    with (root / WORKBOOK).with_suffix(".csv").open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows(all_rows())
    return root


def renamed_sheet(root: Path) -> Path:
    return rewritten(root, all_rows(), "my coding")


def extra_columns(root: Path) -> Path:
    header, *rows = all_rows()
    return rewritten(root, [(*header, "checked by", "date"), *((*row, "AB", 2020.5) for row in rows)])


def title_rows(root: Path) -> Path:
    return rewritten(root, [("CASME II, our copy",), (), *all_rows()])


def float_subjects(root: Path) -> Path:
    header, *rows = all_rows()
    return rewritten(root, [header, *((float(str(row[0])), *row[1:]) for row in rows)])


def chinese_path(root: Path) -> Path:
    return root.rename(root.with_name("\u5fae\u8868\u60c5 \u6570\u636e\u96c6"))


def read_only(root: Path) -> Path:
    for path in (root, *root.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    return root


def linked_root(root: Path) -> Path:
    way = root.with_name("way")
    way.symlink_to(root)
    return way


CHANGES = (
    *(
        double_folder,
        leftovers,
        capitals,
        padded,
        images(".png"),
        images(".bmp"),
        images(".tif"),
        images(".webp"),
        images(".JPG"),
    ),
    *(csv_with_a_mark, renamed_sheet, extra_columns, title_rows, float_subjects, chinese_path, read_only, linked_root),
)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_copy_that_was_changed_harmlessly_is_the_same(tmp_path: Path, change: Callable[[Path], Path]) -> None:
    root = made_up.casme2(tmp_path / "set", "Cropped")
    wanted = clips(read_dataset("casme2", root))
    changed = change(root)
    before = made_up.tree(changed.resolve())
    reading = read_dataset("casme2", changed)
    assert clips(reading) == wanted
    assert (len(wanted), reading.left_out) == (8, 0)
    assert made_up.tree(changed.resolve()) == before
    for path in (changed.resolve(), *changed.resolve().rglob("*")):
        path.chmod(0o755)
