"""The tables of recognition in benchmarks/README.md are those of the stored results, to the letter."""

from __future__ import annotations

import importlib
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


@pytest.fixture
def recognition(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("recognition")


def test_something_was_measured() -> None:
    assert "recognition-synthetic" in STORED


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
