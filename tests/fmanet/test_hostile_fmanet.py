"""Runs and checkpoints made to do harm: refused in clear words by every command, nothing unpickled, nothing waited for."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from made_clips import made_checkpoint, made_shards
from safetensors.torch import save

from flowkit.storage import durable_files, hashed_json
from fmanet import checkpoint
from fmanet.building import build_network
from fmanet.cli import main
from fmanet.errors import CheckpointRefused
from fmanet.settings import NetworkConfig
from hostile_files import KINDS, little_memory, no_file
from json_mutations import mutations

FLAGS = ("--set", "network.width=4", "--set", "network.grid=4", "--epochs", "1", "--seeds", "1", "--workers", "1")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_shards(tmp_path_factory.mktemp("shards") / "casme2", subjects=3, size=32)


@pytest.fixture(scope="module")
def trained(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read-only by agreement."""
    out = tmp_path_factory.mktemp("trained") / "run"
    done = CliRunner().invoke(main, ["train", str(shards), "--out", str(out), *FLAGS])
    assert done.exit_code == 0, done.stderr
    return out


def commands(run: Path, shards: Path) -> list[list[str]]:
    """Every command that reads a run."""
    return [
        ["evaluate", str(run)],
        ["report", str(run), "--clips", "1"],
        ["predict", str(run), str(shards), "--out", str(run / "new.csv")],
        ["export", str(run), "--format", "onnx", "--fold", "casme2.s00", "--out", str(run / "onnx")],
        ["train", str(shards), "--out", str(run), *FLAGS, "--dry-run"],
    ]


def clean_end(arguments: list[str], what: str) -> int:
    """The exit code of a command, which must end in a message and not in a traceback."""
    done = CliRunner().invoke(main, arguments)
    assert done.exception is None or type(done.exception) is SystemExit, (arguments[0], what, repr(done.exception))
    assert done.exit_code in (0, 1, 2, 3), (arguments[0], what, done.stderr)
    return done.exit_code


@pytest.mark.parametrize("name", ["run.json", "folds.json", "folds/casme2.s00/seed-0.json"])
def test_a_json_file_of_another_form_ends_in_words(trained: Path, shards: Path, tmp_path: Path, name: str) -> None:
    """Now this value and now that is one of another kind, under a hash that fits."""
    run = shutil.copytree(trained, tmp_path / "run")
    path = run / name
    honest = path.read_bytes()
    changes = list(mutations(json.loads(honest)["content"], 3, seed=2))
    refused = 0
    for number, (what, content) in enumerate(random.Random(2).sample(changes, 50)):
        path.write_bytes(hashed_json.encode(content))
        found = [command for command in commands(run, shards) if command[0] != "export"]  # which takes seconds
        refused += clean_end(found[number % len(found)], what) != 0
    assert refused > 10


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_is_never_waited_for_in_a_run(trained: Path, shards: Path, tmp_path: Path, kind: str) -> None:
    names = ["run.json", "folds.json", "folds/casme2.s00/seed-0.json"]
    names += [
        str(next(trained.glob(f"folds/casme2.s00/seed-0-????????????{end}")).relative_to(trained)) for end in ENDS
    ]
    for name in names:
        run = shutil.copytree(trained, tmp_path / name.replace("/", "-"))
        no_file(run / name, kind)
        with little_memory():
            for arguments in commands(run, shards)[:1] if name.endswith("csv") else commands(run, shards)[2:3]:
                assert clean_end(arguments, f"{kind} {name}") in (1, 2)


ENDS = (".csv", ".safetensors")


class Shell:
    """What a hostile pickle does when it is read."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (os.environ["OWNED"],)


def headed(head: dict[str, Any], data: bytes = b"") -> bytes:
    text = json.dumps(head).encode()
    return len(text).to_bytes(8, "little") + text + data


def state() -> dict[str, torch.Tensor]:
    return dict(build_network(NetworkConfig(width=4, grid=4), 0).state_dict())


def rewritten(change: Any) -> bytes:
    """Honest weights under a header that was changed."""
    content = save(state())
    length = int.from_bytes(content[:8], "little")
    head = json.loads(content[8 : 8 + length])
    change(head)
    return headed(head, content[8 + length :])


def _all_at_once(head: dict[str, Any]) -> None:
    """Of the tensors of each shape, all lie where the first one does."""
    found: dict[str, list[int]] = {}
    for entry in head.values():
        entry["data_offsets"] = found.setdefault(str(entry.get("shape")), entry.get("data_offsets"))
    assert len(found) < len(head)


def _first(head: dict[str, Any], **changes: Any) -> None:
    next(entry for name, entry in head.items() if name != "__metadata__").update(changes)


WEIGHTS = {
    "overlapping": lambda: rewritten(_all_at_once),
    "behind the end": lambda: rewritten(lambda head: _first(head, data_offsets=[10**9, 10**9 + 4])),
    "backwards": lambda: rewritten(lambda head: _first(head, data_offsets=[16, 0])),
    "negative": lambda: rewritten(lambda head: _first(head, data_offsets=[-4, 0])),
    "a shape of 10**18": lambda: rewritten(lambda head: _first(head, shape=[10**9, 10**9])),
    "a shape that overflows": lambda: rewritten(lambda head: _first(head, shape=[2**33, 2**33])),
    "another type": lambda: rewritten(lambda head: _first(head, dtype="I64")),
    "no type": lambda: rewritten(lambda head: _first(head, dtype="PICKLE")),
    "a header of 100 MB": lambda: (100_000_000).to_bytes(8, "little") + b"{" + b" " * 1000,
    "a header that never ends": lambda: (2**63).to_bytes(8, "little"),
    "brackets": lambda: (100_000).to_bytes(8, "little") + b"[" * 100_000,
    "a list": lambda: headed([]),  # type: ignore[arg-type]
    "nothing": lambda: b"",
    "infinity": lambda: save({name: torch.full_like(value, float("inf")) for name, value in state().items()}),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_that_lie_are_refused(tmp_path: Path, name: str) -> None:
    told = {"network": NetworkConfig(width=4, grid=4).to_dict(), "classes": ["a", "b", "c"]}
    path = made_checkpoint(tmp_path, state(), told)
    weights = durable_files.publish_hashed(tmp_path, "hostile-{}.safetensors", WEIGHTS[name]())
    path.write_bytes(hashed_json.encode({**checkpoint.read_side(path), "weights": weights}))
    with little_memory(), pytest.raises(CheckpointRefused, match="checkpoint must"):
        checkpoint.load(path)


@pytest.mark.parametrize("how", ["weights", "record", pytest.param("beside", marks=pytest.mark.slow), "predictions"])
def test_a_pickle_in_a_run_is_never_read(
    trained: Path, shards: Path, tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`torch.load` of the same file runs it, which shows that it would."""
    owned = tmp_path / "owned"
    monkeypatch.setenv("OWNED", str(owned))
    torch.save(Shell(), tmp_path / "shell.pt")
    torch.load(tmp_path / "shell.pt", weights_only=False)
    owned.rmdir()
    run = shutil.copytree(trained, tmp_path / "run")
    record, shell = run / "folds" / "casme2.s00" / "seed-0.json", (tmp_path / "shell.pt").read_bytes()
    content = checkpoint.read_side(record)
    if how == "record":
        record.write_bytes(shell)
    elif how == "beside":
        for name in ("model.pt", "seed-0.pt", "run.pkl", "scores.npy"):
            (run / name).write_bytes(shell)
            (record.parent / name).write_bytes(shell)
    else:
        suffix = {"weights": ".safetensors", "predictions": ".csv"}[how]
        told = durable_files.publish_hashed(record.parent, f"seed-0-{{}}{suffix}", shell)
        record.write_bytes(hashed_json.encode({**content, how: told}))
    codes = {arguments[0]: clean_end(arguments, how) for arguments in commands(run, shards)}
    assert not owned.exists()
    if how == "weights":
        assert (codes["predict"], codes["export"], codes["report"]) == (1, 1, 1)
    elif how == "beside":
        assert set(codes.values()) == {0}
    else:
        assert codes["evaluate"] == 1
