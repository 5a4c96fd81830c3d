"""How many clips of each kind a known data set holds, read from expected.toml, and why a manifest holds others.

The file is plain text to read and to correct. A manifest is held against the edition of its data set that it is nearest to;
what differs is explained where the file knows a reason that fits exactly. A data set that it does not know is no matter.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
import tomllib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any, Final

from flowkit.checking.own_expected import own_expectations
from flowkit.errors import ConfigError
from flowkit.inputs.clip import Clip
from flowkit.labels.class_maps import LEFT_OUT, UNLABELLED
from flowkit.labels.groupings import dataset_name, grouping, label_name
from flowkit.labels.own_sets import own_folders
from flowkit.labels.toml_form import fold

FILE: Final = "expected.toml"
CHECKED: Final = {
    "file": "counted in the file itself",
    "code": "read in a public program",
    "run": "computed from public files",
    "lit": "from the literature, not checked",
}
_FURTHER: Final = re.compile(r"[^/]+/[^/]+/[^/]+/[0-9]+")
"""Id of a clip with a number behind data set, subject and clip."""
MOST_REASONS: Final = 3
"""Known reasons that are tried together."""


@dataclass(frozen=True, slots=True)
class Edition:
    """What one edition of a data set, or of several together, holds.

    Attributes
    ----------
    name, about : str
    source : str
        Where the numbers come from.
    checked : {"file", "code", "run", "lit"}
        How far they can be trusted: a key of `CHECKED`.
    clips : int
    subjects : int or None
        None where it is not known.
    grouping : str
        Of classes.toml, where `counts` are of its classes; empty where they are of labels.
    counts : mapping of str to int
        Clips of each label or class; empty where they are not known.
    absent, present : tuple of str
        Ends of the names of clips that a copy of this edition has not, or has.
    """

    name: str
    about: str
    source: str
    checked: str
    clips: int
    subjects: int | None = None
    grouping: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)
    absent: tuple[str, ...] = ()
    present: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a copy of a data set may hold other clips than an edition.

    Attributes
    ----------
    edition : str
    change : mapping of str to int, or int
        Clips more (above 0) or fewer of each label or class; of all together where the labels are not known.
    absent, present : tuple of str
        Ends of the names of clips that must not, or must, be there.
    rows : int or None
        Most clips that have another label; None: any number.
    why, source, checked : str
    """

    edition: str
    change: Mapping[str, int] | int
    why: str
    source: str
    checked: str
    absent: tuple[str, ...] = ()
    present: tuple[str, ...] = ()
    rows: int | None = None

    @property
    def total(self) -> int:
        """Clips more or fewer."""
        return self.change if isinstance(self.change, int) else sum(self.change.values())


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a data set: its frame rates, editions and reasons, and what clips with a fourth part in their id are."""

    fps: tuple[float, ...]
    editions: tuple[Edition, ...]
    reasons: tuple[Reason, ...]
    further: str = ""

    def of(self, edition: str) -> list[Reason]:
        """The reasons that explain one edition."""
        return [reason for reason in self.reasons if reason.edition == edition]


@dataclass(frozen=True, slots=True)
class Composite:
    """Several data sets that are used as one, and what they hold together.

    `members` has the edition of each that counts, and others that copies may be nearer to.
    """

    members: Mapping[str, Sequence[str]]
    edition: Edition


@dataclass(frozen=True, slots=True)
class Comparison:
    """A manifest's data set beside the edition that it is nearest to.

    Attributes
    ----------
    dataset : str
        Its name in the manifest, or that of a composite.
    edition : Edition
    clips, subjects : int
        Found in the manifest.
    counts : dict of str to (int, int)
        Label or class: found, expected; in the order of the edition, then what it does not expect.
    explanations : tuple of str
        Why they differ; empty where they do not.
    further : str
        How many clips there are beside those that are counted, and what they are; empty for none.
    """

    dataset: str
    edition: Edition
    clips: int
    subjects: int
    counts: dict[str, tuple[int, int]]
    explanations: tuple[str, ...]
    further: str = ""


def expectations() -> tuple[dict[str, Known], tuple[Composite, ...]]:
    """Return every known data set by its name, those of one's own last, and the composites.

    Raises
    ------
    ConfigError
        expected.toml or the file of a data set of one's own is damaged.
    """
    known, composites = _bundled()
    own = _own(own_folders())
    return ({**known, **own} if own else known), composites


@cache
def _own(folders: str) -> dict[str, Known]:
    """What is known of the data sets in these folders."""
    return {name: _known(table) for name, table in own_expectations(CHECKED).items()}


@cache
def _bundled() -> tuple[dict[str, Known], tuple[Composite, ...]]:
    try:
        tables = tomllib.loads(resources.files("flowkit.checking").joinpath(FILE).read_text(encoding="utf-8"))
        return _parse(tables)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{FILE}: file must have the form that its head describes; got {error}. Correct it."
        ) from error


def frame_rates(dataset: str) -> tuple[float, ...]:
    """Frames per second that a data set was recorded with; empty where they are not known."""
    known = expectations()[0].get(dataset_name(dataset))
    return known.fps if known else ()


def compare(clips: Iterable[Clip]) -> tuple[Comparison, ...]:
    """Each known data set of a manifest, and a composite if it is all there, beside what is expected of it.

    Parameters
    ----------
    clips : iterable of Clip

    Returns
    -------
    tuple of Comparison
        Sorted by data set; nothing for data sets that are not known.

    Raises
    ------
    ConfigError
        expected.toml is damaged.
    """
    known, composites = expectations()
    by_dataset: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        by_dataset[clip.dataset].append(clip)
    named: dict[str, list[Clip]] = defaultdict(list)
    for written, members in by_dataset.items():
        named[dataset_name(written)] += members
    found = {
        name: _nearest(name, named[name], known[name])
        for name in sorted(set(named) & set(known))
        if known[name].editions
    }
    editions = {name: comparison.edition.name for name, comparison in found.items()}
    whole = [
        _compared(
            composite.edition.name,
            composite.edition,
            [clip for name in composite.members for clip in named[name]],
            [reason for name, (edition, *_) in composite.members.items() for reason in known[name].of(edition)],
        )
        for composite in composites
        if editions.keys() == composite.members.keys()
        and all(editions[name] in accepted for name, accepted in composite.members.items())
    ]
    return (*found.values(), *whole)


def _nearest(dataset: str, clips: Sequence[Clip], known: Known) -> Comparison:
    """Beside the edition with the nearest counts among those whose named clips agree."""
    counted = [clip for clip in clips if not (known.further and _FURTHER.fullmatch(clip.clip_id))]
    more = len(clips) - len(counted)
    fitting = [edition for edition in known.editions if _holds(edition, counted)] or known.editions
    found = [_compared(dataset, edition, counted, known.of(edition.name)) for edition in fitting]
    nearest = min(found, key=_distance)
    return dataclasses.replace(nearest, further=f"{more} {known.further}") if more else nearest


def _distance(comparison: Comparison) -> tuple[bool, int]:
    """How far a manifest is from an edition: by labels, or by clips alone where it has no label that the edition knows."""
    counts = comparison.counts.values()
    unknown = bool(comparison.edition.counts) and not any(is_ and should for is_, should in counts)
    apart = 0 if unknown else sum(abs(is_ - should) for is_, should in counts)
    return unknown, apart or abs(comparison.clips - comparison.edition.clips)


def _compared(dataset: str, edition: Edition, clips: Sequence[Clip], reasons: Sequence[Reason]) -> Comparison:
    found = _counts(edition, clips)
    names = dict.fromkeys([*edition.counts, *sorted(found)]) if edition.counts else {}
    counts = {name: (found[name], edition.counts.get(name, 0)) for name in names}
    subjects = len({(dataset_name(clip.dataset), clip.subject) for clip in clips})
    comparison = Comparison(dataset, edition, len(clips), subjects, counts, ())
    return dataclasses.replace(comparison, explanations=tuple(_explanations(comparison, clips, reasons)))


def _counts(edition: Edition, clips: Sequence[Clip]) -> Counter[str]:
    """Clips of each label or class, in the words of the edition; what its grouping leaves out under "left out"."""
    pairs = Counter((clip.dataset, clip.label) for clip in clips)
    counts: Counter[str] = Counter()
    for (dataset, label), number in pairs.items():
        counts[_word(edition, dataset, label)] += number
    return counts


def _word(edition: Edition, dataset: str, label: str) -> str:
    if fold(label) in ("", UNLABELLED):
        return "no label"
    if not edition.grouping:
        return label_name(dataset, label)
    try:
        return grouping(edition.grouping).of(dataset, label) or LEFT_OUT
    except ConfigError:
        return label_name(dataset, label)


def _explanations(comparison: Comparison, clips: Sequence[Clip], reasons: Sequence[Reason]) -> Iterator[str]:
    edition = comparison.edition
    change = {name: is_ - should for name, (is_, should) in comparison.counts.items() if is_ != should}
    total = comparison.clips - edition.clips
    if change or total:
        by_name = ", ".join(f"{name} {number:+d}" for name, number in change.items())
        what = f"{total:+d} clips" + (f" ({by_name})" if by_name else "")
        fitting = _fitting(change, total, [reason for reason in reasons if _holds(reason, clips)])
        if fitting:
            yield from (f"{what}: {r.why} ({r.source}; {CHECKED[r.checked]})." for r in fitting)
        else:
            yield f"{what}: no known reason fits."
    if edition.subjects is not None and comparison.subjects != edition.subjects:
        yield f"{comparison.subjects - edition.subjects:+d} subjects."


def _fitting(change: Mapping[str, int], total: int, reasons: Sequence[Reason]) -> Sequence[Reason]:
    """The fewest reasons that together make exactly this difference; of several, those that name labels."""
    together = itertools.chain.from_iterable(
        itertools.combinations(reasons, number) for number in range(1, MOST_REASONS + 1)
    )
    by_total: Sequence[Reason] = ()
    for some in together:
        summed: Counter[str] = Counter()
        for reason in some:
            if isinstance(reason.change, Mapping):
                summed.update(reason.change)
        if all(isinstance(reason.change, Mapping) for reason in some):
            if {name: number for name, number in summed.items() if number} == change:
                return some
        elif not by_total and _explain_total(some, change, total):
            by_total = some
    return by_total


def _explain_total(some: Sequence[Reason], change: Mapping[str, int], total: int) -> bool:
    """Whether reasons that name no labels make a difference in number, and do not move more clips than they say."""
    if any(isinstance(reason.change, Mapping) for reason in some) or sum(reason.total for reason in some) != total:
        return False
    moved = sum(map(abs, change.values())) / 2
    return all(reason.rows is None or moved <= reason.rows for reason in some)


def _holds(named: Reason | Edition, clips: Sequence[Clip]) -> bool:
    """Whether the clips that a reason or an edition names are, or are not, there."""
    there = _there({*named.absent, *named.present}, clips)
    return there == set(named.present)


def _there(names: Collection[str], clips: Sequence[Clip]) -> set[str]:
    """Which of these names are the end of some clip's id or path, however it is punctuated and padded."""
    ends = {_bare(name): name for name in names}
    if not ends:
        return set()
    texts = {_bare(text) for clip in clips for text in (clip.clip_id, clip.path)}
    return {name for end, name in ends.items() if any(text.endswith(end) for text in texts)}


def _bare(name: str) -> str:
    """Letters and digits in lower case, numbers without leading zeros: `s1/s01_ne_02` and `s01/s1_ne_2` are the same."""
    return "".join(re.findall("[a-z]+|[1-9][0-9]*", name.casefold()))


def _parse(tables: Mapping[str, Any]) -> tuple[dict[str, Known], tuple[Composite, ...]]:
    known = {name: _known(table) for name, table in tables["datasets"].items()}
    composites = tuple(
        Composite(table["members"], _edition({"name": name, **table})) for name, table in tables["composites"].items()
    )
    return known, composites


def _known(table: Mapping[str, Any]) -> Known:
    return Known(
        fps=tuple(table.get("fps", ())),
        editions=tuple(_edition(entry) for entry in table.get("editions", ())),
        reasons=tuple(_reason(entry) for entry in table.get("reasons", ())),
        further=table.get("further", ""),
    )


def _edition(entry: Mapping[str, Any]) -> Edition:
    return Edition(
        counts=entry.get("labels", entry.get("classes", {})),
        absent=tuple(entry.get("absent", ())),
        present=tuple(entry.get("present", ())),
        **{name: entry[name] for name in ("name", "about", "source", "checked", "clips")},
        **{name: entry[name] for name in ("subjects", "grouping") if name in entry},
    )


def _reason(entry: Mapping[str, Any]) -> Reason:
    return Reason(
        rows=entry.get("rows"),
        absent=tuple(entry.get("absent", ())),
        present=tuple(entry.get("present", ())),
        **{name: entry[name] for name in ("edition", "change", "why", "source", "checked")},
    )
