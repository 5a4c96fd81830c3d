"""Which raw labels form which classes: groupings by name, read from classes.toml, a plain file to read and to mend.

Shards keep the data set's own label; a grouping decides at training time what it means. `raw`, built in, makes every label a
class of its own. Needs neither NumPy nor torch.
"""

from __future__ import annotations

import difflib
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Final

from flowkit.errors import ConfigError
from flowkit.storage.safe_files import read_regular

__all__ = [
    "RAW",
    "Grouping",
    "Preview",
    "dataset_name",
    "default_grouping",
    "grouping",
    "groupings",
    "label_name",
    "preview",
]

RAW: Final = "raw"
FILE: Final = "classes.toml"
MAX_LISTED: Final = 20
MAX_CLASSES_BYTES: Final = 1 << 20
"""Problems printed before the rest is only counted."""
_TABLE_KEYS: Final = ("spellings", "datasets", "groupings")
_DATASET_KEYS: Final = ("also", "labels", "spellings", "joint")
_GROUPING_KEYS: Final = ("about", "classes", "labels")


@dataclass(frozen=True, slots=True)
class LabelMap:
    """What a grouping makes of the labels of one data set.

    Attributes
    ----------
    classes : mapping of str to (str or None)
        Folded label to class, None where it is left out by design.
    spellings : mapping of str to str
        Folded label to the folded label that is meant.
    joint : str
        Sign between the labels of a joint emotion; empty where there are none.
    """

    classes: Mapping[str, str | None]
    spellings: Mapping[str, str]
    joint: str = ""

    def find(self, label: str) -> str | None:
        """Class of a folded label.

        Raises
        ------
        KeyError
        """
        if self.joint and self.joint in label:
            for part in label.split(self.joint):
                self.find(part.strip())
            return None
        return self.classes[self.spellings.get(label, label)]


@dataclass(frozen=True, slots=True)
class Grouping:
    """A named way to form classes from labels.

    Attributes
    ----------
    name : str
    classes : tuple of str
        In the order of their numbers. Empty for `raw` until `over` has seen the labels.
    about : str
        One sentence.
    datasets : mapping of str to LabelMap
        By the data set's name.
    names : mapping of str to str
        Every other name of a data set, folded, to its name.
    """

    name: str
    classes: tuple[str, ...]
    about: str = ""
    datasets: Mapping[str, LabelMap] = field(default_factory=dict, repr=False)
    names: Mapping[str, str] = field(default_factory=dict, repr=False)

    def of(self, dataset: str, label: str) -> str | None:
        """Class of a label, or None where the grouping leaves it out by design.

        Parameters
        ----------
        dataset : str
            Name of the data set; capitals and blanks at the ends do not count.
        label : str
            Raw label; likewise.

        Raises
        ------
        ConfigError
            The grouping does not know the data set, or the data set does not know the label.

        Examples
        --------
        >>> grouping("3-class").of("casme2", "Repression")
        'negative'
        """
        folded = _fold(label)
        if self.name == RAW:
            return self._raw(dataset, folded)
        labels = self.datasets.get(self._dataset(dataset))
        if labels is None:
            raise ConfigError(
                f"classes {self.name}: data set must be one of {_listed(self.datasets)}; got {dataset!r}."
                f"{_near(_fold(dataset), {**self.names, **dict.fromkeys(self.datasets)})} Choose another grouping (raw takes any "
                f"data set), or add it to {FILE}."
            )
        try:
            return labels.find(folded)
        except KeyError:
            raise ConfigError(
                f"classes {self.name}: label of {self._dataset(dataset)} must be one of {_listed(labels.classes)}; got "
                f"{label!r}.{_near(folded, {**labels.spellings, **labels.classes})} Correct the manifest, or add it to {FILE}."
            ) from None

    def over(self, clips: Iterable[tuple[str, str]]) -> Grouping:
        """The same grouping with its classes known: of `raw`, the labels found, in sorted order; any other as it is.

        Parameters
        ----------
        clips : iterable of (str, str)
            Data set and label of each clip.

        Raises
        ------
        ConfigError
        """
        if self.name != RAW or self.classes:
            return self
        found = {self._raw(dataset, _fold(label)) for dataset, label in clips}
        return Grouping(RAW, tuple(sorted(found)), self.about)

    def _raw(self, dataset: str, folded: str) -> str:
        if not folded or (self.classes and folded not in self.classes):
            expected = f"one of {_listed(self.classes)}" if self.classes else "a word"
            raise ConfigError(
                f"classes {RAW}: label of {dataset} must be {expected}; got {folded!r}.{_near(folded, self.classes)} "
                "Correct the manifest."
            )
        return folded

    def _dataset(self, dataset: str) -> str:
        folded = _fold(dataset)
        return self.names.get(folded, folded)


@dataclass(frozen=True, slots=True)
class Preview:
    """How many clips each class gets, before anything is computed.

    Attributes
    ----------
    classes : tuple of str
    counts : dict of str to dict of str to int
        Data set, then class; every class is named, with 0 where a data set has none.
    left_out : dict of str to dict of str to int
        Data set, then raw label (folded): clips that the grouping excludes by design.
    """

    classes: tuple[str, ...]
    counts: dict[str, dict[str, int]]
    left_out: dict[str, dict[str, int]]

    @property
    def absent(self) -> tuple[str, ...]:
        """Classes that no clip of any data set has."""
        return tuple(name for name in self.classes if not any(count[name] for count in self.counts.values()))


def groupings(file: str | Path | None = None) -> tuple[str, ...]:
    """Names of all groupings, `raw` last.

    Parameters
    ----------
    file : str or Path, optional
        Another file in the form of classes.toml.

    Raises
    ------
    ConfigError
        The file is damaged or contradicts itself; every problem is listed.
    """
    return (*_load(file), RAW)


def grouping(name: str, file: str | Path | None = None) -> Grouping:
    """The grouping of a name; see `groupings`.

    Raises
    ------
    ConfigError
        No grouping has that name, or the file cannot be used.
    """
    if name == RAW:
        return Grouping(RAW, (), "Every label a class of its own, in sorted order")
    known = _load(file)
    if name not in known:
        raise ConfigError(
            f"classes: grouping must be one of {_listed(known)}, {RAW}; got {name!r}.{_near(_fold(name), known)} Correct it."
        )
    return known[name]


def default_grouping(datasets: Iterable[str]) -> str:
    """`3-class` where it knows every one of these data sets, else `raw`."""
    three = grouping("3-class")
    return three.name if all(three._dataset(name) in three.datasets for name in datasets) else RAW


def dataset_name(name: str) -> str:
    """One name for a data set however it is written: "CASME II" and "casme2" are the same people.

    Parameters
    ----------
    name : str
        A name that classes.toml does not know stays, in lower case and without blanks at the ends.

    Examples
    --------
    >>> dataset_name("CASME II")
    'casme2'
    """
    return grouping("3-class")._dataset(name)


def label_name(dataset: str, label: str) -> str:
    """One name for a label however it is written: of CASME II, "Other" and "others" are the same.

    Parameters
    ----------
    dataset : str
    label : str
        One that classes.toml does not know stays, in lower case and without blanks at the ends.

    Examples
    --------
    >>> label_name("MMEW", "Repression")
    'others'
    """
    known, folded = grouping("3-class").datasets.get(dataset_name(dataset)), _fold(label)
    return known.spellings.get(folded, folded) if known else folded


def preview(groups: Grouping, clips: Iterable[tuple[str, str]]) -> Preview:
    """Clips of each class and data set, and what is left out.

    Parameters
    ----------
    groups : Grouping
    clips : iterable of (str, str)
        Data set and label of each clip.

    Raises
    ------
    ConfigError
        Listing every label and data set that the grouping does not know.
    """
    pairs = Counter(clips)
    groups = groups.over(pairs)
    counts: dict[str, dict[str, int]] = {}
    left_out: dict[str, dict[str, int]] = {}
    problems: list[str] = []
    for (dataset, label), number in sorted(pairs.items()):
        try:
            name = groups.of(dataset, label)
        except ConfigError as error:
            problems.append(str(error))
            continue
        count = counts.setdefault(dataset, dict.fromkeys(groups.classes, 0))
        if name is None:
            left = left_out.setdefault(dataset, {})
            left[_fold(label)] = left.get(_fold(label), 0) + number
        else:
            count[name] += number
    _refuse(list(dict.fromkeys(problems)))  # a data set that is not known is no news at each of its labels
    return Preview(groups.classes, counts, left_out)


def _load(file: str | Path | None) -> dict[str, Grouping]:
    return _bundled() if file is None else _parse(_read(Path(file)), str(file))


@cache
def _bundled() -> dict[str, Grouping]:
    return _parse(tomllib.loads(resources.files("flowkit.labels").joinpath(FILE).read_text(encoding="utf-8")), FILE)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(read_regular(path, MAX_CLASSES_BYTES).decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # the last: brackets without end
        raise ConfigError(f"{path}: classes must be a readable TOML file; got {error}. Correct it.") from error


def _parse(tables: Mapping[str, Any], where: str) -> dict[str, Grouping]:
    """Every grouping of a file, checked as a whole."""
    problems = list(_form_problems(tables, where))
    _refuse(problems)
    names = {_fold(also): name for name, table in tables["datasets"].items() for also in table.get("also", ())}
    clashes = sorted(set(names) & {_fold(name) for name in tables["datasets"]})
    problems += [f"{where}: also must hold new names; got {name!r}, a data set. Correct it." for name in clashes]
    found: dict[str, Grouping] = {}
    for name, table in tables["groupings"].items():
        maps = {
            dataset: _label_map(tables, name, dataset, f"{where}: {name}.{dataset}", problems)
            for dataset in table
            if dataset not in _GROUPING_KEYS
        }
        found[name] = Grouping(name, tuple(table["classes"]), table.get("about", ""), maps, names)
    _refuse(problems)
    return found


def _label_map(tables: Mapping[str, Any], name: str, dataset: str, where: str, problems: list[str]) -> LabelMap:
    """What a grouping makes of one data set; a label placed twice or nowhere is a problem."""
    table, own = tables["groupings"][name], tables["datasets"][dataset]
    placed: dict[str, str | None] = {_fold(cls): cls for cls in table["classes"]}
    known = {_fold(label) for label in table.get("labels", own["labels"])}
    for cls, labels in table[dataset].items():
        for label in map(_fold, labels):
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
    folded = {_fold(found): _fold(meant) for found, meant in spellings.items()}
    return LabelMap(placed, {a: b for a, b in folded.items() if b in placed and a not in placed}, own.get("joint", ""))


def _form_problems(tables: Mapping[str, Any], where: str) -> Iterator[str]:
    """Whatever has not the form that the head of classes.toml describes."""
    yield from _unknown(tables, _TABLE_KEYS, where)
    for key in ("datasets", "groupings"):
        if not isinstance(tables.get(key), dict) or not all(isinstance(table, dict) for table in tables[key].values()):
            yield f"{where}: {key} must be a table of tables; got {tables.get(key)!r:.80}. Correct it."
            return
    yield from _word_problems(tables.get("spellings", {}), f"{where}: spellings")
    for name, table in tables["datasets"].items():
        yield from _unknown(table, _DATASET_KEYS, f"{where}: datasets.{name}")
        yield from _list_problems(table.get("labels"), f"{where}: datasets.{name}.labels")
        yield from _list_problems(table.get("also", []), f"{where}: datasets.{name}.also")
        yield from _word_problems(table.get("spellings", {}), f"{where}: datasets.{name}.spellings")
        if not isinstance(table.get("joint", ""), str):
            yield f"{where}: datasets.{name}.joint must be a text; got {table['joint']!r:.80}. Correct it."
    for name, table in tables["groupings"].items():
        yield from _grouping_problems(table, tables["datasets"], f"{where}: groupings.{name}")


def _grouping_problems(table: Mapping[str, Any], datasets: Mapping[str, Any], where: str) -> Iterator[str]:
    yield from _unknown(table, (*_GROUPING_KEYS, *datasets), where)
    classes = table.get("classes")
    yield from _list_problems(classes, f"{where}.classes")
    yield from _list_problems(table.get("labels", []), f"{where}.labels")
    if where.endswith(f".{RAW}"):
        yield f"{where}: name must not be {RAW}; got it. That one is built in."
    if not isinstance(classes, list) or len(set(map(str, classes))) < max(2, len(classes)):
        yield f"{where}.classes must be two or more different names; got {classes!r:.80}. Correct it."
        return
    for dataset in set(table) & set(datasets):
        if not isinstance(table[dataset], dict):
            yield f"{where}.{dataset} must be a table; got {table[dataset]!r:.80}. Correct it."
            continue
        yield from _unknown(table[dataset], (*classes, "left_out"), f"{where}.{dataset}")
        for name, labels in table[dataset].items():
            yield from _list_problems(labels, f"{where}.{dataset}.{name}")


def _unknown(table: Mapping[str, Any], allowed: Sequence[str], where: str) -> Iterator[str]:
    for key in table:
        if key not in allowed:
            yield f"{where}: key must be one of {_listed(allowed)}; got {key!r}.{_near(key, allowed)} Correct it."


def _list_problems(value: object, where: str) -> Iterator[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) and item.strip() for item in value):
        yield f"{where} must be a list of words; got {value!r:.80}. Correct it."


def _word_problems(value: object, where: str) -> Iterator[str]:
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        yield f"{where} must be a table of words; got {value!r:.80}. Correct it."


def _refuse(problems: Sequence[str]) -> None:
    if problems:
        more = [f"... and {len(problems) - MAX_LISTED} more."] if len(problems) > MAX_LISTED else []
        raise ConfigError("\n".join([*problems[:MAX_LISTED], *more]))


def _fold(text: str) -> str:
    return text.strip().casefold()


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "nothing"


def _near(name: str, known: Iterable[str]) -> str:
    """A question about what may have been meant, with a blank before it; empty where nothing is near."""
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    return f" Did you mean {' or '.join(near)}?" if near else ""
