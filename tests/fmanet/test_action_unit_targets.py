"""Action units as targets: several classes a clip, F1 of each unit."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from made_clips import LABELS, made_shards

import own_set
from flowkit.errors import ConfigError
from flowkit.labels.action_units import are_action_units, one_word, shown_in, units_of
from fmanet.ablation import ladder
from fmanet.building import build_network, load_weights
from fmanet.checkpoint import load
from fmanet.cli import main
from fmanet.dataset import ShardDataset
from fmanet.errors import TableDamaged
from fmanet.loss import class_weights, classification_loss, logits_of, probabilities, right
from fmanet.scoring.intervals import paired_difference, subject_interval
from fmanet.scoring.metrics import by_subject, mistakes, score, seed_average
from fmanet.scoring.prediction_table import Prediction, answer, parse_table, table_bytes
from fmanet.settings import NetworkConfig, RunSettings, TrainSettings
from fmanet.stacked_training import train_together
from fmanet.training import predict, train

UNITS = {"happiness": "R6 + AU12", "surprise": "1+2B", "disgust": "4+L6"}
CLASSES = ("AU1", "AU2", "AU4", "AU6", "AU12")
SMALL = NetworkConfig(classes=len(CLASSES), multi_label=True, width=4, grid=4, action_units=False)
FLAGS = ("--set", "network.width=4", "--set", "network.grid=4", "--workers", "1")


def fmanet(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def shards_in(folder: Path, **given: object) -> Path:
    return made_shards(folder, **{"subjects": 4, "repeats": 2, "size": 32, "units": UNITS, **given})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shards_in(tmp_path_factory.mktemp("shards") / "casme2")


@pytest.fixture(scope="module")
def run(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read-only by agreement."""
    out = tmp_path_factory.mktemp("run") / "run"
    done = fmanet("train", shards, "--classes", "action-units", "--epochs", "12", "--seeds", "2", "--out", out, *FLAGS)
    assert done.exit_code == 0, done.stderr
    return out


def row(subject: str, truth: str, said: str, *, seed: int = 0, number: int = 0) -> Prediction:
    shares = tuple(0.9 if name in shown_in(said) else 0.1 for name in ("AU1", "AU4"))
    return Prediction(f"{subject}-{number}", f"lab/{subject}", "lab", subject, seed, truth, said, shares)


# --- what an annotation says


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("4+7", {4, 7}),
        ("R12 + R15", {12, 15}),
        ("L4C+au7", {4, 7}),
        ("4, 7", {4, 7}),
        ("4+7+23?", {4, 7, 23}),
        ("AU43E", {43}),
        ("", None),
        ("0", None),
        ("none", None),
        ("?", None),
        ("2016", None),
    ],
)
def test_cells_of_annotations(text: str, units: set[int] | None) -> None:
    assert units_of({"action_units": text}) == units


def test_units_that_were_there_before_the_expression_do_not_count() -> None:
    assert units_of({"action_units": "AU4(k)+L7", "moving_units": "L7"}) == {7}
    assert units_of({"action_units": "AU4(k)", "moving_units": ""}) is None
    assert units_of({"action_units": "4+7", "moving_units": ""}) == {4, 7}  # a manifest of several sets
    assert units_of({}) is None


def test_names_of_classes() -> None:
    assert are_action_units(("AU1", "AU12"))
    assert not are_action_units(("AU1", "positive"))
    assert not are_action_units(())
    assert (one_word(["AU1", "AU4"]), one_word([])) == ("AU1+AU4", "none")
    assert (shown_in("AU1+AU4"), shown_in("none")) == (["AU1", "AU4"], [])


def test_clips_have_the_units_of_their_manifest(shards: Path) -> None:
    dataset = ShardDataset([shards], "action-units")
    clips = dataset.clips()
    assert clips.multi_label
    assert clips.classes == CLASSES
    assert clips.class_counts() == {"AU1": 8, "AU2": 8, "AU4": 8, "AU6": 16, "AU12": 8}
    assert {clips.truth(n) for n in range(len(clips))} == {"AU6+AU12", "AU1+AU2", "AU4+AU6"}
    assert (clips.lacking(), clips.lacking([0, 1])) == ([], list(CLASSES))
    assert torch.equal(dataset[3]["target"], clips.target[3])


def test_clips_without_units_are_left_out_and_rare_units_are_no_class(tmp_path: Path) -> None:
    many = shards_in(tmp_path / "many", units={"happiness": "6+12", "surprise": "6+12"})
    with pytest.raises(
        ConfigError, match=r"two action units or more must each be in 5 clips of 2 subjects.*AU6 in 16, AU12 in 16"
    ):
        ShardDataset([many], "action-units")
    some = shards_in(tmp_path / "some", units={"happiness": "6+12", "surprise": "1+2"}, dataset="samm")
    few = shards_in(tmp_path / "few", subjects=1, units=dict.fromkeys(LABELS, "17"), dataset="mmew")
    dataset = ShardDataset([some, few], "action-units", mixed_alignment=True)
    assert dataset.classes == ("AU1", "AU2", "AU6", "AU12")
    assert dataset.excluded == {"samm/no action units": 8}
    assert dataset.rare == {"AU17": 6}
    with pytest.raises(ConfigError, match=r"got none in 24 clips\. The manifest's column action_units names them"):
        ShardDataset([shards_in(tmp_path / "none", units={})], "action-units")


def test_a_grouping_may_not_have_classes_that_look_like_units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names alone say whether a clip may be of several classes."""
    toml = (
        own_set.TOML.replace('"joy"', '"AU1"')
        .replace('"rest"', '"AU4"')
        .replace("joy =", "AU1 =")
        .replace("rest =", "AU4 =")
    )
    own_set.write(tmp_path / "lab", toml=toml)
    monkeypatch.setenv(own_set.VARIABLE, str(tmp_path / "lab"))
    shards = shards_in(tmp_path / "toy", dataset="toy", labels=("AU1", "AU4"))
    with pytest.raises(ConfigError, match="must not all be named like action units; got AU1, AU4 in toy-2"):
        ShardDataset([shards], "toy-2")


# --- the loss


def test_the_loss_is_that_of_both_answers_of_each_unit_weighted_by_rarity() -> None:
    target = torch.tensor([[1, 0], [0, 0], [1, 1], [0, 0], [0, 1]])
    weights = class_weights(target, 2, "weighted")
    assert weights.tolist() == [pytest.approx([5 / 6, 5 / 6]), pytest.approx([5 / 4, 5 / 4])]
    assert class_weights(target, 2, "plain").tolist() == [[1, 1], [1, 1]]
    logits = torch.randn(5, 2, generator=torch.Generator().manual_seed(1))
    p, t = logits.sigmoid(), target.float()
    share = torch.where(t > 0, 5 / 4, 5 / 6)
    by_hand = -(share * (t * p.log() + (1 - t) * (1 - p).log())).sum() / share.sum()
    found = classification_loss(logits, t, weights, torch.ones(5), "weighted", 2.0)
    torch.testing.assert_close(found, by_hand)
    said = torch.where(t > 0, p, 1 - p)
    focal = -(share * (1 - said) ** 3 * said.log()).sum() / share.sum()
    torch.testing.assert_close(classification_loss(logits, t, weights, torch.ones(5), "focal", 3.0), focal)
    twice = classification_loss(logits[:, None].repeat(1, 2, 1), t, weights, torch.ones(5), "weighted", 2.0)
    torch.testing.assert_close(twice, 2 * by_hand)


def test_rows_that_fill_up_do_not_count() -> None:
    target, weights = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.ones(2, 2)
    logits = torch.tensor([[1.0, -2.0], [5.0, 5.0]])
    whole = classification_loss(logits[:1], target[:1], weights, torch.ones(1), "weighted", 2.0)
    filled = classification_loss(logits, target, weights, torch.tensor([1.0, 0.0]), "weighted", 2.0)
    torch.testing.assert_close(whole, filled)


def test_probabilities_and_logits() -> None:
    logits = torch.tensor([[2.0, -1.0], [0.5, 3.0]])
    for each in (False, True):
        shares = probabilities(logits, each=each)
        torch.testing.assert_close(probabilities(logits_of(shares, each=each), each=each), shares)
    assert right(logits, torch.tensor([[1.0, 0.0], [1.0, 0.0]]), each=True).tolist() == [True, False]


# --- training


def test_a_network_learns_units_alone_and_stacked(shards: Path) -> None:
    clips = ShardDataset([shards], "action-units", size=28).clips()
    settings = TrainSettings(epochs=25, batch=8)
    network = replace(SMALL, width=12)
    alone = train(clips, network, settings, 3)
    model = build_network(network, 0)
    load_weights(model, alone.state)
    shares = predict(model, clips, settings)
    assert ((shares >= 0.5) == (clips.target.numpy() == 1)).mean() > 0.95
    assert not np.allclose(shares.sum(1), 1)
    still = TrainSettings(epochs=2, batch=8, stack=2)
    no_dropout = replace(SMALL, dropout=0.0)
    together = train_together([clips, clips], no_dropout, still, [3, 4])
    by_itself = train(clips, no_dropout, still, 3)
    for name, value in by_itself.state.items():
        torch.testing.assert_close(together[0].state[name], value, atol=2e-4, rtol=2e-3)


def test_a_run_is_scored_unit_by_unit(run: Path) -> None:
    scores = json.loads((run / "scores.json").read_text())
    assert scores["classes"] == list(CLASSES)
    assert scores["clips"] == 24
    pooled = scores["seed_average"]
    assert pooled["clips"] == 24
    assert np.array(pooled["matrix"]).shape == (5, 2, 2)
    assert pooled["per_class"]["AU6"]["support"] == 16
    assert pooled["uf1"] == pytest.approx(np.mean([one["f1"] for one in pooled["per_class"].values()]))
    assert pooled["uf1"] > 0.8
    assert scores["interval"]["uf1"]["low"] <= pooled["uf1"] <= scores["interval"]["uf1"]["high"]
    with (run / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {one["truth"] for one in rows} == {"AU6+AU12", "AU1+AU2", "AU4+AU6"}
    assert all(set(shown_in(one["prediction"])) == {n for n in CLASSES if float(one[f"p:{n}"]) >= 0.5} for one in rows)


def test_the_page_shows_each_unit(run: Path) -> None:
    page = (run / "report.html").read_text()
    assert "Each action unit is a question by itself" in page
    assert "false alarms" in page
    assert "A row is a true class" not in page


def test_a_run_answers_is_compared_and_exported(run: Path, shards: Path, tmp_path: Path) -> None:
    assert fmanet("predict", run, shards, "--out", tmp_path / "new.csv").exit_code == 0
    with (tmp_path / "new.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sum(one["prediction"] in ("AU6+AU12", "AU1+AU2", "AU4+AU6") for one in rows) >= 12
    other = tmp_path / "other"
    flags = ("--classes", "action-units", "--network", "cnn", "--epochs", "2", "--out", other, *FLAGS)
    assert fmanet("train", shards, *flags).exit_code == 0
    compared = fmanet("compare", run, other, "--json")
    assert compared.exit_code == 0, compared.stderr
    assert json.loads(compared.stdout)["rows"][1]["against_first"]["value"] < 0


def test_an_exported_network_gives_each_units_probability(run: Path, shards: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    ort = pytest.importorskip("onnxruntime")
    done = fmanet("export", run, "--out", tmp_path / "onnx", "--fold", "casme2.s00", "--seed", "0")
    assert done.exit_code == 0, done.stderr
    (side,) = (tmp_path / "onnx").glob("*.json")
    told = json.loads(side.read_text())
    assert (told["classes"], told["network"]["multi_label"]) == (list(CLASSES), True)
    clips = ShardDataset([shards], "action-units").clips()
    loaded = load(run / "folds" / "casme2.s00" / "seed-0.json")
    session = ort.InferenceSession(str(side.with_suffix(".onnx")), providers=["CPUExecutionProvider"])
    given = {one.name: getattr(clips, one.name).numpy() for one in session.get_inputs()}
    logits, shares = session.run(["logits", "probabilities"], given)
    np.testing.assert_allclose(shares, predict(loaded.model, clips, TrainSettings()), atol=1e-4)
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), shares, atol=1e-4)


def test_epochs_are_chosen_by_the_loss_of_units(shards: Path) -> None:
    clips = ShardDataset([shards], "action-units", size=28).clips()
    found = train(clips, SMALL, TrainSettings(epochs=3, batch=8, select="inner", inner_share=0.5), 0)
    assert 1 <= found.epochs <= 3
    assert all(np.isfinite(line.validation_loss) for line in found.log if line.stage == "select")


def test_the_ladder_has_networks_alone() -> None:
    rows = ladder(RunSettings(classes="action-units"))
    assert len(rows) == 14
    assert not any(row.title.startswith(("LDA", "SVM")) for row in rows)


def test_a_grouping_that_is_misspelt_hears_of_units(shards: Path, tmp_path: Path) -> None:
    done = fmanet("train", shards, "--classes", "action-unit", "--out", tmp_path / "run")
    assert done.exit_code == 2
    assert "For action units as targets, choose action-units." in done.stderr


def test_one_network_for_use_says_of_each_unit(shards: Path, tmp_path: Path) -> None:
    flags = ("--classes", "action-units", "--epochs", "1", "--out", tmp_path / "model", *FLAGS)
    assert fmanet("train", shards, "--final", *flags).exit_code == 0
    card = (tmp_path / "model" / "README.md").read_text()
    assert "Says of each of AU1, AU2, AU4, AU6, AU12 whether a clip shows it" in card
    assert fmanet("predict", tmp_path / "model", shards, "--out", tmp_path / "answers.csv").exit_code == 0


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    shards = shards_in(tmp_path / "samm", dataset="samm", units={"happiness": "6+12", "surprise": "1+2"})
    few = shards_in(tmp_path / "mmew", subjects=1, units=dict.fromkeys(LABELS, "17"), dataset="mmew")
    flags = ("--classes", "action-units", "--epochs", "1", "--out", tmp_path / "run", *FLAGS)
    planned = fmanet("train", shards, few, *flags, "--dry-run", "--json")
    assert json.loads(planned.stdout)["left_out"] == {"samm/no action units": 8, "AU17": 6}
    done = fmanet("train", shards, few, *flags)
    assert done.exit_code == 0, done.stderr
    assert "Left out by action-units: samm/no action units 8, AU17 6." in done.stderr


@pytest.mark.parametrize("network", ["lda", "svm"])
def test_closed_forms_are_refused(network: str, shards: Path, tmp_path: Path) -> None:
    done = fmanet("train", shards, "--classes", "action-units", "--network", network, "--out", tmp_path / "run")
    assert done.exit_code == 2
    assert f"trained in epochs where the targets are action units; got {network}" in done.stderr
    assert not (tmp_path / "run").exists()


def test_the_pretrained_start_has_other_classes(shards: Path, tmp_path: Path) -> None:
    done = fmanet(
        "train",
        shards,
        "--classes",
        "action-units",
        "--pretrained",
        "--allow-mixed-alignment",
        "--out",
        tmp_path / "run",
    )
    assert done.exit_code == 2
    assert "classes must be that of the pretrained network, '3-class'; got 'action-units'" in done.stderr


def test_nobody_sets_what_the_clips_say(shards: Path, tmp_path: Path) -> None:
    done = fmanet("train", shards, "--set", "network.multi_label=true", "--out", tmp_path / "run")
    assert done.exit_code == 2
    assert "network.multi_label must be left out" in done.stderr


# --- scores


def test_scores_by_hand() -> None:
    truth = ["AU1", "AU1+AU4", "none", "AU4"]
    said = ["AU1+AU4", "AU1+AU4", "AU1", "none"]
    found = score(truth, said, ("AU1", "AU4"))
    assert found.matrix.tolist() == [[[1, 1], [0, 2]], [[1, 1], [1, 1]]]
    assert [one.f1 for one in found.per_class] == pytest.approx([4 / 5, 1 / 2])
    assert [one.recall for one in found.per_class] == pytest.approx([1, 1 / 2])
    assert [one.precision for one in found.per_class] == pytest.approx([2 / 3, 1 / 2])
    assert (found.uf1, found.uar, found.acc) == pytest.approx((0.65, (0.75 + 0.5) / 2, 5 / 8))
    assert found.clips == 4


@pytest.mark.parametrize("truth", [["AU1", "AU1+AU4"], ["AU1", "none"]])
def test_a_unit_that_all_show_or_nobody_is_absent(truth: list[str]) -> None:
    with pytest.raises(ConfigError, match="every class must occur in the truth"):
        score(truth, truth, ("AU1", "AU4"))
    found = score(truth, truth, ("AU1", "AU4"), absent="report")
    assert found.absent
    assert np.isnan([found.uf1, found.uar]).all()


def test_intervals_and_differences_of_units() -> None:
    rng = np.random.default_rng(0)
    words = ["AU1", "AU4", "AU1+AU4", "none"]
    good, bad = [], []
    for subject in (f"s{n}" for n in range(8)):
        for number in range(6):
            truth = words[int(rng.integers(4))]
            noise = words[int(rng.integers(4))]
            for seed in (0, 1):
                good.append(row(subject, truth, truth if rng.random() < 0.8 else noise, seed=seed, number=number))
                bad.append(row(subject, truth, truth if rng.random() < 0.3 else noise, seed=seed, number=number))
    classes = ("AU1", "AU4")
    found = subject_interval(good, classes, draws=300)
    by_seed = [[row for row in good if row.seed == seed] for seed in (0, 1)]
    by_hand = np.mean([score([r.truth for r in own], [r.prediction for r in own], classes).uf1 for own in by_seed])
    assert found.uf1.value == pytest.approx(by_hand)
    assert found.uf1.low < found.uf1.value < found.uf1.high
    assert paired_difference(good, bad, classes, draws=300).low > 0


def test_the_average_of_seeds_is_taken_unit_by_unit() -> None:
    one, two = row("s", "AU1+AU4", "AU1"), row("s", "AU1+AU4", "AU1+AU4", seed=1)
    (found,) = seed_average([one, two], ("AU1", "AU4"))
    assert (found.prediction, found.probabilities) == ("AU1+AU4", (0.9, 0.5))
    assert answer((0.4, 0.2), ("AU1", "AU4")) == "none"


def test_mistakes_and_subjects() -> None:
    rows = [row("s", "AU1", "AU4"), row("s", "AU4", "AU1+AU4", number=1)]
    assert mistakes(rows[0], ("AU1", "AU4")) == ["AU1 missed", "AU4 said"]
    (found,) = by_subject(rows, ("AU1", "AU4"))
    assert (found.predictions, found.correct) == (2, 0.5)


def test_tables_of_units_are_read_back_and_checked() -> None:
    rows = [row("s", "AU1+AU4", "none"), row("s", "none", "AU4", number=1)]
    text = table_bytes(rows, ("AU1", "AU4")).decode()
    assert list(parse_table(text).rows) == rows
    for wrong in ("AU4+AU1", "AU1+AU9", "AU1+AU1", ""):
        with pytest.raises(TableDamaged, match="truth must be one of AU1, AU4"):
            parse_table(text.replace("AU1+AU4,none", f"{wrong},none"))
