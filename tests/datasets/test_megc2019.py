"""The MEGC2019 composite: 145, 133 and 164 clips of complete sets, by the official list or without it."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import made_up
import pytest

from flowkit.datasets import Reading, read_megc2019
from flowkit.errors import ManifestError
from flowkit.labels.groupings import grouping

CASME2_COUNTS = {
    "others": 99,
    "disgust": 63,
    "happiness": 32,
    "repression": 27,
    "surprise": 28,
    "sadness": 4,
    "fear": 2,
}
"""Of the workbook of 2019: three clips of sub24 are surprise there, sadness in 2014, and not on the official list."""
SAMM_COUNTS = {
    **{"Anger": 57, "Other": 26, "Happiness": 26, "Surprise": 15, "Contempt": 12, "Disgust": 9, "Fear": 8, "Sadness": 6}
}
SMIC_COUNTS = {"negative": 70, "positive": 51, "surprise": 43}
NUMBER_OF_LABEL = {"negative": "0", "positive": "1", "surprise": "2"}


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The three sets with as many clips of each label as the real ones, three frames a clip."""
    place = tmp_path_factory.mktemp("sets")
    labels = [label for label, count in CASME2_COUNTS.items() for _ in range(count)]
    for label in ("disgust", "disgust", "surprise", "surprise", "surprise"):
        labels.remove(label)
    rows: list[tuple[made_up.Value, ...]] = [
        ("04", "EP12_01f", None, 1, "/", 3, None, "4", "disgust"),
        ("05", "EP09_05f", None, 1, 1, 3, None, "4", "disgust"),
        *(("24", clip, None, 1, 2, 3, None, "1", "surprise") for clip in ("EP07_01", "EP07_04f", "EP10_03")),
    ]
    rows += [(f"{n % 26 + 1:02d}", f"EX{n}", None, 1, 2, 3, None, "1", label) for n, label in enumerate(labels)]
    made_up.casme2(place / "casme2", "Cropped", rows=rows)
    labels = [label for label, count in SAMM_COUNTS.items() for _ in range(count)]
    made_up.samm(
        place / "samm",
        rows=[(f"{n % 29:03d}", f"{n % 29:03d}_9_{n}", 1, 2, 3, "1", label, 1) for n, label in enumerate(labels)],
    )
    labels = [label for label, count in SMIC_COUNTS.items() for _ in range(count)]
    for n, label in enumerate(labels):
        subject = n % 16 + 1
        made_up.frames(
            place
            / "smic"
            / "HS"
            / f"s{subject}"
            / "micro"
            / label
            / f"s{subject}_{label[: 3 if label == 'surprise' else 2]}_{n:02d}",
            (7, 8, 9),
        )
    return {"casme2": place / "casme2", "samm": place / "samm", "smic-hs": place / "smic"}


@pytest.fixture(scope="module")
def by_rule(roots: dict[str, Path]) -> Reading:
    return read_megc2019(roots)


@pytest.fixture
def official(tmp_path: Path, by_rule: Reading) -> Path:
    """A list in the form of the official one."""
    path = tmp_path / "combined_3class_gt.csv"
    three = grouping("3-class")
    with path.open("w", newline="", encoding="utf-8") as file:
        for clip in by_rule.clips:
            number = NUMBER_OF_LABEL[three.of(clip.dataset, clip.label) or ""]
            name = clip.dataset.removesuffix("-hs")
            csv.writer(file).writerow([name, clip.subject, clip.clip_id.split("/")[2], number])
    return path


def said(reading: Reading, kind: str) -> list[str]:
    return [str(event) for event in reading.events if event.kind == kind]


def test_complete_sets_give_the_counts_of_the_composite(by_rule: Reading) -> None:
    three = grouping("3-class")
    found = Counter((clip.dataset, three.of(clip.dataset, clip.label)) for clip in by_rule.clips)
    assert found == {
        ("casme2", "negative"): 88,
        ("casme2", "positive"): 32,
        ("casme2", "surprise"): 25,
        ("samm", "negative"): 92,
        ("samm", "positive"): 26,
        ("samm", "surprise"): 15,
        ("smic-hs", "negative"): 70,
        ("smic-hs", "positive"): 51,
        ("smic-hs", "surprise"): 43,
    }
    assert len(by_rule.clips) == 442
    assert by_rule.left_out == 0
    excluded = {
        f"casme2/{clip}"
        for clip in ("sub04/EP12_01f", "sub05/EP09_05f", "sub24/EP07_01", "sub24/EP07_04f", "sub24/EP10_03")
    }
    assert not excluded & {clip.clip_id for clip in by_rule.clips}


def test_paths_start_from_the_folder_that_the_roots_have_in_common(by_rule: Reading, roots: dict[str, Path]) -> None:
    assert by_rule.root == roots["samm"].parent
    assert all((by_rule.root / clip.path).is_dir() for clip in by_rule.clips)
    assert {name for clip in by_rule.clips for name, _ in clip.extra} == {"action_units", "objective_class"}
    assert {len(clip.extra) for clip in by_rule.clips} == {2}


@pytest.mark.parametrize("header", ["", "data,subject,clip,label\n", "dataset,subject,clip,label\n"])
def test_the_list_with_and_without_a_header_gives_the_same(
    roots: dict[str, Path], by_rule: Reading, official: Path, header: str
) -> None:
    official.write_text(header + official.read_text(encoding="utf-8"), encoding="utf-8")
    listed = read_megc2019(roots, list_file=official)
    assert {clip.clip_id for clip in listed.clips} == {clip.clip_id for clip in by_rule.clips}
    assert listed.left_out == 0


def test_a_list_in_a_root_is_found(roots: dict[str, Path], official: Path) -> None:
    there = roots["samm"] / official.name
    there.write_bytes(b"\n".join(official.read_bytes().splitlines()[:5]))
    other = roots["casme2"] / official.name
    try:
        assert len(read_megc2019(roots).clips) == 5
        other.write_bytes(b"casme2,sub01,EX0,0\n")
        with pytest.raises(ManifestError, match="official list must be one"):
            read_megc2019(roots)
    finally:
        there.unlink()
        other.unlink(missing_ok=True)


def test_each_clip_that_is_missing_is_named(roots: dict[str, Path], official: Path) -> None:
    more = "samm,099,099_1_1,0\nsmic,s20,s20_ne_01,0\n"
    official.write_text(more + official.read_text(encoding="utf-8"), encoding="utf-8")
    reading = read_megc2019(roots, list_file=official)
    assert len(reading.clips) == 442
    missing = said(reading, "left out")
    assert [line.split(": ")[1] for line in missing] == ["samm/099/099_1_1", "smic-hs/s20/s20_ne_01"]
    assert "this copy of the data set has no such clip" in missing[0]


def test_one_that_the_set_had_to_leave_out_keeps_its_reason(roots: dict[str, Path], official: Path) -> None:
    (frame,) = (roots["casme2"] / "Cropped").rglob("EX0/*img3.jpg")
    frame.rename(frame.with_name("img9.jpg"))
    official.write_text("casme2,sub01,EX0,0\n" + official.read_text(encoding="utf-8"), encoding="utf-8")
    try:
        (reason,) = said(read_megc2019(roots, list_file=official), "left out")
    finally:
        frame.with_name("img9.jpg").rename(frame)
    assert "casme2/sub01/EX0: CASME2-coding-20140508.xlsx: Sheet1 row 7: offset must be a frame" in reason


def test_the_list_wins_over_a_label_that_contradicts_it(roots: dict[str, Path], official: Path) -> None:
    lines = official.read_text(encoding="utf-8").splitlines()
    official.write_text("\n".join([lines[0][:-1] + "2", *lines[1:]]), encoding="utf-8")
    reading = read_megc2019(roots, list_file=official)
    _, subject, clip, _ = lines[0].split(",")
    assert f"applied: casme2/{subject}/{clip}: label disgust -> surprise. The official list." in said(
        reading, "applied"
    )
    assert {c.clip_id: c.label for c in reading.clips}[f"casme2/{subject}/{clip}"] == "surprise"


def test_clips_outside_the_composite_leave_nothing_out(roots: dict[str, Path]) -> None:
    (frame,) = (roots["casme2"] / "Cropped").rglob("EX0/*img3.jpg")  # others
    frame.rename(frame.with_name("img9.jpg"))
    try:
        reading = read_megc2019(roots)
    finally:
        frame.with_name("img9.jpg").rename(frame)
    assert (len(reading.clips), reading.left_out) == (442, 0)


def test_without_a_list_short_counts_are_said(roots: dict[str, Path]) -> None:
    (folder,) = (roots["smic-hs"]).rglob("s1_ne_00")
    folder.rename(folder.with_name("away"))
    try:
        reading = read_megc2019(roots)
    finally:
        folder.with_name("away").rename(folder)
    (short,) = said(reading, "left out")
    assert "smic-hs: the composite must have 164 clips; got 163 (negative 69 of 70, positive 51 of 51" in short


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("casme2,sub01,EP02_01f,7\n", r"combined_3class_gt.csv:1: row must be .* got 'casme2,sub01,EP02_01f,7'"),
        ("mmew,1,2,0\n", "row must be dataset,subject,clip,label with a set of casme2, samm, smic-hs"),
        ("casme2,sub01\n", "row must be dataset,subject,clip,label"),
        ("", "list must name clips; got none"),
        ("casme2,sub99,EP99,0\n", "got none of 1. They were left out for:\n  1 x clips of the official list"),
    ],
)
def test_a_list_that_cannot_be_used_is_refused(roots: dict[str, Path], official: Path, content: str, says: str) -> None:
    official.write_text(content, encoding="utf-8")
    with pytest.raises(ManifestError, match=says):
        read_megc2019(roots, list_file=official)
