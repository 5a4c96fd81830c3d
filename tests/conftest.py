"""Small made-up data sets that many tests share, a way to run the command line, and what a test with the mark `gpu` needs.

Imports no more than pytest and the kernels' backends: on a GPU machine, tests of the kernels must run without mediapipe, PyAV
and OpenCV.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import budget
from flowkit_kernels.backend import GPU_BACKENDS, find_obstacle
from flowkit_kernels.probing.obstacles import gpu_is_here

os.environ.pop("FLOWKIT_DATASETS", None)  # data sets of whoever runs the tests
SIZE = 96
CLASSES = ("smile", "smile_frown", "frown")


@dataclass(frozen=True)
class Done:
    """A finished command."""

    code: int
    out: str
    err: str


def start(
    *arguments: str | Path, before: tuple[str, ...] = (), code: str = "", **environment: str
) -> subprocess.Popen[str]:
    """Start `flowkit`, or Python code, in a process group of its own, behind another command if one is given."""
    paths = os.pathsep.join(path for path in sys.path if path)
    return subprocess.Popen(
        [*before, sys.executable, *(("-c", code) if code else ("-m", "flowkit.cli")), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths, **environment},
        start_new_session=True,
        preexec_fn=_hear_ctrl_c,
    )


STANDIN = Path(__file__).parent / "standin"


def standin_environment(**settings: object) -> dict[str, str]:
    """Return the environment of a process, and of its children, on a machine with a stand-in for a GPU (standin/)."""
    paths = os.pathsep.join([str(STANDIN), *filter(None, sys.path)])
    return {**os.environ, "PYTHONPATH": paths, "FLOWKIT_STANDIN": json.dumps(settings)}


def run_on_standin(*arguments: str | Path, **settings: object) -> subprocess.CompletedProcess[str]:
    """Run Python on a machine with a stand-in for a GPU."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=standin_environment(**settings),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def _hear_ctrl_c() -> None:
    """Whoever starts the tests in the background of a shell has SIGINT ignored, and so would what the tests start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def flowkit(*arguments: str | Path, before: tuple[str, ...] = (), **environment: str) -> Done:
    """Run `flowkit` to its end: in this process, unless it needs another command before it or another environment.

    To start a process and import everything there takes longer than what most tests ask of a command.
    """
    if not before and not environment:
        return in_process(*arguments)
    process = start(*arguments, before=before, **environment)
    out, err = process.communicate(timeout=300)
    return Done(process.returncode, out, err)


def in_process(*arguments: str | Path) -> Done:
    """Run `flowkit` here; an error that it does not turn into an exit code is raised."""
    from click.testing import CliRunner

    from flowkit.cli import main

    done = CliRunner().invoke(main, list(map(str, arguments)))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Done(done.exit_code, done.stdout, done.stderr)


LONGEST_FIRST = (
    "test_placement.py",
    "test_training_run.py",
    "test_cluster.py",
    "test_recipes.py",
    "test_kill_matrix.py",
    "test_extract.py",
    "test_bench.py",
    "test_export.py",
    "test_run_on_cluster.py",
    "test_cuda_simulator.py",
    "test_fault_runs.py",
    "test_spotting.py",
    "test_shares.py",
    "test_faults.py",
    "test_many_shards.py",
    "test_scale.py",
)
"""Files that take long: begun last, one of them would keep one process busy while the others have nothing left to do."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--budget` and `--gpu-backends`."""
    budget.add_options(parser)
    parser.addoption(
        "--gpu-backends",
        type=gpu_backends,
        default=list(GPU_BACKENDS),
        help="GPU backends to test, separated by commas (default: all); on a machine with a GPU, each of them must run",
    )


def gpu_backends(text: str) -> list[str]:
    """Return the names in the value of --gpu-backends."""
    names = [name.strip() for name in text.split(",")]
    if not set(names) <= set(GPU_BACKENDS):
        raise pytest.UsageError(
            f"--gpu-backends: {text!r}: the names are {', '.join(GPU_BACKENDS)}, separated by commas."
        )
    return names


def pytest_configure(config: pytest.Config) -> None:
    """Watch the time of `make test`."""
    budget.watch(config)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the slowest files; deselect tests of GPU backends that --gpu-backends does not name."""
    rank = {name: number for number, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))
    others = [item for item in items if gpu_backends_of(item) - set(config.option.gpu_backends)]
    if others:
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item not in others]


def gpu_backends_of(item: pytest.Item) -> set[str]:
    """Return the GPU backends that a test needs, as named by its marks `gpu`."""
    marks = list(item.iter_markers("gpu"))
    names = {name for mark in marks for name in mark.args}
    if marks and (not names or names - set(GPU_BACKENDS)):
        raise pytest.UsageError(
            f"{item.nodeid}: the mark gpu must name backends of {GPU_BACKENDS}; got {names or 'none'}"
        )
    return names


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """If only GPU tests are selected, ignore files without any: they may import packages that a GPU machine lacks."""
    if collection_path.suffix != ".py" or not asks_for_gpu(config.option.markexpr):
        return None
    text = collection_path.read_text(encoding="utf-8")
    return None if "mark.gpu" in text or "backend_params" in text else True


def asks_for_gpu(expression: str) -> bool:
    """Return whether a mark expression, such as "gpu and not slow", selects only tests with the mark `gpu`."""
    others = sorted(set(re.findall(r"[A-Za-z_]\w*", expression)) - {"and", "or", "not", "gpu"})
    cases = itertools.product((False, True), repeat=len(others))
    try:
        code = compile(expression.strip() or "True", "-m", "eval")
        return not any(eval(code, {"gpu": False, **dict(zip(others, case, strict=True))}) for case in cases)
    except (SyntaxError, TypeError):
        return False  # pytest reports a malformed expression, and knows more forms than this function


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests that need a GPU on machines without one.

    On a machine with a GPU, a backend that cannot run fails its tests if GPU tests were asked for: a run that skipped them all
    would pass. In other runs, such as `make test`, they are skipped.
    """
    names = gpu_backends_of(item)
    if names and not gpu_is_here():
        obstacle = find_obstacle("cuda")
        pytest.skip(f"no GPU: {obstacle.what if obstacle else 'the driver finds none'}")
    for name in sorted(names):
        obstacle = find_obstacle(name)
        if obstacle and not asks_for_gpu(item.config.option.markexpr):
            pytest.skip(f"no GPU backend {name}: {obstacle.what}")
        if obstacle:
            others = ",".join(other for other in GPU_BACKENDS if other != name)
            pytest.fail(
                f"{name}: cannot run on this machine, which has a GPU: {obstacle.what}. {obstacle.next_step}; or leave its tests "
                f"out: --gpu-backends {others}",
                pytrace=False,
            )


def shard_bytes(out: Path) -> dict[str, str]:
    """Relative path and hash of every shard file; those that a killed run was writing are hidden, and none."""
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*.h5"))
        if not path.name.startswith(".")
    }


@pytest.fixture(scope="session")
def cropped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifest of 12 clips that are cropped already, 96 x 96: no mediapipe needed."""
    from flowkit.synthetic.dataset import SynthConfig, synthesise

    config = SynthConfig(
        motion="bumps",
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
    from flowkit.synthetic.dataset import SynthConfig, synthesise

    config = SynthConfig(motion="bumps", subjects=1, classes=("smile", "frown"), key_frames_only=True, light=0.02)
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
