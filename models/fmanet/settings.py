"""Every setting that decides a result of training, as frozen dataclasses that are also the TOML and the JSON.

How a run is carried out (workers, overwrite) is in run_options.py: it never changes a result. Threads, device and stacking do,
in the last bits, so they are settings. Imports no torch: a wrong setting is found before torch is loaded.
"""

from __future__ import annotations

import dataclasses
import math
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, cast

from flowkit.errors import ConfigError
from flowkit.settings_classes import (
    ALSO,
    CHOICES,
    Settings,
    build,
    refuse,
    refuse_other_than_table,
    setting_types,
    unknown_settings,
)
from fmanet.networks import Inputs, network_names, registered
from fmanet.networks import is_pinned as is_pinned_network

LossName = Literal["weighted", "focal", "plain"]
Face = Literal["canonical", "own"]
CHANNELS: Final = 3
"""Of a picture: magnitude times direction (x, y), magnitude."""
MOST_FEATURES: Final = 256
"""Of all streams together."""
LIMITS: Final[dict[str, tuple[float, float]]] = {
    "classes": (2, 32),
    "streams": (1, 16),
    "width": (4, 64),
    "working": (28, 256),
    "dropout": (0, 0.95),
    "power": (0.3, 1.7),
    "theta_1": (0.01, 0.99),
    "alpha": (0, 100),
    "beta": (0, 100),
    "k": (0.01, 1000),
    "c": (-100, 100),
    "floor_px": (0, 100),
}
"""Least and greatest value of each number; the sizes keep every network below a million parameters."""
REMOVED: Final = ("network.order", "network.share_streams", "network.strain")
"""Settings of earlier versions that are no more."""


@dataclass(frozen=True, slots=True)
class NetworkConfig(Settings):
    """Which network is built, and from which start.

    Attributes
    ----------
    network : str
        FMANet, or one of `baselines`. Only FMANet looks at `modulation`, `fusion`, `attention`, `action_units`, `streams` and
        `power`.
    classes : int
        How many are told apart: those of the clips.
    multi_label : bool
        Each class is answered yes or no by itself, as action units are: as the clips have them.
    inputs : {"both", "rise", "fall", "cof", "mmcof"}
        What the network sees. "rise", "fall": the other phase is not looked at.
        "cof", "mmcof": the combined map as a picture, for "cnn" only. "shallow" takes one phase.
    modulation : bool
        Modulate the magnitude: a learned power of each vector's length, and MM-COF's gate. False: flow as it is, and
        M' = clip(M_c, 0, 1), which is COF. Off: it does not help.
    fusion : bool
        Each stream sees both phases, their difference and MM-COF at each place. False: half of the streams see the rise and half
        the fall, and their answers are averaged.
    attention : bool
        Weigh places by agreement of the phases, strength of the motion, and part of the face. False: all places alike. Off: it has
        not been shown to help.
    action_units : bool
        One more stream sees the strengths of action units of the shards (`au_hint`). A run in which no clip has any is without it.
    pooling : {"map", "global"}
        Keep where on the face something moved, or average it away.
    grid : {4, 7}
        Side of the feature map that is kept.
    streams : int
        Small networks inside, each of which learns to answer alone; their answers are averaged. Up: steadier, slower.
    width : int
        Features of a stream, a multiple of 4. Up: more capacity, slower, overfits sooner.
    dropout : float
        Share of the features that training drops. Up: more regularised.
    working : int, in pixels
        Side of the grid that larger maps are averaged down to. Up: finer and slower.
    power : float
        Where the power of modulation starts: 1 leaves flow as it is; lower, and weak motion counts for more.
    theta_1, alpha, beta, k, c : float
        Where the learned parameters of MM-COF start; theta_2 is 1 - theta_1. Meaning as in `MMCOFParams`.
    floor_px : float, in the unit of the flow
        What a still face shows. In MM-COF, a phase whose magnitudes differ by less is without motion; in signed flow, a phase of
        this root mean square counts for 0.7 of a strong one. Not learned.

    Raises
    ------
    ConfigError
        Listing every value that is not allowed.

    Examples
    --------
    >>> NetworkConfig(classes=5, fusion=False).inputs
    'both'
    """

    network: str = field(default="fmanet", metadata={CHOICES: network_names, ALSO: is_pinned_network})
    classes: int = 3
    multi_label: bool = False
    inputs: Inputs = "both"
    modulation: bool = False
    fusion: bool = True
    attention: bool = False
    action_units: bool = True
    pooling: Literal["map", "global"] = "map"
    grid: Literal[4, 7] = 7
    streams: int = 4
    width: int = 12
    dropout: float = 0.3
    working: int = 28
    power: float = 1.0
    theta_1: float = 0.5
    alpha: float = 1.5
    beta: float = 0.5
    k: float = 20.0
    c: float = 1.0
    floor_px: float = 0.05

    def __post_init__(self) -> None:
        problems = [
            f"network: {name} must be {expected}; got {getattr(self, name)!r}. Correct it."
            for name, hint in setting_types(NetworkConfig).items()
            if (expected := _unmet(name, hint, getattr(self, name)))
        ]
        if not problems and self.streams * self.width > MOST_FEATURES:
            problems.append(
                f"network: streams times width must be at most {MOST_FEATURES}; got {self.streams} x {self.width}. Lower one."
            )
        if not problems and self.inputs not in registered(self.network).inputs:
            allowed = ", ".join(registered(self.network).inputs)
            problems.append(
                f"network: inputs must be one of {allowed} for {self.network!r}; got {self.inputs!r}. Choose one of them."
            )
        if problems:
            raise ConfigError("\n".join(problems))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "network") -> NetworkConfig:
        """Build from a mapping; what is left out keeps its default.

        Raises
        ------
        ConfigError
            Listing every unknown key and every value that is not allowed: they are judged one by one.
        """
        refuse_other_than_table(values, where)
        problems = unknown_settings(cls, values, where)
        known = {one.name for one in dataclasses.fields(cls)}
        try:
            config = cls(**{name: value for name, value in values.items() if name in known})
        except ConfigError as error:
            problems.append(str(error))
        if problems:
            raise ConfigError("\n".join(problems))
        return config


def _unmet(name: str, hint: Any, value: object) -> str:
    """What the value should have been; empty if it is that."""
    if name == "network" and isinstance(value, str) and is_pinned_network(value):
        return ""
    if typing.get_origin(hint) is Literal:
        allowed = typing.get_args(hint)
        fits = any(value == choice and type(value) is type(choice) for choice in allowed)
        return "" if fits else f"one of {', '.join(map(str, allowed))}"
    if hint is bool:
        return "" if isinstance(value, bool) else "true or false"
    low, high = LIMITS[name]
    kinds = (int,) if hint is int else (int, float)
    fits = type(value) in kinds and low <= cast(float, value) <= high
    if name == "width":
        return "" if fits and cast(int, value) % 4 == 0 else f"a multiple of 4 from {low} to {high}"
    return "" if fits else f"a {'whole ' if hint is int else ''}number from {low} to {high}"


@dataclass(frozen=True, slots=True)
class AugmentSettings:
    """How strongly training clips are changed; with all zeros they stay as they are, bit for bit.

    Attributes
    ----------
    flip : float
        Probability of mirroring left and right.
    rotation_deg : float, in degrees
        Largest angle, either way.
    scale : float
        Largest relative change of size, either way: 0.1 means from 0.9 to 1.1.
    translation_px : float, in pixels of the field
        Largest shift along each axis.
    gain : float
        Largest relative change of a phase's magnitude, either way.
    drift : float, in the unit of the flow
        Largest constant added to u and v of a phase: head motion that was left over, or a zero that was estimated wrongly.

    Raises
    ------
    ConfigError
    """

    flip: float = 0.5
    rotation_deg: float = 5.0
    scale: float = 0.05
    translation_px: float = 1.0
    gain: float = 0.1
    drift: float = 0.02

    def __post_init__(self) -> None:
        limits = {"flip": 1.0, "rotation_deg": 180.0, "scale": 0.9, "translation_px": 1e4, "gain": 1.0, "drift": 1e4}
        values = {name: getattr(self, name) for name in limits}
        checks = {
            name: (type(value) in (int, float) and 0 <= value <= limits[name], f"a number from 0 to {limits[name]:g}")
            for name, value in values.items()
        }
        refuse(checks, self, "augment.")


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """How one network is trained.

    Attributes
    ----------
    epochs : int
        Passes over the training clips; with select "inner" the most there may be.
    batch : int
        Clips per step.
    rate : float
        Largest learning rate of AdamW.
    scalar_rate : float
        Learning rate of single numbers (a power, a gate, a threshold), as a multiple of `rate`: at the rate of the weights they
        would hardly move.
    weight_decay : float
        Of AdamW, on weights with two or more axes; gates, norms and biases are left alone.
    schedule : {"cosine", "constant"}
        How the learning rate goes on over the epochs: down to 0, or not at all.
    mixup : float
        Parameter of the Beta distribution that pairs are mixed by; up: stronger mixing; 0: none.
    loss : {"weighted", "focal", "plain"}
        Cross-entropy with rare classes weighing more; the same, looking away from clips that are already right; all alike.
    gamma : float
        Of the focal loss. Up: looks away from clips that are already right.
    augment : AugmentSettings
    flip_test : bool
        Average predictions over each clip and its mirror image.
    select : {"fixed", "inner"}
        "inner" sets some subjects of the training clips aside, takes the epoch at which the loss on them is lowest, and trains
        once more on all training clips, that long.
    inner_share : float
        Share of the subjects set aside by "inner".
    stack : int
        Networks trained together in one process; 1 for one after the other.
    threads : int
        Threads a network is trained with: other numbers give other bits.
    device : {"cpu", "cuda"}
        What trains: the CPU, or an NVIDIA GPU.
    mixed_precision : bool
        Compute in bfloat16 where that is safe; on a GPU only.
    start : str
        Pretrained weights that every network starts from, as "px@HASH", "minmax@HASH" or "FOLDER@HASH"; empty: random ones. The
        command takes a model folder, or --pretrained.

    Raises
    ------
    ConfigError
    """

    epochs: int = 20
    batch: int = 32
    rate: float = 4e-3
    scalar_rate: float = 5.0
    weight_decay: float = 0.01
    schedule: Literal["cosine", "constant"] = "cosine"
    mixup: float = 0.2
    loss: LossName = "weighted"
    gamma: float = 2.0
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    flip_test: bool = True
    select: Literal["fixed", "inner"] = "fixed"
    inner_share: float = 0.2
    stack: int = 1
    threads: int = 1
    device: Literal["cpu", "cuda"] = "cpu"
    mixed_precision: bool = False
    start: str = ""

    def __post_init__(self) -> None:
        checks = {
            "start": (not self.start or is_pinned(self.start), "empty, or a model and the hash of its weights"),
            "epochs": (1 <= self.epochs <= 100_000, "from 1 to 100000"),
            "batch": (1 <= self.batch <= 65536, "from 1 to 65536"),
            "rate": (0 < self.rate <= 1, "above 0 and at most 1"),
            "scalar_rate": (0 <= self.scalar_rate <= 1000, "from 0 to 1000"),
            "weight_decay": (0 <= self.weight_decay <= 1, "from 0 to 1"),
            "mixup": (0 <= self.mixup <= 10, "from 0 to 10"),
            "gamma": (1 <= self.gamma <= 10, "from 1 to 10"),
            "inner_share": (0 < self.inner_share < 1, "between 0 and 1"),
            "stack": (1 <= self.stack <= 1024, "from 1 to 1024"),
            "threads": (1 <= self.threads <= 256, "from 1 to 256"),
            "mixed_precision": (not self.mixed_precision or self.device == "cuda", "false on the CPU"),
        }
        refuse(checks, self, "train.")
        if self.stack > 1 and self.select == "inner":
            raise ConfigError(
                f"settings: train.stack must be 1 with select inner; got {self.stack}. Each fold then has epochs of its own."
            )

    def steps_an_epoch(self, clips: int) -> int:
        """Batches of an epoch of so many clips; the last may be short."""
        return -(-clips // self.batch)

    def rate_at(self, epoch: int) -> float:
        """Learning rate of an epoch, counted from 0."""
        if self.schedule == "constant":
            return self.rate
        return 0.5 * self.rate * (1 + math.cos(math.pi * epoch / self.epochs))


def is_pinned(start: str) -> bool:
    """Return whether a text names pretrained weights with their hash."""
    return re.fullmatch(r".+@[0-9a-f]{12}", start) is not None


@dataclass(frozen=True, slots=True)
class ProtocolSettings:
    """Who is held out.

    Attributes
    ----------
    name : {"loso", "holdout", "cross", "final"}
        Each subject once; the subjects of `hold_out`; train on some data sets and test on others; nobody, for networks to be used.
    hold_out : tuple of str
        Subjects, as "dataset/subject", for "holdout".
    train_on, test_on : tuple of str
        Data sets, for "cross".

    Raises
    ------
    ConfigError
    """

    name: Literal["loso", "holdout", "cross", "final"] = "loso"
    hold_out: tuple[str, ...] = ()
    train_on: tuple[str, ...] = ()
    test_on: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        wanted = {"holdout": ("hold_out",), "cross": ("train_on", "test_on")}.get(self.name, ())
        checks = {
            name: (
                bool(getattr(self, name)) == (name in wanted),
                f"{'given' if name in wanted else 'left out'} with {self.name}",
            )
            for name in ("hold_out", "train_on", "test_on")
        }
        refuse(checks, self, "protocol.")


@dataclass(frozen=True, slots=True)
class RunSettings(Settings):
    """Everything that decides the results of a run, the shards apart.

    Attributes
    ----------
    classes : str
        Name of a grouping of labels; see `flowkit.grouping`.
    network : NetworkConfig
        Its number of classes becomes that of the clips.
    train : TrainSettings
    protocol : ProtocolSettings
    seeds : int
        Networks per fold, each from a start and an order of its own: seeds 0, 1, ...
    size : int, in pixels
        Side that flow is resized to; 0 as stored.
    face : {"canonical", "own"}
        "canonical" carries flow onto the canonical face by the landmarks of the onset, so that a place is the same part of
        everybody's face; clips without landmarks stay as they are. "own": flow as stored.
    keep_epochs : bool
        Also store what each epoch predicts of the held-out clips, for `evaluate --report-leaky` alone.

    Raises
    ------
    ConfigError
    """

    classes: str = "3-class"
    network: NetworkConfig = field(default_factory=NetworkConfig)
    train: TrainSettings = field(default_factory=TrainSettings)
    protocol: ProtocolSettings = field(default_factory=ProtocolSettings)
    seeds: int = 1
    size: int = 0
    face: Face = "canonical"
    keep_epochs: bool = False

    def __post_init__(self) -> None:
        checks = {
            "seeds": (1 <= self.seeds <= 1000, "from 1 to 1000"),
            "size": (self.size == 0 or 8 <= self.size <= 2048, "0, or from 8 to 2048"),
            "keep_epochs": (not (self.keep_epochs and self.is_final), "false where nobody is held out"),
        }
        refuse(checks, self)

    @property
    def is_final(self) -> bool:
        """Whether nobody is held out: the networks are for use, and the run has no score."""
        return self.protocol.name == "final"

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "settings") -> RunSettings:
        """Build from a nested mapping; what is left out keeps its default.

        Raises
        ------
        ConfigError
            Listing every unknown key, wrong type or value out of range; settings that an earlier version had, alone.
        """
        network = values.get("network")
        if gone := [name for name in REMOVED if isinstance(network, Mapping) and name.partition(".")[2] in network]:
            raise ConfigError(
                f"{where}: settings must be those of this version; got {', '.join(gone)} of an earlier one, whose network had "
                "other parts. Leave out what is gone; fmanet settings lists what there is."
            )
        return cast(RunSettings, build(cls, values, where))
