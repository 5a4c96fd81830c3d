"""TV-L1 and MM-COF on a GPU, beside the speed that was asked for.

python benchmarks/gpu.py --out benchmarks/results/gpu.json

Device arrays in and out (host arrays too, beside them), the `fixed` preset, batches that fill the chip; each answer is checked
before it is timed. The bars were set for an H100 or H200; on another GPU they are shown and decide nothing. Exit codes: 0
measured; 1 an answer was wrong, or one of these GPUs below "good"; 3 there is no GPU, and nothing is written. What is stopped
prints what it measured so far, writes nothing and ends with 130 (Ctrl-C) or as its error says.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import machine
from flowkit.bench.measure import measure_cases
from flowkit.bench.options import BenchOptions, Case
from flowkit.bench.result import label, troubles
from flowkit.errors import BackendUnavailable, FlowkitError, Interrupted
from flowkit_kernels import resolve_backend

Batches = dict[tuple[int, int], tuple[int, ...]]
BATCHES: Batches = {(128, 128): (64, 256, 1024), (224, 224): (20, 128, 512)}
BARS = {(128, 128): (20_000, 40_000), (224, 224): (6_000, 12_000)}
"""Pairs a second that are good, and that are wanted, by size."""
BARS_FOR = ("H100", "H200")
"""In the names of GPUs that the bars decide about."""
QUICK = {(64, 64): (1, 2)}


def measure(backend: str, seconds: float, asked: Batches, say: Any, documents: list[dict[str, Any]]) -> None:
    """Add a result of `flowkit bench` for each size; where it is stopped, the last one is not complete."""
    for size, batches in asked.items():
        documents.append({})
        measure_cases(BenchOptions((backend,), (), (size,), batches, "fixed", seconds), say, documents[-1])


def best_rates(documents: list[dict[str, Any]]) -> dict[tuple[int, int], float]:
    """Most pairs a second with device arrays, by size; 0 where none was measured."""
    best = dict.fromkeys(BARS, 0.0)
    for case, row in ((Case(**row["case"]), row) for document in documents for row in document["rows"]):
        if case.op == "tvl1" and case.arrays == "device" and row["items_per_s"]:
            size = (case.height, case.width)
            best[size] = max(best[size], row["items_per_s"])
    return best


def judged(rates: dict[tuple[int, int], float]) -> list[dict[str, Any]]:
    """Each rate beside its bars."""
    return [
        {
            "size": size,
            "pairs_per_s": round(rate, 1),
            "good": BARS[size][0],
            "wanted": BARS[size][1],
            "reached": "wanted" if rate >= BARS[size][1] else "good" if rate >= BARS[size][0] else "neither",
        }
        for size, rate in rates.items()
    ]


def decides(gpu: str) -> bool:
    """Whether the bars were set for a GPU of this name: missed there, they fail the run.

    Examples
    --------
    >>> decides("NVIDIA H100 80GB HBM3"), decides("NVIDIA A100-SXM4-40GB")
    (True, False)
    """
    return any(name in gpu for name in BARS_FOR)


def lines(documents: list[dict[str, Any]], bars: list[dict[str, Any]]) -> list[str]:
    """The results in words."""
    rows = [row for document in documents for row in document.get("rows", ())]
    told = [f"{label(Case(**row['case']))}: {row['status']}, {row['items_per_s'] or 0:.0f}/s" for row in rows]
    return told + [
        f"{bar['size'][0]} x {bar['size'][1]}: {bar['pairs_per_s']:.0f} pairs/s; good {bar['good']}, wanted {bar['wanted']}: "
        f"reached {bar['reached']}"
        for bar in bars
    ]


def main() -> int:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=("cuda", "numba-cuda"), default="cuda")
    parser.add_argument("--seconds", type=float, default=2.0, help="time for each case")
    parser.add_argument("--quick", action="store_true", help="tiny batches: tries the script, measures nothing")
    parser.add_argument("--out", type=Path, help="where to store the result as JSON")
    options = parser.parse_args()
    if options.out and options.out.is_dir():
        parser.error(f"--out must name a file; got the folder {options.out}")
    try:
        resolve_backend(options.backend)
    except BackendUnavailable as error:
        sys.stderr.write(f"{error}\nNothing was measured and nothing was written.\n")
        return error.exit_code
    documents: list[dict[str, Any]] = []
    asked = QUICK if options.quick else BATCHES
    try:
        measure(options.backend, options.seconds, asked, lambda text: sys.stderr.write(f"{text}\n"), documents)
    except (KeyboardInterrupt, FlowkitError) as error:
        sys.stdout.write("".join(f"{line}\n" for line in lines(documents, [])))
        sys.stderr.write(f"{error or 'Interrupted.'}\nStopped before its end; nothing was written.\n")
        return error.exit_code if isinstance(error, FlowkitError) else Interrupted.exit_code
    bars = [] if options.quick else judged(best_rates(documents))
    sys.stdout.write("\n".join(lines(documents, bars)) + "\n")
    wrong = [problem for document in documents for problem in troubles(document)]
    if wrong:
        sys.stderr.write("\n".join(wrong) + "\nNothing was written: an answer must be right.\n")
        return 1
    if options.out:
        machine.write(options.out, "gpu", {"bars": bars, "bench": documents})
    device = documents[0]["machine"]["devices"][options.backend]
    return int(decides(str(device.get("name"))) and any(bar["reached"] == "neither" for bar in bars))


if __name__ == "__main__":
    sys.exit(main())
