"""classes.toml, read and checked as a whole, and any other file in its form."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any, Final

from flowkit.labels.class_maps import FILE, RAW, Grouping, LabelMap
from flowkit.labels.toml_form import fold, list_problems, refuse, unknown_keys, word_problems

TABLE_KEYS: Final = ("spellings", "datasets", "groupings")
DATASET_KEYS: Final = ("also", "labels", "spellings", "joint")
GROUPING_KEYS: Final = ("about", "classes", "labels")


@cache
def bundled_tables() -> dict[str, Any]:
    """Return the tables of classes.toml."""
    return tomllib.loads(resources.files("flowkit.labels").joinpath(FILE).read_text(encoding="utf-8"))


def parse(tables: Mapping[str, Any], where: str) -> dict[str, Grouping]:
    """Return every grouping of a file, checked as a whole.

    Parameters
    ----------
    tables : mapping
        Of a file in the form of classes.toml.
    where : str
        Name of the file, for messages.

    Raises
    ------
    ConfigError
        The file contradicts itself; every problem is listed.
    """
    problems = list(_form_problems(tables, where))
    refuse(problems)
    names = {fold(also): name for name, table in tables["datasets"].items() for also in table.get("also", ())}
    clashes = sorted(set(names) & {fold(name) for name in tables["datasets"]})
    problems += [f"{where}: also must hold new names; got {name!r}, a data set. Correct it." for name in clashes]
    found: dict[str, Grouping] = {}
    for name, table in tables["groupings"].items():
        maps = {
            dataset: label_map(tables, name, dataset, f"{where}: {name}.{dataset}", problems)
            for dataset in table
            if dataset not in GROUPING_KEYS
        }
        found[name] = Grouping(name, tuple(table["classes"]), table.get("about", ""), maps, names)
    refuse(problems)
    return found


def label_map(tables: Mapping[str, Any], name: str, dataset: str, where: str, problems: list[str]) -> LabelMap:
    """Return what a grouping makes of one data set; add a label that is placed twice or nowhere to the problems."""
    table, own = tables["groupings"][name], tables["datasets"][dataset]
    placed: dict[str, str | None] = {fold(cls): cls for cls in table["classes"]}
    known = {fold(label) for label in table.get("labels", own["labels"])}
    for cls, labels in table[dataset].items():
        for label in map(fold, labels):
            if label in placed or label not in known:
                what = "a label that is placed already" if label in placed else "an unknown label"
                problems.append(
                    f"{where}.{cls}: entry must be a label not placed yet; got {label!r}, {what}. Correct it."
                )
            placed[label] = None if cls == "left_out" else cls
    problems += [
        f"{where}: every label must be in a class or in left_out; got {label!r} in none. Place it."
        for label in sorted(known - set(placed))
    ]
    spellings = {**tables.get("spellings", {}), **own.get("spellings", {})}
    folded = {fold(found): fold(meant) for found, meant in spellings.items()}
    return LabelMap(placed, {a: b for a, b in folded.items() if b in placed and a not in placed}, own.get("joint", ""))


def _form_problems(tables: Mapping[str, Any], where: str) -> Iterator[str]:
    """Whatever has not the form that the head of classes.toml describes."""
    yield from unknown_keys(tables, TABLE_KEYS, where)
    for key in ("datasets", "groupings"):
        if not isinstance(tables.get(key), dict) or not all(isinstance(table, dict) for table in tables[key].values()):
            yield f"{where}: {key} must be a table of tables; got {tables.get(key)!r:.80}. Correct it."
            return
    yield from word_problems(tables.get("spellings", {}), f"{where}: spellings")
    for name, table in tables["datasets"].items():
        yield from labels_problems(table, f"{where}: datasets.{name}")
    for name, table in tables["groupings"].items():
        here = f"{where}: groupings.{name}"
        yield from unknown_keys(table, (*GROUPING_KEYS, *tables["datasets"]), here)
        problems = list(grouping_problems(name, table, here))
        yield from problems
        if not problems:
            for dataset in set(table) & set(tables["datasets"]):
                yield from member_problems(table[dataset], table["classes"], f"{here}.{dataset}")


def labels_problems(table: Mapping[str, Any], where: str) -> Iterator[str]:
    """Yield what is wrong with the names, labels and spellings of a data set."""
    yield from unknown_keys(table, DATASET_KEYS, where)
    yield from list_problems(table.get("labels"), f"{where}.labels")
    yield from list_problems(table.get("also", []), f"{where}.also")
    yield from word_problems(table.get("spellings", {}), f"{where}.spellings")
    if not isinstance(table.get("joint", ""), str):
        yield f"{where}.joint must be a text; got {table['joint']!r:.80}. Correct it."


def grouping_problems(name: str, table: Mapping[str, Any], where: str) -> Iterator[str]:
    """Yield what is wrong with a grouping itself: its name, its classes, the labels that it brings."""
    classes = table.get("classes")
    yield from list_problems(classes, f"{where}.classes")
    yield from list_problems(table.get("labels", []), f"{where}.labels")
    if name == RAW:
        yield f"{where}: name must not be {RAW}; got it. That one is built in."
    if not isinstance(classes, list) or len(set(map(str, classes))) < max(2, len(classes)):
        yield f"{where}.classes must be two or more different names; got {classes!r:.80}. Correct it."


def member_problems(table: Any, classes: Sequence[str], where: str) -> Iterator[str]:
    """Yield what is wrong with the form of a data set's classes in a grouping."""
    if not isinstance(table, dict):
        yield f"{where} must be a table; got {table!r:.80}. Correct it."
        return
    yield from unknown_keys(table, (*classes, "left_out"), where)
    for name, labels in table.items():
        yield from list_problems(labels, f"{where}.{name}")
