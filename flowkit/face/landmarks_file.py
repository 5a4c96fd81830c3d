"""Landmarks that were found by other means, from a CSV file."""

from __future__ import annotations

import csv
import itertools
import math
import re
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from flowkit.errors import ManifestError
from flowkit.face.landmarks import POINTS
from flowkit.listing import problem_lines
from flowkit.storage.safe_files import lines, regular

_FARTHEST_PX = 1e6
_HEADER = "clip_id,point,x,y\n"
_PLAIN = re.compile(
    r"(?:[^,\"\s][^,\"\s]*,[0-9]{1,9},-?[0-9]{1,9}(?:\.[0-9]{0,20})?,-?[0-9]{1,9}(?:\.[0-9]{0,20})?\n)+"
)
_BLOCK = 1 << 20
"""Characters that are read at a time."""


def read_landmarks_file(path: str | Path) -> dict[str, npt.NDArray[np.float32]]:
    """Points of the onset of each clip, from a CSV file with the columns clip_id, point, x, y.

    Parameters
    ----------
    path : str or Path
        One row a point: its number, 0 to 477, and its place in pixels of the onset image.

    Returns
    -------
    dict of str to (478, 2) float32
        NaN for points the file does not give.

    Raises
    ------
    ManifestError
        Listing what is wrong, with the line.
    """
    path = Path(path)
    clips = _read_plain(path)
    if clips is not None:
        return clips
    problems: list[str] = []
    clips = {}
    try:
        with open(path, newline="", encoding="utf-8-sig", opener=regular) as file:
            _read_rows(csv.reader(lines(file), skipinitialspace=True, strict=True), path.name, clips, problems)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        problems.append(f"{path}: landmarks must be a readable CSV file in UTF-8; got {error}. Correct the file.")
    if problems:
        raise ManifestError(problem_lines(problems))
    return clips


def _read_plain(path: Path) -> dict[str, npt.NDArray[np.float32]] | None:
    """The short way: points by clip of a file of plain rows without a fault, None for any other."""
    found: dict[str, npt.NDArray[np.float32]] = {}
    try:
        with open(path, newline="", encoding="utf-8", opener=regular) as file:
            if file.readline(len(_HEADER)) != _HEADER:
                return None
            while block := file.readlines(_BLOCK):
                if not _add_plain("".join(block), found):
                    return None
    except (OSError, UnicodeDecodeError):
        return None
    composed = {unicodedata.normalize("NFC", clip_id): points for clip_id, points in found.items()}
    return composed if len(composed) == len(found) else None


def _add_plain(text: str, clips: dict[str, npt.NDArray[np.float32]]) -> bool:
    """Put the points of plain rows in their places; False where one is not plain, or at fault."""
    if not _PLAIN.fullmatch(text):
        return False
    cells = text.replace("\n", ",").split(",")[:-1]
    names, numbers = np.array(cells[0::4], object), np.array(cells[1::4], np.intp)
    places = np.column_stack([np.array(cells[axis::4], np.float64) for axis in (2, 3)])
    if numbers.max() >= POINTS or np.abs(places).max() >= _FARTHEST_PX:
        return False
    begins = [0, *(np.flatnonzero(names[1:] != names[:-1]) + 1).tolist(), len(names)]
    for begin, end in itertools.pairwise(begins):
        points = clips.setdefault(names[begin], np.full((POINTS, 2), np.nan, np.float32))
        chosen = numbers[begin:end]
        if len(np.unique(chosen)) < len(chosen) or not np.isnan(points[chosen, 0]).all():
            return False
        points[chosen] = places[begin:end]
    return True


def _read_rows(rows: Any, name: str, clips: dict[str, npt.NDArray[np.float32]], problems: list[str]) -> None:
    header = [cell.strip() for cell in next(rows, [])]
    if any(header.count(column) != 1 for column in ("clip_id", "point", "x", "y")):
        problems.append(
            f"{name}:1: header must name clip_id, point, x, y once each; got {', '.join(header) or 'nothing'}. Correct it."
        )
        return
    columns = [header.index(column) for column in ("clip_id", "point", "x", "y")]
    for row in rows:
        if len(row) != len(header):
            problems.append(
                f"{name}:{rows.line_num}: row must have {len(header)} fields; got {len(row)}. Check the commas."
            )
            continue
        problem = _add_point([row[column].strip() for column in columns], clips)
        if problem:
            problems.append(f"{name}:{rows.line_num}: {problem}")


def _add_point(cells: list[str], clips: dict[str, npt.NDArray[np.float32]]) -> str:
    """Put one row's point in its place; returns what is wrong with it, or an empty string."""
    clip_id, point, x, y = cells
    if not clip_id:
        return "clip_id must not be empty; got an empty cell. Fill it in."
    if not (point.isascii() and point.isdecimal() and int(point) < POINTS):
        return f"point must be a whole number from 0 to {POINTS - 1}; got {point!r}. Correct the cell."
    place = _pixel(x), _pixel(y)
    if not all(math.isfinite(pixel) for pixel in place):
        return f"x and y must be numbers of pixels; got {x!r}, {y!r}. Correct the cells."
    clip_id = unicodedata.normalize("NFC", clip_id)
    points = clips.get(clip_id)
    if points is None:
        points = clips[clip_id] = np.full((POINTS, 2), np.nan, np.float32)
    if not np.isnan(points[int(point), 0]):
        return f"point must stand once a clip; got {point} of {clip_id} a second time. Remove one."
    points[int(point)] = place
    return ""


def _pixel(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return math.nan
    return value if abs(value) < _FARTHEST_PX else math.nan
