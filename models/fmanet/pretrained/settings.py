"""What decides a pretrained network besides its samples. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Final

from flowkit.errors import ConfigError
from flowkit.settings_classes import Settings, refuse
from fmanet.settings import AugmentSettings, NetworkConfig, TrainSettings

SIZE: Final = 28
"""Side of the flow that a pretrained network sees, px: the grid that FMANet works on, and the side of the public pictures."""
GROUPING: Final = "3-class"
FLOOR: Final = {"px": 0.05 * SIZE / 224, "minmax": 0.05}
"""`network.floor_px` by the unit: what a still face shows in a crop of 224 px, at this size; and its default."""
DRIFT: Final = {"px": 0.02 * SIZE / 224, "minmax": 0.1}
"""`train.augment.drift` by the unit; the zero of a min-max picture is an estimate."""

FREE_OF_THE_START: Final = ("classes", "action_units")
"""Settings of the network that clips decide: a stream of action units may be added to a start that has none."""
AUGMENT: Final = AugmentSettings(rotation_deg=10, scale=0.1, translation_px=2)
"""More than in training on shards: faces of others are cropped otherwise."""


@dataclass(frozen=True, slots=True)
class PretrainSettings(Settings):
    """What decides a pretrained network, besides its samples.

    Attributes
    ----------
    network : NetworkConfig
        Its classes become those of the samples.
    train : TrainSettings
    seed : int
        Of the start of the network, the order of samples and who is set aside.
    set_aside : float
        Share of the synthetic people whom the temperature and the figures of the card come from; the network never sees them.

    Raises
    ------
    ConfigError
    """

    network: NetworkConfig = field(default_factory=lambda: NetworkConfig(action_units=False))
    train: TrainSettings = field(default_factory=lambda: TrainSettings(epochs=3, batch=128, augment=AUGMENT))
    seed: int = 0
    set_aside: float = 0.1

    def __post_init__(self) -> None:
        checks = {
            "seed": (0 <= self.seed < 1 << 31, "from 0 to 2147483647"),
            "set_aside": (0 < self.set_aside < 1, "between 0 and 1"),
        }
        refuse(checks, self)
        if self.network.action_units:
            raise ConfigError(
                "settings: network.action_units must be false; got true. Strengths of action units of samples are exact, those of "
                "shards are not."
            )


def defaults(units: str) -> PretrainSettings:
    """Return the settings for samples of these units."""
    base = PretrainSettings()
    augment = replace(AUGMENT, drift=DRIFT[units])
    return replace(
        base,
        network=replace(base.network, floor_px=FLOOR[units]),
        train=replace(base.train, augment=augment),
    )


def start_settings(settings: PretrainSettings) -> dict[str, Any]:
    """Return settings of `fmanet train` for networks that start from this one."""
    return {
        "size": SIZE,
        "face": "canonical",
        "network": {name: value for name, value in settings.network.to_dict().items() if name not in FREE_OF_THE_START},
        "train": {"augment": {"drift": settings.train.augment.drift}},
    }
