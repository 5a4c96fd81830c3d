"""Every setting that decides what is computed, as frozen dataclasses that are also the TOML and the JSON.

What decides the bytes of a shard is here and only here, so one fingerprint covers it. How a run is carried out (number of
workers, batch size, what to do about failures) is `run.RunOptions`: it never changes a result.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tomllib
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from flowkit.errors import ConfigError
from flowkit.files import read_regular, regular
from flowkit_kernels import MMCOFParams, TVL1Params

BackendName = Literal["auto", "cuda", "numba-cuda", "cpu", "reference"]
MIN_SIZE, MAX_SIZE = 32, 2048
FILES = ("face_model", "landmarks")
"""Settings of `AlignConfig` that name a file."""
MAX_CONFIG_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class FrameConfig:
    """How key frames are chosen and read.

    Attributes
    ----------
    index_base : {0, 1}
        Number of the first frame of a video. Folders are not concerned: their file names carry the numbers.
    bit_depth : int
        Significant bits of 16-bit images, 9 to 16; 0 means 16, and fails where that looks wrong.
    missing_apex : {"fail", "midpoint", "offset", "spot"}
        "spot" finds it: see `spotting.spot`.
    missing_offset : {"fail", "invalid"}
    strict_phases : bool
        Fail clips that have a phase of no length, instead of marking the phase invalid.
    nearest : bool
        Read the nearest frame where one is missing from a folder (recorded in `qc`), instead of failing.
    follow_symlinks : bool
        Accept links that lead out of the root.
    """

    index_base: int = 0
    bit_depth: int = 0
    missing_apex: Literal["fail", "midpoint", "offset", "spot"] = "fail"
    missing_offset: Literal["fail", "invalid"] = "fail"
    strict_phases: bool = False
    nearest: bool = False
    follow_symlinks: bool = False

    def __post_init__(self) -> None:
        _check(self.index_base in (0, 1), "frames.index_base", "0 or 1", self.index_base)
        depth_ok = self.bit_depth == 0 or 9 <= self.bit_depth <= 16
        _check(depth_ok, "frames.bit_depth", "0 or 9 to 16", self.bit_depth)


@dataclass(frozen=True, slots=True)
class AlignConfig:
    """How the three frames become one aligned face.

    Attributes
    ----------
    method : {"mediapipe", "landmarks", "none"}
        Where the landmarks of the onset come from; "none" takes frames that are already cropped.
    size : int
        Side of the square crop, in pixels.
    stabilise : {"similarity", "affine", "register", "none"}
        "register" takes head motion out of the images; "similarity" and "affine" also subtract what is left in the flow.
    match_light : bool
        Match mean and standard deviation of apex and offset to the onset, inside the face.
    face_model : str
        A face landmarker file in place of the bundled one; empty for the bundled one.
    landmarks : str
        CSV file with the columns clip_id, point, x, y; needed by method "landmarks".
    """

    method: Literal["mediapipe", "landmarks", "none"] = "mediapipe"
    size: int = 224
    stabilise: Literal["similarity", "affine", "register", "none"] = "similarity"
    match_light: bool = True
    face_model: str = ""
    landmarks: str = ""

    def __post_init__(self) -> None:
        _check(MIN_SIZE <= self.size <= MAX_SIZE, "align.size", f"from {MIN_SIZE} to {MAX_SIZE}", self.size)
        if (self.method == "landmarks") != bool(self.landmarks):
            raise ConfigError(
                f"settings: align.landmarks must name a file if, and only if, align.method is landmarks; got method="
                f"{self.method!r}, landmarks={self.landmarks!r}. Set align.method=landmarks and align.landmarks=FILE."
            )


@dataclass(frozen=True, slots=True)
class ShardConfig:
    """How results are stored.

    Attributes
    ----------
    clips : int
        Clips a shard file.
    compress : {"none", "zstd"}
        "zstd" for archives: smaller, three times slower to read, needs the extra `zstd`.
    keep_faces : bool
        Store the aligned faces too. They are personal data.
    """

    clips: int = 256
    compress: Literal["none", "zstd"] = "none"
    keep_faces: bool = False

    def __post_init__(self) -> None:
        _check(1 <= self.clips <= 65536, "shard.clips", "from 1 to 65536", self.clips)


@dataclass(frozen=True, slots=True)
class ExtractConfig:
    """All settings of an extraction; `backend` is resolved once and stored as what it became."""

    frames: FrameConfig = field(default_factory=FrameConfig)
    align: AlignConfig = field(default_factory=AlignConfig)
    tvl1: TVL1Params = field(default_factory=TVL1Params)
    mmcof: MMCOFParams = field(default_factory=MMCOFParams)
    shard: ShardConfig = field(default_factory=ShardConfig)
    backend: BackendName = "auto"

    def to_dict(self) -> dict[str, Any]:
        """Nested plain dict, in declaration order: what run.json stores.

        Files are named by their content, not by where they lie: a folder may move, a changed file is another setting.

        Raises
        ------
        ConfigError
            A file that a setting names cannot be read.
        """
        values = dataclasses.asdict(self)
        for name, path in self._files():
            values["align"][name] = _content_name(f"align.{name}", path)
        return values

    def anywhere(self) -> Self:
        """The same, with names of files that hold in any working directory."""
        files: dict[str, Any] = {name: path and str(Path(path).absolute()) for name, path in self._files()}
        return dataclasses.replace(self, align=dataclasses.replace(self.align, **files))

    def _files(self) -> list[tuple[str, str]]:
        return [(name, getattr(self.align, name)) for name in FILES]

    def fingerprint(self) -> str:
        """16 hex digits over every setting, equal exactly where results may be mixed."""
        text = json.dumps(self.to_dict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "settings") -> ExtractConfig:
        """Build from a nested mapping, as a TOML file or run.json holds it; what is left out keeps its default.

        Raises
        ------
        ConfigError
            Listing every unknown key, wrong type or value out of range.
        """
        problems: list[str] = []
        config = _build(cls, values, where, "", problems)
        if problems:
            raise ConfigError("\n".join(problems))
        return typing.cast(ExtractConfig, config)


def load_config(file: str | Path | None = None, assignments: Sequence[str] = (), **flags: Any) -> ExtractConfig:
    """Settings from a TOML file, then `--set` assignments, then flags; the later wins.

    Parameters
    ----------
    file : str or Path, optional
        TOML with the tables frames, align, tvl1, mmcof, shard and the key backend.
    assignments : sequence of str
        Such as "tvl1.lambda_=0.1" or "tvl1.preset=opencv"; the value is TOML, or bare text.
    **flags
        Dotted names with double underscores for dots (`align__size=128`); None means not given.

    Raises
    ------
    ConfigError
    """
    values: dict[str, Any] = {}
    if file is not None:
        try:
            values = tomllib.loads(read_regular(Path(file), MAX_CONFIG_BYTES).decode("utf-8"))
        except OSError as error:
            raise ConfigError(
                f"{file}: settings must be a readable TOML file; got {error.strerror}. Check the path."
            ) from error
        except (ValueError, RecursionError) as error:  # the second: brackets without end
            raise ConfigError(
                f"{file}: settings must be a readable TOML file; got {error}. Correct the file."
            ) from error
    problems = [
        f"settings: assignment must look like tvl1.lambda_=0.1; got {text!r}. Correct it."
        for text in assignments
        if not text.partition("=")[0].strip() or "=" not in text
    ]
    for text in assignments:
        name, _, value = text.partition("=")
        _assign(values, name.strip() or "?", _toml_value(value.strip()))
    for name, value in flags.items():
        if value is not None:
            _assign(values, name.replace("__", "."), value)
    config = _build(ExtractConfig, values, "settings", "", problems)
    if problems:
        raise ConfigError("\n".join(problems))
    return typing.cast(ExtractConfig, config)


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Each setting that differs between two nested dicts, as "tvl1.lambda_ 0.15 -> 0.1"."""
    found = []
    for key in sorted({*old, *new}):
        a, b = old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append(f"{prefix}{key} {a} -> {b}")
    return found


def _content_name(setting: str, file: str) -> str:
    if not file:
        return ""
    try:
        with open(file, "rb", opener=regular) as opened:
            return "sha256:" + hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(
            f"settings: {setting} must be a readable file; got {file!r} ({error.strerror}). Check it."
        ) from error


def _check(ok: bool, name: str, expectation: str, value: object) -> None:
    if not ok:
        raise ConfigError(f"settings: {name} must be {expectation}; got {value!r}. Correct it.")


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
    values = dict(values)
    base: Any = cls()
    if cls is TVL1Params and "preset" in values:
        try:
            base = TVL1Params.preset(values.pop("preset"))
        except ValueError as error:
            problems.append(str(error))
    hints = typing.get_type_hints(cls)
    good: dict[str, Any] = {}
    for key, value in values.items():
        if key not in hints:
            known = ", ".join(prefix + name for name in hints)
            problems.append(f"{where}: {prefix}{key} must be a known setting; got an unknown one. Known: {known}.")
        elif dataclasses.is_dataclass(hints[key]):
            if isinstance(value, Mapping):
                good[key] = _build(hints[key], value, where, f"{prefix}{key}.", problems)
            else:
                problems.append(
                    f"{where}: {prefix}{key} must be a table; got {value!r}. Set {prefix}{key}.NAME instead."
                )
        else:
            _convert(hints[key], value, f"{where}: {prefix}{key}", good, key, problems)
    try:
        return dataclasses.replace(base, **good)
    except ValueError as error:
        problems.append(str(error))
        return base


def _convert(hint: Any, value: Any, name: str, good: dict[str, Any], key: str, problems: list[str]) -> None:
    if typing.get_origin(hint) is Literal:
        allowed = typing.get_args(hint)
        if value in allowed:
            good[key] = value
        else:
            problems.append(f"{name} must be one of {', '.join(map(str, allowed))}; got {value!r}. Choose one of them.")
    elif hint is float and type(value) in (int, float):
        good[key] = float(value)
    elif type(value) is hint:
        good[key] = value
    else:
        problems.append(f"{name} must be of type {hint.__name__}; got {value!r}. Correct it.")
