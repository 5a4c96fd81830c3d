"""Every setting that decides what is computed, as frozen dataclasses that are also the TOML and the JSON.

What decides the bytes of a shard is here and only here, so one fingerprint covers it. How a run is carried out (number of
workers, batch size, what to do about failures) is `extraction.options.RunOptions`: it never changes a result.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from flowkit.errors import ConfigError
from flowkit.named_code import is_name, pinned
from flowkit.settings_classes import Settings, refuse
from flowkit.settings_io import load_values
from flowkit.storage.commit import RUN_FILE
from flowkit.storage.run_file import stored_run
from flowkit.storage.safe_files import regular
from flowkit_kernels import MMCOFParams, TVL1Params

BackendName = Literal["auto", "cuda", "numba-cuda", "cpu", "reference"]
MIN_SIZE, MAX_SIZE = 32, 2048
MOST_AVERAGED = 15
"""Frames that a key frame may be the mean of, at most."""
FILES = ("face_model", "landmarks")
"""Settings of `AlignConfig` that name a file."""


@dataclass(frozen=True, slots=True)
class FrameConfig:
    """How key frames are chosen and read.

    Attributes
    ----------
    index_base : {0, 1}
        Number of the first frame of a video. Folders are not concerned: their file names carry the numbers.
    bit_depth : int, in bits
        Significant bits of 16-bit images, 9 to 16; 0 means 16, and fails where that looks wrong.
    missing_apex : {"fail", "midpoint", "offset", "spot"}
        What an empty apex means: the clip fails; the midpoint of onset and offset, or the offset, is taken; "spot"
        finds it: see `spotting.spot`.
    missing_offset : {"fail", "invalid"}
        What an empty offset means: the clip fails, or its fall is invalid.
    strict_phases : bool
        Fail clips that have a phase of no length, instead of marking the phase invalid.
    average : {"auto", "off"} or int, in frames
        Each key frame is the mean of so many frames, an odd number: itself and those on either side, where they are there. They are
        registered on it; what differs from it by more than noise is left out. "auto" takes those within 10 ms, at most two on
        either side: none below 100 frames per second or where the rate is unknown. A window never reaches farther than a fifth of
        the way to the next key frame.
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
    average: Literal["auto", "off"] | int = "auto"
    nearest: bool = False
    follow_symlinks: bool = False

    def __post_init__(self) -> None:
        checks = {
            "index_base": (self.index_base in (0, 1), "0 or 1"),
            "bit_depth": (self.bit_depth == 0 or 9 <= self.bit_depth <= 16, "0 or 9 to 16"),
            "average": (
                self.average in ("auto", "off") or (self.average in range(3, MOST_AVERAGED + 1, 2)),
                f"auto, off, or an odd number from 3 to {MOST_AVERAGED}",
            ),
        }
        refuse(checks, self, "frames.")


@dataclass(frozen=True, slots=True)
class AlignConfig:
    """How the three frames become one aligned face.

    Attributes
    ----------
    method : {"mediapipe", "landmarks", "none"}
        Where the landmarks of the onset come from; "none" takes frames that are already cropped.
    size : int, in pixels
        Side of the square crop.
    stabilise : {"head", "similarity", "affine", "register", "none"}
        "head" tells the motion of the head, in three dimensions, and the expression apart, undoes the head's in the pictures and
        subtracts what is left of it in the flow. "register" registers the pictures in the plane; "similarity" and "affine" also
        subtract such a motion from the flow, as version 0.1 did: they take a part of an expression for a motion of the head.
    match_light : bool
        Match mean and standard deviation of apex and offset to the onset, inside the face.
    match_contrast : bool
        Bring all faces to one contrast for the solver, as far as noise allows, so that the length of the flow does not depend on
        exposure or skin. False: the solver sees the crops as they are, as in version 0.1.
    face_model : str
        A face landmarker file in place of the bundled one; empty for the bundled one.
    landmarks : str
        CSV file with the columns clip_id, point, x, y; needed by method "landmarks".
    steps : tuple of str
        Further steps that are applied to each picture, as "module:attribute" or "module:attribute@version". Their code is imported
        and run, in every process that aligns: name only code that you trust.
    """

    method: Literal["mediapipe", "landmarks", "none"] = "mediapipe"
    size: int = 224
    stabilise: Literal["head", "similarity", "affine", "register", "none"] = "head"
    match_light: bool = True
    match_contrast: bool = True
    face_model: str = ""
    landmarks: str = ""
    steps: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        checks = {
            "size": (MIN_SIZE <= self.size <= MAX_SIZE, f"from {MIN_SIZE} to {MAX_SIZE}"),
            "steps": (all(map(is_name, self.steps)), 'names as "module:attribute" or "module:attribute@version"'),
        }
        refuse(checks, self, "align.")
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
        Clips per shard file.
    compress : {"none", "zstd"}
        "zstd" for archives: smaller, three times slower to read, needs the extra `zstd`.
    keep_faces : bool
        Store the aligned faces too. They are personal data.
    """

    clips: int = 256
    compress: Literal["none", "zstd"] = "none"
    keep_faces: bool = False

    def __post_init__(self) -> None:
        refuse({"clips": (1 <= self.clips <= 65536, "from 1 to 65536")}, self, "shard.")


@dataclass(frozen=True, slots=True)
class ExtractConfig(Settings):
    """All settings of an extraction.

    Attributes
    ----------
    frames : FrameConfig
    align : AlignConfig
    tvl1 : TVL1Params
    mmcof : MMCOFParams
    shard : ShardConfig
    backend : {"auto", "cuda", "numba-cuda", "cpu", "reference"}
        What computes the flow. "auto" is resolved once and stored as what it became; no backend falls back by itself.
    """

    frames: FrameConfig = field(default_factory=FrameConfig)
    align: AlignConfig = field(default_factory=AlignConfig)
    tvl1: TVL1Params = field(default_factory=TVL1Params)
    mmcof: MMCOFParams = field(default_factory=MMCOFParams)
    shard: ShardConfig = field(default_factory=ShardConfig)
    backend: BackendName = "auto"

    def to_dict(self) -> dict[str, Any]:
        """Nested plain dict, in declaration order: what run.json stores.

        Files are named by their content, not by where they lie: a folder may move, a changed file is another setting. Steps are
        named with their version, for which they are imported. Where there are none, `align.steps` is left out, as it was before
        there was such a setting, and so is `frames.average` where it is off.

        Raises
        ------
        ConfigError
            A file that a setting names cannot be read, or a step cannot be imported.
        """
        values = dataclasses.asdict(self)
        for name, path in self._files():
            values["align"][name] = _content_name(f"align.{name}", path)
        if values["align"].pop("steps"):
            values["align"]["steps"] = self._pinned_steps()
        if self.frames.average == "off":
            del values["frames"]["average"]
        return values

    def anywhere(self) -> Self:
        """The same for other processes: with names of files that hold in any working directory, and the versions of steps."""
        files: dict[str, Any] = {name: path and str(Path(path).absolute()) for name, path in self._files()}
        return dataclasses.replace(
            self, align=dataclasses.replace(self.align, **files, steps=tuple(self._pinned_steps()))
        )

    def _files(self) -> list[tuple[str, str]]:
        return [(name, getattr(self.align, name)) for name in FILES]

    def _pinned_steps(self) -> list[str]:
        return [pinned(name, "align.steps") for name in self.align.steps]


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
    return ExtractConfig.from_dict(load_values(file, assignments, **flags))


def settings_of(out: Path) -> ExtractConfig:
    """Settings that the shards of a folder were made with; a file that one of them names is named by its content.

    Raises
    ------
    ConfigError
        There is no run.json, or it is that of an import, or of a flowkit with other settings.
    ShardCorrupt
    """
    settings = stored_run(out)["settings"]
    if "import" in settings:
        raise ConfigError(
            f"{out}: the flow of this folder was imported, not extracted, so no settings of an extraction give it again. Look at "
            "flowkit inspect."
        )
    return ExtractConfig.from_dict(settings, str(out / RUN_FILE))


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
