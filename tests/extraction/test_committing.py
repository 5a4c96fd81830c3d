"""Commits in a thread of their own: in order, one at a time, never lost, and told of by `--profile`."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import SIZE, flowkit, shard_bytes
from flowkit import RunOptions, Stop, extract, load_config
from flowkit.config import ExtractConfig
from flowkit.errors import ClipError, DiskFull, Interrupted
from flowkit.execution.progress import Silent
from flowkit.extraction import compute, run_local, task
from flowkit.extraction.compute import Overlap
from flowkit.extraction.read_and_align import AlignedClip, clip_loader
from flowkit.extraction.stage_times import BEFORE_STORE, StageTimes
from flowkit.inputs.manifest import read_manifest
from flowkit.storage import commit

CONFIG = load_config(None, align__method="none", align__size=SIZE, shard__clips=5, backend="cpu")
OPTIONS = RunOptions(workers=2, max_error_rate=1)


class Counting(Silent):
    def __init__(self) -> None:
        self.done = 0

    def advance(self, done: int, failed: int) -> None:
        self.done += done


def slow_publish(monkeypatch: pytest.MonkeyPatch, before: Callable[[int], None]) -> list[int]:
    """Have something happen before each commit; the tasks that were committed, in order."""
    published: list[int] = []
    publish = commit.publish

    def slow(out: Path, number: int, *rest: Any) -> commit.Record:
        before(number)
        record = publish(out, number, *rest)
        published.append(number)
        return record

    monkeypatch.setattr(task.commit, "publish", slow)
    return published


def test_the_next_task_is_gathered_while_one_is_committed(
    cropped: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first commit waits until clips of the second task have come: it would wait in vain if nothing came meanwhile."""
    reporter, threads = Counting(), set[str]()

    def wait_for_the_second(number: int) -> None:
        threads.add(threading.current_thread().name)
        until = time.monotonic() + 60
        while number == 0 and reporter.done < 10 and time.monotonic() < until:
            time.sleep(0.01)
        assert number or reporter.done == 10  # and no clip of the third: two tasks are in memory at most

    published = slow_publish(monkeypatch, wait_for_the_second)
    summary = extract(cropped, tmp_path / "out", CONFIG, OPTIONS, reporter=reporter)
    assert published == [0, 1, 2]
    assert (summary.ok, summary.exit_code) == (12, 0)
    assert threads == {"flowkit-commit_0"}
    assert shard_bytes(tmp_path / "out") == shard_bytes(undisturbed)


def test_a_disk_that_is_full_ends_the_run_with_what_was_committed(
    cropped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(number: int) -> None:
        if number == 1:
            raise DiskFull("out: disk must have room; got none left. Free some.")

    published = slow_publish(monkeypatch, full)
    with pytest.raises(DiskFull):
        extract(cropped, tmp_path / "out", CONFIG, OPTIONS)
    assert published == [0]
    monkeypatch.undo()
    assert extract(cropped, tmp_path / "out", CONFIG, OPTIONS).computed == 7


def test_a_commit_that_was_begun_is_finished_when_the_run_is_stopped(
    cropped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = Stop()

    def stopped_amid(number: int) -> None:
        stop.request()
        time.sleep(0.5)

    published = slow_publish(monkeypatch, stopped_amid)
    summary = extract(cropped, tmp_path / "out", CONFIG, OPTIONS, stop=stop)
    assert isinstance(summary.stopped, Interrupted)
    assert published == [0]
    assert summary.ok == 5  # counted, though nobody had been told of it


def test_a_shard_in_memory_is_that_of_the_task_though_clips_failed(
    cropped: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """Fewer clips than the task has: the same bytes as of a task that never had the others, but for its record."""
    last = read_manifest(cropped)[11]
    manifest = tmp_path / "some.csv"
    manifest.write_text(cropped.read_text().replace(f",{last.path},", ",frames/nowhere,"))
    summary = extract(manifest, tmp_path / "out", CONFIG, RunOptions(root=cropped.parent, max_error_rate=1))
    assert (summary.ok, summary.failed) == (11, 1)
    shards = shard_bytes(tmp_path / "out")
    assert sum(content in shard_bytes(undisturbed).values() for content in shards.values()) == 2
    without = tmp_path / "without.csv"
    lines = cropped.read_text().splitlines(keepends=True)
    without.write_text("".join(line for line in lines if f",{last.path}," not in line))
    extract(without, tmp_path / "without", CONFIG, RunOptions(root=cropped.parent))
    assert sorted(shard_bytes(tmp_path / "without").values()) == sorted(shards.values())


def test_profile_says_where_the_time_went(cropped: Path, tmp_path: Path) -> None:
    words = (
        "--align",
        "none",
        "--size",
        str(SIZE),
        "--shard-clips",
        "5",
        "--workers",
        "2",
        "--backend",
        "cpu",
        "--profile",
    )
    done = flowkit("extract", str(cropped), "--out", str(tmp_path / "out"), "--json", *words)
    found = json.loads(done.out)["profile"]
    rows = {row["stage"]: row for row in found["stages"]}
    assert [*rows] == ["read", "align", "flow", "stabilise", "mmcof", "store", "commit"]
    assert {name for name, row in rows.items() if row["by"] == "workers"} == {*BEFORE_STORE} - {"spot"}
    assert all(row["wall_ms"] > 0 and row["cpu_ms"] >= 0 for row in rows.values())
    workers = found["workers"]
    assert workers["started"] == sum(row["clips"] for row in found["first_clips"] if row["stage"] == "read") <= 2
    assert rows["read"]["clips"] == 12 - workers["started"]
    assert 0 < workers["busy"] <= 1
    assert workers["start_cpu_s"] > 0
    assert found["gatherer"]["waited_for_clips_s"] > 0
    printed = flowkit("extract", str(cropped), "--out", str(tmp_path / "again"), *words).out
    for text in (
        "Per clip",
        "First clip of each worker",
        "Workers: 2, busy",
        "Gatherer: 1 process,",
        "Compiling, before",
    ):
        assert text in printed


def aligned(cropped: Path) -> list[AlignedClip]:
    with clip_loader(cropped.parent, CONFIG.frames, CONFIG.align) as load:
        return [load(clip) for clip in read_manifest(cropped)[:4]]


@pytest.mark.parametrize("fault", ["", "solve", "stabilised", "combine"])
def test_an_overlap_computes_what_one_batch_after_the_other_gives(
    cropped: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """A kernel that refuses one clip costs that clip, wherever it does."""
    clips = aligned(cropped)
    culprit = clips[2].face.pixels.copy()

    def refusing(step: Callable[..., Any]) -> Callable[..., Any]:
        def refuse(first: Any, second: Any, *rest: Any) -> Any:
            faces = first if fault == "solve" else second
            if any(np.array_equal(face.pixels, culprit) for face in faces):
                raise ValueError("refused by a test")
            return step(first, second, *rest)

        return refuse

    if fault:
        monkeypatch.setattr(compute, fault, refusing(getattr(compute, fault)))
    expected = compute.compute(clips, CONFIG, 1, StageTimes())
    times = StageTimes()
    with Overlap(CONFIG, 2) as overlap:
        begun = [overlap.begin(clips[:3], times), overlap.begin(clips[3:], times), overlap.begin([], times)]
        found: dict[str, Any] = {}
        for batch in begun:
            found |= overlap.finish(batch, times)
    assert [*found] == [*expected]
    for name, result in expected.items():
        if isinstance(result, ClipError):
            assert isinstance(found[name], ClipError)
            assert found[name].message == result.message
        else:
            assert all(
                np.array_equal(found[name][key], value, equal_nan=_is_float(value)) for key, value in result.items()
            )
    assert sum(isinstance(result, ClipError) for result in found.values()) == bool(fault)
    assert times["flow"].clips >= 4 - bool(fault)


def _is_float(value: Any) -> bool:
    return bool(np.asarray(value).dtype.kind == "f")


def test_the_committer_waits_for_one_task_before_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`done` never waits, `commit` waits for the task before, `rest` for the last."""
    gate, order = threading.Event(), list[str]()

    def commit_one(made: Any, out: Path, work: Any) -> Any:
        gate.wait(30)
        order.append(f"committed {made}")
        return run_local.DoneTask(made, None, run_local.TaskTimes())  # type: ignore[arg-type]

    monkeypatch.setattr(run_local, "commit_one", commit_one)
    config: ExtractConfig = CONFIG
    with run_local.Committer(tmp_path, config) as committer:  # type: ignore[arg-type]
        assert [*committer.commit("a", lambda: None)] == []  # type: ignore[arg-type]
        assert [*committer.done()] == []
        threading.Timer(0.3, gate.set).start()
        (first,) = committer.commit("b", lambda: order.append("polled"))  # type: ignore[arg-type]
        assert first.task == "a"
        assert 0.2 < first.times.waited_for_commits_s < 20
        assert order[0] == "polled"
        (second,) = committer.rest(lambda: None)
        assert (second.task, [*committer.rest(lambda: None)]) == ("b", [])
