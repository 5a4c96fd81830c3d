"""CAS(ME)^2: three sheets without headers, folders by naming rules, macro-expressions among the rows, offset 0."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import made_up
import pytest

from flowkit.datasets import Reading, read_dataset
from flowkit.errors import ManifestError
from flowkit.inputs.clip import Clip

ROWS: tuple[tuple[made_up.Value, ...], ...] = (
    (1, "anger1_1", 57, 62, 72, "4", "negative", "macro-expression", "anger"),
    (1, "anger1_2", 107, 111, 117, "4+7", "negative", "micro-expression", "anger"),
    (1, "disgust1_1", 10, 14, 0, "10", "others", "micro-expression", "disgust"),
    (2, "happy4_1", 20, 0, 30, "12", "positive", "micro-expression", "happy"),
)
SUBJECTS: tuple[tuple[made_up.Value, ...], ...] = ((15, "s15", 1), (16, "s16", 2))
VIDEOS: tuple[tuple[made_up.Value, ...], ...] = (("0101", "disgust1"), ("0401", "anger1"), ("0505", "happy4"))
FILMS = {"disgust1": "0101disgustingteeth", "anger1": "0401girlcrashing", "happy4": "0505funnyinnovations"}


def casme_sq(
    root: Path,
    *,
    rows: Sequence[Sequence[made_up.Value]] = ROWS,
    videos: Sequence[Sequence[made_up.Value]] = VIDEOS,
    sheet: str = "CASFEcode_final",
    name: str = "CAS(ME)^2code_final.xlsx",
    layout: str = "rawpic/{subject}/{number}_{film}",
    image: str = "img{:03d}.jpg",
    empty: bool = True,
) -> Path:
    """A CAS(ME)^2 of two subjects."""
    made_up.workbook(root / name, {sheet: rows, "naming rule1": SUBJECTS, "naming rule2": videos})
    for number, subject, participant in SUBJECTS:
        for stimulus in {str(row[1]).split("_")[0] for row in rows if row[0] == participant} & FILMS.keys():
            folder = root / layout.format(subject=subject, number=number, film=FILMS[stimulus])
            made_up.frames(folder, range(1, 161), image, empty=empty)
    return root


def by_name(reading: Reading) -> dict[str, Clip]:
    return {clip.clip_id: clip for clip in reading.clips}


def notes(reading: Reading, kind: str = "note") -> str:
    return "\n".join(str(event) for event in reading.events if event.kind == kind)


@pytest.mark.parametrize("name", ["CAS(ME)^2code_final.xlsx", "CAS(ME)^2code_final(Updated).xlsx", "code_final.xlsx"])
@pytest.mark.parametrize("sheet", ["CASFEcode_final", "CASMEcode_final"])
def test_a_row_s_folder_follows_from_both_naming_rules(tmp_path: Path, name: str, sheet: str) -> None:
    clip = by_name(read_dataset("casme-sq", casme_sq(tmp_path, name=name, sheet=sheet)))["casme-sq/s15/anger1_2/107"]
    assert clip.path == "rawpic/s15/15_0401girlcrashing"
    assert (clip.onset, clip.apex, clip.offset) == (107, 111, 117)
    assert (clip.subject, clip.label, clip.fps) == ("s15", "negative", 30.0)
    assert dict(clip.extra) == {"action_units": "4+7", "self_report": "anger"}


@pytest.mark.parametrize(
    ("layout", "image"),
    [
        ("rawpic/{subject}/{number}_{film:.4}", "img_{}.jpg"),
        ("cropped/{subject}/{number}_{film}", "img{:05d}.jpg"),
        ("cropped/{subject}/casme_0{number}_{film:.4}", "img_{:05d}.jpg"),
    ],
)
def test_other_layouts_are_found(tmp_path: Path, layout: str, image: str) -> None:
    reading = read_dataset("casme-sq", casme_sq(tmp_path, layout=layout, image=image))
    assert (len(reading.clips), reading.left_out) == (3, 0)
    assert by_name(reading)["casme-sq/s16/happy4_1/20"].path == layout.format(
        subject="s16", number=16, film="0505funnyinnovations"
    )


def test_raw_and_cropped_side_by_side_are_a_question(tmp_path: Path) -> None:
    casme_sq(tmp_path)
    root = casme_sq(tmp_path, layout="cropped/{subject}/{number}_{film:.4}")
    with pytest.raises(ManifestError, match=r"got several: cropped \(3 clips\), rawpic \(3 clips\)"):
        read_dataset("casme-sq", root)
    assert read_dataset("casme-sq", root, frames="cropped").layouts == {"cropped": 3}


def test_a_code_that_lost_its_leading_zero_is_found(tmp_path: Path) -> None:
    videos = [(int(str(code)), name) for code, name in VIDEOS]
    assert len(read_dataset("casme-sq", casme_sq(tmp_path, videos=videos)).clips) == 3


def test_a_code_is_not_found_in_a_longer_one(tmp_path: Path) -> None:
    root = casme_sq(tmp_path)
    (root / "rawpic/s15/15_0401girlcrashing").rename(root / "rawpic/s15/15_04012girlcrashing")
    reading = read_dataset("casme-sq", root)
    assert "frames must be in a folder s15/15_0401* or casme_15_0401; got none" in notes(reading, "left out")


@pytest.mark.parametrize("participant", [1, "1", "01"])
def test_participants_are_numbers_or_text(tmp_path: Path, participant: made_up.Value) -> None:
    rows = [(participant, *row[1:]) if row[0] == 1 else row for row in ROWS]
    made_up.workbook(
        casme_sq(tmp_path) / "CAS(ME)^2code_final.xlsx",
        {"CASFEcode_final": rows, "naming rule1": SUBJECTS, "naming rule2": VIDEOS},
    )
    assert read_dataset("casme-sq", tmp_path).counts("subject") == {"casme-sq/s15": 2, "casme-sq/s16": 1}


def test_macro_expressions_are_counted_and_left_out(tmp_path: Path) -> None:
    reading = read_dataset("casme-sq", casme_sq(tmp_path))
    assert len(reading.clips) == 3
    assert "1 rows are not of micro-expressions and are passed over: macro-expression (1)." in notes(reading)
    assert reading.left_out == 0


def test_offset_0_makes_the_apex_the_end(tmp_path: Path) -> None:
    reading = read_dataset("casme-sq", casme_sq(tmp_path))
    clip = by_name(reading)["casme-sq/s15/disgust1_1/10"]
    assert (clip.onset, clip.apex, clip.offset) == (10, 14, 14)
    assert "1 clips have offset 0, never back at rest, and end with their apex: casme-sq/s15/disgust1_1/10." in notes(
        reading
    )


def test_apex_0_is_an_empty_cell(tmp_path: Path) -> None:
    reading = read_dataset("casme-sq", casme_sq(tmp_path))
    assert by_name(reading)["casme-sq/s16/happy4_1/20"].apex is None
    assert reading.without_apex == 1


def test_a_participant_or_stimulus_without_a_rule_is_left_out_and_named(tmp_path: Path) -> None:
    rows = [*ROWS, (9, "anger1_1", *ROWS[1][2:]), (2, "fear7_1", *ROWS[1][2:])]
    reading = read_dataset("casme-sq", casme_sq(tmp_path, rows=rows))
    assert reading.left_out == 2
    assert (
        "casme-sq/9/anger1_1: CAS(ME)^2code_final.xlsx: CASFEcode_final row 5: participant 9 must have a row"
        in notes(reading, "left out")
    )
    assert "stimulus of fear7_1 must have a row in the sheet naming rule2; got none" in notes(reading, "left out")


def test_one_clip_name_twice_is_told_apart_by_the_onset(tmp_path: Path) -> None:
    rows = [*ROWS, (1, "anger1_2", 140, 145, 155, "4", "negative", "micro-expression", "anger")]
    clips = by_name(read_dataset("casme-sq", casme_sq(tmp_path, rows=rows)))
    assert {"casme-sq/s15/anger1_2/107", "casme-sq/s15/anger1_2/140"} <= clips.keys()


def test_a_workbook_elsewhere_brings_its_own_naming_rules(tmp_path: Path) -> None:
    root = casme_sq(tmp_path / "set")
    moved = (root / "CAS(ME)^2code_final.xlsx").rename(tmp_path / "mine.xlsx")
    assert len(read_dataset("casme-sq", root, workbook=moved).clips) == 3


def test_a_workbook_without_naming_rules_is_refused(tmp_path: Path) -> None:
    made_up.workbook(tmp_path / "code_final.xlsx", {"CASFEcode_final": ROWS, "other": [(1, 2, 3)]})
    with pytest.raises(ManifestError, match="must have a sheet named naming rule1; got CASFEcode_final, other"):
        read_dataset("casme-sq", tmp_path)


def test_the_manifest_passes_flowkit_check(tmp_path: Path) -> None:
    root = casme_sq(tmp_path / "set", empty=False)
    before = made_up.tree(root)
    report = made_up.checked(read_dataset("casme-sq", root), tmp_path)
    assert (report.clips, report.problems) == (3, ())
    assert report.rates == {"30": 3}
    assert made_up.tree(root) == before
