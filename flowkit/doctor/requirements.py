"""What the installed distribution, or setup.cfg of a checkout, requires; versions in ranges.

Imports nothing but the standard library.
"""

from __future__ import annotations

import configparser
import importlib
import importlib.metadata
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

DISTRIBUTION = "flowkit-mer"
CHECKOUT = Path(__file__).parents[2]
COMPARISONS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "<": operator.lt,
    ">": operator.gt,
    "==": operator.eq,
}


@dataclass(frozen=True, slots=True)
class Requirement:
    """A line of `install_requires` or of an extra ("" for the core)."""

    name: str
    ranges: tuple[str, ...]
    extra: str

    @property
    def text(self) -> str:
        """As pip takes it."""
        return self.name + ",".join(self.ranges)

    def admits(self, version: str) -> bool:
        """Whether a version lies in every range."""
        return all(in_range(version, text) for text in self.ranges)


def project_requirements() -> tuple[str, list[Requirement]]:
    """Range of Python versions, and every requirement: of the installed distribution, else of the checkout's setup.cfg."""
    try:
        lines = importlib.metadata.requires(DISTRIBUTION) or []
        python = str(importlib.metadata.metadata(DISTRIBUTION)["Requires-Python"] or "")
    except importlib.metadata.PackageNotFoundError:
        python, lines = _setup_cfg(CHECKOUT / "setup.cfg")
    return python, [requirement for line in lines if (requirement := _requirement(line))]


def _setup_cfg(path: Path) -> tuple[str, list[str]]:
    """`python_requires` and the requirements of a setup.cfg, in the form in which installed metadata has them."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(path, encoding="utf-8")
    lines = _lines(parser.get("options", "install_requires", fallback=""))
    extras = parser["options.extras_require"] if parser.has_section("options.extras_require") else {}
    for extra, text in extras.items():
        lines += [f'{line}; extra == "{extra}"' for line in _lines(text)]
    return parser.get("options", "python_requires", fallback=""), lines


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _requirement(line: str) -> Requirement | None:
    head, _, marker = line.partition(";")
    match = re.match(r"\s*([A-Za-z0-9._-]+)\s*(?:\[[^]]*\])?\s*\(?([^)]*)\)?\s*$", head)
    if match is None:
        return None
    extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)", marker)
    ranges = [part.strip() for part in match[2].split(",") if part.strip()]
    ranges.sort(key=lambda text: text.startswith("<"))  # installed metadata has the upper bound first
    return Requirement(_normal(match[1]), tuple(ranges), extra[1] if extra else "")


def in_range(version: str, text: str) -> bool:
    """Return whether a version lies in a range such as ">=2.1" or "==12.8.*"."""
    match = re.fullmatch(r"(>=|<=|==|<|>)\s*([0-9.]+?)(\.\*)?", text.strip())
    if match is None:
        return False
    wanted = _release(match[2])
    length = len(wanted) if match[3] else max(len(wanted), len(_release(version)))
    return COMPARISONS[match[1]](_padded(_release(version), length), _padded(wanted, length))


def _release(version: str) -> tuple[int, ...]:
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, match[0].split("."))) if match else ()


def _padded(release: tuple[int, ...], length: int) -> tuple[int, ...]:
    return (*release, *[0] * length)[:length]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def installed_versions() -> dict[str, str]:
    """Return the version of each installed distribution by its normal name."""
    found = ((d.metadata["Name"], d.version) for d in importlib.metadata.distributions())
    return {_normal(name): version for name, version in found if name}
