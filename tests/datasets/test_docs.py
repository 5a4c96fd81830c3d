"""docs/datasets/: the table of corrections on a page is the one that flowkit applies, and the command is one that it knows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from set_tables import PAGES as WITH_TABLE
from set_tables import commands, with_corrections, with_table

from flowkit.datasets import COMPOSITE, DATASETS
from flowkit.labels.groupings import grouping

DOCS = Path(__file__).parents[2] / "docs" / "datasets"
PAGES = sorted(path for path in DOCS.glob("*.md") if path.name not in ("README.md", "videos.md"))
"""Of data sets that others annotated."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_lists_the_corrections_that_are_applied(page: Path) -> None:
    assert commands(page)
    assert with_corrections(page) == page.read_text(encoding="utf-8"), "run: python tests/datasets/set_tables.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_names_data_sets_and_groupings_that_exist(page: Path) -> None:
    assert set(commands(page)) <= {*DATASETS, COMPOSITE}
    tables = re.findall(r"^\| `([a-z0-9][a-z0-9-]*)` \|.*\|.*\|$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert tables
    for name in tables:
        assert grouping(name).name == name


@pytest.mark.parametrize("name", [*DATASETS, COMPOSITE])
def test_every_data_set_has_a_page(name: str) -> None:
    assert any(name in commands(page) for page in PAGES)


@pytest.mark.parametrize("page", WITH_TABLE, ids=lambda page: page.parent.name)
def test_the_table_of_data_sets_is_the_registry(page: Path) -> None:
    assert with_table(page) == page.read_text(encoding="utf-8"), "run: python tests/datasets/set_tables.py"
