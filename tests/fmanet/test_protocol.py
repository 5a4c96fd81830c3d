"""Folds, and the gate that lets nothing of the held-out side through."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from flowkit.errors import ConfigError
from fmanet.dataset import Clips
from fmanet.errors import FoldsMissing, LeakError, TrainingImpossible
from fmanet.protocol import Fold, complete, cross, file_name, holdout, inner_split, loso, split
from fmanet.scoring.prediction_table import Prediction

CLASSES = ("negative", "positive", "surprise")


def clips_of(subjects: Sequence[str], targets: Sequence[int], classes: tuple[str, ...] = CLASSES) -> Clips:
    """One clip a subject named; its flow holds its row, so that it can be found again."""
    count = len(subjects)
    flow = torch.arange(count, dtype=torch.float32).reshape(count, 1, 1, 1, 1).expand(count, 2, 2, 8, 8).clone()
    return Clips(
        flow=flow,
        valid=torch.ones(count, 2, dtype=torch.bool),
        region=torch.ones(count, 8, 8, dtype=torch.bool),
        action_units=torch.zeros(count, 2, 34),
        target=torch.tensor(targets, dtype=torch.int64),
        clip_id=tuple(f"clip{row}" for row in range(count)),
        subject=tuple(subjects),
        dataset=tuple(subject.split("/")[0] for subject in subjects),
        source_hash=tuple(f"hash{row}" for row in range(count)),
        carried=(False,) * count,
        with_action_units=(False,) * count,
        classes=classes,
        units="px",
    )


@pytest.fixture
def clips() -> Clips:
    """Six subjects of two sets, three clips each, one of each class."""
    names = [f"{dataset}/s{n}" for dataset in ("casme2", "samm") for n in (1, 2, 3)]
    return clips_of([name for name in names for _ in CLASSES], [0, 1, 2] * len(names))


def changed(clips: Clips, name: str, row: int, value: str) -> Clips:
    texts = list(getattr(clips, name))
    texts[row] = value
    return replace(clips, **{name: tuple(texts)})


def test_loso_holds_each_subject_out_once_with_all_their_clips(clips: Clips) -> None:
    folds = loso(clips)
    assert [fold.name for fold in folds] == ["casme2.s1", "casme2.s2", "casme2.s3", "samm.s1", "samm.s2", "samm.s3"]
    assert sorted(row for fold in folds for row in fold.test) == list(range(len(clips)))
    for fold in folds:
        train, test = split(clips, fold)
        assert set(test.subject) == fold.held_out
        assert not set(train.subject) & fold.held_out
        assert train.flow[:, 0, 0, 0, 0].tolist() == list(fold.train)
        assert len(train) + len(test) == len(clips)


def test_the_same_number_in_two_data_sets_is_two_subjects(clips: Clips) -> None:
    fold = next(fold for fold in loso(clips) if fold.name == "casme2.s1")
    assert "samm/s1" in split(clips, fold)[0].subject


@pytest.mark.parametrize("order", ["as made", "turned round"])
def test_folds_do_not_depend_on_the_order_of_clips(clips: Clips, order: str) -> None:
    rows = list(range(len(clips)))
    other = clips.select(rows if order == "as made" else rows[::-1])
    for fold, twin in zip(loso(clips), loso(other), strict=True):
        assert (fold.name, fold.held_out) == (twin.name, twin.held_out)
        assert {clips.clip_id[row] for row in fold.test} == {other.clip_id[row] for row in twin.test}


def test_a_fold_with_a_subject_on_both_sides_is_caught(clips: Clips) -> None:
    fold = loso(clips)[0]
    leaking = replace(fold, train=(*fold.train, fold.test[0]), test=fold.test[1:])
    with pytest.raises(LeakError, match=r"fold casme2\.s1: training side .* got clips of casme2/s1"):
        split(clips, leaking)


def test_a_held_out_clip_of_another_subject_is_caught(clips: Clips) -> None:
    fold = loso(clips)[0]
    with pytest.raises(LeakError, match="got clips of samm/s3"):
        split(clips, replace(fold, test=(*fold.test, fold.train[-1]), train=fold.train[:-1]))


def test_a_held_out_subject_is_caught_in_training_even_without_held_out_clips(clips: Clips) -> None:
    fold = loso(clips)[0]
    with pytest.raises(LeakError, match="got clips of casme2/s2"):
        split(clips, replace(fold, held_out=fold.held_out | {"casme2/s2"}))


def test_one_source_under_two_subject_names_is_caught(clips: Clips) -> None:
    """Clip 17, of samm/s3, is clip 0 of casme2/s1 again."""
    doubled = changed(clips, "source_hash", 17, clips.source_hash[0])
    for fold in loso(doubled):
        if fold.name not in ("casme2.s1", "samm.s3"):
            split(doubled, fold)  # both on the training side: no leak
            continue
        with pytest.raises(LeakError) as caught:
            split(doubled, fold)
        assert "clip0 of casme2/s1" in str(caught.value)
        assert "clip17 of samm/s3" in str(caught.value)


@pytest.mark.parametrize("name", ["CASME2/S1 ", "CASME II/s1", "casme2/s01", "casme-ii/S001"])
def test_one_subject_written_in_two_ways_is_caught(clips: Clips, name: str) -> None:
    odd = changed(clips, "subject", 0, name)
    fold = next(fold for fold in loso(odd) if "casme2/s1" in fold.held_out)
    with pytest.raises(LeakError, match=f"however it is written; got clips of {name}"):
        split(odd, fold)


@pytest.mark.parametrize("name", ["casme2/s10", "casme2/s101", "casme2/s11", "casme2/sa1", "casme-sq/s1"])
def test_subjects_of_nearly_the_same_name_are_two(clips: Clips, name: str) -> None:
    odd = changed(clips, "subject", 0, name)
    for fold in loso(odd):
        if fold.held_out & {"casme2/s1", name}:
            assert len(split(odd, fold)[1]) == len(fold.test)


def test_a_clip_whose_source_is_not_known_cannot_be_parted(clips: Clips) -> None:
    with pytest.raises(LeakError, match="got none of clip4"):
        split(changed(clips, "source_hash", 4, ""), loso(clips)[0])


@pytest.mark.parametrize(
    ("train", "test", "error", "message"),
    [
        ((), (0, 1, 2), TrainingImpossible, "training side must hold a clip"),
        ((3, 4, 5), (), TrainingImpossible, "held-out side must hold a clip"),
        ((3, 4, 5), (0, 0), ConfigError, "rows of the held-out side"),
        ((3, 4, 99), (0,), ConfigError, "rows of the training side"),
        ((3, 4, -1), (0,), ConfigError, "rows of the training side"),
        ((3, 4), (0, 1, 2), TrainingImpossible, "got none of surprise without casme2/s1"),
    ],
)
def test_a_fold_that_cannot_be_trained_is_refused(
    clips: Clips, train: tuple[int, ...], test: tuple[int, ...], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match="fold odd") as caught:
        split(clips, Fold("odd", frozenset({"casme2/s1"}), train, test))
    assert message in str(caught.value)


def test_one_subject_or_one_class_is_refused() -> None:
    with pytest.raises(TrainingImpossible, match=r"two subjects or more .* got a/s1"):
        loso(clips_of(["a/s1", "a/s1"], [0, 1]))
    single = clips_of(["a/s1", "a/s2"], [0, 0], ("negative",))
    with pytest.raises(TrainingImpossible, match="two classes or more"):
        split(single, loso(single)[0])


def test_holdout_keeps_the_named_subjects_out(clips: Clips) -> None:
    (fold,) = holdout(clips, ["samm/s2", "casme2/s1"])
    train, test = split(clips, fold)
    assert set(test.subject) == {"samm/s2", "casme2/s1"}
    assert len(set(train.subject)) == 4


def test_holdout_of_a_share_is_the_same_for_the_same_seed_only(clips: Clips) -> None:
    chosen = {seed: holdout(clips, share=0.34, seed=seed)[0].held_out for seed in range(10)}
    assert {len(subjects) for subjects in chosen.values()} == {2}
    assert len(set(chosen.values())) > 3
    assert holdout(clips, share=0.34, seed=3)[0].held_out == chosen[3]
    assert len(holdout(clips, share=0.99)[0].held_out) == 5


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"subjects": ["samm/s9"]}, ConfigError, "Did you mean"),
        ({"subjects": ["s2"]}, ConfigError, "casme2/s2 or samm/s2"),
        ({}, ConfigError, "subjects or a share"),
        ({"subjects": ["samm/s1"], "share": 0.5}, ConfigError, "subjects or a share"),
        ({"share": 1.0}, ConfigError, "between 0 and 1"),
        ({"share": float("nan")}, ConfigError, "between 0 and 1"),
    ],
)
def test_a_holdout_that_means_nothing_is_refused(
    clips: Clips, arguments: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        holdout(clips, **arguments)
    assert message in str(caught.value)


def test_holding_out_everybody_is_refused(clips: Clips) -> None:
    with pytest.raises(TrainingImpossible, match="got all 6 held out"):
        holdout(clips, sorted(set(clips.subject)))


def test_cross_trains_on_some_data_sets_and_is_tested_on_others(clips: Clips) -> None:
    (fold,) = cross(clips, ["samm"], ["casme2"])
    train, test = split(clips, fold)
    assert (set(train.dataset), set(test.dataset), fold.name) == ({"samm"}, {"casme2"}, "samm.casme2")


@pytest.mark.parametrize(
    ("train_on", "test_on", "message"),
    [
        (["samm"], ["samm", "casme2"], "got samm on both"),
        (["sam"], ["casme2"], "Did you mean samm"),
        (["samm"], [], "test_on must name a data set"),
    ],
)
def test_a_cross_that_means_nothing_is_refused(
    clips: Clips, train_on: list[str], test_on: list[str], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        cross(clips, train_on, test_on)
    assert message in str(caught.value)


def test_an_inner_split_is_by_subject_and_keeps_every_class_on_both_sides(clips: Clips) -> None:
    outer, _ = split(clips, loso(clips)[0])
    parts = {seed: inner_split(outer, 0.4, seed) for seed in range(5)}
    for kept, aside in parts.values():
        assert not set(kept.subject) & set(aside.subject)
        assert len(set(aside.subject)) == 2
        assert set(kept.target.tolist()) == set(aside.target.tolist()) == {0, 1, 2}
        assert len(kept) + len(aside) == len(outer)
    assert len({aside.clip_id for _, aside in parts.values()}) > 1
    assert inner_split(outer, 0.4, 3)[1].clip_id == parts[3][1].clip_id


def test_an_inner_split_searches_for_subjects_who_leave_every_class_on_both_sides() -> None:
    """Only two of twelve subjects have the class surprise."""
    names = [f"a/s{n}" for n in range(12)]
    rare = clips_of([*names, *names, "a/s3", "a/s7"], [0] * 12 + [1] * 12 + [2, 2])
    for seed in range(5):
        _, aside = inner_split(rare, 0.25, seed)
        assert len({"a/s3", "a/s7"} & set(aside.subject)) == 1


def test_an_inner_split_that_is_impossible_is_refused() -> None:
    lonely = clips_of(["a/s1", "a/s1", "a/s2", "a/s3", "a/s3"], [0, 2, 1, 0, 1])
    with pytest.raises(TrainingImpossible, match="each of 3 classes on both sides"):
        inner_split(lonely, 0.3, 0)


ODD_NAMES = [
    "a/b",
    "a.b",
    "a/b.c",
    "a/b/c",
    "a-b/c",
    "a/b-c",
    "ä/ö",
    "ä/ü",
    "../..",
    "a/..",
    ".",
    "-rf/x",
    "a b/c",
    "a/" + "x" * 300,
]
ODD_NAMES += ["a/" + "x" * 301, "con\n/x", "a/日本", "a\\b/c", "###", "A/b", "~/x"]


def test_names_of_folds_are_safe_as_names_of_files_and_unique() -> None:
    names = [file_name(subject) for subject in ODD_NAMES]
    assert len(set(names)) == len(ODD_NAMES)
    assert all(re.fullmatch("[A-Za-z0-9_][A-Za-z0-9_.-]{0,59}", name) for name in names)
    assert file_name("smic-hs/s01") == "smic-hs.s01"


def predicted(clips: Clips, folds: Sequence[Fold], seeds: Sequence[int]) -> list[Prediction]:
    return [
        Prediction(clips.clip_id[row], clips.subject[row], clips.dataset[row], fold.name, seed,
                   CLASSES[int(clips.target[row])], "negative", (1.0, 0.0, 0.0))
        for seed in seeds for fold in folds for row in fold.test
    ]  # fmt: skip


def test_whole_predictions_are_accepted_in_any_order(clips: Clips) -> None:
    folds = loso(clips)
    rows = predicted(clips, folds, (0, 1))
    complete(clips, folds, rows[::-1])
    complete(clips, folds, rows, seeds=(0, 1))


def test_missing_doubled_and_foreign_folds_are_refused_by_name(clips: Clips) -> None:
    folds = loso(clips)
    rows = predicted(clips, folds, (0, 1))
    lost = [row for row in rows if (row.fold, row.seed) != ("samm.s2", 1)]
    for damaged, message in [
        (lost, "samm.s2, seed 1: missing"),
        (rows[1:], "casme2.s1, seed 0: 1 of 3 clips missing"),
        ([*rows, *rows[:3]], "casme2.s1, seed 0: twice"),
        ([*rows, replace(rows[0], fold="samm.s9")], "samm.s9, seed 0: not of this run"),
        (
            [replace(rows[0], truth="surprise"), *rows[1:]],
            "casme2.s1, seed 0: 1 of 3 clips missing, 1 that do not belong",
        ),
        ([replace(rows[0], fold="samm.s1"), *rows[1:]], "samm.s1, seed 0: 0 of 3 clips missing, 1 that do not belong"),
        ([], "none at all"),
    ]:
        with pytest.raises(FoldsMissing) as caught:
            complete(clips, folds, damaged)
        assert message in str(caught.value)
    with pytest.raises(FoldsMissing, match=r"casme2\.s1, seed 2: missing"):
        complete(clips, folds, rows, seeds=(0, 1, 2))
    with pytest.raises(FoldsMissing, match="seed 1: not of this run"):
        complete(clips, folds, rows, seeds=(0,))


def test_folds_that_hold_a_clip_out_twice_are_refused(clips: Clips) -> None:
    folds = loso(clips)
    with pytest.raises(FoldsMissing, match=r"got casme2\.s1, clip0, clip1, clip2 twice"):
        complete(clips, [*folds, folds[0]], predicted(clips, folds, (0,)))
