"""What pages share above the level of elements: cards, figures, long tables, settings, and scales that a reader can name."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np

from flowkit.reports.html import Html, element, facts, joined, table
from flowkit.reports.pictures import RGB, data_uri, png_bytes

MAX_ROWS: Final = 200
"""Rows of the longest tables; the rest is only counted."""
SCALE_SHARE: Final = 0.999
"""Share of the pictured face pixels whose motion lies within the colour scale."""
WHEEL_SIDE_PX: Final = 168
_STEPS: Final = (1, 1.5, 2, 3, 4, 5, 7.5, 10, 15)


def card(value: object, name: str, below: str = "", look: str = "") -> Html:
    """Return a figure that the page begins with.

    Parameters
    ----------
    value : object
    name : str
        What the value is.
    below : str
        A second line, smaller.
    look : {"", "alarming", "noted"}
    """
    more = (element("br"), element("span", below)) if below else ()
    return element("div", element("b", value), element("span", name), *more, class_=f"card {look}".rstrip())


def image(picture: RGB, alt: str, look: str = "") -> Html:
    """Return a picture that the page holds itself; `look` is CSS."""
    shown = {"style": look} if look else {}
    return element("img", src=data_uri(png_bytes(np.ascontiguousarray(picture))), alt=alt, **shown)


def figure(picture: Html, text: str) -> Html:
    """Return a picture with its caption."""
    return element("figure", picture, element("figcaption", text))


def long_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> Html:
    """Return a table of the first `MAX_ROWS` rows, and how many more there are."""
    shown = table(header, rows[:MAX_ROWS])
    if len(rows) <= MAX_ROWS:
        return shown
    return joined([shown, element("p", f"... and {len(rows) - MAX_ROWS} more.", class_="soft")])


def settings_tables(settings: Mapping[str, Any]) -> Html:
    """Return every setting, one table of facts for each table of the settings file."""
    named = dotted(settings)
    tables = sorted({name.rpartition(".")[0] for name in named})
    return element(
        "div",
        *(facts({name: text for name, text in named.items() if name.rpartition(".")[0] == own}) for own in tables),
        class_="facts-columns",
    )


def dotted(values: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    """Return nested names with dots between them, and their values for people."""
    return dict(_dotted(values, prefix))


def _dotted(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, object]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{prefix}{name}.")
        else:
            text = ", ".join(map(str, value)) if isinstance(value, list) else value
            yield f"{prefix}{name}", "(none)" if text in ("", None) else text


def rounded_up(value: float) -> float:
    """Return the next number above that a reader takes in at once, such as 1.5 or 20; `value` is above 0."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in _STEPS if value <= step * power)
