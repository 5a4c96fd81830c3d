"""What is wrong with a call of `fmanet` is found before torch is loaded, which takes seconds."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from made_clips import made_shards

CODE = """
import json, sys
sys.path[:0] = {path!r}

class Guard:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "safetensors", "numba", "cv2", "mediapipe"):
            raise RuntimeError(f"loads {{name}}")

sys.meta_path.insert(0, Guard())
from click.testing import CliRunner
from fmanet.cli import main
for line in sys.stdin:
    done = CliRunner().invoke(main, json.loads(line))
    print(json.dumps([done.exit_code, done.stdout, done.stderr]), flush=True)
"""


class Fmanet:
    """`fmanet` in one process that refuses to load torch."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", CODE.format(path=sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *arguments: str | Path) -> tuple[int, str, str]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([str(argument) for argument in arguments]) + "\n")
        self._process.stdin.flush()
        code, out, err = json.loads(self._process.stdout.readline())
        return code, out, err

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture(scope="module")
def fmanet() -> Iterator[Fmanet]:
    program = Fmanet()
    yield program
    program.close()


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_shards(tmp_path_factory.mktemp("early") / "shards", subjects=2, size=32)


NEEDS_A_RUN = {"evaluate": (), "report": (), "export": ("--out", "x"), "predict": ("{shards}", "--out", "x.csv")}
TRAINS = ("train", "ablate")


@pytest.mark.parametrize("command", NEEDS_A_RUN)
def test_a_folder_that_is_no_run(fmanet: Fmanet, shards: Path, tmp_path: Path, command: str) -> None:
    rest = [text.format(shards=shards) for text in NEEDS_A_RUN[command]]
    for folder, says in ((tmp_path / "none", "must hold a run"), (shards, "must be one of fmanet train")):
        code, _, err = fmanet(command, folder, *rest)
        assert (code, says in err) == (2, True), err


BAD = {
    "misspelt": (("--set", "train.epoch=3"), "Did you mean train.epochs?"),
    "range": (("--epochs", "0"), "train.epochs must be from 1"),
    "network": (("--set", "network.width=7"), "width must be a multiple of 4"),
    "protocol": (("--protocol", "holdout"), "protocol.hold_out must be given with holdout"),
    "grouping": (("--classes", "12-class"), "grouping must be one of"),
    "file": (("--config", "/nowhere.toml"), "settings must be a readable TOML file"),
    "workers": (("--workers", "-1"), "workers must be from 0"),
    "option": (("--nonsense",), "No such option"),
}


@pytest.mark.parametrize("command", TRAINS)
@pytest.mark.parametrize("case", BAD)
def test_settings_that_are_wrong(fmanet: Fmanet, shards: Path, tmp_path: Path, command: str, case: str) -> None:
    flags, says = BAD[case]
    code, _, err = fmanet(command, shards, "--out", tmp_path / "run", *flags)
    assert (code, says in err) == (2, True), err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", TRAINS)
@pytest.mark.parametrize("more", [(), ("--classes", "raw")])
def test_a_folder_that_holds_no_shards(fmanet: Fmanet, tmp_path: Path, command: str, more: tuple[str, ...]) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        code, _, err = fmanet(command, folder, "--out", tmp_path / "run", *more)
        assert (code, "must hold the shards of an extraction" in err) == (2, True), err


def test_one_subject_alone_for_the_ladder(fmanet: Fmanet, shards: Path, tmp_path: Path) -> None:
    flags = ("--protocol", "holdout", "--hold-out", "casme2/s01")
    code, _, err = fmanet("ablate", shards, "--out", tmp_path / "ladder", *flags)
    assert (code, "two subjects or more" in err) == (2, True), err


def test_help_and_settings(fmanet: Fmanet, tmp_path: Path) -> None:
    for command in ("train", "evaluate", "predict", "report", "export", "ablate", "settings"):
        code, out, _ = fmanet(command, "--help")
        assert (code, out.startswith("Usage:")) == (0, True)
    code, out, _ = fmanet("settings")
    assert (code, "epochs = 20" in out) == (0, True)
    assert fmanet("settings", "--of", tmp_path)[0] == 2


def test_the_guard_would_notice(fmanet: Fmanet, shards: Path, tmp_path: Path) -> None:
    code, _, err = fmanet("train", shards, "--out", tmp_path / "run")
    assert code != 0
    assert "loads torch" in err
