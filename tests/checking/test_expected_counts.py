"""What known data sets should hold: the file is sound, agrees with classes.toml, and its reasons explain exactly what they say."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from flowkit.checking.expected_counts import CHECKED, compare, expectations, frame_rates
from flowkit.inputs.clip import Clip
from flowkit.labels.class_maps import LEFT_OUT
from flowkit.labels.groupings import grouping, label_name


def clips(dataset: str, counts: dict[str, int], subjects: int, prefix: str = "x") -> list[Clip]:
    """So many clips of each label, dealt out to the subjects."""
    labels = [label for label, number in counts.items() for _ in range(number)]
    return [
        Clip(f"{prefix}{i}", f"{dataset}/{prefix}{i}", 1, 2, 3, f"s{i % subjects}", dataset, label)
        for i, label in enumerate(labels)
    ]


def named(rows: list[Clip], label: str, *names: str) -> list[Clip]:
    """The same clips, of which as many as there are names have this label and these ids."""
    ids = iter(names)
    return [
        Clip(next(ids, c.clip_id), c.path, 1, 2, 3, c.subject, c.dataset, c.label) if c.label == label else c
        for c in rows
    ]


CASME2 = {"disgust": 61, "repression": 27, "happiness": 32, "surprise": 25}
SMIC = {"negative": 70, "positive": 51, "surprise": 43}
SAMM = {"anger": 57, "contempt": 12, "disgust": 9, "fear": 8, "sadness": 6, "happiness": 26, "surprise": 15}


def editions() -> Iterator[tuple[str, object]]:
    for dataset, known in expectations()[0].items():
        yield from ((dataset, edition) for edition in known.editions)


@pytest.mark.parametrize(("dataset", "edition"), list(editions()), ids=lambda value: getattr(value, "name", value))
def test_each_edition_adds_up_and_uses_the_words_of_the_groupings(dataset: str, edition) -> None:
    assert dataset in grouping("3-class").datasets
    assert edition.checked in CHECKED
    if edition.counts:
        assert sum(edition.counts.values()) == edition.clips
        groups = grouping(edition.grouping or "3-class")
        words = {*groups.classes, LEFT_OUT} if edition.grouping else {*groups.datasets[dataset].classes}
        assert set(edition.counts) <= words


@pytest.mark.parametrize(("dataset", "edition"), list(editions()), ids=lambda value: getattr(value, "name", value))
def test_a_perfect_copy_of_each_edition_is_as_expected(dataset: str, edition) -> None:
    words = {LEFT_OUT: "VI"}
    counts = {words.get(name, name): number for name, number in edition.counts.items()} or {"happiness": edition.clips}
    (found,) = compare(clips(dataset, counts, edition.subjects or 5))
    assert (found.edition.name, found.clips, found.explanations) == (edition.name, edition.clips, ())


def test_further_expressions_of_smic_e_are_told_apart() -> None:
    counts = {"negative": 65, "positive": 51, "surprise": 42}
    rows = clips("smic-hs", counts, 16)
    more = [Clip(f"smic-hs/s01/s01_ne_{n}/2", "p", 1, 2, 3, "s0", "smic-hs", "negative") for n in range(9)]
    (found,) = compare([*rows, *more])
    assert (found.edition.name, found.clips, found.explanations) == ("SMIC-HS-E, 157 rows", 158, ())
    assert found.further == "9 further expressions of rows of SMIC-E, which no list counts"


def test_the_workbook_s_label_of_one_clip_is_a_known_reason() -> None:
    for dataset, counts in (
        ("smic-hs", {"negative": 71, "positive": 51, "surprise": 42}),
        ("smic-vis", {"negative": 24, "positive": 28, "surprise": 19}),
    ):
        rows = named(clips(dataset, counts, 16 if dataset == "smic-hs" else 8), "negative", f"{dataset}/s18/s18_sur_03")
        (found,) = compare(rows)
        assert "+0 clips (negative +1, surprise -1): the workbook calls s18_sur_03 negative" in found.explanations[0]


def test_each_reason_belongs_to_an_edition_and_uses_its_words() -> None:
    for known in expectations()[0].values():
        for reason in known.reasons:
            (edition,) = [one for one in known.editions if one.name == reason.edition]
            assert reason.checked in CHECKED
            assert isinstance(reason.change, int) or set(reason.change) <= set(edition.counts)


def test_the_composite_is_the_sum_of_its_members() -> None:
    known, composites = expectations()
    for composite in composites:
        for name, accepted in composite.members.items():
            assert set(accepted) <= {edition.name for edition in known[name].editions}
        parts = [
            next(e for e in known[name].editions if e.name == part) for name, (part, *_) in composite.members.items()
        ]
        assert sum(part.clips for part in parts) == composite.edition.clips
        assert sum(part.subjects or 0 for part in parts) == composite.edition.subjects
        for name, number in composite.edition.counts.items():
            assert sum(part.counts[name] for part in parts) == number


@pytest.mark.parametrize(
    ("dataset", "groups", "number"),
    [
        ("casme2", "casme2-5", 246),
        ("casme2", "casme2-7", 255),
        ("samm", "samm-5", 136),
        ("samm", "samm-8", 159),
        ("mmew", "mmew-7", 300),
        ("mmew", "mmew-6", 234),
        ("mmew", "mmew-4", 263),
    ],
)
def test_groupings_give_the_counts_that_the_field_reports(dataset: str, groups: str, number: int) -> None:
    edition = expectations()[0][dataset].editions[0]
    placed = [count for label, count in edition.counts.items() if grouping(groups).of(dataset, label) is not None]
    assert sum(placed) == number


def test_whole_data_sets_are_as_expected_however_their_names_are_written() -> None:
    edition = expectations()[0]["casme2"].editions[0]
    (found,) = compare(clips("CASME II", {label.title(): n for label, n in edition.counts.items()}, 26))
    assert (found.dataset, found.edition.name, found.explanations) == ("casme2", "2014-05-08", ())


def test_the_composite_of_442_and_the_435_of_capsulenet() -> None:
    casme2, samm, smic = clips("casme2", CASME2, 24, "c"), clips("samm", SAMM, 28, "m"), clips("smic-hs", SMIC, 16, "h")
    *parts, whole = compare([*casme2, *samm, *smic])
    assert [part.edition.name for part in parts] == ["MEGC2019"] * 3
    assert all(part.explanations == () for part in parts)
    assert (whole.dataset, whole.clips, whole.subjects, whole.explanations) == ("MEGC2019", 442, 68, ())
    fewer = clips("smic-hs", {"negative": 65, "positive": 51, "surprise": 41}, 16, "h")
    *_, whole = compare([*casme2, *samm, *fewer])
    assert whole.clips == 435
    assert whole.counts == {"negative": (245, 250), "positive": (109, 109), "surprise": (81, 83)}
    (text,) = whole.explanations
    assert text.startswith("-7 clips (negative -5, surprise -2): ")
    assert "CapsuleNet therefore scored 435 clips, not 442" in text


def test_a_reason_whose_clips_are_there_explains_nothing() -> None:
    counts = {"negative": 65, "positive": 51, "surprise": 41}
    there = named(clips("smic-hs", counts, 16), "negative", "s1/micro/negative/s1_ne_02")
    (found,) = compare(there)
    assert found.explanations == ("-6 clips (negative -5, surprise -1): no known reason fits.",)


def test_reasons_add_up_and_clips_that_must_be_there_are_looked_for() -> None:
    smic = clips("smic-hs", {"negative": 69, "positive": 51, "surprise": 41}, 16, "h")
    *_, whole = compare([*clips("casme2", CASME2, 24, "c"), *clips("samm", SAMM, 28, "m"), *smic])
    assert len(whole.explanations) == 2
    two_more = clips("casme2", CASME2 | {"disgust": 63}, 24)
    assert "no known reason" in compare(two_more)[0].explanations[0]
    (found,) = compare(named(two_more, "disgust", "casme2/sub04/EP12_01f", "sub5_EP9_05f"))
    assert "+2 clips (negative +2): the official list leaves out two disgust clips" in found.explanations[0]


def test_differences_in_number_alone_and_in_subjects_are_told() -> None:
    labels = dict(expectations()[0]["casme2"].editions[0].counts)
    (found,) = compare(clips("casme2", labels | {"others": 100}, 25))
    assert "256 rows" in found.explanations[0]
    assert "read in a public program" in found.explanations[0]
    assert found.explanations[1] == "-1 subjects."


def test_without_labels_the_number_of_clips_tells_the_edition() -> None:
    for dataset, number, subjects, edition in (
        ("samm", 159, 29, "v2"),
        ("casme2", 255, 26, "2014-05-08"),
        ("smic-hs", 164, 16, "MEGC2019"),
    ):
        for label in ("", "unlabelled"):
            assert compare(clips(dataset, {label: number}, subjects))[0].edition.name == edition


def test_reasons_without_labels_explain_no_labels() -> None:
    counts = dict(expectations()[0]["casme2"].editions[0].counts)
    (found,) = compare(clips("casme2", counts | {"sadness": 0, "fear": 0}, 26))
    assert found.explanations[0].endswith("no known reason fits.")
    classes = {"I": 25, "II": 15, "III": 99, "IV": 26, "V": 20, "VI": 70}
    for moved, known in ((30, True), (60, False)):
        (found,) = compare(clips("casme2", classes | {"I": 25 + moved, "III": 99 - moved}, 26))
        assert ("differ in 37 of 255 rows" in found.explanations[0]) == known


def test_part_of_a_data_set_unknown_and_empty_labels_are_no_error() -> None:
    (found,) = compare(clips("samm", {"": 2, "boredom": 1, "Other": 1}, 2))
    assert found.counts["no label"] == (2, 0)
    assert found.counts["boredom"] == (1, 0)
    assert compare(clips("mine", {"joy": 3}, 2)) == ()
    assert compare([]) == ()


def test_rates_and_labels_by_any_name() -> None:
    assert frame_rates("CASME II") == (200,)
    assert frame_rates("mine") == ()
    assert label_name("MMEW", " Repression ") == "others"
    assert label_name("mine", "Joy") == "joy"
