"""From the predictions that folds committed to the scores of a run; nothing here looks at weights or flow."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from flowkit.errors import ConfigError, ShardCorrupt
from flowkit.labels.action_units import are_action_units
from flowkit.listing import listed
from flowkit.storage import durable_files, hashed_json
from fmanet import run_folder
from fmanet.errors import FoldsMissing, IntervalUndefined
from fmanet.plan import Member, Plan, member_keys
from fmanet.scoring.intervals import Intervals, subject_interval
from fmanet.scoring.metrics import METRICS, Scores, by_seed, by_subject, score_rows, seed_average, spread
from fmanet.scoring.prediction_table import Prediction, answer, parse_table, write_table

SCORE_COLUMNS = ("of", "clips", "UF1", "UAR", "ACC")
CLASS_COLUMNS = ("class", "clips", "F1", "recall", "precision", "predicted as")
SUBJECT_COLUMNS = ("subject", "clips", "correct")

Rows = list[Prediction]


def write_results(out: Path) -> dict[str, Any]:
    """Gather the predictions of all folds into predictions.csv, and score them into scores.json.

    Parameters
    ----------
    out : Path
        A run folder.

    Returns
    -------
    dict
        What scores.json holds: `by_seed`, `spread` over seeds, `seed_average` (probabilities averaged, then scored) with its
        `interval`, the same for each of `datasets`, and `subjects`.

    Raises
    ------
    FoldsMissing
        Naming the folds and seeds that were not trained.
    ShardCorrupt, TableDamaged
        A stored file is not what was committed.
    ConfigError
        No run lies there, or a class is absent from the truth.
    """
    rows, classes = gather(out)
    _, settings, _ = run_folder.open_run(out)
    scores = {"schema": hashed_json.SCHEMA, "protocol": settings.protocol.name, **_scored(rows, classes)}
    write_table(out / run_folder.PREDICTIONS_FILE, rows, classes)
    durable_files.replace_file(out / run_folder.SCORES_FILE, json.dumps(scores, indent=1).encode() + b"\n")
    return scores


def gather(out: Path) -> tuple[Rows, tuple[str, ...]]:
    """Every prediction of a run, by seed, then by fold; and its classes.

    Raises
    ------
    FoldsMissing, ShardCorrupt, TableDamaged, ConfigError
    """
    facts, settings, plan = run_folder.open_run(out)
    if settings.is_final:
        raise ConfigError(
            f"{out}: a run must hold somebody out to be scored; got one that trained on everybody (--final). For a score, train "
            "with held-out subjects: fmanet train without --final."
        )
    rows: Rows = []
    for member, record in require_records(out, facts, plan).items():
        entry = record["predictions"]
        own = parse_table(run_folder.read_table(out, plan, member, entry), entry["name"]).rows
        fold = plan.folds[member.fold]
        if [row.clip_id for row in own] != list(fold.test) or any(
            row.fold != fold.name or row.seed != member.seed for row in own
        ):
            raise FoldsMissing(
                f"{entry['name']}: predictions must be those of {plan.title(member)}; got others. Delete its record "
                "and run the same fmanet train again."
            )
        rows += own
    return rows, tuple(facts["clips"]["classes"])


def require_records(out: Path, facts: Mapping[str, Any], plan: Plan) -> dict[Member, dict[str, Any]]:
    """The record of every network of a run.

    Raises
    ------
    FoldsMissing
    """
    keys = member_keys(plan, facts["fingerprint"], facts["clips"]["digest"])
    found = {member: run_folder.read_record(out, plan, member, keys[member]) for member in plan.members}
    missing = [plan.title(member) for member, record in found.items() if record is None]
    if missing:
        raise FoldsMissing(
            f"{out}: every fold must be trained before anything is scored; got none of {listed(missing, 20, '; ')}. Run the same "
            "fmanet train again."
        )
    return {member: record for member, record in found.items() if record is not None}


def leaky_scores(out: Path) -> dict[str, Any]:
    """What choosing each fold's best epoch on its held-out clips would claim: no result, only to relate to literature.

    The only reader of what --keep-epochs stored.

    Returns
    -------
    dict
        `seeds` (scores by seed), `mean_uf1`, and `honest_mean_uf1` of the same run.

    Raises
    ------
    ConfigError
        The run kept no epochs.
    FoldsMissing, ShardCorrupt, TableDamaged
    """
    facts, settings, plan = run_folder.open_run(out)
    if not settings.keep_epochs:
        raise ConfigError(
            f"{out}: --report-leaky must find what each epoch predicted; got a run without. Run fmanet train with --keep-epochs."
        )
    rows, classes = gather(out)
    best: Rows = []
    for member, record in require_records(out, facts, plan).items():
        fold = plan.folds[member.fold].name
        own = [row for row in rows if row.fold == fold and row.seed == member.seed]
        best += _best_epoch(run_folder.read_table(out, plan, member, record["every_epoch"]), own, classes)
    found = by_seed(best, classes)
    return {
        "what": "best epoch chosen on the held-out subject: leaky, only to relate to literature",
        "seeds": {str(seed): scores.to_dict() for seed, scores in found.items()},
        "mean_uf1": spread(found).mean,
        "honest_mean_uf1": spread(by_seed(rows, classes)).mean,
    }


def score_table(scores: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Scores as a table for people: each seed, their mean, the average over seeds with intervals, each data set."""
    rows = [(f"seed {seed}", *_cells(found)) for seed, found in scores["by_seed"].items()]
    if len(rows) > 1:
        means = (f"{s['mean']:.4f} +- {s['std']:.4f}" for s in (scores["spread"][metric] for metric in METRICS))
        rows.append(("mean of seeds", rows[0][1], *means))
    rows.append(("average over seeds", *_cells(scores["seed_average"], scores["interval"])))
    if len(scores["datasets"]) > 1:
        rows += [
            (f"  {name}", *_cells(part["seed_average"], part["interval"])) for name, part in scores["datasets"].items()
        ]
    return rows


def class_table(scores: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Classes as a table for people; the last column is the row of the confusion matrix, of action units that of who shows it."""
    found = scores["seed_average"]
    said, lines = found["classes"], found["matrix"]
    if are_action_units(said):
        said, lines = ("not shown", "shown"), [line[1] for line in lines]
    return [
        (
            name,
            str(one["support"]),
            *(_number(one[metric]) for metric in ("f1", "recall", "precision")),
            ", ".join(f"{other} {count}" for other, count in zip(said, line, strict=True)),
        )
        for (name, one), line in zip(found["per_class"].items(), lines, strict=True)
    ]


def subject_table(scores: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Subjects as a table for people."""
    return [(name, str(one["clips"]), str(one["correct"])) for name, one in scores["subjects"].items()]


def _scored(rows: Rows, classes: tuple[str, ...]) -> dict[str, Any]:
    """Scores of predictions as plain values."""
    seeds, averaged = by_seed(rows, classes), seed_average(rows, classes)
    datasets = {}
    for name in sorted({row.dataset for row in rows}):
        own = [row for row in averaged if row.dataset == name]
        found = score_rows(own, classes, absent="report")
        seeds_of_it = by_seed([row for row in rows if row.dataset == name], classes, absent="report")
        datasets[name] = {
            "by_seed": {str(seed): one.to_dict() for seed, one in seeds_of_it.items()},
            "seed_average": found.to_dict(),
            "interval": _interval(own, found),
        }
    pooled = score_rows(averaged, classes)
    return {
        "classes": list(classes),
        "clips": len(averaged),
        "by_seed": {str(seed): one.to_dict() for seed, one in seeds.items()},
        "spread": {metric: _plain(spread(seeds, metric)._asdict()) for metric in METRICS},
        "seed_average": pooled.to_dict(),
        "interval": _interval(averaged, pooled),
        "datasets": datasets,
        "subjects": {
            one.subject: {"clips": one.predictions, "correct": one.correct} for one in by_subject(averaged, classes)
        },
    }


def _interval(rows: Rows, scores: Scores) -> dict[str, Any] | None:
    """Intervals over subjects; None where there is one subject only, or a class is absent or in too few of them."""
    if len({row.subject for row in rows}) < 2 or scores.absent:
        return None
    try:
        found: Intervals = subject_interval(rows, scores.classes)
    except IntervalUndefined:
        return None
    return {**asdict(found), **{metric: getattr(found, metric)._asdict() for metric in METRICS}}


def _best_epoch(text: str, rows: Sequence[Prediction], classes: Sequence[str]) -> Rows:
    """Predictions of the epoch that gets most of these clips right, the first of equals."""
    header, *lines = csv.reader(io.StringIO(text))
    if tuple(header) != (*run_folder.EPOCH_COLUMNS, *classes):
        raise ShardCorrupt(
            "epochs: header must name epoch, clip and classes; got another. Restore the file from a copy."
        )
    by_clip = {(row.dataset, row.clip_id): row for row in rows}
    epochs: dict[int, Rows] = {}
    for epoch, clip_id, _, dataset, *shares in lines:
        values = tuple(map(float, shares))
        row = replace(by_clip[dataset, clip_id], prediction=answer(values, classes), probabilities=values)
        epochs.setdefault(int(epoch), []).append(row)
    return max(epochs.values(), key=lambda own: sum(row.truth == row.prediction for row in own))


def _cells(scores: Mapping[str, Any], interval: Mapping[str, Any] | None = None) -> tuple[str, ...]:
    cells = [str(scores["clips"])]
    for metric in METRICS:
        bounds = "" if interval is None else f" [{interval[metric]['low']:.4f}, {interval[metric]['high']:.4f}]"
        cells.append(_number(scores[metric]) + bounds)
    if scores["absent"]:
        cells[1] = f"- (no {', '.join(scores['absent'])})"
    return tuple(cells)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Without NaN, which JSON has none of."""
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in values.items()}
