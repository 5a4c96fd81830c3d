"""What an HDF5 file must be to be read as a shard.

A hash proves nothing where one person wrote both the file and its record, so the reader also refuses whatever would lead
out of the file, load code, or become more than the file's own bytes allow. docs/security.md lists it.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

import h5py
import numpy as np
import xxhash

from flowkit.errors import EnvironmentMissing, FlowkitError, SchemaTooNew, ShardCorrupt
from flowkit.storage.commit import Record
from flowkit.storage.safe_files import regular, stays_below
from flowkit.storage.schema import COLUMNS, MAX_TEXT_BYTES, SHARD_SCHEMA, TEXT, Column, Sample, sized

FILTERS: Final[dict[str, list[int]]] = {"none": [], "zstd": [h5py.h5z.FILTER_SHUFFLE, 32015]}
"""Of chunked columns, in the order of the pipeline."""
_ZSTD_MAGIC: Final = bytes.fromhex("28b52ffd")
_ZSTD_HEAD_BYTES: Final = 18
_DAMAGE: Final = (OSError, RuntimeError, ValueError, TypeError, LookupError, ArithmeticError, MemoryError)
"""What h5py raises over files that are not as they should be."""
_NO_DAMAGE: Final = (errno.EMFILE, errno.ENFILE)


def zstd_plugin() -> Any:
    """Return hdf5plugin, which brings zstd.

    Raises
    ------
    EnvironmentMissing
    """
    try:
        import hdf5plugin
    except ImportError as error:
        raise EnvironmentMissing(
            "shards: zstd compression must have the package hdf5plugin; got none. pip install hdf5plugin."
        ) from error
    return hdf5plugin


def sample_hash(sample: Sample) -> str:
    """Over the numbers as stored, so that a reader can check one clip without the rest of the file."""
    digest = xxhash.xxh3_64()
    for column in COLUMNS:
        if column.dtype != TEXT and column.name in sample:
            digest.update(np.ascontiguousarray(sample[column.name], dtype=column.dtype).tobytes())
    return digest.hexdigest()


def verify_file(path: Path, record: Record) -> None:
    """Compare a shard file with its commit record, byte for byte by its hash.

    Raises
    ------
    ShardCorrupt
    """
    expected = record.content["file"]
    try:
        with open(path, "rb", opener=regular) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            length = file.tell()
    except OSError as error:
        raise ShardCorrupt(f"{path}: shard must be readable; got {error.strerror}. Restore it from a copy.") from error
    if (length, digest) != (expected["bytes"], expected["sha256"]):
        raise ShardCorrupt(
            f"{path}: shard must hold the {expected['bytes']} bytes that were committed; got {length} bytes with another "
            "hash. Restore it from a copy, or delete it with its record and run extract again."
        )


def refuse_elsewhere(path: Path, record: Record) -> None:
    """Refuse a shard that is no file, or that lies outside the folder of its record."""
    if not path.is_file() or not stays_below(path, record.path.parents[1]):
        raise ShardCorrupt(
            f"{path}: shard must be a file among the shards of its folder; got none, or a link that leads elsewhere. Copy the "
            "file itself to this place."
        )


@contextmanager
def damage_told(path: Path) -> Iterator[None]:
    """Make one error of all that h5py raises."""
    try:
        yield
    except FlowkitError:
        raise
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno in _NO_DAMAGE:
            raise
        raise ShardCorrupt(
            f"{path}: shard must be an HDF5 file of this schema; got one that cannot be read ({error!s:.200}). Restore it from a "
            "copy."
        ) from error


@contextmanager
def _no_plugins() -> Iterator[None]:
    """Give libhdf5 no folder to look for filters in: it would run whatever lies there. zstd needs none."""
    paths = [h5py.h5pl.get(number) for number in range(h5py.h5pl.size())]
    for _ in paths:
        h5py.h5pl.remove(0)
    try:
        yield
    finally:
        for path in paths:
            h5py.h5pl.append(path)


def open_checked(path: Path, clips: int, settings: Mapping[str, Any]) -> tuple[Any, frozenset[str]]:
    """Open a shard and refuse whatever is not exactly the schema; the file, and the columns in it."""
    with damage_told(path), _no_plugins():
        file = h5py.File(path, "r", locking=False)
        try:
            schema = _schema_of(file, path)
            with path.open("rb") as raw:
                names = check_columns(file, raw, str(path), clips, settings, schema)
        except BaseException:
            file.close()
            raise
    return file, names


def check_columns(
    file: Any, raw: BinaryIO, where: str, clips: int, settings: Mapping[str, Any], schema: int
) -> frozenset[str]:
    """Compare each column with the schema; the names of those that there are. `raw` is the file without HDF5."""
    names, plain_bytes = [], 0
    for column in COLUMNS:
        too_new = column.since > schema
        if (too_new or column.optional) and column.name not in file:
            continue
        problem = f"a column of schema {column.since} in a shard of schema {schema}" if too_new else ""
        problem = problem or _column_problem(file, raw, column, clips, settings)
        if problem:
            raise ShardCorrupt(f"{where}: {column.name} must follow the schema; got {problem}. Do not trust this file.")
        names.append(column.name)
        if not (column.chunked and FILTERS[settings["shard"]["compress"]]):
            plain_bytes += file[column.name].nbytes
    if plain_bytes > file.id.get_filesize():
        raise ShardCorrupt(
            f"{where}: file must hold the numbers it declares; got {file.id.get_filesize()} bytes for {plain_bytes}. Do not "
            "trust this file."
        )
    return frozenset(names)


def _schema_of(file: Any, path: Path) -> int:
    schema = single_attribute(file, "schema", h5py.h5t.TypeIntegerID)
    if schema is None or schema < 1:
        raise ShardCorrupt(f"{path}: schema must be from 1 to {SHARD_SCHEMA}; got {schema}. This is no flowkit shard.")
    if schema > SHARD_SCHEMA:
        raise SchemaTooNew(
            f"{path}: schema must be at most {SHARD_SCHEMA}; got {schema}. Read it with a newer flowkit."
        )
    return int(schema)


def single_attribute(file: Any, name: str, kind: type) -> Any:
    """A single value of that kind, or None; what is of another kind is not even read."""
    if name not in file.attrs:
        return None
    held = file.attrs.get_id(name)
    single = held.get_space().get_simple_extent_type() == h5py.h5s.SCALAR
    return file.attrs[name] if single and type(held.get_type()) is kind else None


def _column_problem(file: Any, raw: BinaryIO, column: Column, clips: int, settings: Mapping[str, Any]) -> str:
    link = file.get(column.name, getlink=True)
    if type(link) is not h5py.HardLink:
        return "no dataset of its own" if link is None else "a link"
    dataset = file[column.name]
    if not isinstance(dataset, h5py.Dataset):
        return "a group or a type"
    if dataset.external or dataset.is_virtual:
        return "data outside the file"
    if not _is_type(dataset.id.get_type(), column):
        return f"type {dataset.dtype}"
    shape = (clips, *sized(column.shape, settings["align"]["size"]))
    if not dataset.shape == dataset.maxshape == shape:
        return f"shape {dataset.shape} where {shape} was committed"
    return _storage_problem(dataset, raw, column, settings["shard"]["compress"])


def _is_type(stored: Any, column: Column) -> bool:
    if column.dtype != TEXT:
        wanted = h5py.h5t.py_create(np.dtype(column.dtype), logical=True)
        return bool(stored == wanted) and not stored.committed()
    return (
        isinstance(stored, h5py.h5t.TypeStringID)
        and not stored.is_variable_str()
        and stored.get_cset() == h5py.h5t.CSET_UTF8
        and stored.get_size() <= MAX_TEXT_BYTES
        and not stored.committed()
    )


def _storage_problem(dataset: Any, raw: BinaryIO, column: Column, compress: str) -> str:
    if dataset.chunks != ((1, *dataset.shape[1:]) if column.chunked else None):
        return f"chunks {dataset.chunks}"
    properties = dataset.id.get_create_plist()
    filters = [properties.get_filter(i)[0] for i in range(properties.get_nfilters())]
    if filters != (FILTERS[compress] if column.chunked else []):
        return f"filters {filters}"
    if filters:
        zstd_plugin()
        return _chunk_problem(dataset, raw)
    return ""


def _chunk_problem(dataset: Any, raw: BinaryIO) -> str:
    """Compressed chunks: one a sample, and each says that it becomes just that, or it might become anything."""
    wanted = dataset.nbytes // len(dataset)
    chunks: list[Any] = []
    dataset.id.chunk_iter(chunks.append)
    if len(chunks) != len(dataset):
        return f"{len(chunks)} chunks"
    for chunk in chunks:
        raw.seek(chunk.byte_offset)
        if chunk.filter_mask or _content_bytes(raw.read(min(chunk.size, _ZSTD_HEAD_BYTES))) != wanted:
            return f"a chunk that does not become {wanted} bytes"
    return ""


def _content_bytes(head: bytes) -> int | None:
    """What a zstd frame says it becomes (RFC 8878, 3.1.1.1), None where it does not say."""
    if head[:4] != _ZSTD_MAGIC:
        return None
    head = head.ljust(_ZSTD_HEAD_BYTES, b"\0")
    single, flag = head[4] >> 5 & 1, head[4] >> 6
    length = (single, 2, 4, 8)[flag]
    begin = 5 + (1 - single) + (0, 1, 2, 4)[head[4] & 3]
    return int.from_bytes(head[begin : begin + length], "little") + 256 * (flag == 1) if length else None
