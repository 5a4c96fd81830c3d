"""What TV-L1 keeps of one pair on the CPU: the planes of its state, and room for what a step works out on the way.

Between iterations everything lives in one array of lines, PLANES lines a row, so that an iteration walks through memory once:

    U, V                  the flow, in units of theta / tau pixels
    JX, JY                gradient of the moving image, warped, a unit
    INVERSE               1 / |gradient|^2
    CONSTANT              J(x + flow0) - gradient . flow0 - I
    P11, P12, P21, P22    the dual variables: p of u along x and y, p of v along x and y

In these units the dual step needs no factors: p moves by the gradient of the flow.

Rows of zeros lie above the image and below it; the dual variables of those above stay zero. Loops take whole runs, so they also
write right of the image. There everything is zero, but for the u and v of the first pixel, which are copies of the last column.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from flowkit_kernels.cpu.simd import F32, LEFT, RUN, U64, Lines, inlined, lines, load_state, whole_runs
from flowkit_kernels.params import TVL1Params, level_shapes

Image = npt.NDArray[np.float32]

PLANES = 10
U, V, JX, JY, INVERSE, CONSTANT, P11, P12, P21, P22 = range(PLANES)
P12_ABOVE, P22_ABOVE = P12 - PLANES, P22 - PLANES
U_ABOVE, V_ABOVE, U_BELOW, V_BELOW = U - PLANES, V - PLANES, U + PLANES, V + PLANES
MARGIN_ROWS = 2
"""Rows of zeros above the image, and below it."""

GRADIENT_PLANES = 3
"""Lines a row of `Workspace.moving`: the moving image J, Jx and Jy."""
OUTSIDE = 5
"""Rows and columns of zeros around them: whoever points further out sees nothing but zeros."""
SCRATCH_LINES = 15


COARSE_PLANES = 2
"""Lines a row of `Workspace.coarse`: u and v."""


class Workspace(NamedTuple):
    """What one thread needs beside the images; its contents, but for `levels`, mean nothing between two pairs."""

    levels: npt.NDArray[np.int64]
    references: Lines
    movings: Lines
    coarse: Lines
    state: Lines
    moving: Lines
    scratch: Lines
    filtered: Lines
    taps: npt.NDArray[np.int32]

    @classmethod
    def of(cls, height: int, width: int, params: TVL1Params) -> Workspace:
        """Room for images of this size: the pyramids (height, width and first line of each level), and what a level needs."""
        shapes = level_shapes((height, width), params)
        first = np.cumsum([0, *(rows for rows, _ in shapes)])
        return cls(
            levels=np.array([(*shape, line) for shape, line in zip(shapes, first, strict=False)], np.int64),
            references=lines(int(first[-1]), width),
            movings=lines(int(first[-1]), width),
            coarse=lines(height * COARSE_PLANES, width),
            state=lines((height + 2 * MARGIN_ROWS) * PLANES, width),
            moving=lines((height + 2 * OUTSIDE) * GRADIENT_PLANES, width + OUTSIDE + RUN),
            scratch=lines(SCRATCH_LINES, width + OUTSIDE),
            filtered=lines(3, width),
            taps=lines(2, width, np.int32),
        )


@inlined
def first_line(y: int) -> np.uint64:
    """Line of plane U of image row y; rows of zeros lie above the first and below the last."""
    return U64((y + MARGIN_ROWS) * PLANES)


@inlined
def clear(state: Lines, height: int, width: int) -> None:
    """No flow, no dual variables; what has to do with the data term is left as it is."""
    used = LEFT + whole_runs(width) + 1
    state[: first_line(0), :used] = F32(0)
    state[first_line(height) : first_line(height + MARGIN_ROWS), :used] = F32(0)
    for y in range(height):
        row = first_line(y)
        state[row + U64(U) : row + U64(V + 1), :used] = F32(0)
        state[row + U64(P11) : row + U64(P22 + 1), :used] = F32(0)


@inlined
def clear_right(state: Lines, line: np.uint64, width: int) -> None:
    """Zeros right of the image, where a loop over whole runs wrote."""
    state[line, LEFT + width : LEFT + whole_runs(width)] = F32(0)


@inlined
def leave(state: Lines, unit: np.float32, flow: Image) -> None:
    """The flow out of the state, into (2, H, W), in pixels."""
    _, height, width = flow.shape
    for y in range(height):
        row = first_line(y)
        for x in range(width):
            flow[0, y, x] = unit * load_state(state, row, U, U64(x))
            flow[1, y, x] = unit * load_state(state, row, V, U64(x))
