"""Images of a folder by the frame number in their names."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from flowkit.errors import ClipError, FailureCode
from flowkit.inputs.source_files import shown_name, suffix_of, system_failed

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm"})
"""What counts as an image in a folder of frames, in any case."""
_DIGITS = re.compile("[0-9]+")
_SIZE = re.compile(r"(?<![0-9a-z])[0-9]+x[0-9]+(?![0-9a-z])", re.IGNORECASE)
"""The size of a picture in its name, "img46_224x224.jpg", which is no frame number."""
_KINDS_SHOWN = 3
"""Kinds of ignored files that a message names."""


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
    stems = [_stem(name) for name in names]
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
    >>> frame_number("img46_224x224.jpg")
    46
    """
    if suffix_of(name) not in SUFFIXES or name.startswith("."):
        return None
    digits = _DIGITS.findall(_stem(name))
    return int(digits[-1]) if digits else None


def _stem(name: str) -> str:
    """What of a name may hold the frame number: no suffix, and no size if there is another number."""
    stem = name[: name.rfind(".")]
    if "x" not in stem and "X" not in stem:
        return stem
    without = _SIZE.sub("", stem)
    return without if _DIGITS.search(without) else stem


def images_by_number(folder: Path, name: str) -> dict[int, list[str]]:
    """The numbered images of a folder, which holds some."""
    try:
        files = numbered_images(folder)
        instead = "" if files else _what_else(folder)
    except OSError as error:
        system_failed(error, name, FailureCode.IMAGE_UNREADABLE)
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
    pictures = [name for name in files if suffix_of(name) in SUFFIXES]
    if pictures:
        return f"{len(pictures)} images have no number in their names ({shown_name(pictures[0])}). Write one into each name."
    if files:
        kinds = Counter(shown_name(suffix_of(name)) or "no extension" for name in files)
        ignored = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common(_KINDS_SHOWN))
        return (
            f"{len(files)} files were ignored, for their names do not end as those of images do ({ignored}). Convert or rename "
            f"them: {' '.join(sorted(SUFFIXES))} are read."
        )
    if seen:
        return f"it holds folders alone ({shown_name(seen[0][0])}). Name the one with the frames in the manifest."
    return "it is empty, hidden files apart. Correct the manifest, or restore the frames."


def choose_number(number: int, files: dict[int, list[str]], name: str, nearest: bool) -> int:
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
            f"{shown_name(files[first][0])}. Correct the manifest, or set frames.nearest=true to take the nearest.",
            name,
        )
    return number


def _refuse_unclear(files: dict[int, list[str]], name: str) -> None:
    """Refuse a folder whose names hold several numbers, of which none is the frame's beyond doubt."""
    first, *others = next(iter(files.values()))
    if len(files) == 1 and others and all(len(_DIGITS.findall(_stem(one))) > 1 for one in (first, others[0])):
        raise ClipError(
            FailureCode.FRAME_AMBIGUOUS,
            f"{name}: the last number in each name must be the frame's; got {len(others) + 1} images whose last number is "
            f"{next(iter(files))} ({shown_name(first)}, {shown_name(others[0])}). Rename them so that the frame number comes last.",
            name,
        )
