"""Everything that a machine with an NVIDIA GPU can tell, step by step; benchmarks/device.sh starts it.

    machine     what is here: GPU, driver, tools, versions of packages, and what keeps a backend from running
    smoke       does it run, and are answers right and the same each time
    speed       pairs a second, beside the bars (gpu.py)
    probe       where the time goes: each kernel at each level, sizes of chunks, 1 to 4 streams, host arrays (gpu_probe.py)
    tests       all tests with the mark `gpu`, on several processes
    sanitizer   the kernels under NVIDIA's compute-sanitizer
    ncu         hardware counters of each kernel
    endtoend    clips a second of `flowkit extract`

Environment, all of it optional:

    STEPS       steps to do, separated by spaces (all)
    LIMIT_S     seconds for all of them together (540)
    OUT         folder for the results (device-results)
    BACKENDS    GPU backends that must run here (cuda numba-cuda)
    PROCESSES   of the tests (one a core, 8 at most)
    WHEELS      folder of wheels that are put before the system's packages for as long as this takes (.whl)
    QUICK       1: tiny inputs and longer limits, to try the script itself; its figures say nothing
    PY          Python to use (python3)

Each step runs in processes of its own, has a limit, and fails without ending the others. Carried along as wheels may be, for
instance, a NumPy that numba-cuda compiles with:

    python3 -m pip download --no-deps -d .whl numpy==2.4.6

Results, written anew after each step: summary.txt, device.json (of every step), gpu.json (of `speed`), log.txt (all output). What
lies in the folder from an earlier call stays; a step that was done before and is not done this time keeps both. Exit codes: 0 each
step is done; 1 one failed, or ran out of time; 2 a setting is wrong; 3 one could not run here; 74 the disk is full; 130 or 143 it
was stopped.
"""

from __future__ import annotations

import contextlib
import csv
import datetime
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 5
"""So many times the limits with QUICK, which is for machines whose GPU is slow or none."""
LEAST_S = 5
"""A step that has less time left is not begun."""
PARTING_S = 10
"""How long a step that is stopped may take to write what it has."""
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


class SettingError(Exception):
    """A variable of the environment has a value that means nothing."""


class Stop(BaseException):
    """The script itself was told to end."""

    def __init__(self, number: int) -> None:
        self.number = number


@dataclass(frozen=True)
class Settings:
    """What was asked for."""

    steps: tuple[str, ...]
    limit_s: float
    out: Path
    backends: tuple[str, ...]
    processes: int
    wheels: Path
    quick: bool

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Settings:
        """From the environment.

        Raises
        ------
        SettingError
        """
        names = tuple(LIMITS)
        steps = tuple(environment.get("STEPS", "").split()) or names
        _check(set(steps) <= set(names), "STEPS", f"names of {', '.join(names)}", " ".join(steps))
        backends = tuple(environment.get("BACKENDS", "cuda numba-cuda").split())
        _check(backends and set(backends) <= {"cuda", "numba-cuda"}, "BACKENDS", "cuda, numba-cuda or both", backends)
        limit, processes = environment.get("LIMIT_S", "540"), environment.get("PROCESSES", str(min(8, _cores())))
        _check(re.fullmatch(r"\d+", limit), "LIMIT_S", "a whole number of seconds", limit)
        _check(re.fullmatch(r"[1-9]\d*", processes), "PROCESSES", "a number from 1", processes)
        out = Path(environment.get("OUT") or ROOT / "device-results").absolute()
        _check(out.is_dir() or not out.exists(), "OUT", "a folder", out)
        ordered = tuple(name for name in names if name in steps)
        wheels = Path(environment.get("WHEELS") or ROOT / ".whl")
        quick = environment.get("QUICK", "0") not in ("", "0")
        return cls(ordered, float(limit), out, backends, int(processes), wheels, quick)

    def limit_of(self, step: str) -> float:
        """Seconds that a step may take."""
        return LIMITS[step] * (PATIENCE if self.quick else 1)


def _check(ok: object, name: str, expectation: str, value: object) -> None:
    if not ok:
        raise SettingError(f"device: {name} must be {expectation}; got {value!r}. Set it anew, or leave it out.")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# The steps --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ended:
    """A command that has ended: its exit code (None where its time was up), its output, and the file that it may have written."""

    code: int | None
    output: str
    written: Path


@dataclass
class Outcome:
    """What became of a step."""

    status: str
    told: list[str] = field(default_factory=list)
    """For people: the answer, or why there is none."""
    results: Any = None


@dataclass(frozen=True)
class Step:
    """A command, how its end is read, and what it needs."""

    command: list[str]
    read: Callable[[Ended], Outcome]
    tool: str = ""
    """A program that must be on PATH."""
    keep: str = ""
    """Name under which the file that it writes is a result of its own."""


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
"""Seconds for each step, in the order in which they are done."""


def plan(settings: Settings, written: Path) -> dict[str, Step]:
    """Every step, by name; each may write a file, which the next one finds gone."""
    here, quick = ROOT / "benchmarks", ["--quick"] * settings.quick
    backends = ",".join(settings.backends)
    # The end-to-end test does what `endtoend` does; with a stand-in for the GPU it takes as long as all others.
    chosen = ["-k", "not end_to_end"] * settings.quick
    small = "from flowkit import bench; bench.SUBJECTS = 1; " if settings.quick else ""
    extract = [sys.executable, "-c", f"{small}from flowkit.cli import main; main()", "bench", "--end-to-end"]
    counted = [
        "ncu",
        "--clock-control",
        "none",
        "--profile-from-start",
        "off",
        "--csv",
        "--metrics",
        ",".join(COUNTERS),
    ]

    def script(name: str, *arguments: str) -> list[str]:
        return [sys.executable, str(here / name), *arguments, "--out", str(written)]

    def tests(expression: str, processes: int, *more: str) -> list[str]:
        spread = ["-n", str(processes)] if importlib.util.find_spec("xdist") else []
        command = [sys.executable, "-m", "pytest", "-m", expression, "--gpu-backends", backends, *spread, *more]
        return [*command, "-q", "-W", "default", "-p", "no:cacheprovider", f"--junitxml={written}"]

    once = [sys.executable, str(here / "gpu_probe.py"), "--once", *quick]
    return {
        "machine": Step(script("gpu_machine.py"), read_script),
        "smoke": Step(script("gpu_smoke.py", "--backends", backends, *quick), read_script),
        "speed": Step(script("gpu.py", "--seconds", "0.5", *quick), read_speed, keep="gpu.json"),
        "probe": Step(script("gpu_probe.py", *quick), read_script),
        "tests": Step(tests("gpu and not sanitizer", settings.processes, *chosen), read_tests),
        "sanitizer": Step(tests("gpu and sanitizer", min(settings.processes, 3)), read_tests, tool="compute-sanitizer"),
        "ncu": Step([*counted, "--log-file", str(written), *once], read_counters, tool="ncu"),
        "endtoend": Step([*extract, "--backend", "cuda", "--out", str(written)], read_end_to_end),
    }


def read_script(ended: Ended) -> Outcome:
    """Of a script that writes JSON; its key `told` is for people. A file that it wrote before it was stopped counts too."""
    results = _json(ended.written)
    told = results.pop("told", []) if isinstance(results, dict) else []
    if ended.code == 0:
        return Outcome(DONE, told, results)
    reason = _reason(ended.output)
    return Outcome(_status(ended), told if any(reason in line for line in told) else [*told, reason], results)


def read_speed(ended: Ended) -> Outcome:
    """Of gpu.py, whose last lines are the rates beside their bars."""
    results, lines = _json(ended.written), ended.output.splitlines()
    judged = [line for line in lines if " pairs/s; " in line]
    measured = [line for line in lines if re.match(r"(tvl1|mmcof) .*/s$", line)]
    if results:  # exit code 1 beside it: measured, and slower than was asked for
        return Outcome(DONE if ended.code == 0 else FAILED, judged or measured, results)
    return Outcome(_status(ended), [*measured, _reason(ended.output)])


def read_end_to_end(ended: Ended) -> Outcome:
    """Of `flowkit bench --end-to-end`."""
    results = _json(ended.written)
    if ended.code or not results:
        return Outcome(_status(ended), [_reason(ended.output)], results)
    told = [
        f"{found['clips_per_s']} clips/s, bound by {found['bound_by']}; {found['workers']} workers; start {found['start_up_s']} s"
        for found in results["end_to_end"]
    ]
    return Outcome(DONE, told, results)


def read_tests(ended: Ended) -> Outcome:
    """Of pytest, from its junit file: how many, which failed and why, which took longest; all skipped is nothing tried."""
    try:
        cases = list(ElementTree.parse(ended.written).iter("testcase"))
    except (OSError, ElementTree.ParseError):
        return Outcome(_status(ended), [_reason(ended.output)])
    found = {
        kind: [case for case in cases if any(case.find(one) is not None for one in kind.split())]
        for kind in ("failure error", "skipped")
    }
    bad, skipped = found["failure error"], found["skipped"]
    passed = len(cases) - len(bad) - len(skipped)
    results = {
        "passed": passed,
        "failed": {_name(case): _message(case, "failure", "error") for case in bad},
        "skipped": {_name(case): _message(case, "skipped") for case in skipped},
        "slowest_s": {_name(case): float(case.get("time", 0)) for case in sorted(cases, key=_seconds)[:10]},
    }
    why = Counter(results["failed"].values()).most_common(5) + Counter(results["skipped"].values()).most_common(3)
    told = [f"{passed} passed, {len(bad)} failed, {len(skipped)} skipped", *(f"{count}: {text}" for text, count in why)]
    if ended.code is None:
        return Outcome(LATE, told, results)
    if bad or ended.code not in (0, 5):
        return Outcome(FAILED, told if bad else [*told, _reason(ended.output)], results)
    return Outcome(DONE if passed else CANNOT, told, results)


def read_counters(ended: Ended) -> Outcome:
    """Of ncu: each kernel at each grid, its counters averaged over launches, the most time first."""
    text = ended.written.read_text(encoding="utf-8", errors="replace") if ended.written.is_file() else ""
    trouble = [line for line in (text + ended.output).splitlines() if line.startswith("==ERROR==")]
    rows = [line for line in text.splitlines() if line.startswith('"')]
    if ended.code or not rows:
        return Outcome(
            _status(ended) if ended.code != 0 else CANNOT, [trouble[-1] if trouble else _reason(ended.output)]
        )
    sums: dict[tuple[str, str], dict[str, list[float]]] = {}
    for row in csv.DictReader(rows):
        with contextlib.suppress(ValueError):
            value = float(row["Metric Value"].replace(",", ""))
            kernel = sums.setdefault((row["Kernel Name"].partition("(")[0], row["Grid Size"]), {})
            kernel.setdefault(f"{row['Metric Name']} [{row['Metric Unit']}]", []).append(value)
    kernels = [
        {"kernel": kernel, "grid": grid, "launches": max(map(len, values.values()))}
        | {name: round(sum(found) / len(found), 3) for name, found in values.items()}
        for (kernel, grid), values in sums.items()
    ]
    time_of = next((name for name in kernels[0] if name.startswith(COUNTERS[0])), "launches")
    kernels.sort(key=lambda one: -one["launches"] * float(one.get(time_of, 0)))
    return Outcome(
        DONE, [f"{len(kernels)} kernels and grids; the most time: {kernels[0]['kernel']} {kernels[0]['grid']}"], kernels
    )


def _status(ended: Ended) -> str:
    if ended.code is None:
        return LATE
    absent = re.search(r"(No module named|command not found|No such file)", _reason(ended.output))
    return CANNOT if ended.code == 3 or absent else FAILED


def _reason(output: str) -> str:
    """The line that says what is wrong: the last one in the form of this project's errors, or else the last one."""
    lines = [line.strip() for line in output.splitlines() if re.search(r"\w", line)]
    ours = [line for line in lines if re.match(r"[\w. -]+: .*\bmust\b.*; got ", line)]
    return (ours or lines or ["it said nothing"])[-1][:500]


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _name(case: ElementTree.Element) -> str:
    return f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name', '')}"


def _seconds(case: ElementTree.Element) -> float:
    return -float(case.get("time", 0))


def _message(case: ElementTree.Element, *kinds: str) -> str:
    found = next(one for kind in kinds if (one := case.find(kind)) is not None)
    text = (found.get("message") or found.text or "").strip()
    return (text.splitlines() or ["no message"])[0].removeprefix("failed on setup with ").strip('"')[:300]


# Doing them -------------------------------------------------------------------------------------------------------------


class Run:
    """The steps of one call: done one after the other, each written down at once.

    Parameters
    ----------
    settings : Settings
    scratch : Path
        A folder that is removed in the end.
    """

    def __init__(self, settings: Settings, scratch: Path) -> None:
        self.settings = settings
        self._scratch = scratch
        self._end = time.monotonic() + settings.limit_s
        self._environment = environment_of_steps(scratch)
        kept = _json(settings.out / "device.json")
        self.steps: dict[str, Any] = dict(kept["steps"]) if isinstance(kept, dict) and "steps" in kept else {}
        settings.out.mkdir(parents=True, exist_ok=True)
        self._heading = [trouble] if (trouble := install_wheels(settings.wheels, scratch)) else []
        sys.stdout.write("".join(f"{line}\n" for line in self._heading))

    def all(self) -> int:
        """Do them; the exit code of the script."""
        written = self._scratch / "written"
        steps = plan(self.settings, written)
        for name in self.settings.steps:
            limit, began = min(self.settings.limit_of(name), self._end - time.monotonic()), time.monotonic()
            self._note(name, Outcome(RUNNING, ["it has begun"]), 0, limit)
            try:
                outcome = self._outcome(name, steps[name], written, limit)
            except Stop as stop:
                self._note(name, Outcome(STOPPED, ["by Ctrl-C or a signal"]), time.monotonic() - began, limit)
                return 128 + stop.number
            self._note(name, outcome, time.monotonic() - began, limit)
        statuses = {self.steps[name]["status"] for name in self.settings.steps}
        return 1 if {FAILED, LATE} & statuses else 3 if CANNOT in statuses else 0

    def _outcome(self, name: str, step: Step, written: Path, limit: float) -> Outcome:
        if limit < LEAST_S:
            return Outcome(LATE, [f"no time was left of LIMIT_S={self.settings.limit_s:.0f}"])
        if step.tool and shutil.which(step.tool, path=self._environment["PATH"]) is None:
            return Outcome(CANNOT, [f"{step.tool} is not on PATH; it comes with the CUDA toolkit"])
        written.unlink(missing_ok=True)
        with (self.settings.out / "log.txt").open("a+", encoding="utf-8", errors="replace") as log:
            log.write(f"\n=== {name}: {' '.join(step.command)}\n")
            log.flush()
            start = log.tell()
            code = carried_out(step.command, log, self._environment, limit)
            log.seek(start)
            outcome = step.read(Ended(code, log.read(), written))
        if step.keep and outcome.results:
            shutil.copyfile(written, self.settings.out / step.keep)
        return outcome

    def _note(self, name: str, outcome: Outcome, seconds: float, limit: float) -> None:
        before = self.steps.get(name, {})
        self.steps[name] = {
            "status": outcome.status,
            "told": outcome.told,
            "seconds": round(seconds, 1),
            "limit_s": round(max(limit, 0)),
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "quick": self.settings.quick,
            "results": outcome.results,
        }
        earlier = before if before.get("status") == DONE else before.get("earlier")
        if earlier and outcome.status != DONE:
            self.steps[name]["earlier"] = earlier
        ordered = {step: self.steps[step] for step in LIMITS if step in self.steps}
        _replace(self.settings.out / "device.json", json.dumps({"benchmark": "device", "steps": ordered}, indent=1))
        _replace(self.settings.out / "summary.txt", "\n".join([*self._heading, *summary(ordered)]))
        if outcome.status != RUNNING:
            sys.stdout.write("\n".join(summary({name: self.steps[name]})) + "\n")
            sys.stdout.flush()


def environment_of_steps(scratch: Path) -> dict[str, str]:
    """The environment of all steps: our packages and the wheels of .whl/ first, NVVM where it can be found, an empty cache."""
    environment = dict(os.environ)
    paths = [ROOT, ROOT / "kernels", ROOT / "models", scratch / "site"]
    environment["PYTHONPATH"] = os.pathsep.join([*map(str, paths), *filter(None, [environment.get("PYTHONPATH")])])
    environment.setdefault("CUPY_CACHE_DIR", str(scratch / "cupy"))
    environment["PYTHONUNBUFFERED"] = "1"
    toolkits = [Path(environment.get("CUDA_HOME") or "/usr/local/cuda"), *sorted(Path("/usr/local").glob("cuda-1*"))]
    home = next((folder for folder in toolkits if (folder / "nvvm/libdevice/libdevice.10.bc").is_file()), None)
    if home is not None:  # NVVM may come in no wheel
        environment["CUDA_HOME"] = str(home)
        environment["PATH"] = os.pathsep.join([str(home / "bin"), environment.get("PATH", "")])
    return environment


def install_wheels(folder: Path, scratch: Path) -> str:
    """Put the wheels of a folder before the system's packages; what went wrong, or ""."""
    wheels = sorted(map(str, folder.glob("*.whl")))
    if not wheels:
        return ""
    flags = ["-q", "--no-index", "--no-deps", "--no-compile", "--no-cache-dir", "--target", str(scratch / "site")]
    command = [sys.executable, "-m", "pip", "install", *flags, *wheels]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    reason = _reason(done.stderr)
    trouble = f"device: the wheels in {folder} must be such that pip installs them; got {reason}. Carry others."
    return trouble if done.returncode else ""


def carried_out(command: list[str], log: Any, environment: Mapping[str, str], limit: float) -> int | None:
    """Exit code of a command, None where its time was up. Whatever it started ends with it, asked first, then made to."""
    process = subprocess.Popen(
        command, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT, env=environment, start_new_session=True
    )
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        return None
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        _signal(process, signal.SIGINT)  # not SIGTERM: scripts and pytest write what they have
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(PARTING_S)
    _signal(process, signal.SIGKILL)
    process.wait()


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def summary(steps: Mapping[str, Any]) -> Iterator[str]:
    """Each step in a line, what it told below."""
    for name, step in steps.items():
        tiny = ", tiny inputs" if step["quick"] else ""
        yield f"{name:<10} {step['status']:<14} {step['seconds']:>5.0f} s of {step['limit_s']}{tiny}"
        yield from (f"    {line}" for line in step["told"])
        if "earlier" in step:
            yield f"    the result of {step['earlier']['date']} was kept: device.json has it"


def _replace(path: Path, text: str) -> None:
    fresh = path.with_name(f".{path.name}")
    fresh.write_text(text + "\n", encoding="utf-8")
    fresh.replace(path)


def _stop(number: int, _frame: FrameType | None) -> None:
    raise Stop(number)


def main() -> int:
    """Do what the environment asks for."""
    if len(sys.argv) > 1:
        sys.stdout.write(__doc__ or "")
        return 0 if sys.argv[1:] in (["-h"], ["--help"]) else 2
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    scratch = Path(tempfile.mkdtemp(prefix="flowkit-device-"))
    try:
        settings = Settings.of(os.environ)
        code = Run(settings, scratch).all()
    except SettingError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except OSError as error:
        sys.stderr.write(
            f"device: results must be written to disk; got {error}. Make room, or set OUT to another folder.\n"
        )
        return 74
    except Stop as stop:
        return 128 + stop.number
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    sys.stdout.write(f"Results: {settings.out}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
