"""The data term of TV-L1 on the CPU, with Numba: the moving image and its gradient, warped by the flow, row by row.

Neighbours mostly move alike. Where the taps of a row, or of a block of it, begin in at most two columns and in at most two rows,
vectors of pixels are interpolated: with five taps each way, one of which each pixel gives the weight zero. Elsewhere pixels are
interpolated one by one, with vectors of taps.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from flowkit_kernels import numba_shared
from flowkit_kernels.cpu.pyramid import Plane
from flowkit_kernels.cpu.simd import (
    F32,
    I32,
    LEFT,
    ONE,
    RUN,
    U64,
    ZERO,
    Lines,
    cubic_taps,
    inlined,
    load_image,
    load_scratch,
    load_state,
    store_image,
    store_scratch,
    store_state,
    whole_runs,
)
from flowkit_kernels.cpu.state import (
    CONSTANT,
    GRADIENT_PLANES,
    INVERSE,
    JX,
    JY,
    OUTSIDE,
    U,
    V,
    Workspace,
    clear_right,
    first_line,
)
from flowkit_kernels.numba_shared import EPSILON

Image = npt.NDArray[np.float32]
Five = tuple[np.float32, np.float32, np.float32, np.float32, np.float32]

BLOCK = 16
"""Pixels that are interpolated together where a row does not move alike."""

cubic_weights = inlined(numba_shared.cubic_weights)


@inlined
def moving_line(y: int) -> np.uint64:
    """Line of J of image row y in `Workspace.moving`; those of Jx and Jy follow."""
    return U64((y + OUTSIDE) * GRADIENT_PLANES)


@inlined
def place_moving(image: Plane, moving: Lines) -> None:
    """J, Jx and Jy within zeros; central differences, replicated at the border."""
    height, width = image.height, image.width
    used = LEFT + width + OUTSIDE + RUN
    moving[: moving_line(0), :used] = F32(0)
    moving[moving_line(height) : moving_line(height + OUTSIDE), :used] = F32(0)
    for y in range(height):
        place_row(image, y, moving, moving_line(y))
        moving[moving_line(y) : moving_line(y + 1), :LEFT] = F32(0)
        moving[moving_line(y) : moving_line(y + 1), LEFT + width : used] = F32(0)


@inlined
def place_row(image: Plane, y: int, moving: Lines, line: np.uint64) -> None:
    """One row of J, Jx and Jy; what lies beside the image is not zero yet."""
    values, here, last = image.lines, U64(image.first + y), LEFT + image.width - 1
    above, below = U64(image.first + max(y - 1, 0)), U64(image.first + min(y + 1, image.height - 1))
    values[here, LEFT - 1], values[here, last + 1] = values[here, LEFT], values[here, last]
    for x in range(ZERO, U64(whole_runs(image.width))):
        across = load_image(values, here, 0, x + ONE) - load_image(values, here, 0, x - ONE)
        down = load_image(values, below, 0, x) - load_image(values, above, 0, x)
        store_scratch(moving, line, 0, x, load_image(values, here, 0, x))
        store_scratch(moving, line, 1, x, F32(0.5) * across)
        store_scratch(moving, line, 2, x, F32(0.5) * down)


@inlined
def linearise(reference: Plane, unit: np.float32, round_coordinates: bool, work: Workspace) -> None:
    """The data term of every pixel, from the moving image and its gradient warped by the flow."""
    height, width = reference.height, reference.width
    for y in range(height):
        row = first_line(y)
        place_taps(work.state, row, unit, y, height, width, round_coordinates, work.scratch, work.taps)
        warp(work.moving, width, work.scratch, work.taps)
        linearise_row(work.state, row, unit, reference.lines, U64(reference.first + y), width, work.scratch)


@inlined
def place_taps(
    state: Lines,
    row: np.uint64,
    unit: np.float32,
    y: int,
    height: int,
    width: int,
    round_coordinates: bool,
    scratch: Lines,
    taps: npt.NDArray[np.int32],
) -> None:
    """How far right of each pixel its 4 x 4 taps begin, and in which row; how far beyond the second of them it points."""
    for x in range(ZERO, U64(whole_runs(width))):
        at_x = F32(I32(x)) + load_state(state, row, U, x) * unit
        at_y = F32(y) + load_state(state, row, V, x) * unit
        if round_coordinates:
            at_x, at_y = np.rint(at_x * F32(32)) * F32(1 / 32), np.rint(at_y * F32(32)) * F32(1 / 32)
        corner_x, corner_y = np.floor(at_x), np.floor(at_y)
        store_scratch(scratch, ZERO, 0, x, at_x - corner_x)
        store_scratch(scratch, ZERO, 1, x, at_y - corner_y)
        # a pixel further out than this sees nothing but zeros
        column = I32(min(max(corner_x, F32(-3)), F32(width + 1)))
        line = I32(min(max(corner_y, F32(-3)), F32(height + 1)))
        store_image(taps, ZERO, 0, x, column - I32(1) - I32(x))
        store_image(taps, ZERO, 1, x, line - I32(1))


@inlined
def warp(moving: Lines, width: int, scratch: Lines, taps: npt.NDArray[np.int32]) -> None:
    """J, Jx and Jy where the flow points, for one row: at once if it all moves alike, else in blocks."""
    alike, left, top = corner(taps, ZERO, U64(width))
    if alike:
        warp_together(moving, ZERO, U64(whole_runs(width)), left, top, scratch, taps)
        return
    for first in range(0, width, BLOCK):
        start, stop = U64(first), U64(min(first + BLOCK, width))
        alike, left, top = corner(taps, start, stop)
        if alike:
            warp_together(moving, start, start + U64(BLOCK), left, top, scratch, taps)
        else:
            warp_one_by_one(moving, start, stop, scratch, taps)


@inlined
def corner(taps: npt.NDArray[np.int32], start: np.uint64, stop: np.uint64) -> tuple[bool, np.int32, np.int32]:
    """Whether the taps of all pixels begin in at most two columns and two rows, and the first of each."""
    left = right = load_image(taps, ZERO, 0, start)
    top = bottom = load_image(taps, ZERO, 1, start)
    for x in range(start, stop):
        column, line = load_image(taps, ZERO, 0, x), load_image(taps, ZERO, 1, x)
        left, right, top, bottom = min(left, column), max(right, column), min(top, line), max(bottom, line)
    return right - left <= 1 and bottom - top <= 1, left, top


@inlined
def warp_together(
    moving: Lines,
    start: np.uint64,
    stop: np.uint64,
    left: np.int32,
    top: np.int32,
    scratch: Lines,
    taps: npt.NDArray[np.int32],
) -> None:
    """Pixels whose taps begin in at most two columns and rows, `left` and `top` being the first of each."""
    line = moving_line(int(top))
    for x in range(start, stop):
        along_x = five_weights(load_scratch(scratch, ZERO, 0, x), load_image(taps, ZERO, 0, x) == left)
        along_y = five_weights(load_scratch(scratch, ZERO, 1, x), load_image(taps, ZERO, 1, x) == top)
        first = x + U64(left)
        store_scratch(scratch, ZERO, 2, x, weighted_sum(moving, line, first, along_x, along_y))
        store_scratch(scratch, ZERO, 3, x, weighted_sum(moving, line + U64(1), first, along_x, along_y))
        store_scratch(scratch, ZERO, 4, x, weighted_sum(moving, line + U64(2), first, along_x, along_y))


@inlined
def five_weights(t: np.float32, early: bool) -> Five:
    """Weights of five taps, for a pixel whose own four begin with the first of them or with the second."""
    a, b, c, d = cubic_weights(t)
    if early:
        return a, b, c, d, F32(0)
    return F32(0), a, b, c, d


@inlined
def weighted_sum(moving: Lines, line: np.uint64, x: np.uint64, along_x: Five, along_y: Five) -> np.float32:
    """The 5 x 5 taps of one plane that begin at x."""
    total = along_y[0] * weighted_row(moving, line, x, along_x)
    total += along_y[1] * weighted_row(moving, line + U64(GRADIENT_PLANES), x, along_x)
    total += along_y[2] * weighted_row(moving, line + U64(2 * GRADIENT_PLANES), x, along_x)
    total += along_y[3] * weighted_row(moving, line + U64(3 * GRADIENT_PLANES), x, along_x)
    total += along_y[4] * weighted_row(moving, line + U64(4 * GRADIENT_PLANES), x, along_x)
    return total


@inlined
def weighted_row(moving: Lines, line: np.uint64, x: np.uint64, weights: Five) -> np.float32:
    """Five taps of one row."""
    total: np.float32 = (
        weights[0] * load_image(moving, line, 0, x)
        + weights[1] * load_image(moving, line, 0, x + U64(1))
        + weights[2] * load_image(moving, line, 0, x + U64(2))
        + weights[3] * load_image(moving, line, 0, x + U64(3))
        + weights[4] * load_image(moving, line, 0, x + U64(4))
    )
    return total


@inlined
def warp_one_by_one(
    moving: Lines, start: np.uint64, stop: np.uint64, scratch: Lines, taps: npt.NDArray[np.int32]
) -> None:
    """Pixels that point here and there."""
    for x in range(start, stop):
        weights = cubic_weights(load_scratch(scratch, ZERO, 0, x)) + cubic_weights(load_scratch(scratch, ZERO, 1, x))
        first = x + U64(load_image(taps, ZERO, 0, x))
        line = moving_line(int(load_image(taps, ZERO, 1, x)))
        store_scratch(scratch, ZERO, 2, x, cubic_taps(moving, line, 0, GRADIENT_PLANES, first, weights))
        store_scratch(scratch, ZERO, 3, x, cubic_taps(moving, line, 1, GRADIENT_PLANES, first, weights))
        store_scratch(scratch, ZERO, 4, x, cubic_taps(moving, line, 2, GRADIENT_PLANES, first, weights))


@inlined
def linearise_row(
    state: Lines, row: np.uint64, unit: np.float32, reference: Lines, line: np.uint64, width: int, scratch: Lines
) -> None:
    """The data term of one row from what was warped for it; there is none right of the image."""
    least = EPSILON * unit * unit
    for x in range(ZERO, U64(whole_runs(width))):
        jx, jy = load_scratch(scratch, ZERO, 3, x) * unit, load_scratch(scratch, ZERO, 4, x) * unit
        moved = jy * load_state(state, row, V, x) + jx * load_state(state, row, U, x)
        store_state(state, row, JX, x, jx)
        store_state(state, row, JY, x, jy)
        store_state(state, row, INVERSE, x, F32(1) / max(jy * jy + jx * jx, least))
        constant = load_scratch(scratch, ZERO, 2, x) - moved - load_image(reference, line, 0, x)
        store_state(state, row, CONSTANT, x, constant)
    for plane in (JX, JY, INVERSE, CONSTANT):
        clear_right(state, row + U64(plane), width)
