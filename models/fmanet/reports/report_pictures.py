"""Pictures of a run for its report: what the networks look at in example clips, and curves of their training."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from flowkit.labels.action_units import are_action_units
from flowkit.reports.html import Html, element
from flowkit.reports.parts import SCALE_SHARE, WHEEL_SIDE_PX, figure, image, rounded_up
from flowkit.reports.pictures import RGB, colour_wheel, flow_picture, mmcof_picture, mmcof_wheel
from fmanet.dataset import Clips
from fmanet.front_end import PHASES
from fmanet.model import Maps
from fmanet.scoring.prediction_table import Prediction
from fmanet.settings import NetworkConfig

MAX_SIDE_PX: Final = 128
"""Larger maps are thinned out on the page."""
OUTSIDE: Final = 200
"""Grey outside the face."""
HEAT: Final = ((12, 12, 32), (106, 28, 110), (229, 92, 48), (250, 243, 180))
BALANCE: Final = ((33, 102, 172), (247, 247, 247), (178, 24, 43))
"""Colours from low to high, evenly spaced."""
CHARTS: Final = (
    ("train", "loss", "Loss on training clips, augmented"),
    ("train", "accuracy", "Share of training clips, augmented, that were right"),
    ("select", "loss", "Loss while the number of epochs was found"),
    ("select", "validation_loss", "Loss on the subjects set aside"),
)
"""Stage and column of the log, and what it is."""
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Example:
    """A pictured clip: what its fold's first network said; what it saw; how far its answer is from the stored one."""

    row: Prediction
    clip: Clips
    maps: Maps | None
    apart: float


@dataclass(frozen=True, slots=True)
class _Scales:
    """One colour scale for all pictures of a kind, so that they can be compared."""

    flow: float
    weight: float
    attention: float


def example_maps(examples: Sequence[Example], config: NetworkConfig, units: str) -> Iterator[Html]:
    """Yield the pictures of clips that were held out, with their legend before them; there is at least one clip."""
    scales, has_maps = _scales(examples), any(example.maps is not None for example in examples)
    if missing := _missing(config, has_maps):
        yield element("p", f"This network has no {missing}.", class_="soft")
    yield element("div", *_legend(config, has_maps, scales, units), class_="legend")
    yield element("div", *(_clip(example, config, scales) for example in examples), class_="clips")


def _missing(config: NetworkConfig, has_maps: bool) -> str:
    """Maps that the network does not have, in words."""
    present = {"gate": _has_gate(config), "phase weights": config.fusion, "attention": config.attention}
    if not has_maps:
        return "gate, phase weights or attention"
    return ", no ".join(name for name, there in present.items() if not there)


def _has_gate(config: NetworkConfig) -> bool:
    """Without fusion no stream sees MM-COF."""
    return config.modulation and config.fusion


def _scales(examples: Sequence[Example]) -> _Scales:
    lengths = [one.clip.flow.norm(dim=2)[one.clip.region[:, None].expand(-1, 2, -1, -1)] for one in examples]
    longest = float(np.quantile(torch.cat(lengths).double().numpy(), SCALE_SHARE)) if sum(map(len, lengths)) else 0.0
    maps = [one.maps for one in examples if one.maps is not None]
    weight = max((float((one.phase_weights[:, 0] - 0.5).abs().max()) for one in maps), default=0.0)
    attention = max((float((one.attention - 1).abs().max()) for one in maps), default=0.0)
    return _Scales(rounded_up(max(longest, 0.01)), rounded_up(max(weight, 0.01)), rounded_up(max(attention, 0.01)))


def _legend(config: NetworkConfig, has_maps: bool, scales: _Scales, units: str) -> Iterator[Html]:
    smooth = "image-rendering:auto"
    yield figure(
        image(colour_wheel(WHEEL_SIDE_PX), "colour wheel", smooth),
        "Rise and fall: the colour points where the face moves. White: no motion; full colour, at the rim: "
        f"{scales.flow:g} {units}; darker: more.",
    )
    if not has_maps:
        return
    yield figure(
        image(mmcof_wheel(WHEEL_SIDE_PX), "colour wheel", smooth),
        "Motion: what the network makes of both phases, with the fall turned round. Black: none; brightest: 1.",
    )
    low, high = f"{0.5 - scales.weight:.3g}", f"{0.5 + scales.weight:.3g}"
    dampened, raised = f"{1 - scales.attention:.3g}", f"{1 + scales.attention:.3g}"
    bars = (
        (
            _has_gate(config),
            HEAT,
            "Gate: dark 0, weak motion, scaled by beta; bright 1, strong motion, scaled by alpha.",
        ),
        (
            config.fusion,
            BALANCE,
            f"Weight of the rise: blue {low}, the fall counts more; white 0.5; red {high}, the rise does.",
        ),
        (
            config.attention,
            BALANCE,
            f"Attention: factor on what the streams see; blue {dampened}; white 1, unchanged; red {raised}.",
        ),
    )
    for there, colours, text in bars:
        if there:
            ramp = _coloured(np.tile(np.linspace(0, 1, 84), (14, 1)), colours)
            yield figure(image(ramp, "colour scale", "height:14px;border-radius:0"), text)


def _clip(example: Example, config: NetworkConfig, scales: _Scales) -> Html:
    row = example.row
    right = row.prediction == row.truth
    sure = "" if are_action_units(example.clip.classes) else f" ({max(row.probabilities):.2f})"
    mark = element("strong", "right" if right else "wrong", class_="" if right else "note")
    panels = _panels(example, config, scales)
    look = "grid-auto-flow:row;grid-template-columns:repeat(3,minmax(0,1fr));gap:8px;image-rendering:pixelated"
    return element(
        "article",
        element("h3", row.clip_id),
        element("p", mark, f": said {row.prediction}{sure}, is {row.truth} · {row.subject}"),
        element("div", *(figure(image(p, name), name) for name, p in panels.items()), class_="panels", style=look),
        class_="clip",
    )


def _panels(example: Example, config: NetworkConfig, scales: _Scales) -> dict[str, RGB]:
    """Pictures of one clip by what stands below them."""
    clip, maps = example.clip, example.maps
    flow, inside = clip.flow[0].numpy(), clip.region[0].numpy()
    panels = {
        name if valid else f"{name} (invalid)": flow_picture(flow[p], scales.flow)
        for p, (name, valid) in enumerate(zip(PHASES, clip.valid[0].tolist(), strict=True))
    }
    if maps is not None:
        strength, direction = (maps.motion[0] * clip.region[0]).numpy(), maps.direction[0].numpy()
        panels["motion"] = mmcof_picture(np.stack([*(strength * direction), strength]))
        if _has_gate(config):
            panels["gate"] = _face(maps.gate[0, 0].double().numpy(), HEAT, inside)
        if config.fusion:
            weight = maps.phase_weights[0, 0].double().numpy() - 0.5
            panels["weight of the rise"] = _face(0.5 + weight / (2 * scales.weight), BALANCE, inside)
        if config.attention:
            factor = maps.attention[0].double().numpy() - 1
            panels["attention"] = _coloured(0.5 + factor / (2 * scales.attention), BALANCE)
    return {name: _thinned(picture) for name, picture in panels.items()}


def _face(values: Floats, colours: Sequence[tuple[int, int, int]], inside: npt.NDArray[np.bool_]) -> RGB:
    """Colours inside the face, grey outside."""
    return np.where(inside[..., None], _coloured(values, colours), np.uint8(OUTSIDE))


def _coloured(values: Floats, colours: Sequence[tuple[int, int, int]]) -> RGB:
    """(H, W) from 0 to 1 -> colours between the given ones."""
    steps = np.linspace(0, 1, len(colours))
    channels = [np.interp(values, steps, channel) for channel in zip(*colours, strict=True)]
    rgb: RGB = np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
    return rgb


def _thinned(picture: RGB) -> RGB:
    step = math.ceil(len(picture) / MAX_SIDE_PX)
    return picture[::step, ::step]


# --- curves


def training_charts(log: Sequence[Mapping[str, str]]) -> Html:
    """Return a chart of each column of the networks' logs."""
    charts = [
        _chart(title, values)
        for stage, column, title in CHARTS
        if (values := _by_epoch(log, stage, column)) is not None
    ]
    return element("div", *charts, class_="columns")


def _by_epoch(log: Sequence[Mapping[str, str]], stage: str, column: str) -> list[Floats] | None:
    """Values of all networks in each epoch; None where the log has none."""
    found: dict[int, list[float]] = defaultdict(list)
    for line in log:
        if line["stage"] == stage and line[column]:
            found[int(line["epoch"])].append(float(line[column]))
    return [np.array(found[epoch]) for epoch in sorted(found)] or None


def _chart(title: str, values: Sequence[Floats]) -> Html:
    """Median, quartiles and extremes of networks over epochs, as a small SVG picture."""
    width, height, foot, margin = 420, 150, 18, 34
    curves = np.array([np.quantile(own, (0, 0.25, 0.5, 0.75, 1)) for own in values])  # (epochs, 5)
    top = rounded_up(max(float(curves.max()), 1e-3))
    x = margin + (width - margin) * (np.arange(len(values)) + 0.5) / len(values)
    y = 6 + (height - 6) * (1 - curves / top)
    middle = element("path", d=_path(x, y[:, 2]), style="fill:none;stroke:var(--accent);stroke-width:1.6")
    texts = (
        (f"{top:g}", margin - 5, 11, "end"),
        ("0", margin - 5, height, "end"),
        ("1", x[0], height + foot - 4, "middle"),
        (f"{len(values)} epochs" if len(values) > 1 else "epoch", width, height + foot - 4, "end"),
    )
    picture = element(
        "svg",
        *(_band(x, y[:, low], y[:, high], shade) for low, high, shade in ((0, 4, 0.15), (1, 3, 0.25))),
        middle,
        element("line", x1=margin, x2=width, y1=height, y2=height, class_="base"),
        *(element("text", text, x=f"{at:.1f}", y=line, text_anchor=anchor) for text, at, line, anchor in texts),
        viewBox=f"0 0 {width} {height + foot}",
        role="img",
        aria_label=f"{title}, by epoch",
    )
    first, last = curves[0], curves[-1]
    said = f"{title}: median {first[2]:.3f} in the first epoch, {last[2]:.3f} in the last ({last[0]:.3f} to {last[4]:.3f})."
    return element("figure", picture, element("figcaption", said), style="margin:.5rem 0 1rem")


def _band(x: Floats, low: Floats, high: Floats, shade: float) -> Html:
    outline = _path(np.concatenate([x, x[::-1]]), np.concatenate([low, high[::-1]]))
    return element("path", d=f"{outline}Z", style=f"fill:var(--accent);fill-opacity:{shade};stroke:none")


def _path(x: Floats, y: Floats) -> str:
    return "M" + "L".join(f"{across:.1f} {down:.1f}" for across, down in zip(x, y, strict=True))
