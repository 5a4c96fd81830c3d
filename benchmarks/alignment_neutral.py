"""False motion on neutral frames of a real video: our alignment beside the usual crop of each frame by its own landmarks.

python benchmarks/alignment_neutral.py --out benchmarks/results/alignment_neutral.json

Nobody's face moves on purpose in frames 0 to 15 of the test video, so flow between them is noise that alignment made or
left. Four ways, the same solver:

    landmarks    each frame cropped by its own nine landmarks, light matched
    register     landmarks on the onset only, images registered, light matched
    similarity   the same, then the similarity left in the flow subtracted (the default of version 0.1)
    head         head motion and expression told apart (the default of `flowkit extract`)

false_px is mean |flow| inside the onset's face over the neutral pairs. A method that deleted all motion would win there, so
smile_px (mean |flow| about the mouth while a smile begins) stands beside it, and contrast: smile_px over mean |flow| on
the still part of the upper face at that time. False motion adds to smile_px too: judge by contrast.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import flowkit_kernels
import machine
from flowkit.config import AlignConfig, FrameConfig
from flowkit.errors import ClipError
from flowkit.face.align import Aligner, Face
from flowkit.face.crops import face_crop
from flowkit.face.landmarks import CANONICAL, FaceLandmarker
from flowkit.face.regions import Regions, regions
from flowkit.face.registration import Image, match_light
from flowkit.face.transforms import fit_similarity
from flowkit.inputs.clip import Clip
from flowkit.inputs.frames import Frames, read_frames
from flowkit.motion.flow import dual_phase_flow
from flowkit.storage.schema import FACE, RIGID
from flowkit_kernels import TVL1Params

VIDEOS = Path(__file__).resolve().parents[2] / "shared" / "data" / "faces"
LAST_NEUTRAL = 15
GAPS = (2, 4)
NEUTRAL = [(n, n + gap) for gap in GAPS for n in range(LAST_NEUTRAL + 1 - gap)]
PAIRS = [*NEUTRAL, *((12, n) for n in (17, 18, 19, 21))]
"""Neutral pairs, then the beginning of a smile."""
DEFAULT = AlignConfig().stabilise
LIMIT, LEAST_CONTRAST = 0.43, 3.2
"""Largest share of the landmark crop's false motion that the default may show at 224 x 224, and the least contrast of a smile."""

Measured = list[tuple[Image, Regions]]
"""Flow (2, N, N) and regions of each pair."""


def read_pair(onset: int, apex: int) -> Frames:
    """Two frames of the video as the rise of a clip without an offset."""
    clip = Clip(f"{onset}-{apex}", "single_face.mp4", onset, apex, None, "s", "faces", "")
    return read_frames(clip, VIDEOS, FrameConfig(missing_offset="invalid"))


def crop_by_own_landmarks(landmarker: FaceLandmarker, frames: Frames, size: int) -> tuple[Image, Regions]:
    """Crop of a frame by its own nine points, and its regions."""
    points = landmarker.detect(frames.onset_rgb)[0]
    transform = fit_similarity(points[list(CANONICAL)], np.array(list(CANONICAL.values())) * size - 0.5)
    return face_crop(frames.grey[0], transform, size), regions(points, transform, size)


def landmark_flows(landmarker: FaceLandmarker, size: int) -> Measured:
    """Flow of each pair, each frame cropped by its own landmarks."""
    references, movings, areas = [], [], []
    for pair in PAIRS:
        (onset, area), (apex, _) = (crop_by_own_landmarks(landmarker, read_pair(n, n), size) for n in pair)
        references.append(onset)
        movings.append(match_light(onset, apex, (area & FACE) > 0)[0])
        areas.append(area)
    flow = flowkit_kernels.tvl1_flow(np.clip(references, 0, 1), np.clip(movings, 0, 1), TVL1Params())
    return list(zip(flow, areas, strict=True))


def our_flows(faces: list[Face], stabilise: str) -> Measured:
    """Flow of each pair, aligned as `flowkit extract` does."""
    flows = dual_phase_flow(faces, [(True, False)] * len(faces), TVL1Params(), "auto", stabilise)
    measured = []
    for flow, face in zip(flows, faces, strict=True):
        if isinstance(flow, ClipError):
            raise flow
        measured.append((flow.flow[0], face.regions))
    return measured


def mean_length(flow: Image, mask: npt.NDArray[np.bool_]) -> float:
    """Mean |flow| inside a mask, px."""
    return float(np.hypot(flow[0], flow[1])[mask].mean())


def mouth(areas: Regions) -> npt.NDArray[np.bool_]:
    """The part about the lips that `regions` keeps out of the rigid part."""
    down, across = (np.indices(areas.shape) + 0.5) / len(areas)
    inside: npt.NDArray[np.bool_] = (areas == FACE) & (down > 0.5) & (abs(across - 0.5) < 0.22)
    return inside


def upper_face(areas: Regions) -> npt.NDArray[np.bool_]:
    """The rigid part down to the tip of the nose: forehead, nose, temples; a smile moves the rest."""
    down = (np.indices(areas.shape)[0] + 0.5) / len(areas)
    inside: npt.NDArray[np.bool_] = ((areas & RIGID) > 0) & (down < 0.42)
    return inside


def summary(measured: Measured) -> dict[str, float]:
    """False motion, by gap and over all neutral pairs, and what is left of a smile."""
    found: dict[str, list[float]] = {"false_px": [], **{f"false_gap_{gap}_px": [] for gap in GAPS}}
    smile, still = [], []
    for (onset, apex), (flow, areas) in zip(PAIRS, measured, strict=True):
        if (onset, apex) in NEUTRAL:
            found["false_px"].append(mean_length(flow, (areas & FACE) > 0))
            found[f"false_gap_{apex - onset}_px"].append(found["false_px"][-1])
        else:
            smile.append(mean_length(flow, mouth(areas)))
            still.append(mean_length(flow, upper_face(areas)))
    means = {name: float(np.mean(values)) for name, values in found.items()}
    means |= {"smile_px": float(np.mean(smile)), "contrast": float(np.mean(smile) / np.mean(still))}
    return {name: round(value, 4) for name, value in means.items()}


def measure(size: int) -> dict[str, Any]:
    """All methods at one size of crop."""
    with FaceLandmarker() as landmarker:
        methods = {"landmarks": summary(landmark_flows(landmarker, size))}
    for name in ("register", "similarity", "head"):
        with Aligner(AlignConfig(size=size, stabilise=name)) as aligner:
            faces = [aligner.align(read_pair(*pair)) for pair in PAIRS]
        methods[name] = summary(our_flows(faces, name))
    ratio = methods[DEFAULT]["false_px"] / methods["landmarks"]["false_px"]
    return {"size": size, "pairs": len(NEUTRAL), "methods": methods, "ratio": round(ratio, 3)}


def show(results: list[dict[str, Any]]) -> None:
    """Print the table."""
    for one in results:
        print(f"{one['size']} x {one['size']}, {one['pairs']} neutral pairs, ratio {one['ratio']:.2f} (limit {LIMIT})")
        print(f"    {'':12s} {'false_px':>9s} {'smile_px':>9s} {'contrast':>9s}")
        for name, values in one["methods"].items():
            print(f"    {name:12s} {values['false_px']:9.3f} {values['smile_px']:9.3f} {values['contrast']:9.2f}")


def main() -> int:
    """Measure, print, store; 1 if a limit is broken, 2 without the video."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="where to store the result as JSON")
    options = parser.parse_args()
    if not VIDEOS.is_dir():
        print("no ../shared: the test video is not part of the repository; nothing was measured", file=sys.stderr)
        return 2
    results = [measure(size) for size in (224, 128)]
    show(results)
    if options.out:
        limits = {"limit": LIMIT, "least_contrast": LEAST_CONTRAST, "default": DEFAULT}
        machine.write(options.out, "alignment_neutral", {**limits, "sizes": results})
    at_224 = results[0]
    return 0 if at_224["ratio"] <= LIMIT and at_224["methods"][DEFAULT]["contrast"] >= LEAST_CONTRAST else 1


if __name__ == "__main__":
    sys.exit(main())
