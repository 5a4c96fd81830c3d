"""How near spotting comes to a known apex, beside two cheap rules; on synthetic clips of several noise and drift levels.

python benchmarks/spotting.py --out benchmarks/results/spotting.json

The clips are of synthetic people in three dimensions, all expressions of `flowkit synth`, 21 to 101 frames at 200 fps. Levels
differ in noise only, or in the head's motion (a shift of so many pixels, and a quarter as many degrees in and out of the plane) and
the light. Rise and fall are drawn apart from each other, so the apex lies between a sixth and five sixths of the clip, and
with `wander` head and light turn round at a moment of their own: in a plain `flowkit synth` they do so at the apex and give it
away. The levels without drift have no change of light either, which is as kind as can be to the frame difference. A frame is
rendered once a drift level, without noise, and noise is added for each level.

spotting     `flowkit.motion.spotting`: a search, up to a dozen flows
midpoint     half way between onset and offset
difference   the frame with the largest mean absolute difference to the onset in the face, of all frames, in one crop

Ends of a long clip: the same with 100 still frames before the onset and as many behind the offset, everything to be found.
Nobody moves: the same without any expression or blink, to see what the confidence says then.
Milliseconds are those of the processor, on one thread, with every frame carried into the crop, as of a video, and none decoded.
Landmarks are given: the skin of all faces comes from one photograph, so a detector would be judged on that photograph alone.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

import machine
from flowkit.config import AlignConfig
from flowkit.face.align import Aligner
from flowkit.face.crops import face_crop
from flowkit.inputs.clip import Clip
from flowkit.inputs.frames import Sequence
from flowkit.motion.spotting import SIZE, Spotted, spot_sequence
from flowkit.storage.schema import FACE
from flowkit.synthetic.scenes import Scene, SynthConfig, scenes

FPS = 200.0
NOISE = (1.0, 3.0, 6.0)
DRIFT_PX = (0.0, 2.0, 5.0)
LONG = (1.0, 2.0)
"""Noise and drift of the long clips."""
METHODS = ("spotting", "midpoint", "difference")

Grey = npt.NDArray[np.float32]


def level(drift_px: float, subjects: int, rest: int = 0) -> SynthConfig:
    """Settings of the clips of one drift level, without noise; angles, size and light change along with the drift."""
    return SynthConfig(
        subjects=subjects,
        seed=5,
        fps=FPS,
        phase_frames=(10, 50),
        noise=0,
        drift_px=drift_px,
        drift_deg=drift_px / 4,
        turn_deg=drift_px / 4,
        drift_scale=drift_px / 400,
        light=drift_px / 200,
        wander=True,
        rest_frames=rest,
    )


def write_landmarks(config: SynthConfig, file: Path) -> Path:
    """The points of every clip, as `--landmarks` takes them."""
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow(("clip_id", "point", "x", "y"))
        for scene in scenes(config):
            writer.writerows((scene.clip_id, i, f"{x:.3f}", f"{y:.3f}") for i, (x, y) in enumerate(scene.landmarks))
    return file


def render(scene: Scene) -> list[npt.NDArray[np.uint8]]:
    """Every frame of a clip, without noise; at rest they are all alike."""
    moving = [scene.render(t) for t in range(scene.draw.offset + 1)]
    rest = scene.config.rest_frames
    return [moving[0]] * rest + moving + [moving[-1]] * rest


def noisy(clean: list[npt.NDArray[np.uint8]], noise: float, seed: int) -> list[Grey]:
    """The frames with noise of so many grey levels, in whole ones, as grey in [0, 1]."""
    draws = (np.random.default_rng([seed, t]).standard_normal(frame.shape, np.float32) for t, frame in enumerate(clean))
    return [
        np.clip(np.rint(frame + np.float32(noise) * draw), 0, 255).astype(np.float32) / np.float32(255)
        for frame, draw in zip(clean, draws, strict=True)
    ]


def sequence(frames: list[Grey]) -> Sequence:
    """Frames in memory, as spotting takes them."""

    def later(carry: Callable[[Grey], Any]) -> dict[int, Any]:
        return {number: carry(grey) for number, grey in enumerate(frames) if number}

    rgb = np.repeat((255 * frames[0]).astype(np.uint8)[..., None], 3, axis=2)
    return Sequence(0, frames[0], rgb, FPS, later)


def largest_difference(frames: list[Grey], aligner: Aligner, clip: Clip) -> int:
    """The cheap rule: every frame in the onset's crop, compared as it is."""
    anchor = aligner.anchor(clip, frames[0], np.zeros((1, 1, 3), np.uint8), SIZE)
    face = (anchor.regions & FACE) > 0
    crops = [face_crop(grey, anchor.transform, SIZE) for grey in frames[1:-1]]
    return 1 + int(np.argmax([np.abs(crop - anchor.onset)[face].mean() for crop in crops]))


def as_clip(scene: Scene, frames: list[Grey]) -> Clip:
    """The row of a manifest that names all these frames."""
    return Clip(scene.clip_id, scene.clip_id, 0, None, len(frames) - 1, scene.subject.name, "synth", scene.label)


class Level:
    """Errors of all methods at one noise and drift level."""

    def __init__(self, noise: float, config: SynthConfig) -> None:
        self.noise = noise
        self.config = config
        self.errors: dict[str, list[int]] = {name: [] for name in METHODS}
        self.found: list[Spotted] = []
        self.seconds: list[float] = []

    def add(self, scene: Scene, clean: list[npt.NDArray[np.uint8]], aligner: Aligner) -> None:
        """Measure one clip."""
        frames = noisy(clean, self.noise, scene.draw.noise_seed)
        clip = as_clip(scene, frames)
        start = time.process_time()
        self.found.append(spot_sequence(clip, sequence(frames), aligner))
        self.seconds.append(time.process_time() - start)
        guesses = self.found[-1].apex, scene.draw.offset // 2, largest_difference(frames, aligner, clip)
        for name, guess in zip(METHODS, guesses, strict=True):
            self.errors[name].append(abs(guess - scene.draw.apex))

    def summary(self) -> dict[str, Any]:
        """As stored."""
        mae = {name: float(np.mean(values)) for name, values in self.errors.items()}
        flows = [found.flows for found in self.found]
        errors, confidences = np.array(self.errors["spotting"]), np.array([found.confidence for found in self.found])
        sure = confidences >= np.median(confidences)
        return {
            "noise": self.noise,
            "drift_px": self.config.drift_px,
            "turn_deg": self.config.turn_deg,
            "light": self.config.light,
            "clips": len(flows),
            "mae_frames": {name: round(value, 3) for name, value in mae.items()},
            "mae_ms": {name: round(1000 / FPS * value, 2) for name, value in mae.items()},
            "worst_frames": {name: max(values) for name, values in self.errors.items()},
            "mae_frames_surer_half": round(float(errors[sure].mean()), 3),
            "flows": {"mean": round(float(np.mean(flows)), 2), "most": max(flows)},
            "cpu_ms_per_clip": round(1000 * float(np.median(self.seconds)), 1),
            "median_confidence": round(float(np.median(confidences)), 3),
            "best": mae["spotting"] < min(mae["midpoint"], mae["difference"]),
        }


def measure(config: SynthConfig, aligner: Aligner) -> list[dict[str, Any]]:
    """The levels of one drift."""
    levels = [Level(noise, config) for noise in NOISE]
    for scene in scenes(config):
        clean = render(scene)
        for one in levels:
            one.add(scene, clean, aligner)
    return [one.summary() for one in levels]


def measure_ends(noise: float, config: SynthConfig, aligner: Aligner) -> dict[str, Any]:
    """Onset, apex and offset of long clips."""
    errors: dict[str, list[int]] = {"onset": [], "apex": [], "offset": []}
    flows = []
    for scene in scenes(config):
        frames = noisy(render(scene), noise, scene.draw.noise_seed)
        found = spot_sequence(as_clip(scene, frames), sequence(frames), aligner, ends=True)
        onset = config.rest_frames
        truth = onset, onset + scene.draw.apex, onset + scene.draw.offset
        for name, guess, true in zip(errors, (found.onset, found.apex, found.offset or 0), truth, strict=True):
            errors[name].append(abs(guess - true))
        flows.append(found.flows)
    return {
        "noise": noise,
        "drift_px": config.drift_px,
        "rest_frames": config.rest_frames,
        "clips": len(flows),
        "mae_frames": {name: round(float(np.mean(values)), 3) for name, values in errors.items()},
        "median_frames": {name: float(np.median(values)) for name, values in errors.items()},
        "flows": {"mean": round(float(np.mean(flows)), 2), "most": max(flows)},
    }


def measure_still(config: SynthConfig, aligner: Aligner) -> list[dict[str, Any]]:
    """Confidence where nothing moves but the head."""
    confidences: dict[float, list[float]] = {noise: [] for noise in NOISE}
    for scene in scenes(dataclasses.replace(config, peak_px=(0.0, 0.0), blinks=0.0)):
        clean = render(scene)
        for noise, values in confidences.items():
            frames = noisy(clean, noise, scene.draw.noise_seed)
            values.append(spot_sequence(as_clip(scene, frames), sequence(frames), aligner).confidence)
    return [
        {
            "noise": noise,
            "drift_px": config.drift_px,
            "clips": len(values),
            "median_confidence": round(float(np.median(values)), 3),
            "highest": round(max(values), 3),
        }
        for noise, values in confidences.items()
    ]


def show(result: dict[str, Any]) -> None:
    """Print one level."""
    mae = "  ".join(f"{name} {result['mae_frames'][name]:6.2f}" for name in METHODS)
    print(
        f"noise {result['noise']:g}, drift {result['drift_px']:g} px, turn {result['turn_deg']:g} deg: mean error in frames: "
        f"{mae}; flows {result['flows']['mean']:.1f} (most {result['flows']['most']}), "
        f"{result['cpu_ms_per_clip']:.0f} ms a clip, confidence {result['median_confidence']:.2f}"
        f"{'' if result['best'] else '   NOT THE BEST'}",
        flush=True,
    )


def main() -> None:
    """Measure, print, store; where a cheap rule is better, that is said."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subjects", type=int, default=5, help="eight clips each")
    parser.add_argument("--out", type=Path, help="where to store the result as JSON")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        points = write_landmarks(level(0, options.subjects), Path(folder) / "landmarks.csv")
        with Aligner(AlignConfig(method="landmarks", landmarks=str(points))) as aligner:
            levels = []
            for drift_px in DRIFT_PX:
                levels += measure(level(drift_px, options.subjects), aligner)
                for one in levels[-len(NOISE) :]:
                    show(one)
            still = measure_still(level(2.0, 1), aligner)
            noise, drift_px = LONG
            ends = measure_ends(noise, level(drift_px, min(options.subjects, 2), rest=100), aligner)
    print("nobody moves:", still)
    print("long clips:", ends)
    print(f"{time.perf_counter() - start:.0f} s")
    if options.out:
        machine.write(options.out, "spotting", {"fps": FPS, "levels": levels, "still": still, "long": ends})


if __name__ == "__main__":
    main()
