"""What the frames beside the key frames are worth, by strength of the motion, frame rate and noise.

python benchmarks/neighbours.py --out benchmarks/results/neighbours.json
python benchmarks/neighbours.py --groups "faint, still, 200 fps" --subjects 1     # a quick look
python benchmarks/neighbours.py --table benchmarks/results/neighbours.json        # print the tables of a stored result again

Synthetic people (scenes/neighbours.toml) are rendered in memory and go through the functions of `flowkit extract` with its
defaults but for `frames.average`: off (three single frames), 3 and 5. Rise and fall last 50 to 150 ms at every rate, so at 60
frames per second they are a few frames long, and a window is cut short or off where the next key frame is near. "In plane" the head
drifts and turns round at a moment of its own, so that it moves at the apex too.

EPE is that of `accuracy.py`: mean over the visible face and both phases, px of a crop of 224; medians over the clips on which
nothing failed. `auto` is what the default chooses at that rate. "Frames" is how many were averaged then, mean over key frames;
"refused" is the share of clips in which a frame was not averaged because it differs by more than noise.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

import accuracy
import machine
import scene_sets
from flowkit.config import AlignConfig, ExtractConfig
from flowkit.errors import ClipError
from flowkit.face.align import Aligner, Anchor, Face
from flowkit.inputs.beside import reaches
from flowkit.inputs.key_frames import KeyFrames
from flowkit.motion.flow import solve
from flowkit.synthetic.camera import photographed
from flowkit.synthetic.face_scenes import FaceScene
from flowkit.synthetic.scenes import SynthConfig, Truth

SCENES = "neighbours"
AVERAGES: dict[str, Any] = {"off": "off", "3": 3, "5": 5, "auto": "auto"}
WAYS = ("no flow", *AVERAGES)
FASTEST = 200.0
BARS = {2.0: (0.85, 0.75, 0.6, 0.4), 4.0: (0.75, 0.6, 0.65, 0.5)}
"""By noise, for faint motion at 200 frames per second: EPE over that of single frames and over no flow, asked for and wanted."""

Array = npt.NDArray[Any]


class Task(NamedTuple):
    """One person in one group: a clip of each expression, with each noise."""

    face: str
    group: str
    person: int
    noises: tuple[float, ...]
    config: SynthConfig


class Found(NamedTuple):
    """EPE of one clip at one noise by way, how many frames "auto" averaged, and whether it refused one; or what failed."""

    face: str
    group: str
    noise: float
    epe: dict[str, float]
    frames: float
    refused: bool
    failure: str


def tasks(options: Any) -> Iterator[Task]:
    """Everything that is measured."""
    scenes = scene_sets.read(SCENES)
    seed, noises = scenes["people"][f"{options.people}_seed"], tuple(scenes["noises"])
    for face, group, person in itertools.product(options.faces, options.groups, range(1, options.subjects + 1)):
        changed = scenes["groups"][group]
        moving = scenes["moving"] if changed.get("moving") else {}
        config = scene_sets.settings({**scenes["common"], **moving, **changed}, seed=seed)
        yield Task(face, group, person, noises, dataclasses.replace(config, face3d=accuracy.FACES[face]))


_aligners: dict[str, Aligner] = {}


def start() -> None:
    """Prepare a worker process."""
    cv2.setNumThreads(1)
    _aligners["anchor"] = Aligner(AlignConfig(size=accuracy.SIZE))
    _aligners["carry"] = Aligner(AlignConfig(method="none", size=accuracy.SIZE))


def measured(task: Task) -> list[Found]:
    """Every expression of one person at every noise."""
    found = []
    for scene in accuracy.scenes_of(task.person, task.config):
        clean, truth = functools.cache(scene.clean), scene.truth()
        for noise in task.noises:
            config = dataclasses.replace(task.config, noise=noise)

            def frame(t: int, config: SynthConfig = config, clean: Any = clean, scene: FaceScene = scene) -> Array:
                return photographed(clean, t, config, scene.draw.noise_seed)

            found.append(measured_clip(frame, scene, truth, task, noise))
    return found


def measured_clip(frame: Any, scene: FaceScene, truth: Truth, task: Task, noise: float) -> Found:
    """Every way on one clip."""
    times = (0, scene.draw.apex, scene.draw.offset)
    key = KeyFrames(*times, "annotated", (True, True))
    epe, frames, refused = {}, 1.0, False
    try:
        rgb = np.repeat(frame(0)[..., None], 3, axis=2)
        anchor = _aligners["anchor"].anchor(accuracy.CLIP, accuracy.grey(frame(0)), rgb, accuracy.SIZE)
        true, inside = accuracy.on_crop(truth, anchor)
        epe["no flow"] = mean_length(true, inside)
        by_reach: dict[tuple[int, ...], tuple[float, Face]] = {}
        for way, average in AVERAGES.items():
            reach = reaches(key, task.config.fps, average)
            if reach not in by_reach:
                face = aligned(frame, times, reach, anchor)
                raw = solve([face], [(True, True)], ExtractConfig().tvl1, "cpu", 1)
                by_reach[reach] = mean_length(accuracy.subtracted(raw, face, accuracy.DEFAULT) - true, inside), face
            epe[way], face = by_reach[reach]
        frames, refused = float(np.mean(face.averaged)), face.neighbour_refused
    except ClipError as error:
        return Found(task.face, task.group, noise, {}, 1.0, False, error.code.name)
    return Found(task.face, task.group, noise, epe, frames, refused, "")


def aligned(frame: Any, times: tuple[int, int, int], reach: tuple[int, int, int], anchor: Anchor) -> Face:
    """A clip on the crop, its key frames averaged as far as they reach."""
    onset, apex, offset = (
        {d: accuracy.grey(frame(t + d)) for d in range(-by, by + 1) if d} for t, by in zip(times, reach, strict=True)
    )
    keys = accuracy.grey(frame(times[1])), accuracy.grey(frame(times[2]))
    return _aligners["carry"].carry(anchor, keys, (True, True), "clip", (onset, apex, offset))


def mean_length(flow: Array, inside: Array) -> float:
    """Mean length of the vectors of both phases, px."""
    return float(np.hypot(flow[:, 0], flow[:, 1])[:, inside].mean())


# --- figures


def summary(found: list[Found]) -> dict[str, Any]:
    """Figures of each face, group and noise, as stored."""
    by_face: dict[str, Any] = {}
    for face, group, noise in dict.fromkeys((one.face, one.group, one.noise) for one in found):
        mine = [one for one in found if (one.face, one.group, one.noise) == (face, group, noise)]
        good = [one for one in mine if not one.failure]
        by_face.setdefault(face, {}).setdefault(group, {})[f"{noise:g}"] = {
            "clips": len(mine),
            "failed": len(mine) - len(good),
            "epe_px": {way: round(float(np.median([one.epe[way] for one in good])), 4) for way in WAYS if good},
            "better": sum(one.epe["auto"] < one.epe["off"] for one in good),
            "frames": round(float(np.mean([one.frames for one in good])), 2) if good else 1,
            "refused": sum(one.refused for one in good),
        }
    return by_face


# --- tables


def tables(results: dict[str, Any]) -> str:
    """All figures of a result as Markdown."""
    parts = []
    for face, by_group in results["faces"].items():
        parts += [f"### {accuracy.TITLES[face].capitalize()}", "", of_groups(by_group), ""]
    bars = of_bars(results["faces"])
    return "\n".join([*parts, *([bars] if bars else [])]).rstrip()


def of_groups(by_group: dict[str, Any]) -> str:
    """A row for each group and noise."""
    heads = ["no flow", "single frames", "3 frames", "5 frames", "auto / single", "auto / no flow", "frames", "refused"]
    rows = [["group", "noise", *heads, "clips"]]
    for group, by_noise in by_group.items():
        for noise, one in by_noise.items():
            epe = one["epe_px"]
            values = [accuracy.number(epe, way) for way in ("no flow", "off", "3", "5")]
            values += [ratio(epe, "off"), ratio(epe, "no flow"), f"{one['frames']:.1f}"]
            rows.append([group, noise, *values, str(one["refused"]), str(one["clips"] - one["failed"])])
    return accuracy.markdown(rows)


def of_bars(faces: dict[str, Any]) -> str:
    """The figures that were asked for, the worse of both faces."""
    rows = [
        [
            "faint motion at 200 frames per second",
            "EPE / single frames",
            "bar",
            "wanted",
            "EPE / no flow",
            "bar",
            "wanted",
        ]
    ]
    wanted = [f"faint, {head}, {FASTEST:g} fps" for head in ("still", "in plane")]
    for group, (noise, bars) in itertools.product(wanted, BARS.items()):
        figures = [by_group[group][f"{noise:g}"]["epe_px"] for by_group in faces.values() if group in by_group]
        if all(figures) and figures:
            single, none = (max(epe["auto"] / epe[way] for epe in figures) for way in ("off", "no flow"))
            cells = [f"{single:.2f}", f"{bars[0]:g}", f"{bars[1]:g}", f"{none:.2f}", f"{bars[2]:g}", f"{bars[3]:g}"]
            rows.append([f"{group.split(', ')[1]}, noise {noise:g}", *cells])
    return accuracy.markdown(rows) if len(rows) > 1 else ""


def ratio(epe: dict[str, float], way: str) -> str:
    """The default over another way."""
    return f"{epe['auto'] / epe[way]:.2f}" if epe else "-"


def main() -> int:
    """Measure, print, store."""
    options = accuracy.parsed(__doc__, SCENES)
    if options.table:
        print(tables(json.loads(options.table.read_text(encoding="utf-8"))["results"]))
        return 0
    began = time.monotonic()
    todo = list(tasks(options))
    results = accuracy.judged(options, todo, start, measured, summary)
    print(tables(results))
    print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)
    if options.out:
        machine.write(options.out, SCENES, results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
