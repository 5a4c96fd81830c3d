"""Clips per second of the whole `flowkit extract` on synthetic clips, and where the time goes, with one and two workers.

Then of folders that hold every frame at 200 frames per second, with and without the frames beside the key frames.

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


def measured(manifest: Path, out: Path, cores: str, *more: str) -> dict[str, Any]:
    """Figures of one run."""
    summary = extract(manifest, out, "--workers", cores, "--threads", cores, *more)
    stages = {name: round(1000 * s / summary["ok"], 2) for name, s in summary["stage_seconds"].items()}
    print(f"{cores} worker(s) {' '.join(more)}: {summary['clips_per_s']:.1f} clips/s; ms per clip: {stages}")
    return {
        "clips": summary["ok"],
        "seconds": summary["seconds"],
        "clips_per_s": summary["clips_per_s"],
        "ms_per_clip_and_stage": stages,
    }


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
            results[f"workers_{cores}"] = measured(manifest, base / f"out{cores}", cores)
        recorded = synthesise(base / "recorded", SynthConfig(subjects=options.subjects, rest_frames=2))
        extract(recorded, base / "read")  # fills the page cache
        for average in ("off", "auto"):
            setting = f"frames.average={average}"
            results[f"every frame at 200 fps, {setting}"] = measured(recorded, base / average, "1", "--set", setting)
    if options.out:
        machine.write(options.out, "throughput", results)


if __name__ == "__main__":
    main()
