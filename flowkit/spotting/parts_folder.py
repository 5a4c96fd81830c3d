"""Courses of the parts that were read, on disk until all are: a search that was stopped is resumed from them."""

from __future__ import annotations

import io
import json
import os
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flowkit.errors import ConfigError, SettingsChanged
from flowkit.spotting.course import FRAME, Course
from flowkit.storage.durable_files import make_folder, replace_file
from flowkit.storage.safe_files import read_regular, regular

_PLAN = "plan.txt"
_HEAD = b"flowkit spot-intervals\n"
"""How a plan begins: by it a folder of ours is known."""
_MOST_BYTES = 1 << 28


class PartsFolder:
    """A folder beside the result; whoever has stored the result removes it.

    Parameters
    ----------
    path : Path
    plan : mapping
        Recordings and settings, as JSON has them: parts of another plan are not taken.
    overwrite : bool
        Whether parts of another plan are discarded.

    Raises
    ------
    SettingsChanged
        The folder holds parts of another plan.
    ConfigError
        There is something else of that name.
    DiskFull
    """

    def __init__(self, path: Path, plan: Mapping[str, Any], *, overwrite: bool = False) -> None:
        self._path = path
        content = _HEAD + json.dumps(plan, sort_keys=True).encode()
        if os.path.lexists(path):
            self._take_over(content, overwrite)
        make_folder(path)
        replace_file(path / _PLAN, content)

    def _take_over(self, plan: bytes, overwrite: bool) -> None:
        """Go on in a folder that is there, or clear it; refuse what is none of ours."""
        stored = self._stored_plan()
        is_folder = self._path.is_dir() and not self._path.is_symlink()
        if is_folder and not any(self._path.iterdir()):
            return
        if not (is_folder and stored.startswith(_HEAD)):
            raise ConfigError(
                f"{self._path}: parts of a search are to go here; got something else of that name. Remove it, or choose another "
                "--out."
            )
        if stored != plan:
            if not overwrite:
                raise SettingsChanged(
                    f"{self._path}: a search that was stopped lies there, of other recordings or with other settings. Run that one "
                    "to its end, remove the folder, or pass --overwrite."
                )
            shutil.rmtree(self._path)

    def _stored_plan(self) -> bytes:
        try:
            return read_regular(self._path / _PLAN, _MOST_BYTES)
        except OSError:
            return b""

    def load(self, recording: int, part: int) -> Course | None:
        """Return the course of a part, or None where there is none that is whole."""
        try:
            with (
                open(self._file(recording, part), "rb", opener=regular) as file,
                np.load(file, allow_pickle=False) as stored,
            ):
                frames, cuts = stored["frames"], stored["cuts"]
                fps, interlaced = stored["about"].tolist()
        except (OSError, ValueError, KeyError, TypeError, EOFError, MemoryError, zipfile.BadZipFile):
            return None
        return Course(fps, frames, cuts, int(interlaced)) if frames.dtype == FRAME else None

    def store(self, recording: int, part: int, course: Course) -> None:
        """Keep the course of a part.

        Raises
        ------
        DiskFull
        """
        file = io.BytesIO()
        np.savez(file, frames=course.frames, cuts=course.cuts, about=np.array([course.fps, course.interlaced]))
        if not self._path.is_dir():
            raise ConfigError(
                f"{self._path}: folder must stay until the search ends; got none any more. Another search with the same --out has "
                "ended, or somebody removed it: run one at a time."
            )
        replace_file(self._file(recording, part), file.getvalue())

    def _file(self, recording: int, part: int) -> Path:
        return self._path / f"{recording:06d}-{part:06d}.npz"
