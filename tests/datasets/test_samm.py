"""SAMM as it is handed out: a header below prose, formulas, missing and impossible apex frames, two widths of numbers."""

from __future__ import annotations

from pathlib import Path

import made_up
import pytest

from flowkit.datasets import Reading, read_dataset
from flowkit.inputs.clip import Clip


def by_name(reading: Reading) -> dict[str, Clip]:
    return {clip.clip_id.removeprefix("samm/"): clip for clip in reading.clips}


def said(reading: Reading, kind: str) -> str:
    return "\n".join(str(event) for event in reading.events if event.kind == kind)


@pytest.mark.parametrize("numbers", [False, True], ids=["text", "integers"])
@pytest.mark.parametrize("name", ["SAMM_Micro_FACS_Codes_v2.xlsx", "SAMM_20181215_Micro_FACS_Codes_v2.xlsx"])
def test_both_file_names_and_both_kinds_of_subjects_give_the_same_clips(
    tmp_path: Path, name: str, numbers: bool
) -> None:
    reading = read_dataset("samm", made_up.samm(tmp_path, name=name, numbers=numbers))
    clip = by_name(reading)["006/006_1_2"]
    assert (clip.onset, clip.apex, clip.offset, clip.fps) == (5562, 5588, 5632, 200.0)
    assert (clip.path, clip.subject, clip.label) == ("SAMM/006/006_1_2", "006", "Anger")
    assert dict(clip.extra) == {"action_units": "4+7+23?", "objective_class": "3", "estimated": ""}
    assert (len(reading.clips), reading.left_out) == (8, 0)
    assert "label" not in said(reading, "note")  # Other is others, Anger is anger: capitals and spellings never count


@pytest.mark.parametrize("prose", [0, 12, 13])
def test_the_header_is_found_below_any_prose(tmp_path: Path, prose: int) -> None:
    assert len(read_dataset("samm", made_up.samm(tmp_path, prose=prose)).clips) == 8


def test_numbers_of_four_digits_are_numbers_too(tmp_path: Path) -> None:
    clip = by_name(read_dataset("samm", made_up.samm(tmp_path)))["009/009_3_1"]
    assert (clip.onset, clip.apex, clip.offset) == (3577, 3600, 3620)
    assert (tmp_path / clip.path / "009_3577.jpg").exists()


def test_an_apex_of_minus_one_is_none(tmp_path: Path) -> None:
    reading = read_dataset("samm", made_up.samm(tmp_path))
    assert by_name(reading)["036/036_7_1"].apex is None
    assert reading.without_apex == 1


def test_known_errors_are_corrected_each_with_its_source(tmp_path: Path) -> None:
    reading = read_dataset("samm", made_up.samm(tmp_path))
    clips, applied = by_name(reading), said(reading, "applied")
    assert clips["028/028_4_1"].apex == 1105
    assert clips["032/032_3_1"].apex == 4930
    assert clips["032/032_3_2"].apex == 5127
    assert "samm/032/032_3_2: apex 5127 -> 5130 with --estimates" in said(reading, "offered")
    assert by_name(read_dataset("samm", tmp_path, estimates=True))["032/032_3_2"].apex == 5130
    assert dict(clips["007/007_6_1"].extra)["action_units"] == "R12 + R15"
    assert applied.count("applied: ") == 3
    assert "samm/028/028_4_1: apex 1143 -> 1105" in applied
    assert "samm/032/032_3_1: apex 1930 -> 4930. three corrected copies" in applied


def test_what_may_be_right_stays(tmp_path: Path) -> None:
    rows = [row if row[1] != "028_4_1" else (*row[:3], 1113, *row[4:]) for row in made_up.SAMM_ROWS]
    rows = [row if row[1] != "007_6_1" else (*row[:5], "12", *row[6:]) for row in rows]
    reading = read_dataset("samm", made_up.samm(tmp_path, rows=rows))
    assert by_name(reading)["028/028_4_1"].apex == 1113
    assert "1 known corrections that are estimates and do not fit this copy." in said(reading, "note")
    assert "the file has '12', which has no 'or'" in said(reading, "refused")


def test_without_fixes_impossible_rows_are_left_out(tmp_path: Path) -> None:
    reading = read_dataset("samm", made_up.samm(tmp_path), fixes=False)
    left = said(reading, "left out")
    assert reading.reasons == {"frame numbers out of order": 2}
    assert "row 19: apex must lie between onset and offset; got onset=1088, apex=1143, offset=1134" in left
    assert "row 20: apex must lie between onset and offset; got onset=4896, apex=1930, offset=4970" in left
    assert said(reading, "applied") == ""


def test_corrections_of_clips_that_the_copy_lacks_are_counted(tmp_path: Path) -> None:
    noted = said(read_dataset("samm", made_up.samm(tmp_path)), "note")
    assert "4 known corrections of clips that are not in this copy." in noted


def test_a_copy_that_is_corrected_already_refuses_nothing(tmp_path: Path) -> None:
    rows = [row if row[1] != "032_3_1" else (*row[:3], 4930, *row[4:]) for row in made_up.SAMM_ROWS]
    reading = read_dataset("samm", made_up.samm(tmp_path, rows=rows))
    assert by_name(reading)["032/032_3_1"].apex == 4930
    assert said(reading, "refused") == ""
    assert "1 known corrections that this copy has already." in said(reading, "note")
