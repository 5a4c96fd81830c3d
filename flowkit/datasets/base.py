"""What every data set has in common: what its module sees (`Source`) and says (`Annotation`), and what becomes of it (`Reading`).

    ROOT -> rows -> Annotation -> located -> corrected -> numbers checked -> Clip
         workbooks  a set's module  folders  corrections     numbering

A set's module turns its files into `Annotation`s, text as it stands there; `read.read` does the rest, the same for all.
"""

from __future__ import annotations

import dataclasses
import tomllib
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib import resources
from pathlib import Path
from typing import Any, Final, Literal

from flowkit.datasets.folders import FolderIndex
from flowkit.datasets.tables.workbooks import SUFFIXES, Row, find_file, fitting_files, read_table, refuse
from flowkit.errors import ManifestError
from flowkit.inputs.clip import Clip
from flowkit.labels.own_sets import own_sets

FIRST: Final = "first"
LAST: Final = "last"
"""In place of a frame number: that of the folder's first or last image."""
MAX_NAMED: Final = 6
"""Clips named in a note before the rest is only counted."""

UNLABELLED: Final = "unlabelled"
"""Label of a clip of which nobody says what it shows; no grouping but "raw" takes it."""

Kind = Literal["applied", "refused", "left out", "note"]


@dataclass(frozen=True, slots=True)
class Annotation:
    """One clip as the data set's own files tell it, before anything is corrected.

    Attributes
    ----------
    dataset : str
        A name of `flowkit.labels.groupings`.
    subject, clip : str
        The set's own id and clip name, as its folders are called: "sub01", "006", "s01".
    onset, apex, offset : str
        Text of the cells; empty: not given; FIRST or LAST: the frames decide.
    label : str
        The set's own word.
    where : str
        File, sheet and row, or the folder: how messages name it.
    folders : sequence of str
        Where its frames lie: last parts of a path, in order of preference; "./PATH" is that path from the root and no other.
    extra : mapping of str to str
        Further columns of the manifest; the same names for every clip of a set.
    serial : str
        What tells clips apart whose subject and clip name are the same, such as the onset.
    """

    dataset: str
    subject: str
    clip: str
    onset: str
    apex: str
    offset: str
    label: str
    where: str
    folders: Sequence[str]
    extra: Mapping[str, str] = field(default_factory=dict)
    serial: str = ""

    @property
    def clip_id(self) -> str:
        """What the manifest calls it."""
        return unicodedata.normalize(
            "NFC", "/".join(filter(None, (self.dataset, self.subject, self.clip, self.serial)))
        )


@dataclass(frozen=True, slots=True)
class Event:
    """What was done to a clip, or noticed: a correction applied or refused, a row left out, a note."""

    kind: Kind
    clip: str
    message: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.clip + ': ' if self.clip else ''}{self.message}"


@dataclass(frozen=True, slots=True)
class DataSet:
    """A data set that flowkit can read.

    Attributes
    ----------
    name : str
        Of flowkit.labels.groupings.
    annotate : callable
        What turns its files into annotations.
    """

    name: str
    annotate: Callable[[Source], Iterable[Annotation]]

    @property
    def title(self) -> str:
        """How its authors call it."""
        return str(layout(self.name)["title"])

    @property
    def description(self) -> str:
        """Its title, and what else there is to know in a few words."""
        about = layout(self.name).get("about")
        return f"{self.title}: {about}" if about else self.title


@dataclass(frozen=True, slots=True)
class Reading:
    """A data set as clips of a manifest, and what was done on the way.

    Attributes
    ----------
    dataset, title : str
    root : Path
        What the clips' paths start from.
    clips : list of Clip
    events : list of Event
    layouts : dict of str to int
        Clips of each layout of frames that was found: the folder in which it begins.
    """

    dataset: str
    title: str
    root: Path
    clips: list[Clip]
    events: list[Event]
    layouts: dict[str, int]

    @property
    def left_out(self) -> int:
        """Rows that are not in the manifest though they name a clip."""
        return sum(event.kind == "left out" for event in self.events)

    @property
    def without_apex(self) -> int:
        """Clips whose apex nobody annotated."""
        return sum(clip.apex is None for clip in self.clips)

    def counts(self, name: str) -> dict[str, int]:
        """Clips of each label, or of each subject as dataset/subject, most frequent first."""
        of = Counter(
            f"{clip.dataset}/{clip.subject}" if name == "subject" else getattr(clip, name) for clip in self.clips
        )
        return dict(sorted(of.items(), key=lambda item: (-item[1], item[0])))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        return {
            "dataset": self.dataset,
            "title": self.title,
            "root": str(self.root),
            "clips": len(self.clips),
            "left_out": self.left_out,
            "without_apex": self.without_apex,
            "layouts": self.layouts,
            "labels": self.counts("label"),
            "subjects": self.counts("subject"),
            "events": [dataclasses.asdict(event) for event in self.events],
        }


@cache
def _layouts() -> dict[str, Any]:
    return tomllib.loads(resources.files("flowkit.datasets").joinpath("layouts.toml").read_text(encoding="utf-8"))


def layout(name: str) -> Mapping[str, Any]:
    """Return what layouts.toml, or the file of a data set of one's own, says of it, with the markers of a missing frame number."""
    bundled = _layouts()
    return {"missing": bundled["missing"], **(bundled[name] if name in bundled else own_sets()[name].table("layout"))}


class Source:
    """The folder of a data set, as its module sees it.

    Parameters
    ----------
    name : str
        Of the data set.
    root : Path
    workbook : Path, optional
        The annotation file, instead of the one found.
    frames : str or Path, optional
        A folder in the root: only frames under it count.

    Attributes
    ----------
    events : list of Event
    renumbered : dict of str to list of str
        What the frame numbers of clips count that are not those of files, and which clips these are.
    """

    def __init__(self, name: str, root: Path, workbook: Path | None = None, frames: str | Path | None = None) -> None:
        self.name, self.root, self.layout = name, root, layout(name)
        self.events: list[Event] = []
        self.renumbered: dict[str, list[str]] = {}
        self.frames = None if frames is None else _inside(root, Path(frames))
        self._workbook = workbook

    @cached_property
    def _everything(self) -> FolderIndex:
        lists = self.layout.get("lists", {}).values()
        index = FolderIndex.scan(self.root, (*SUFFIXES, *map(str.casefold, lists)))
        if index.unreadable:
            self.note(
                f"{len(index.unreadable)} folders cannot be listed, such as {index.unreadable[0]}. Check the permissions."
            )
        return index

    @cached_property
    def folders(self) -> FolderIndex:
        """Folders of images under the root, or under --frames."""
        return self._everything if self.frames is None else self._everything.within(self.frames)

    @property
    def named_workbook(self) -> bool:
        """Whether the annotation file was named, with --workbook."""
        return self._workbook is not None

    def has(self, name: str) -> bool:
        """Whether there is a file for a table of layouts.toml."""
        return bool(fitting_files(self._everything.files, self.layout[name]))

    def table(self, name: str = "main") -> list[Row]:
        """Rows of an annotation file.

        Parameters
        ----------
        name : str
            Of its table in layouts.toml; "main" is the one that --workbook names.

        Raises
        ------
        ManifestError, EnvironmentMissing
        """
        form = self.layout[name]
        path = self._file(form.get("file_of", name))
        if path.with_name(f"~${path.name}").exists():
            self.note(f"{path.name} is open in a spreadsheet program: what is not saved there yet is not read.")
        return read_table(path, form)

    def lists(self, name: str) -> list[Path]:
        """Text files of a name in `lists` of layouts.toml, wherever they lie under the root."""
        wanted = self.layout["lists"][name].casefold()
        there = (self.root / path for path in self._everything.files)
        return [path for path in there if path.name.casefold() == wanted]

    def tails(self, **values: str) -> tuple[str, ...]:
        """Where the frames of a clip may lie: the patterns of layouts.toml, filled in."""
        return tuple(pattern.format(**values) for pattern in self.layout["folders"])

    def annotation(self, row: Row, subject: str, extra: Mapping[str, str], **changed: Any) -> Annotation:
        """Return the annotation of a row whose columns have the usual names.

        Parameters
        ----------
        row : Row
        subject : str
            As the set's folders have it.
        extra : mapping
            Further columns of the manifest.
        **changed
            Fields of `Annotation` that do not stand in the columns of their names, such as `folders`.
        """
        usual = {name: row[name] for name in ("clip", "onset", "apex", "offset", "label") if name not in changed}
        if "folders" not in changed:
            changed["folders"] = self.tails(subject=subject, clip=row["clip"])
        return Annotation(dataset=self.name, subject=subject, where=row.where, extra=extra, **usual, **changed)

    def note(self, message: str, clip: str = "") -> None:
        """Record something worth knowing."""
        self.events.append(Event("note", clip, message))

    def leave_out(self, clip: str, message: str) -> None:
        """Record why a row that names a clip will not be in the manifest."""
        self.events.append(Event("left out", clip, message))

    def _file(self, name: str) -> Path:
        """The file of a table of layouts.toml."""
        form = self.layout[name]
        if name != "main" or self._workbook is None:
            what = f"the annotation of {self.layout['title']}"
            return find_file(self.root, self._everything.files, form, what)
        refuse(self._workbook, form)
        return self._workbook


def counted(words: Counter[str]) -> str:
    """How often each word stands there, most frequent first."""
    return ", ".join(f"{word} ({number})" for word, number in words.most_common())


def _inside(root: Path, frames: Path) -> str:
    """A folder in the root as a path relative to it."""
    place = root / frames
    if not place.is_dir() or not place.resolve().is_relative_to(root.resolve()):
        raise ManifestError(f"--frames: must be a folder in {root}; got {frames}. Check the path.")
    return place.resolve().relative_to(root.resolve()).as_posix()
