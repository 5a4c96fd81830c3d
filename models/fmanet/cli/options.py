"""Options that several commands share, and what they become: settings, options of a run, a source of clips."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flowkit.cli.common import FOLDER, setting_options, with_options
from flowkit.errors import ConfigError
from flowkit.labels.action_units import ACTION_UNIT_TARGETS
from flowkit.labels.groupings import default_grouping, grouping
from fmanet.networks import INPUTS, network_names
from fmanet.run_options import RunOptions
from fmanet.settings import RunSettings

if TYPE_CHECKING:
    _Choice = click.Choice[str]
else:
    _Choice = click.Choice  # click 8.1 knows no type of its values

FILE = click.Path(dir_okay=False, path_type=Path)


def _names(ctx: click.Context, param: click.Parameter, value: str | None) -> list[str] | None:
    return None if value is None else [name.strip() for name in value.split(",") if name.strip()]


class NetworkName(_Choice):
    """A network that is registered, or "package.module:Class", which is imported and registered then."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name under which settings know the network."""
        if ":" not in value:
            return super().convert(value, param, ctx)
        from fmanet.own_networks.naming import own_network

        return own_network(value)


NETWORK_SETTINGS = [
    click.option(
        "--network",
        "network__network",
        type=NetworkName(network_names()),
        help="What is trained; or package.module:Class, a network of your own.  [default: fmanet]",
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
        "--classes",
        help="Grouping of labels into classes; or action-units: those that the manifest names, several a clip.  [default: "
        "3-class, or raw where that does not fit]",
    ),
    click.option(
        "--protocol",
        "protocol__name",
        type=click.Choice(["loso", "holdout", "cross", "final"]),
        help="Hold out each subject once, the subjects of --hold-out, data sets, or nobody.  [default: loso]",
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
OWN_NETWORK = click.option(
    "--network",
    metavar="MODULE:CLASS",
    expose_value=False,
    callback=lambda ctx, param, value: value and NetworkName(network_names()).convert(value, param, ctx),
    help="The network of RUN, if it is your own: its code runs only if you name it.",
)
FINAL = click.option(
    "--final",
    is_flag=True,
    help="Train on everybody, for use: no subject is held out, so there is no score. Writes a model card into --out.",
)
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
PRETRAINED_START = click.option(
    "--pretrained",
    is_flag=True,
    help="Start from the network that flowkit ships for the units of SHARDS, trained on synthetic faces; for few subjects. Sets "
    "the network and --size.",
)
SETTINGS = setting_options("train.rate=1e-3", RunSettings)
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


def folder_options(what: str, *more: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Options of a command that trains into a folder."""
    out = click.option("--out", type=FOLDER, required=True, help=what)
    return with_options([out, MIXED_ALIGNMENT, OVERWRITE, *more], "What is read and written")


FROM_CLIPS = ("network.classes", "network.multi_label")
"""Settings that nobody may set: the clips say them."""


def run_options(given: dict[str, Any]) -> RunOptions:
    """Take out of what a command was given how its run is carried out."""
    return RunOptions(**{name: given.pop(name) for name in ("workers", "overwrite", "cluster")})


def settings_for(
    shards: Sequence[Path],
    given: dict[str, Any],
    *,
    pretrained: bool = False,
    mixed_alignment: bool = False,
) -> RunSettings:
    """Settings from a file, assignments and flags; what is wrong with them or with the folders of the shards is found here.

    With `pretrained`, or a start among the settings, those that belong to the start come with it.
    """
    from flowkit.settings_io import load_values
    from flowkit.storage.folder import ShardFolder

    values = load_values(given.pop("config_file"), given.pop("assignments"), **given)
    network = values.get("network")
    for name in FROM_CLIPS:
        if isinstance(network, Mapping) and (own := name.partition(".")[2]) in network:
            raise ConfigError(
                f"settings: {name} must be left out; got {network[own]}. It is what --classes has; remove it."
            )
    RunSettings.from_dict(_without_start(values))  # what is wrong with them comes before what is wrong with the shards
    check_shards(shards)
    values = _started(values, shards, pretrained, mixed_alignment)
    if "classes" not in values:
        names = {clip["dataset"] for path in shards for clip in ShardFolder.open(path).each_clip()}
        values["classes"] = default_grouping(names)
    settings = RunSettings.from_dict(values)
    _check_classes(settings.classes)
    return settings


def _check_classes(name: str) -> None:
    if name == ACTION_UNIT_TARGETS:
        return
    try:
        grouping(name)
    except ConfigError as error:
        raise ConfigError(f"{error} For action units as targets, choose {ACTION_UNIT_TARGETS}.") from error


def _without_start(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings without a start, which may be a folder as given: the hash of its weights is still to be found."""
    table = values.get("train")
    if not isinstance(table, Mapping):
        return dict(values)
    return {**values, "train": {name: value for name, value in table.items() if name != "start"}}


def _started(values: dict[str, Any], shards: Sequence[Path], pretrained: bool, mixed: bool) -> dict[str, Any]:
    """Return settings with those that belong to their start, if they have one."""
    from fmanet.pretrained.start import PRETRAINED, with_start

    table = values.get("train", {})
    start = table.get("start", "")
    if not isinstance(start, str) or (pretrained and start):
        raise ConfigError(
            f"settings: train.start must be a model folder, and left out with fmanet train --pretrained; got {start!r}. Correct it."
        )
    if not start and not pretrained:
        return values
    return with_start({**values, "train": {**table, "start": start or PRETRAINED}}, shards, mixed_alignment=mixed)


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
