"""What the benchmarks of this folder share. It runs under both versions, so it uses their commands and files only."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Figures = dict[str, float]


def command(module: str, *words: object) -> str:
    """Run a command of the version whose interpreter this is; return its stdout."""
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, words)], capture_output=True, text=True, check=False, timeout=3600
    )
    if done.returncode:
        sys.exit(f"{module} {' '.join(map(str, words))}\n{done.stderr}")
    return done.stdout


def extract(manifest: Path, out: Path) -> dict[str, Any]:
    """Extract clips with the defaults, one worker and one thread; return the summary. Every clip must succeed."""
    words = ("--align", "mediapipe", "--size", 224, "--workers", 1, "--threads", 1, "--backend", "cpu", "--json")
    summary: dict[str, Any] = json.loads(command("flowkit.cli", "extract", manifest, "--out", out, *words))
    if summary["failed"]:
        sys.exit(f"extract: every clip must succeed; got {summary['failed']} that failed. Look at {manifest}.")
    return summary


def synthesise(folder: Path, people: int, *words: object, key_frames_only: bool = True) -> None:
    """Render clips of synthetic people."""
    which = ("--key-frames-only",) if key_frames_only else ()
    command("flowkit.cli", "synth", "--out", folder, "--subjects", people, *which, *words)


def main(prepare: Callable[[Path, int], None], run: Callable[[Path, Path], Figures], *, repeat: bool = True) -> None:
    """Carry out `SCRIPT prepare INPUTS PEOPLE` or `SCRIPT run INPUTS SCRATCH`."""
    verb, inputs, last = sys.argv[1:]
    if verb == "prepare":
        prepare(Path(inputs), int(last))
    else:
        print(json.dumps({"figures": run(Path(inputs), Path(last)), "repeat": repeat}))
