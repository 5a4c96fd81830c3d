"""Options that several commands share, and what they become: settings, options of a run, a source of clips."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from flowkit.cli.common import FOLDER, setting_options, with_options
from flowkit.errors import ConfigError
from flowkit.labels.groupings import default_grouping, grouping
from fmanet.networks import INPUTS, network_names
from fmanet.settings import RunOptions, RunSettings

FILE = click.Path(dir_okay=False, path_type=Path)


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


def folder_options(what: str, *more: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Options of a command that trains into a folder."""
    out = click.option("--out", type=FOLDER, required=True, help=what)
    return with_options([out, MIXED_ALIGNMENT, OVERWRITE, *more], "What is read and written")


NETWORK_CLASSES = "network.classes"
"""The one setting that nobody may set."""


def run_options(given: dict[str, Any]) -> RunOptions:
    """Take out of what a command was given how its run is carried out."""
    return RunOptions(**{name: given.pop(name) for name in ("workers", "overwrite", "cluster")})


def settings_for(shards: Sequence[Path], given: dict[str, Any]) -> RunSettings:
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
    check_shards(shards)
    if "classes" not in values:
        names = {clip["dataset"] for path in shards for clip in ShardFolder.open(path).each_clip()}
        settings = replace(settings, classes=default_grouping(names))
    grouping(settings.classes)
    return settings


def settings_of(run: Path) -> RunSettings:
    """The settings of a run, which is one then; found before torch is loaded."""
    from fmanet.run_folder import open_run

    return open_run(run)[1]


def check_shards(shards: Sequence[Path]) -> None:
    """Refuse a folder that holds no shards."""
    from flowkit.storage.run_file import stored_run

    for path in shards:
        stored_run(path)


def clip_source(shards: Sequence[Path], settings: Any, mixed: bool) -> Any:
    """Return where the clips of a run come from."""
    from fmanet.fold_worker import ClipSource

    return ClipSource(tuple(map(Path.absolute, shards)), settings.classes, settings.size, settings.face, mixed)
