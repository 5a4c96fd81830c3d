"""CAS(ME)^3: onsets that tell clips apart, typing errors, two layouts, the authors' exception lists, part C without apex."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import made_up
import pytest

from flowkit.datasets import Reading, read_dataset
from flowkit.errors import ManifestError
from flowkit.inputs.clip import Clip

HEADER = ("Subject", "Filename", "Onset", "Apex", "Offset", "AU", "Objective class", "emotion")
V2 = "annotation/partA/cas(me)3_part_A_ME_label_JpgIndex_v2.xlsx"
ROWS: tuple[tuple[made_up.Value, ...], ...] = (
    ("spNO.1", "b", 175, 180, 190, "4", 7, "disgust"),
    ("spNO.1", "b", 220, 224, 230, "1+2", 2, "surprise"),
    ("spNO.3", "J", 495, 497, 503, "12", 1, "happy"),
    ("spNO.10", "a", 116, 116, 125, "4+5", 3, "Others"),
    ("spNO.149", "d", 112, 83, 358, "4", 7, "anger"),
    ("spNO.214", "c", 5, 9, 3460, "4", 7, "fear"),
    ("spNO.216", "d", 3647, 2668, 2694, "4", 7, "sad"),
    ("spNO.216", "e", 0, 0, 20, "4", 7, "others"),
    ("spNO.40", "e", 1812, 1820, 0, "4", 7, "disgust"),
    ("spNO.40", "e", 2327, 2340, 0, "4", 7, "disgust"),
)
VIDEOS = {
    "spNO.1/b": (1, 300),
    "spNO.3/j": (400, 600),
    "spNO.10/a": (100, 130),
    "spNO.149/d": (100, 360),
    "spNO.214/c": (1, 60),
    "spNO.216/d": (2600, 2700),
    "spNO.216/e": (1, 30),
    "spNO.40/e": (1800, 2410),
}


def part_a(root: Path, rows: Sequence[Sequence[made_up.Value]] = ROWS, *, empty: bool = True) -> Path:
    """Part A as long videos in colour and depth."""
    made_up.workbook(root / V2, {"label": [HEADER, *rows]})
    for video, (first, last) in VIDEOS.items():
        made_up.frames(root / "part_A" / video / "color", range(first, last + 1), "{}.jpg", empty=empty)
        made_up.frames(root / "part_A" / video / "depth", [first], "{}.png")
    return root


def by_name(reading: Reading) -> dict[str, Clip]:
    return {clip.clip_id: clip for clip in reading.clips}


def notes(reading: Reading, kind: str = "note") -> str:
    return "\n".join(str(event) for event in reading.events if event.kind == kind)


def test_the_onset_tells_clips_of_one_video_apart(tmp_path: Path) -> None:
    clips = by_name(read_dataset("casme3-a", part_a(tmp_path)))
    first, second = clips["casme3-a/spNO.1/b/175"], clips["casme3-a/spNO.1/b/220"]
    assert first.path == second.path == "part_A/spNO.1/b/color"
    assert (first.onset, first.apex, first.offset, second.onset) == (175, 180, 190, 220)
    assert (first.subject, first.label, first.fps) == ("spNO.1", "disgust", 30.0)
    assert dict(first.extra) == {"action_units": "4", "objective_class": "7"}


def test_capitals_of_the_video_s_letter_never_count(tmp_path: Path) -> None:
    clip = by_name(read_dataset("casme3-a", part_a(tmp_path)))["casme3-a/spNO.3/j/495"]
    assert clip.path == "part_A/spNO.3/j/color"


def test_known_errors_are_corrected_by_key_and_old_value(tmp_path: Path) -> None:
    reading = read_dataset("casme3-a", part_a(tmp_path))
    numbers = {name: (clip.onset, clip.apex, clip.offset) for name, clip in by_name(reading).items()}
    assert numbers["casme3-a/spNO.149/d/112"] == (112, 160, 358)
    assert numbers["casme3-a/spNO.214/c/5"] == (5, 9, 34)
    assert numbers["casme3-a/spNO.216/d/3647"] == (2647, 2668, 2694)
    assert numbers["casme3-a/spNO.216/e/0"] == (1, 1, 20)
    assert numbers["casme3-a/spNO.40/e/1812"] == (1812, 1820, 1845)
    assert numbers["casme3-a/spNO.40/e/2327"] == (2327, 2340, 2403)
    assert (len(reading.clips), reading.left_out) == (10, 0)
    assert notes(reading, "applied").count("applied: ") == 7
    assert notes(reading, "refused") == ""


def test_without_fixes_those_clips_are_left_out_with_a_reason(tmp_path: Path) -> None:
    reading = read_dataset("casme3-a", part_a(tmp_path), fixes=False)
    assert (len(reading.clips), reading.left_out) == (4, 6)
    left_out = notes(reading, "left out")
    assert "casme3-a/spNO.149/d/112: " in left_out
    assert "apex must lie between onset and offset; got onset=112, apex=83, offset=358" in left_out
    assert "onset must be a frame of part_A/spNO.216/e/color; got 0, but 30 images from 1 to 30" in left_out


def test_a_correction_is_of_one_onset_only(tmp_path: Path) -> None:
    rows = [row if row[2] != 1812 else ("spNO.40", "e", 1813, 1820, 0, *row[5:]) for row in ROWS]
    reading = read_dataset("casme3-a", part_a(tmp_path, rows))
    assert "casme3-a/spNO.40/e/1813" not in by_name(reading)
    assert "1 known corrections of clips that are not in this copy." in notes(reading)


def test_a_folder_for_each_clip_is_found_by_its_onset(tmp_path: Path) -> None:
    made_up.workbook(tmp_path / V2, {"label": [HEADER, *ROWS[:4]]})
    for subject, video, onset, _, offset, *_ in ROWS[:4]:
        for kind, image in (("frame", "{}.jpg"), ("depth", "{}.png")):
            folder = tmp_path / "Part_A_ME_clip" / kind / f"{subject}_{str(video).lower()}_{onset}"
            made_up.frames(folder, range(int(onset or 0), int(offset or 0) + 1), image)
    reading = read_dataset("casme3-a", tmp_path)
    assert by_name(reading)["casme3-a/spNO.1/b/220"].path == "Part_A_ME_clip/frame/spNO.1_b_220"
    assert (len(reading.clips), reading.left_out) == (4, 0)


def test_version_1_is_refused_with_advice(tmp_path: Path) -> None:
    root = part_a(tmp_path)
    old = (root / V2).rename(root / "annotation/partA/cas(me)3_part_A_ME_label_JpgIndex_v1.xls")
    with pytest.raises(ManifestError, match=r"got version 1, .* Take cas\(me\)3_part_A_ME_label_JpgIndex_v2.xlsx"):
        read_dataset("casme3-a", root)
    made_up.workbook(root / V2, {"label": [HEADER, *ROWS]})
    assert len(read_dataset("casme3-a", root).clips) == 10
    saved = old.rename(tmp_path / "cas(me)3_part_A_ME_label_JpgIndex_v1.xlsx")
    with pytest.raises(ManifestError, match="got version 1"):
        read_dataset("casme3-a", root, workbook=saved)


def test_the_full_sheet_in_the_old_format_is_refused_with_advice(tmp_path: Path) -> None:
    root = part_a(tmp_path)
    (root / V2).rename(root / "annotation" / "CAS(ME)3_part_A_v2.xls")
    with pytest.raises(ManifestError, match="got the sheet of macro- and micro-expressions in the old format"):
        read_dataset("casme3-a", root)


def test_of_the_full_sheet_micro_expressions_only(tmp_path: Path) -> None:
    root = part_a(tmp_path / "set")
    (root / V2).unlink()
    rows = [(*row, "Micro-expression" if n % 2 else "Macro-expression") for n, row in enumerate(ROWS[:4])]
    full = made_up.workbook(
        tmp_path / "CAS(ME)3_part_A_v2.xlsx",
        {"first": [(*HEADER, "Expression type"), *rows], "eye blink": [("Subject", "Onset"), ("spNO.1", 3)]},
    )
    reading = read_dataset("casme3-a", root, workbook=full)
    assert set(by_name(reading)) == {"casme3-a/spNO.1/b/220", "casme3-a/spNO.10/a/116"}
    assert "2 rows are not of micro-expressions and are passed over: Macro-expression (2)." in notes(reading)


def test_the_authors_lists_of_damaged_and_poor_images_are_read(tmp_path: Path) -> None:
    root = part_a(tmp_path)
    lists = root / "CAS-ME-3" / "exception"
    lists.mkdir(parents=True)
    (lists / "error_info_damaged_image_partA.txt").write_text(
        "spNO.3 J 497.jpg  the image cannot open\nspNO.1 b 221.jpg  the image cannot open\n", encoding="utf-8"
    )
    (lists / "image_with_bad_quality_partA.txt").write_text(
        "/date/casme3/RGB/spNO.1/b/color/176.jpg\n/date/casme3/RGB/spNO.1/b/color/180.jpg\n/date/casme3/RGB/spNO.9/b/color/1.jpg\n",
        encoding="utf-8",
    )
    reading = read_dataset("casme3-a", root)
    assert "casme3-a/spNO.3/j/495" not in by_name(reading)
    assert "casme3-a/spNO.3/j/495: " in notes(reading, "left out")
    assert "key frames must be readable; got 497 in the authors' list" in notes(reading, "left out")
    poor = {name: dict(clip.extra)["poor_frames"] for name, clip in by_name(reading).items()}
    assert (poor["casme3-a/spNO.1/b/175"], poor["casme3-a/spNO.1/b/220"]) == ("2", "0")
    assert "1 clips hold frames that the authors call poor: casme3-a/spNO.1/b/175 (2)." in notes(reading)
    assert "1 clips hold frames that the authors call damaged, but no key frame: casme3-a/spNO.1/b/220 (1)." in notes(
        reading
    )


def test_without_the_lists_there_is_no_column_for_them(tmp_path: Path) -> None:
    clip = by_name(read_dataset("casme3-a", part_a(tmp_path)))["casme3-a/spNO.1/b/175"]
    assert "poor_frames" not in dict(clip.extra)


def test_an_apex_on_the_onset_stays_and_is_named(tmp_path: Path) -> None:
    reading = read_dataset("casme3-a", part_a(tmp_path))
    assert "casme3-a/spNO.10/a/116" in by_name(reading)
    assert "2 clips have a phase of no length" in notes(reading)


C_HEADER = ("sub", "count", "onset", "offset", "au", "emotion")


@pytest.mark.parametrize("subject", [1, "1", "01"])
@pytest.mark.parametrize("layout", ["part_C/01/a/color", "ME_C/01/{}/color"])
def test_part_c_has_no_apex_and_commas_between_units(tmp_path: Path, layout: str, subject: made_up.Value) -> None:
    rows = [(subject, 1, 30, 40, "4,7", "negative"), (subject, 2, 60, 70, "1\uff0c2, 5", "surprise")]
    made_up.workbook(tmp_path / "annotation/partC/CAS(ME)3_part_C_ME.xlsx", {"Sheet1": [C_HEADER, *rows]})
    for clip in (1, 2):
        made_up.frames(tmp_path / layout.format(clip), range(1, 101), "{}.jpg", empty=False)
    reading = read_dataset("casme3-c", tmp_path)
    first, second = by_name(reading)["casme3-c/01/1/30"], by_name(reading)["casme3-c/01/2/60"]
    assert (first.onset, first.apex, first.offset, first.path) == (30, None, 40, layout.format(1))
    assert dict(first.extra) == {"action_units": "4+7"}
    assert dict(second.extra) == {"action_units": "1+2+5"}
    assert (first.subject, first.dataset, reading.without_apex) == ("01", "casme3-c", 2)
    assert made_up.checked(reading, tmp_path).problems == ()


def test_the_manifest_passes_flowkit_check(tmp_path: Path) -> None:
    root = part_a(tmp_path / "set", empty=False)
    before = made_up.tree(root)
    report = made_up.checked(read_dataset("casme3-a", root), tmp_path)
    assert (report.clips, report.problems) == (10, ())
    assert report.rates == {"30": 10}
    assert made_up.tree(root) == before
