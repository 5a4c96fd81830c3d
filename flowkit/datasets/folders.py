"""One walk over a data set: which folders hold numbered images, and which other files lie there.

Folders are looked up by the last parts of their path, so that a set is found wherever below the root it lies. Parts are compared
folded: capitals, leading zeros of numbers, and the sign that joins words never count.
"""

from __future__ import annotations

import os
import re
import shlex
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from flowkit.errors import ManifestError
from flowkit.inputs.frame_numbers import frame_number, frame_numbers
from flowkit.listing import listed

MAX_LISTED: Final = 6
LARGEST: Final = 999_999_999
"""The manifest knows no longer frame numbers."""


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder of numbered images.

    Attributes
    ----------
    path : str
        Relative to the root, with slashes; "." for the root itself.
    numbers : (N,) int64
        In order; a number that two images have stands there twice.
    """

    path: str
    numbers: npt.NDArray[np.int64]

    def holds(self, number: int) -> int:
        """How many images have a number."""
        first, last = np.searchsorted(self.numbers, [number, number + 1])
        return int(last - first)

    @property
    def first(self) -> int:
        """Number of the first image."""
        return int(self.numbers[0])

    @property
    def last(self) -> int:
        """Number of the last image."""
        return int(self.numbers[-1])


@dataclass(slots=True)
class FolderIndex:
    """What lies under a root.

    Attributes
    ----------
    root : Path
    folders : list of Folder
        In order of their paths.
    empty : list of str
        Folders with nothing in them that counts: no numbered image, no sub-folder.
    files : list of str
        Relative paths.
    links : int
        Links to folders, which are not followed.
    unreadable : list of str
        Folders that could not be listed.
    """

    root: Path
    folders: list[Folder] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    links: int = 0
    unreadable: list[str] = field(default_factory=list)
    _by_name: dict[str, list[tuple[tuple[str, ...], Folder]]] = field(default_factory=dict)

    @classmethod
    def scan(cls, root: Path, suffixes: Sequence[str]) -> FolderIndex:
        """Walk over a root once.

        Parameters
        ----------
        root : Path
        suffixes : sequence of str
            Of the files that are listed: spreadsheets, or videos.

        Raises
        ------
        ManifestError
            The root is no folder that can be listed.
        """
        index = cls(root)
        pending = [""]
        while pending:
            place = pending.pop()
            try:
                with os.scandir(root / place) as entries:
                    pending += reversed(index._take(place, entries, tuple(suffixes)))
            except OSError as error:
                if not place:
                    raise ManifestError(
                        f"{root}: ROOT must be the folder of the data set; got {error.strerror}. Check the path."
                    ) from error
                index.unreadable.append(place)
        index._order()
        return index

    def within(self, place: str) -> FolderIndex:
        """The part of the index under a folder, relative to the same root."""
        part = FolderIndex(self.root, files=self.files, links=self.links, unreadable=self.unreadable)
        part.folders = [folder for folder in self.folders if _under(folder.path, place)]
        part.empty = [path for path in self.empty if _under(path, place)]
        part._order()
        return part

    def find(self, tail: str) -> list[Folder]:
        """Every folder of images whose path ends with these parts; the root's own name counts as a part too.

        Parameters
        ----------
        tail : str
            Such as "sub01/EP02_01f"; "./Cropped/sub01/EP02_01f" is that path from the root and no other. A * at its end stands
            for whatever does not begin with a digit.
        """
        *above, name = fold_path(tail)
        known = [found for wanted in self._names(name) for found in self._by_name.get(wanted, ())]
        if tail.startswith("./"):
            return [folder for _, folder in known if folder.path == tail[2:]]
        return [folder for parts, folder in known if parts[len(parts) - 1 - len(above) : -1] == tuple(above)]

    def _names(self, name: str) -> list[str]:
        """The names of folders that a last part stands for."""
        if not name.endswith("*"):
            return [name]
        start = name[:-1]
        return [known for known in self._by_name if known.startswith(start) and not known[len(start) :][:1].isdigit()]

    def parts(self, folder: Folder) -> tuple[str, ...]:
        """Folded parts of a folder's path from the file system's root on."""
        return (*fold_path(self.root.resolve().as_posix()), *fold_path(folder.path))

    def _take(self, place: str, entries: Iterable[os.DirEntry[str]], suffixes: tuple[str, ...]) -> list[str]:
        """File what a folder holds; its sub-folders, in order."""
        below, images = [], []
        for entry in entries:
            name = entry.name
            if frame_number(name) is not None and not entry.is_dir():
                images.append(name)
            elif name.startswith("."):
                continue
            elif entry.is_dir(follow_symlinks=False):
                if name.isprintable():  # what is not cannot stand in a manifest
                    below.append(f"{place}/{name}" if place else name)
            elif entry.is_symlink() and entry.is_dir():
                self.links += 1
            elif name.lower().endswith(suffixes) and not name.startswith("~$"):
                self.files.append(f"{place}/{name}" if place else name)
        if numbers := [number for number in frame_numbers(images) if number <= LARGEST]:
            self.folders.append(Folder(place or ".", np.sort(np.array(numbers, dtype=np.int64))))
        elif not below:
            self.empty.append(place or ".")
        return sorted(below)

    def _order(self) -> None:
        self.folders.sort(key=lambda folder: folder.path)
        self.empty.sort()
        self.files.sort()
        for folder in self.folders:
            parts = self.parts(folder)
            self._by_name.setdefault(parts[-1], []).append((parts, folder))


def fold_path(path: str) -> tuple[str, ...]:
    """The parts of a path as they are compared.

    Examples
    --------
    >>> fold_path("S01/s01_ne-01")
    ('s1', 's1_ne_1')
    """
    folded = unicodedata.normalize("NFC", path).casefold()
    folded = re.sub(r"[\s_-]+", "_", re.sub(r"(?<![0-9])0+(?=[0-9])", "", folded))
    return tuple(part for part in folded.split("/") if part not in ("", "."))


def layout_of(folder: Folder, tail: str) -> str:
    """Where in the root a layout begins: a folder's path without the parts by which it was found."""
    parts = [part for part in folder.path.split("/") if part != "."]
    return "/".join(parts[: max(0, len(parts) - len(fold_path(tail)))]) or "."


def several_layouts(root: Path, counts: dict[str, int]) -> ManifestError:
    """The error for clips that lie there more than once: raw, selected and cropped side by side."""
    found = ", ".join(f"{name} ({count} clips)" for name, count in sorted(counts.items()))
    return ManifestError(
        f"{root}: frames of a clip must lie in one folder; got several: {found}. Choose one with --frames, such as --frames "
        f"{shlex.quote(min(counts))}."
    )


def some_folders(index: FolderIndex) -> str:
    """The first few folders of images, for messages."""
    paths = [folder.path for folder in index.folders]
    links = f"; {index.links} links to folders, which are not followed" if index.links else ""
    return (listed(paths, MAX_LISTED) or "no folder of numbered images") + links


def gaps(folder: Folder, first: int, last: int) -> int:
    """How many of the frames from first to last are missing."""
    there = np.unique(folder.numbers)
    return int(last - first + 1 - np.count_nonzero((there >= first) & (there <= last)))


def _under(path: str, place: str) -> bool:
    return place in ("", ".") or path == place or path.startswith(f"{place}/")
