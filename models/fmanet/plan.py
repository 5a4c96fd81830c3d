"""What a run trains, decided once and kept: folds, seeds, and which networks are trained together.

Published as folds.json before the first training; a run that is taken up again must come to the same plan.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowkit.errors import ShardCorrupt
from flowkit.storage import durable_files, hashed_json
from flowkit.storage.safe_files import NotRegular, read_regular
from fmanet.errors import TrainingImpossible
from fmanet.protocol import Fold, split
from fmanet.settings import RunSettings

if TYPE_CHECKING:  # who reads a run needs no torch
    from fmanet.dataset import Clips

PLAN_FILE = "folds.json"


@dataclass(frozen=True, slots=True)
class Member:
    """One network to train: a fold, by its number, and a seed."""

    fold: int
    seed: int


@dataclass(frozen=True, slots=True)
class PlannedFold:
    """A fold as people and the disk know it.

    Attributes
    ----------
    name : str
        Also of its folder under `folds/`.
    held_out : tuple of str
        Subjects, sorted.
    train_clips : int
    test : tuple of str
        Ids of the held-out clips.
    """

    name: str
    held_out: tuple[str, ...]
    train_clips: int
    test: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """Folds, and groups of networks that are trained, committed and, if need be, started again together."""

    folds: tuple[PlannedFold, ...]
    groups: tuple[tuple[Member, ...], ...]

    @property
    def members(self) -> list[Member]:
        """Every network, by seed, then by fold."""
        found = [member for group in self.groups for member in group]
        return sorted(found, key=lambda member: (member.seed, member.fold))

    @property
    def seeds(self) -> list[int]:
        """Each seed once."""
        return sorted({member.seed for member in self.members})

    def title(self, member: Member) -> str:
        """How a network is called in messages."""
        return f"{self.folds[member.fold].name}, seed {member.seed}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        folds = [
            {
                "name": fold.name,
                "held_out": list(fold.held_out),
                "train_clips": fold.train_clips,
                "test": list(fold.test),
            }
            for fold in self.folds
        ]
        groups = [[[member.fold, member.seed] for member in group] for group in self.groups]
        return {"schema": hashed_json.SCHEMA, "folds": folds, "groups": groups}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Plan:
        """What `to_dict` gave."""
        folds = tuple(
            PlannedFold(fold["name"], tuple(fold["held_out"]), fold["train_clips"], tuple(fold["test"]))
            for fold in values["folds"]
        )
        return cls(folds, tuple(tuple(Member(*member) for member in group) for group in values["groups"]))


def make_plan(clips: Clips, folds: list[Fold], settings: RunSettings) -> Plan:
    """The plan of a run.

    Parameters
    ----------
    clips : Clips
    folds : list of Fold
        Of the protocol, over these clips.
    settings : RunSettings

    Raises
    ------
    TrainingImpossible
        A class would have no clip to train on in some fold, or none to be tested on in all folds together; or no training clip of a
        fold has a valid phase that the network looks at.
    LeakError
        Something would be on both sides.
    """
    names_only = replace(clips, flow=clips.flow[:, :0], region=clips.region[:, :0])
    for fold in folds:
        split(names_only, fold)  # all that can be wrong with a fold is found before the first is trained
    if not settings.is_final:
        _refuse_unscorable(clips, folds)
    _refuse_blind(clips, folds, settings.network.inputs)
    planned = tuple(
        PlannedFold(
            fold.name,
            tuple(sorted(fold.held_out)),
            len(fold.train),
            tuple(clips.clip_id[row] for row in fold.test),
        )
        for fold in folds
    )
    members = [Member(fold, seed) for seed in range(settings.seeds) for fold in range(len(folds))]
    steps = [settings.train.steps_an_epoch(planned[member.fold].train_clips) for member in members]
    groups = grouped(steps, settings.train.stack)
    return Plan(planned, tuple(tuple(members[position] for position in group) for group in groups))


def grouped(steps: Sequence[int], stack: int) -> list[tuple[int, ...]]:
    """Which networks are trained together: at most `stack`, all with equally many steps an epoch.

    Parameters
    ----------
    steps : sequence of int
        Steps an epoch of each network.
    stack : int

    Returns
    -------
    list of tuple of int
        Positions in `steps`, each once.
    """
    groups = []
    for count in sorted(set(steps)):
        alike = [position for position, own in enumerate(steps) if own == count]
        groups += [tuple(alike[begin : begin + stack]) for begin in range(0, len(alike), stack)]
    return sorted(groups)


def member_keys(plan: Plan, fingerprint: str, digest: str) -> dict[Member, str]:
    """By network: a hash of all that decides its result, and of which networks it is trained with."""
    keys = {}
    for group in plan.groups:
        company = [(plan.folds[member.fold].name, member.seed) for member in group]
        for member in group:
            fold = plan.folds[member.fold]
            parts = repr((fingerprint, digest, company, fold.name, fold.held_out, fold.test, member.seed))
            keys[member] = hashlib.sha256(parts.encode()).hexdigest()[:16]
    return keys


def freeze(out: Path, plan: Plan) -> None:
    """Publish the plan, or find it published already.

    Raises
    ------
    ShardCorrupt
        The folder has another plan, or a damaged one.
    DiskFull
    """
    if not durable_files.publish_file(out / PLAN_FILE, hashed_json.encode(plan.to_dict())) and read_plan(out) != plan:
        raise ShardCorrupt(
            f"{out / PLAN_FILE}: plan must be that of this run; got another, though settings and clips are the same. Restore "
            "it from a copy, or begin anew with --overwrite."
        )


def read_plan(out: Path) -> Plan | None:
    """The plan of a run folder, or None where there is none.

    Raises
    ------
    ShardCorrupt
    """
    path = out / PLAN_FILE
    try:
        content = hashed_json.decode(read_regular(path))
    except FileNotFoundError:
        return None
    except NotRegular:
        content = None
    if content is None:
        raise ShardCorrupt(f"{path}: plan must be as it was written; got something else. Restore it from a copy.")
    try:
        plan = Plan.from_dict(content)
        whole = all(_is_name(plan.folds[member.fold].name) for member in plan.members)
    except (KeyError, IndexError, TypeError, ValueError):
        whole = False
    if not whole:
        raise ShardCorrupt(f"{path}: plan must be one of fmanet train; got another form. Do not trust this folder.")
    return plan


def _is_name(name: str) -> bool:
    """Whether a fold of that name has a folder of its own, and not one elsewhere."""
    return re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*", name) is not None


def _refuse_blind(clips: Clips, folds: list[Fold], inputs: str) -> None:
    seen = {"rise": [0], "fall": [1]}.get(inputs, [0, 1])
    able = clips.valid[:, seen].any(1).tolist()
    for fold in folds:
        if not any(able[row] for row in fold.train):
            raise TrainingImpossible(
                f"fold {fold.name}: a training clip must have a valid phase that the network sees; got none of {len(fold.train)}, "
                f"with network.inputs {inputs!r}. Look at phase_valid and qc of the shards."
            )


def _refuse_unscorable(clips: Clips, folds: list[Fold]) -> None:
    if absent := clips.lacking([row for fold in folds for row in fold.test]):
        raise TrainingImpossible(
            f"folds: held-out clips must have each class, or UF1 and UAR mean nothing; got none of {', '.join(absent)}. Hold out "
            "more subjects, or choose other --classes."
        )
