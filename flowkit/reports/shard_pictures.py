"""The section of the report of a shard folder that pictures some clips: flow, MM-COF, and the head's motion that was taken out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from flowkit.motion.stored_head_motion import RemovedMotion, removed_motion
from flowkit.reports.html import Html, element
from flowkit.reports.parts import SCALE_SHARE, WHEEL_SIDE_PX, figure, image, rounded_up
from flowkit.reports.pictures import clip_panels, colour_wheel, head_panels, mmcof_wheel
from flowkit.reports.shard_contents import PHASES, Contents
from flowkit.storage.quality import names
from flowkit.storage.schema import FACE

HEAD_LEGEND = (
    "Head in rise and fall: the motion of the head that was taken out, undone in the pictures and subtracted from the flow "
    "together. The lengths beside the pictures are means over the face. Full colour, at the rim: {:g} px."
)
CAPTIONS = {"mmcof": "MM-COF"}
"""What a panel is called where its name is not what a reader expects."""


def pictures(contents: Contents) -> Iterator[Html]:
    """Yield the section that pictures clips."""
    yield element("h2", "Flow pictures")
    if not contents.pictured:
        yield element("p", "None.")
        return
    samples = [sample for _, sample in contents.pictured]
    removed = [removed_motion(sample) for sample in samples]
    scale_px = _scale_px(zip([sample["flow"] for sample in samples], samples, strict=True))
    head_scale_px = _scale_px(
        (motion.undone + motion.subtracted, sample) for motion, sample in zip(removed, samples, strict=True) if motion
    )
    shown = f"{len(contents.pictured)} of {len(contents.clips)} clips, spread over data sets, labels and subjects."
    with_faces = "faces" in samples[0]
    yield element("p", shown, " The grey line runs round the face.")
    if with_faces:
        yield element(
            "p", "This page shows faces, because the shards keep them: treat it as personal data.", class_="note"
        )
    yield _legend(scale_px, head_scale_px if any(removed) else 0, contents.folder.run["settings"].get("units", "px"))
    figures = (
        _figure(clip, sample, scale_px, _head(motion, sample, head_scale_px))
        for (clip, sample), motion in zip(contents.pictured, removed, strict=True)
    )
    yield element("div", *figures, class_="clips faces" if with_faces else "clips")


def _scale_px(motions: Iterable[tuple[npt.NDArray[np.floating[Any]], Mapping[str, Any]]]) -> float:
    """One colour scale for all motions (2, 2, N, N) of clips, so that they can be compared: a round number that fits nearly all."""
    lengths = [
        np.hypot(*phase.astype(np.float32))[(sample["regions"] & FACE) > 0]
        for motion, sample in motions
        for phase in motion
    ]
    largest = max(0.05, float(np.quantile(np.concatenate(lengths), SCALE_SHARE)) if lengths else 0)
    return rounded_up(largest)


def _legend(scale_px: float, head_scale_px: float, units: str) -> Html:
    texts = [
        (
            colour_wheel(WHEEL_SIDE_PX),
            f"Rise and fall: the colour points where the face moves, from the middle of the wheel outwards. White: no motion; "
            f"full colour, at the rim: {scale_px:g} {units}; darker: more. One scale for all clips.",
        ),
        (
            mmcof_wheel(WHEEL_SIDE_PX),
            "MM-COF: the same for the combined direction. Black: no motion; brightest, at the rim: the largest modulated "
            "magnitude, 1. Scaled for each clip on its own.",
        ),
    ]
    if head_scale_px:
        texts.append((colour_wheel(WHEEL_SIDE_PX), HEAD_LEGEND.format(head_scale_px)))
    return element(
        "div",
        *(figure(image(wheel, "colour wheel"), text) for wheel, text in texts),
        class_="legend",
    )


def _head(removed: RemovedMotion | None, sample: Mapping[str, Any], scale_px: float) -> Html:
    """Pictures and figures of the head's motion that was taken out of a clip; nothing where none was told apart."""
    if removed is None:
        return Html()
    inside = (sample["regions"] & FACE) > 0
    mean = {
        what: [np.hypot(*phase)[inside].mean() for phase in motion]
        for what, motion in (("undone", removed.undone), ("subtracted", removed.subtracted))
    }
    panels = head_panels(removed.undone + removed.subtracted, sample["regions"], scale_px)
    valid = [number for number in range(2) if sample["phase_valid"][number]]
    return element(
        "div",
        *(figure(image(panels[number], f"head in {PHASES[number]}"), f"head in {PHASES[number]}") for number in valid),
        element(
            "div",
            *(
                element(
                    "p",
                    f"{PHASES[number]}: {mean['undone'][number]:.2f} px undone, {mean['subtracted'][number]:.2f} px subtracted; "
                    f"separation {sample['separation'][number]:.2f} px",
                )
                for number in valid
            ),
        ),
        class_="panels head",
    )


def _figure(clip: Mapping[str, Any], sample: Mapping[str, Any], scale_px: float, head: Html) -> Html:
    panels = clip_panels(sample, scale_px)
    offset = "none" if sample["offset"] < 0 else sample["offset"]
    frames = "frames unknown" if sample["onset"] < 0 else f"frames {sample['onset']}, {sample['apex']}, {offset}"
    invalid = [name for name, valid in zip(PHASES, sample["phase_valid"], strict=True) if not valid]
    noted = [f"invalid {name}" for name in invalid] + names(int(sample["qc"]))
    captions = {**CAPTIONS, **{name: f"{name} (invalid)" for name in invalid}}
    return element(
        "article",
        element("h3", clip["clip_id"]),
        element(
            "p",
            f"{clip['label'] or '(empty)'} · {clip['dataset']}/{clip['subject']} · {frames}",
            *([" · ", element("span", ", ".join(noted), class_="note")] if noted else []),
        ),
        element(
            "div",
            *(figure(image(panel, name), captions.get(name, name)) for name, panel in panels.items()),
            class_="panels",
        ),
        head,
        class_="clip",
    )
