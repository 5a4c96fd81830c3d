"""What both entry points ask of their arguments, and the sentences they answer with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from flowkit_kernels.errors import ParameterError, ShapeError
from flowkit_kernels.host import cores

Ranges = Callable[[Any], npt.NDArray[np.float32]]
"""(N, ...) -> (N, 2): minimum and maximum of each item, NaN where one is NaN."""

BRIGHTEST = 16.0
"""Largest grey value. White is 1; a clip's pictures may be multiplied by a factor, which to TV-L1 is a factor of `lambda_`.
Values of 8 bits are beyond it."""

OVERSHOOT = 1e-3
"""How far a grey value may leave [0, BRIGHTEST]: what resampling in float32 adds."""

MAX_PIXELS = (1 << 29) - 256
"""Of an image: kernels count the floats of four planes in 32 bits, and up to 1024 beyond the last."""


def number(where: str, name: str, value: Any, expectation: str, holds: Callable[[float], bool]) -> None:
    """Refuse what is not a real number or does not hold to the expectation."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not holds(value):
        raise ParameterError(f"{where}: {name} must be {expectation}; got {value!r}. Correct it.")


def whole_number(where: str, name: str, value: Any, expectation: str, holds: Callable[[int], bool]) -> None:
    """Refuse what is not an int or does not hold to the expectation."""
    if isinstance(value, bool) or not isinstance(value, int) or not holds(value):
        raise ParameterError(f"{where}: {name} must be a whole number, {expectation}; got {value!r}. Correct it.")


def choice(where: str, name: str, value: Any, allowed: tuple[str, ...]) -> None:
    """Refuse what is not one of the allowed words."""
    if value not in allowed:
        raise ParameterError(f"{where}: {name} must be one of {', '.join(allowed)}; got {value!r}. Choose one of them.")


def thread_count(where: str, threads: int | None) -> int:
    """Threads to use: as asked, or one for each core this process may use."""
    if threads is None:
        return cores()
    whole_number(where, "threads", threads, "1 or more", lambda value: value >= 1)
    return threads


def image_pairs(where: str, reference: Any, moving: Any, min_size: int, ranges: Ranges) -> tuple[Any, Any]:
    """Both stacks of images as contiguous (N, H, W) float32, or a ShapeError."""
    for name, images in (("reference", reference), ("moving", moving)):
        _array(where, name, images, "float32", "(N, H, W)", 3)
        _neither_small_nor_huge(where, name, images, min_size)
    if reference.shape != moving.shape:
        _refuse(where, "moving", f"of the shape of reference, {reference.shape}", str(moving.shape), "Pair them up")
    for name, images in (("reference", reference), ("moving", moving)):
        _grey(where, name, ranges(images))
    return _plain(reference), _plain(moving)


def face_triples(where: str, faces: Any, min_size: int, ranges: Ranges) -> Any:
    """Onset, apex and offset of each clip as contiguous (N, 3, H, W) float32, or a ShapeError."""
    _array(where, "faces", faces, "float32", "(N, 3, H, W)", 4)
    if faces.shape[1] != 3:
        _refuse(where, "faces", "(N, 3 faces, H, W)", str(faces.shape), "Stack onset, apex and offset")
    _neither_small_nor_huge(where, "faces", faces, min_size)
    _grey(where, "faces", ranges(faces))
    return _plain(faces)


def valid_phases(where: str, valid: Any, count: int) -> npt.NDArray[np.bool_]:
    """(N, 2) bool, all True if none is given, or a ShapeError."""
    if valid is None:
        return np.ones((count, 2), np.bool_)
    if not isinstance(valid, np.ndarray):
        _refuse(where, "valid", "a NumPy array (N, 2)", type(valid).__name__, "Convert it")
    _array(where, "valid", valid, "bool", "(N, 2)", 2)
    if valid.shape != (count, 2):
        _refuse(where, "valid", f"{(count, 2)}, as there are faces", str(valid.shape), "Give each clip its two")
    return np.ascontiguousarray(valid)


def phase_flow(where: str, flow: Any, ranges: Ranges) -> Any:
    """The flow as contiguous (N, 2, 2, H, W) float32, or a ShapeError."""
    _array(where, "flow", flow, "float32", "(N, 2, 2, H, W)", 5)
    if flow.shape[1:3] != (2, 2) or 0 in flow.shape:
        _refuse(where, "flow", "(N, 2 phases, 2 components, H, W)", str(flow.shape), "Stack rise and fall")
    _neither_small_nor_huge(where, "flow", flow, 1)
    _finite(where, "flow", ranges(flow))
    return _plain(flow)


def mask(where: str, mask: Any, flow: Any, ranges: Ranges) -> Any:
    """The mask as contiguous (N, H, W) bool that fits the flow, or a ShapeError."""
    _array(where, "mask", mask, "bool", "(N, H, W)", 3)
    expected = (len(flow), *flow.shape[-2:])
    if mask.shape != expected:
        _refuse(where, "mask", f"{expected}, as the flow", str(mask.shape), "Give each pair its mask")
    empty = ranges(mask)[:, 1] == 0
    if empty.any():
        pair = int(empty.argmax())
        _refuse(where, f"mask of pair {pair}", "True somewhere", "an empty mask", 'Pass none, or region="image"')
    return _plain(mask)


def larger_than_border(where: str, flow: Any, border_px: int) -> None:
    """Refuse images of which the border leaves nothing."""
    if min(flow.shape[-2:]) <= 2 * border_px:
        _refuse(
            where,
            "flow",
            f"larger than two borders of border_px={border_px}",
            _size(flow),
            'Lower border_px, pass a mask, or region="image"',
        )


def _array(where: str, name: str, array: Any, dtype: str, axes: str, ndim: int) -> None:
    if not all(hasattr(array, attribute) for attribute in ("dtype", "shape", "ndim")):
        _refuse(where, name, f"a NumPy array {axes}", type(array).__name__, "Convert it")
    if array.dtype != np.dtype(dtype):
        _refuse(where, name, f"of dtype {dtype}", str(array.dtype), f"Convert it with .astype({dtype!r})")
    if array.ndim != ndim:
        _refuse(where, name, axes, f"shape {array.shape}", "Give it one axis for each of these")
    if len(array) == 0:
        _refuse(where, name, "one pair or more", "0 pairs", "Skip the call where there is nothing to compute")


def _neither_small_nor_huge(where: str, name: str, images: Any, min_size: int) -> None:
    if min(images.shape[-2:]) < min_size:
        _refuse(where, name, f"at least {min_size} x {min_size} pixels", _size(images), "Use a larger crop")
    if images.shape[-2] * images.shape[-1] > MAX_PIXELS:
        _refuse(where, name, f"at most {MAX_PIXELS} pixels each", _size(images), "Use a smaller crop")


def _plain(array: Any) -> Any:
    """A NumPy array contiguous, aligned and writeable, copied if it must be: every other layout would be compiled for anew."""
    return np.require(array, requirements=("C", "A", "W")) if isinstance(array, np.ndarray) else array


def _finite(where: str, name: str, ranges: npt.NDArray[np.float32]) -> None:
    broken = ~np.isfinite(ranges).all(axis=1)
    if broken.any():
        pair = int(broken.argmax())
        _refuse(where, f"{name} of pair {pair}", "finite everywhere", "NaN or infinity", "Leave this pair out")


def _grey(where: str, name: str, ranges: npt.NDArray[np.float32]) -> None:
    _finite(where, name, ranges)
    low, high = float(ranges[:, 0].min()), float(ranges[:, 1].max())
    if low < -OVERSHOOT or high > BRIGHTEST + OVERSHOOT:
        values = f"grey values from 0 to 1, or at most {BRIGHTEST:g} times that"
        _refuse(where, name, values, f"{low:.6g} to {high:.6g}", "Divide 8-bit values by 255")


def _size(array: Any) -> str:
    return f"{array.shape[-2]} x {array.shape[-1]}"


def _refuse(where: str, name: str, expectation: str, value: str, next_step: str) -> None:
    raise ShapeError(f"{where}: {name} must be {expectation}; got {value}. {next_step}.")
