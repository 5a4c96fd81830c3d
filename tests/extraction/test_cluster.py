"""On a Dask cluster: the same bytes, nothing lost when workers or the scheduler are, and every end a clean one."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dask
import pytest
from distributed import Client, LocalCluster

from conftest import SIZE, SMALL, flowkit, shard_bytes, start
from dask_clusters import cluster_of, kill_a_worker
from flowkit import RunOptions, Stop, Summary, extract, load_config
from flowkit.config import AlignConfig, FrameConfig
from flowkit.errors import ClusterLost, ConfigError, EnvironmentMissing, Interrupted
from flowkit.execution import dask_pool
from flowkit.execution import dask_worker as crew
from flowkit.execution.dask_pool import ClusterPool, connect
from flowkit.execution.dask_worker import Crew, Expected
from flowkit.execution.progress import Silent
from flowkit.execution.worker_process import Outcome
from flowkit.extraction import pipeline, read_and_align, run_local, run_on_cluster, sites, task
from flowkit.extraction.plan import Task
from flowkit.extraction.read_and_align import AlignedClip
from flowkit.extraction.run_local import DoneTask, Job
from flowkit.inputs.clip import Clip
from flowkit.inputs.manifest import read_manifest
from flowkit.storage.folder import ShardFolder
from flowkit.storage.inspection import verify
from flowkit.storage.shard_writer import ShardBuilder

CONFIG = load_config(None, align__method="none", align__size=SIZE, shard__clips=1, backend="cpu")
"""As `SMALL`, but a task a clip: there is more to be lost."""


class Notes(Silent):
    """Keeps what a run says, and counts its clips."""

    def __init__(self, on_advance: Callable[[int], None] = lambda _: None) -> None:
        self.said: list[str] = []
        self.done = self.failed = 0
        self._on_advance = on_advance

    def note(self, text: str) -> None:
        self.said.append(text)

    def advance(self, done: int, failed: int) -> None:
        self.done += done
        self.failed += failed
        self._on_advance(self.done)


@pytest.fixture(scope="module")
def workers() -> Iterator[LocalCluster]:
    """Two workers."""
    with cluster_of(2) as made:
        yield made


@pytest.fixture(scope="module")
def single(cropped: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The shards of `cropped`, a clip each, made without a cluster."""
    out = tmp_path_factory.mktemp("single") / "out"
    extract(cropped, out, CONFIG, RunOptions(workers=2))
    return shard_bytes(out)


def leftovers(out: Path) -> list[Path]:
    """Hidden files that a commit left half done."""
    return [path for path in out.rglob(".*") if path.is_file()]


def test_a_local_cluster_gives_the_same_bytes(cropped: Path, undisturbed: Path, tmp_path: Path) -> None:
    done = flowkit("extract", cropped, "--out", tmp_path / "out", *SMALL, "--cluster", "local")
    assert done.code == 0, done.err
    assert shard_bytes(tmp_path / "out") == shard_bytes(undisturbed)
    assert "12 clips: 12 ok" in done.out
    assert (tmp_path / "out" / "report.html").is_file()
    assert not leftovers(tmp_path / "out")


@contextlib.contextmanager
def slow_loader(root: Path, frames: FrameConfig, align: AlignConfig) -> Iterator[Callable[[Clip], AlignedClip]]:
    """The real loader, slow enough for something to happen meanwhile."""
    with read_and_align.clip_loader(root, frames, align) as load:

        def slow(clip: Clip) -> AlignedClip:
            time.sleep(0.4)
            return load(clip)

        yield slow


@pytest.mark.slow
def test_five_workers_killed_in_mid_run_lose_nothing(
    workers: LocalCluster, cropped: Path, single: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "clip_loader", slow_loader)
    killed: list[int] = []

    def kill_now_and_then(done: int) -> None:
        if done in (1, 3, 5, 7, 9):
            killed.append(kill_a_worker(workers, killed))

    notes = Notes(kill_now_and_then)
    options = RunOptions(cluster=workers.scheduler_address)
    summary = extract(cropped, tmp_path / "out", CONFIG, options, reporter=notes)
    assert len(set(killed)) == 5
    assert (summary.ok, summary.computed, summary.exit_code, notes.done) == (12, 12, 0, 12)
    assert shard_bytes(tmp_path / "out") == single
    found = verify(tmp_path / "out")
    assert (found.clips, found.problems) == (12, ())
    assert not leftovers(tmp_path / "out")


@contextlib.contextmanager
def ill_loader(
    name: str, root: Path, frames: FrameConfig, align: AlignConfig
) -> Iterator[Callable[[Clip], AlignedClip]]:
    """The real loader, in a process that one clip ends."""
    with read_and_align.clip_loader(root, frames, align) as load:

        def ill(clip: Clip) -> AlignedClip:
            if clip.clip_id == name:
                os.kill(os.getpid(), signal.SIGSEGV)
            return load(clip)

        yield ill


def test_a_clip_that_ends_its_process_costs_itself_alone(
    workers: LocalCluster, cropped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison = read_manifest(cropped)[4].clip_id
    monkeypatch.setattr(pipeline, "clip_loader", functools.partial(ill_loader, poison))
    notes = Notes()
    config = load_config(None, align__method="none", align__size=SIZE, shard__clips=5, backend="cpu")
    options = RunOptions(cluster=workers.scheduler_address, max_error_rate=1)
    summary = extract(cropped, tmp_path / "out", config, options, reporter=notes)
    (failure,) = ShardFolder.open(tmp_path / "out").failures()
    assert (failure["clip_id"], failure["code"]) == (poison, "WORKER_CRASH")
    assert (summary.ok, summary.failed, summary.exit_code) == (11, 1, 1)
    assert (notes.done, notes.failed, summary.failure_codes) == (12, 1, {"WORKER_CRASH": 1})


ON_WORKER = run_on_cluster._on_worker


@contextlib.contextmanager
def deadly_worker(name: str, job: Job) -> Iterator[Callable[[Task], DoneTask]]:
    """The real process of a crew, which the task of one clip ends."""
    with ON_WORKER(job) as work:

        def deadly(one: Task) -> DoneTask:
            if any(clip.clip_id == name for clip in one.clips):
                os.kill(os.getpid(), signal.SIGSEGV)
            return work(one)

        yield deadly


@pytest.mark.slow
def test_a_task_that_ends_every_process_is_given_up_when_all_others_are_done(
    workers: LocalCluster, cropped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison = read_manifest(cropped)[4].clip_id
    monkeypatch.setattr(run_on_cluster, "_on_worker", functools.partial(deadly_worker, poison))
    options = RunOptions(cluster=workers.scheduler_address)
    summary = extract(cropped, tmp_path / "out", CONFIG, options)
    assert (summary.ok, summary.failed, summary.not_started) == (11, 0, 1)
    assert isinstance(summary.stopped, ClusterLost)
    assert f"clips {poison} to {poison}" in str(summary.stopped)
    monkeypatch.undo()
    assert extract(cropped, tmp_path / "out", CONFIG, RunOptions()).ok == 12


@pytest.mark.parametrize(
    ("number", "code"), [pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow), (signal.SIGTERM, 75)]
)
def test_a_stopped_run_can_be_taken_up_and_leaves_no_process(
    number: int, code: int, cropped: Path, single: dict[str, str], tmp_path: Path
) -> None:
    """The signal goes to the whole group, as a terminal's does."""
    out = tmp_path / "out"
    flags = [*SMALL[:4], "--shard-clips", "1", "--batch", "1", "--cluster", "local"]
    process = start("extract", cropped, "--out", out, *flags)
    while not list(out.glob("shards/*/*.json")):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=60)
    finished = len(list(out.glob("shards/*/*.json"))) == 12  # all were done before the signal came
    assert process.returncode == (0 if finished and process.returncode == 0 else code), err
    assert not processes_of_group(process.pid)
    assert not leftovers(out)
    assert flowkit("extract", cropped, "--out", out, *flags[:-2]).code == 0
    assert shard_bytes(out) == single


def processes_of_group(group: int) -> list[str]:
    """Command lines of the processes that still run in a process group, after a moment in which they may end."""
    for _ in range(100):
        found = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                fields = path.read_text().rpartition(")")[2].split()
                if int(fields[2]) == group and fields[0] not in "ZX":
                    found.append((path.parent / "cmdline").read_text().replace("\0", " "))
        if not found:
            return []
        time.sleep(0.1)
    return found


@pytest.mark.slow
def test_ctrl_c_dismisses_the_crews_of_a_cluster_elsewhere(
    workers: LocalCluster, cropped: Path, single: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "clip_loader", slow_loader)
    stop = Stop()
    notes = Notes(lambda done: stop.request(Interrupted) if done == 2 else None)
    options = RunOptions(cluster=workers.scheduler_address)
    summary = extract(cropped, tmp_path / "out", CONFIG, options, reporter=notes, stop=stop)
    assert summary.exit_code == 130
    assert summary.ok + summary.not_started == 12
    assert summary.not_started
    with Client(workers.scheduler_address, set_as_default=False) as client:
        assert set(client.run(crews_and_children).values()) == {(0, 0)}
    monkeypatch.undo()
    again = extract(cropped, tmp_path / "out", CONFIG, options)
    assert (again.ok, again.resumed) == (12, summary.ok)
    assert shard_bytes(tmp_path / "out") == single


def crews_and_children(dask_worker: Any) -> tuple[int, int]:
    """On a worker: crews that are registered, and processes that its process has."""
    found = [name for name in dask_worker.plugins if name.startswith("flowkit")]
    children = [
        path
        for path in Path("/proc").glob("[0-9]*/stat")
        if path.read_text().rpartition(")")[2].split()[1] == str(os.getpid())
        and "spawn_main" in (path.parent / "cmdline").read_text()
    ]
    return len(found), len(children)


def test_a_lost_scheduler_ends_the_run_with_75_and_a_folder_that_can_be_taken_up(
    cropped: Path, single: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "clip_loader", slow_loader)
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        cluster_of(1) as lost,
    ):
        closing = threading.Thread(target=lost.close)
        notes = Notes(lambda done: closing.start() if done == 2 else None)
        summary = extract(cropped, tmp_path / "out", CONFIG, RunOptions(cluster=lost.scheduler_address), reporter=notes)
        closing.join()
    assert isinstance(summary.stopped, ClusterLost)
    assert summary.exit_code == 75
    assert summary.not_started
    assert "Run the same command again" in str(summary.stopped)
    monkeypatch.undo()
    assert extract(cropped, tmp_path / "out", CONFIG, RunOptions()).ok == 12
    assert shard_bytes(tmp_path / "out") == single


@pytest.mark.slow
def test_a_cluster_and_this_machine_may_work_on_one_folder(
    workers: LocalCluster, cropped: Path, single: dict[str, str], tmp_path: Path
) -> None:
    other: list[Summary] = []
    beside = threading.Thread(
        target=lambda: other.append(extract(cropped, tmp_path / "out", CONFIG, RunOptions(workers=1)))
    )
    beside.start()
    summary = extract(cropped, tmp_path / "out", CONFIG, RunOptions(cluster=workers.scheduler_address))
    beside.join()
    assert (summary.ok, other[0].ok) == (12, 12)
    assert summary.computed + other[0].computed == 12
    assert shard_bytes(tmp_path / "out") == single


def test_what_is_no_cluster_is_refused_in_words(cropped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = flowkit("extract", cropped, "--out", tmp_path / "out", *SMALL, "--cluster", "somewhere")
    assert wrong.code == 2
    assert "--cluster must be local, an address such as tcp://host:8786" in wrong.err
    both = flowkit("extract", cropped, "--out", tmp_path / "out", *SMALL, "--cluster", "local", "--device", "0")
    assert both.code == 2
    assert "without devices" in both.err
    monkeypatch.setattr(dask_pool, "CONNECT_TIMEOUT_S", 1)
    (tmp_path / "empty.json").write_text("[]")
    for address, words in (
        ("tcp://127.0.0.1:9", "a Dask scheduler must answer at"),
        ("nonsense://127.0.0.1", "a Dask scheduler must answer at"),
        (str(tmp_path / "none.json"), "scheduler file must be one that"),
        (str(tmp_path / "empty.json"), "scheduler file must be one that"),
    ):
        with pytest.raises(EnvironmentMissing, match=words), connect(address):
            pass
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(EnvironmentMissing, match="extra dask"), connect("local"):
        pass
    assert not (tmp_path / "out").exists()


def test_a_scheduler_file_names_a_cluster(workers: LocalCluster, cropped: Path, tmp_path: Path) -> None:
    with Client(workers.scheduler_address, set_as_default=False) as client:
        known = {
            **client.scheduler_info(),
            "workers": {},
        }  # as `dask scheduler --scheduler-file` writes it at its start
    (tmp_path / "scheduler.json").write_text(json.dumps(known))
    options = RunOptions(cluster=str(tmp_path / "scheduler.json"))
    assert extract(cropped, tmp_path / "out", CONFIG, options).ok == 12


def facts() -> dict[str, str]:
    return {"numpy": "1"}


@contextlib.contextmanager
def squares() -> Iterator[Callable[[int], int]]:
    """A crew that squares; 7 ends its process."""

    def square(number: int) -> int:
        if number == 7:
            os.kill(os.getpid(), signal.SIGSEGV)
        if number < 0:
            raise ConfigError("number: must be positive; got less. Correct it.")
        return number * number

    yield square


@pytest.fixture
def client(workers: LocalCluster) -> Iterator[Client]:
    with Client(workers.scheduler_address, set_as_default=False) as made:
        yield made


def expected(folder: Path, numpy: str = "1") -> Expected:
    (folder / "run.json").write_text("the same everywhere")
    return Expected(folder / "run.json", facts, {"numpy": numpy})


def test_every_item_comes_back_with_its_outcome(client: Client, tmp_path: Path) -> None:
    with ClusterPool(client, squares, expected=expected(tmp_path), timeout_s=60) as pool:
        outcomes = dict(pool.submit([*range(20), -1]).outcomes())
    assert {item for item, outcome in outcomes.items() if outcome.kind == "done"} == {*range(20)} - {7}
    assert all(outcome.value == item * item for item, outcome in outcomes.items() if outcome.kind == "done")
    assert (outcomes[7].kind, outcomes[7].detail) == ("crashed", "SIGSEGV")
    assert isinstance(outcomes[-1].error, ConfigError)


@pytest.mark.parametrize("stopped", [True, False])
def test_work_that_a_stop_ends_is_stopped_and_not_lost(client: Client, tmp_path: Path, stopped: bool) -> None:
    """Ctrl-C in a terminal also reaches the cluster: what it ends may come back before the run looks whether it was stopped."""
    stop = Stop()

    def ended_by_something_else() -> None:
        stop.check()
        client.cancel(list(submission._running), force=True)
        if stopped:
            stop.request(Interrupted)

    with ClusterPool(client, slow_squares, expected=expected(tmp_path), timeout_s=60) as pool:
        submission = pool.submit([1])
        with pytest.raises(Interrupted if stopped else ClusterLost):
            list(submission.outcomes(ended_by_something_else))


@contextlib.contextmanager
def slow_squares() -> Iterator[Callable[[int], int]]:
    """A crew that is still at work when it is cancelled."""

    def square(number: int) -> int:
        time.sleep(2)
        return number * number

    yield square


def test_a_worker_that_sees_other_files_is_refused(client: Client, tmp_path: Path) -> None:
    """The file changes after the client looked: to the worker it is another one, as on a machine with a disk of its own."""
    pool = ClusterPool(client, squares, expected=expected(tmp_path), timeout_s=60)
    for change, got in ((lambda path: path.write_text("another"), "another file"), (Path.unlink, "No such file")):
        change(tmp_path / "run.json")
        with pool:
            ((_, outcome),) = pool.submit([3]).outcomes()
        assert isinstance(outcome.error, EnvironmentMissing)
        assert got in str(outcome.error)
        assert "file system that all machines share" in str(outcome.error)


def test_a_worker_of_other_versions_is_told_of_once(client: Client, tmp_path: Path) -> None:
    said: list[str] = []
    with ClusterPool(client, squares, expected=expected(tmp_path, "2"), timeout_s=60, tell=said.append) as pool:
        outcomes = dict(pool.submit(range(6)).outcomes())
    assert [outcome.kind for outcome in outcomes.values()] == ["done"] * 6
    (text,) = said
    assert "numpy 2 -> 1. Bytes may differ." in text


def test_a_handler_that_cannot_start_is_said(client: Client, tmp_path: Path) -> None:
    with ClusterPool(client, broken, expected=expected(tmp_path), timeout_s=60) as pool:
        ((_, outcome),) = pool.submit([3]).outcomes()
    assert isinstance(outcome.error, EnvironmentMissing)
    assert "nothing works here" in str(outcome.error)


@contextlib.contextmanager
def broken() -> Iterator[Callable[[int], int]]:
    raise RuntimeError("nothing works here")
    yield abs


@pytest.mark.slow
def test_a_crew_without_work_goes_home_and_comes_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the client was killed: nobody dismisses it."""
    monkeypatch.setattr(crew, "IDLE_S", 0.2)
    found = expected(tmp_path)
    made = Crew("crew", squares, found, found.digest(), 60, 1, lambda _: False)
    made.setup(SimpleNamespace(state=SimpleNamespace(nthreads=1)))
    for number in (2, 3):
        assert made.do(number).outcome == Outcome("done", value=number * number)
        until = time.monotonic() + 30
        while made._pool is not None and time.monotonic() < until:
            time.sleep(0.05)
        assert made._pool is None
    made.teardown(None)


def test_the_slot_of_a_gpu_worker_uses_its_first_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU: which device a worker's process is told to use, and that it is one process whatever the threads."""
    used: list[tuple[str, int]] = []
    monkeypatch.setattr(run_on_cluster, "use_device", lambda backend, index: used.append((backend, index)))
    monkeypatch.setattr(run_on_cluster, "reading_ahead", lambda job: contextlib.nullcontext(job))
    run = Job(tmp_path, load_config(None, backend="cuda"), {}, squares, workers=0, threads=0, batch=1, timeout_s=1)
    with run_on_cluster._on_worker(run):
        assert used == [("cuda", 0)]
    survey = sites.Survey({}, {}, {"processor": "any"})
    client = SimpleNamespace(nthreads=lambda: {"a": 8, "b": 8})
    assert run_on_cluster._OnWorkers(client, "cuda", survey).processes == 2
    assert run_on_cluster._OnWorkers(client, "cpu", survey).processes == 16


@pytest.mark.slow
def test_tasks_are_idempotent_where_dask_runs_them_twice(cropped: Path, tmp_path: Path, workers: LocalCluster) -> None:
    """Committed already, a task computes nothing, whoever asks."""
    extract(cropped, tmp_path / "out", CONFIG, RunOptions(cluster=workers.scheduler_address))
    record = ShardFolder.open(tmp_path / "out").records[0]
    again = SimpleNamespace(index=record.task, key=record.content["key"], clips=())

    def nothing(poll: Any) -> Iterator[Any]:
        raise AssertionError("computed again")
        yield

    made = task.Gathered(again, ShardBuilder(1, {}))  # type: ignore[arg-type]
    feed, work = SimpleNamespace(outcomes=nothing, cancel=lambda: None), SimpleNamespace()
    assert [*run_local.gathering(made, feed, tmp_path / "out", work, lambda: None)] == []  # type: ignore[arg-type]
    assert task.store(made, tmp_path / "out", work) == record  # type: ignore[arg-type]
