"""One self-contained HTML page: elements that escape what they hold, tables, a histogram, and the style around them."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

VOID = frozenset({"img", "meta", "br"})
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""Forbids the page whatever would leave the machine or run."""


class Html(str):
    """Text that is markup already; every other text is escaped before it gets into a page."""

    __slots__ = ()


def element(name: str, /, *children: object, **attributes: object) -> Html:
    """One element; children and attribute values are escaped, unless they are Html. `class_` stands for class."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"' for key, value in attributes.items()
    )
    if name in VOID:
        return Html(f"<{name}{given}>")
    return Html(f"<{name}{given}>{joined(children)}</{name}>")


def joined(parts: Iterable[object]) -> Html:
    """Parts one after the other, each escaped unless it is Html."""
    return Html("".join(part if isinstance(part, Html) else html.escape(str(part)) for part in parts))


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> Html:
    """A table; columns that begin with a number stand at their right."""
    rows = list(rows)
    looks = ["number" if isinstance(value, (int, float)) else "text" for value in (rows[0] if rows else header)]
    head = (element("th", name, scope="col", class_=look) for name, look in zip(header, looks, strict=True))
    body = (
        element("tr", *(element("td", value, class_=look) for value, look in zip(row, looks, strict=True)))
        for row in rows
    )
    whole = element("table", element("thead", element("tr", *head)), element("tbody", *body))
    return element("div", whole, class_="wide")


def facts(values: Mapping[str, object]) -> Html:
    """A table of two columns: name and value."""
    rows = (element("tr", element("th", name, scope="row"), element("td", value)) for name, value in values.items())
    return element("div", element("table", element("tbody", *rows), class_="facts"), class_="wide")


def histogram(values: npt.NDArray[np.float64], edges: Sequence[float], limit: float, unit: str, label: str) -> Html:
    """How values are distributed, as a small SVG picture.

    Parameters
    ----------
    values : (N,) float
        Finite; those beyond the last edge count in the last bar.
    edges : sequence of float
        Evenly spaced borders of the bars.
    limit : float
        Where a dashed line stands.
    unit, label : str
        Of the values; what the picture shows, for readers who do not see it.
    """
    width, height, foot = 420, 110, 20
    counts = np.histogram(np.clip(values, edges[0], np.nextafter(edges[-1], edges[0])), edges)[0]
    step = width / len(counts)
    tallest = max(1, int(counts.max()))
    bars = []
    for number, count in enumerate(counts):
        end = " or more" if number == len(counts) - 1 else f" to {edges[number + 1]:g}"
        tall = (height - 14) * int(count) / tallest
        bars.append(
            element(
                "rect",
                element("title", f"{edges[number]:g}{end} {unit}: {count}"),
                x=f"{number * step + 1:.1f}",
                y=f"{height - tall:.1f}",
                width=f"{step - 2:.1f}",
                height=f"{tall:.1f}",
            )
        )
    at = width * (limit - edges[0]) / (edges[-1] - edges[0])
    line = element("line", x1=f"{at:.1f}", x2=f"{at:.1f}", y1=0, y2=height, class_="limit")
    base = element("line", x1=0, x2=width, y1=height, y2=height, class_="base")
    ticks = _ticks(edges, width, height + foot - 5, unit)
    top = element("text", f"tallest bar: {tallest}", x=width, y=11, text_anchor="end")
    view = f"0 0 {width} {height + foot}"
    return element("svg", *bars, line, base, *ticks, top, viewBox=view, role="img", aria_label=label)


def document(title: str, *sections: Html) -> bytes:
    """The whole file."""
    head = joined(
        [
            element("meta", charset="utf-8"),
            element("meta", http_equiv="Content-Security-Policy", content=POLICY),
            element("meta", name="viewport", content="width=device-width, initial-scale=1"),
            element("meta", name="color-scheme", content="light dark"),
            element("title", title),
            element("style", Html(STYLE)),
        ]
    )
    page = element("html", element("head", head), element("body", element("main", *sections)), lang="en")
    return f"<!DOCTYPE html>\n{page}\n".encode()


def _ticks(edges: Sequence[float], width: int, y: int, unit: str) -> list[Html]:
    ends = ((edges[0], 0, "start"), ((edges[0] + edges[-1]) / 2, width // 2, "middle"))
    ticks = [element("text", f"{value:g}", x=x, y=y, text_anchor=anchor) for value, x, anchor in ends]
    return [*ticks, element("text", f"{edges[-1]:g} {unit}", x=width, y=y, text_anchor="end")]


STYLE = """
:root { --ink: #1d2330; --soft: #5b6474; --paper: #fff; --tint: #f4f6f9; --line: #dde2ea; --accent: #2f5fb3;
  --alarm: #b3001b; --alarm-tint: #fdecee; --notice: #8a5a00; }
@media screen and (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ef; --soft: #a0a8b8; --paper: #14171d; --tint: #1d2129; --line: #333a46; --accent: #8ab0f5;
    --alarm: #ff7a8a; --alarm-tint: #3a151b; --notice: #f0c060; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1040px; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.6rem; margin: 0; overflow-wrap: anywhere; } h1 small { color: var(--soft); font-weight: 400; }
h2 { font-size: 1.15rem; margin: 2.4rem 0 .6rem; padding-bottom: .25rem; border-bottom: 1px solid var(--line); }
h3 { font-size: .95rem; margin: 1.2rem 0 .4rem; }
p { margin: .4rem 0; max-width: 72ch; } a { color: var(--accent); }
.soft, figcaption, svg text { color: var(--soft); fill: var(--soft); font-size: .85rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(118px, 1fr)); gap: .6rem; margin: 1.2rem 0; }
.card { background: var(--tint); border: 1px solid var(--line); border-radius: 8px; padding: .6rem .8rem; }
.card b { display: block; font-size: 1.45rem; line-height: 1.2; font-variant-numeric: tabular-nums; }
.card span { color: var(--soft); font-size: .85rem; } .card.alarming b { color: var(--alarm); }
.card.noted b { color: var(--notice); }
.alarm { background: var(--alarm-tint); border: 2px solid var(--alarm); border-radius: 8px; padding: .4rem 1rem .8rem;
  margin: 1.2rem 0; color: var(--alarm); overflow-wrap: anywhere; }
.alarm h2 { border: 0; margin: .4rem 0; color: var(--alarm); } .alarm li { margin: .3rem 0; }
.wide { overflow-x: auto; margin: .5rem 0 1rem; } .columns { display: grid; gap: 0 2rem;
  grid-template-columns: repeat(auto-fit, minmax(min(320px, 100%), 1fr)); align-items: start; } .columns > * { min-width: 0; }
table { border-collapse: collapse; font-size: .88rem; }
th, td { text-align: left; padding: .25rem .9rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: top;
  unicode-bidi: isolate; overflow-wrap: break-word; max-width: 44rem; }
thead th { color: var(--soft); font-weight: 600; white-space: nowrap; } .facts th { font-weight: 400; color: var(--soft); }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; } code { font-size: .92em; }
.facts-columns { columns: 300px; column-gap: 2rem; } .facts-columns .wide { break-inside: avoid; margin: 0 0 1.2rem; }
svg { width: 100%; max-width: 420px; height: auto; display: block; } svg rect { fill: var(--accent); }
svg .limit { stroke: var(--alarm); stroke-dasharray: 4 3; } svg .base { stroke: var(--soft); }
.legend { display: flex; flex-wrap: wrap; gap: .6rem 2rem; margin: 1rem 0; }
.legend figure { display: flex; gap: .8rem; align-items: center; margin: 0; max-width: 30rem; }
.legend img { width: 84px; height: 84px; border-radius: 50%; flex: none; border: 1px solid var(--line); }
.clips { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(440px, 100%), 1fr)); gap: 1rem; }
.clips.faces { grid-template-columns: 1fr; }
.clip { border: 1px solid var(--line); border-radius: 8px; padding: .6rem .8rem .8rem; break-inside: avoid; min-width: 0; }
.clip h3 { margin: 0; overflow-wrap: anywhere; } .clip p { margin: 0 0 .4rem; font-size: .85rem; color: var(--soft); }
.panels { display: grid; grid-auto-flow: column; grid-auto-columns: 1fr; gap: 6px; }
.panels figure { margin: 0; } .panels img { width: 100%; display: block; border: 1px solid var(--line); }
.panels.head { grid-auto-flow: row; grid-template-columns: repeat(3, 1fr); margin-top: 6px; }
.faces .panels.head { grid-template-columns: repeat(6, 1fr); } .faces .panels.head > :first-child { grid-column: 4; }
.note { color: var(--notice); }
@media print { body { font-size: 10pt; } main { max-width: none; padding: 0; } h2, h3 { break-after: avoid; }
  tr, .card, .legend, svg { break-inside: avoid; } .wide { overflow: visible; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
"""
