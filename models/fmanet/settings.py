"""Every setting that decides a result of training, as frozen dataclasses that are also the TOML and the JSON.

How a run is carried out (workers, overwrite) is `run.RunOptions`: it never changes a result. Threads, device and stacking do,
in the last bits, so they stand here.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from flowkit.errors import ConfigError
from flowkit.files import read_regular
from fmanet.loss import LossName
from fmanet.model import NetworkConfig
from fmanet.transforms import AugmentSettings

MAX_CONFIG_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """How one network is trained.

    Attributes
    ----------
    epochs : int
        Passes over the training clips; with select "inner" the most there may be.
    batch : int
        Clips a step.
    rate : float
        Largest learning rate of AdamW.
    weight_decay : float
        Of AdamW, on weights with two or more axes; gates, norms and biases are left alone.
    schedule : {"cosine", "constant"}
        Rate over the epochs.
    mixup : float
        Parameter of the Beta distribution that pairs are mixed by; up: stronger mixing; 0: none.
    loss : {"weighted", "focal", "plain"}
    gamma : float
        Of the focal loss.
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
    mixed_precision : bool
        bfloat16 where that is safe; on a GPU only.

    Raises
    ------
    ConfigError
    """

    epochs: int = 30
    batch: int = 32
    rate: float = 4e-3
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

    def __post_init__(self) -> None:
        checks = {
            "epochs": (1 <= self.epochs <= 100_000, "from 1 to 100000"),
            "batch": (1 <= self.batch <= 65536, "from 1 to 65536"),
            "rate": (0 < self.rate <= 1, "above 0 and at most 1"),
            "weight_decay": (0 <= self.weight_decay <= 1, "from 0 to 1"),
            "mixup": (0 <= self.mixup <= 10, "from 0 to 10"),
            "gamma": (1 <= self.gamma <= 10, "from 1 to 10"),
            "inner_share": (0 < self.inner_share < 1, "between 0 and 1"),
            "stack": (1 <= self.stack <= 1024, "from 1 to 1024"),
            "threads": (1 <= self.threads <= 256, "from 1 to 256"),
            "mixed_precision": (not self.mixed_precision or self.device == "cuda", "false on the CPU"),
        }
        _refuse("train.", checks, self)
        if self.stack > 1 and self.select == "inner":
            raise ConfigError(
                f"settings: train.stack must be 1 with select inner; got {self.stack}. Each fold then has epochs of its own."
            )

    def rate_at(self, epoch: int) -> float:
        """Learning rate of an epoch, counted from 0."""
        if self.schedule == "constant":
            return self.rate
        return 0.5 * self.rate * (1 + math.cos(math.pi * epoch / self.epochs))


@dataclass(frozen=True, slots=True)
class ProtocolSettings:
    """Who is held out.

    Attributes
    ----------
    name : {"loso", "holdout", "cross"}
        Each subject once; the subjects of `hold_out`; train on some data sets and test on others.
    hold_out : tuple of str
        Subjects, as "dataset/subject".
    train_on, test_on : tuple of str
        Data sets.

    Raises
    ------
    ConfigError
    """

    name: Literal["loso", "holdout", "cross"] = "loso"
    hold_out: tuple[str, ...] = ()
    train_on: tuple[str, ...] = ()
    test_on: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        wanted = {"loso": (), "holdout": ("hold_out",), "cross": ("train_on", "test_on")}[self.name]
        checks = {
            name: (
                bool(getattr(self, name)) == (name in wanted),
                f"{'given' if name in wanted else 'left out'} with {self.name}",
            )
            for name in ("hold_out", "train_on", "test_on")
        }
        _refuse("protocol.", checks, self)


@dataclass(frozen=True, slots=True)
class RunSettings:
    """Everything that decides the results of a run, the shards apart.

    Attributes
    ----------
    classes : str
        Name of a grouping of labels; see `flowkit.classes`.
    network : NetworkConfig
        Its number of classes becomes that of the clips.
    train : TrainSettings
    protocol : ProtocolSettings
    seeds : int
        Networks a fold, each from a start and an order of its own: seeds 0, 1, ...
    size : int
        Side that flow is resized to, in pixels; 0 as stored.
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
    keep_epochs: bool = False

    def __post_init__(self) -> None:
        checks = {
            "seeds": (1 <= self.seeds <= 1000, "from 1 to 1000"),
            "size": (self.size == 0 or 8 <= self.size <= 2048, "0, or from 8 to 2048"),
        }
        _refuse("", checks, self)

    def to_dict(self) -> dict[str, Any]:
        """Nested plain dict: what run.json stores."""
        return to_dict(self)

    def fingerprint(self) -> str:
        """16 hex digits over every setting."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:16]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "settings") -> RunSettings:
        """Build from a nested mapping, as a TOML file or run.json holds it; what is left out keeps its default.

        Raises
        ------
        ConfigError
            Listing every unknown key, wrong type or value out of range.
        """
        return typing.cast(RunSettings, build(cls, values, where))


def to_dict(settings: Any) -> dict[str, Any]:
    """A settings dataclass as JSON would give it back: tuples become lists."""
    return typing.cast(dict[str, Any], json.loads(json.dumps(dataclasses.asdict(settings))))


def build(cls: Any, values: Mapping[str, Any], where: str = "settings") -> Any:
    """A settings dataclass from a mapping.

    Raises
    ------
    ConfigError
        Listing every unknown key, wrong type or value out of range.
    """
    problems: list[str] = []
    built = _build(cls, values, where, "", problems)
    if problems:
        raise ConfigError("\n".join(problems))
    return built


def load_values(file: Path | None = None, assignments: Sequence[str] = (), **flags: Any) -> dict[str, Any]:
    """Settings from a TOML file, then `--set` assignments, then flags; the later wins.

    Parameters
    ----------
    file : Path, optional
    assignments : sequence of str
        Such as "train.epochs=40"; the value is TOML, or bare text.
    **flags
        Dotted names with double underscores for dots (`train__epochs=40`); None means not given.

    Raises
    ------
    ConfigError
    """
    values = {} if file is None else _read_toml(file)
    for text in assignments:
        name, equals, value = text.partition("=")
        if not name.strip() or not equals:
            raise ConfigError(f"--set: assignment must look like train.epochs=40; got {text!r}. Correct it.")
        _assign(values, name.strip(), _toml_value(value.strip()))
    for name, value in flags.items():
        if value is not None:
            _assign(values, name.replace("__", "."), value)
    return values


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Each setting that differs between two nested dicts, as "train.epochs 60 -> 40"."""
    found = []
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found += differences(before, after, f"{prefix}{key}.")
        elif before != after:
            found.append(f"{prefix}{key} {before} -> {after}")
    return found


def _refuse(prefix: str, checks: Mapping[str, tuple[bool, str]], settings: Any) -> None:
    problems = [
        f"settings: {prefix}{name} must be {expectation}; got {getattr(settings, name)!r}. Correct it."
        for name, (ok, expectation) in checks.items()
        if not ok
    ]
    if problems:
        raise ConfigError("\n".join(problems))


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(read_regular(file, MAX_CONFIG_BYTES).decode("utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{file}: --config must be a readable TOML file; got {error.strerror}. Check the path."
        ) from error
    except (ValueError, RecursionError) as error:  # the second: brackets without end
        raise ConfigError(f"{file}: --config must be a readable TOML file; got {error}. Correct the file.") from error


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text  # bare words need no quotes on a command line


def _assign(values: dict[str, Any], dotted: str, value: Any) -> None:
    *tables, key = dotted.split(".")
    for table in tables:
        values = values.setdefault(table, {})
        if not isinstance(values, dict):
            raise ConfigError(
                f"settings: {dotted} must name a setting; got a value where {table} should be a table. Correct it."
            )
    values[key] = value


def _build(cls: Any, values: Mapping[str, Any], where: str, prefix: str, problems: list[str]) -> Any:
    """One dataclass from one mapping; problems are collected, so that the user sees all of them at once."""
    hints = typing.get_type_hints(cls)
    good: dict[str, Any] = {}
    for key, value in values.items():
        if key not in hints:
            known = ", ".join(prefix + name for name in hints)
            problems.append(f"{where}: {prefix}{key} must be a known setting; got an unknown one. Known: {known}.")
        elif dataclasses.is_dataclass(hints[key]) and isinstance(value, Mapping):
            good[key] = _build(hints[key], value, where, f"{prefix}{key}.", problems)
        elif fits(hints[key], value):
            good[key] = _converted(hints[key], value)
        else:
            problems.append(f"{where}: {prefix}{key} must be {_expectation(hints[key])}; got {value!r}. Correct it.")
    if problems:
        return None
    try:
        return cls(**good)
    except (TypeError, ValueError) as error:
        problems.append(str(error))
        return None


def fits(hint: Any, value: Any) -> bool:
    """Whether a JSON or TOML value may stand where a type is declared."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return value in inner
    if origin in (types.UnionType, typing.Union):
        return any(fits(one, value) for one in inner)
    if origin is tuple:
        kinds = [inner[0]] * len(value) if isinstance(value, (list, tuple)) and inner[-1] is ... else list(inner)
        return isinstance(value, (list, tuple)) and len(kinds) == len(value) and all(map(fits, kinds, value))
    return type(value) in (int, float) if hint is float else type(value) is hint


def _converted(hint: Any, value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(_converted(typing.get_args(hint)[0], one) for one in value)
    return float(value) if hint is float else value


def _expectation(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, typing.get_args(hint)))}"
    if dataclasses.is_dataclass(hint):
        return "a table"
    return f"of type {getattr(hint, '__name__', hint)}" if typing.get_origin(hint) is None else f"of type {hint}"
