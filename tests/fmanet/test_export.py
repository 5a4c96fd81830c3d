"""An exported network answers as PyTorch does, or is not published."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from made_clips import made_shards

from flowkit.storage import hashed_json
from fmanet import checkpoint, export
from fmanet.building import build_network, seen_by, seen_names
from fmanet.cli import main
from fmanet.export import INPUTS, TOLERANCE, Predictor, largest_difference, onnx_bytes, random_clips
from fmanet.fold_worker import ClipSource
from fmanet.scoring.prediction_table import read_table
from fmanet.settings import NetworkConfig, TrainSettings
from fmanet.training import predict

pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

SMALL = ("--set", "network.width=4", "--set", "network.grid=4", "--epochs", "2", "--workers", "1")
NETWORKS: dict[str, tuple[NetworkConfig, int, bool]] = {
    "fmanet 28": (NetworkConfig(), 28, True),
    "fmanet 112, late": (NetworkConfig(fusion=False, power=0.6, streams=3), 112, False),
    "fmanet 224, rise": (NetworkConfig(inputs="rise", attention=False), 224, False),
    "lda 28": (NetworkConfig(network="lda"), 28, True),
    "svm 112": (NetworkConfig(network="svm", inputs="fall"), 112, False),
    "shallow 28": (NetworkConfig(network="shallow", inputs="rise"), 28, False),
    "cnn 112": (NetworkConfig(network="cnn", inputs="mmcof", pooling="global", grid=4), 112, True),
}


def answers(content: bytes, clips: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    found = session.run(None, {name: tensor.numpy() for name, tensor in zip(INPUTS, clips, strict=False)})
    return [torch.from_numpy(array) for array in found]


def unlike_start(config: NetworkConfig) -> torch.nn.Module:
    """A network none of whose parts is at its start, where attention and fusion would do nothing."""
    network = build_network(config, 0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return network


QUICK = ("fmanet 28", "shallow 28", "svm 112")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS]
)
def test_onnx_equals_torch_for_any_number_of_clips_and_every_pair_of_valid_phases(name: str) -> None:
    config, size, mirrored = NETWORKS[name]
    predictor = Predictor(unlike_start(config), mirrored)
    content = onnx_bytes(predictor, size, {})
    assert largest_difference(predictor, content, size) <= TOLERANCE
    flow, valid, region, *units = random_clips(4, size)[: len(seen_names(predictor.network))]
    assert {tuple(pair) for pair in valid.tolist()} == {(True, True), (True, False), (False, True), (False, False)}
    logits, probabilities = answers(content, (flow, valid, region, *units))
    with torch.no_grad():
        wanted = predictor(flow, valid, region, *units)
    torch.testing.assert_close(logits, wanted[0], atol=1e-4, rtol=0)
    torch.testing.assert_close(probabilities, wanted[1], atol=1e-4, rtol=0)
    torch.testing.assert_close(logits.softmax(1), probabilities)
    garbage = torch.where(valid[:, :, None, None, None], flow, 1e3)
    torch.testing.assert_close(answers(content, (garbage, valid, region, *units))[0], logits)


def test_bytes_depend_on_the_network_alone_and_another_one_is_told_apart() -> None:
    config = NetworkConfig(network="shallow", inputs="rise")
    one, other = (Predictor(build_network(config, seed), False) for seed in (0, 1))
    content = onnx_bytes(one, 28, {"units": "px"})
    assert onnx_bytes(one, 28, {"units": "px"}) == content
    assert largest_difference(other, content, 28) > 100 * TOLERANCE


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_shards(tmp_path_factory.mktemp("export") / "shards", subjects=2, size=32)


@pytest.fixture(scope="module")
def trained(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two folds; read-only by agreement. Of a small network, which is exported in a quarter of the time."""
    out = tmp_path_factory.mktemp("export") / "run"
    assert fmanet("train", shards, "--out", out, *SMALL, "--network", "shallow", "--inputs", "rise").exit_code == 0
    return out


def fmanet(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_the_command_writes_what_the_run_predicted_and_says_nothing_else(shards: Path, tmp_path: Path) -> None:
    trained = tmp_path / "run"
    assert fmanet("train", shards, "--out", trained, *SMALL).exit_code == 0
    code = f"import sys; sys.path[:0] = {sys.path!r}; from fmanet.cli import main; main()"
    command = [sys.executable, "-c", code, "export", str(trained), "--out", str(tmp_path), "--fold", "casme2.s01"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    path = tmp_path / "fmanet-casme2.s01-seed-0.onnx"
    assert (done.returncode, done.stdout) == (0, f"{path}\n")
    assert [
        line for line in done.stderr.splitlines() if " networks/s, " not in line
    ] == []  # progress, after ten seconds
    clips = ClipSource((shards,), "3-class").load()
    rows = {row.clip_id: row for row in read_table(trained / "predictions.csv").rows if row.fold == "casme2.s01"}
    held_out = clips.select([n for n, name in enumerate(clips.clip_id) if name in rows])
    assert held_out.action_units.any()
    arrays = (held_out.flow, held_out.valid, held_out.region, held_out.action_units)
    _, probabilities = answers(path.read_bytes(), arrays)
    stored = np.array([rows[name].probabilities for name in held_out.clip_id])
    np.testing.assert_allclose(probabilities.numpy(), stored, atol=1e-4)
    told = json.loads((tmp_path / "fmanet-casme2.s01-seed-0.json").read_text())
    inside = ort.InferenceSession(path, providers=["CPUExecutionProvider"]).get_modelmeta().custom_metadata_map
    assert json.loads(inside["classes"]) == told["classes"] == list(clips.classes)
    assert json.loads(inside["network"])["width"] == told["network"]["width"] == 4
    assert (inside["units"], json.loads(inside["size"])) == (told["units"], told["size"]) == ("px", 32)
    weights = next((trained / "folds" / "casme2.s01").glob("*.safetensors"))
    assert inside["weights_sha256"] == told["weights_sha256"]
    assert told["weights_sha256"].startswith(weights.stem.rpartition("-")[2])
    assert told["held_out"] == ["casme2/s01"]
    assert b"site-packages" not in path.read_bytes()


def test_every_network_is_written_unless_one_is_named(trained: Path, tmp_path: Path) -> None:
    done = fmanet("export", trained, "--format", "onnx", "--out", tmp_path)
    assert done.exit_code == 0, done.stderr
    names = ["shallow-casme2.s00-seed-0", "shallow-casme2.s01-seed-0"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{n}.{end}" for n in names for end in ("json", "onnx")]
    held_out = [json.loads((tmp_path / f"{name}.json").read_text())["held_out"] for name in names]
    assert held_out == [["casme2/s00"], ["casme2/s01"]]


@pytest.mark.parametrize("told", [{"size": 10**9}, {"size": "32"}, {"flip_test": None}, {"classes": ["a"]}])
def test_a_record_that_no_run_wrote_is_refused_before_memory_is_taken(
    trained: Path, tmp_path: Path, told: dict[str, Any]
) -> None:
    out = tmp_path / "run"
    shutil.copytree(trained, out)
    path = out / "folds" / "casme2.s01" / "seed-0.json"
    path.write_bytes(hashed_json.encode({**checkpoint.read_side(path), **told}))
    done = fmanet("export", out, "--out", tmp_path / "onnx", "--fold", "casme2.s01")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "Do not trust this file" in done.stderr


def test_probabilities_are_those_of_predict(shards: Path) -> None:
    clips = ClipSource((shards,), "3-class").load()
    network = unlike_start(NetworkConfig())
    for mirrored in (True, False):
        with torch.no_grad():
            _, found = Predictor(network, mirrored)(*seen_by(network, clips))
        np.testing.assert_allclose(found.numpy(), predict(network, clips, TrainSettings(flip_test=mirrored)), atol=1e-6)


@pytest.mark.parametrize(
    ("flags", "code", "says"),
    [
        (("--fold", "casme2.s09"), 2, "must be one of casme2.s00, casme2.s01, or all; got 'casme2.s09'"),
        (("--fold", "all", "--seed", "3"), 2, "--seed must be one of 0; got 3"),
    ],
)
def test_networks_that_are_not_there_are_refused(
    flags: tuple[str, ...], code: int, says: str, trained: Path, tmp_path: Path
) -> None:
    done = fmanet("export", trained, "--out", tmp_path / "out", *flags)
    assert (done.exit_code, done.stdout) == (code, "")
    assert says in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_mismatch_is_an_error_and_no_file(trained: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(export, "TOLERANCE", -1.0)
    done = fmanet("export", trained, "--out", tmp_path, "--fold", "casme2.s00")
    assert done.exit_code == 1
    assert "answers must be PyTorch's" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_missing_library_is_told_with_the_extra_that_brings_it(
    trained: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    done = fmanet("export", trained, "--out", tmp_path / "out", "--fold", "casme2.s00")
    assert done.exit_code == 3
    assert "pip install 'flowkit-mer[onnx]'" in done.stderr
    assert not (tmp_path / "out").exists()
