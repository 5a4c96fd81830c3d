"""SMIC in its three distributions: two without any annotation file, one with a workbook of formulas."""

from __future__ import annotations

from pathlib import Path

import made_up
import pytest

from flowkit.datasets import Reading, read_dataset
from flowkit.errors import ManifestError


def rows_of(reading: Reading) -> dict[str, tuple[int, int | None, int | None, str]]:
    return {clip.clip_id: (clip.onset, clip.apex, clip.offset, clip.label) for clip in reading.clips}


def said(reading: Reading, kind: str) -> str:
    return "\n".join(str(event) for event in reading.events if event.kind == kind)


@pytest.mark.parametrize("cropped", [False, True], ids=["raw", "cropped"])
@pytest.mark.parametrize("below", [".", "HS"], ids=["above HS", "HS itself"])
def test_without_annotation_the_folder_says_all(tmp_path: Path, cropped: bool, below: str) -> None:
    reading = read_dataset("smic-hs", made_up.smic(tmp_path, cropped=cropped) / below)
    assert rows_of(reading) == {
        "smic-hs/s01/s01_ne_01": (12345, None, 12364, "negative"),
        "smic-hs/s01/s01_po_01": (20000, None, 20029, "positive"),
        "smic-hs/s03/s03_sur_01": (17581039, None, 17581054, "surprise"),
        "smic-hs/s09/s09_sur_01": (500, None, 539, "surprise"),
    }
    assert {clip.subject for clip in reading.clips} == {"s01", "s03", "s09"}
    assert {clip.fps for clip in reading.clips} == {100.0}
    assert (reading.without_apex, reading.left_out) == (4, 0)


def test_hs_vis_and_nir_of_one_root_are_told_apart(tmp_path: Path) -> None:
    for variant in ("HS", "VIS", "NIR"):
        made_up.smic(tmp_path / "SMIC_all_raw", variant)
    for name, fps in (("smic-hs", 100.0), ("smic-vis", 25.0), ("smic-nir", 25.0)):
        reading = read_dataset(name, tmp_path)
        assert {clip.dataset for clip in reading.clips} == {name}
        assert {clip.path.split("/")[1] for clip in reading.clips} == {name.removeprefix("smic-").upper()}
        assert {clip.fps for clip in reading.clips} == {fps}


def test_an_empty_clip_is_named_and_missing_frames_are_counted(tmp_path: Path) -> None:
    made_up.smic(tmp_path, cropped=True)
    (tmp_path / "HS" / "s18" / "micro" / "surprise" / "s18_sur_03").mkdir(parents=True)
    (tmp_path / "HS" / "s3" / "micro" / "surprise" / "s3_sur_01" / "reg_image17581045.bmp").unlink()
    reading = read_dataset("smic-hs", tmp_path)
    assert reading.left_out == 1
    assert "smic-hs/s18/s18_sur_03: HS/s18/micro/surprise/s18_sur_03: " in said(reading, "left out")
    assert "HS/s18/micro/surprise/s18_sur_03, which has no numbered image" in said(reading, "left out")
    assert "1 clips lack frames between onset and offset, though not these: smic-hs/s03/s03_sur_01 (1)." in said(
        reading, "note"
    )


@pytest.mark.parametrize("numbers", [True, False], ids=["integers", "text"])
def test_the_workbook_of_formulas_gives_up_to_three_expressions_a_row(tmp_path: Path, numbers: bool) -> None:
    reading = read_dataset("smic-hs", made_up.smic_e(tmp_path, numbers=numbers))
    assert rows_of(reading) == {
        "smic-hs/s01/s01_ne_01": (100, None, 130, "negative"),
        "smic-hs/s03/s03_ne_20": (200, None, 220, "negative"),
        "smic-hs/s09/s09_sur_01": (300, None, 320, "surprise"),
        "smic-hs/s09/s09_sur_02": (340, None, 360, "surprise"),
        "smic-hs/s11/s11_po_01": (400, None, 410, "positive"),
        "smic-hs/s11/s11_po_01/2": (420, None, 430, "positive"),
        "smic-hs/s11/s11_po_01/3": (440, None, 450, "positive"),
    }
    paths = {clip.clip_id: clip.path for clip in reading.clips}
    assert paths["smic-hs/s09/s09_sur_02"] == "SMIC-E_raw image/HS_long/SMIC-HS-E/s09/s9_sur_01"


def test_the_second_expression_that_has_a_row_of_its_own_counts_once(tmp_path: Path) -> None:
    reading = read_dataset("smic-hs", made_up.smic_e(tmp_path, own_row=True))
    assert rows_of(reading)["smic-hs/s09/s09_sur_02"] == (340, None, 360, "surprise")
    assert len(reading.clips) == 7
    assert "expression 2 is s09_sur_02, which has a row of its own" in said(reading, "note")


def test_clips_that_the_workbook_is_known_to_lack_are_named(tmp_path: Path) -> None:
    noted = said(read_dataset("smic-hs", made_up.smic_e(tmp_path)), "note")
    assert "no row: s01_ne_02, s02_sur_05, s03_ne_03, s04_ne_05, s04_ne_06." in noted


def test_the_sheet_vis_serves_vis_where_it_has_no_workbook_of_its_own(tmp_path: Path) -> None:
    reading = read_dataset("smic-vis", made_up.smic_e(tmp_path, "VIS"))
    assert rows_of(reading) == {
        "smic-vis/s11/s11_ne_01": (30, None, 40, "negative"),
        "smic-vis/s12/s12_po_01": (50, None, 60, "positive"),
        "smic-vis/s12/s12_po_01/2": (70, None, 80, "positive"),
    }


@pytest.mark.parametrize("end", ["_orig", "_2019"])
def test_other_copies_of_the_workbook_have_other_names(tmp_path: Path, end: str) -> None:
    (path,) = made_up.smic_e(tmp_path).rglob("SMIC-HS-E_annotation.xlsx")
    path.rename(path.with_name(f"SMIC-HS-E_annotation{end}.xlsx"))
    assert len(read_dataset("smic-hs", tmp_path).clips) == 7


@pytest.mark.parametrize(("variant", "sheet"), [("VIS", "VIS"), ("NIR", "NIR"), ("NIR", "Sheet1")])
def test_vis_and_nir_are_read_from_workbooks_of_their_own(tmp_path: Path, variant: str, sheet: str) -> None:
    place = tmp_path / f"{variant}_long"
    rows = [("Subject", "Filename", None, "OnsetF", "OffsetF", "Emotion"), (11, "s11_ne_01", None, 30, 40, "negative")]
    made_up.workbook(place / f"SMIC-{variant}-E_annotation.xlsx", {sheet: rows, "Empty": []})
    made_up.frames(place / f"SMIC-{variant}-E" / "s11" / "s11_ne_01", range(20, 50), "image{:06d}.jpg")
    name = f"smic-{variant.lower()}"
    assert rows_of(read_dataset(name, tmp_path)) == {f"{name}/s11/s11_ne_01": (30, None, 40, "negative")}


def test_two_distributions_side_by_side_are_a_question(tmp_path: Path) -> None:
    made_up.smic(tmp_path / "SMIC_all_raw")
    made_up.smic(tmp_path / "SMIC_all_cropped", cropped=True)
    with pytest.raises(ManifestError, match=r"SMIC_all_cropped/HS \(4 clips\), SMIC_all_raw/HS \(4 clips\)"):
        read_dataset("smic-hs", tmp_path)
    reading = read_dataset("smic-hs", tmp_path, frames="SMIC_all_cropped")
    assert {clip.path.split("/")[0] for clip in reading.clips} == {"SMIC_all_cropped"}


def test_a_folder_without_any_clip_is_refused_with_what_is_there(tmp_path: Path) -> None:
    made_up.frames(tmp_path / "holiday" / "beach", range(3))
    with pytest.raises(ManifestError, match=r"HS/\{subject\}/micro/.*got holiday/beach, and no workbook of SMIC-HS"):
        read_dataset("smic-hs", tmp_path)
