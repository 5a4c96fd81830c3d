"""Files of a clip on disk: found under the root, read whole, and the same when they have been read."""

from __future__ import annotations

import errno
import functools
import os
import stat
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import xxhash

from flowkit.config import FrameConfig
from flowkit.errors import ClipError, FailureCode
from flowkit.inputs.clip import Clip

MAX_IMAGE_BYTES = 1 << 29
"""Above any uncompressed image of `MAX_PIXELS`."""
_CHUNK = 2**20
_CIRCLE = "its links lead in a circle"
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)


def suffix_of(name: str) -> str:
    """What follows the last dot of a name, with the dot, in lower case; empty where there is none."""
    dot = name.rfind(".")
    return name[dot:].lower() if dot >= 0 else ""


def read_image(folder: Path, names: list[str], name: str, root: Path, config: FrameConfig) -> tuple[str, bytes]:
    """Name (relative to the root) and bytes of the one file that has a number, in a folder that `resolve_below` gave."""
    if len(names) > 1:
        raise ClipError(
            FailureCode.FRAME_AMBIGUOUS,
            f"{name}: a number must belong to one image; got {' and '.join(map(shown_name, names))}. Remove all but one.",
            f"{name}/{shown_name(names[0])}",
        )
    shown = f"{name}/{shown_name(names[0])}"
    path = folder / names[0]
    if path.is_symlink():
        path = resolve_below(path, shown, root, config)
    with unchanged(path, shown, FailureCode.IMAGE_UNREADABLE) as (size, _):
        if size > MAX_IMAGE_BYTES:
            raise ClipError(
                FailureCode.IMAGE_TOO_LARGE,
                f"{shown}: image file must have at most {MAX_IMAGE_BYTES:,} bytes; got {size:,}. Replace it.",
                shown,
            )
        content = path.read_bytes()
    return shown, content


def shown_name(name: str) -> str:
    """A file name as records and tables can hold it: names on disk may be any bytes."""
    return os.fsencode(name).decode(errors="backslashreplace")


def on_disk(root: Path, path: str) -> Path:
    """Where a path of a manifest lies. Folders that come from macOS spell accents in two characters, which editors write in one."""
    spellings = (path, unicodedata.normalize("NFD", path), unicodedata.normalize("NFC", path))
    return next((root / spelling for spelling in spellings if os.path.lexists(root / spelling)), root / path)


def resolve_below(path: Path, name: str, root: Path, config: FrameConfig, reason: str = "") -> Path:
    """The file behind all links, which must lie under the root; a reason given refuses it anyway."""
    try:
        resolved = path.resolve()
        if not reason and not config.follow_symlinks and not resolved.is_relative_to(root.resolve()):
            reason = "a link leads out"
        if resolved.is_symlink():  # Python 3.13 gives back what it cannot resolve
            reason = _CIRCLE
    except RuntimeError:  # as older ones say it
        reason = _CIRCLE
    except ValueError as error:
        reason = str(error)
    except OSError as error:
        system_failed(error, name, FailureCode.IMAGE_UNREADABLE)
    if reason:
        raise ClipError(
            FailureCode.PATH_REFUSED,
            f"{name}: path must stay under the root; got one that does not ({reason}). Move the files, or "
            "pass --follow-symlinks (frames.follow_symlinks) where only a link is in the way.",
            name,
        )
    return resolved


def status_of(path: Path, name: str, code: FailureCode) -> os.stat_result:
    """Return what the system says of a file; what it cannot say becomes a failure with this code."""
    try:
        return path.stat()
    except OSError as error:
        system_failed(error, name, code)


@contextmanager
def unchanged(path: Path, name: str, code: FailureCode) -> Iterator[tuple[int, int]]:
    """Size and modification time (ns) of a regular file, which must be the same when it has been read."""
    before = status_of(path, name, code)
    if not stat.S_ISREG(before.st_mode):
        raise ClipError(code, f"{name}: must be a regular file; got another kind. Replace it.", name)
    try:
        yield before.st_size, before.st_mtime_ns
    except ClipError:
        _compare(before, status_of(path, name, code), name)  # half a file is no video, but the change is what matters
        raise
    except OSError as error:
        system_failed(error, name, code)
    _compare(before, status_of(path, name, code), name)


def _compare(before: os.stat_result, after: os.stat_result, name: str) -> None:
    if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise ClipError(
            FailureCode.SOURCE_CHANGED,
            f"{name}: file must not change while it is read; got {after.st_size} bytes after {before.st_size}, or another "
            "time of modification. Run again when nothing writes to it.",
            name,
        )


@functools.lru_cache(maxsize=64)
def file_hash(path: Path, size: int, modified: int) -> str:
    """Return the xxh3-128 of a file's content; size and time are given so that a changed file is another entry."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def verify_hash(clip: Clip, source_hash: str) -> None:
    """Refuse content that has not the hash of the manifest, if it names one."""
    if clip.source_hash and clip.source_hash != source_hash:
        raise ClipError(
            FailureCode.SOURCE_CHECKSUM,
            f"{clip.path}: content must have the hash {clip.source_hash}; got {source_hash}. Restore the files, or correct "
            "source_hash.",
            clip.path,
        )


def system_failed(error: OSError, name: str, code: FailureCode) -> NoReturn:
    """Raise the failure that an error of the system means for a clip."""
    reason = error.strerror or str(error)
    if error.errno in _ABSENT:
        raise ClipError(
            FailureCode.FRAME_MISSING,
            f"{name}: path must exist under the root; got {reason}. Correct the manifest, or name another root.",
            name,
        ) from error
    raise ClipError(
        code, f"{name}: file must be readable; got {reason}. Check the disk and the permissions.", name
    ) from error
