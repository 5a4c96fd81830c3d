"""The report of a run: one HTML file with scores, mistakes, what the networks attend to, curves, and every setting.

It needs no network, no script and no other file, and shows no faces. Scores come from the committed predictions alone; the maps
are computed again, from the stored weights and the shards, by the network that had not seen the clip.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from flowkit._version import __version__
from flowkit.errors import FlowkitError
from flowkit.reports.html import Html, document, element, facts, table
from flowkit.reports.pictures import RGB, colour_wheel, data_uri, flow_picture, mmcof_picture, mmcof_wheel, png_bytes
from flowkit.storage import durable_files
from fmanet import checkpoint, run_folder
from fmanet.dataset import Clips
from fmanet.fold_worker import ClipSource, clips_digest
from fmanet.metrics import METRICS, seed_average
from fmanet.model import PHASES, FMANet, Maps, build_network, multiply_adds, parameter_count
from fmanet.plan import Member, Plan
from fmanet.prediction_table import Prediction
from fmanet.results import (
    CLASS_COLUMNS,
    SCORE_COLUMNS,
    class_table,
    gather,
    require_records,
    score_table,
    write_results,
)
from fmanet.settings import NetworkConfig, RunSettings
from fmanet.train import pinned, predict

FILE: Final = "report.html"
MAX_ROWS: Final = 200
"""Rows of the longest table; the rest is only counted."""
MAX_SIDE_PX: Final = 128
"""Larger maps are thinned out on the page."""
SCALE_SHARE: Final = 0.999
"""Share of the pictured face pixels whose motion lies within the colour scale."""
SAME: Final = 1e-3
"""Probabilities computed again may differ by this much: another machine rounds otherwise."""
WHEEL_SIDE: Final = 168
OUTSIDE: Final = 200
"""Grey outside the face."""
HEAT: Final = ((12, 12, 32), (106, 28, 110), (229, 92, 48), (250, 243, 180))
BALANCE: Final = ((33, 102, 172), (247, 247, 247), (178, 24, 43))
"""Colours from low to high, evenly spaced."""

PROTOCOLS: Final = {
    "loso": "Each subject was held out once: the networks of a fold were trained on all other subjects and then asked about "
    "the clips of this one.",
    "holdout": "The subjects named under protocol.hold_out were held out: the networks were trained on all others and then asked "
    "about the clips of these.",
    "cross": "The networks were trained on the data sets of protocol.train_on and then asked about the clips of those of "
    "protocol.test_on.",
}
SELECTED: Final = {
    "fixed": "Every network was trained for {epochs} epochs, a number set before training; its weights after the last one count.",
    "inner": "How long to train, {epochs} epochs at most, was found on subjects set aside from the training clips of each fold; "
    "then the network was trained anew on all of them.",
}
HONEST: Final = (
    "Nothing was picked on a held-out subject: no epoch, no early stop, no normalisation; the training code is never given these "
    "clips. Predictions of all folds are pooled and scored once.",
    "What this page cannot show is how the settings were come by: whoever tried several on these same subjects and kept the best "
    "reads scores that are too good.",
)
ORIGINS: Final[dict[str, tuple[tuple[str, str], ...]]] = {
    "fmanet": (
        (
            "paper",
            "analysis of both phases, modulation of the magnitude, adaptive fusion, focus on salient regions, all learned in the "
            "network",
        ),
        (
            "summary",
            "two streams that take flow directly; normalised and combined magnitude; a threshold in the modulation",
        ),
        (
            "ours",
            "the form of the gate and of the phase weights; the fall turned round; the stream of the fused map; the attention; the "
            "layers; the map kept to the end; training; every default value",
        ),
    ),
    "shallow": (
        ("description", "three streams of one convolution each on u, v and strain, after STSTNet (arXiv 1902.03634)"),
        ("ours", "the scale of the input, ReLU, dropout, masking of invalid phases, training"),
    ),
    "cnn": (("ours", "all of it: one stream of FMANet's layers on one representation, to judge the representation"),),
}
METHOD: Final = (
    "The method is that of arXiv 2510.07810 (FMANet), of which only the abstract and third-party summaries could be read, not the "
    "body. So this is an implementation of the method, not a reproduction of that paper's numbers."
)
MINMAX: Final = (
    "The flow of these shards was scaled image by image (units: minmax). Zero, magnitude and the direction of the fall are "
    "estimates there: nothing about the modulation can be concluded from this run."
)
CARDS: Final = "grid-template-columns:repeat(auto-fit,minmax(150px,1fr));max-width:760px"
COUNTED: Final = "convolutions, linear layers and averaging; not what the front end does pixel by pixel"
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Example:
    """A pictured clip: what its fold's first network said; what it saw; how far its answer is from the stored one."""

    row: Prediction
    clip: Clips
    maps: Maps | None
    apart: float


@dataclass(frozen=True, slots=True)
class _Contents:
    """All that the page shows; `unseen` says why no clip is pictured."""

    run: dict[str, Any]
    settings: RunSettings
    plan: Plan
    records: dict[Member, dict[str, Any]]
    scores: dict[str, Any]
    averaged: list[Prediction]
    log: list[dict[str, str]]
    examples: list[_Example]
    unseen: str


def write_report(out: Path, *, clips: int = 12) -> Path:
    """Write report.html into a run folder, in place of an older one; predictions.csv and scores.json are written anew too.

    Parameters
    ----------
    out : Path
        A run folder, every network of which was trained.
    clips : int
        Clips that are pictured, at most: right and wrong answers of each class take turns, always the same clips.

    Returns
    -------
    Path
        Of the page.

    Raises
    ------
    FoldsMissing
        Naming the folds and seeds that were not trained.
    CheckpointRefused, ShardCorrupt, TableDamaged
        A stored file is not what was committed. Shards that are gone or changed are no error: the page says so.
    ConfigError
        No run lies there.
    DiskFull
    """
    contents = _read(out, clips)
    path = out / FILE
    durable_files.replace_file(
        path, document(f"fmanet report: {out.resolve().name}", *_sections(contents, out.resolve().name))
    )
    return path


# --- reading


def _read(out: Path, wanted: int) -> _Contents:
    run, settings, plan = run_folder.open_run(out)
    scores = write_results(out)
    rows, classes = gather(out)
    records = require_records(out, run, settings, plan)
    log = [line for member, record in records.items() for line in _log(out, plan, member, record)]
    chosen = _chosen([row for row in rows if row.seed == plan.seeds[0]], classes, wanted)
    examples, unseen = _examples(out, run, settings, plan, chosen)
    return _Contents(run, settings, plan, records, scores, seed_average(rows, classes), log, examples, unseen)


def _log(out: Path, plan: Plan, member: Member, record: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    return csv.DictReader(io.StringIO(run_folder.read_table(out, plan, member, record["log"])))


def _chosen(rows: Sequence[Prediction], classes: Sequence[str], wanted: int) -> list[Prediction]:
    """At most `wanted` clips by class, right and wrong in turn: drawn by a hash of their names, by nothing that could flatter."""
    groups: dict[tuple[int, bool], list[Prediction]] = defaultdict(list)
    for row in sorted(rows, key=_drawn):
        groups[classes.index(row.truth), row.prediction != row.truth].append(row)
    turns = sorted((turn, key) for key, group in groups.items() for turn in range(len(group)))[:wanted]
    return [groups[key][turn] for turn, key in sorted(turns, key=lambda one: (one[1][0], one[0], one[1][1]))]


def _drawn(row: Prediction) -> str:
    return hashlib.sha256(f"{row.dataset}/{row.clip_id}".encode()).hexdigest()


def _examples(
    out: Path, run: Mapping[str, Any], settings: RunSettings, plan: Plan, chosen: Sequence[Prediction]
) -> tuple[list[_Example], str]:
    """The chosen clips as their networks see them; or why they cannot be shown."""
    if not chosen:
        return [], "None was asked for."
    source = ClipSource(
        tuple(map(Path, run["clips"]["folders"])), settings.classes, settings.size, mixed_alignment=True
    )
    try:
        clips = source.load()
    except (FlowkitError, OSError) as error:
        return [], f"The shards that this run was trained on can no longer be read, so nothing can be pictured. {error}"
    if clips_digest(clips) != run["clips"]["digest"]:
        return [], "The shards are no longer those that this run was trained on, so nothing is pictured."
    where = {(clips.dataset[n], clips.clip_id[n]): n for n in range(len(clips))}
    own = clips.select([where[row.dataset, row.clip_id] for row in chosen])
    return [_example(out, settings, plan, row, own.select([n])) for n, row in enumerate(chosen)], ""


def _example(out: Path, settings: RunSettings, plan: Plan, row: Prediction, clip: Clips) -> _Example:
    fold = next(number for number, fold in enumerate(plan.folds) if fold.name == row.fold)
    model = checkpoint.load(run_folder.record_path(out, plan, Member(fold, row.seed))).model
    on_cpu = replace(settings.train, device="cpu", mixed_precision=False)
    apart = float(np.abs(predict(model, clip, on_cpu)[0] - row.probabilities).max())
    if not isinstance(model, FMANet):
        return _Example(row, clip, None, apart)
    with pinned(on_cpu), torch.no_grad():
        return _Example(row, clip, model.maps(clip.flow, clip.valid, clip.region), apart)


# --- the page


def _sections(contents: _Contents, name: str) -> Iterator[Html]:
    yield from _head(contents, name)
    for section in (_scores, _classes, _protocol, _subjects, _maps, _curves, _method, _settings):
        yield from section(contents)


def _head(contents: _Contents, name: str) -> Iterator[Html]:
    settings, scores = contents.settings, contents.scores
    yield element("h1", name, " ", element("small", "fmanet report"))
    yield element(
        "p",
        f"{settings.network.network}, inputs {settings.network.inputs}; protocol {settings.protocol.name}; grouping "
        f"{settings.classes}: {', '.join(scores['classes'])}.",
    )
    yield element("div", *(_card(*card) for card in _cards(contents)), class_="cards", style=CARDS)
    yield element("p", _uncertainty(contents), class_="soft")
    if contents.run["clips"]["units"] == "minmax":
        yield element("p", MINMAX, class_="note")


def _cards(contents: _Contents) -> Iterator[tuple[str, str, str]]:
    """Value, name, and what stands below them."""
    scores, interval, plan = contents.scores, contents.scores["interval"], contents.plan
    for metric in METRICS:
        bounds = "" if interval is None else f"{interval[metric]['low']:.3f} to {interval[metric]['high']:.3f}"
        yield f"{scores['seed_average'][metric]:.3f}", metric.upper(), bounds
    parameters, products = _size(contents)
    yield str(scores["clips"]), "held-out clips", ""
    yield str(len(scores["subjects"])), "held-out subjects", ""
    yield str(len(plan.members)), "networks", f"folds {len(plan.folds)}, seeds {len(plan.seeds)}"
    yield _short(parameters), "parameters", ""
    yield _short(products), "multiply-adds a clip", ""


def _card(value: str, name: str, below: str) -> Html:
    more = (element("br"), element("span", below)) if below else ()
    return element("div", element("b", value), element("span", name), *more, class_="card")


def _size(contents: _Contents) -> tuple[int, int]:
    """Parameters, and multiply-adds for one clip."""
    network = build_network(contents.settings.network, 0)
    height, width = contents.run["clips"]["shape"][-2:]
    return parameter_count(network), multiply_adds(network, height, width)


def _short(count: int) -> str:
    for unit, factor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return str(count)


def _uncertainty(contents: _Contents) -> str:
    interval, seeds = contents.scores["interval"], len(contents.plan.seeds)
    averaged = "Probabilities are averaged over the seeds, then scored. " if seeds > 1 else ""
    if interval is None:
        if len(contents.scores["subjects"]) > 1:
            return (
                f"{averaged}No interval: a class is in so few subjects that hardly any bootstrap draw of them holds it."
            )
        return f"{averaged}No interval: all clips are of one subject, and nothing can be said beyond that person."
    return (
        f"{averaged}Below each score: {interval['level']:.0%} interval, from {interval['draws']} bootstrap draws over "
        f"{interval['subjects']} subjects."
    )


def _scores(contents: _Contents) -> Iterator[Html]:
    yield element("h2", "Scores of held-out clips")
    yield table(SCORE_COLUMNS, score_table(contents.scores))
    if len(contents.plan.seeds) == 1:
        text = "One seed alone says nothing of how far seeds spread: run fmanet train --seeds 5 before comparing runs."
        yield element("p", text, class_="soft")
        return
    spread = contents.scores["spread"]
    ranges = ", ".join(f"{m.upper()} {spread[m]['low']:.4f} to {spread[m]['high']:.4f}" for m in METRICS)
    yield element("p", f"Over {len(contents.plan.seeds)} seeds: {ranges}; +- is one standard deviation.", class_="soft")


def _classes(contents: _Contents) -> Iterator[Html]:
    yield element("h2", "Classes and confusion")
    yield element(
        "p", "A row is a true class: how many of its clips were said to be of each class, and which share of them."
    )
    parts = {"All clips": contents.scores}
    if len(contents.scores["datasets"]) > 1:
        parts |= contents.scores["datasets"]
    for title, part in parts.items():
        yield element("h3", title)
        rows = [row[:-1] for row in class_table(part)]
        yield element("div", table(CLASS_COLUMNS[:-1], rows), _confusion(part["seed_average"]), class_="columns")


def _confusion(scores: Mapping[str, Any]) -> Html:
    names = scores["classes"]
    lines = zip(names, scores["matrix"], strict=True)
    return table(
        ("true", *(f"said {name}" for name in names)),
        [(name, *(_cell(count, sum(line)) for count in line)) for name, line in lines],
    )


def _cell(count: int, clips: int) -> Html:
    share = count / clips if clips else 0.0
    look = f"display:block;padding:0 .5rem;white-space:nowrap;background:rgba(88,140,230,{0.6 * share:.3f})"
    return element("span", f"{count} ({share:.0%})", style=look)


def _protocol(contents: _Contents) -> Iterator[Html]:
    settings = contents.settings
    yield element("h2", "What these scores mean")
    chosen = SELECTED[settings.train.select].format(epochs=settings.train.epochs)
    yield element("p", f"{PROTOCOLS[settings.protocol.name]} {chosen}")
    for text in HONEST:
        yield element("p", text)


def _subjects(contents: _Contents) -> Iterator[Html]:
    yield element("h2", "Subjects, most errors first")
    clips, wrong = Counter[str](), defaultdict[str, Counter[str]](Counter)
    for row in contents.averaged:
        clips[row.subject] += 1
        if row.prediction != row.truth:
            wrong[row.subject][f"{row.truth} as {row.prediction}"] += 1
    ranked = sorted(clips, key=lambda name: (-wrong[name].total(), -wrong[name].total() / clips[name], name))
    rows = [
        (
            name,
            clips[name],
            (errors := wrong[name].total()),
            f"{1 - errors / clips[name]:.0%}",
            element("span", _mistakes(wrong[name]), style="display:inline-block;min-width:14rem"),
        )
        for name in ranked
    ]
    yield table(("subject", "clips", "errors", "correct", "mistakes"), rows[:MAX_ROWS])
    if len(rows) > MAX_ROWS:
        yield element("p", f"... and {len(rows) - MAX_ROWS} more.", class_="soft")


def _mistakes(found: Counter[str]) -> str:
    """What was taken for what, the most frequent first."""
    return ", ".join(f"{what} ({count})" for what, count in sorted(found.items(), key=lambda one: (-one[1], one[0])))


# --- maps over example clips


@dataclass(frozen=True, slots=True)
class _Scales:
    """One colour scale for all pictures of a kind, so that they can be compared."""

    flow: float
    weight: float
    attention: float


def _maps(contents: _Contents) -> Iterator[Html]:
    yield element("h2", "What the networks look at")
    examples = contents.examples
    if not examples:
        yield element("p", contents.unseen, class_="note")
        return
    yield element(
        "p",
        f"{len(examples)} clips, each seen by the network of the fold that had held it out (seed {contents.plan.seeds[0]}); right "
        "and wrong answers of each class, drawn by a hash of the clip's name and not by how they look.",
    )
    apart = max(example.apart for example in examples)
    if apart > SAME:
        text = f"Computed again here, probabilities differ from the stored ones by up to {apart:.2g}: the maps may differ as well."
        yield element("p", text, class_="note")
    config, scales = contents.settings.network, _scales(examples)
    if missing := _missing(config):
        yield element("p", f"This network has no {missing}.", class_="soft")
    yield element("div", *_legend(config, scales, contents.run["clips"]["units"]), class_="legend")
    yield element("div", *(_figure(example, config, scales) for example in examples), class_="clips")


def _missing(config: NetworkConfig) -> str:
    """Maps that the network does not have, in words."""
    present = {"gate": config.modulation, "phase weights": config.fusion, "attention": config.attention}
    if config.network != "fmanet":
        return "gate, phase weights or attention"
    return ", no ".join(name for name, there in present.items() if not there)


def _scales(examples: Sequence[_Example]) -> _Scales:
    lengths = [one.clip.flow.norm(dim=2)[one.clip.region[:, None].expand(-1, 2, -1, -1)] for one in examples]
    longest = float(np.quantile(torch.cat(lengths).double().numpy(), SCALE_SHARE)) if sum(map(len, lengths)) else 0.0
    maps = [one.maps for one in examples if one.maps is not None]
    weight = max((float((one.phase_weights[:, 0] - 0.5).abs().max()) for one in maps), default=0.0)
    attention = max((float((one.attention - 1).abs().max()) for one in maps), default=0.0)
    return _Scales(_rounded_up(max(longest, 0.01)), _rounded_up(max(weight, 0.01)), _rounded_up(max(attention, 0.01)))


def _rounded_up(value: float) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 1.5, 2, 3, 4, 5, 7.5, 10, 15) if value <= step * power)


def _legend(config: NetworkConfig, scales: _Scales, units: str) -> Iterator[Html]:
    smooth = "image-rendering:auto"
    yield _explained(
        _image(colour_wheel(WHEEL_SIDE), "colour wheel", smooth),
        "Rise and fall: the colour points where the face moves. White: no motion; full colour, at the rim: "
        f"{scales.flow:g} {units}; darker: more.",
    )
    if config.network != "fmanet":
        return
    yield _explained(
        _image(mmcof_wheel(WHEEL_SIDE), "colour wheel", smooth),
        "Motion: what the network makes of both phases, with the fall turned round. Black: none; brightest: 1.",
    )
    low, high = f"{0.5 - scales.weight:.3g}", f"{0.5 + scales.weight:.3g}"
    dampened, raised = f"{1 - scales.attention:.3g}", f"{1 + scales.attention:.3g}"
    bars = (
        (
            config.modulation,
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
            f"Attention: factor on the features; blue {dampened}; white 1, unchanged; red {raised}.",
        ),
    )
    for there, colours, text in bars:
        if there:
            ramp = _coloured(np.tile(np.linspace(0, 1, 84), (14, 1)), colours)
            yield _explained(_image(ramp, "colour scale", "height:14px;border-radius:0"), text)


def _explained(picture: Html, text: str) -> Html:
    return element("figure", picture, element("figcaption", text))


def _figure(example: _Example, config: NetworkConfig, scales: _Scales) -> Html:
    row = example.row
    right = row.prediction == row.truth
    sure = max(row.probabilities)
    mark = element("strong", "right" if right else "wrong", class_="" if right else "note")
    panels = _panels(example, config, scales)
    look = "grid-auto-flow:row;grid-template-columns:repeat(3,minmax(0,1fr));gap:8px;image-rendering:pixelated"
    return element(
        "article",
        element("h3", row.clip_id),
        element("p", mark, f": said {row.prediction} ({sure:.2f}), is {row.truth} · {row.subject}"),
        element("div", *(_explained(_image(p, name), name) for name, p in panels.items()), class_="panels", style=look),
        class_="clip",
    )


def _panels(example: _Example, config: NetworkConfig, scales: _Scales) -> dict[str, RGB]:
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
        gates = maps.gate[0].double().numpy()
        names = ("gate",) if len(gates) == 1 else tuple(f"gate of the {phase}" for phase in PHASES)
        if config.modulation:
            panels |= {name: _face(gate, HEAT, inside) for name, gate in zip(names, gates, strict=True)}
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


def _image(picture: RGB, alt: str, look: str = "") -> Html:
    shown = {"style": look} if look else {}
    return element("img", src=data_uri(png_bytes(np.ascontiguousarray(picture))), alt=alt, **shown)


# --- curves


def _curves(contents: _Contents) -> Iterator[Html]:
    yield element("h2", "Training")
    networks = len(contents.records)
    seconds = sum(record["seconds"] for record in contents.records.values())
    hosts = ", ".join(sorted({str(record["host"]) for record in contents.records.values()}))
    yield element(
        "p",
        f"{networks} networks. Line: the median of them in each epoch; dark band: the middle half; pale band: all.",
    )
    wanted = (
        ("train", "loss", "Loss on training clips, augmented"),
        ("train", "accuracy", "Share of training clips, augmented, that were right"),
        ("select", "loss", "Loss while the number of epochs was found"),
        ("select", "validation_loss", "Loss on the subjects set aside"),
    )
    charts = [
        _chart(title, values)
        for stage, column, title in wanted
        if (values := _by_epoch(contents.log, stage, column)) is not None
    ]
    yield element("div", *charts, class_="columns")
    epochs = [record["epochs"] for record in contents.records.values()]
    trained = f"{min(epochs)}" if min(epochs) == max(epochs) else f"{min(epochs)} to {max(epochs)}"
    yield element(
        "p", f"Trained for {trained} epochs, {seconds:.0f} s for all networks together, on {hosts}.", class_="soft"
    )


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
    top = _rounded_up(max(float(curves.max()), 1e-3))
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


# --- method and settings


def _method(contents: _Contents) -> Iterator[Html]:
    yield element("h2", "Method, and which parts are ours")
    yield element("p", METHOD)
    yield table(("source", "what rests on it"), ORIGINS[contents.settings.network.network])
    yield element("p", "Cite flowkit (CITATION.cff), the paper above, and each data set as its licence asks.")


def _settings(contents: _Contents) -> Iterator[Html]:
    run = contents.run
    yield element("h2", "Settings")
    yield element("p", "Fingerprint ", element("code", run["fingerprint"]), ": equal where all settings are.")
    settings = dict(_dotted(run["settings"]))
    tables = sorted({name.rpartition(".")[0] for name in settings})
    yield element(
        "div",
        *(facts({name: text for name, text in settings.items() if name.rpartition(".")[0] == own}) for own in tables),
        class_="facts-columns",
    )
    yield element("h2", "Clips, size, versions, machine")
    clips, (parameters, products) = run["clips"], _size(contents)
    shards = {f"shards {path}": element("code", fingerprint or "-") for path, fingerprint in clips["folders"].items()}
    trained_on = {"clips": clips["count"], "units": clips["units"], "side in pixels": clips["shape"][-1]}
    size = {"parameters": f"{parameters:,}", f"multiply-adds a clip ({COUNTED})": f"{products:,}"}
    yield element(
        "div",
        facts({**shards, "clips, by content": element("code", clips["digest"]), **trained_on}),
        facts(size),
        facts(run["versions"]),
        facts({**dict(_dotted(run["device"], "device.")), **run["machine"], "schema": run["schema"]}),
        class_="facts-columns",
    )
    yield element("p", f"This page: flowkit {__version__}.", class_="soft")


def _dotted(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{prefix}{name}.")
        else:
            listed = ", ".join(map(str, value)) if isinstance(value, list) else value
            yield f"{prefix}{name}", "(none)" if listed in ("", None) else listed
