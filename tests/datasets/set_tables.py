"""The tables of data sets and of corrections in README.md and docs/datasets/.

To write them again: python tests/datasets/set_tables.py
"""

from __future__ import annotations

import csv
import re
from pathlib import Path

from flowkit.datasets import listed_sets
from flowkit.datasets.corrections import COLUMNS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs" / "datasets"
CORRECTIONS = ROOT / "flowkit" / "datasets" / "corrections.csv"
PAGES = {ROOT / "README.md": "docs/datasets/", DOCS / "README.md": ""}
"""Pages with a table of the data sets, each with what its links begin with."""
TABLE = re.compile(r"(?<=<!-- data sets -->\n).*?(?=<!-- end of data sets -->)", re.DOTALL)
CORRECTED = re.compile(r"(?<=<!-- corrections -->\n).*?(?=<!-- end of corrections -->)", re.DOTALL)


def commands(page: Path) -> list[str]:
    """Return the data sets whose manifest a page says how to write."""
    return re.findall(r"^    flowkit manifest ([a-z0-9-]+) ", page.read_text(encoding="utf-8"), re.MULTILINE)


def table(links: str) -> str:
    """Return every data set that `flowkit manifest` takes, with its page: the one that has its command."""
    page_of = {
        name: page.name for page in sorted(DOCS.glob("*.md")) if page.name != "README.md" for name in commands(page)
    }
    rows = [
        f"| `{name}` | {description} | [{page_of[name]}]({links}{page_of[name]}) |"
        for name, description in listed_sets(own=False)
    ]
    return "\n".join(["", "| `flowkit manifest` | data set | page |", "| --- | --- | --- |", *rows, "", ""])


def corrections_of(page: Path) -> str:
    """Return every row of corrections.csv that is of a data set of a page, as a table; empty for none."""
    with CORRECTIONS.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.reader(file) if row[0] in commands(page)]
    lines = [f"| {' | '.join(cells)} |" for cells in (COLUMNS, ["---"] * len(COLUMNS), *rows)]
    return "\n".join(["", *lines, "", ""]) if rows else ""


def with_table(page: Path) -> str:
    """Return the text of a page with its table of data sets as it should be."""
    return _filled(page, TABLE, table(PAGES[page]))


def with_corrections(page: Path) -> str:
    """Return the text of a page with its table of corrections as it should be."""
    wanted = corrections_of(page)
    return _filled(page, CORRECTED, wanted) if wanted else page.read_text(encoding="utf-8")


def _filled(page: Path, place: re.Pattern[str], new: str) -> str:
    text, number = place.subn(lambda _: new, page.read_text(encoding="utf-8"))
    if number != 1:
        raise ValueError(f"{page}: the two comments around the table must be there once. Put them back.")
    return text


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(with_table(page), encoding="utf-8")
    for page in sorted(DOCS.glob("*.md")):
        page.write_text(with_corrections(page), encoding="utf-8")
