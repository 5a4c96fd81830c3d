"""`shard_image`: the bytes of a shard file.

A shard is built in memory: libhdf5 never touches the disk, where a full one makes it crash. It is written by whole chunks and
columns and read back by blocks of a column: one call of h5py for each cell took three quarters of the time.
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


def shard_image(samples: Sequence[Sample], settings: Mapping[str, Any]) -> bytes:
    """The bytes of a shard file; the same samples and settings give the same bytes.

    Parameters
    ----------
    samples : sequence of Sample
        At least one; stored in this order.
    settings : mapping
        Nested plain dict of the run's settings; `align.size`, `shard.compress`, `backend` and, if there, `units` are read
        from it.

    Returns
    -------
    bytes
        Reopened and compared with the hashes before it is returned.

    Raises
    ------
    EnvironmentMissing
        Compression was asked for and hdf5plugin is not installed.
    """
    size, compress = settings["align"]["size"], settings["shard"]["compress"]
    hashes = [sample_hash(sample) for sample in samples]
    options = _compression(compress)
    memory = io.BytesIO()
    with h5py.File(memory, "w", libver=("v110", "v110"), track_order=False) as file:
        for column in COLUMNS:
            if column.optional and column.name not in samples[0]:
                continue
            values = hashes if column.name == "sample_hash" else [sample[column.name] for sample in samples]
            _write_column(file, column, values, size, options)
        file.attrs.update(_attributes(settings))
    image = memory.getvalue()  # no copy; the HDF5 library's own file in memory would have to be copied
    _check_image(image, hashes, settings)
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


def _write_column(file: Any, column: Column, values: Sequence[Any], size: int, options: Mapping[str, Any]) -> None:
    if column.dtype == TEXT:
        texts = [str(value).encode() for value in values]
        dtype = h5py.string_dtype("utf-8", max(1, *map(len, texts)))
        file.create_dataset(column.name, data=np.array(texts, dtype=dtype), dtype=dtype)
        return
    shape = (len(values), *sized(column.shape, size))
    chunks = (1, *shape[1:]) if column.chunked else None
    dataset = file.create_dataset(
        column.name, shape, column.dtype, chunks=chunks, track_times=False, **(options if column.chunked else {})
    )
    if not column.chunked:
        dataset[...] = np.array(values, column.dtype)
    elif options:
        for row, value in enumerate(values):
            dataset[row] = value
    else:
        corner = (0,) * len(column.shape)
        for row, value in enumerate(values):  # past the cache of chunks, which would copy each once more
            dataset.id.write_direct_chunk((row, *corner), _cell(value, column, size))
    dataset.attrs["meaning"] = column.meaning


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
