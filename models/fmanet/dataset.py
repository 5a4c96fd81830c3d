"""Shards as training sees them: flow, valid phases, region and class of each clip, from several folders at once.

`ShardDataset` finds out what there is from the commit records, checks every file's hash once, and reads flow when it is asked
for it: clip by clip, in any process, or all at once into memory (`clips`), which is what training uses.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from flowkit.errors import ConfigError, ShardCorrupt
from flowkit.labels.action_units import one_word
from flowkit.labels.groupings import dataset_name
from flowkit.storage.commit import Record
from flowkit.storage.folder import ShardFolder
from flowkit.storage.schema import ACTION_UNITS, FACE
from flowkit.storage.shard_checks import verify_file
from flowkit.storage.shard_reader import Shard
from fmanet.clip_classes import Target, sorted_clips
from fmanet.flow_origin import refuse_mixed
from fmanet.seen_flow import Units, seen_flow
from fmanet.settings import Face

MIN_SIZE, MAX_SIZE = 8, 2048
STRONGEST_CM: Final = 100.0
"""No face moves as far: an action unit that is said to be stronger is taken as that strong."""
UNLABELLED: Final = -1
"""Target of clips that were loaded without a class grouping."""


@dataclass(frozen=True, eq=False)
class Clips:
    """Clips in memory: everything that training sees.

    Attributes
    ----------
    flow : (N, 2, 2, H, W) float32
        Phases rise and fall, components u (right) and v (down), in `units`; zero where a phase is invalid.
    valid : (N, 2) bool
        Rise, fall.
    region : (N, H, W) bool
        Inside the face.
    action_units : (N, 2, U) float32
        Strength of each of the ACTION_UNITS at the apex and at the offset, cm (shards' `au_hint`); 0 where unknown.
    target : (N,) int64
        Index into `classes`; `UNLABELLED` where there are none. Where the classes are action units (`multi_label`), (N, C) int64:
        1 for each that the clip shows.
    clip_id, subject, dataset, source_hash : tuple of str
        One a clip; `subject` is "dataset/subject", so that no two people share a name.
    carried : tuple of bool
        Whether the flow lies on the canonical face; else on the clip's own.
    with_action_units : tuple of bool
        Whether the strengths of action units are known.
    classes : tuple of str
    units : {"px", "minmax"}
    left_out : dict of str to int
        How many clips the classes leave out, as "dataset/label", and action units that are no target: count.
    """

    flow: Tensor
    valid: Tensor
    region: Tensor
    action_units: Tensor
    target: Tensor
    clip_id: tuple[str, ...]
    subject: tuple[str, ...]
    dataset: tuple[str, ...]
    source_hash: tuple[str, ...]
    carried: tuple[bool, ...]
    with_action_units: tuple[bool, ...]
    classes: tuple[str, ...]
    units: Units
    left_out: dict[str, int] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.clip_id)

    @property
    def multi_label(self) -> bool:
        """Whether a clip may be of several classes, which are action units then, or of none."""
        return self.target.ndim == 2

    def class_counts(self, rows: Sequence[int] | None = None) -> dict[str, int]:
        """How many of these rows, or of all, are of each class."""
        target = self.target.cpu() if rows is None else self.target.cpu()[list(rows)]
        if self.multi_label:
            return dict(zip(self.classes, target.sum(0).tolist(), strict=True))
        return dict(zip(self.classes, torch.bincount(target, minlength=len(self.classes)).tolist(), strict=True))

    def lacking(self, rows: Sequence[int] | None = None) -> list[str]:
        """Classes that cannot be learned or scored on these rows: none is of them; of action units, also: all are."""
        count = len(self) if rows is None else len(rows)
        found = self.class_counts(rows).items()
        return [name for name, own in found if not own or (self.multi_label and own == count)]

    def truth(self, row: int) -> str:
        """What a clip is: its class, or its action units in one word."""
        if self.multi_label:
            return one_word([self.classes[number] for number in self.target[row].nonzero()[:, 0].tolist()])
        return self.classes[int(self.target[row])]

    def select(self, rows: Sequence[int]) -> Clips:
        """The clips of these rows, in this order, as a copy."""
        index = torch.as_tensor(list(rows), dtype=torch.int64, device=self.flow.device)
        return dataclasses.replace(
            self,
            flow=self.flow[index],
            valid=self.valid[index],
            region=self.region[index],
            action_units=self.action_units[index],
            target=self.target[index],
            clip_id=tuple(self.clip_id[row] for row in rows),
            subject=tuple(self.subject[row] for row in rows),
            dataset=tuple(self.dataset[row] for row in rows),
            source_hash=tuple(self.source_hash[row] for row in rows),
            carried=tuple(self.carried[row] for row in rows),
            with_action_units=tuple(self.with_action_units[row] for row in rows),
        )


@dataclass(frozen=True, slots=True)
class _Entry:
    """Where a clip lies, and what its record says of it."""

    shard: int
    row: int
    clip_id: str
    dataset: str
    subject: str
    source_hash: str
    target: Target


class ShardDataset(Dataset[dict[str, Tensor]]):
    """The clips of shard folders whose label belongs to a class.

    Hashes are checked here, once; a worker process gets the list of files and opens them itself, at its first clip.

    Parameters
    ----------
    folders : sequence of Path
        Outputs of `flowkit extract` or `flowkit import`; no clip may be in two of them.
    grouping : str or None
        Name of a class grouping of `flowkit.labels.groupings`, or "action-units": the units that the manifest's column
        `action_units` names. None takes every clip, without targets: for prediction.
    size : int, optional
        Side to which clips are resampled, by area means when it shrinks them and bilinearly when it does not; vectors in pixels
        are scaled with the image. Needed where the folders differ in size.
    face : {"canonical", "own"}
        Carry flow onto the canonical face (`flowkit.canonical_flow`); clips without landmarks stay as they are. Or all stay so.
    in_memory : bool
        Read everything now.
    verify : bool
        Compare every file with the hash of its record.
    mixed_alignment : bool
        Take folders whose settings of alignment or solver differ: their flow does not mean the same.

    Attributes
    ----------
    classes : tuple of str
    excluded : dict of str to int
        Clips that the grouping leaves out by design, as "dataset/label": count.
    rare : dict of str to int
        Action units that too few clips show to be targets: count.
    failed : int
        Clips that have failed in extraction or import, and so are in no shard.
    units : {"px", "minmax"}
    size : int

    Raises
    ------
    ConfigError
        No folder, a folder without clips, no clip or one class only left by the grouping, a label it does not know, a clip twice,
        mixed sizes without `size`, mixed units, mixed alignment without `mixed_alignment`.
    ShardCorrupt, SchemaTooNew
        A file is not what was committed, or flow is not finite.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        grouping: str | None,
        *,
        size: int | None = None,
        face: Face = "canonical",
        in_memory: bool = False,
        verify: bool = True,
        mixed_alignment: bool = False,
    ) -> None:
        opened = [_open(Path(folder)) for folder in folders]
        if not opened:
            raise ConfigError("dataset: folders must name at least one folder of shards; got none. Give one.")
        if size is not None and not MIN_SIZE <= size <= MAX_SIZE:
            raise ConfigError(f"dataset: size must be from {MIN_SIZE} to {MAX_SIZE}; got {size}. Correct it.")
        self.size, self.face = size or _common_size(opened), face
        self.failed = sum(len(folder.failures()) for folder in opened)
        self.excluded: dict[str, int] = {}
        self.rare: dict[str, int] = {}
        self._shards = [Shard(record, folder.run["settings"], verify=False) for folder, record in _files(opened)]
        if verify:
            for shard in self._shards:
                verify_file(shard.path, shard.record)
        self.units = _common_units(self._shards)
        if not mixed_alignment:
            refuse_mixed({folder.path: folder.run["settings"] for folder in opened})
        self.classes, self._entries = self._sorted_into_classes(grouping)
        self._memory = self._load() if in_memory else None

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, row: int) -> dict[str, Tensor]:
        """One clip: flow, valid, region, action_units, target as in `Clips`, without N; row: its number here.

        Raises
        ------
        ShardCorrupt
        """
        entry = self._entries[row]
        number = torch.tensor(row % len(self))
        if self._memory is not None:
            names = ("flow", "valid", "region", "action_units", "target")
            clip = {name: getattr(self._memory, name)[row] for name in names}
            return {**clip, "row": number}
        shard = self._shards[entry.shard]
        columns = {name: shard.value(name, entry.row)[None] for name in self._columns}
        flow, valid, region, _ = self._tensors(columns, [entry])
        return {
            "flow": flow[0],
            "valid": valid[0],
            "region": region[0],
            "action_units": _strengths(shard, [entry.row])[0][0],
            "target": torch.tensor(entry.target),
            "row": number,
        }

    def clips(self) -> Clips:
        """All clips, in memory.

        Raises
        ------
        ShardCorrupt
        """
        return self._load() if self._memory is None else self._memory

    def _sorted_into_classes(self, name: str | None) -> tuple[tuple[str, ...], list[_Entry]]:
        clips = [
            (number, row, clip)
            for number, shard in enumerate(self._shards)
            for row, clip in enumerate(shard.record.content["clips"])
        ]
        _refuse_repeated([(dataset_name(clip["dataset"]), clip["clip_id"]) for _, _, clip in clips])
        if name is None:
            return (), [_entry(number, row, clip, UNLABELLED) for number, row, clip in clips]
        found = sorted_clips(self._shards, name)
        self.excluded, self.rare = found.excluded, found.rare
        entries = [
            _entry(number, row, clip, target)
            for (number, row, clip), target in zip(clips, found.targets, strict=True)
            if target is not None
        ]
        return found.classes, entries

    def _load(self) -> Clips:
        size = (len(self), self.size, self.size)
        flow = torch.empty(len(self), 2, 2, self.size, self.size)
        valid, region = torch.empty(len(self), 2, dtype=torch.bool), torch.empty(size, dtype=torch.bool)
        action_units = torch.empty(len(self), 2, len(ACTION_UNITS))
        begin, carried, known = 0, list[bool](), list[bool]()
        for number, shard in enumerate(self._shards):  # entries stand in the order of the shards
            entries = [entry for entry in self._entries if entry.shard == number]
            if not entries:
                continue
            rows = [entry.row for entry in entries]
            with shard:
                columns = {name: shard.column(name)[rows] for name in self._columns}
                strengths, given = _strengths(shard, rows)
            part = slice(begin, begin + len(entries))
            action_units[part] = strengths
            known += given
            flow[part], valid[part], region[part], own = self._tensors(columns, entries)
            carried += own
            begin = part.stop
        texts = {
            name: tuple(getattr(entry, name) for entry in self._entries)
            for name in ("clip_id", "subject", "dataset", "source_hash")
        }
        target = torch.tensor([entry.target for entry in self._entries])
        return Clips(
            flow,
            valid,
            region,
            action_units,
            target,
            **texts,
            carried=tuple(carried),
            with_action_units=tuple(known),
            classes=self.classes,
            units=self.units,
            left_out={**self.excluded, **self.rare},
        )

    @property
    def _columns(self) -> tuple[str, ...]:
        places = ("landmarks", "transform") if self.face == "canonical" else ()
        return ("flow", "phase_valid", "regions", *places)

    def _tensors(
        self, columns: Mapping[str, npt.NDArray[Any]], entries: Sequence[_Entry]
    ) -> tuple[Tensor, Tensor, Tensor, list[bool]]:
        """Flow, valid phases and region of clips, and which of them were carried onto the canonical face."""
        flow = torch.from_numpy(columns["flow"].astype(np.float32))
        valid = torch.from_numpy(columns["phase_valid"].astype(bool))
        region = torch.from_numpy((columns["regions"].astype(np.uint8) & FACE) > 0)
        finite = flow.isfinite().flatten(1).all(1)
        if not finite.all():
            entry = entries[int(finite.logical_not().nonzero()[0])]
            raise ShardCorrupt(
                f"{self._shards[entry.shard].path}: flow of {entry.clip_id} must be finite; got NaN or infinity. Leave the clip "
                "out of the manifest and extract again."
            )
        places = None
        if self.face == "canonical":
            places = list(zip(columns["landmarks"], columns["transform"], strict=True))
        moved, inside, carried = seen_flow(flow, region, places, self.size, self.units)
        moved[~valid] = 0
        return moved, valid, inside, carried


def _strengths(shard: Shard, rows: Sequence[int]) -> tuple[Tensor, list[bool]]:
    """Action units of some clips, (R, 2, U), and whether they are known; shards of version 0.1 have none."""
    try:
        found = torch.from_numpy(shard.column("au_hint")[list(rows)].astype(np.float32))
    except KeyError:
        found = torch.full((len(rows), 2, len(ACTION_UNITS)), torch.nan)
    known = found.isfinite().flatten(1).all(1)
    found[~known] = 0
    return found.clamp(-STRONGEST_CM, STRONGEST_CM), known.tolist()


def _open(path: Path) -> ShardFolder:
    folder = ShardFolder.open(path)
    if damaged := folder.invalid:
        raise ShardCorrupt(
            f"{damaged[0]}: commit record and its shard must be whole; got something else. Run extract again: it redoes the task."
        )
    if not folder.clip_count:
        raise ConfigError(
            f"{path}: folder must hold at least one clip; got {len(folder.failures())} failed ones only. Look at "
            f"{path / 'failures.csv'}."
        )
    return folder


def _files(folders: Sequence[ShardFolder]) -> Iterator[tuple[ShardFolder, Record]]:
    return ((folder, record) for folder in folders for record in folder.records if record.content["file"])


def _common_size(folders: Sequence[ShardFolder]) -> int:
    sizes = {str(folder.path): int(folder.run["settings"]["align"]["size"]) for folder in folders}
    if len(set(sizes.values())) > 1:
        found = ", ".join(f"{size} ({path})" for path, size in sizes.items())
        raise ConfigError(
            f"dataset: folders must be of one size, or size must be given; got {found}. Pass --size to fmanet train."
        )
    return next(iter(sizes.values()))


def _common_units(shards: Sequence[Shard]) -> Units:
    found: dict[str, Path] = {}
    for shard in shards:
        with shard:  # closed again: a process that is forked off must not inherit the open file
            found.setdefault(shard.units, shard.path)
    if len(found) > 1:
        listed = ", ".join(f"{units} ({path})" for units, path in found.items())
        raise ConfigError(
            f"dataset: flow of all folders must have one unit; got {listed}. Train on extracted and on imported flow separately."
        )
    return cast(Units, next(iter(found)))


def _entry(shard: int, row: int, clip: Mapping[str, str], target: Target) -> _Entry:
    subject = f"{clip['dataset']}/{clip['subject']}"
    return _Entry(shard, row, clip["clip_id"], clip["dataset"], subject, clip["source_hash"], target)


def _refuse_repeated(names: Sequence[tuple[str, str]]) -> None:
    """Names of clips are a data set's own: those of SMIC-HS and SMIC-VIS are partly the same."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ConfigError(
            f"dataset: each clip must be there once; got {len(twice)} repeated, {twice[0][1]} first. Leave one of the folders out."
        )
