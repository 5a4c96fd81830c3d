"""`flowkit extract` of one folder of clips: clips/s, and seconds of each stage."""

from __future__ import annotations

from pathlib import Path

from _common import Figures, extract, main, synthesise


def run(inputs: Path, scratch: Path) -> Figures:
    """Extract once."""
    summary = extract(inputs / "manifest.csv", scratch / "out")
    stages = {f"{name} s": seconds for name, seconds in summary["stage_seconds"].items()}
    return {"clips/s": summary["clips_per_s"], **stages}


if __name__ == "__main__":
    main(lambda inputs, people: synthesise(inputs, people), run)
