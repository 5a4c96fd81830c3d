"""Index a made-up data set of 7,500 clips and a million empty frame files: seconds and peak memory of `flowkit manifest`.

    python benchmarks/manifest_datasets.py --out benchmarks/results/manifest_datasets.json

The set has the form of CASME II, workbook and cropped frames. Each run is a process of its own; the folders were written just
before, so the system still knows them: what a disk that was never read adds is not measured.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import xlsxwriter

import machine

MEASURE = """
import resource, sys, time
from pathlib import Path
began = time.perf_counter()
from flowkit.datasets import read_dataset
from flowkit.inputs.manifest import write_manifest
imported = time.perf_counter()
reading = read_dataset("casme2", Path(sys.argv[1]))
read = time.perf_counter()
write_manifest(Path(sys.argv[2]), reading.clips)
written = time.perf_counter()
used = resource.getrusage(resource.RUSAGE_SELF)
cpu = used.ru_utime + used.ru_stime
print(len(reading.clips), reading.left_out, imported - began, read - imported, written - read, cpu, used.ru_maxrss / 1024)
"""
LIMIT_S, LIMIT_MIB = 60.0, 1024.0


def make(root: Path, clips: int, frames: int) -> int:
    """A CASME II of that many clips, with `frames` empty files among them; how many there are."""
    header = (
        "Subject",
        "Filename",
        "",
        "OnsetFrame",
        "ApexFrame",
        "OffsetFrame",
        "",
        "Action Units",
        "Estimated Emotion",
    )
    made = 0
    with xlsxwriter.Workbook(root / "CASME2-coding-20140508.xlsx") as book:
        sheet = book.add_worksheet("Sheet1")
        sheet.write_row(0, 0, header)
        for clip in range(clips):
            subject, first = clip // 25 + 1, 1 + clip % 50
            count = (frames - made) // (clips - clip)
            last = first + count - 1
            row = (f"{subject:02d}", f"EP{clip:05d}", "", first, (first + last) // 2, last, "", "4+7", "disgust")
            sheet.write_row(clip + 1, 0, row)
            folder = root / "Cropped" / f"sub{subject:02d}" / f"EP{clip:05d}"
            folder.mkdir(parents=True)
            for number in range(first, last + 1):
                (folder / f"reg_img{number}.jpg").touch()
            made += count
    return made


def measure(root: Path, manifest: Path) -> dict[str, Any]:
    """Index the set in a child process."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(root), str(manifest)], check=True, capture_output=True, text=True
    )
    seconds = time.perf_counter() - began
    clips, left_out, imports, read, write, cpu, peak = map(float, done.stdout.split())
    manifest.unlink()
    return {
        "clips": int(clips),
        "left_out": int(left_out),
        "process_s": round(seconds, 2),
        "import_s": round(imports, 2),
        "read_s": round(read, 2),
        "write_s": round(write, 2),
        "cpu_s": round(cpu, 2),
        "peak_mib": round(peak, 1),
    }


def main() -> None:
    """Make the set, index it, compare with the limits, remove it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=7500)
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument(
        "--folder", type=Path, help="where to make the files; a new folder in it  [default: the system's]"
    )
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="flowkit-manifest-", dir=options.folder))
    try:
        began = time.perf_counter()
        frames = make(place, options.clips, options.frames)
        print(f"{options.clips} clips, {frames} files made in {time.perf_counter() - began:.0f} s", flush=True)
        with tempfile.TemporaryDirectory() as elsewhere:
            runs = [measure(place, Path(elsewhere) / "clips.csv") for _ in range(options.runs)]
    finally:
        shutil.rmtree(place)
    for run in runs:
        print(run)
    worst_s, worst_mib = max(run["process_s"] for run in runs), max(run["peak_mib"] for run in runs)
    right = all(run["clips"] == options.clips and not run["left_out"] for run in runs)
    print(
        f"slowest {worst_s} s (limit {LIMIT_S:g}), largest {worst_mib} MiB (limit {LIMIT_MIB:g}), all clips found: {right}"
    )
    if options.out:
        limits = {"process_s": LIMIT_S, "peak_mib": LIMIT_MIB}
        machine.write(options.out, "manifest_datasets", {"files": frames, "limits": limits, "runs": runs})
    sys.exit(0 if right and worst_s <= LIMIT_S and worst_mib <= LIMIT_MIB else 1)


if __name__ == "__main__":
    main()
