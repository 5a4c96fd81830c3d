"""Labels of a data set of one's own: their place in bundled groupings and in new ones, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import own_set
from flowkit.errors import ConfigError
from flowkit.labels.groupings import dataset_name, default_grouping, grouping, label_name, preview


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(own_set.VARIABLE, str(tmp_path / "lab"))
    return own_set.write(tmp_path / "lab")


def test_a_label_finds_its_class_however_it_is_written(lab: Path) -> None:
    three = grouping("3-class")
    assert [three.of("Toy Set", label) for label in ("Joy", "fury", "startle", "boredom", "positive")] == [
        *("positive", "negative", "surprise", None, "positive"),
    ]
    assert [grouping("toy-2").of("toy", label) for label in ("joy", "anger")] == ["joy", "rest"]
    assert grouping("toy-2").classes == ("joy", "rest")
    assert (dataset_name("TOY SET"), label_name("toy", "Fury")) == ("toy", "anger")
    assert default_grouping(["casme2", "toy"]) == "3-class"
    assert three.of("casme2", "Repression") == "negative"


def test_clips_of_bundled_and_own_sets_are_counted_together(lab: Path) -> None:
    counts = preview(grouping("3-class"), [("toy", "joy"), ("casme2", "happiness")]).counts
    assert counts == {name: {"negative": 0, "positive": 1, "surprise": 0} for name in ("casme2", "toy")}


def test_a_set_without_labels_is_known_to_raw_alone(lab: Path) -> None:
    own_set.write(lab, toml='[layout]\ntitle = "Toy"\nfolders = ["{clip}"]\n')
    assert default_grouping(["toy"]) == "raw"
    assert label_name("toy", "Fury") == "fury"
    with pytest.raises(ConfigError, match=rf"got 'toy'.* or add it to {lab}/toy\.toml\."):
        grouping("3-class").of("toy", "joy")


def test_a_set_outside_3_class_has_its_spellings(lab: Path) -> None:
    start, end = own_set.TOML.index("[groupings.3-class]"), own_set.TOML.index("[groupings.toy-2]")
    own_set.write(lab, toml=own_set.TOML[:start] + own_set.TOML[end:])
    assert (default_grouping(["toy"]), label_name("toy", "Fury")) == ("raw", "anger")


def test_an_unknown_label_is_refused_with_the_file_to_add_it_to(lab: Path) -> None:
    with pytest.raises(
        ConfigError, match=rf"label of toy must be one of .*'bordom'\. Did you mean boredom\?.*{lab}/toy\.toml\.$"
    ):
        grouping("3-class").of("toy", "bordom")
    with pytest.raises(ConfigError, match=r"add it to classes\.toml\.$"):
        grouping("3-class").of("casme2", "bordom")


def test_two_sets_share_a_new_grouping_that_one_of_them_makes(
    tmp_path: Path, lab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toml = own_set.changed(own_set.changed(own_set.TOML, 'classes = ["joy", "rest"]\n', ""), 'also = ["toy set"]', "")
    more = own_set.write(tmp_path / "more", "aa-toy", own_set.changed(toml, 'about = "Toy, joy or not"\n', ""))
    monkeypatch.setenv(own_set.VARIABLE, f"{more}{os.pathsep}{lab}")
    assert [grouping("toy-2").of(name, "joy") for name in ("toy", "aa-toy")] == ["joy", "joy"]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (
            'labels = ["joy", ',
            'label = ["joy", ',
            "labels: key must be one of also, labels, spellings, joint; got 'label'. Did you",
        ),
        ('labels = ["joy", ', 'labels = [1, "joy", ', "labels.labels must be a list of words; got [1"),
        ("[labels] ", "[[labels]] ", "labels must be a table; got [{"),
        (
            'negative = ["anger"]',
            'negative = ["angre"]',
            "groupings.3-class.negative: entry must be a label not placed yet; got 'angre'",
        ),
        (
            'negative = ["anger"]',
            "",
            "groupings.3-class: every label must be in a class or in left_out; got 'anger' in none. Place it.",
        ),
        (
            'negative = ["anger"]',
            'bad = ["anger"]',
            "groupings.3-class: key must be one of negative, positive, surprise, left_out",
        ),
        ("[groupings.3-class]", "[groupings.3-clas]", "groupings.3-clas: grouping must be one of 3-class, objective-5"),
        ("[groupings.toy-2]", "[groupings.casme2-5]", "groupings.casme2-5.classes must be those of a new grouping"),
        ("[groupings.toy-2]", "[groupings.raw]", "groupings.raw: name must not be raw"),
        ('["joy", "rest"]', '["joy"]', "groupings.toy-2.classes must be two or more different names"),
        ("toy set", "CASME II", "labels.also must hold new names; got 'casme ii', a name of casme2. Remove it."),
        ("toy set", "samm", "labels.also must hold new names; got 'samm', a name of samm. Remove it."),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(lab: Path, old: str, new: str, says: str) -> None:
    own_set.write(lab, toml=own_set.changed(own_set.TOML, old, new))
    with pytest.raises(ConfigError) as caught:
        grouping("3-class")
    assert f"{lab / 'toy.toml'}: {says}" in str(caught.value)


def test_groupings_without_labels_are_refused(lab: Path) -> None:
    own_set.write(lab, toml="[layout]\n[groupings.3-class]\n")
    with pytest.raises(
        ConfigError, match=r"toy\.toml: labels must be a table with every label .*; got none\. Add \[labels\]"
    ):
        grouping("3-class")
