"""Clips made by hand whose class can be seen in their motion: as tensors, and as a folder of shards."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from flowkit.config import AlignConfig, ExtractConfig, ShardConfig
from flowkit.face.canonical_face import canonical_places
from flowkit.storage import commit, durable_files, hashed_json
from flowkit.storage.commit import RUN_FILE
from flowkit.storage.schema import ACTION_UNITS, SHARD_SCHEMA
from flowkit.storage.shard_writer import shard_image
from fmanet import checkpoint
from fmanet.dataset import Clips
from shard_builder import of_schema_2

SIZE = 28
LABELS = ("happiness", "surprise", "disgust")
"""Positive, surprise and negative in the grouping "3-class"."""
CLASSES = ("negative", "positive", "surprise")
CLASS_OF = {"happiness": "positive", "surprise": "surprise", "disgust": "negative"}


def rows_of(subjects: int, repeats: int, labels: Sequence[str] = LABELS) -> Iterator[tuple[str, str, str, int]]:
    """Clip id, subject, label and a number, for every clip."""
    number = 0
    for subject in range(subjects):
        for label in labels:
            for repeat in range(repeats):
                yield f"s{subject:02d}-{label}-{repeat}", f"s{subject:02d}", label, number
                number += 1


def motion(label: str, number: int, size: int = SIZE, noise: float = 0.05) -> npt.NDArray[np.float32]:
    """(2, 2, size, size): a bump whose place and direction say the class, with some noise; the fall runs backwards."""
    y, x = np.mgrid[:size, :size] / size
    place = (0.3, 0.5, 0.7)[LABELS.index(label)]
    bump = np.exp(-((x - place) ** 2 + (y - 0.6) ** 2) / (2 * 0.1**2))
    angle = 2 * math.pi * LABELS.index(label) / 3
    rise = np.stack([math.cos(angle) * bump, math.sin(angle) * bump])
    flow = np.stack([rise, -rise]) + np.random.default_rng(number).normal(0, noise, (2, 2, size, size))
    return flow.astype(np.float16).astype(np.float32)


def made_clips(subjects: int = 4, repeats: int = 2, *, size: int = SIZE, noise: float = 0.05) -> Clips:
    """`repeats` clips of each class by each subject."""
    rows = list(rows_of(subjects, repeats))
    flow = torch.from_numpy(np.stack([motion(label, number, size, noise) for *_, label, number in rows]))
    return Clips(
        flow,
        torch.ones(len(rows), 2, dtype=torch.bool),
        torch.ones(len(rows), size, size, dtype=torch.bool),
        torch.zeros(len(rows), 2, len(ACTION_UNITS)),
        torch.tensor([CLASSES.index(CLASS_OF[label]) for *_, label, _ in rows]),
        tuple(name for name, *_ in rows),
        tuple(f"casme2/{subject}" for _, subject, *_ in rows),
        ("casme2",) * len(rows),
        tuple(f"{number:032x}" for *_, number in rows),
        (False,) * len(rows),
        (False,) * len(rows),
        CLASSES,
        "px",
    )


def long_face(size: int, longer: float = 0.1) -> npt.NDArray[np.float32]:
    """Landmarks in a crop of a face that is longer below the eyes than the canonical one."""
    places = canonical_places()
    places[:, 1] += longer * np.maximum(places[:, 1] - 0.3, 0)
    return np.concatenate([places * size - 0.5, np.full((10, 2), np.nan)]).astype(np.float32)


def made_shards(
    out: Path,
    *,
    subjects: int = 4,
    repeats: int = 1,
    dataset: str = "casme2",
    labels: Sequence[str] = LABELS,
    size: int = 32,
    noise: float = 0.05,
    method: Literal["mediapipe", "none"] = "none",
    stabilise: Literal["head", "similarity", "affine", "register", "none"] = "similarity",
    landmarks: Mapping[int, npt.NDArray[np.float32]] | None = None,
    hints: Mapping[int, npt.NDArray[np.float64]] | None = None,
    units: Mapping[str, str] | None = None,
) -> Path:
    """A folder as `flowkit extract` leaves it, with one shard.

    Clips that `landmarks` names by number have some, and those that `hints` names have these strengths of action units. Clips of
    labels that `units` names have this text in their manifest's column `action_units`.
    """
    config = ExtractConfig(
        align=AlignConfig(method=method, size=size, stabilise=stabilise), shard=ShardConfig(clips=4096), backend="cpu"
    )
    run = {
        "schema": hashed_json.SCHEMA,
        "shard_schema": SHARD_SCHEMA,
        "fingerprint": config.fingerprint(),
        "settings": config.to_dict(),
        "backend": "cpu",
        "versions": {"flowkit": "0.2.0"},
        "machine": {"processor": "a processor"},
    }
    commit.probe(out)
    durable_files.publish_file(out / RUN_FILE, hashed_json.encode(run))
    samples = [_sample(dataset, *row, size, noise) for row in rows_of(subjects, repeats, labels)]
    for name, given in (("landmarks", landmarks), ("au_hint", hints)):
        for number, values in (given or {}).items():
            samples[number] = {**samples[number], name: values}
    for sample in samples:
        if sample["label"] in (units or {}):
            sample["extra"] = json.dumps({"action_units": (units or {})[sample["label"]]})
    names = ("clip_id", "dataset", "subject", "label", "source_hash", "qc")
    content = {
        "key": "made by hand",
        "host": "here",
        "began": 1.0e9,
        "ended": 1.0e9 + 60,
        "clips": [
            {**{name: sample[name] for name in names}, "row": sample["clip_id"], "phase_valid": [True, True]}
            for sample in samples
        ],
        "failures": [],
    }
    commit.publish(out, 0, shard_image(samples, config.to_dict()), content)
    return out


def made_checkpoint(folder: Path, state: Mapping[str, Any], content: Mapping[str, Any]) -> Path:
    """Weights as a run commits them, and beside them the JSON that names them; where that lies."""
    weights = durable_files.publish_hashed(folder, "network-{}.safetensors", checkpoint.encode_weights(dict(state)))
    path = folder / "network.json"
    durable_files.publish_file(path, hashed_json.encode({"schema": hashed_json.SCHEMA, **content, "weights": weights}))
    return path


def _sample(dataset: str, name: str, subject: str, label: str, number: int, size: int, noise: float) -> dict[str, Any]:
    identity = np.eye(2, 3)
    return {
        "flow": motion(label if label in LABELS else LABELS[0], number, size, noise).astype(np.float16),
        "mmcof": np.zeros((3, size, size), np.float16),
        "regions": np.ones((size, size), np.uint8),
        "clip_id": f"{dataset}-{name}",
        "dataset": dataset,
        "subject": subject,
        "label": label,
        "onset": 10,
        "apex": 20,
        "offset": 30,
        "apex_source": "annotated",
        "fps": 200.0,
        "phase_valid": np.array([True, True]),
        "qc": 0,
        "n_faces": 1,
        "transform": identity,
        "registration": np.stack([identity, identity]),
        "light": np.array([[1.0, 0.0], [1.0, 0.0]]),
        "removed": np.zeros((2, 2, 3)),
        "residual": np.zeros(2),
        **of_schema_2(number),
        "landmarks": np.full((478, 2), np.nan),
        "source_hash": f"{dataset}{number:020x}",
        "extra": "{}",
    }
