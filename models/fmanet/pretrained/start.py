"""Networks that start from pretrained weights: the settings that belong to such a start, and the weights themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from flowkit.errors import ConfigError
from fmanet import checkpoint
from fmanet.pretrained.model_folder import Model, model_at, refuse_unfit, shipped, start_of, units_of
from fmanet.settings import is_pinned

if TYPE_CHECKING:  # settings are found before torch is loaded
    from torch import nn

    from fmanet.building import State

PRETRAINED: Final = "pretrained"
"""Stands in `train.start` for the shipped model."""
FRESH: Final = "units."
"""Begins the names of weights that a start may lack: those of the stream of action units."""


def with_start(values: Mapping[str, Any], shards: Sequence[Path], *, mixed_alignment: bool = False) -> dict[str, Any]:
    """Return settings of a run with those that belong to its start.

    Parameters
    ----------
    values : mapping
        Settings as given, nested; `train.start` is "pretrained", a model folder, or weights with their hash.
    shards : sequence of Path
    mixed_alignment : bool
        Take shards of another alignment than the model is made for.

    Raises
    ------
    ConfigError
        The model does not fit the shards, or a setting that was given differs from that of the start.
    CheckpointRefused, SchemaTooNew
    """
    given = str(values["train"]["start"])
    if not is_pinned(given):
        given = start_of(shipped(units_of(shards)) if given == PRETRAINED else Path(given))
    model = model_at(given)
    refuse_unfit(model, shards, mixed_alignment=mixed_alignment)
    fixed = {name: value for name, value in model.start_settings.items() if name != "train"}
    problems = list(_conflicts({**fixed, "classes": model.grouping}, values))
    if problems:
        raise ConfigError("\n".join(problems))
    merged = tables_over({**model.start_settings, "classes": model.grouping}, values)
    merged["train"]["start"] = given
    return merged


def begin_from(network: nn.Module, start: str) -> None:
    """Give a network the weights of a start; what the start lacks stays as it is.

    Raises
    ------
    ConfigError
        The network has other weights than those of the start, or they are of other shapes.
    CheckpointRefused
    """
    state, own = _weights(start), network.state_dict()
    odd = [name for name, value in state.items() if name not in own or own[name].shape != value.shape]
    odd += [name for name in own if name not in state and not name.startswith(FRESH)]
    if odd:
        raise ConfigError(
            f"train: network must have the weights of its start {start}; got others for {', '.join(odd[:5])}. Leave out settings "
            "of the network, or train.start."
        )
    network.load_state_dict(state, strict=False)


@lru_cache(maxsize=2)
def _weights(start: str) -> State:
    model: Model = model_at(start)
    return dict(checkpoint.load(model.path).model.state_dict())


def _conflicts(fixed: Mapping[str, Any], values: Mapping[str, Any], above: str = "") -> Sequence[str]:
    problems: list[str] = []
    for name, value in fixed.items():
        if name not in values:
            continue
        if isinstance(value, Mapping) and isinstance(values[name], Mapping):
            problems += _conflicts(value, values[name], f"{above}{name}.")
        elif values[name] != value:
            problems.append(
                f"settings: {above}{name} must be that of the pretrained network, {value!r}; got {values[name]!r}. Leave it out."
            )
    return problems


def tables_over(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested tables with changes."""
    merged = {name: dict(value) if isinstance(value, Mapping) else value for name, value in values.items()}
    for name, value in changes.items():
        before = merged.get(name)
        merged[name] = (
            tables_over(before, value) if isinstance(before, Mapping) and isinstance(value, Mapping) else value
        )
    return merged
