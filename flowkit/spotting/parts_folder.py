"""Courses of the parts that were read, on disk until all are: a search that was stopped is resumed from them."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flowkit.errors import SettingsChanged
from flowkit.spotting.course import FRAME, Course
from flowkit.storage.durable_files import make_folder, publish_file

_PLAN = "plan.json"


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
    DiskFull
    """

    def __init__(self, path: Path, plan: Mapping[str, Any], *, overwrite: bool = False) -> None:
        self._path = path
        content = json.dumps(plan, sort_keys=True).encode()
        if path.is_dir() and self._stored_plan() != content:
            if not overwrite and self._stored_plan():
                raise SettingsChanged(
                    f"{path}: a search that was stopped lies there, of other recordings or with other settings. Run that one to "
                    "its end, remove the folder, or pass --overwrite."
                )
            shutil.rmtree(path)
        make_folder(path)
        publish_file(path / _PLAN, content)

    def _stored_plan(self) -> bytes:
        try:
            return (self._path / _PLAN).read_bytes()
        except OSError:
            return b""

    def load(self, recording: int, part: int) -> Course | None:
        """Return the course of a part, or None where there is none that is whole."""
        try:
            with np.load(self._file(recording, part), allow_pickle=False) as stored:
                frames, cuts = stored["frames"], stored["cuts"]
                fps, interlaced = stored["about"].tolist()
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
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
        publish_file(self._file(recording, part), file.getvalue())

    def _file(self, recording: int, part: int) -> Path:
        return self._path / f"{recording:06d}-{part:06d}.npz"
