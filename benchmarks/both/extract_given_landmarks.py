"""As `extract_two_cores`, with the landmarks given in a file."""

from __future__ import annotations

from pathlib import Path

from _common import Figures, main
from extract_two_cores import extracted, prepare


def run(inputs: Path, scratch: Path) -> Figures:
    """Extract all clips."""
    return extracted(inputs, scratch, "--align", "landmarks", "--set", f"align.landmarks={inputs / 'landmarks.csv'}")


if __name__ == "__main__":
    main(prepare, run)
