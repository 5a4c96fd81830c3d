"""The CPU kernel of TV-L1 on pairs of faces of 224 x 224, one thread, preset "fixed": pairs/s."""

from __future__ import annotations

import csv
import time
from pathlib import Path

import cv2
import numpy as np
from _common import Figures, main, synthesise

SIDE = 224
SHORTEST_S = 3.0


def prepare(inputs: Path, people: int) -> None:
    """Store onset and apex of each clip as one array."""
    words = ("--cropped", "--width", SIDE, "--height", SIDE, "--drift-px", 0, "--drift-deg", 0, "--turn-deg", 0)
    synthesise(inputs / "clips", people, *words)
    with (inputs / "clips" / "manifest.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    pairs = [
        [
            cv2.imread(str(inputs / "clips" / row["path"] / f"{int(row[key]):04d}.png"), cv2.IMREAD_GRAYSCALE)
            for key in ("onset", "apex")
        ]
        for row in rows
    ]
    np.save(inputs / "pairs.npy", np.array(pairs, np.float32) / 255)


def run(inputs: Path, scratch: Path) -> Figures:
    """Time calls, after one that compiles or loads the kernel."""
    from flowkit_kernels import TVL1Params, tvl1_flow  # the same in both versions

    reference, moving = np.load(inputs / "pairs.npy").swapaxes(0, 1)
    reference, moving = np.ascontiguousarray(reference), np.ascontiguousarray(moving)
    params = TVL1Params.preset("fixed")
    tvl1_flow(reference[:1], moving[:1], params, backend="cpu", threads=1)
    start, pairs = time.perf_counter(), 0
    while time.perf_counter() - start < SHORTEST_S:
        tvl1_flow(reference, moving, params, backend="cpu", threads=1)
        pairs += len(reference)
    return {"pairs/s": pairs / (time.perf_counter() - start)}


if __name__ == "__main__":
    main(prepare, run)
