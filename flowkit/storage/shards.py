"""The shard: one HDF5 file for a few hundred clips, and the contract between extraction and training.

`COLUMNS` is the schema: the writer makes exactly these datasets and the reader accepts nothing else. Add a column there
under the newest schema or, once that is released, under a next one, and give it a value in `task._sample` and `imports._unknown`.
Older shards are read without it.

A shard is built in memory (libhdf5 never touches the disk, where a full one makes it crash) and read only after its hash was
checked. A hash proves nothing where one person wrote both the file and its record, so the reader also refuses whatever would lead
out of the file, load code, or become more than the file's own bytes allow. docs/security.md lists it.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self

import h5py
import numpy as np
import numpy.typing as npt
import xxhash

from flowkit.errors import ConfigError, EnvironmentMissing, FlowkitError, SchemaTooNew, SettingsChanged, ShardCorrupt
from flowkit.storage.action_units import ACTION_UNITS, DEPTH_MODES
from flowkit.storage.commit import RUN_FILE, Record, decode, listing, scan
from flowkit.storage.record_forms import is_run
from flowkit.storage.row_table import column as column_of
from flowkit.storage.safe_files import NotRegular, read_regular, regular, stays_below

SHARD_SCHEMA: Final = 2
"""Of the shards that are written; all from 1 on are read. 1 is that of flowkit 0.1.

The JSON files of a folder keep a number of their own (`commit.SCHEMA`), because their form has not changed: so version 0.1 still
reads what a folder of today says of its clips, and refuses its shards alone, in clear words.
"""
NEWER_SETTINGS: Final[dict[str, dict[str, Any]]] = {"align": {"match_contrast": False}}
"""By table and name: settings that folders of an older version do not name, with the value that stands for what it did."""
SIZE: Final = -1
"""Stands in a shape for the side of the face crop."""
TEXT: Final = "text"
"""Fixed-length UTF-8, as long as the longest value of the shard."""
MAX_TEXT_BYTES: Final = 1 << 16
UNITS: Final = ("px", "minmax")
"""What flow may be measured in: pixels, as extraction does, or values that were min-max scaled for each picture (imports)."""
FILTERS: Final[dict[str, list[int]]] = {"none": [], "zstd": [h5py.h5z.FILTER_SHUFFLE, 32015]}
"""Of chunked columns, in the order of the pipeline."""
_ZSTD_MAGIC: Final = bytes.fromhex("28b52ffd")
_ZSTD_HEAD_BYTES: Final = 18
_DAMAGE: Final = (OSError, RuntimeError, ValueError, TypeError, LookupError, ArithmeticError, MemoryError)
"""What h5py raises over files that are not as they should be."""
MAX_OPEN: Final = 64
"""Files that a process keeps open; another one closes the oldest, which opens again when it is read."""
_NO_DAMAGE: Final = (errno.EMFILE, errno.ENFILE)
_opened: weakref.WeakKeyDictionary[Shard, None] = weakref.WeakKeyDictionary()
_reading = threading.RLock()
"""Held while a file is read, so that no other thread closes it; libhdf5 takes one read at a time anyway."""


def _forget_threads() -> None:
    """In a child of fork: the thread that held the lock is not there."""
    global _reading
    _reading = threading.RLock()


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_forget_threads)


@dataclass(frozen=True, slots=True)
class Column:
    """One dataset of a shard: (N, *shape), stored one sample a chunk if `chunked`, in shards from the schema `since` on."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    meaning: str
    chunked: bool = False
    optional: bool = False
    since: int = 1


def _since(schema: int, *columns: Column) -> tuple[Column, ...]:
    """Columns of shards from this schema on."""
    return tuple(replace(column, since=schema) for column in columns)


COLUMNS: Final = (
    Column("flow", (2, 2, SIZE, SIZE), "<f2", "phase (rise, fall), component (u right, v down); px of the crop", True),
    Column("mmcof", (3, SIZE, SIZE), "<f2", "M' cos a, M' sin a, M'", True),
    Column("regions", (SIZE, SIZE), "|u1", "bit 1: face; bit 2: the part that expressions move least", True),
    Column(
        "faces", (3, SIZE, SIZE), "<f2", "grey onset, apex, offset in [0, 1]; only with shard.keep_faces", True, True
    ),
    Column("clip_id", (), TEXT, "as in the manifest"),
    Column("dataset", (), TEXT, "as in the manifest"),
    Column("subject", (), TEXT, "as in the manifest; unique only together with dataset"),
    Column("label", (), TEXT, "raw emotion word of the data set"),
    Column("onset", (), "<i4", "frame number"),
    Column("apex", (), "<i4", "frame number"),
    Column("offset", (), "<i4", "frame number; -1 where there is none"),
    Column("apex_source", (), TEXT, "annotated, midpoint, offset or spotted"),
    Column("fps", (), "<f4", "frames per second; NaN where unknown"),
    Column("phase_valid", (2,), "|b1", "rise, fall"),
    Column("qc", (), "<u4", "bits of flowkit.storage.quality.Flag"),
    Column("n_faces", (), "<i2", "faces found in the onset; 0 where none was looked for"),
    Column("transform", (2, 3), "<f8", "T0: onset image px -> crop px"),
    Column("registration", (2, 2, 3), "<f8", "apex, offset: onset crop px -> their crop px under T0"),
    Column("light", (2, 2), "<f8", "gain and offset applied to apex and offset, grey in [0, 1]"),
    Column("removed", (2, 2, 3), "<f8", "motion subtracted from each phase: (u, v) = A [x, y, 1]"),
    Column(
        "residual",
        (2,),
        "<f4",
        "median length of what was left to explain, px: with align.stabilise=head of what is neither the head's motion nor an "
        "expression's, otherwise of the flow on the still part of the face",
    ),
    *_since(
        2,
        Column(
            "turn",
            (2, 2),
            "<f8",
            "apex, offset: yaw and pitch of the head relative to the onset that were undone in the pictures, degrees",
        ),
        Column(
            "removed_turn", (2, 2), "<f8", "rise, fall: yaw and pitch of the head subtracted from the flow, degrees"
        ),
        Column(
            "depth",
            (2, DEPTH_MODES),
            "<f4",
            "how the face's depth differs from the canonical one, cm in each mode of flowkit.face.head_shape: as known when the "
            "pictures were made, and what the flow added",
        ),
        Column(
            "separation",
            (2,),
            "<f4",
            "rise, fall: how well head and expression could be told apart: standard deviation of the head's motion in the face, "
            "px; NaN unless align.stabilise is head",
        ),
        Column(
            "au_hint",
            (2, len(ACTION_UNITS)),
            "<f4",
            "apex, offset: strength of each of the file's action_units relative to the onset, cm where it is strongest; a "
            "by-product of the head fit, no FACS coding; NaN unless align.stabilise is head",
        ),
        Column("noise", (), "<f4", "standard deviation of the frames' noise, grey levels; NaN where unknown"),
        Column(
            "contrast", (), "<f4", "standard deviation of the onset inside the face, grey levels; NaN where unknown"
        ),
        Column(
            "data_weight",
            (),
            "<f4",
            "factor by which the weight of TV-L1's data term was raised for contrast and noise; 1 without",
        ),
    ),
    Column("landmarks", (478, 2), "<f4", "of the onset, image px (x, y); NaN where there are none", True),
    Column("source_hash", (), TEXT, "xxh3-128 of the files read"),
    Column("extra", (), TEXT, "further manifest columns, JSON; of a spotted apex also apex_confidence and apex_curve"),
    Column("sample_hash", (), TEXT, "xxh3-64 of this clip's numbers"),
)
HASHED: Final = tuple(c.name for c in COLUMNS if c.dtype != TEXT)

Sample = Mapping[str, Any]
"""One clip's value for each column but `sample_hash`; arrays without the leading N."""


def sample_bytes(size: int, keep_faces: bool) -> int:
    """Bytes a clip takes in an uncompressed shard, texts apart.

    Parameters
    ----------
    size : int
        Side of the crop in pixels.
    keep_faces : bool
    """
    columns = [c for c in COLUMNS if c.dtype != TEXT and (keep_faces or not c.optional)]
    return sum(np.dtype(c.dtype).itemsize * int(np.prod(_sized(c.shape, size))) for c in columns)


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
    hashes = [_sample_hash(sample) for sample in samples]
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
    shape = (len(values), *_sized(column.shape, size))
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
    return {"shuffle": True, **_zstd().Zstd(clevel=3)}


def _zstd() -> Any:
    try:
        import hdf5plugin
    except ImportError as error:
        raise EnvironmentMissing(
            "shards: zstd compression must have the package hdf5plugin; got none. pip install hdf5plugin."
        ) from error
    return hdf5plugin


def _sized(shape: tuple[int, ...], size: int) -> tuple[int, ...]:
    return tuple(size if n == SIZE else n for n in shape)


def _sample_hash(sample: Sample) -> str:
    """Over the numbers as stored, so that a reader can check one clip without the rest of the file."""
    digest = xxhash.xxh3_64()
    for column in COLUMNS:
        if column.dtype != TEXT and column.name in sample:
            digest.update(np.ascontiguousarray(sample[column.name], dtype=column.dtype).tobytes())
    return digest.hexdigest()


def _check_image(image: bytes, hashes: Sequence[str], settings: Mapping[str, Any]) -> None:
    raw = io.BytesIO(image)
    with h5py.File(io.BytesIO(image), "r") as file:
        _check_columns(file, raw, "shard in memory", len(hashes), settings, SHARD_SCHEMA)
        for row, expected in enumerate(hashes):
            sample = {name: file[name][row] for name in HASHED if name in file}
            if _sample_hash(sample) != expected:
                raise ShardCorrupt(
                    f"shard in memory: clip {row} must read back as written; got other numbers. Check this machine's memory."
                )


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
        with self._held() as file, _damage_told(self.path):
            units = _attribute(file, "units", h5py.h5t.TypeStringID)
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
        with self._held() as file, _damage_told(self.path):
            for column in COLUMNS:
                if column.name in self._names:
                    dataset = file[column.name]
                    sample[column.name] = dataset.asstr()[row] if column.dtype == TEXT else dataset[row]
        if _sample_hash(sample) != sample["sample_hash"]:
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
            with _damage_told(self.path):
                yield file[name]

    @contextmanager
    def _held(self) -> Iterator[Any]:
        """The open file, which stays open for the length of the with-block."""
        if self._verify:  # before the others have to wait
            _refuse_elsewhere(self.path, self.record)
            verify_file(self.path, self.record)
            self._verify = False
        with _reading:
            yield self._open()

    def _open(self) -> Any:
        if self._file is None or self._pid != os.getpid():
            _refuse_elsewhere(self.path, self.record)
            for oldest in list(_opened)[: len(_opened) + 1 - MAX_OPEN]:
                oldest.close()
            self._file, self._names = _open_checked(self.path, len(self), self._settings)
            self._pid = os.getpid()
            _opened[self] = None
        return self._file


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


def _refuse_elsewhere(path: Path, record: Record) -> None:
    if not path.is_file() or not stays_below(path, record.path.parents[1]):
        raise ShardCorrupt(
            f"{path}: shard must be a file among the shards of its folder; got none, or a link that leads elsewhere. Copy the "
            "file itself to this place."
        )


@contextmanager
def _damage_told(path: Path) -> Iterator[None]:
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


def _open_checked(path: Path, clips: int, settings: Mapping[str, Any]) -> tuple[Any, frozenset[str]]:
    """Open a shard and refuse whatever is not exactly the schema; the file, and the columns in it."""
    with _damage_told(path), _no_plugins():
        file = h5py.File(path, "r", locking=False)
        try:
            schema = _schema_of(file, path)
            with path.open("rb") as raw:
                names = _check_columns(file, raw, str(path), clips, settings, schema)
        except BaseException:
            file.close()
            raise
    return file, names


def _check_columns(
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
    schema = _attribute(file, "schema", h5py.h5t.TypeIntegerID)
    if schema is None or schema < 1:
        raise ShardCorrupt(f"{path}: schema must be from 1 to {SHARD_SCHEMA}; got {schema}. This is no flowkit shard.")
    if schema > SHARD_SCHEMA:
        raise SchemaTooNew(
            f"{path}: schema must be at most {SHARD_SCHEMA}; got {schema}. Read it with a newer flowkit."
        )
    return int(schema)


def _attribute(file: Any, name: str, kind: type) -> Any:
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
    shape = (clips, *_sized(column.shape, settings["align"]["size"]))
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
        _zstd()
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


@dataclass(frozen=True)
class ShardFolder:
    """An output folder as readers see it: its run file and its valid commit records.

    Attributes
    ----------
    path : Path
    run : dict
        Content of run.json: schema, shard_schema, settings, fingerprint, backend, versions.
    records : tuple of Record
    invalid : tuple of Path
        Commit records that are torn, or whose shard is missing or of another length.
    listing : tuple
        `commit.listing` of the folder, made before the records were read.
    """

    path: Path
    run: dict[str, Any]
    records: tuple[Record, ...]
    invalid: tuple[Path, ...] = ()
    listing: tuple[tuple[str, int, str], ...] = ()

    @classmethod
    def open(cls, path: str | Path) -> ShardFolder:
        """Read run.json and the commit records.

        Raises
        ------
        ConfigError
            The folder holds no run.
        ShardCorrupt
            run.json is damaged.
        """
        path = Path(path)
        run = stored_run(path)
        files = listing(path)
        records, invalid = scan(path)
        return cls(path, run, tuple(records), tuple(invalid), tuple(files))

    def shards(self, *, verify: bool = True) -> Iterator[Shard]:
        """Each shard in task order; those of tasks in which every clip failed have none."""
        for record in self.records:
            if record.content["file"] is not None:
                yield Shard(record, self.run["settings"], verify=verify)

    @property
    def clip_count(self) -> int:
        """Committed clips."""
        return sum(len(record.content["clips"]) for record in self.records)

    def clips(self) -> list[dict[str, Any]]:
        """One dict a committed clip (clip_id, dataset, subject, label, row hash, task, position), in stored order."""
        return [*self.each_clip()]

    def each_clip(self) -> Iterator[dict[str, Any]]:
        """As `clips`, one at a time: all of them are a gigabyte for a million."""
        for record in self.records:
            for position, clip in enumerate(record.content["clips"]):
                yield {**clip, "task": record.task, "position": position}

    def failures(self) -> list[dict[str, Any]]:
        """One dict a clip whose latest attempt failed, by clip id."""
        latest: dict[str, dict[str, Any]] = {}
        for record in self.records:
            for failure in record.content["failures"]:
                earlier = latest.get(failure["clip_id"], {"attempt": 0})
                latest[failure["clip_id"]] = {**failure, "task": record.task, "attempt": earlier["attempt"] + 1}
        if latest:
            for record in self.records:
                for name in column_of(record.content["clips"], "clip_id"):
                    latest.pop(name, None)
        return [latest[name] for name in sorted(latest)]


def stored_run(out: Path) -> dict[str, Any]:
    """Content of run.json.

    Raises
    ------
    ConfigError
        There is none.
    ShardCorrupt
    """
    run = read_run(out)
    if run is None:
        raise ConfigError(
            f"{out}: folder must hold the shards of an extraction; got no {RUN_FILE}. Give the --out of flowkit extract."
        )
    return run


def read_run(out: Path) -> dict[str, Any] | None:
    """Content of run.json, or None where there is none.

    Its `shard_schema` is that of the folder's shards, and its settings name every setting, also in folders of older versions.

    Raises
    ------
    ConfigError
        The folder is another tool's.
    ShardCorrupt, SchemaTooNew
    """
    path = out / RUN_FILE
    try:
        run = decode(read_regular(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except NotRegular:
        run = None
    except OSError as error:
        raise EnvironmentMissing(f"{path}: must be readable; got {error.strerror}. Check its permissions.") from error
    if run is not None and isinstance(run.get("kind"), str) and not is_run(run):
        raise ConfigError(f"{out}: folder must be one of flowkit extract; got another tool's. Give another folder.")
    if run is None or not is_run(run):
        raise ShardCorrupt(f"{path}: must be as it was written; got something else. Restore it from a copy.")
    run = {"shard_schema": 1, **run, "settings": completed(run["settings"])}
    if run["shard_schema"] > SHARD_SCHEMA:
        raise SchemaTooNew(
            f"{out}: schema of the shards must be at most {SHARD_SCHEMA}; got {run['shard_schema']}. Use the newer flowkit that "
            "wrote them."
        )
    return run


def completed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of an extraction with `NEWER_SETTINGS` where they name none; those of an import as they are."""
    if "import" in settings:
        return dict(settings)
    tables = {name: table for name in NEWER_SETTINGS if isinstance(table := settings.get(name), Mapping)}
    return {**settings, **{name: {**NEWER_SETTINGS[name], **table} for name, table in tables.items()}}


def refuse_older(out: Path, run: Mapping[str, Any], same_settings: str = "") -> None:
    """Refuse to add shards to a folder whose shards have fewer columns: it is read, and stays as it is.

    Parameters
    ----------
    out : Path
    run : mapping
        What `read_run` gave.
    same_settings : str
        How to get the folder's settings for another one.

    Raises
    ------
    SettingsChanged
    """
    if run["shard_schema"] < SHARD_SCHEMA:
        older = run["versions"].get("flowkit", "of then")
        raise SettingsChanged(
            f"{out}: this folder is of flowkit {older}, whose shards have fewer columns: it can be read, but this version adds no "
            f"clip to it. Use another --out{same_settings and f' ({same_settings})'}, or finish it with flowkit {older}."
        )
