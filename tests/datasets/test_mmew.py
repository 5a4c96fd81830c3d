"""MMEW: two layouts, a word that differs between sheet and folder, numbers that count a clip or a recording."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import made_up
import pytest

from flowkit.datasets import Reading, read_dataset
from flowkit.errors import ManifestError
from flowkit.inputs.clip import Clip

HEADER = (
    "Subject",
    "Filename",
    "OnsetFrame",
    "ApexFrame",
    "OffsetFrame",
    "Action Units",
    "Estimated Emotion",
    "remarks",
)
ROWS: tuple[tuple[made_up.Value, ...], ...] = (
    ("S03", "S03-01-002", 1, 9, 20, "6+12", "happiness", None),
    ("S03", "S03-07-001", 2, 5, 12, "4", "others", "talks"),
    ("S05", "S05-02-001", 1, 4, 8, "1+2", "surprise", None),
)
FOLDERS = {"others": "repression"}


def mmew(
    root: Path,
    rows: Sequence[Sequence[made_up.Value]] = ROWS,
    layout: str = "Micro_Expression/{label}/{clip}",
    name: str = "MMEW_Micro_Exp.xlsx",
    *,
    empty: bool = True,
) -> Path:
    """An MMEW of a few clips, whose files count from 1 whatever the sheet says."""
    if name.endswith(".csv"):
        root.mkdir(parents=True, exist_ok=True)
        with (root / name).open("w", newline="", encoding="utf-8-sig") as file:
            csv.writer(file).writerows([HEADER, *rows])
    else:
        made_up.workbook(root / name, {"Sheet1": [HEADER, *rows]})
    for subject, clip, onset, _, offset, _, label, _ in rows:
        number = int(str(subject).lstrip("S"))
        place = layout.format(subject=f"S{number:02d}", label=FOLDERS.get(str(label), label), clip=clip)
        count = int(offset or 0) if int(onset or 0) < 50 else int(offset or 0) - int(onset or 0) + 1
        made_up.frames(root / place, range(1, count + 1), "{}.jpg", empty=empty)
    return root


def by_name(reading: Reading) -> dict[str, Clip]:
    return {clip.clip_id: clip for clip in reading.clips}


def notes(reading: Reading, kind: str = "note") -> str:
    return "\n".join(str(event) for event in reading.events if event.kind == kind)


@pytest.mark.parametrize("name", ["MMEW_Micro_Exp.xlsx", "MMEW_Micro_Exp_v2.xlsx", "MMEW_Micro_Exp.csv"])
@pytest.mark.parametrize(
    "layout", ["Micro_Expression/{label}/{clip}", "Micro_Expression/{subject}/{label}/{clip}", "{label}/{clip}"]
)
def test_every_layout_and_file_gives_the_same_clips(tmp_path: Path, layout: str, name: str) -> None:
    reading = read_dataset("mmew", mmew(tmp_path / "MMEW_Final", layout=layout, name=name))
    assert (len(reading.clips), reading.left_out) == (3, 0)
    clip = by_name(reading)["mmew/S03/S03-01-002"]
    assert (clip.onset, clip.apex, clip.offset, clip.subject, clip.fps) == (1, 9, 20, "S03", 90.0)
    assert clip.path == layout.format(subject="S03", label="happiness", clip="S03-01-002")
    assert dict(clip.extra) == {"action_units": "6+12", "remarks": ""}


def test_the_sheet_says_others_where_the_folder_says_repression(tmp_path: Path) -> None:
    clip = by_name(read_dataset("mmew", mmew(tmp_path)))["mmew/S03/S03-07-001"]
    assert (clip.label, clip.path) == ("others", "Micro_Expression/repression/S03-07-001")
    assert dict(clip.extra)["remarks"] == "talks"


def test_a_folder_called_others_is_found_too(tmp_path: Path) -> None:
    root = mmew(tmp_path)
    (root / "Micro_Expression" / "repression").rename(root / "Micro_Expression" / "others")
    clip = by_name(read_dataset("mmew", root))["mmew/S03/S03-07-001"]
    assert clip.path == "Micro_Expression/others/S03-07-001"


@pytest.mark.parametrize("subject", ["S03", "03", 3])
def test_subjects_are_one_text_however_they_are_written(tmp_path: Path, subject: made_up.Value) -> None:
    rows = [(subject, *row[1:]) if row[0] == "S03" else row for row in ROWS]
    assert read_dataset("mmew", mmew(tmp_path, rows)).counts("subject") == {"mmew/S03": 2, "mmew/S05": 1}


def test_the_clip_s_name_says_whose_it_is(tmp_path: Path) -> None:
    rows = [*ROWS[:2], ("S04", *ROWS[2][1:])]
    reading = read_dataset("mmew", mmew(tmp_path, rows))
    assert "mmew/S05/S05-02-001" in by_name(reading)
    assert "1 rows have another subject than their clip names, which counts: S05-02-001 (S04)." in notes(reading)


def test_numbers_that_count_the_recording_are_moved_to_the_clip_s_files(tmp_path: Path) -> None:
    rows = [*ROWS, ("S07", "S07-03-001", 100, 109, 130, "4", "disgust", None)]
    reading = read_dataset("mmew", mmew(tmp_path, rows))
    moved, counted = by_name(reading)["mmew/S07/S07-03-001"], by_name(reading)["mmew/S03/S03-01-002"]
    assert (moved.onset, moved.apex, moved.offset) == (1, 10, 31)
    assert (counted.onset, counted.apex, counted.offset) == (1, 9, 20)
    assert "1 clips count frames of a recording, moved so that the onset is the first file: mmew/S07/S07-03-001." in (
        notes(reading)
    )


def test_numbers_that_count_the_clip_become_those_of_its_files(tmp_path: Path) -> None:
    root = mmew(tmp_path)
    folder = root / "Micro_Expression" / "surprise" / "S05-02-001"
    for number in range(8, 0, -1):
        (folder / f"{number}.jpg").rename(folder / f"img{number + 200}.jpg")
    reading = read_dataset("mmew", root)
    clip = by_name(reading)["mmew/S05/S05-02-001"]
    assert (clip.onset, clip.apex, clip.offset) == (201, 204, 208)
    assert "1 clips count their own frames from 1, written as the numbers of the files: mmew/S05/S05-02-001." in notes(
        reading
    )


def test_an_offset_that_fits_in_neither_way_is_left_out_and_named(tmp_path: Path) -> None:
    root = mmew(tmp_path)
    for number in (19, 20):
        (root / "Micro_Expression" / "happiness" / "S03-01-002" / f"{number}.jpg").unlink()
    reading = read_dataset("mmew", root)
    assert (len(reading.clips), reading.left_out) == (2, 1)
    assert "offset must be a frame of Micro_Expression/happiness/S03-01-002; got 20, but 18 images from 1 to 18" in (
        notes(reading, "left out")
    )


def test_a_missing_frame_shifts_no_number(tmp_path: Path) -> None:
    root = mmew(tmp_path)
    (root / "Micro_Expression" / "happiness" / "S03-01-002" / "9.jpg").unlink()
    rows = [(*ROWS[0][:4], 15, *ROWS[0][5:]), *ROWS[1:]]
    made_up.workbook(root / "MMEW_Micro_Exp.xlsx", {"Sheet1": [HEADER, *rows]})
    assert "apex must be a frame of Micro_Expression/happiness/S03-01-002; got 9, but 19 images from 1 to 20" in (
        notes(read_dataset("mmew", root), "left out")
    )


def test_macro_expressions_beside_them_are_left_alone(tmp_path: Path) -> None:
    root = mmew(tmp_path)
    made_up.frames(root / "Macro_Expression" / "S03" / "happiness" / "S03-01-002", range(1, 30), "{}.jpg")
    reading = read_dataset("mmew", root)
    assert {clip.path.split("/")[0] for clip in reading.clips} == {"Micro_Expression"}


def test_a_column_under_another_name_is_a_near_miss(tmp_path: Path) -> None:
    made_up.workbook(
        tmp_path / "MMEW_Micro_Exp.xlsx", {"Sheet1": [("Subject", "Filename", "Onset Frames", *HEADER[3:]), *ROWS]}
    )
    with pytest.raises(ManifestError, match=r"It lacks OnsetFrame \(is it 'Onset Frames'\?\)"):
        read_dataset("mmew", tmp_path)


def test_the_manifest_passes_flowkit_check(tmp_path: Path) -> None:
    root = mmew(tmp_path / "set", empty=False)
    before = made_up.tree(root)
    report = made_up.checked(read_dataset("mmew", root), tmp_path)
    assert (report.clips, report.problems) == (3, ())
    assert report.rates == {"90": 3}
    assert made_up.tree(root) == before
