"""One network trained on everybody, for use: a model card in place of scores."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from made_clips import made_clips, made_shards

from fmanet import run_folder
from fmanet.cli import main
from fmanet.protocol import everybody, split
from fmanet.training_run import Summary

FLAGS = ("--set", "network.width=4", "--set", "network.grid=4", "--epochs", "1", "--workers", "1")


def fmanet(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_shards(tmp_path_factory.mktemp("shards") / "casme2", subjects=3, size=32)


@pytest.fixture(scope="module")
def model(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read-only by agreement."""
    out = tmp_path_factory.mktemp("model") / "model"
    done = fmanet("train", shards, "--final", "--out", out, *FLAGS)
    assert done.exit_code == 0, done.stderr
    assert f"Trained on everybody, so there is no score. Model card: {out / 'README.md'}" in done.stdout
    return out


def test_the_fold_of_everybody_holds_out_nobody() -> None:
    clips = made_clips(3, 1)
    (fold,) = everybody(clips)
    training, held_out = split(clips, fold)
    assert (len(training), len(held_out)) == (9, 0)


def test_the_card_says_on_whom(model: Path) -> None:
    text = (model / "README.md").read_text()
    record = next(model.glob("folds/everybody/seed-0.json"))
    weights = json.loads(record.read_bytes())["content"]["weights"]
    for said in (
        "9 clips of 3 subjects: 3 of casme2.",
        "- casme2: s00, s01, s02",
        "negative, positive, surprise",
        "in pixels of the crop",
        "Nobody was held out, so this network has no score of its own",
        weights["sha256"],
        "from random weights",
    ):
        assert said in text
    assert not (model / "scores.json").exists()
    assert not (model / "report.html").exists()


def test_a_final_network_answers_and_is_exported(model: Path, shards: Path, tmp_path: Path) -> None:
    done = fmanet("predict", model, shards, "--out", tmp_path / "answers.csv")
    assert done.exit_code == 0, done.stderr
    assert "9 of 9 clips are of subjects of the run itself" in done.stderr
    with (tmp_path / "answers.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 9
    exported = fmanet("export", model, "--out", tmp_path / "onnx")
    assert exported.exit_code == 0, exported.stderr
    facts = json.loads(next((tmp_path / "onnx").glob("*.json")).read_text())
    assert (facts["fold"], facts["held_out"]) == ("everybody", [])


def test_a_final_run_is_resumed_and_thrown_away_as_any_other(model: Path, shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    first = fmanet("train", shards, "--final", "--out", out, *FLAGS, "--seeds", "2", "--json")
    assert json.loads(first.stdout)["card"] == str(out / "README.md")
    assert (out / "README.md").read_text().count("SHA-256") == 2
    again = fmanet("train", shards, "--final", "--out", out, *FLAGS, "--seeds", "2", "--json")
    assert json.loads(again.stdout)["resumed"] == 2
    assert fmanet("train", shards, "--out", out, *FLAGS).exit_code == 2
    anew = fmanet("train", shards, "--out", out, *FLAGS, "--overwrite")
    assert anew.exit_code == 0, anew.stderr
    assert not (out / "README.md").exists()
    stored = run_folder.open_run(model)[1]
    assert (stored.is_final, stored.protocol.name) == (True, "final")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("evaluate", "MODEL"), "a run must hold somebody out to be scored"),
        (("report", "MODEL"), "a run must hold somebody out to be scored"),
        (("train", "SHARDS", "--final", "--protocol", "loso"), "holds out nobody"),
        (("train", "SHARDS", "--final", "--hold-out", "casme2/s00"), "holds out nobody"),
        (("train", "SHARDS", "--final", "--keep-epochs"), "keep_epochs must be false where nobody is held out"),
        (("ablate", "SHARDS", "--set", "protocol.name=final"), "must hold somebody out"),
    ],
)
def test_what_needs_held_out_clips_is_refused(
    arguments: tuple[str, ...], says: str, model: Path, shards: Path, tmp_path: Path
) -> None:
    named = [str({"MODEL": model, "SHARDS": shards}.get(word, word)) for word in arguments]
    out = () if arguments[0] in ("evaluate", "report") else ("--out", tmp_path / "run")
    done = fmanet(*named, *out)
    assert (done.exit_code, says in done.stderr) == (2, True), done.stderr


def test_a_summary_without_a_card_says_nothing_of_one() -> None:
    assert "card" not in Summary(Path("run")).to_dict()
