"""A result beside an earlier one."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from flowkit.bench.measure import planned
from flowkit.bench.options import BenchOptions, Case, Document, check
from flowkit.bench.result import FORMAT, TITLE
from flowkit.errors import ConfigError
from flowkit.extraction.devices import other_devices
from flowkit_kernels.timing import Spread

TOLERANCE = 0.1


@dataclass(frozen=True, slots=True)
class Baseline:
    """The timed cases of a result, and the machine they were timed on."""

    machine: Mapping[str, Any]
    seconds: Mapping[Case, Spread]

    @classmethod
    def of(cls, document: Document) -> Baseline:
        """Of a result; KeyError, TypeError or ValueError if it is none."""
        if (document["title"], document["format"]) != (TITLE, FORMAT):
            raise ValueError("another title or format")
        timed = (row for row in document["rows"] if row["status"] == "measured")
        machine: Mapping[str, Any] = document["machine"]
        _ = machine["processor"], machine["cores"], [device.get("name") for device in machine["devices"].values()]
        return cls(machine, {Case(**row["case"]): _spread(row["seconds"]) for row in timed})


def _spread(stored: Mapping[str, Any]) -> Spread:
    """Of its fields; ValueError if they are no times."""
    if not all(isinstance(seconds, int | float) and 0 < seconds < math.inf for seconds in stored.values()):
        raise ValueError("not times")
    return Spread(**stored)


def read_baseline(path: Path) -> Baseline:
    """A result that `write_result` stored.

    Raises
    ------
    ConfigError
        There is no such file, or it holds something else.
    """
    got: object = "something else"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(document, dict) and document.get("title") == TITLE and "end_to_end" in document:
            got = "one of --end-to-end, which cannot be compared"
        else:
            return Baseline.of(document)
    except OSError as error:
        got = error.strerror
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise ConfigError(
        f"{path}: --compare must be a result of flowkit bench; got {got}. Store one with flowkit bench --out FILE."
    )


def check_comparable(then: Baseline, options: BenchOptions) -> None:
    """Refuse, before anything is timed, a stored result that has no case in common with what will be.

    Raises
    ------
    ConfigError
    """
    coming = planned(options)
    check(
        any(case in then.seconds for case in coming),
        "--compare",
        "a result that timed some of the same cases",
        f"none of these {len(coming)}",
    )


@dataclass(frozen=True, slots=True)
class Ratio:
    """A case then and now; `times` above 1: slower now."""

    case: Case
    then: Spread
    now: Spread
    times: float
    verdict: Literal["same", "slower", "faster"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two results side by side.

    Attributes
    ----------
    ratios : tuple of Ratio
        For each case that both timed.
    only_then, only_now : int
        Cases that one of them timed alone.
    other_machine : str
        What differs between the machines, in words; empty if nothing does. Otherwise no ratio says anything about the code.
    """

    ratios: tuple[Ratio, ...]
    only_then: int
    only_now: int
    other_machine: str

    def to_dict(self) -> Document:
        """Plain values, for JSON."""
        return dataclasses.asdict(self)

    @property
    def slower(self) -> tuple[Ratio, ...]:
        """The cases that got slower."""
        return tuple(ratio for ratio in self.ratios if ratio.verdict == "slower")


def compare(then: Baseline, now: Baseline, tolerance: float = TOLERANCE) -> Comparison:
    """A result beside a stored one.

    A case got slower, or faster, where the medians differ by more than the tolerance and the quartiles do not overlap.

    Parameters
    ----------
    then, now : Baseline
    tolerance : float
        Share of the smaller median.

    Returns
    -------
    Comparison
        Without ratios, if they have no case in common.
    """
    both = [case for case in now.seconds if case in then.seconds]
    ratios = tuple(_ratio(case, then.seconds[case], now.seconds[case], tolerance) for case in both)
    only_then, only_now = (len(one.seconds) - len(both) for one in (then, now))
    return Comparison(ratios, only_then, only_now, _other_machine(then.machine, now.machine))


def _ratio(case: Case, then: Spread, now: Spread, tolerance: float) -> Ratio:
    verdict: Literal["same", "slower", "faster"] = "same"
    if now.median > (1 + tolerance) * then.median and now.low > then.high:
        verdict = "slower"
    elif then.median > (1 + tolerance) * now.median and then.low > now.high:
        verdict = "faster"
    return Ratio(case, then, now, now.median / then.median, verdict)


def _other_machine(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    changes = [f"{name} {then[name]} -> {now[name]}" for name in ("processor", "cores") if then[name] != now[name]]
    shared = [backend for backend in now["devices"] if backend in then["devices"]]
    devices = other_devices(*({backend: machine["devices"][backend] for backend in shared} for machine in (then, now)))
    return "; ".join([*changes, *([f"GPU {devices}"] if devices else [])])
