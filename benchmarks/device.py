"""Run every check that needs an NVIDIA GPU, step by step; benchmarks/device.sh starts this script.

    machine     what is installed: GPU, driver, tools, package versions; what keeps a backend from running
    smoke       whether each backend runs, and gives correct answers with the same bits every time
    speed       pairs per second, compared with the bars (gpu.py)
    probe       where the time goes: every kernel at every level, chunk sizes, 1 to 4 streams, host arrays (gpu_probe.py)
    tests       all tests with the mark `gpu`, in several processes
    sanitizer   the kernels under NVIDIA's compute-sanitizer
    ncu         hardware counters of every kernel
    endtoend    clips per second of `flowkit extract`

Environment variables, all of them optional:

    STEPS       steps to run, separated by spaces (all)
    LIMIT_S     time limit for the whole run, in seconds (540)
    OUT         folder for the results (device-results)
    BACKENDS    GPU backends that must run on this machine (cuda numba-cuda)
    PROCESSES   processes that share the tests (one per core, at most 8)
    WHEELS      folder of wheels that take precedence over installed packages during the run (.whl)
    QUICK       1: tiny inputs and longer limits, to try the script itself; the figures mean nothing
    PY          Python to use (python3)

Each step runs in processes of its own and has a time limit. A step that fails does not end the others. A wheel to take along is,
for example, a NumPy version that numba-cuda can compile with:

    python3 -m pip download --no-deps -d .whl numpy==2.4.6

The script rewrites its results after every step: summary.txt, device.json (all steps), gpu.json (the step `speed`) and log.txt (all
output). Results of earlier runs in the same folder are kept: a step that succeeded before and does not succeed now keeps both
entries, and a run with QUICK replaces no figures. Exit codes: 0 every step succeeded; 1 a step failed or ran out of time; 2 a
setting is invalid; 3 a step could not run on this machine; 74 the results could not be written; 129, 130 or 143 the script was
interrupted by SIGHUP, Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from device_steps import (
    CANNOT,
    DONE,
    FAILED,
    LATE,
    LIMITS,
    RUNNING,
    STOPPED,
    Finished,
    Outcome,
    Step,
    read_json,
    reason_of,
    steps_of,
)

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 5
"""With QUICK, limits are multiplied by this: QUICK is for machines with a slow GPU, or with a stand-in for one."""
LEAST_S = 5
"""A step is not started with less time than this, in seconds."""
PARTING_S = 10
"""Seconds that an interrupted step gets to write its results."""
RECORDED = {"status", "summary", "seconds", "limit_s", "date", "quick", "results"}
"""Keys of a step in device.json."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""They end the script and the running step; SIGHUP: the terminal is gone."""


class SettingError(Exception):
    """An environment variable has an invalid value."""


class Stop(BaseException):
    """The script received a signal that ends it."""

    def __init__(self, number: int) -> None:
        self.number = number


@dataclass(frozen=True)
class Settings:
    """The settings of a run."""

    steps: tuple[str, ...]
    limit_s: float
    out: Path
    backends: tuple[str, ...]
    processes: int
    wheels: Path
    quick: bool

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Settings:
        """Read the settings from the environment.

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
        """Return the time limit of a step, in seconds."""
        return LIMITS[step] * (PATIENCE if self.quick else 1)


def _check(ok: object, name: str, expectation: str, value: object) -> None:
    if not ok:
        raise SettingError(f"device: {name} must be {expectation}; got {value!r}. Change it, or unset it.")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Run:
    """Runs the steps one after the other, and writes the results after each of them.

    Parameters
    ----------
    settings : Settings
    scratch : Path
        A temporary folder.
    """

    def __init__(self, settings: Settings, scratch: Path) -> None:
        self.settings = settings
        self._scratch = scratch
        self._end = time.monotonic() + settings.limit_s
        self._environment = environment_of_steps(scratch)
        self.steps = earlier_steps(settings.out / "device.json")
        self._heading = [trouble] if (trouble := install_wheels(settings.wheels, scratch)) else []
        say(*self._heading)

    def all(self) -> int:
        """Run all steps and return the exit code of the script."""
        written = self._scratch / "written"
        settings = self.settings
        steps = steps_of(written, settings.backends, settings.processes, settings.quick)
        for name in self.settings.steps:
            limit, began = min(self.settings.limit_of(name), self._end - time.monotonic()), time.monotonic()
            self._record(name, Outcome(RUNNING, ["started"]), 0, limit)
            try:
                outcome = self._outcome(name, steps[name], written, limit)
            except Stop as stop:
                for number in SIGNALS:
                    signal.signal(number, signal.SIG_IGN)  # a second one may not cut off the record
                self._record(
                    name, Outcome(STOPPED, ["interrupted by Ctrl-C or a signal"]), time.monotonic() - began, limit
                )
                return 128 + stop.number
            self._record(name, outcome, time.monotonic() - began, limit)
        statuses = {self.steps[name]["status"] for name in self.settings.steps}
        return 1 if {FAILED, LATE} & statuses else 3 if CANNOT in statuses else 0

    def _outcome(self, name: str, step: Step, written: Path, limit: float) -> Outcome:
        if limit < LEAST_S:
            return Outcome(LATE, [f"no time left: LIMIT_S is {self.settings.limit_s:.0f} s"])
        if step.tool and shutil.which(step.tool, path=self._environment["PATH"]) is None:
            return Outcome(CANNOT, [f"{step.tool} is not on PATH; it comes with the CUDA toolkit"])
        written.unlink(missing_ok=True)
        with (self.settings.out / "log.txt").open("a+", encoding="utf-8", errors="replace") as log:
            log.write(f"\n=== {name}: {' '.join(step.command)}\n")
            log.flush()
            start = log.tell()
            code = run_command(step.command, log, self._environment, limit)
            log.seek(start)
            try:
                outcome = step.read(Finished(code, log.read(), written))
            except Exception as error:  # noqa: BLE001 - a tool may change its format; the other steps still count
                outcome = Outcome(FAILED, [f"cannot read the results: {type(error).__name__}: {error}; see log.txt"])
        if step.keep and outcome.results and not self.settings.quick:
            shutil.copyfile(written, self.settings.out / step.keep)
        return outcome

    def _record(self, name: str, outcome: Outcome, seconds: float, limit: float) -> None:
        before = self.steps.get(name, {})
        self.steps[name] = {
            "status": outcome.status,
            "summary": outcome.lines,
            "seconds": round(seconds, 1),
            "limit_s": round(max(limit, 0)),
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "quick": self.settings.quick,
            "results": outcome.results,
        }
        earlier = before if before.get("status") == DONE else before.get("earlier")
        if earlier and (outcome.status != DONE or (self.settings.quick and not earlier["quick"])):
            self.steps[name]["earlier"] = earlier
        ordered = {step: self.steps[step] for step in LIMITS if step in self.steps}
        _replace(self.settings.out / "device.json", json.dumps({"benchmark": "device", "steps": ordered}, indent=1))
        _replace(self.settings.out / "summary.txt", "\n".join([*self._heading, *summary(ordered)]))
        if outcome.status != RUNNING:
            say(*summary({name: self.steps[name]}))


def earlier_steps(path: Path) -> dict[str, Any]:
    """Return the steps of an earlier run. A file that is damaged is kept under another name."""
    document = read_json(path)
    steps = document.get("steps") if isinstance(document, dict) else None
    if isinstance(steps, dict) and all(isinstance(one, dict) and one.keys() >= RECORDED for one in steps.values()):
        return dict(steps)
    if path.is_file():
        path.replace(path.with_name("device.json.damaged"))
    return {}


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make a folder this run's own for as long as it lasts.

    Raises
    ------
    SettingError
        Another run is writing to it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            message = f"device: OUT: another run is writing to {folder}. Wait, or set OUT to another folder."
            raise SettingError(message) from error
        yield
    finally:
        os.close(handle)


def environment_of_steps(scratch: Path) -> dict[str, str]:
    """Return the environment of all steps: import paths (the project, then the wheels), CUDA_HOME, an empty kernel cache."""
    environment = dict(os.environ)
    paths = [ROOT, ROOT / "kernels", ROOT / "models", scratch / "site"]
    environment["PYTHONPATH"] = os.pathsep.join([*map(str, paths), *filter(None, [environment.get("PYTHONPATH")])])
    environment.setdefault("CUPY_CACHE_DIR", str(scratch / "cupy"))
    environment |= {"PYTHONUNBUFFERED": "1", "LC_ALL": "C.UTF-8"}  # ncu writes numbers as the locale has it
    toolkits = [Path(environment.get("CUDA_HOME") or "/usr/local/cuda"), *sorted(Path("/usr/local").glob("cuda-1*"))]
    home = next((folder for folder in toolkits if (folder / "nvvm/libdevice/libdevice.10.bc").is_file()), None)
    if home is not None:  # no wheel need have brought NVVM
        environment["CUDA_HOME"] = str(home)
        environment["PATH"] = os.pathsep.join([str(home / "bin"), environment.get("PATH", "")])
    return environment


def install_wheels(folder: Path, scratch: Path) -> str:
    """Install the wheels of a folder into the scratch folder; return an error message, or ""."""
    wheels = sorted(map(str, folder.glob("*.whl")))
    if not wheels:
        return ""
    flags = ["-q", "--no-index", "--no-deps", "--no-compile", "--no-cache-dir", "--target", str(scratch / "site")]
    command = [sys.executable, "-m", "pip", "install", *flags, *wheels]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    reason = reason_of(done.stderr)
    trouble = (
        f"device: {folder}: pip cannot install the wheels: {reason}. Download wheels for this Python and platform."
    )
    return trouble if done.returncode else ""


def run_command(command: list[str], log: Any, environment: Mapping[str, str], limit: float) -> int | None:
    """Run a command and return its exit code, or None if it ran out of time. Kill every process that it leaves behind."""
    process = None
    try:
        with held_signals():  # a signal within Popen would leave a process behind that nobody knows of
            process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT, env=environment, start_new_session=True
            )
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process is not None:
            _end(process)


@contextlib.contextmanager
def held_signals() -> Iterator[None]:
    """Hold back the signals that end the script until the block ends, whichever thread they reach."""
    held: list[int] = []
    usual = {number: signal.signal(number, lambda got, _frame: held.append(got)) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
    for got in held:
        signal.raise_signal(got)


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        if process.poll() is None:
            _signal(process, signal.SIGINT)  # on SIGINT, unlike SIGTERM, scripts and pytest write the results they have
            process.wait(PARTING_S)
    except subprocess.TimeoutExpired:
        return
    finally:  # also after a second Ctrl-C
        _signal(process, signal.SIGKILL)
        process.wait()


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def summary(steps: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line per step, followed by its results."""
    for name, step in steps.items():
        tiny = ", tiny inputs" if step["quick"] else ""
        yield f"{name:<10} {step['status']:<14} {step['seconds']:>5.0f} s of {step['limit_s']}{tiny}"
        yield from (f"    {line}" for line in step["summary"])
        if "earlier" in step:
            yield f"    device.json also keeps the result of {step['earlier']['date']}"


def say(*lines: str) -> None:
    """Print lines; if nobody reads them, the files still have them."""
    try:
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        sys.stdout.flush()
    except (OSError, AttributeError):  # a broken pipe; stdout is None where it is closed
        sys.stdout = io.StringIO()


def _replace(path: Path, text: str) -> None:
    fresh = path.with_name(f".{path.name}")
    fresh.write_text(text + "\n", encoding="utf-8")
    fresh.replace(path)


def _stop(number: int, _frame: FrameType | None) -> None:
    raise Stop(number)


def main() -> int:
    """Run the steps that the environment asks for."""
    if len(sys.argv) > 1:
        say(__doc__ or "")
        return 0 if sys.argv[1:] in (["-h"], ["--help"]) else 2
    for number in SIGNALS:
        signal.signal(number, _stop)
    try:
        settings = Settings.of(os.environ)
        scratch_folder = tempfile.TemporaryDirectory(prefix="flowkit-device-", ignore_cleanup_errors=True)
        with locked(settings.out), scratch_folder as scratch:
            code = Run(settings, Path(scratch)).all()
    except SettingError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except OSError as error:
        sys.stderr.write(
            f"device: cannot write to disk: {error}. Free some space, or set OUT or TMPDIR to another folder.\n"
        )
        return 74
    except Stop as stop:
        return 128 + stop.number
    say(f"Results: {settings.out}")
    return code


if __name__ == "__main__":
    sys.exit(main())
