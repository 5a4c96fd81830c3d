"""The commands that use trained networks: `predict`, `export`."""

from __future__ import annotations

from pathlib import Path

import click

from flowkit.cli.common import FOLDER, command, progress, signals
from fmanet.cli.options import FILE, MIXED_ALIGNMENT, check_shards, settings_of


@command(
    "predict",
    short_help="Classes of new clips, by the networks of a run.",
    epilog="fmanet predict run new-shards --out classes.csv",
)
@click.argument("run", type=FOLDER)
@click.argument("shards", nargs=-1, required=True, type=FOLDER)
@click.option("--out", type=FILE, required=True, help="CSV file to write.")
@MIXED_ALIGNMENT
def predict_command(run: Path, shards: tuple[Path, ...], out: Path, mixed_alignment: bool) -> None:
    """Classify the clips of SHARDS: the mean of the probabilities that all networks of RUN give. Labels need not be known.

    SHARDS must be aligned as the shards that RUN was trained on.

    Exit codes: 0 written; 1 folds are missing, or a file is damaged; 2 usage, or shards of another alignment.
    """
    settings_of(run)
    check_shards(shards)
    from fmanet.inference import predict_shards

    for note in predict_shards(run, shards, out, mixed_alignment=mixed_alignment):
        click.echo(f"Note: {note}", err=True)
    click.echo(out)


@command(
    "export",
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
def export_command(run: Path, form: str, out: Path, fold: str | None, seed: int | None) -> None:
    """Write each network of RUN into a file that onnxruntime runs, with the same answers as `fmanet predict` from that network.

    Inputs are flow, valid and region, as many clips at a time as you like, in the size of the run; outputs logits and
    probabilities. Each file is compared with PyTorch before it is published, and has a JSON beside it with classes, units and
    settings. A network has seen every subject but those its fold held out; a run trains none on everybody.

    Exit codes: 0 written; 1 a network is missing, damaged, or does not answer alike; 2 usage; 3 the extra onnx is missing;
    74 disk full; 75 stopped by SIGTERM; 130 interrupted.
    """
    settings_of(run)
    from flowkit.execution.stop import Stop
    from fmanet.export import export_onnx

    stop = Stop("export")
    with progress("networks") as reporter, signals(stop):
        exported = export_onnx(run, out, fold=fold, seed=seed, reporter=reporter, stop=stop)
    click.echo("\n".join(str(written.model) for written in exported))
