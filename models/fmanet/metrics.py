"""Scores of a table of predictions: UF1, UAR and accuracy from one pooled confusion matrix, with intervals over subjects.

    F1_c = 2 TP_c / (2 TP_c + FP_c + FN_c);  UF1 = mean over classes;  UAR = mean of TP_c / N_c;  ACC = share correct

(MEGC2019.) A class absent from the truth is never dropped from a mean: it raises, or, where a table of a part is asked for,
leaves UF1 and UAR undefined (NaN) and is named. Intervals come from subjects drawn with replacement, because
clips of one person are no independent evidence. Where rows hold several seeds, each draw takes the mean over the seeds.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from flowkit.errors import ConfigError
from fmanet.errors import IntervalUndefined
from fmanet.prediction_table import SEED_AVERAGE, Prediction

__all__ = [
    "ClassScore",
    "Difference",
    "Interval",
    "Intervals",
    "Scores",
    "Spread",
    "SubjectScore",
    "by_dataset",
    "by_seed",
    "by_subject",
    "paired_difference",
    "score",
    "score_rows",
    "seed_average",
    "spread",
    "subject_interval",
]

Metric = Literal["uf1", "uar", "acc"]
METRICS: Final[tuple[Metric, ...]] = ("uf1", "uar", "acc")
DRAWS_TOGETHER: Final = 500
"""Draws whose matrices are in memory at once: about 3 MB a seed with 8 classes."""
LEAST_KEPT: Final = 0.1
"""Share of the draws that must hold every class: bounds over a few lucky draws would say nothing of the rest."""
MAX_LISTED: Final = 10

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ClassScore:
    """One class: recall and F1 are NaN where the truth has none of it, precision where nothing was predicted as it."""

    name: str
    f1: float
    recall: float
    precision: float
    support: int


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """Scores of one pooled confusion matrix.

    Attributes
    ----------
    classes : tuple of str
    matrix : (C, C) int64
        Clips by [truth, prediction].
    uf1, uar, acc : float
        From 0 to 1; uf1 and uar are NaN, for undefined, where a class is absent.
    per_class : tuple of ClassScore
    absent : tuple of str
        Classes that the truth has none of.
    """

    classes: tuple[str, ...]
    matrix: Ints
    uf1: float
    uar: float
    acc: float
    per_class: tuple[ClassScore, ...]
    absent: tuple[str, ...] = ()

    @property
    def clips(self) -> int:
        """Number of predictions."""
        return int(self.matrix.sum())

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; None where a score is undefined."""
        per_class = {
            one.name: {
                "f1": _defined(one.f1),
                "recall": _defined(one.recall),
                "precision": _defined(one.precision),
                "support": one.support,
            }
            for one in self.per_class
        }
        return {
            "classes": list(self.classes),
            "matrix": self.matrix.tolist(),
            **{name: _defined(getattr(self, name)) for name in METRICS},
            "per_class": per_class,
            "absent": list(self.absent),
        }


@dataclass(frozen=True, slots=True)
class SubjectScore:
    """One held-out subject, all seeds together."""

    subject: str
    predictions: int
    correct: int

    @property
    def acc(self) -> float:
        """Share correct."""
        return self.correct / self.predictions


class Spread(NamedTuple):
    """Of a score over seeds; `std` divides by n - 1 and is NaN for one seed."""

    mean: float
    std: float
    low: float
    high: float
    seeds: int


class Interval(NamedTuple):
    """Percentile interval of a score: its value on the real subjects, and the bounds over the draws."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Intervals:
    """Bootstrap intervals over subjects.

    Attributes
    ----------
    uf1, uar, acc : Interval
    level : float
    draws : int
        That count.
    skipped : int
        Draws of subjects that have no clip of some class: their UF1 is undefined, so they count nowhere.
    subjects, seeds : int
    """

    uf1: Interval
    uar: Interval
    acc: Interval
    level: float
    draws: int
    skipped: int
    subjects: int
    seeds: int


@dataclass(frozen=True, slots=True)
class Difference:
    """How much better a is than b, over the same draws of subjects.

    Attributes
    ----------
    metric : {"uf1", "uar", "acc"}
    value : float
        a minus b on the real subjects, each averaged over its seeds.
    mean : float
        Of the draws.
    low, high : float
        Percentile interval.
    share_not_above : float
        Share of draws with a difference of 0 or less: small where a is better for almost any choice of subjects.
    level : float
    draws, skipped, subjects : int
        As in `Intervals`.
    """

    metric: Metric
    value: float
    mean: float
    low: float
    high: float
    share_not_above: float
    level: float
    draws: int
    skipped: int
    subjects: int


def score(
    truth: Sequence[str | int],
    prediction: Sequence[str | int],
    classes: Sequence[str],
    *,
    absent: Literal["raise", "report"] = "raise",
) -> Scores:
    """Scores of predictions.

    Parameters
    ----------
    truth, prediction : sequence of str or int
        Of the same length: classes by name, or by number.
    classes : sequence of str
        All classes, whether they occur or not.
    absent : {"raise", "report"}
        What to do about a class that the truth has none of: "report" leaves UF1 and UAR undefined and names it.

    Raises
    ------
    ConfigError
        No clip, different lengths, an unknown class, or a class absent from the truth.

    Examples
    --------
    >>> score(["a", "a", "b"], ["a", "b", "b"], ["a", "b"]).uar
    0.75
    """
    if len(truth) != len(prediction) or not len(truth):
        raise ConfigError(
            f"score: truth and prediction must be of one length, 1 or more; got {len(truth)} and {len(prediction)}. Give one "
            "of each a clip."
        )
    if len(set(classes)) < max(2, len(classes)):
        raise ConfigError(f"score: classes must be two or more different names; got {list(classes)}. Correct them.")
    matrix = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(matrix, (_numbers(truth, classes, "truth"), _numbers(prediction, classes, "prediction")), 1)
    return _scores(matrix, tuple(classes), absent)


def score_rows(
    rows: Sequence[Prediction], classes: Sequence[str], *, absent: Literal["raise", "report"] = "raise"
) -> Scores:
    """Pooled scores of the rows of one seed.

    Raises
    ------
    ConfigError
        As `score`; or the rows hold several seeds, which are scored one by one or averaged, never pooled.
    """
    seeds = sorted({row.seed for row in rows})
    if len(seeds) > 1:
        raise ConfigError(
            f"score: rows must be of one seed; got {_listed(seeds)}. Score each (by_seed), or average them (seed_average)."
        )
    return score([row.truth for row in rows], [row.prediction for row in rows], classes, absent=absent)


def by_seed(
    rows: Sequence[Prediction], classes: Sequence[str], *, absent: Literal["raise", "report"] = "raise"
) -> dict[int, Scores]:
    """Pooled scores of each seed, in order.

    Raises
    ------
    ConfigError
    """
    parts: dict[int, list[Prediction]] = defaultdict(list)
    for row in rows:
        parts[row.seed].append(row)
    return {seed: score_rows(parts[seed], classes, absent=absent) for seed in sorted(parts)}


def by_dataset(rows: Sequence[Prediction], classes: Sequence[str]) -> dict[str, dict[int, Scores]]:
    """Scores of each source set and seed: the same predictions, filtered.

    A set that lacks a class has no UF1 and no UAR; `Scores.absent` names the class.

    Raises
    ------
    ConfigError
    """
    parts: dict[str, list[Prediction]] = defaultdict(list)
    for row in rows:
        parts[row.dataset].append(row)
    return {name: by_seed(parts[name], classes, absent="report") for name in sorted(parts)}


def by_subject(rows: Sequence[Prediction]) -> tuple[SubjectScore, ...]:
    """What each held-out subject got, in sorted order. Means of these are no score of the field: classes differ by subject."""
    found: dict[str, list[bool]] = defaultdict(list)
    for row in rows:
        found[row.subject].append(row.truth == row.prediction)
    return tuple(SubjectScore(name, len(found[name]), sum(found[name])) for name in sorted(found))


def spread(scores: Mapping[int, Scores], metric: Metric = "uf1") -> Spread:
    """Mean and spread of a score over seeds; see `by_seed`."""
    values = np.array([getattr(one, metric) for one in scores.values()])
    std = float(values.std(ddof=1)) if len(values) > 1 else math.nan
    return Spread(float(values.mean()), std, float(values.min()), float(values.max()), len(values))


def seed_average(rows: Sequence[Prediction], classes: Sequence[str]) -> list[Prediction]:
    """One row a clip: probabilities averaged over the seeds, then the most probable class (the first of equals).

    Parameters
    ----------
    rows : sequence of Prediction
        Every seed of the same clips.
    classes : sequence of str
        Order of the probabilities.

    Raises
    ------
    ConfigError
        The seeds hold different clips, or a clip has different folds or truths.
    """
    averaged = []
    for clip in _by_clip(rows).values():
        mean = np.mean([row.probabilities for row in clip], axis=0)
        best = classes[int(mean.argmax())]
        averaged.append(replace(clip[0], seed=SEED_AVERAGE, prediction=best, probabilities=tuple(mean.tolist())))
    return averaged


def subject_interval(
    rows: Sequence[Prediction], classes: Sequence[str], *, draws: int = 2000, seed: int = 0, level: float = 0.95
) -> Intervals:
    """Percentile intervals of UF1, UAR and ACC, over subjects drawn with replacement.

    Parameters
    ----------
    rows : sequence of Prediction
        One seed or several of the same clips; with several, of the mean of their scores.
    classes : sequence of str
    draws : int
        Draws that are made; those without a clip of some class are skipped, and counted.
    seed : int
        Of the draws.
    level : float

    Raises
    ------
    ConfigError
        One subject, a class absent from the truth, seeds of different clips, or settings out of range.
    IntervalUndefined
        Fewer draws than `LEAST_KEPT` of them hold every class.
    """
    _check_draws(draws, level)
    _check_alike(rows, classes)
    subjects = sorted({row.subject for row in rows})
    matrices = _subject_matrices(rows, subjects, classes)
    drawn = _drawn(matrices, _weights(len(subjects), draws, seed))
    kept = drawn[~np.isnan(drawn[:, 0])]
    _check_kept(kept, draws)
    value = _mean_scores(matrices.sum(axis=1))
    low, high = _bounds(kept, level)
    uf1, uar, acc = (Interval(float(value[n]), float(low[n]), float(high[n])) for n in range(len(METRICS)))
    return Intervals(uf1, uar, acc, level, len(kept), draws - len(kept), len(subjects), len(matrices))


def paired_difference(
    rows_a: Sequence[Prediction],
    rows_b: Sequence[Prediction],
    classes: Sequence[str],
    *,
    metric: Metric = "uf1",
    draws: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Difference:
    """Paired bootstrap of a minus b: both are scored on each draw of subjects, averaged over their seeds.

    Parameters
    ----------
    rows_a, rows_b : sequence of Prediction
        Of the same clips; the numbers of seeds may differ.
    classes : sequence of str
    metric : {"uf1", "uar", "acc"}
    draws, seed, level
        As in `subject_interval`.

    Raises
    ------
    ConfigError
        The two are of different clips, subjects or truths; or as `subject_interval`.
    """
    _check_draws(draws, level)
    if metric not in METRICS:
        raise ConfigError(f"bootstrap: metric must be one of {_listed(METRICS)}; got {metric!r}. Correct it.")
    _check_alike(rows_a, classes)
    _check_alike(rows_b, classes)
    _check_same_clips(rows_a, rows_b)
    subjects = sorted({row.subject for row in rows_a})
    weights = _weights(len(subjects), draws, seed)
    a, b = (_subject_matrices(rows, subjects, classes) for rows in (rows_a, rows_b))
    which = METRICS.index(metric)
    drawn_a, drawn_b = _drawn(a, weights), _drawn(b, weights)
    kept = (drawn_a - drawn_b)[~np.isnan(drawn_a[:, 0]), which]
    _check_kept(kept, draws)
    value = float((_mean_scores(a.sum(axis=1)) - _mean_scores(b.sum(axis=1)))[which])
    low, high = _bounds(kept, level)
    not_above = float(np.mean(kept <= 0))
    return Difference(
        metric,
        value,
        float(kept.mean()),
        float(low),
        float(high),
        not_above,
        level,
        len(kept),
        draws - len(kept),
        len(subjects),
    )


def _scores(matrix: Ints, classes: tuple[str, ...], absent: str) -> Scores:
    support, predicted, hits = matrix.sum(axis=1), matrix.sum(axis=0), matrix.diagonal()
    missing = tuple(name for name, number in zip(classes, support, strict=True) if not number)
    if missing and absent == "raise":
        raise ConfigError(
            f"score: every class must occur in the truth, or UF1 and UAR mean nothing; got none of {_listed(missing)} among "
            f'{int(matrix.sum())} clips. Choose a grouping without it, or pass absent="report" for a table that names it.'
        )
    with np.errstate(invalid="ignore"):
        f1, recall, precision = 2 * hits / (support + predicted), hits / support, hits / predicted
    f1 = np.where(support > 0, f1, np.nan)
    per_class = tuple(
        ClassScore(name, float(f1[c]), float(recall[c]), float(precision[c]), int(support[c]))
        for c, name in enumerate(classes)
    )
    matrix.setflags(write=False)
    uf1, uar, acc = (float(value) for value in _rates(matrix))
    return Scores(classes, matrix, uf1, uar, acc, per_class, missing)


def _rates(matrices: npt.NDArray[Any]) -> Floats:
    """(..., 3): UF1, UAR and ACC of (..., C, C) matrices; NaN for the first two where a class is absent from the truth."""
    support, predicted = matrices.sum(axis=-1), matrices.sum(axis=-2)
    hits = np.diagonal(matrices, axis1=-2, axis2=-1)
    with np.errstate(invalid="ignore"):
        recall = hits / support
        f1 = np.where(support > 0, 2 * hits / (support + predicted), np.nan)
        acc = hits.sum(axis=-1) / support.sum(axis=-1)
    return np.stack([f1.mean(axis=-1), recall.mean(axis=-1), acc], axis=-1)


def _mean_scores(matrices: Ints) -> Floats:
    """(3,): scores of (K seeds, C, C) matrices, averaged over the seeds."""
    return np.asarray(_rates(matrices).mean(axis=0))


def _subject_matrices(rows: Sequence[Prediction], subjects: Sequence[str], classes: Sequence[str]) -> Ints:
    """(K seeds, S subjects, C, C) confusion matrices."""
    seeds = sorted({row.seed for row in rows})
    place = {name: number for number, name in enumerate(subjects)}
    layer = {value: number for number, value in enumerate(seeds)}
    matrices = np.zeros((len(seeds), len(subjects), len(classes), len(classes)), np.int64)
    truth = _numbers([row.truth for row in rows], classes, "truth")
    prediction = _numbers([row.prediction for row in rows], classes, "prediction")
    layers = np.array([layer[row.seed] for row in rows])
    places = np.array([place[row.subject] for row in rows])
    np.add.at(matrices, (layers, places, truth, prediction), 1)
    return matrices


def _weights(subjects: int, draws: int, seed: int) -> Floats:
    """(draws, subjects): how often each subject is in each draw; float, so that the product below is a fast one."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(subjects, np.full(subjects, 1 / subjects), size=draws).astype(np.float64)


def _drawn(matrices: Ints, weights: Floats) -> Floats:
    """(draws, 3): scores of each draw, averaged over the seeds."""
    seeds, subjects, classes, _ = matrices.shape
    flat = matrices.transpose(1, 0, 2, 3).reshape(subjects, -1).astype(np.float64)
    parts = [
        _rates((weights[start : start + DRAWS_TOGETHER] @ flat).reshape(-1, seeds, classes, classes)).mean(axis=1)
        for start in range(0, len(weights), DRAWS_TOGETHER)
    ]
    return np.concatenate(parts)


def _bounds(kept: Floats, level: float) -> Floats:
    return np.asarray(np.quantile(kept, [(1 - level) / 2, (1 + level) / 2], axis=0))


def _by_clip(rows: Sequence[Prediction]) -> dict[tuple[str, str], list[Prediction]]:
    """Rows of each clip, one a seed; refuses seeds of different clips and clips that contradict themselves."""
    clips: dict[tuple[str, str], list[Prediction]] = defaultdict(list)
    for row in rows:
        clips[row.dataset, row.clip_id].append(row)
    seeds = {row.seed for row in rows}
    odd = []
    for (_, name), found in clips.items():
        once = len(found) == len(seeds) == len({row.seed for row in found})
        if not once or len({(row.subject, row.fold, row.truth, len(row.probabilities)) for row in found}) > 1:
            odd.append(name)
    if odd or not rows:
        raise ConfigError(
            f"predictions: every seed must hold every clip once, with one subject, fold and truth; got otherwise for "
            f"{_listed(odd) or 'an empty table'}. Complete the run first."
        )
    return clips


def _check_alike(rows: Sequence[Prediction], classes: Sequence[str]) -> None:
    clips = _by_clip(rows)
    subjects = {row.subject for row in rows}
    if len(subjects) < 2:
        raise ConfigError(
            f"bootstrap: subjects must be two or more; got {_listed(sorted(subjects))}. Nothing can be said beyond one person."
        )
    truth = [found[0].truth for found in clips.values()]
    score(truth, truth, classes)  # raises for a class that is unknown or absent


def _check_same_clips(rows_a: Sequence[Prediction], rows_b: Sequence[Prediction]) -> None:
    a, b = ({(row.dataset, row.clip_id, row.subject, row.truth) for row in rows} for rows in (rows_a, rows_b))
    if a != b:
        raise ConfigError(
            f"paired bootstrap: both tables must hold the same clips, subjects and truths; got {len(a ^ b)} differences, of "
            f"{_listed(sorted({clip for _, clip, _, _ in a ^ b}))}. Compare runs over the same shards and grouping."
        )


def _check_draws(draws: int, level: float) -> None:
    if draws < 1:
        raise ConfigError(f"bootstrap: draws must be 1 or more; got {draws}. Correct it.")
    if not 0 < level < 1:
        raise ConfigError(f"bootstrap: level must lie between 0 and 1; got {level}. Correct it.")


def _check_kept(kept: Floats, draws: int) -> None:
    if len(kept) < max(1, LEAST_KEPT * draws):
        raise IntervalUndefined(
            f"bootstrap: {LEAST_KEPT:.0%} of the draws of subjects must hold every class; got {len(kept) or 'none'} in {draws}. A "
            "class is in too few subjects for an interval: choose a grouping without it."
        )


def _numbers(values: Sequence[str | int], classes: Sequence[str], what: str) -> Ints:
    """(N,) class numbers of names or numbers."""
    known: dict[str | int, int] = {name: number for number, name in enumerate(classes)}
    found = np.empty(len(values), np.int64)
    for place, value in enumerate(values):
        number = known.get(value)
        if number is None and isinstance(value, (int, np.integer)) and 0 <= value < len(classes):
            number = int(value)
        if number is None:
            raise ConfigError(
                f"score: {what} must be one of {_listed(classes)}; got {value!r} for clip {place}. Correct the table."
            )
        found[place] = number
    return found


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value


def _listed(names: Sequence[object]) -> str:
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return ", ".join(str(name) for name in names[:MAX_LISTED]) + more
