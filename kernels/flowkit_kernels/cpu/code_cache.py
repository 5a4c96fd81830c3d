"""Compiled kernels on disk: one process per machine compiles them, every other process loads them.

Numba's own cache works with one folder per function. Where no folder can be written it raises at import, even where the code is
there to be read; a damaged file or a full disk ends in a traceback; and processes that start together all compile. `KernelCache`
uses Numba's files in another way:

- It looks through several folders (`candidates`). It loads from the first that has the code and stores in the first that has room.
- The process that compiles an entry holds a lock on a file beside it. Others wait for it, then load.
- A file that cannot be read as what it should be counts as absent.
- The stamp of a file covers every source that is compiled into it, so an update never runs old code.

The index is a pickle, so a folder that another user could have filled is never read.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import os
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from numba import config
from numba.core import caching
from numba.core.compiler import CompileResult
from numba.core.runtime import rtsys
from numba.misc.appdirs import AppDirs

from flowkit_kernels.errors import BackendUnavailable
from flowkit_kernels.probing.obstacles import Obstacle

try:
    import fcntl
except ImportError:  # Windows: processes that start together each compile
    fcntl = None  # type: ignore[assignment]

HERE = Path(__file__).absolute().parents[1]
SOURCES = (
    "params.py",
    "reference.py",
    "numba_shared.py",
    "cpu/simd.py",
    "cpu/pyramid.py",
    "cpu/state.py",
    "cpu/median.py",
    "cpu/warp.py",
    "cpu/tvl1.py",
    "cpu/mmcof.py",
    "cpu/rasteriser.py",
    "cpu/gauss_newton.py",
    "cpu/least_squares.py",
    "cpu/head_fit.py",
    "cpu/half.py",
)
"""What is compiled, and what its constants come from."""
ROOM_BYTES = 7 * 2**20
"""The compiled code of everything takes 5.1 MB."""
LONGEST_WAIT_S = 240.0
"""A process that has not compiled by then hangs, and the one that waits for it compiles too. It is less than what a worker of
flowkit may take to start."""
POLL_S = 0.1

Entry = tuple[Any, tuple[Any, ...]]
"""A function that Numba compiles, and the types of its arguments."""


def warm_up(entries: tuple[Entry, ...], tell: Callable[[str], object]) -> float:
    """Load the compiled code of entries, or compile it; return the seconds that compiling took, 0 where nothing was compiled.

    `tell` is called before that, and where the code lies in an unusual folder once more after it.

    Raises
    ------
    BackendUnavailable
        No folder can be written.
    """
    compiled = folder_of(entries) is not None
    if not compiled:
        tell("Compiling kernels, once per machine: this takes some 20 s ...")
    start = time.perf_counter()
    for function, types in entries:
        function.compile(types)
    if compiled:
        return 0.0
    seconds = time.perf_counter() - start
    if note := storage_note(folder_of(entries)):
        tell(note)
    return seconds


def folder_of(entries: tuple[Entry, ...]) -> Path | None:
    """Return the folder from which the code of all entries would be loaded, None where some of it is still to be compiled."""
    folders = [function._cache.folder_of(types, function.targetctx) for function, types in entries]
    return None if None in folders else folders[0]


def obstacle(entries: tuple[Entry, ...]) -> Obstacle | None:
    """Return what keeps these entries from being compiled or loaded here, if anything does."""
    if folder_of(entries) is not None or storage() is not None:
        return None
    reasons = "; ".join(f"{folder}: {_why_not(folder)}" for folder in candidates())
    what = f"no folder for compiled kernels can be written ({reasons})"
    return Obstacle(what, "Set NUMBA_CACHE_DIR to a folder that can be written")


def storage_note(folder: Path | None) -> str:
    """Return a sentence on the folder where compiled code is stored, if a user would not expect it there; else ""."""
    if folder is None or not (config.CACHE_DIR or folder.parent == _temporary()):
        return ""
    passed = [f"{other} ({_why_not(other)})" for other in itertools.takewhile(folder.__ne__, candidates())]
    if not passed:
        return ""
    return (
        f"The compiled kernels are stored in {folder}, because other folders cannot be written: {', '.join(passed)}. Set "
        "NUMBA_CACHE_DIR to choose a folder."
    )


# --- folders


def candidates() -> Iterator[Path]:
    """Yield the folders that may hold compiled code: those of Numba in its order, then one of this user in the temporary folder."""
    name = f"{HERE.name}_{hashlib.sha1(str(HERE).encode(), usedforsecurity=False).hexdigest()}"
    if config.CACHE_DIR:
        yield Path(config.CACHE_DIR, name)
    yield HERE / "__pycache__"
    user_wide = Path(AppDirs("numba", appauthor=False).user_cache_dir)
    if user_wide.is_absolute():  # without a home it would lie in the working directory, whoever owns that
        yield user_wide / name
    temporary = _temporary()
    if temporary is not None:
        yield temporary / name


def storage() -> Path | None:
    """Return the folder in which new code is stored, None where there is none."""
    return next((folder for folder in candidates() if not _why_not(folder)), None)


def _searched() -> Iterator[Path]:
    """Yield the folders from which code is loaded: all up to the one where it would be stored."""
    for folder in candidates():
        if _is_trusted(folder):
            yield folder
            if not _why_not(folder):
                return


@functools.cache
def _why_not(folder: Path) -> str:
    """Return what keeps code from being stored in a folder, "" where it can be; looked at once per process."""
    if not _is_trusted(folder):
        return "it may be another user's"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(ROOM_BYTES))  # an empty file also fits on a full disk
    except OSError as error:
        return error.strerror or str(error)
    return ""


@functools.cache
def _temporary() -> Path | None:
    """Return the folder of this user in the temporary folder, be it there or not."""
    try:
        return Path(tempfile.gettempdir()).absolute() / f"flowkit-kernels-{_user()}"
    except OSError:  # no folder at all can be written
        return None


def _is_trusted(folder: Path) -> bool:
    """Return whether nobody else can have put code there but the owner of this package and the administrator."""
    if folder.parent == _temporary():
        return _is_private(folder.parent)
    try:
        owner = folder.stat().st_uid
    except OSError:  # not there yet, or not to be read
        return True
    return owner in (0, _user(), HERE.stat().st_uid) or os.access(folder, os.W_OK)


def _is_private(folder: Path) -> bool:
    """Return whether a folder, which is made if need be, is this user's alone; everybody can write beside it."""
    with suppress(OSError):
        folder.mkdir(mode=0o700)
    try:
        found, around = folder.lstat(), folder.parent.stat()
    except OSError:
        return False
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid == _user() and not found.st_mode & 0o077
    replaceable = around.st_mode & 0o022 and not around.st_mode & stat.S_ISVTX
    return ours and not replaceable


def _user() -> int:
    return os.geteuid() if hasattr(os, "geteuid") else 0


# --- files


class KernelCache(caching._Cache):  # type: ignore[misc]
    """The compiled code of one function, in the place of Numba's own cache.

    Parameters
    ----------
    function : callable
        Of a module.
    shared : bool
        Whether processes wait for the one that compiles it. Otherwise it is part of what does.
    """

    def __init__(self, function: Callable[..., Any], shared: bool) -> None:
        module = function.__module__.rpartition(".")[2]
        self._name = f"{module}.{function.__qualname__}.{sys.implementation.cache_tag}{getattr(sys, 'abiflags', '')}"
        self._shared = shared
        self._lock: int | None = None

    @property
    def cache_path(self) -> str:
        """The folder that is looked into first."""
        return str(next(candidates()))

    def enable(self) -> None:
        """Do nothing: the cache always is enabled."""

    def disable(self) -> None:
        """Do nothing."""

    def flush(self) -> None:
        """Forget what is stored."""
        folder = storage()
        if folder is not None:
            self._file(folder).flush()

    def folder_of(self, types: tuple[Any, ...], target_context: Any) -> Path | None:
        """Return the folder from which the code for arguments of these types would be loaded, None where it is not compiled."""
        found = self._find(_key(types, target_context.codegen()), lambda _: True)
        return found and found[0]

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the compiled code for a signature; None where the caller must compile, with the lock held until it is saved.

        Raises
        ------
        BackendUnavailable
            No folder can be written.
        """
        rtsys.initialize(target_context)  # all that code needs to run; Numba registers here what compiling needs, too
        key = _key(sig, target_context.codegen())
        rebuild = functools.partial(_rebuilt, target_context)
        found = self._find(key, rebuild)
        if found is None and self._shared:
            self._wait_and_lock()
            found = self._find(key, rebuild)
            if found is not None:
                self._unlock()
        return found and found[1]

    def save_overload(self, sig: Any, data: Any) -> None:
        """Store compiled code for other processes; this one has it in memory."""
        folder = storage()
        with suppress(OSError):  # there was room a moment ago
            if folder is not None:
                key = _key(sig, data.codegen)
                self._file(folder).save(key, (_stamp(), key, data._reduce()))
        self._unlock()

    def _find(self, key: Any, read: Callable[[Any], Any]) -> tuple[Path, Any] | None:
        """Return the folder that has the code, and what `read` makes of it."""
        for folder in _searched():
            file = self._file(folder)
            try:
                stored = file.load(key)
                if stored is not None and stored[:2] == (_stamp(), key):  # else the index is newer than the data
                    return folder, read(stored[2])
            except Exception:  # noqa: BLE001 - damaged bytes may raise anything when they are unpickled
                with suppress(OSError):
                    file.flush()
        return None

    def _file(self, folder: Path) -> Any:
        return caching.IndexDataCacheFile(str(folder), self._name, _stamp())

    def _wait_and_lock(self) -> None:
        folder = storage()
        if folder is None:
            raise BackendUnavailable(
                "kernels: no folder for compiled code can be written. Set NUMBA_CACHE_DIR to a folder that can be written."
            )
        if self._lock is None:
            self._lock = _locked(folder / f"{self._name}.lock")

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _key(sig: Any, codegen: Any) -> Any:
    """What code depends on, beside its sources: types, system, processor and its features."""
    return sig, codegen.magic_tuple()


def _rebuilt(target_context: Any, stored: Any) -> Any:
    return CompileResult._rebuild(target_context, *stored)


@functools.cache
def _stamp() -> str:
    return hashlib.sha256(b"".join((HERE / name).read_bytes() for name in SOURCES)).hexdigest()


def _locked(path: Path) -> int | None:
    """Return the descriptor of a file that this process has locked, None where no lock can be had; its end lifts the lock too."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
    except OSError:
        return None
    end = time.monotonic() + LONGEST_WAIT_S
    while fcntl is not None and time.monotonic() < end:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except BlockingIOError:
            time.sleep(POLL_S)
        except OSError:  # a file system without locks
            break
    os.close(file)
    return None
