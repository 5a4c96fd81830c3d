"""Trained weights on disk: a safetensors file, and a JSON file beside it that says what network they fill. No pickle anywhere.

The JSON is the commit point: it names the weights by size and hash, and carries a hash of itself. What it says is checked
before a byte of the weights is given to a network.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowkit.errors import ConfigError
from flowkit.storage import hashed_json
from flowkit.storage.safe_files import read_regular
from fmanet.errors import CheckpointRefused
from fmanet.settings import NetworkConfig

if TYPE_CHECKING:  # who only compares files with their hashes needs no torch
    from torch import nn

    from fmanet.building import State

MAX_WEIGHT_BYTES = 256 << 20
"""No network here comes near it."""
MAX_SIDE_BYTES = 16 << 20


@dataclass(frozen=True)
class Checkpoint:
    """A trained network and what it was trained for.

    Attributes
    ----------
    network : NetworkConfig
    classes : tuple of str
    model : nn.Module
        With its weights, on the CPU, set to evaluate.
    content : dict
        All that its JSON says.
    """

    network: NetworkConfig
    classes: tuple[str, ...]
    model: nn.Module
    content: dict[str, Any]


def encode_weights(state: State) -> bytes:
    """Bytes of a safetensors file; the same weights give the same bytes."""
    import safetensors.torch

    content: bytes = safetensors.torch.save({name: state[name].contiguous() for name in sorted(state)})
    return content


def load(path: Path) -> Checkpoint:
    """Read a checkpoint by its JSON file.

    Parameters
    ----------
    path : Path

    Raises
    ------
    CheckpointRefused
        A file is missing, damaged, too large, or no such network's.
    SchemaTooNew
    """
    content = read_side(path)
    try:
        network = NetworkConfig.from_dict(content["network"])
        classes = tuple(map(str, content["classes"]))
        entry = content["weights"]
        weights = path.parent / str(entry["name"])
    except (KeyError, TypeError, ConfigError) as error:
        raise _refused(
            path, "name a network, its classes and its weights", f"{type(error).__name__}: {error}"
        ) from error
    if len(classes) != network.classes:
        raise _refused(path, f"name {network.classes} classes", str(len(classes)))
    if weights.parent != path.parent or weights.suffix != ".safetensors":
        raise _refused(path, "name a safetensors file beside it", repr(entry["name"]))
    model = _filled(network, read_file(weights, entry), weights)
    return Checkpoint(network, classes, model, content)


def read_side(path: Path) -> dict[str, Any]:
    """Content of a JSON file that `hashed_json.encode` made.

    Raises
    ------
    CheckpointRefused, SchemaTooNew
    """
    try:
        text = read_regular(path, MAX_SIDE_BYTES)
    except OSError as error:
        raise _refused(path, "be readable", str(error.strerror)) from error
    content = hashed_json.decode(text)
    if content is None:
        raise _refused(path, "be as it was written", "something else")
    return content


def read_file(path: Path, entry: Mapping[str, Any], limit: int = MAX_WEIGHT_BYTES) -> bytes:
    """Bytes of a file that a record names, compared with its size and hash there.

    Raises
    ------
    CheckpointRefused
    """
    try:
        content = read_regular(path, limit)
    except (OSError, ValueError) as error:  # the second: a zero byte in the name
        raise _refused(path, "be readable", getattr(error, "strerror", None) or str(error)) from error
    if (len(content), hashlib.sha256(content).hexdigest()) != (entry.get("bytes"), entry.get("sha256")):
        raise _refused(
            path, f"hold the {entry.get('bytes')} bytes that were written", f"{len(content)} bytes, another hash"
        )
    return content


def _filled(network: NetworkConfig, content: bytes, path: Path) -> nn.Module:
    """A network with these weights; `NetworkConfig` bounds its size, whatever the file says."""
    import safetensors.torch
    import torch

    from fmanet.building import build_network, make_room

    try:
        state = safetensors.torch.load(content)
    except (safetensors.SafetensorError, ValueError, KeyError) as error:  # the last: a type that PyTorch has none of
        raise _refused(path, "be a safetensors file of numbers that PyTorch knows", str(error)) from error
    model = build_network(network, 0)
    make_room(model, state)
    wanted, found = ({name: (v.dtype, v.shape) for name, v in some.items()} for some in (model.state_dict(), state))
    if wanted != found:
        names = sorted(name for name in {*wanted, *found} if wanted.get(name) != found.get(name))
        raise _refused(path, "hold the network's weights, with their shapes", f"others for {', '.join(names[:5])}")
    if not all(torch.isfinite(value).all() for value in state.values()):
        raise _refused(path, "hold finite weights", "NaN or infinity")
    model.load_state_dict(state)
    return model.eval()


def _refused(path: Path, expectation: str, got: str) -> CheckpointRefused:
    return CheckpointRefused(
        f"{path}: checkpoint must {expectation}; got {got}. Do not trust this file: restore it from a copy, or train again."
    )
