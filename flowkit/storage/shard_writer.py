"""`shard_image`: the bytes of a shard file.

A shard is built in memory: libhdf5 never touches the disk, where a full one makes it crash.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import h5py
import numpy as np

from flowkit.errors import ShardCorrupt
from flowkit.storage.schema import ACTION_UNITS, COLUMNS, HASHED, SHARD_SCHEMA, TEXT, Column, Sample, sized
from flowkit.storage.shard_checks import check_columns, sample_hash, zstd_plugin


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
    with h5py.File(
        "shard", "w", driver="core", backing_store=False, libver=("v110", "v110"), track_order=False
    ) as file:
        for column in COLUMNS:
            if column.optional and column.name not in samples[0]:
                continue
            values = hashes if column.name == "sample_hash" else [sample[column.name] for sample in samples]
            _write_column(file, column, values, size, options)
        file.attrs.update(_attributes(settings))
        file.flush()
        image: bytes = file.id.get_file_image()
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
    for row, value in enumerate(values):
        dataset[row] = value
    dataset.attrs["meaning"] = column.meaning


def _compression(name: str) -> dict[str, Any]:
    if name == "none":
        return {}
    return {"shuffle": True, **zstd_plugin().Zstd(clevel=3)}


def _check_image(image: bytes, hashes: Sequence[str], settings: Mapping[str, Any]) -> None:
    raw = io.BytesIO(image)
    with h5py.File(io.BytesIO(image), "r") as file:
        check_columns(file, raw, "shard in memory", len(hashes), settings, SHARD_SCHEMA)
        for row, expected in enumerate(hashes):
            sample = {name: file[name][row] for name in HASHED if name in file}
            if sample_hash(sample) != expected:
                raise ShardCorrupt(
                    f"shard in memory: clip {row} must read back as written; got other numbers. Check this machine's memory."
                )
