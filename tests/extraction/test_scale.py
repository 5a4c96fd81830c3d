"""A million clips: what must stay quick stays quick, measured by the benchmark itself; here and in CI at a twentieth."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
MILLION = 1_000_000
START_S, START_GB = 1.5, 0.15
"""What a process costs before it has seen a clip, generously."""
BUSY = 2
"""How many times the CPU time of an idle machine a busy one may need."""


def benchmark(*arguments: object) -> str:
    """Output of benchmarks/scale.py."""
    command = [sys.executable, str(ROOT / "benchmarks" / "scale.py"), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def measured(clips: int, tmp_path: Path) -> dict[str, Any]:
    out = tmp_path / "scale.json"
    benchmark("--clips", clips, "--repeats", 1, "--out", out)
    results: dict[str, Any] = json.loads(out.read_text())["results"]
    return results


def check(clips: int, results: dict[str, Any]) -> None:
    tasks = -(-clips // 256)
    failed = clips // 1009 if clips % 1009 != 1008 else clips // 1009 + 1  # line 2 is that of the first clip
    found = {name: row["found"] for name, row in results["steps"].items()}
    everything = {"planned": clips, "ok": clips - failed, "failed": failed, "not_started": 0}
    assert found["plan command (--dry-run)"]["pending"] == clips
    assert found["plan and publish"]["pending"] == tasks
    assert found["resume, half done"]["pending"] == tasks - tasks // 2
    assert (found["resume, all done"]["pending"], found["resume, all done"]["ok"]) == (0, clips - failed)
    assert found["index load"]["clips"] == found["finalise"]["clips"] == clips - failed
    assert found["inspect command, no index"] == found["inspect command, index current"] == everything
    assert found["extract command, all done"] == everything | {"computed": 0}
    held_out = found["leave one subject out"]
    assert (held_out["held_out"] + held_out["others"], held_out["persons"]) == (clips - failed, 500)
    share = clips / MILLION
    for name, bars in results["bars"].items():
        row = results["steps"][name]
        assert row["cpu_seconds"] <= START_S + BUSY * share * bars["seconds"], (name, row)
        assert row["peak_gb"] <= START_GB + share * bars["peak_gb"], (name, row)


def test_a_twentieth_of_a_million_clips_takes_a_twentieth_of_the_bars(tmp_path: Path) -> None:
    check(MILLION // 20, measured(MILLION // 20, tmp_path))


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_million_clips_stay_within_the_bars(tmp_path: Path) -> None:
    check(MILLION, measured(MILLION, tmp_path))


def test_the_capacity_page_says_what_the_script_says() -> None:
    tables = benchmark("--capacity").strip()
    assert tables in (ROOT / "docs" / "capacity.md").read_text(encoding="utf-8")
