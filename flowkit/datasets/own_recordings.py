"""Own recordings, without any annotation: each video and each folder of frames under a root, and who may be seen in it."""

from __future__ import annotations

import dataclasses
import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from flowkit.datasets.base import Event
from flowkit.datasets.folders import LARGEST, FolderIndex
from flowkit.errors import ManifestError
from flowkit.inputs.clip import Clip
from flowkit.inputs.frame_numbers import numbered_images
from flowkit.inputs.manifest import manifest_bytes, path_problem
from flowkit.inputs.source_files import shown_name, suffix_of
from flowkit.labels.class_maps import UNLABELLED

NAME: Final = "videos"
"""Of the data set in the manifest, and for `flowkit manifest`."""
TITLE: Final = "own recordings without annotation"
SUFFIXES: Final = (".mp4", ".m4v", ".mov", ".3gp", ".avi", ".mkv", ".webm", ".gif")
"""Of videos that are read."""
OTHER_SUFFIXES: Final = (".wmv", ".asf", ".flv", ".mpg", ".mpeg", ".vob", ".ts", ".mts", ".m2ts", ".ogv", ".rm", ".mxf")
"""Of videos that are not."""


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
        As `recording_clip` makes them.
    list of Event
        What was left out.

    Raises
    ------
    ManifestError
        The root is no folder, or holds no recording.
    """
    root = Path(root)
    index = FolderIndex.scan(root, (*SUFFIXES, *OTHER_SUFFIXES), follow_symlinks=follow_symlinks)
    found = [(path, 0) for path in index.files]
    found += [(folder.path, folder.first) for folder in index.folders if folder.path not in (".", *index.too_large)]
    clips, events = [], [Event("left out", path, _TOO_LARGE) for path in index.too_large]
    if index.links and not follow_symlinks:
        links = "a link to a folder is" if index.links == 1 else f"{index.links} links to folders are"
        events.append(Event("left out", str(root), f"{links} not followed. Pass --follow-symlinks to follow them."))
    for path, first in sorted(found):
        if suffix_of(path) in OTHER_SUFFIXES:
            events.append(Event("left out", path, f"{suffix_of(path)} is not read. {_CONVERT}"))
        elif problem := _name_problem(path):
            events.append(Event("left out", shown_name(path), f"path must be plain; got {problem}. Rename it."))
        else:
            clips.append(recording_clip(path, first))
    if not clips:
        advice = f" {events[0].clip}: {events[0].message}" if events else " Check the path."
        raise ManifestError(
            f"{root}: folder must hold videos ({', '.join(SUFFIXES)}) or folders of numbered images; got none.{advice}"
        )
    return clips, events


_TOO_LARGE = f"images must have frame numbers of at most {LARGEST:,}; got larger ones. Renumber them."
_CONVERT = "Convert it: ffmpeg -i IN -c:v libx264 -crf 0 OUT.mp4"


def find_recordings(
    sources: Sequence[Path], root: Path | None = None, *, follow_symlinks: bool = False
) -> tuple[Path, list[Clip], list[Event]]:
    """Recordings that a user names: videos, folders of numbered images, and folders that hold such.

    Parameters
    ----------
    sources : sequence of Path
        At least one.
    root : Path, optional
        What paths are relative to; by default the folder that all of them share.
    follow_symlinks : bool

    Returns
    -------
    root : Path
    list of Clip
        As of `list_videos`; each recording once, in the order given.
    list of Event
        What was left out.

    Raises
    ------
    ManifestError
        A source is not there, or holds no recording; or lies outside the root.
    """
    places = [_plain(source) for source in sources]
    if missing := next((source for source, place in zip(sources, places, strict=True) if not place.exists()), None):
        raise ManifestError(f"{missing}: must be a video, or a folder; got nothing there. Check the path.")
    whole = [place.is_dir() and not numbered_images(place) for place in places]
    if root is None:
        above = [place if is_whole else place.parent for place, is_whole in zip(places, whole, strict=True)]
        root = Path(os.path.commonpath(above))
    clips: dict[str, Clip] = {}
    events: list[Event] = []
    for place, is_whole in zip(places, whole, strict=True):
        if not place.is_relative_to(_plain(root)):
            raise ManifestError(f"{place}: recording must lie under --root; got {root}. Name another root.")
        below = PurePosixPath(place.relative_to(_plain(root)).as_posix())
        found, left_out = (
            list_videos(place, follow_symlinks=follow_symlinks) if is_whole else ([_single(place)], list[Event]())
        )
        events += left_out
        for clip in found:
            path = str(below / clip.path) if is_whole else str(below)
            if problem := _name_problem(path):
                events.append(Event("left out", shown_name(path), f"path must be plain; got {problem}. Rename it."))
            else:
                clips.setdefault(path, recording_clip(path, clip.onset))
    if not clips:
        raise ManifestError("\n".join(f"{event.clip}: {event.message}" for event in events))
    return root, list(clips.values()), events


def _name_problem(path: str) -> str:
    """Why a recording of that name can have no row in a manifest, or an empty string."""
    try:
        manifest_bytes([dataclasses.replace(recording_clip(path, 0), clip_id=f"{NAME}/{path}/{'9' * 20}")], path)
    except UnicodeEncodeError:
        return "bytes that are no UTF-8"
    except ManifestError:
        return path_problem(path) or "control characters, or more than 480 bytes"
    return ""


def recording_clip(path: str, first: int) -> Clip:
    """Make the row of a recording.

    Its onset is the first frame; apex and offset are empty, for they are to be found. The label is UNLABELLED. Who is seen nobody
    says: the subject is the folder that a recording lies in, or its own name where it lies in the root.
    """
    place = PurePosixPath(unicodedata.normalize("NFC", path))
    subject = place.parent.as_posix() if place.parent != PurePosixPath() else place.stem
    return Clip(f"{NAME}/{place}", path, first, None, None, subject, NAME, UNLABELLED)


def _plain(path: Path) -> Path:
    """Return an absolute path without "..", links as they are."""
    return Path(os.path.normpath(path.absolute()))


def _single(place: Path) -> Clip:
    """The row of a video, or of a folder of images, that was named itself."""
    if not place.is_dir():
        if suffix_of(place.name) in OTHER_SUFFIXES:
            raise ManifestError(f"{place}: {suffix_of(place.name)} is not read. {_CONVERT}")
        return recording_clip(place.name, 0)
    numbers = numbered_images(place)
    if max(numbers) > LARGEST:
        raise ManifestError(f"{place}: {_TOO_LARGE}")
    return recording_clip(place.name, min(numbers))
