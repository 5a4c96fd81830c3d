"""How near the flow comes to the truth, by expression, on synthetic people whose head keeps still, drifts or turns.

python benchmarks/accuracy.py --out benchmarks/results/accuracy.json     # all of it
python benchmarks/accuracy.py --groups "head still" --subjects 1         # a quick look
python benchmarks/accuracy.py --table benchmarks/results/accuracy.json   # print the tables of a stored result again

Nothing is written but the result: frames are rendered in memory and go through the functions of `flowkit extract`.

**Figures.** EPE is the end-point error against the true flow of the expression (`Truth.flow_local`: the head's motion undone),
carried to the aligned crop of 224 x 224; px of that crop; mean over the face and over both phases. Places that an expression or a
turn hides do not count. The cosine is that of the angle between the estimated and the true flow, each taken as one long vector.
The length is the mean of the strongest 3 % of the estimated rise, relative to the strongest 3 % of the true one: below 1 where
motion is lost; what is left of the head's motion lengthens it. All are medians over clips; p90 is the 90th percentile.
The worst expression is the one with the largest median EPE relative to that of no flow; a clip is worse than no flow where its
EPE is larger than that of no flow.

**Methods**, all with the landmarks of one onset:

no flow      nothing is estimated: the mean length of the truth
none         not stabilised: all frames are cropped as the onset is, nothing is registered, nothing is subtracted
similarity, affine, register, ...
             `flowkit extract --stabilise` with each value that `AlignConfig` takes
oracle       not stabilised either, but apex and offset are rendered in the pose of the onset: the head's motion is undone without
             any error, and noise and light are those of the other methods
opencv       `cv2.optflow.DualTVL1OpticalFlow_create()` with its own settings in place of our solver: the same crops and the
             same subtraction as the default. It takes seconds per clip, so it is measured on the first two people only

All of them match the light of apex and offset to the onset's. A method can fail on a clip, as `flowkit extract` does (no face, no
plausible registration); failures are counted by method, and figures are over the clips on which no method failed.

**Groups.** The scenes are frozen in scenes/accuracy.toml. One factor at a time differs from a middle: peaks of 0.5 to 2 px, full
exposure, all skin tones, no blinks, and a head that either keeps still ("still"; noise 1) or moves in the plane by up to 4 px and
1.5 degrees ("in plane"; noise 2, and the light changes by up to 2 %). "Turning by" adds turns out of the plane, by up to so many
degrees about either axis. "Faint" has peaks of 0.1 to 0.5 px, "strong" of 2 to 6. Noise is in grey levels, exposure a factor of
all grey levels before the noise, and skin is made lighter or darker in the texture. Every group shows the same people, in eight
expressions each. People for tuning and people for judging have seeds of their own (--people).

**Faces.** "ours" is the head that `flowkit synth` renders; "face3d" is `../shared/data/face3d`: another geometry with sculpted
expressions. It is skipped where it is absent.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, get_args, get_type_hints

import cv2
import numpy as np
import numpy.typing as npt

import machine
import scene_sets
from flowkit.config import AlignConfig
from flowkit.errors import ClipError
from flowkit.face.align import Aligner, Anchor, Face
from flowkit.face.transforms import compose, invert
from flowkit.inputs.clip import Clip
from flowkit.motion.flow import solve, stabilised
from flowkit.storage.schema import FACE
from flowkit.synthetic.face_scenes import FaceScene
from flowkit.synthetic.scenes import LABELS, SynthConfig, Truth, make_scene, make_subject
from flowkit_kernels import TVL1Params

SIZE = 224
STABILISE: tuple[str, ...] = get_args(get_type_hints(AlignConfig)["stabilise"])
DEFAULT: str = AlignConfig().stabilise
CLIP = Clip("clip", "clip", 0, 1, 2, "s", "synth", "label")
FACES = {"ours": "", "face3d": str(scene_sets.FACE3D)}
TITLES = {"ours": "the project's own head", "face3d": "a second, independent head"}
METHODS = tuple(dict.fromkeys(("no flow", "none", *STABILISE, "oracle")))
"""All but OpenCV's solver."""
HEADS = {
    "no flow": "no flow",
    "none": "not stabilised (`none`)",
    "oracle": "head's motion undone",
    "opencv": "OpenCV's solver",
}
BY_EXPRESSION = ("head still", "turning by 1.5")

Array = npt.NDArray[Any]


class Task(NamedTuple):
    """One person in one group: a clip of each expression."""

    face: str
    group: str
    person: int
    with_opencv: bool
    config: SynthConfig


class Found(NamedTuple):
    """What was measured on one clip, by method; `failures` names what failed, and why."""

    face: str
    group: str
    label: str
    epe: dict[str, float]
    cosine: dict[str, float]
    length: dict[str, float]
    failures: dict[str, str]


def groups(people: str) -> dict[str, SynthConfig]:
    """Settings of every group."""
    scenes = scene_sets.read("accuracy")
    seed = scenes["people"][f"{people}_seed"]
    found = {}
    for name, changed in scenes["groups"].items():
        moving = scenes["moving"] if changed.get("moving") else {}
        found[name] = scene_sets.settings({**scenes["common"], **moving, **changed}, seed=seed)
    return found


def tasks(faces: Iterable[str], wanted: Iterable[str], people: str, subjects: int) -> Iterator[Task]:
    """Everything that is measured."""
    most = scene_sets.read("accuracy")["people"]["opencv_subjects"]
    configs = groups(people)
    for face, group, person in itertools.product(faces, wanted, range(1, subjects + 1)):
        config = dataclasses.replace(configs[group], face3d=FACES[face])
        yield Task(face, group, person, person <= most, config)


_aligners: dict[str, Aligner] = {}


def start() -> None:
    """Prepare a worker process: one finder of landmarks, and an aligner for each way to stabilise."""
    cv2.setNumThreads(1)
    _aligners["anchor"] = Aligner(AlignConfig(size=SIZE))
    for way in STABILISE:
        config = AlignConfig(method="none", size=SIZE)
        _aligners[way] = Aligner(dataclasses.replace(config, stabilise=way))


def measured(task: Task) -> list[Found]:
    """Every method on every clip of one person."""
    return [measured_clip(scene, task) for scene in scenes_of(task.person, task.config)]


def scenes_of(person: int, config: SynthConfig) -> Iterator[FaceScene]:
    """Yield the clips of one person, one of each expression."""
    subject = make_subject(f"s{person:02d}", config)
    for label in LABELS["faces"]:
        scene = make_scene(f"{subject.name}_{label}", subject, label, config)
        if not isinstance(scene, FaceScene):
            raise TypeError(
                f"{scene.clip_id}: scenes must be faces; got {type(scene).__name__}. Correct the file in scenes/."
            )
        yield scene


def measured_clip(scene: FaceScene, task: Task) -> Found:
    """Every method on one clip."""
    times = (scene.draw.apex, scene.draw.offset)
    onset = scene.render(0)
    rgb = np.repeat(onset[..., None], 3, axis=2)
    try:
        anchor = _aligners["anchor"].anchor(CLIP, grey(onset), rgb, SIZE)
    except ClipError as error:
        failures = dict.fromkeys((*STABILISE, "oracle"), error.code.name)
        return Found(task.face, task.group, scene.label, {}, {}, {}, failures)
    moving, still = ([grey(scene.render(t, still=undone)) for t in times] for undone in (False, True))
    ways = {way: (way, moving) for way in STABILISE} | {"oracle": ("none", still)}
    flows, failures = estimated(anchor, ways, task.with_opencv)
    true, inside = on_crop(scene.truth(), anchor)
    flows["no flow"] = np.zeros_like(true)
    return Found(
        *(task.face, task.group, scene.label),
        epe={name: float(np.hypot(*(flow - true).swapaxes(0, 1))[:, inside].mean()) for name, flow in flows.items()},
        cosine={name: cosine(flow[..., inside], true[..., inside]) for name, flow in flows.items()},
        length={name: strongest(flow[0], inside) / strongest(true[0], inside) for name, flow in flows.items()},
        failures=failures,
    )


def estimated(
    anchor: Anchor, ways: dict[str, tuple[str, list[Array]]], with_opencv: bool
) -> tuple[dict[str, Array], dict[str, str]]:
    """Flow of both phases, (2, 2, N, N), by each method, or the code of its failure.

    Some ways to stabilise differ in what they subtract only: where the pictures are the same, they are solved once.
    """
    flows, failures, solved = {}, {}, {}
    for name, (way, frames) in ways.items():
        try:
            face = _aligners[way].carry(anchor, (frames[0], frames[1]), (True, True), "clip")
            key = face.pixels.tobytes()
            if key not in solved:
                solved[key] = solve([face], [(True, True)], TVL1Params(), "cpu", 1)
            flows[name] = subtracted(solved[key], face, way)
            if with_opencv and name == DEFAULT:
                flows["opencv"] = subtracted(opencv_flow(face.pixels)[None], face, way)
        except ClipError as error:
            failures[name] = error.code.name
    return flows, failures


def grey(frame: Array) -> Array:
    """Grey values in [0, 1]."""
    return frame.astype(np.float32) / np.float32(255)


def subtracted(raw: Array, face: Face, way: str) -> Array:
    """A flow without the motion of the head that is left in it, as far as a way to stabilise subtracts any."""
    (done,) = stabilised(raw, [face], [(True, True)], way, 1)
    if isinstance(done, ClipError):
        raise done
    return done.flow


def opencv_flow(pixels: Array) -> Array:
    """Both phases by OpenCV, (2, 2, N, N). A solver object keeps state between calls: a fresh one for each pair."""
    phases = []
    for reference, moving in itertools.pairwise(pixels):
        solver = cv2.optflow.DualTVL1OpticalFlow_create()
        phases.append(solver.calc(reference, moving, None).transpose(2, 0, 1))
    return np.stack(phases)


def on_crop(truth: Truth, anchor: Anchor) -> tuple[Array, Array]:
    """The local truth on the grid of the crop, (2, 2, N, N), and where it counts, (N, N).

    With T the crop's transform and A its linear part, it is A flow(T^-1 x). It counts inside the face where all three frames show
    the same place, with the head's motion and without.
    """
    back = invert(anchor.transform)
    at_apex = compose(truth.drift[1], back)
    shown = [carried(mask.astype(np.float32), back) > 0.99 for mask in (*truth.visible_local, truth.visible[0])]
    shown.append(carried(truth.visible[1].astype(np.float32), at_apex) > 0.99)
    flow = np.stack([[carried(component, back) for component in phase] for phase in truth.flow_local])
    inside = ((anchor.regions & FACE) > 0) & np.logical_and.reduce(shown)
    return np.asarray(np.einsum("ij,pjhw->pihw", anchor.transform[:, :2], flow)), inside


def carried(picture: Array, back: Array) -> Array:
    """A picture on the grid of the crop; `back` leads from the crop to the picture."""
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(picture, back, (SIZE, SIZE), flags=flags))


def cosine(flow: Array, truth: Array) -> float:
    """Cosine of the angle between two flows, each taken as one vector; 0 for no flow."""
    return float((flow * truth).sum() / np.sqrt((flow**2).sum() * (truth**2).sum() + 1e-12))


def strongest(flow: Array, inside: Array) -> float:
    """Mean length of the strongest 3 % of a flow, px."""
    lengths = np.sort(np.hypot(*flow)[inside])
    return float(lengths[-max(1, len(lengths) * 3 // 100) :].mean())


# --- figures


def summary(found: list[Found]) -> dict[str, Any]:
    """Figures of each face and group, and of each expression there, as stored."""
    by_face: dict[str, Any] = {}
    for face, group in dict.fromkeys((one.face, one.group) for one in found):
        mine = [one for one in found if (one.face, one.group) == (face, group)]
        good = complete(mine)
        by_label = {label: figures([one for one in mine if one.label == label]) for label in LABELS["faces"]}
        by_face.setdefault(face, {})[group] = {
            **figures(mine),
            "p90_epe_px": over(good, "epe", METHODS, 90),
            "length": over(good, "length", METHODS),
            "worst_expression": {name: worst(by_label, name) for name in METHODS[1:] if good},
            **opencv_figures([one for one in good if "opencv" in one.epe]),
            "expressions": by_label,
        }
    return by_face


def opencv_figures(clips: list[Found]) -> dict[str, Any]:
    """OpenCV's solver beside the default on the same clips; nothing where it was not measured."""
    names = ("no flow", DEFAULT, "opencv")
    measured_on = {"clips": len(clips), "epe_px": over(clips, "epe", names), "cosine": over(clips, "cosine", names)}
    return {"opencv": measured_on} if clips else {}


def figures(clips: list[Found]) -> dict[str, Any]:
    """Medians over the clips on which no method failed, and how often each failed."""
    failures = Counter((name, code) for one in clips for name, code in one.failures.items())
    by_name: dict[str, dict[str, int]] = defaultdict(dict)
    for (name, code), count in sorted(failures.items()):
        by_name[name][code] = count
    good = complete(clips)
    return {
        "clips": len(clips),
        "clips_without_failure": len(good),
        "failures": dict(by_name),
        "epe_px": over(good, "epe", METHODS),
        "cosine": over(good, "cosine", METHODS),
        "worse_than_no_flow": {name: sum(one.epe[name] > one.epe["no flow"] for one in good) for name in METHODS[1:]},
    }


def complete(clips: list[Found]) -> list[Found]:
    """Clips on which no method failed."""
    return [one for one in clips if not one.failures]


def over(clips: list[Found], figure: str, names: Iterable[str], percentile: float = 50) -> dict[str, float]:
    """Median or another percentile of one figure by method; nothing where there are no clips."""
    values = {name: [getattr(one, figure)[name] for one in clips] for name in names if clips}
    return {name: round(float(np.percentile(each, percentile)), 4) for name, each in values.items()}


def worst(by_label: dict[str, Any], name: str) -> str:
    """The expression with the largest median EPE relative to no flow."""
    ratios = {label: one["epe_px"][name] / one["epe_px"]["no flow"] for label, one in by_label.items() if one["epe_px"]}
    return max(ratios, key=lambda label: ratios[label])


# --- tables


def tables(results: dict[str, Any]) -> str:
    """All figures of a result as Markdown, as they stand in the docs."""
    parts, default = [], results["default"]
    for face, by_group in results["faces"].items():
        parts += [f"### {face}: {TITLES[face]}", ""]
        parts += ["EPE in the face, px, median of clips:", "", of_methods(by_group, default), ""]
        parts += [f"The default, `{default}`:", "", of_default(by_group, default), ""]
        if any("opencv" in one for one in by_group.values()):
            parts += ["OpenCV's solver behind the default alignment, EPE in the face, px:", ""]
            parts += [of_opencv(by_group, default), ""]
        for group in BY_EXPRESSION:
            if group in by_group:
                parts += [f"{group.capitalize()}, by expression:", "", of_expressions(by_group[group], default), ""]
        smiles = by_group.get("head still", {}).get("expressions", {}).get("happiness", {})
        if smiles.get("epe_px"):
            parts += [fault(smiles, default), ""]
    return "\n".join(parts).rstrip()


def fault(smiles: dict[str, Any], default: str) -> str:
    """The sentence about smiles."""
    epe = smiles["epe_px"]
    return (
        f"happiness, head still, default / no flow: {ratio(epe, default)} ({epe[default]:.3f} px / {epe['no flow']:.3f} px; not "
        f"stabilised {epe['none']:.3f} px); worse than no flow on {worse(smiles, default)} clips"
    )


def of_methods(by_group: dict[str, Any], default: str) -> str:
    """A row for each group, a column for each method."""
    names = list(dict.fromkeys(name for one in by_group.values() for name in one["epe_px"]))
    rows = [["group", *map(head, names), f"cosine of `{default}`", "clips"]]
    for group, one in by_group.items():
        values = [number(one["epe_px"], name) for name in names]
        rows.append([group, *values, number(one["cosine"], default, 2), str(one["clips_without_failure"])])
    return markdown(rows)


def of_default(by_group: dict[str, Any], default: str) -> str:
    """A row for each group: how far off the default can be."""
    heads = ["EPE / no flow", "90th percentile of EPE", "length", f"length, {head('oracle')}"]
    rows = [["group", *heads, "worst expression, EPE / no flow", "worse than no flow", "failed"]]
    for group, one in by_group.items():
        values = [ratio(one["epe_px"], default), number(one["p90_epe_px"], default)]
        values += [number(one["length"], name, 2) for name in (default, "oracle")]
        label = one["worst_expression"].get(default)
        theirs = one["expressions"][label]["epe_px"] if label else {}
        named = f"{label} {number(theirs, default)} / {number(theirs, 'no flow')}" if label else "-"
        rows.append([group, *values, named, worse(one, default), failed(one, default)])
    return markdown(rows)


def of_opencv(by_group: dict[str, Any], default: str) -> str:
    """A row for each group in which OpenCV's solver was measured."""
    names = ("no flow", default, "opencv")
    rows = [["group", *map(head, names), "clips"]]
    for group, one in by_group.items():
        if theirs := one.get("opencv"):
            rows.append([group, *(number(theirs["epe_px"], name) for name in names), str(theirs["clips"])])
    return markdown(rows)


def of_expressions(group: dict[str, Any], default: str) -> str:
    """A row for each expression."""
    names = ("no flow", "none", default, "oracle")
    rows = [["expression", *map(head, names), "default / no flow", "cosine", "worse than no flow", "failed"]]
    for label, one in group["expressions"].items():
        values = [*(number(one["epe_px"], name) for name in names), ratio(one["epe_px"], default)]
        values.append(number(one["cosine"], default, 2))
        rows.append([label, *values, worse(one, default), failed(one, default)])
    return markdown(rows)


def head(name: str) -> str:
    """What a column is called."""
    return HEADS.get(name, f"`{name}`")


def number(values: dict[str, float], name: str, digits: int = 3) -> str:
    """A cell."""
    return f"{values[name]:.{digits}f}" if name in values else "-"


def ratio(epe: dict[str, float], default: str) -> str:
    """Default over no flow."""
    return f"{epe[default] / epe['no flow']:.2f}" if epe else "-"


def worse(one: dict[str, Any], default: str) -> str:
    """How often no flow at all is nearer to the truth than the default."""
    return f"{one['worse_than_no_flow'][default]} of {one['clips_without_failure']}"


def failed(one: dict[str, Any], default: str) -> str:
    """How often the default failed."""
    return f"{sum(one['failures'].get(default, {}).values())} of {one['clips']}"


def markdown(rows: list[list[str]]) -> str:
    """A table, the first row on top."""
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main() -> int:
    """Measure, print, store."""
    options = parsed()
    if options.table:
        print(tables(json.loads(options.table.read_text(encoding="utf-8"))["results"]))
        return 0
    todo = list(tasks(options.faces, options.groups, options.people, options.subjects))
    results = judged(options, todo, start, measured, summary)
    print(tables(results))
    if options.out:
        machine.write(options.out, "accuracy", results)
    return 0


def judged(
    options: argparse.Namespace,
    todo: list[Any],
    prepare: Callable[[], None],
    measure: Callable[[Any], list[Any]],
    summarise: Callable[[list[Any]], dict[str, Any]],
) -> dict[str, Any]:
    """Measure people and groups; return the figures of each face, as stored, and who was measured."""
    started = time.monotonic()
    found = machine.spread(todo, prepare, measure, options.workers)
    return {
        "people": options.people,
        "seed": todo[0].config.seed,
        "subjects": options.subjects,
        "seconds": round(time.monotonic() - started),
        "default": DEFAULT,
        "faces": summarise(found),
    }


def parsed(
    description: str | None = __doc__,
    scenes: str = "accuracy",
    faces: Sequence[str] = tuple(FACES),
    flags: Mapping[str, str] = MappingProxyType({}),
) -> argparse.Namespace:
    """What was asked for of frozen scenes, with the faces that are there; `flags` are further options, with their help."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="where to store the result as JSON")
    parser.add_argument(
        "--table", type=Path, metavar="JSON", help="print the tables of a stored result; measure nothing"
    )
    parser.add_argument("--groups", nargs="+", metavar="NAME", help="some of the groups; by default all")
    parser.add_argument("--faces", nargs="+", choices=faces, help="by default all that are there")
    parser.add_argument("--subjects", type=int, metavar="N", help="measure the first N people; by default all")
    parser.add_argument("--people", choices=("judging", "tuning"), default="judging", help="which people are measured")
    parser.add_argument(
        "--workers", type=int, metavar="N", default=machine.cores(), help="processes; by default one per core"
    )
    for flag, meaning in flags.items():
        parser.add_argument(flag, action="store_true", help=meaning)
    options = parser.parse_args()
    frozen = scene_sets.read(scenes)
    known, most = list(frozen["groups"]), frozen["people"]["subjects"]
    options.groups = options.groups or known
    if unknown := set(options.groups) - set(known):
        parser.error(f"--groups must be some of {', '.join(known)}; got {', '.join(sorted(unknown))}")
    options.subjects = most if options.subjects is None else options.subjects
    if not 1 <= options.subjects <= most:
        parser.error(f"--subjects must be from 1 to {most}; got {options.subjects}")
    reason = scene_sets.face3d_missing()
    if reason and "face3d" in (options.faces or ()):
        parser.error(f"--faces: face3d cannot be measured: {reason}")
    if reason and not options.faces and not options.table:
        print(f"face3d is skipped: {reason}", file=sys.stderr)
    options.faces = options.faces or [name for name in faces if name != "face3d" or not reason]
    return options


if __name__ == "__main__":
    sys.exit(main())
