"""Intervals of scores, and differences between two runs, from subjects drawn with replacement (bootstrap).

Clips of one person are no independent evidence, so whole subjects are drawn. Where rows hold several seeds, each draw takes the
mean over the seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from flowkit.errors import ConfigError
from flowkit.listing import listed
from fmanet.errors import IntervalUndefined
from fmanet.scoring.metrics import METRICS, Floats, Ints, Metric, by_clip, cells, matrix_shape, rates, score
from fmanet.scoring.prediction_table import Prediction

DRAWS_TOGETHER: Final = 500
"""Draws whose matrices are in memory at once: about 3 MB a seed with 8 classes."""
LEAST_KEPT: Final = 0.1
"""Share of the draws that must hold every class: bounds over a few lucky draws would say nothing of the rest."""


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


def subject_interval(
    rows: Sequence[Prediction], classes: Sequence[str], *, draws: int = 2000, seed: int = 0, level: float = 0.95
) -> Intervals:
    """Return percentile intervals of UF1, UAR and ACC, over subjects drawn with replacement.

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
        Share of the draws within the interval.

    Returns
    -------
    Intervals

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
    """Compare two runs by a paired bootstrap of a minus b: both are scored on each draw of subjects, averaged over their seeds.

    Parameters
    ----------
    rows_a, rows_b : sequence of Prediction
        Of the same clips; the numbers of seeds may differ.
    classes : sequence of str
    metric : {"uf1", "uar", "acc"}
    draws, seed, level
        As in `subject_interval`.

    Returns
    -------
    Difference

    Raises
    ------
    ConfigError
        The two are of different clips, subjects or truths; or as `subject_interval`.
    """
    _check_draws(draws, level)
    if metric not in METRICS:
        raise ConfigError(f"bootstrap: metric must be one of {listed(METRICS)}; got {metric!r}. Correct it.")
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


def _mean_scores(matrices: Ints) -> Floats:
    """(3,): scores of (K seeds, C, C) matrices, of action units (K, C, 2, 2), averaged over the seeds."""
    return np.asarray(rates(matrices, each=matrices.ndim == 4).mean(axis=0))


def _subject_matrices(rows: Sequence[Prediction], subjects: Sequence[str], classes: Sequence[str]) -> Ints:
    """(K seeds, S subjects, C, C) confusion matrices; of action units (K, S, C, 2, 2)."""
    seeds = sorted({row.seed for row in rows})
    place = {name: number for number, name in enumerate(subjects)}
    layer = {value: number for number, value in enumerate(seeds)}
    matrices = np.zeros((len(seeds), len(subjects), *matrix_shape(classes)), np.int64)
    layers = np.array([layer[row.seed] for row in rows])
    places = np.array([place[row.subject] for row in rows])
    truth, prediction = [row.truth for row in rows], [row.prediction for row in rows]
    np.add.at(matrices, cells(truth, prediction, classes, layers, places), 1)
    return matrices


def _weights(subjects: int, draws: int, seed: int) -> Floats:
    """(draws, subjects): how often each subject is in each draw; float, so that the product below is a fast one."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(subjects, np.full(subjects, 1 / subjects), size=draws).astype(np.float64)


def _drawn(matrices: Ints, weights: Floats) -> Floats:
    """(draws, 3): scores of each draw, averaged over the seeds."""
    seeds, subjects, *own = matrices.shape
    flat = matrices.swapaxes(0, 1).reshape(subjects, -1).astype(np.float64)
    each = len(own) == 3
    parts = [
        rates((weights[start : start + DRAWS_TOGETHER] @ flat).reshape(-1, seeds, *own), each=each).mean(axis=1)
        for start in range(0, len(weights), DRAWS_TOGETHER)
    ]
    return np.concatenate(parts)


def _bounds(kept: Floats, level: float) -> Floats:
    return np.asarray(np.quantile(kept, [(1 - level) / 2, (1 + level) / 2], axis=0))


def _check_alike(rows: Sequence[Prediction], classes: Sequence[str]) -> None:
    clips = by_clip(rows)
    subjects = {row.subject for row in rows}
    if len(subjects) < 2:
        raise ConfigError(
            f"bootstrap: subjects must be two or more; got {listed(sorted(subjects))}. Nothing can be said beyond one person."
        )
    truth = [found[0].truth for found in clips.values()]
    score(truth, truth, classes)  # raises for a class that is unknown or absent


def _check_same_clips(rows_a: Sequence[Prediction], rows_b: Sequence[Prediction]) -> None:
    a, b = ({(row.dataset, row.clip_id, row.subject, row.truth) for row in rows} for rows in (rows_a, rows_b))
    if a != b:
        raise ConfigError(
            f"paired bootstrap: both tables must hold the same clips, subjects and truths; got {len(a ^ b)} differences, of "
            f"{listed(sorted({clip for _, clip, _, _ in a ^ b}))}. Compare runs over the same shards and grouping."
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
