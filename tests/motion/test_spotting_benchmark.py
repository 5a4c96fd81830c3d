"""The benchmark of spotting measures what it says: areas under a curve, and clips that move, or do not, as their kind says."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from flowkit.synthetic.scenes import make_scene, make_subject


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import spotting

    return spotting


def test_the_area_is_1_apart_and_half_for_the_same(bench: ModuleType) -> None:
    assert bench.area([0.6, 0.9], [0.1, 0.5]) == 1
    assert bench.area([0.1, 0.5], [0.6, 0.9]) == 0
    assert bench.area([0.2, 0.4], [0.2, 0.4]) == 0.5
    low, high = bench.interval(bench.area, [0.3, 0.6, 0.9], [0.1, 0.5])
    assert 0 <= low < high <= 1


def test_every_clip_with_a_movement_has_one_without_beside_it(bench: ModuleType) -> None:
    plan = list(bench.tasks("judging", {"ours": ""}))
    still = {(task.group, task.person) for task in plan if task.kind == "none"}
    assert still == {(task.group, task.person) for task in plan if task.kind == "usual"}
    assert all(task.config.peaks_px == (0, 0) for task in plan if task.kind.startswith("none"))
    assert all(task.config.wander and task.config.noise == 0 for task in plan)
    assert len({task.config.seed for task in [*plan, *bench.tasks("tuning", {"ours": ""})]}) == 2


def test_an_uneven_clip_has_its_apex_where_it_was(bench: ModuleType) -> None:
    config = bench.scene_sets.settings(
        {"phase_frames": [5, 6], "noise": 0, "width": 96, "height": 96, "blinks": 0, "wander": True}
    )
    scene = make_scene("clip", make_subject("s01", config), "surprise", config)
    even, uneven = bench.render(scene), bench.render(scene, uneven=True)
    same = [np.array_equal(a, b) for a, b in zip(even, uneven, strict=True)]
    assert same[0]
    assert same[scene.draw.apex]
    assert same[-1]
    assert not all(same)
    assert abs(bench.largest_motion(scene) - scene.draw.apex) <= 5
