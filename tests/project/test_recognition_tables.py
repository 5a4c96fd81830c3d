"""The tables of recognition in benchmarks/README.md are those of the stored results, to the letter."""

from __future__ import annotations

import importlib
import itertools
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
STORED = {
    path.stem: found
    for path in sorted((BENCHMARKS / "results").glob("*.json"))
    if {"tests", "bars"} <= set(found := json.loads(path.read_text(encoding="utf-8")).get("results", {}))
}
"""What recognition.py has measured."""
README_ROWS = {
    "synthetic, eight expressions": ("recognition-synthetic", 0),
    "the same, another head than in training": ("recognition-synthetic", 1),
    "synthetic, three classes": ("recognition-synthetic-3", 0),
    "the same, another head": ("recognition-synthetic-3", 1),
    "real, three classes (309 public clips)": ("megc-flow28", 0),
}
"""Of the table in README.md: which test of which result."""
README_COLUMNS = (
    "FMANet",
    "CNN, both phases",
    "LDA, both phases",
    "SVM, both phases",
    "FMANet, rise only",
    "FMANet of version 0.1",
)


@pytest.fixture
def recognition(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("recognition")


def test_every_set_was_measured() -> None:
    assert set(STORED) == {name for name, _ in README_ROWS.values()}


@pytest.mark.parametrize("title", README_ROWS)
def test_the_readme_shows_what_was_measured(title: str) -> None:
    name, number = README_ROWS[title]
    rows = {row["row"]: row["uf1"]["value"] for row in list(STORED[name]["tests"].values())[number]["rows"]}
    line = f"| {title} | {' | '.join(f'{rows[column]:.3f}' for column in README_COLUMNS)} |"
    page = (BENCHMARKS.parent / "README.md").read_text(encoding="utf-8").replace("**", "")
    assert line in page.splitlines()


@pytest.mark.parametrize("name", STORED)
def test_the_page_shows_every_line_that_was_measured(recognition: ModuleType, name: str) -> None:
    page = (BENCHMARKS / "README.md").read_text(encoding="utf-8").splitlines()
    lines = [line for line in recognition.table(STORED[name]).splitlines() if line.startswith("|")]
    assert [line for line in lines if line not in page] == []


@pytest.mark.parametrize("name", STORED)
def test_a_bar_is_met_where_its_figure_says_so(recognition: ModuleType, name: str) -> None:
    found: dict[str, Any] = STORED[name]
    wanted = recognition.REAL_BARS if name == "megc-flow28" else recognition.BARS
    assert recognition.bars(found, wanted) == found["bars"]
    assert len(found["bars"]) == len(wanted) * len(found["tests"])


def test_the_page_shows_what_attention_is_worth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    part = importlib.import_module("recognition_part")
    found = json.loads((BENCHMARKS / "results" / "recognition-attention.json").read_text(encoding="utf-8"))["results"]
    page = (BENCHMARKS / "README.md").read_text(encoding="utf-8").splitlines()
    assert [line for line in part.table(found).splitlines() if line not in page and line] == []


@pytest.mark.parametrize(("name", "table"), [("zero-shot", "zero_shot_table"), ("start", "start_table")])
def test_the_page_shows_what_pretrained_networks_are_worth(
    monkeypatch: pytest.MonkeyPatch, name: str, table: str
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    pretrained = importlib.import_module("pretrained")
    found = json.loads((BENCHMARKS / "results" / f"pretrained-{name}.json").read_text(encoding="utf-8"))["results"]
    page = (BENCHMARKS / "README.md").read_text(encoding="utf-8").splitlines()
    assert [line for line in getattr(pretrained, table)(found) if line not in page] == []


def test_the_page_does_not_hide_the_first_figures_of_a_start() -> None:
    path = BENCHMARKS / "results" / "pretrained-start-first.json"
    found = json.loads(path.read_text(encoding="utf-8"))["results"]
    page = (BENCHMARKS / "README.md").read_text(encoding="utf-8")
    for row in found["few_subjects"]:
        assert f"{row['difference']['value']:+.3f}" in page
    for inputs in ("both", "rise"):
        one = found["differences"][f"{inputs}, pretrained - {inputs}, scratch"]
        assert f"{one['value']:+.3f} [{one['low']:+.3f}, {one['high']:+.3f}]" in page


def test_an_older_version_is_given_no_setting_that_it_lacks(
    recognition: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given: list[str] = []

    def fmanet(*arguments: str | Path, **_: Any) -> str:
        given.extend(str(word) for word in arguments)
        raise KeyboardInterrupt  # nothing is trained here

    monkeypatch.setattr(recognition, "run", fmanet)
    settings = (*recognition.IN_PIXELS, *recognition.REAL_SETTINGS)
    found = recognition.Clipset([tmp_path], "3-class", settings, (), recognition.loso)
    with pytest.raises(KeyboardInterrupt):
        recognition.before(found, tmp_path / "run", 1, tmp_path)
    asked = {text.partition("=")[0] for flag, text in itertools.pairwise(given) if flag == "--set"}
    assert asked == {"size", "network.floor_px", "train.augment.drift"}  # which 0.1 has
