"""What data sets of one's own should hold: the table [expected] of each NAME.toml, in the form of expected.toml, checked."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from flowkit.errors import ConfigError
from flowkit.labels.class_maps import LEFT_OUT
from flowkit.labels.groupings import grouping
from flowkit.labels.own_sets import OwnSet, own_sets
from flowkit.labels.toml_form import (
    COUNT,
    COUNTS,
    LIST,
    NUMBERS,
    TABLE_LIST,
    TEXT,
    Kind,
    enumerated,
    fold,
    near,
    refuse,
    unknown_keys,
    value_problems,
)

_KINDS: Final = {
    **{"fps": NUMBERS, "fps_source": TEXT, "fps_checked": TEXT, "editions": TABLE_LIST, "reasons": TABLE_LIST},
    "further": TEXT,
}
_NAMED: Final = {"source": TEXT, "checked": TEXT}
_EDITION: Final[Mapping[str, Kind]] = {
    **{
        "name": TEXT,
        "about": TEXT,
        "clips": COUNT,
        "subjects": COUNT,
        "labels": COUNTS,
        "grouping": TEXT,
        "classes": COUNTS,
        "absent": LIST,
        "present": LIST,
    },
    **_NAMED,
}
_IN_EDITION: Final = ("name", "about", "clips", *_NAMED)
_REASON: Final[Mapping[str, Kind]] = {"edition": TEXT, "why": TEXT, **_NAMED, "absent": LIST, "present": LIST}
_IN_REASON: Final = ("edition", "why", *_NAMED)


def own_expectations(checked: Collection[str]) -> dict[str, dict[str, Any]]:
    """Return the tables that say what data sets of one's own should hold, by data set.

    Parameters
    ----------
    checked : collection of str
        What the key `checked` may say.

    Returns
    -------
    dict of str to dict
        As [datasets.NAME] of expected.toml, with folded labels.

    Raises
    ------
    ConfigError
        A file contradicts itself; every problem is listed.
    """
    found, problems = {}, []
    for own in own_sets().values():
        if table := own.table("expected"):
            new = list(_problems(own, table, checked))
            problems += new
            found[own.name] = {} if new else _folded(table)
    refuse(problems)
    return found


def _problems(own: OwnSet, table: Mapping[str, Any], checked: Collection[str]) -> Iterator[str]:
    where = f"{own.file}: expected"
    yield from unknown_keys(table, tuple(_KINDS), where)
    problems = list(value_problems(table, _KINDS, (), where))
    yield from problems
    if problems:
        return
    editions = {str(edition.get("name")): edition for edition in table.get("editions", ())}
    if len(editions) < len(table.get("editions", ())):
        yield f"{where}.editions: each must have a name of its own; got {enumerated(editions)}. Correct it."
    for number, edition in enumerate(table.get("editions", ()), start=1):
        yield from _edition_problems(own, edition, checked, f"{where}.editions, number {number}")
    for number, reason in enumerate(table.get("reasons", ()), start=1):
        yield from _reason_problems(reason, editions, checked, f"{where}.reasons, number {number}")


def _edition_problems(own: OwnSet, edition: Mapping[str, Any], checked: Collection[str], where: str) -> Iterator[str]:
    yield from unknown_keys(edition, tuple(_EDITION), where)
    problems = list(value_problems(edition, _EDITION, _IN_EDITION, where))
    yield from problems or _one_of(edition["checked"], checked, f"{where}: checked")
    if problems:
        return
    if ("classes" in edition) != ("grouping" in edition) or ("classes" in edition and "labels" in edition):
        yield f"{where}: edition must have labels, or grouping and classes; got {enumerated(edition)}. Correct it."
        return
    counts = edition.get("labels", edition.get("classes"))
    if counts is None:
        return
    words = [*map(fold, own.table("labels").get("labels", ()))]
    if "grouping" in edition:
        try:
            words = [*grouping(edition["grouping"]).classes, LEFT_OUT]
        except ConfigError as error:
            yield f"{where}: {error}"
            return
    for word in counts:
        yield from _one_of(word if "grouping" in edition else fold(word), words, f"{where}: label or class")
    if sum(counts.values()) != edition["clips"]:
        yield f"{where}: clips must be the sum of its counts, {sum(counts.values())}; got {edition['clips']}. Correct one."


def _reason_problems(
    reason: Mapping[str, Any], editions: Mapping[str, Any], checked: Collection[str], where: str
) -> Iterator[str]:
    yield from unknown_keys(reason, (*_REASON, "change"), where)
    problems = list(value_problems(reason, _REASON, _IN_REASON, where))
    yield from problems
    if problems:
        return
    yield from _one_of(reason["edition"], editions, f"{where}: edition")
    yield from _one_of(reason["checked"], checked, f"{where}: checked")
    change = reason.get("change")
    numbers = [*change.values()] if isinstance(change, dict) and change else [change]
    if not all(isinstance(number, int) and not isinstance(number, bool) for number in numbers):
        yield f"{where}: change must be a whole number, or a table of such; got {change!r:.80}. Correct it."


def _one_of(value: str, allowed: Collection[str], where: str) -> Iterator[str]:
    if value not in allowed:
        yield f"{where} must be one of {enumerated(allowed)}; got {value!r}.{near(value, allowed)} Correct it."


def _folded(table: Mapping[str, Any]) -> dict[str, Any]:
    """The same with labels as they are counted: folded; the names of classes stay."""
    of_classes = {edition["name"] for edition in table.get("editions", ()) if "classes" in edition}
    return {
        **table,
        "editions": [_with_folded(edition, "labels") for edition in table.get("editions", ())],
        "reasons": [
            reason if reason["edition"] in of_classes else _with_folded(reason, "change")
            for reason in table.get("reasons", ())
        ],
    }


def _with_folded(entry: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    counts = entry.get(key)
    return {**entry, key: {fold(label): n for label, n in counts.items()}} if isinstance(counts, dict) else entry
