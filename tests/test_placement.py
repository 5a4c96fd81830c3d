"""Tasks on several devices: the same bytes, nothing lost when a process or a device is, never another device than asked for.

Placement does not care which backend computes, so the devices here are processes of the CPU backend that fall ill on command.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import SIZE, flowkit, shard_bytes
from flowkit import RunOptions, Stop, Summary, extract, load_config, pipeline, task
from flowkit.errors import BackendUnavailable, ConfigError, DeviceLost, DeviceOutOfMemory, Terminated
from flowkit.inspection import inspect
from flowkit.machine import describe_devices
from flowkit.manifest import read_manifest
from flowkit.placement import OnDevices
from flowkit.progress import Silent
from flowkit.report import write_report
from flowkit.run import FEED, parse_devices
from flowkit.shards import ShardFolder
from flowkit.task import StageSeconds

CONFIG = load_config(None, align__method="none", align__size=SIZE, shard__clips=5, backend="cpu")
"""As `SMALL` of conftest: the shards are those of `undisturbed`."""
OPTIONS = RunOptions(workers=2, batch=4, max_error_rate=1)
PATHS = os.pathsep.join(path for path in sys.path if path)


class Notes(Silent):
    """Keeps what a run says, and counts its clips."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.done = self.failed = 0

    def note(self, text: str) -> None:
        self.said.append(text)

    def advance(self, done: int, failed: int) -> None:
        self.done += done
        self.failed += failed


def use(folder: Path, ill: str, clips: tuple[str, ...], only: int | None, times: int, index: int) -> None:
    """Stand in for `use_device`: a journal of what runs where, and an illness that some clips bring out, on one device or all.

    Each clip does so as many times.
    """
    compute = task.stabilised

    def compute_or_fall_ill(*settings: Any) -> Any:
        names = settings[-1]
        with (folder / f"device{index}").open("a") as journal:
            journal.write(f"{os.getpid()} {len(names)}\n")
        culprits = [clip for clip in clips if any(f"({clip})" in name for name in names)]
        if culprits and only in (None, index) and fall(folder / f"ill-{culprits[0]}", times):
            if ill == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if ill == "slow":
                time.sleep(60)
            if ill == "torn":
                os.environ["FLOWKIT_TEST_DIE_AT"] = "after_write"
                return compute(*settings)
            raise {"lost": DeviceLost, "full": DeviceOutOfMemory}[ill](f"{ill} by a test.")
        return compute(*settings)

    task.stabilised = compute_or_fall_ill


def fall(mark: Path, times: int) -> bool:
    """Whether this is one of the first so many times; every process may count."""
    for number in range(times):
        with contextlib.suppress(FileExistsError):
            mark.with_name(f"{mark.name}-{number}").touch(exist_ok=False)
            return True
    return False


def journal(folder: Path, index: int) -> list[tuple[int, int]]:
    """Process id and batch size of each call on a device."""
    return [tuple(map(int, line.split())) for line in (folder / f"device{index}").read_text().splitlines()]


@pytest.fixture
def run(cropped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Extract `cropped` on some devices that fall ill."""

    def on(
        devices: tuple[int, ...], ill: str = "", clips: tuple[int, ...] = (), only: int | None = None, times: int = 99
    ) -> tuple[Summary, Notes]:
        found = read_manifest(cropped)
        prepare = functools.partial(use, tmp_path, ill, tuple(found[n].clip_id for n in clips), only, times)
        monkeypatch.setattr(pipeline, "place", lambda *_: OnDevices(devices, prepare))
        notes = Notes()
        return extract(cropped, tmp_path / "out", CONFIG, OPTIONS, reporter=notes), notes

    return on


def test_two_devices_share_the_tasks_and_give_the_same_bytes(run: Any, undisturbed: Path, tmp_path: Path) -> None:
    summary, notes = run((0, 1))
    assert shard_bytes(tmp_path / "out") == shard_bytes(undisturbed)
    assert (summary.ok, summary.computed, summary.exit_code, notes.done) == (12, 12, 0, 12)
    assert {*summary.stage_seconds} == {"read", "align", "flow", "stabilise", "mmcof", "store"}
    assert (summary.workers, summary.processes) == (2, 2)
    calls = [sum(clips for _, clips in journal(tmp_path, index)) for index in (0, 1)]
    assert sum(calls) == 12
    assert min(calls) >= 2


def test_a_device_process_that_is_killed_costs_nothing_but_time(run: Any, undisturbed: Path, tmp_path: Path) -> None:
    """It dies on the last clip of two tasks, whose first batch the reporter has counted before; not twice in a row."""
    summary, notes = run((0,), ill="killed", clips=(4, 9), times=1)
    assert shard_bytes(tmp_path / "out") == shard_bytes(undisturbed)
    assert (summary.ok, summary.exit_code, notes.done) == (12, 0, 12)
    lost = [text for text in notes.said if "its process was lost (SIGKILL)" in text]
    assert [re.findall(r"Task (\d) is begun anew", text) for text in lost] == [["0"], ["1"]]
    assert len({pid for pid, _ in journal(tmp_path, 0)}) == 3


def test_a_device_that_is_lost_twice_is_taken_out_and_the_other_finishes(
    run: Any, undisturbed: Path, tmp_path: Path
) -> None:
    summary, notes = run((0, 1), ill="lost", clips=tuple(range(12)), only=0)
    assert shard_bytes(tmp_path / "out") == shard_bytes(undisturbed)
    assert (summary.ok, summary.exit_code, notes.done) == (12, 0, 12)
    (warning,) = (text for text in notes.said if "taken out" in text)
    assert "device 0" in warning
    assert "lost by a test" in warning
    assert len({pid for pid, _ in journal(tmp_path, 0)}) == 2


@pytest.mark.parametrize(("ill", "how"), [("lost", "lost by a test"), ("killed", "SIGKILL"), ("torn", "exit code 137")])
def test_with_no_device_left_the_run_stops_and_can_go_on(
    run: Any, undisturbed: Path, tmp_path: Path, ill: str, how: str
) -> None:
    """Never on the CPU instead: what was not committed is not there, until the same command runs again."""
    summary, _ = run((3,), ill=ill, clips=(7,), times=2)
    assert (summary.ok, summary.not_started, summary.exit_code) == (5, 7, 75)
    assert isinstance(summary.stopped, DeviceLost)
    assert re.search(
        rf"device 3: .*{how}.*task 1.*Run flowkit doctor; then the same command again", str(summary.stopped)
    )
    assert len(shard_bytes(tmp_path / "out")) == 1
    assert not [path for path in (tmp_path / "out").rglob(".*") if path.is_file()]
    again, _ = run((3,), ill=ill, clips=(7,), times=2)
    assert (again.ok, again.resumed, again.exit_code) == (12, 5, 0)
    assert shard_bytes(tmp_path / "out") == shard_bytes(undisturbed)


def test_a_clip_too_large_for_the_device_costs_itself_alone(run: Any, undisturbed: Path, tmp_path: Path) -> None:
    """The batch is halved until the clip is alone, and the process is not trusted with another task."""
    summary, notes = run((0,), ill="full", clips=(1,))
    assert (summary.ok, summary.failed, summary.failure_codes) == (11, 1, Counter({"GPU_OOM": 1}))
    assert (notes.done, notes.failed) == (12, 1)
    folder = ShardFolder.open(tmp_path / "out")
    (failure,) = folder.failures()
    assert (failure["code"], failure["clip_id"]) == ("GPU_OOM", sorted(rows(undisturbed))[1])
    assert rows(tmp_path / "out").items() < rows(undisturbed).items()
    calls = journal(tmp_path, 0)
    assert [clips for _, clips in calls[:6]] == [4, 2, 1, 1, 2, 1]
    first = {pid for pid, _ in calls[:6]}
    rest = {pid for pid, _ in calls[6:]}
    assert (len(first), len(rest), first & rest) == (1, 1, set())


def rows(out: Path) -> dict[str, str]:
    """Hash of each clip's numbers."""
    return {s["clip_id"]: s["sample_hash"] for shard in ShardFolder.open(out).shards() for s in shard.samples()}


SCRIPT = """
import functools, sys
from pathlib import Path
import test_placement
from flowkit import cli, pipeline
from flowkit.placement import OnDevices
use = functools.partial(test_placement.use, Path(sys.argv.pop(1)), "slow", (sys.argv.pop(1),), None, 9)
pipeline.place = lambda *_: OnDevices((0, 1), use)
cli.main()
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_stopped_run_leaves_no_process_and_goes_on(
    undisturbed: Path, cropped: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    out, clip_id = tmp_path / "out", read_manifest(cropped)[0].clip_id
    flags = ("--align", "none", "--size", str(SIZE), "--shard-clips", "5", "--workers", "2")
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path), clip_id, "extract", str(cropped), "--out", str(out), *flags],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": PATHS},
        start_new_session=True,
    )
    while not (tmp_path / f"ill-{clip_id}-0").exists():
        time.sleep(0.05)
        assert process.poll() is None
    if number == signal.SIGKILL:
        process.kill()
    else:
        os.killpg(process.pid, number)  # as a terminal or a scheduler does: every process of the run gets it
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert ("Run the same command again" in err) == (number != signal.SIGKILL)
    deadline = time.monotonic() + 10
    while living(process.pid):
        assert time.monotonic() < deadline, "a process of the run lives on"
        time.sleep(0.05)
    done = flowkit("extract", cropped, "--out", out, *flags)
    assert done.code == 0, done.err
    assert shard_bytes(out) == shard_bytes(undisturbed)


def living(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_stop_is_heeded_while_a_device_works(cropped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another process committed in that moment is counted, so that the summary says what the folder holds."""
    stop = Stop()

    class StopAtOnce(Notes):
        def advance(self, done: int, failed: int) -> None:
            super().advance(done, failed)
            stop.request(Terminated)

    prepare = functools.partial(use, tmp_path, "", (), None, 0)
    monkeypatch.setattr(pipeline, "place", lambda *_: OnDevices((0,), prepare))
    summary = extract(cropped, tmp_path / "out", CONFIG, OPTIONS, reporter=StopAtOnce(), stop=stop)
    assert summary.exit_code == 75
    assert summary.ok + summary.failed + summary.not_started == 12
    assert summary.ok == len(ShardFolder.open(tmp_path / "out").clips()) < 12


def test_a_device_that_is_not_there_is_refused_before_anything_is_written(
    cropped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked in another process, and yet the error is the backend's own."""
    monkeypatch.setattr(pipeline, "_devices", lambda *_: (99,))
    monkeypatch.setattr(pipeline, "describe_devices", lambda _, *more: describe_devices("cuda", *more))
    with pytest.raises(BackendUnavailable):
        extract(cropped, tmp_path / "out", CONFIG, OPTIONS)
    assert not (tmp_path / "out").exists()


def test_a_run_that_goes_on_with_another_gpu_says_so(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for model, said in (("Tesla", False), ("Tesla", False), ("Volta", True)):
        monkeypatch.setattr(pipeline, "describe_devices", lambda *_, model=model: {"0": {"name": model}})
        _, notes = run((0,))
        assert f"device 0 ({model})" in " ".join(notes.said)
        assert any("begun on another GPU: Tesla -> Volta" in text for text in notes.said) == said
    monkeypatch.setattr(pipeline, "describe_devices", lambda *_: {"0": {"name": "Tesla"}, "1": {"name": "Volta"}})
    assert any("not of one model" in text for text in run((0, 1))[1].said)
    assert inspect(tmp_path / "out")["device"] == {"0": {"name": "Tesla"}}
    assert "device.0.name" in write_report(tmp_path / "out").path.read_text()


SIMULATED = """
from flowkit import cli, pipeline
pipeline.describe_devices = lambda *_: {"0": {"name": "simulator"}}  # Numba's has nothing to say of itself
cli.main()
"""


def test_a_gpu_backend_runs_through_the_whole_pipeline(cropped: Path, tmp_path: Path) -> None:
    """Under Numba's simulator, hence one small clip: other pixels than the CPU's only in the last bits, and the device named."""
    manifest = tmp_path / "one.csv"
    manifest.write_text("".join(cropped.read_text().splitlines(keepends=True)[:2]))
    flags = ["extract", manifest, "--root", cropped.parent, "--align", "none", "--size", "32", "--workers", "1"]
    flags += [f"--set=tvl1.{name}=1" for name in ("scales", "warps", "inner_iterations")]
    environment = {**os.environ, "PYTHONPATH": PATHS, "NUMBA_ENABLE_CUDASIM": "1"}
    gpu = [
        sys.executable,
        "-c",
        SIMULATED,
        *flags,
        "--backend",
        "numba-cuda",
        "--device",
        "0",
        "--out",
        tmp_path / "gpu",
    ]
    done = subprocess.run(gpu, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert flowkit(*flags, "--backend", "cpu", "--out", tmp_path / "cpu").code == 0
    found = inspect(tmp_path / "gpu")
    assert (found["backend"], found["device"]) == ("numba-cuda", {"0": {"name": "simulator"}})
    assert found["versions"]["numba-cuda"]
    flows = [next(iter(ShardFolder.open(tmp_path / name).shards())).sample(0)["flow"] for name in ("gpu", "cpu")]
    np.testing.assert_allclose(*flows, atol=1e-3)
    assert flows[0].any()


@pytest.mark.parametrize(("text", "indices"), [("0", (0,)), ("0,1", (0, 1)), (" 2, 0", (2, 0))])
def test_devices_are_named_by_their_indices(text: str, indices: tuple[int, ...]) -> None:
    assert parse_devices(text) == indices


@pytest.mark.parametrize("text", ["", "0,", "a", "-1", "0;1", "1.5", "²"])
def test_other_names_of_devices_are_refused_in_words(text: str) -> None:
    with pytest.raises(ConfigError, match="--device must be indices of GPUs"):
        parse_devices(text)


@pytest.mark.parametrize(
    ("flow_s", "bound", "rates"),
    [
        (1.0, FEED, {FEED: 50, "flow": 200, "mmcof": 1000, "store": 400}),
        (4.0, "flow", {FEED: 50, "flow": 50, "mmcof": 1000, "store": 400}),
    ],
)
def test_the_stage_that_bounds_a_run_is_named(flow_s: float, bound: str, rates: dict[str, float]) -> None:
    """Two workers read while two processes compute; flow, MM-COF and storing follow each other in one process."""
    seconds = StageSeconds(read=1.0, align=3.0, flow=flow_s, mmcof=0.2, store=0.5)
    summary = Summary(Path(), computed=100, stage_seconds=seconds, workers=2, processes=2)
    assert summary.stage_rates == pytest.approx(rates)
    assert (summary.bound_by, summary.to_dict()["bound_by"]) == (bound, bound)
    assert Summary(Path()).bound_by == ""
