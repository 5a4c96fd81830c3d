"""What a benchmark measures: operations, sizes, batches, backends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy.typing as npt

from flowkit.config import BackendName
from flowkit.errors import ConfigError
from flowkit_kernels import available_backends, resolve_backend
from flowkit_kernels.params import PRESETS

Array = npt.NDArray[Any]
Progress = Callable[[str], object]
Document = dict[str, Any]
OPENCV, TWIN = "opencv", "reference"
EXTRACT_BACKENDS: tuple[str, ...] = get_args(BackendName)
OPS = ("tvl1", "mmcof")
SIZES = ((64, 64), (128, 128), (224, 224), (480, 640))
CPU_BATCHES, GPU_BATCHES = (1, 16, 64), (1, 16, 256)
CPU_PIXELS, GPU_PIXELS = 2**22, 2**24
"""Largest default batch, in pixels: 64 of 224 x 224 on the CPU, 256 of them on a GPU."""
SECONDS = 0.3
LABELS = ("happiness", "surprise")


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """What is measured.

    Attributes
    ----------
    backends : tuple of str
        Names of backends, and "opencv". If empty: all that run here but the twin, and OpenCV.
    ops : tuple of {"tvl1", "mmcof"}
        Both, if empty.
    sizes : tuple of (int, int)
        Height and width, px; `SIZES`, if empty.
    batches : tuple of int
        Pairs or clips a call. If empty: `CPU_BATCHES` or `GPU_BATCHES`, as far as they are not too large. OpenCV takes one pair a
        call, whatever is asked for.
    preset : {"micro", "fixed", "opencv"}
        OpenCV gets the same parameters.
    seconds : float
        Time for each case; 3 calls are timed at least, 1000 at most.

    Raises
    ------
    ConfigError
    BackendUnavailable
        A backend cannot run here.
    """

    backends: tuple[str, ...] = ()
    ops: tuple[str, ...] = ()
    sizes: tuple[tuple[int, int], ...] = ()
    batches: tuple[int, ...] = ()
    preset: str = PRESETS[0]
    seconds: float = SECONDS

    def __post_init__(self) -> None:
        for op in self.ops:
            check(op in OPS, "op", f"one of {', '.join(OPS)}", op)
        for height, width in self.sizes:
            fits = all(64 <= side <= 4096 and side % 2 == 0 for side in (height, width))
            check(fits, "size", "of even sides from 64 to 4096", f"{height}x{width}")
        for batch in self.batches:
            check(1 <= batch <= 65536, "batch", "from 1 to 65536", batch)
        check(self.preset in PRESETS, "preset", f"one of {', '.join(PRESETS)}", self.preset)
        check(0 < self.seconds <= 3600, "seconds", "above 0, at most 3600", self.seconds)
        others = [name for name in self.concrete_backends() if name != OPENCV]
        check(bool(others) or "tvl1" in (self.ops or OPS), "op", "tvl1 where opencv is the only backend", "mmcof")

    def concrete_backends(self) -> tuple[str, ...]:
        """Each backend that is measured, once."""
        known = (*EXTRACT_BACKENDS, OPENCV)
        for name in self.backends:
            check(name in known, "backend", f"one of {', '.join(known)}", name)
        named = [name if name == OPENCV else resolve_backend(name) for name in self.backends]
        if named:
            return tuple(dict.fromkeys(named))
        resolve_backend("cpu")  # runs everywhere: left out in silence, it would not be missed
        return (*(name for name in available_backends() if name != TWIN), OPENCV)


def parse_size(text: str) -> tuple[int, int]:
    """Height and width from "480x640", or from one side.

    Raises
    ------
    ConfigError
    """
    sides = text.lower().split("x")
    check(
        len(sides) <= 2 and all(side.isdecimal() for side in sides),
        "size",
        "a side or HEIGHTxWIDTH in pixels, such as 224 or 480x640",
        repr(text),
    )
    return int(sides[0]), int(sides[-1])


def check(ok: bool, name: str, expectation: str, value: object) -> None:
    """Refuse an option of the command that does not hold."""
    if not ok:
        raise ConfigError(f"bench: {name} must be {expectation}; got {value}. Correct it.")


@dataclass(frozen=True, slots=True)
class Case:
    """One thing to measure; `arrays` says whose memory they lie in before and after the call."""

    op: str
    height: int
    width: int
    batch: int
    backend: str
    arrays: Literal["host", "device"]
    preset: str
