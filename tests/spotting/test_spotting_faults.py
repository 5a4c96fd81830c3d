"""Faults that reviews of the search found: each test failed when it was written."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from face_course import FPS, blink, raise_units, still
from flowkit.datasets.own_recordings import recording_clip
from flowkit.errors import ConfigError
from flowkit.inputs.manifest import read_manifest
from flowkit.inputs.recording_frames import Part, Recording
from flowkit.spotting.course import Course
from flowkit.spotting.found_files import write_found, write_strongest
from flowkit.spotting.gathering import Gathering, Searched
from flowkit.spotting.intervals import search
from flowkit.spotting.movements import find_movements
from flowkit.spotting.parts_folder import PartsFolder


def at_rest(count: int, fps: float = FPS, seed: int = 0, noise: float = 0.01) -> Course:
    return Course(fps, still(count, fps, seed, noise), np.zeros(0, np.int64))


@pytest.mark.parametrize("count", [34, 36, 40, 45])
@pytest.mark.parametrize("fps", [30.0, 60.0])
def test_short_runs_of_noise_show_nothing(count: int, fps: float) -> None:
    found = [
        one
        for seed in range(10)
        for one in search(at_rest(count, fps, seed, 0.02), 0, count).intervals
        if one.kind != "blink"
    ]
    assert len(found) <= 1


def test_a_part_that_ends_after_the_shared_frame_is_kept() -> None:
    whole = at_rest(60)
    gathering = Gathering(Recording("a.mp4", 30.0, 60, (Part(),), 1, 1))
    gathering.add(whole)
    gathering.add(dataclasses.replace(whole.part(59, 60), problems=(("VIDEO_UNREADABLE", "damage at frame 60"),)))
    assert gathering.finish().frames == 60


def test_a_recording_that_cannot_be_opened_does_not_lose_the_results(tmp_path: Path) -> None:
    one = Searched("a.mp4", math.nan, 0, 0, 0.0, (), problems=(("VIDEO_UNREADABLE", "no video"),))
    write_found(tmp_path / "o.csv", [recording_clip("a.mp4", 0)], [one])


def test_a_long_reason_in_any_script_fits_a_manifest(tmp_path: Path) -> None:
    one = Searched("a.mp4", 30.0, 9, 0, 0.3, (), problems=(("VIDEO_UNREADABLE", "画" * 300),))
    write_strongest(tmp_path / "o.csv", [recording_clip("a.mp4", 0)], [one])
    assert len(read_manifest(tmp_path / "o.csv")) == 1


def test_intervals_are_by_onset_also_where_blocks_meet() -> None:
    whole = at_rest(3600)
    raise_units(whole.frames, 1803, 15, 20)
    blink(whole.frames, 1797)
    gathering = Gathering(Recording("a.mp4", 30.0, 3600, (Part(),), 1, 1))
    gathering.add(whole)
    onsets = [one.onset for one in gathering.finish().intervals]
    assert onsets == sorted(onsets)


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_a_run_of_next_to_nothing_has_no_movements(count: int) -> None:
    assert find_movements(np.zeros((count, 32)), 30.0) == []


def test_one_frame_a_second_can_be_searched() -> None:
    assert search(at_rest(1, 1.0), 0, 1).intervals == ()


def test_what_lasts_longer_than_half_a_second_is_no_micro_expression_at_25_frames_a_second() -> None:
    """13 frames are 0.52 s: which kind they are must not depend on where in the recording they lie."""
    kinds = set()
    for begin in range(100, 130):
        whole = at_rest(300, 25.0, noise=0.001)
        raise_units(whole.frames, begin + 6, 6, 7)
        found = search(whole, 0, 300).intervals
        kinds |= {one.kind for one in found if one.kind != "blink" and one.offset - one.onset == 13}
    assert kinds == {"macro"}


def test_a_part_replaces_a_damaged_one(tmp_path: Path) -> None:
    folder = PartsFolder(tmp_path / "parts", {})
    folder.store(0, 0, at_rest(10))
    (file,) = (tmp_path / "parts").glob("*.npz")
    file.write_bytes(file.read_bytes()[:100])
    folder.store(0, 0, at_rest(10))
    assert folder.load(0, 0) is not None


def test_a_file_of_one_array_is_not_taken(tmp_path: Path) -> None:
    folder = PartsFolder(tmp_path / "parts", {})
    folder.store(0, 0, at_rest(10))
    (file,) = (tmp_path / "parts").glob("*.npz")
    with file.open("wb") as out:
        np.save(out, np.zeros(3))
    assert folder.load(0, 0) is None


def test_a_foreign_folder_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "o.csv.parts").mkdir()
    (tmp_path / "o.csv.parts" / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="something else of that name"):
        PartsFolder(tmp_path / "o.csv.parts", {})
    assert (tmp_path / "o.csv.parts" / "thesis.txt").exists()
