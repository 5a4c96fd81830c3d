"""What is derived from the commit records, and can be made again from them at any time: index.npz and failures.csv.

The index answers for a million clips what the records would answer more slowly: which clips there are, whose they are, where
each lies, which failed. It is an uncompressed NumPy archive, so that `numpy.load` reads it, each member with its own
checksum. It also lists the files that it was made from: if a folder holds others by now, it is not used.
"""

from __future__ import annotations

import csv
import io
import struct
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from flowkit.storage import commit, durable_files
from flowkit.storage.folder import ShardFolder
from flowkit.storage.generations import read_generations
from flowkit.storage.row_table import column, no_garbage_collection
from flowkit.storage.safe_files import regular

INDEX_FILE: Final = "index.npz"
FORMAT: Final = 1
FAILURE_FIELDS = ("clip_id", "code", "message", "path", "attempt", "host", "task")

Texts = npt.NDArray[np.bytes_]
Codes = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]

_KINDS: Final = {
    **dict.fromkeys(("clip_id", "datasets", "subjects", "labels", "failed_clip_id", "codes"), "S"),
    **dict.fromkeys(("files", "hashes"), "S"),
    **dict.fromkeys(("dataset", "subject", "label", "task", "position", "failed_code"), "<i4"),
    **dict.fromkeys(("format", "planned", "not_started", "sizes", "shard_bytes"), "<i8"),
    "phase_valid": "|b1",
    "qc": "<u4",
}
_DAMAGED: Final = (
    *(OSError, EOFError, ValueError, LookupError, ArithmeticError, MemoryError, RuntimeError),
    *(struct.error, zipfile.BadZipFile),
)
"""What reading an archive raises, wherever in it a byte is wrong."""
_SINGLE: Final = ("format", "planned", "not_started")
_WORDS: Final = {"dataset": "datasets", "subject": "subjects", "label": "labels", "failed_code": "codes"}


@dataclass(frozen=True, eq=False)
class Index:
    """Clips of a folder by column, N committed ones in stored order, and M whose latest attempt failed, by id.

    Attributes
    ----------
    clip_id : (N,) bytes, fixed-length UTF-8
    dataset, subject, label : (N,) int32
        Places in `datasets`, `subjects`, `labels`.
    task, position : (N,) int32
        Which shard, which row of it.
    phase_valid : (N, 2) bool
        Rise, fall.
    qc : (N,) uint32
        Bits of `flowkit.storage.quality.Flag`.
    shard_bytes : (S,) int64
        Of each shard file that a record names.
    failed_clip_id : (M,) bytes, fixed-length UTF-8
    failed_code : (M,) int32
        Places in `codes`.
    datasets, subjects, labels, codes : (...) bytes, fixed-length UTF-8
        The different texts, sorted.
    planned, not_started : () int64
        Clips in the plan, and those that neither lie in a shard nor failed.
    files, sizes, hashes : (F,) bytes, int64, bytes
        What the folder held when the index was made: records, plan and shards, the hash that each of the first two states.
    format : () int64
        `FORMAT`.

    Examples
    --------
    >>> index = Index.load("out")  # doctest: +SKIP
    >>> held_out = index.of_person("casme2", "sub01")  # doctest: +SKIP
    >>> train, test = index.clip_ids(~held_out), index.clip_ids(held_out)  # doctest: +SKIP
    """

    clip_id: Texts
    dataset: Codes
    subject: Codes
    label: Codes
    task: Codes
    position: Codes
    phase_valid: Mask
    qc: npt.NDArray[np.uint32]
    shard_bytes: npt.NDArray[np.int64]
    failed_clip_id: Texts
    failed_code: Codes
    datasets: Texts
    subjects: Texts
    labels: Texts
    codes: Texts
    planned: npt.NDArray[np.int64]
    not_started: npt.NDArray[np.int64]
    files: Texts
    sizes: npt.NDArray[np.int64]
    hashes: Texts
    format: npt.NDArray[np.int64]

    @classmethod
    def load(cls, out: str | Path, tell: Callable[[str], None] = lambda note: None) -> Index:
        """The index of a folder: from index.npz if that is whole and current, else from the records.

        Parameters
        ----------
        out : str or Path
            The `--out` of an extraction.
        tell : callable
            Told why the records are read, before they are.

        Raises
        ------
        ConfigError, ShardCorrupt
            The folder holds no run; or the records are needed, and run.json or the plan is damaged.
        """
        out = Path(out)
        try:
            stored = cls._stored(out)
            why = "" if stored.is_current(out) else "does not list the records that are there now"
        except FileNotFoundError:
            stored, why = None, "is missing"
        except _DAMAGED as error:
            stored, why = None, f"cannot be used ({error})"
        if stored is not None and not why:
            return stored
        tell(f"{out / INDEX_FILE} {why}: reading the commit records. flowkit verify makes the index anew.")
        return cls.of(ShardFolder.open(out))

    @classmethod
    def of(cls, folder: ShardFolder) -> Index:
        """The index of what a folder's records say.

        Raises
        ------
        ShardCorrupt
            The plan is damaged.
        """
        with no_garbage_collection():
            return cls(
                **_clip_columns(folder.records),
                **_failure_columns(folder.failures()),
                **_counts(folder),
                **_listing_columns(folder.listing),
                format=np.array(FORMAT, "<i8"),
            )

    @classmethod
    def _stored(cls, out: Path) -> Index:
        with open(out / INDEX_FILE, "rb", opener=regular) as file, zipfile.ZipFile(file) as archive:
            values = {field.name: _member(archive, field.name) for field in fields(cls)}
        _check(values)
        return cls(**values)

    def to_bytes(self) -> bytes:
        """What index.npz holds; the same index gives the same bytes."""
        file = io.BytesIO()
        np.savez(file, **{field.name: getattr(self, field.name) for field in fields(self)})
        return file.getvalue()

    def is_current(self, out: Path) -> bool:
        """Whether a folder still holds the files that this was made from, by name, size and stated hash."""
        now = _listing_columns(commit.listing(out))
        return all(np.array_equal(getattr(self, name), value) for name, value in now.items())

    def __len__(self) -> int:
        return len(self.clip_id)

    def clip_ids(self, rows: npt.NDArray[Any] | slice = slice(None)) -> list[str]:
        """Ids of some clips, by mask, numbers or slice; of all by default."""
        return [text.decode() for text in self.clip_id[rows].tolist()]

    def persons(self) -> list[tuple[str, str]]:
        """Each (dataset, subject) once, sorted: those whom leave-one-subject-out holds out in turn."""
        pairs = np.unique(self.dataset.astype(np.int64) * max(1, len(self.subjects)) + self.subject)
        datasets, subjects = _texts(self.datasets), _texts(self.subjects)
        return sorted((datasets[pair // len(subjects)], subjects[pair % len(subjects)]) for pair in pairs.tolist())

    def of_person(self, dataset: str, subject: str) -> Mask:
        """(N,) bool: which clips are of a person. `~` of it: all but that person's."""
        of_set, of_subject = (
            self.dataset == _place(self.datasets, dataset),
            self.subject == _place(self.subjects, subject),
        )
        return np.asarray(of_set & of_subject, np.bool_)

    def phase_missing(self) -> Mask:
        """(N,) bool: which clips have a phase that is not valid."""
        return np.asarray(~self.phase_valid.all(axis=1), np.bool_)

    def label_counts(self) -> dict[str, dict[str, int]]:
        """Clips by data set and label, both sorted."""
        width = max(1, len(self.labels))
        counts = np.bincount(self.dataset.astype(np.int64) * width + self.label, minlength=len(self.datasets) * width)
        return {
            dataset: {label: n for label, n in zip(_texts(self.labels), row, strict=True) if n}
            for dataset, row in zip(_texts(self.datasets), counts.reshape(-1, width).tolist(), strict=True)
        }

    def failures(self) -> list[tuple[str, str]]:
        """(clip id, code) of each failed clip, by id."""
        codes = _texts(self.codes)
        return [
            (name, codes[code])
            for name, code in zip(_texts(self.failed_clip_id), self.failed_code.tolist(), strict=True)
        ]

    def repeated(self) -> list[str]:
        """Ids that are stored more than once."""
        names = self.clip_id.tolist()
        if len(set(names)) == len(names):
            return []
        return [name.decode() for name, count in Counter(names).items() if count > 1]


def finalise(out: Path, folder: ShardFolder | None = None) -> Index:
    """Write what is derived from the commit records: index.npz and failures.csv.

    Parameters
    ----------
    out : Path
    folder : ShardFolder, optional
        The same folder, if it was read already.
    """
    if folder is None:
        folder = ShardFolder.open(out)
    index = Index.of(folder)
    durable_files.replace_file(out / INDEX_FILE, index.to_bytes())
    durable_files.replace_file(out / "failures.csv", _failures_csv(folder.failures()))
    (out / "index.json").unlink(missing_ok=True)  # of version 0.1: nobody would keep it right
    return index


# --- from records to columns


def _clip_columns(records: Sequence[commit.Record]) -> dict[str, Any]:
    lines = [record.content["clips"] for record in records]
    counts = [len(rows) for rows in lines]

    def of_all(name: str) -> list[Any]:
        return [value for rows in lines for value in column(rows, name)]

    named = {name: _coded(of_all(name)) for name in ("dataset", "subject", "label")}
    tasks = np.array([record.task for record in records], "<i4")
    return {
        "clip_id": _fixed(of_all("clip_id")),
        **{name: codes for name, (codes, _) in named.items()},
        **{_WORDS[name]: words for name, (_, words) in named.items()},
        "task": np.repeat(tasks, counts).astype("<i4"),
        "position": np.concatenate([np.empty(0, "<i4"), *(np.arange(n, dtype="<i4") for n in counts)]),
        "phase_valid": np.array(of_all("phase_valid"), "|b1").reshape(-1, 2),
        "qc": np.array(of_all("qc"), "<u4"),
        "shard_bytes": np.array([file["bytes"] for record in records if (file := record.content["file"])], "<i8"),
    }


def _failure_columns(failures: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    codes, words = _coded([failure["code"] for failure in failures])
    return {
        "failed_clip_id": _fixed([failure["clip_id"] for failure in failures]),
        "failed_code": codes,
        "codes": words,
    }


def _counts(folder: ShardFolder) -> dict[str, Any]:
    planned = {
        name for generation in read_generations(folder.path) for entries in generation.tasks for name, _ in entries
    }
    left = planned.copy()
    for record in folder.records:
        for part in ("clips", "failures"):
            left.difference_update(column(record.content[part], "clip_id"))
    return {"planned": np.array(len(planned), "<i8"), "not_started": np.array(len(left), "<i8")}


def _listing_columns(listing: Sequence[tuple[str, int, str]]) -> dict[str, Any]:
    return {
        "files": _fixed([name for name, _, _ in listing]),
        "sizes": np.array([size for _, size, _ in listing], "<i8"),
        "hashes": _fixed([digest for _, _, digest in listing]),
    }


def _fixed(texts: Iterable[str]) -> Texts:
    encoded = [text.encode() for text in texts]
    return np.array(encoded, f"S{max([1, *map(len, encoded)])}")


def _coded(texts: Sequence[str]) -> tuple[Codes, Texts]:
    """Each text as its place among the different ones, and those, sorted."""
    words = sorted(set(texts))
    place = {word: number for number, word in enumerate(words)}
    return np.array([*map(place.__getitem__, texts)], "<i4"), _fixed(words)


def _texts(column_of_bytes: Texts) -> list[str]:
    return [text.decode() for text in column_of_bytes.tolist()]


def _place(words: Texts, word: str) -> int:
    """Where a word stands; -1, which no clip has, if it does not."""
    found = np.flatnonzero(words == word.encode())
    return int(found[0]) if len(found) else -1


# --- from a file to columns


def _member(archive: zipfile.ZipFile, name: str) -> npt.NDArray[Any]:
    """One array of the archive; the whole member is read, and so compared with its checksum, before any of it is believed."""
    info = archive.getinfo(f"{name}.npy")
    if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed")
    content = archive.read(info)
    file = io.BytesIO(content)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError(f"{name} has another form")
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    kind = _KINDS[name]
    if dtype.kind != "S" if kind == "S" else dtype != np.dtype(kind):
        raise ValueError(f"{name} is of type {dtype}")
    return np.frombuffer(content, dtype, offset=file.tell()).reshape(shape)


def _check(values: Mapping[str, npt.NDArray[Any]]) -> None:
    """Refuse what `Index.of` would never make: every place must be one of a word, every column of the same length."""
    if int(values["format"]) != FORMAT:
        raise ValueError(f"it has format {values['format']}, not {FORMAT}")
    clips, failed, files = (len(values[name]) for name in ("clip_id", "failed_clip_id", "files"))
    shapes = {
        **dict.fromkeys(_SINGLE, ()),
        **dict.fromkeys(("clip_id", "dataset", "subject", "label", "task", "position", "qc"), (clips,)),
        "phase_valid": (clips, 2),
        **dict.fromkeys(("failed_clip_id", "failed_code"), (failed,)),
        **dict.fromkeys(("files", "sizes", "hashes"), (files,)),
    }
    for name, shape in shapes.items():
        if values[name].shape != shape:
            raise ValueError(f"{name} has shape {values[name].shape}")
    for held in values.values():
        if held.dtype.kind == "S":
            _ = b"".join(held.tolist()).decode()  # nobody shall find out later that a text is none
    for name, words in _WORDS.items():
        if len(values[name]) and not 0 <= values[name].min() <= values[name].max() < len(values[words]):
            raise ValueError(f"{name} names words that are not there")


def _failures_csv(failures: Sequence[Mapping[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, FAILURE_FIELDS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(failures)
    return text.getvalue().encode()
