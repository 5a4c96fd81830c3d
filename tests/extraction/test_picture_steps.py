"""Alignment steps: the bundled ones, and one from a module outside the package that a user names."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from conftest import SMALL, Done, flowkit, shard_bytes
from flowkit.config import AlignConfig, ExtractConfig, load_config
from flowkit.errors import ClipError, ConfigError, FailureCode
from flowkit.extraction.compute import _further_records
from flowkit.face.align import Aligner, Face
from flowkit.face.head_shape import HeadShape
from flowkit.face.landmarks import POINTS
from flowkit.face.picture_steps import BUNDLED, MOST_NUMBERS, Step, View, applied, steps_of
from flowkit.storage import hashed_json
from flowkit.storage.folder import ShardFolder
from flowkit.storage.run_file import stored_run
from flowkit.storage.schema import COLUMNS

EXPONENT = 0.1 + 0.2
"""A number that short text does not give back unless it is written with care."""
TOY = """
import numpy as np
from flowkit.face.picture_steps import Step

def darken(view):
    return np.clip(view.picture, 0, 1) ** np.float32({exponent}), {{"exponent": ({exponent},)}}

gamma = Step("gamma", darken, {{"exponent": (1.0,)}}, version="{version}")
"""
CHANGED = """
from flowkit.face.picture_steps import Step

plain = Step("plain", lambda view: (view.picture, {}), version="1")
no_version = Step("no_version", plain.apply)
two_lines = Step("two_lines", plain.apply, version="1\\n2")
flow = Step("flow", plain.apply, {"flow": (0.0,)}, version="1")
light = Step("light", plain.apply, {"light": (0.0,)}, version="1")
confidence = Step("confidence", plain.apply, {"apex_confidence": (0.0,)}, version="1")
peak = Step("peak", plain.apply, {"peak_px": (0.0,)}, version="1")
text = Step("text", plain.apply, {"noted": ("yes",)}, version="1")
endless = Step("endless", plain.apply, {"noted": (0.0,) * 999}, version="1")
number = 3
"""


def write_toy(folder: Path, version: str = "1", exponent: float = EXPONENT) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "toy_steps.py").write_text(TOY.format(version=version, exponent=exponent))


def naming(*names: str) -> tuple[str, str]:
    return "--set", f"align.steps={json.dumps(names)}"


def extract(manifest: Path, out: Path, folder: Path, *more: str | Path) -> Done:
    """In a process of its own, which finds the modules of a folder."""
    paths = os.pathsep.join([str(folder), *filter(None, sys.path)])
    return flowkit("extract", manifest, "--out", out, *SMALL, *more, PYTHONPATH=paths)


def samples(out: Path) -> dict[str, dict[str, Any]]:
    return {sample["clip_id"]: dict(sample) for shard in ShardFolder.open(out).shards() for sample in shard.samples()}


def a_view(picture: npt.NDArray[np.float32]) -> View:
    size = len(picture)
    head = HeadShape.of(np.full((POINTS, 2), np.nan, np.float32), np.eye(2, 3), size)
    return View(picture, picture, np.ones((size, size), bool), head, np.ones((28, 28), bool), np.zeros(2))


# --------------------------------------------------------------------------------------------------- the bundled ones


def test_bundled_steps_record_columns_of_the_shard_or_nothing() -> None:
    names = [name for step in BUNDLED for name in step.at_rest]
    assert names == ["light"]
    shapes = {column.name: column.shape for column in COLUMNS}
    for step in BUNDLED:
        assert all(shapes[name] == (2, len(values)) for name, values in step.at_rest.items())
    assert steps_of(AlignConfig()) == BUNDLED
    assert not any(step.is_on(AlignConfig(match_light=False)) for step in BUNDLED)


def test_settings_without_further_steps_are_those_of_before_there_were_any(undisturbed: Path) -> None:
    config = load_config(None, align__method="none", align__size=96, shard__clips=5, backend="cpu")
    assert "steps" not in config.to_dict()["align"]
    assert stored_run(undisturbed)["settings"] == json.loads(json.dumps(config.to_dict()))
    assert stored_run(undisturbed)["fingerprint"] == config.fingerprint()
    assert ExtractConfig.from_dict(config.to_dict()) == config


# ------------------------------------------------------------------------------------------------- one from elsewhere


def test_a_step_from_a_module_of_the_users_changes_pictures_and_leaves_its_record(
    undisturbed: Path, cropped: Path, tmp_path: Path
) -> None:
    modules, out = tmp_path / "modules", tmp_path / "out"
    write_toy(modules)
    plain, with_step = tmp_path / "plain", (*naming("toy_steps:gamma"), "--keep-faces")
    assert extract(cropped, plain, modules, "--keep-faces").code == 0
    done = extract(cropped, out, modules, *with_step)
    assert (done.code, "Traceback" in done.err) == (0, False), done.err
    before, after = samples(plain), samples(out)
    assert before.keys() == after.keys()
    for name, sample in after.items():
        was = before[name]
        assert np.array_equal(sample["faces"][0], was["faces"][0])
        expected = was["faces"][1:].astype(np.float32) ** EXPONENT
        np.testing.assert_allclose(sample["faces"][1:].astype(np.float32), expected, atol=2e-3)
        assert not np.array_equal(sample["flow"], was["flow"])
        assert np.array_equal(sample["light"], was["light"])
        extra = json.loads(sample["extra"])
        assert [float(text) for text in extra.pop("exponent").split()] == [EXPONENT, EXPONENT]
        assert extra == json.loads(was["extra"])
    stored = stored_run(out)["settings"]["align"]
    assert stored == {**stored_run(plain)["settings"]["align"], "steps": ["toy_steps:gamma@1"]}

    # The same settings resume the folder, however they are written; a changed step is another setting.
    file = tmp_path / "settings.toml"
    done = flowkit("settings", "--of", out, "--out", file)
    assert done.code == 0
    assert "Warning: align.steps: flowkit extract --config imports and runs toy_steps:gamma@1." in done.err
    again = extract(cropped, out, modules, *with_step, "--json", "--verify-sources")
    assert (again.code, json.loads(again.out)["computed"]) == (0, 0)
    again = extract(cropped, out, modules, "--config", file, "--json")
    assert (again.code, json.loads(again.out)["computed"]) == (0, 0)
    write_toy(modules, version="2")
    changed = extract(cropped, out, modules, *with_step)
    assert changed.code == 2
    assert "align.steps ['toy_steps:gamma@1'] -> ['toy_steps:gamma@2']" in changed.err
    pinned = extract(cropped, tmp_path / "other", modules, "--config", file)
    assert pinned.code == 2
    assert "toy_steps:gamma must have the version 1; got 2." in pinned.err
    assert not (tmp_path / "other").exists()


def test_bytes_do_not_depend_on_a_step_that_is_there_and_not_named(
    undisturbed: Path, cropped: Path, tmp_path: Path
) -> None:
    write_toy(tmp_path)
    assert extract(cropped, tmp_path / "out", tmp_path).code == 0
    assert shard_bytes(tmp_path / "out") == shard_bytes(undisturbed)


def test_an_aligner_applies_further_steps_last_and_only_where_a_phase_is_valid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_toy(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "toy_steps", raising=False)
    faces = {}
    frames = np.random.default_rng(0).random((3, 64, 64), np.float32)
    for steps in ((), ("toy_steps:gamma",)):
        with Aligner(AlignConfig(method="none", size=64, stabilise="none", steps=steps)) as aligner:
            faces[steps] = carried(aligner, frames)
    plain, changed = faces.values()
    assert plain.records.keys() == {"light"}
    assert changed.records["exponent"].tolist() == [[EXPONENT], [EXPONENT]]
    assert np.array_equal(changed.records["light"], plain.records["light"])
    assert np.array_equal(changed.pixels[1], plain.pixels[1] ** np.float32(EXPONENT))
    assert np.array_equal(changed.pixels[2], changed.pixels[1])


def carried(aligner: Aligner, frames: npt.NDArray[np.float32]) -> Face:
    from flowkit.inputs.clip import Clip

    clip = Clip("a", "a.mp4", 0, 5, 9, "s1", "d", "happiness")
    anchor = aligner.anchor(clip, frames[0], np.zeros((64, 64, 3), np.uint8))
    return aligner.carry(anchor, (frames[0] * 0.9, frames[2]), (True, False), "a")


def test_numbers_of_a_record_read_back_from_their_text(tmp_path: Path) -> None:
    values = np.array([[EXPONENT, 1.0, -2.5e-17], [1e300, np.nan, -np.inf]])
    with Aligner(AlignConfig(method="none", size=64, stabilise="none")) as aligner:
        face = carried(aligner, np.random.default_rng(0).random((3, 64, 64), np.float32))
    assert _further_records(face) == {}
    texts = _further_records(type(face)(**{**fields_of(face), "records": {**face.records, "noted": values}}))
    assert texts == {"noted": "0.30000000000000004 1 -2.5e-17 1e+300 nan -inf"}
    np.testing.assert_array_equal(np.array(texts["noted"].split(), float).reshape(2, -1), values)


def fields_of(face: Face) -> dict[str, Any]:
    return {name: getattr(face, name) for name in face.__dataclass_fields__}


def test_other_processes_get_the_version_that_was_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_toy(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "toy_steps", raising=False)
    config = load_config(None, ['align.steps=["toy_steps:gamma"]'])
    assert config.anywhere().align.steps == ("toy_steps:gamma@1",)
    assert config.anywhere().fingerprint() == config.fingerprint() != ExtractConfig().fingerprint()


def test_the_example_of_the_guide_is_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guide = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()
    found = re.search(r"( {7}import numpy as np\n.*?version=\"1\"\)\n)", guide, re.DOTALL)
    assert found is not None
    (tmp_path / "my_steps.py").write_text(re.sub("^ {7}", "", found[1], flags=re.MULTILINE))
    monkeypatch.syspath_prepend(tmp_path)
    *_, step = steps_of(AlignConfig(steps=("my_steps:gamma",)))
    picture, record = applied([step], a_view(np.full((32, 32), 0.25, np.float32)), "a")
    assert (record, float(picture.mean())) == ({"exponent": (0.5,)}, 0.5)


# ------------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["no_such_module:gamma"], "no_such_module cannot be imported (ModuleNotFoundError: No module named"),
        (
            ["broken_steps:gamma"],
            "broken_steps cannot be imported (ZeroDivisionError: division by zero). Install it, or",
        ),
        (["odd_steps:plan"], "odd_steps has no plan. Did you mean odd_steps:plain?"),
        (["odd_steps:number"], "odd_steps:number must be a flowkit.face.picture_steps.Step; got int. Name a Step."),
        (["odd_steps:no_version"], "odd_steps:no_version must have a version, a text of one line; got ''."),
        (["odd_steps:two_lines"], "odd_steps:two_lines must have a version"),
        (["odd_steps:plain@2"], "odd_steps:plain must have the version 2; got 1."),
        (["odd_steps:flow"], "its records must have names of their own; got flow, which columns of the shard"),
        (["odd_steps:light"], "its records must have names of their own; got light"),
        (["odd_steps:confidence"], "its records must have names of their own; got apex_confidence"),
        (["odd_steps:peak"], "its records must have names of their own; got peak_px"),
        (["odd_steps:text"], "at_rest must hold sequences of numbers, at most 256 in all."),
        (["odd_steps:endless"], "at_rest must hold sequences of numbers, at most 256 in all."),
        (
            ["odd_steps"],
            'align.steps must be names as "module:attribute" or "module:attribute@version"; got (\'odd_steps\',)',
        ),
        ([""], 'align.steps must be names as "module:attribute"'),
        (["../odd_steps:plain"], 'align.steps must be names as "module:attribute"'),
        ("odd_steps:plain", 'align.steps must be a list, such as ["one", "another"]; got \'odd_steps:plain\''),
    ],
)
def test_what_is_no_step_is_refused_before_anything_is_written(
    cropped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str] | str, says: str
) -> None:
    (tmp_path / "odd_steps.py").write_text(CHANGED)
    (tmp_path / "broken_steps.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "odd_steps", raising=False)
    assert MOST_NUMBERS == 256
    done = flowkit("extract", cropped, "--out", tmp_path / "out", *SMALL, "--set", f"align.steps={json.dumps(names)}")
    assert done.code == 2
    assert says in done.err
    assert len(done.err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_all_that_is_wrong_with_steps_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "odd_steps.py").write_text(CHANGED)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "odd_steps", raising=False)
    with pytest.raises(ConfigError) as caught:
        steps_of(AlignConfig(steps=("none_such:a", "odd_steps:plain", "odd_steps:number")))
    assert len(str(caught.value).splitlines()) == 2


def test_a_step_that_raises_costs_the_clip_and_is_named() -> None:
    step = Step("gamma", lambda view: 1 // 0, version="1")  # type: ignore[arg-type, return-value]
    with pytest.raises(
        ClipError, match=r"^a: apex: the step gamma of align\.steps raised ZeroDivisionError: "
    ) as raised:
        applied([step], a_view(np.zeros((32, 32), np.float32)), "a: apex")
    assert raised.value.code == FailureCode.INTERNAL


@pytest.mark.parametrize(
    "result",
    [
        (np.zeros((32, 31), np.float32), {"exponent": (1.0,)}),
        (None, {"exponent": (1.0,)}),
        (np.zeros((32, 32), np.float32), {}),
        (np.zeros((32, 32), np.float32), {"exponent": (1.0, 2.0)}),
        (np.zeros((32, 32), np.float32), {"exponent": (1.0,), "flow": (1.0,)}),
    ],
)
def test_a_step_that_returns_something_else_than_announced_ends_the_run(result: Any) -> None:
    step = Step("gamma", lambda view: result, {"exponent": (1.0,)}, version="1")
    with pytest.raises(
        ConfigError, match=r"the step gamma must return a picture of shape \(32, 32\) and as many numbers"
    ):
        applied([step], a_view(np.zeros((32, 32), np.float32)), "a: apex")


def test_a_folder_that_names_code_is_read_without_it(
    undisturbed: Path, cropped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stranger's folder may name any module that this machine has."""
    marker = tmp_path / "imported"
    (tmp_path / "trap_steps.py").write_text(f"from pathlib import Path\nPath({str(marker)!r}).touch()")
    monkeypatch.syspath_prepend(tmp_path)
    out = shutil.copytree(undisturbed, tmp_path / "out")
    run = stored_run(out)
    run["settings"]["align"]["steps"] = ["trap_steps:gamma@1"]
    (out / "run.json").write_bytes(hashed_json.encode(run))
    for command in (
        ("inspect", out),
        ("verify", out),
        ("report", out),
        ("export", out, "--format", "npz", "--out", tmp_path / "exported"),
        ("settings", "--of", out),
    ):
        assert flowkit(*command).code == 0, command
    assert 'steps = ["trap_steps:gamma@1"]' in flowkit("settings", "--of", out).out
    resumed = flowkit("extract", cropped, "--out", out, *SMALL)
    assert resumed.code == 2
    assert "align.steps ['trap_steps:gamma@1'] -> None" in resumed.err
    assert not marker.exists()
    flowkit("extract", cropped, "--out", out, *SMALL, *naming("trap_steps:gamma"))
    assert marker.exists()
