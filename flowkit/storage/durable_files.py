"""Files that come to lie whole and durable, never overwritten, or not at all.

A file is written under a hidden temporary name, fsynced, and published with an exclusive hard link; then the directory is
fsynced. Nothing here ever edits a published file.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
import platform
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from flowkit.errors import DiskFull
from flowkit.storage.safe_files import BINARY

WRITTEN_FOLDERS = (".", "plan", "shards", "shards/[0-9]*")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.ENOTTY, errno.EBADF)
"""What file systems answer that cannot do what `_sync` asks for."""
_WRITTEN_BYTES = 1 << 20
"""In one call. For large ones Linux takes large pages, and where those are new to a virtual machine, ten times as long."""
_steps = itertools.count(1)
"""Counts the steps of `_die_here`."""


def publish_file(path: Path, content: bytes) -> bool:
    """Put a file where there is none; False if there is one already, which stays.

    Raises
    ------
    DiskFull
    """
    with _staged(path, content) as temporary:
        created = _linked(temporary, path)
    _keep_name(path)
    return created


def publish_hashed(
    folder: Path, pattern: str, content: bytes, check: Callable[[bytes], None] = lambda _: None
) -> dict[str, Any]:
    """Put a file under a name that holds its hash; one of that name with other content is moved to quarantine.

    Parameters
    ----------
    folder : Path
    pattern : str
        Name of the file with {} for the first digits of the hash.
    content : bytes
    check : callable
        Looks at the content; what it raises is raised here, and nothing is published. It is called after the hash was made, in the
        same new thread, while the file is written.

    Returns
    -------
    dict
        "name", "bytes" and "sha256", for a record.

    Raises
    ------
    DiskFull
    """

    def digest() -> str:
        found = hashlib.sha256(content).hexdigest()
        check(content)
        return found

    with ThreadPoolExecutor(1, "flowkit-hash") as beside:
        hashed = beside.submit(digest)

        def path() -> Path:
            return folder / pattern.format(hashed.result()[:12])

        with _staged(folder / pattern, content, path) as temporary:
            final = path()
            if final.exists() and final.read_bytes() != content:
                quarantine(final)
            _linked(temporary, final)
    _keep_name(final)
    return {"name": final.name, "bytes": len(content), "sha256": hashed.result()}


def _linked(temporary: Path, path: Path) -> bool:
    """Give a staged file its name; False if there is a file already."""
    try:
        os.link(temporary, path)
        created = True
    except FileExistsError:
        created = False
    die_here(path, "after_link")
    return created


def _keep_name(path: Path) -> None:
    """Make the name of a published file durable, whose temporary name is gone."""
    die_here(path, "after_unlink")
    sync_folder(path.parent)
    die_here(path, "after_sync")


def replace_file(path: Path, content: bytes) -> None:
    """Put a derived file (index, failures, report) in place of the old one, at once.

    Raises
    ------
    DiskFull
    """
    with _staged(path, content) as temporary:
        temporary.replace(path)
        die_here(path, "after_replace")


@contextlib.contextmanager
def _staged(path: Path, content: bytes, named: Callable[[], Path] | None = None) -> Iterator[Path]:
    """Keep content in a temporary file beside `path`, whole and durable, as long as the with-block lasts.

    `named` gives the path that it will have, where that is not `path`.
    """
    temporary = temporary_path(path)
    try:
        _write_durably(temporary, content, named or (lambda: path))
        yield temporary
    except OSError as error:
        if error.errno in FULL:
            raise disk_full(path.parent if named else path, len(content)) from error  # a name may not be known yet
        raise
    finally:
        with contextlib.suppress(OSError):  # it must not hide why writing failed
            temporary.unlink(missing_ok=True)


def quarantine(path: Path) -> Path:
    """Move a damaged file out of the way, keeping it; where it lies now. Another run may have moved it already."""
    folder = path.parents[2] / "quarantine"
    folder.mkdir(exist_ok=True)
    target = folder / f"{path.name}.{secrets.token_hex(4)}"
    with contextlib.suppress(FileNotFoundError):
        path.rename(target)
    die_here(path, "after_quarantine")
    return target


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


def make_folder(folder: Path) -> None:
    """Create a folder where there is none, and those above it, each with its name made durable."""
    if folder.is_dir():
        return
    if folder.parent != folder:
        make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def _write_durably(temporary: Path, content: bytes, path: Callable[[], Path]) -> None:
    """Write a file that will become what `path` gives."""
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | BINARY, 0o644)
    try:
        die_here(path, "after_create")
        view = memoryview(content)
        while view:
            view = view[os.write(handle, view[:_WRITTEN_BYTES]) :]
        die_here(path, "after_write")
        _sync(handle)
        die_here(path, "after_fsync")
    finally:
        os.close(handle)  # raises what a network file system kept to itself until now
    die_here(path, "after_close")


def temporary_path(path: Path) -> Path:
    """Return a new name for the temporary file of a path, which says which process of which machine it is of."""
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


def die_here(file: Path | Callable[[], Path], step: str) -> None:
    """Fault hook of the tests: end the process at a step of a file, as SIGKILL would, and say at which.

    FLOWKIT_TEST_DIE_AT is a step (`after_link`), a step of some files (`plan/*.json:after_link`, with a pattern as of
    `Path.match`), or a number: that of the step in this process, whichever it is.
    """
    wanted = os.environ.get("FLOWKIT_TEST_DIE_AT")
    if wanted is None:
        return
    path = file() if callable(file) else file
    pattern, _, name = wanted.rpartition(":")
    if next(_steps) == int(wanted) if wanted.isdigit() else step == name and path.match(pattern or "*"):
        os.write(2, f"died at {path}:{step}\n".encode())
        os._exit(137)
