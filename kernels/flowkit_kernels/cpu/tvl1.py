"""TV-L1 for one pair of images on the CPU, with Numba: the operations of `reference.py` as loops over rows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from flowkit_kernels.cpu.median import median
from flowkit_kernels.cpu.pyramid import Plane, build, keep_flow, level_of, take_flow
from flowkit_kernels.cpu.simd import (
    F32,
    LEFT,
    ONE,
    U64,
    ZERO,
    Lines,
    inlined,
    load_state,
    njit,
    store_state,
    whole_runs,
)
from flowkit_kernels.cpu.state import (
    CONSTANT,
    INVERSE,
    JX,
    JY,
    P11,
    P11_ABOVE,
    P12,
    P12_ABOVE,
    P21,
    P21_ABOVE,
    P22,
    P22_ABOVE,
    U_ABOVE,
    V_ABOVE,
    U,
    V,
    Workspace,
    clear,
    first_line,
    leave,
)
from flowkit_kernels.cpu.warp import linearise, place_moving
from flowkit_kernels.params import TVL1Params

Image = npt.NDArray[np.float32]

WAVES = 10
"""Iterations that sweep over the image together, one row apart, while its rows are in the cache: two sweeps make 20."""


class Settings(NamedTuple):
    """`TVL1Params` as the loops want them."""

    limit: np.float32
    tau: np.float32
    rate: np.float32
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
            scale_step=float(params.scale_step),
            warps=params.warps,
            outer_iterations=params.outer_iterations,
            inner_iterations=params.inner_iterations,
            tolerance=float(params.epsilon) ** 2,
            filtered=params.median_filtering > 1,
            round_coordinates=params.round_coordinates,
        )


@njit
def solve(reference: Image, moving: Image, flow: Image, settings: Settings, work: Workspace) -> None:
    """Flow of one pair, from the coarsest level of its pyramids to the finest, into `flow` (2, H, W)."""
    build(work.references, reference, settings.scale_step, work)
    build(work.movings, moving, settings.scale_step, work)
    coarsest = len(work.levels) - 1
    for level in range(coarsest, -1, -1):
        height, width, _ = work.levels[level]
        clear(work.state, height, width)
        if level < coarsest:
            take_flow(level, settings.scale_step, work)
        refine(level_of(work.references, level, work), level_of(work.movings, level, work), settings, work)
        if level > 0:
            keep_flow(level, work)
    leave(work.state, flow)


@inlined
def refine(reference: Plane, moving: Plane, settings: Settings, work: Workspace) -> None:
    """Flow of one level, in place: the dual variables start at zero and live on over its warps."""
    state, height, width = work.state, reference.height, reference.width
    place_moving(moving, work.moving)
    for _ in range(settings.warps):
        linearise(reference, settings.round_coordinates, work)
        for _ in range(settings.outer_iterations):
            if settings.filtered:
                median(state, U, height, width, work)
                median(state, V, height, width, work)
            if iterate(state, height, width, settings):
                break


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
