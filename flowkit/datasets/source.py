"""A data set's folder, as the module of the set sees it."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from flowkit.datasets.base import MAX_NAMED, Annotation, Event, ReadOptions, is_bundled, layout, sets_of
from flowkit.datasets.folders import VIDEOS, Folder, FolderIndex
from flowkit.datasets.tables.text_files import SUFFIXES as TEXTS
from flowkit.datasets.tables.workbooks import SUFFIXES, Row, find_file, fitting_files, read_table, refuse
from flowkit.errors import ManifestError
from flowkit.listing import listed

_USUAL: Final = ("clip", "onset", "apex", "offset", "label", "fps")
"""Columns of layouts.toml that are fields of `Annotation` of the same name."""


class Source:
    """The folder of a data set, as its module sees it.

    Parameters
    ----------
    name : str
        Of the data set.
    root : Path
    options : ReadOptions, optional

    Attributes
    ----------
    events : list of Event
    renumbered : dict of str to list of str
        What the frame numbers of clips count that are not those of files, and which clips these are.
    nearest, no_number : list of str
        Clips that lack a key frame and stay; those whose apex or offset is a 0 that can be no frame.
    odd_rates : dict of str to str
        Clips whose own frame rate is no number, and what is in the cell.
    """

    def __init__(self, name: str, root: Path, options: ReadOptions | None = None) -> None:
        self.name, self.root, self.layout, self.options = name, root, layout(name), options or ReadOptions()
        self.events: list[Event] = []
        self.renumbered: dict[str, list[str]] = {}
        self.nearest: list[str] = []
        self.no_number: list[str] = []
        self.odd_rates: dict[str, str] = {}
        frames = self.options.frames
        self.frames = None if frames is None else _inside(root, Path(frames), self.options.follow_symlinks)

    @cached_property
    def _everything(self) -> FolderIndex:
        lists = self.layout.get("lists", {}).values()
        suffixes = (*SUFFIXES, *VIDEOS, *map(str.casefold, lists))
        index = FolderIndex.scan(self.root, suffixes, follow_symlinks=self.options.follow_symlinks)
        if index.unreadable:
            self.note(
                f"{len(index.unreadable)} folders cannot be listed, such as {index.unreadable[0]}. Check the permissions."
            )
        return index

    @cached_property
    def folders(self) -> FolderIndex:
        """Folders of images under the root, or under --frames, without those that are of another set."""
        index = self._everything if self.frames is None else self._everything.within(self.frames)
        return index.without(self.layout.get("other_folders", ()))

    @cached_property
    def spreadsheets(self) -> list[str]:
        """Every file under the root that may be an annotation, relative to it."""
        return [path for path in self._everything.files if path.casefold().endswith(SUFFIXES)]

    @property
    def named_workbook(self) -> bool:
        """Whether the annotation file was named, with --workbook."""
        return self.options.workbook is not None

    def has(self, name: str) -> bool:
        """Whether there is a file for a table of layouts.toml."""
        return bool(fitting_files(self.spreadsheets, self.layout[name]))

    def table(self, name: str = "main") -> list[Row]:
        """Rows of an annotation file; which of its columns are not read is noted.

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
        if "file_of" in form and path.suffix.casefold() in TEXTS:
            raise ManifestError(
                f"{path}: annotation must be a workbook with the sheet {form['sheets'][0]}; got a text file. Name the workbook."
            )
        table = read_table(path, form, unlabelled=bool(self.options.label_from))
        if table.encoding:
            self.note(
                f"{path.name} is not UTF-8 and is read as {table.encoding}. If words look wrong, save it as CSV UTF-8."
            )
        if table.unread:
            self.note(f"{table.where}: columns that are not read: {', '.join(table.unread)}.")
        return table.rows

    def joined(self, name: str) -> list[Row]:
        """Rows of an annotation file that is joined where it is there; several are a note, for no option chooses one.

        Parameters
        ----------
        name : str
            Of its table in layouts.toml, which has `what`.
        """
        form = self.layout[name]
        found = fitting_files(self.spreadsheets, form)
        if len(found) > 1:
            self.note(
                f"{form['what']} must be one file; got {listed(found, MAX_NAMED)}. None is read: move all except one out of ROOT."
            )
        return self.table(name) if len(found) == 1 else []

    def lists(self, name: str) -> list[Path]:
        """Text files of a name in `lists` of layouts.toml, wherever they are under the root."""
        wanted = self.layout["lists"][name].casefold()
        there = (self.root / path for path in self._everything.files)
        return [path for path in there if path.name.casefold() == wanted]

    def find(self, tail: str) -> list[Folder]:
        """Every folder of images whose path ends so; in bundled sets, "sub01" and "01" are one subject."""
        return self.folders.find(tail, bare=self.is_bundled)

    @property
    def is_bundled(self) -> bool:
        """Whether the set is no own one, so that it is known how its subjects are called."""
        return is_bundled(self.name)

    def tails(self, **values: str) -> tuple[str, ...]:
        """Where the frames of a clip may be: the patterns of layouts.toml, filled in."""
        plain = {name: value.replace("*", "\uff0a") for name, value in values.items()}  # only a pattern has wildcards
        return tuple(pattern.format(**plain) for pattern in self.layout["folders"])

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
            Fields of `Annotation` that are not in the columns of their names, such as `folders`.
        """
        usual = {name: row[name] for name in _USUAL if name not in changed}
        if "folders" not in changed:
            changed["folders"] = self.tails(subject=subject, clip=row["clip"])
        return Annotation(dataset=self.name, subject=subject, where=row.where, extra=extra, **usual, **changed)

    def note(self, message: str, clip: str = "") -> None:
        """Record something worth knowing."""
        self.events.append(Event("note", clip, message))

    def keep_notes_of(self, clips: Collection[str]) -> None:
        """Forget what was noticed of clips that are not among these."""
        for names in (self.nearest, self.no_number, *self.renumbered.values()):
            names[:] = [name for name in names if name in clips]
        self.odd_rates = {name: text for name, text in self.odd_rates.items() if name in clips}
        self.renumbered = {how: names for how, names in self.renumbered.items() if names}

    def leave_out(self, clip: str, reason: str, message: str, label: str = "") -> None:
        """Record why a row that names a clip will not be in the manifest; rows are counted by the reason."""
        self.events.append(Event("left out", clip, message, reason, label))

    def _file(self, name: str) -> Path:
        """The file of a table of layouts.toml."""
        form, named = self.layout[name], self.options.workbook
        if name != "main" or named is None:
            what = form.get("what", f"the annotation of {self.layout['title']}")
            if name == "main" and not fitting_files(self.spreadsheets, form):
                for path in self.spreadsheets:
                    refuse(self.root / path, form)
                self._refuse_other_set(what)
            return find_file(self.root, self.spreadsheets, form, what)
        refuse(named, form)
        return named

    def _refuse_other_set(self, what: str) -> None:
        """Raise if the annotation that is there is the one of another set.

        Raises
        ------
        ManifestError
        """
        there = dict.fromkeys(sets_of(self.spreadsheets))
        if not there or self.name in there:
            return
        found = " or ".join(f"{layout(name)['title']} (flowkit manifest {name})" for name in there)
        patterns = " or ".join(self.layout["main"]["files"])
        raise ManifestError(
            f"{self.root}: folder must hold {what}, a file named {patterns}; got that of another set, {found}. Name the set that "
            "you mean, or the file with --workbook."
        )


def _inside(root: Path, frames: Path, follow_symlinks: bool) -> str:
    """A folder in the root as a path relative to it; by its name alone where links are followed."""
    place = root / frames
    if follow_symlinks:
        place, top = (Path(os.path.normpath(path.absolute())) for path in (place, root))
    else:
        place, top = place.resolve(), root.resolve()
    if not place.is_dir() or not place.is_relative_to(top):
        raise ManifestError(f"--frames: must be a folder in {root}; got {frames}. Check the path.")
    return place.relative_to(top).as_posix()
