"""How near the flow comes to a known truth: ours beside OpenCV's, and what the alignment costs; on synthetic clips.

python benchmarks/accuracy.py --clips 200 --out benchmarks/results/accuracy.json

Three sets of the same size, 224 x 224:

cropped    frames that are the canonical crop already, no drift, steady light: the solver alone
still      whole frames, no drift, steady light: what alignment costs where there is nothing to align
drifting   whole frames, head drift, more noise, changing light: the real task

EPE is the end-point error against the true flow of the face (its drift undone), mean over the face and both phases, px of the crop;
figures are medians over clips. Methods, all on the same crops but for the last two:

ours           align, flow, subtract what similarity is left in the flow, as `flowkit extract` does
opencv         the same with cv2.optflow.DualTVL1OpticalFlow_create(), a fresh one for each pair, default parameters
opencv_fixed   the same with our schedule: epsilon 0, one outer and 20 inner iterations
zero           no flow at all: the mean length of the truth
oracle         the true drift undone instead of an estimated one, nothing subtracted
unaligned      cropped by the onset's transform, nothing registered or subtracted
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

import machine
from flowkit.align import FACE, RIGID, Aligner, Face, face_crop
from flowkit.config import AlignConfig, FrameConfig
from flowkit.errors import ClipError
from flowkit.flow import dual_phase_flow
from flowkit.frames import Frames, read_frames
from flowkit.manifest import Clip, read_manifest
from flowkit.registration import compose, invert, match_light, remove_motion
from flowkit.synth import CLASSES, SynthConfig, Truth, read_truth, synthesise
from flowkit_kernels import TVL1Params

SIZE = 224
STILL = SynthConfig(key_frames_only=True, noise=1, drift_px=0, drift_deg=0, drift_scale=0, light=0)
SETS = {
    "cropped": dataclasses.replace(STILL, cropped=True, width=SIZE, height=SIZE),
    "still": STILL,
    "drifting": dataclasses.replace(STILL, noise=2, drift_px=4, drift_deg=1.5, drift_scale=0.01, light=0.02),
}
BARS = (
    ("cropped", "ours", "opencv", 1.03),
    ("cropped", "ours", "opencv_fixed", 1.03),
    ("cropped", "ours", "zero", 0.5),
    ("drifting", "ours", "opencv", 1.03),
    ("drifting", "ours", "opencv_fixed", 1.03),
    ("drifting", "ours", "zero", 0.5),
    ("drifting", "ours", "oracle", 1.25),
    ("still", "ours", "unaligned", 1.15),
)
"""Set, method, yardstick, and how many times the yardstick's EPE the method's may be."""

Array = npt.NDArray[Any]


def opencv_flow(pixels: Array, fixed: bool) -> Array:
    """Both phases by OpenCV, (2, 2, N, N). A solver object keeps state between calls: a fresh one for each pair."""
    phases = []
    for reference, moving in itertools.pairwise(pixels):
        solver = cv2.optflow.DualTVL1OpticalFlow_create()
        if fixed:
            solver.setEpsilon(0)
            solver.setOuterIterations(1)
            solver.setInnerIterations(20)
        phases.append(solver.calc(reference, moving, None).transpose(2, 0, 1))
    return np.stack(phases)


def our_flow(face: Face, stabilise: str, where: str) -> Array:
    """Both phases by the project, one thread."""
    (flow,) = dual_phase_flow([face], [(True, True)], TVL1Params(), "cpu", stabilise, 1, [where])
    if isinstance(flow, ClipError):
        raise flow
    return flow.flow


def true_flow(truth: Truth, face: Face) -> Array:
    """The local truth on the grid of the crop: A flow(T^-1 x), with A the linear part of the crop's transform T."""
    inverse = invert(face.transform)
    x, y = np.indices((SIZE, SIZE), np.float64)[::-1]
    at = (inverse[:, :1, None] * x + inverse[:, 1:2, None] * y + inverse[:, 2:, None]).astype(np.float32)
    flow = [[cv2.remap(component, *at, cv2.INTER_CUBIC) for component in phase] for phase in truth.flow_local]
    return np.asarray(np.einsum("ij,pjhw->pihw", face.transform[:, :2], np.stack(flow)))


def oracle_face(frames: Frames, truth: Truth, face: Face) -> Face:
    """The face as an alignment would give it that knew the true drift; the light is matched as ever."""
    onset, inside = face.pixels[0], (face.regions & FACE) > 0
    crops = [
        face_crop(grey, compose(face.transform, invert(drift)), SIZE)
        for grey, drift in zip(frames.grey[1:], truth.drift[1:], strict=True)
    ]
    pixels = [onset, *(match_light(onset, crop, inside)[0] for crop in crops)]
    return dataclasses.replace(face, pixels=np.clip(np.stack(pixels), 0, 1))


def subtracted(flow: Array, face: Face) -> Array:
    """What `--stabilise similarity` leaves of a flow."""
    return np.stack([remove_motion(phase, (face.regions & RIGID) > 0, "similarity")[0] for phase in flow])


class Measurement:
    """EPE of each method on each clip of one set, and the seconds each stage took."""

    def __init__(self) -> None:
        self.epe: dict[str, list[float]] = defaultdict(list)
        self.seconds: dict[str, float] = defaultdict(float)

    def add(self, method: str, flow: Array, truth: Array, face: Face) -> None:
        """Compare one flow (2, 2, N, N) with the truth."""
        inside = (face.regions & FACE) > 0
        self.epe[method].append(float(np.hypot(*(flow - truth).swapaxes(0, 1))[:, inside].mean()))

    def timed(self, stage: str, work: Any, *arguments: Any) -> Any:
        """Call `work`, and add what it took to a stage."""
        start = time.perf_counter()
        result = work(*arguments)
        self.seconds[stage] += time.perf_counter() - start
        return result

    def medians(self) -> dict[str, float]:
        """Median EPE of each method, px."""
        return {method: float(np.median(values)) for method, values in self.epe.items()}


def measure(name: str, clips: list[Clip], root: Path) -> Measurement:
    """Every method that a set is there for, clip by clip."""
    cropped = name == "cropped"
    config = AlignConfig(method="none" if cropped else "mediapipe", stabilise="none" if cropped else "similarity")
    found = Measurement()
    with Aligner(config) as aligner, Aligner(dataclasses.replace(config, stabilise="none")) as plain:
        for clip in clips:
            frames = found.timed("read", read_frames, clip, root, FrameConfig())
            face = found.timed("align", aligner.align, frames)
            flow = found.timed("flow", our_flow, face, "none", clip.clip_id)
            ours = flow if cropped else found.timed("subtract", subtracted, flow, face)
            stored = read_truth(root / "truth" / f"{clip.clip_id}.npz")
            truth = true_flow(stored, face)
            found.add("ours", ours, truth, face)
            found.add("zero", np.zeros_like(truth), truth, face)
            if name == "still":
                found.add("unaligned", our_flow(plain.align(frames), "none", clip.clip_id), truth, face)
                continue
            for method, fixed in (("opencv", False), ("opencv_fixed", True)):
                theirs = found.timed(method, opencv_flow, face.pixels, fixed)
                found.add(method, theirs if cropped else subtracted(theirs, face), truth, face)
            if name == "drifting":
                found.add("oracle", our_flow(oracle_face(frames, stored, face), "none", clip.clip_id), truth, face)
    return found


def chosen(manifest: Path, count: int) -> list[Clip]:
    """That many clips, spread over subjects and classes."""
    clips = read_manifest(manifest)
    return [clips[i] for i in np.linspace(0, len(clips) - 1, count).astype(int)]


def summary(found: Measurement) -> dict[str, Any]:
    """Results of one set, as stored."""
    count = len(found.epe["ours"])
    stages = ("read", "align", "flow", "subtract")
    return {
        "clips": count,
        "median_epe_px": {method: round(value, 5) for method, value in found.medians().items()},
        "p90_epe_px": {method: round(float(np.percentile(values, 90)), 5) for method, values in found.epe.items()},
        "ms_per_clip": {stage: round(1000 * seconds / count, 2) for stage, seconds in found.seconds.items()},
        "clips_per_s": round(count / sum(found.seconds[stage] for stage in stages if stage in found.seconds), 2),
    }


def judged(results: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Each bar with its ratio, and whether it is met."""
    rows = []
    for name, method, yardstick, bar in BARS:
        epe = results[name]["median_epe_px"]
        ratio = epe[method] / epe[yardstick]
        rows.append(
            {"set": name, "ratio": f"{method} / {yardstick}", "value": round(ratio, 4), "bar": bar, "met": ratio <= bar}
        )
    return rows


def show(results: dict[str, dict[str, Any]], bars: list[dict[str, Any]]) -> None:
    """Print the tables."""
    for name, result in results.items():
        print(f"{name} ({result['clips']} clips): median EPE, px: {result['median_epe_px']}")
        print(f"    ms a clip: {result['ms_per_clip']}; {result['clips_per_s']} clips/s in one process")
    for row in bars:
        verdict = "met" if row["met"] else "MISSED"
        print(f"{row['set']:<10}{row['ratio']:<24}{row['value']:>8.3f}  at most {row['bar']:<6}{verdict}")


def main() -> int:
    """Measure, print, store; 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=200, help="clips a set")
    parser.add_argument("--out", type=Path, help="where to store the result as JSON")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    repeats = -(-options.clips // (STILL.subjects * len(CLASSES)))
    configs = {name: dataclasses.replace(config, clips=repeats) for name, config in SETS.items()}
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, config in configs.items():
            manifest = synthesise(Path(folder) / name, config)
            clips = chosen(manifest, options.clips)
            measure(name, clips[:1], manifest.parent)  # compiles and warms up
            results[name] = summary(measure(name, clips, manifest.parent))
    bars = judged(results)
    show(results, bars)
    if options.out:
        settings = {name: dataclasses.asdict(config) for name, config in configs.items()}
        machine.write(options.out, "accuracy", {"sets": results, "bars": bars, "settings": settings})
    return 0 if all(row["met"] for row in bars) else 1


if __name__ == "__main__":
    sys.exit(main())
