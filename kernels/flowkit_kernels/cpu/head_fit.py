"""Head motion and expression: the fit to a flow (`fit`), and the motion that the head makes of each pixel (`motion_field`).

What is fitted, and why, is told in flowkit's `face/head_motion.py`; here are the loops. All of them run without the interpreter
lock, so that threads that work on different clips do not wait for each other.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from flowkit_kernels.cpu.least_squares import Doubles, Indices, add_signed, normal_equations, partly_nonnegative
from flowkit_kernels.cpu.simd import F32, inlined, njit

Image = npt.NDArray[np.float32]

PHASES = 2


class Unknowns(NamedTuple):
    """What there is to find, and what is known of it before any flow is seen.

    Attributes
    ----------
    pose : int
        Unknowns of the head's motion in each phase, the first of all; the last two are its turns about two axes.
    free : int
        Unknowns that may be negative, the first: the head's motions and the modes of depth.
    prior : (n,) float64
        Diagonal of the normal equations.
    columns : (m,) intp
        What makes the motion of a phase: columns, each as often as unknowns share it.
    places : (2 phases, m) intp
        The unknown that each of these belongs to.
    signs : (m,) float64
        Sign with which the unknown multiplies the column.
    """

    pose: int
    free: int
    prior: Doubles
    columns: Indices
    places: Indices
    signs: Doubles


class Noise(NamedTuple):
    """What the samples are worth.

    Attributes
    ----------
    share : float
        Weight of a sample that is wholly trusted.
    misfit : float
        Error of a column of the expression, relative to its motion, in units of the noise.
    huber : float
        Beyond so many medians a sample counts less.
    sweeps : int
        As of `least_squares.nonnegative`.
    """

    share: float
    misfit: float
    huber: float
    sweeps: int


@njit
def fit(
    columns: Doubles,
    modes: Doubles,
    flow: Doubles,
    valid: npt.NDArray[np.bool_],
    undone: Doubles,
    unknowns: Unknowns,
    noise: Noise,
    steps: int,
    solution: Doubles,
    matrix: Doubles,
    left: Doubles,
) -> None:
    """Least squares, repeated with the weights that what is left over gives the samples.

    Parameters
    ----------
    columns : (2 phases, k, 2 n) float64
        Motion of the samples, first right, then down, by the head, the modes of depth and the expression; those of the modes are
        written here, as they go along the turn.
    modes : (M, n) float64
        Motion of the samples by each mode of depth for a turn of one radian.
    flow : (2, 2 n) float64
        Finite.
    valid : (2,) bool
        Which phases count.
    undone : (2, 2) float64
        Turns of each phase that the flow does not show, hundredths of a radian.
    unknowns : Unknowns
    noise : Noise
    steps : int
        How often to solve.
    solution : (n,) float64
        Start; on return the result.
    matrix : (n, n) float64
        On return the normal equations of the last step.
    left : (2,) float64
        On return the median length of what is left in each valid phase.
    """
    width, doubled = columns.shape[1:]
    count = doubled // 2
    weights = np.ones((PHASES, count))
    gram, target, vector = np.empty((width, width)), np.empty(width), np.empty(len(solution))
    rows = np.empty((5, doubled))
    for _ in range(steps):
        matrix[:] = 0
        vector[:] = 0
        for i in range(len(solution)):
            matrix[i, i] = unknowns.prior[i]
        for phase in range(PHASES):
            if valid[phase]:
                turn_columns(columns[phase], modes, undone[phase], solution, phase, unknowns.pose)
                for i in range(count):
                    rows[0, i] = rows[0, count + i] = noise.share * weights[phase, i]
                normal_equations(columns[phase], flow[phase], rows[0], gram, target)
                add_signed(gram, target, unknowns.columns, unknowns.places[phase], unknowns.signs, matrix, vector)
        partly_nonnegative(matrix, vector, unknowns.free, solution, noise.sweeps)
        for phase in range(PHASES):
            if valid[phase]:
                explain(columns[phase], solution, phase, unknowns, rows)
                left[phase] = weigh(flow[phase], rows, noise, weights[phase])


@inlined
def turn_columns(columns: Doubles, modes: Doubles, undone: Doubles, solution: Doubles, phase: int, pose: int) -> None:
    """Set the columns of the modes of depth: along the turn, by as much as the head has turned altogether."""
    count = modes.shape[1]
    for axis in range(2):
        angle = (undone[axis] + solution[pose * (phase + 1) - 2 + axis]) / 100
        for m in range(len(modes)):
            for i in range(count):
                columns[pose + m, axis * count + i] = angle * modes[m, i]


@inlined
def explain(columns: Doubles, solution: Doubles, phase: int, unknowns: Unknowns, rows: Doubles) -> None:
    """Set row 0 to what the head explains of a phase, row 1 to what the expression does."""
    known = unknowns.pose + unknowns.free - PHASES * unknowns.pose
    units, doubled = len(columns) - known, columns.shape[1]
    for i in range(doubled):
        rows[0, i] = rows[1, i] = 0.0
    for k in range(len(columns)):
        if k < unknowns.pose:
            by = solution[unknowns.pose * phase + k]
        elif k < known:
            by = solution[PHASES * unknowns.pose + k - unknowns.pose]
        else:
            begin = unknowns.free + phase * units + k - known
            by = solution[begin + units] - solution[begin]
        if by != 0:
            row = 0 if k < known else 1
            for i in range(doubled):
                rows[row, i] += by * columns[k, i]


@inlined
def weigh(flow: Doubles, rows: Doubles, noise: Noise, weights: Doubles) -> float:
    """Set the weights of a phase's samples from rows 0 and 1, and return the median length of what is left."""
    count = len(weights)
    length, scaled, trusted = rows[2, :count], rows[3, :count], rows[4, :count]
    for i in range(count):
        right, down = rows[1, i], rows[1, count + i]
        left_right, left_down = flow[i] - rows[0, i] - right, flow[count + i] - rows[0, count + i] - down
        length[i] = np.sqrt(left_right * left_right + left_down * left_down)
        trusted[i] = 1 / (1 + noise.misfit * noise.misfit * (right * right + down * down))
        scaled[i] = length[i] * np.sqrt(trusted[i])
    limit = noise.huber * np.median(scaled) + 1e-6
    for i in range(count):
        weights[i] = trusted[i] / max(1.0, scaled[i] / limit)
    return float(np.median(length))


@njit
def motion_field(
    depth: Image, deeper: Image, centre: Image, near: Image, slopes: Image, turns: Image, result: Image
) -> None:
    """Set each pixel's motion (u, v): slopes (x, y, depth, 1) + (x, y) times how much nearer it comes + turn times `deeper`.

    Parameters
    ----------
    depth, deeper : (N, N) float32
        Of each pixel, and its correction, px.
    centre : (2,) float32
        What x and y are counted from, px.
    near : (P, 4) float32
        How much nearer a pixel comes, for each x, y, unit of depth, and by itself.
    slopes : (P, 2, 4) float32
    turns : (P, 2) float32
    result : (P, 2, N, N) float32
    """
    size = len(depth)
    for phase in range(len(result)):
        for j in range(size):
            y = F32(j) - centre[1]
            nearer_here = near[phase, 3] + near[phase, 1] * y
            right, down = slopes[phase, 0, 3] + slopes[phase, 0, 1] * y, slopes[phase, 1, 3] + slopes[phase, 1, 1] * y
            for i in range(size):
                x, z = F32(i) - centre[0], depth[j, i]
                nearer = nearer_here + near[phase, 0] * x + near[phase, 2] * z
                u = right + slopes[phase, 0, 0] * x + slopes[phase, 0, 2] * z
                v = down + slopes[phase, 1, 0] * x + slopes[phase, 1, 2] * z
                result[phase, 0, j, i] = u + x * nearer + turns[phase, 0] * deeper[j, i]
                result[phase, 1, j, i] = v + y * nearer + turns[phase, 1] * deeper[j, i]
