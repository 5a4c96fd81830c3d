"""The three key frames of a clip, or all those from its onset on, read from a folder of images or a video, and verified."""

from __future__ import annotations

import dataclasses
import errno
import functools
import math
import os
import re
import stat
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import xxhash

from flowkit.config import FrameConfig
from flowkit.errors import ClipError, FailureCode
from flowkit.inputs.clip import Clip
from flowkit.inputs.images import MAX_PIXELS, MIN_SIDE, Picture, decode_image, full_scale, grey, rgb
from flowkit.inputs.key_frames import KeyFrames, key_frames
from flowkit.inputs.manifest import path_problem
from flowkit.inputs.videos import Reel, open_reel, read_footage

__all__ = [
    "MAX_PIXELS",
    "MIN_SIDE",
    "Frames",
    "Sequence",
    "Source",
    "frame_number",
    "nothing_to_search",
    "numbered_images",
    "open_sequence",
    "read_frames",
]

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm"})
"""What counts as an image in a folder of frames, in any case."""

MAX_IMAGE_BYTES = 1 << 29
"""Above any uncompressed image of `MAX_PIXELS`."""

Grey = npt.NDArray[np.float32]
_DIGITS = re.compile("[0-9]+")
_CHUNK = 2**20
_CIRCLE = "its links lead in a circle"
_KINDS_SHOWN = 3
"""Kinds of ignored files that a message names."""
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)


@dataclass(frozen=True, slots=True)
class Source:
    """Where a clip came from: everything known of it but its pixels.

    Attributes
    ----------
    clip : Clip
    key : KeyFrames
        The numbers that were read: with `frames.nearest`, those of the frames taken instead.
    fps : float
        Frames per second: the manifest's, else the video's, else NaN.
    source_hash : str
        32 hex digits (xxh3-128) over the bytes of the files read: the three images in order (the apex once more where the
        offset is missing), or the video.
    rotated : bool
        Whether EXIF or video metadata asked for a rotation or mirroring, which was applied.
    substituted : bool
        Whether a missing frame was replaced by the nearest (`frames.nearest`).
    """

    clip: Clip
    key: KeyFrames
    fps: float
    source_hash: str
    rotated: bool
    substituted: bool


@dataclass(frozen=True, slots=True)
class Frames:
    """Onset, apex and offset of one clip, as read.

    Attributes
    ----------
    source : Source
    grey : tuple of three (H, W) float32 in [0, 1]
        Luma (BT.601) of onset, apex, offset; sizes may differ; the apex once more where the offset is missing.
    onset_rgb : (H, W, 3) uint8
        What a face detector looks at.
    """

    source: Source
    grey: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]
    onset_rgb: npt.NDArray[np.uint8]


def read_frames(clip: Clip, root: Path, config: FrameConfig, spotted: int | None = None) -> Frames:
    """Onset, apex and offset of a clip.

    Parameters
    ----------
    clip : Clip
        Its path names a folder of images, whose numbers are those of `frame_numbers`, or a video, whose frames count from
        `frames.index_base`. Hidden files, other files and sub-folders of a folder are ignored.
    root : Path
        The folder that the path starts from and may not leave.
    config : FrameConfig
    spotted : int, optional
        The apex that `spotting.spot` found, for a clip without one.

    Returns
    -------
    Frames

    Raises
    ------
    ClipError
        FRAME_MISSING, FRAME_AMBIGUOUS, PATH_REFUSED, SOURCE_CHANGED, SOURCE_CHECKSUM, any IMAGE_ or VIDEO_ code, or what
        `manifest.key_frames` raises.
    """
    key = _key(clip, config, spotted)
    path = _resolve(_on_disk(root, clip.path), clip.path, root, config, path_problem(clip.path))
    if stat.S_ISDIR(_stat(path, clip.path, FailureCode.IMAGE_UNREADABLE).st_mode):
        source, pictures = _from_folder(clip, key, path, root, config)
    else:
        source, pictures = _from_video(clip, key, path, config)
    full = full_scale(pictures, config.bit_depth, clip.path)
    onset, apex, offset = (grey(picture, full) for picture in pictures)
    return Frames(source, (onset, apex, offset), rgb(pictures[0], full))


@dataclass(frozen=True, slots=True)
class Sequence:
    """The frames of a clip from its onset to its offset, or to the last there is.

    Attributes
    ----------
    onset : int
        Its number; with `frames.nearest`, that of the frame taken instead.
    onset_grey : (H, W) float32 in [0, 1]
    onset_rgb : (H, W, 3) uint8
    fps : float
        Frames per second: the manifest's, else the video's, else NaN.
    later : callable
        Given a function of a grey frame, (H, W) float32, maps the number of each later frame to what the function makes of it.
        Call it once, while the sequence is open. A folder's frames are read when they are asked for, so one that nobody asks for
        may be damaged; a video's are decoded in one pass, at once. Raises what `read_frames` raises for a frame, and SIZE_MISMATCH
        where a frame has not the onset's size.
    """

    onset: int
    onset_grey: Grey
    onset_rgb: npt.NDArray[np.uint8]
    fps: float
    later: Callable[[Callable[[Grey], Any]], Mapping[int, Any]]


@contextmanager
def open_sequence(clip: Clip, root: Path, config: FrameConfig) -> Iterator[Sequence]:
    """The frames of a clip, from its onset on; arguments and errors as of `read_frames`."""
    if clip.offset is not None and clip.offset < clip.onset:
        raise ClipError(
            FailureCode.ANNOTATION_RANGE,
            f"{clip.where}: offset must not lie before the onset; got onset={clip.onset}, offset={clip.offset}. Correct the "
            "manifest.",
        )
    path = _resolve(_on_disk(root, clip.path), clip.path, root, config, path_problem(clip.path))
    if stat.S_ISDIR(_stat(path, clip.path, FailureCode.IMAGE_UNREADABLE).st_mode):
        yield _folder_sequence(clip, path, root, config)
        return
    _check_first(clip, config)
    with _unchanged(path, clip.path, FailureCode.VIDEO_UNREADABLE), open_reel(path, clip.path) as reel:
        yield _video_sequence(clip, reel, config)


def nothing_to_search(clip: Clip) -> ClipError:
    """The failure of a clip whose apex is to be found and that has no frame behind its onset."""
    return ClipError(
        FailureCode.APEX_MISSING,
        f"{clip.where}: clip must have frames behind its onset for an apex to be found; got none up to "
        f"{'its end' if clip.offset is None else clip.offset}. Correct onset and offset.",
        clip.path,
    )


def _folder_sequence(clip: Clip, folder: Path, root: Path, config: FrameConfig) -> Sequence:
    files = _list(folder, clip.path)
    onset = _choose(clip.onset, files, clip.path, config.nearest)

    def picture(number: int) -> Picture:
        name, content = _read_image(folder, files[number], clip.path, root, config)
        return decode_image(content, name)

    first = picture(onset)
    end = max(files) if clip.offset is None else clip.offset
    numbers = [number for number in files if onset < number <= end]

    def later(carry: Callable[[Grey], Any]) -> Mapping[int, Any]:
        return _OnDemand(numbers, lambda number: carry(_like(first, picture(number), number, clip, config)))

    full = full_scale([first], config.bit_depth, clip.path)
    return Sequence(onset, grey(first, full), rgb(first, full), clip.fps, later)


def _video_sequence(clip: Clip, reel: Reel, config: FrameConfig) -> Sequence:
    base = config.index_base
    begin, end = clip.onset - base, None if clip.offset is None else clip.offset - base
    pictures = reel.pictures(range(begin, sys.maxsize if end is None else end + 1), end)
    _, first = next(pictures, (0, None))
    if first is None:
        raise ClipError(
            FailureCode.FRAME_MISSING,
            f"{clip.where}: onset must be a frame of the video; got {clip.onset}, behind its end. Correct the manifest or "
            "frames.index_base.",
            clip.path,
        )

    def later(carry: Callable[[Grey], Any]) -> Mapping[int, Any]:
        return {base + number: carry(_like(first, one, base + number, clip, config)) for number, one in pictures}

    full = full_scale([first], config.bit_depth, clip.path)
    fps = reel.fps if math.isnan(clip.fps) else clip.fps
    return Sequence(clip.onset, grey(first, full), rgb(first, full), fps, later)


class _OnDemand(Mapping[int, Any]):
    """What a function makes of numbers, made when it is first asked for."""

    def __init__(self, numbers: list[int], make: Callable[[int], Any]) -> None:
        self._numbers = numbers
        self._make = make
        self._made: dict[int, Any] = {}

    def __getitem__(self, number: int) -> Any:
        if number not in self._made:
            self._made[number] = self._make(number)
        return self._made[number]

    def __iter__(self) -> Iterator[int]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)


def _like(first: Picture, picture: Picture, number: int, clip: Clip, config: FrameConfig) -> Grey:
    """Grey values on the scale of the onset, whose size the picture must have."""
    (height, width), (wanted_height, wanted_width) = picture.pixels.shape[:2], first.pixels.shape[:2]
    if (height, width) != (wanted_height, wanted_width):
        raise ClipError(
            FailureCode.SIZE_MISMATCH,
            f"{clip.where}: frame {number} must have the onset's size, {wanted_width} x {wanted_height} pixels; got {width} x "
            f"{height}. Use frames of one recording.",
            clip.path,
        )
    return grey(picture, full_scale([first, picture], config.bit_depth, clip.path))


def numbered_images(folder: Path) -> dict[int, list[str]]:
    """Names of the images of a folder by their frame number, names in order; normally one a number.

    Raises
    ------
    OSError
    """
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if frame_number(entry.name) is not None and not entry.is_dir())
    found: dict[int, list[str]] = {}
    for number, name in sorted(zip(frame_numbers(names), names, strict=True)):
        found.setdefault(number, []).append(name)
    return found


def frame_numbers(names: Iterable[str]) -> list[int]:
    """Number of each of the images of one folder, for which `frame_number` finds one.

    It is the last number in a name. Where that is the same in all names, it cannot be the frame's: if the names are alike but
    for one other number, it is that one; if not, the last one stays, and no reader will accept it for several images.

    Examples
    --------
    >>> frame_numbers(["cam2_0001_v3.png", "cam2_0002_v3.png"])
    [1, 2]
    """
    stems = [name[: name.rfind(".")] for name in names]
    runs = [[int(digits) for digits in _DIGITS.findall(stem)] for stem in stems]
    last = [found[-1] for found in runs]
    if len(set(last)) != 1 or len({_DIGITS.sub("0", stem) for stem in stems}) != 1:
        return last
    varying = [list(column) for column in zip(*runs, strict=True) if len(set(column)) > 1]
    return varying[0] if len(varying) == 1 else last


def frame_number(name: str) -> int | None:
    """The last number in the name of an image; None for what is no numbered image, or hidden.

    Examples
    --------
    >>> frame_number("reg_img0046.jpg")
    46
    """
    if _suffix(name) not in SUFFIXES or name.startswith("."):
        return None
    digits = _DIGITS.findall(name, 0, name.rfind("."))
    return int(digits[-1]) if digits else None


def _key(clip: Clip, config: FrameConfig, spotted: int | None = None) -> KeyFrames:
    return key_frames(clip, config.missing_apex, config.missing_offset, config.strict_phases, spotted)


def _numbers(key: KeyFrames) -> tuple[int, int, int]:
    return key.onset, key.apex, key.apex if key.offset is None else key.offset


def _from_folder(
    clip: Clip, key: KeyFrames, folder: Path, root: Path, config: FrameConfig
) -> tuple[Source, list[Picture]]:
    files = _list(folder, clip.path)
    wanted = _numbers(key)
    taken = [_choose(number, files, clip.path, config.nearest) for number in wanted]
    read = {number: _read_image(folder, files[number], clip.path, root, config) for number in taken}
    source_hash = xxhash.xxh3_128_hexdigest(b"".join(read[number][1] for number in taken))
    _verify(clip, source_hash)
    decoded = {number: decode_image(content, name) for number, (name, content) in read.items()}
    pictures = [decoded[number] for number in taken]
    if taken != list(wanted):
        key = _moved(clip, key, taken, config)
    rotated = any(picture.rotated for picture in pictures)
    return Source(clip, key, clip.fps, source_hash, rotated, taken != list(wanted)), pictures


def _from_video(clip: Clip, key: KeyFrames, path: Path, config: FrameConfig) -> tuple[Source, list[Picture]]:
    _check_first(clip, config)
    numbers = tuple(number - config.index_base for number in _numbers(key))
    with _unchanged(path, clip.path, FailureCode.VIDEO_UNREADABLE) as (size, modified):
        source_hash = _file_hash(path, size, modified)
        _verify(clip, source_hash)
        footage = read_footage(path, numbers, clip.path)
    fps = footage.fps if math.isnan(clip.fps) else clip.fps
    rotated = any(picture.rotated for picture in footage.pictures)
    return Source(clip, key, fps, source_hash, rotated, False), list(footage.pictures)


def _check_first(clip: Clip, config: FrameConfig) -> None:
    if clip.onset < config.index_base:
        raise ClipError(
            FailureCode.FRAME_MISSING,
            f"{clip.where}: onset must be at least frames.index_base ({config.index_base}); got {clip.onset}. Correct the "
            "manifest or the setting.",
            clip.path,
        )


def _moved(clip: Clip, key: KeyFrames, taken: list[int], config: FrameConfig) -> KeyFrames:
    """The key frames that stand in for missing ones: two may have become one, and their phase with it."""
    onset, apex, offset = taken
    stand_in = dataclasses.replace(clip, onset=onset, apex=apex, offset=None if key.offset is None else offset)
    return dataclasses.replace(_key(stand_in, config), apex_source=key.apex_source)


def _list(folder: Path, name: str) -> dict[int, list[str]]:
    """The numbered images of a folder, which holds some."""
    try:
        files = numbered_images(folder)
        instead = "" if files else _what_else(folder)
    except OSError as error:
        _system_failed(error, name, FailureCode.IMAGE_UNREADABLE)
    if instead:
        raise ClipError(
            FailureCode.FRAME_MISSING,
            f"{name}: folder must hold numbered images; got no numbered image: {instead}",
            name,
        )
    return files


def _what_else(folder: Path) -> str:
    """What a folder without numbered images holds instead, and what to do about it."""
    with os.scandir(folder) as entries:
        seen = sorted((entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith("."))
    files = [name for name, is_folder in seen if not is_folder]
    pictures = [name for name in files if _suffix(name) in SUFFIXES]
    if pictures:
        return (
            f"{len(pictures)} images have no number in their names ({_shown(pictures[0])}). Write one into each name."
        )
    if files:
        kinds = Counter(_shown(_suffix(name)) or "no extension" for name in files)
        ignored = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common(_KINDS_SHOWN))
        return (
            f"{len(files)} files were ignored, for their names do not end as those of images do ({ignored}). Convert or rename "
            f"them: {' '.join(sorted(SUFFIXES))} are read."
        )
    if seen:
        return f"it holds folders alone ({_shown(seen[0][0])}). Name the one with the frames in the manifest."
    return "it is empty, hidden files apart. Correct the manifest, or restore the frames."


def _suffix(name: str) -> str:
    """What follows the last dot of a name, with the dot, in lower case; empty where there is none."""
    dot = name.rfind(".")
    return name[dot:].lower() if dot >= 0 else ""


def _choose(number: int, files: dict[int, list[str]], name: str, nearest: bool) -> int:
    """The number to read: the one wanted, or its nearest neighbour where that is allowed."""
    _refuse_unclear(files, name)
    if number not in files:
        if nearest:
            return min(files, key=lambda other: (abs(other - number), other))
        first = min(files)
        held = f"{len(files)} numbers from {first} to {max(files)}" if len(files) > 1 else f"{first} alone"
        raise ClipError(
            FailureCode.FRAME_MISSING,
            f"{name}: folder must hold an image with the number {number}; got {held}, such as {first} in "
            f"{_shown(files[first][0])}. Correct the manifest, or set frames.nearest=true to take the nearest.",
            name,
        )
    return number


def _refuse_unclear(files: dict[int, list[str]], name: str) -> None:
    """Refuse a folder whose names hold several numbers, of which none is the frame's beyond doubt."""
    first, *others = next(iter(files.values()))
    if len(files) == 1 and others and all(len(_DIGITS.findall(one)) > 1 for one in (first, others[0])):
        raise ClipError(
            FailureCode.FRAME_AMBIGUOUS,
            f"{name}: the last number in each name must be the frame's; got {len(others) + 1} images whose last number is "
            f"{next(iter(files))} ({_shown(first)}, {_shown(others[0])}). Rename them so that the frame number comes last.",
            name,
        )


def _read_image(folder: Path, names: list[str], name: str, root: Path, config: FrameConfig) -> tuple[str, bytes]:
    """Name (relative to the root) and bytes of the one file that has a number."""
    if len(names) > 1:
        raise ClipError(
            FailureCode.FRAME_AMBIGUOUS,
            f"{name}: a number must belong to one image; got {' and '.join(map(_shown, names))}. Remove all but one.",
            f"{name}/{_shown(names[0])}",
        )
    shown = f"{name}/{_shown(names[0])}"
    path = _resolve(folder / names[0], shown, root, config)
    with _unchanged(path, shown, FailureCode.IMAGE_UNREADABLE) as (size, _):
        if size > MAX_IMAGE_BYTES:
            raise ClipError(
                FailureCode.IMAGE_TOO_LARGE,
                f"{shown}: image file must have at most {MAX_IMAGE_BYTES:,} bytes; got {size:,}. Replace it.",
                shown,
            )
        content = path.read_bytes()
    return shown, content


def _shown(name: str) -> str:
    """A file name as records and tables can hold it: names on disk may be any bytes."""
    return os.fsencode(name).decode(errors="backslashreplace")


def _on_disk(root: Path, path: str) -> Path:
    """Where a path of a manifest lies. Folders that come from macOS spell accents in two characters, which editors write in one."""
    spellings = (path, unicodedata.normalize("NFD", path), unicodedata.normalize("NFC", path))
    return next((root / spelling for spelling in spellings if os.path.lexists(root / spelling)), root / path)


def _resolve(path: Path, name: str, root: Path, config: FrameConfig, reason: str = "") -> Path:
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
        _system_failed(error, name, FailureCode.IMAGE_UNREADABLE)
    if reason:
        raise ClipError(
            FailureCode.PATH_REFUSED,
            f"{name}: path must stay under the root; got one that does not ({reason}). Move the files, or set "
            "frames.follow_symlinks=true where only a link is in the way.",
            name,
        )
    return resolved


def _stat(path: Path, name: str, code: FailureCode) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        _system_failed(error, name, code)


@contextmanager
def _unchanged(path: Path, name: str, code: FailureCode) -> Iterator[tuple[int, int]]:
    """Size and modification time (ns) of a regular file, which must be the same when it has been read."""
    before = _stat(path, name, code)
    if not stat.S_ISREG(before.st_mode):
        raise ClipError(code, f"{name}: must be a regular file; got another kind. Replace it.", name)
    try:
        yield before.st_size, before.st_mtime_ns
    except ClipError:
        _compare(before, _stat(path, name, code), name)  # half a file is no video, but the change is what matters
        raise
    except OSError as error:
        _system_failed(error, name, code)
    _compare(before, _stat(path, name, code), name)


def _compare(before: os.stat_result, after: os.stat_result, name: str) -> None:
    if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise ClipError(
            FailureCode.SOURCE_CHANGED,
            f"{name}: file must not change while it is read; got {after.st_size} bytes after {before.st_size}, or another "
            "time of modification. Run again when nothing writes to it.",
            name,
        )


@functools.lru_cache(maxsize=64)
def _file_hash(path: Path, size: int, modified: int) -> str:  # size and time: a changed file is another entry
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _verify(clip: Clip, source_hash: str) -> None:
    if clip.source_hash and clip.source_hash != source_hash:
        raise ClipError(
            FailureCode.SOURCE_CHECKSUM,
            f"{clip.path}: content must have the hash {clip.source_hash}; got {source_hash}. Restore the files, or correct "
            "source_hash.",
            clip.path,
        )


def _system_failed(error: OSError, name: str, code: FailureCode) -> NoReturn:
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
