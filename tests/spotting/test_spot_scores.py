"""The scores of spotting, against cases counted by hand."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flowkit.errors import ConfigError, ManifestError
from flowkit.spotting import scores as scores_module
from flowkit.spotting.intervals import overlap
from flowkit.spotting.scores import (
    IOU,
    Expression,
    SpotScores,
    matched,
    read_expressions,
    score_spotting,
)

HEADER = "clip_id,path,onset,apex,offset,subject,dataset,label"


def micro(video: str, onset: int, offset: int, label: str = "") -> Expression:
    return Expression(video, onset, offset, "micro", label)


def macro(video: str, onset: int, offset: int, label: str = "") -> Expression:
    return Expression(video, onset, offset, "macro", label)


def counts(scores: SpotScores, kind: str) -> tuple[int, int, int]:
    """How many are true, found and hits."""
    one = scores.kinds[kind]
    return one.true, one.found, one.hits


def table(folder: Path, *rows: str, header: str = HEADER) -> Path:
    file = folder / "truth.csv"
    file.write_text("\n".join([header, *rows, ""]))
    return file


def test_what_is_the_same_is_a_hit() -> None:
    truth = [micro("a", 10, 19), micro("b", 5, 9), macro("a", 30, 90)]
    scores = score_spotting(truth, truth)
    assert [counts(scores, kind) for kind in ("micro", "macro", "all")] == [(2, 2, 2), (1, 1, 1), (3, 3, 3)]
    assert all((one.precision, one.recall, one.f1) == (1, 1, 1) for one in scores.kinds.values())
    assert (scores.videos, scores.iou) == (2, IOU)


def test_of_two_found_that_overlap_one_true_one_is_a_false_alarm() -> None:
    """Both share 70 frames or more with it; the union of the second is 100 frames, too."""
    truth, found = [micro("a", 0, 99)], [micro("a", 0, 69), micro("a", 10, 99)]
    scores = score_spotting(truth, found)
    assert counts(scores, "micro") == (1, 2, 1)
    assert scores.kinds["micro"].precision == 0.5
    assert scores.kinds["micro"].recall == 1
    assert scores.kinds["micro"].f1 == pytest.approx(2 / 3)
    assert matched(truth, found) == [(0, 1)]
    assert counts(score_spotting(found, truth), "micro") == (2, 1, 1)


def test_the_best_pair_of_each_does_not_take_another_hit_away() -> None:
    """The first true interval fits both, 0.9 and 0.6; the second only the one that fits the first best, 0.5."""
    truth = [micro("a", 0, 9), micro("a", 5, 9)]
    found = [micro("a", 0, 9), micro("a", 0, 5)]
    assert sorted(matched(truth, found)) == [(0, 1), (1, 0)]


def test_both_ends_of_an_interval_are_frames_of_it() -> None:
    """10 to 19 and 15 to 24 share five of fifteen frames; without the last ones, they would share four of fourteen."""
    one, other = micro("a", 10, 19), micro("a", 15, 24)
    assert counts(score_spotting([one], [other], iou=5 / 15), "micro") == (1, 1, 1)
    assert counts(score_spotting([one], [other], iou=5 / 15 + 1e-6), "micro") == (1, 1, 0)
    assert counts(score_spotting([micro("a", 7, 7)], [micro("a", 7, 7)]), "micro") == (1, 1, 1)
    assert counts(score_spotting([micro("a", 7, 7)], [micro("a", 8, 8)], iou=0.01), "micro") == (1, 1, 0)


@pytest.mark.parametrize(("last", "hits"), [(49, 1), (48, 0)])
def test_half_counts_and_less_does_not(last: int, hits: int) -> None:
    """Of 100 frames, 50 are shared, and then 49."""
    assert counts(score_spotting([micro("a", 0, 99)], [micro("a", 0, last)]), "micro") == (1, 1, hits)


@pytest.mark.parametrize(("length", "hits"), [(2, 1), (3, 1), (7, 1), (49, 1), (333, 1)])
def test_half_counts_at_every_length(length: int, hits: int) -> None:
    found = micro("a", 0, length - 1)
    assert counts(score_spotting([micro("a", 0, 2 * length - 1)], [found]), "micro") == (1, 1, hits)
    assert counts(score_spotting([micro("a", 0, 2 * length)], [found]), "micro") == (1, 1, 0)


def test_kinds_do_not_mix_and_all_is_their_sum() -> None:
    truth = [micro("a", 10, 19), macro("a", 100, 199), macro("a", 300, 399)]
    found = [macro("a", 10, 19), macro("a", 100, 199), micro("a", 300, 399), micro("a", 600, 609)]
    scores = score_spotting(truth, found)
    assert counts(scores, "micro") == (1, 2, 0)
    assert counts(scores, "macro") == (2, 2, 1)
    assert counts(scores, "all") == (3, 4, 1)
    assert (scores.kinds["all"].precision, scores.kinds["all"].recall) == (0.25, pytest.approx(1 / 3))
    assert scores.kinds["all"].f1 == pytest.approx(2 / 7)
    assert scores.kinds["micro"].f1 == 0


def test_videos_do_not_mix() -> None:
    scores = score_spotting([micro("a", 0, 9), micro("b", 50, 59)], [micro("a", 50, 59), micro("b", 0, 9)])
    assert counts(scores, "micro") == (2, 2, 0)


def test_counts_are_pooled_over_videos_and_ratios_are_not_averaged() -> None:
    """Video a: 1 of 1; video b: 1 of 3 found and 1 of 4 true. Averaged precision would be 2/3, pooled it is 2/4."""
    truth = [micro("a", 0, 9), *(micro("b", at, at + 9) for at in (0, 100, 200, 300))]
    found = [micro("a", 0, 9), *(micro("b", at, at + 9) for at in (0, 550, 650))]
    score = score_spotting(truth, found).kinds["micro"]
    assert (score.true, score.found, score.hits) == (5, 4, 2)
    assert (score.precision, score.recall) == (0.5, 0.4)
    assert score.f1 == pytest.approx(4 / 9)


def test_spot_then_recognise_counts_a_class_without_a_hit() -> None:
    """Of five true and five found, four are hits.

    Happiness: 2 hits, 1 called so, and rightly. Surprise: 2 hits, 3 called so, 2 rightly. Disgust: no hit.
    Mean precision (1 + 2/3 + 0) / 3 = 5/9; mean recall (1/2 + 1 + 0) / 3 = 1/2; F1 10/19. Spotting: F1 4/5.
    """
    truth = [
        micro("a", 0, 9, "happiness"),
        micro("a", 100, 109, "happiness"),
        micro("b", 0, 9, "surprise"),
        micro("b", 100, 109, "surprise"),
        micro("b", 200, 209, "disgust"),
    ]
    found = [
        micro("a", 0, 9, "happiness"),
        micro("a", 100, 109, "surprise"),
        micro("b", 0, 9, "surprise"),
        micro("b", 100, 109, "surprise"),
        micro("b", 500, 509, "happiness"),
    ]
    scores = score_spotting(truth, found)
    assert counts(scores, "micro") == (5, 5, 4)
    assert scores.class_f1 == pytest.approx(10 / 19)
    assert scores.strs == pytest.approx(4 / 5 * 10 / 19)


def test_a_hit_that_got_no_class_is_not_recognised() -> None:
    """Happiness: precision 1, recall 1/2; surprise: both 1. Mean precision 1, mean recall 3/4: F1 6/7."""
    truth = [micro("a", 0, 9, "happiness"), micro("a", 50, 59, "happiness"), micro("a", 100, 109, "surprise")]
    found = [micro("a", 0, 9, "happiness"), micro("a", 50, 59), micro("a", 100, 109, "surprise")]
    scores = score_spotting(truth, found)
    assert scores.class_f1 == pytest.approx(6 / 7)
    assert scores.strs == pytest.approx(6 / 7)


def test_classes_of_macro_expressions_do_not_count() -> None:
    truth = [micro("a", 0, 9, "happiness"), macro("a", 100, 199, "surprise")]
    found = [micro("a", 0, 9, "happiness"), macro("a", 100, 199, "disgust")]
    assert score_spotting(truth, found).class_f1 == 1


def test_without_classes_in_a_table_there_is_no_recognition() -> None:
    truth = [micro("a", 0, 9, "happiness"), micro("b", 0, 9, "happiness")]
    scores = score_spotting(truth, [micro("a", 0, 9), micro("b", 0, 9), macro("b", 50, 99, "happiness")])
    assert math.isnan(scores.class_f1)
    assert math.isnan(scores.strs)
    assert all(math.isnan(bound) for bound in scores.strs_interval)
    assert scores.to_dict()["strs"] is None
    assert scores.to_dict()["strs_interval"] == [None, None]


def many() -> tuple[list[Expression], list[Expression]]:
    """Twelve videos, of which each third is spotted well and each third badly."""
    truth, found = [], []
    for number in range(12):
        name = f"s{number}"
        truth += [micro(name, 0, 9, "happiness"), micro(name, 100, 109, "surprise"), macro(name, 200, 299)]
        found += [micro(name, 0, 9, "happiness"), macro(name, 200 + 40 * (number % 3), 299)]
        if number % 3:
            found.append(micro(name, 100, 109, "surprise" if number % 2 else "happiness"))
        else:
            found.append(micro(name, 500, 509, "surprise"))
    return truth, found


def test_bootstrap_intervals_are_the_same_each_time_and_contain_the_score() -> None:
    first, second = (score_spotting(*many()) for _ in range(2))
    assert first == second
    for one in first.kinds.values():
        low, high = one.f1_interval
        assert 0 <= low < one.f1 < high <= 1
    low, high = first.strs_interval
    assert 0 <= low < first.strs < high <= 1


def test_bootstrap_intervals_are_as_wide_as_videos_differ() -> None:
    truth = [micro(name, 0, 9) for name in "abcdefgh"]
    alike = score_spotting(truth, truth).kinds["micro"].f1_interval
    apart = score_spotting(truth, truth[:4]).kinds["micro"].f1_interval
    assert alike == (1, 1)
    assert apart[1] - apart[0] > 0.3


def test_one_video_has_no_bootstrap_interval() -> None:
    truth = [micro("a", 0, 9, "happiness")]
    scores = score_spotting(truth, truth)
    assert all(math.isnan(bound) for one in scores.kinds.values() for bound in one.f1_interval)
    assert all(math.isnan(bound) for bound in scores.strs_interval)
    assert scores.strs == 1


def test_nothing_found_or_nothing_true_is_zero() -> None:
    truth = [micro("a", 0, 9), micro("b", 0, 9)]
    for scores, expected in ((score_spotting(truth, []), (2, 0, 0)), (score_spotting([], truth), (0, 2, 0))):
        assert counts(scores, "micro") == expected
        assert (scores.kinds["micro"].precision, scores.kinds["micro"].recall, scores.kinds["micro"].f1) == (0, 0, 0)
    empty = score_spotting([], [])
    assert (empty.videos, counts(empty, "all")) == (0, (0, 0, 0))


def test_tables_of_other_videos_are_refused() -> None:
    with pytest.raises(ManifestError, match=r"got s1/a\.mp4 in the first and a\.mp4 in the second"):
        score_spotting([micro("s1/a.mp4", 0, 9)], [micro("a.mp4", 0, 9)])


def test_videos_of_one_table_alone_are_counted() -> None:
    scores = score_spotting(
        [micro("a", 1, 9), micro("b", 1, 9)], [micro("b", 1, 9), micro("./a", 1, 9), micro("c", 1, 9)]
    )
    assert (scores.videos, scores.only_true, scores.only_found) == (4, 1, 2)


def test_bootstrap_intervals_are_the_same_however_many_draws_are_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    truth = [micro(str(video), 10, 19, f"class{video % 7}") for video in range(20)]
    found = [micro(str(video), 10, 19, f"class{video % 5}") for video in range(0, 20, 2)]
    whole = score_spotting(truth, found)
    monkeypatch.setattr(scores_module, "MOST_AT_ONCE", 1000)
    assert score_spotting(truth, found) == whole
    assert whole.strs_interval[0] < whole.strs < whole.strs_interval[1]


def test_scores_are_plain_values_for_json() -> None:
    plain = score_spotting([micro("a", 0, 9)], [micro("a", 0, 9)]).to_dict()
    read = json.loads(json.dumps(plain, allow_nan=False))
    assert read["kinds"]["micro"]["f1"] == 1
    assert read["kinds"]["micro"]["f1_interval"] == [None, None]


INTERVALS = st.tuples(st.integers(0, 12), st.integers(0, 12)).map(lambda ends: micro("a", min(ends), max(ends)))


def most_pairs(truth: Sequence[Expression], found: Sequence[Expression], iou: float) -> int:
    """The most pairs of any way to give each true interval another found one, or none."""
    places: list[int | None] = [*range(len(found)), *[None] * len(truth)]
    return max(
        sum(
            place is not None
            and overlap((one.onset, one.offset), (found[place].onset, found[place].offset)) >= iou - 1e-12
            for one, place in zip(truth, chosen, strict=True)
        )
        for chosen in set(itertools.permutations(places, len(truth)))
    )


@settings(deadline=None, max_examples=60)
@given(st.lists(INTERVALS, max_size=4), st.lists(INTERVALS, max_size=4), st.sampled_from([0.1, 1 / 3, 0.5, 0.75]))
@example([micro("a", 0, 9), micro("a", 8, 9)], [micro("a", 0, 9), micro("a", 0, 1)], 0.1)
def test_as_many_as_possible_are_paired(truth: list[Expression], found: list[Expression], iou: float) -> None:
    pairs = matched(truth, found, iou)
    assert len({i for i, _ in pairs}) == len({j for _, j in pairs}) == len(pairs)
    for i, j in pairs:
        assert overlap((truth[i].onset, truth[i].offset), (found[j].onset, found[j].offset)) >= iou - 1e-12
    assert len(pairs) == most_pairs(truth, found, iou)


def test_a_table_is_read_with_its_kinds_in_any_spelling(tmp_path: Path) -> None:
    spellings = ["Micro - 1/2", "micro-expression", "micro", "macro", "Macro - 2/2", "MACRO-EXPRESSION", "blink"]
    rows = [f"c{n},a.mp4,{100 * n},,{100 * n + 40},s1,own,Happiness,{kind}" for n, kind in enumerate(spellings)]
    found = read_expressions(table(tmp_path, *rows, header=f"{HEADER},kind"))
    assert [one.kind for one in found] == ["micro"] * 3 + ["macro"] * 3
    assert found[1] == Expression("a.mp4", 100, 140, "micro", "happiness")


def test_without_a_kind_what_lasts_at_most_half_a_second_is_micro(tmp_path: Path) -> None:
    rows = [
        "a,a.mp4,0,,15,s1,own,x,30",
        "b,a.mp4,100,,116,s1,own,x,30",
        "c,a.mp4,200,,300,s1,own,x,200",
        "d,a.mp4,400,,501,s1,own,x,200",
    ]
    found = read_expressions(table(tmp_path, *rows, header=f"{HEADER},fps"))
    assert [one.kind for one in found] == ["micro", "macro", "micro", "macro"]


def test_the_rate_of_a_row_goes_before_that_of_the_argument(tmp_path: Path) -> None:
    rows = ["a,a.mp4,0,,30,s1,own,x,", "b,a.mp4,100,,130,s1,own,x,30"]
    found = read_expressions(table(tmp_path, *rows, header=f"{HEADER},fps"), fps=100.0)
    assert [one.kind for one in found] == ["micro", "macro"]


def test_a_kind_that_is_stated_goes_before_the_length(tmp_path: Path) -> None:
    rows = ["a,a.mp4,0,,90,s1,own,x,30,micro", "b,a.mp4,100,,105,s1,own,x,30,macro", "c,a.mp4,200,,205,s1,own,x,30,"]
    found = read_expressions(table(tmp_path, *rows, header=f"{HEADER},fps,kind"))
    assert [one.kind for one in found] == ["micro", "macro", "micro"]


def test_an_offset_that_is_missing_is_the_apex(tmp_path: Path) -> None:
    (one,) = read_expressions(table(tmp_path, "a,a.mp4,10,22,,s1,own,x"), fps=30.0)
    assert (one.onset, one.offset, one.kind) == (10, 22, "micro")


def test_a_row_that_says_nothing_was_found_is_none(tmp_path: Path) -> None:
    file = table(
        tmp_path,
        "1,a.mp4,0,,,s1,x,fear,,FACE_NOT_FOUND: none",
        "2,b.mp4,0,,9,s1,x,fear,micro,",
        header=f"{HEADER},kind,spot_problem",
    )
    assert [one.video for one in read_expressions(file)] == ["b.mp4"]


def test_problems_name_their_lines(tmp_path: Path) -> None:
    rows = [
        "a,a.mp4,10,,40,s1,own,x",
        "b,a.mp4,50,,40,s1,own,x",
        "c,a.mp4,60,,,s1,own,x",
        "d,a.mp4,70,75,80,s1,own,x",
    ]
    with pytest.raises(ManifestError) as error:
        read_expressions(table(tmp_path, *rows), fps=30.0)
    lines = str(error.value).splitlines()
    assert [line.split(":")[:2] for line in lines] == [["truth.csv", "3"], ["truth.csv", "4"]]
    assert all("offset must be a frame behind the onset" in line for line in lines)
    assert "got none, and no apex" in lines[1]


def test_rows_of_unknown_kind_and_rate_are_named(tmp_path: Path) -> None:
    rows = ["a,a.mp4,10,,40,s1,own,x,micro", "b,a.mp4,50,,60,s1,own,x,"]
    with pytest.raises(ManifestError, match=r"truth\.csv:3: kind or fps must be known"):
        read_expressions(table(tmp_path, *rows, header=f"{HEADER},kind"))


def test_a_header_alone_is_a_table_without_expressions(tmp_path: Path) -> None:
    assert read_expressions(table(tmp_path)) == []
    with pytest.raises(ManifestError, match="header must name"):
        read_expressions(table(tmp_path, header="clip_id,path"))


def test_labels_become_classes(tmp_path: Path) -> None:
    rows = [
        "a,a.mp4,0,,9,s1,casme2,Repression",
        "b,a.mp4,20,,29,s1,casme2,positive",
        "c,a.mp4,40,,49,s1,casme2,unlabelled",
        "d,a.mp4,60,,69,s1,casme2,others",
        "e,a.mp4,80,,89,s1,casme2,",
    ]
    file = table(tmp_path, *rows)
    assert [one.label for one in read_expressions(file, fps=30.0, classes="3-class")] == [
        "negative",
        "positive",
        "",
        "",
        "",
    ]
    assert [one.label for one in read_expressions(file, fps=30.0)] == ["repression", "positive", "", "others", ""]
    with pytest.raises(ConfigError, match="grouping must be one of"):
        read_expressions(file, fps=30.0, classes="none-such")
