"""The check finds every clip that would fail, with the code it would fail with, and counts the rest."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from flowkit.checking.check import NoteKind, check_manifest
from flowkit.cli import main
from flowkit.config import FrameConfig
from flowkit.errors import ConfigError, FailureCode, ManifestError
from flowkit.inputs.manifest import REQUIRED


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Clip `good` of ten frames (without 4 and 5), and a manifest of six rows."""
    for number in (1, 2, 3, 6, 7, 8, 9, 10):
        path = tmp_path / "good" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((40, 48), 10 * number, np.uint8)).save(path)
    for name in ("cut", "mixed"):
        (tmp_path / name).mkdir()
        for number in (1, 2, 3):
            Image.new("L", (40, 40 + (name == "mixed") * number)).save(tmp_path / name / f"{number}.png")
    (tmp_path / "cut" / "3.png").write_bytes((tmp_path / "cut" / "3.png").read_bytes()[:-20])
    rows = [
        ("z", "good", 1, 3, 10, "s1", "made", "joy", 200),
        ("y", "good", 1, 1, 3, "s1", "other", "joy", ""),
        ("x", "good", 1, 3, 3, "s2", "made", "fear", 4),
        ("cut", "cut", 1, 2, 3, "s2", "made", "fear", ""),
        ("mixed", "mixed", 1, 2, 3, "s2", "made", "joy", ""),
        ("gap", "good", 1, 4, 10, "s2", "made", "joy", ""),
        ("apex", "good", 1, "", 10, "s2", "made", "joy", ""),
        ("long", "good", 1, 3, 10, "s2", "made", "joy", 5),
    ]
    with (tmp_path / "clips.csv").open("w", newline="") as file:
        csv.writer(file).writerows([(*REQUIRED, "fps"), *rows])
    return tmp_path


def test_every_problem_is_listed_once_with_line_code_and_path(root: Path):
    report = check_manifest(root / "clips.csv", root, FrameConfig())
    assert [(p.line, p.clip_id, p.code, p.path) for p in report.problems] == [
        (5, "cut", FailureCode.IMAGE_TRUNCATED, "cut/3.png"),
        (6, "mixed", FailureCode.SIZE_MISMATCH, "mixed"),
        (7, "gap", FailureCode.FRAME_MISSING, "good"),
        (8, "apex", FailureCode.APEX_MISSING, ""),
    ]
    assert all(problem.message for problem in report.problems)


def test_counts_cover_all_clips_and_measurements_the_readable_ones(root: Path):
    report = check_manifest(root / "clips.csv", root, FrameConfig())
    assert (report.clips, report.subjects) == (8, 3)
    assert report.datasets == {"made": 7, "other": 1}
    assert list(report.labels.items()) == [("joy", 6), ("fear", 2)]
    assert (report.zero_rise, report.zero_fall) == (1, 1)
    assert report.sizes == {"48x40": 4}
    assert report.rates == {"200": 1, "4": 1, "5": 1, "unknown": 1}


def test_what_is_odd_is_a_note_not_a_problem(root: Path):
    notes = check_manifest(root / "clips.csv", root, FrameConfig()).notes
    assert [(note.line, note.clip_id, note.kind) for note in notes] == [
        (2, "z", NoteKind.GAP),
        (3, "y", NoteKind.ZERO_RISE),
        (4, "x", NoteKind.ZERO_FALL),
        (9, "long", NoteKind.SAME_FRAMES),
        (9, "long", NoteKind.LONG),
        (9, "long", NoteKind.GAP),
    ]
    words = [note.message for note in notes]
    assert words[0] == "line 2 (z): 2 of the 10 frames from 1 to 10 are missing in good: 4-5."
    assert "the same frames as line 2 (z), but has subject 's2' where that has 's1'." in words[3]
    assert "1.80 s" in words[4]


def test_settings_decide_what_is_a_problem(root: Path):
    config = FrameConfig(nearest=True, missing_apex="midpoint", strict_phases=True)
    report = check_manifest(root / "clips.csv", root, config)
    assert [p.clip_id for p in report.problems if p.code == FailureCode.PHASE_INVALID] == ["y", "x"]
    assert not {"gap", "apex"} & {p.clip_id for p in report.problems}


def test_report_is_json_and_progress_is_told(root: Path):
    told: list[tuple[int, int]] = []
    report = check_manifest(root / "clips.csv", root, progress=lambda *done: told.append(done))
    assert told == [(done, 8) for done in range(1, 9)]
    parsed = json.loads(json.dumps(report.to_dict()))
    assert parsed["problems"][0]["code"] == "IMAGE_TRUNCATED"
    assert parsed["clips"] == 8


def test_unusable_manifest_is_raised(tmp_path: Path):
    (tmp_path / "clips.csv").write_text("clip_id\n")
    with pytest.raises(ManifestError, match="header must name"):
        check_manifest(tmp_path / "clips.csv", tmp_path)


def test_each_readable_clip_is_measured(root: Path):
    measured = check_manifest(root / "clips.csv", root, FrameConfig()).measured
    assert [(m.clip_id, m.size, m.fps, m.rise, m.fall, m.missing) for m in measured] == [
        ("z", "48x40", 200, 2, 7, 2),
        ("y", "48x40", None, 0, 2, 0),
        ("x", "48x40", 4, 2, 0, 0),
        ("long", "48x40", 5, 2, 7, 2),
    ]


def write(root: Path, *rows: tuple[object, ...]) -> Path:
    with (root / "own.csv").open("w", newline="") as file:
        csv.writer(file).writerows([(*REQUIRED, "fps"), *rows])
    return root / "own.csv"


def test_a_copy_of_a_clip_is_found_by_its_bytes(root: Path):
    shutil.copytree(root / "good", root / "copy")
    path = write(
        root,
        ("a", "good", 1, 2, 3, "s1", "made", "joy", ""),
        ("b", "copy", 1, 2, 3, "s2", "made", "joy", ""),
        ("c", "copy", 1, 2, 6, "s2", "made", "joy", ""),
        ("d", "./good", 1, 2, 3, "s1", "made", "joy", ""),
    )
    notes = check_manifest(path, root).notes
    duplicates = [(n.clip_id, n.kind) for n in notes if n.kind != NoteKind.GAP]
    assert duplicates == [("b", NoteKind.SAME_SOURCE), ("d", NoteKind.SAME_FRAMES)]
    assert (
        "copy holds the same bytes as good of line 2 (a), but has subject 's2' where that has 's1'" in notes[0].message
    )


def test_the_rate_of_a_known_data_set_tells_what_is_odd_and_long(root: Path):
    path = write(
        root,
        ("a", "good", 1, 3, 10, "s1", "CASME II", "joy", 25),
        ("b", "good", 1, 3, 9, "s1", "casme2", "joy", 199.8),
        ("c", "long", 1, 150, 300, "s1", "casme2", "joy", ""),
    )
    notes = list(check_manifest(path, root, frames=False).notes)
    assert [(n.clip_id, n.kind) for n in notes] == [("a", NoteKind.ODD_RATE), ("c", NoteKind.LONG)]
    assert "is 25, where CASME II was recorded with 200" in notes[0].message
    assert "1.50 s, at the 200 frames a second of casme2" in notes[1].message


def test_without_frames_the_root_need_not_exist(root: Path):
    report = check_manifest(root / "clips.csv", root / "nowhere", frames=False)
    assert [problem.code for problem in report.problems] == [FailureCode.APEX_MISSING]
    assert report.measured == ()
    spot = FrameConfig(missing_apex="spot")
    assert check_manifest(root / "clips.csv", root / "nowhere", spot, frames=False).problems == ()
    assert (report.zero_rise, report.zero_fall) == (1, 1)


def test_many_gaps_are_cut_short_and_a_huge_range_costs_nothing(root: Path):
    path = write(root, ("a", "good", 1, 3, 10, "s1", "made", "joy", ""))
    for number in (999_999_999, *range(20, 40, 2)):
        shutil.copy(root / "good" / "1.png", root / "good" / f"{number}.png")
    path = write(root, ("a", "good", 1, 3, 999_999_999, "s1", "made", "joy", ""))
    (note,) = check_manifest(path, root).notes
    assert note.message.endswith("missing in good: 4-5, 11-19, 21, 23, 25 and more.")


def test_clips_are_counted_by_class_and_subject(root: Path):
    path = write(
        root,
        ("a", "a", 1, 2, 3, "s1", "casme2", "Disgust", ""),
        ("b", "b", 1, 2, 3, "s1", "CASME II", "Happy", ""),
        ("c", "c", 1, 2, 3, "s2", "casme2", "others", ""),
        ("d", "d", 1, 2, 3, "s2", "casme2", "boredom", ""),
        ("e", "e", 1, 2, 3, "s2", "casme2", "", ""),
    )
    census = check_manifest(path, root, frames=False).census
    assert census.grouping == "3-class"
    assert census.classes == {
        "CASME II": {"negative": 0, "positive": 1, "surprise": 0},
        "casme2": {"negative": 1, "positive": 0, "surprise": 0},
    }
    assert census.left_out == {"casme2": {"others": 1}}
    assert census.unknown == {"casme2": {"boredom": 1}}
    assert census.unlabelled == {"casme2": 1}
    assert census.per_subject == {"casme2/s1": {"negative": 1, "positive": 1}, "casme2/s2": {"no class": 3}}
    (why,) = census.why_unknown
    assert "got 'boredom'" in why
    assert check_manifest(path, root, frames=False, classes="casme2-5").census.classes["casme2"]["disgust"] == 1
    with pytest.raises(ConfigError, match=r"grouping must be one of .* Did you mean casme2-5"):
        check_manifest(path, root, frames=False, classes="casme2_5")


def test_own_data_are_counted_raw_and_nothing_is_expected_of_them(root: Path):
    census = check_manifest(root / "clips.csv", root, frames=False).census
    assert (census.grouping, census.expected, census.unknown) == ("raw", (), {})
    assert census.classes == {"made": {"fear": 2, "joy": 5}, "other": {"fear": 0, "joy": 1}}


def test_the_command_shows_tables_and_one_json_document(root: Path):
    people = CliRunner().invoke(main, ["check", str(root / "clips.csv")])
    programs = CliRunner().invoke(main, ["check", str(root / "clips.csv"), "--json"])
    assert (people.exit_code, programs.exit_code) == (1, 1)
    for words in ("4 problems", "6 notes", "Classes (raw)", "SAME_FRAMES", "IMAGE_TRUNCATED"):
        assert words in people.stdout
    assert "expected" not in people.stdout
    assert json.loads(programs.stdout)["census"]["grouping"] == "raw"
    wrong = CliRunner().invoke(main, ["check", str(root / "clips.csv"), "--classes", "nothing"])
    assert (wrong.exit_code, wrong.stdout) == (2, "")
