"""Seconds and peak memory of reading a manifest of a million rows, which is how `flowkit check` tests a file's form.

python benchmarks/manifest_scale.py --out benchmarks/results/manifest_scale.json

Each run is a process of its own, so that its peak memory is that of this manifest alone.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import machine
from flowkit.inputs.manifest import REQUIRED

BARS = {"seconds": 10.0, "peak_gb": 1.0}
CASES = {
    "plain": "in order, as `flowkit manifest` writes them",
    "awkward": "shuffled, labels with accents, numbers as spreadsheets write them (8.0)",
    "wrong": "every row has a frame rate that is none",
}
CHILD = """
import json, pathlib, sys, time
from flowkit.errors import ManifestError
from flowkit.inputs.manifest import read_manifest
began, cpu = time.perf_counter(), time.process_time()
try:
    clips = len(read_manifest(sys.argv[1]))
except ManifestError:
    clips = 0
seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
status = dict(line.split(":", 1) for line in pathlib.Path("/proc/self/status").read_text().splitlines())
print(json.dumps([clips, seconds, cpu, int(status["VmHWM"].split()[0]) * 1024 / 1e9]))
"""


def rows(case: str, count: int) -> Iterator[tuple[object, ...]]:
    """Rows of a data set of 500 subjects with one further column."""
    numbers = list(range(count))
    if case == "awkward":
        random.Random(0).shuffle(numbers)
    suffix, label = (".0", "dégoût") if case == "awkward" else ("", "disgust")
    fps = "fast" if case == "wrong" else "30"
    for number in numbers:
        subject, onset = f"spNO.{number % 500}", number * 37 % 5000
        clip, path = f"casme3-a/{subject}/{number:07d}", f"part_A/{subject}/clip{number:07d}"
        frames = (f"{onset + later}{suffix}" for later in (0, 15, 31))
        yield (clip, path, *frames, subject, "casme3-a", label, fps, "4+7")


def measure(manifest: Path, repeats: int) -> dict[str, Any]:
    """Best and median of several processes that read the manifest."""
    runs = []
    for _ in range(repeats):
        done = subprocess.run([sys.executable, "-c", CHILD, str(manifest)], stdout=subprocess.PIPE, check=True)
        runs.append(json.loads(done.stdout))
    clips, seconds, cpu, peak = zip(*runs, strict=True)
    return {
        "clips": clips[0],
        "seconds": {"best": round(min(seconds), 2), "median": round(statistics.median(seconds), 2)},
        "cpu_seconds": {"best": round(min(cpu), 2), "median": round(statistics.median(cpu), 2)},
        "peak_gb": round(max(peak), 3),
        "load_average": round(os.getloadavg()[0], 2),
    }


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, help="where to store the result as JSON")
    options = parser.parse_args()
    results: dict[str, Any] = {"rows": options.rows, "bars": BARS, "cases": CASES}
    with tempfile.TemporaryDirectory() as folder:
        for case in CASES:
            manifest = Path(folder) / f"{case}.csv"
            with manifest.open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerow((*REQUIRED, "fps", "au"))
                csv.writer(file).writerows(rows(case, options.rows))
            results[case] = measure(manifest, options.repeats)
            sys.stdout.write(f"{case}: {results[case]}\n")
    if options.out:
        machine.write(options.out, "manifest_scale", results)


if __name__ == "__main__":
    main()
