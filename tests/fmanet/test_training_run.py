"""A run ends with the same bits however often it was killed and however its folds were shared out; it mixes nothing."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from made_clips import made_checkpoint, made_clips, made_shards
from safetensors.torch import save

from flowkit.errors import ConfigError, EnvironmentMissing, SchemaTooNew, SettingsChanged, ShardCorrupt
from flowkit.storage import durable_files, hashed_json
from fmanet import checkpoint, run_folder
from fmanet.building import build_network
from fmanet.dataset import Clips
from fmanet.errors import CheckpointRefused, FoldsMissing, LeakError, TrainingImpossible
from fmanet.export import export_onnx
from fmanet.fold_worker import ClipSource, folds_of
from fmanet.inference import predict_shards
from fmanet.plan import Member, make_plan, read_plan
from fmanet.reports.run_report import write_report
from fmanet.results import _scored as results_of
from fmanet.results import gather, leaky_scores, write_results
from fmanet.run_options import RunOptions
from fmanet.scoring.prediction_table import Prediction, read_table
from fmanet.settings import NetworkConfig, RunSettings, TrainSettings
from fmanet.training import predict
from fmanet.training_run import Summary, preview, train_run

SETTINGS = RunSettings(network=NetworkConfig(width=4, grid=4), train=TrainSettings(epochs=2, batch=8), seeds=2)
FLAGS = (
    "--set",
    "network.width=4",
    "--set",
    "network.grid=4",
    "--epochs",
    "2",
    "--set",
    "train.batch=8",
    "--seeds",
    "2",
)
"""The same on the command line."""


@dataclass(frozen=True)
class MadeSource(ClipSource):
    """Clips without shards, for what does not concern them."""

    def load(self, *, verify: bool = True) -> Clips:
        return made_clips(3, 1)


MADE = MadeSource((), "3-class")


def start(*arguments: str | Path, **environment: str) -> subprocess.Popen[str]:
    """Start `fmanet` in a process group of its own."""
    paths = os.pathsep.join(path for path in sys.path if path)
    return subprocess.Popen(
        [sys.executable, "-m", "fmanet.cli", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths, **environment},
        start_new_session=True,
    )


def results(out: Path) -> dict[str, list[str]]:
    """By network: what its record says of the bits of weights, predictions and log."""
    plan = read_plan(out)
    assert plan is not None
    found = {}
    for member in plan.members:
        record = checkpoint.read_side(run_folder.record_path(out, plan, member))
        for entry in run_folder.named_files(record):
            checkpoint.read_file(run_folder.fold_folder(out, plan, member) / entry["name"], entry)
        found[plan.title(member)] = [entry["sha256"] for entry in run_folder.named_files(record)]
    return found


def wait_for_workers(process: subprocess.Popen[str]) -> None:
    """Until the workers of a killed run can write no more; they end with it, but first what they do in the kernel."""
    process.communicate()
    deadline = time.monotonic() + 60
    while group := [
        state for state, _, group, *_ in process_states() if group == str(process.pid) and state not in "ZX"
    ]:
        assert time.monotonic() < deadline, group
        time.sleep(0.02)


def process_states() -> Iterator[list[str]]:
    """State, parent, group, ... of every process."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            yield path.read_text(errors="replace").rpartition(")")[2].split()


def leftovers(out: Path) -> list[Path]:
    return [path for path in out.rglob("*") if path.name.startswith(".")]


def run(out: Path, settings: RunSettings = SETTINGS, source: ClipSource = MADE, **options: Any) -> Summary:
    return train_run(source, out, settings, RunOptions(**{"workers": 1, **options}))


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_shards(tmp_path_factory.mktemp("shards") / "casme2", subjects=3, size=32)


@pytest.fixture(scope="module")
def undisturbed(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in one go, of three folds and two seeds; read-only by agreement."""
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    done = run(out, source=ClipSource((shards,), "3-class"))
    assert (done.exit_code, done.planned, done.done) == (0, 6, 6)
    return out


def test_a_run_leaves_records_tables_and_scores(undisturbed: Path) -> None:
    rows, classes = read_table(undisturbed / "predictions.csv")
    assert classes == ("negative", "positive", "surprise")
    assert len(rows) == 18
    assert {row.seed for row in rows} == {0, 1}
    scores = json.loads((undisturbed / "scores.json").read_text())
    assert scores["clips"] == 9
    assert set(scores["by_seed"]) == {"0", "1"}
    assert set(scores["interval"]["uf1"]) == {"value", "low", "high"}
    assert set(scores["subjects"]) == {"casme2/s00", "casme2/s01", "casme2/s02"}
    stored = run_folder.read_run(undisturbed)
    assert stored is not None
    assert stored["settings"]["train"]["stack"] == 1
    assert stored["device"] == {"device": "cpu", "threads": 1}
    assert RunSettings.from_dict(stored["settings"]) == SETTINGS
    assert leftovers(undisturbed) == []
    log = next(undisturbed.glob("folds/*/*.log.csv")).read_text().splitlines()
    assert log[0] == "stage,epoch,rate,loss,accuracy,validation_loss"
    assert len(log) == 3


def test_no_clip_is_predicted_by_a_network_that_was_trained_on_its_subject(undisturbed: Path) -> None:
    plan = read_plan(undisturbed)
    assert plan is not None
    held_out = {fold.name: fold.held_out for fold in plan.folds}
    for row in read_table(undisturbed / "predictions.csv").rows:
        assert held_out[row.fold] == (row.subject,)


def test_bits_do_not_depend_on_workers_or_on_which_folds_run(undisturbed: Path, shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    source = ClipSource((shards,), "3-class")
    assert run(out, source=source, workers=2).exit_code == 0
    assert results(out) == results(undisturbed)
    for seed in (0, 1):  # one fold alone, after the others
        next(out.glob(f"folds/*s01/seed-{seed}.json")).unlink()
    again = run(out, source=source)
    assert (again.resumed, again.done) == (4, 6)
    assert results(out) == results(undisturbed)


def test_sigkill_at_random_moments_loses_and_changes_nothing(undisturbed: Path, shards: Path, tmp_path: Path) -> None:
    out, draw, kills, seen = tmp_path / "run", random.Random(3), 0, 0
    while kills < 2:
        process = start("train", shards, "--out", out, *FLAGS, "--workers", "2")
        while not any(out.glob("folds/*/seed-?.json")):
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        try:
            process.communicate(timeout=draw.uniform(0.0, 0.4) if kills else 0.0)
            shutil.rmtree(out)
        except subprocess.TimeoutExpired:
            process.kill()
            wait_for_workers(process)
            kills += 1
        records = len(list(out.glob("folds/*/seed-?.json")))
        assert records >= seen or not out.exists()
        seen = records
    assert run(out, source=ClipSource((shards,), "3-class")).exit_code == 0
    assert results(out) == results(undisturbed)
    assert leftovers(out) == []


@pytest.mark.parametrize(
    ("number", "code", "workers"),
    [(signal.SIGTERM, 75, "2"), pytest.param(signal.SIGINT, 130, "1", marks=pytest.mark.slow)],
)
def test_a_stopped_run_says_so_and_goes_on(
    shards: Path, tmp_path: Path, number: signal.Signals, code: int, workers: str
) -> None:
    out = tmp_path / "run"
    process = start("train", shards, "--out", out, *FLAGS, "--seeds", "12", "--workers", workers)
    while not any(out.glob("folds/*/seed-?.json")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    os.killpg(process.pid, number)  # as a terminal or a scheduler does: workers get it too
    said, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "Run the same command again" in err
    assert "not started" in said
    left = preview(ClipSource((shards,), "3-class"), out, replace(SETTINGS, seeds=12), RunOptions())["pending"]
    assert 0 < left == 36 - len(list(out.glob("folds/*/seed-*.json")))
    assert leftovers(out) == []


def test_a_fold_whose_process_dies_twice_is_reported_and_the_rest_goes_on(
    undisturbed: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, source, one_seed = tmp_path / "run", ClipSource((shards,), "3-class"), replace(SETTINGS, seeds=1)
    monkeypatch.setenv("FMANET_TEST_DIE_AT", "casme2.s01:training")
    done = run(out, one_seed, source)
    assert (done.exit_code, done.done, done.not_started, done.scores) == (1, 2, 0, None)
    assert list(done.failed) == ["casme2.s01, seed 0"]
    assert "exit code 139" in done.failed["casme2.s01, seed 0"]
    with pytest.raises(FoldsMissing, match=r"got none of casme2\.s01, seed 0\."):
        write_results(out)
    assert not (out / "scores.json").exists()
    monkeypatch.delenv("FMANET_TEST_DIE_AT")
    assert run(out, one_seed, source).exit_code == 0
    assert results(out).items() < results(undisturbed).items()


@pytest.mark.parametrize(("step", "code"), [("files", 1), pytest.param("record", 0, marks=pytest.mark.slow)])
def test_death_in_the_midst_of_a_commit_loses_and_changes_nothing(
    undisturbed: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, code: int
) -> None:
    out, source = shutil.copytree(undisturbed, tmp_path / "run"), ClipSource((shards,), "3-class")
    next(out.glob("folds/*s02/seed-1.json")).unlink()
    monkeypatch.setenv("FMANET_TEST_DIE_AT", f"casme2.s02:{step}")
    assert run(out, source=source).exit_code == code  # a record, once published, is found by the second attempt
    monkeypatch.delenv("FMANET_TEST_DIE_AT")
    assert run(out, source=source).exit_code == 0
    assert results(out) == results(undisturbed)
    assert leftovers(out) == []


def test_groups_trained_together_are_recorded_and_started_again_whole(tmp_path: Path) -> None:
    out, stacked = tmp_path / "run", replace(SETTINGS, train=replace(SETTINGS.train, stack=3))
    assert run(out, stacked).exit_code == 0
    before, plan = results(out), read_plan(out)
    assert plan is not None
    assert plan.groups == (tuple(Member(fold, 0) for fold in range(3)), tuple(Member(fold, 1) for fold in range(3)))
    next(out.glob("folds/*s01/seed-1.json")).unlink()
    again = run(out, stacked)
    assert (again.resumed, again.done) == (3, 6)
    assert results(out) == before
    with pytest.raises(SettingsChanged, match=r"train\.stack 3 -> 1"):
        run(out, SETTINGS)


def test_other_settings_and_other_clips_are_refused_by_name(undisturbed: Path, shards: Path, tmp_path: Path) -> None:
    before, source = results(undisturbed), ClipSource((shards,), "3-class")
    changed = replace(SETTINGS, train=replace(SETTINGS.train, rate=0.01))
    with pytest.raises(SettingsChanged, match=r"train\.rate 0\.004 -> 0\.01"):
        run(undisturbed, changed, source)
    more = made_shards(tmp_path / "samm", subjects=2, dataset="smic", labels=("negative", "positive", "surprise"))
    with pytest.raises(SettingsChanged, match=r"clips [0-9a-f]+ -> "):
        run(undisturbed, source=ClipSource((shards, more), "3-class"))
    assert results(undisturbed) == before


def of_an_earlier_version(run: Path) -> Path:
    """A run whose settings are those of a version before: some are no more, some were not there yet."""
    path = run / "run.json"
    content = hashed_json.decode(path.read_bytes())
    assert content is not None
    network, training = content["settings"]["network"], content["settings"]["train"]
    for name in ("streams", "power"):
        del network[name]
    del training["scalar_rate"]
    network |= {"order": "after", "share_streams": False, "strain": False}
    path.write_bytes(hashed_json.encode(content))
    return run


def test_a_run_of_an_earlier_version_is_scored_and_for_the_rest_named_as_one(
    undisturbed: Path, shards: Path, tmp_path: Path
) -> None:
    before = write_results(undisturbed)
    old = of_an_earlier_version(shutil.copytree(undisturbed, tmp_path / "old"))
    assert write_results(old) == before
    refusal = r"trained by an earlier version of flowkit, .*\(network\.order, network\.power, .*train\.scalar_rate\)"
    for use in (
        lambda: predict_shards(old, [shards], tmp_path / "out.csv"),
        lambda: export_onnx(old, tmp_path / "onnx"),
        lambda: write_report(old),
    ):
        with pytest.raises(SettingsChanged, match=refusal):
            use()
    source = ClipSource((shards,), "3-class")
    with pytest.raises(
        SettingsChanged, match=r"begun by an earlier version of flowkit.*cannot resume it\. Use another --out"
    ):
        run(old, SETTINGS, source)
    assert run(old, SETTINGS, source, overwrite=True).exit_code == 0
    assert results(old) == results(undisturbed)


def test_overwrite_discards_a_run_and_nothing_else(undisturbed: Path, tmp_path: Path) -> None:
    out = shutil.copytree(undisturbed, tmp_path / "run")
    (out / "notes.txt").write_text("mine")
    run_folder.discard(out)
    assert [path.name for path in out.iterdir()] == ["notes.txt"]
    foreign = tmp_path / "foreign"
    (foreign / "folds").mkdir(parents=True)
    with pytest.raises(ConfigError, match="--overwrite must find a folder that fmanet made"):
        run(foreign, overwrite=True)


def test_a_folder_in_which_nothing_was_trained_takes_other_settings(tmp_path: Path, undisturbed: Path) -> None:
    out = shutil.copytree(
        undisturbed, tmp_path / "run", ignore=shutil.ignore_patterns("seed-*", "*.csv", "scores.json")
    )
    done = run(out, replace(SETTINGS, seeds=1))
    assert (done.exit_code, done.planned) == (0, 3)


def test_a_damaged_record_is_put_aside_and_its_fold_trained_again(
    undisturbed: Path, shards: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(undisturbed, tmp_path / "run")
    torn = next(out.glob("folds/*s01/seed-0.json"))
    torn.write_bytes(torn.read_bytes()[:-20])
    next(out.glob("folds/*s02/seed-1-*.safetensors")).unlink()
    assert run(out, source=ClipSource((shards,), "3-class")).resumed == 4
    assert results(out) == results(undisturbed)
    assert len(list((out / "quarantine").iterdir())) == 2


@pytest.mark.parametrize("suffix", [pytest.param(".csv", marks=pytest.mark.slow), ".safetensors"])
def test_a_file_with_a_flipped_bit_is_found_by_the_next_run_and_made_again(
    undisturbed: Path, shards: Path, tmp_path: Path, suffix: str
) -> None:
    out = tmp_path / "run"
    shutil.copytree(undisturbed, out)
    path = next(path for path in sorted(out.glob(f"folds/*/seed-1-*{suffix}")) if ".log" not in path.name)
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)
    done = run(out, source=ClipSource((shards,), "3-class"))
    assert (done.exit_code, done.resumed, done.done) == (0, 5, 6)
    assert results(out) == results(undisturbed)
    assert len(list((out / "quarantine").iterdir())) == 2


def _plan(out: Path, **changes: Any) -> None:
    content = checkpoint.read_side(out / "folds.json")
    (out / "folds.json").write_bytes(hashed_json.encode({**content, **changes}))


FORMS = {
    "no settings": (
        lambda out: (out / "run.json").write_bytes(hashed_json.encode({"schema": 1, "kind": "fmanet run"})),
        "run",
    ),
    "no folds": (lambda out: (out / "folds.json").write_bytes(hashed_json.encode({"schema": 1})), "plan"),
    "a fold that is not there": (lambda out: _plan(out, groups=[[[9, 0]]]), "plan"),
    "a fold elsewhere": (
        lambda out: _plan(out, folds=[{"name": "../..", "held_out": [], "train_clips": 1, "test": []}] * 3),
        "plan",
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_run_folder_that_no_run_made_is_refused(undisturbed: Path, tmp_path: Path, form: str) -> None:
    out = shutil.copytree(undisturbed, tmp_path / "run")
    change, says = FORMS[form]
    change(out)
    with pytest.raises(ShardCorrupt, match=f"{says} must be .* got another form. Do not trust this folder"):
        write_results(out)


def test_a_run_whose_classes_are_in_too_few_subjects_is_scored_without_an_interval() -> None:
    letters = tuple("abcdefgh")
    shares = {own: tuple(float(own == other) for other in letters) for own in letters}
    rows = [Prediction(own, f"lab/{own}", "lab", "holdout", 0, own, own, shares[own]) for own in letters]
    scores = results_of(rows, letters)
    assert (scores["seed_average"]["uf1"], scores["interval"]) == (1.0, None)


def test_epochs_are_kept_apart_and_steer_nothing(undisturbed: Path, shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert run(out, replace(SETTINGS, keep_epochs=True), ClipSource((shards,), "3-class")).exit_code == 0
    kept = {title: found[1:] for title, found in results(out).items()}  # by name: every_epoch comes first
    assert kept == results(undisturbed)  # the same weights, predictions and log
    rows, _ = gather(out)
    leaky = leaky_scores(out)
    assert set(leaky["seeds"]) == {"0", "1"}
    honest = sum(row.truth == row.prediction for row in rows) / len(rows)
    assert sum(one["acc"] for one in leaky["seeds"].values()) / 2 >= honest - 1e-9
    lines = next(out.glob("folds/*/*.epochs.csv")).read_text().splitlines()
    assert len(lines) == 1 + 2 * 3
    for path in out.glob("folds/*/*.epochs.csv"):
        path.write_bytes(bytes(path.stat().st_size))  # nobody else reads this
    assert write_results(out)["by_seed"]
    with pytest.raises(ConfigError, match="Run fmanet train with --keep-epochs"):
        leaky_scores(undisturbed)


def test_the_scores_of_a_run_are_those_of_its_stored_predictions(undisturbed: Path, tmp_path: Path) -> None:
    out = shutil.copytree(undisturbed, tmp_path / "run")
    for name in ("scores.json", "predictions.csv"):
        (out / name).unlink()
    for path in out.glob("folds/*/*.safetensors"):
        path.write_bytes(bytes(path.stat().st_size))  # scores come from predictions alone
    write_results(out)
    for name in ("scores.json", "predictions.csv"):
        assert (out / name).read_bytes() == (undisturbed / name).read_bytes()
    table = next(out.glob("folds/*/seed-0-????????????.csv"))
    table.write_bytes(table.read_bytes().replace(b"negative", b"positive"))
    with pytest.raises(ValueError, match="that were written"):
        write_results(out)


def test_a_planted_leak_ends_the_run_before_anything_is_trained() -> None:
    clips = made_clips(3, 1)
    hashes = list(clips.source_hash)
    hashes[0] = hashes[-1]  # one video under the names of two people
    leaking = replace(clips, source_hash=tuple(hashes))
    with pytest.raises(LeakError):
        make_plan(leaking, folds_of(SETTINGS.protocol, leaking), SETTINGS)


def test_folds_that_cannot_be_trained_or_scored_end_the_run_before_it_begins() -> None:
    clips = made_clips(3, 1)
    rows = [row for row in range(9) if clips.target[row] != 2 or clips.subject[row] == "casme2/s00"]
    alone = clips.select(rows)
    with pytest.raises(TrainingImpossible, match="surprise"):
        make_plan(alone, folds_of(SETTINGS.protocol, alone), SETTINGS)
    two = clips.select([row for row in range(9) if clips.target[row] != 2 or clips.subject[row] != "casme2/s01"])
    folds = folds_of(replace(SETTINGS.protocol, name="holdout", hold_out=("casme2/s01",)), two)
    with pytest.raises(TrainingImpossible, match="got none of surprise"):
        make_plan(two, folds, SETTINGS)


@dataclass(frozen=True)
class ChangingSource(ClipSource):
    """Clips that are others in every process but this one."""

    process: int = 0

    def load(self, *, verify: bool = True) -> Clips:
        return made_clips(3, 1, noise=0.05 if os.getpid() == self.process else 0.1)


def test_clips_that_change_during_a_run_end_it_in_clear_words(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentMissing, match="clips must stay as they are during a run; got others"):
        run(tmp_path / "run", source=ChangingSource((), "3-class", process=os.getpid()))


def test_a_gpu_that_is_not_there_is_told_before_anything_is_written(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(EnvironmentMissing, match="--device cuda must find a GPU"):
        run(tmp_path / "run", replace(SETTINGS, train=replace(SETTINGS.train, device="cuda")))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_two_runs_at_once_give_one_result(undisturbed: Path, shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    both = [start("train", shards, "--out", out, *FLAGS, "--workers", "1") for _ in range(2)]
    for process in both:
        said, err = process.communicate(timeout=120)
        assert process.returncode == 0, said + err
    assert results(out) == results(undisturbed)


# ------------------------------------------------------------------------------------------------------------ checkpoints


def test_a_checkpoint_gives_back_the_network(undisturbed: Path, shards: Path) -> None:
    plan = read_plan(undisturbed)
    assert plan is not None
    clips = ClipSource((shards,), "3-class").load()
    stored = {(row.clip_id, row.seed): row.probabilities for row in read_table(undisturbed / "predictions.csv").rows}
    for member in plan.members:
        loaded = checkpoint.load(run_folder.record_path(undisturbed, plan, member))
        assert loaded.network == SETTINGS.network
        test = clips.select([clips.clip_id.index(name) for name in plan.folds[member.fold].test])
        shares = predict(loaded.model, test, SETTINGS.train)
        for name, row in zip(test.clip_id, shares.tolist(), strict=True):
            assert tuple(row) == stored[name, member.seed]


class Shell:
    """What a hostile pickle does when it is read."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, ("owned",)


def _content() -> dict[str, Any]:
    return {"network": SETTINGS.network.to_dict(), "classes": ["negative", "positive", "surprise"]}


def _state() -> dict[str, torch.Tensor]:
    return dict(build_network(SETTINGS.network, 0).state_dict())


def _rewritten(path: Path, **changes: Any) -> None:
    content = checkpoint.read_side(path)
    path.write_bytes(hashed_json.encode({**content, **changes}))


def _with_weights(path: Path, weights: bytes) -> None:
    """Weights whose hash is right, for whatever they are."""
    _rewritten(path, weights=durable_files.publish_hashed(path.parent, "other-{}.safetensors", weights))


def _pickled(path: Path) -> None:
    file = path.parent / "pickle.pt"
    torch.save(Shell(), file)
    _with_weights(path, file.read_bytes())


def _four_bits() -> bytes:
    head = json.dumps({"a": {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}}).encode()
    return len(head).to_bytes(8, "little") + head + b"\1"


def _flipped(path: Path) -> None:
    weights = next(path.parent.glob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)


DAMAGES = {
    "a flipped bit": (_flipped, "bytes that were written"),
    "a torn side file": (lambda path: path.write_bytes(path.read_bytes()[:-9]), "be as it was written"),
    "a pickle in disguise": (_pickled, "be a safetensors file"),
    "an absurd head": (
        lambda path: _with_weights(path, (2**62).to_bytes(8, "little") + b"{}"),
        "be a safetensors file",
    ),
    "wrong shapes": (
        lambda path: _with_weights(path, save({**_state(), "streams.heads.bias": torch.zeros(4)})),
        "others for streams.heads.bias",
    ),
    "weights too many": (
        lambda path: _with_weights(path, save({**_state(), "extra": torch.zeros(1)})),
        "others for extra",
    ),
    "other numbers": (
        lambda path: _with_weights(path, save({name: value.double() for name, value in _state().items()})),
        "with their shapes",
    ),
    "no number": (
        lambda path: _with_weights(
            path, save({**_state(), "streams.heads.bias": torch.full_like(_state()["streams.heads.bias"], torch.nan)})
        ),
        "finite weights",
    ),
    "an absurd network": (
        lambda path: _rewritten(path, network={**_content()["network"], "width": 10**9}),
        "name a network",
    ),
    "no network": (lambda path: _rewritten(path, network=None), "name a network"),
    "other classes": (lambda path: _rewritten(path, classes=["a", "b"]), "name 3 classes"),
    "a file elsewhere": (
        lambda path: _rewritten(path, weights={"name": "../x.safetensors", "bytes": 1, "sha256": ""}),
        "file beside it",
    ),
    "a zero byte in a name": (
        lambda path: _rewritten(path, weights={"name": "\0.safetensors", "bytes": 1, "sha256": ""}),
        "be readable",
    ),
    "a version that is no number": (lambda path: _rewritten(path, schema="1"), "be as it was written"),
    "brackets without end": (lambda path: path.write_bytes(b"[" * 200_000), "be as it was written"),
    "numbers of four bits": (
        lambda path: _with_weights(path, _four_bits()),
        "numbers that PyTorch knows",
    ),
    "no file": (lambda path: next(path.parent.glob("*.safetensors")).unlink(), "be readable"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_or_hostile_checkpoint_is_refused(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    path = made_checkpoint(inner, _state(), _content())
    assert checkpoint.load(path).classes == ("negative", "positive", "surprise")
    change, says = DAMAGES[damage]
    change(path)
    with pytest.raises(CheckpointRefused, match=says):
        checkpoint.load(path)
    assert not (tmp_path / "owned").exists()


def test_a_checkpoint_of_a_newer_version_says_so(tmp_path: Path) -> None:
    path = made_checkpoint(tmp_path, _state(), _content())
    _rewritten(path, schema=99)
    with pytest.raises(SchemaTooNew):
        checkpoint.load(path)
