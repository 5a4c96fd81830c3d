"""CASME II as it is handed out: two kinds of workbook, four layouts of frames, every known quirk."""

from __future__ import annotations

from pathlib import Path

import made_up
import pytest

from flowkit.datasets import Reading, read_dataset
from flowkit.errors import ManifestError
from flowkit.inputs.clip import Clip
from flowkit.inputs.manifest import read_manifest, write_manifest


def by_name(reading: Reading) -> dict[str, Clip]:
    return {clip.clip_id: clip for clip in reading.clips}


def messages(reading: Reading, kind: str) -> str:
    return "\n".join(str(event) for event in reading.events if event.kind == kind)


@pytest.mark.parametrize("numbers", [False, True], ids=["text", "integers"])
@pytest.mark.parametrize("layout", made_up.CASME2_LAYOUTS)
def test_every_layout_and_both_kinds_of_subjects_give_the_same_clips(
    tmp_path: Path, layout: str, numbers: bool
) -> None:
    reading = read_dataset("casme2", made_up.casme2(tmp_path, layout, numbers=numbers))
    assert reading.layouts == {layout: 8}
    assert (len(reading.clips), reading.left_out) == (8, 0)
    clip = by_name(reading)["casme2/sub01/EP02_01f"]
    assert (clip.path, clip.subject, clip.dataset, clip.label) == (
        f"{layout}/sub01/EP02_01f",
        "sub01",
        "casme2",
        "happiness",
    )
    assert (clip.onset, clip.apex, clip.offset, clip.fps) == (46, 59, 86, 200.0)
    assert dict(clip.extra) == {"action_units": "12", "objective_class": "", "estimated": ""}
    assert dict(by_name(reading)["casme2/sub04/EP12_01f"].extra)["estimated"] == "apex"


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    reading = read_dataset("casme2", made_up.casme2(tmp_path / "set", "Cropped"))
    write_manifest(tmp_path / "clips.csv", reading.clips)
    written = read_manifest(tmp_path / "clips.csv")
    assert {clip.row_hash() for clip in written} == {clip.row_hash() for clip in reading.clips}


def test_an_apex_that_is_a_slash_is_corrected_and_without_fixes_left_empty(tmp_path: Path) -> None:
    root = made_up.casme2(tmp_path, "Cropped")
    fixed, raw = read_dataset("casme2", root), read_dataset("casme2", root, fixes=False)
    assert by_name(fixed)["casme2/sub04/EP12_01f"].apex == 279
    assert "casme2/sub04/EP12_01f: apex / -> 279" in messages(fixed, "applied")
    assert by_name(raw)["casme2/sub04/EP12_01f"].apex is None
    assert (fixed.without_apex, raw.without_apex) == (0, 1)
    assert messages(raw, "applied") == ""


def test_the_cropped_clip_that_ends_early_is_cut_only_where_it_does(tmp_path: Path) -> None:
    cropped = read_dataset("casme2", made_up.casme2(tmp_path / "a", "Cropped"))
    raw = read_dataset("casme2", made_up.casme2(tmp_path / "b", "CASME2-RAW"))
    assert by_name(cropped)["casme2/sub16/EP01_08"].offset == 96
    assert by_name(raw)["casme2/sub16/EP01_08"].offset == 110
    assert "casme2/sub16/EP01_08: offset 110 -> 96: the file has '110', which may be right" in messages(raw, "refused")


def test_without_fixes_that_clip_is_left_out_with_what_is_there(tmp_path: Path) -> None:
    reading = read_dataset("casme2", made_up.casme2(tmp_path, "Cropped"), fixes=False)
    assert reading.left_out == 1
    assert "offset must be a frame of Cropped/sub16/EP01_08; got 110, but 24 images from 73 to 96" in messages(
        reading, "left out"
    )


def test_a_correction_waits_for_the_value_that_was_wrong(tmp_path: Path) -> None:
    rows = [row if row[1] != "EP12_01f" else (*row[:4], 290, *row[5:]) for row in made_up.CASME2_ROWS]
    reading = read_dataset("casme2", made_up.casme2(tmp_path, "Cropped", rows=rows))
    assert by_name(reading)["casme2/sub04/EP12_01f"].apex == 290
    assert messages(reading, "refused") == ""
    assert "1 known corrections that are estimates and do not fit this copy." in messages(reading, "note")
    asked = read_dataset("casme2", tmp_path, estimates=True)
    assert "apex / -> 279: the file has '290', not '/'" in messages(asked, "refused")


def test_phases_of_no_length_are_named(tmp_path: Path) -> None:
    noted = messages(read_dataset("casme2", made_up.casme2(tmp_path, "Cropped")), "note")
    assert "2 clips have a phase of no length" in noted
    assert "casme2/sub05/EP09_05f" in noted
    assert "casme2/sub05/EP16_04f" in noted


@pytest.mark.parametrize("numbers", [False, True], ids=["text", "integers"])
def test_objective_classes_are_joined_and_stray_rows_of_the_second_sheet_ignored(tmp_path: Path, numbers: bool) -> None:
    made_up.objective_classes(tmp_path, numbers)
    reading = read_dataset("casme2", made_up.casme2(tmp_path, "Cropped"))
    classes = {clip.clip_id: dict(clip.extra)["objective_class"] for clip in reading.clips}
    assert classes["casme2/sub01/EP02_01f"] == "VII"
    assert classes["casme2/sub17/EP05_09"] == "I"
    assert len(reading.clips) == 8


def test_several_layouts_side_by_side_are_a_question(tmp_path: Path) -> None:
    root = made_up.casme2(tmp_path, "CASME2-RAW", "Cropped", "Cropped-updated/Cropped")
    with pytest.raises(ManifestError) as caught:
        read_dataset("casme2", root)
    assert "CASME2-RAW (8 clips), Cropped (8 clips), Cropped-updated/Cropped (8 clips)" in str(caught.value)
    assert "--frames" in str(caught.value)
    assert read_dataset("casme2", root, frames="Cropped").layouts == {"Cropped": 8}


def test_both_workbooks_are_a_question_that_workbook_answers(tmp_path: Path) -> None:
    root = made_up.casme2(tmp_path, "Cropped")
    newer = made_up.casme2(
        tmp_path,
        rows=[*made_up.CASME2_ROWS, ("26", "EP01", None, 1, 2, 3, None, "1", "fear")],
        name="CASME2-coding-20190701.xlsx",
    )
    assert newer == root
    with pytest.raises(ManifestError, match=r"got 2: CASME2-coding-20140508.xlsx, CASME2-coding-20190701.xlsx"):
        read_dataset("casme2", root)
    reading = read_dataset("casme2", root, workbook=root / "CASME2-coding-20190701.xlsx")
    assert (len(reading.clips), reading.left_out) == (8, 1)
    assert "frames must be in a folder sub26/EP01; got none" in messages(reading, "left out")
