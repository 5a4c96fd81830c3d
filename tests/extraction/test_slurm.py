"""The job scripts of docs/slurm on a real SLURM of one machine: whatever becomes of the elements, the same bytes.

Skipped where SLURM is not installed. Debian: `apt-get install slurm-wlm munge`, then `pytest -m slurm`.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from slurm_cluster import ENDED, Cluster, missing_program, processes_of, wait_until

from conftest import SMALL, flowkit, shard_bytes
from flowkit.storage import commit
from flowkit.storage.index import Index

SCRIPTS = Path(__file__).parents[2] / "docs" / "slurm"
TINY = (*SMALL, "--shard-clips", "1", "--workers", "1", "--threads", "1", "--set", "tvl1.inner_iterations=1500")
"""Flags that cut `cropped` into 12 shards, each of which takes its time: long enough to be disturbed in the midst."""

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.slow,
    pytest.mark.skipif(missing_program() is not None, reason=f"no SLURM: {missing_program()} is not installed"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster() as running:
        yield running


@pytest.fixture(scope="module")
def expected(cropped: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The shards of one run without SLURM."""
    out = tmp_path_factory.mktemp("expected") / "out"
    assert flowkit("extract", cropped, "--out", out, *TINY).code == 0
    return shard_bytes(out)


class Array:
    """A job array of the ready script, and the folder that it fills."""

    def __init__(self, cluster: Cluster, manifest: Path, folder: Path) -> None:
        self.cluster, self.folder, self.out = cluster, folder, folder / "out"
        self.environment = {
            "MANIFEST": str(manifest),
            "OUT": str(self.out),
            "FLOWKIT": str(_command(folder)),
        }
        self.jobs: list[str] = []

    def submit(self, elements: str, *options: str, **environment: str) -> str:
        """Submit the script; number of the array."""
        limits = ("--cpus-per-task=1", "--mem=100M", f"--array={elements}", f"--output={self.folder}/%A_%a.log")
        script = (SCRIPTS / "extract.sbatch", *TINY)
        job = self.cluster.submit(*limits, *options, *script, **self.environment, **environment)
        self.jobs.append(job)
        return job

    def log(self, element: str) -> str:
        """What an element printed, over all its restarts."""
        path = self.folder / f"{element}.log"
        return path.read_text() if path.exists() else ""

    def begun(self, element: str, restarts: int = 0) -> bool:
        """Whether the element has its share, and hears signals."""
        return self.log(element).count("tasks with") > restarts

    def processes(self, element: str) -> list[int]:
        """The `flowkit extract` of an element, without its workers."""
        job, _, task = element.partition("_")
        found = processes_of(SLURM_ARRAY_JOB_ID=job, SLURM_ARRAY_TASK_ID=task)
        return [pid for pid in found if b"flowkit.cli" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    def committed(self) -> int:
        """Shards so far."""
        return len(commit.read_records(self.out)) if self.out.exists() else 0

    def wait_for_restart(self, element: str) -> None:
        """Wait until SLURM, or the script, has requeued an element for the first time."""
        wait_until(f"{element} is requeued", lambda: self.cluster.job(element)["Restarts"] == "1")

    def release(self, element: str) -> None:
        """SLURM lets an element that was requeued wait for two minutes; here it need not."""
        self.cluster.wait(element, "PENDING", "RUNNING")
        self.cluster.run("scontrol", "update", f"JobId={element}", "StartTime=now", check=False)

    def merge(self, after: str, state: str = "COMPLETED") -> str:
        """Run the second script when the array has ended, to this end of its own; what it printed."""
        log = self.folder / "merge.log"
        job = self.cluster.submit(
            f"--dependency=afterany:{after}",
            "--mem=100M",
            f"--output={log}",
            SCRIPTS / "merge.sbatch",
            **self.environment,
        )
        self.cluster.wait(job, *ENDED)
        assert self.cluster.state(job) == state, log.read_text()
        return log.read_text()

    def check(self, expected: dict[str, str]) -> None:
        """Nothing is lost, nothing twice, no byte other than that of one run; and the next run finds nothing to do."""
        assert shard_bytes(self.out) == expected
        assert flowkit("verify", self.out).code == 0
        names = Index.load(self.out).clip_ids()
        assert len(names) == len(set(names)) == 12
        assert not list(self.out.rglob(".tmp~*"))


def _command(folder: Path) -> Path:
    """`flowkit` of this working tree, as the one file that the script asks for."""
    path = folder / "flowkit"
    paths = os.pathsep.join(entry for entry in sys.path if entry)
    path.write_text(f"#!/bin/sh\nPYTHONPATH='{paths}' exec '{sys.executable}' -m flowkit.cli \"$@\"\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def array(cluster: Cluster, cropped: Path, tmp_path: Path) -> Iterator[Array]:
    made = Array(cluster, cropped, tmp_path)
    yield made
    for job in made.jobs:
        cluster.run("scancel", "--quiet", job, check=False)
    wait_until("the array has ended", lambda: not cluster.run("squeue", "--noheader").strip())


@pytest.mark.parametrize(("elements", "names"), [("0-3", (0, 1, 2, 3)), ("5-11:3", (5, 8, 11))])
def test_an_array_of_any_start_and_step_does_it_all(
    array: Array, expected: dict[str, str], elements: str, names: tuple[int, ...]
) -> None:
    job = array.submit(elements)
    for name in names:
        array.cluster.wait(f"{job}_{name}", *ENDED)
        assert array.cluster.state(f"{job}_{name}") == "COMPLETED", array.log(f"{job}_{name}")
    assert sorted(path.name for path in array.out.iterdir()) == ["plan", "run.json", "shards"]
    said = array.merge(job)
    assert "12 shards, 12 clips read, 0 problems" in said
    assert (array.out / "report.html").exists()
    array.check(expected)


def test_an_array_that_is_a_list_is_refused(array: Array) -> None:
    job = array.submit("1,2,4")
    for name in (1, 2, 4):
        array.cluster.wait(f"{job}_{name}", *ENDED)
        assert array.cluster.job(f"{job}_{name}")["ExitCode"] == "2:0"
        assert "must be in a job array of one start, end and step" in array.log(f"{job}_{name}")
    assert not array.out.exists()


def test_a_requeued_element_goes_on(array: Array, expected: dict[str, str]) -> None:
    """The operator requeues an element in mid-run: SLURM ends it at once and begins it again."""
    job = array.submit("0-1")
    wait_until("the first shard", lambda: array.committed() > 0)
    array.cluster.run("scontrol", "requeue", f"{job}_0")
    array.release(f"{job}_0")
    for name in (0, 1):
        array.cluster.wait(f"{job}_{name}", "COMPLETED")
    assert array.cluster.job(f"{job}_0")["Restarts"] == "1"
    assert array.cluster.job(f"{job}_1")["Restarts"] == "0"
    array.check(expected)


def test_a_killed_element_is_submitted_again_alone(array: Array, expected: dict[str, str]) -> None:
    job = array.submit("0-1")
    wait_until("the first shard", lambda: array.committed() > 0)
    (extract,) = array.processes(f"{job}_1")
    os.kill(extract, signal.SIGKILL)
    array.cluster.wait(f"{job}_1", *ENDED)
    assert array.cluster.job(f"{job}_1")["ExitCode"] == "137:0", array.log(f"{job}_1")
    array.cluster.wait(f"{job}_0", "COMPLETED")
    assert array.committed() < 12
    assert "some clips are not done: submit extract.sbatch again" in array.merge(job, "FAILED")
    again = array.submit("1")
    array.cluster.wait(f"{again}_1", "COMPLETED")
    assert "Share 0/1" in array.log(f"{again}_1")
    array.check(expected)


def test_a_node_that_is_lost_costs_nothing(array: Array, expected: dict[str, str]) -> None:
    """Daemon, steps and jobs die as at a power cut; SLURM notices, and requeues what ran there."""
    job = array.submit("0-1")
    wait_until("the first shard", lambda: array.committed() > 0)
    array.cluster.lose_node()
    assert array.committed() < 12
    for name in ("0", "1"):
        array.wait_for_restart(f"{job}_{name}")
    array.cluster.start_node()
    for name in (
        "0",
        "1",
    ):  # without `release`: what SLURM had to say to the lost ones would reach those that follow at once
        array.cluster.wait(f"{job}_{name}", "COMPLETED", seconds=500)
    array.check(expected)


def test_sigterm_has_the_element_requeued_by_the_script(array: Array, expected: dict[str, str]) -> None:
    """SIGTERM to the batch shell, as --signal sends it: flowkit ends with 75, and this element alone begins again."""
    job = array.submit("3-4")
    wait_until("both run", lambda: array.begun(f"{job}_3") and array.begun(f"{job}_4"))
    array.cluster.run("scancel", "--batch", "--signal=TERM", f"{job}_4")  # its job number is that of the whole array
    array.wait_for_restart(f"{job}_4")
    assert "Run the same command again" in array.log(f"{job}_4")
    array.release(f"{job}_4")
    for name in (3, 4):
        array.cluster.wait(f"{job}_{name}", "COMPLETED")
    assert array.cluster.job(f"{job}_3")["Restarts"] == "0"
    array.check(expected)


def test_a_time_limit_is_an_interruption(array: Array, expected: dict[str, str]) -> None:
    """SLURM's shortest limit is a minute; the run is stopped in its midst, so that no machine is done before --signal comes."""
    job = array.submit("0", "--time=1", "--signal=B:TERM@40")
    wait_until("it runs", lambda: array.begun(f"{job}_0"))
    (extract,) = array.processes(f"{job}_0")
    os.kill(extract, signal.SIGSTOP)
    wait_until("SIGTERM waits for it", lambda: _waits(extract, signal.SIGTERM))
    os.kill(extract, signal.SIGCONT)
    array.wait_for_restart(f"{job}_0")
    assert "Run the same command again" in array.log(f"{job}_0")
    assert array.committed() < 12
    array.cluster.run("scontrol", "update", f"JobId={job}_0", "TimeLimit=60")
    array.release(f"{job}_0")
    array.cluster.wait(f"{job}_0", "COMPLETED")
    array.check(expected)


def _waits(pid: int, number: signal.Signals) -> bool:
    """Whether a signal was sent to a process and has not reached it yet."""
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
    )
    return bool(int(status["ShdPnd"], 16) >> (number - 1) & 1)


def test_a_cancelled_element_stays_cancelled(array: Array, expected: dict[str, str]) -> None:
    """scancel sends SIGTERM, too: the script must not bring back what somebody wants gone."""
    job = array.submit("0-1")
    wait_until("both run", lambda: array.begun(f"{job}_0") and array.begun(f"{job}_1"))
    array.cluster.run("scancel", job)
    for name in (0, 1):
        array.cluster.wait(f"{job}_{name}", "CANCELLED")
    wait_until("all has ended", lambda: not array.cluster.run("squeue", "--noheader").strip())
    time.sleep(2)
    assert [array.cluster.state(f"{job}_{name}") for name in (0, 1)] == ["CANCELLED"] * 2
    assert processes_of(SLURM_ARRAY_JOB_ID=job) == []
    again = array.submit("0-2")
    for name in range(3):
        array.cluster.wait(f"{again}_{name}", "COMPLETED")
    array.check(expected)
