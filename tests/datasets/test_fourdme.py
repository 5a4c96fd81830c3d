"""4DME: joint emotions, static units, cells of units in the wrong row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import made_up
import pytest

from flowkit.datasets import Reading, read_dataset
from flowkit.errors import ManifestError
from flowkit.inputs.clip import Clip
from flowkit.labels.action_units import moving_units
from flowkit.labels.groupings import grouping

HEADER = (
    "sub_ID",
    "fold_name",
    "Emotion",
    "Onset",
    "Apex",
    "Offset",
    "AUs",
    "AU2",
    "AU4",
    "AU7",
    "AU12",
    "Positive",
    "Total",
    "fold",
)
ROWS: tuple[tuple[made_up.Value, ...], ...] = (
    ("S01", "S01_1st_001_01_1", "Positive", 100, 110, 125, "AU12", 0, 0, 0, 1, 1, 1, 1),
    ("S01", "S01_1st_001_02_1", "Surprise+Positive", 200, 210, 225, "AUR2+12(k)+45", 1, 0, 0, 1, 1, 2, 1),
    ("S02", "S02_1st_001_01_1", "Negative", 10, 15, 30, "AU4(k)+L7", 0, 1, 1, 0, 0, 1, 2),
    ("S02", "S02_1st_002_01_1", "Repression", 50, 55, 70, "AU4", 0, 1, 0, 0, 0, 1, 2),
)


def fourdme(
    root: Path,
    rows: Sequence[Sequence[made_up.Value]] = ROWS,
    layout: str = "gray_micro",
    *,
    empty: bool = True,
) -> Path:
    """A 4DME of two subjects."""
    made_up.workbook(root / "4DME_Labelling_Micro_release v1.xlsx", {"Sheet1": [HEADER, *rows]})
    for subject, clip, _, onset, _, offset, *_ in rows:
        if subject and clip:
            numbers = range(int(onset or 0), int(offset or 0) + 1)
            made_up.frames(root / layout / str(subject) / str(clip), numbers, "{:04d}.jpg", empty=empty)
    return root


def by_name(reading: Reading) -> dict[str, Clip]:
    return {clip.clip_id: clip for clip in reading.clips}


def notes(reading: Reading) -> str:
    return "\n".join(str(event) for event in reading.events if event.kind == "note")


def test_clips_lie_in_a_folder_of_their_subject(tmp_path: Path) -> None:
    reading = read_dataset("4dme", fourdme(tmp_path))
    clip = by_name(reading)["4dme/S01/S01_1st_001_01_1"]
    assert (clip.path, clip.subject) == ("gray_micro/S01/S01_1st_001_01_1", "S01")
    assert (clip.onset, clip.apex, clip.offset, clip.fps) == (100, 110, 125, 60.0)
    assert (len(reading.clips), reading.left_out) == (4, 0)


def test_joint_emotions_stay_and_every_grouping_leaves_them_out(tmp_path: Path) -> None:
    clip = by_name(read_dataset("4dme", fourdme(tmp_path)))["4dme/S01/S01_1st_001_02_1"]
    assert clip.label == "Surprise+Positive"
    assert grouping("4dme-5").of(clip.dataset, clip.label) is None
    assert grouping("4dme-5").of("4dme", "Positive") == "positive"


@pytest.mark.parametrize(
    ("text", "moving"),
    [("AUR2+12(k)+45", "AUR2+45"), ("AU4 (K) + L7", "L7"), ("AU12", "AU12"), ("AU4(k)", ""), ("", "")],
)
def test_static_units_are_told_from_moving_ones(text: str, moving: str) -> None:
    assert moving_units(text) == moving


def test_the_cell_of_units_is_kept_as_it_is(tmp_path: Path) -> None:
    extra = dict(by_name(read_dataset("4dme", fourdme(tmp_path)))["4dme/S02/S02_1st_001_01_1"].extra)
    assert extra == {"action_units": "AU4(k)+L7", "moving_units": "L7"}


def test_cells_of_units_in_the_wrong_row_are_named_and_nothing_is_changed(tmp_path: Path) -> None:
    cells = [list(row) for row in ROWS]
    cells[0][6], cells[3][6] = cells[3][6], cells[0][6]
    reading = read_dataset("4dme", fourdme(tmp_path, cells))
    assert "2 rows have a cell of action units that contradicts their columns" in notes(reading)
    assert "4dme/S01/S01_1st_001_01_1, 4dme/S02/S02_1st_002_01_1" in notes(reading)
    assert dict(by_name(reading)["4dme/S01/S01_1st_001_01_1"].extra)["action_units"] == "AU4"


def test_units_that_agree_are_not_named(tmp_path: Path) -> None:
    assert "contradict" not in notes(read_dataset("4dme", fourdme(tmp_path)))


def test_a_last_row_that_is_no_clip_is_named_and_passed_over(tmp_path: Path) -> None:
    total = ("Total", None, None, None, None, None, None, 1, 2, 1, 2, 2, 5, None)
    reading = read_dataset("4dme", fourdme(tmp_path, [*ROWS, total]))
    assert (len(reading.clips), reading.left_out) == (4, 0)
    assert "Sheet1 row 6: row must name a subject and a clip" in notes(reading)


def test_grey_and_cropped_side_by_side_are_a_question(tmp_path: Path) -> None:
    fourdme(tmp_path)
    root = fourdme(tmp_path, layout="gray_micro_crop")
    with pytest.raises(ManifestError, match=r"gray_micro \(4 clips\), gray_micro_crop \(4 clips\)"):
        read_dataset("4dme", root)
    assert read_dataset("4dme", root, frames="gray_micro_crop").layouts == {"gray_micro_crop": 4}


def test_the_manifest_passes_flowkit_check(tmp_path: Path) -> None:
    root = fourdme(tmp_path / "set", empty=False)
    before = made_up.tree(root)
    report = made_up.checked(read_dataset("4dme", root), tmp_path)
    assert (report.clips, report.problems) == (4, ())
    assert report.rates == {"60": 4}
    assert made_up.tree(root) == before
