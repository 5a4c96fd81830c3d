"""Data sets of one's own: a NAME.toml and a NAME.py for each, in the folders that the environment names.

    FLOWKIT_DATASETS=/lab/sets:/home/me/sets

NAME.toml has up to four tables, each in the form of a bundled file:

    [layout]         as [NAME] of flowkit/datasets/layouts.toml          read by flowkit.datasets
    [labels]         as [datasets.NAME] of classes.toml                  read here
    [groupings.G]    as [groupings.G.NAME] of classes.toml; with `classes`, and perhaps `about`, a new grouping
    [expected]       as [datasets.NAME] of flowkit/checking/expected.toml     read by flowkit.checking

Nothing here runs the code of NAME.py; `flowkit.datasets` does, when the set is read.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from flowkit.errors import ConfigError
from flowkit.labels.class_maps import Grouping, LabelMap
from flowkit.labels.classes_file import (
    GROUPING_KEYS,
    bundled_tables,
    grouping_problems,
    label_map,
    labels_problems,
    member_problems,
)
from flowkit.labels.toml_form import (
    TABLE,
    TABLES,
    enumerated,
    fold,
    near,
    read_toml,
    refuse,
    unknown_keys,
    value_problems,
)

VARIABLE: Final = "FLOWKIT_DATASETS"
"""Environment variable: folders of data sets of one's own, as in PATH."""
WHAT_NAMES_MEAN: Final = ("megc2019", "videos")
"""What `flowkit manifest` takes besides the data sets of classes.toml."""
_KINDS: Final = {"layout": TABLE, "labels": TABLE, "groupings": TABLES, "expected": TABLE}
_NAME: Final = re.compile("[a-z0-9][a-z0-9_-]*")


@dataclass(frozen=True, slots=True)
class OwnSet:
    """A data set of one's own.

    Attributes
    ----------
    name : str
    file, module : Path
        NAME.toml and NAME.py.
    tables : mapping
        Of NAME.toml.
    """

    name: str
    file: Path
    module: Path
    tables: Mapping[str, Any]

    def table(self, name: str) -> Mapping[str, Any]:
        """Return a table of the file; an empty one where it has none."""
        found: Mapping[str, Any] = self.tables.get(name, {})
        return found


def own_folders() -> str:
    """Return what the environment variable says; empty where it is not set."""
    return os.environ.get(VARIABLE, "")


def own_sets() -> Mapping[str, OwnSet]:
    """Return the data sets of one's own, by name.

    Raises
    ------
    ConfigError
        A folder is missing, a set lacks one of its two files, a TOML file cannot be read, or a name is taken; every problem is
        listed.
    """
    return _read_folders(own_folders())


@cache
def _read_folders(folders: str) -> Mapping[str, OwnSet]:
    found: dict[str, OwnSet] = {}
    problems: list[str] = []
    for folder in filter(None, folders.split(os.pathsep)):
        try:
            files = sorted(path for path in Path(folder).absolute().iterdir() if path.suffix in (".toml", ".py"))
        except OSError as error:
            problems.append(
                f"{VARIABLE}: must name folders of data sets; got {folder}: {error.strerror}. Correct the path, or unset it."
            )
            continue
        for place in dict.fromkeys(path.with_suffix("") for path in files if not path.name.startswith(("_", "."))):
            own = OwnSet(place.name, Path(f"{place}.toml"), Path(f"{place}.py"), {})
            problems += list(_file_problems(own, found)) or list(_read_tables(own, found))
    refuse(problems)
    return found


def _read_tables(own: OwnSet, found: dict[str, OwnSet]) -> Iterator[str]:
    """Add a set to those that are found; what is wrong with its file."""
    try:
        own = dataclasses.replace(own, tables=read_toml(own.file, "data set"))
    except ConfigError as error:
        yield str(error)
        return
    found[own.name] = own
    yield from unknown_keys(own.tables, tuple(_KINDS), str(own.file))
    yield from value_problems(own.tables, _KINDS, ("layout",), str(own.file))


def _file_problems(own: OwnSet, found: Mapping[str, OwnSet]) -> Iterator[str]:
    """Names that mean something else already, and files that are missing."""
    bundled = bundled_tables()["datasets"]
    taken = {fold(name) for data_set, table in bundled.items() for name in (data_set, *table.get("also", ()))}
    if not _NAME.fullmatch(own.name):
        yield (
            f"{own.file}: name must be of small letters, digits, - and _; got {own.name!r}. Rename both files, or let the name "
            "begin with _ if they are no data set."
        )
    elif own.name in taken or own.name in WHAT_NAMES_MEAN:
        yield f"{own.file}: name must be a new one; got {own.name}, a data set that flowkit brings. Rename both files."
    elif own.name in found:
        yield f"{own.file}: name must be a new one; got that of {found[own.name].file}. Rename both files."
    for there, missing in ((own.module, own.file), (own.file, own.module)):
        if not missing.exists():
            yield (
                f"{there}: {missing.name} must lie beside it; got none. Write it (docs/datasets/README.md), or let the name begin "
                "with _ if it is no data set."
            )


# --- labels


def with_own_sets(known: Mapping[str, Grouping]) -> dict[str, Grouping]:
    """Return the bundled groupings with the data sets of one's own in them, then the groupings that these bring.

    Parameters
    ----------
    known : mapping of str to Grouping

    Raises
    ------
    ConfigError
        A file contradicts itself or another; every problem is listed.
    """
    sets = own_sets()
    if not sets:
        return dict(known)
    problems: list[str] = []
    for own in sets.values():
        problems += _label_problems(own)
    refuse(problems)
    heads = _heads(sets, problems)
    names = _names(sets, problems)
    maps: dict[str, dict[str, LabelMap]] = {name: {} for name in heads}
    for own in sets.values():
        for name, table in own.table("groupings").items():
            if found := _member(own, name, table, heads, problems):
                maps[name][own.name] = found
    refuse(problems)
    files = {own.name: str(own.file) for own in sets.values()}
    new = {
        name: Grouping(name, tuple(head["classes"]), head.get("about", ""))
        for name, head in heads.items()
        if name not in known
    }
    return {
        name: dataclasses.replace(groups, datasets={**groups.datasets, **maps[name]}, names=names, files=files)
        for name, groups in {**known, **new}.items()
    }


def _label_problems(own: OwnSet) -> Iterator[str]:
    if "labels" in own.tables:
        yield from labels_problems(own.table("labels"), f"{own.file}: labels")
    elif own.table("groupings"):
        yield f"{own.file}: labels must be a table with every label of the annotation; got none. Add [labels]."
    for name, table in own.table("groupings").items():
        if "classes" in table:
            yield from grouping_problems(name, table, f"{own.file}: groupings.{name}")


def _heads(sets: Mapping[str, OwnSet], problems: list[str]) -> dict[str, Mapping[str, Any]]:
    """What each grouping is, whichever file it is of: its classes, and the labels that it brings."""
    found: dict[str, Mapping[str, Any]] = dict(bundled_tables()["groupings"])
    for own in sets.values():
        for name, table in own.table("groupings").items():
            if "classes" in table and name in found:
                problems.append(
                    f"{own.file}: groupings.{name}.classes must be those of a new grouping; got a name that is taken. Remove the "
                    "key to place the labels in that grouping, or choose another name."
                )
            elif "classes" in table:
                found[name] = table
    return {name: {key: table[key] for key in GROUPING_KEYS if key in table} for name, table in found.items()}


def _names(sets: Mapping[str, OwnSet], problems: list[str]) -> dict[str, str]:
    """Every other name of a data set, folded, to its name."""
    bundled = bundled_tables()["datasets"]
    found = {fold(also): name for name, table in bundled.items() for also in table.get("also", ())}
    for own in sets.values():
        for also in map(fold, own.table("labels").get("also", ())):
            if also in found or also in bundled or also in sets or also in WHAT_NAMES_MEAN:
                problems.append(
                    f"{own.file}: labels.also must hold new names; got {also!r}, a name of {found.get(also, also)}. Remove it."
                )
            found[also] = own.name
    return found


def _member(
    own: OwnSet, name: str, table: Mapping[str, Any], heads: Mapping[str, Mapping[str, Any]], problems: list[str]
) -> LabelMap | None:
    """What a grouping makes of the labels of a set, or None where the file does not say it well."""
    where = f"{own.file}: groupings.{name}"
    if name not in heads:
        problems.append(
            f"{where}: grouping must be one of {enumerated(heads)}; got {name!r}.{near(name, heads)} Correct it, or add "
            "`classes` to make a new one."
        )
        return None
    placed = {key: labels for key, labels in table.items() if key not in GROUPING_KEYS}
    new = list(member_problems(placed, heads[name]["classes"], where))
    problems += new
    if new:
        return None
    tables = {
        "spellings": bundled_tables().get("spellings", {}),
        "datasets": {own.name: own.table("labels")},
        "groupings": {name: {**heads[name], own.name: placed}},
    }
    return label_map(tables, name, own.name, where, problems)
