"""The commands that train: `train`, `ablate`."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import click

from flowkit.cli.common import FOLDER, command, fail, progress, show_mapping, show_rows, signals, with_options
from fmanet.cli.options import (
    AS_JSON,
    DRY_RUN,
    FINAL,
    KEEP_EPOCHS,
    NETWORK_SETTINGS,
    PRETRAINED_START,
    RUN_OPTIONS,
    SETTINGS,
    TRAIN_SETTINGS,
    clip_source,
    folder_options,
    run_options,
    settings_for,
)
from fmanet.cli.printing import show, show_summary


@command(
    "train",
    short_help="Train a network for each fold and seed; goes on where it was stopped.",
    epilog="fmanet train out --out run --seeds 5",
)
@click.argument("shards", nargs=-1, required=True, type=FOLDER)
@with_options([*NETWORK_SETTINGS, *TRAIN_SETTINGS, PRETRAINED_START, FINAL], "What is computed")
@folder_options("The run folder; a run that was stopped goes on there.", KEEP_EPOCHS, DRY_RUN)
@with_options(RUN_OPTIONS, "How it runs")
@with_options(SETTINGS, "All settings")
@AS_JSON
def train_command(
    shards: tuple[Path, ...],
    out: Path,
    mixed_alignment: bool,
    dry_run: bool,
    as_json: bool,
    pretrained: bool,
    final: bool,
    **given: Any,
) -> None:
    """Train on SHARDS, one network for each fold and seed, and score what they predict of the clips held out.

    Runs again where it was stopped, and comes to the same bits. A fold whose process dies twice is reported, and the rest goes
    on; scores are computed only when all folds are there.

    Exit codes: 0 all done; 1 some folds failed, or a stored file is damaged; 2 usage, settings, or clips that cannot be trained
    on; 3 a library, a GPU or a folder is missing; 74 disk full; 75 stopped by SIGTERM: run again; 130 interrupted.
    """
    if final and any(given.get(f"protocol__{name}") for name in ("name", "hold_out", "train_on", "test_on")):
        raise click.UsageError(
            "--final: holds out nobody, so --protocol, --hold-out, --train-on and --test-on do not go with it. Leave them out."
        )
    if final:
        given["protocol__name"] = "final"
    options = run_options(given)
    settings = settings_for(shards, given, pretrained=pretrained, mixed_alignment=mixed_alignment)
    from flowkit.execution.stop import Stop
    from fmanet.reports.run_report import write_report
    from fmanet.training_run import preview, train_run

    source = clip_source(shards, settings, mixed_alignment)
    if dry_run:
        show(preview(source, out, settings, options), as_json, partial(show_mapping, "Would do (nothing was written)"))
        return
    stop = Stop("train")
    with progress("networks") as reporter, signals(stop):
        summary = train_run(source, out, settings, options, reporter=reporter, stop=stop)
    if summary.scores is not None:
        write_report(out, scores=summary.scores)
    show(summary.to_dict(), as_json, show_summary)
    if summary.stopped is not None:
        fail(summary.stopped)
    sys.exit(summary.exit_code)


@command(
    "ablate", short_help="What each part of the method is worth.", epilog="fmanet ablate out --out ladder --seeds 5"
)
@click.argument("shards", nargs=-1, required=True, type=FOLDER)
@with_options(TRAIN_SETTINGS, "What is computed")
@folder_options("Folder of the runs, one per row.")
@with_options(RUN_OPTIONS, "How it runs")
@with_options(SETTINGS, "All settings")
@AS_JSON
def ablate_command(shards: tuple[Path, ...], out: Path, mixed_alignment: bool, as_json: bool, **given: Any) -> None:
    """Train the ladder on SHARDS, from one phase alone to FMANet, and compare each row with the one before.

    Differences come with intervals from a paired bootstrap over subjects. Goes on where it was stopped.

    Exit codes: as of train.
    """
    from flowkit.execution.stop import Stop
    from fmanet.ablation import COLUMNS, compare, ladder, table

    options = run_options(given)
    ladder(settings := settings_for(shards, given))  # refuses before anything is read
    from fmanet.training_run import train_run

    source = clip_source(shards, settings, mixed_alignment)
    rows = ladder(settings, action_units=any(source.load().with_action_units))
    stop, scores = Stop("train"), []
    with progress("networks") as reporter, signals(stop):
        for row in rows:
            reporter.note(f"{row.title}:")
            summary = train_run(source, out / row.folder, row.settings, options, reporter=reporter, stop=stop)
            if summary.stopped is not None:
                fail(summary.stopped)
            if summary.scores is None:
                sys.exit(summary.exit_code)
            scores.append(summary.scores)
    compared = compare(out, rows, scores)
    show(compared, as_json, lambda found: show_rows("What each part is worth", COLUMNS, table(found)))
    if not as_json:
        click.echo(str(out / "ablation.json"))
