"""Action units as targets: what an annotation names, and how several of them stand in one word.

Annotations are cells such as "4+7", "R12 + R15", "AU4(k)+L7" or "14A". Side and intensity are not looked at: the unit counts. One
marked (k) was there before the expression and does not count. Needs neither NumPy nor torch.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Final

ACTION_UNIT_TARGETS: Final = "action-units"
"""Takes the place of a grouping's name: each clip may show several classes, its action units."""
COLUMN: Final = "action_units"
"""Further column of a manifest that names them."""
NONE: Final = "none"
"""The word for no unit."""
_STATIC: Final = re.compile(r"\(\s*k\s*\)", re.IGNORECASE)
_NUMBER: Final = re.compile(r"(?<![0-9])[1-9][0-9]?(?![0-9])")
_CLASS: Final = re.compile(r"AU[1-9][0-9]?")


def units_of(extra: Mapping[str, object]) -> frozenset[int] | None:
    """Return the action units that a clip's annotation names; None if it names none, so that nothing is known.

    Parameters
    ----------
    extra : mapping
        Further columns of the clip's manifest, as shards keep them in `extra`.

    Examples
    --------
    >>> sorted(units_of({"action_units": "R12 + AU15b"}))
    [12, 15]
    """
    found = frozenset(map(int, _NUMBER.findall(moving_units(str(extra.get(COLUMN, ""))))))
    return found or None


def moving_units(text: str) -> str:
    """Action units without those marked as static.

    Examples
    --------
    >>> moving_units("AUR2+12(k)+45")
    'AUR2+45'
    """
    return "+".join(unit.strip() for unit in text.split("+") if not _STATIC.search(unit))


def unit_class(unit: int) -> str:
    """Return the class of a unit: "AU4"."""
    return f"AU{unit}"


def are_action_units(classes: Sequence[str]) -> bool:
    """Return whether these are classes of which a clip may show several; no grouping of labels may have such names alone."""
    return bool(classes) and all(_CLASS.fullmatch(name) for name in classes)


def one_word(shown: Collection[str]) -> str:
    """Return several classes as one word, "AU4+AU7"."""
    return "+".join(shown) or NONE


def shown_in(word: str) -> list[str]:
    """Return the classes that a word of `one_word` names."""
    return [] if word == NONE else word.split("+")
