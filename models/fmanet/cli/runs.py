"""The commands about runs that were trained: `evaluate`, `compare`, `report`, `settings`."""

from __future__ import annotations

from pathlib import Path

import click

from flowkit.cli.common import FOLDER, command, show_rows, show_settings
from fmanet.cli.options import AS_JSON, FILE, FROM_CLIPS, OWN_NETWORK, settings_of
from fmanet.cli.printing import show, show_scores
from fmanet.settings import RunSettings


@command(
    "evaluate",
    short_help="Scores of a run, from its stored predictions.",
    epilog="fmanet evaluate run --json",
)
@click.argument("run", type=FOLDER)
@click.option(
    "--report-leaky",
    is_flag=True,
    help="Also print what choosing each fold's best epoch on the held-out clips would claim; needs fmanet train --keep-epochs.",
)
@AS_JSON
def evaluate_command(run: Path, report_leaky: bool, as_json: bool) -> None:
    """Score RUN from the predictions it stored, and write predictions.csv and scores.json.

    Exit codes: 0 scored; 1 folds are missing, or a file is damaged; 2 RUN is no run.
    """
    from fmanet.results import leaky_scores, write_results

    scores = write_results(run)
    if report_leaky:
        scores["leaky"] = leaky_scores(run)
    show(scores, as_json, show_scores)


@command(
    "compare",
    short_help="Runs beside each other, with paired differences from the first.",
    epilog="fmanet compare lda-run fmanet-run --figure uf1.png",
)
@click.argument("runs", nargs=-1, required=True, type=FOLDER, metavar="RUN RUN...")
@click.option("--latex", "form", flag_value="latex", help="Print a LaTeX table (booktabs).")
@click.option("--csv", "form", flag_value="csv", help="Print CSV.")
@click.option("--json", "form", flag_value="json", help="Print one JSON document.")
@click.option("--figure", type=FILE, help="Also draw UF1 and the differences into this .png, .pdf or .svg file.")
def compare_command(runs: tuple[Path, ...], form: str | None, figure: Path | None) -> None:
    """Print the scores of each RUN, and how its UF1 differs from that of the first one: a paired bootstrap over subjects.

    The runs must be over the same clips and classes; settings and seeds may differ. Figures need the extra `figures`.

    Exit codes: 0 printed; 1 folds are missing, or a file is damaged; 2 usage, or runs that cannot be compared; 3 the extra
    figures is missing.
    """
    from fmanet.scoring.comparison import COLUMNS, as_csv, as_latex, compare_runs, table, write_figure

    compared = compare_runs(runs)
    if figure is not None:
        write_figure(compared, figure)
    if form in ("latex", "csv"):
        click.echo(as_latex(compared) if form == "latex" else as_csv(compared), nl=False)
        return
    show(compared, form == "json", lambda found: show_rows("Runs", COLUMNS, table(found)))
    if form is None:
        click.echo(compared["note"])
        if figure is not None:
            click.echo(str(figure))


@command(
    "report",
    short_help="A page that shows a run: scores, maps, curves, settings.",
    epilog="fmanet report run --clips 40",
)
@click.argument("run", type=FOLDER)
@click.option("--clips", type=click.IntRange(0, 200), default=12, show_default=True, help="Clips that are pictured.")
@OWN_NETWORK
def report_command(run: Path, clips: int) -> None:
    """Write report.html into RUN: one file with scores, confusion, subjects, maps over example clips, curves and settings.

    The maps are computed again from the stored weights and the shards, by the network that had not seen the clip; without the
    shards, the page says so and shows the rest. `fmanet train` writes this page too.

    Exit codes: 0 written; 1 folds are missing, or a file is damaged; 2 RUN is no run.
    """
    settings_of(run)
    from fmanet.reports.run_report import write_report

    click.echo(write_report(run, clips=clips))


@command(
    "settings",
    short_help="Every setting of train, with default, unit and effect.",
    epilog="fmanet settings --out train.toml",
)
@click.option("--out", type=FILE, help="File to write them into, for fmanet train --config.  [default: print them]")
@click.option("--of", "run", type=FOLDER, metavar="RUN", help="Those of a run, in place of the defaults.")
@click.option("--overwrite", is_flag=True, help="Replace the file --out.")
@AS_JSON
def settings_command(out: Path | None, run: Path | None, overwrite: bool, as_json: bool) -> None:
    """Print every setting of `fmanet train`, with its default, unit and effect, as a TOML file that --config takes.

    With --of, the settings are those of RUN: `fmanet train --config FILE` on its shards then goes on there, or trains the same
    elsewhere.

    Exit codes: 0 printed or written; 1 a stored file is damaged; 2 usage, or RUN is no run.
    """
    title = [
        "Settings of fmanet train: what decides the results of a run. fmanet train ... --config FILE takes this file."
    ]
    left_out = dict.fromkeys(FROM_CLIPS, "the clips say it.")
    if run is None:
        shown, left_out["classes"] = RunSettings(), "without it, 3-class is taken where it fits, raw elsewhere."
    else:
        shown, title = settings_of(run), [*title, f"These are the settings of {run}."]
    show_settings(shown, title, left_out, out, overwrite, as_json)
