"""DFME: frames from 0, no offset column, test sets without labels, names that a user can change."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import made_up
import pytest

from flowkit.datasets import Reading, read_dataset
from flowkit.errors import ManifestError
from flowkit.inputs.clip import Clip

HEADER = ("Subject", "Filename", "OnsetFrame", "ApexFrame", "Emotion")
ROWS: tuple[tuple[made_up.Value, ...], ...] = (
    ("S001", "clip_a", 0, 40, "Happiness"),
    ("S002", "clip_b", 3, 60, "contempt"),
)


def dfme(
    root: Path,
    rows: Sequence[Sequence[made_up.Value]] = ROWS,
    header: Sequence[str] = HEADER,
    *,
    empty: bool = True,
) -> Path:
    """A training set of clips with 100 frames each."""
    made_up.workbook(root / "train_data" / "coding.xlsx", {"Sheet1": [header, *rows]})
    for row in rows:
        made_up.frames(root / "train_data" / str(row[1]), range(100), "{:05d}.png", empty=empty)
    return root


def by_name(reading: Reading) -> dict[str, Clip]:
    return {clip.clip_id: clip for clip in reading.clips}


def notes(reading: Reading) -> str:
    return "\n".join(str(event) for event in reading.events if event.kind == "note")


def test_frames_count_from_0_and_the_last_one_is_the_offset(tmp_path: Path) -> None:
    reading = read_dataset("dfme", dfme(tmp_path))
    clip = by_name(reading)["dfme/S001/clip_a"]
    assert (clip.onset, clip.apex, clip.offset) == (0, 40, 99)
    assert (clip.path, clip.label) == ("train_data/clip_a", "Happiness")
    assert math.isnan(clip.fps)
    assert dict(clip.extra)["offset_source"] == "last frame"
    assert "2 clips have no offset in the sheet and end with the last frame of their folder." in notes(reading)


def test_an_offset_column_counts_where_it_is_there(tmp_path: Path) -> None:
    rows = [(*ROWS[0], 77), (*ROWS[1], None)]
    reading = read_dataset("dfme", dfme(tmp_path, rows, (*HEADER, "OffsetFrame")))
    clips = by_name(reading)
    assert (clips["dfme/S001/clip_a"].offset, clips["dfme/S002/clip_b"].offset) == (77, 99)
    assert dict(clips["dfme/S001/clip_a"].extra)["offset_source"] == "annotated"
    assert "1 clips have no offset in the sheet" in notes(reading)


def test_a_test_set_without_labels_is_marked_as_such(tmp_path: Path) -> None:
    reading = read_dataset("dfme", dfme(tmp_path, [row[:4] for row in ROWS], HEADER[:4]))
    assert reading.counts("label") == {"unlabelled": 2}
    assert "2 clips are unlabelled: no grouping except raw takes them." in notes(reading)


def test_names_of_columns_are_data(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="It lacks ApexFrame"):
        read_dataset("dfme", dfme(tmp_path, ROWS, ("Subject", "Filename", "OnsetFrame", "Peak", "Emotion")))


def test_a_renamed_copy_of_the_sheet_can_be_named(tmp_path: Path) -> None:
    root = dfme(tmp_path / "set")
    (root / "train_data" / "coding.xlsx").unlink()
    text = "Subject,Filename,OnsetFrame,ApexFrame,Emotion\n1,clip_a,0,40,fear\n"
    copy = tmp_path / "mine.csv"
    copy.write_text(text, encoding="utf-8")
    assert by_name(read_dataset("dfme", root, workbook=copy))["dfme/1/clip_a"].label == "fear"


def test_the_manifest_passes_flowkit_check(tmp_path: Path) -> None:
    root = dfme(tmp_path / "set", empty=False)
    before = made_up.tree(root)
    report = made_up.checked(read_dataset("dfme", root), tmp_path)
    assert (report.clips, report.problems) == (2, ())
    assert report.rates == {"unknown": 2}
    assert made_up.tree(root) == before
