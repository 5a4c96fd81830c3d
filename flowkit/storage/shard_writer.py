"""`ShardBuilder`, `shard_image`: the bytes of a shard file.

A shard is built in memory: libhdf5 never touches the disk, where a full one makes it crash. It is written by whole chunks and
columns and read back by blocks of a column: one call of h5py for each cell took most of the time.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import xxhash

from flowkit.errors import ShardCorrupt
from flowkit.storage.schema import ACTION_UNITS, COLUMNS, HASHED, SHARD_SCHEMA, TEXT, Column, Sample, sized
from flowkit.storage.shard_checks import check_columns, sample_hash, zstd_plugin

_BLOCK_BYTES = 1 << 22
"""Read back at a time: a whole column would be a second copy of the shard."""


class ShardBuilder:
    """Builds the bytes of a shard file from one clip after the other; the same clips and settings give the same bytes.

    Large columns go into the file at once, so that they are in memory only once; `rows` keeps the others.

    Parameters
    ----------
    clips : int
        How many are expected. If fewer come, `image` costs a second copy of the file.
    settings : mapping
        Nested plain dict of the run's settings; `align.size`, `shard.compress`, `backend` and, if there, `units` are read
        from it.
    """

    def __init__(self, clips: int, settings: Mapping[str, Any]) -> None:
        self._clips, self._settings = clips, settings
        self._memory = io.BytesIO()
        self._file: Any = None
        self._large: dict[Column, Any] = {}
        self.rows: list[Sample] = []
        self._hashes: list[str] = []

    def __len__(self) -> int:
        return len(self._hashes)

    def add(self, sample: Sample) -> None:
        """Add a clip.

        Raises
        ------
        EnvironmentMissing
            Compression was asked for and hdf5plugin is not installed.
        """
        if self._file is None:
            self._begin(sample)
        row = len(self)
        for column, dataset in self._large.items():
            _write_chunk(dataset, row, _cell(sample[column.name], column, self._size))
        names = {column.name for column in self._large}
        self.rows.append({name: value for name, value in sample.items() if name not in names})
        self._hashes.append(sample_hash(sample))

    def image(self) -> bytes:
        """Finish the file and return its bytes, which `check` should look at; at least one clip was added."""
        if len(self) < self._clips:
            return self._smaller().image()
        columns = [column for column in COLUMNS if column not in self._large and self._has(column)]
        for column in columns:
            values = self._hashes if column.name == "sample_hash" else [one[column.name] for one in self.rows]
            _write_column(self._file, column, values, self._size)
        self._file.attrs.update(_attributes(self._settings))
        self._file.close()
        return self._memory.getvalue()  # no copy

    def check(self, image: bytes) -> None:
        """Compare what `image` returned with the hashes of the clips.

        Raises
        ------
        ShardCorrupt
            A number does not read back as it was written.
        """
        _check_image(image, self._hashes, self._settings)

    @property
    def _size(self) -> int:
        return int(self._settings["align"]["size"])

    def _has(self, column: Column) -> bool:
        return not column.optional or column.name in self.rows[0]

    def _begin(self, sample: Sample) -> None:
        options = _compression(self._settings["shard"]["compress"])
        self._file = h5py.File(self._memory, "w", libver=("v110", "v110"), track_order=False)
        for column in COLUMNS:
            if column.chunked and (not column.optional or column.name in sample):
                shape = (self._clips, *sized(column.shape, self._size))
                chunks = (1, *shape[1:])
                self._large[column] = _dataset(self._file, column, shape, chunks=chunks, **options)

    def _smaller(self) -> ShardBuilder:
        """The same clips in a file of as many as there are."""
        smaller = ShardBuilder(len(self), self._settings)
        for row, sample in enumerate(self.rows):
            smaller.add({**sample, **{column.name: dataset[row] for column, dataset in self._large.items()}})
        self._file.close()
        return smaller


def shard_image(samples: Sequence[Sample], settings: Mapping[str, Any]) -> bytes:
    """The bytes of a shard file; the same samples and settings give the same bytes.

    Parameters
    ----------
    samples : sequence of Sample
        At least one; stored in this order.
    settings : mapping
        As of `ShardBuilder`.

    Returns
    -------
    bytes
        Reopened and compared with the hashes before it is returned.

    Raises
    ------
    EnvironmentMissing
        Compression was asked for and hdf5plugin is not installed.
    """
    builder = ShardBuilder(len(samples), settings)
    for sample in samples:
        builder.add(sample)
    image = builder.image()
    builder.check(image)
    return image


def _attributes(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "schema": SHARD_SCHEMA,
        "axes": "clip, phase, component, y, x",
        "phases": "rise (onset to apex, on the onset's grid), fall (apex to offset, on the apex's grid)",
        "components": "u (right), v (down)",
        "mmcof_channels": "M' cos a, M' sin a, M'",
        "action_units": " ".join(ACTION_UNITS),
        "units": settings.get("units", "px"),
        "backend": settings["backend"],
        "settings": json.dumps(settings, sort_keys=True),
    }


def _dataset(file: Any, column: Column, shape: tuple[int, ...], **options: Any) -> Any:
    dataset = file.create_dataset(column.name, shape, column.dtype, track_times=False, **options)
    dataset.attrs["meaning"] = column.meaning
    return dataset


def _write_column(file: Any, column: Column, values: Sequence[Any], size: int) -> None:
    """Write a column that is stored in one piece."""
    if column.dtype == TEXT:
        texts = [str(value).encode() for value in values]
        dtype = h5py.string_dtype("utf-8", max(1, *map(len, texts)))
        file.create_dataset(column.name, data=np.array(texts, dtype=dtype), dtype=dtype)
        return
    dataset = _dataset(file, column, (len(values), *sized(column.shape, size)))
    dataset[...] = np.array(values, column.dtype)


def _write_chunk(dataset: Any, row: int, cell: npt.NDArray[Any]) -> None:
    """Write one clip's value of a large column, past HDF5's cache of chunks, which would copy it once more."""
    if dataset.compression or dataset.shuffle:
        dataset[row] = cell
    else:
        dataset.id.write_direct_chunk((row, *(0,) * cell.ndim), cell)


def _cell(value: Any, column: Column, size: int) -> npt.NDArray[Any]:
    """One clip's value as it is stored; a whole chunk is written as it is, so its shape is looked at here."""
    cell = np.ascontiguousarray(value, column.dtype)
    if cell.shape != sized(column.shape, size):
        raise ValueError(f"{column.name}: shape must be {sized(column.shape, size)}; got {cell.shape}.")
    return cell


def _compression(name: str) -> dict[str, Any]:
    if name == "none":
        return {}
    return {"shuffle": True, **zstd_plugin().Zstd(clevel=3)}


def _check_image(image: bytes, hashes: Sequence[str], settings: Mapping[str, Any]) -> None:
    raw = io.BytesIO(image)
    with h5py.File(io.BytesIO(image), "r") as file:
        check_columns(file, raw, "shard in memory", len(hashes), settings, SHARD_SCHEMA)
        found = _stored_hashes(file, len(hashes))
    wrong = [row for row, (stored, expected) in enumerate(zip(found, hashes, strict=True)) if stored != expected]
    if wrong:
        raise ShardCorrupt(
            f"shard in memory: clip {wrong[0]} must read back as written; got other numbers. Check this machine's memory."
        )


def _stored_hashes(file: Any, clips: int) -> list[str]:
    """`sample_hash` of each clip of an open shard, from one pass over its columns."""
    digests = [xxhash.xxh3_64() for _ in range(clips)]
    for name in HASHED:
        if name in file:
            dataset = file[name]
            rows = max(1, _BLOCK_BYTES * clips // max(1, dataset.nbytes))
            for begin in range(0, clips, rows):
                for digest, cell in zip(digests[begin:], dataset[begin : begin + rows], strict=False):
                    digest.update(cell.tobytes())
    return [digest.hexdigest() for digest in digests]
