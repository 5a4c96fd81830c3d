"""What every data set has in common: what its module says of a clip (`Annotation`), and what becomes of it (`Reading`).

    ROOT -> rows -> Annotation -> located -> corrected -> numbers checked -> each interval once -> Clip
          tables/      sets/      locating   correcting      numbering          same_frames

A set's module sees its files as a `Source`, and turns them into `Annotation`s, text as the cells have it. `read.read` does the
rest, which is the same for all.
"""

from __future__ import annotations

import dataclasses
import tomllib
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal

from flowkit.inputs.clip import Clip
from flowkit.labels.own_sets import own_sets
from flowkit.listing import word_counts

FIRST: Final = "first"
LAST: Final = "last"
"""In place of a frame number: that of the folder's first or last image."""
MAX_NAMED: Final = 6
"""Clips named in a note before the rest is only counted."""

CORRECT_A_COPY: Final = "Correct a copy of the file, and name it with --workbook."
"""What to do about a faulty row, the end of many messages."""
Kind = Literal["left out", "refused", "applied", "offered", "note"]


class Unusable(Exception):
    """A row that cannot become a clip.

    Parameters
    ----------
    reason : str
        A few words that are the same for all rows with this fault: they are counted by it.
    message : str
        Where, what is wrong, what to do.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason, self.message = reason, message


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How a data set is read.

    Attributes
    ----------
    workbook : Path, optional
        The annotation file, instead of the one found.
    frames : str or Path, optional
        A folder in the root: only frames under it count.
    fixes : bool
        Whether known errors are corrected.
    corrections : Path, optional
        Another table of known errors.
    estimates : bool
        Whether what others estimated takes the place of an annotation, and not only of an error.
    renumbered : bool
        Whether the frames of each clip were renumbered: the onset is the first image, the offset the last.
    nearest : bool
        Whether a clip stays whose key frames are not all there; `frames.nearest` reads the nearest ones.
    follow_symlinks : bool
        Whether links to folders are followed, and images may be links that lead out of the root.
    label_from : str
        A further column that becomes the label; empty: none.
    """

    workbook: Path | None = None
    frames: str | Path | None = None
    fixes: bool = True
    corrections: Path | None = None
    estimates: bool = False
    renumbered: bool = False
    nearest: bool = False
    follow_symlinks: bool = False
    label_from: str = ""


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
        Where its frames may be: last parts of a path; "./PATH" is that path from the root and no other. Frames in more than one
        place are a question to the user.
    extra : mapping of str to str
        Further columns of the manifest; the same names for every clip of a set.
    serial : str
        What tells clips apart whose subject and clip name are the same, such as the onset.
    fps : str
        Frames per second of this clip; empty: those of the set.
    named_label : str
        The label that the clip's own name states; empty: its name states none.
    recording : str
        What the frame numbers of the annotation count: clips with the same recording, onset and offset are one. Empty: the folder.
    layout : str
        The folder in which the layout of its frames begins. Empty: what is above the parts of `folders`.
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
    fps: str = ""
    named_label: str = ""
    recording: str = ""
    layout: str = ""

    @property
    def clip_id(self) -> str:
        """What the manifest calls it."""
        return unicodedata.normalize(
            "NFC", "/".join(filter(None, (self.dataset, self.subject, self.clip, self.serial)))
        )


@dataclass(frozen=True, slots=True)
class Event:
    """What was done to a clip, or noticed: a correction applied, refused or offered, a row left out, a note.

    `reason` says in a few words why a row was left out, the same words for the same fault; `label` is the label of that row.
    """

    kind: Kind
    clip: str
    message: str
    reason: str = ""
    label: str = ""

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
        What turns its `Source` into annotations.
    """

    name: str
    annotate: Callable[[Any], Iterable[Annotation]]

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
    nearest : tuple of str
        Ids of the clips whose key frames are not all there: they need `frames.nearest`.
    follow_symlinks : bool
        Whether links that lead out of the root were followed.
    """

    dataset: str
    title: str
    root: Path
    clips: list[Clip]
    events: list[Event]
    layouts: dict[str, int]
    nearest: tuple[str, ...] = ()
    follow_symlinks: bool = False

    @property
    def left_out(self) -> int:
        """Rows that are not in the manifest though they name a clip."""
        return sum(event.kind == "left out" for event in self.events)

    @property
    def reasons(self) -> dict[str, int]:
        """Rows left out for each reason, most frequent first."""
        return reasons_of(self.events)

    @property
    def without_apex(self) -> int:
        """Clips whose apex nobody annotated."""
        return sum(clip.apex is None for clip in self.clips)

    def counts(self, name: str) -> dict[str, int]:
        """Clips of each label, or of each subject as dataset/subject, most frequent first; capitals make no other label."""
        if name == "subject":
            return word_counts(f"{clip.dataset}/{clip.subject}" for clip in self.clips)
        return word_counts(getattr(clip, name) for clip in self.clips)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        return {
            "dataset": self.dataset,
            "title": self.title,
            "root": str(self.root),
            "clips": len(self.clips),
            "left_out": self.left_out,
            "reasons": self.reasons,
            "nearest": list(self.nearest),
            "without_apex": self.without_apex,
            "layouts": self.layouts,
            "labels": self.counts("label"),
            "subjects": self.counts("subject"),
            "events": [dataclasses.asdict(event) for event in self.events],
        }


@cache
def _layouts() -> dict[str, Any]:
    return tomllib.loads(resources.files("flowkit.datasets").joinpath("layouts.toml").read_text(encoding="utf-8"))


def is_bundled(name: str) -> bool:
    """Return whether a data set is one of layouts.toml."""
    return name in _layouts()


def layout(name: str) -> Mapping[str, Any]:
    """Return what layouts.toml, or the file of a data set of one's own, says of it, with the markers of a missing frame number."""
    bundled = _layouts()
    if name not in bundled:
        return {"missing": bundled["missing"], **own_sets()[name].table("layout")}
    form = {"missing": bundled["missing"], **bundled.get(bundled[name].get("like"), {}), **bundled[name]}
    for key, table in form.items():
        if isinstance(table, dict) and "same_as" in table:
            other, _, place = table["same_as"].partition(".")
            form[key] = {**bundled[other][place], **table}
    return (
        {key: _filled_in(value, str(form["variant"]).upper()) for key, value in form.items()}
        if "variant" in form
        else form
    )


def _filled_in(value: Any, variant: str) -> Any:
    """The same with the variant in place of {variant}, in texts, lists and tables."""
    if isinstance(value, str):
        return value.replace("{variant}", variant)
    if isinstance(value, list):
        return [_filled_in(item, variant) for item in value]
    return {key: _filled_in(item, variant) for key, item in value.items()} if isinstance(value, dict) else value


def sets_of(files: Iterable[str]) -> list[str]:
    """Return the bundled data sets whose annotation some of these files is, by its name, whatever kind of spreadsheet.

    Names that say nothing of their set ("coding.xlsx") do not count: `common_names` of layouts.toml.
    """
    stems = {PurePosixPath(file).stem.casefold() for file in files}
    tables = {name: layout(name).get("main", {}) for name in _layouts() if name != "missing"}
    return [
        name
        for name, table in tables.items()
        for pattern in table.get("files", ())
        if not table.get("common_names")
        and any(fnmatchcase(stem, PurePosixPath(pattern).stem.casefold()) for stem in stems)
    ]


def reasons_of(events: Iterable[Event]) -> dict[str, int]:
    """Return how many rows were left out for each reason, most frequent first."""
    return dict(Counter(event.reason for event in events if event.kind == "left out" and event.reason).most_common())


def counted(words: Counter[str]) -> str:
    """Return how often each word occurs, most frequent first: "macro (12), none (1)"."""
    return ", ".join(f"{word} ({number})" for word, number in words.most_common())
