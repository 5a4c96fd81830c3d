"""The table of known errors: keyed, sourced, applied only where the old value stands."""

from __future__ import annotations

from pathlib import Path

import made_up
import pytest

from flowkit.datasets import DATASETS, Reading, corrections, read_dataset
from flowkit.datasets.corrections import COLUMNS, Correction
from flowkit.errors import ManifestError

HEADER = ",".join(COLUMNS)


def table(path: Path, *rows: str, header: str = HEADER) -> Path:
    path.write_text("\n".join((header, *rows, "")), encoding="utf-8")
    return path


def read(tmp_path: Path, *rows: str) -> Reading:
    root = made_up.casme2(tmp_path / "set", "CASME2-RAW")
    return read_dataset("casme2", root, corrections=table(tmp_path / "mine.csv", *rows))


def events(reading: Reading, kind: str) -> list[str]:
    return [f"{event.clip}: {event.message}" for event in reading.events if event.kind == kind]


def test_the_bundled_table_is_sound_and_every_row_has_a_source() -> None:
    found = [row for name in DATASETS for row in corrections.corrections(name)]
    assert len(found) == 57
    assert all(row.source for row in found)
    assert {row.clip for row in found if row.dataset == "mmew"} >= {"S04-01-001", "S13-04-001"}


def test_a_table_of_ones_own_replaces_the_bundled_one(tmp_path: Path) -> None:
    reading = read(
        tmp_path, "casme2,sub01,EP02_01f,,label,happiness,surprise,,me,", "casme2,sub01,EP02_01f,,apex,59,60,,me,"
    )
    clip = next(clip for clip in reading.clips if clip.clip_id == "casme2/sub01/EP02_01f")
    assert (clip.apex, clip.label) == (60, "surprise")
    assert events(reading, "applied") == [
        "casme2/sub01/EP02_01f: label happiness -> surprise. me.",
        "casme2/sub01/EP02_01f: apex 59 -> 60. me.",
    ]
    assert next(clip for clip in reading.clips if clip.clip_id == "casme2/sub04/EP12_01f").apex is None


def test_a_correction_keyed_by_the_onset_is_for_that_onset_alone(tmp_path: Path) -> None:
    reading = read(
        tmp_path, "casme2,sub01,EP02_01f,47,apex,59,60,,me,", "casme2,sub01,EP02_01f,46,action_units,12,12+25,,me,"
    )
    clip = next(clip for clip in reading.clips if clip.clip_id == "casme2/sub01/EP02_01f")
    assert (clip.apex, dict(clip.extra)["action_units"]) == (59, "12+25")


def test_a_frame_that_is_not_there_is_never_put_in_place(tmp_path: Path) -> None:
    reading = read(tmp_path, "casme2,sub04,EP12_01f,,apex,/,400,,me,")
    assert next(clip for clip in reading.clips if clip.clip_id == "casme2/sub04/EP12_01f").apex is None
    assert events(reading, "refused") == [
        "casme2/sub04/EP12_01f: apex / -> 400: CASME2-RAW/sub04/EP12_01f has no frame 400."
    ]


def test_a_clip_can_be_excluded(tmp_path: Path) -> None:
    reading = read(tmp_path, "casme2,sub01,EP02_01f,,exclude,,,,me,an occluded face")
    assert len(reading.clips) == 7
    assert events(reading, "applied") == ["casme2/sub01/EP02_01f: left out. me."]
    assert reading.left_out == 0


@pytest.mark.parametrize(
    ("change", "present", "impossible", "says"),
    [
        ({"old": "/"}, "/", False, ""),
        ({"old": "/"}, "12", True, "the file has '12', not '/'"),
        ({"old": "110", "when": "impossible"}, "110", True, ""),
        ({"old": "110", "when": "impossible"}, "110", False, "the file has '110', which may be right"),
        ({"when": "impossible"}, "7", True, ""),
        ({"when": "ambiguous"}, "12 or 14", False, ""),
        ({"when": "ambiguous"}, "corrugator", False, "the file has 'corrugator', which has no 'or'"),
    ],
)
def test_it_is_refused_unless_the_cell_is_wrong(
    change: dict[str, str], present: str, impossible: bool, says: str
) -> None:
    values = {**dict.fromkeys(COLUMNS, ""), "field": "apex", "new": "9", **change}
    assert Correction(**values, line=2).refusal(present, impossible=impossible) == says


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("casme2,sub01,EP,,nose,1,2,,me,", "mine.csv:2: field must be one of onset, apex, offset, label"),
        (
            "casme2,sub01,EP,,apex,1,2,sometimes,me,",
            "mine.csv:2: when must be one of impossible, ambiguous, estimated; got 'sometimes'",
        ),
        ("casme2,sub01,EP,,apex,1,2,,,", "mine.csv:2: source must be filled in"),
        ("casme2,,EP,,apex,1,2,,me,", "mine.csv:2: subject must be filled in"),
        ("casme2,sub01,EP,,apex,,2,,me,", "mine.csv:2: old must say what is wrong, or when must"),
        ("casme2,sub01,EP,,apex,1,2", "mine.csv:2: row must have 10 fields"),
        ("casme2,sub01,EP,,exclude,fear,,,me,", "mine.csv:2: exclude must come without old, new and when"),
        ("casme2,sub01,EP,,label,fear,joy,impossible,me,", "mine.csv:2: impossible must be of onset, apex or offset"),
        ("casme2,sub01,EP,,action_units,1,2,estimated,me,", "mine.csv:2: estimated must be of onset, apex or offset"),
        ('casme2,sub01,EP,,apex,1,2,,me,"', "row must be CSV"),
    ],
)
def test_a_faulty_table_is_refused_by_line(tmp_path: Path, row: str, says: str) -> None:
    with pytest.raises(ManifestError) as caught:
        read(tmp_path, row)
    assert says in str(caught.value)


def test_a_table_of_another_form_or_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="header must be dataset,subject"):
        corrections.corrections("casme2", table(tmp_path / "a.csv", header="dataset,subject"))
    with pytest.raises(ManifestError, match="corrections must be a CSV file in UTF-8"):
        corrections.corrections("casme2", tmp_path / "nowhere.csv")
