"""Who is in a manifest: clips of each class and subject, beside what is expected of a known data set."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from flowkit.checking.expected_counts import Comparison, compare
from flowkit.errors import ConfigError
from flowkit.inputs.clip import Clip
from flowkit.labels.class_maps import UNLABELLED
from flowkit.labels.groupings import dataset_name, default_grouping, grouping
from flowkit.labels.toml_form import fold


@dataclass(frozen=True, slots=True)
class Census:
    """Clips of each class and subject.

    Attributes
    ----------
    grouping : str
        What forms classes from labels.
    classes : dict of str to dict of str to int
        Data set, then class: clips; every class is named.
    left_out : dict of str to dict of str to int
        Data set, then label, folded: clips that the grouping leaves out by design.
    unlabelled : dict of str to int
        Data set: clips without a label.
    unknown : dict of str to dict of str to int
        Data set, then label, folded: clips with labels that the grouping does not know.
    why_unknown : tuple of str
        What it knows instead, in words.
    per_subject : dict of str to dict of str to int
        `dataset/subject`, then class: clips; those in no class count under "no class".
    expected : tuple of Comparison
        Each known data set beside the edition that it is nearest to.
    """

    grouping: str
    classes: dict[str, dict[str, int]]
    left_out: dict[str, dict[str, int]]
    unlabelled: dict[str, int]
    unknown: dict[str, dict[str, int]]
    why_unknown: tuple[str, ...]
    per_subject: dict[str, dict[str, int]]
    expected: tuple[Comparison, ...]


def take_census(clips: Sequence[Clip], classes: str | None = None) -> Census:
    """Count the clips of a manifest.

    Parameters
    ----------
    clips : sequence of Clip
    classes : str, optional
        A grouping of classes.toml; by default 3-class where it knows every data set, else each label is a class.

    Returns
    -------
    Census

    Raises
    ------
    ConfigError
        No grouping has that name.
    """
    rows = Counter((clip.dataset, clip.subject, _label(clip)) for clip in clips)
    labelled = {(dataset, label) for dataset, _, label in rows if label}
    groups = grouping(classes or default_grouping({dataset for dataset, *_ in rows})).over(labelled)
    placed: dict[tuple[str, str], str | None] = {}
    why_unknown = []
    for pair in sorted(labelled):
        try:
            placed[pair] = groups.of(*pair)
        except ConfigError as error:
            why_unknown.append(str(error))
    counts = {dataset: dict.fromkeys(groups.classes, 0) for dataset in sorted({dataset for dataset, *_ in rows})}
    left_out: dict[str, Counter[str]] = defaultdict(Counter)
    unknown: dict[str, Counter[str]] = defaultdict(Counter)
    per_subject: dict[str, Counter[str]] = defaultdict(Counter)
    unlabelled: Counter[str] = Counter()
    for (dataset, subject, label), number in sorted(rows.items()):
        name = placed.get((dataset, label))
        per_subject[f"{dataset_name(dataset)}/{subject}"][name or "no class"] += number
        if name is not None:
            counts[dataset][name] += number
        elif not label:
            unlabelled[dataset] += number
        else:
            (left_out if (dataset, label) in placed else unknown)[dataset][label] += number
    return Census(
        grouping=groups.name,
        classes=counts,
        left_out={dataset: dict(found) for dataset, found in left_out.items()},
        unlabelled=dict(unlabelled),
        unknown={dataset: dict(found) for dataset, found in unknown.items()},
        why_unknown=tuple(dict.fromkeys(why_unknown)),
        per_subject={subject: dict(found) for subject, found in per_subject.items()},
        expected=compare(clips),
    )


def _label(clip: Clip) -> str:
    """A clip's label, folded; empty for one that nobody gave."""
    label = fold(clip.label)
    return "" if label == UNLABELLED else label
