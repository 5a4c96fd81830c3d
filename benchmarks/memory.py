"""Peak memory of `flowkit extract` over many clips beside few: all its processes together, and the parent alone.

    python benchmarks/memory.py --clips 10000 --out benchmarks/results/memory.json

The clips of a synthetic data set are listed again and again under other names. Memory is the proportional set size (pages that
processes share count once), sampled ten times per second. A shard is built in memory, so a run of few clips needs less where a
shard may hold more: both runs have 100 clips per shard.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import machine
from flowkit.synthetic.dataset import SynthConfig, synthesise

FEW = 100


def listed_again(manifest: Path, clips: int) -> Path:
    """A manifest of so many clips with the frames of another."""
    with manifest.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    path = manifest.with_name(f"{clips}.csv")
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        for number in range(clips):
            row = rows[number % len(rows)]
            writer.writerow({**row, "clip_id": f"{number:06d}-{row['clip_id']}"})
    return path


def tree(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for process in found:
        try:
            children = [
                text
                for task in Path(f"/proc/{process}/task").iterdir()
                for text in (task / "children").read_text().split()
            ]
        except OSError:
            continue
        found += map(int, children)
    return found


def memory_mb(pid: int) -> float:
    """Proportional set size of a process, 0 where it is gone."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) / 1000


def peaks(manifest: Path, out: Path) -> dict[str, float]:
    """Highest memory of a run, MB."""
    command = [
        sys.executable,
        "-m",
        "flowkit.cli",
        "extract",
        str(manifest),
        "--out",
        str(out),
        "--size",
        "224",
        "--backend",
        "cpu",
    ]
    running = subprocess.Popen([*command, "--shard-clips", str(FEW), "--quiet"], stdout=subprocess.DEVNULL)
    found = {"all processes": 0.0, "parent": 0.0}
    while running.poll() is None:
        sizes = [memory_mb(pid) for pid in tree(running.pid)]
        found = {"all processes": max(found["all processes"], sum(sizes)), "parent": max(found["parent"], sizes[0])}
        time.sleep(0.1)
    if running.returncode:
        sys.exit(f"extract ended with exit code {running.returncode}")
    return {name: round(value, 1) for name, value in found.items()}


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=10_000, help="of the large run (%(default)s)")
    parser.add_argument("--out", type=Path, help="where to store the result as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        manifest = synthesise(base / "clips", SynthConfig(subjects=13, key_frames_only=True))
        few, many = listed_again(manifest, FEW), listed_again(manifest, options.clips)
        small, large = peaks(few, base / "few"), peaks(many, base / "many")
        ratios = {which: round(large[which] / small[which], 3) for which in small}
        results: dict[str, Any] = {f"{FEW} clips": small, f"{options.clips} clips": large, "ratio": ratios}
    print(results)
    if options.out:
        machine.write(options.out, "memory", results)


if __name__ == "__main__":
    main()
