"""A small, valid output folder, made by hand: what extract leaves behind, with motion that the test knows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from flowkit.config import AlignConfig, ExtractConfig, FrameConfig, ShardConfig
from flowkit.errors import FailureCode
from flowkit.extraction.plan import Task, make_plan
from flowkit.inputs.clip import Clip
from flowkit.storage import commit, durable_files, hashed_json
from flowkit.storage.commit import RUN_FILE
from flowkit.storage.generations import publish_generation
from flowkit.storage.index import finalise
from flowkit.storage.quality import Flag
from flowkit.storage.schema import ACTION_UNITS, DEPTH_MODES, SHARD_SCHEMA, Sample
from flowkit.storage.shard_writer import shard_image

DATASETS = ("alpha", "beta")
LABELS = ("happiness", "surprise", "disgust")
PEAK_PX = 1.0
FAILED_CODES = (FailureCode.FACE_NOT_FOUND, FailureCode.FRAME_MISSING)


def build_folder(
    out: Path,
    *,
    clips: int = 3,
    size: int = 32,
    failures: int = 1,
    shard_clips: int = 2,
    keep_faces: bool = False,
    labels: Sequence[str] = LABELS,
    datasets: Sequence[str] = DATASETS,
    prefix: str = "clip",
    clip_ids: Sequence[str] = (),
    landmarks: Mapping[int, npt.NDArray[np.float32]] | None = None,
    hints: Mapping[int, npt.NDArray[np.float64]] | None = None,
) -> Path:
    """Plan, run.json, shards, commit records, index and failures.csv of `clips` good and `failures` failed clips.

    Clip i (`clip-000` ..., or with another prefix, or as `clip_ids` says) moves towards `direction(i)`, by PEAK_PX at the mouth.
    Clip 1 has no offset (invalid fall); clip 2 has two faces and a residual of 1.5 px. Failed clips are `fail-000` ..., with the
    codes of FAILED_CODES in turn. Clips that `landmarks` names by number have some,
    and those that `hints` names have these strengths of action units.
    """
    config = ExtractConfig(
        frames=FrameConfig(missing_offset="invalid"),
        align=AlignConfig(method="none", size=size),
        shard=ShardConfig(clips=shard_clips, keep_faces=keep_faces),
        backend="cpu",
    )
    settings = config.to_dict()
    run = {
        "schema": hashed_json.SCHEMA,
        "shard_schema": SHARD_SCHEMA,
        "fingerprint": config.fingerprint(),
        "settings": settings,
        "backend": config.backend,
        "versions": {"flowkit": "0.2.0", "python": "3.11.2", "numpy": "2.4.6"},
        "machine": {"processor": "a processor", "system": "Linux"},
    }
    commit.probe(out)
    durable_files.publish_file(out / RUN_FILE, hashed_json.encode(run))
    names = clip_ids or [f"{prefix}-{i:03d}" for i in range(clips)]
    good = [_clip(name, i, labels, datasets) for i, name in enumerate(names)]
    bad = [_clip(f"fail-{i:03d}", i, labels, datasets) for i in range(failures)]
    plan = make_plan([*good, *bad], [], [], fingerprint=config.fingerprint(), shard_clips=shard_clips)
    if plan.new is not None:
        publish_generation(out, plan.new)
    samples = {clip.clip_id: _sample(clip, i, size, keep_faces) for i, clip in enumerate(good)}
    for name, given in (("landmarks", landmarks), ("au_hint", hints)):
        for i, values in (given or {}).items():
            samples[good[i].clip_id] = {**samples[good[i].clip_id], name: values}
    for task in plan.pending:
        _publish(out, task, samples, settings)
    finalise(out)
    return out


def direction(clip: int) -> float:
    """Angle of the rise of a clip: 0 right, a quarter turn down."""
    return clip * math.pi / 4


def true_flow(clip: int, size: int) -> npt.NDArray[np.float32]:
    """(2, 2, size, size): a bump at the mouth that rises and falls back; no fall in clip 1."""
    y, x = np.mgrid[:size, :size] / size
    bump = PEAK_PX * np.exp(-((x - 0.5) ** 2 + (y - 0.75) ** 2) / (2 * 0.1**2))
    rise = np.stack([math.cos(direction(clip)) * bump, math.sin(direction(clip)) * bump])
    return np.stack([rise, 0 * rise if clip == 1 else -rise]).astype(np.float32)


def _clip(name: str, number: int, labels: Sequence[str], datasets: Sequence[str]) -> Clip:
    return Clip(
        clip_id=name,
        path=f"{name}.mp4",
        onset=10,
        apex=20,
        offset=None if number == 1 else 30,
        subject=f"s{number // 2:02d}",
        dataset=datasets[number % len(datasets)],
        label=labels[number % len(labels)],
    )


def _sample(clip: Clip, number: int, size: int, keep_faces: bool) -> Sample:
    flow = true_flow(number, size)
    bump = np.hypot(*flow[0]) / PEAK_PX
    identity = np.eye(2, 3)
    drifted = np.array([[1, 0, 0.3], [0, 1, 0.4]])
    sample = {
        "flow": flow.astype(np.float16),
        "mmcof": np.stack([*(flow[0] / PEAK_PX), bump]).astype(np.float16),
        "regions": _regions(size),
        "clip_id": clip.clip_id,
        "dataset": clip.dataset,
        "subject": clip.subject,
        "label": clip.label,
        "onset": clip.onset,
        "apex": clip.apex,
        "offset": -1 if clip.offset is None else clip.offset,
        "apex_source": "annotated",
        "fps": clip.fps,
        "phase_valid": np.array([True, clip.offset is not None]),
        "qc": int(Flag.RESIDUAL | Flag.MANY_FACES if number == 2 else 0),
        "n_faces": 2 if number == 2 else 1,
        "transform": identity,
        "registration": np.stack([identity, drifted]),
        "light": np.array([[1.0, 0.0], [1.0, 0.0]]),
        "removed": np.zeros((2, 2, 3)),
        "residual": np.array([1.5, 0.2] if number == 2 else [0.1, 0.05]),
        **of_schema_2(number),
        "landmarks": np.full((478, 2), np.nan),
        "source_hash": f"{number:032x}",
        "extra": "{}",
    }
    return {**sample, "faces": _faces(size)} if keep_faces else sample


def of_schema_2(number: int) -> dict[str, Any]:
    """Values, other ones for each clip, of the columns that shards of version 0.1 do not have."""
    return {
        "turn": np.array([[0.5, -0.25], [0.0, 0.125]]) * number,
        "removed_turn": np.array([[0.1, -0.2], [0.3, 0.4]]) * number,
        "depth": np.full((2, DEPTH_MODES), 0.1),
        "separation": np.array([0.05, 0.07]) * number,
        "au_hint": np.linspace(0, 0.1 * number, 2 * len(ACTION_UNITS)).reshape(2, -1),
        "noise": 0.5 + number,
        "contrast": 40.0 + number,
        "data_weight": 1.0 + number / 8,
        "frames_averaged": np.array([1, 3, number % 7]),
        "neighbours_hash": f"{number:032x}",
    }


def _regions(size: int) -> npt.NDArray[np.uint8]:
    """The face: an ellipse; its upper half holds still."""
    y, x = np.mgrid[:size, :size] / size
    face = ((x - 0.5) / 0.38) ** 2 + ((y - 0.52) / 0.46) ** 2 < 1
    return face.astype(np.uint8) | (2 * (face & (y < 0.5))).astype(np.uint8)


def _faces(size: int) -> npt.NDArray[np.float16]:
    with resources.files("flowkit.assets").joinpath("face.png").open("rb") as file:
        grey = Image.open(file).convert("L").resize((size, size))
    return np.repeat(np.asarray(grey, np.float32)[None] / 255, 3, axis=0).astype(np.float16)


def _publish(out: Path, task: Task, samples: Mapping[str, Sample], settings: Mapping[str, Any]) -> None:
    good = [clip for clip in task.clips if clip.clip_id in samples]
    bad = [clip for clip in task.clips if clip.clip_id not in samples]
    image = shard_image([samples[clip.clip_id] for clip in good], settings) if good else None
    content = {"key": task.key, "host": "here", "began": 1.0e9, "ended": 1.0e9 + 60}
    content["clips"] = [_committed(clip, samples[clip.clip_id]) for clip in good]
    content["failures"] = [_failed(clip) for clip in bad]
    commit.publish(out, task.index, image, content)


def _committed(clip: Clip, sample: Sample) -> dict[str, Any]:
    return {
        **{name: sample[name] for name in ("clip_id", "dataset", "subject", "label", "source_hash", "qc")},
        "row": clip.row_hash(),
        "phase_valid": [bool(valid) for valid in sample["phase_valid"]],
    }


def _failed(clip: Clip) -> dict[str, Any]:
    code = FAILED_CODES[int(clip.clip_id.split("-")[1]) % len(FAILED_CODES)]
    message = f"{clip.clip_id}: frame must show what it should; got something else. Look at it."
    return {
        "clip_id": clip.clip_id,
        "row": clip.row_hash(),
        "code": str(code),
        "message": message,
        "path": clip.path,
        "host": "here",
    }
