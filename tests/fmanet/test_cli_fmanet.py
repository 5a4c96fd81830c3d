"""The command `fmanet`: results on stdout, one clear message for what goes wrong, and the exit code that belongs to it."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from made_clips import long_face, made_shards

from flowkit.storage import commit, hashed_json, schema
from fmanet import checkpoint, run_folder
from fmanet.ablation import rungs
from fmanet.cli import main
from fmanet.flow_origin import alignments
from fmanet.plan import member_keys

SMALL = ("--set", "network.width=4", "--set", "network.grid=4", "--epochs", "2", "--workers", "1")


def fmanet(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def casme2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_shards(tmp_path_factory.mktemp("casme2") / "shards", subjects=3, size=32)


@pytest.fixture(scope="module")
def smic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    labels = ("negative", "positive", "surprise")
    return made_shards(tmp_path_factory.mktemp("smic") / "shards", subjects=2, dataset="smic", labels=labels, size=32)


@pytest.fixture(scope="module")
def trained(casme2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three folds that kept its epochs; read-only by agreement."""
    out = tmp_path_factory.mktemp("trained") / "run"
    done = fmanet("train", casme2, "--out", out, *SMALL, "--keep-epochs", "--json")
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["planned"], found["done"], found["exit_code"]) == (3, 3, 0)
    assert 0 <= found["scores"]["seed_average"]["uf1"] <= 1
    return out


def test_train_says_what_it_did_and_where_it_lies(casme2: Path, trained: Path) -> None:
    done = fmanet("train", casme2, "--out", trained, *SMALL, "--keep-epochs")
    assert done.exit_code == 0
    assert "3 networks: 3 trained (3 before this run), 0 failed" in done.stdout
    assert "average over seeds" in done.stdout
    assert str(trained / "scores.json") in done.stdout


def test_the_settings_of_a_run_are_taken_back_to_that_run(casme2: Path, trained: Path, tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    assert fmanet("settings", "--of", trained, "--out", file).exit_code == 0
    assert "keep_epochs = true" in file.read_text()
    done = fmanet("train", casme2, "--out", trained, "--config", file, "--dry-run", "--json")
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["pending"], found["fingerprint"]) == (0, run_folder.open_run(trained)[0]["fingerprint"])


def test_evaluate_scores_stored_predictions_and_shouts_about_the_leaky_figure(trained: Path) -> None:
    plain = fmanet("evaluate", trained)
    assert plain.exit_code == 0
    assert "leaky" not in plain.stdout.lower()
    shouted = fmanet("evaluate", trained, "--report-leaky")
    assert shouted.exit_code == 0
    assert "LEAKY: best epoch chosen on the held-out subject; leaky, only to relate to literature" in shouted.stdout
    assert all(line.startswith(("LEAKY", "***")) for line in shouted.stdout[len(plain.stdout) :].split("\n") if line)
    found = json.loads(fmanet("evaluate", trained, "--report-leaky", "--json").stdout)
    assert found["leaky"]["mean_uf1"] >= 0
    assert "leaky" not in json.loads((trained / "scores.json").read_text())


def test_predict_takes_clips_whose_labels_nobody_knows(trained: Path, tmp_path: Path) -> None:
    new = made_shards(tmp_path / "new", subjects=2, dataset="unheard-of", labels=("?",), size=40)
    done = fmanet("predict", trained, new, "--out", tmp_path / "new.csv")
    assert (done.exit_code, done.stderr) == (0, "")
    with (tmp_path / "new.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["clip_id"] for row in rows] == ["unheard-of-s00-?-0", "unheard-of-s01-?-0"]
    for row in rows:
        shares = {name[2:]: float(value) for name, value in row.items() if name.startswith("p:")}
        assert sum(shares.values()) == pytest.approx(1.0)
        assert max(shares, key=shares.__getitem__) == row["prediction"]


def test_clips_of_another_alignment_are_trained_on_and_classified_only_where_asked(
    trained: Path, casme2: Path, tmp_path: Path
) -> None:
    other = made_shards(tmp_path / "other", subjects=2, dataset="samm", stabilise="none")
    refused = fmanet("train", casme2, other, "--out", tmp_path / "run", *SMALL, "--classes", "3-class")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert f"got {casme2} and {other}, which differ (align.stabilise similarity -> none)." in refused.stderr
    assert not (tmp_path / "run").exists()
    flags = (*SMALL, "--classes", "3-class", "--allow-mixed-alignment")
    assert fmanet("train", casme2, other, "--out", tmp_path / "run", *flags, "--dry-run").exit_code == 0
    table = ("--out", tmp_path / "new.csv")
    refused = fmanet("predict", trained, casme2, other, *table)
    assert (refused.exit_code, refused.stdout, (tmp_path / "new.csv").exists()) == (2, "", False)
    assert f"{other}: clips must be aligned as those that the run was trained on" in refused.stderr
    assert "(align.stabilise similarity -> none)" in refused.stderr
    assert fmanet("predict", trained, casme2, other, *table, "--allow-mixed-alignment").exit_code == 0


def test_a_network_remembers_the_alignment_that_it_was_trained_on(trained: Path, casme2: Path) -> None:
    known = alignments([casme2])
    facts, _, plan = run_folder.open_run(trained)
    assert facts["clips"]["alignment"] == known
    for member in plan.members:
        assert checkpoint.read_side(run_folder.record_path(trained, plan, member))["alignment"] == known


def test_a_run_of_a_gpu_predicts_without_one_and_says_so(trained: Path, tmp_path: Path) -> None:
    """Made from a run of the CPU: records and settings as such a run would have written them."""
    if torch.cuda.is_available():
        pytest.skip("needs a machine without a GPU")
    out, new = tmp_path / "run", made_shards(tmp_path / "new", subjects=2, dataset="unheard-of", labels=("?",), size=40)
    shutil.copytree(trained, out)
    facts, settings, plan = run_folder.open_run(out)
    settings = replace(settings, train=replace(settings.train, device="cuda", mixed_precision=True))
    facts |= {"settings": settings.to_dict(), "fingerprint": settings.fingerprint()}
    (out / "run.json").write_bytes(hashed_json.encode(facts))
    for member, key in member_keys(plan, settings.fingerprint(), facts["clips"]["digest"]).items():
        path = run_folder.record_path(out, plan, member)
        path.write_bytes(hashed_json.encode({**checkpoint.read_side(path), "key": key}))
    done = fmanet("predict", out, new, "--out", tmp_path / "new folder" / "new.csv")
    assert (done.exit_code, done.stderr.count("Note:")) == (0, 1)
    assert "trained on a GPU and none is here" in done.stderr
    assert fmanet("predict", trained, new, "--out", tmp_path / "cpu.csv").exit_code == 0
    assert (tmp_path / "new folder" / "new.csv").read_bytes() == (tmp_path / "cpu.csv").read_bytes()


def test_predicting_subjects_of_the_run_comes_with_a_warning(trained: Path, casme2: Path, tmp_path: Path) -> None:
    done = fmanet("predict", trained, casme2, "--out", tmp_path / "own.csv")
    assert done.exit_code == 0
    assert "these predictions say nothing about accuracy" in " ".join(done.stderr.split())


def test_clips_without_landmarks_are_told_where_those_of_the_run_had_some(
    trained: Path, smic: Path, tmp_path: Path
) -> None:
    shards, run = tmp_path / "shards", tmp_path / "run"
    made_shards(shards, subjects=2, repeats=2, landmarks={number: long_face(32) for number in range(11)})
    done = fmanet("train", shards, "--out", run, *SMALL)
    assert done.exit_code == 0, done.stderr
    assert "1 of 12 clips have no landmarks" in done.stderr
    assert run_folder.open_run(run)[0]["clips"]["carried"] == 11
    assert fmanet("report", run).exit_code == 0
    assert "on the canonical face" in (run / "report.html").read_text()
    done = fmanet("predict", run, smic, "--out", tmp_path / "other.csv")
    told = " ".join(done.stderr.split())
    assert (
        "no landmarks, by which the run carried the flow of 11 of 12 training clips: trust these predictions less"
        in told
    )
    assert (
        fmanet("predict", run, shards, "--out", tmp_path / "same.csv").stderr.count("1 of 12 clips have no landmarks")
        == 1
    )
    own = fmanet("train", shards, "--out", tmp_path / "own", *SMALL, "--set", "face=own")
    assert (own.exit_code, "landmarks" in own.stderr) == (0, False)
    digests = {run_folder.open_run(out)[0]["clips"]["digest"] for out in (run, tmp_path / "own")}
    assert len(digests) == 2
    nobody_has_any = fmanet("predict", trained, smic, "--out", tmp_path / "x.csv")
    assert "landmarks" not in nobody_has_any.stderr


def test_clips_without_action_units_are_told_where_those_of_the_run_had_some(trained: Path, tmp_path: Path) -> None:
    facts = run_folder.open_run(trained)[0]["clips"]
    assert facts["with_action_units"] == facts["count"]
    none = made_shards(tmp_path / "none", subjects=2, hints={n: np.full((2, 34), np.nan) for n in range(6)})
    done = fmanet("predict", trained, none, "--out", tmp_path / "none.csv")
    told = " ".join(done.stderr.split())
    assert "6 of 6 clips have no strengths of action units, which the run knew of" in told


def test_without_action_units_nothing_is_trained_by_them(casme2: Path, tmp_path: Path) -> None:
    """A stream that nothing was learned by would answer for clips that have some."""
    none = made_shards(tmp_path / "none", subjects=3, size=32, hints={n: np.full((2, 34), np.nan) for n in range(9)})
    done = fmanet("train", none, "--out", tmp_path / "run", *SMALL, "-v")
    assert (done.exit_code, "no stream for them" in done.stderr) == (0, True), done.stderr
    facts, settings = run_folder.open_run(tmp_path / "run")[:2]
    assert (facts["clips"]["with_action_units"], settings.network.action_units) == (0, False)
    known, unknown = ((tmp_path / name) for name in ("known.csv", "unknown.csv"))
    for shards, out in ((casme2, known), (none, unknown)):
        assert fmanet("predict", tmp_path / "run", shards, "--out", out).exit_code == 0
    assert known.read_text() == unknown.read_text()
    alone = fmanet("train", none, "--out", tmp_path / "alone", *SMALL, "--network", "action-units")
    assert alone.exit_code == 2
    assert "must have strengths of action units for network action-units; got none in 9 clips" in alone.stderr
    assert not (tmp_path / "alone").exists()


def test_without_action_units_the_ladder_does_not_ask_what_they_are_worth(tmp_path: Path, monkeypatch: Any) -> None:
    import fmanet.ablation as module

    titles = ("Action units alone", "FMANet without action units", "FMANet")
    asked = [row for row in rungs() if row[0] in titles]
    assert len(asked) == 3
    monkeypatch.setattr(module, "rungs", lambda: asked)
    none = made_shards(tmp_path / "none", subjects=3, size=32, hints={n: np.full((2, 34), np.nan) for n in range(9)})
    done = fmanet("ablate", none, "--out", tmp_path / "ladder", *SMALL)
    assert done.exit_code == 0, done.stderr
    assert [path.name for path in (tmp_path / "ladder").iterdir() if path.is_dir()] == ["02-fmanet"]


def test_cross_trains_on_one_data_set_and_tests_on_another(casme2: Path, smic: Path, tmp_path: Path) -> None:
    flags = ("--protocol", "cross", "--train-on", "casme2", "--test-on", "smic", "--network", "cnn", "--inputs", "rise")
    done = fmanet("train", casme2, smic, "--out", tmp_path / "run", *SMALL, *flags, "--json")
    assert done.exit_code == 0, done.stderr
    assert set(json.loads(done.stdout)["scores"]["subjects"]) == {"smic/s00", "smic/s01"}


def test_holdout_with_inner_selection_scores_the_subjects_that_were_named(casme2: Path, tmp_path: Path) -> None:
    flags = ("--protocol", "holdout", "--hold-out", "casme2/s01", "--select", "inner", "--set", "train.inner_share=0.5")
    done = fmanet("train", casme2, "--out", tmp_path / "run", *SMALL, *flags, "--json")
    assert done.exit_code == 0, done.stderr
    scores = json.loads(done.stdout)["scores"]
    assert set(scores["subjects"]) == {"casme2/s01"}
    assert scores["interval"] is None  # nothing can be said beyond one person
    log = next((tmp_path / "run").glob("folds/*/*.log.csv")).read_text()
    assert log.count("select,") == 2


def test_ablate_compares_each_row_of_the_ladder_with_the_one_before(
    casme2: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    import fmanet.ablation as module

    rows_of_two = [row for row in rungs() if row[0] in ("CNN, MM-COF", "FMANet")]
    monkeypatch.setattr(module, "rungs", lambda: rows_of_two)  # the ladder as a whole takes a worker start a row
    flags = ("--protocol", "holdout", "--hold-out", "casme2/s01,casme2/s02")
    done = fmanet("ablate", casme2, "--out", tmp_path / "ladder", *SMALL, *flags)
    assert done.exit_code == 0, done.stderr
    rows = json.loads((tmp_path / "ladder" / "ablation.json").read_text())["rows"]
    assert [row["row"] for row in rows] == ["CNN, MM-COF", "FMANet"]
    assert rows[0]["against_row_before"] is None
    step = rows[1]["seed_average"]["uf1"] - rows[0]["seed_average"]["uf1"]
    assert rows[1]["against_row_before"]["value"] == pytest.approx(step)
    assert rows[0]["against_fmanet"]["value"] == pytest.approx(-step)
    assert rows[1]["against_fmanet"] is None
    assert "CNN, MM-COF" in done.stdout
    alone = fmanet("ablate", casme2, "--out", tmp_path / "one", *SMALL, *flags[:3], "casme2/s01")
    assert alone.exit_code == 2
    assert "two subjects or more" in alone.stderr
    assert not (tmp_path / "one").exists()


def test_every_row_of_the_ladder_is_a_network_of_its_own() -> None:
    from fmanet.ablation import ladder
    from fmanet.settings import RunSettings

    rows = ladder(RunSettings())
    assert (
        len({json.dumps(row.settings.network.to_dict()) for row in rows})
        == len({row.folder for row in rows})
        == len(rungs())
    )
    assert rows[-1].settings == RunSettings()


def test_dry_run_writes_nothing(casme2: Path, tmp_path: Path) -> None:
    done = fmanet("train", casme2, "--out", tmp_path / "run", *SMALL, "--dry-run", "--json")
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    assert (found["clips"], found["folds"], found["pending"]) == (9, 3, 3)
    assert found["classes"] == {"negative": 3, "positive": 3, "surprise": 3}
    assert found["settings"]["network"]["width"] == 4
    assert 0 < found["parameters"] < 10_000 < found["multiply_adds"]
    assert not (tmp_path / "run").exists()


def test_a_settings_file_is_read_and_flags_win_over_it(casme2: Path, tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(
        'seeds = 3\n[network]\nnetwork = "cnn"\ninputs = "mmcof"\n[train]\nepochs = 7\n[train.augment]\nflip = 0\n'
    )
    done = fmanet("train", casme2, "--out", tmp_path / "run", "--config", file, "--epochs", "9", "--dry-run", "--json")
    assert done.exit_code == 0, done.stderr
    settings = json.loads(done.stdout)["settings"]
    assert (settings["seeds"], settings["train"]["epochs"], settings["network"]["inputs"]) == (3, 9, "mmcof")
    assert settings["train"]["augment"]["flip"] == 0


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--set", "train.eppochs=3"), "train.eppochs: unknown setting. Did you mean train.epochs?"),
        (("--set", "train.rate"), "assignment must look like"),
        (("--set", "network.classes=5"), "network.classes must be left out"),
        (("--set", "network.width=7"), "width must be a multiple of 4"),
        (("--network", "shallow"), "inputs must be one of rise, fall for 'shallow'"),
        (("--epochs", "0"), "train.epochs must be from 1"),
        (("--seeds", "0"), "seeds must be from 1"),
        (("--stack", "4", "--select", "inner"), "train.stack must be 1 with select inner"),
        (("--hold-out", "casme2/s01"), "protocol.hold_out must be left out with loso"),
        (("--protocol", "holdout"), "protocol.hold_out must be given with holdout"),
        (("--protocol", "holdout", "--hold-out", "casme2/s09"), "held-out subject must be one of"),
        (
            ("--protocol", "cross", "--train-on", "casme2", "--test-on", "samm"),
            "test_on must be one of casme2; got samm",
        ),
        (("--classes", "12-class"), "grouping must be one of"),
        (("--config", "/nowhere.toml"), "settings must be a readable TOML file"),
        (("--workers", "-1"), "workers must be from 0"),
    ],
)
def test_bad_usage_ends_before_anything_is_written(
    casme2: Path, tmp_path: Path, flags: tuple[str, ...], says: str
) -> None:
    done = fmanet("train", casme2, "--out", tmp_path / "run", *SMALL, *flags)
    assert done.exit_code == 2, done.stderr
    assert says in done.stderr
    assert done.stdout == ""
    assert not (tmp_path / "run").exists()


def edited(out: Path, edit: Any, **settings: Any) -> Path:
    """A folder whose shard file was changed, with a record that fits the change."""
    (record,) = commit.read_records(out)
    path = record.data_path
    assert path is not None
    with h5py.File(path, "r+") as file:
        edit(file)
    image = path.read_bytes()
    path.unlink()
    record.path.unlink()
    content = {name: value for name, value in record.content.items() if name not in ("schema", "task", "file")}
    commit.publish(out, 0, image, {**content, **settings})
    return out


def _nan(file: Any) -> None:
    flow = file["flow"][:]
    flow[2, 0, 0, 5, 5] = np.nan
    file["flow"][:] = flow


def _newer(file: Any) -> None:
    file.attrs["schema"] = schema.SHARD_SCHEMA + 1


def _empty(out: Path) -> Path:
    commit.probe(out)
    whole = made_shards(out.with_name("whole"), subjects=1)
    shutil.copy(whole / commit.RUN_FILE, out)
    return out


def _one_class_in_one_subject(out: Path) -> Path:
    made_shards(out, subjects=2, labels=("happiness", "disgust"))
    (record,) = commit.read_records(out)
    clips = record.content["clips"]
    for clip in clips[:2]:
        clip["label"] = "surprise"
    record.path.unlink()
    record.path.write_bytes(hashed_json.encode(record.content))
    return out


def _blind(file: Any) -> None:
    file["phase_valid"][:] = False


BAD_CLIPS: dict[str, tuple[Any, int, str]] = {
    "no shards": (lambda out: out, 2, "must hold the shards of an extraction"),
    "empty shards": (_empty, 2, "must hold at least one clip"),
    "one subject": (lambda out: made_shards(out, subjects=1), 2, "two subjects or more"),
    "one class": (lambda out: made_shards(out, labels=("happiness",)), 2, "two classes"),
    "unknown label": (lambda out: made_shards(out, labels=("happiness", "bliss")), 2, "bliss"),
    "class missing in training": (_one_class_in_one_subject, 2, "each class must have a clip to train on"),
    "all phases invalid": (
        lambda out: edited(made_shards(out), _blind),
        2,
        "must have a valid phase that the network sees",
    ),
    "no number": (lambda out: edited(made_shards(out), _nan), 1, "must be finite"),
    "newer schema": (lambda out: edited(made_shards(out), _newer), 1, "newer"),
}


@pytest.mark.parametrize("case", BAD_CLIPS)
def test_clips_that_cannot_be_trained_on_are_told_in_one_message(case: str, tmp_path: Path) -> None:
    make, code, says = BAD_CLIPS[case]
    done = fmanet("train", make(tmp_path / "shards"), "--out", tmp_path / "run", *SMALL, "--classes", "3-class")
    assert done.exit_code == code, done.stderr
    assert says in done.stderr
    assert done.stderr.startswith("Error: ")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_mixed_sizes_need_a_size(casme2: Path, tmp_path: Path) -> None:
    larger = made_shards(tmp_path / "larger", subjects=2, dataset="samm", size=40)
    done = fmanet("train", casme2, larger, "--out", tmp_path / "run", *SMALL, "--dry-run")
    assert done.exit_code == 2
    assert "--size" in done.stderr
    assert (
        fmanet("train", casme2, larger, "--out", tmp_path / "run", *SMALL, "--size", "28", "--dry-run").exit_code == 0
    )


def test_clips_smaller_than_the_network_s_grid_end_the_run_at_once(casme2: Path, tmp_path: Path) -> None:
    done = fmanet("train", casme2, "--out", tmp_path / "run", *SMALL, "--size", "16")
    assert done.exit_code == 2
    assert "at least 28" in done.stderr
    assert not (tmp_path / "run").exists()


def test_changed_settings_are_refused_by_name(trained: Path, casme2: Path) -> None:
    done = fmanet("train", casme2, "--out", trained, *SMALL, "--epochs", "3", "--keep-epochs")
    assert done.exit_code == 2
    assert "train.epochs 2 -> 3" in done.stderr
    assert "--overwrite to discard" in done.stderr


def test_a_damaged_checkpoint_is_told(trained: Path, casme2: Path, tmp_path: Path) -> None:
    out = shutil.copytree(trained, tmp_path / "run")
    weights = next(out.glob("folds/*/*.safetensors"))
    weights.write_bytes(bytes(weights.stat().st_size))
    done = fmanet("predict", out, casme2, "--out", tmp_path / "x.csv")
    assert done.exit_code == 1
    assert "bytes that were written" in done.stderr
    assert not (tmp_path / "x.csv").exists()


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_a_folder_that_is_no_run_is_refused(command: str, casme2: Path, tmp_path: Path) -> None:
    further = (casme2, "--out", tmp_path / "x.csv") if command == "predict" else ()
    assert fmanet(command, tmp_path, *further).exit_code == 2
    done = fmanet(command, casme2, *further)  # shards, and no run
    assert done.exit_code == 2
    assert "must be one of fmanet train" in done.stderr


def test_missing_folds_are_named(trained: Path, tmp_path: Path) -> None:
    out = shutil.copytree(trained, tmp_path / "run")
    next(out.glob("folds/casme2.s02/seed-0.json")).unlink()
    done = fmanet("evaluate", out)
    assert done.exit_code == 1
    assert "got none of casme2.s02, seed 0" in done.stderr


def test_without_torch_help_works_and_train_says_what_to_install(casme2: Path, tmp_path: Path) -> None:
    code = f"import sys; sys.path[:0] = {sys.path!r}; sys.modules['torch'] = None; from fmanet.cli import main; main(sys.argv[1:])"

    def without_torch(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert without_torch("train", "--help").returncode == 0
    done = without_torch("train", casme2, "--out", tmp_path / "run")
    assert done.returncode == 3
    assert "Install flowkit-mer with the extra train" in done.stderr


def test_help_of_every_command_names_its_exit_codes_or_what_it_writes() -> None:
    assert list(main.commands) == [
        *("train", "evaluate", "compare", "predict", "report", "export", "pretrain", "ablate", "settings")
    ]
    for command in main.commands:
        done = fmanet(command, "--help")
        assert done.exit_code == 0
        assert "Exit codes" in done.stdout
