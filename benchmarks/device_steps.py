"""The steps of benchmarks/device.py: for each of them its command, its time limit, and how its results are read."""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import json
import re
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
DONE, FAILED, CANNOT, LATE, STOPPED, RUNNING = "done", "failed", "could not run", "out of time", "stopped", "running"
COUNTERS = (
    "gpu__time_duration.sum",
    "sm__throughput.avg.pct_of_peak_sustained_elapsed",
    "smsp__issue_active.avg.pct_of_peak_sustained_active",
    "dram__throughput.avg.pct_of_peak_sustained_elapsed",
    "l1tex__data_bank_conflicts_pipe_lsu.sum",
    "launch__registers_per_thread",
    "sm__warps_active.avg.pct_of_peak_sustained_active",
)


@dataclass(frozen=True)
class Finished:
    """A finished command: its exit code (None: it ran out of time), its output, and the file that it may have written."""

    code: int | None
    output: str
    written: Path


@dataclass
class Outcome:
    """The result of a step."""

    status: str
    lines: list[str] = field(default_factory=list)
    """The most important figures, or the reason for a failure, for the summary."""
    results: Any = None


@dataclass(frozen=True)
class Step:
    """A command, the function that reads its results, and what it needs."""

    command: list[str]
    read: Callable[[Finished], Outcome]
    tool: str = ""
    """A program that must be on PATH."""
    keep: str = ""
    """Name for a copy of the file that the command writes; "": no copy."""


LIMITS = {
    "machine": 20,
    "smoke": 60,
    "speed": 75,
    "probe": 70,
    "tests": 200,
    "sanitizer": 120,
    "ncu": 45,
    "endtoend": 60,
}
"""Time limit of each step, in seconds, in the order in which the steps run."""


def steps_of(written: Path, backends: Sequence[str], processes: int, quick: bool) -> dict[str, Step]:
    """Return every step by name.

    Parameters
    ----------
    written : Path
        File to which each command writes its results; the caller removes it before the next step.
    backends : sequence of str
        GPU backends that must run.
    processes : int
        Of the tests, at most.
    quick : bool
        Whether inputs are tiny.
    """
    names, tiny = ",".join(backends), ["--quick"] * quick
    # The end-to-end test does the same as the step `endtoend`, and is as slow as all other tests on a stand-in for a GPU.
    chosen = ["-k", "not end_to_end"] * quick
    small = "from flowkit.bench import end_to_end; end_to_end.SUBJECTS = 1; " if quick else ""
    extract = [sys.executable, "-c", f"{small}from flowkit.cli import main; main()", "bench", "--end-to-end"]
    ncu = ["ncu", "--clock-control", "none", "--profile-from-start", "off", "--csv", "--print-units", "base"]

    def script(name: str, *arguments: str) -> list[str]:
        return [sys.executable, str(HERE / name), *arguments, "--out", str(written)]

    def tests(expression: str, workers: int, *more: str) -> list[str]:
        spread = ["-n", str(workers)] if importlib.util.find_spec("xdist") else []
        command = [sys.executable, "-m", "pytest", "-m", expression, "--gpu-backends", names, *spread, *more]
        return [*command, "-q", "-W", "default", "-p", "no:cacheprovider", f"--junitxml={written}"]

    once = [sys.executable, str(HERE / "gpu_probe.py"), "--once", *tiny]
    return {
        "machine": Step(script("gpu_machine.py"), read_script),
        "smoke": Step(script("gpu_smoke.py", "--backends", names, *tiny), read_script),
        "speed": Step(script("gpu.py", "--seconds", "0.5", *tiny), read_speed, keep="gpu.json"),
        "probe": Step(script("gpu_probe.py", *tiny), read_script),
        "tests": Step(tests("gpu and not sanitizer", processes, *chosen), read_tests),
        "sanitizer": Step(tests("gpu and sanitizer", min(processes, 5)), read_tests, tool="compute-sanitizer"),
        "ncu": Step(
            [*ncu, "--metrics", ",".join(COUNTERS), "--log-file", str(written), *once], read_counters, tool="ncu"
        ),
        "endtoend": Step([*extract, "--backend", "cuda", "--out", str(written)], read_end_to_end),
    }


def read_script(finished: Finished) -> Outcome:
    """Read the JSON file of a script, also one written before the script was interrupted. Its key `summary` holds lines."""
    results = read_json(finished.written)
    lines = results.pop("summary", []) if isinstance(results, dict) else []
    if finished.code == 0:
        return Outcome(DONE, lines, results)
    crashed = "Traceback (most recent call last)" in finished.output
    return Outcome(_status(finished), [*lines, reason_of(finished.output)] if crashed or not lines else lines, results)


def read_speed(finished: Finished) -> Outcome:
    """Read the results of gpu.py, whose last lines compare the rates with their bars."""
    results, lines = read_json(finished.written), finished.output.splitlines()
    judged = [line for line in lines if " pairs/s; " in line]
    measured = [line for line in lines if re.match(r"(tvl1|mmcof) .*/s$", line)]
    if results:  # with exit code 1: measured, but slower than the bars
        return Outcome(DONE if finished.code == 0 else FAILED, judged or measured, results)
    return Outcome(_status(finished), [*measured, reason_of(finished.output)])


def read_end_to_end(finished: Finished) -> Outcome:
    """Read the results of `flowkit bench --end-to-end`."""
    results = read_json(finished.written)
    if finished.code or not results:
        return Outcome(_status(finished), [reason_of(finished.output)], results)
    lines = [
        f"{found['clips_per_s']} clips/s, bound by {found['bound_by']}; {found['workers']} workers; start {found['start_up_s']} s"
        for found in results["end_to_end"]
    ]
    return Outcome(DONE, lines, results)


def read_tests(finished: Finished) -> Outcome:
    """Read the junit file of pytest: counts, failures with reasons, slowest tests. A run that skipped every test is no success."""
    try:
        cases = list(ElementTree.parse(finished.written).iter("testcase"))
    except (OSError, ElementTree.ParseError):
        return Outcome(_status(finished), [reason_of(finished.output)])
    failed = _messages(cases, "failure", "error")
    skipped = _messages(cases, "skipped")
    passed = sum(all(case.find(kind) is None for kind in ("failure", "error", "skipped")) for case in cases)
    slowest = sorted(cases, key=_seconds, reverse=True)[:10]
    results = {
        "passed": passed,
        "failed": failed,
        "skipped": skipped,
        "slowest_s": {_name(case): _seconds(case) for case in slowest},
    }
    why = Counter(failed.values()).most_common(5) + Counter(skipped.values()).most_common(3)
    counts = f"{passed} passed, {len(failed)} failed, {len(skipped)} skipped"
    lines = [counts, *(f"{count}: {text}" for text, count in why)]
    if finished.code is None:
        return Outcome(LATE, lines, results)
    if failed or finished.code not in (0, 5):
        return Outcome(FAILED, lines if failed else [*lines, reason_of(finished.output)], results)
    return Outcome(DONE if passed else CANNOT, lines, results)


def read_counters(finished: Finished) -> Outcome:
    """Read the counters that ncu logged."""
    text = finished.written.read_text(encoding="utf-8", errors="replace") if finished.written.is_file() else ""
    kernels = counters_by_kernel(text)
    if kernels and finished.code in (0, None):
        line = f"{len(kernels)} kernels and grids; the slowest: {kernels[0]['kernel']} {kernels[0]['grid']}"
        return Outcome(DONE if finished.code == 0 else LATE, [line], kernels)
    errors = [line for line in (text + finished.output).splitlines() if line.startswith("==ERROR==")]
    reason = "ncu read no counter" if finished.code == 0 else reason_of(finished.output)
    return Outcome(CANNOT if finished.code == 0 else _status(finished), errors[-1:] or [reason], kernels)


def counters_by_kernel(text: str) -> list[dict[str, Any]]:
    """Return the counters of each kernel and grid, averaged over its launches; the kernel that takes most time comes first."""
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    for row in csv.DictReader(line for line in text.splitlines() if line.startswith('"')):
        with contextlib.suppress(ValueError):  # "n/a", or a line that was cut off
            value = float((row["Metric Value"] or "").replace(",", ""))
            kernel = found.setdefault((row["Kernel Name"].partition("(")[0], row["Grid Size"]), {})
            kernel.setdefault(f"{row['Metric Name']} [{row['Metric Unit']}]", []).append(value)
    kernels = [
        {"kernel": kernel, "grid": grid, "launches": max(map(len, counters.values()))}
        | {name: round(sum(values) / len(values), 3) for name, values in counters.items()}
        for (kernel, grid), counters in found.items()
    ]
    return sorted(kernels, key=lambda one: -one["launches"] * _duration(one))


def _duration(counters: Mapping[str, Any]) -> float:
    """Return the first of COUNTERS; versions of ncu differ in the name of its unit."""
    return next((float(value) for name, value in counters.items() if name.startswith(COUNTERS[0])), 0.0)


def _status(finished: Finished) -> str:
    if finished.code is None:
        return LATE
    absent = re.search(r"(No module named|command not found|No such file)", reason_of(finished.output))
    return CANNOT if finished.code == 3 or absent else FAILED


def reason_of(output: str) -> str:
    """Return the line that names the problem: the last error message of this project, or else the last line."""
    lines = [line.strip() for line in output.splitlines() if re.search(r"\w", line)]
    ours = [line for line in lines if re.match(r"[\w. -]+: .*\bmust\b.*; got ", line)]
    return (ours or lines or ["no output"])[-1][:500]


def read_json(path: Path) -> Any:
    """Return what a JSON file holds, or None if it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _messages(cases: Sequence[ElementTree.Element], *kinds: str) -> dict[str, str]:
    """Return the first line of the message of each test that has one of these kinds, by the name of the test."""
    found = {}
    for case in cases:
        for kind in kinds:
            outcome = case.find(kind)
            if outcome is not None:
                text = (outcome.get("message") or outcome.text or "").strip()
                first = (text.splitlines() or ["no message"])[0]
                found[_name(case)] = first.removeprefix("failed on setup with ").strip('"')[:300]
    return found


def _name(case: ElementTree.Element) -> str:
    return f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name', '')}"


def _seconds(case: ElementTree.Element) -> float:
    return float(case.get("time", 0))
