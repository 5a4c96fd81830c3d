"""Annotation files: cells become text, formulas count by their stored value, and whatever is wrong is said by name."""

from __future__ import annotations

import random
import sys
import zipfile
from pathlib import Path
from typing import Any

import made_up
import openpyxl
import pytest

from flowkit.datasets import read_dataset
from flowkit.datasets.tables import workbooks
from flowkit.datasets.tables.workbooks import find_file, read_table
from flowkit.errors import EnvironmentMissing, ManifestError

FORM: dict[str, Any] = {
    "files": ["code*.xlsx", "code*.csv"],
    "sheets": ["Coding"],
    "columns": {"subject": ["Subject"], "onset": ["OnsetFrame", "Onset"]},
    "optional": {"units": ["Action Units"]},
}
HEADER = ("Subject", None, "OnsetFrame", "Action Units")


def book(path: Path, *rows: tuple[Any, ...], sheet: str = "Coding", header: tuple[Any, ...] = HEADER) -> Path:
    return made_up.workbook(path, {sheet: [header, *rows]})


def refused(path: Path, form: dict[str, Any] = FORM) -> str:
    with pytest.raises(ManifestError) as caught:
        read_table(path, form)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_cells_become_text_whatever_they_are(tmp_path: Path) -> None:
    path = book(
        tmp_path / "code.xlsx", ("01", None, 46, "4+7"), (1, None, 46.0, 4), (" 6 ", "x", "1.5", "a\n b"), (None, "y")
    )
    rows = [dict(row.cells) for row in read_table(path, FORM).rows]
    assert rows == [
        {"subject": "01", "onset": "46", "units": "4+7"},
        {"subject": "1", "onset": "46", "units": "4"},
        {"subject": "6", "onset": "1.5", "units": "a b"},
    ]


def test_a_row_says_where_it_stands_and_absent_columns_are_empty(tmp_path: Path) -> None:
    path = book(tmp_path / "code.xlsx", (), ("01", None, 46), header=("SUBJECT", None, "onset_frame "))
    (row,) = read_table(path, FORM).rows
    assert row.where == "code.xlsx: Coding row 3"
    assert (row["onset"], row["units"]) == ("46", "")


@pytest.mark.parametrize("above", [0, 1, 13, 59])
def test_the_header_is_the_first_row_that_names_every_column(tmp_path: Path, above: int) -> None:
    rows: list[tuple[Any, ...]] = [("Subject: see below",)] * above + [HEADER, ("01", None, 46)]
    path = made_up.workbook(tmp_path / "code.xlsx", {"Coding": rows})
    assert [row["subject"] for row in read_table(path, FORM).rows] == ["01"]


def test_a_sheet_without_a_header_is_read_by_number(tmp_path: Path) -> None:
    path = made_up.workbook(tmp_path / "code.xlsx", {"Coding": [(15, "anger1_1", 7), (16, "anger1_2", 8)]})
    form = {**FORM, "columns": {"subject": 1, "onset": 3}, "optional": {}}
    assert [(row["subject"], row["onset"]) for row in read_table(path, form).rows] == [("15", "7"), ("16", "8")]
    assert "must have the columns 1 subject, 9 onset, and no header; got 3 columns" in refused(
        path, {**form, "columns": {"subject": 1, "onset": 9}}
    )


def test_csv_is_read_like_a_sheet(tmp_path: Path) -> None:
    path = tmp_path / "code.csv"
    path.write_bytes("\ufeffSubject, OnsetFrame\n01, 46\n,\n".encode())
    (row,) = read_table(path, FORM).rows
    assert (row.where, row["subject"], row["onset"]) == ("code.csv:2", "01", "46")
    path.write_bytes(b"Subject,OnsetFrame\nM\xfcller,1\n")
    assert "must be CSV in UTF-8" in refused(path)


def test_formulas_count_by_the_value_that_was_stored(tmp_path: Path) -> None:
    path = book(tmp_path / "code.xlsx", ("01", None, made_up.Formula("=40+6", 46)))
    assert [row["onset"] for row in read_table(path, FORM).rows] == ["46"]


def test_a_formula_without_a_value_is_named_by_its_cell(tmp_path: Path) -> None:
    path = tmp_path / "code.xlsx"
    made = openpyxl.Workbook()  # as tools do that store formulas without computing them
    made.active.title = "Coding"
    for row in (HEADER, ("01", None, "=40+6"), ("02", "=1+1", 50), ("03", None, "=A1")):
        made.active.append(row)
    made.save(path)
    made.close()
    assert (
        "formulas must have stored values; got 2 without: Coding!C2, Coding!C4. Open the file in a spreadsheet"
        in refused(path)
    )


def test_a_workbook_saved_by_such_a_tool_is_refused_as_a_whole(tmp_path: Path) -> None:
    root = made_up.smic_e(tmp_path)
    (path,) = root.rglob("SMIC-HS-E_annotation.xlsx")
    made = openpyxl.load_workbook(path)
    made.save(path)
    made.close()
    with pytest.raises(ManifestError, match=r"got \d+ without: HS!D2, HS!E2"):
        read_dataset("smic-hs", root)


@pytest.mark.parametrize("name", ["Coding", "coding ", "Something else"])
def test_the_sheet_is_found_by_name_or_because_it_is_the_only_one_filled(tmp_path: Path, name: str) -> None:
    path = made_up.workbook(tmp_path / "code.xlsx", {"Empty": [], name: [HEADER, ("01", None, 46)], "Void": []})
    assert [row["subject"] for row in read_table(path, FORM).rows] == ["01"]


def test_without_that_sheet_those_that_are_there_are_named(tmp_path: Path) -> None:
    path = made_up.workbook(tmp_path / "code.xlsx", {"Old": [HEADER, ("1",)], "New": [HEADER, ("2",)]})
    assert "must have a sheet named Coding; got Old, New" in refused(path)


def test_missing_columns_are_named_with_near_misses(tmp_path: Path) -> None:
    path = book(tmp_path / "code.xlsx", ("01", None, 46), header=("Subject", "Emotion", "OnsetFrme"))
    message = refused(path)
    assert "must have a header with Subject, OnsetFrame" in message
    assert "got row 1 as the nearest, with Subject, Emotion, OnsetFrme" in message
    assert "It lacks OnsetFrame (is it 'OnsetFrme'?)" in message
    assert "with nothing" in refused(made_up.workbook(tmp_path / "void.xlsx", {"Coding": []}))


def test_one_file_of_the_name_is_wanted(tmp_path: Path) -> None:
    assert find_file(tmp_path, ["notes.xlsx", "a/CODE_2.XLSX"], FORM, "it") == tmp_path / "a/CODE_2.XLSX"
    assert find_file(tmp_path, ["code1.csv", "code.xlsx"], FORM, "it") == tmp_path / "code.xlsx"
    for there, message in (
        ([], r"must hold it, a file named code\*.xlsx or code\*.csv; got no spreadsheet"),
        (["notes.xlsx", "b.csv"], r"got notes.xlsx, b.csv. Check the folder, or name the file with --workbook"),
        (["code1.xlsx", "code2.xlsx"], r"must be one file; got 2: code1.xlsx, code2.xlsx. Name the one"),
        (["code1.xls"], r"code1.xls: workbook must be .xlsx without macros; got an old .xls file"),
        (["code1.xlsm"], r"code1.xlsm: workbook must be .xlsx without macros; got one with macros"),
    ):
        with pytest.raises(ManifestError, match=message):
            find_file(tmp_path, there, FORM, "it")


def test_macros_are_never_opened(tmp_path: Path) -> None:
    path = book(tmp_path / "code.xlsx", ("01", None, 46))
    macro = tmp_path / "code.xlsm"
    macro.write_bytes(path.read_bytes())
    assert "got one with macros, which flowkit never opens" in refused(macro)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("xl/vbaProject.bin", b"macro")
    assert "got one with macros, which flowkit never opens" in refused(path)


def test_a_locked_workbook_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "code.xlsx"
    path.write_bytes(bytes.fromhex("d0cf11e0a1b11ae1") + b"0" * 100)
    assert "must open without a password; got one that is locked by a password" in refused(path)

    def locked(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    book(path, ("01", None, 46))
    monkeypatch.setattr(Path, "open", locked)
    assert "must be readable; got Permission denied. Check the path and the permissions" in refused(path)
    monkeypatch.undo()
    (tmp_path / "~$code.xlsx").write_bytes(b"")
    monkeypatch.setattr(Path, "open", locked)
    assert "Close the spreadsheet program that has it open" in refused(path)


def test_one_that_is_open_elsewhere_is_read_with_a_note(tmp_path: Path) -> None:
    root = made_up.casme2(tmp_path, "Cropped")
    (root / "~$CASME2-coding-20140508.xlsx").write_bytes(b"")
    reading = read_dataset("casme2", root)
    assert any("is open in a spreadsheet program" in event.message for event in reading.events)


@pytest.mark.parametrize("content", [b"", b"Subject,OnsetFrame\n01,46\n", b"PK\x03\x04 and no more"])
def test_what_is_no_workbook_is_called_damaged(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "code.xlsx"
    path.write_bytes(content)
    assert "must be a whole .xlsx file; got a damaged one" in refused(path)


def test_damage_anywhere_is_an_error_of_ours_or_harmless(tmp_path: Path) -> None:
    whole = book(tmp_path / "code.xlsx", *(("01", None, 46, "4+7"),) * 20).read_bytes()
    chance = random.Random(0)
    damaged = 0
    for number in range(150):
        content = bytearray(whole)
        for _ in range(1 + number % 4):
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        path = tmp_path / f"damaged{number}.xlsx"
        path.write_bytes(content[: chance.randrange(len(content))] if number % 3 == 0 else content)
        try:
            read_table(path, FORM)
        except ManifestError as error:
            damaged += "damaged one" in str(error)
    assert damaged > 50


def test_xml_that_is_none_is_called_damaged(tmp_path: Path) -> None:
    path, broken = book(tmp_path / "code.xlsx", ("01", None, 46)), tmp_path / "broken.xlsx"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(broken, "w") as new:
        for part in old.namelist():
            new.writestr(part, b"<worksheet><" if "sheet1" in part else old.read(part))
    assert "must be a whole .xlsx file; got a damaged one" in refused(broken)


def test_a_bomb_is_refused_unopened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = book(tmp_path / "code.xlsx", ("01", None, 46))
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/media/bomb", bytes(3 << 20))
    monkeypatch.setattr(workbooks, "MAX_UNPACKED_BYTES", 2 << 20)
    assert "must unpack to at most 2 MB; got 3 MB" in refused(path)


def test_without_openpyxl_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = book(tmp_path / "code.xlsx", ("01", None, 46))
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(EnvironmentMissing, match=r"flowkit-mer\[datasets\]"):
        read_table(path, FORM)


def test_a_cell_that_tells_no_frame_is_named_with_its_row(tmp_path: Path) -> None:
    rows = [(*row[:3], "12a", *row[4:]) if row[1] == "EP02_01f" else row for row in made_up.CASME2_ROWS]
    root = made_up.casme2(tmp_path, "Cropped")
    made_up.workbook(root / "CASME2-coding-20140508.xlsx", {"Sheet1": [made_up.CASME2_HEADER, *rows]})
    reading = read_dataset("casme2", root)
    (left,) = [event for event in reading.events if event.kind == "left out"]
    assert left.clip == "casme2/sub01/EP02_01f"
    assert "CASME2-coding-20140508.xlsx: Sheet1 row 2: onset must be a frame number; got '12a'" in left.message
