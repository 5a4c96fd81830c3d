"""How files come to lie in an output folder: whole, durable, never overwritten, or not at all.

A file is written under a hidden temporary name, fsynced, and published with an exclusive hard link; then the directory is
fsynced. The commit record (`shards/000/000012.json`) is published last and is the commit point: a shard without a valid
record does not exist. Nothing here ever edits a published file, so two runs of one manifest may work on one folder.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import os
import platform
import re
import secrets
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowkit.errors import DiskFull, EnvironmentMissing, SchemaTooNew, ShardCorrupt
from flowkit.storage.garbage import no_garbage_collection
from flowkit.storage.record_forms import is_record
from flowkit.storage.row_table import Rows
from flowkit.storage.safe_files import BINARY, NotRegular, read_regular, regular, stays_below

SCHEMA = 1
"""Of the JSON files: records, run.json, plans, and what fmanet writes. Shards count their own: `shards.SHARD_SCHEMA`."""
TASKS_PER_FOLDER = 1000
RUN_FILE = "run.json"
OWN_FOLDERS = ("shards", "plan", "quarantine")
WRITTEN_FOLDERS = (".", "plan", "shards", "shards/[0-9]*")
OWN_FILES = ("index.npz", "index.json", "failures.csv", "report.html", RUN_FILE)
_LISTED = re.compile(r"\d.*\.(json|h5)|run\.json")
DATA_NAME = re.compile(r"\d{6,}-[0-9a-f]{12}\.h5")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_HEAD, _MIDDLE, _TAIL = b'{"sha256": "', b'", "content": ', b"}\n"
_BODY = len(_HEAD) + 64 + len(_MIDDLE)
_INDENTED_HEAD = b'{\n "sha256": "'
"""Of version 0.1, which indented the JSON; its hash is that of the content without spaces and breaks, as `encode` writes it."""
_STATED = re.compile(rb'\{\s*"sha256": "([0-9a-f]{64})"')
NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.ENOTTY, errno.EBADF)
"""What file systems answer that cannot do what `_sync` asks for."""
_steps = itertools.count(1)
"""Counts the steps of `_die_here`."""


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


def publish(out: Path, task: int, image: bytes | None, content: Mapping[str, Any]) -> Record:
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

    Raises
    ------
    DiskFull
        Nothing of this task was published, and no temporary file is left.
    ShardCorrupt
        The folder holds this task's record for other settings or clips: another run has begun the folder anew.
    """
    folder = task_folder(out, task)
    _make_folder(folder)
    file: dict[str, Any] | None = None
    if image is not None:
        digest = hashlib.sha256(image).hexdigest()
        file = {"name": f"{task:06d}-{digest[:12]}.h5", "bytes": len(image), "sha256": digest}
        publish_file(folder / f"{task:06d}-{digest[:12]}.h5", image, replace_damaged=True)
    record = {"schema": SCHEMA, "task": task, "file": file, **content}
    path = record_path(out, task)
    _die_here(path, "before_record")
    publish_file(path, encode(record))
    _die_here(path, "after_record")
    found = read_record(path)
    if found is None:
        raise ShardCorrupt(f"{path}: record must read back as written; got something else. Check the disk.")
    if found.content["key"] != content["key"]:
        raise ShardCorrupt(
            f"{path}: record must be of this run's settings and clips; got another's. Two runs with different settings or "
            "manifests worked on this folder: use an --out for each."
        )
    return found


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
    with _staged(path, content) as temporary:
        if replace_damaged and path.exists() and path.read_bytes() != content:
            quarantine(path)
        try:
            os.link(temporary, path)
            created = True
        except FileExistsError:
            created = False
        _die_here(path, "after_link")
    _die_here(path, "after_unlink")
    sync_folder(path.parent)
    _die_here(path, "after_sync")
    return created


def replace_file(path: Path, content: bytes) -> None:
    """Put a derived file (index, failures, report) in place of the old one, at once.

    Raises
    ------
    DiskFull
    """
    with _staged(path, content) as temporary:
        temporary.replace(path)
        _die_here(path, "after_replace")


@contextlib.contextmanager
def _staged(path: Path, content: bytes) -> Iterator[Path]:
    """Keep content in a temporary file beside `path`, whole and durable, as long as the with-block lasts."""
    temporary = _temporary(path)
    try:
        _write_durably(temporary, content, path)
        yield temporary
    except OSError as error:
        if error.errno in FULL:
            raise disk_full(path, len(content)) from error
        raise
    finally:
        with contextlib.suppress(OSError):  # it must not hide why writing failed
            temporary.unlink(missing_ok=True)


def encode(content: Mapping[str, Any]) -> bytes:
    """JSON of a record, with the hash that proves it whole: that of the very bytes in which the content stands."""
    body = json.dumps(content, sort_keys=True, default=list).encode()  # list: of `Rows`
    return b"".join((_HEAD, hashlib.sha256(body).hexdigest().encode(), _MIDDLE, body, _TAIL))


def decode(text: bytes) -> dict[str, Any] | None:
    """What `encode` was given, or None if a byte is wrong, or the form, as in a file that nobody made with `encode`.

    Raises
    ------
    SchemaTooNew
    """
    try:
        content: dict[str, Any] = _verified(text)
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


def _verified(text: bytes) -> Any:
    """The content, if its hash is right."""
    hash_end = _BODY - len(_MIDDLE)
    if text.startswith(_HEAD) and text[hash_end:_BODY] == _MIDDLE and text.endswith(_TAIL):
        stated, body = text[len(_HEAD) : hash_end], text[_BODY : -len(_TAIL)]
        return json.loads(body.decode()) if stated == hashlib.sha256(body).hexdigest().encode() else None
    if not text.startswith(_INDENTED_HEAD):
        return None
    outer = json.loads(text.decode())  # of bytes, json would take other encodings too
    body = json.dumps(outer["content"], sort_keys=True).encode()
    return outer["content"] if outer["sha256"] == hashlib.sha256(body).hexdigest() else None


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
                        found.append((name, entry.stat().st_size, _stated_hash(entry.path)))
    return sorted(found)


def _stated_hash(path: str) -> str:
    """The hash that an encoded file states at its beginning, unproven; empty if it is no such file."""
    if path.endswith(".h5"):
        return ""
    try:
        with open(path, "rb", buffering=0, opener=regular) as file:
            found = _STATED.match(file.read(_BODY))
    except NotRegular:
        return ""
    return found[1].decode() if found else ""


def quarantine(path: Path) -> Path:
    """Move a damaged file out of the way, keeping it; where it lies now. Another run may have moved it already."""
    folder = path.parents[2] / "quarantine"
    folder.mkdir(exist_ok=True)
    target = folder / f"{path.name}.{secrets.token_hex(4)}"
    with contextlib.suppress(FileNotFoundError):
        path.rename(target)
    _die_here(path, "after_quarantine")
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
            _make_folder(folder)
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
    if not hasattr(os, "O_DIRECTORY"):  # Windows opens no folder; NTFS keeps a journal of names
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        _sync(handle)
    except OSError as error:  # there is no way to do better
        if error.errno not in NO_SYNC:
            raise
    finally:
        os.close(handle)


def _sync(handle: int) -> None:
    """Wait until a file or a folder is on the disk. On macOS `fsync` stops at the cache of the drive, which power cuts empty."""
    if sys.platform == "darwin":
        import fcntl

        try:
            fcntl.fcntl(handle, fcntl.F_FULLFSYNC)
        except OSError as error:  # a network drive, or a file system such as exFAT
            if error.errno not in NO_SYNC:
                raise
        else:
            return
    os.fsync(handle)


def _make_folder(folder: Path) -> None:
    """Create a folder where there is none, and those above it, each with its name made durable."""
    if folder.is_dir():
        return
    if folder.parent != folder:
        _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def _write_durably(temporary: Path, content: bytes, path: Path) -> None:
    """Write a file that will become `path`."""
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | BINARY, 0o644)
    try:
        _die_here(path, "after_create")
        view = memoryview(content)
        while view:
            view = view[os.write(handle, view) :]
        _die_here(path, "after_write")
        _sync(handle)
        _die_here(path, "after_fsync")
    finally:
        os.close(handle)  # raises what a network file system kept to itself until now
    _die_here(path, "after_close")


def _temporary(path: Path) -> Path:
    return path.with_name(f".tmp~{_owner()}~{os.getpid()}~{secrets.token_hex(4)}~{path.name}")


def _temporaries(out: Path, folders: Sequence[str] = WRITTEN_FOLDERS) -> Iterator[Path]:
    for folder in folders:
        yield from out.glob(f"{folder}/.tmp~*")


def _runs(pid: str) -> bool:
    """Whether a process of this machine can still write: one that ended and waits for its parent's notice cannot.

    Where the system cannot be asked, every process counts as running, so that nothing is removed that is still being written.
    """
    if sys.platform == "win32":  # there, os.kill(pid, 0) would end it
        return True
    if sys.platform != "linux":
        try:
            os.kill(int(pid), 0)  # signal 0 is never delivered
        except OSError as error:
            return error.errno != errno.ESRCH
        return True
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


def _die_here(path: Path, step: str) -> None:
    """Fault hook of the tests: end the process at a step, as SIGKILL would, and say at which.

    FLOWKIT_TEST_DIE_AT is a step (`after_link`), a step of some files (`plan/*.json:after_link`, with a pattern as of
    `Path.match`), or a number: that of the step in this process, whichever it is.
    """
    wanted = os.environ.get("FLOWKIT_TEST_DIE_AT")
    if wanted is None:
        return
    pattern, _, name = wanted.rpartition(":")
    if next(_steps) == int(wanted) if wanted.isdigit() else step == name and path.match(pattern or "*"):
        os.write(2, f"died at {path}:{step}\n".encode())
        os._exit(137)
