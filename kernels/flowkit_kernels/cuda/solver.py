"""TV-L1 on a GPU: which kernel is launched when, on how large a grid, with which arguments. Knows nothing of CuPy.

All pairs of a chunk go through each launch together; none of them, and no number of them, changes how many launches there are.
With the fixed schedule the host never waits. With an epsilon it asks once a round whether any pair still runs.

Buffers hold pixels of one level after the other pair by pair, so a coarser level uses the front of them. Of each pixel:

    flow (a float2), dual (a float4), each twice, for what a launch reads and what it writes; data term and texels (a float4 each)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from flowkit_kernels.cuda.tiling import LANES, Tiling, tiling
from flowkit_kernels.params import TVL1Params, level_shapes
from flowkit_kernels.taps import Taps

Array = Any
"""An array on the device."""
F32, I32 = np.float32, np.int32
PIXELS = (32, 8)
"""Block of the kernels that take a pixel a thread; median.cu is built for it."""
RUN = 256
"""Block of those that take whatever comes next."""
DECIDERS = 128
"""Block of `decide`."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a GPU has: shared memory of a block, bytes; multiprocessors; second-level cache, bytes."""

    shared_bytes: int
    multiprocessors: int
    l2_bytes: int


class Device(Protocol):
    """What the solver needs of a GPU. Everything happens on its current stream, in the order of the calls."""

    limits: Limits

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """New memory with nothing particular in it."""

    def upload(self, array: npt.NDArray[Any]) -> Array:
        """A copy on the device."""

    def read(self, array: Array) -> npt.NDArray[Any]:
        """A copy on the host, once all that was launched is done."""

    def launch(
        self,
        kernel: str,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        *arguments: Any,
        shared_bytes: int = 0,
    ) -> None:
        """Start a kernel. Arguments are device arrays and NumPy scalars of the very type that the kernel takes."""


class Phases(NamedTuple):
    """Which images of a chunk are compared, and where the results go."""

    images: int
    pairs: int
    table: Array
    """(pairs, 2) int32: numbers of the reference and of the moving image."""
    places: Array
    """(pairs,) int32: place of the flow in the result."""

    @classmethod
    def of(cls, device: Device, valid: npt.NDArray[np.bool_]) -> Phases:
        """(N, P) -> each item's P + 1 images in a row, image p against image p + 1 where that is valid."""
        items, phases = valid.shape
        item, phase = np.nonzero(valid)
        first = item * (phases + 1) + phase
        table = np.stack([first, first + 1], axis=1).astype(I32)
        places = (item * phases + phase).astype(I32)
        return cls(items * (phases + 1), len(first), device.upload(table), device.upload(places))


class Level(NamedTuple):
    """One level of the pyramid."""

    height: int
    width: int
    images: Array
    tiling: Tiling
    image_taps: Taps | None
    """From the next finer level; the finest has none."""
    flow_taps: Taps | None
    """From the next coarser level; the coarsest has none."""


class Buffers(NamedTuple):
    """What a launch reads and what it writes; the two change places."""

    current: Array
    other: Array

    def swapped(self) -> Buffers:
        """The other way round."""
        return Buffers(self.other, self.current)


class Watch(NamedTuple):
    """How the pairs stand, where an epsilon may stop them."""

    running: Array
    again: Array
    ended: Array
    updates: Array


class Solver:
    """Memory and launches for up to `items` items of `images` images each, of one size.

    Parameters
    ----------
    device : Device
    params : TVL1Params
    shape : (int, int)
        Height and width of the images.
    items, images : int
        Items at most, and images of each; an item has one pair less than it has images.
    """

    def __init__(self, device: Device, params: TVL1Params, shape: tuple[int, int], items: int, images: int) -> None:
        self.device = device
        self.params = params
        self.items = items
        pairs, pixels = items * (images - 1), shape[0] * shape[1]
        self.levels = self._levels(shape, items * images)
        self._texels = device.empty((pairs * pixels * 4,), F32)
        self._data_term = device.empty((pairs * pixels * 4,), F32)
        self._flows = Buffers(*(device.empty((pairs * pixels * 2,), F32) for _ in range(2)))
        self._duals = Buffers(*(device.empty((pairs * pixels * 4,), F32) for _ in range(2)))
        self._watch = self._watch_of(pairs)

    def _levels(self, shape: tuple[int, int], images: int) -> list[Level]:
        params, device = self.params, self.device
        shapes = level_shapes(shape, params)
        levels = []
        for number, (height, width) in enumerate(shapes):
            finer = shapes[number - 1] if number else None
            coarser = shapes[number + 1] if number + 1 < len(shapes) else None
            levels.append(
                Level(
                    height,
                    width,
                    device.empty((images * height * width,), F32),
                    tiling(height, width, params.inner_iterations, device.limits.shared_bytes),
                    Taps.of(device.upload, finer, (height, width), 1 / params.scale_step) if finer else None,
                    Taps.of(device.upload, coarser, (height, width), None) if coarser else None,
                )
            )
        return levels

    def _watch_of(self, pairs: int) -> Watch:
        """A pair always runs where nothing may stop it, so `running` exists in any case: the median looks at it."""
        running, again, ended = (self.device.empty((pairs,), I32) for _ in range(3))
        tilings = (level.tiling for level in self.levels)
        sums = max(one.iterations * one.tiles[0] * one.tiles[1] * LANES for one in tilings)
        updates = self.device.empty((pairs * sums if self.params.epsilon else 1,), F32)
        return Watch(running, again, ended, updates)

    def enter(self, stack: Array, first: int, images_per_item: int) -> None:
        """(n, s, H, W) grey values in 0..1: images `first` to `first + s - 1` of each item, into the finest level."""
        items, per_item = stack.shape[:2]
        size = self.levels[0].height * self.levels[0].width
        numbers = (I32(size), I32(per_item), I32(images_per_item), I32(first))
        self._launch_runs("grey", size, items * per_item, stack, self.levels[0].images, *numbers)

    def leave(self, flow: Array, phases: Phases, result: Array) -> None:
        """What `solve` returned, into (places, 2, H, W) of the caller."""
        size = self.levels[0].height * self.levels[0].width
        self._launch_runs("leave", size, phases.pairs, flow, result, phases.places, I32(size))

    def solve(self, phases: Phases) -> Array:
        """Flow of every pair of the images that were entered, from the coarsest level to the finest; (count, H, W, 2), flat."""
        for finer, level in zip(self.levels, self.levels[1:], strict=False):
            self._resize("resize", finer.images, finer, level.images, level, level.image_taps, phases.images, 1.0)
        flows = self._flows
        self._clear(flows.current, self.levels[-1], 2 * phases.pairs)
        self._fill_running(phases)
        coarser: Level | None = None
        for level in reversed(self.levels):
            if coarser is not None:
                scale = 1 / self.params.scale_step
                self._resize(
                    "resize_flow", flows.current, coarser, flows.other, level, level.flow_taps, phases.pairs, scale
                )
                flows = flows.swapped()
            flows = self._refine(level, flows, phases)
            coarser = level
        return flows.current

    def _refine(self, level: Level, flows: Buffers, phases: Phases) -> Buffers:
        """Flow of one level: the dual variables start at zero and live on over its warps."""
        duals = self._duals
        self._clear(duals.current, level, 4 * phases.pairs)
        shape = (I32(level.height), I32(level.width))
        self._launch_pixels("gradient_texels", level, phases.pairs, level.images, phases.table, self._texels, *shape)
        for _ in range(self.params.warps):
            arguments = (flows.current, level.images, phases.table, self._texels, self._data_term, *shape)
            rounded = I32(self.params.round_coordinates)
            self._launch_pixels("linearise", level, phases.pairs, *arguments, rounded)
            flows, duals = self._warp_rounds(level, flows, duals, phases)
        return flows

    def _warp_rounds(self, level: Level, flows: Buffers, duals: Buffers, phases: Phases) -> tuple[Buffers, Buffers]:
        """Median filter and inner iterations of one warp, until all rounds are done or no pair runs any more."""
        params = self.params
        if params.epsilon:
            self._fill_running(phases)
        for last in reversed(range(params.outer_iterations)):
            if params.median_filtering > 1:
                shape = (I32(level.height), I32(level.width))
                arguments = (flows.current, flows.other, self._watch.running, *shape)
                self._launch_pixels("median", level, phases.pairs, *arguments)
                flows = flows.swapped()
            for start in range(0, params.inner_iterations, level.tiling.iterations):
                iterations = min(level.tiling.iterations, params.inner_iterations - start)
                iterate = self._iterate_watched if params.epsilon else self._iterate
                iterate(level, flows, duals, phases, iterations)
                flows, duals = flows.swapped(), duals.swapped()
            if params.epsilon and last and not self.device.read(self._watch.running)[: phases.pairs].any():
                break
        return flows, duals

    def _iterate(self, level: Level, flows: Buffers, duals: Buffers, phases: Phases, iterations: int) -> None:
        arguments = self._iterate_arguments(level, flows, duals, iterations)
        self._launch_tiles("iterate", level, phases.pairs, *arguments)

    def _iterate_watched(self, level: Level, flows: Buffers, duals: Buffers, phases: Phases, iterations: int) -> None:
        """Try them all; find the iteration that each pair should have stopped at, and do those over up to there."""
        running, again, ended, updates = self._watch
        at_most = I32(level.tiling.iterations)
        arguments = self._iterate_arguments(level, flows, duals, iterations)
        self._launch_tiles("iterate_watched", level, phases.pairs, *arguments, running, updates, at_most)
        pixels, (columns, rows) = level.height * level.width, level.tiling.tiles
        tolerance = F32(float(self.params.epsilon) ** 2 * pixels)
        numbers = (I32(columns * rows * LANES), I32(iterations), at_most, tolerance)
        block = (DECIDERS, 1, 1)
        self.device.launch("decide", (phases.pairs, 1, 1), block, updates, running, again, ended, *numbers)
        arguments = self._iterate_arguments(level, flows, duals, 1)
        self._launch_tiles("iterate_watched", level, phases.pairs, *arguments, again, updates, at_most)
        both = (flows.other, duals.other, flows.current, duals.current)
        self._launch_runs("settle", pixels, phases.pairs, *both, ended, I32(pixels))

    def _iterate_arguments(self, level: Level, flows: Buffers, duals: Buffers, iterations: int) -> tuple[Any, ...]:
        params, cut = self.params, level.tiling
        arrays = (flows.current, duals.current, self._data_term, flows.other, duals.other)
        sizes = (I32(side) for side in (level.height, level.width, cut.own[1], cut.own[0], cut.halo))
        rates = (F32(params.lambda_ * params.theta), F32(params.tau), F32(params.tau / params.theta))
        return (*arrays, *sizes, *rates, I32(iterations))

    def _resize(
        self,
        kernel: str,
        source: Array,
        from_: Level,
        target: Array,
        to: Level,
        taps: Taps | None,
        count: int,
        scale: float,
    ) -> None:
        sides = (I32(side) for side in (from_.height, from_.width, to.height, to.width))
        self._launch_pixels(kernel, to, count, source, target, *(taps or ()), *sides, F32(scale))

    def _clear(self, planes: Array, level: Level, count: int) -> None:
        size = level.height * level.width
        self._launch_runs("clear", size, count, planes, I32(size))

    def _fill_running(self, phases: Phases) -> None:
        self._launch_runs("start_running", phases.pairs, 1, self._watch.running, I32(phases.pairs))

    def _launch_pixels(self, kernel: str, level: Level, count: int, *arguments: Any) -> None:
        bx, by = PIXELS
        grid = (-(-level.width // bx), -(-level.height // by), count)
        self.device.launch(kernel, grid, (bx, by, 1), *arguments)

    def _launch_tiles(self, kernel: str, level: Level, count: int, *arguments: Any) -> None:
        cut = level.tiling
        shared_bytes = cut.shared_bytes(watched=kernel == "iterate_watched")
        self.device.launch(kernel, (*cut.tiles, count), (*cut.block, 1), *arguments, shared_bytes=shared_bytes)

    def _launch_runs(self, kernel: str, size: int, count: int, *arguments: Any) -> None:
        self.device.launch(kernel, (-(-size // RUN), 1, count), (RUN, 1, 1), *arguments)
