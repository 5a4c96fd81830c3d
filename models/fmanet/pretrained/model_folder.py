"""A model folder: one trained network, for use and as a start. Imports no torch.

    model.json                  what the model is, with the size and hash of its weights; the commit point
    model-<hash>.safetensors    the weights
    README.md                   the model card for people, made from the JSON files
    measured.json               of shipped models: figures on other clips than synthetic ones

`shipped` finds the models of this package. `refuse_unfit` compares a model with the shards that it is to be used on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from flowkit.errors import ConfigError
from flowkit.listing import listed
from flowkit.storage.record_forms import are_texts, is_tree
from flowkit.storage.run_file import stored_run
from fmanet import checkpoint
from fmanet.errors import CheckpointRefused
from fmanet.flow_origin import refuse_unknown
from fmanet.settings import NetworkConfig

KIND: Final = "fmanet model"
MODEL_FILE: Final = "model.json"
CARD_FILE: Final = "README.md"
MEASURED_FILE: Final = "measured.json"
SHIPPED: Final = ("px", "minmax")
"""Units of the shards that the shipped models are for: names of their folders, too."""
MAX_TEMPERATURE: Final = 100.0


@dataclass(frozen=True, slots=True)
class Model:
    """What model.json says.

    Attributes
    ----------
    path : Path
        Of model.json.
    network : NetworkConfig
    classes : tuple of str
    grouping : str
        Name of the grouping that they are classes of.
    units : {"px", "minmax"}
        Of the flow.
    size : int
        Side of the flow, in pixels.
    face : {"canonical", "own"}
    alignment : list of mapping
        Those of the shards that the model fits, as of `flow_origin.alignments`.
    shard_schema : int
        Of the oldest shards that it fits.
    temperature : float
        Divides the logarithms of the probabilities.
    start_settings : mapping
        Settings of `fmanet train` with which the model serves as a start.
    content : mapping
        All of it.
    """

    path: Path
    network: NetworkConfig
    classes: tuple[str, ...]
    grouping: str
    units: str
    size: int
    face: str
    alignment: list[Mapping[str, Any]]
    shard_schema: int
    temperature: float
    start_settings: Mapping[str, Any]
    content: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """Twelve hex digits of the hash of the weights."""
        return str(self.content["weights"]["sha256"])[:12]


def shipped(units: str) -> Path:
    """Return the folder of the shipped model for shards of these units.

    Raises
    ------
    ConfigError
        There is none.
    """
    if units not in SHIPPED:
        raise ConfigError(
            f"pretrained: flow must be in one of {listed(SHIPPED)}; got {units!r}. Train a network on these shards instead."
        )
    return Path(__file__).parent / units


def start_of(folder: Path) -> str:
    """Return how a setting names the weights of a model folder as a start.

    Raises
    ------
    CheckpointRefused, SchemaTooNew
    """
    model = read_model(folder)
    is_ours = folder.parent == Path(__file__).parent
    return f"{folder.name if is_ours else folder.absolute()}@{model.digest}"


def model_at(start: str) -> Model:
    """Return the model that `start_of` named.

    Raises
    ------
    ConfigError
        The folder holds other weights today.
    CheckpointRefused, SchemaTooNew
    """
    name, _, digest = start.rpartition("@")
    model = read_model(shipped(name) if name in SHIPPED else Path(name))
    if model.digest != digest:
        raise ConfigError(
            f"settings: train.start must be the weights {digest} of {name}; got {model.digest}. Use the flowkit or the "
            "model folder of then, or begin anew in another folder."
        )
    return model


def is_model(folder: Path) -> bool:
    """Return whether a folder has a model.json."""
    return (folder / MODEL_FILE).is_file()


def read_model(folder: Path) -> Model:
    """Read model.json; the weights are looked at when the network is loaded.

    Raises
    ------
    CheckpointRefused
        It is missing, damaged, or of another form.
    SchemaTooNew
    """
    path = folder / MODEL_FILE
    content = checkpoint.read_side(path)
    try:
        if content["kind"] != KIND or not _is_model(content):
            raise ValueError("another form")
        network = NetworkConfig.from_dict(content["network"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointRefused(
            f"{path}: must be as fmanet pretrain wrote it; got {type(error).__name__}: {error}. Do not trust this file: restore it "
            "from a copy."
        ) from error
    names = ("grouping", "units", "size", "face", "alignment", "shard_schema", "temperature", "start_settings")
    return Model(path, network, tuple(content["classes"]), **{name: content[name] for name in names}, content=content)


def units_of(shards: Sequence[Path]) -> str:
    """Return the units of the flow of shard folders, as their run.json says.

    Raises
    ------
    ConfigError
        They are not all of one unit, or a folder holds no shards.
    """
    found = {str(stored_run(path)["settings"].get("units", "px")): path for path in shards}
    if len(found) != 1:
        named = listed([f"{units} ({path})" for units, path in found.items()])
        raise ConfigError(f"pretrained: flow of all folders must have one unit; got {named}. Give them separately.")
    return next(iter(found))


def refuse_unfit(model: Model, shards: Sequence[Path], *, mixed_alignment: bool = False) -> None:
    """Refuse shards of another kind than those that a model is made for.

    Parameters
    ----------
    model : Model
    shards : sequence of Path
    mixed_alignment : bool
        Take other alignments.

    Raises
    ------
    ConfigError
        The units, the schema or the alignment differ.
    """
    for path in shards:
        run = stored_run(path)
        units = run["settings"].get("units", "px")
        if units != model.units:
            raise ConfigError(
                f"{path}: flow must be in {model.units!r} for the model {model.path.parent}; got {units!r}. Use a model for these "
                "units."
            )
        if run["shard_schema"] < model.shard_schema:
            raise ConfigError(
                f"{path}: shards must be of schema {model.shard_schema} or newer for a pretrained model; got "
                f"{run['shard_schema']}, of an earlier flowkit. Extract or import the clips again with this version."
            )
    if not mixed_alignment:
        refuse_unknown(shards, model.alignment, "those that the model was made for")


def _is_model(content: Mapping[str, Any]) -> bool:
    return (
        are_texts([content["grouping"], content["units"], content["face"], *content["classes"]])
        and len(content["classes"]) == content["network"]["classes"]
        and content["units"] in SHIPPED
        and content["face"] in ("canonical", "own")
        and type(content["size"]) is int
        and 8 <= content["size"] <= 2048
        and type(content["shard_schema"]) is int
        and all(isinstance(one, Mapping) and is_tree(one) for one in content["alignment"])
        and type(content["temperature"]) in (int, float)
        and 0 < content["temperature"] <= MAX_TEMPERATURE
        and isinstance(content["start_settings"], Mapping)
        and is_tree(content["start_settings"])
        and isinstance(content["flip_test"], bool)
        and isinstance(content["weights"], Mapping)
        and are_texts([content["weights"]["sha256"], content["weights"]["name"]])
    )
