"""TV-L1 for one pair of images on the CPU, with Numba: the operations of `reference.py` as loops over rows.

Between iterations everything lives in one array of lines, PLANES lines a row, so that an iteration walks through memory once:

    U, V                  the flow
    JX, JY                gradient of the moving image, warped
    INVERSE               1 / |gradient|^2
    CONSTANT              J(x + flow0) - gradient . flow0 - I
    P11, P12, P21, P22    theta times the dual variables: p of u along x and y, p of v along x and y

A row of zeros lies above the image, whose dual variables stay zero. Loops take whole runs, so they also write right of the
image; of that the image reads only u and v of its first pixel, which are copies of the last column.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from flowkit_kernels import numba_shared
from flowkit_kernels.cpu.pyramid import finer, pyramid
from flowkit_kernels.cpu.simd import (
    F32,
    FOUR,
    I32,
    LEFT,
    ONE,
    TWO,
    U64,
    ZERO,
    Lines,
    cubic_texel,
    inlined,
    lines,
    load_image,
    load_scratch,
    load_state,
    median_25,
    njit,
    sort_column,
    store_image,
    store_scratch,
    store_state,
    whole_runs,
)
from flowkit_kernels.numba_shared import EPSILON
from flowkit_kernels.params import TVL1Params

Image = npt.NDArray[np.float32]

PLANES = 10
U, V, JX, JY, INVERSE, CONSTANT, P11, P12, P21, P22 = range(PLANES)
U_ABOVE, V_ABOVE = U - PLANES, V - PLANES
P11_ABOVE, P12_ABOVE, P21_ABOVE, P22_ABOVE = P11 - PLANES, P12 - PLANES, P21 - PLANES, P22 - PLANES

WAVES = 10
"""Iterations that sweep over the image together, one row apart, while its rows are in the cache: two sweeps make 20."""
MARGIN = 4
"""Zero texels around the moving image: a point further out sees nothing but zeros."""

cubic_weights = inlined(numba_shared.cubic_weights)


class Settings(NamedTuple):
    """`TVL1Params` as the loops want them."""

    limit: np.float32
    tau: np.float32
    rate: np.float32
    scales: int
    scale_step: float
    warps: int
    outer_iterations: int
    inner_iterations: int
    tolerance: float
    filtered: bool
    round_coordinates: bool

    @classmethod
    def of(cls, params: TVL1Params) -> Settings:
        """Limit = lambda theta, rate = tau / theta, tolerance = epsilon^2; the rest as it is."""
        return cls(
            limit=F32(params.lambda_ * params.theta),
            tau=F32(params.tau),
            rate=F32(params.tau / params.theta),
            scales=params.scales,
            scale_step=float(params.scale_step),
            warps=params.warps,
            outer_iterations=params.outer_iterations,
            inner_iterations=params.inner_iterations,
            tolerance=float(params.epsilon) ** 2,
            filtered=params.median_filtering > 1,
            round_coordinates=params.round_coordinates,
        )


class Workspace(NamedTuple):
    """What one thread needs beside the images; its contents mean nothing between two pairs."""

    state: Lines
    padded: Lines
    scratch: Lines
    texel: npt.NDArray[np.int32]

    @classmethod
    def of(cls, height: int, width: int) -> Workspace:
        """Room for images up to this size."""
        return cls(
            state=lines((height + 1) * PLANES, width),
            padded=lines(height + 4, width + 4),
            scratch=lines(WEIGHTS + 4, width + 4),
            texel=lines(1, width, np.int32),
        )


WEIGHTS = 8
"""Lines of `Workspace.scratch` before the one where warped texels stand: weights of a row's taps, x then y."""


@njit
def solve(reference: Image, moving: Image, flow: Image, settings: Settings, work: Workspace) -> None:
    """Flow of one pair, from the coarsest level of its pyramids to the finest, into `flow` (2, H, W)."""
    references = pyramid(reference, settings.scales, settings.scale_step)
    movings = pyramid(moving, settings.scales, settings.scale_step)
    coarsest = references[-1].shape
    u, v = np.zeros(coarsest, F32), np.zeros(coarsest, F32)
    for level in range(len(references) - 1, -1, -1):
        shape = references[level].shape
        if u.shape != shape:
            u, v = finer(u, shape, settings.scale_step), finer(v, shape, settings.scale_step)
        refine(u, v, references[level], movings[level], settings, work)
    flow[0], flow[1] = u, v


@inlined
def refine(u: Image, v: Image, reference: Image, moving: Image, settings: Settings, work: Workspace) -> None:
    """Flow of one level, in place: the dual variables start at zero and live on over its warps."""
    texels = gradient_texels(moving)
    state = work.state
    enter(state, u, v)
    height, width = u.shape
    for _ in range(settings.warps):
        linearise(state, reference, texels, settings.round_coordinates, work)
        for _ in range(settings.outer_iterations):
            if settings.filtered:
                median(state, U, height, width, work)
                median(state, V, height, width, work)
            if iterate(state, height, width, settings):
                break
    leave(state, u, v)


@inlined
def first_line(y: int) -> np.uint64:
    """Line of plane U of image row y; row -1 is the row of zeros above the image."""
    return U64((y + 1) * PLANES)


@inlined
def enter(state: Lines, u: Image, v: Image) -> None:
    """The flow into the state, everything else zero."""
    height, width = u.shape
    state[: (height + 1) * PLANES] = F32(0)
    for y in range(height):
        row = first_line(y)
        state[row + U64(U), LEFT : LEFT + width] = u[y]
        state[row + U64(V), LEFT : LEFT + width] = v[y]


@inlined
def leave(state: Lines, u: Image, v: Image) -> None:
    """The flow out of the state."""
    height, width = u.shape
    for y in range(height):
        row = first_line(y)
        u[y] = state[row + U64(U), LEFT : LEFT + width]
        v[y] = state[row + U64(V), LEFT : LEFT + width]


@inlined
def gradient_texels(image: Image) -> Image:
    """(J, Jx, Jy, 0) of each pixel side by side, within a margin of zeros; central differences, replicated at the border."""
    height, width = image.shape
    texels = np.zeros((height + 2 * MARGIN, width + 2 * MARGIN, 4), F32)
    for y in range(height):
        above, below = image[max(y - 1, 0)], image[min(y + 1, height - 1)]
        for x in range(width):
            left, right = image[y, max(x - 1, 0)], image[y, min(x + 1, width - 1)]
            texels[y + MARGIN, x + MARGIN, 0] = image[y, x]
            texels[y + MARGIN, x + MARGIN, 1] = F32(0.5) * (right - left)
            texels[y + MARGIN, x + MARGIN, 2] = F32(0.5) * (below[x] - above[x])
    return texels


@inlined
def linearise(state: Lines, reference: Image, texels: Image, round_coordinates: bool, work: Workspace) -> None:
    """The data term of every pixel, from the moving image and its gradient warped by the flow."""
    height, width = reference.shape
    flat = texels.reshape(-1)
    for y in range(height):
        row = first_line(y)
        place_taps(state, row, y, height, width, round_coordinates, work.scratch, work.texel)
        warp(flat, width, work.scratch, work.texel)
        linearise_row(state, row, reference[y], work.scratch)


@inlined
def place_taps(
    state: Lines,
    row: np.uint64,
    y: int,
    height: int,
    width: int,
    round_coordinates: bool,
    scratch: Lines,
    texel: npt.NDArray[np.int32],
) -> None:
    """Where the 4 x 4 taps of each pixel of a row begin in the texels, and their weights along x and y."""
    row_length = I32(4 * (width + 2 * MARGIN))
    for x in range(ZERO, U64(whole_runs(width))):
        at_x = F32(I32(x)) + load_state(state, row, U, x)
        at_y = F32(y) + load_state(state, row, V, x)
        if round_coordinates:
            at_x, at_y = np.rint(at_x * F32(32)) * F32(1 / 32), np.rint(at_y * F32(32)) * F32(1 / 32)
        corner_x, corner_y = np.floor(at_x), np.floor(at_y)
        a, b, c, d = cubic_weights(at_x - corner_x)
        store_scratch(scratch, ZERO, 0, x, a)
        store_scratch(scratch, ZERO, 1, x, b)
        store_scratch(scratch, ZERO, 2, x, c)
        store_scratch(scratch, ZERO, 3, x, d)
        a, b, c, d = cubic_weights(at_y - corner_y)
        store_scratch(scratch, ZERO, 4, x, a)
        store_scratch(scratch, ZERO, 5, x, b)
        store_scratch(scratch, ZERO, 6, x, c)
        store_scratch(scratch, ZERO, 7, x, d)
        column = I32(min(max(corner_x, F32(1 - MARGIN)), F32(width + 1))) + I32(MARGIN - 1)
        line = I32(min(max(corner_y, F32(1 - MARGIN)), F32(height + 1))) + I32(MARGIN - 1)
        store_image(texel, ZERO, 0, x, line * row_length + column * I32(4))


@inlined
def warp(texels: Image, width: int, scratch: Lines, texel: npt.NDArray[np.int32]) -> None:
    """The texels of a row, interpolated where the flow points."""
    row_length = U64(4 * (width + 2 * MARGIN))
    for x in range(ZERO, U64(width)):
        weights = (
            load_scratch(scratch, ZERO, 0, x),
            load_scratch(scratch, ZERO, 1, x),
            load_scratch(scratch, ZERO, 2, x),
            load_scratch(scratch, ZERO, 3, x),
            load_scratch(scratch, ZERO, 4, x),
            load_scratch(scratch, ZERO, 5, x),
            load_scratch(scratch, ZERO, 6, x),
            load_scratch(scratch, ZERO, 7, x),
        )
        first = U64(load_image(texel, ZERO, 0, x))
        cubic_texel(texels, first, row_length, weights, scratch, U64(WEIGHTS), x)


@inlined
def linearise_row(state: Lines, row: np.uint64, reference: Image, scratch: Lines) -> None:
    """The data term of one row from its warped texels."""
    for x in range(ZERO, U64(reference.size)):
        warped = load_scratch(scratch, ZERO, 8, FOUR * x)
        jx = load_scratch(scratch, ZERO, 8, FOUR * x + ONE)
        jy = load_scratch(scratch, ZERO, 8, FOUR * x + TWO)
        moved = jx * load_state(state, row, U, x) + jy * load_state(state, row, V, x)
        store_state(state, row, JX, x, jx)
        store_state(state, row, JY, x, jy)
        store_state(state, row, INVERSE, x, F32(1) / max(jx * jx + jy * jy, EPSILON))
        store_state(state, row, CONSTANT, x, warped - moved - reference[x])


@inlined
def median(state: Lines, plane: int, height: int, width: int, work: Workspace) -> None:
    """5 x 5 median of one plane, with replicated borders."""
    padded, columns = work.padded, work.scratch
    pad(state, plane, height, width, padded)
    for y in range(height):
        for x in range(ZERO, U64(whole_runs(width + 4))):
            sort_column(padded, U64(y), columns, x - TWO)
        line = first_line(y) + U64(plane)
        for x in range(ZERO, U64(whole_runs(width))):
            store_state(state, line, 0, x, median_25(columns, x))


@inlined
def pad(state: Lines, plane: int, height: int, width: int, padded: Lines) -> None:
    """One plane with two pixels more on each side, each a copy of the nearest."""
    for line in range(height + 4):
        y = min(max(line - 2, 0), height - 1)
        padded[line, LEFT : LEFT + width] = state[first_line(y) + U64(plane), LEFT : LEFT + width]
        for i in range(2):
            padded[line, LEFT - 1 - i] = padded[line, LEFT]
            padded[line, LEFT + width + i] = padded[line, LEFT + width - 1]


@inlined
def iterate(state: Lines, height: int, width: int, settings: Settings) -> bool:
    """Inner iterations; whether the update fell to epsilon, which is looked at after each one, and not at all if epsilon is 0."""
    waves = 1 if settings.tolerance > 0 else WAVES
    done = 0
    while done < settings.inner_iterations:
        batch = min(waves, settings.inner_iterations - done)
        update = sweep(state, height, width, batch, settings)
        done += batch
        if settings.tolerance > 0 and update <= F32(settings.tolerance * height * width):
            return True
    return False


@inlined
def sweep(state: Lines, height: int, width: int, batch: int, settings: Settings) -> np.float32:
    """`batch` iterations in one pass, each a row behind the one before; the sum of their squared updates."""
    total = F32(0)
    for front in range(height + batch - 1):
        for wave in range(max(0, front - height + 1), min(batch, front + 1)):
            total += iterate_row(state, front - wave, height, width, settings)
    return total


@inlined
def iterate_row(state: Lines, y: int, height: int, width: int, settings: Settings) -> np.float32:
    """Primal step of row y, then dual step of row y - 1, which needs it; the sum of squared updates."""
    above, row, run = first_line(y - 1), first_line(y), whole_runs(width)
    update = primal_dual_row(state, row, run, settings.limit, settings.tau, settings.rate)
    for plane in (U, V):
        line = row + U64(plane)
        state[line, LEFT + width] = state[line, LEFT + width - 1]  # forward difference: zero at the last column
    if settings.tolerance > 0:
        clear_margin(state, above, width, run)
    if y == 0:
        state[above + U64(P12), LEFT : LEFT + width] = F32(0)
        state[above + U64(P22), LEFT : LEFT + width] = F32(0)
    if y == height - 1:
        last_dual_row(state, row, run, settings.tau, settings.rate)
        if settings.tolerance > 0:
            clear_margin(state, row, width, run)
    return update


@inlined
def primal_dual_row(
    state: Lines, row: np.uint64, run: int, limit: np.float32, tau: np.float32, rate: np.float32
) -> np.float32:
    """Both steps in one loop: what the dual step of the row above needs of this one is still in a register."""
    update_u, update_v = F32(0), F32(0)
    for x in range(ZERO, U64(run)):
        # primal step: towards rho = 0 by at most limit |gradient|, then down the total variation by its dual
        u, v = load_state(state, row, U, x), load_state(state, row, V, x)
        jx, jy = load_state(state, row, JX, x), load_state(state, row, JY, x)
        p12_above, p22_above = load_state(state, row, P12_ABOVE, x), load_state(state, row, P22_ABOVE, x)
        rho = load_state(state, row, CONSTANT, x) + jx * u + jy * v
        step = min(max(-rho * load_state(state, row, INVERSE, x), -limit), limit)
        du = load_state(state, row, P11, x) - load_state(state, row, P11, x - ONE) + step * jx
        dv = load_state(state, row, P21, x) - load_state(state, row, P21, x - ONE) + step * jy
        du += load_state(state, row, P12, x) - p12_above
        dv += load_state(state, row, P22, x) - p22_above
        update_u += du * du
        update_v += dv * dv
        u += du
        v += dv
        store_state(state, row, U, x, u)
        store_state(state, row, V, x, v)
        # dual step of the row above: along the gradient of the flow, back into the ball
        u_above, v_above = load_state(state, row, U_ABOVE, x), load_state(state, row, V_ABOVE, x)
        ux, uy = load_state(state, row, U_ABOVE, x + ONE) - u_above, u - u_above
        vx, vy = load_state(state, row, V_ABOVE, x + ONE) - v_above, v - v_above
        shrink_u, shrink_v = shrinkage(ux, uy, rate), shrinkage(vx, vy, rate)
        store_state(state, row, P11_ABOVE, x, (load_state(state, row, P11_ABOVE, x) + tau * ux) * shrink_u)
        store_state(state, row, P12_ABOVE, x, (p12_above + tau * uy) * shrink_u)
        store_state(state, row, P21_ABOVE, x, (load_state(state, row, P21_ABOVE, x) + tau * vx) * shrink_v)
        store_state(state, row, P22_ABOVE, x, (p22_above + tau * vy) * shrink_v)
    return update_u + update_v


@inlined
def last_dual_row(state: Lines, row: np.uint64, run: int, tau: np.float32, rate: np.float32) -> None:
    """Dual step of the last row, where the forward difference along y is zero."""
    for x in range(ZERO, U64(run)):
        ux = load_state(state, row, U, x + ONE) - load_state(state, row, U, x)
        vx = load_state(state, row, V, x + ONE) - load_state(state, row, V, x)
        shrink_u, shrink_v = shrinkage(ux, F32(0), rate), shrinkage(vx, F32(0), rate)
        store_state(state, row, P11, x, (load_state(state, row, P11, x) + tau * ux) * shrink_u)
        store_state(state, row, P12, x, load_state(state, row, P12, x) * shrink_u)
        store_state(state, row, P21, x, (load_state(state, row, P21, x) + tau * vx) * shrink_v)
        store_state(state, row, P22, x, load_state(state, row, P22, x) * shrink_v)


@inlined
def shrinkage(along_x: np.float32, along_y: np.float32, rate: np.float32) -> np.float32:
    """What brings the dual variables back into the ball after a step along this gradient."""
    shrink: np.float32 = F32(1) / (F32(1) + rate * np.sqrt(along_x * along_x + along_y * along_y))
    return shrink


@inlined
def clear_margin(state: Lines, row: np.uint64, width: int, run: int) -> None:
    """Loops take whole runs: what they leave in the duals right of the image must not count as an update."""
    for x in range(U64(width), U64(run)):
        store_state(state, row, P11, x, F32(0))
        store_state(state, row, P12, x, F32(0))
        store_state(state, row, P21, x, F32(0))
        store_state(state, row, P22, x, F32(0))
