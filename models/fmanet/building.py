"""Networks built, in the start that a seed names, and measured."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from flowkit.errors import ConfigError
from flowkit.named_code import imported
from flowkit.storage.schema import ACTION_UNITS
from fmanet.networks import Network, all_networks, may_be_built, registered
from fmanet.settings import NetworkConfig

State = dict[str, Tensor]
"""Weights of a network by their names."""


def build_network(config: NetworkConfig, seed: int) -> nn.Module:
    """Return the network that `config` names, in the start that `seed` names.

    Parameters
    ----------
    config : NetworkConfig
    seed : int
        Same seed, same bits, whatever ran before; the global generators of torch are neither read nor moved. Each layer draws
        from a generator of its own, so two networks that differ in one part start alike in all others of the same shape. A network
        with the attribute `keeps_its_start = True`, such as one that loads weights, keeps what its class gave it.

    Returns
    -------
    nn.Module
        On the CPU, in training mode.

    Raises
    ------
    ConfigError
        The network is not registered, or what builds it cannot be imported.
    """
    builder = _builder(registered(config.network))
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        # For layers that `start_at` leaves alone. torch.manual_seed would reach the GPUs, too.
        torch.default_generator.manual_seed(seed)
        network = builder(config)
    if not getattr(network, "keeps_its_start", False):
        start_at(network, seed)
    if config.multi_label:
        network.answers_each = True  # type: ignore[assignment]
    return network


def _builder(network: Network) -> Callable[[NetworkConfig], nn.Module]:
    others = [other.name for other in all_networks() if other.builder == network.builder]
    if not may_be_built(network.name) and others:
        raise ConfigError(
            f"network {network.name}: its source must be that of the run; got {others[0]}: the module was changed since. Restore "
            "it, or train again in another folder."
        )
    if not may_be_built(network.name):
        raise ConfigError(
            f"network {network.name}: it is no part of flowkit, so its code runs only if you name it; got no such name. Pass "
            f"--network {network.builder} to fmanet train or fmanet predict (in Python: fmanet.own_network)."
        )
    try:
        return cast(Callable[[NetworkConfig], nn.Module], imported(network.builder))
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"network {network.name}: {network.builder} must be importable where networks are built; got {error}. Install its "
            "package there, or add its folder to PYTHONPATH."
        ) from error


def answers_each(network: nn.Module) -> bool:
    """Return whether a network says of each class by itself whether a clip shows it: action units."""
    return bool(getattr(network, "answers_each", False))


def seen_names(network: nn.Module) -> tuple[str, ...]:
    """Return what a network's forward pass takes, in order: action units only if it has `sees_action_units`."""
    names = ("flow", "valid", "region", "action_units")
    return names if getattr(network, "sees_action_units", False) else names[:3]


def seen_by(network: nn.Module, source: Any) -> tuple[Tensor, ...]:
    """Return the same of clips, or of a batch."""
    return tuple(getattr(source, name) for name in seen_names(network))


def load_weights(network: nn.Module, state: dict[str, Tensor]) -> None:
    """Give a network its trained weights; one whose size depends on its training clips is brought to theirs first."""
    make_room(network, state)
    network.load_state_dict(state)


def make_room(network: nn.Module, state: dict[str, Tensor]) -> None:
    """Bring a network to the size of these weights, if it has a method `sized_like` for that."""
    if callable(sized_like := getattr(network, "sized_like", None)):
        sized_like(state)


def start_at(network: nn.Module, seed: int) -> None:
    """Draw the weights of convolutions and linear layers, uniform within 1 / sqrt(fan in); biases are 0.

    Layers made to start at zero stay there; everything else keeps the start its module gave it.
    """
    for name, module in network.named_modules():
        if not isinstance(module, (nn.Conv2d, nn.Linear)):
            continue
        digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        with torch.no_grad():
            if module.weight.any():
                bound = 1 / math.sqrt(module.weight[0].numel())
                module.weight.uniform_(-bound, bound, generator=generator)
            if module.bias is not None:
                module.bias.zero_()


def parameter_count(network: nn.Module) -> int:
    """Return how many numbers training may change."""
    return sum(parameter.numel() for parameter in network.parameters())


def multiply_adds(network: nn.Module, height: int, width: int) -> int:
    """Return the multiply-adds of one clip's forward pass: convolutions, linear layers and the averaging to the working grid.

    The front end's operations pixel by pixel, norms and poolings are not products of matrices and are not counted.

    Parameters
    ----------
    network : nn.Module
        One of `build_network`.
    height, width : int
        Of the flow, in pixels.
    """
    device = next(network.parameters()).device
    flow = torch.zeros(1, 2, 2, height, width, device=device)
    valid, region = (torch.ones(shape, dtype=torch.bool, device=device) for shape in ((1, 2), (1, height, width)))
    action_units = torch.zeros(1, 2, len(ACTION_UNITS), device=device)
    training = network.training
    network.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(*(flow, valid, region, action_units)[: len(seen_names(network))])
    network.train(training)
    return int(counter.get_total_flops()) // 2
