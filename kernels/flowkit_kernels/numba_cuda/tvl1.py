"""TV-L1 for many pairs of images on a GPU, with Numba: the operations of `reference.py` as kernels, a pixel a thread.

All pairs go through each launch together; the index of the pair lies on the grid's z axis. Per pair (P) there are

    flow      (P, 2, h, w)   u, v
    dual      (P, 4, h, w)   p of u along x and y, p of v along x and y
    gradient  (P, 2, h, w)   of the moving image, not warped
    data      (P, 4, h, w)   Jx, Jy warped; 1 / |gradient|^2; constant = J(x + flow0) - gradient . flow0 - I
    update    (P, 1, h, w)   squared update of the last iteration, kept only where epsilon asks for it
    running   (P,)           1 until the pair's warp has converged: whatever finds 0 there leaves the pair alone
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import cuda

from flowkit_kernels import numba_shared
from flowkit_kernels.numba_cuda.blocks import F32, F64, THREADS, Array, block_sum, device, kernel
from flowkit_kernels.numba_shared import EPSILON, ONE, WHITE
from flowkit_kernels.params import TVL1Params, level_shapes
from flowkit_kernels.taps import Taps

BLOCK = (16, 8)
"""Pixels a block along x and y."""
MAX_PLANES = 65535
"""What the grid's z axis takes."""
ZERO, HALF = F32(0), F32(0.5)
THIRTY_SECOND = F32(1 / 32)

cubic_weights = device(numba_shared.cubic_weights)


class Settings(NamedTuple):
    """`TVL1Params` as the kernels want them."""

    limit: np.float32
    theta: np.float32
    rate: np.float32
    tolerance: np.float64
    watched: bool
    round_coordinates: bool

    @classmethod
    def of(cls, params: TVL1Params) -> Settings:
        """Limit = lambda theta, rate = tau / theta, tolerance = epsilon^2."""
        return cls(
            limit=F32(params.lambda_ * params.theta),
            theta=F32(params.theta),
            rate=F32(params.tau / params.theta),
            tolerance=F64(params.epsilon) ** 2,
            watched=params.epsilon > 0,
            round_coordinates=bool(params.round_coordinates),
        )


class Pairs(NamedTuple):
    """Which of the images are compared: index of the reference and of the moving one, for each pair, on the device."""

    reference: Array
    moving: Array

    @classmethod
    def of(cls, valid: npt.NDArray[np.bool_]) -> Pairs:
        """(N, S - 1) -> pairs of neighbours among the N S images."""
        item, phase = np.nonzero(valid)
        first = (item * (valid.shape[1] + 1) + phase).astype(np.int32)
        return cls(cuda.to_device(first), cuda.to_device(first + np.int32(1)))


class LevelMemory(NamedTuple):
    """What one level of the pyramids needs, on the device; every level lies at the front of the same memory."""

    flow: Array
    spare: Array
    dual: Array
    gradient: Array
    data: Array
    update: Array
    running: Array

    @classmethod
    def room(cls, pairs: int, height: int, width: int) -> LevelMemory:
        """Memory for so many pairs of images up to this size."""
        planes = (cuda.device_array(count * pairs * height * width, F32) for count in PLANES)
        return cls._make([*planes, cuda.device_array(pairs, np.int32)])

    def shaped(self, height: int, width: int) -> LevelMemory:
        """The front of this memory as planes of a size."""
        pairs = len(self.running)
        shapes = ((pairs, count, height, width) for count in PLANES)
        planes = (array[: math.prod(shape)].reshape(shape) for array, shape in zip(self[:-1], shapes, strict=True))
        return LevelMemory._make([*planes, self.running])


PLANES = (2, 2, 4, 2, 4, 1)
"""Planes a pair of `LevelMemory`'s arrays, in their order."""


def item_bytes(images: int, height: int, width: int, params: TVL1Params) -> int:
    """Memory on the device that an item of so many images takes, what is uploaded of it and its flow included."""
    pixels = height * width
    pyramids = images * (pixels + sum(math.prod(shape) for shape in level_shapes((height, width), params)))
    return 4 * (pyramids + (images - 1) * (sum(PLANES) + 2) * pixels)


def solve(images: Array, valid: npt.NDArray[np.bool_], params: TVL1Params) -> Array:
    """(N, S, H, W) in 0..255, (N, S - 1) -> (P, 2, H, W) flow of the P valid pairs, from the coarsest level to the finest."""
    items, length, height, width = images.shape
    shapes = level_shapes((height, width), params)
    down = [Taps.of(cuda.to_device, larger, smaller, 1 / params.scale_step) for larger, smaller in pairwise(shapes)]
    up = [Taps.of(cuda.to_device, smaller, larger, None) for larger, smaller in pairwise(shapes)]
    pairs, room = Pairs.of(valid), LevelMemory.room(int(valid.sum()), height, width)
    # all uploads lie behind: from here on the host does not wait, unless epsilon makes it look
    levels = pyramid(images.reshape(items * length, 1, height, width), shapes, down)
    level = room.shaped(*shapes[-1])
    fill_all(level.flow, ZERO)
    for n in reversed(range(len(shapes))):
        if level.flow.shape[2:] != shapes[n]:
            level = finer(level, room.shaped(*shapes[n]), up[n], params.scale_step)
        refine(level, levels[n], pairs, params)
    return level.flow


def pyramid(images: Array, shapes: Sequence[tuple[int, int]], down: Sequence[Taps]) -> list[Array]:
    """The images (I, 1, H, W) and their smaller versions, finest first."""
    levels = [images]
    for shape, taps in zip(shapes[1:], down, strict=True):
        smaller = cuda.device_array((len(images), 1, *shape), F32)
        resize[grid_of(smaller)](levels[-1], smaller, *taps, ONE)
        levels.append(smaller)
    return levels


def finer(coarse: LevelMemory, level: LevelMemory, taps: Taps, scale_step: float) -> LevelMemory:
    """The flow on the next finer level, in its pixels."""
    coarse.spare.copy_to_device(coarse.flow)  # both levels lie in the same memory
    resize[grid_of(level.flow)](coarse.spare, level.flow, *taps, F32(1 / scale_step))
    return level


def refine(level: LevelMemory, images: Array, pairs: Pairs, params: TVL1Params) -> None:
    """Flow of one level, in place: the dual variables start at zero and live on over its warps."""
    settings = Settings.of(params)
    grid = grid_of(level.update)
    image_gradient[grid](images, pairs.moving, level.gradient)
    fill_all(level.dual, ZERO)
    for _ in range(params.warps):
        fill_all(level.running, np.int32(1))
        linearise[grid](level.flow, images, *pairs, level.gradient, level.data, settings.round_coordinates)
        for _ in range(params.outer_iterations):
            if params.median_filtering > 1:
                level.spare.copy_to_device(level.flow)
                median[grid_of(level.flow)](level.spare, level.flow, level.running)
            iterate(level, params.inner_iterations, settings)
            if settings.watched and not level.running.copy_to_host().any():
                break


def iterate(level: LevelMemory, count: int, settings: Settings) -> None:
    """Inner iterations; pairs whose update falls to epsilon stop after the one that did it."""
    grid = grid_of(level.update)
    pairs, _, height, width = level.update.shape
    update = level.update.reshape(pairs, height * width)
    for _ in range(count):
        primal_step[grid](level.flow, level.dual, level.data, level.update, level.running, settings)
        dual_step[grid](level.flow, level.dual, level.running, settings.rate)
        if settings.watched:
            converge[pairs, THREADS](update, level.running, settings.tolerance)


def grid_of(array: Array) -> tuple[tuple[int, int, int], tuple[int, int]]:
    """Grid and block for a thread a pixel of the planes of an array (A, B, h, w)."""
    return grid_over(array.shape)


def grid_over(shape: Sequence[int]) -> tuple[tuple[int, int, int], tuple[int, int]]:
    """The same for an array that is not there, by its shape."""
    count, planes, height, width = shape
    return (-(-width // BLOCK[0]), -(-height // BLOCK[1]), count * planes), BLOCK


def fill_all(array: Array, value: np.generic) -> None:
    """Every element of a contiguous array becomes the value."""
    if array.size:
        fill[-(-array.size // THREADS), THREADS](array.reshape(array.size), value)


@kernel
def fill(array: Array, value: float) -> None:
    """One value everywhere."""
    i = cuda.grid(1)
    if i < array.size:
        array[i] = value


@kernel
def enter(stack: Array, items: Array, first: int, images: Array) -> None:
    """Images of the chosen items, on the scale 0..255, from their place `first` on: (N, s, H, W) into (I, S, H, W)."""
    x, y, z = cuda.grid(3)
    if x < images.shape[3] and y < images.shape[2]:
        i, s = z // stack.shape[1], z % stack.shape[1]
        images[i, first + s, y, x] = stack[items[i], s, y, x] * WHITE


@kernel
def leave(flow: Array, item: Array, phase: Array, result: Array) -> None:
    """Flow of each pair to its place in the result: (P, 2, H, W) into (N, S - 1, 2, H, W)."""
    x, y, z = cuda.grid(3)
    if x < flow.shape[3] and y < flow.shape[2]:
        p, component = z // 2, z % 2
        result[item[p], phase[p], component, y, x] = flow[p, component, y, x]


@kernel
def resize(
    source: Array, target: Array, columns: Array, right: Array, rows: Array, bottom: Array, gain: np.float32
) -> None:
    """Bilinear, with half-pixel centres and no smoothing, times `gain`."""
    x, y, z = cuda.grid(3)
    if x < target.shape[3] and y < target.shape[2]:
        n, plane = z // source.shape[1], z % source.shape[1]
        row, column, weight = rows[y], columns[x], right[x]
        above = source[n, plane, row, column] * (ONE - weight) + source[n, plane, row, column + 1] * weight
        below = source[n, plane, row + 1, column] * (ONE - weight) + source[n, plane, row + 1, column + 1] * weight
        target[n, plane, y, x] = (above * (ONE - bottom[y]) + below * bottom[y]) * gain


@kernel
def image_gradient(images: Array, moving: Array, gradient: Array) -> None:
    """Central differences of the moving images, replicated at the border: along x, along y."""
    x, y, p = cuda.grid(3)
    height, width = gradient.shape[2], gradient.shape[3]
    if x < width and y < height:
        i = moving[p]
        gradient[p, 0, y, x] = HALF * (images[i, 0, y, min(x + 1, width - 1)] - images[i, 0, y, max(x - 1, 0)])
        gradient[p, 1, y, x] = HALF * (images[i, 0, min(y + 1, height - 1), x] - images[i, 0, max(y - 1, 0), x])


@kernel
def linearise(
    flow: Array,
    images: Array,
    reference: Array,
    moving: Array,
    gradient: Array,
    data: Array,
    round_coordinates: bool,
) -> None:
    """The data term, from the moving image and its gradient warped by the flow."""
    x, y, p = cuda.grid(3)
    if x < flow.shape[3] and y < flow.shape[2]:
        u, v = flow[p, 0, y, x], flow[p, 1, y, x]
        at_x, at_y = F32(x) + u, F32(y) + v
        if round_coordinates:
            at_x, at_y = F32(round(at_x * F32(32))) * THIRTY_SECOND, F32(round(at_y * F32(32))) * THIRTY_SECOND
        warped, jx, jy = warp(images[moving[p], 0], gradient[p], at_x, at_y)
        data[p, 0, y, x] = jx
        data[p, 1, y, x] = jy
        data[p, 2, y, x] = ONE / max(jx * jx + jy * jy, EPSILON)
        data[p, 3, y, x] = warped - (jx * u + jy * v) - images[reference[p], 0, y, x]


@device
def warp(
    image: Array, gradient: Array, at_x: np.float32, at_y: np.float32
) -> tuple[np.float32, np.float32, np.float32]:
    """Image and gradient at a point, bicubic, 0 outside."""
    height, width = image.shape
    corner_x, corner_y = math.floor(at_x), math.floor(at_y)
    along_x, along_y = cubic_weights(at_x - F32(corner_x)), cubic_weights(at_y - F32(corner_y))
    warped, jx, jy = ZERO, ZERO, ZERO
    for j in range(4):
        row = int(corner_y) + j - 1
        if 0 <= row < height:
            for i in range(4):
                column = int(corner_x) + i - 1
                if 0 <= column < width:
                    weight = along_y[j] * along_x[i]
                    warped += weight * image[row, column]
                    jx += weight * gradient[0, row, column]
                    jy += weight * gradient[1, row, column]
    return warped, jx, jy


@kernel
def median(flow: Array, filtered: Array, running: Array) -> None:
    """5 x 5 median of both components with replicated borders, for the pairs that still run."""
    x, y, z = cuda.grid(3)
    height, width = flow.shape[2], flow.shape[3]
    p, component = z // 2, z % 2
    if x < width and y < height and running[p]:
        window = cuda.local.array(25, F32)
        for j in range(5):
            for i in range(5):
                row, column = min(max(y + j - 2, 0), height - 1), min(max(x + i - 2, 0), width - 1)
                window[5 * j + i] = flow[p, component, row, column]
        for k in range(13):  # the smallest of what is left comes to the front, thirteen times
            for i in range(k + 1, 25):
                if window[i] < window[k]:
                    window[k], window[i] = window[i], window[k]
        filtered[p, component, y, x] = window[12]


@kernel
def primal_step(flow: Array, dual: Array, data: Array, update: Array, running: Array, settings: Settings) -> None:
    """Towards rho = 0 by at most lambda theta |gradient|, then down the total variation by its dual."""
    x, y, p = cuda.grid(3)
    if x < flow.shape[3] and y < flow.shape[2] and running[p]:
        u, v = flow[p, 0, y, x], flow[p, 1, y, x]
        jx, jy = data[p, 0, y, x], data[p, 1, y, x]
        rho = data[p, 3, y, x] + jx * u + jy * v
        step = min(max(-rho * data[p, 2, y, x], -settings.limit), settings.limit)
        divergence_u = dual[p, 0, y, x] + dual[p, 1, y, x]
        divergence_v = dual[p, 2, y, x] + dual[p, 3, y, x]
        if x > 0:
            divergence_u -= dual[p, 0, y, x - 1]
            divergence_v -= dual[p, 2, y, x - 1]
        if y > 0:
            divergence_u -= dual[p, 1, y - 1, x]
            divergence_v -= dual[p, 3, y - 1, x]
        du, dv = step * jx + settings.theta * divergence_u, step * jy + settings.theta * divergence_v
        flow[p, 0, y, x] = u + du
        flow[p, 1, y, x] = v + dv
        if settings.watched:
            update[p, 0, y, x] = du * du + dv * dv


@kernel
def dual_step(flow: Array, dual: Array, running: Array, rate: np.float32) -> None:
    """Along the gradient of the flow, back into the unit ball."""
    x, y, p = cuda.grid(3)
    height, width = flow.shape[2], flow.shape[3]
    if x < width and y < height and running[p]:
        right, below = min(x + 1, width - 1), min(y + 1, height - 1)
        for component in range(2):
            here = flow[p, component, y, x]
            along_x, along_y = flow[p, component, y, right] - here, flow[p, component, below, x] - here
            shrink = ONE / (ONE + rate * F32(math.sqrt(along_x * along_x + along_y * along_y)))
            k = 2 * component
            dual[p, k, y, x] = (dual[p, k, y, x] + rate * along_x) * shrink
            dual[p, k + 1, y, x] = (dual[p, k + 1, y, x] + rate * along_y) * shrink


@kernel
def converge(update: Array, running: Array, tolerance: np.float64) -> None:
    """Pairs whose mean squared update is at most the tolerance stop; a block a pair."""
    p = cuda.blockIdx.x
    if running[p]:
        parts = cuda.shared.array(THREADS, F64)
        total = F64(0)
        for i in range(cuda.threadIdx.x, update.shape[1], THREADS):
            total += F64(update[p, i])
        if block_sum(total, parts) <= tolerance * F64(update.shape[1]) and cuda.threadIdx.x == 0:
            running[p] = 0
