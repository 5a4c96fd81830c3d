"""The form of a TOML file that a researcher writes: reading it, and every problem in the words of its own tables and keys."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from flowkit.errors import ConfigError
from flowkit.listing import problem_lines
from flowkit.storage.safe_files import read_regular

MAX_TOML_BYTES: Final = 1 << 20

Kind = tuple[Callable[[Any], bool], str]
"""Whether a value is right, and what it must be, in words."""


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) and item.strip() for item in value)


TEXT: Final[Kind] = (lambda value: isinstance(value, str) and bool(value.strip()), "a text")
NUMBER: Final[Kind] = (_is_number, "a number above 0")
COUNT: Final[Kind] = (_is_count, "a whole number from 0 on")
LIST: Final[Kind] = (_is_list, "a list of words")
TABLE: Final[Kind] = (lambda value: isinstance(value, dict), "a table")
TABLES: Final[Kind] = (
    lambda value: isinstance(value, dict) and all(isinstance(table, dict) for table in value.values()),
    "a table of tables",
)
TABLE_LIST: Final[Kind] = (
    lambda value: isinstance(value, list) and all(isinstance(item, dict) for item in value),
    "a list of tables",
)
NUMBERS: Final[Kind] = (
    lambda value: isinstance(value, list) and all(map(_is_number, value)),
    "a list of numbers above 0",
)
COUNTS: Final[Kind] = (
    lambda value: isinstance(value, dict) and bool(value) and all(map(_is_count, value.values())),
    "a table of whole numbers",
)


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """Return the tables of a file.

    Parameters
    ----------
    path : Path
    what : str
        What messages call its content.

    Raises
    ------
    ConfigError
        It cannot be read, or is no TOML.
    """
    try:
        return tomllib.loads(read_regular(path, MAX_TOML_BYTES).decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # the last: brackets without end
        raise ConfigError(f"{path}: {what} must be a readable TOML file; got {error}. Correct it.") from error


def value_problems(
    table: Mapping[str, Any], kinds: Mapping[str, Kind], required: Iterable[str], where: str
) -> Iterator[str]:
    """Yield each key that must be there and is not, and each value of another kind.

    Parameters
    ----------
    table : mapping
    kinds : mapping of str to Kind
        By key; keys that are not named may hold anything.
    required : iterable of str
    where : str
        File and table.
    """
    for key in required:
        if key not in table:
            yield f"{where}: {key} must be {kinds[key][1]}; got none. Add it."
    for key, (fits, words) in kinds.items():
        if key in table and not fits(table[key]):
            yield f"{where}: {key} must be {words}; got {table[key]!r:.80}. Correct it."


def unknown_keys(table: Mapping[str, Any], allowed: Sequence[str], where: str) -> Iterator[str]:
    """Yield each key that is not allowed."""
    for key in table:
        if key not in allowed:
            yield f"{where}: key must be one of {enumerated(allowed)}; got {key!r}.{near(key, allowed)} Correct it."


def list_problems(value: object, where: str) -> Iterator[str]:
    """Yield what is wrong with a list of words."""
    if not _is_list(value):
        yield f"{where} must be a list of words; got {value!r:.80}. Correct it."


def word_problems(value: object, where: str) -> Iterator[str]:
    """Yield what is wrong with a table of words."""
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        yield f"{where} must be a table of words; got {value!r:.80}. Correct it."


def refuse(problems: Sequence[str]) -> None:
    """Raise for all problems together, if there are any.

    Raises
    ------
    ConfigError
    """
    if problems:
        raise ConfigError(problem_lines(problems))


def fold(text: str) -> str:
    """Return a name as names are compared: without capitals, and without blanks at the ends."""
    return text.strip().casefold()


def enumerated(names: Iterable[str]) -> str:
    """Return names for a message."""
    return ", ".join(names) or "nothing"


def near(name: str, known: Iterable[str]) -> str:
    """Return a question about what may have been meant, with a blank before it; empty where nothing is near."""
    found = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    return f" Did you mean {' or '.join(found)}?" if found else ""
