"""Where a limit of memory may be why a process ended, the message says so, with the limit and what to do."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from conftest import SMALL, flowkit
from flowkit.execution.memory import NEEDED_BYTES, _group_limits, memory_advice
from flowkit.execution.supervised_pool import SupervisedPool
from flowkit.execution.worker_process import Outcome, WorkerStartError
from flowkit.extraction.read_and_align import clip_error
from flowkit.inputs.clip import Clip


@contextmanager
def aborts() -> Iterator[Callable[[str], str]]:
    """A worker that ends as one does whose C++ libraries get no memory."""
    os.abort()
    yield str


@contextmanager
def raises() -> Iterator[Callable[[str], str]]:
    raise MemoryError("std::bad_alloc")
    yield str


@pytest.fixture
def limited() -> Iterator[None]:
    """A limit of the address space, as by `ulimit -v`; so large that it limits nothing here."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (1 << 40, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize(
    ("handler", "how"), [(aborts, "3 worker processes ended with SIGABRT"), (raises, "MemoryError")]
)
def test_workers_that_get_no_memory_are_told_with_the_limit(limited: None, handler: object, how: str) -> None:
    with (
        SupervisedPool(handler, workers=1, timeout_s=30, window=1) as pool,  # type: ignore[arg-type]
        pytest.raises(
            WorkerStartError, match=rf"{how}.*a process may have 1024\.0 GiB here \(ulimit -v\). Raise that limit$"
        ),
    ):
        list(pool.submit(["a"]).outcomes())


def test_nothing_is_said_of_memory_where_nothing_speaks_for_it(limited: None) -> None:
    for how in ("exit code 1", "SIGTERM", "FileNotFoundError: no model"):
        assert memory_advice(how) == ""


def test_the_limits_of_a_container_or_job_are_found_up_to_the_root(tmp_path: Path) -> None:
    membership, groups = tmp_path / "cgroup", tmp_path / "groups"
    membership.write_text("12:cpu,cpuacct:/x\n4:memory:/slurm/job\n0::/user.slice/session\n")
    for folder, name, text in (
        ("memory/slurm/job", "memory.limit_in_bytes", "1000\n"),
        ("memory", "memory.limit_in_bytes", "9223372036854771712\n"),
        ("user.slice/session", "memory.max", "max\n"),
        ("user.slice", "memory.max", "2000\n"),
    ):
        (groups / folder).mkdir(parents=True, exist_ok=True)
        (groups / folder / name).write_text(text)
    assert list(_group_limits(membership, groups)) == [1000, 9223372036854771712, 2000]


@pytest.mark.parametrize(("how", "said"), [("SIGKILL", True), ("SIGABRT", True), ("SIGSEGV", False)])
def test_a_clip_whose_worker_was_killed_may_have_been_short_of_memory(how: str, said: bool) -> None:
    clip = Clip("c1", "c1", 1, 2, 3, "s01", "made", "joy", line=2)
    assert ("fewer workers" in clip_error(clip, Outcome("crashed", detail=how)).message) == said


@pytest.mark.parametrize("command", ["extract", "spot"])
def test_a_limit_under_which_native_libraries_hang_is_refused(cropped: Path, tmp_path: Path, command: str) -> None:
    flags = SMALL if command == "extract" else ()
    kilobytes = NEEDED_BYTES // 1024 - 1
    limited = ("sh", "-c", f'ulimit -v {kilobytes}; exec "$@"', "sh")
    done = flowkit(command, cropped, "--out", tmp_path / "out", *flags, before=limited)
    assert done.code == 3, done.err
    assert "Error: memory: a process may have 1.2 GiB here (ulimit -v)" in done.err
    assert not (tmp_path / "out").exists()
