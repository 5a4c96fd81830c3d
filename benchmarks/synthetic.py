"""Whether synthetic people are as they should be: fast, found by a face detector, taken by extract, moving as their truth says.

    python benchmarks/synthetic.py --out benchmarks/results/synthetic.json

speed    milliseconds a frame on one thread, noise included, and of the truth of a clip; median
found    people of 100 whom MediaPipe finds, looking up to 15 degrees to the side and 9 up or down; distance of its 478 points
taken    clips that `flowkit extract` takes, and why it fails the others
true     share of pixels of the visible face at which frame t + 1, warped back by the true flow, is within one grey level of frame t
         (light and noise off), by motion of the head; the worst clip is what counts

Both faces, the second one where `../shared/data/face3d` is there.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

import flowkit
import machine
import scene_sets
from flowkit.face.landmarks import FACE_OVAL, FaceLandmarker
from flowkit.synthetic.dataset import synthesise
from flowkit.synthetic.face_scenes import FaceScene
from flowkit.synthetic.scenes import SynthConfig, make_scene, make_subject, scenes

FACES = {"ours": "", "face3d": str(scene_sets.FACE3D)}
SIZES = ((320, 320), (640, 480))
FLAT = SynthConfig(flat=True, noise=0, light=0, peak_px=(0.5, 6.0), drift_px=4, drift_deg=1.5, subjects=4)
STILL = dataclasses.replace(FLAT, drift_px=0, drift_deg=0, drift_scale=0, turn_deg=0)
MOTIONS = {
    "head still": STILL,
    "in plane": dataclasses.replace(FLAT, turn_deg=0),
    "turning by 5 degrees": dataclasses.replace(FLAT, turn_deg=5),
}


def speed(face3d: str) -> dict[str, float]:
    """Milliseconds a frame and a truth."""
    found = {}
    for width, height in SIZES:
        config = SynthConfig(subjects=1, width=width, height=height, face3d=face3d)
        scene = next(iter(scenes(config)))
        scene.render(0)
        scene.truth()
        frame = [timed(scene.render, t) for t in range(1, 60)]
        found[f"frame_ms_{width}x{height}"] = round(float(np.median(frame)), 2)
        found[f"truth_ms_{width}x{height}"] = round(float(np.median([timed(scene.truth) for _ in range(10)])), 1)
    return found


def timed(call: Callable[..., Any], *arguments: Any) -> float:
    """Milliseconds that a call takes."""
    start = time.perf_counter()
    call(*arguments)
    return 1000 * (time.perf_counter() - start)


def detection(face3d: str) -> dict[str, Any]:
    """How many of 100 people MediaPipe finds, and how near its points come."""
    config = SynthConfig(seed=31, pose_deg=15, face3d=face3d)
    apart = []
    with FaceLandmarker() as detector:
        for number in range(1, 101):
            scene = make_scene("rest", make_subject(f"s{number:02d}", config), "fear", config)
            faces = detector.detect(np.repeat(scene.render(0)[..., None], 3, axis=2))
            if faces:
                apart.append(float(np.median(np.hypot(*(faces[0] - 0.5 - scene.landmarks).T))))
    return {"found_of_100": len(apart), "median_landmark_error_px": round(float(np.median(apart)), 2)}


def taken(face3d: str) -> dict[str, Any]:
    """How many clips of the default settings `flowkit extract` takes."""
    config = SynthConfig(seed=31, subjects=10, key_frames_only=True, face3d=face3d)
    with tempfile.TemporaryDirectory() as folder:
        manifest = synthesise(Path(folder) / "clips", config)
        summary = flowkit.extract(manifest, Path(folder) / "out")
    return {"planned": summary.planned, "ok": summary.ok, "failures": dict(summary.failure_codes)}


def truth(face3d: str) -> dict[str, Any]:
    """Share of pixels within one grey level, of the worst clip and in the median."""
    found = {}
    for name, config in MOTIONS.items():
        shares = []
        for scene in scenes(dataclasses.replace(config, face3d=face3d)):
            if not isinstance(scene, FaceScene):
                raise TypeError(name)
            shares += shares_within(scene)
        found[name] = {
            "phases": len(shares),
            "worst": round(min(shares), 4),
            "median": round(float(np.median(shares)), 4),
        }
    return found


def shares_within(scene: FaceScene) -> list[float]:
    """Share of the visible face within one grey level, of either phase."""
    known = scene.truth()
    times = (0, scene.draw.apex, scene.draw.offset)
    frames = [scene.clean(t) for t in times]
    y, x = np.indices(frames[0].shape, np.float32)
    shares = []
    for phase, (before, after) in enumerate(itertools.pairwise(frames)):
        warped = cv2.remap(after, x + known.flow[phase, 0], y + known.flow[phase, 1], cv2.INTER_CUBIC)
        shown = known.visible[phase] & inside_outline(scene, times[phase])
        shares.append(float((np.abs(warped - before)[shown] <= 1).mean()))
    return shares


def inside_outline(scene: FaceScene, t: int) -> npt.NDArray[np.bool_]:
    """The face inside its outline in frame `t`."""
    points = scene.projected(scene.points(t), scene.pose(t))[scene.subject.person.head.landmark[list(FACE_OVAL)], :2]
    mask = np.zeros((scene.config.height, scene.config.width), np.uint8)
    return np.asarray(cv2.fillPoly(mask, [np.rint(points).astype(np.int32)], 1) > 0)


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="where to store the result as JSON")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    results = {}
    for name, path in FACES.items():
        if path and not Path(path).is_file():
            print(f"{name}: skipped, no {path}")
            continue
        results[name] = {
            "speed": speed(path),
            "detection": detection(path),
            "extract": taken(path),
            "true_flow": truth(path),
        }
        print(name, results[name], flush=True)
    if options.out:
        machine.write(options.out, "synthetic", results)


if __name__ == "__main__":
    main()
