"""`flowkit extract` of one folder of clips: clips/s, CPU time a clip, and seconds of each stage."""

from __future__ import annotations

import resource
from pathlib import Path

from _common import Figures, extract, main, synthesise

FEW = 24
"""Clips of the manifest that is extracted to find out what a run costs beside its clips: start, landmark model, and the report,
which has pictures of fewer clips."""


def prepare(inputs: Path, people: int) -> None:
    """Render clips, and list the first few once more."""
    synthesise(inputs, people)
    list_few(inputs)


def list_few(inputs: Path) -> None:
    """Write the manifest of the first few clips."""
    lines = (inputs / "manifest.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    (inputs / "few.csv").write_text("".join(lines[: FEW + 1]), encoding="utf-8")


def run(inputs: Path, scratch: Path) -> Figures:
    """Extract all clips, then few."""
    started = cpu_seconds()
    summary = extract(inputs / "manifest.csv", scratch / "out")
    all_s = cpu_seconds() - started
    extract(inputs / "few.csv", scratch / "few")
    few_s = cpu_seconds() - started - all_s
    stages = {f"{name} s": seconds for name, seconds in summary["stage_seconds"].items()}
    return {
        "clips/s": summary["clips_per_s"],
        "CPU ms a clip": 1000 * (all_s - few_s) / (summary["ok"] - FEW),
        **stages,
    }


def cpu_seconds() -> float:
    """CPU time of all commands so far, their worker processes included."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main(prepare, run)
