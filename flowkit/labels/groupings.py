"""Which raw labels form which classes: groupings by name, read from classes.toml, a plain file to read and to correct.

Shards keep the data set's own label; a grouping decides at training time what it means. `raw`, built in, makes every label a
class of its own. Needs neither NumPy nor torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from flowkit.errors import ConfigError
from flowkit.labels.class_maps import FILE, RAW, Grouping
from flowkit.labels.classes_file import bundled_tables, parse
from flowkit.labels.own_sets import own_folders, with_own_sets
from flowkit.labels.toml_form import enumerated, fold, near, read_toml, refuse

__all__ = ["RAW", "Grouping", "Preview", "dataset_name", "default_grouping", "grouping", "label_name", "preview"]


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
    unknown : dict of str to dict of str to int
        Data set, then raw label (folded): clips of which the grouping knows nothing.
    """

    classes: tuple[str, ...]
    counts: dict[str, dict[str, int]]
    left_out: dict[str, dict[str, int]]
    unknown: dict[str, dict[str, int]]

    @property
    def absent(self) -> tuple[str, ...]:
        """Classes that no clip of any data set has."""
        return tuple(name for name in self.classes if not any(count[name] for count in self.counts.values()))


def grouping(name: str, file: str | Path | None = None) -> Grouping:
    """Return the grouping of a name.

    Parameters
    ----------
    name : str
        One of classes.toml, of a data set of one's own (`own_sets`), or `raw`.
    file : str or Path, optional
        Another file in the form of classes.toml, in place of both.

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
            f"classes: grouping must be one of {enumerated(known)}, {RAW}; got {name!r}.{near(fold(name), known)} Correct it."
        )
    return known[name]


def default_grouping(datasets: Iterable[str]) -> str:
    """`3-class` where it knows every one of these data sets, else `raw`."""
    three = grouping("3-class")
    return three.name if all(three.name_of(name) in three.datasets for name in datasets) else RAW


def dataset_name(name: str) -> str:
    """One name for a data set however it is written: "CASME II" and "casme2" are the same people.

    Parameters
    ----------
    name : str
        A name that is not known stays, in lower case and without blanks at the ends.

    Examples
    --------
    >>> dataset_name("CASME II")
    'casme2'
    """
    return grouping("3-class").name_of(name)


def label_name(dataset: str, label: str) -> str:
    """One name for a label however it is written: of CASME II, "Other" and "others" are the same.

    Parameters
    ----------
    dataset : str
    label : str
        One that is not known stays, in lower case and without blanks at the ends.

    Examples
    --------
    >>> label_name("MMEW", "Repression")
    'others'
    """
    name, folded = dataset_name(dataset), fold(label)
    for groups in _load(None).values():  # the first is 3-class; a data set of one's own may have no place in it
        if name in groups.datasets:
            return groups.datasets[name].spellings.get(folded, folded)
    return folded


def preview(groups: Grouping, clips: Iterable[tuple[str, str]], *, lenient: bool = False) -> Preview:
    """Clips of each class and data set, and what is left out.

    Parameters
    ----------
    groups : Grouping
    clips : iterable of (str, str)
        Data set and label of each clip.
    lenient : bool
        Whether what the grouping does not know is counted instead of refused.

    Raises
    ------
    ConfigError
        Listing every label and data set that the grouping does not know.
    """
    pairs = Counter(clips)
    groups = groups.over((dataset, label) for dataset, label in pairs if label.strip() or not lenient)
    counts: dict[str, dict[str, int]] = {}
    left_out: dict[str, dict[str, int]] = {}
    unknown: dict[str, dict[str, int]] = {}
    problems: list[str] = []
    for (dataset, label), number in sorted(pairs.items()):
        try:
            name = groups.of(dataset, label)
        except ConfigError as error:
            problems.append(str(error))
            of_set = unknown.setdefault(dataset, {})
            of_set[fold(label)] = of_set.get(fold(label), 0) + number
            continue
        count = counts.setdefault(dataset, dict.fromkeys(groups.classes, 0))
        if name is None:
            left = left_out.setdefault(dataset, {})
            left[fold(label)] = left.get(fold(label), 0) + number
        else:
            count[name] += number
    if not lenient:
        refuse(list(dict.fromkeys(problems)))  # a data set that is not known is no news at each of its labels
    return Preview(groups.classes, counts, left_out, unknown)


def _load(file: str | Path | None) -> dict[str, Grouping]:
    return _known(own_folders()) if file is None else parse(read_toml(Path(file), "classes"), str(file))


@cache
def _known(folders: str) -> dict[str, Grouping]:
    """Every bundled grouping, with the data sets of these folders."""
    return with_own_sets(parse(bundled_tables(), FILE))
