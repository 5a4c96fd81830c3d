"""How tests are chosen on a machine with a GPU: by mark, by backend, and never green where nothing was tried."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import asks_for_gpu, run_on_standin

TESTS = Path(__file__).parents[1]
MMCOF = TESTS / "kernels" / "test_kernel_mmcof.py"
ONE = f"{MMCOF}::test_an_invalid_phase_does_not_count"


@pytest.mark.parametrize(
    ("expression", "asks"),
    [
        ("gpu", True),
        ("gpu and not sanitizer", True),
        ("not slow and gpu", True),
        ("(gpu and slow) or (gpu and hours)", True),
        ("gpu or slow", False),
        ("not gpu", False),
        ("slow", False),
        ("", False),
        ("gpu and", False),
        ("gpu('cuda')", False),
    ],
)
def test_an_expression_that_only_tests_for_a_gpu_fit_is_known(expression: str, asks: bool) -> None:
    assert asks_for_gpu(expression) == asks


def on_standin(*arguments: str | Path, **settings: object) -> tuple[int, str]:
    """Exit code and output of pytest on a machine whose GPU is a stand-in; numba-cuda finds none there."""
    done = run_on_standin("-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments, **settings)
    return done.returncode, done.stdout + done.stderr


def test_a_gpu_backend_that_is_absent_where_a_gpu_is_fails_the_run() -> None:
    code, told = on_standin(ONE, "-m", "gpu")
    assert code == 1, told
    assert re.search(r"1 passed, .*1 error", told)
    assert "numba-cuda: cannot run on this machine, which has a GPU: numba-cuda finds no GPU" in told
    assert "--gpu-backends cuda" in told


def test_a_run_that_does_not_ask_for_gpu_tests_skips_them() -> None:
    """A contributor's GPU may be too old, or its driver; `make test` is not about it."""
    code, told = on_standin(ONE, "-rs")
    assert code == 0, told
    assert "3 passed, 1 skipped" in told
    assert "no GPU backend numba-cuda: numba-cuda finds no GPU" in told


def test_a_backend_that_was_not_asked_for_is_left_out() -> None:
    code, told = on_standin(ONE, "-m", "gpu", "--gpu-backends", "cuda")
    assert code == 0, told
    assert re.search(r"1 passed, \d deselected", told)


def test_no_backend_at_all_is_no_green_run() -> None:
    code, told = on_standin(ONE, "-m", "gpu and not slow", nvrtc=False)
    assert code == 1, told
    assert "2 errors" in told
    assert "NVRTC, CUDA's compiler, cannot be loaded" in told


@pytest.mark.parametrize("names", ["numba_cuda", "cuda,opencv", ""])
def test_a_name_that_is_no_gpu_backend_is_an_error_and_no_empty_run(names: str) -> None:
    code, told = on_standin(ONE, "-m", "gpu", "--gpu-backends", names)
    assert code == pytest.ExitCode.USAGE_ERROR, told
    assert "the names are cuda, numba-cuda, separated by commas" in told


def test_spaces_between_backends_mean_nothing() -> None:
    code, told = on_standin(ONE, "-m", "gpu", "--gpu-backends", "cuda, numba-cuda", "--collect-only")
    assert code == 0, told
    assert "2/4 tests collected" in told


@pytest.mark.parametrize("mark", ["gpu", "gpu('opencv')"])
def test_a_mark_says_which_backends_are_needed(tmp_path: Path, mark: str) -> None:
    (tmp_path / "test_marked.py").write_text(f"import pytest\n@pytest.mark.{mark}\ndef test_it():\n    assert True\n")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", TESTS.parent / "setup.cfg"]
    command += ["--rootdir", TESTS.parent, "-p", "conftest", tmp_path / "test_marked.py"]
    environment = {"PYTHONPATH": ":".join(filter(None, sys.path)), "PATH": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR, done.stdout
    assert "the mark gpu must name backends of ('cuda', 'numba-cuda'); got" in done.stdout + done.stderr


def test_what_may_run_on_a_gpu_machine_keeps_the_paths_of_the_machine() -> None:
    """Where packages lie on PYTHONPATH, as wheels do that were carried along, a process that is given another one misses them."""
    for path in TESTS.rglob("test_*.py"):
        text = path.read_text(encoding="utf-8")
        if path != Path(__file__) and ("mark.gpu" in text or "backend_params" in text):
            for value in re.findall(r'"PYTHONPATH": ([^,}]+)', text):
                assert value in ("paths", "os.pathsep.join(path for path in sys.path if path)"), (path.name, value)
