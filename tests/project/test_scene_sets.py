"""The frozen scenes of benchmarks/scenes: they are settings that exist, and no two sets share people."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from flowkit.synthetic.dataset import SynthConfig
from flowkit.synthetic.recording_script import draw_script
from flowkit.synthetic.recordings import RecordingConfig

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
NAMES = sorted(path.stem for path in (BENCHMARKS / "scenes").glob("*.toml"))


@pytest.fixture
def scene_sets(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import scene_sets

    return scene_sets


def seeds(scenes: dict[str, Any]) -> list[int]:
    """Seeds of all people in one file."""
    tables = [scenes["people"], scenes["common"], *scenes["groups"].values()]
    return [value for table in tables for key, value in table.items() if key == "seed" or key.endswith("_seed")]


def test_there_are_scenes_for_every_benchmark() -> None:
    assert {"accuracy", "recognition", "recordings", "spotting"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_scenes_are_settings_that_exist(scene_sets: ModuleType, name: str) -> None:
    kind = RecordingConfig if name == "recordings" else SynthConfig
    known = {field.name for field in dataclasses.fields(kind)} | {"moving"}
    scenes = scene_sets.read(name)
    assert scenes["groups"]
    for group, changed in scenes["groups"].items():
        table = {**scenes["common"], **changed}
        assert set(table) <= known, group
        config = scene_sets.recording_settings(group) if name == "recordings" else scene_sets.settings(table)
        for key in set(table) - {"moving", "face3d"}:
            value = getattr(config, key)
            assert (list(value) if isinstance(value, tuple) else value) == table[key], (group, key)


def test_no_two_sets_share_people(scene_sets: ModuleType) -> None:
    every = [seed for name in NAMES for seed in seeds(scene_sets.read(name))]
    assert len(every) >= 6
    assert len(set(every)) == len(every)


def test_recordings_are_those_that_were_agreed(scene_sets: ModuleType) -> None:
    for people in ("judging", "tuning"):
        found = {name: scene_sets.recording_settings(name, people) for name in ("30 fps", "60 fps", "200 fps")}
        assert [(config.subjects, config.frames) for config in found.values()] == [(10, 3600), (10, 7200), (3, 24000)]
    judging, tuning = (scene_sets.recording_settings("30 fps", people) for people in ("judging", "tuning"))
    numbers = [f"s{number:02d}" for number in range(1, 11)]
    firsts = [draw_script(name, config).noise_seed for config in (judging, tuning) for name in numbers]
    assert all(a != b for a, b in itertools.combinations(firsts, 2))


def test_people_who_are_held_out_are_not_trained_on(scene_sets: ModuleType) -> None:
    scenes = scene_sets.read("recognition")
    assert (scenes["people"]["train"], scenes["people"]["held_out"]) == (60, 40)
    assert scenes["groups"]["faces"]["subjects"] == 100
    assert scenes["groups"]["face3d"]["subjects"] == 40
    ours = scene_sets.settings({**scenes["common"], **scenes["groups"]["faces"]})
    assert ours.peaks_px == (0.1, 3.0)
    assert ours.face3d == ""
    if scene_sets.FACE3D.is_file():
        theirs = scene_sets.settings({**scenes["common"], **scenes["groups"]["face3d"]})
        assert Path(theirs.face3d) == scene_sets.FACE3D
