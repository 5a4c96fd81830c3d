"""Small made-up data sets that many tests share, and a way to run the command line."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from flowkit.synth import SynthConfig, synthesise

SIZE = 96
CLASSES = ("smile", "smile_frown", "frown")


@dataclass(frozen=True)
class Done:
    """A finished command."""

    code: int
    out: str
    err: str


def start(*arguments: str | Path, before: tuple[str, ...] = (), **environment: str) -> subprocess.Popen[str]:
    """Start `flowkit` in a process group of its own, behind another command if one is given."""
    paths = os.pathsep.join(path for path in sys.path if path)
    return subprocess.Popen(
        [*before, sys.executable, "-m", "flowkit.cli", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths, **environment},
        start_new_session=True,
    )


def flowkit(*arguments: str | Path, before: tuple[str, ...] = (), **environment: str) -> Done:
    """Run `flowkit` to its end."""
    process = start(*arguments, before=before, **environment)
    out, err = process.communicate(timeout=300)
    return Done(process.returncode, out, err)


def shard_bytes(out: Path) -> dict[str, str]:
    """Relative path and hash of every shard file."""
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(out.rglob("*.h5"))
    }


@pytest.fixture(scope="session")
def cropped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifest of 12 clips that are cropped already, 96 x 96: no mediapipe needed."""
    config = SynthConfig(
        noise=0.3,
        subjects=4,
        classes=CLASSES,
        cropped=True,
        width=SIZE,
        height=SIZE,
        key_frames_only=True,
        peak_px=(0.5, 1.0),
    )
    return synthesise(tmp_path_factory.mktemp("cropped") / "clips", config)


@pytest.fixture(scope="session")
def uncropped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifest of 2 whole-face clips."""
    config = SynthConfig(subjects=1, classes=("smile", "frown"), key_frames_only=True, light=0.02)
    return synthesise(tmp_path_factory.mktemp("uncropped") / "clips", config)


SMALL = ("--align", "none", "--size", str(SIZE), "--shard-clips", "5", "--workers", "2", "--batch", "2")
"""Flags that fit `cropped`: three shards of 5, 5 and 2 clips."""


@pytest.fixture(scope="session")
def undisturbed(cropped: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shards of `cropped`, made in one go; read-only by agreement."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    done = flowkit("extract", cropped, "--out", out, *SMALL)
    assert done.code == 0, done.err
    return out
