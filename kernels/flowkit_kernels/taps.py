"""Taps of a resize on a GPU: between which pixels those of another size lie."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from flowkit_kernels import reference

Array = Any
"""An array on the device."""


class Taps(NamedTuple):
    """Between which columns and rows each pixel of a resized image lies, and the weight of the second, on the device."""

    columns: Array
    right: Array
    rows: Array
    bottom: Array

    @classmethod
    def of(
        cls,
        upload: Callable[[npt.NDArray[Any]], Array],
        source: Sequence[int],
        target: Sequence[int],
        step: float | None,
    ) -> Taps:
        """Compute the taps as `reference.taps` does, in float64, from sizes (height, width), and upload them."""
        rows, bottom = reference.taps(source[0], target[0], step, np.float32)
        columns, right = reference.taps(source[1], target[1], step, np.float32)
        return cls(*map(upload, (columns.astype(np.int32), right, rows.astype(np.int32), bottom)))
