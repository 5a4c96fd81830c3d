"""The tables of data sets in README.md and docs/datasets/README.md. To write them again: python tests/datasets/set_tables.py."""

from __future__ import annotations

import re
from pathlib import Path

from flowkit.datasets import listed_sets

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs" / "datasets"
PAGES = {ROOT / "README.md": "docs/datasets/", DOCS / "README.md": ""}
"""Pages with a table, each with what its links begin with."""
TABLE = re.compile(r"(?<=<!-- data sets -->\n).*?(?=<!-- end of data sets -->)", re.DOTALL)


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


def with_table(page: Path) -> str:
    """Return the text of a page with its table as it should be."""
    text, number = TABLE.subn(lambda _: table(PAGES[page]), page.read_text(encoding="utf-8"))
    if number != 1:
        raise ValueError(
            f"{page}: the two comments around the table of data sets must stand there once. Put them back."
        )
    return text


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(with_table(page), encoding="utf-8")
