"""docs/datasets/: the table of corrections on a page is the one that flowkit applies, and the command is one that it knows."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest
from set_tables import PAGES as WITH_TABLE
from set_tables import commands, with_table

from flowkit.datasets import COMPOSITE, DATASETS
from flowkit.datasets.corrections import COLUMNS, FILE
from flowkit.labels.groupings import grouping

DOCS = Path(__file__).parents[2] / "docs" / "datasets"
PAGES = sorted(path for path in DOCS.glob("*.md") if path.name not in ("README.md", "videos.md"))
"""Of data sets that others annotated."""
TABLE = Path(__file__).parents[2] / "flowkit" / "datasets" / FILE


def corrections_on(page: Path) -> list[tuple[str, ...]]:
    """Rows of the table of corrections of a page."""
    lines = page.read_text(encoding="utf-8").splitlines()
    header = "| " + " | ".join(COLUMNS) + " |"
    start = lines.index(header) + 2 if header in lines else len(lines)
    end = next((n for n in range(start, len(lines)) if not lines[n].startswith("|")), len(lines))
    return [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines[start:end]]


def corrections_of(names: list[str]) -> list[tuple[str, ...]]:
    with TABLE.open(newline="", encoding="utf-8") as file:
        return [tuple(row) for row in csv.reader(file) if row[0] in names]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_lists_the_corrections_that_are_applied(page: Path) -> None:
    assert commands(page)
    assert corrections_on(page) == corrections_of(commands(page))


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
