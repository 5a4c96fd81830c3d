"""Scores of a table of predictions: UF1, UAR and accuracy from one pooled confusion matrix.

    F1_c = 2 TP_c / (2 TP_c + FP_c + FN_c);  UF1 = mean over classes;  UAR = mean of TP_c / N_c;  ACC = share correct

(MEGC2019.) A class absent from the truth is never dropped from a mean: it raises, or, where a table of a part is asked for,
leaves UF1 and UAR undefined (NaN) and is named.

Where the classes are action units, each is a question with a matrix of its own, [shown, said]: F1_u as above with "shown" as the
class, UF1 its mean over units, UAR the mean over units of (recall of shown + recall of not shown) / 2, ACC the share of all answers
that is right. A unit that all clips show, or none, counts as absent.
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
from flowkit.labels.action_units import are_action_units, shown_in
from flowkit.listing import listed
from fmanet.scoring.prediction_table import SEED_AVERAGE, Prediction, answer

__all__ = [
    "ClassScore",
    "Scores",
    "Spread",
    "SubjectScore",
    "by_seed",
    "by_subject",
    "score",
    "score_rows",
    "seed_average",
    "spread",
]

Metric = Literal["uf1", "uar", "acc"]
METRICS: Final[tuple[Metric, ...]] = ("uf1", "uar", "acc")

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ClassScore:
    """One class, or action unit: recall and F1 are NaN where the truth has none of it, precision where nothing was said so."""

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
        Clips by [truth, prediction]; of action units (C, 2, 2), by [unit, shown, said].
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
        return int(self.matrix[0].sum() if self.matrix.ndim == 3 else self.matrix.sum())

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
            "clips": self.clips,
            "matrix": self.matrix.tolist(),
            **{name: _defined(getattr(self, name)) for name in METRICS},
            "per_class": per_class,
            "absent": list(self.absent),
        }


@dataclass(frozen=True, slots=True)
class SubjectScore:
    """One held-out subject, all seeds together; of action units, a clip counts as the share of its answers that is right."""

    subject: str
    predictions: int
    correct: float

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


def score(
    truth: Sequence[str | int],
    prediction: Sequence[str | int],
    classes: Sequence[str],
    *,
    absent: Literal["raise", "report"] = "raise",
) -> Scores:
    """Score predictions.

    Parameters
    ----------
    truth, prediction : sequence of str or int
        Of the same length: classes by name, or by number; of action units, those that are shown, as "AU4+AU7" or "none".
    classes : sequence of str
        All classes, whether they occur or not.
    absent : {"raise", "report"}
        What to do about a class that the truth has none of: "report" leaves UF1 and UAR undefined and names it.

    Returns
    -------
    Scores

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
    matrix = np.zeros(matrix_shape(classes), np.int64)
    np.add.at(matrix, cells(truth, prediction, classes), 1)
    return _scores(matrix, tuple(classes), absent)


def score_rows(
    rows: Sequence[Prediction], classes: Sequence[str], *, absent: Literal["raise", "report"] = "raise"
) -> Scores:
    """Return the pooled scores of the rows of one seed.

    Parameters
    ----------
    rows : sequence of Prediction
    classes : sequence of str
    absent : {"raise", "report"}
        As in `score`.

    Returns
    -------
    Scores

    Raises
    ------
    ConfigError
        As `score`; or the rows hold several seeds, which are scored one by one or averaged, never pooled.
    """
    seeds = sorted({row.seed for row in rows})
    if len(seeds) > 1:
        raise ConfigError(
            f"score: rows must be of one seed; got {listed(seeds)}. Score each (by_seed), or average them (seed_average)."
        )
    return score([row.truth for row in rows], [row.prediction for row in rows], classes, absent=absent)


def by_seed(
    rows: Sequence[Prediction], classes: Sequence[str], *, absent: Literal["raise", "report"] = "raise"
) -> dict[int, Scores]:
    """Return the pooled scores of each seed, in order.

    Parameters
    ----------
    rows : sequence of Prediction
    classes : sequence of str
    absent : {"raise", "report"}
        As in `score`.

    Returns
    -------
    dict of int to Scores

    Raises
    ------
    ConfigError
        As `score`.
    """
    parts: dict[int, list[Prediction]] = defaultdict(list)
    for row in rows:
        parts[row.seed].append(row)
    return {seed: score_rows(parts[seed], classes, absent=absent) for seed in sorted(parts)}


def by_subject(rows: Sequence[Prediction], classes: Sequence[str]) -> tuple[SubjectScore, ...]:
    """What each held-out subject got, in sorted order. Means of these are no score of the field: classes differ by subject."""
    found: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        wrong = len(mistakes(row, classes))
        found[row.subject].append(1 - wrong / len(classes) if are_action_units(classes) else not wrong)
    return tuple(SubjectScore(name, len(found[name]), round(sum(found[name]), 2)) for name in sorted(found))


def mistakes(row: Prediction, classes: Sequence[str]) -> list[str]:
    """What is wrong about a prediction, in words: at most one mistake; of action units, one for each wrong answer."""
    if not are_action_units(classes):
        return [] if row.truth == row.prediction else [f"{row.truth} as {row.prediction}"]
    shown, said = set(shown_in(row.truth)), set(shown_in(row.prediction))
    return [f"{name} missed" if name in shown else f"{name} said" for name in classes if name in shown ^ said]


def spread(scores: Mapping[int, Scores], metric: Metric = "uf1") -> Spread:
    """Mean and spread of a score over seeds; see `by_seed`."""
    values = np.array([getattr(one, metric) for one in scores.values()])
    std = float(values.std(ddof=1)) if len(values) > 1 else math.nan
    return Spread(float(values.mean()), std, float(values.min()), float(values.max()), len(values))


def seed_average(rows: Sequence[Prediction], classes: Sequence[str]) -> list[Prediction]:
    """Return one row per clip: probabilities averaged over the seeds, then what they say (`prediction_table.answer`).

    Parameters
    ----------
    rows : sequence of Prediction
        Every seed of the same clips.
    classes : sequence of str
        Order of the probabilities.

    Returns
    -------
    list of Prediction
        With the seed `SEED_AVERAGE`.

    Raises
    ------
    ConfigError
        The seeds hold different clips, or a clip has different folds or truths.
    """
    averaged = []
    for clip in by_clip(rows).values():
        mean = np.mean([row.probabilities for row in clip], axis=0)
        said = answer(mean.tolist(), classes)
        averaged.append(replace(clip[0], seed=SEED_AVERAGE, prediction=said, probabilities=tuple(mean.tolist())))
    return averaged


def _scores(matrix: Ints, classes: tuple[str, ...], absent: str) -> Scores:
    absent_too, hits, support, predicted = _counted(matrix)
    missing = tuple(name for name, none in zip(classes, absent_too, strict=True) if none)
    if missing and absent == "raise":
        raise ConfigError(
            f"score: every class must occur in the truth, or UF1 and UAR mean nothing; got none of {listed(missing)} among "
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
    uf1, uar, acc = (float(value) for value in rates(matrix, each=are_action_units(classes)))
    return Scores(classes, matrix, uf1, uar, acc, per_class, missing)


def _counted(matrix: Ints) -> tuple[npt.NDArray[np.bool_], Ints, Ints, Ints]:
    """(C,) each: whether a class is absent, clips that are rightly said to be of it, that are of it, that are said to be."""
    if matrix.ndim == 2:
        support = matrix.sum(axis=1)
        return support == 0, matrix.diagonal(), support, matrix.sum(axis=0)
    support = matrix[:, 1].sum(axis=1)
    return (support == 0) | (matrix[:, 0].sum(axis=1) == 0), matrix[:, 1, 1], support, matrix[:, :, 1].sum(axis=1)


def rates(matrices: npt.NDArray[Any], *, each: bool = False) -> Floats:
    """(..., 3): UF1, UAR and ACC of matrices (..., C, C), or for `each` action unit by itself (..., C, 2, 2).

    NaN for the first two where a class is absent from the truth.
    """
    support, predicted = matrices.sum(axis=-1), matrices.sum(axis=-2)
    hits = np.diagonal(matrices, axis1=-2, axis2=-1)
    with np.errstate(invalid="ignore"):
        recall = hits / support
        f1 = np.where(support > 0, 2 * hits / (support + predicted), np.nan)
        acc = hits.sum(axis=-1) / support.sum(axis=-1)
    if each:  # f1[..., 0] is that of "not shown", which only has to be defined
        f1, recall, acc = np.where(np.isnan(f1[..., 0]), np.nan, f1[..., 1]), recall.mean(axis=-1), acc.mean(axis=-1)
    return np.stack([f1.mean(axis=-1), recall.mean(axis=-1), acc], axis=-1)


def matrix_shape(classes: Sequence[str]) -> tuple[int, ...]:
    """Of a confusion matrix, or of one for each action unit."""
    return (len(classes), 2, 2) if are_action_units(classes) else (len(classes), len(classes))


def cells(
    truth: Sequence[str | int], prediction: Sequence[str | int], classes: Sequence[str], *before: Ints
) -> tuple[Ints, ...]:
    """Where each clip counts in an array of confusion matrices: an index for `np.add.at`.

    Parameters
    ----------
    truth, prediction : sequence of str or int
        As in `score`.
    classes : sequence of str
    *before : (N,) int64
        Places along the axes before those of a matrix.
    """
    if not are_action_units(classes):
        return (*before, class_numbers(truth, classes, "truth"), class_numbers(prediction, classes, "prediction"))
    shown, said = _units(truth, classes, "truth"), _units(prediction, classes, "prediction")
    return (*(place[:, None] for place in before), np.arange(len(classes)), shown, said)


def _units(words: Sequence[str | int], classes: Sequence[str], what: str) -> Ints:
    """(N, C): 1 for each action unit that a clip shows."""
    found = np.zeros((len(words), len(classes)), np.int64)
    for place, word in enumerate(words):
        shown = shown_in(str(word))
        found[place, class_numbers(shown, classes, what)] = 1
    return found


def by_clip(rows: Sequence[Prediction]) -> dict[tuple[str, str], list[Prediction]]:
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
            f"{listed(odd) or 'an empty table'}. Complete the run first."
        )
    return clips


def class_numbers(values: Sequence[str | int], classes: Sequence[str], what: str) -> Ints:
    """(N,) class numbers of names or numbers."""
    known: dict[str | int, int] = {name: number for number, name in enumerate(classes)}
    found = np.empty(len(values), np.int64)
    for place, value in enumerate(values):
        number = known.get(value)
        if number is None and isinstance(value, (int, np.integer)) and 0 <= value < len(classes):
            number = int(value)
        if number is None:
            raise ConfigError(
                f"score: {what} must be one of {listed(classes)}; got {value!r} for clip {place}. Correct the table."
            )
        found[place] = number
    return found


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value
