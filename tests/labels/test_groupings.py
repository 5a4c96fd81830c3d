"""Groupings of labels: the counts that the annotation files of the data sets hold, and what is refused."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from flowkit.errors import ConfigError
from flowkit.labels.groupings import Grouping, default_grouping, grouping, preview
from flowkit.synthetic.scenes import LABELS

CLASSES = Path(__file__).parents[2] / "flowkit" / "labels" / "classes.toml"
FOUND = {
    "casme2": {"others": 99, "disgust": 63, "happiness": 32, "repression": 27, "surprise": 25, "sadness": 7, "fear": 2},
    "samm": {
        "Anger": 57,
        "Other": 26,
        "Happiness": 26,
        "Surprise": 15,
        "Contempt": 12,
        "Disgust": 9,
        "Fear": 8,
        "Sadness": 6,
    },
    "smic-hs": {"negative": 70, "positive": 51, "surprise": 43},
    "mmew": {"happiness": 36, "anger": 8, "surprise": 89, "disgust": 72, "fear": 16, "sadness": 13, "repression": 66},
    "casme3-a": {
        "disgust": 250,
        "surprise": 187,
        "others": 158,
        "Others": 3,
        "fear": 86,
        "anger": 64,
        "sad": 57,
        "happy": 55,
    },
    "casme3-c": {"negative": 99, "surprise": 30, "others": 20, "positive": 16},
}
"""Labels as the annotation files spell them, with how often."""


def counts(name: str, dataset: str) -> dict[str, int]:
    clips = [(dataset, label) for label, number in FOUND[dataset].items() for _ in range(number)]
    return preview(grouping(name), clips).counts[dataset]


@pytest.mark.parametrize(
    ("name", "dataset", "expected"),
    [
        ("3-class", "casme2", {"negative": 90, "positive": 32, "surprise": 25}),
        ("3-class", "samm", {"negative": 92, "positive": 26, "surprise": 15}),
        ("3-class", "smic-hs", {"negative": 70, "positive": 51, "surprise": 43}),
        ("3-class", "mmew", {"negative": 109, "positive": 36, "surprise": 89}),
        ("3-class", "casme3-a", {"negative": 457, "positive": 55, "surprise": 187}),
        ("3-class", "casme3-c", {"negative": 99, "positive": 16, "surprise": 30}),
        ("casme3-4", "casme3-a", {"negative": 457, "positive": 55, "surprise": 187, "others": 161}),
        ("samm-5", "samm", {"happiness": 26, "anger": 57, "contempt": 12, "surprise": 15, "others": 26}),
        ("mmew-4", "mmew", {"happiness": 36, "surprise": 89, "disgust": 72, "others": 66}),
    ],
)
def test_groupings_give_the_counts_that_are_known_of_the_data_sets(
    name: str, dataset: str, expected: dict[str, int]
) -> None:
    assert counts(name, dataset) == expected


@pytest.mark.parametrize(
    ("name", "dataset", "total"),
    [
        ("casme2-5", "casme2", 246),
        ("casme2-7", "casme2", 255),
        ("samm-8", "samm", 159),
        ("mmew-6", "mmew", 234),
        ("mmew-7", "mmew", 300),
        ("casme3-7", "casme3-a", 860),
        ("casme3-4", "casme3-c", 165),
    ],
)
def test_groupings_keep_the_number_of_clips_that_papers_report(name: str, dataset: str, total: int) -> None:
    assert sum(counts(name, dataset).values()) == total


@pytest.mark.parametrize(
    ("name", "dataset", "label", "expected"),
    [
        ("3-class", "CASME II", " Repression ", "negative"),
        ("3-class", "smic", "Positive", "positive"),
        ("3-class", "casme2", "negative", "negative"),  # grouped already
        ("3-class", "casme2", "sadness", None),
        ("3-class", "4dme", "Surprise+Positive", None),
        ("4dme-5", "4dme", "Repression", "repression"),
        ("objective-5", "samm", "4", "IV"),
        ("objective-5", "casme2", "iv", "IV"),
        ("objective-5", "casme2", "VII", None),
        ("raw", "synth", " Smile", "smile"),
    ],
)
def test_a_label_finds_its_class_however_it_is_written(
    name: str, dataset: str, label: str, expected: str | None
) -> None:
    assert grouping(name).of(dataset, label) == expected


@pytest.mark.parametrize(
    ("name", "dataset", "label", "message"),
    [
        ("3-class", "casme2", "hapiness", "Did you mean happiness"),
        ("3-class", "4dme", "surprise+joy", "must be one of negative, positive, surprise"),
        ("casme2-5", "casme2", "negative", "label of casme2 must be one of happiness"),
        ("3-class", "casme-2", "disgust", "Did you mean casme2"),
        ("casme2-5", "samm", "anger", "data set must be one of casme2; got 'samm'"),
        ("3-class", "mine", "smile", "raw takes any data set"),
        ("raw", "synth", "  ", "label of synth must be a word"),
    ],
)
def test_an_unknown_label_or_data_set_is_refused_with_what_may_have_been_meant(
    name: str, dataset: str, label: str, message: str
) -> None:
    with pytest.raises(ConfigError, match="classes") as caught:
        grouping(name).of(dataset, label)
    assert message in str(caught.value)


def test_every_class_of_synthetic_clips_has_its_place_and_all_three_are_there() -> None:
    found = {label: grouping("3-class").of("synth", label) for labels in LABELS.values() for label in labels}
    assert set(found.values()) == {"negative", "positive", "surprise"}


def test_an_unknown_grouping_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"got 'samm-6'\. Did you mean .*samm-5"):
        grouping("samm-6")


def test_raw_makes_every_label_a_class_in_sorted_order() -> None:
    found = grouping("raw").over([("synth", "smile"), ("other", "Frown"), ("synth", "frown")])
    assert found.classes == ("frown", "smile")
    with pytest.raises(ConfigError, match="got 'sulk'"):
        found.of("synth", "sulk")


@pytest.mark.parametrize(
    ("datasets", "expected"),
    [(("casme2", "SMIC"), "3-class"), (("synth",), "3-class"), (("mine",), "raw"), (("samm", "mine"), "raw")],
)
def test_raw_is_the_default_for_data_sets_that_are_not_known(datasets: tuple[str, ...], expected: str) -> None:
    assert default_grouping(datasets) == expected


def test_a_preview_says_what_each_class_gets_and_what_is_left_out() -> None:
    clips = [("casme2", "Fear"), ("casme2", "fear"), ("casme2", "disgust"), ("smic", "positive")]
    shown = preview(grouping("3-class"), clips)
    assert shown.counts == {
        "casme2": {"negative": 1, "positive": 0, "surprise": 0},
        "smic": {"negative": 0, "positive": 1, "surprise": 0},
    }
    assert shown.left_out == {"casme2": {"fear": 2}}
    assert shown.absent == ("surprise",)


def test_a_preview_lists_every_unknown_label_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        preview(grouping("3-class"), [("casme2", "joy"), ("samm", "rage"), ("samm", "anger")])
    assert "'joy'" in str(caught.value)
    assert "'rage'" in str(caught.value)


def small_file(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text('[datasets.lab]\nlabels = ["a", "b", "c"]\n[groupings.two]\n' + text, encoding="utf-8")
    return path


def test_a_file_of_ones_own_is_taken_in_place_of_the_bundled_one(tmp_path: Path) -> None:
    path = small_file(tmp_path, 'classes = ["x", "y"]\n[groupings.two.lab]\nx = ["a", "b"]\ny = ["c"]\n')
    with pytest.raises(ConfigError, match="must be one of two, raw; got '3-class'"):
        grouping("3-class", path)
    assert [grouping("two", path).of("lab", label) for label in "abc"] == ["x", "x", "y"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('classes = ["x", "y"]\n[groupings.two.lab]\nx = ["a"]\ny = ["c"]', "got 'b' in none"),
        ('classes = ["x", "y"]\n[groupings.two.lab]\nx = ["a", "b"]\ny = ["b", "c"]', "placed already"),
        ('classes = ["x", "y"]\n[groupings.two.lab]\nx = ["a", "b", "c", "d"]', "got 'd', an unknown label"),
        ('classes = ["x", "y"]\n[groupings.two.lab]\nz = ["a"]', "key must be one of x, y, left_out; got 'z'"),
        ('classes = ["x", "y"]\n[groupings.two.lap]\nx = ["a"]', "got 'lap'. Did you mean lab?"),
        ('classes = ["x", "x"]\n[groupings.two.lab]\nx = ["a"]', "two or more different names"),
        ('classes = ["x", "y"]\n[groupings.two.lab]\nx = "abc"', "must be a list of words"),
        ("classes = [", "readable TOML file"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        grouping("two", small_file(tmp_path, text))
    assert message in str(caught.value)


def test_every_bundled_grouping_can_produce_each_of_its_classes() -> None:
    for name in tomllib.loads(CLASSES.read_text(encoding="utf-8"))["groupings"]:
        made: Grouping = grouping(name)
        reachable = {cls for labels in made.datasets.values() for cls in labels.classes.values() if cls}
        assert reachable == set(made.classes), name


def test_reading_groupings_costs_neither_torch_nor_hdf5() -> None:
    heavy = "{'torch', 'h5py', 'cv2', 'numba'} & set(sys.modules)"
    code = f"import flowkit.labels.groupings as c; c.grouping('3-class'); sys.exit(str({heavy}))"
    code = f"import sys; sys.path[:0] = {sys.path!r}; {code}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "set()"


def test_a_data_set_that_a_grouping_does_not_know_is_told_once() -> None:
    clips = [("samm", "anger"), ("samm", "fear"), ("casme2", "rage"), ("casme2", "joy")]
    with pytest.raises(ConfigError) as caught:
        preview(grouping("casme2-5"), clips)
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert [line for line in lines if "got 'samm'" in line] == lines[2:]
