"""Runs killed at every step of a commit, or at random: nothing is lost, doubled or changed. In full: benchmarks/faults.py."""

from __future__ import annotations

import errno
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import SMALL, flowkit, shard_bytes, start
from flowkit.storage import commit, durable_files
from flowkit.storage.folder import ShardFolder

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SOURCE = "".join(Path(module.__file__).read_text(encoding="utf-8") for module in (commit, durable_files))


def commits(*arguments: str | Path) -> str:
    """What benchmarks/commits.py says on stderr; it must end well."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "commits.py", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.fixture
def in_memory(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory, where there is such a disk: thousands of fsyncs cost nothing there."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


def files(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def leftovers(out: Path) -> list[Path]:
    return [path for path in out.rglob(".*") if path.is_file()]


def assert_nothing_is_lost_or_changed(out: Path, undisturbed: Path) -> None:
    assert shard_bytes(out) == shard_bytes(undisturbed)
    folder, expected = ShardFolder.open(out), ShardFolder.open(undisturbed)
    assert Counter(clip["clip_id"] for clip in folder.clips()) == Counter(clip["clip_id"] for clip in expected.clips())
    assert folder.failures() == expected.failures() == []
    assert leftovers(out) == []
    verified = flowkit("verify", out)
    assert verified.code == 0, verified.out


def test_death_at_each_step_of_a_commit_is_all_or_nothing(in_memory: Path) -> None:
    """Every step that commit.py has, of every kind of file that `extract` publishes; then once more, undisturbed."""
    commits(in_memory / "undisturbed")
    said = commits(in_memory / "killed", "--at-each-step")
    deaths = re.findall(r"died at (\S+):(\w+)", said)
    assert {step for _, step in deaths} == set(re.findall(r'die_here\([^)]*"(\w+)"\)', SOURCE)) - {"after_quarantine"}
    expected = files(in_memory / "undisturbed")
    assert {Path(path).name for path, _ in deaths if "~" not in path} == {Path(name).name for name in expected}
    folders = sorted((in_memory / "killed").iterdir())
    assert len(folders) == len(deaths) + 1 > 60
    assert [folder for folder in folders if files(folder) != expected] == []


@pytest.mark.parametrize(
    ("error", "calls", "kinds"),
    [
        (errno.ENOSPC, ("open", "write", "fsync", "close", "link", "replace", "mkdir"), ("DiskFull", "OSError")),
        (errno.EIO, ("fsync", "close", "unlink"), ("EnvironmentMissing", "OSError")),
    ],
    ids=["ENOSPC", "EIO"],
)
def test_any_system_call_of_a_commit_may_fail(
    in_memory: Path, error: int, calls: tuple[str, ...], kinds: tuple[str, ...]
) -> None:
    """Each call in turn, once; benchmarks/faults.py has strace do the same where there is one."""
    commits(in_memory / "undisturbed")
    expected = files(in_memory / "undisturbed")
    for call in calls:
        said = commits(in_memory / call, "--failing", call, "--error", str(error))
        assert [folder for folder in (in_memory / call).iterdir() if files(folder) != expected] == [], call
        named = re.findall(r"^(\w+): ", said, re.MULTILINE)
        assert kinds[0] in named, said
        assert set(named) <= set(kinds), said


STEPS_OF_A_RUN = (
    "run.json:after_write",
    "run.json:after_link",
    "plan/*.json:after_fsync",
    "plan/*.json:after_link",
    "000000-*.h5:after_create",
    "000000-*.h5:after_link",
    "shards/*/000000.json:after_close",
    "shards/*/000000.json:after_link",
    "000001-*.h5:after_unlink",
    "shards/*/000001.json:before_record",
    "shards/*/000001.json:after_record",
    "index.npz:after_write",
    "failures.csv:after_replace",
    "report.html:after_write",
)


@pytest.mark.slow
def test_a_run_that_dies_again_and_again_loses_and_changes_nothing(
    undisturbed: Path, cropped: Path, tmp_path: Path
) -> None:
    """One folder; each run gets a little further than the one before, and dies at the next step."""
    out = tmp_path / "out"
    for number, step in enumerate(STEPS_OF_A_RUN):
        done = flowkit("extract", cropped, "--out", out, *SMALL, FLOWKIT_TEST_DIE_AT=step)
        assert done.code == 137, (step, done.err)
        if number == 0:
            assert len(leftovers(out)) == 1  # the test would see what stays behind
    assert flowkit("extract", cropped, "--out", out, *SMALL).code == 0
    assert_nothing_is_lost_or_changed(out, undisturbed)


@pytest.mark.parametrize(
    ("damaged", "dies_at"),
    [
        ("000001.json", "000001.json:after_quarantine"),
        pytest.param("000001-*.h5", "000001-*.h5:after_quarantine", marks=pytest.mark.slow),
    ],
)
def test_death_while_damaged_files_are_moved_aside(
    undisturbed: Path, cropped: Path, tmp_path: Path, damaged: str, dies_at: str
) -> None:
    out = shutil.copytree(undisturbed, tmp_path / "out")
    (victim,) = (out / "shards" / "000").glob(damaged)
    victim.write_bytes(victim.read_bytes()[:100])
    assert flowkit("extract", cropped, "--out", out, *SMALL, FLOWKIT_TEST_DIE_AT=dies_at).code == 137
    assert flowkit("extract", cropped, "--out", out, *SMALL).code == 0
    assert shutil.rmtree(out / "quarantine") is None
    assert_nothing_is_lost_or_changed(out, undisturbed)


@pytest.mark.parametrize("wanted", [3, pytest.param(8, marks=pytest.mark.slow)])
def test_sigkill_at_random_moments_loses_and_changes_nothing(
    undisturbed: Path, cropped: Path, tmp_path: Path, wanted: int
) -> None:
    out, draw, kills = tmp_path / "out", random.Random(7), 0
    while kills < wanted:
        before = {path: path.read_bytes() for path in out.glob("shards/*/0*.json")}
        process = start("extract", cropped, "--out", out, *SMALL)
        try:
            process.communicate(timeout=draw.uniform(0.4, 3))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            kills += 1
        assert {path: path.read_bytes() for path in before} == before
        if process.returncode == 0:
            assert_nothing_is_lost_or_changed(out, undisturbed)
            shutil.rmtree(out)
    assert flowkit("extract", cropped, "--out", out, *SMALL).code == 0
    assert_nothing_is_lost_or_changed(out, undisturbed)


def feed_workers(pid: int) -> Iterator[int]:
    """Processes of a run that read and align."""
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                yield int(child)


def test_workers_that_are_killed_are_replaced(undisturbed: Path, cropped: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start("extract", cropped, "--out", out, *SMALL)
    while len(workers := list(feed_workers(process.pid))) < 2:
        assert process.poll() is None
        time.sleep(0.01)
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert_nothing_is_lost_or_changed(out, undisturbed)


@pytest.mark.parametrize("both", [pytest.param(False, marks=pytest.mark.slow), True])
def test_of_two_runs_on_one_folder_any_may_be_killed(
    undisturbed: Path, cropped: Path, tmp_path: Path, both: bool
) -> None:
    out = tmp_path / "out"
    runs = [start("extract", cropped, "--out", out, *SMALL) for _ in range(2)]
    while not list(out.glob("shards/*/*.h5")):
        assert all(run.poll() is None for run in runs)
        time.sleep(0.01)
    for victim in runs[: 1 + both]:
        os.killpg(victim.pid, signal.SIGKILL)
    for run in runs:
        run.communicate(timeout=120)
    assert [run.returncode for run in runs] == [-signal.SIGKILL, -signal.SIGKILL if both else 0]
    if not both:
        assert shard_bytes(out) == shard_bytes(undisturbed)  # the other did it all, undisturbed
    assert flowkit("extract", cropped, "--out", out, *SMALL).code == 0
    assert_nothing_is_lost_or_changed(out, undisturbed)


def matrix(tmp_path: Path, *flags: str) -> None:
    """Run benchmarks/faults.py; nothing may be lost or changed."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    script = [sys.executable, BENCHMARKS / "faults.py", "--out", tmp_path / "faults.json", *flags]
    done = subprocess.run(script, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "faults.json").is_file()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_part_of_the_matrix(tmp_path: Path) -> None:
    """Of the parts without strace and mounted disks; the figures of the others are those that are stored."""
    shutil.copy(BENCHMARKS / "results" / "faults.json", tmp_path)
    kills = ("at each step of a run", "all processes, at random", "workers alone, at random", "two runs at once")
    only = [text for name in (*kills, "same bytes") for text in ("--only", name)]
    matrix(tmp_path, "--kills", "8", "--every", "9", *only)


@pytest.mark.hours
@pytest.mark.timeout(7200)
def test_the_whole_matrix(tmp_path: Path) -> None:
    matrix(tmp_path)
