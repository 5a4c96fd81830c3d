"""How a task comes to count as done: its shard, then its commit record.

The commit record (`shards/000/000012.json`) is published last and is the commit point: a shard without a valid record does not
exist. Two runs of one manifest may work on one folder: whichever commits a task first counts.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowkit.errors import DiskFull, EnvironmentMissing, ShardCorrupt
from flowkit.storage.durable_files import (
    FULL,
    die_here,
    disk_full,
    make_folder,
    publish_file,
    publish_hashed,
    temporary_path,
)
from flowkit.storage.hashed_json import SCHEMA, decode, encode, stated_hash
from flowkit.storage.record_forms import is_record
from flowkit.storage.row_table import Rows, no_garbage_collection
from flowkit.storage.safe_files import NotRegular, read_regular, stays_below

TASKS_PER_FOLDER = 1000
RUN_FILE = "run.json"
OWN_FOLDERS = ("shards", "plan", "quarantine")
OWN_FILES = ("index.npz", "index.json", "failures.csv", "report.html", RUN_FILE)
_LISTED = re.compile(r"\d.*\.(json|h5)|run\.json")
DATA_NAME = re.compile(r"\d{6,}-[0-9a-f]{12}\.h5")


@dataclass(frozen=True, slots=True)
class Record:
    """A commit record that was found valid.

    Attributes
    ----------
    task : int
    path : Path
        Of the record itself.
    content : dict
        Its JSON: key, file (name, bytes, sha256, or None if every clip failed), clips and failures (`Rows`), run, host, device,
        times.
    """

    task: int
    path: Path
    content: dict[str, Any]

    def is_of(self, run: str) -> bool:
        """Whether that run committed the task, and not another one that was faster; records of version 0.1 do not say."""
        return self.content.get("run") == run

    @property
    def data_path(self) -> Path | None:
        """Where the shard file lies, or None where every clip of the task failed."""
        file = self.content["file"]
        return self.path.parent / file["name"] if file else None


def task_folder(out: Path, task: int) -> Path:
    """Folder of a task's files: at most a thousand tasks each."""
    return out / "shards" / f"{task // TASKS_PER_FOLDER:03d}"


def record_path(out: Path, task: int) -> Path:
    """Where the commit record of a task lies."""
    return task_folder(out, task) / f"{task:06d}.json"


def publish(
    out: Path,
    task: int,
    image: bytes | None,
    content: Mapping[str, Any],
    check: Callable[[bytes], None] = lambda _: None,
) -> Record:
    """Commit a task: its data file first, its record last.

    Parameters
    ----------
    out : Path
    task : int
    image : bytes or None
        The whole shard file; None if every clip failed.
    content : mapping
        The record without `schema`, `task` and `file`, which are added.
    check : callable
        Looks at the image, in a thread, while that is written; what it raises is raised here, and nothing is published.

    Returns
    -------
    Record
        The one on disk: that of another run, if it was faster.

    Raises
    ------
    DiskFull
        Nothing of this task was published, and no temporary file is left.
    ShardCorrupt
        The folder holds this task's record for other settings or clips: another run has begun the folder anew.
    """
    folder = task_folder(out, task)
    make_folder(folder)
    file = None if image is None else publish_hashed(folder, f"{task:06d}-{{}}.h5", image, check)
    record = {"schema": SCHEMA, "task": task, "file": file, **content}
    path = record_path(out, task)
    die_here(path, "before_record")
    publish_file(path, encode(record))
    die_here(path, "after_record")
    found = read_record(path)
    if found is None:
        raise ShardCorrupt(f"{path}: record must read back as written; got something else. Check the disk.")
    if found.content["key"] != content["key"]:
        raise ShardCorrupt(
            f"{path}: record must be of this run's settings and clips; got another's. Two runs with different settings or "
            "manifests worked on this folder: use an --out for each."
        )
    return found


def read_record(path: Path) -> Record | None:
    """The record at a path, or None if it or its data file is missing, torn, of the wrong length or form, or elsewhere.

    Raises
    ------
    OSError
        It cannot be read for another reason: that is no proof that it is not valid.
    """
    try:
        content = decode(read_regular(path))
    except (FileNotFoundError, NotRegular):
        return None
    if content is None or not is_record(content) or f"{content['task']:06d}" != path.stem:
        return None
    if not stays_below(path, path.parents[1]):
        return None
    try:
        rows = {name: Rows(content[name]) for name in ("clips", "failures")}
    except (ValueError, KeyError):  # not all have the same keys
        return None
    record = Record(content["task"], path, content | rows)
    return record if _data_fits(record) else None


def _data_fits(record: Record) -> bool:
    data = record.data_path
    if data is None:
        return True
    if not DATA_NAME.fullmatch(data.name) or data.parent != record.path.parent:
        return False
    try:
        return bool(data.stat().st_size == record.content["file"]["bytes"])
    except FileNotFoundError:
        return False


def scan(out: Path) -> tuple[list[Record], list[Path]]:
    """Every valid record of a folder by task number, and every other.

    The others are torn, or their data file is missing or of the wrong length: their tasks count as not done.
    """
    records, invalid = [], []
    with no_garbage_collection():
        for path in sorted(out.glob("shards/[0-9]*/[0-9]*.json")):  # not the temporaries, which begin with a dot
            record = read_record(path)
            if record is None:
                invalid.append(path)
            else:
                records.append(record)
    return records, invalid


def read_records(out: Path) -> list[Record]:
    """Every valid record of a folder, by task number."""
    return scan(out)[0]


def invalid_records(out: Path) -> list[Path]:
    """Every record that is not valid; see `scan`."""
    return scan(out)[1]


def listing(out: Path) -> list[tuple[str, int, str]]:
    """Name, bytes and stated hash of each file that makes out what a folder holds, sorted: run, plan, records, shards.

    Shards state no hash here: their names do. Nothing is read but the beginnings of the others.
    """
    found = []
    for folder in (out, out / "plan", *out.glob("shards/[0-9]*")):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
            for entry in entries:
                if _LISTED.fullmatch(entry.name):
                    name = Path(entry.path).relative_to(out).as_posix()
                    with contextlib.suppress(FileNotFoundError):  # moved by another run in this moment
                        found.append((name, entry.stat().st_size, stated_hash(entry.path)))
    return sorted(found)


def probe(out: Path) -> None:
    """Try, in every folder that will be written, what a commit does; create the folders.

    Raises
    ------
    EnvironmentMissing
        With the system's words.
    DiskFull
    """
    for folder in (out, out / "plan", out / "shards", task_folder(out, 0)):
        test = temporary_path(folder / "probe")  # one that a killed run leaves is removed with its other temporaries
        try:
            make_folder(folder)
            publish_file(test, b"flowkit")
            test.unlink()
        except DiskFull:
            raise
        except OSError as error:
            if error.errno in FULL:
                raise disk_full(folder) from error
            raise EnvironmentMissing(
                f"{folder}: --out must be a folder where files can be created and hard-linked; got {error.strerror}. "
                "Choose another folder."
            ) from error


def discard(out: Path) -> None:
    """Remove what flowkit put into a folder, and nothing else.

    Raises
    ------
    EnvironmentMissing
        The folder has something under these names and is no output folder of flowkit; nothing was removed.
    OSError
        Something cannot be removed.
    """
    found = [out / name for name in OWN_FOLDERS + OWN_FILES if (out / name).exists()]
    run = out / RUN_FILE
    if found and not (run.is_file() and decode(run.read_bytes())):
        raise EnvironmentMissing(
            f"{out}: --overwrite must find a folder that flowkit made, with its {RUN_FILE}; got one without that holds "
            f"{', '.join(path.name for path in found)}. Use another --out, or empty the folder yourself."
        )
    for path in found:  # run.json last: until then the folder is known as ours
        shutil.rmtree(path) if path.is_dir() else path.unlink()
