"""What a worker process does: load the clips once, then train, predict and commit one group of networks after the other."""

from __future__ import annotations

import hashlib
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from flowkit.errors import EnvironmentMissing, ShardCorrupt
from fmanet import checkpoint, run_folder
from fmanet.batches import derived_seed
from fmanet.building import State, build_network, load_weights
from fmanet.dataset import Clips, ShardDataset
from fmanet.flow_origin import alignments
from fmanet.networks import Network, adopt
from fmanet.own_networks.guard import Memory, unopened
from fmanet.own_networks.probing import is_own
from fmanet.plan import Member, Plan, member_keys
from fmanet.protocol import Fold, cross, everybody, holdout, loso, split
from fmanet.scoring.prediction_table import prediction_rows, table_bytes
from fmanet.settings import Face, ProtocolSettings, RunSettings, TrainSettings
from fmanet.stacked_training import train_together
from fmanet.training import OnEpoch, Trained, predict, train


@dataclass(frozen=True, slots=True)
class ClipSource:
    """Where clips come from, and what `ShardDataset` is told of them; size 0 stands for that of the folders."""

    folders: tuple[Path, ...]
    classes: str
    size: int = 0
    face: Face = "canonical"
    mixed_alignment: bool = False

    def anywhere(self) -> ClipSource:
        """The same, with folders that hold in any working directory."""
        return replace(self, folders=tuple(path.absolute() for path in self.folders))

    def load(self, *, verify: bool = True) -> Clips:
        """Every clip, in an order that does not depend on that of the folders.

        Raises
        ------
        ConfigError, ShardCorrupt
        """
        clips = ShardDataset(
            self.folders,
            self.classes,
            size=self.size or None,
            face=self.face,
            in_memory=True,
            verify=verify,
            mixed_alignment=self.mixed_alignment,
        ).clips()
        keys = list(zip(clips.dataset, clips.subject, clips.clip_id, strict=True))
        return clips.select(sorted(range(len(clips)), key=keys.__getitem__))


@dataclass(frozen=True, slots=True)
class Job:
    """All that the workers of a run share; `network` is what they need to know of a network that is not flowkit's."""

    out: Path
    source: ClipSource
    settings: RunSettings
    network: Network
    plan: Plan
    digest: str


def clips_digest(clips: Clips) -> str:
    """16 hex digits over everything that training and scoring see of the clips."""
    digest = hashlib.sha256(repr((clips.clip_id, clips.subject, clips.classes, clips.units)).encode())
    for tensor in (clips.flow, clips.valid, clips.region, clips.action_units, clips.target):
        digest.update(np.ascontiguousarray(tensor.numpy()).data)
    return digest.hexdigest()[:16]


def folds_of(protocol: ProtocolSettings, clips: Clips) -> list[Fold]:
    """The folds that the protocol makes of the clips.

    Raises
    ------
    TrainingImpossible, ConfigError
    """
    if protocol.name == "holdout":
        return holdout(clips, protocol.hold_out)
    if protocol.name == "cross":
        return cross(clips, protocol.train_on, protocol.test_on)
    return everybody(clips) if protocol.name == "final" else loso(clips)


@contextmanager
def trainer(job: Job) -> Iterator[Callable[[int], None]]:
    """Life of a worker: clips are read once; each item is the number of a group."""
    adopt(job.network)
    check_device(job.settings.train)  # on a cluster this machine is not the one that the command was given on
    clips = job.source.load(verify=False)  # the parent compared every file with its hash
    if clips_digest(clips) != job.digest:
        raise ShardCorrupt("shards: clips must stay as they are during a run; got others. Run the same command again.")
    folds = folds_of(job.settings.protocol, clips)
    memory = Memory(job.settings.network, clips) if is_own(job.network) else None
    yield lambda group: _train_group(job, clips, folds, job.plan.groups[group], memory)


def _train_group(job: Job, clips: Clips, folds: Sequence[Fold], group: Sequence[Member], memory: Memory | None) -> None:
    keys = member_keys(job.plan, job.settings.fingerprint(), job.digest)
    if all(run_folder.read_record(job.out, job.plan, member, keys[member]) for member in group):
        return
    parts = [split(clips, folds[member.fold]) for member in group]
    watchers = [_Watcher(job.settings, test) if job.settings.keep_epochs else None for _, test in parts]
    if memory is not None:
        memory.check(job.plan.folds[group[0].fold].name)
    begin = time.perf_counter()
    for trained, member, watcher, (_, test) in zip(
        _trained(job, group, [own for own, _ in parts], watchers), group, watchers, parts, strict=True
    ):
        _commit(job, member, keys[member], trained, test, watcher, time.perf_counter() - begin)


def _trained(
    job: Job, group: Sequence[Member], clips: Sequence[Clips], watchers: Sequence[OnEpoch | None]
) -> list[Trained]:
    """The networks of a group; nothing held out comes this way, but what the watchers keep to themselves."""
    network, settings = job.settings.network, job.settings.train
    for member in group:
        run_folder.die_here(job.plan.folds[member.fold].name, "training")
    seeds = [derived_seed(member.seed, job.plan.folds[member.fold].name) for member in group]
    with _guarded(job):
        if len(group) == 1:
            return [train(clips[0], network, settings, seeds[0], on_epoch=watchers[0])]
        told = {position: watcher for position, watcher in enumerate(watchers) if watcher is not None}
        return train_together(clips, network, settings, seeds, on_epoch=told)


def _guarded(job: Job) -> AbstractContextManager[None]:
    """Where a network that is not flowkit's computes: the shards cannot be opened there."""
    return unopened(job.source.folders, job.network.name) if is_own(job.network) else nullcontext()


class _Watcher:
    """Writes down what each epoch predicts of the held-out clips; training gives it a copy and gets nothing back."""

    def __init__(self, settings: RunSettings, test: Clips) -> None:
        self._settings, self._test = settings, test
        self.rows: list[list[object]] = []

    def __call__(self, epoch: int, state: State) -> None:
        probabilities = _predicted(self._settings, state, self._test)
        names = zip(self._test.clip_id, self._test.subject, self._test.dataset, strict=True)
        self.rows += [[epoch, *name, *row] for name, row in zip(names, probabilities.tolist(), strict=True)]


def _predicted(settings: RunSettings, state: State, clips: Clips) -> npt.NDArray[np.float64]:
    model = build_network(settings.network, 0)
    load_weights(model, state)
    return predict(model, clips, settings.train)


def _commit(
    job: Job, member: Member, key: str, trained: Trained, test: Clips, watcher: _Watcher | None, seconds: float
) -> None:
    fold = job.plan.folds[member.fold]
    files = {
        "weights": (".safetensors", checkpoint.encode_weights(trained.state)),
        "log": (".log.csv", run_folder.log_table(trained.log)),
    }
    if len(test):
        with _guarded(job):
            probabilities = _predicted(job.settings, trained.state, test)
        rows = prediction_rows(test, probabilities, fold.name, member.seed)
        files[run_folder.PREDICTED] = (".csv", table_bytes(rows, test.classes))
    if watcher is not None:
        files["every_epoch"] = (
            ".epochs.csv",
            run_folder.table([*run_folder.EPOCH_COLUMNS, *test.classes], watcher.rows),
        )
    content = {
        "key": key,
        "fold": fold.name,
        "seed": member.seed,
        "held_out": list(fold.held_out),
        "network": job.settings.network.to_dict(),
        "grouping": job.settings.classes,
        "classes": list(test.classes),
        "units": test.units,
        "size": test.flow.shape[-1],
        "face": job.settings.face,
        "alignment": alignments(job.source.folders),
        "flip_test": job.settings.train.flip_test,
        "epochs": trained.epochs,
        "seconds": round(seconds, 3),
        "host": platform.node(),
        "device": device_facts(job.settings.train),
    }
    run_folder.commit_fold(job.out, job.plan, member, files, content)


def check_device(settings: TrainSettings) -> None:
    """Find what trains.

    Raises
    ------
    EnvironmentMissing
    """
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise EnvironmentMissing(
            f"train: --device cuda must find a GPU that PyTorch can use; got none on {platform.node()}. Install a PyTorch for its "
            "driver, or pass --device cpu."
        )


def device_facts(settings: TrainSettings) -> dict[str, Any]:
    """What decides the last bits of a result besides the settings."""
    facts: dict[str, Any] = {"device": settings.device, "threads": settings.threads}
    if settings.device == "cuda":
        facts["name"] = torch.cuda.get_device_name()
        facts["tf32"] = torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32
    return facts
