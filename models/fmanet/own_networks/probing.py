"""What a network that is no part of flowkit must give, tried on a few clips before anything is written."""

from __future__ import annotations

import hashlib
from typing import Any, Final

import torch
from torch import Tensor, nn

from flowkit.errors import ConfigError
from fmanet.building import build_network, seen_by
from fmanet.dataset import Clips
from fmanet.networks import Network
from fmanet.settings import NetworkConfig

SEED: Final = 1
PROBED: Final = 4
"""Clips that a network is tried on."""
TOLERANCE: Final = 1e-3
"""Largest difference of logits between a clip alone and the same clip beside others; sums of other lengths round otherwise."""


def is_own(network: Network) -> bool:
    """Return whether a network is no part of flowkit."""
    return not network.builder.startswith("fmanet.")


def probe(config: NetworkConfig, clips: Clips) -> None:
    """Refuse a network that does not keep to the protocol.

    Parameters
    ----------
    config : NetworkConfig
    clips : Clips
        Of the run; the first few are looked at.

    Raises
    ------
    ConfigError
        Answers of another shape, not finite, that depend on the clips beside a clip, or that differ from call to call.
    """
    some = clips.select(range(min(PROBED, len(clips))))
    model = _built(config)
    alone = torch.cat([_answers(model, some.select([row])) for row in range(len(some))])
    together = _answers(model, some)
    _check_shape(config, alone, len(some), training=False)
    if not torch.allclose(alone, together, atol=TOLERANCE, rtol=TOLERANCE):
        raise _refused(
            config,
            "answers of one clip must not depend on the clips beside it",
            f"a difference of {float((alone - together).abs().max()):.3g}",
            "In evaluation, take nothing from the batch (such as its mean).",
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model.train()
        _check_shape(config, _called(model, some), len(some), training=True)
    if fingerprint(config, some) != fingerprint(config, some):
        raise _refused(
            config,
            "start and answers must depend on the seed alone",
            "others in the second call",
            "Draw random numbers from torch, and keep nothing outside the module.",
        )


def fingerprint(config: NetworkConfig, clips: Clips) -> str:
    """Return a hash of how a network starts and answers: the same in every fold, unless it remembers something.

    Parameters
    ----------
    config : NetworkConfig
    clips : Clips
        The first few are looked at.
    """
    some = clips.select(range(min(PROBED, len(clips))))
    model = _built(config)
    found = [value for _, value in sorted(model.state_dict().items())]
    found.append(_answers(model, some))
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(SEED)
        model.train()
        found.append(_called(model, some))
    digest = hashlib.sha256()
    for value in found:
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _built(config: NetworkConfig) -> nn.Module:
    model: Any = build_network(config, SEED)
    if not isinstance(model, nn.Module):
        raise _refused(config, "it must be a torch.nn.Module", type(model).__name__, "Derive it from torch.nn.Module.")
    return model


def _answers(model: nn.Module, clips: Clips) -> Tensor:
    model.eval()
    with torch.no_grad():
        return _called(model, clips)


def _called(model: nn.Module, clips: Clips) -> Tensor:
    found = model(*seen_by(model, clips))
    if not isinstance(found, Tensor) or not found.is_floating_point():
        raise ConfigError(
            f"network {type(model).__name__}: answers must be a tensor of logits; got {type(found).__name__}. Return one."
        )
    return found


def _check_shape(config: NetworkConfig, answers: Tensor, clips: int, *, training: bool) -> None:
    wanted = f"({clips}, {config.classes})"
    shape = tuple(answers.shape)
    fits = shape == (clips, config.classes) or (training and len(shape) == 3 and shape[::2] == (clips, config.classes))
    if not fits:
        raise _refused(
            config,
            f"answers must be one logit for each of {config.classes} classes, {wanted}",
            str(shape),
            "Give as many as NetworkConfig.classes says.",
        )
    if not torch.isfinite(answers).all():
        raise _refused(config, "answers must be finite", "NaN or infinity", "Guard divisions and logarithms.")


def _refused(config: NetworkConfig, expectation: str, got: str, advice: str) -> ConfigError:
    return ConfigError(f"network {config.network}: {expectation}; got {got}. {advice}")
