"""What the commands print for people."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from flowkit.cli.common import show_rows


def show(found: Mapping[str, Any], as_json: bool, for_people: Callable[[Mapping[str, Any]], None]) -> None:
    """Print what was found, as JSON or for people."""
    if as_json:
        click.echo(json.dumps(found, indent=1))
    else:
        for_people(found)


def show_summary(found: Mapping[str, Any]) -> None:
    """Print what a run did, and its scores."""
    click.echo(
        f"{found['planned']} networks: {found['done']} trained ({found['resumed']} before this run), {len(found['failed'])} "
        f"failed, {found['not_started']} not started; {found['seconds']:.1f} s."
    )
    for title, why in found["failed"].items():
        click.echo(f"  {title}: {why}")
    if found.get("card"):
        click.echo(f"Trained on everybody, so there is no score. Model card: {found['card']}")
    if found["scores"] is not None:
        show_scores(found["scores"])
        click.echo(
            "\n".join(str(Path(found["out"]) / name) for name in ("predictions.csv", "scores.json", "report.html"))
        )


def show_scores(scores: Mapping[str, Any]) -> None:
    """Print the scores of a run as tables."""
    from fmanet.results import CLASS_COLUMNS, SCORE_COLUMNS, SUBJECT_COLUMNS, class_table, score_table, subject_table

    show_rows("Scores of held-out clips, pooled over folds", SCORE_COLUMNS, score_table(scores))
    show_rows("\nClasses (average over seeds)", CLASS_COLUMNS, class_table(scores))
    show_rows("\nSubjects (average over seeds)", SUBJECT_COLUMNS, subject_table(scores))
    if "leaky" in scores:
        _show_leaky(scores["leaky"])


def _show_leaky(leaky: Mapping[str, Any]) -> None:
    click.echo(
        "\n*** LEAKY: best epoch chosen on the held-out subject; leaky, only to relate to literature. Not a result. ***"
    )
    for seed, found in leaky["seeds"].items():
        click.echo(f"LEAKY  seed {seed}: UF1 {found['uf1']:.4f}, UAR {found['uar']:.4f}, ACC {found['acc']:.4f}")
    click.echo(f"LEAKY  mean over seeds: UF1 {leaky['mean_uf1']:.4f}; honest: {leaky['honest_mean_uf1']:.4f}")
