"""What is the same for every data set: duplicate rows, stray rows, frames that do not match, what the clips become."""

from __future__ import annotations

from pathlib import Path

import made_up
import pytest

from flowkit.datasets import Reading, read_dataset
from flowkit.datasets.base import Annotation, DataSet, ReadOptions
from flowkit.datasets.read import read
from flowkit.datasets.source import Source
from flowkit.errors import ManifestError
from flowkit.inputs.manifest import read_manifest, write_manifest

EXTRA_ROW = ("01", "EP02_01f", None, 46, 59, 86, None, "12", "happiness")


def casme2(tmp_path: Path, *rows: tuple[made_up.Value, ...]) -> Reading:
    root = made_up.casme2(tmp_path, "CASME2-RAW")
    made_up.workbook(
        root / "CASME2-coding-20140508.xlsx", {"Sheet1": [made_up.CASME2_HEADER, *made_up.CASME2_ROWS, *rows]}
    )
    return read_dataset("casme2", root)


def said(reading: Reading, kind: str) -> str:
    return "\n".join(str(event) for event in reading.events if event.kind == kind)


def ids(reading: Reading) -> set[str]:
    return {clip.clip_id for clip in reading.clips}


def test_the_same_row_twice_is_one_clip(tmp_path: Path) -> None:
    reading = casme2(tmp_path, EXTRA_ROW)
    assert len(reading.clips) == 8
    assert "Sheet1 row 2 and CASME2-coding-20140508.xlsx: Sheet1 row 10 are the same; one is kept" in said(
        reading, "note"
    )


def test_rows_that_contradict_each_other_are_both_left_out(tmp_path: Path) -> None:
    reading = casme2(tmp_path, ("1", "ep02_1F", *EXTRA_ROW[2:4], 60, *EXTRA_ROW[5:]))
    assert "casme2/sub01/EP02_01f" not in ids(reading)
    assert "Sheet1 row 2 and CASME2-coding-20140508.xlsx: Sheet1 row 10: subject and clip must name one" in said(
        reading, "left out"
    )


def test_blank_rows_go_in_silence_and_stray_ones_with_a_note(tmp_path: Path) -> None:
    reading = casme2(tmp_path, (), (None, None, "ignored"), (None, None, None, 12), ("09", None, None, 1, 2, 3))
    assert len(reading.clips) == 8
    assert said(reading, "note").count("row must name a subject and a clip") == 2


def test_a_label_that_the_set_has_not_is_noted_with_what_may_be_meant(tmp_path: Path) -> None:
    rows = [(*row[:8], "hapiness") if row[8] == "happiness" else row for row in made_up.CASME2_ROWS]
    noted = said(read_dataset("casme2", made_up.casme2(tmp_path, "Cropped", rows=rows)), "note")
    assert "1 clips: classes 3-class: label of casme2 must be one of" in noted
    assert "'hapiness'. Did you mean happiness" in noted


def test_frames_that_do_not_match_are_said_with_what_is_there(tmp_path: Path) -> None:
    root = made_up.casme2(tmp_path, "Cropped")
    (root / "Cropped" / "sub01" / "EP02_01f" / "reg_img59.jpg").unlink()
    made_up.frames(root / "Cropped" / "sub02" / "EP01_11f", [91], "copy_{}.png")
    (root / "Cropped" / "sub17").rename(root / "Cropped" / "people17")
    left = said(read_dataset("casme2", root), "left out")
    assert (
        "apex must be a frame of Cropped/sub01/EP02_01f; got 59, but 40 images from 46 to 86. Get the missing" in left
    )
    assert "apex must be one image of Cropped/sub02/EP01_11f; got 2 with the number 91. Remove all but one" in left
    assert "frames must be in a folder sub17/EP05_09; got none. Get the missing frames" in left


def test_frames_of_no_clip_are_an_error_with_the_folders_that_are_there(tmp_path: Path) -> None:
    root = made_up.casme2(tmp_path)
    made_up.frames(root / "pictures" / "one", [1])
    with pytest.raises(ManifestError) as caught:
        read_dataset("casme2", root)
    assert str(caught.value) == (
        f"{root}: frames must be in folders such as {{subject}}/{{clip}}, for instance sub01/EP02_01f; got pictures/one. "
        "Check the folder."
    )


def test_a_set_none_of_whose_rows_can_be_used_is_an_error_with_reasons(tmp_path: Path) -> None:
    root = made_up.casme2(tmp_path)
    made_up.frames(root / "sub01" / "EP02_01f", [1, 2])
    with pytest.raises(ManifestError) as caught:
        read_dataset("casme2", root)
    first, *reasons = str(caught.value).splitlines()
    assert first == f"{root}: CASME II: must have at least one clip to use; got none of 8. They were left out for:"
    assert [reason.split(": ")[0] for reason in reasons] == [
        "  7 x no folder of frames, such as casme2/sub01/EP03_02",
        "  1 x key frames that are not there, such as casme2/sub01/EP02_01f",
    ]
    assert "correction" not in str(caught.value)


def made_of(source: Source, **cells: str) -> Annotation:
    values = {"onset": "1", "apex": "2", "offset": "3", "label": "joy", "where": "row 1", **cells}
    return Annotation(source.name, "s", "c", folders=("c",), **values)


@pytest.mark.parametrize(
    ("first", "numbers", "frames"),
    [
        (1, ("1", "2", "3"), (1, 2, 3)),
        (101, ("1", "2", "3"), (101, 102, 103)),
        (101, ("101", "102", "103"), (101, 102, 103)),
        (101, ("first", "", "last"), (101, None, 110)),
    ],
    ids=["same", "within the clip", "of files", "ends"],
)
def test_numbers_that_count_within_a_clip_become_those_of_files(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    first: int,
    numbers: tuple[str, str, str],
    frames: tuple[object, ...],
) -> None:
    made_up.frames(tmp_path / "c", range(first, first + 10))
    onset, apex, offset = numbers
    monkeypatch.setattr(
        "flowkit.datasets.source.layout", lambda name: {"fps": 90, "missing": [], "counted": 1, "title": "X"}
    )

    def annotate(source: Source) -> list[Annotation]:
        return [made_of(source, onset=onset, apex=apex, offset=offset)]

    (clip,) = read(DataSet("mmew", annotate), tmp_path, ReadOptions(fixes=False)).clips
    assert (clip.onset, clip.apex, clip.offset) == frames


def test_a_manifest_that_could_not_be_read_back_is_not_written(tmp_path: Path) -> None:
    reading = casme2(tmp_path / "set")
    with pytest.raises(ManifestError, match="clip_id must be unique"):
        write_manifest(tmp_path / "a.csv", [*reading.clips, reading.clips[0]])
    with pytest.raises(ManifestError, match="must name at least one clip"):
        write_manifest(tmp_path / "a.csv", [])
    assert not (tmp_path / "a.csv").exists()
    write_manifest(tmp_path / "a.csv", reading.clips)
    with pytest.raises(ManifestError, match="file must not exist yet"):
        write_manifest(tmp_path / "a.csv", reading.clips)
    write_manifest(tmp_path / "a.csv", reading.clips[:2], overwrite=True)
    assert len(read_manifest(tmp_path / "a.csv")) == 2
