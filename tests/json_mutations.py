"""Every value of a JSON document exchanged for one of another kind."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Iterator
from typing import Any

OTHERS: tuple[Any, ...] = (
    None,
    True,
    -1,
    10**30,
    0.5,
    math.nan,
    math.inf,
    "",
    "x",
    "../../x",
    "\0",
    "\x1b[2J",
    "\ud800",
    "x" * 5000,
    [],
    [1],
    [[]],
    {},
    {"x": 1},
    [[[[[[[[[[]]]]]]]]]],
)


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value within a value."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in entries:
        yield (*at, key)
        yield from places(inner, (*at, key))


def mutations(content: dict[str, Any], each: int, seed: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """A description and a document: at each place `each` other values, drawn, and once nothing at all."""
    draw = random.Random(seed)
    for place in list(places(content)):
        for value in draw.sample(OTHERS, each):
            changed = copy.deepcopy(content)
            _within(changed, place)[place[-1]] = copy.deepcopy(value)
            yield f"{place} = {value!r:.40}", changed
        changed = copy.deepcopy(content)
        del _within(changed, place)[place[-1]]
        yield f"no {place}", changed


def _within(content: Any, place: tuple[Any, ...]) -> Any:
    for key in place[:-1]:
        content = content[key]
    return content
