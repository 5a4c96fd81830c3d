"""Milliseconds that MediaPipe takes to find the landmarks of one face: by the size of the picture and the cores that it may use.

python benchmarks/landmark_speed.py --out benchmarks/results/landmark_speed.json

MediaPipe's Python interface has no setting for threads. A process is therefore bound to one core, two, or all, before it starts.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import machine
from flowkit.face.landmarks import FaceLandmarker
from flowkit.synthetic.dataset import SynthConfig, synthesise

SIDES = (160, 320, 480, 640, 960)
ROUNDS = 40


def measured(picture: str) -> dict[str, Any]:
    """Wall and CPU time per picture, medians, and the threads that the process has."""
    frame = cv2.cvtColor(cv2.imread(picture), cv2.COLOR_BGR2RGB)
    found: dict[str, Any] = {}
    with FaceLandmarker() as landmarker:
        for side in SIDES:
            resized = np.asarray(cv2.resize(frame, (side, side), interpolation=cv2.INTER_AREA), np.uint8)
            wall, cpu = [], []
            for _ in range(ROUNDS + 3):
                began = time.perf_counter(), time.process_time()
                landmarker.detect(resized)
                wall.append(time.perf_counter() - began[0])
                cpu.append(time.process_time() - began[1])
            found[f"{side} px"] = {
                "wall_ms": round(1000 * statistics.median(wall[3:]), 2),
                "cpu_ms": round(1000 * statistics.median(cpu[3:]), 2),
            }
    return found


def main() -> None:
    """Measure in a process for each number of cores, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="where to store the result as JSON")
    parser.add_argument("--measure", metavar="PICTURE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measured(options.measure)))
        return
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        manifest = synthesise(Path(folder) / "clips", SynthConfig(subjects=1, key_frames_only=True))
        picture = str(min(manifest.parent.rglob("*.png")))
        cores = sorted(os.sched_getaffinity(0))
        for count in sorted({1, min(2, len(cores)), len(cores)}):
            code = (
                f"import os, sys; os.sched_setaffinity(0, {set(cores[:count])}); os.execv(sys.executable, sys.argv[1:])"
            )
            command = [sys.executable, "-c", code, sys.executable, __file__, "--measure", picture]
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
            results[f"{count} core{'s' if count > 1 else ''}"] = json.loads(done.stdout)
    print(json.dumps(results, indent=1))
    if options.out:
        machine.write(options.out, "landmark_speed", results)


if __name__ == "__main__":
    main()
