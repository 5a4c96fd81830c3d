"""The time that `make test` may take: measured, recorded, and an error where it grows by half.

The budget is for two idle cores. A slower or busier machine gets more: its speed is measured before the first test and after the
last one, and that of a core in between. Imports no more than pytest; `make test` passes `--budget` and `--began`, other calls of
pytest are not watched.
"""

from __future__ import annotations

import json
import statistics
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

RECORD = ".test-times.json"
TOLERATED = 1.5
"""Times the budget; beyond it the run fails."""
PIECE = b"".join(number.to_bytes(3, "big") for number in range(1_600_000))
REFERENCE_S = 0.1
"""What `calibrated` gives on two idle cores of the machine for which the budget is meant."""
EVERY_S = 10.0
"""Between two measurements of a core while tests run."""
NAMED = 15


def calibrated() -> float:
    """Return the seconds that this machine takes for one piece of work on each of two cores, the median of five tries.

    Other work that runs at the same time counts, and so does a core that is not there.
    """

    def tried() -> float:
        began = time.perf_counter()
        list(threads.map(zlib.compress, (PIECE, PIECE)))  # which lets other threads run
        return time.perf_counter() - began

    with ThreadPoolExecutor(2) as threads:
        return statistics.median(tried() for _ in range(5))


def core_seconds() -> float:
    """Return the CPU seconds of one piece of work: those of a core however many tests share it, so that they may run meanwhile."""
    began = time.thread_time()
    zlib.compress(PIECE)
    return time.thread_time() - began


def limit(budget: float, calibration: float) -> float:
    """Return the seconds that a run may take on a machine of this speed; a fast machine gets no less."""
    return TOLERATED * budget * max(1.0, calibration / REFERENCE_S)


class Budget:
    """A pytest plugin: times a session, records it, and fails it beyond the limit.

    Parameters
    ----------
    budget : float
        Seconds, on two idle cores.
    began : float
        When `make test` began, in seconds since 1970.
    record : Path
        Where the times are written.
    """

    def __init__(self, budget: float, began: float, record: Path) -> None:
        self._budget, self._began, self._record = budget, began, record
        self._calibration = calibrated()
        self._between: list[float] = []
        self._measured = time.monotonic()
        self._spent = Counter[str]()
        self._took = 0.0

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add up what a test, its setup and its end took; now and then, measure a core."""
        self._spent[report.nodeid] += report.duration  # type: ignore[assignment] # seconds count too
        if time.monotonic() - self._measured > EVERY_S:
            self._between.append(core_seconds())
            self._measured = time.monotonic()

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the record, and fail a run that took too long."""
        self._took = time.time() - self._began
        self._calibration = max(self._calibration, calibrated(), statistics.median(self._between or [0.0]))
        found = {
            "seconds": round(self._took, 1),
            "budget_seconds": self._budget,
            "calibration_seconds": round(self._calibration, 4),
            "tests": {name: round(seconds, 2) for name, seconds in self._spent.most_common()},
        }
        self._record.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        if self._too_long() and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print what the run took, and where that was too much, what took longest."""
        for line in self.lines():
            terminalreporter.write_line(line, red=self._too_long())

    def _too_long(self) -> bool:
        return self._took > limit(self._budget, self._calibration)

    def lines(self) -> Iterator[str]:
        """Yield the lines of the summary."""
        most = limit(self._budget, self._calibration)
        slower = max(1.0, self._calibration / REFERENCE_S)
        yield f"Time: {self._took:.0f} s; budget: {self._budget:g} s; limit on this machine, now: {most:.0f} s."
        if not self._too_long():
            return
        yield (
            f"Error: make test: took {self._took:.0f} s. The limit is {TOLERATED:g} times the budget of {self._budget:g} s"
            f"{f', {slower:.1f} times as much on this slow or busy machine' if slower > 1 else ''}. Share what tests set up, "
            f"or move repetitions to `make test-slow`. The slowest tests (all are in {self._record.name}):"
        )
        for name, seconds in self._spent.most_common(NAMED):
            yield f"{seconds:8.1f} s  {name}"


def add_options(parser: pytest.Parser) -> None:
    """Add the options of `make test`."""
    group = parser.getgroup("budget")
    group.addoption("--budget", type=float, help="seconds that this session may take on two idle cores")
    group.addoption("--began", type=float, default=time.time(), help="when it began, in seconds since 1970")


def watch(config: pytest.Config) -> None:
    """Watch a session that has a budget; of several processes, the one that hands out the tests."""
    if config.option.budget is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Budget(config.option.budget, config.option.began, config.rootpath / RECORD))
