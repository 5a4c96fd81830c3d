"""A GPU machine as one finds it, emulated: `make test-bare` makes its Python (standin/requirements.txt) and runs this.

Its GPU is the stand-in, its NumPy is newer than numba-cuda compiles with, and much is missing. What must hold there: tests are
collected, an absent backend is no green run, and benchmarks/device.sh answers to the end.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYTHON = os.environ.get("FLOWKIT_BARE_PYTHON", "")
WHEELS = os.environ.get("FLOWKIT_BARE_WHEELS", "")
LEAST_TESTS = 150

pytestmark = pytest.mark.skipif(not PYTHON, reason="no GPU machine is emulated here: make test-bare does it")


def bare(*command: str | Path, gpu: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run something there; nothing of this process's Python is seen."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    standin = {"PYTHONPATH": str(ROOT / "tests" / "standin"), "FLOWKIT_STANDIN": "{}"} if gpu else {}
    return subprocess.run(
        list(map(str, command)),
        env={**kept, **standin, **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=1500,
    )


def run_tests(*arguments: str, gpu: bool = True) -> tuple[int, str]:
    done = bare(PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments, gpu=gpu)
    return done.returncode, done.stdout + done.stderr


def test_it_lacks_what_such_a_machine_lacks() -> None:
    code = """
import importlib.util, cv2, numpy, sys
assert sys.version_info >= (3, 12) and not hasattr(numpy, "row_stack") and not hasattr(cv2, "optflow")
for name in ("av", "mediapipe", "hdf5plugin", "dask", "hypothesis"):
    assert importlib.util.find_spec(name) is None, name
"""
    done = bare(PYTHON, "-c", code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("expression", ["gpu", "gpu and not slow"])
def test_every_test_for_a_gpu_is_collected(expression: str) -> None:
    code, told = run_tests("-m", expression, "--collect-only")
    assert code == 0, told
    collected = re.search(r"(\d+)/\d+ tests collected", told)
    assert collected
    assert int(collected[1]) >= LEAST_TESTS
    assert "error" not in told.splitlines()[-1]


def test_a_backend_that_cannot_compile_there_fails_the_run() -> None:
    code, told = run_tests("-m", "gpu", "tests/kernels/test_kernel_mmcof.py", "-k", "an_invalid_phase")
    assert code == 1, told
    assert "numba-cuda: cannot run on this machine, which has a GPU: numba-cuda cannot compile with NumPy 2." in told


def test_what_needs_no_gpu_runs_there() -> None:
    code, told = run_tests("-m", "not gpu and not slow", "-n", "2", "tests/kernels", "tests/cuda_on_cpu", gpu=False)
    assert code == 0, told[-4000:]
    assert int(re.findall(r"(\d+) passed", told)[-1]) > 500


def test_the_script_answers_to_its_end(tmp_path: Path) -> None:
    """With a NumPy carried along that numba-cuda compiles with, and what only the stand-in lacks: NVIDIA's tools."""
    out = tmp_path / "out"
    asked = {"PY": PYTHON, "WHEELS": WHEELS, "OUT": str(out), "QUICK": "1", "LIMIT_S": "1400", "BACKENDS": "cuda"}
    done = bare("bash", "benchmarks/device.sh", **asked)
    steps = json.loads((out / "device.json").read_text())["steps"]
    states = {name: step["status"] for name, step in steps.items()}
    absent = dict.fromkeys(("sanitizer", "ncu"), "could not run")
    order = ("machine", "smoke", "speed", "probe", "tests", "sanitizer", "ncu", "endtoend")
    assert states == dict.fromkeys(order, "done") | absent, (
        (out / "summary.txt").read_text() + done.stdout + done.stderr
    )
    assert done.returncode == 3
    assert steps["machine"]["results"]["machine"]["packages"]["numpy"].startswith("2.4")
    assert all(check["same_bits"] for check in steps["smoke"]["results"]["cuda"]["checks"])
    assert steps["tests"]["results"]["passed"] > 70
    assert steps["tests"]["results"]["failed"] == {}
    assert {row["kernel"] for row in steps["probe"]["results"]["kernels_48"]} >= {"iterate", "median", "linearise"}
    assert "Stand-in on the CPU" in json.dumps(steps["speed"]["results"])
    assert not (out / "gpu.json").exists()  # a stand-in's figures are none
    summary = (out / "summary.txt").read_text()
    assert all(re.search(rf"^{name} +{states[name]}", summary, re.MULTILINE) for name in order)
    assert len(list(out.iterdir())) <= 8
