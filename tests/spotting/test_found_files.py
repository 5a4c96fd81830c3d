"""What was found comes back from the files it is written to, and parts of a search from the folder that keeps them."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from flowkit.datasets.base import Event
from flowkit.datasets.own_recordings import recording_clip
from flowkit.errors import ConfigError, SettingsChanged
from flowkit.inputs.clip import APEX_CONFIDENCE, APEX_SOURCE, SPOT_PROBLEM, Clip
from flowkit.inputs.manifest import read_manifest
from flowkit.spotting.course import FRAME, Course
from flowkit.spotting.found_files import (
    LONGEST_REASON,
    check_places,
    curves_file,
    found_summary,
    nothing_found,
    strongest,
    write_found,
    write_strongest,
)
from flowkit.spotting.gathering import Searched
from flowkit.spotting.intervals import Interval
from flowkit.spotting.parts_folder import PartsFolder
from flowkit.spotting.scores import read_expressions

MICRO = Interval(30, 36, 42, 1.0, 1.4, "micro", 0.71234, "brows", "1L+1R", 0.4567, True)
MACRO = Interval(100, 130, 160, 3.333, 5.333, "macro", 0.93, "mouth + cheeks and nose", "12L+12R", 1.5, False)
BLINK = Interval(50, 53, 57, 1.667, 1.9, "blink", 0.99, "eyes", "45", 0.0, True)


def searched(path: str = "s1/a.mp4", *intervals: Interval, **other: Any) -> Searched:
    values: dict[str, Any] = {"fps": 30.0, "frames": 300, "used": 280, "seconds": 10.0}
    return Searched(path, intervals=intervals, **(values | other))


def written(out: Path, *recordings: Searched) -> tuple[list[Clip], dict[str, Any]]:
    """The rows and the JSON file of some recordings, as they are read back."""

    def refuse(name: str) -> NoReturn:
        raise ValueError(name)

    write_found(out, [recording_clip(one.path, 0) for one in recordings], recordings)
    content: dict[str, Any] = json.loads(curves_file(out).read_text(encoding="utf-8"), parse_constant=refuse)
    return read_manifest(out, allow_empty=True), content


def test_rows_are_read_back_with_their_numbers_and_further_columns(tmp_path: Path) -> None:
    rows, _ = written(tmp_path / "found.csv", searched("s1/a.mp4", MICRO, BLINK, MACRO), searched("b.mp4", MACRO))
    by_id = {clip.clip_id: clip for clip in rows}
    assert sorted(by_id) == ["videos/b.mp4/100-160", "videos/s1/a.mp4/100-160", "videos/s1/a.mp4/30-42"]
    one = by_id["videos/s1/a.mp4/30-42"]
    assert (one.path, one.subject, one.fps) == ("s1/a.mp4", "s1", 30.0)
    assert (one.onset, one.apex, one.offset) == (30, 36, 42)
    assert dict(one.extra) == {
        APEX_SOURCE: "spotted",
        APEX_CONFIDENCE: "0.7123",
        "kind": "micro",
        "region": "brows",
        "moves": "1L+1R",
        "motion_px": "0.457",
        "blink": "yes",
        "onset_s": "1.000",
        "offset_s": "1.400",
    }
    assert dict(by_id["videos/b.mp4/100-160"].extra)["region"] == "mouth + cheeks and nose"
    assert dict(by_id["videos/b.mp4/100-160"].extra)["blink"] == "no"


def test_rows_can_be_scored(tmp_path: Path) -> None:
    written(tmp_path / "found.csv", searched("a.mp4", MICRO, MACRO, BLINK))
    found = read_expressions(tmp_path / "found.csv")
    assert [(one.video, one.onset, one.offset, one.kind, one.label) for one in found] == [
        ("a.mp4", 100, 160, "macro", ""),
        ("a.mp4", 30, 42, "micro", ""),
    ]


def test_a_search_that_found_nothing_writes_a_header(tmp_path: Path) -> None:
    out = tmp_path / "found.csv"
    rows, content = written(out, searched("a.mp4", BLINK))
    assert rows == []
    (header,) = out.read_text().splitlines()
    assert header.startswith("clip_id,path,onset,apex,offset")
    assert [one["kind"] for one in content["recordings"][0]["intervals"]] == ["blink"]
    assert read_expressions(out) == []


def test_the_json_file_has_everything_and_no_nan(tmp_path: Path) -> None:
    curve = np.array([0.125, np.nan, 2.0], np.float32)
    one = searched("a.mp4", MICRO, BLINK, curve=curve, every=7, problems=(("VIDEO_UNREADABLE", "damage"),))
    _, content = written(tmp_path / "found.csv", one, searched("b.mp4"))
    assert content["schema"] == 1
    first, second = content["recordings"]
    assert first["curve"] == {"frames_per_value": 7, "motion_px": [0.125, None, 2.0]}
    assert [one["kind"] for one in first["intervals"]] == ["micro", "blink"]
    assert first["intervals"][0]["confidence"] == pytest.approx(0.71234)
    assert first["problems"] == [{"code": "VIDEO_UNREADABLE", "message": "damage"}]
    assert (second["path"], second["intervals"], second["curve"]["motion_px"]) == ("b.mp4", [], [])


def test_files_of_an_earlier_search_are_replaced(tmp_path: Path) -> None:
    out = tmp_path / "found.csv"
    written(out, searched("a.mp4", MICRO))
    rows, content = written(out, searched("b.mp4", MACRO))
    assert [clip.path for clip in rows] == ["b.mp4"]
    assert [one["path"] for one in content["recordings"]] == ["b.mp4"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["found.csv", "found.json"]


def test_results_go_to_new_files_unless_told_otherwise(tmp_path: Path) -> None:
    check_places(tmp_path / "found.csv", overwrite=False)
    with pytest.raises(ConfigError, match=r"got \.json"):
        check_places(tmp_path / "found.json", overwrite=True)
    (tmp_path / "found.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"found\.json: --out must not exist yet"):
        check_places(tmp_path / "found.csv", overwrite=False)
    check_places(tmp_path / "found.csv", overwrite=True)


def test_the_summary_leaves_the_curves_out(tmp_path: Path) -> None:
    one = searched("a.mp4", MICRO, curve=np.ones(5, np.float32))
    summary = found_summary([one], tmp_path / "found.csv", ["flowkit extract"], [Event("left out", "b.wmv", "why")])
    assert summary["next"] == ["flowkit extract"]
    assert summary["out"].endswith("found.csv")
    assert "curve" not in summary["recordings"][0]
    assert summary["recordings"][0]["intervals"][0]["apex"] == 36
    assert "curve" in one.to_dict()
    assert [(event["kind"], event["clip"], event["message"]) for event in summary["events"]] == [
        ("left out", "b.wmv", "why")
    ]


def test_the_surest_expression_is_the_strongest_and_a_blink_is_none() -> None:
    assert strongest(searched("a.mp4", MICRO, BLINK, MACRO)) == MACRO
    assert strongest(searched("a.mp4", BLINK)) is None
    more = Interval(200, 210, 220, 6.667, 7.333, "macro", 0.93, "brows", "1L", 2.5, False)
    assert strongest(searched("a.mp4", MACRO, more, MICRO)) == more


def test_a_row_for_each_recording_has_its_strongest_or_the_reason(tmp_path: Path) -> None:
    out = tmp_path / "strongest.csv"
    recordings = [
        searched("s1/a.mp4", MICRO, MACRO),
        searched("s1/b.mp4", BLINK),
        searched("s2/c.mp4", problems=(("FACE_NOT_FOUND", "no face"), ("VIDEO_UNREADABLE", "damage"))),
        searched("s2/d.mp4", problems=(("VIDEO_UNREADABLE", "x" * 2 * LONGEST_REASON),)),
    ]
    write_strongest(out, [recording_clip(one.path, 0) for one in recordings], recordings)
    rows = {clip.path: clip for clip in read_manifest(out)}
    assert [clip.clip_id for clip in rows.values()] == [f"videos/{path}" for path in rows]
    best = rows["s1/a.mp4"]
    assert (best.onset, best.apex, best.offset, best.fps) == (100, 130, 160, 30.0)
    assert (dict(best.extra)[APEX_SOURCE], dict(best.extra)[SPOT_PROBLEM]) == ("spotted", "")
    for path in ("s1/b.mp4", "s2/c.mp4", "s2/d.mp4"):
        assert (rows[path].onset, rows[path].apex, rows[path].offset) == (0, None, None)
        assert dict(rows[path].extra)[APEX_SOURCE] == ""
    assert "no movement of the face was found in 280 of 300 frames" in dict(rows["s1/b.mp4"].extra)[SPOT_PROBLEM]
    assert dict(rows["s2/c.mp4"].extra)[SPOT_PROBLEM] == "FACE_NOT_FOUND: no face; VIDEO_UNREADABLE: damage"
    assert len(dict(rows["s2/d.mp4"].extra)[SPOT_PROBLEM]) == LONGEST_REASON


def test_why_nothing_was_found_is_a_problem_or_that_nothing_moved() -> None:
    assert nothing_found(searched("a.mp4", problems=(("A", "b"),))) == "A: b"
    assert "280 of 300" in nothing_found(searched("a.mp4"))


def test_paths_with_commas_and_letters_of_any_script_come_back(tmp_path: Path) -> None:
    path = 'Ünal, "take 2"/画.mp4'
    rows, content = written(tmp_path / "found.csv", searched(path, MICRO))
    assert [clip.path for clip in rows] == [path]
    assert content["recordings"][0]["path"] == path
    with (tmp_path / "found.csv").open(encoding="utf-8", newline="") as file:
        assert [row["onset"] for row in csv.DictReader(file)] == ["30"]


# --- parts


def course(seed: int = 0) -> Course:
    rng = np.random.default_rng(seed)
    frames = np.zeros(40, FRAME)
    frames["number"] = np.arange(10, 50)
    frames["seconds"] = frames["number"] / 29.97
    frames["run"][20:] = -1
    for name in ("units", "lids", "turn"):
        frames[name] = rng.standard_normal(frames[name].shape)
    return Course(29.97, frames, np.array([20, 33], np.int64), 3)


def is_same(one: Course | None, other: Course) -> bool:
    return (
        one is not None
        and (one.fps, one.interlaced) == (other.fps, other.interlaced)
        and one.frames.dtype == FRAME
        and np.array_equal(one.frames, other.frames)
        and np.array_equal(one.cuts, other.cuts)
    )


PLAN = {"recordings": ["a.mp4"], "fps": None}


def only_file(folder: Path) -> Path:
    (file,) = folder.glob("*.npz")
    return file


def test_a_part_that_was_stored_is_loaded_again(tmp_path: Path) -> None:
    folder = PartsFolder(tmp_path / "parts", PLAN)
    folder.store(0, 1, course(1))
    folder.store(1, 0, course(2))
    folder.store(2, 0, Course.of(25.0, [], []))
    for reopened in (folder, PartsFolder(tmp_path / "parts", dict(reversed(PLAN.items())))):
        assert is_same(reopened.load(0, 1), course(1))
        assert is_same(reopened.load(1, 0), course(2))
        assert is_same(reopened.load(2, 0), Course.of(25.0, [], []))
        assert reopened.load(0, 0) is None
        assert reopened.load(1, 1) is None


@pytest.mark.parametrize("kept", [0, 1, 4, 100, 1000, -100, -1])
def test_a_truncated_file_is_not_taken(tmp_path: Path, kept: int) -> None:
    folder = PartsFolder(tmp_path / "parts", PLAN)
    folder.store(0, 0, course())
    file = only_file(tmp_path / "parts")
    file.write_bytes(file.read_bytes()[:kept])
    assert folder.load(0, 0) is None


def test_a_damaged_file_is_not_taken(tmp_path: Path) -> None:
    folder = PartsFolder(tmp_path / "parts", PLAN)
    folder.store(0, 0, course())
    file = only_file(tmp_path / "parts")
    content = bytearray(file.read_bytes())
    content[1000] ^= 0xFF
    file.write_bytes(content)
    assert folder.load(0, 0) is None


@pytest.mark.parametrize(
    "arrays",
    [
        {"frames": np.zeros(3, FRAME), "cuts": np.zeros(0, np.int64)},
        {"frames": np.zeros((3, 4)), "cuts": np.zeros(0, np.int64), "about": np.array([30.0, 0])},
        {"frames": np.zeros(3, FRAME), "cuts": np.zeros(0, np.int64), "about": np.array([30.0, 0, 1])},
        {"others": np.zeros(3)},
    ],
)
def test_a_foreign_file_is_not_taken(tmp_path: Path, arrays: dict[str, Any]) -> None:
    folder = PartsFolder(tmp_path / "parts", PLAN)
    folder.store(0, 0, course())
    np.savez(only_file(tmp_path / "parts"), **arrays)
    assert folder.load(0, 0) is None


def test_a_file_of_pickled_objects_is_not_taken(tmp_path: Path) -> None:
    folder = PartsFolder(tmp_path / "parts", PLAN)
    folder.store(0, 0, course())
    file = only_file(tmp_path / "parts")
    np.savez(file, frames=np.array([{}], object), cuts=np.zeros(0), about=np.zeros(2))
    assert folder.load(0, 0) is None
    file.write_text("no archive")
    assert folder.load(0, 0) is None


def test_parts_of_another_search_are_refused_and_stay(tmp_path: Path) -> None:
    PartsFolder(tmp_path / "parts", PLAN).store(0, 0, course())
    with pytest.raises(SettingsChanged, match="pass --overwrite"):
        PartsFolder(tmp_path / "parts", PLAN | {"fps": 25.0})
    assert is_same(PartsFolder(tmp_path / "parts", PLAN).load(0, 0), course())


def test_parts_of_another_search_are_discarded_if_asked_to(tmp_path: Path) -> None:
    PartsFolder(tmp_path / "parts", PLAN).store(0, 0, course())
    folder = PartsFolder(tmp_path / "parts", PLAN | {"fps": 25.0}, overwrite=True)
    assert folder.load(0, 0) is None
    with pytest.raises(SettingsChanged):
        PartsFolder(tmp_path / "parts", PLAN)


def test_parts_of_the_same_search_stay_also_with_overwrite(tmp_path: Path) -> None:
    PartsFolder(tmp_path / "parts", PLAN).store(0, 0, course())
    assert is_same(PartsFolder(tmp_path / "parts", PLAN, overwrite=True).load(0, 0), course())


def test_no_part_is_taken_for_another(tmp_path: Path) -> None:
    folder = PartsFolder(tmp_path / "parts", PLAN)
    for recording, part in ((0, 11), (1, 1), (11, 0)):
        folder.store(recording, part, course(100 * recording + part))
    for recording, part in ((0, 11), (1, 1), (11, 0)):
        assert is_same(folder.load(recording, part), course(100 * recording + part))
    assert folder.load(1, 10) is None
    assert math.isclose(getattr(folder.load(1, 1), "fps", 0.0), 29.97)
