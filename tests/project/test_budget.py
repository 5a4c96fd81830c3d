"""A run of the tests that takes too long fails, names what took longest, and records the times."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import budget

CONFTEST = "from budget import add_options as pytest_addoption, watch as pytest_configure\n"
TESTS = """
import time

def test_quick(): pass
def test_slow(): time.sleep(0.2)
"""


def session(folder: Path, *arguments: str, before: str = "") -> subprocess.CompletedProcess[str]:
    """Run two tests under a budget."""
    (folder / "conftest.py").write_text(before + CONFTEST)
    (folder / "test_times.py").write_text(TESTS)
    code = f"import sys; sys.path[:0] = {sys.path!r}; import pytest; sys.exit(pytest.main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "-p", "no:cacheprovider", "--rootdir", str(folder), str(folder)]
    return subprocess.run([*command, *arguments], cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "workers", [pytest.param((), marks=pytest.mark.slow), ("-n", "2")], ids=["one process", "xdist"]
)
def test_a_run_beyond_its_budget_fails_and_names_the_slowest_tests(tmp_path: Path, workers: tuple[str, ...]) -> None:
    done = session(tmp_path, "--budget", "0.001", *workers)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "2 passed" in done.stdout
    assert "Error: make test: took" in done.stdout
    *_, slowest, second = (line for line in done.stdout.splitlines() if " s  " in line)
    assert slowest.endswith("test_times.py::test_slow")
    assert second.endswith("test_times.py::test_quick")
    recorded = json.loads((tmp_path / budget.RECORD).read_text())
    assert recorded["tests"]["test_times.py::test_slow"] >= 0.2
    assert recorded["seconds"] >= 0.2


def test_a_run_within_its_budget_passes_and_is_recorded(tmp_path: Path) -> None:
    done = session(tmp_path, "--budget", "1000")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "budget: 1000 s" in done.stdout
    assert "Error" not in done.stdout
    assert (tmp_path / budget.RECORD).is_file()


def test_time_before_the_first_test_counts(tmp_path: Path) -> None:
    """`make test` checks style and types first."""
    done = session(tmp_path, "--budget", "1000", "--began", "0")
    assert done.returncode == 1, done.stdout


def test_a_session_without_a_budget_is_not_watched(tmp_path: Path) -> None:
    done = session(tmp_path)
    assert (done.returncode, "budget" in done.stdout) == (0, False)
    assert not (tmp_path / budget.RECORD).exists()


def test_half_as_much_again_is_tolerated_and_a_slow_machine_gets_more() -> None:
    usual = budget.REFERENCE_S
    assert budget.limit(480, usual) == 720
    assert budget.limit(480, usual / 2) == 720
    assert budget.limit(480, 2 * usual) == pytest.approx(1440)
    assert 0 < budget.calibrated() < 100 * usual


def test_a_core_that_is_slow_while_tests_run_is_seen(tmp_path: Path) -> None:
    """A machine may be fast before the first test and after the last one."""
    slow = "import budget; budget.EVERY_S = 0.0; budget.calibrated = lambda: 0.1; budget.core_seconds = lambda: 0.4\n"
    done = session(tmp_path, "--budget", "1000", before=slow)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "limit on this machine, now: 6000 s." in done.stdout
    assert 0 < budget.core_seconds() < 100 * budget.REFERENCE_S
