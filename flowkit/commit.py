"""How files come to lie in an output folder: whole, durable, never overwritten, or not at all.

A file is written under a hidden temporary name, fsynced, and published with an exclusive hard link; then the directory is
fsynced. The commit record (`shards/000/000012.json`) is published last and is the commit point: a shard without a valid
record does not exist. Nothing here ever edits a published file, so two runs of one manifest may work on one folder.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import platform
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowkit.errors import DiskFull, EnvironmentMissing, SchemaTooNew, ShardCorrupt
from flowkit.files import NotRegular, read_regular, stays_below
from flowkit.forms import is_record

SCHEMA = 1
TASKS_PER_FOLDER = 1000
RUN_FILE = "run.json"
OWN_FOLDERS = ("shards", "plan", "quarantine")
WRITTEN_FOLDERS = (".", "plan", "shards", "shards/[0-9]*")
OWN_FILES = ("index.json", "failures.csv", "report.html", RUN_FILE)
DATA_NAME = re.compile(r"\d{6,}-[0-9a-f]{12}\.h5")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_DIRECTORY_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)
"""What file systems answer that cannot fsync a directory; they give no way to do better."""


@dataclass(frozen=True, slots=True)
class Record:
    """A commit record that was found valid.

    Attributes
    ----------
    task : int
    path : Path
        Of the record itself.
    content : dict
        Its JSON: key, file (name, bytes, sha256, or None if every clip failed), clips, failures, host, device, times.
    """

    task: int
    path: Path
    content: dict[str, Any]

    def made_here_since(self, began: float) -> bool:
        """Whether a process of this machine began the task at that time (of `time.time`) or later."""
        return bool(self.content["host"] == platform.node() and self.content["began"] >= began)

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


def publish(out: Path, task: int, image: bytes | None, content: Mapping[str, Any]) -> tuple[Record, bool]:
    """Commit a task: its data file first, its record last.

    Parameters
    ----------
    out : Path
    task : int
    image : bytes or None
        The whole shard file; None if every clip failed.
    content : mapping
        The record without `schema`, `task` and `file`, which are added.

    Returns
    -------
    Record
        The one on disk: that of another run, if it was faster.
    bool
        Whether it is this one.

    Raises
    ------
    DiskFull
        Nothing of this task was published, and no temporary file is left.
    ShardCorrupt
        The folder holds this task's record for other settings or clips: another run has begun the folder anew.
    """
    folder = task_folder(out, task)
    folder.mkdir(parents=True, exist_ok=True)
    file: dict[str, Any] | None = None
    if image is not None:
        digest = hashlib.sha256(image).hexdigest()
        file = {"name": f"{task:06d}-{digest[:12]}.h5", "bytes": len(image), "sha256": digest}
        publish_file(folder / f"{task:06d}-{digest[:12]}.h5", image, replace_damaged=True)
    _die_here("before_record")
    record = {"schema": SCHEMA, "task": task, "file": file, **content}
    path = record_path(out, task)
    created = publish_file(path, encode(record))
    _die_here("after_record")
    found = read_record(path)
    if found is None:
        raise ShardCorrupt(f"{path}: record must read back as written; got something else. Check the disk.")
    if found.content["key"] != content["key"]:
        raise ShardCorrupt(
            f"{path}: record must be of this run's settings and clips; got another's. Two runs with different settings or "
            "manifests worked on this folder: use an --out for each."
        )
    return found, created


def publish_file(path: Path, content: bytes, *, replace_damaged: bool = False) -> bool:
    """Put a file where there is none; False if there is one already, which stays.

    Parameters
    ----------
    path : Path
    content : bytes
    replace_damaged : bool
        Whether an existing file with other content is moved to quarantine first: its name says what it should hold.

    Raises
    ------
    DiskFull
    """
    temporary = _temporary(path)
    try:
        _write_durably(temporary, content)
        _die_here("after_write")
        if replace_damaged and path.exists() and path.read_bytes() != content:
            quarantine(path)
        try:
            os.link(temporary, path)
            created = True
        except FileExistsError:
            created = False
        _die_here("after_link")
    except OSError as error:
        if error.errno in FULL:
            raise disk_full(path, len(content)) from error
        raise
    finally:
        with contextlib.suppress(OSError):  # it must not hide why writing failed
            temporary.unlink(missing_ok=True)
    sync_folder(path.parent)
    return created


def replace_file(path: Path, content: bytes) -> None:
    """Put a derived file (index, failures, report) in place of the old one, at once.

    Raises
    ------
    DiskFull
    """
    temporary = _temporary(path)
    try:
        _write_durably(temporary, content)
        temporary.replace(path)
    except OSError as error:
        if error.errno in FULL:
            raise disk_full(path, len(content)) from error
        raise
    finally:
        with contextlib.suppress(OSError):  # it must not hide why writing failed
            temporary.unlink(missing_ok=True)


def encode(content: Mapping[str, Any]) -> bytes:
    """JSON of a record that a person can read, with the hash that proves it whole."""
    return json.dumps({"sha256": _digest(content), "content": content}, indent=1, ensure_ascii=False).encode() + b"\n"


def decode(text: bytes) -> dict[str, Any] | None:
    """What `encode` was given, or None if a byte is wrong, or the form, as in a file that nobody made with `encode`.

    Raises
    ------
    SchemaTooNew
    """
    try:
        outer = json.loads(text.decode())  # of bytes, json would take other encodings too
        content: dict[str, Any] = outer["content"]
        if _digest(content) != outer["sha256"]:
            return None
        schema = content["schema"]
    except (ValueError, KeyError, TypeError, RecursionError):  # the last: thousands of brackets
        return None
    if type(schema) is not int:
        return None
    if schema > SCHEMA:
        raise SchemaTooNew(
            f"folder: schema must be at most {SCHEMA}; got {schema}. Read it with the newer flowkit that wrote it."
        )
    return content


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


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
    record = Record(content["task"], path, content)
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
    for path in _record_paths(out):
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


def _record_paths(out: Path) -> list[Path]:
    return sorted(out.glob("shards/[0-9]*/[0-9]*.json"))  # not the temporaries, which begin with a dot


def quarantine(path: Path) -> Path:
    """Move a damaged file out of the way, keeping it; where it lies now. Another run may have moved it already."""
    folder = path.parents[2] / "quarantine"
    folder.mkdir(exist_ok=True)
    target = folder / f"{path.name}.{secrets.token_hex(4)}"
    with contextlib.suppress(FileNotFoundError):
        path.rename(target)
    return target


def probe(out: Path) -> None:
    """Try, in every folder that will be written, what a commit does; create the folders.

    Raises
    ------
    EnvironmentMissing
        With the system's words.
    DiskFull
    """
    for folder in (out, out / "plan", out / "shards", task_folder(out, 0)):
        test = _temporary(folder / "probe")  # one that a killed run leaves is removed with its other temporaries
        try:
            folder.mkdir(parents=True, exist_ok=True)
            publish_file(test, b"flowkit")
            test.unlink()
        except DiskFull:
            raise
        except OSError as error:
            raise EnvironmentMissing(
                f"{folder}: --out must be a folder where files can be created and hard-linked; got {error.strerror}. "
                "Choose another folder."
            ) from error


def check_space(out: Path, needed: int) -> None:
    """Compare an estimate with the free space before anything is computed.

    Raises
    ------
    DiskFull
    """
    free = shutil.disk_usage(out).free
    if needed > free:
        raise DiskFull(
            f"{out}: free space must be at least {needed / 1e6:.1f} MB; got {free / 1e6:.1f} MB. Free some, or choose another "
            "--out."
        )


def remove_stale_temporaries(out: Path, folders: Sequence[str] = WRITTEN_FOLDERS) -> None:
    """Remove the temporary files of processes of this machine that no longer run from some folders of `out`."""
    for path in _temporaries(out, folders):
        _, owner, pid, *_ = path.name.split("~")
        if owner == _owner() and not _runs(pid):
            path.unlink(missing_ok=True)


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


def disk_full(path: Path, needed: int = 0) -> DiskFull:
    """Say how many bytes were wanted, if that is known, and where."""
    amount = f"{needed} bytes" if needed else "what is written"
    return DiskFull(
        f"{path}: disk must have room for {amount}; got none left, or a quota or size limit. Free some and run the same "
        "command again: what was committed stays."
    )


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in NO_DIRECTORY_SYNC:
            raise
    finally:
        os.close(handle)


def _write_durably(path: Path, content: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(handle, view) :]
        os.fsync(handle)
    finally:
        os.close(handle)  # raises what a network file system kept to itself until now


def _temporary(path: Path) -> Path:
    return path.with_name(f".tmp~{_owner()}~{os.getpid()}~{secrets.token_hex(4)}~{path.name}")


def _temporaries(out: Path, folders: Sequence[str] = WRITTEN_FOLDERS) -> Iterator[Path]:
    for folder in folders:
        yield from out.glob(f"{folder}/.tmp~*")


def _runs(pid: str) -> bool:
    """Whether a process of this machine can still write: one that ended and waits for its parent's notice cannot."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


def _owner() -> str:
    """Name of this machine, boot and process namespace: only within it does a process number mean something."""
    parts = [platform.node()]
    for path in (Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")):
        try:
            parts.append(str(path.readlink()) if path.is_symlink() else path.read_text())
        except OSError:
            parts.append("?")
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:12]


def _die_here(step: str) -> None:
    """Fault hook of the tests: end the process as a power cut would, at a named step."""
    if os.environ.get("FLOWKIT_TEST_DIE_AT") == step:
        os._exit(137)
