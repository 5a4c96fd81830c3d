"""A data set of a laboratory's own, as docs/datasets/README.md shows it: its two files, and an invented copy of its data."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "datasets" / "README.md"
VARIABLE = "FLOWKIT_DATASETS"


def printed(language: str) -> str:
    """Return the example of the page in a language; there is one each."""
    (found,) = re.findall(
        rf"^```{language}\n# toy\.{language[:2]}[^\n]*\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S
    )
    return str(found)


TOML = printed("toml")
CODE = printed("python")


def write(folder: Path, name: str = "toy", toml: str = TOML, code: str = CODE) -> Path:
    """Write the two files of a set, and return its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.toml").write_text(toml, encoding="utf-8")
    (folder / f"{name}.py").write_text(code, encoding="utf-8")
    return folder


def changed(text: str, old: str, new: str) -> str:
    """Return a text with one place changed."""
    assert text.count(old) == 1, old
    return text.replace(old, new)
