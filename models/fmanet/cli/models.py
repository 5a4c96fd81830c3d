"""The commands about networks for use: `predict`, `pretrain`, `export`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

from flowkit.cli.common import FOLDER, command, progress, say, setting_options, show_mapping, signals, with_options
from fmanet.cli.options import AS_JSON, FILE, MIXED_ALIGNMENT, OWN_NETWORK, check_shards, settings_of
from fmanet.cli.printing import show
from fmanet.pretrained.settings import PretrainSettings


@command(
    "predict",
    short_help="Classes of new clips, by the networks of a run, or by a pretrained one.",
    epilog="fmanet predict run new-shards --out classes.csv\nfmanet predict --pretrained shards --out answers.csv",
)
@click.argument("folders", nargs=-1, required=True, type=FOLDER, metavar="[RUN] SHARDS...")
@click.option(
    "--pretrained",
    is_flag=True,
    help="Use the network that flowkit ships for the units of SHARDS: trained on synthetic faces only. Leave RUN out.",
)
@click.option("--out", type=FILE, required=True, help="CSV file to write.")
@OWN_NETWORK
@MIXED_ALIGNMENT
def predict_command(folders: tuple[Path, ...], pretrained: bool, out: Path, mixed_alignment: bool) -> None:
    """Classify the clips of SHARDS: the mean of the probabilities that all networks of RUN give. Labels need not be known.

    RUN is the --out of fmanet train, or a model folder of fmanet pretrain. SHARDS must be aligned as the shards that it was
    trained on, or is made for. A pretrained network's answers come with how often answers of such a probability are right.

    Exit codes: 0 written; 1 folds are missing, or a file is damaged; 2 usage, or shards of another kind.
    """
    from fmanet.pretrained.model_folder import is_model, shipped, units_of

    run, shards = (None, folders) if pretrained else (folders[0], folders[1:])
    if not shards:
        raise click.UsageError("SHARDS: name at least one folder of shards behind RUN, or pass --pretrained.")
    check_shards(shards)
    if run is None:
        run = shipped(units_of(shards))
    elif not is_model(run):
        settings_of(run)
    from fmanet.inference import predict_by_model, predict_shards

    answer = predict_by_model if is_model(run) else predict_shards
    for note in answer(run, shards, out, mixed_alignment=mixed_alignment):
        say(f"Note: {note}")
    click.echo(out)


@command(
    "pretrain",
    short_help="Train a network on synthetic samples, for use and as a start.",
    epilog="flowkit synth --level flow --samples 50000 --size 56 --out samples\nfmanet pretrain samples --out model",
)
@click.argument("samples", nargs=-1, required=True, type=FOLDER)
@with_options(
    [
        click.option("--seed", type=int, help="Of start, order, and who is set aside.  [default: 0]"),
        click.option("--epochs", "train__epochs", type=int, help="Passes over the samples.  [default: 3]"),
    ],
    "What is computed",
)
@with_options(
    [click.option("--out", type=FOLDER, required=True, help="The model folder.")],
    "What is read and written",
)
@click.option("--overwrite", is_flag=True, help="Replace the model that --out holds.")
@with_options(setting_options("train.rate=1e-3", PretrainSettings), "All settings")
@AS_JSON
def pretrain_command(samples: tuple[Path, ...], out: Path, overwrite: bool, as_json: bool, **given: Any) -> None:
    """Train a network on SAMPLES, folders of `flowkit synth --level flow`, and write it with a model card.

    A share of the synthetic people is set aside: the probabilities are calibrated on them, and they say how often an answer is
    right. The same samples, settings and versions give the same weights. A command that was stopped has written nothing.

    Exit codes: 0 written; 1 a file is damaged; 2 usage, settings or samples; 3 a library is missing; 74 disk full;
    75 stopped by SIGTERM; 130 interrupted.
    """
    from flowkit.execution.stop import Stop
    from flowkit.settings_io import load_values

    changes = load_values(given.pop("config_file"), given.pop("assignments"), **given)
    from fmanet.pretrained.pretraining import pretrain

    stop = Stop("pretrain", resumes=False)
    with progress("epochs") as reporter, signals(stop):
        model = pretrain(samples, out, changes, overwrite=overwrite, reporter=reporter, stop=stop)
    aside = model.content["set_aside"]
    shown = {
        "out": str(out),
        "weights": model.content["weights"]["name"],
        "units": model.units,
        "temperature": model.temperature,
        "set aside": {name: aside[name] for name in ("people", "clips", "uf1", "uar", "acc")},
    }
    show(shown, as_json, partial(show_mapping, "Pretrained"))


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
@OWN_NETWORK
@click.option("--seed", type=int, help="Seed whose network is written.  [default: all]")
def export_command(run: Path, form: str, out: Path, fold: str | None, seed: int | None) -> None:
    """Write each network of RUN into a file that onnxruntime runs, with the same answers as `fmanet predict` from that network.

    Inputs are flow, valid and region, as many clips at a time as you like, in the size of the run; outputs logits and
    probabilities. Each file is compared with PyTorch before it is published, and has a JSON beside it with classes, units and
    settings. A network has seen every subject but those its fold held out; that of fmanet train --final has seen all.

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
