"""Own recordings, without any annotation: a row for each video and each folder of frames under a root, marked as unlabelled."""

from __future__ import annotations

import unicodedata
from pathlib import Path, PurePosixPath
from typing import Final

from flowkit.datasets.base import Event
from flowkit.datasets.folders import FolderIndex, links_not_followed
from flowkit.errors import ManifestError
from flowkit.inputs.clip import Clip
from flowkit.inputs.manifest import path_problem
from flowkit.labels.class_maps import UNLABELLED

NAME: Final = "videos"
"""Of the data set in the manifest, and for `flowkit manifest`."""
TITLE: Final = "own recordings without annotation"
SUFFIXES: Final = (".mp4", ".avi", ".mov", ".mkv")


def list_videos(root: str | Path, *, follow_symlinks: bool = False) -> tuple[list[Clip], list[Event]]:
    """Every recording under a root, from its first frame to its last.

    Parameters
    ----------
    root : str or Path
    follow_symlinks : bool
        Whether links to folders are followed.

    Returns
    -------
    list of Clip
        `onset` is the first frame; apex and offset are empty, for `spot_manifest.complete` to find. The label is UNLABELLED. Who is
        seen nobody says: the subject is the folder that a recording lies in, or its own name where it lies in the root.
    list of Event
        What was left out.

    Raises
    ------
    ManifestError
        The root is no folder, or holds no recording.
    """
    root = Path(root)
    index = FolderIndex.scan(root, SUFFIXES, follow_symlinks=follow_symlinks)
    found = [(path, 0) for path in index.files]
    found += [(folder.path, folder.first) for folder in index.folders if folder.path != "."]
    clips, events = [], []
    for path, first in sorted(found):
        if problem := path_problem(path):
            events.append(Event("left out", path, f"path must be plain; got {problem}. Rename it."))
            continue
        clips.append(_clip(path, first))
    if not clips:
        advice = "Check the path."
        if index.links and not follow_symlinks:
            advice = "Pass --follow-symlinks, or check the path."
        raise ManifestError(
            f"{root}: folder must hold videos ({', '.join(SUFFIXES)}) or folders of numbered images; got none"
            f"{links_not_followed(index)}. {advice}"
        )
    return clips, events


def _clip(path: str, first: int) -> Clip:
    place = PurePosixPath(unicodedata.normalize("NFC", path))
    subject = place.parent.as_posix() if place.parent != PurePosixPath() else place.stem
    return Clip(f"{NAME}/{place}", path, first, None, None, subject, NAME, UNLABELLED)
