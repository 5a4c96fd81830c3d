"""The report of a run: one HTML file with scores, mistakes, what the networks attend to, curves, and every setting.

It needs no network, no script and no other file, and shows no faces. Scores come from the committed predictions alone; the maps
are computed again, from the stored weights and the shards, by the network that had not seen the clip.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from flowkit import __version__
from flowkit.errors import FlowkitError
from flowkit.labels.action_units import are_action_units
from flowkit.reports.html import Html, document, element, facts, table
from flowkit.reports.parts import card, dotted, long_table, settings_tables
from flowkit.storage import durable_files
from fmanet import checkpoint, run_folder
from fmanet.building import build_network, multiply_adds, parameter_count
from fmanet.dataset import Clips
from fmanet.fold_worker import ClipSource, clips_digest
from fmanet.model import FMANet
from fmanet.networks import registered
from fmanet.plan import Member, Plan
from fmanet.reports.report_pictures import Example, example_maps, training_charts
from fmanet.results import (
    CLASS_COLUMNS,
    SCORE_COLUMNS,
    class_table,
    gather,
    require_records,
    score_table,
    write_results,
)
from fmanet.scoring.metrics import METRICS, mistakes, seed_average
from fmanet.scoring.prediction_table import Prediction
from fmanet.settings import RunSettings
from fmanet.training import pinned, predict

FILE: Final = "report.html"
SAME: Final = 1e-3
"""Probabilities computed again may differ by this much: another machine rounds otherwise."""
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
OF_CLASSES: Final = (
    "A row is a true class: how many of its clips were said to be of each class, and which share of them."
)
OF_EACH: Final = (
    "Each action unit is a question by itself. A row: of the clips that show it, how many were found and how many missed; of the "
    "others, how many were false alarms; and which share that is. UF1 is the mean of F1 over units, UAR that of the recalls of "
    "both answers, ACC the share of answers that are right."
)
MINMAX: Final = (
    "The flow of these shards was scaled image by image (units: minmax). Zero, magnitude and the direction of the fall are "
    "estimates there: nothing about the modulation can be concluded from this run."
)
CARDS: Final = "grid-template-columns:repeat(auto-fit,minmax(150px,1fr));max-width:760px"
COUNTED: Final = "convolutions, linear layers and averaging; not what the front end does pixel by pixel"


@dataclass(frozen=True, slots=True)
class _Contents:
    """All that the page shows; `facts` are those of run.json, `unseen` says why no clip is pictured."""

    facts: dict[str, Any]
    settings: RunSettings
    plan: Plan
    records: dict[Member, dict[str, Any]]
    scores: dict[str, Any]
    averaged: list[Prediction]
    log: list[dict[str, str]]
    examples: list[Example]
    unseen: str


def write_report(out: Path, *, clips: int = 12, scores: dict[str, Any] | None = None) -> Path:
    """Write report.html into a run folder, in place of an older one.

    Parameters
    ----------
    out : Path
        A run folder, every network of which was trained.
    clips : int
        Clips that are pictured, at most: right and wrong answers of each class take turns, always the same clips.
    scores : dict, optional
        What `write_results` has just given for this folder; without it, predictions.csv and scores.json are written again first.

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
    contents = _read(out, clips, write_results(out) if scores is None else scores)
    path = out / FILE
    durable_files.replace_file(
        path, document(f"fmanet report: {out.resolve().name}", *_sections(contents, out.resolve().name))
    )
    return path


# --- reading


def _read(out: Path, wanted: int, scores: dict[str, Any]) -> _Contents:
    stored, settings, plan = run_folder.open_run(out)
    run_folder.refuse_earlier(out, stored)
    rows, classes = gather(out)
    records = require_records(out, stored, plan)
    log = [line for member, record in records.items() for line in _log(out, plan, member, record)]
    chosen = _chosen([row for row in rows if row.seed == plan.seeds[0]], classes, wanted)
    examples, unseen = _examples(out, stored, settings, plan, chosen)
    return _Contents(stored, settings, plan, records, scores, seed_average(rows, classes), log, examples, unseen)


def _log(out: Path, plan: Plan, member: Member, record: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    return csv.DictReader(io.StringIO(run_folder.read_table(out, plan, member, record["log"])))


def _chosen(rows: Sequence[Prediction], classes: Sequence[str], wanted: int) -> list[Prediction]:
    """At most `wanted` clips by class, right and wrong in turn: drawn by a hash of their names, by nothing that could flatter."""
    groups: dict[tuple[int, bool], list[Prediction]] = defaultdict(list)
    words = sorted({row.truth for row in rows}) if are_action_units(classes) else classes
    for row in sorted(rows, key=_drawn):
        groups[words.index(row.truth), row.prediction != row.truth].append(row)
    turns = sorted((turn, key) for key, group in groups.items() for turn in range(len(group)))[:wanted]
    return [groups[key][turn] for turn, key in sorted(turns, key=lambda one: (one[1][0], one[0], one[1][1]))]


def _drawn(row: Prediction) -> str:
    return hashlib.sha256(f"{row.dataset}/{row.clip_id}".encode()).hexdigest()


def _examples(
    out: Path, stored: Mapping[str, Any], settings: RunSettings, plan: Plan, chosen: Sequence[Prediction]
) -> tuple[list[Example], str]:
    """The chosen clips as their networks see them; or why they cannot be shown."""
    if not chosen:
        return [], "None was asked for."
    source = ClipSource(
        tuple(map(Path, stored["clips"]["folders"])),
        settings.classes,
        settings.size,
        settings.face,
        mixed_alignment=True,
    )
    try:
        clips = source.load()
    except (FlowkitError, OSError) as error:
        return [], f"The shards that this run was trained on can no longer be read, so nothing can be pictured. {error}"
    if clips_digest(clips) != stored["clips"]["digest"]:
        return [], "The shards are no longer those that this run was trained on, so nothing is pictured."
    where = {(clips.dataset[n], clips.clip_id[n]): n for n in range(len(clips))}
    own = clips.select([where[row.dataset, row.clip_id] for row in chosen])
    return [_example(out, settings, plan, row, own.select([n])) for n, row in enumerate(chosen)], ""


def _example(out: Path, settings: RunSettings, plan: Plan, row: Prediction, clip: Clips) -> Example:
    fold = next(number for number, fold in enumerate(plan.folds) if fold.name == row.fold)
    model = checkpoint.load(run_folder.record_path(out, plan, Member(fold, row.seed))).model
    on_cpu = replace(settings.train, device="cpu", mixed_precision=False)
    apart = float(np.abs(predict(model, clip, on_cpu)[0] - row.probabilities).max())
    if not isinstance(model, FMANet):
        return Example(row, clip, None, apart)
    with pinned(on_cpu), torch.no_grad():
        return Example(row, clip, model.maps(clip.flow, clip.valid, clip.region), apart)


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
    yield element("div", *(card(*one) for one in _cards(contents)), class_="cards", style=CARDS)
    yield element("p", _uncertainty(contents), class_="soft")
    if contents.facts["clips"]["units"] == "minmax":
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


def _size(contents: _Contents) -> tuple[int, int]:
    """Parameters, and multiply-adds for one clip."""
    network = build_network(contents.settings.network, 0)
    height, width = contents.facts["clips"]["shape"][-2:]
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
    each = are_action_units(contents.scores["classes"])
    yield element("p", OF_EACH if each else OF_CLASSES)
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
    if are_action_units(names):
        cells = [
            (name, *(_cell(count, sum(line)) for line in reversed(own) for count in reversed(line)))
            for name, own in lines
        ]
        return table(("unit", "found", "missed", "false alarms", "rest"), cells)
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
    classes = contents.scores["classes"]
    answers = len(classes) if are_action_units(classes) else 1  # a clip
    for row in contents.averaged:
        clips[row.subject] += 1
        wrong[row.subject].update(mistakes(row, classes))
    ranked = sorted(clips, key=lambda name: (-wrong[name].total(), -wrong[name].total() / clips[name], name))
    rows = [
        (
            name,
            clips[name],
            (errors := wrong[name].total()),
            f"{1 - errors / clips[name] / answers:.0%}",
            element("span", _mistakes(wrong[name]), style="display:inline-block;min-width:14rem"),
        )
        for name in ranked
    ]
    yield long_table(("subject", "clips", "errors", "correct", "mistakes"), rows)


def _mistakes(found: Counter[str]) -> str:
    """What was taken for what, the most frequent first."""
    return ", ".join(f"{what} ({count})" for what, count in sorted(found.items(), key=lambda one: (-one[1], one[0])))


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
    yield from example_maps(examples, contents.settings.network, contents.facts["clips"]["units"])


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
    yield training_charts(contents.log)
    epochs = [record["epochs"] for record in contents.records.values()]
    trained = f"{min(epochs)}" if min(epochs) == max(epochs) else f"{min(epochs)} to {max(epochs)}"
    yield element(
        "p", f"Trained for {trained} epochs, {seconds:.0f} s for all networks together, on {hosts}.", class_="soft"
    )


# --- method and settings


def _method(contents: _Contents) -> Iterator[Html]:
    yield element("h2", "Method, and which parts are ours")
    network = registered(contents.settings.network.network)
    yield element("p", network.about)
    if network.origins:
        yield table(("source", "what rests on it"), network.origins)
    yield element("p", f"Cite flowkit (CITATION.cff), {network.cite}, and each data set as its licence asks.")


def _settings(contents: _Contents) -> Iterator[Html]:
    stored = contents.facts
    yield element("h2", "Settings")
    yield element("p", "Fingerprint ", element("code", stored["fingerprint"]), ": equal where all settings are.")
    yield settings_tables(stored["settings"])
    yield element("h2", "Clips, size, versions, machine")
    clips, (parameters, products) = stored["clips"], _size(contents)
    shards = {f"shards {path}": element("code", fingerprint or "-") for path, fingerprint in clips["folders"].items()}
    trained_on = {"clips": clips["count"], "units": clips["units"], "side in pixels": clips["shape"][-1]}
    kinds = {"carried": "on the canonical face", "with_action_units": "with action units"}
    trained_on |= {title: clips[name] for name, title in kinds.items() if name in clips}
    size = {"parameters": f"{parameters:,}", f"multiply-adds a clip ({COUNTED})": f"{products:,}"}
    yield element(
        "div",
        facts({**shards, "clips, by content": element("code", clips["digest"]), **trained_on}),
        facts(size),
        facts(stored["versions"]),
        facts({**dotted(stored["device"], "device."), **stored["machine"], "schema": stored["schema"]}),
        class_="facts-columns",
    )
    yield element("p", f"This page: flowkit {__version__}.", class_="soft")
