"""Tasks on several devices: the same bytes, nothing lost when a process or a device is, never another device than asked for.

Placement does not care which backend computes, so the devices here are processes of the CPU backend that fall ill on command.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import re
import shutil
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
from flowkit import RunOptions, Stop, Summary, extract, load_config
from flowkit.config import ExtractConfig
from flowkit.errors import BackendUnavailable, ConfigError, DeviceLost, DeviceOutOfMemory, Terminated
from flowkit.execution.progress import Silent
from flowkit.extraction import compute, pipeline, sites
from flowkit.extraction.devices import describe_devices
from flowkit.extraction.options import parse_devices
from flowkit.extraction.pipeline import preview
from flowkit.extraction.read_and_align import clip_loader
from flowkit.extraction.run_local import Job
from flowkit.extraction.run_on_gpus import MAX_BARREN_DEATHS, OnDevices, _shares
from flowkit.extraction.stage_times import BEFORE_FLOW, STAGES, Spent, TaskTimes
from flowkit.extraction.summary import WORKERS
from flowkit.inputs.manifest import read_manifest
from flowkit.reports.shard_report import write_report
from flowkit.storage.folder import ShardFolder
from flowkit.storage.inspection import inspect

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

    Each clip does so as many times; a device that is dead lets no process start.
    """
    if ill == "dead" and only in (None, index):
        raise MemoryError
    stabilise = compute.stabilised

    def stabilise_or_fall_ill(*settings: Any) -> Any:
        names = settings[-1]
        with (folder / f"device{index}").open("a") as journal:
            journal.write(f"{os.getpid()} {len(names)}\n")
        culprits = [clip for clip in clips if any(f"({clip})" in name for name in names)]
        if culprits and only in (None, index) and fall(folder / f"ill-{culprits[0]}", times):
            if ill == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if ill == "slow":
                time.sleep(60)
            if ill in ("after_write", "after_record"):
                os.environ["FLOWKIT_TEST_DIE_AT"] = ill
                return stabilise(*settings)
            raise {"lost": DeviceLost, "full": DeviceOutOfMemory}[ill](f"{ill} by a test.")
        return stabilise(*settings)

    compute.stabilised = stabilise_or_fall_ill


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
        devices: tuple[int, ...],
        ill: str = "",
        clips: tuple[int, ...] = (),
        only: int | None = None,
        times: int = 99,
        config: ExtractConfig = CONFIG,
    ) -> tuple[Summary, Notes]:
        found = read_manifest(cropped)
        prepare = functools.partial(use, tmp_path, ill, tuple(found[n].clip_id for n in clips), only, times)
        monkeypatch.setattr(sites.Here, "placement", lambda *_: OnDevices(devices, prepare))
        notes = Notes()
        return extract(cropped, tmp_path / "out", config, OPTIONS, reporter=notes), notes

    return on


def test_two_devices_share_the_tasks_and_give_the_same_bytes(run: Any, undisturbed: Path, tmp_path: Path) -> None:
    summary, notes = run((0, 1))
    assert shard_bytes(tmp_path / "out") == shard_bytes(undisturbed)
    assert (summary.ok, summary.computed, summary.exit_code, notes.done) == (12, 12, 0, 12)
    assert {*summary.times.stages} == {"read", "align", "flow", "stabilise", "mmcof", "store", "commit"}
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


@pytest.mark.slow
@pytest.mark.parametrize("clips", [(1, 2), (10, 11)])
def test_a_clip_that_kills_the_device_fails_alone(
    run: Any, undisturbed: Path, tmp_path: Path, clips: tuple[int, ...]
) -> None:
    """Two neighbours, or all that a task has: each is found, and nothing else is lost."""
    summary, notes = run((0,), ill="killed", clips=clips)
    assert (summary.ok, summary.failed, summary.exit_code) == (12 - len(clips), len(clips), 1)
    assert (notes.done, notes.failed) == (12, len(clips))
    assert summary.failure_codes == Counter({"WORKER_CRASH": len(clips)})
    names = sorted(rows(undisturbed))
    failures = ShardFolder.open(tmp_path / "out").failures()
    assert [failure["clip_id"] for failure in failures] == [names[n] for n in clips]
    assert "the loss of the process on device 0 (SIGKILL), twice" in failures[0]["message"]
    assert rows(tmp_path / "out").items() < rows(undisturbed).items()
    again, _ = run((0,), ill="killed", clips=clips)
    assert (again.computed, again.exit_code) == (0, 1)


@pytest.mark.slow
def test_a_task_committed_by_a_process_that_then_died_counts_as_computed(run: Any) -> None:
    summary, notes = run((0,), ill="after_record", clips=(3,), times=1)
    assert any("exit code 137" in text for text in notes.said)
    assert (summary.ok, summary.computed, summary.exit_code) == (12, 12, 0)


def test_with_fewer_tasks_than_devices_the_rest_stand_by_and_step_in(run: Any, tmp_path: Path) -> None:
    """Rates are those of one device, which had all workers to itself."""
    one = dataclasses.replace(CONFIG, shard=dataclasses.replace(CONFIG.shard, clips=12))
    summary, notes = run((0, 1), ill="dead", only=0, config=one)
    assert (summary.ok, summary.exit_code, summary.processes, summary.workers) == (12, 0, 1, 2)
    assert any("1 task for 2 devices" in text for text in notes.said)
    assert any("device 0 is taken out: no process can be started on it (MemoryError: )" in text for text in notes.said)
    assert sum(clips for _, clips in journal(tmp_path, 1)) == 12


def test_devices_share_workers_and_threads() -> None:
    job = Job(Path(), CONFIG, {}, clip_loader, workers=3, threads=4, batch=4, timeout_s=1)  # type: ignore[arg-type]
    assert [(share.workers, share.threads) for share in _shares(job, 2, 9)] == [(2, 2), (1, 2)]
    assert [(share.workers, share.threads) for share in _shares(job, 2, 1)] == [(3, 4), (3, 4)]
    assert [(share.workers, share.threads) for share in _shares(job, 5, 5)][-2:] == [(1, 1), (1, 1)]


def test_a_record_names_the_device_that_made_it(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sites, "describe_devices", lambda *_: {"0": {"name": "Tesla"}})
    run((0,))
    assert {record.content["device"] for record in ShardFolder.open(tmp_path / "out").records} == {"Tesla"}


@pytest.mark.slow
def test_a_device_that_only_dies_is_taken_out_and_the_other_finishes(
    run: Any, undisturbed: Path, tmp_path: Path
) -> None:
    """Its task is done elsewhere as if nothing had been: no clip is blamed for what the device does."""
    summary, notes = run((0, 1), ill="lost", clips=tuple(range(12)), only=0)
    assert shard_bytes(tmp_path / "out") == shard_bytes(undisturbed)
    assert (summary.ok, summary.exit_code, notes.done) == (12, 0, 12)
    (warning,) = (text for text in notes.said if "taken out" in text)
    assert "device 0" in warning
    assert "lost by a test" in warning
    assert len({pid for pid, _ in journal(tmp_path, 0)}) == MAX_BARREN_DEATHS


@pytest.mark.parametrize(
    ("ill", "how", "clips"),
    [
        pytest.param("killed", "SIGKILL", (5, 6, 7), marks=pytest.mark.slow),
        ("after_write", "no clip in flight.*exit code 137", (7,)),
    ],
)
def test_with_no_device_left_the_run_stops_and_can_go_on(
    run: Any, undisturbed: Path, tmp_path: Path, ill: str, how: str, clips: tuple[int, ...]
) -> None:
    """Never on the CPU instead: what was not committed is not there, until the same command runs again."""
    summary, _ = run((3,), ill=ill, clips=clips)
    assert (summary.ok, summary.not_started, summary.exit_code) == (5, 7, 75)
    assert isinstance(summary.stopped, DeviceLost)
    assert re.search(
        rf"device 3: .*{how}.*task 1.*Run flowkit doctor; then the same command again", str(summary.stopped)
    )
    assert len(shard_bytes(tmp_path / "out")) == 1
    assert not [path for path in (tmp_path / "out").rglob(".*") if path.is_file()]
    again, _ = run((3,))
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
    assert [clips for _, clips in calls[:10]] == [
        1,
        1,
        1,
        1,
        1,
        4,
        2,
        1,
        1,
        2,
    ]  # first each on its own, beside the solver
    first = {pid for pid, _ in calls[:10]}
    rest = {pid for pid, _ in calls[10:]}
    assert (len(first), len(rest), first & rest) == (1, 1, set())


def rows(out: Path) -> dict[str, str]:
    """Hash of each clip's numbers."""
    return {s["clip_id"]: s["sample_hash"] for shard in ShardFolder.open(out).shards() for s in shard.samples()}


SCRIPT = """
import functools, sys
from pathlib import Path
import test_placement
from flowkit import cli
from flowkit.extraction import sites
from flowkit.extraction.run_on_gpus import OnDevices
use = functools.partial(test_placement.use, Path(sys.argv.pop(1)), "slow", (sys.argv.pop(1),), None, 9)
sites.Here.placement = lambda *_: OnDevices((0, 1), use)
cli.main()
"""


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGTERM, 75),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, -9, marks=pytest.mark.slow),
    ],
)
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
    monkeypatch.setattr(sites.Here, "placement", lambda *_: OnDevices((0,), prepare))
    summary = extract(cropped, tmp_path / "out", CONFIG, OPTIONS, reporter=StopAtOnce(), stop=stop)
    assert summary.exit_code == 75
    assert summary.ok + summary.failed + summary.not_started == 12
    assert summary.ok == len(ShardFolder.open(tmp_path / "out").clips()) < 12


def test_a_device_that_is_not_there_is_refused_before_anything_is_written(
    cropped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked in another process, and yet the error is the backend's own."""
    monkeypatch.setattr(pipeline, "_devices", lambda *_: (99,))
    monkeypatch.setattr(sites, "describe_devices", lambda _, *more: describe_devices("cuda", *more))
    with pytest.raises(BackendUnavailable):
        extract(cropped, tmp_path / "out", CONFIG, OPTIONS)
    with pytest.raises(BackendUnavailable):
        preview(cropped, tmp_path / "out", CONFIG, OPTIONS)
    assert not (tmp_path / "out").exists()


def test_a_run_that_goes_on_with_another_gpu_says_so(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = [
        ("Tesla", "1", ""),
        ("Tesla", "1", ""),
        ("Volta", "1", "Tesla -> Volta"),
        ("Tesla", "2", "driver 1 -> 2"),
    ]
    for model, driver, change in changes:
        found = {"0": {"name": model, "driver": driver}}
        monkeypatch.setattr(sites, "describe_devices", lambda *_, found=found: found)
        _, notes = run((0,))
        assert f"device 0 ({model})" in " ".join(notes.said)
        told = [text for text in notes.said if "begun with another GPU or driver" in text]
        assert len(told) == bool(change)
        assert change in "".join(told)
    monkeypatch.setattr(sites, "describe_devices", lambda *_: {"0": {"name": "Tesla"}, "1": {"name": "Volta"}})
    assert any("not of one model" in text for text in run((0, 1))[1].said)
    assert inspect(tmp_path / "out")["device"] == {"0": {"name": "Tesla", "driver": "1"}}
    assert "device.0.name" in write_report(tmp_path / "out").path.read_text()


SIMULATED = """
from flowkit import cli
from flowkit.extraction import sites
sites.describe_devices = lambda *_: {"0": {"name": "simulator"}}  # Numba's has nothing to say of itself
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


@pytest.mark.parametrize("text", ["", "0,", "a", "-1", "0;1", "1.5", "²", "٣", "9" * 5000])
def test_other_names_of_devices_are_refused_in_words(text: str) -> None:
    with pytest.raises(ConfigError, match="--device must be indices of GPUs") as refused:
        parse_devices(text)
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize("devices", [("0",), (0.5,), (True,), (-1,), (0, 0), (10**6,), 0, "01", ([],)])
def test_devices_that_are_no_indices_are_refused_in_words(devices: Any) -> None:
    with pytest.raises(ConfigError, match="devices must be indices from 0 to 9999, as whole numbers, each once"):
        RunOptions(devices=devices)


@pytest.mark.parametrize(
    ("flow_s", "stabilise_s", "bound"),
    [(1.0, 6.0, WORKERS), (3.4, 6.0, "flow"), (3.4, 12.6, "stabilise"), (3.2, 6.0, WORKERS)],
)
def test_the_stage_that_bounds_a_run_is_named(flow_s: float, stabilise_s: float, bound: str) -> None:
    """Two workers read while two processes compute, where flow, MM-COF and storing follow each other, and the others run beside."""
    times = TaskTimes()
    stages = {
        "read": 1.0,
        "align": 3.0,
        "flow": flow_s,
        "stabilise": stabilise_s,
        "mmcof": 0.2,
        "store": 0.5,
        "commit": 3.9,
    }
    rates = {WORKERS: 50.0} | {name: 200 / spent for name, spent in stages.items() if name not in BEFORE_FLOW}
    rates["stabilise"] *= 3
    for stage, spent in stages.items():
        times.stages.add(stage, Spent(spent, spent, 100))
    beside = {"stabilise": 3, "commit": 1}
    summary = Summary(Path(), times=times, by_workers=BEFORE_FLOW, beside=beside, workers=2, processes=2)
    assert summary.stage_rates == pytest.approx(rates)
    assert (summary.bound_by, summary.to_dict()["bound_by"]) == (bound, bound)
    assert Summary(Path()).bound_by == ""


def test_rates_count_the_clips_that_each_stage_had(cropped: Path, undisturbed: Path, tmp_path: Path) -> None:
    """A clip that cannot be read is none that flow could do, and work on a task that another run commits first is work."""

    class OtherRun(Notes):
        def advance(self, done: int, failed: int) -> None:
            super().advance(done, failed)
            if self.done == 4:
                shutil.copytree(undisturbed / "shards", tmp_path / "out" / "shards", dirs_exist_ok=True, ignore=later)

    def later(_: str, names: list[str]) -> set[str]:
        return {name for name in names if name[0] == "0" and "." in name and not name.startswith("000000")}

    last = read_manifest(cropped)[11]
    manifest = tmp_path / "some.csv"
    manifest.write_text(cropped.read_text().replace(f",{last.path},", ",frames/nowhere,"))
    options = dataclasses.replace(OPTIONS, root=cropped.parent)
    summary = extract(manifest, tmp_path / "out", CONFIG, options, reporter=OtherRun())
    assert (summary.ok, summary.failed, summary.computed) == (11, 1, 7)
    stages = summary.times.stages
    assert {name: spent.clips for name, spent in stages.items()} == dict.fromkeys(STAGES[1:], 11)
    assert summary.stage_rates["store"] == pytest.approx(11 / stages["store"].wall_s)
