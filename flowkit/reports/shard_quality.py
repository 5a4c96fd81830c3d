"""The section of the report of a shard folder on quality: notes, residuals, and how far heads moved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from flowkit.reports.html import Html, element, histogram, table
from flowkit.reports.shard_contents import PHASES, Contents, Measures
from flowkit.storage.quality import (
    EXPLAINED_LIMIT_PX,
    RESIDUAL_LIMIT_PX,
    SEPARATION_LIMIT_PX,
    TURN_LIMIT_DEG,
    Flag,
    residual_limit_px,
)

RESIDUAL_EDGES_PX = tuple(number / 10 for number in range(21))
NOTES = {
    Flag.ZERO_MOTION: "nothing at all moves in a valid phase: the same frame twice, or a frozen video",
    Flag.BLANK: "a frame has no texture inside the face",
    Flag.RESIDUAL: f"residual above {EXPLAINED_LIMIT_PX:g} px ({RESIDUAL_LIMIT_PX:g} px unless align.stabilise is head): head "
    "motion was left, or something moved that is neither head nor expression",
    Flag.MANY_FACES: "several faces in the onset; the largest was taken",
    Flag.ROTATED: "the image or video asked for a rotation, which was applied",
    Flag.NEAREST: "a missing frame was replaced by its nearest neighbour",
    Flag.TURNED: f"the head turned by more than {TURN_LIMIT_DEG:g} degrees out of the image plane",
    Flag.LANDMARK_START: "registration of a frame started from that frame's own landmarks: the head moved far",
    Flag.UNCERTAIN: f"head and expression could hardly be told apart (separation above {SEPARATION_LIMIT_PX:g} px)",
    Flag.DARK: "too little contrast beside the noise: the flow may be too short",
    Flag.NEIGHBOURS: "a frame beside a key frame was not averaged with it: unreadable, the same picture once more, or one that "
    "differs by more than noise (flash, cut, blink, fast movement)",
}
SPREAD_HEADER = ("", "", "median", "95th percentile", "largest")
TOLD_APART = (
    "The separation is the uncertainty of the head's motion in the face (standard deviation): small where head and expression "
    f"could be told apart. Above {SEPARATION_LIMIT_PX:g} px a clip carries the note UNCERTAIN. Where the head turned by more than "
    f"{TURN_LIMIT_DEG:g} degrees, it carries the note TURNED."
)
UNEXPLAINED = (
    "Median length, inside the face, of what is neither the head's motion nor an expression's: noise, turns that the depth of the "
    "face does not explain, and what moves in its own way, such as a hand."
)
STILL_PART = (
    "Median length of the stored flow where expressions move the face least: noise, head motion that is left, and broad "
    "expressions, which move that part too (a smile lifts the cheeks)."
)


def quality(contents: Contents) -> Iterator[Html]:
    """Yield the section on quality."""
    yield element("h2", "Quality")
    yield from _notes(contents.clips)
    measures = contents.measures
    if not len(measures.residual):
        return
    stabilise = contents.folder.run["settings"]["align"]["stabilise"]
    limit = residual_limit_px(stabilise)
    yield element("h3", "Motion that is left to explain (residual)")
    yield element(
        "p",
        UNEXPLAINED if stabilise == "head" else STILL_PART,
        f" A large residual is a reason to look. Above {limit:g} px (dashed line) a clip carries the note RESIDUAL. Invalid phases "
        "are left out.",
    )
    yield element("div", *(_residuals(measures, number, limit) for number in range(2)), class_="columns")
    yield element("h3", "Head motion that was taken out of the images (drift)")
    if stabilise == "none":
        yield element("p", "Not estimated: align.stabilise is none.")
    else:
        yield _drifts(measures, contents.folder.run["settings"]["align"]["size"])
    if np.isfinite(measures.separation).any():
        yield element("h3", "Turns of the head, and how well they could be told from an expression")
        yield element("p", TOLD_APART)
        yield _turns(measures)


def _notes(clips: Sequence[Mapping[str, Any]]) -> Iterator[Html]:
    invalid = [sum(not clip["phase_valid"][phase] for clip in clips) for phase in range(2)]
    rows: list[tuple[object, ...]] = [
        (
            f"invalid {name}",
            count,
            f"the {name} has no length, or its frame is missing; its flow is zero and does not count",
        )
        for name, count in zip(PHASES, invalid, strict=True)
        if count
    ]
    rows += [
        (element("code", flag.name), count, meaning)
        for flag, meaning in NOTES.items()
        if (count := sum(bool(clip["qc"] & flag) for clip in clips))
    ]
    if rows:
        yield table(("note", "clips", "what it means"), rows)
    else:
        yield element("p", "No clip has a note.")


def _residuals(measures: Measures, phase: int, limit: float) -> Html:
    values = measures.residual[measures.phase_valid[:, phase], phase]
    values = values[np.isfinite(values)]
    name = PHASES[phase]
    if not len(values):
        return element("div", element("p", f"{name}: no valid phase whose residual is known."))
    above = int((values > limit).sum())
    text = (
        f"{name}: median {np.median(values):.2f} px, 95th percentile {np.quantile(values, 0.95):.2f} px, largest "
        f"{values.max():.2f} px; above {limit:g} px: {above} of {len(values)}"
    )
    picture = histogram(values, RESIDUAL_EDGES_PX, limit, "px", f"Histogram of the residual of the {name}")
    return element("figure", picture, element("figcaption", text), style="margin:.5rem 0 1rem")


def _drifts(measures: Measures, size: int) -> Html:
    """How far the registration moves the middle of the crop, and how far it turns it, of each frame but the onset."""
    centre = (size - 1) / 2
    rows: list[tuple[str, ...]] = []
    for frame, name in enumerate(("apex", "offset")):
        there = measures.phase_valid[:, frame]
        moved = measures.registration[there, frame]
        shift = np.hypot(*(moved @ [centre, centre, 1] - centre).T)
        turn = np.abs(np.degrees(np.arctan2(moved[:, 1, 0], moved[:, 0, 0])))
        for what, values, unit in (("shift", shift, "px"), ("turn", turn, "deg")):
            rows += _spread_row(f"onset to {name}", what, values, unit)
    return table(SPREAD_HEADER, rows)


def _spread_row(where: str, what: str, values: npt.NDArray[Any], unit: str) -> list[tuple[str, ...]]:
    """Return the row of a table of `SPREAD_HEADER`, none where there are no values."""
    if not len(values):
        return []
    figures = (np.median(values), np.quantile(values, 0.95), values.max())
    return [(where, what, *(f"{value:.2f} {unit}" for value in figures))]


def _turns(measures: Measures) -> Html:
    """How far the head turned out of the image plane at apex and offset, and the separation of rise and fall."""
    turns = np.abs(measures.turn + measures.removed_turn.cumsum(axis=1))
    rows: list[tuple[str, ...]] = []
    for frame, name in enumerate(("apex", "offset")):
        there = measures.phase_valid[:, frame] & np.isfinite(measures.separation[:, frame])
        for axis, word in enumerate(("yaw", "pitch")):
            rows += _spread_row(f"onset to {name}", word, turns[there, frame, axis], "deg")
        rows += _spread_row(PHASES[frame], "separation", measures.separation[there, frame], "px")
    return table(SPREAD_HEADER, rows)
