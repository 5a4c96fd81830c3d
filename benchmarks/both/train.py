"""`fmanet train` for two epochs on the same shards: seconds of the whole command, the start of Python and torch included."""

from __future__ import annotations

import time
from pathlib import Path

from _common import Figures, command, extract, main, synthesise


def prepare(inputs: Path, people: int) -> None:
    """Store shards: their format is the same for both versions."""
    synthesise(inputs / "clips", max(people, 2))
    extract(inputs / "clips" / "manifest.csv", inputs / "shards")


def run(inputs: Path, scratch: Path) -> Figures:
    """Train once."""
    start = time.perf_counter()
    command("fmanet.cli", "train", inputs / "shards", "--out", scratch / "run", "--epochs", 2, "--size", 28)
    return {"s": time.perf_counter() - start}


if __name__ == "__main__":
    main(prepare, run)
