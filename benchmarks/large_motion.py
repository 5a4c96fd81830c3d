"""How often the face is lost, and how far off its motion is, where the head turns or moves far; and frames that do not show it.

python benchmarks/large_motion.py --out benchmarks/results/large_motion.json    # all of it
python benchmarks/large_motion.py --people tuning --subjects 2                  # a quick look
python benchmarks/large_motion.py --table benchmarks/results/large_motion.json  # print the tables of a stored result again

Nothing is written but the result: frames are rendered in memory and go through the functions of `flowkit extract`.

**Scenes** are frozen in scenes/large_motion.toml. "Turning by" turns the head by up to so many degrees about either axis,
"shifted by" moves it by up to so many px of the frame in either direction (the crop enlarges them up to 1.3 times) with up to 2
degrees of turn and roll, "grimace" has expressions whose peak is 6 px. Apex and offset of each clip are measured as two clips
that have a rise only.

**Figures.** A frame is lost where it fails with a code. Of the others, the motion of the head that was undone, in the pictures and
then by subtraction from the flow, is compared with the true one: where each place of the face goes that the head's motion alone,
without the expression, takes to another place. The error of that motion has a part in the plane, the similarity that fits it best;
its mean length over the face is the in-plane error. The rest is due to turn and depth. px are those of the crop of 224 x 224; only
places count that the head's motion does not hide.

**Frames without the face.** The apex is replaced by the onset of another person, by a black frame, by noise, and by the wall
behind the person. All should fail; the code says how. Another person's skin comes from the same photograph, which makes it
hard to tell.

**Real video.** Frame 0 of `../shared/data/faces/single_face.mp4` with every later frame: none may fail. With frames of
`no_face.mp4` as apex all must. Skipped where the videos are absent.

**Methods.** The default of `--stabilise`, and "similarity" for comparison. **Faces** are those of accuracy.py.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

import machine
import scene_sets
from accuracy import CLIP, DEFAULT, FACES, SIZE, TITLES, carried, grey, judged, markdown, parsed
from flowkit.config import AlignConfig
from flowkit.errors import ClipError
from flowkit.face.align import Aligner, Anchor, Face
from flowkit.face.head_motion import motion_of, tell_apart
from flowkit.face.head_tracking import turned
from flowkit.face.regions import fit_samples
from flowkit.face.registration import remove_motion
from flowkit.face.transforms import fit_similarity, invert, mapped
from flowkit.inputs import images
from flowkit.inputs.videos import open_reel
from flowkit.motion.flow import solve
from flowkit.storage.schema import FACE, RIGID
from flowkit.synthetic.camera import FaceSubject, Moment, motion
from flowkit.synthetic.face_scenes import FaceScene
from flowkit.synthetic.scenes import LABELS, SynthConfig, make_scene, make_subject
from flowkit_kernels import TVL1Params

WAYS = (DEFAULT, "similarity")
HOSTILE = "no face of theirs"
TOO_FAR_PX = 1.0
VIDEOS = scene_sets.FACE3D.parents[1] / "faces"
NO_FACE_STEP = 5

Array = npt.NDArray[Any]


class Task(NamedTuple):
    """One person in one group: a clip of each expression."""

    face: str
    group: str
    person: int
    config: SynthConfig


class Found(NamedTuple):
    """One frame by one method: the code of its failure, or how far off the head's motion is."""

    face: str
    group: str
    way: str
    code: str = ""
    in_plane_px: float = 0.0
    altogether_px: float = 0.0
    landmark_start: bool = False


def groups(people: str) -> dict[str, SynthConfig]:
    """Settings of every group."""
    scenes = scene_sets.read("large_motion")
    seed = scenes["people"][f"{people}_seed"]
    common = scenes["common"]
    return {name: scene_sets.settings({**common, **changed}, seed=seed) for name, changed in scenes["groups"].items()}


def tasks(faces: Iterable[str], wanted: Iterable[str], people: str, subjects: int) -> Iterator[Task]:
    """Everything that is measured on synthetic people."""
    configs = groups(people)
    for face, group, person in itertools.product(faces, wanted, range(1, subjects + 1)):
        yield Task(face, group, person, dataclasses.replace(configs[group], face3d=FACES[face]))


_aligners: dict[str, Aligner] = {}


def start() -> None:
    """Prepare a worker process: an aligner for each method."""
    cv2.setNumThreads(1)
    for way in WAYS:
        _aligners[way] = Aligner(dataclasses.replace(AlignConfig(size=SIZE), stabilise=way))


def measured(task: Task) -> list[Found]:
    """Every frame of one person by every method."""
    subject = subject_of(task.person, task.config)
    found = []
    for label in LABELS["faces"]:
        scene = scene_of(subject, label, task.config)
        onset = scene.render(0)
        anchor = anchored(onset)
        if isinstance(anchor, str):
            found += [Found(task.face, task.group, way, f"onset: {anchor}") for way in WAYS]
        elif task.group == HOSTILE:
            found += hostile(scene, anchor, task)
        else:
            found += followed(scene, anchor, task)
    return found


def subject_of(person: int, config: SynthConfig) -> FaceSubject:
    """Return one person before the camera."""
    subject = make_subject(f"s{person:02d}", config)
    if not isinstance(subject, FaceSubject):
        raise TypeError(f"scenes must be of faces; got {type(subject).__name__}. Correct scenes/large_motion.toml.")
    return subject


def scene_of(subject: FaceSubject, label: str, config: SynthConfig) -> FaceScene:
    """Return one clip of a person."""
    scene = make_scene(f"{subject.name}_{label}", subject, label, config)
    if not isinstance(scene, FaceScene):
        raise TypeError(f"scenes must be of faces; got {type(scene).__name__}. Correct scenes/large_motion.toml.")
    return scene


def anchored(onset: Array) -> Anchor | str:
    """Return the onset on its crop, or the code of its failure."""
    try:
        return _aligners[DEFAULT].anchor(CLIP, grey(onset), np.repeat(onset[..., None], 3, axis=2), SIZE)
    except ClipError as error:
        return error.code.name


def followed(scene: FaceScene, anchor: Anchor, task: Task) -> Iterator[Found]:
    """Apex and offset of a clip by every method."""
    for t, way in itertools.product((scene.draw.apex, scene.draw.offset), WAYS):
        face = carry(anchor, grey(scene.render(t)), way)
        if isinstance(face, str):
            yield Found(task.face, task.group, way, face)
            continue
        true, inside = true_motion(scene, anchor, t)
        error = (undone(face, way) - true)[:, inside]
        yield Found(task.face, task.group, way, "", in_plane(error, inside), mean_length(error), face.landmark_start)


def hostile(scene: FaceScene, anchor: Anchor, task: Task) -> Iterator[Found]:
    """Frames that do not show the face of the onset."""
    another = scene_of(subject_of(task.person + 1, task.config), scene.label, task.config)
    chance = np.random.default_rng([scene.draw.noise_seed, 1])
    frames = {
        "another person": another.render(0),
        "black frame": np.zeros(scene.subject.shape, np.uint8),
        "noise": chance.integers(0, 256, scene.subject.shape, np.uint8),
        "wall": np.asarray(np.rint(scene.subject.background), np.uint8),
    }
    for (name, frame), way in itertools.product(frames.items(), WAYS):
        face = carry(anchor, grey(frame), way)
        yield Found(task.face, name, way, face if isinstance(face, str) else "")


def carry(anchor: Anchor, frame: Array, way: str) -> Face | str:
    """Return one frame on the grid of its onset, or the code of its failure."""
    try:
        return _aligners[way].carry(anchor, (frame, frame), (True, False), "clip")
    except ClipError as error:
        return error.code.name


def undone(face: Face, way: str) -> Array:
    """How far the head took each pixel of the crop, (2, N, N), px, as the pictures and the flow were freed of it.

    The flow leads to a place of the straightened picture; where that was seen follows.
    """
    places = np.asarray(mapped(face.registration[0], turned(face.shape, np.radians(face.turn[0]), SIZE)), np.float32)
    flow = solve([face], [(True, False)], TVL1Params(), "cpu", 1)[0]
    across, down = np.meshgrid(*[np.arange(SIZE, dtype=np.float32)] * 2)
    if way == "head":
        samples = fit_samples(face.regions, face.landmarks, face.transform)
        fit = tell_apart(flow, face.shape, samples, (True, False), np.radians(face.turn))
        left = motion_of(fit.motion, fit.turn, fit.depth_cm, face.shape, SIZE)[0]
    else:
        _, fitted, _ = remove_motion(flow[0], (face.regions & RIGID) > 0)
        left = mapped(fitted, np.stack([across, down]))
    there = (across + left[0], down + left[1])
    seen = [cv2.remap(part, *there, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) for part in places]
    return np.stack(seen) - np.stack([across, down])


def true_motion(scene: FaceScene, anchor: Anchor, t: int) -> tuple[Array, Array]:
    """How far the head takes each pixel of the crop, (2, N, N), px, and where that counts, (N, N)."""
    first = scene.moment(0)
    flow, visible = motion(scene.subject, first, Moment(first.points, scene.pose(t), first.light, first.lamp))
    back = invert(anchor.transform)
    there = np.stack([carried(component, back) for component in flow])
    inside = ((anchor.regions & FACE) > 0) & (carried(visible.astype(np.float32), back) > 0.99)
    return np.einsum("ij,jhw->ihw", anchor.transform[:, :2], there), inside


def in_plane(error: Array, inside: Array) -> float:
    """Mean length of the similarity that comes nearest to an error (2, n) of motion at the pixels inside, px."""
    places = np.argwhere(inside)[:, ::-1].astype(np.float64)
    fitted = fit_similarity(places, places + error.T)
    return mean_length((places @ fitted[:, :2].T + fitted[:, 2] - places).T)


def mean_length(vectors: Array) -> float:
    """Mean length of vectors (2, n)."""
    return float(np.hypot(*vectors).mean())


# --- real video


def real_video() -> dict[str, Any]:
    """Outcomes of pairs of frames of real videos, by method; nothing where the videos are absent."""
    names = ("single_face.mp4", "no_face.mp4")
    if not all((VIDEOS / name).is_file() for name in names):
        print(f"real video is skipped: {' and '.join(names)} are not in {VIDEOS}", file=sys.stderr)
        return {}
    start()
    theirs, nobody = (video_frames(VIDEOS / name) for name in names)
    nobody = [cv2.resize(frame, theirs[0].shape[::-1], interpolation=cv2.INTER_AREA) for frame in nobody]
    anchor = anchored(theirs[0])
    if isinstance(anchor, str):
        raise RuntimeError(f"frame 0 of {names[0]} must show a face; got {anchor}. Check the video.")
    sets = {"the same face": theirs[1:], "no face": nobody[::NO_FACE_STEP]}
    return {name: {way: outcomes(anchor, frames, way) for way in WAYS} for name, frames in sets.items()}


def outcomes(anchor: Anchor, frames: list[Array], way: str) -> dict[str, Any]:
    """What became of frames of a video on one onset, as stored."""
    faces = [carry(anchor, grey(frame), way) for frame in frames]
    codes = Counter(face for face in faces if isinstance(face, str))
    starts = sum(face.landmark_start for face in faces if not isinstance(face, str))
    return {"frames": len(faces), "codes": dict(codes), "landmark_starts": starts}


def video_frames(file: Path) -> list[Array]:
    """Every frame of a video, (H, W) uint8."""
    with open_reel(file, file.name) as reel:
        return [
            np.asarray(np.rint(255 * images.grey(picture, 0)), np.uint8)
            for _, picture in reel.pictures(range(10**6), None)
        ]


# --- figures


def summary(found: list[Found]) -> dict[str, Any]:
    """Figures of each face, group and method, as stored."""
    figures: dict[str, Any] = {}
    for face, group, way in dict.fromkeys((one.face, one.group, one.way) for one in found):
        mine = [one for one in found if (one.face, one.group, one.way) == (face, group, way)]
        figures.setdefault(face, {}).setdefault(group, {})[way] = of_frames(mine)
    return figures


def of_frames(frames: list[Found]) -> dict[str, Any]:
    """Figures of some frames by one method."""
    codes = Counter(one.code for one in frames if one.code)
    accepted = [one for one in frames if not one.code]
    figures: dict[str, Any] = {"frames": len(frames), "codes": dict(sorted(codes.items())), "accepted": len(accepted)}
    if accepted and any(one.altogether_px for one in accepted):
        in_plane_px, altogether = (np.array([getattr(one, n) for one in accepted]) for n in Found._fields[4:6])
        figures |= {
            "in_plane_px": quantiles(in_plane_px),
            "too_far": int((in_plane_px > TOO_FAR_PX).sum()),
            "altogether_px": quantiles(altogether),
            "landmark_starts": sum(one.landmark_start for one in accepted),
        }
    return figures


def quantiles(values: Array) -> dict[str, float]:
    """Median, 95th percentile and largest."""
    percentiles = {"median": 50, "p95": 95, "largest": 100}
    return {name: round(float(np.percentile(values, share)), 3) for name, share in percentiles.items()}


# --- tables


def tables(results: dict[str, Any]) -> str:
    """All figures of a result as Markdown."""
    parts = []
    for face, by_group in results["faces"].items():
        parts += [f"### {face}: {TITLES[face]}", "", of_groups(by_group), ""]
        if hostile_groups := {name: one for name, one in by_group.items() if is_hostile(one)}:
            parts += ["Frames without the face:", "", of_hostile(hostile_groups), ""]
    if results["real_video"]:
        parts += ["### Real video", "", of_hostile(results["real_video"])]
    return "\n".join(parts).rstrip()


def is_hostile(group: dict[str, Any]) -> bool:
    """Whether no motion was measured in a group."""
    return not any("in_plane_px" in one for one in group.values())


def of_groups(by_group: dict[str, Any]) -> str:
    """A row for each group and method."""
    heads = ["group", "method", "frames", "lost", "in-plane error, px: median", "95 %", "largest"]
    rows = [[*heads, f"above {TOO_FAR_PX:g} px", "altogether, median", "95 %", "started from landmarks"]]
    for group, by_way in by_group.items():
        if is_hostile(by_way):
            continue
        for way, one in by_way.items():
            if not one["accepted"]:
                rows.append([group, f"`{way}`", str(one["frames"]), listed(one["codes"]), *["-"] * 7])
                continue
            plane, whole = ([f"{one[name][q]:.2f}" for q in one[name]] for name in ("in_plane_px", "altogether_px"))
            shares = [share(one[name], one["accepted"]) for name in ("too_far", "landmark_starts")]
            lost = listed(one["codes"])
            rows.append([group, f"`{way}`", str(one["frames"]), lost, *plane, shares[0], *whole[:2], shares[1]])
    return markdown(rows)


def of_hostile(by_group: dict[str, Any]) -> str:
    """A row for each kind of frame and method: how many failed, by code."""
    rows = [["frames", "method", "number", "failed"]]
    for group, by_way in by_group.items():
        rows += [[group, f"`{way}`", str(one["frames"]), listed(one["codes"])] for way, one in by_way.items()]
    return markdown(rows)


def listed(codes: dict[str, int]) -> str:
    """A cell: codes and how often each."""
    return ", ".join(f"{code} {count}" for code, count in codes.items()) or "0"


def share(count: int, of: int) -> str:
    """A cell: per cent."""
    return f"{100 * count / of:.1f} %"


def main() -> int:
    """Measure, print, store."""
    options = parsed(__doc__, "large_motion")
    if options.table:
        print(tables(json.loads(options.table.read_text(encoding="utf-8"))["results"]))
        return 0
    todo = list(tasks(options.faces, options.groups, options.people, options.subjects))
    results = judged(options, todo, start, measured, summary) | {"real_video": real_video()}
    print(tables(results))
    if options.out:
        machine.write(options.out, "large_motion", results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
