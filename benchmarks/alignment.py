"""Print how far head motion and expression are told apart, from stored results, beside what was asked for.

python benchmarks/alignment.py

It reads what accuracy.py, alignment_neutral.py, exposure.py, large_motion.py and against.py stored in results/,
and measures nothing itself. Every figure is the worse of both synthetic faces. "0.1" is `--stabilise similarity`, the
default of version 0.1, in the same run; for the CPU time it is version 0.1 itself. "Undone" is the flow of frames in which the head
does not move: what is missing there is missing in the solver, and alignment cannot give it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import accuracy

RESULTS = Path(__file__).parent / "results"
SOURCES = ("accuracy", "alignment_neutral", "exposure", "large_motion", "against")
OLD, NEW, UNDONE = "similarity", "head", "oracle"
Figures = dict[str, Any]


def rows(results: Path = RESULTS) -> Iterator[list[str]]:
    """Yield scene, figures of 0.1, of this version and with the head's motion undone, bar, what was wanted, whether it is met."""
    stored = {name: json.loads((results / f"{name}.json").read_text(encoding="utf-8"))["results"] for name in SOURCES}
    faces = list(stored["accuracy"]["faces"].values())
    still, plane, turned, more = (
        [face[name] for face in faces] for name in ("head still", "in plane", "turning by 1.5", "turning by 3")
    )

    def of(
        groups: list[Figures], figure: Callable[[Figures, str], float], worst: Callable[..., float] = max
    ) -> list[float]:
        return [worst(figure(group, method) for group in groups) for method in (OLD, NEW, UNDONE)]

    yield row("head still: EPE / unstabilised, median", of(still, over_none), 1.35, 1.05)
    yield row("head still: EPE / unstabilised, worst expression", of(still, worst_of(over_none)), 1.8)
    yield row("head still: EPE / no flow, worst expression", of(still, worst_of(over_no_flow)), 0.5, 0.3)
    yield row("in plane: EPE / no flow, worst expression", of(plane, worst_of(over_no_flow)), 0.6, 0.3)
    yield row("1.5 degrees out of the plane: EPE / no flow", of(turned, over_no_flow), 0.65, 0.45)
    yield row("3 degrees: EPE / no flow", of(more, over_no_flow), 0.85, 0.6)
    for name, groups, bar, wanted in (
        ("still", still, 0.97, 0.99),
        ("in plane", plane, 0.94, 0.97),
        ("1.5 degrees", turned, 0.82, 0.92),
    ):
        yield row(f"cosine with the truth, {name}", of(groups, cosine, min), bar, wanted, least=True)
    yield from real_video(stored["alignment_neutral"])
    yield from exposure(stored["exposure"])
    yield from large_motion(stored["large_motion"])
    cpu = stored["against"]["benchmarks"]["extract"]["CPU ms a clip"]
    yield row("`extract`: CPU time a clip, relative to 0.1", [1.0, cpu["ratio"]], 0.8, 0.6)


def real_video(stored: Figures) -> Iterator[list[str]]:
    """Yield false motion on neutral frames and the contrast of a smile."""
    methods = stored["sizes"][0]["methods"]
    false = [methods[name]["false_px"] / methods["landmarks"]["false_px"] for name in (OLD, NEW)]
    yield row("real neutral video: false motion / landmark crop", false, 0.43, 0.3)
    yield row("real smile: contrast", [methods[name]["contrast"] for name in (OLD, NEW)], 3.2, 4, least=True)


def exposure(stored: Figures) -> Iterator[list[str]]:
    """Yield the length of the flow in a dark recording."""
    groups = [face["greys x 0.25"] for face in stored["faces"].values()]
    lengths = [min(group[way]["length"] for group in groups) for way in ("as it is", "matched")]
    yield row("strongest 3 % of the rise, greys x 0.25 against x 1", lengths, 0.9, 0.95, least=True)


def large_motion(stored: Figures) -> Iterator[list[str]]:
    """Yield frames that were lost, and those accepted with a motion far from the true one."""
    faces = list(stored["faces"].values())

    def of(names: tuple[str, ...], figure: Callable[[Figures], float]) -> list[float]:
        return [max(figure(face[name][method]) for face in faces for name in names) for method in (OLD, NEW)]

    yield row("frames lost, turn of 5 or 10 degrees", of(("turning by 5", "turning by 10"), lost), 0)
    yield row("frames lost, turn of 15 degrees", of(("turning by 15",), lost), 0.05, 0)
    yield row("frames lost, shift of up to 30 px", of(("shifted by 20", "shifted by 30"), lost), 0)
    far = [max(too_far(face, method) for face in faces) for method in (OLD, NEW)]
    yield row("of the accepted frames, in-plane error above 1 px", far, 0.01, 0)


def lost(frames: Figures) -> float:
    """Share of frames that failed."""
    return float(1 - frames["accepted"] / frames["frames"])


def too_far(groups: Figures, method: str) -> float:
    """Share of accepted frames of all groups whose motion is more than a px off in the plane."""
    frames = [group[method] for group in groups.values() if "too_far" in group.get(method, {})]
    return float(sum(one["too_far"] for one in frames) / sum(one["accepted"] for one in frames))


def over_none(group: Figures, method: str) -> float:
    """EPE relative to no stabilisation: the head keeps still."""
    return float(group["epe_px"][method] / group["epe_px"]["none"])


def over_no_flow(group: Figures, method: str) -> float:
    """EPE relative to no flow."""
    return float(group["epe_px"][method] / group["epe_px"]["no flow"])


def cosine(group: Figures, method: str) -> float:
    """Cosine with the truth."""
    return float(group["cosine"][method])


def worst_of(figure: Callable[[Figures, str], float]) -> Callable[[Figures, str], float]:
    """Return the largest value of a figure over the expressions."""
    return lambda group, method: max(figure(one, method) for one in group["expressions"].values())


def row(name: str, values: list[float], bar: float, wanted: float | None = None, least: bool = False) -> list[str]:
    """One row, of two or three figures; `least` where larger is better."""
    old, new, undone = values if len(values) == 3 else (*values, None)
    met = new >= bar if least else new <= bar
    cells = [
        "" if value is None else f"{value:.2f}" if value >= 0.01 else f"{value:.1g}" for value in (old, new, undone)
    ]
    return [name, *cells, f"{bar:g}", "" if wanted is None else f"{wanted:g}", "met" if met else "**missed**"]


def table(results: Path = RESULTS) -> str:
    """All rows as Markdown."""
    return accuracy.markdown([["scene", "0.1", "this version", "undone", "bar", "wanted", ""], *rows(results)])


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    print(table())
