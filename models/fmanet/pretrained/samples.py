"""Samples of `flowkit synth --level flow` as clips that a network is trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from flowkit.errors import ConfigError
from flowkit.storage.sample_reader import SampleFile, each_sample_file
from flowkit.storage.schema import ACTION_UNITS
from fmanet.dataset import Clips
from fmanet.seen_flow import seen_flow

DATASET: Final = "synth"
TENSORS: Final = ("flow", "valid", "region", "action_units", "target")
TEXTS: Final = ("clip_id", "subject", "dataset", "source_hash", "carried", "with_action_units")
"""What `Clips` holds of each clip."""
SAME: Final = ("units", "classes", "stands_for")
"""What all samples must have in common."""


@dataclass(frozen=True, slots=True)
class Samples:
    """Samples in memory.

    Attributes
    ----------
    clips : Clips
        On the canonical face where they have landmarks; action units unknown: those of samples are exact, unlike those of shards.
    synth : list of mapping
        Settings of `flowkit synth` of each folder.
    stands_for : mapping
        Settings of the shards whose flow they are like.
    """

    clips: Clips
    synth: list[Mapping[str, Any]]
    stands_for: Mapping[str, Any]


def load_samples(folders: Sequence[Path], size: int) -> Samples:
    """Read folders of samples, file by file.

    Parameters
    ----------
    folders : sequence of Path
        Of different seeds: with one seed they would hold the same people.
    size : int
        Side to which flow is resized, in pixels.

    Returns
    -------
    Samples

    Raises
    ------
    ConfigError
        No folder, folders of different units or the same seed.
    ShardCorrupt
    """
    parts: list[Clips] = []
    synth: list[Mapping[str, Any]] = []
    first: SampleFile | None = None
    for folder in folders:
        for number, file in enumerate(each_sample_file(folder)):
            first = first or file
            _refuse_others(first, file)
            if number == 0:
                synth.append(file.facts["settings"])
            parts.append(_clips(file, size))
    if first is None:
        raise ConfigError("pretrain: SAMPLES must name a folder of flowkit synth --level flow; got none. Give one.")
    seeds = [one["seed"] for one in synth]
    if len(set(seeds)) < len(seeds):
        raise ConfigError(
            f"pretrain: folders of samples must have different seeds, or they hold the same people; got {seeds}. Make one of them "
            "again with another --seed."
        )
    return Samples(_joined(parts), synth, first.facts["stands_for"])


def _refuse_others(first: SampleFile, file: SampleFile) -> None:
    for name in SAME:
        if file.facts[name] != first.facts[name]:
            raise ConfigError(
                f"{file.path}: samples must have the {name} of {first.path}; got {file.facts[name]} and {first.facts[name]}. "
                "Pretrain on flow and on pictures separately."
            )


def _clips(file: SampleFile, size: int) -> Clips:
    columns, count = file.columns, len(file.columns["seed"])
    flow = torch.from_numpy(columns["flow"].astype(np.float32))
    side, places = flow.shape[-1], None
    if "landmarks" in columns:
        region = torch.from_numpy(columns["region"])
        places = [(landmarks, np.eye(2, 3)) for landmarks in columns["landmarks"]]
    else:
        region = torch.ones(count, side, side, dtype=torch.bool)
    moved, inside, carried = seen_flow(flow, region, places, size, file.facts["units"])
    seed = file.facts["settings"]["seed"]
    return Clips(
        moved,
        torch.ones(count, 2, dtype=torch.bool),
        inside,
        torch.zeros(count, 2, len(ACTION_UNITS)),
        torch.from_numpy(columns["class"].astype(np.int64)),
        clip_id=tuple(f"{own:016x}" for own in columns["seed"].tolist()),
        subject=tuple(f"{DATASET}/{seed}-{person}" for person in columns["subject"].tolist()),
        dataset=(DATASET,) * count,
        source_hash=tuple(f"{own:032x}" for own in columns["seed"].tolist()),
        carried=tuple(carried),
        with_action_units=(False,) * count,
        classes=file.facts["classes"],
        units=file.facts["units"],
    )


def _joined(parts: Sequence[Clips]) -> Clips:
    if len(parts) == 1:
        return parts[0]
    joined: dict[str, Any] = {name: torch.cat([getattr(part, name) for part in parts]) for name in TENSORS}
    joined |= {name: tuple(one for part in parts for one in getattr(part, name)) for name in TEXTS}
    return replace(parts[0], **joined)
