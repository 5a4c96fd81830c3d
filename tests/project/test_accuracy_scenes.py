"""The frozen scenes by which accuracy is judged, and the script that measures on them."""

from __future__ import annotations

import dataclasses
import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest

from flowkit.config import AlignConfig
from flowkit.face.align import Aligner
from flowkit.face.anchor import Anchor
from flowkit.face.contrast import Signal
from flowkit.storage.schema import FACE
from flowkit.synthetic.face_scenes import FaceScene
from flowkit.synthetic.scene_settings import Truth
from flowkit.synthetic.scenes import LABELS, SynthConfig, make_scene, make_subject

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def accuracy(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import accuracy

    return accuracy


@pytest.fixture
def started(accuracy: ModuleType) -> Iterator[ModuleType]:
    accuracy.start()
    yield accuracy
    for aligner in accuracy._aligners.values():
        aligner.close()


def scene_of(label: str, config: SynthConfig) -> FaceScene:
    scene = make_scene("clip", make_subject("s01", config), label, config)
    assert isinstance(scene, FaceScene)
    return scene


def anchor_of(module: ModuleType, onset: Any) -> Anchor:
    rgb = np.repeat(onset[..., None], 3, axis=2)
    anchor: Anchor = module._aligners["anchor"].anchor(module.CLIP, module.grey(onset), rgb, module.SIZE)
    return anchor


def test_one_factor_at_a_time_differs_from_the_middle(accuracy: ModuleType) -> None:
    found = accuracy.groups("judging")
    assert len(found) == 21
    still, moving = found["head still"], found["in plane"]
    for name, config in found.items():
        middle = still if config.drift_px == 0 else moving
        changed = {
            field.name
            for field in dataclasses.fields(config)
            if getattr(config, field.name) != getattr(middle, field.name)
        }
        assert len(changed) == (0 if name in ("head still", "in plane") else 1), (name, changed)
    assert {config.turn_deg for config in found.values()} == {0, 0.5, 1.5, 3, 5}
    assert {config.exposure for config in found.values()} == {1, 0.5, 0.25, 0.12, 0.06}
    assert {config.noise for config in found.values()} == {1, 2, 4}
    assert {config.peak_px for config in found.values()} == {(0.1, 0.5), (0.5, 2), (2, 6)}
    assert all(config.labels == LABELS["faces"] for config in found.values())


def test_nobody_is_both_tuned_on_and_judged_by(accuracy: ModuleType) -> None:
    judging, tuning = (accuracy.groups(people)["head still"] for people in ("judging", "tuning"))
    assert judging.seed != tuning.seed
    assert dataclasses.replace(judging, seed=tuning.seed) == tuning


def test_true_flow_is_carried_to_a_turned_and_larger_crop(accuracy: ModuleType) -> None:
    """A point that moves from x to x + flow(x) in the frame moves from T x to T (x + flow(x)) on the crop."""
    height, width = 100, 120
    linear = np.array([[1.6, -1.1], [1.1, 1.6]])
    transform = np.column_stack([linear, [20.0, -30.0]])
    slopes, start = np.array([[0.02, -0.01], [0.03, 0.005]]), np.array([1.5, -2.0])
    y, x = np.indices((height, width), np.float64)
    field = np.tensordot(slopes, np.stack([x, y]), 1) + start[:, None, None]
    flow = np.stack([field, -field]).astype(np.float32)
    seen = np.ones((2, height, width), bool)
    hidden = seen.copy()
    hidden[1, 40:60, 50:70] = False
    shift = np.column_stack([np.eye(2), [3.0, 4.0]])
    drift = np.stack([np.eye(2, 3), shift, np.eye(2, 3)])
    truth = Truth(flow, flow, hidden, seen, drift, np.zeros((3, 3)))
    face = np.full((accuracy.SIZE, accuracy.SIZE), FACE, np.uint8)
    nobody = np.zeros((478, 2), np.float32)
    anchor = Anchor(*[np.zeros(face.shape, np.float32)] * 2, face, transform, nobody, 1)

    carried, inside = accuracy.on_crop(truth, anchor)
    for point in ([55.0, 30.0], [75.0, 60.0]):
        moved = point + slopes @ point + start
        here, there = (linear @ p + transform[:, 2] for p in (point, moved))
        row, column = np.rint(here[::-1]).astype(int)
        near = linear @ (slopes @ np.linalg.solve(linear, [column, row] - here))
        np.testing.assert_allclose(carried[0, :, row, column], there - here + near, atol=0.03)
        np.testing.assert_allclose(carried[1, :, row, column], here - there - near, atol=0.03)
        assert inside[row, column]
    # What the apex hides at (60, 50) lies at (57, 46) of the onset, from which the head has moved.
    column, row = np.rint(linear @ [57, 46] + transform[:, 2]).astype(int)
    assert not inside[row, column]
    column, row = np.rint(linear @ [68, 58] + transform[:, 2]).astype(int)
    assert inside[row, column]


def test_true_flow_explains_the_crops_of_a_head_that_keeps_still(started: ModuleType) -> None:
    """Nothing but rounding and resampling is left where neither noise nor light changes a picture."""
    scene = scene_of("surprise", dataclasses.replace(started.groups("tuning")["strong, still"], noise=0.0, flat=True))
    onset, apex, offset = (scene.render(t) for t in (0, scene.draw.apex, scene.draw.offset))
    anchor = anchor_of(started, onset)
    aligner = Aligner(AlignConfig(method="none", stabilise="none", match_light=False))
    face = aligner.carry(anchor, (started.grey(apex), started.grey(offset)), (True, True), "clip")
    true, inside = started.on_crop(scene.truth(), anchor)
    y, x = np.indices(inside.shape, np.float32)
    for phase, (reference, moving) in enumerate(((0, 1), (1, 2))):
        at = x + true[phase, 0].astype(np.float32), y + true[phase, 1].astype(np.float32)
        warped = cv2.remap(face.pixels[moving], *at, cv2.INTER_CUBIC)
        left = np.abs(warped - face.pixels[reference])[inside].mean()
        assert left < 0.1 * np.abs(face.pixels[moving] - face.pixels[reference])[inside].mean()


def test_a_clip_is_measured_by_every_method(started: ModuleType) -> None:
    (task,) = started.tasks(["ours"], ["turning by 1.5"], "tuning", 1)
    assert task.with_opencv
    found = started.measured_clip(scene_of("surprise", task.config), task._replace(with_opencv=False))
    assert set(found.epe) == set(started.METHODS) >= {*started.STABILISE, "oracle", "no flow"}
    assert found.epe["oracle"] < 0.6 * found.epe["no flow"] < found.epe["none"]
    assert found.epe["oracle"] < found.epe[started.DEFAULT]
    assert found.cosine["oracle"] > 0.9 > found.cosine["none"]
    assert found.cosine["no flow"] == found.length["no flow"] == 0
    assert 0.5 < found.length["oracle"] < 1.1
    assert not found.failures


def test_ways_that_differ_in_what_they_subtract_are_solved_once(
    started: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = scene_of("fear", started.groups("tuning")["head still"])
    onset, *moving = (scene.render(t) for t in (0, scene.draw.apex, scene.draw.offset))
    calls = []

    def counted(*args: Any) -> Any:
        calls.append(1)
        return solve(*args)

    solve = started.solve
    monkeypatch.setattr(started, "solve", counted)
    ways = {way: (way, [started.grey(frame) for frame in moving]) for way in started.STABILISE}
    flows, _ = started.estimated(anchor_of(started, onset), ways, False)
    assert len(calls) == 3 < len(flows), "head, registered in the plane, as they are"
    assert not np.array_equal(flows["register"], flows["similarity"])


def test_a_face_that_is_not_found_fails_every_method(started: ModuleType) -> None:
    (task,) = started.tasks(["ours"], ["exposure 0.06, still"], "tuning", 1)
    dark = dataclasses.replace(task.config, exposure=0.02)
    found = started.measured_clip(scene_of("anger", dark), task)
    assert found.failures == dict.fromkeys((*started.STABILISE, "oracle"), "FACE_NOT_FOUND")
    assert not found.epe


def made_up(module: ModuleType, label: str, default_epe: float, failures: dict[str, str] | None = None) -> Any:
    values = dict.fromkeys(module.METHODS, 0.25) | {module.DEFAULT: default_epe}
    return module.Found("ours", "head still", label, values, values, values, failures or {})


def test_figures_are_over_clips_on_which_no_method_failed(accuracy: ModuleType) -> None:
    default = accuracy.DEFAULT
    failure = {default: "REGISTRATION_FAILED"}
    clips = [made_up(accuracy, "happiness", 0.3), made_up(accuracy, "happiness", 0.4), made_up(accuracy, "fear", 0.1)]
    clips += [made_up(accuracy, "fear", 9.0, failure), made_up(accuracy, "anger", 9.0, failure)]
    with_opencv = clips[0]._replace(epe=clips[0].epe | {"opencv": 0.5}, cosine=clips[0].cosine | {"opencv": 0.5})
    faces = accuracy.summary([with_opencv, *clips[1:]])
    group = faces["ours"]["head still"]
    assert (group["clips"], group["clips_without_failure"]) == (5, 3)
    assert group["failures"] == {default: {"REGISTRATION_FAILED": 2}}
    assert group["epe_px"][default] == 0.3
    assert group["p90_epe_px"][default] == pytest.approx(0.38)
    assert group["worst_expression"][default] == "happiness"
    assert group["opencv"]["clips"] == 1
    assert group["opencv"]["epe_px"] == {"no flow": 0.25, default: 0.3, "opencv": 0.5}
    assert group["expressions"]["anger"]["epe_px"] == {}

    text = accuracy.tables({"default": default, "faces": json.loads(json.dumps(faces))})
    assert (
        "happiness, head still, default / no flow: 1.40 (0.350 px / 0.250 px; not stabilised 0.250 px); worse" in text
    )
    assert "| happiness 0.350 / 0.250 | 2 of 3 | 2 of 5 |" in text
    assert "| anger | - | - | - | - | - | - | 0 of 0 | 1 of 1 |" in text
    assert "| head still | 0.250 | 0.300 | 0.500 | 1 |" in text


def test_the_second_face_is_skipped_where_it_is_absent(
    accuracy: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(accuracy.scene_sets, "FACE3D", tmp_path / "face3d.npz")
    monkeypatch.setattr(sys, "argv", ["accuracy.py"])
    assert accuracy.parsed().faces == ["ours"]
    assert "face3d is skipped: there is no" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["accuracy.py", "--faces", "face3d"])
    with pytest.raises(SystemExit):
        accuracy.parsed()
    assert "cannot be measured: there is no" in capsys.readouterr().err
    (tmp_path / "face3d.npz").touch()
    assert accuracy.parsed().faces == ["face3d"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--groups", "still"], "--groups must be some of head still, in plane"),
        (["--subjects", "0"], "--subjects must be from 1 to 16; got 0"),
        (["--subjects", "17"], "--subjects must be from 1 to 16; got 17"),
    ],
)
def test_what_is_not_in_the_frozen_scenes_is_refused(
    accuracy: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.setattr(sys, "argv", ["accuracy.py", *arguments])
    with pytest.raises(SystemExit):
        accuracy.parsed()
    assert words in capsys.readouterr().err


@pytest.mark.slow
def test_a_result_is_stored_and_its_tables_are_printed_again(tmp_path: Path) -> None:
    out = tmp_path / "accuracy.json"
    script = [sys.executable, str(BENCHMARKS / "accuracy.py")]
    measure = ["--groups", "head still", "--subjects", "1", "--faces", "ours", "--people", "tuning", "--workers", "2"]
    printed = subprocess.run([*script, *measure, "--out", str(out)], check=True, capture_output=True, text=True).stdout
    again = subprocess.run([*script, "--table", str(out)], check=True, capture_output=True, text=True).stdout
    assert again == printed
    results = json.loads(out.read_text())["results"]
    assert (results["people"], results["subjects"]) == ("tuning", 1)
    assert results["faces"]["ours"]["head still"]["clips"] == len(LABELS["faces"])
    assert results["faces"]["ours"]["head still"]["opencv"]["clips"] == len(LABELS["faces"])


def test_the_docs_hold_the_stored_figures(accuracy: ModuleType) -> None:
    root = BENCHMARKS.parent
    stored = json.loads((BENCHMARKS / "results" / "accuracy.json").read_text(encoding="utf-8"))["results"]
    assert stored["people"] == "judging"
    assert accuracy.tables(stored) in (root / "docs" / "accuracy.md").read_text(encoding="utf-8")
    readme = (root / "README.md").read_text(encoding="utf-8")
    rows = {"still": "head still", "drifting in": "in plane", "turning by up to 0.5": "turning by 0.5"}
    for words, group in rows.items():
        (row,) = [line for line in readme.splitlines() if line.startswith("| ") and words in line.split("|")[1][:40]][
            :1
        ]
        for name in ("no flow", stored["default"], "oracle"):
            both = "; ".join(f"{stored['faces'][face][group]['epe_px'][name]:.3f}" for face in ("ours", "face3d"))
            assert both in row, (group, name)


@pytest.mark.parametrize("name", ["solver", "neighbours"])
def test_the_docs_hold_the_stored_tables(accuracy: ModuleType, name: str) -> None:
    module, page = importlib.import_module(name), BENCHMARKS.parent / "docs" / "accuracy.md"
    stored = json.loads((BENCHMARKS / "results" / f"{name}.json").read_text(encoding="utf-8"))["results"]
    assert stored["people"] == "judging"
    table = module.tables(stored) if name == "solver" else module.of_bars(stored["faces"])
    assert table in page.read_text(encoding="utf-8")


def test_the_grid_of_solvers_lies_about_the_default(accuracy: ModuleType) -> None:
    import solver

    micro, grid = solver.presets()["micro"], solver.grid()
    assert len(grid) > 20
    noise = np.random.default_rng(0).standard_normal((3, 64, 64)) / 255
    pictures = [(np.linspace(0.3, 0.7, 64) + levels * noise).astype(np.float32) for levels in (0.5, 2.0, 4.0)]
    signals = [Signal.of(one, np.ones((64, 64), np.bool_)) for one in pictures]
    assert [solver.weighed()(signal) for signal in signals] == signals
    for name, one in grid.items():
        assert (one.params, [one.seen(signal) for signal in signals]) != (micro.params, signals), name


def test_each_group_of_solver_scenes_has_its_bar(accuracy: ModuleType) -> None:
    import solver

    groups = solver.scene_sets.read("solver")["groups"]
    strict = {group for group in groups if solver.bar_of(group) == 1}
    assert strict == {"usual, noise 1", "usual, noise 2"}
    assert {solver.bar_of(group) for group in groups} == {1, 1.05}


def test_what_was_asked_for_stands_in_the_docs_as_it_was_reached(accuracy: ModuleType) -> None:
    import alignment

    for page in (BENCHMARKS / "README.md", BENCHMARKS.parent / "README.md"):
        assert alignment.table() in page.read_text(encoding="utf-8")
