"""Results of a benchmark as tables and sentences for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flowkit.bench.compare import Comparison
from flowkit.bench.options import Case
from flowkit.bench.result import label

# --- what people read

CASE_COLUMNS = ("op", "size", "batch", "backend", "arrays")
COLUMNS = (*CASE_COLUMNS, "host ms", "gpu ms", "items/s", "Gpx/s", "of copy", "off")
"""Short enough, as all figures are, for a terminal of 80 columns."""
COMPARED_COLUMNS = (*CASE_COLUMNS, "then ms", "now ms", "times", "")
END_TO_END_COLUMNS = ("backend", "clips", "shards", "seconds", "clips/s", "start-up s", "bound by")


def table(document: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A line of `COLUMNS` for each row of a result."""
    return [_line(row) for row in document["rows"]]


def _line(row: Mapping[str, Any]) -> tuple[str, ...]:
    timing, apart = row["timing"] or {}, row["difference"] or {}
    clocks = [timing.get(name) for name in ("host_s", "device_s")]
    on_host, on_device = (_ms(clock["median"]) if clock else "-" for clock in clocks)
    iterations, share = row["pixel_iterations_per_s"], row["copy_share"]
    return (
        *_case_cells(Case(**row["case"])),
        row["status"] if row["status"] in ("wrong", "failed") else on_host,
        on_device,
        _figure(row["items_per_s"]) if row["items_per_s"] else "-",
        _figure(iterations / 1e9) if iterations else "-",
        f"{_figure(100 * share)} %" if share else "-",
        f"{apart['mean']:.0e}" if apart else "-",
    )


def notes(document: Mapping[str, Any]) -> list[str]:
    """What to know about the table, in sentences: why a case was not timed, and what the columns mean."""
    speeds = ", ".join(f"{name} {speed / 1e9:.1f} GB/s" for name, speed in document["copy_bytes_per_s"].items())
    untimed = [row for row in document["rows"] if row["status"] != "measured"]
    return [
        *(f"{label(Case(**row['case']))}: {row['status']}: {row['detail']}." for row in untimed),
        f"of copy: bytes to be moved, beside the best large copy ({speeds}); over 100 % where a kernel keeps data in cache.",
        "Times are medians, --json has the quartiles. Gpx/s: 10^9 pixels times iterations. off: mean error (tvl1: px).",
    ]


def comparison_table(compared: Comparison) -> list[tuple[str, ...]]:
    """A line of `COMPARED_COLUMNS` for each case that both results timed."""
    return [
        (
            *_case_cells(r.case),
            *(_ms(r.then.median), _ms(r.now.median), f"{r.times:.2f}"),
            "" if r.verdict == "same" else r.verdict,
        )
        for r in compared.ratios
    ]


def comparison_notes(compared: Comparison) -> list[str]:
    """What to know about the table, in sentences."""
    told = []
    if compared.other_machine:
        told.append(f"Another machine: {compared.other_machine}. The times say nothing about the code.")
    if compared.only_then or compared.only_now:
        told.append(f"Not compared: {compared.only_then} cases timed only then, {compared.only_now} only now.")
    return [*told, f"{len(compared.ratios)} cases compared, {len(compared.slower)} slower."]


def end_to_end_table(document: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A line of `END_TO_END_COLUMNS` for each backend."""
    return [
        (
            *(found["backend"], str(found["computed"]), str(found["shards"])),
            *(_figure(found[name]) for name in ("seconds", "clips_per_s", "start_up_s")),
            found["bound_by"],
        )
        for found in document["end_to_end"]
    ]


def end_to_end_notes(document: Mapping[str, Any]) -> list[str]:
    """What each stage took, in sentences, and what the seconds include."""
    told = []
    for found in document["end_to_end"]:
        if found["computed"]:
            stages = (f"{name} {1000 * s / found['computed']:.0f}" for name, s in found["stage_seconds"].items())
            told.append(f"{found['backend']}, ms a clip, added up over processes: {', '.join(stages)}.")
    return [
        *told,
        "Seconds include starting the processes; start-up s is a run of one clip. Compiling counts in neither.",
    ]


def _case_cells(case: Case) -> tuple[str, ...]:
    """A cell for each of `CASE_COLUMNS`."""
    return (case.op, f"{case.height}x{case.width}", str(case.batch), case.backend, case.arrays)


def _ms(seconds: float) -> str:
    return _figure(1000 * seconds)


def _figure(value: float) -> str:
    """Three digits or all before the point, never with an exponent."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}" if value >= 0.1 else f"{value:.3f}"
