"""One walk over a data set: which folders hold numbered images, and which other files there are.

Folders are looked up by the last parts of their path, so that a set is found wherever below the root it is. Parts are compared
folded: capitals, leading zeros of numbers, and the sign that joins words never count; in bundled sets, neither does what
laboratories write before a subject's number ("sub01", "S01", "01").
"""

from __future__ import annotations

import os
import re
import shlex
import unicodedata
from collections.abc import Callable, Iterable, Sequence
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
MOST_FOLDERS: Final = 100_000
"""Folders that a walk enters through links before it gives up: links can lead to each other without end."""
VIDEOS: Final = (".avi", ".mp4", ".mov", ".mkv", ".wmv", ".mpg", ".mpeg")
"""Recordings that are where frames should be."""
_BLANKS: Final = {0x3000: " ", 0xA0: " "}
"""Wide and hard blanks, which Chinese input methods and word processors write into names."""
PREFIX: Final = "(?:subject|subj|sub|s)?_?"
"""What laboratories write before a subject's number, folded."""
_SUBJECT: Final = re.compile(f"{PREFIX}([0-9]+)")


_Place = tuple[str, tuple[str, ...]]
"""A folder's path from the root, and the real folders through which links led to it, the root first."""


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder of numbered images.

    Attributes
    ----------
    path : str
        Relative to the root, with slashes; "." for the root itself.
    numbers : (N,) int64
        In order; a number that two images have is there twice.
    links : int
        How many of the images are links.
    """

    path: str
    numbers: npt.NDArray[np.int64]
    links: int = 0

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
    """What is under a root.

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
        Links to folders that were not followed.
    follow_symlinks : bool
        Whether links to folders are followed, except those that lead in a circle.
    unreadable : list of str
        Folders that could not be listed.
    too_large : list of str
        Folders with images whose numbers are larger than `LARGEST`; these images are not listed.
    """

    root: Path
    folders: list[Folder] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    links: int = 0
    follow_symlinks: bool = False
    unreadable: list[str] = field(default_factory=list)
    too_large: list[str] = field(default_factory=list)
    _by_name: dict[str, list[tuple[tuple[str, ...], Folder]]] = field(default_factory=dict)
    _by_path: dict[str, Folder] = field(default_factory=dict)

    @classmethod
    def scan(cls, root: Path, suffixes: Sequence[str], *, follow_symlinks: bool = False) -> FolderIndex:
        """Walk over a root once.

        Parameters
        ----------
        root : Path
        suffixes : sequence of str
            Of the files that are listed: spreadsheets, or videos.
        follow_symlinks : bool
            Whether links to folders are followed.

        Raises
        ------
        ManifestError
            The root is no folder that can be listed, or links lead on and on.
        """
        index = cls(root, follow_symlinks=follow_symlinks)
        pending: list[_Place] = [("", (os.path.realpath(root),))]
        entered = 0
        while pending:
            place, through = pending.pop()
            entered += len(through) > 1
            if entered > MOST_FOLDERS:
                raise ManifestError(
                    f"{root}: links must lead to at most {MOST_FOLDERS:,} folders; got more. Point ROOT at the frames alone."
                )
            try:
                with os.scandir(root / place) as entries:
                    pending += reversed(index._take(place, through, entries, tuple(suffixes)))
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
        return self._part(lambda path: _under(path, place))

    def without(self, names: Sequence[str]) -> FolderIndex:
        """The part of the index outside folders of these names."""
        passed = {fold_path(name) for name in names}
        return self._part(lambda path: not passed & {(part,) for part in fold_path(path)}) if names else self

    def find(self, tail: str, *, bare: bool = False) -> list[Folder]:
        """Every folder of images whose path ends with these parts; the root's own name counts as a part too.

        Parameters
        ----------
        tail : str
            Such as "sub01/EP02_01f"; "./Cropped/sub01/EP02_01f" is that path from the root and no other. A * at its end is
            whatever does not begin with a digit.
        bare : bool
            Whether what is written before a subject's number does not count either.
        """
        *above, name = fold_path(tail)
        known = [found for known_name in self._names(name) for found in self._by_name.get(known_name, ())]
        if tail.startswith("./"):
            return [folder for _, folder in known if folder.path == tail[2:]]
        wanted = tuple(map(bare_subject, above)) if bare else tuple(above)
        ends = ((parts[len(parts) - 1 - len(above) : -1], folder) for parts, folder in known)
        return [folder for end, folder in ends if (tuple(map(bare_subject, end)) if bare else end) == wanted]

    @property
    def videos(self) -> list[str]:
        """Paths of the videos among the files."""
        return [path for path in self.files if path.casefold().endswith(VIDEOS)]

    def at(self, path: str) -> Folder:
        """The folder of images with a path."""
        return self._by_path[path]

    def _names(self, name: str) -> list[str]:
        """The names of folders that a last part stands for."""
        if not name.endswith("*"):
            return [name]
        start = name[:-1]
        return [known for known in self._by_name if known.startswith(start) and not known[len(start) :][:1].isdigit()]

    def _part(self, keep: Callable[[str], bool]) -> FolderIndex:
        """The index of the folders whose path is to be kept; files and what could not be walked stay."""
        part = FolderIndex(self.root, files=self.files, links=self.links, unreadable=self.unreadable)
        part.follow_symlinks = self.follow_symlinks
        part.folders = [folder for folder in self.folders if keep(folder.path)]
        part.empty = [path for path in self.empty if keep(path)]
        part._order()
        return part

    def _take(
        self, place: str, through: tuple[str, ...], entries: Iterable[os.DirEntry[str]], suffixes: tuple[str, ...]
    ) -> list[_Place]:
        """File what a folder holds; its sub-folders, in order."""
        images, links = [], 0
        below: list[_Place] = []
        for entry in entries:
            name = entry.name
            path = f"{place}/{name}" if place else name
            is_folder = _is_folder(entry)
            if frame_number(name) is not None and not is_folder:
                images.append(name)
                links += entry.is_symlink()
            elif name.startswith(".") or name == "__MACOSX":  # what macOS adds to archives
                continue
            elif is_folder:
                target = self._entered(entry, through)
                if target is not None and name.translate(_BLANKS).isprintable():  # what is not cannot be in a manifest
                    below.append((path, target))
            elif name.lower().endswith(suffixes) and not name.startswith("~$"):
                self.files.append(path)
        found = frame_numbers(images)
        if numbers := [number for number in found if number <= LARGEST]:
            self.folders.append(Folder(place or ".", np.sort(np.array(numbers, dtype=np.int64)), links))
        elif not below:
            self.empty.append(place or ".")
        if len(numbers) < len(found):
            self.too_large.append(place or ".")
        return sorted(below)

    def _entered(self, entry: os.DirEntry[str], through: tuple[str, ...]) -> tuple[str, ...] | None:
        """The real folders through which a sub-folder is entered; None for a link that is not followed."""
        if not entry.is_symlink():
            return through
        target, here = os.path.realpath(entry.path), os.path.realpath(Path(entry.path).parent)
        circle = any(Path(place).is_relative_to(target) for place in (*through, here))
        if not self.follow_symlinks or circle:
            self.links += 1
            return None
        return (*through, target)

    def _order(self) -> None:
        self.folders.sort(key=lambda folder: folder.path)
        self.empty.sort()
        self.files.sort()
        self._by_path = {folder.path: folder for folder in self.folders}
        top = fold_path(self.root.resolve().as_posix())
        for folder in self.folders:
            *above, name = (*top, *fold_path(folder.path))
            self._by_name.setdefault(name, []).append(((*above, name), folder))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder, or a link to one; a link to itself is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def fold_path(path: str) -> tuple[str, ...]:
    """The parts of a path as they are compared.

    Examples
    --------
    >>> fold_path("S01/s01_ne-01")
    ('s1', 's1_ne_1')
    """
    folded = unicodedata.normalize("NFC", path).casefold()
    folded = re.sub(r"[\s_-]+", "_", re.sub(r"(?<![0-9])(?<![0-9]\.)0+(?=[0-9])", "", folded))
    return tuple(part for part in folded.split("/") if part not in ("", "."))


def layout_of(folder: Folder, tail: str) -> str:
    """Where in the root a layout begins: a folder's path without the parts by which it was found."""
    parts = [part for part in folder.path.split("/") if part != "."]
    return "/".join(parts[: max(0, len(parts) - len(fold_path(tail)))]) or "."


def several_layouts(root: Path, counts: dict[str, int], example: Sequence[str] = ()) -> ManifestError:
    """The error for clips whose frames are in several folders: raw, selected and cropped side by side.

    Parameters
    ----------
    root : Path
    counts : dict of str to int
        Clips of each layout.
    example : sequence of str
        The folders of one such clip.
    """
    found = ", ".join(f"{name} ({count} clips)" for name, count in sorted(counts.items()))
    shown = f", for instance {' and '.join(example)}" if example else ""
    if len(counts) > 1:
        advice = f"Choose one with --frames, such as --frames {shlex.quote(min(counts))}."
    else:
        advice = "Move one of the two out of ROOT."
    return ManifestError(f"{root}: frames of a clip must be in one folder; got several: {found}{shown}. {advice}")


def some_folders(index: FolderIndex) -> str:
    """The first few folders of images, for messages, and what else there is that could hold frames."""
    paths = [folder.path for folder in index.folders]
    films = f"; {len(index.videos)} videos, such as {index.videos[0]}" if index.videos else ""
    return (listed(paths, MAX_LISTED) or "no folder of numbered images") + films + links_not_followed(index)


def what_to_do(index: FolderIndex) -> str:
    """Return what to do where frames are not found."""
    if index.links and not index.follow_symlinks:
        return "Pass --follow-symlinks to follow the links, or check the folder."
    if index.videos:
        video = shlex.quote(str(index.root / index.videos[0]))
        return (
            f"Convert each video into a folder of images ('ffmpeg -i {video} -start_number 1 FOLDER/img%d.png', where FOLDER is "
            "the name of the clip), with the numbers that the annotation counts."
        )
    return "Check the folder."


def links_not_followed(index: FolderIndex) -> str:
    """The end of a message, where there are links that nobody followed."""
    return f"; {index.links} links to folders, which are not followed" if index.links else ""


def gaps(folder: Folder, first: int, last: int) -> int:
    """How many of the frames from first to last are missing."""
    there = np.unique(folder.numbers)
    return int(last - first + 1 - np.count_nonzero((there >= first) & (there <= last)))


def bare_subject(part: str) -> str:
    """A folded part of a path, without what is written before a subject's number.

    Examples
    --------
    >>> bare_subject("sub1"), bare_subject("s1"), bare_subject("ep2_1f")
    ('1', '1', 'ep2_1f')
    """
    match = _SUBJECT.fullmatch(part)
    return match[1] if match else part


def _under(path: str, place: str) -> bool:
    return place in ("", ".") or path == place or path.startswith(f"{place}/")
