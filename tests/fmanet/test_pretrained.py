"""Networks pretrained on synthetic samples: reproducible, calibrated, refused where they do not fit, and a start for others."""

from __future__ import annotations

import csv
import json
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from made_clips import long_face, made_shards

from flowkit.errors import ConfigError, Interrupted
from flowkit.execution.stop import Stop
from flowkit.storage import commit, hashed_json
from flowkit.synthetic.flow_samples import FlowConfig
from flowkit.synthetic.sample_files import write_samples
from fmanet import checkpoint, run_folder
from fmanet.building import build_network
from fmanet.cli import main
from fmanet.errors import CheckpointRefused
from fmanet.pretrained.card import card, commands
from fmanet.pretrained.model_folder import (
    CARD_FILE,
    MEASURED_FILE,
    MODEL_FILE,
    SHIPPED,
    model_at,
    read_model,
    shipped,
    start_of,
)
from fmanet.pretrained.pretraining import pretrain
from fmanet.pretrained.samples import load_samples
from fmanet.pretrained.start import begin_from
from fmanet.pretrained.trust import best_temperature, measured, share_right, temperature_of, trust, with_temperature
from fmanet.settings import NetworkConfig, TrainSettings
from fmanet.training import started
from json_mutations import mutations

SMALL = {"network": {"width": 4, "streams": 1}, "train": {"epochs": 1}, "set_aside": 0.3}
FEW = ("--epochs", "1", "--workers", "1")


def fmanet(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By the unit: a few samples of ten people; read-only by agreement."""
    folder = tmp_path_factory.mktemp("samples")
    return {
        "px": write_samples(folder / "px", FlowConfig(samples=120, size=32, per_person=12), workers=1),
        "minmax": write_samples(folder / "minmax", FlowConfig(samples=120, form="pictures", per_person=12), workers=1),
    }


@pytest.fixture(scope="module")
def model(samples: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model for flow in pixels; read-only by agreement."""
    out = tmp_path_factory.mktemp("model") / "px"
    pretrain([samples["px"]], out, SMALL)
    return out


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `flowkit extract` leaves them by default; the first clip has landmarks. Read-only by agreement."""
    return fitting_shards(tmp_path_factory.mktemp("shards") / "casme2")


def fitting_shards(out: Path, **given: Any) -> Path:
    return made_shards(
        out, **{"subjects": 3, "method": "mediapipe", "stabilise": "head", "landmarks": {0: long_face(32)}, **given}
    )


def changed_run(shards: Path, out: Path, change: Any) -> Path:
    """The same shards, whose run.json says something else."""
    shutil.copytree(shards, out)
    path = out / commit.RUN_FILE
    run = json.loads(path.read_bytes())["content"]
    change(run)
    path.write_bytes(hashed_json.encode(run))
    return out


# ------------------------------------------------------------------------------------------------------- samples


def test_samples_are_clips_as_shards_would_give_them(samples: dict[str, Path]) -> None:
    found = load_samples([samples["px"]], 28)
    clips = found.clips
    assert (clips.units, clips.flow.shape, all(clips.carried)) == ("px", (120, 2, 2, 28, 28), True)
    assert len(set(clips.subject)) == 10
    assert not (clips.flow * ~clips.region[:, None, None]).abs().max() > 1  # hardly anything moves outside the face
    assert found.stands_for["align"]["stabilise"] == "head"
    pictures = load_samples([samples["minmax"]], 28).clips
    assert (pictures.units, any(pictures.carried), pictures.region.all()) == ("minmax", False, torch.tensor(True))


def test_samples_that_cannot_be_trained_on_together_are_refused(samples: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"must have different seeds, .* got \[0, 0\]"):
        load_samples([samples["px"], samples["px"]], 28)
    with pytest.raises(ConfigError, match="samples must have the units of"):
        load_samples([samples["px"], samples["minmax"]], 28)
    with pytest.raises(ConfigError, match=r"must hold settings\.json"):
        load_samples([tmp_path], 28)


# ------------------------------------------------------------------------------------------------------- pretraining


def test_the_same_commands_give_the_same_weights(samples: dict[str, Path], model: Path, tmp_path: Path) -> None:
    again, other = (pretrain([samples["px"]], tmp_path / str(seed), {**SMALL, "seed": seed}) for seed in (0, 1))
    assert again.digest == read_model(model).digest != other.digest
    assert (again.content["temperature"], again.content["set_aside"]) == (
        read_model(model).content["temperature"],
        read_model(model).content["set_aside"],
    )


def test_nobody_is_trained_on_who_the_trust_comes_from(model: Path) -> None:
    content = read_model(model).content
    assert (content["trained_on"]["people"], content["set_aside"]["people"]) == (7, 3)
    assert content["trained_on"]["samples"] + content["set_aside"]["clips"] == 120
    assert sum(band["clips"] for band in content["set_aside"]["bands"]) == content["set_aside"]["clips"]


def test_the_card_tells_how_it_was_made(model: Path) -> None:
    content = read_model(model).content
    text = (model / CARD_FILE).read_text()
    assert text == card(content)
    made = commands(content)
    assert made == [
        "flowkit synth --level flow --samples 120 --size 32 --per-person 12 --out samples",
        "fmanet pretrain samples --out model --set network.streams=1 --set network.width=4 --set set_aside=0.3 "
        "--set train.epochs=1",
    ]
    assert all(f"    {line}\n" in text for line in made)
    for said in (
        "negative, positive, surprise",
        "not a lie detector",
        content["weights"]["sha256"],
        "not measured on real",
    ):
        assert said in text


def test_the_command_refuses_what_would_be_lost(samples: dict[str, Path], model: Path, tmp_path: Path) -> None:
    there = shutil.copytree(model, tmp_path / "there")
    again = fmanet("pretrain", samples["px"], "--out", there)
    assert (again.exit_code, "must not hold a model" in again.stderr) == (2, True)
    done = fmanet(
        *("pretrain", samples["px"], "--out", there, "--overwrite", "--epochs", "1", "--seed", "3", "--json"),
        *("--set", "network.width=4", "--set", "network.streams=1"),
    )
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["weights"] == read_model(there).content["weights"]["name"]
    assert len(list(there.glob("*.safetensors"))) == 1
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    full = fmanet("pretrain", samples["px"], "--out", tmp_path / "full", "--overwrite")
    assert (full.exit_code, "thesis.txt" in full.stderr) == (2, True)
    odd = fmanet("pretrain", samples["px"], "--out", tmp_path / "new", "--set", "network.action_units=true")
    assert (odd.exit_code, "action_units must be false" in odd.stderr) == (2, True)
    assert not (tmp_path / "new").exists()


class AtOnce(Stop):
    def check(self) -> None:
        self.request()
        super().check()


def test_what_was_stopped_wrote_nothing(samples: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(Interrupted, match=r"nothing was written\. Run the same command again to begin anew"):
        pretrain([samples["px"]], tmp_path / "out", SMALL, stop=AtOnce("pretrain", resumes=False))
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------------------------------------------- trust


def test_a_temperature_takes_back_what_a_network_is_too_sure_of() -> None:
    rng = np.random.default_rng(0)
    honest = rng.dirichlet([1, 1, 1], 4000)
    target = np.array([rng.choice(3, p=own) for own in honest])
    sure = with_temperature(honest, 0.4)
    found = best_temperature(sure, target)
    assert found == pytest.approx(2.5, rel=0.1)
    assert np.allclose(with_temperature(sure, 2.5), honest, atol=1e-6)
    assert np.array_equal(with_temperature(sure, found).argmax(1), honest.argmax(1))


def test_the_share_right_is_that_of_answers_as_sure(samples: dict[str, Path]) -> None:
    clips = load_samples([samples["minmax"]], 28).clips
    sure = np.full((120, 3), 0.05)
    sure[np.arange(120), clips.target.numpy()] = 0.9
    sure[:60] = [0.4, 0.3, 0.3]
    found = trust(sure, clips)
    right = float((clips.target[:60] == 0).double().mean())
    assert share_right(sure, found) == [round(right, 4)] * 60 + [1.0] * 60
    assert share_right(np.array([[0.65, 0.35, 0.0]]), found) == [None]  # nobody was as sure
    assert share_right(sure[:2], None) == [None, None]


# ------------------------------------------------------------------------------------------------------- answers


def test_a_model_answers_for_shards_that_it_fits(model: Path, shards: Path, tmp_path: Path) -> None:
    done = fmanet("predict", model, shards, "--out", tmp_path / "answers.csv")
    assert done.exit_code == 0, done.stderr
    assert "This network has seen synthetic faces only" in done.stderr
    assert "8 of 9 clips have no landmarks" in done.stderr
    with (tmp_path / "answers.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 9
    names = ["p:negative", "p:positive", "p:surprise"]
    assert list(rows[0]) == ["clip_id", "subject", "dataset", "prediction", *names, "right_synthetic", "right_real"]
    for row in rows:
        shares = {name: float(row[name]) for name in names}
        assert sum(shares.values()) == pytest.approx(1)
        assert f"p:{row['prediction']}" == max(shares, key=shares.__getitem__)
        assert row["right_real"] == ""


def test_a_temperature_that_was_measured_counts_and_the_card_says_on_whom(
    model: Path, shards: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    content = read_model(folder).content
    figures = {**content["set_aside"], "name": "extracted clips", "kind": "synthetic"}
    figures |= {score: {"value": 0.5, "low": 0.4, "high": 0.6} for score in ("uf1", "uar", "acc")}
    found = {
        "temperature": content["temperature"] / 2,
        "calibrated_on": "clips of a test",
        "tests": [figures],
        "notes": [],
    }
    text = card(content, found)
    assert f"calibrated on clips of a test (temperature {found['temperature']})" in text
    assert text.count("synthetic people set aside") == 1  # its scores; its bands are of another temperature
    largest = []
    for stored in (None, found):
        if stored:
            (folder / MEASURED_FILE).write_text(json.dumps(stored))
        assert fmanet("predict", folder, shards, "--out", tmp_path / "answers.csv").exit_code == 0
        with (tmp_path / "answers.csv").open() as file:
            rows = list(csv.DictReader(file))
        largest.append([max(float(row[f"p:{name}"]) for name in content["classes"]) for row in rows])
    assert all(sharper > softer for softer, sharper in zip(*largest, strict=True))
    for wrong in (0, -1, "hot", None, 1e9, True):
        (folder / MEASURED_FILE).write_text(json.dumps({**found, "temperature": wrong}))
        with pytest.raises(CheckpointRefused, match="temperature must be above 0 and at most"):
            temperature_of(folder, content)


def older(run: dict[str, Any]) -> None:
    run["shard_schema"] = 1


def otherwise(run: dict[str, Any]) -> None:
    run["settings"]["align"]["stabilise"] = "none"


def another_solver(run: dict[str, Any]) -> None:
    run["settings"]["tvl1"]["theta"] = 0.3


def minmax(run: dict[str, Any]) -> None:
    run["settings"]["units"] = "minmax"


UNFIT = {
    "units": (minmax, "flow must be in 'px' for the model"),
    "schema": (older, "must be of schema 2 or newer for a pretrained model; got 1"),
    "alignment": (otherwise, "must be aligned as those that the model was made for"),
    "solver": (another_solver, "must be aligned as those that the model was made for"),
}


@pytest.mark.parametrize("case", UNFIT)
@pytest.mark.parametrize("command", ["predict", "train"])
def test_shards_of_another_kind_are_refused(case: str, command: str, model: Path, shards: Path, tmp_path: Path) -> None:
    change, says = UNFIT[case]
    other = changed_run(shards, tmp_path / "other", change)
    if command == "predict":
        done = fmanet("predict", model, other, "--out", tmp_path / "out.csv")
    else:
        done = fmanet("train", other, "--out", tmp_path / "run", "--set", f"train.start={model}")
    assert done.exit_code == 2, done.stderr
    assert says in done.stderr
    assert not (tmp_path / "out.csv").exists()
    assert not (tmp_path / "run").exists()


def test_another_alignment_is_taken_where_it_is_asked_for(model: Path, shards: Path, tmp_path: Path) -> None:
    other = changed_run(shards, tmp_path / "other", otherwise)
    done = fmanet("predict", model, other, "--out", tmp_path / "out.csv", "--allow-mixed-alignment")
    assert done.exit_code == 0, done.stderr


def test_where_landmarks_come_from_does_not_matter(model: Path, shards: Path, tmp_path: Path) -> None:
    def given(run: dict[str, Any]) -> None:
        run["settings"]["align"] |= {"method": "landmarks", "landmarks": "mine.csv", "size": 32}

    other = changed_run(shards, tmp_path / "other", given)
    assert fmanet("predict", model, other, "--out", tmp_path / "out.csv").exit_code == 0


def test_weights_that_do_not_fit_their_model_json_are_refused(model: Path, shards: Path, tmp_path: Path) -> None:
    spoilt = shutil.copytree(model, tmp_path / "spoilt")
    weights = next(spoilt.glob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    done = fmanet("predict", spoilt, shards, "--out", tmp_path / "out.csv")
    assert (done.exit_code, "another hash" in done.stderr) == (1, True)
    run = fmanet("train", shards, "--out", tmp_path / "run", "--set", f"train.start={spoilt}", *FEW)
    assert (run.exit_code, "another hash" in run.stderr) == (1, True)
    weights.unlink()
    assert fmanet("predict", spoilt, shards, "--out", tmp_path / "out.csv").exit_code == 1


def test_a_model_json_of_another_form_is_refused_in_words(model: Path, shards: Path, tmp_path: Path) -> None:
    spoilt = shutil.copytree(model, tmp_path / "spoilt")
    path = spoilt / MODEL_FILE
    changes = list(mutations(json.loads(path.read_bytes())["content"], 3, seed=2))
    refused = 0
    for what, content in random.Random(2).sample(changes, 60):
        path.write_bytes(hashed_json.encode(content))
        done = fmanet("predict", spoilt, shards, "--out", tmp_path / "out.csv")
        assert done.exception is None or type(done.exception) is SystemExit, (what, repr(done.exception))
        assert done.exit_code in (0, 1, 2), (what, done.stderr)
        refused += done.exit_code != 0
    assert refused > 10
    path.write_bytes(b"{}")
    assert fmanet("predict", spoilt, shards, "--out", tmp_path / "out.csv").exit_code == 1


def test_shards_must_be_named(model: Path, tmp_path: Path) -> None:
    done = fmanet("predict", model, "--out", tmp_path / "out.csv")
    assert (done.exit_code, "name at least one folder of shards" in done.stderr) == (2, True)


# ------------------------------------------------------------------------------------------------------- a start


def test_every_network_of_a_run_starts_from_the_model(model: Path, shards: Path, tmp_path: Path) -> None:
    done = fmanet("train", shards, "--out", tmp_path / "run", "--set", f"train.start={model}", *FEW, "--json")
    assert done.exit_code == 0, done.stderr
    facts, settings, _ = run_folder.open_run(tmp_path / "run")
    assert settings.train.start == start_of(model)
    assert (settings.size, settings.network.width, settings.classes) == (28, 4, "3-class")
    network = started(settings.network, settings.train, 5)
    weights = checkpoint.load(model / MODEL_FILE).model.state_dict()
    assert all(torch.equal(network.state_dict()[name], value) for name, value in weights.items())
    resumed = fmanet("train", shards, "--out", tmp_path / "run", "--set", f"train.start={model}", *FEW, "--json")
    assert json.loads(resumed.stdout)["resumed"] == 3
    again = fmanet("settings", "--of", tmp_path / "run", "--out", tmp_path / "run.toml")
    assert again.exit_code == 0
    same = fmanet("train", shards, "--out", tmp_path / "run", "--config", tmp_path / "run.toml", "--dry-run", "--json")
    assert json.loads(same.stdout)["fingerprint"] == facts["fingerprint"]


def test_a_stream_of_action_units_is_added_to_a_start(model: Path) -> None:
    config = replace(read_model(model).network, action_units=True)
    network = build_network(config, 0)
    fresh = {name: value.clone() for name, value in network.state_dict().items()}
    begin_from(network, start_of(model))
    units = [name for name in fresh if name.startswith("units.")]
    assert units
    assert all(torch.equal(network.state_dict()[name], fresh[name]) for name in units)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--classes", "raw"), "classes must be that of the pretrained network, '3-class'; got 'raw'"),
        (("--set", "network.width=12"), "network.width must be that of the pretrained network, 4; got 12"),
        (("--network", "lda"), "network.network must be that of the pretrained network, 'fmanet'; got 'lda'"),
        (("--size", "32"), "size must be that of the pretrained network, 28; got 32"),
        (("--pretrained",), "and left out with fmanet train --pretrained"),
    ],
)
def test_settings_that_the_start_decides_are_not_to_be_changed(
    flags: tuple[str, ...], says: str, model: Path, shards: Path, tmp_path: Path
) -> None:
    done = fmanet("train", shards, "--out", tmp_path / "run", "--set", f"train.start={model}", *flags)
    assert (done.exit_code, says in done.stderr) == (2, True), done.stderr


def test_a_network_of_another_shape_cannot_begin_from_a_model(model: Path) -> None:
    for config in (NetworkConfig(width=8, streams=1), NetworkConfig(network="lda"), NetworkConfig(attention=True)):
        with pytest.raises(ConfigError, match="network must have the weights of its start"):
            started(config, TrainSettings(start=start_of(model)), 0)


def test_a_run_goes_on_with_the_weights_that_it_began_with_or_not_at_all(
    samples: dict[str, Path], model: Path, shards: Path, tmp_path: Path
) -> None:
    mine = shutil.copytree(model, tmp_path / "mine")
    done = fmanet("train", shards, "--out", tmp_path / "run", "--set", f"train.start={mine}", *FEW)
    assert done.exit_code == 0, done.stderr
    pretrain([samples["px"]], mine, {**SMALL, "seed": 9}, overwrite=True)
    other = fmanet("train", shards, "--out", tmp_path / "run", "--set", f"train.start={mine}", *FEW)
    assert (other.exit_code, "train.start" in other.stderr) == (2, True)
    stored = run_folder.open_run(tmp_path / "run")[1].train.start
    with pytest.raises(ConfigError, match="must be the weights"):
        model_at(stored)


# ------------------------------------------------------------------------------------------------------- those of flowkit


@pytest.mark.parametrize("units", SHIPPED)
def test_the_shipped_models_are_what_their_cards_say(units: str) -> None:
    folder = shipped(units)
    model = read_model(folder)
    loaded = checkpoint.load(model.path)
    assert (model.units, model.classes) == (units, ("negative", "positive", "surprise"))
    assert not loaded.network.action_units
    assert (folder / CARD_FILE).read_text() == card(model.content, measured(folder))
    assert sorted(path.suffix for path in folder.iterdir()) in (
        [".json", ".json", ".md", ".safetensors"],
        [".json", ".md", ".safetensors"],
    )
    assert next(folder.glob("*.safetensors")).stat().st_size < 200_000
    assert model_at(start_of(folder)).digest == model.digest


def test_the_shipped_model_for_the_units_is_taken(shards: Path, tmp_path: Path) -> None:
    done = fmanet("predict", "--pretrained", shards, "--out", tmp_path / "px.csv")
    assert done.exit_code == 0, done.stderr
    run = fmanet("train", shards, "--pretrained", "--out", tmp_path / "run", *FEW)
    assert run.exit_code == 0, run.stderr
    assert run_folder.open_run(tmp_path / "run")[1].train.start == start_of(shipped("px"))
    other = changed_run(shards, tmp_path / "other", minmax)
    mixed = fmanet("predict", "--pretrained", shards, other, "--out", tmp_path / "both.csv")
    assert (mixed.exit_code, "must have one unit" in mixed.stderr) == (2, True)
    with pytest.raises(ConfigError, match="flow must be in one of px, minmax; got 'cm'"):
        shipped("cm")
    with pytest.raises(CheckpointRefused):
        read_model(tmp_path)


@pytest.mark.parametrize("units", SHIPPED)
def test_the_figures_of_the_cards_are_those_that_were_measured(units: str) -> None:
    path = Path(__file__).parents[2] / "benchmarks" / "results" / "pretrained-zero-shot.json"
    stored = json.loads(path.read_text(encoding="utf-8"))["results"][units]
    assert measured(shipped(units)) == stored
    assert stored["weights"] == read_model(shipped(units)).digest
