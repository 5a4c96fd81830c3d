"""`Shard`: one committed file, read only after its hash was checked."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final, Self

import h5py
import numpy as np
import numpy.typing as npt

from flowkit.errors import ShardCorrupt
from flowkit.storage.commit import Record
from flowkit.storage.schema import COLUMNS, TEXT, UNITS
from flowkit.storage.shard_checks import (
    damage_told,
    open_checked,
    refuse_elsewhere,
    sample_hash,
    single_attribute,
    verify_file,
)

MAX_OPEN: Final = 64
"""Files that a process keeps open; another one closes the oldest, which opens again when it is read."""
_opened: weakref.WeakKeyDictionary[Shard, None] = weakref.WeakKeyDictionary()
_reading = threading.RLock()
"""Held while a file is read, so that no other thread closes it; libhdf5 takes one read at a time anyway."""


def _forget_threads() -> None:
    """In a child of fork: the thread that held the lock is not there."""
    global _reading
    _reading = threading.RLock()


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_forget_threads)


class Shard:
    """One committed shard file, verified and opened on first use, once a process.

    Parameters
    ----------
    record : Record
        Its commit record; must name a data file.
    settings : mapping
        Of the run, from run.json.
    verify : bool
        Compare size and sha256 with the record before libhdf5 sees the file.

    Raises
    ------
    ShardCorrupt
        On first use.
    """

    def __init__(self, record: Record, settings: Mapping[str, Any], *, verify: bool = True) -> None:
        path = record.data_path
        if path is None:
            raise ShardCorrupt(
                f"{record.path}: record must name a shard file; got none. Every clip of that task failed."
            )
        self.record = record
        self.path = path
        self._settings = settings
        self._verify = verify
        self._file: Any = None
        self._names: frozenset[str] = frozenset()
        self._pid = 0

    def __len__(self) -> int:
        return len(self.record.content["clips"])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        """Without the open file, which belongs to this process."""
        return {**self.__dict__, "_file": None, "_pid": 0}

    def close(self) -> None:
        """Close the file; reading opens it again."""
        with _reading:
            if self._file is not None and self._pid == os.getpid():
                self._file.close()
            self._file = None
            _opened.pop(self, None)

    @property
    def units(self) -> str:
        """What one unit of the flow is: "px" of the crop, or "minmax", relative to the largest motion of each picture.

        Raises
        ------
        ShardCorrupt
        """
        with self._held() as file, damage_told(self.path):
            units = single_attribute(file, "units", h5py.h5t.TypeStringID)
        if units not in UNITS:
            raise ShardCorrupt(
                f"{self.path}: units must be {' or '.join(UNITS)}; got {units!r:.60}. Do not trust this file."
            )
        return str(units)

    def column(self, name: str) -> npt.NDArray[Any]:
        """A whole column, (N, ...); texts as str objects.

        Raises
        ------
        ShardCorrupt
        KeyError
            There is none of that name.
        """
        with self._dataset(name) as dataset:
            if h5py.check_string_dtype(dataset.dtype):
                return np.asarray(dataset.asstr()[:], dtype=object)
            return np.asarray(dataset[:])

    def value(self, name: str, row: int) -> Any:
        """One clip's value of a column of numbers, without a look at the clip's own hash: faster than the whole `sample`."""
        with self._dataset(name) as dataset:
            return dataset[row]

    def sample(self, row: int) -> dict[str, Any]:
        """Every column of one clip.

        Raises
        ------
        ShardCorrupt
            The numbers do not match the clip's own hash.
        """
        sample: dict[str, Any] = {}
        with self._held() as file, damage_told(self.path):
            for column in COLUMNS:
                if column.name in self._names:
                    dataset = file[column.name]
                    sample[column.name] = dataset.asstr()[row] if column.dtype == TEXT else dataset[row]
        if sample_hash(sample) != sample["sample_hash"]:
            raise ShardCorrupt(
                f"{self.path}: clip {row} ({sample['clip_id']}) must match its hash; got other numbers. Restore the file "
                "from a copy, or delete it with its record and run extract again."
            )
        return sample

    def samples(self) -> Iterator[dict[str, Any]]:
        """Every clip, in stored order."""
        for row in range(len(self)):
            yield self.sample(row)

    @contextmanager
    def _dataset(self, name: str) -> Iterator[Any]:
        """A column as h5py has it; only those are ever opened that were checked."""
        with self._held() as file:
            if name not in self._names:
                raise KeyError(name)
            with damage_told(self.path):
                yield file[name]

    @contextmanager
    def _held(self) -> Iterator[Any]:
        """The open file, which stays open for the length of the with-block."""
        if self._verify:  # before the others have to wait
            refuse_elsewhere(self.path, self.record)
            verify_file(self.path, self.record)
            self._verify = False
        with _reading:
            yield self._open()

    def _open(self) -> Any:
        if self._file is None or self._pid != os.getpid():
            refuse_elsewhere(self.path, self.record)
            for oldest in list(_opened)[: len(_opened) + 1 - MAX_OPEN]:
                oldest.close()
            self._file, self._names = open_checked(self.path, len(self), self._settings)
            self._pid = os.getpid()
            _opened[self] = None
        return self._file
