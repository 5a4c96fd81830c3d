"""TV-L1 for one pair of images on the CPU, with Numba: the operations of `reference.py` as loops over rows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from flowkit_kernels.cpu.median import median
from flowkit_kernels.cpu.pyramid import Plane, build, keep_flow, level_of, take_flow
from flowkit_kernels.cpu.simd import (
    F32,
    ONE,
    U64,
    ZERO,
    Lines,
    inlined,
    load_image,
    load_state,
    njit,
    store_image,
    store_state,
    whole_runs,
)
from flowkit_kernels.cpu.state import (
    CONSTANT,
    INVERSE,
    JX,
    JY,
    P11,
    P12,
    P12_ABOVE,
    P21,
    P22,
    P22_ABOVE,
    U_ABOVE,
    U_BELOW,
    V_ABOVE,
    V_BELOW,
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
"""Iterations that sweep over the image together, one row apart, while its rows are in the cache: three sweeps make 30."""


class Settings(NamedTuple):
    """`TVL1Params` as the loops want them."""

    unit: np.float32
    limit: np.float32
    tau: np.float32
    scale_step: float
    warps: int
    outer_iterations: int
    inner_iterations: int
    tolerance: float
    filtered: bool
    round_coordinates: bool

    @classmethod
    def of(cls, params: TVL1Params) -> Settings:
        """Unit = theta / tau, in pixels; limit = lambda theta and tolerance = epsilon^2, in such units; the rest as it is."""
        unit = params.theta / params.tau
        return cls(
            unit=F32(unit),
            limit=F32(params.lambda_ * params.theta / unit**2),
            tau=F32(params.tau),
            scale_step=float(params.scale_step),
            warps=params.warps,
            outer_iterations=params.outer_iterations,
            inner_iterations=params.inner_iterations,
            tolerance=(float(params.epsilon) / unit) ** 2,
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
    leave(work.state, settings.unit, flow)


@inlined
def refine(reference: Plane, moving: Plane, settings: Settings, work: Workspace) -> None:
    """Flow of one level, in place: the dual variables start at zero and live on over its warps."""
    state, height, width = work.state, reference.height, reference.width
    place_moving(moving, work.moving)
    for _ in range(settings.warps):
        linearise(reference, settings.unit, settings.round_coordinates, work)
        for _ in range(settings.outer_iterations):
            if settings.filtered:
                median(state, U, height, width, work)
                median(state, V, height, width, work)
            if iterate(state, height, width, settings):
                break


@inlined
def iterate(state: Lines, height: int, width: int, settings: Settings) -> bool:
    """Inner iterations; whether the update fell to epsilon, which is looked at after each one, and not at all if epsilon is 0."""
    if settings.tolerance > 0:
        enough = F32(settings.tolerance * height * width)
        for _ in range(settings.inner_iterations):
            if watched_iteration(state, height, width, settings.limit, settings.tau) <= enough:
                return True
        return False
    for done in range(0, settings.inner_iterations, WAVES):
        sweep(state, height, width, min(WAVES, settings.inner_iterations - done), settings.limit, settings.tau)
    return False


@inlined
def sweep(state: Lines, height: int, width: int, batch: int, limit: np.float32, tau: np.float32) -> None:
    """`batch` iterations in one pass, each a row behind the one before."""
    run = whole_runs(width)
    for front in range(height + batch):
        for wave in range(max(0, front - height), min(batch, front + 1)):
            y = front - wave
            if y < height:
                primal_row(state, first_line(y), run, limit, tau)
                end_row(state, first_line(y), U64(width))
            else:
                repeat_row(state, first_line(y), run)
            if y > 0:
                dual_row(state, first_line(y - 1), run)
                end_duals(state, first_line(y - 1), U64(width))


@inlined
def watched_iteration(state: Lines, height: int, width: int, limit: np.float32, tau: np.float32) -> np.float32:
    """One iteration; the sum of its squared updates."""
    total, run = F32(0), whole_runs(width)
    for y in range(height + 2):
        update = primal_dual_rows(state, first_line(y), first_line(y - 2), run, limit, tau)
        total += update if y < height else F32(0)
        end_row(state, first_line(y), U64(width))
        end_duals(state, first_line(y - 2), U64(width))
        if y == 1:
            clear_duals(state, first_line(-1), run)
        if y == height:
            repeat_row(state, first_line(y), run)
    return total


@inlined
def primal_row(state: Lines, row: np.uint64, run: int, limit: np.float32, tau: np.float32) -> None:
    """Primal step of a row."""
    for x in range(ZERO, U64(run)):
        primal_step(state, row, U64(x), limit, tau)


@inlined
def dual_row(state: Lines, row: np.uint64, run: int) -> None:
    """Dual step of a row, which needs the primal step of the row below."""
    for x in range(ZERO, U64(run)):
        dual_step(state, row, U64(x))


@inlined
def primal_dual_rows(
    state: Lines, row: np.uint64, row_above: np.uint64, run: int, limit: np.float32, tau: np.float32
) -> np.float32:
    """Primal step of a row, dual step of one at least two rows above; the sum of squared updates.

    One iteration alone finds no row in the cache. So one step waits for memory, and in the same loop the other one computes.
    """
    update_u, update_v = F32(0), F32(0)
    for x in range(ZERO, U64(run)):
        du2, dv2 = primal_step(state, row, U64(x), limit, tau)
        dual_step(state, row_above, U64(x))
        update_u += du2
        update_v += dv2
    return update_u + update_v


@inlined
def primal_step(
    state: Lines, row: np.uint64, x: np.uint64, limit: np.float32, tau: np.float32
) -> tuple[np.float32, np.float32]:
    """Towards rho = 0 by at most limit |gradient|, then down the total variation by its dual; the squared updates of u and v."""
    u, v = load_state(state, row, U, x), load_state(state, row, V, x)
    jx, jy = load_state(state, row, JX, x), load_state(state, row, JY, x)
    rho = load_state(state, row, CONSTANT, x) + jx * u + jy * v
    step = min(max(-rho * load_state(state, row, INVERSE, x), -limit), limit)
    along_x = load_state(state, row, P11, x) - load_state(state, row, P11, x - ONE)
    along_y = load_state(state, row, P12, x) - load_state(state, row, P12_ABOVE, x)
    du = tau * (along_x + along_y) + step * jx
    along_x = load_state(state, row, P21, x) - load_state(state, row, P21, x - ONE)
    along_y = load_state(state, row, P22, x) - load_state(state, row, P22_ABOVE, x)
    dv = tau * (along_x + along_y) + step * jy
    store_state(state, row, U, x, u + du)
    store_state(state, row, V, x, v + dv)
    return du * du, dv * dv


@inlined
def dual_step(state: Lines, row: np.uint64, x: np.uint64) -> None:
    """Along the gradient of the flow, back into the ball; no line of it is one of a primal step in the same loop."""
    u, v = load_image(state, row, U, x), load_image(state, row, V, x)
    ux, uy = load_image(state, row, U, x + ONE) - u, load_image(state, row, U_BELOW, x) - u
    vx, vy = load_image(state, row, V, x + ONE) - v, load_image(state, row, V_BELOW, x) - v
    shrink_u, shrink_v = shrinkage(ux, uy), shrinkage(vx, vy)
    store_image(state, row, P11, x, (load_image(state, row, P11, x) + ux) * shrink_u)
    store_image(state, row, P12, x, (load_image(state, row, P12, x) + uy) * shrink_u)
    store_image(state, row, P21, x, (load_image(state, row, P21, x) + vx) * shrink_v)
    store_image(state, row, P22, x, (load_image(state, row, P22, x) + vy) * shrink_v)


@inlined
def end_row(state: Lines, row: np.uint64, width: np.uint64) -> None:
    """U and v right of the image as in its last column, where the forward difference is zero."""
    store_state(state, row, U, width, load_state(state, row, U, width - ONE))
    store_state(state, row, V, width, load_state(state, row, V, width - ONE))


@inlined
def end_duals(state: Lines, row: np.uint64, width: np.uint64) -> None:
    """No dual variables right of the image."""
    store_state(state, row, P11, width, F32(0))
    store_state(state, row, P12, width, F32(0))
    store_state(state, row, P21, width, F32(0))
    store_state(state, row, P22, width, F32(0))


@inlined
def clear_duals(state: Lines, row: np.uint64, run: int) -> None:
    """No dual variables above the image."""
    for x in range(ZERO, U64(run)):
        store_state(state, row, P12, x, F32(0))
        store_state(state, row, P22, x, F32(0))


@inlined
def repeat_row(state: Lines, row: np.uint64, run: int) -> None:
    """U and v below the image as in its last row, where the forward difference is zero."""
    for x in range(ZERO, U64(run)):
        store_state(state, row, U, x, load_state(state, row, U_ABOVE, x))
        store_state(state, row, V, x, load_state(state, row, V_ABOVE, x))


@inlined
def shrinkage(along_x: np.float32, along_y: np.float32) -> np.float32:
    """What brings the dual variables back into the ball after a step along this gradient."""
    shrink: np.float32 = F32(1) / (F32(1) + np.sqrt(along_x * along_x + along_y * along_y))
    return shrink
