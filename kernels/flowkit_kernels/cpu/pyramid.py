"""Pyramids of images on the CPU, with Numba, and the flow on its way from one level to the next."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from flowkit_kernels.cpu.simd import (
    F32,
    I32,
    LEFT,
    ONE,
    U64,
    ZERO,
    Lines,
    inlined,
    load_image,
    load_scratch,
    load_state,
    store_image,
    store_scratch,
    store_state,
    whole_runs,
)
from flowkit_kernels.cpu.state import COARSE_PLANES, PLANES, Image, U, V, Workspace, clear_right, first_line
from flowkit_kernels.numba_shared import WHITE


class Plane(NamedTuple):
    """An image in the lines of an array: its row y is line `first` + y `step`."""

    lines: Lines
    first: int
    step: int
    height: int
    width: int


@inlined
def level_of(pyramid: Lines, level: int, work: Workspace) -> Plane:
    """One level of a pyramid."""
    height, width, first = work.levels[level]
    return Plane(pyramid, first, 1, height, width)


@inlined
def build(pyramid: Lines, image: Image, scale_step: float, work: Workspace) -> None:
    """The image in 0..255 and its smaller versions, finest first."""
    height, width = image.shape
    for y in range(height):
        for x in range(width):
            pyramid[y, LEFT + x] = image[y, x] * WHITE
    step = 1 / scale_step
    for level in range(1, len(work.levels)):
        resize(level_of(pyramid, level - 1, work), level_of(pyramid, level, work), step, step, F32(1), work)


@inlined
def keep_flow(level: int, work: Workspace) -> None:
    """The flow of one level out of the state, which the next finer one needs."""
    height, width, _ = work.levels[level]
    for y in range(height):
        row, kept = first_line(y), U64(y * COARSE_PLANES)
        for x in range(ZERO, U64(whole_runs(width))):
            store_image(work.coarse, kept, 0, x, load_state(work.state, row, U, x))
            store_image(work.coarse, kept, 1, x, load_state(work.state, row, V, x))


@inlined
def take_flow(level: int, scale_step: float, work: Workspace) -> None:
    """The flow of the next coarser level into the state, in pixels of this one."""
    height, width, _ = work.levels[level]
    coarse_height, coarse_width, _ = work.levels[level + 1]
    step_y, step_x = coarse_height / height, coarse_width / width
    for plane in range(COARSE_PLANES):
        source = Plane(work.coarse, plane, COARSE_PLANES, coarse_height, coarse_width)
        target = Plane(work.state, int(first_line(0)) + plane, PLANES, height, width)
        resize(source, target, step_y, step_x, F32(1 / scale_step), work)


@inlined
def resize(source: Plane, target: Plane, step_y: float, step_x: float, factor: np.float32, work: Workspace) -> None:
    """Bilinear, with half-pixel centres and no smoothing; a pixel of the target is `step` pixels of the source wide.

    Values are multiplied by `factor`. Lines of scratch: a row between two rows of the source, and the weights of right columns.
    """
    columns, rows = work.taps, work.scratch
    for x in range(whole_runs(target.width)):
        first, right = neighbours(x, step_x, source.width)
        columns[0, LEFT + x], rows[1, LEFT + x] = first, right
    for y in range(target.height):
        first, bottom = neighbours(y, step_y, source.height)
        above = U64(source.first + first * source.step)
        below, line = above + U64(source.step), U64(target.first + y * target.step)
        for x in range(ZERO, U64(whole_runs(source.width))):
            upper, lower = load_image(source.lines, above, 0, x), load_image(source.lines, below, 0, x)
            store_scratch(rows, ZERO, 0, x, (upper * (F32(1) - bottom) + lower * bottom) * factor)
        for x in range(ZERO, U64(whole_runs(target.width))):
            i, right = U64(load_image(columns, ZERO, 0, x)), load_scratch(rows, ZERO, 1, x)
            value = load_scratch(rows, ZERO, 0, i) * (F32(1) - right) + load_scratch(rows, ZERO, 0, i + ONE) * right
            store_state(target.lines, line, 0, x, value)
        clear_right(target.lines, line, target.width)


@inlined
def neighbours(target: int, step: float, size: int) -> tuple[np.int32, np.float32]:
    """First of the two pixels that a target pixel lies between, and the weight of the second."""
    centre = min(max((target + 0.5) * step - 0.5, 0.0), size - 1.0)
    first = min(int(centre), size - 2)
    return I32(first), F32(centre - first)
