"""What a data set of one's own should hold: its editions, rates and reasons are used, and what is wrong with them is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

import own_set
from flowkit.checking.expected_counts import compare, expectations, frame_rates
from flowkit.errors import ConfigError
from flowkit.inputs.manifest import Clip

REASON = """
[[expected.reasons]]
edition = "2026"
change = { Joy = -1 }
absent = ["p9/c9"]
why = "the first release lacks p9/c9"
source = "the authors"
checked = "lit"
"""
BY_CLASS = """
[[expected.editions]]
name = "in classes"
about = "the same, in classes"
clips = 3
grouping = "3-class"
classes = { positive = 3 }
source = "Toy-coding-2026.csv"
checked = "file"
"""


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(own_set.VARIABLE, str(tmp_path / "lab"))
    return own_set.write(tmp_path / "lab", toml=own_set.TOML + REASON + BY_CLASS)


def clips(*labels: str) -> list[Clip]:
    return [
        Clip(f"c{i}", f"x/c{i}", 1, 2, 3, f"p{1 + i % 2}", "Toy Set" if i % 2 else "toy", label)
        for i, label in enumerate(labels)
    ]


def test_a_manifest_is_held_against_the_nearest_edition(lab: Path) -> None:
    (found,) = compare(clips("Joy", "joy", "fury", "startle"))
    assert (found.dataset, found.edition.name, found.subjects, found.explanations) == ("toy", "2026", 2, ())
    assert found.counts == {"joy": (2, 2), "anger": (1, 1), "startle": (1, 1)}
    (found,) = compare(clips("joy", "fury", "startle"))
    assert found.explanations == (
        "-1 clips (joy -1): the first release lacks p9/c9 (the authors; from the literature, not checked).",
    )
    (found,) = compare(clips("joy", "joy", "joy"))
    assert (found.edition.name, found.counts, found.explanations) == ("in classes", {"positive": (3, 3)}, ())


def test_rates_are_known_beside_those_of_bundled_sets(lab: Path) -> None:
    assert (frame_rates("Toy Set"), frame_rates("CASME II")) == ((100,), (200,))
    assert list(expectations()[0])[-1] == "toy"


def test_a_set_of_which_nothing_is_expected_is_compared_with_nothing(lab: Path) -> None:
    own_set.write(lab, toml=own_set.TOML[: own_set.TOML.index("[expected]")])
    assert (compare(clips("joy")), frame_rates("toy")) == ((), ())


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("fps = [100]", "fps = 100", "expected: fps must be a list of numbers above 0; got 100. Correct it."),
        (
            "fps = [100]",
            "rates = [100]",
            "expected: key must be one of fps, fps_source, fps_checked, editions, reasons, further; got 'rates'",
        ),
        (
            "subjects = 2",
            "subjects = 'two'",
            "number 1: subjects must be a whole number from 0 on; got 'two'. Correct it.",
        ),
        ("clips = 4", "", "expected.editions, number 1: clips must be a whole number from 0 on; got none. Add it."),
        (
            "clips = 4",
            "clips = 5",
            "expected.editions, number 1: clips must be the sum of its counts, 4; got 5. Correct one.",
        ),
        (
            "{ joy = 2, anger",
            "{ joi = 2, anger",
            "label or class must be one of joy, anger, startle, boredom; got 'joi'. Did you mean joy?",
        ),
        (
            'checked = "file" ',
            'checked = "seen" ',
            "checked must be one of file, code, run, lit; got 'seen'. Correct it.",
        ),
        (
            'checked = "lit"',
            'checked = "seen"',
            "expected.reasons, number 1: checked must be one of file, code, run, lit; got 'seen'.",
        ),
        (
            'grouping = "3-class"\n',
            "",
            "edition must have labels, or grouping and classes; got name, about, clips, classes",
        ),
        ('grouping = "3-class"', 'grouping = "4-class"', "number 2: classes: grouping must be one of 3-class"),
        (
            "{ positive = 3 }",
            "{ joy = 3 }",
            "label or class must be one of negative, positive, surprise, left out; got 'joy'.",
        ),
        (
            'name = "in classes"',
            'name = "2026"',
            "expected.editions: each must have a name of its own; got 2026. Correct it.",
        ),
        (
            'edition = "2026"',
            'edition = "2025"',
            "expected.reasons, number 1: edition must be one of 2026, in classes; got '2025'.",
        ),
        (
            "{ Joy = -1 }",
            "'few'",
            "expected.reasons, number 1: change must be a whole number, or a table of such; got 'few'.",
        ),
    ],
)
def test_what_contradicts_itself_is_refused(lab: Path, old: str, new: str, says: str) -> None:
    text = own_set.TOML + REASON + BY_CLASS
    assert old in text
    own_set.write(lab, toml=text.replace(old, new, 1))
    with pytest.raises(ConfigError) as caught:
        expectations()
    assert str(caught.value).startswith(f"{lab / 'toy.toml'}: expected")
    assert says in str(caught.value)
