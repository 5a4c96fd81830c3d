"""How far the stored flow is from the truth, by expression: `flowkit extract` with its defaults, then files alone.

The truth of each clip is brought into the crop by the transform that the shard holds. The face is the hull of the true landmarks.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import numpy.typing as npt
from _common import Figures, extract, main, synthesise

Array = npt.NDArray[Any]
WORDS = ("--drift-px", 0, "--drift-deg", 0, "--turn-deg", 0, "--blinks", 0, "--light", 0)
"""The head keeps still: what is left are expression, noise, and what the alignment does to both."""


def run(inputs: Path, scratch: Path) -> Figures:
    """EPE in the face beside that of no flow at all, px of the crop: median of all clips, and of each expression."""
    extract(inputs / "manifest.csv", scratch / "out")
    hulls = landmarks(inputs / "landmarks.csv")
    epe: dict[str, list[float]] = defaultdict(list)
    for clip, label, flow, transform in clips(scratch / "out"):
        truth, inside = true_flow(inputs / "truth" / f"{clip}.npz", transform, flow.shape[-1], hulls[clip])
        away, far = (float(np.hypot(*field.swapaxes(0, 1))[inside].mean()) for field in (flow - truth, truth))
        for key in ("all", label):
            epe[f"{key} px"].append(away)
        epe["no flow px"].append(far)
    return {key: float(np.median(values)) for key, values in sorted(epe.items())}


def clips(out: Path) -> Iterator[tuple[str, str, Array, Array]]:
    """Yield id, label, flow (2, 2, N, N) and transform (2, 3) of every stored clip."""
    for path in sorted(out.glob("shards/*/*.h5")):
        with h5py.File(path) as file:
            texts = [file[name].asstr()[:] for name in ("clip_id", "label")]
            yield from zip(*texts, file["flow"][:].astype(np.float32), file["transform"][:], strict=True)


def true_flow(path: Path, transform: Array, side: int, points: Array) -> tuple[Array, Array]:
    """Return the local truth on the crop's grid, (2, 2, N, N), and where it counts, (2, N, N)."""
    with np.load(path) as file:
        flow, visible = file["flow_local"], file["visible"]
    linear = transform[:, :2]
    warped = [
        [cv2.warpAffine(component, transform, (side, side), flags=cv2.INTER_LINEAR) for component in phase]
        for phase in flow
    ]
    seen = [cv2.warpAffine(mask.astype(np.uint8), transform, (side, side), flags=cv2.INTER_NEAREST) for mask in visible]
    hull = cv2.convexHull((points @ linear.T + transform[:, 2]).astype(np.float32))
    face = cv2.fillConvexPoly(np.zeros((side, side), np.uint8), np.rint(hull).astype(np.int32), 1)
    return np.einsum("ij,pjhw->pihw", linear, np.array(warped)), (np.array(seen) & face) > 0


def landmarks(path: Path) -> dict[str, Array]:
    """Return the points of each clip's onset, image px."""
    points = defaultdict(list)
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            points[row["clip_id"]].append((float(row["x"]), float(row["y"])))
    return {clip: np.array(places) for clip, places in points.items()}


if __name__ == "__main__":
    main(lambda inputs, people: synthesise(inputs, people, *WORDS), run, repeat=False)
