"""The command line. stdout carries results only; stderr carries progress, notes and errors; the exit code says the rest.

torch, which takes seconds to load, is loaded only when a command has found nothing wrong.

0 all done                                     3 a library, a GPU or a folder is missing
1 some networks failed, or stored files are damaged or missing    74 disk full
2 usage, settings, or clips that cannot be trained on    75 stopped by SIGTERM: run again      130 interrupted
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from flowkit._version import __version__
from flowkit.cli.common import (
    FOLDER,
    Commands,
    fail,
    progress,
    setting_options,
    show_mapping,
    show_rows,
    show_settings,
    signals,
    with_options,
)
from flowkit.errors import ConfigError
from flowkit.labels.groupings import default_grouping, grouping
from fmanet.networks import INPUTS, network_names
from fmanet.settings import RunOptions, RunSettings

FILE = click.Path(dir_okay=False, path_type=Path)


class _Commands(Commands):
    """Of fmanet."""

    program = "fmanet"
    extra = "train"
    packages = ("torch", "safetensors")


@click.group(
    cls=_Commands,
    epilog="fmanet train out --out run\nfmanet predict run new-shards --out classes.csv",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, prog_name="fmanet")
def main() -> None:
    """Train and judge FMANet on shards of dual-phase optical flow.

    `flowkit extract` makes the shards; `fmanet train` trains a network for each person held out and scores them together.
    """


def _names(ctx: click.Context, param: click.Parameter, value: str | None) -> list[str] | None:
    return None if value is None else [name.strip() for name in value.split(",") if name.strip()]


NETWORK_SETTINGS = [
    click.option(
        "--network",
        "network__network",
        type=click.Choice(network_names()),
        help="What is trained.  [default: fmanet]",
    ),
    click.option(
        "--inputs",
        "network__inputs",
        type=click.Choice(INPUTS),
        help="What it sees of the motion.  [default: both]",
    ),
]
TRAIN_SETTINGS = [
    click.option(
        "--classes", help="Grouping of labels into classes.  [default: 3-class, or raw where that does not fit]"
    ),
    click.option(
        "--protocol",
        "protocol__name",
        type=click.Choice(["loso", "holdout", "cross"]),
        help="Hold out each subject once, the subjects of --hold-out, or data sets.  [default: loso]",
    ),
    click.option(
        "--hold-out", "protocol__hold_out", callback=_names, metavar="NAMES", help="Subjects, as dataset/subject,..."
    ),
    click.option("--train-on", "protocol__train_on", callback=_names, metavar="NAMES", help="Data sets, for cross."),
    click.option("--test-on", "protocol__test_on", callback=_names, metavar="NAMES", help="Data sets, for cross."),
    click.option("--seeds", type=int, help="Networks per fold, with seeds 0, 1, ...  [default: 1]"),
    click.option("--epochs", "train__epochs", type=int, help="Passes over the training clips.  [default: 20]"),
    click.option(
        "--select",
        "train__select",
        type=click.Choice(["fixed", "inner"]),
        help="Train for --epochs, or find out how long on subjects set aside from training.  [default: fixed]",
    ),
    click.option("--size", type=int, help="Side that flow is resized to, in pixels.  [default: as stored]"),
    click.option("--device", "train__device", type=click.Choice(["cpu", "cuda"]), help="What trains.  [default: cpu]"),
    click.option(
        "--stack",
        "train__stack",
        type=int,
        metavar="N",
        help="Train N networks together in one process; recorded. Worth it on a GPU.  [default: 1]",
    ),
]
KEEP_EPOCHS = click.option(
    "--keep-epochs",
    is_flag=True,
    default=None,
    help="Also store what each epoch predicts, for fmanet evaluate --report-leaky; never used in training.",
)
OVERWRITE = click.option("--overwrite", is_flag=True, help="Discard what --out holds.")
DRY_RUN = click.option("--dry-run", is_flag=True, help="Say what would be done; write nothing.")
MIXED_ALIGNMENT = click.option(
    "--allow-mixed-alignment",
    "mixed_alignment",
    is_flag=True,
    help="Take SHARDS whose settings of alignment or TV-L1 differ: their flow does not mean the same.",
)
RUN_OPTIONS = [
    click.option(
        "--workers",
        type=int,
        default=0,
        help="Processes that train, one thread each.  [default: one per core, one on a GPU]",
    ),
    click.option(
        "--cluster",
        default="",
        metavar="ADDRESS",
        help="Dask cluster that trains, one network per thread: local, tcp://host:8786, or a scheduler file.  "
        "[default: this machine]",
    ),
]
SETTINGS = setting_options("train.rate=1e-3", RunSettings)
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


def _folder_options(what: str, *more: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Options of a command that trains into a folder."""
    out = click.option("--out", type=FOLDER, required=True, help=what)
    return with_options([out, MIXED_ALIGNMENT, OVERWRITE, *more], "What is read and written")


@main.command(
    short_help="Train a network for each fold and seed; goes on where it was stopped.",
    epilog="fmanet train out --out run --seeds 5",
)
@click.argument("shards", nargs=-1, required=True, type=FOLDER)
@with_options([*NETWORK_SETTINGS, *TRAIN_SETTINGS], "What is computed")
@_folder_options("The run folder; a run that was stopped goes on there.", KEEP_EPOCHS, DRY_RUN)
@with_options(RUN_OPTIONS, "How it runs")
@with_options(SETTINGS, "All settings")
@AS_JSON
def train(
    shards: tuple[Path, ...], out: Path, mixed_alignment: bool, dry_run: bool, as_json: bool, **given: Any
) -> None:
    """Train on SHARDS, one network for each fold and seed, and score what they predict of the clips held out.

    Runs again where it was stopped, and comes to the same bits. A fold whose process dies twice is reported, and the rest goes
    on; scores are computed only when all folds are there.

    Exit codes: 0 all done; 1 some folds failed, or a stored file is damaged; 2 usage, settings, or clips that cannot be trained
    on; 3 a library, a GPU or a folder is missing; 74 disk full; 75 stopped by SIGTERM: run again; 130 interrupted.
    """
    options = _options(given)
    settings = _settings(shards, given)
    from flowkit.execution.stop import Stop
    from fmanet.report import write_report
    from fmanet.training_run import preview, train_run

    source = _source(shards, settings, mixed_alignment)
    if dry_run:
        _show(preview(source, out, settings, options), as_json, partial(show_mapping, "Would do (nothing was written)"))
        return
    stop = Stop("train")
    with progress("networks") as reporter, signals(stop):
        summary = train_run(source, out, settings, options, reporter=reporter, stop=stop)
    if summary.scores is not None:
        write_report(out, scores=summary.scores)
    _show(summary.to_dict(), as_json, _show_summary)
    if summary.stopped is not None:
        fail(summary.stopped)
    sys.exit(summary.exit_code)


@main.command(
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
def evaluate(run: Path, report_leaky: bool, as_json: bool) -> None:
    """Score RUN from the predictions it stored, and write predictions.csv and scores.json.

    Exit codes: 0 scored; 1 folds are missing, or a file is damaged; 2 RUN is no run.
    """
    from fmanet.results import leaky_scores, write_results

    scores = write_results(run)
    if report_leaky:
        scores["leaky"] = leaky_scores(run)
    _show(scores, as_json, _show_scores)


@main.command(
    short_help="Classes of new clips, by the networks of a run.",
    epilog="fmanet predict run new-shards --out classes.csv",
)
@click.argument("run", type=FOLDER)
@click.argument("shards", nargs=-1, required=True, type=FOLDER)
@click.option("--out", type=FILE, required=True, help="CSV file to write.")
@MIXED_ALIGNMENT
def predict(run: Path, shards: tuple[Path, ...], out: Path, mixed_alignment: bool) -> None:
    """Classify the clips of SHARDS: the mean of the probabilities that all networks of RUN give. Labels need not be known.

    SHARDS must be aligned as the shards that RUN was trained on.

    Exit codes: 0 written; 1 folds are missing, or a file is damaged; 2 usage, or shards of another alignment.
    """
    _settings_of(run)
    _check_shards(shards)
    from fmanet.inference import predict_shards

    for note in predict_shards(run, shards, out, mixed_alignment=mixed_alignment):
        click.echo(f"Note: {note}", err=True)
    click.echo(out)


@main.command(
    short_help="A page that shows a run: scores, maps, curves, settings.",
    epilog="fmanet report run --clips 40",
)
@click.argument("run", type=FOLDER)
@click.option("--clips", type=click.IntRange(0, 200), default=12, show_default=True, help="Clips that are pictured.")
def report(run: Path, clips: int) -> None:
    """Write report.html into RUN: one file with scores, confusion, subjects, maps over example clips, curves and settings.

    The maps are computed again from the stored weights and the shards, by the network that had not seen the clip; without the
    shards, the page says so and shows the rest. `fmanet train` writes this page too.

    Exit codes: 0 written; 1 folds are missing, or a file is damaged; 2 RUN is no run.
    """
    _settings_of(run)
    from fmanet.report import write_report

    click.echo(write_report(run, clips=clips))


@main.command(
    short_help="A trained network as an ONNX file.",
    epilog="fmanet export run --fold all --out models",
)
@click.argument("run", type=FOLDER)
@click.option(
    "--format", "form", type=click.Choice(["onnx"]), default="onnx", show_default=True, help="What is written."
)
@click.option("--out", type=FOLDER, required=True, help="Folder of the files.")
@click.option("--fold", metavar="NAME", help="Fold whose network is written.  [default: all]")
@click.option("--seed", type=int, help="Seed whose network is written.  [default: all]")
def export(run: Path, form: str, out: Path, fold: str | None, seed: int | None) -> None:
    """Write each network of RUN into a file that onnxruntime runs, with the same answers as `fmanet predict` from that network.

    Inputs are flow, valid and region, as many clips at a time as you like, in the size of the run; outputs logits and
    probabilities. Each file is compared with PyTorch before it is published, and has a JSON beside it with classes, units and
    settings. A network has seen every subject but those its fold held out; a run trains none on everybody.

    Exit codes: 0 written; 1 a network is missing, damaged, or does not answer alike; 2 usage; 3 the extra onnx is missing;
    74 disk full; 75 stopped by SIGTERM; 130 interrupted.
    """
    _settings_of(run)
    from flowkit.execution.stop import Stop
    from fmanet.export import export_onnx

    stop = Stop("export")
    with progress("networks") as reporter, signals(stop):
        exported = export_onnx(run, out, fold=fold, seed=seed, reporter=reporter, stop=stop)
    click.echo("\n".join(str(written.model) for written in exported))


@main.command(short_help="What each part of the method is worth.", epilog="fmanet ablate out --out ladder --seeds 5")
@click.argument("shards", nargs=-1, required=True, type=FOLDER)
@with_options(TRAIN_SETTINGS, "What is computed")
@_folder_options("Folder of the runs, one per row.")
@with_options(RUN_OPTIONS, "How it runs")
@with_options(SETTINGS, "All settings")
@AS_JSON
def ablate(shards: tuple[Path, ...], out: Path, mixed_alignment: bool, as_json: bool, **given: Any) -> None:
    """Train the ladder on SHARDS, from one phase alone to FMANet, and compare each row with the one before.

    Differences come with intervals from a paired bootstrap over subjects. Goes on where it was stopped.

    Exit codes: as of train.
    """
    from flowkit.execution.stop import Stop
    from fmanet.ablation import COLUMNS, compare, ladder, table

    options = _options(given)
    ladder(settings := _settings(shards, given))  # refuses before anything is read
    from fmanet.training_run import train_run

    source = _source(shards, settings, mixed_alignment)
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
    _show(compared, as_json, lambda found: show_rows("What each part is worth", COLUMNS, table(found)))
    if not as_json:
        click.echo(str(out / "ablation.json"))


@main.command(
    short_help="Every setting of train, with default, unit and effect.",
    epilog="fmanet settings --out train.toml",
)
@click.option("--out", type=FILE, help="File to write them into, for fmanet train --config.  [default: print them]")
@click.option("--of", "run", type=FOLDER, metavar="RUN", help="Those of a run, in place of the defaults.")
@click.option("--overwrite", is_flag=True, help="Replace the file --out.")
@AS_JSON
def settings(out: Path | None, run: Path | None, overwrite: bool, as_json: bool) -> None:
    """Print every setting of `fmanet train`, with its default, unit and effect, as a TOML file that --config takes.

    With --of, the settings are those of RUN: `fmanet train --config FILE` on its shards then goes on there, or trains the same
    elsewhere.

    Exit codes: 0 printed or written; 1 a stored file is damaged; 2 usage, or RUN is no run.
    """
    title = [
        "Settings of fmanet train: what decides the results of a run. fmanet train ... --config FILE takes this file."
    ]
    left_out = {NETWORK_CLASSES: "the clips say it."}
    if run is None:
        shown, left_out["classes"] = RunSettings(), "without it, 3-class is taken where it fits, raw elsewhere."
    else:
        shown, title = _settings_of(run), [*title, f"These are the settings of {run}."]
    show_settings(shown, title, left_out, out, overwrite, as_json)


NETWORK_CLASSES = "network.classes"
"""The one setting that nobody may set."""


def _options(given: dict[str, Any]) -> RunOptions:
    return RunOptions(**{name: given.pop(name) for name in ("workers", "overwrite", "cluster")})


def _settings(shards: Sequence[Path], given: dict[str, Any]) -> RunSettings:
    """Settings from a file, assignments and flags; what is wrong with them or with the folders of the shards is found here."""
    from flowkit.settings_io import load_values
    from flowkit.storage.folder import ShardFolder

    values = load_values(given.pop("config_file"), given.pop("assignments"), **given)
    network = values.get("network")
    if isinstance(network, Mapping) and "classes" in network:
        raise ConfigError(
            f"settings: {NETWORK_CLASSES} must be left out; got {network['classes']}. It is what --classes has; remove it."
        )
    settings = RunSettings.from_dict(values)
    _check_shards(shards)
    if "classes" not in values:
        names = {clip["dataset"] for path in shards for clip in ShardFolder.open(path).each_clip()}
        settings = replace(settings, classes=default_grouping(names))
    grouping(settings.classes)
    return settings


def _settings_of(run: Path) -> RunSettings:
    """The settings of a run, which is one then; found before torch is loaded."""
    from fmanet.run_folder import open_run

    return open_run(run)[1]


def _check_shards(shards: Sequence[Path]) -> None:
    from flowkit.storage.run_file import stored_run

    for path in shards:
        stored_run(path)


def _source(shards: Sequence[Path], settings: Any, mixed: bool) -> Any:
    from fmanet.fold_worker import ClipSource

    return ClipSource(tuple(map(Path.absolute, shards)), settings.classes, settings.size, settings.face, mixed)


def _show(found: Mapping[str, Any], as_json: bool, for_people: Callable[[Mapping[str, Any]], None]) -> None:
    if as_json:
        click.echo(json.dumps(found, indent=1))
    else:
        for_people(found)


def _show_summary(found: Mapping[str, Any]) -> None:
    click.echo(
        f"{found['planned']} networks: {found['done']} trained ({found['resumed']} before this run), {len(found['failed'])} "
        f"failed, {found['not_started']} not started; {found['seconds']:.1f} s."
    )
    for title, why in found["failed"].items():
        click.echo(f"  {title}: {why}")
    if found["scores"] is not None:
        _show_scores(found["scores"])
        click.echo(
            "\n".join(str(Path(found["out"]) / name) for name in ("predictions.csv", "scores.json", "report.html"))
        )


def _show_scores(scores: Mapping[str, Any]) -> None:
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


if __name__ == "__main__":
    main()
