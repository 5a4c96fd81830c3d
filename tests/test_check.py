"""The check finds every clip that would fail, with the code it would fail with, and counts the rest."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flowkit.check import check_manifest
from flowkit.config import FrameConfig
from flowkit.errors import FailureCode, ManifestError
from flowkit.manifest import REQUIRED


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


def test_gaps_and_long_clips_are_notes_not_problems(root: Path):
    notes = check_manifest(root / "clips.csv", root, FrameConfig()).notes
    assert [note.split(":")[0] for note in notes] == ["line 2 (z)", "line 9 (long)", "line 9 (long)"]
    assert "2 of the 10 frames from 1 to 10 are missing in good" in notes[0]
    assert "1.80 s" in notes[2]


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
