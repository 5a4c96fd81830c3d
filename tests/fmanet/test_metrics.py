"""Scores against numbers worked out by hand, and against an independent library; intervals against their definition."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowkit.errors import ConfigError
from fmanet.errors import IntervalUndefined
from fmanet.scoring.intervals import paired_difference, subject_interval
from fmanet.scoring.metrics import by_seed, by_subject, score, score_rows, seed_average, spread
from fmanet.scoring.prediction_table import SEED_AVERAGE, Prediction

ABC = ("a", "b", "c")


def rows_of(
    truths: Sequence[str], predictions: Sequence[str], *, subjects: int, seed: int = 0, classes: Sequence[str] = ABC
) -> list[Prediction]:
    """Clip i is of subject i modulo `subjects`; the predicted class has all the probability."""
    return [
        Prediction(f"clip{n}", f"lab/s{n % subjects}", "lab", f"s{n % subjects}", seed, truth, said,
                   tuple(float(name == said) for name in classes))
        for n, (truth, said) in enumerate(zip(truths, predictions, strict=True))
    ]  # fmt: skip


def random_rows(subjects: int, clips: int, right: float, seed: int, classes: Sequence[str] = ABC) -> list[Prediction]:
    """Truths are the same for every seed; a share `right` of predictions is, and the rest chance."""
    truth = np.random.default_rng(99).integers(len(classes), size=clips)
    rng = np.random.default_rng(seed)
    said = np.where(rng.random(clips) < right, truth, rng.integers(len(classes), size=clips))
    return rows_of([classes[t] for t in truth], [classes[p] for p in said], subjects=subjects, seed=seed)


def test_scores_are_those_worked_out_by_hand() -> None:
    # truth a a a a b b c; predicted a a b c b a c
    #   a: TP 2, FP 1, FN 2 -> F1 4/7, recall 2/4;  b: TP 1, FP 1, FN 1 -> 2/4, 1/2;  c: TP 1, FP 1, FN 0 -> 2/3, 1
    found = score("aaaabbc", "aabcbac", ABC)
    assert found.matrix.tolist() == [[2, 1, 1], [1, 1, 0], [0, 0, 1]]
    assert found.uf1 == pytest.approx((4 / 7 + 1 / 2 + 2 / 3) / 3, abs=1e-15)
    assert found.uar == pytest.approx((1 / 2 + 1 / 2 + 1) / 3, abs=1e-15)
    assert found.acc == pytest.approx(4 / 7, abs=1e-15)
    assert [(c.name, c.support) for c in found.per_class] == [("a", 4), ("b", 2), ("c", 1)]
    assert [c.precision for c in found.per_class] == pytest.approx([2 / 3, 1 / 2, 1 / 2])
    assert score([0, 0, 0, 0, 1, 1, 2], [0, 0, 1, 2, 1, 0, 2], ABC).to_dict() == found.to_dict()


def test_a_class_never_predicted_counts_with_zero() -> None:
    found = score("aabbcc", "aabbaa", ABC)
    assert found.uf1 == pytest.approx((4 / 6 + 1 + 0) / 3)
    assert found.per_class[2].f1 == 0
    assert math.isnan(found.per_class[2].precision)
    assert found.to_dict()["per_class"]["c"]["precision"] is None


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(ABC), st.sampled_from(ABC)), min_size=1, max_size=40))
def test_scores_agree_with_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    truth, said = zip(*[*pairs, *zip(ABC, ABC, strict=True)], strict=True)
    found = score(truth, said, ABC)
    assert found.uf1 == pytest.approx(metrics.f1_score(truth, said, average="macro"))
    assert found.uar == pytest.approx(metrics.recall_score(truth, said, average="macro"))
    assert found.acc == pytest.approx(metrics.accuracy_score(truth, said))
    assert found.matrix.tolist() == metrics.confusion_matrix(truth, said, labels=ABC).tolist()


def test_a_class_absent_from_the_truth_raises_and_is_named() -> None:
    with pytest.raises(ConfigError, match="got none of c among 3 clips"):
        score("aab", "aac", ABC)


def test_a_table_of_a_part_names_the_absent_class_and_leaves_its_scores_undefined() -> None:
    found = score("aab", "aac", ABC, absent="report")
    assert found.absent == ("c",)
    assert math.isnan(found.uf1)
    assert math.isnan(found.uar)
    assert found.acc == pytest.approx(2 / 3)
    stored = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert stored["uf1"] is None
    assert stored["per_class"]["c"] == {"f1": None, "recall": None, "precision": 0.0, "support": 0}


@pytest.mark.parametrize(
    ("truth", "prediction", "classes", "message"),
    [
        ("ab", "a", ABC, "of one length"),
        ("", "", ABC, "of one length"),
        ("ad", "aa", ABC, "truth must be one of a, b, c; got 'd' for clip 1"),
        ("ab", "az", ABC, "prediction must be one of"),
        ([0, 3], [0, 1], ABC, "got 3 for clip 1"),
        ([0, -1], [0, 1], ABC, "got -1 for clip 1"),
        ("aa", "aa", ("a",), "two or more different names"),
        ("aa", "aa", ("a", "a"), "two or more different names"),
    ],
)
def test_predictions_that_cannot_be_scored_are_refused(
    truth: Sequence[str | int], prediction: Sequence[str | int], classes: Sequence[str], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        score(truth, prediction, classes)
    assert message in str(caught.value)


def test_seeds_are_scored_one_by_one_and_never_pooled() -> None:
    rows = rows_of("abc", "abc", subjects=3) + rows_of("abc", "abb", subjects=3, seed=1)
    with pytest.raises(ConfigError, match="rows must be of one seed; got 0, 1"):
        score_rows(rows, ABC)
    scores = by_seed(rows, ABC)
    second = (1 + 2 / 3 + 0) / 3
    assert [scores[seed].uf1 for seed in (0, 1)] == pytest.approx([1, second])
    found = spread(scores)
    assert found == pytest.approx(((1 + second) / 2, (1 - second) / math.sqrt(2), second, 1, 2))


def test_subjects_are_counted_over_all_seeds() -> None:
    rows = rows_of("abc", "abc", subjects=2) + rows_of("abc", "abb", subjects=2, seed=1)
    assert [(s.subject, s.predictions, s.correct, s.acc) for s in by_subject(rows, ABC)] == [
        ("lab/s0", 4, 3, 0.75),
        ("lab/s1", 2, 2, 1.0),
    ]


def test_the_seed_average_takes_the_class_of_the_mean_probabilities() -> None:
    one = replace(rows_of("a", "a", subjects=1)[0], probabilities=(0.5, 0.4, 0.1))
    two = replace(one, seed=1, prediction="b", probabilities=(0.1, 0.8, 0.1))
    three = replace(one, seed=2, probabilities=(0.6, 0.3, 0.1))  # two of three votes are for a
    (found,) = seed_average([one, two, three], ABC)
    assert (found.seed, found.prediction) == (SEED_AVERAGE, "b")
    assert found.probabilities == pytest.approx((0.4, 0.5, 0.1))


@pytest.mark.parametrize("change", [{"clip_id": "other"}, {"truth": "b"}, {"fold": "s9"}, {"subject": "lab/s9"}])
def test_seeds_of_different_clips_are_never_averaged(change: dict[str, str]) -> None:
    rows = rows_of("abc", "abc", subjects=3) + rows_of("abc", "abc", subjects=3, seed=1)
    rows[3] = replace(rows[3], **change)
    with pytest.raises(ConfigError, match="every seed must hold every clip once"):
        seed_average(rows, ABC)


def test_an_interval_is_that_of_a_bootstrap_written_out() -> None:
    rows = random_rows(8, 60, 0.7, 1)
    found = subject_interval(rows, ABC, draws=300, seed=5, level=0.9)
    counts = np.random.default_rng(5).multinomial(8, np.full(8, 1 / 8), size=300)
    drawn = []
    for count in counts:
        sample = [
            row for n, times in enumerate(count) for row in rows if row.subject == f"lab/s{n}" for _ in range(times)
        ]
        one = score_rows(sample, ABC)
        drawn.append((one.uf1, one.uar, one.acc))
    low, high = np.quantile(drawn, [0.05, 0.95], axis=0)
    assert [*found.uf1, *found.uar, *found.acc] == pytest.approx(
        [
            x
            for m, name in enumerate(("uf1", "uar", "acc"))
            for x in (getattr(score_rows(rows, ABC), name), low[m], high[m])
        ]
    )
    assert (found.draws, found.skipped, found.subjects, found.seeds) == (300, 0, 8, 1)


def test_draws_without_a_class_are_skipped_and_counted() -> None:
    rows = rows_of("aaabbbc", "aaabbbc", subjects=7)
    found = subject_interval(rows, ABC, draws=4000)
    assert found.draws + found.skipped == 4000
    without = {"a": 4, "b": 4, "c": 6, "ab": 1, "ac": 3, "bc": 3}  # subjects that have none of these classes
    missed = sum((1 if len(names) == 1 else -1) * (number / 7) ** 7 for names, number in without.items())
    assert found.skipped / 4000 == pytest.approx(missed, abs=0.03)
    assert found.uf1 == (1, 1, 1)


def test_subjects_are_drawn_and_not_clips() -> None:
    """Two subjects right and two wrong on many clips each: clips say the accuracy is known well, subjects say it is not."""
    truth = "abc" * 200
    wrong = {"a": "b", "b": "c", "c": "a"}
    said = "".join(t if n // 3 % 4 < 2 else wrong[t] for n, t in enumerate(truth))
    rows = [replace(row, subject=f"lab/s{n // 3 % 4}") for n, row in enumerate(rows_of(truth, said, subjects=4))]
    found = subject_interval(rows, ABC)
    assert found.acc.value == pytest.approx(0.5)
    assert found.acc.low == 0
    assert found.acc.high == 1


def test_a_better_network_is_better_in_nearly_every_draw_and_the_same_one_in_none() -> None:
    good = [row for seed in (1, 2, 3) for row in random_rows(20, 200, 0.8, seed)]
    poor = [row for seed in (4, 5) for row in random_rows(20, 200, 0.5, seed)]
    found = paired_difference(good, poor, ABC)
    expected = spread(by_seed(good, ABC)).mean - spread(by_seed(poor, ABC)).mean
    assert found.value == pytest.approx(expected)
    assert 0 < found.low < found.mean < found.high
    assert found.share_not_above < 0.01
    back = paired_difference(poor, good, ABC)
    assert (back.value, back.low, back.high) == pytest.approx((-found.value, -found.high, -found.low))
    same = paired_difference(good, good, ABC)
    assert (same.value, same.low, same.high, same.share_not_above) == (0, 0, 0, 1)


def test_pairing_is_by_subject() -> None:
    """b is a with one clip of every subject spoilt: paired, the difference hardly scatters although both scores do."""
    good = random_rows(20, 400, 0.6, 1)
    spoilt = [
        replace(row, prediction="b" if row.truth == "a" else "a") if n < 20 else row for n, row in enumerate(good)
    ]
    found = paired_difference(good, spoilt, ABC, metric="acc")
    alone = subject_interval(good, ABC).acc
    assert found.high - found.low < (alone.high - alone.low) / 2


def test_tables_of_different_clips_are_never_compared() -> None:
    rows = random_rows(5, 50, 0.8, 1)
    with pytest.raises(ConfigError, match="got 1 differences, of clip49"):
        paired_difference(rows, rows[:-1], ABC)


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (rows_of("abc", "abc", subjects=1), {}, "subjects must be two or more; got lab/s0"),
        (rows_of("abab", "abab", subjects=2), {}, "got none of c"),
        (rows_of("abc", "abc", subjects=3), {"draws": 0}, "draws must be 1 or more"),
        (rows_of("abc", "abc", subjects=3), {"level": 1.0}, "level must lie between 0 and 1"),
        (rows_of("abc", "abc", subjects=3), {"draws": 1, "seed": 1}, "got none in 1"),
        ([], {}, "an empty table"),
    ],
)
def test_intervals_that_mean_nothing_are_refused(rows: list[Prediction], options: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        subject_interval(rows, ABC, **options)
    assert message in str(caught.value)


def test_bounds_over_hardly_any_draws_are_not_given() -> None:
    """Each of eight classes in one subject alone: 8! / 8^8 of the draws, 0.2 %, hold them all."""
    letters = "abcdefgh"
    rows = rows_of(letters, letters, subjects=8, classes=letters)
    with pytest.raises(IntervalUndefined, match=r"10% of the draws of subjects must hold every class; got \w+ in 2000"):
        subject_interval(rows, letters)
    with pytest.raises(IntervalUndefined):
        paired_difference(rows, rows, letters)


def test_intervals_are_the_same_whatever_the_order_of_rows() -> None:
    rows = random_rows(10, 100, 0.7, 1)
    assert subject_interval(rows[::-1], ABC, draws=200) == subject_interval(rows, ABC, draws=200)


def test_two_thousand_draws_over_the_whole_composite_take_no_time_to_speak_of() -> None:
    rows = random_rows(68, 442, 0.7, 1)
    begin = time.perf_counter()
    subject_interval(rows, ABC, draws=2000)
    assert time.perf_counter() - begin < 1
