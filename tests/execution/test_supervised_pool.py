"""Supervised workers: one bad item costs that item alone."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import RawArray
from pathlib import Path
from typing import Any

import pytest

from flowkit.execution import supervised_pool, worker_process
from flowkit.execution.supervised_pool import SupervisedPool
from flowkit.execution.worker_process import Interlude, Outcome, WorkerStartError


class OddError(Exception):
    """Does not survive pickling, as its arguments are not those of its class."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} {two}")


@contextmanager
def handler() -> Iterator[Callable[[str], str]]:
    """Does what the item says."""

    def do(item: str) -> str:
        verb, _, rest = item.partition(" ")
        if verb == "die":
            os.kill(os.getpid(), signal.SIGSEGV)
        if verb == "once":
            path = Path(rest)
            if not path.exists():
                path.write_text(str(os.getpid()))
                os._exit(9)
            time.sleep(0.5)
        if verb == "wait":
            time.sleep(0.5)
        if verb == "hang":
            time.sleep(60)
        if verb == "pid":
            return str(os.getpid())
        if verb == "threads":
            return os.environ.get(rest, "not set")
        if verb == "odd":
            raise OddError("two", "arguments")
        if verb == "raise":
            raise ValueError(rest)
        return f"{item} done"

    yield do


@contextmanager
def stepping_handler(steps: Any) -> Iterator[Callable[[str], str]]:
    """Takes the time of an item in steps, and counts them in shared memory."""

    def do(item: str) -> str:
        for _ in range(int(item)):
            time.sleep(0.5)
            steps[0] += 1
        if item == "3":
            time.sleep(60)
        return f"{item} done"

    yield do


@contextmanager
def dying_handler(folder: str, deaths: int) -> Iterator[Callable[[str], str]]:
    """Dies while it starts, so many times."""
    for number in range(deaths):
        path = Path(folder) / str(number)
        if not path.exists():
            path.touch()
            os._exit(9)
    yield str


@contextmanager
def broken_handler() -> Iterator[Callable[[str], str]]:
    raise RuntimeError("no model here")
    yield


def run(items: list[str], **options: object) -> list[Outcome[str]]:
    settings = {"workers": 2, "timeout_s": 30.0, "window": 4, **options}
    with SupervisedPool(handler, **settings) as pool:  # type: ignore[arg-type]
        return [outcome for _, outcome in pool.submit(items).outcomes()]


def test_results_come_in_the_order_of_the_items() -> None:
    items = [f"item {n}" for n in range(30)]
    assert [outcome.value for outcome in run(items)] == [f"{item} done" for item in items]


def test_a_segfault_costs_its_item_alone(tmp_path: Path) -> None:
    outcomes = run(["a", "die", "b", f"once {tmp_path / 'seen'}", "c"])
    assert [outcome.kind for outcome in outcomes] == ["done", "crashed", "done", "done", "done"]
    assert outcomes[1].detail == "SIGSEGV"


def test_what_ends_all_workers_in_turn_costs_an_item_one_attempt(tmp_path: Path) -> None:
    """As somebody who kills them by name, or a kernel short of memory: the second attempt is in a process that is new."""

    def kill_the_other() -> None:
        if met.exists() and not killed:
            killed.extend(pids - {int(met.read_text())})
            os.kill(killed[0], signal.SIGKILL)

    met = tmp_path / "met"
    killed: list[int] = []
    with SupervisedPool(handler, workers=2, timeout_s=30, window=4) as pool:
        list(pool.submit(["wait", "wait"]).outcomes(lambda: None))
        pids = {process.pid for process in multiprocessing.active_children() if process.pid}
        found = list(pool.submit([f"once {met}"]).outcomes(kill_the_other))
    assert len(pids) == 2
    assert len(killed) == 1
    assert [outcome.kind for _, outcome in found] == ["done"]


def test_a_hanging_item_is_killed_and_the_rest_goes_on() -> None:
    start = time.monotonic()
    outcomes = run(["a", "hang", "b"], timeout_s=5.0)
    assert [outcome.kind for outcome in outcomes] == ["done", "timeout", "done"]
    assert time.monotonic() - start < 30


def test_an_item_that_makes_progress_has_the_whole_time_for_each_step() -> None:
    steps = RawArray("q", 1)
    start = time.monotonic()
    with SupervisedPool(
        functools.partial(stepping_handler, steps),
        workers=1,
        timeout_s=3.0,
        window=2,
        attempts=1,
        progress=lambda: tuple(steps),
    ) as pool:
        outcomes = [outcome for _, outcome in pool.submit(["8", "3"]).outcomes()]
    assert [outcome.kind for outcome in outcomes] == ["done", "timeout"]
    assert 8 * 0.5 + 3 * 0.5 + 3.0 <= time.monotonic() - start < 30


def test_a_process_that_cannot_be_killed_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that sits in a driver: the pool ends, and Python will not wait for it either.

    Looked at in the supervisor's thread: when that ends, Linux kills the process.
    """
    real, left = worker_process.await_end, list[bool]()

    def await_end(process: BaseProcess) -> None:
        real(process)
        left.append(process.is_alive() and process not in multiprocessing.active_children())

    monkeypatch.setattr(worker_process, "KILL_TIMEOUT_S", 0.2)
    monkeypatch.setattr(supervised_pool, "await_end", await_end)
    with SupervisedPool(handler, workers=1, timeout_s=30, window=2) as pool:
        pool.submit(["hang"])
        while not (pool._workers and pool._workers[0].job):
            time.sleep(0.05)
        (process,) = (worker.process for worker in pool._workers)
        monkeypatch.setattr(process, "kill", lambda: None)
        start = time.monotonic()
    assert time.monotonic() - start < 5
    assert left == [True]
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid or 0, signal.SIGKILL)
    process.join()


def test_an_exception_is_its_items_outcome() -> None:
    (outcome,) = run(["raise bad news"])
    assert outcome.kind == "raised"
    assert isinstance(outcome.error, ValueError)
    assert str(outcome.error) == "bad news"


def test_an_exception_that_cannot_travel_is_its_items_outcome_as_text() -> None:
    odd, fine = run(["odd", "a"])
    assert str(odd.error) == "OddError: two arguments"
    assert fine.value == "a done"


def test_a_spent_worker_is_replaced_and_what_it_raised_was_a_crash(tmp_path: Path) -> None:
    def spent(outcome: Outcome[str]) -> bool:
        return isinstance(outcome.error, ValueError) or "last" in (outcome.value or "")

    outcomes = run(["pid", "last", "pid", "pid", "raise lost"], workers=1, spent=spent)
    before, _, after, same, lost = outcomes
    assert [outcome.kind for outcome in outcomes] == ["done"] * 4 + ["crashed"]
    assert before.value != after.value == same.value
    assert (lost.detail, type(lost.error)) == ("lost", ValueError)


@pytest.mark.parametrize(("attempts", "kind"), [(1, "crashed"), (2, "done")])
def test_how_often_an_item_is_tried_is_the_callers_choice(tmp_path: Path, attempts: int, kind: str) -> None:
    (outcome,) = run([f"once {tmp_path / 'seen'}"], attempts=attempts)
    assert outcome.kind == kind


def test_pools_that_share_a_condition_wake_whoever_waits_for_any() -> None:
    changed = threading.Condition()
    with (
        SupervisedPool(handler, workers=1, timeout_s=30, window=1, changed=changed) as slow,
        SupervisedPool(handler, workers=1, timeout_s=30, window=1, changed=changed) as fast,
    ):
        waiting = [slow.submit(["hang"]), fast.submit(["a"])]
        with changed:
            assert changed.wait_for(lambda: any(submission.ready() for submission in waiting), timeout=30)
        assert [submission.ready() for submission in waiting] == [False, True]


def test_a_signal_to_the_whole_group_leaves_the_decision_to_the_parent() -> None:
    with SupervisedPool(handler, workers=2, timeout_s=30, window=4) as pool:
        submission = pool.submit([f"item {n}" for n in range(8)])
        outcomes = submission.outcomes()
        next(outcomes)
        for worker in pool._workers:
            for number in (signal.SIGINT, signal.SIGTERM):
                os.kill(worker.process.pid or 0, number)
        assert [outcome.kind for _, outcome in outcomes] == ["done"] * 7


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [({}, ["1", "1"]), ({"MKL_NUM_THREADS": "3"}, ["1", "3"]), ({"OMP_NUM_THREADS": "2"}, ["not set", "not set"])],
    ids=str,
)
def test_workers_do_linear_algebra_in_one_thread_unless_the_user_chose(
    monkeypatch: pytest.MonkeyPatch, chosen: dict[str, str], expected: list[str]
) -> None:
    for name in ("OMP_NUM_THREADS", *worker_process.ALGEBRA_THREADS):
        monkeypatch.delenv(name, raising=False)
    for name, value in chosen.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    with SupervisedPool(handler, workers=1, timeout_s=30, window=4) as pool:
        wanted = ["threads OPENBLAS_NUM_THREADS", "threads MKL_NUM_THREADS"]
        found = [outcome.value for _, outcome in pool.submit(wanted).outcomes()]
    assert found == expected
    assert dict(os.environ) == before


def test_a_worker_chooses_its_threads_before_numpy_is_there() -> None:
    code = "import sys, flowkit.execution.worker_process; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_worker_that_cannot_set_up_is_an_error_for_all() -> None:
    with (
        SupervisedPool(broken_handler, workers=2, timeout_s=5, window=4) as pool,
        pytest.raises(WorkerStartError, match="RuntimeError: no model here"),
    ):
        list(pool.submit(["a"]).outcomes())


@pytest.mark.parametrize(("deaths", "survives"), [(2, True), (3, False)])
def test_a_worker_may_die_while_it_starts_but_not_for_ever(tmp_path: Path, deaths: int, survives: bool) -> None:
    dying = functools.partial(dying_handler, str(tmp_path), deaths)
    with SupervisedPool(dying, workers=1, timeout_s=30, window=4) as pool:
        outcomes = pool.submit(["a"]).outcomes()
        if survives:
            assert [outcome.value for _, outcome in outcomes] == ["a"]
        else:
            with pytest.raises(WorkerStartError, match="before they were ready"):
                list(outcomes)


def test_outcomes_nobody_takes_are_bounded_by_the_window() -> None:
    with SupervisedPool(handler, workers=2, timeout_s=30, window=4) as pool:
        submission = pool.submit([f"item {n}" for n in range(50)])
        deadline = time.monotonic() + 60
        while len(pool._queue) > 46 and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(0.5)  # long enough for it to go on, if it would
        assert len(pool._queue) == 46
        assert len(list(submission.outcomes())) == 50


def test_a_cancelled_submission_makes_room_for_the_next() -> None:
    with SupervisedPool(handler, workers=1, timeout_s=30, window=2) as pool:
        first, second = pool.submit(["a", "b", "c", "d"]), pool.submit(["e", "f", "g"])
        next(first.outcomes())
        first.cancel()
        assert [outcome.value for _, outcome in second.outcomes()] == ["e done", "f done", "g done"]


def test_poll_may_stop_the_wait_and_no_process_survives() -> None:
    stop = threading.Event()

    def poll() -> None:
        if stop.is_set():
            raise KeyboardInterrupt

    with SupervisedPool(handler, workers=1, timeout_s=30, window=2) as pool:
        threading.Timer(0.5, stop.set).start()
        with pytest.raises(KeyboardInterrupt):
            list(pool.submit(["hang"]).outcomes(poll))
        workers = [worker.process for worker in pool._workers]
    assert workers
    assert not any(process.is_alive() for process in workers)


def test_who_is_told_to_stop_hears_it_though_all_outcomes_are_there() -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with SupervisedPool(handler, workers=1, timeout_s=30, window=4) as pool:
        submission = pool.submit([1, 2])
        while not submission.ready():
            time.sleep(0.01)
        with pytest.raises(KeyboardInterrupt):
            next(submission.outcomes(stop))


def test_an_outcome_says_what_its_worker_did_before(tmp_path: Path) -> None:
    """The first item of a worker knows what its start cost, a later one how long the outcome before took to send."""
    with SupervisedPool(handler, workers=1, timeout_s=60, window=9) as pool:
        first, second, third = (
            outcome.before or Interlude() for _, outcome in pool.submit(["a", "raise no", "wait"]).outcomes()
        )
        time.sleep(0.3)
        (late,) = (outcome.before or Interlude() for _, outcome in pool.submit(["b"]).outcomes())
    assert first.started_cpu_s > 0
    assert [one.started_cpu_s for one in (second, third, late)] == [0, 0, 0]
    assert 0 < second.sent_s < 10
    assert second.sent_cpu_s >= 0
    assert late.waited_s > 0.2


def test_workers_can_be_started_before_there_is_work() -> None:
    with SupervisedPool(handler, workers=2, timeout_s=60, window=9) as pool:
        pool.start(5)
        until = time.monotonic() + 60
        while not (len(pool._workers) == 2 and all(worker.ready for worker in pool._workers)):
            assert time.monotonic() < until
            time.sleep(0.02)
        pids = {outcome.value for _, outcome in pool.submit(["pid"] * 6).outcomes()}
    assert len(pids) <= 2
