"""Clips per second of the whole `flowkit extract` on synthetic clips, and where the time goes, with one and two workers.

python benchmarks/throughput.py --subjects 25 --out benchmarks/results/throughput.json
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import machine
from flowkit.synthetic.dataset import SynthConfig, synthesise


def extract(manifest: Path, out: Path, *more: str) -> dict[str, Any]:
    """Summary of one run, as the command prints it."""
    command = [sys.executable, "-m", "flowkit.cli", "extract", str(manifest), "--out", str(out), "--json", *more]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subjects", type=int, default=25, help="eight clips each")
    parser.add_argument("--out", type=Path, help="where to store the result as JSON")
    options = parser.parse_args()
    results: dict[str, Any] = {"size": 224}
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        manifest = synthesise(base / "clips", SynthConfig(subjects=options.subjects, key_frames_only=True))
        extract(manifest, base / "warm", "--workers", "2")  # compiles, and fills the page cache
        for cores in ("1", "2"):
            summary = extract(manifest, base / f"out{cores}", "--workers", cores, "--threads", cores)
            stages = {name: round(1000 * s / summary["ok"], 2) for name, s in summary["stage_seconds"].items()}
            results[f"workers_{cores}"] = {
                "clips": summary["ok"],
                "seconds": summary["seconds"],
                "clips_per_s": summary["clips_per_s"],
                "ms_per_clip_and_stage": stages,
            }
            sys.stdout.write(f"{cores} worker(s): {summary['clips_per_s']:.1f} clips/s; ms a clip: {stages}\n")
    if options.out:
        machine.write(options.out, "throughput", results)


if __name__ == "__main__":
    main()
