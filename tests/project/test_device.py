"""benchmarks/device.sh: each step's end is read for what it is, none takes another along, and what was found stays.

The whole of it on a GPU machine is tried by test_bare_machine.py; here are its parts, and what may be wrong with a machine.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import standin_environment

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "device.sh"


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module behind the script."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    yield importlib.import_module("device")
    sys.modules.pop("device", None)


@pytest.fixture
def device_steps(device: Any) -> Any:
    """The module of its steps."""
    return importlib.import_module("device_steps")


def asked(out: Path, steps: str = "", **settings: str) -> dict[str, str]:
    return {"PY": sys.executable, "OUT": str(out), "STEPS": steps, "QUICK": "1", "BACKENDS": "cuda", **settings}


def run(
    out: Path, steps: str, standin: dict[str, Any] | None = None, **settings: str
) -> tuple[int, dict[str, Any], str]:
    """Exit code, steps of device.json, and what was printed; on a machine without a GPU, or with a stand-in."""
    environment = dict(os.environ) if standin is None else standin_environment(**standin)
    done = subprocess.run(
        ["bash", SCRIPT],
        env=environment | asked(out, steps, **settings),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    found = json.loads((out / "device.json").read_text())["steps"] if (out / "device.json").exists() else {}
    return done.returncode, found, done.stdout + done.stderr


# -- a machine that something is wrong with


def test_without_a_gpu_each_step_says_so(tmp_path: Path) -> None:
    if Path("/dev/nvidia0").exists():
        pytest.skip("no GPU must be here; there is one")
    code, steps, told = run(tmp_path, "machine smoke speed probe ncu endtoend sanitizer")
    assert code == 3, told
    assert list(steps) == ["machine", "smoke", "speed", "probe", "sanitizer", "ncu", "endtoend"]
    assert {step["status"] for step in steps.values()} == {"could not run"}
    for name in ("machine", "smoke", "speed", "probe", "endtoend"):
        assert any("no NVIDIA driver on this machine" in line for line in steps[name]["summary"]), steps[name]
    assert steps["ncu"]["summary"] == ["ncu is not on PATH; it comes with the CUDA toolkit"]


@pytest.mark.slow
def test_tests_that_are_all_skipped_are_none_that_passed(tmp_path: Path) -> None:
    if Path("/dev/nvidia0").exists():
        pytest.skip("no GPU must be here; there is one")
    code, steps, told = run(tmp_path, "tests", PROCESSES="2")
    assert (code, steps["tests"]["status"]) == (3, "could not run"), told
    assert re.match(r"0 passed, 0 failed, \d+ skipped", steps["tests"]["summary"][0])
    assert "no GPU: no NVIDIA driver on this machine" in steps["tests"]["summary"][1]


@pytest.mark.parametrize(
    ("standin", "why"),
    [
        (
            {"nvrtc": False},
            "NVRTC, CUDA's compiler, cannot be loaded: RuntimeError: CuPy failed to load libnvrtc.so.13",
        ),
        ({"cuda": [12, 4]}, "the NVIDIA driver is too old for this CuPy: needs CUDA 13.0, found 12.4"),
        (
            {"disk": "full"},
            "GPU: compiled kernels must be kept on disk; got [Errno 28] No space left on device. Set CUPY_CACHE",
        ),
        ({"memory_bytes": 40_000}, "GPU: free memory must hold a single item and its result; got Out of memory"),
        ({"lost": 719}, "GPU: every call must succeed; got cudaErrorLaunchFailure"),
    ],
    ids=["no NVRTC", "CuPy of another CUDA", "full disk", "a GPU that others fill", "a GPU that is lost"],
)
def test_what_keeps_the_gpu_from_computing_is_told(tmp_path: Path, standin: dict[str, Any], why: str) -> None:
    (tmp_path / "earlier.txt").write_text("kept")
    code, steps, told = run(tmp_path, "smoke probe", standin)
    assert code in (1, 3), told
    assert steps["smoke"]["status"] == "could not run", steps
    assert why in steps["smoke"]["summary"][0]
    assert steps["probe"]["status"] == "could not run", steps
    assert all(why in line for line in steps["probe"]["summary"])
    assert (tmp_path / "earlier.txt").read_text() == "kept"
    assert why in (tmp_path / "summary.txt").read_text()


@pytest.mark.slow
def test_a_backend_that_is_asked_for_and_absent_fails_the_step_and_leaves_the_other_its_answer(tmp_path: Path) -> None:
    code, steps, told = run(tmp_path, "smoke", {}, BACKENDS="cuda numba-cuda")
    assert (code, steps["smoke"]["status"]) == (1, "failed"), told
    cuda, numba_cuda = steps["smoke"]["summary"]
    assert cuda.startswith("cuda on Stand-in on the CPU: correct (differences at most 0.")
    assert numba_cuda.startswith("numba-cuda cannot run: numba-cuda finds no GPU")
    assert steps["smoke"]["results"]["cuda"]["wrong"] == []


@pytest.mark.slow
def test_the_probe_answers_each_of_its_questions(tmp_path: Path) -> None:
    code, steps, told = run(tmp_path, "probe", {})
    assert (code, steps["probe"]["status"]) == (0, "done"), told
    results = steps["probe"]["results"]
    assert {row["kernel"] for row in results["kernels_48"]} >= {"iterate", "median", "linearise", "resize"}
    assert {tuple(row["level"]) for row in results["kernels_48"] if row["kernel"] == "iterate"} >= {(48, 48), (38, 38)}
    assert set(results["chunks_48"]) == {"default", "1", "2"}
    assert [row["streams"] for row in results["streams_48"]] == [1, 2]
    assert all(row["pairs_per_s"] > 0 for row in results["streams_48"])
    assert results["host_arrays_48"]["host_pairs_per_s"] > 0


# -- stopped


DONE_BEFORE = {"status": "done", "summary": ["42"], "seconds": 1, "limit_s": 9, "date": "2026-11-28", "quick": False}
DONE_BEFORE["results"] = {"answer": 42}
STEPS = ("machine", "smoke", "speed", "probe", "tests", "sanitizer", "ncu", "endtoend")


@pytest.mark.parametrize(
    "step", [pytest.param(step, marks=[] if step in ("smoke", "ncu") else [pytest.mark.slow]) for step in STEPS]
)
def test_ctrl_c_in_a_step_ends_all_and_keeps_what_was_found(tmp_path: Path, step: str) -> None:
    out, tools = tmp_path / "out", tmp_path / "tools"
    out.mkdir()
    tools.mkdir()
    for name in ("compute-sanitizer", "ncu", "nvidia-smi"):
        (tools / name).write_text("#!/bin/sh\nexec sleep 60\n")
        (tools / name).chmod(0o755)
    (out / "device.json").write_text(json.dumps({"steps": {step: DONE_BEFORE}}))
    path = f"{tools}:{os.environ['PATH']}"
    process = subprocess.Popen(
        ["bash", SCRIPT],
        env=standin_environment() | asked(out, step, PATH=path),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
    )
    wait_until(lambda: f"=== {step}" in text_of(out / "log.txt"), process)
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)
    told, _ = process.communicate(timeout=60)
    assert process.returncode == 130, told
    found = json.loads((out / "device.json").read_text())["steps"][step]
    assert found["status"] == "stopped"
    assert found["earlier"]["results"] == {"answer": 42}
    assert re.search(rf"^{step} +stopped", (out / "summary.txt").read_text(), re.MULTILINE)
    assert "also keeps the result of 2026-11-28" in told
    assert not [line for line in running() if str(out) in line]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=["SIGTERM", "SIGHUP"])
def test_a_signal_ends_the_step_and_all_that_it_started(tmp_path: Path, number: int) -> None:
    """SIGHUP: the connection to the machine was lost."""
    out, tools = tmp_path / "out", tmp_path / "tools"
    tools.mkdir()
    seconds = f"54321.{int(number):02}5"
    (tools / "ncu").write_text(f"#!/bin/sh\nsleep {seconds}\n")
    (tools / "ncu").chmod(0o755)
    environment = dict(os.environ) | asked(out, "ncu", PATH=f"{tools}:{os.environ['PATH']}", TMPDIR=str(tmp_path))
    process = subprocess.Popen(["bash", SCRIPT], env=environment, stdout=subprocess.PIPE, text=True)
    wait_until(lambda: any(seconds in line for line in running()), process)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert json.loads((out / "device.json").read_text())["steps"]["ncu"]["status"] == "stopped"
    assert not [line for line in running() if seconds in line]
    assert not list(tmp_path.glob("flowkit-device-*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_while_a_step_is_being_started_leaves_nothing_behind(
    device: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    started: list[subprocess.Popen[bytes]] = []

    class Interrupted(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *arguments: Any, **settings: Any) -> None:
            super().__init__(*arguments, **settings)
            started.append(self)
            os.kill(os.getpid(), number)

    def stop(got: int, _frame: Any) -> None:
        raise device.Stop(got)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    usual = signal.signal(number, stop)
    try:
        with (tmp_path / "log").open("w") as log, pytest.raises(device.Stop):
            device.run_command(["sleep", "60"], log, os.environ, 60)
    finally:
        signal.signal(number, usual)
    assert [process.poll() for process in started] in ([-signal.SIGINT], [-signal.SIGKILL])


def test_two_runs_do_not_write_to_one_folder(tmp_path: Path, device: Any) -> None:
    with device.locked(tmp_path / "out"):
        code, _, told = run(tmp_path / "out", "machine")
    assert code == 2
    assert told.startswith(f"device: OUT: another run is writing to {tmp_path}/out.")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    "text", ["{", "[1]", '{"steps": 5}', '{"steps": {"machine": 5}}', '{"steps": {"smoke": {}}}', "\udcff"], ids=str
)
def test_a_damaged_record_is_kept_aside(tmp_path: Path, text: str) -> None:
    (tmp_path / "device.json").write_text(text, errors="surrogateescape")
    _, steps, told = run(tmp_path, "machine")
    assert list(steps) == ["machine"], told
    assert (tmp_path / "device.json.damaged").read_text(errors="surrogateescape") == text


@pytest.mark.slow
def test_a_quick_run_replaces_no_figures(tmp_path: Path) -> None:
    (tmp_path / "device.json").write_text(json.dumps({"steps": {"machine": DONE_BEFORE}}))
    (tmp_path / "gpu.json").write_text("figures")
    _, steps, told = run(tmp_path, "machine speed", {})
    assert (steps["machine"]["status"], steps["speed"]["status"]) == ("done", "done"), told
    assert steps["machine"]["earlier"]["results"] == {"answer": 42}
    assert (tmp_path / "gpu.json").read_text() == "figures"


@pytest.mark.parametrize("redirected", [">&-", "| true"])
def test_nobody_need_read_what_is_printed(tmp_path: Path, redirected: str) -> None:
    command = f"bash '{SCRIPT}' {redirected}; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command],
        env=os.environ | asked(tmp_path / "out", "machine speed"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    steps = json.loads((tmp_path / "out" / "device.json").read_text())["steps"]
    assert {step["status"] for step in steps.values()} == {"could not run"}
    assert done.stdout.split() == ["3"]


def text_of(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def wait_until(holds: Any, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.02)


def running() -> list[str]:
    """Command lines of all processes."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # the process ended meanwhile
            lines.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return lines


def test_a_step_out_of_time_is_asked_first_and_then_made_to_end_with_all_it_started(
    device: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "PARTING_S", 2.0)  # on a busy machine a parting word takes a while
    stubborn = "import signal, subprocess, time; signal.signal(signal.SIGINT, lambda *_: print('asked', flush=True))\n"
    stubborn += "subprocess.Popen(['sleep', '12345.25'])\nwhile True: time.sleep(0.1)"
    polite = "import time\ntry: time.sleep(60)\nexcept KeyboardInterrupt: print('had this')"
    with (tmp_path / "log").open("w+") as log:
        for code in (stubborn, polite):
            began = time.monotonic()
            assert device.run_command([sys.executable, "-c", code], log, os.environ, 2) is None
            assert time.monotonic() - began < 10
        log.seek(0)
        assert log.read().split("\n")[:2] == ["asked", "had this"]
    assert not [line for line in running() if "12345.25" in line]


def test_no_step_is_begun_without_time_for_it(tmp_path: Path) -> None:
    code, steps, _ = run(tmp_path, "machine smoke", LIMIT_S="3")
    assert code == 1
    assert [step["summary"] for step in steps.values()] == [["no time left: LIMIT_S is 3 s"]] * 2
    assert {step["status"] for step in steps.values()} == {"out of time"}


def test_results_that_cannot_be_read_fail_their_step_alone(
    tmp_path: Path, device: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tool may print something else in its next version."""

    def unreadable(_: Any) -> Any:
        raise KeyError("Metric Value")

    settings = device.Settings.of(asked(tmp_path / "out", "machine smoke"))
    steps = {name: device.Step([sys.executable, "-c", ""], unreadable) for name in ("machine", "smoke")}
    monkeypatch.setattr(device, "steps_of", lambda *_: steps)
    settings.out.mkdir()
    run = device.Run(settings, tmp_path)
    assert run.all() == 1
    assert {step["status"] for step in run.steps.values()} == {"failed"}
    assert run.steps["smoke"]["summary"] == ["cannot read the results: KeyError: 'Metric Value'; see log.txt"]


# -- settings


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            {"STEPS": "smoke dance"},
            "STEPS must be names of machine, smoke, speed, probe, tests, sanitizer, ncu, endtoend; got",
        ),
        ({"LIMIT_S": "9 minutes"}, "LIMIT_S must be a whole number of seconds; got '9 minutes'"),
        ({"BACKENDS": "opencv"}, "BACKENDS must be cuda, numba-cuda or both; got"),
        ({"PROCESSES": "0"}, "PROCESSES must be a number from 1; got '0'"),
        ({"OUT": "FILE"}, "OUT must be a folder; got"),
    ],
    ids=lambda value: next(iter(value), "") if isinstance(value, dict) else "",
)
def test_a_setting_that_means_nothing_is_told_before_anything_is_done(
    tmp_path: Path, settings: dict[str, str], says: str
) -> None:
    (tmp_path / "file").write_text("a file")
    given = {name: value.replace("FILE", str(tmp_path / "file")) for name, value in settings.items()}
    environment = os.environ | asked(tmp_path / "out") | given
    done = subprocess.run(["bash", SCRIPT], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"device: {says}")
    assert not (tmp_path / "out").exists()


def test_a_python_that_does_not_run_is_told(tmp_path: Path) -> None:
    environment = os.environ | asked(tmp_path, PY=str(tmp_path / "python"))
    done = subprocess.run(["bash", SCRIPT], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert done.stderr.startswith(f"device: PY must name a Python, 3.11 or newer, that runs; got {tmp_path}/python.")


@pytest.mark.parametrize(("argument", "code"), [("--help", 0), ("smoke", 2)])
def test_help_says_what_may_be_set(argument: str, code: int, device: Any) -> None:
    environment = os.environ | {"PY": sys.executable}
    done = subprocess.run(["bash", SCRIPT, argument], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code
    for name in (*device.LIMITS, "STEPS", "LIMIT_S", "OUT", "BACKENDS", "PROCESSES", "WHEELS", "QUICK", "PY"):
        assert re.search(rf"^    {name} ", done.stdout, re.MULTILINE), name


def test_the_page_lists_the_steps_in_order_with_their_limits(device: Any) -> None:
    page = (ROOT / "docs" / "gpu.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| (\d+) s \|$", page, re.MULTILINE)
    assert [(name, int(seconds)) for name, seconds in rows] == list(device.LIMITS.items())


def test_a_wheel_that_cannot_be_installed_is_told_and_the_steps_go_on(tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "numpy-2.4.6-cp312-cp312-any.whl").write_text("no wheel")
    _, steps, told = run(tmp_path / "out", "machine", WHEELS=str(tmp_path / "wheels"))
    assert "pip cannot install the wheels:" in told
    assert "pip cannot install the wheels:" in (tmp_path / "out" / "summary.txt").read_text()
    assert steps["machine"]["results"]["machine"]["python"]


def test_a_disk_without_room_is_told(tmp_path: Path, device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    for name, value in asked(tmp_path / "out", "machine").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["device.py"])
    monkeypatch.setattr(device, "_replace", full)
    monkeypatch.setattr(device.signal, "signal", lambda *_: None)
    assert device.main() == 74


def test_the_toolkit_that_has_nvvm_is_put_first(tmp_path: Path, device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    library = tmp_path / "cuda" / "nvvm" / "libdevice" / "libdevice.10.bc"
    library.parent.mkdir(parents=True)
    library.touch()
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "cuda"))
    found = device.environment_of_steps(tmp_path)
    assert found["CUDA_HOME"] == str(tmp_path / "cuda")
    assert found["PATH"].startswith(f"{tmp_path}/cuda/bin:")
    monkeypatch.setenv("PYTHONPATH", "/wheels/of/the/machine")
    paths = device.environment_of_steps(tmp_path)["PYTHONPATH"].split(":")
    assert paths[0] == str(ROOT)
    assert paths[-1] == "/wheels/of/the/machine"


# -- how an end is read


@pytest.fixture
def ended(device_steps: Any, tmp_path: Path) -> Any:
    """Make an end of a command: exit code, output, and what it wrote."""

    def make(code: int | None, output: str = "", written: str | None = None) -> Any:
        path = tmp_path / "written"
        path.unlink(missing_ok=True)
        if written is not None:
            path.write_text(written)
        return device_steps.Finished(code, output, path)

    return make


def test_a_script_is_read_by_what_it_wrote(device_steps: Any, ended: Any) -> None:
    written = json.dumps({"summary": ["it runs"], "answer": 42})
    done = device_steps.read_script(ended(0, "", written))
    assert (done.status, done.lines, done.results) == ("done", ["it runs"], {"answer": 42})
    late = device_steps.read_script(ended(None, "more\n", written))
    assert (late.status, late.lines, late.results) == ("out of time", ["it runs"], {"answer": 42})
    crashed = device_steps.read_script(ended(-11, "Segmentation fault\n"))
    assert (crashed.status, crashed.lines, crashed.results) == ("failed", ["Segmentation fault"], None)
    silent = device_steps.read_script(ended(1))
    assert (silent.status, silent.lines) == ("failed", ["no output"])
    absent = device_steps.read_script(ended(1, "ModuleNotFoundError: No module named 'numpy'\n"))
    assert absent.status == "could not run"
    ours = device_steps.read_script(
        ended(3, "device: number must be that of a GPU here; got 2. Help.\nNothing was written.\n")
    )
    assert (ours.status, ours.lines) == ("could not run", ["device: number must be that of a GPU here; got 2. Help."])


BAR = "128 x 128: 15000 pairs/s; good 20000, wanted 40000: reached neither"


@pytest.mark.parametrize(
    ("code", "written", "output", "status", "told"),
    [
        (0, "{}", BAR, "failed", [BAR]),  # nothing was stored
        (0, '{"results": 1}', BAR, "done", [BAR]),
        (1, '{"results": 1}', BAR, "failed", [BAR]),
        (None, None, "tvl1 128 x 128, batch 64, cuda: measured, 15000/s", "out of time", None),
        (1, None, "tvl1 128 x 128: wrong, 0.2 px\nNothing was written", "failed", ["Nothing was written"]),
    ],
)
def test_the_speed_is_read_beside_its_bars(
    device_steps: Any,
    ended: Any,
    code: int | None,
    written: str | None,
    output: str,
    status: str,
    told: list[str] | None,
) -> None:
    found = device_steps.read_speed(ended(code, output, written))
    assert found.status == status
    assert found.lines[:1] == (told or [output])


CASE = '<testcase classname="tests.kernels.test_it" name="test_{name}" time="{time}">{inside}</testcase>'
PASSED, FAILED, SKIPPED = (
    "",
    '<failure message="assert 1 == 2&#10;more">...</failure>',
    '<skipped message="no GPU: none"/>',
)
ERROR = '<error message="failed on setup with &quot;numba-cuda: cannot run&quot;">...</error>'


def junit(*insides: str) -> str:
    cases = (CASE.format(name=number, time=number, inside=inside) for number, inside in enumerate(insides))
    return f"<testsuites><testsuite>{''.join(cases)}</testsuite></testsuites>"


@pytest.mark.parametrize(
    ("code", "insides", "status", "told"),
    [
        (0, (PASSED, PASSED), "done", ["2 passed, 0 failed, 0 skipped"]),
        (0, (PASSED, SKIPPED), "done", ["1 passed, 0 failed, 1 skipped", "1: no GPU: none"]),
        (0, (SKIPPED,), "could not run", ["0 passed, 0 failed, 1 skipped", "1: no GPU: none"]),
        (1, (PASSED, FAILED, FAILED), "failed", ["1 passed, 2 failed, 0 skipped", "2: assert 1 == 2"]),
        (1, (ERROR,), "failed", ["0 passed, 1 failed, 0 skipped", "1: numba-cuda: cannot run"]),
        (None, (PASSED,), "out of time", ["1 passed, 0 failed, 0 skipped"]),
        (3, (PASSED,), "failed", ["1 passed, 0 failed, 0 skipped", "INTERNALERROR"]),
        (5, (), "could not run", ["0 passed, 0 failed, 0 skipped"]),
    ],
)
def test_tests_are_counted_and_their_troubles_grouped(
    device_steps: Any, ended: Any, code: int | None, insides: tuple[str, ...], status: str, told: list[str]
) -> None:
    found = device_steps.read_tests(ended(code, "INTERNALERROR\n", junit(*insides)))
    assert (found.status, found.lines) == (status, told)
    assert set(found.results["failed"]) == {
        f"test_it::test_{number}" for number, inside in enumerate(insides) if inside in (FAILED, ERROR)
    }


def test_tests_that_did_not_even_begin_are_told(device_steps: Any, ended: Any) -> None:
    found = device_steps.read_tests(ended(4, "ERROR: unrecognized arguments: -n\n"))
    assert (found.status, found.lines) == ("failed", ["ERROR: unrecognized arguments: -n"])
    assert device_steps.read_tests(ended(1, "/usr/bin/python3: No module named pytest\n")).status == "could not run"


COUNTERS_HEADER = '"ID","Process ID","Kernel Name","Grid Size","Metric Name","Metric Unit","Metric Value"\n'
COUNTERS = """==PROF== Connected to process 4711
"ID","Process ID","Kernel Name","Grid Size","Metric Name","Metric Unit","Metric Value"
"0","4711","iterate(float *)","(3, 2, 53)","gpu__time_duration.sum","nsecond","1,500"
"0","4711","iterate(float *)","(3, 2, 53)","launch__registers_per_thread","register/thread","128"
"1","4711","iterate(float *)","(3, 2, 53)","gpu__time_duration.sum","nsecond","2,500"
"2","4711","median(float *)","(4, 16, 106)","gpu__time_duration.sum","nsecond","900"
"2","4711","median(float *)","(4, 16, 106)","launch__registers_per_thread","register/thread","n/a"
"""


@pytest.mark.parametrize("cut", [0, 1, 40])
def test_counters_that_were_cut_off_are_read_as_far_as_they_go(device_steps: Any, ended: Any, cut: int) -> None:
    late = device_steps.read_counters(ended(None, "", COUNTERS[: len(COUNTERS) - cut]))
    assert late.status == "out of time"
    assert [row["kernel"] for row in late.results] == ["iterate", "median"]


@pytest.mark.parametrize("written", [COUNTERS_HEADER, COUNTERS_HEADER + '"0","1","iterate","(3)","launch","","n/a"\n'])
def test_a_table_without_numbers_is_no_answer(device_steps: Any, ended: Any, written: str) -> None:
    found = device_steps.read_counters(ended(0, "", written))
    assert (found.status, found.lines) == ("could not run", ["ncu read no counter"])


def test_counters_are_averaged_by_kernel_and_grid(device_steps: Any, ended: Any) -> None:
    found = device_steps.read_counters(ended(0, "", COUNTERS))
    assert found.status == "done"
    first, second = found.results
    time_ns = "gpu__time_duration.sum [nsecond]"
    assert (first["kernel"], first["grid"], first["launches"], first[time_ns]) == ("iterate", "(3, 2, 53)", 2, 2000)
    assert first["launch__registers_per_thread [register/thread]"] == 128
    assert (second["kernel"], second[time_ns]) == ("median", 900)


@pytest.mark.parametrize(
    ("code", "output", "status"),
    [
        (1, "==ERROR== ERR_NVGPUCTRPERM - The user does not have permission", "failed"),
        (0, "==ERROR== Failed to initialize the profiler: LibraryNotLoaded", "could not run"),
        (3, "backend: cuda must be able to run here; got an obstacle: no NVIDIA driver.", "could not run"),
    ],
)
def test_a_profiler_that_counts_nothing_says_why(
    device_steps: Any, ended: Any, code: int, output: str, status: str
) -> None:
    found = device_steps.read_counters(ended(code, output))
    assert (found.status, found.lines) == (status, [output])
