"""`flowkit extract` with as many workers and threads as it takes by itself, crops of 224 px, faces found by MediaPipe.

Clips/s leave the start of Python and the report out; "command s" holds all. "storing ms a clip" is the time by which storing
lengthened the run: all of it in a version that stores between two tasks; the time that the run waited for commits, the last
included, in one that commits while the next task is computed.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

from _common import Figures, command, main, synthesise


def prepare(inputs: Path, people: int) -> None:
    """Render eight clips for each person."""
    synthesise(inputs, people)


def run(inputs: Path, scratch: Path) -> Figures:
    """Extract all clips."""
    return extracted(inputs, scratch, "--align", "mediapipe")


def extracted(inputs: Path, scratch: Path, *words: object) -> Figures:
    """Extract all clips with some options."""
    profiles = "--profile" in command("flowkit.cli", "extract", "--help")
    more = (*words, *(("--profile",) if profiles else ()), "--size", 224, "--backend", "cpu", "--json")
    began = time.perf_counter()
    summary = json.loads(command("flowkit.cli", "extract", inputs / "manifest.csv", "--out", scratch / "out", *more))
    seconds = time.perf_counter() - began
    if summary["failed"]:
        raise SystemExit(f"extract: every clip must succeed; got {summary['failed']} that failed. Look at {inputs}.")
    storing_s = (
        summary["profile"]["gatherer"]["waited_for_commits_s"] if profiles else summary["stage_seconds"]["store"]
    )
    return {
        "clips/s": summary["clips_per_s"],
        "command s": seconds,
        "storing ms a clip": 1000 * storing_s / summary["ok"],
    }


if __name__ == "__main__":
    main(prepare, run)
