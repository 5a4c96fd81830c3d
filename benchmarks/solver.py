"""Which schedule the solver needs: accuracy and work of the presets, and the grid that the default was chosen from.

python benchmarks/solver.py --out benchmarks/results/solver.json     # the presets, on people that chose nothing
python benchmarks/solver.py --people tuning --grid --out grid.json   # the neighbours of the default, on people for tuning

**Scenes** (scenes/solver.toml): faint, usual and strong motion (peaks of 0.1 to 0.5, 0.5 to 2 and 2 to 6 px) at noise of 1, 2 and 4
grey levels. "Ours" and "face3d" move whole expressions (broad motion), "bumps" moves round spots of a photograph (local motion, up
to 3.8 px). Half of the heads keep still, half move in the plane.

**Figures.** EPE as in accuracy.py, of the whole default alignment with each solver in its place; px, median over the clips of a
group. Work is that of the finest level, in units of pixels times iterations per warp relative to "fixed"; time is the CPU time of
the solver relative to "fixed" in the same run.

**Reach.** Part of a face (a Gaussian of 35 px) is moved by so many px; EPE where it moves most, median of four faces
with noise of 1 grey level. It says from which length on a schedule loses large motion.

**Bars.** EPE relative to "fixed": at most 1 in the groups of usual motion at noise 1 and 2, at most 1.05 in all others. Each group
of each face must meet its bar.

"Fixed, as before" is the preset "fixed" as it was the default until "micro" took its place: more blur of what the solver sees. The
grid changes one thing at a time of the default; more was tried than it holds.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import cv2
import numpy as np

import accuracy
import flowkit_kernels
import machine
import scene_sets
from accuracy import CLIP, Array, grey, markdown, on_crop
from flowkit.config import AlignConfig
from flowkit.errors import ClipError
from flowkit.face.align import Aligner, Face
from flowkit.face.contrast import (
    BLUR_PX,
    CONTRAST,
    MAX_BLUR_PX,
    MAX_WEIGHT,
    MIN_BLUR_PX,
    MIN_WEIGHT,
    NOISIEST,
    ROUNDING,
    Signal,
)
from flowkit.motion.flow import stabilised
from flowkit.synthetic.scenes import LABELS, Scene, SynthConfig, make_scene, make_subject
from flowkit_kernels import TVL1Params
from flowkit_kernels.params import level_shapes

SIZE = 224
FACES = ("ours", "face3d", "bumps")
BUMPS_PX = 3.84
"""Strongest peak of bumps in frames of 320 x 320."""
BARS = {"usual": 1.0, "other": 1.05}
BOTH = (True, True)
REACH_PX = (4.0, 8.0, 12.0, 16.0, 20.0, 24.0)


class Solver(NamedTuple):
    """One way to solve: parameters, and how the solver sees the pictures."""

    params: TVL1Params
    seen: Callable[[Signal], Signal]


class Task(NamedTuple):
    """One person in one group."""

    face: str
    group: str
    person: int
    grid: bool
    config: SynthConfig


class Found(NamedTuple):
    """EPE and CPU seconds by solver on one clip."""

    face: str
    group: str
    epe: dict[str, float]
    seconds: dict[str, float]


def as_it_is(signal: Signal) -> Signal:
    """Leave the choice of `flowkit.face.contrast`."""
    return signal


def weighed(
    blur: float = BLUR_PX,
    least: float = MIN_BLUR_PX,
    most: float = MAX_BLUR_PX,
    noisiest: float = NOISIEST,
    power: float = 4.0,
) -> Callable[[Signal], Signal]:
    """Choose weight and blur as `flowkit.face.contrast` does, with other constants; `blur` is px per noise over contrast."""

    def seen(signal: Signal) -> Signal:
        share = max(signal.noise, ROUNDING) / max(signal.contrast, 1.0)
        weight = CONTRAST / max(signal.contrast, 1.0) / (1 + (share / noisiest) ** power)
        weight = min(max(weight, MIN_WEIGHT), MAX_WEIGHT)
        return dataclasses.replace(signal, data_weight=weight, blur_px=max(least, min(blur * share, most)))

    return seen


def presets() -> dict[str, Solver]:
    """Return what is judged."""
    fixed = TVL1Params.preset("fixed")
    return {
        "fixed": Solver(fixed, as_it_is),
        "micro": Solver(TVL1Params.preset("micro"), as_it_is),
        "fixed, as before": Solver(fixed, weighed(12.5, 0.0, 1.0, 0.22, 4.0)),
    }


def grid() -> dict[str, Solver]:
    """Return the neighbours of the default."""
    base = TVL1Params.preset("micro")
    changes: list[dict[str, Any]] = [
        *({"scales": scales} for scales in (1, 2, 3)),
        {"scale_step": 0.8, "scales": 2},
        {"scale_step": 0.8},
        *({"warps": warps} for warps in (1, 3)),
        *({"inner_iterations": iterations} for iterations in (20, 30, 50)),
        *({"theta": theta} for theta in (0.1, 0.12, 0.2, 0.3)),
        *({"lambda_": weight} for weight in (0.1, 0.2, 0.25)),
        {"median_filtering": 1},
    ]
    solvers = {named(change): Solver(dataclasses.replace(base, **change), as_it_is) for change in changes}
    weights: list[dict[str, float]] = [
        *({"least": px, "most": px} for px in (0.0, 0.4, 0.6, 0.8)),
        {"least": 0.0},
        {"most": 0.75},
        {"blur": 12.5},
        *({"noisiest": noisiest} for noisiest in (0.18, 0.22, 0.26, 1.0)),
    ]
    return solvers | {named(change): Solver(base, weighed(**change)) for change in weights}


def named(change: dict[str, Any]) -> str:
    """Say what is changed."""
    return ", ".join(f"{name.strip('_')} {value:g}" for name, value in change.items())


def tasks(options: argparse.Namespace) -> Iterator[Task]:
    """Yield everything that is measured."""
    scenes = scene_sets.read("solver")
    seed = scenes["people"][f"{options.people}_seed"]
    for face, group, person in itertools.product(options.faces, options.groups, range(1, options.subjects + 1)):
        moving = {} if person % 2 else scenes["moving"]
        config = {**scenes["common"], **moving, **scenes["groups"][group]}
        if face == "bumps":
            config = {name: value for name, value in config.items() if name not in ("turn_deg", "blinks")}
            config |= {"motion": "bumps", "peak_px": [min(px, BUMPS_PX) for px in config["peak_px"]]}
        if face == "face3d":
            config["face3d"] = "face3d"
        yield Task(face, group, person, options.grid, scene_sets.settings(config, seed=seed))


_aligners: dict[str, Aligner] = {}


def start() -> None:
    """Prepare a worker process."""
    cv2.setNumThreads(1)
    _aligners["anchor"] = Aligner(AlignConfig(size=SIZE))
    _aligners["default"] = Aligner(AlignConfig(method="none", size=SIZE))


def measured(task: Task) -> list[Found]:
    """Solve the clips of two expressions in every way."""
    subject, labels = make_subject(f"s{task.person:02d}", task.config), LABELS[task.config.motion]
    chosen = [labels[(2 * task.person + i) % len(labels)] for i in range(2)]
    solvers = presets() | (grid() if task.grid else {})
    scenes = (make_scene(f"{subject.name}_{label}", subject, label, task.config) for label in chosen)
    return [measured_clip(scene, task, solvers) for scene in scenes]


def measured_clip(scene: Scene, task: Task, solvers: dict[str, Solver]) -> Found:
    """Solve one clip in every way."""
    onset, apex, offset = (scene.render(t) for t in (0, scene.draw.apex, scene.draw.offset))
    anchor = _aligners["anchor"].anchor(CLIP, grey(onset), np.repeat(onset[..., None], 3, axis=2))
    face = _aligners["default"].carry(anchor, (grey(apex), grey(offset)), BOTH, "clip")
    true, inside = on_crop(scene.truth(), anchor)
    epe, seconds = {"no flow": float(np.hypot(*true.swapaxes(0, 1))[:, inside].mean())}, {}
    for name, solver in solvers.items():
        flow, seconds[name] = solved(face, solver)
        epe[name] = float(np.hypot(*(flow - true).swapaxes(0, 1))[:, inside].mean())
    return Found(task.face, task.group, epe, seconds)


def solved(face: Face, solver: Solver) -> tuple[Array, float]:
    """Return the flow of both phases without the head's motion, and the CPU seconds of the solver."""
    pixels = face.pixels.copy()
    solver.seen(face.signal).apply(pixels)
    begin = time.thread_time()
    raw = flowkit_kernels.phase_flow(pixels[None], solver.params, backend="cpu", threads=1)
    seconds = time.thread_time() - begin
    (done,) = stabilised(raw, [face], [BOTH], accuracy.DEFAULT, 1)
    if isinstance(done, ClipError):
        raise done
    return done.flow, seconds


def reach() -> dict[str, dict[str, float]]:
    """Return the EPE of large motion, px, by solver and length of the motion."""
    params = {name: solver.params for name, solver in presets().items() if name in ("micro", "fixed")}
    params["micro, scales 3"] = dataclasses.replace(params["micro"], scales=3)
    config = SynthConfig(width=SIZE, height=SIZE, cropped=True, noise=0.0, seed=1)
    onsets = [grey(make_scene("clip", make_subject(f"s{i:02d}", config), "fear", config).render(0)) for i in range(4)]
    return {
        name: {f"{px:g}": round(float(np.median([lost(onset, px, one) for onset in onsets])), 3) for px in REACH_PX}
        for name, one in params.items()
    }


def lost(face: Array, px: float, params: TVL1Params) -> float:
    """Return the EPE of a solver where part of a face moves by so many px."""
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    share = np.exp(-((x - 112) ** 2 + (y - 130) ** 2) / (2 * 35**2)).astype(np.float32)
    true = px * np.stack([0.8 * share, -0.6 * share])
    reference = cv2.remap(face, x + true[0], y + true[1], cv2.INTER_CUBIC)
    noise = np.random.default_rng(0).normal(scale=1 / 255, size=(2, SIZE, SIZE))
    pair = np.clip(np.stack([reference, face]) + noise, 0, 1).astype(np.float32)
    flow = flowkit_kernels.tvl1_flow(pair[:1], pair[1:], params, backend="cpu", threads=1)[0]
    return float(np.hypot(*(flow - true))[share > 0.5].mean())


# --- figures


def summary(found: list[Found]) -> dict[str, Any]:
    """Return median EPE by face, group and solver, as stored."""
    by_face: dict[str, Any] = defaultdict(dict)
    for face, group in dict.fromkeys((one.face, one.group) for one in found):
        clips = [one for one in found if (one.face, one.group) == (face, group)]
        names = clips[0].epe
        epe = {name: round(float(np.median([one.epe[name] for one in clips])), 5) for name in names}
        by_face[face][group] = {"clips": len(clips), "epe_px": epe}
    return dict(by_face)


def cost(found: list[Found]) -> dict[str, dict[str, float]]:
    """Return work and CPU time of each solver relative to "fixed"."""
    solvers, base = presets() | grid(), presets()["fixed"].params
    seconds = {name: sum(one.seconds[name] for one in found) for name in found[0].seconds}
    return {
        name: {
            "work": round(work(solvers[name].params) / work(base), 3),
            "time": round(spent / seconds["fixed"], 3),
        }
        for name, spent in seconds.items()
    }


def work(params: TVL1Params) -> float:
    """Return pixels times iterations of a pair."""
    pixels = sum(height * width for height, width in level_shapes((SIZE, SIZE), params))
    return float(pixels * params.warps * params.outer_iterations * params.inner_iterations)


def ratios(faces: dict[str, Any], name: str, base: str = "fixed") -> dict[str, dict[str, float]]:
    """Return the median EPE of a solver relative to another, by face and group."""
    return {
        face: {group: one["epe_px"][name] / one["epe_px"][base] for group, one in groups.items()}
        for face, groups in faces.items()
    }


def bar_of(group: str) -> float:
    """Return what a group's EPE relative to "fixed" may be."""
    return BARS["usual" if group.startswith("usual") and not group.endswith("4") else "other"]


def tables(results: dict[str, Any]) -> str:
    """Return all figures as Markdown: the presets by group, and every solver by its means."""
    faces = results["faces"]
    rows = [
        [
            "group",
            *(f"{face}: {name}" for face in faces for name in ("no flow", "fixed", "micro", "micro / fixed")),
            "bar",
        ]
    ]
    found = ratios(faces, "micro")
    for group in next(iter(faces.values())):
        cells = []
        for face in faces:
            epe, ratio = faces[face][group]["epe_px"], found[face][group]
            missed = "**" if ratio > bar_of(group) else ""
            cells += [*(f"{epe[name]:.4f}" for name in ("no flow", "fixed", "micro")), f"{missed}{ratio:.3f}{missed}"]
        rows.append([group, *cells, f"{bar_of(group):g}"])
    large = [["moved by, px", *(f"{px:g}" for px in REACH_PX)]]
    large += [[name, *(f"{epe:.2f}" for epe in found.values())] for name, found in results["reach_epe_px"].items()]
    return "\n\n".join(map(markdown, (rows, list(of_solvers(results)), large)))


def of_solvers(results: dict[str, Any]) -> Iterator[list[str]]:
    """Yield a row for each solver: geometric means of the ratios by strength and noise, and the worst group."""
    yield ["solver", "work", "time", "usual", "faint", "strong", "noise 4", "worst group"]
    for name, spent in results["cost"].items():
        flat = [
            (group, face, ratio)
            for face, groups in ratios(results["faces"], name).items()
            for group, ratio in groups.items()
        ]
        means = [
            mean(ratio for group, _, ratio in flat if part in group) for part in ("usual", "faint", "strong", "noise 4")
        ]
        group, face, worst = max(flat, key=lambda one: one[2] / bar_of(one[0]))
        cells = (f"{value:.3f}" for value in means)
        yield [name, f"{spent['work']:.2f}", f"{spent['time']:.2f}", *cells, f"{worst:.3f} ({face}, {group})"]


def mean(values: Iterable[float]) -> float:
    """Return the geometric mean."""
    return float(np.exp(np.mean(np.log(list(values)))))


def main() -> int:
    """Measure, print, store."""
    options = accuracy.parsed(__doc__, "solver", FACES, {"--grid": "measure the neighbours of the default, too"})
    if options.table:
        print(tables(json.loads(options.table.read_text(encoding="utf-8"))["results"]))
        return 0
    todo = list(tasks(options))
    found = machine.spread(todo, start, measured, options.workers)
    results = {
        "people": options.people,
        "seed": todo[0].config.seed,
        "subjects": options.subjects,
        "cost": cost(found),
        "reach_epe_px": reach(),
        "faces": summary(found),
    }
    print(tables(results))
    if options.out:
        machine.write(options.out, "solver", results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
