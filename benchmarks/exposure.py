"""Measure whether the length of the flow depends on exposure.

python benchmarks/exposure.py --out benchmarks/results/exposure.json

The same clips of synthetic people (scenes/exposure.toml) at four exposures: grey levels are multiplied, then noise of 0.6 levels
is added and the result is rounded to 8 bits. Figures are of `flowkit extract` with its defaults.

length   mean of the strongest 3 % of the rise inside the face, relative to the same clip at full exposure: median, 10th and 90th
         percentile over clips
EPE      end-point error against the true flow of the expression, relative to no flow: median
marked   clips whose `qc` says DARK: their length is not to be trusted

"As it is" is the same with `align.match_contrast = false`: the solver sees the crops as they are.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

import accuracy
import machine
import scene_sets
from flowkit.config import AlignConfig
from flowkit.errors import ClipError
from flowkit.face.align import Aligner
from flowkit.motion.flow import dual_phase_flow
from flowkit.synthetic.face_scenes import FaceScene
from flowkit.synthetic.scenes import LABELS, SynthConfig, make_scene, make_subject
from flowkit_kernels import TVL1Params

WAYS = {"matched": True, "as it is": False}
FULL = "greys x 1"


class Clip(NamedTuple):
    """One clip at one exposure, by way: mean of the strongest motion, EPE over no flow; and whether it is marked."""

    key: tuple[str, int, str]
    group: str
    strongest: dict[str, float]
    epe: dict[str, float]
    is_dark: bool


_aligners: dict[str, Aligner] = {}


def start() -> None:
    """Prepare a worker process."""
    cv2.setNumThreads(1)
    for way, match in WAYS.items():
        _aligners[way] = Aligner(AlignConfig(match_contrast=match))


def measured(task: tuple[str, str, int, SynthConfig]) -> list[Clip]:
    """Every expression of one person at one exposure; clips that fail are left out."""
    face, group, person, config = task
    subject = make_subject(f"s{person:02d}", config)
    scenes = (make_scene(f"{subject.name}_{label}", subject, label, config) for label in LABELS["faces"])
    found = []
    for scene in scenes:
        try:
            found.append(measured_clip(scene, face, group, person))
        except ClipError as error:
            print(f"{face}, {group}, person {person}, {scene.label}: {error}", file=sys.stderr)
    return found


def measured_clip(scene: Any, face: str, group: str, person: int) -> Clip:
    """Both ways on one clip."""
    assert isinstance(scene, FaceScene)
    frames = [scene.render(t) for t in (0, scene.draw.apex, scene.draw.offset)]
    rgb, strongest, epe, is_dark = np.repeat(frames[0][..., None], 3, axis=2), {}, {}, False
    for way, aligner in _aligners.items():
        anchor = aligner.anchor(accuracy.CLIP, accuracy.grey(frames[0]), rgb)
        pair = (accuracy.grey(frames[1]), accuracy.grey(frames[2]))
        aligned = aligner.carry(anchor, pair, (True, True), "clip")
        (flow,) = dual_phase_flow([aligned], [(True, True)], TVL1Params(), "cpu", aligner.config.stabilise, 1)
        if isinstance(flow, ClipError):
            raise flow
        true, inside = accuracy.on_crop(scene.truth(), anchor)
        strongest[way] = accuracy.strongest(flow.flow[0], inside)
        error, length = (np.hypot(*field.swapaxes(0, 1))[:, inside].mean() for field in (flow.flow - true, true))
        epe[way] = float(error / length)
        is_dark = aligned.signal.is_dark
    return Clip((face, person, scene.label), group, strongest, epe, is_dark)


def summary(clips: list[Clip]) -> dict[str, Any]:
    """Figures by face, group and way."""
    full = {clip.key: clip.strongest for clip in clips if clip.group == FULL}
    result: dict[str, Any] = {}
    for face, group in dict.fromkeys((clip.key[0], clip.group) for clip in clips):
        mine = [clip for clip in clips if (clip.key[0], clip.group) == (face, group) and clip.key in full]
        ways = {}
        for way in WAYS:
            shares = [clip.strongest[way] / full[clip.key][way] for clip in mine]
            low, middle, high = np.percentile(shares, (10, 50, 90))
            values = {"length": middle, "length_10": low, "length_90": high}
            values["epe_over_no_flow"] = np.median([clip.epe[way] for clip in mine])
            ways[way] = {name: round(float(value), 4) for name, value in values.items()}
        marked = sum(clip.is_dark for clip in mine)
        result.setdefault(face, {})[group] = {"clips": len(mine), "marked": marked, **ways}
    return result


def table(faces: dict[str, Any]) -> str:
    """All figures as Markdown."""
    rows = [
        ["face", "exposure", "length", "10 % to 90 %", "EPE / no flow", "marked", "length as it is", "EPE as it is"]
    ]
    for face, groups in faces.items():
        for group, one in groups.items():
            new, old = one["matched"], one["as it is"]
            spread = f"{new['length_10']:.2f} to {new['length_90']:.2f}"
            cells = [
                f"{new['length']:.2f}",
                spread,
                f"{new['epe_over_no_flow']:.2f}",
                f"{one['marked']} of {one['clips']}",
            ]
            rows.append([face, group, *cells, f"{old['length']:.2f}", f"{old['epe_over_no_flow']:.2f}"])
    return accuracy.markdown(rows)


def main() -> int:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="where to store the result as JSON")
    parser.add_argument("--people", choices=("judging", "tuning"), default="judging")
    scenes = scene_sets.read("exposure")
    most = scenes["people"]["subjects"]
    parser.add_argument(
        "--subjects", type=int, metavar="N", choices=range(1, most + 1), default=most, help="first people"
    )
    options = parser.parse_args()
    faces = ["ours"] if scene_sets.face3d_missing() else list(accuracy.FACES)
    seed, count = scenes["people"][f"{options.people}_seed"], options.subjects
    tasks = [
        (face, group, person, dataclasses.replace(settings, face3d=accuracy.FACES[face]))
        for face in faces
        for group, changed in scenes["groups"].items()
        for settings in [scene_sets.settings({**scenes["common"], **changed}, seed=seed)]
        for person in range(1, count + 1)
    ]
    clips = machine.spread(tasks, start, measured, machine.cores())
    results = {"people": options.people, "subjects": count, "faces": summary(clips)}
    print(table(results["faces"]))
    if options.out:
        machine.write(options.out, "exposure", results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
