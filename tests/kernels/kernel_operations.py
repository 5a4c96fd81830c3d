"""The single operations of each backend behind one face: plain arrays in, plain arrays out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from flowkit_kernels import MMCOFParams, TVL1Params, reference

Array = Any
ONE_LEVEL = TVL1Params(scales=1)


class Operations(Protocol):
    """As in `reference.py`; `dtype` is what the operations compute in."""

    dtype: Any

    def resize(self, image: Array, shape: tuple[int, int], step: float) -> Array: ...
    def linearise(self, flow: Array, image: Array, moving: Array, rounded: bool = False) -> Array: ...
    def step(self, flow: Array, dual: Array, data: Array, params: TVL1Params) -> Array: ...
    def median(self, plane: Array) -> Array: ...
    def mmcof(self, flow: Array, params: MMCOFParams, region: Array) -> Array: ...


class Twin:
    """The NumPy twin: the specification in float64, the yardstick in float32."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype

    def resize(self, image: Array, shape: tuple[int, int], step: float) -> Array:
        return reference.resize(image.astype(self.dtype), shape, step)

    def linearise(self, flow: Array, image: Array, moving: Array, rounded: bool = False) -> Array:
        arrays = (array.astype(self.dtype) for array in (flow, image, moving))
        data = reference.linearise(*arrays, rounded)
        return np.stack([*data.gradient, 1 / data.norm, data.constant])

    def step(self, flow: Array, dual: Array, data: Array, params: TVL1Params) -> Array:
        flow, dual, data = (array.astype(self.dtype) for array in (flow, dual, data))
        term = reference.Linearised(data[:2], 1 / data[2], data[3])
        flow = reference.primal_step(flow, dual, term, params)
        dual = reference.dual_step(flow, dual, params)
        return np.stack([*flow, *dual.reshape(4, *flow.shape[1:])])

    def median(self, plane: Array) -> Array:
        return reference.median(plane.astype(self.dtype))

    def mmcof(self, flow: Array, params: MMCOFParams, region: Array) -> Array:
        return reference.combine(flow.astype(self.dtype), params, region)


class Cpu:
    """The Numba loops, on a workspace filled and read by hand."""

    dtype = np.float32

    def resize(self, image: Array, shape: tuple[int, int], step: float) -> Array:
        from flowkit_kernels.cpu import pyramid, state

        work, target = state.Workspace.of(*image.shape, ONE_LEVEL), np.zeros(shape, np.float32)
        resized = _plane(target)
        pyramid.resize(_plane(image), resized, step, step, np.float32(1), work)
        return _pixels_of(resized)

    def linearise(self, flow: Array, image: Array, moving: Array, rounded: bool = False) -> Array:
        from flowkit_kernels.cpu import state, warp

        work, plane = _entered(flow)
        warp.place_moving(_plane(moving), work.moving)
        warp.linearise(_plane(image), np.float32(1), rounded, work)
        planes = (state.JX, state.JY, state.INVERSE, state.CONSTANT)
        return np.stack([plane(number) for number in planes])

    def step(self, flow: Array, dual: Array, data: Array, params: TVL1Params) -> Array:
        from flowkit_kernels.cpu import state, tvl1

        settings = tvl1.Settings.of(params)
        work, plane = _entered(flow / settings.unit)
        units = (settings.unit, settings.unit, settings.unit**-2, np.float32(1))
        for number, values, unit in zip(range(state.JX, state.CONSTANT + 1), data, units, strict=True):
            plane(number)[:] = values * unit
        duals = range(state.P11, state.P22 + 1)
        for number, values in zip(duals, dual.reshape(4, *flow.shape[1:]), strict=True):
            plane(number)[:] = values
        tvl1.sweep(work.state, *flow.shape[1:], 1, settings.limit, settings.tau)
        moved = [plane(number) * settings.unit for number in (state.U, state.V)]
        return np.stack([*moved, *map(plane, duals)])

    def median(self, plane: Array) -> Array:
        from flowkit_kernels.cpu import median, state

        work, read = _entered(np.stack([plane, np.zeros_like(plane)]))
        median.median(work.state, state.U, *plane.shape, work)
        return read(state.U).copy()

    def mmcof(self, flow: Array, params: MMCOFParams, region: Array) -> Array:
        from flowkit_kernels.cpu import operations

        return operations.mmcof(flow[None], params, region[None], 1)[0]


def _entered(flow: Array) -> tuple[Any, Callable[[int], Array]]:
    """A workspace that holds this flow, and a view of each of its planes by number."""
    from flowkit_kernels.cpu import simd, state

    height, width = flow.shape[1:]
    work = state.Workspace.of(height, width, ONE_LEVEL)
    state.clear(work.state, height, width)
    rows = work.state.reshape(-1, state.PLANES, work.state.shape[1])[state.MARGIN_ROWS : -state.MARGIN_ROWS]
    rows = rows[..., simd.LEFT : simd.LEFT + width]
    rows[:, state.U], rows[:, state.V] = flow
    return work, lambda number: rows[:, number]


def _plane(image: Array) -> Any:
    """A copy of an image in lines."""
    from flowkit_kernels.cpu import pyramid, simd

    height, width = image.shape
    room = simd.lines(height, width)
    room[:, simd.LEFT : simd.LEFT + width] = image
    return pyramid.Plane(room, 0, 1, height, width)


def _pixels_of(plane: Any) -> Array:
    """The image in such lines."""
    from flowkit_kernels.cpu import simd

    return plane.lines[:, simd.LEFT : simd.LEFT + plane.width].copy()


class NumbaCuda:
    """The kernels of the backend numba-cuda, one launch at a time."""

    dtype = np.float32

    def resize(self, image: Array, shape: tuple[int, int], step: float) -> Array:
        from numba import cuda

        from flowkit_kernels.numba_cuda import tvl1
        from flowkit_kernels.taps import Taps

        target = cuda.device_array((1, 1, *shape), np.float32)
        taps = Taps.of(cuda.to_device, image.shape, shape, step)
        source = cuda.to_device(np.ascontiguousarray(image)[None, None])
        tvl1.resize[tvl1.grid_of(target)](source, target, *taps, np.float32(1))
        return target.copy_to_host()[0, 0]

    def linearise(self, flow: Array, image: Array, moving: Array, rounded: bool = False) -> Array:
        from numba import cuda

        from flowkit_kernels.numba_cuda import tvl1

        level, pairs = _level_of(flow), tvl1.Pairs.of(np.ones((1, 1), bool))
        images, grid = cuda.to_device(np.stack([image, moving])[:, None]), tvl1.grid_of(level.update)
        tvl1.image_gradient[grid](images, pairs.moving, level.gradient)
        tvl1.linearise[grid](level.flow, images, *pairs, level.gradient, level.data, rounded)
        return level.data.copy_to_host()[0]

    def step(self, flow: Array, dual: Array, data: Array, params: TVL1Params) -> Array:
        from flowkit_kernels.numba_cuda import tvl1

        level = _level_of(flow)
        level.data.copy_to_device(data[None])
        level.dual.copy_to_device(dual.reshape(1, 4, *flow.shape[1:]))
        tvl1.iterate(level, 1, tvl1.Settings.of(params))
        return np.concatenate([level.flow.copy_to_host()[0], level.dual.copy_to_host()[0]])

    def median(self, plane: Array) -> Array:
        from flowkit_kernels.numba_cuda import tvl1

        level = _level_of(np.stack([plane, plane]))
        grid = tvl1.grid_of(level.flow)
        tvl1.median[grid](level.flow, level.spare, level.running)
        both = level.spare.copy_to_host()[0]
        np.testing.assert_array_equal(both[0], both[1])
        return both[0]

    def mmcof(self, flow: Array, params: MMCOFParams, region: Array) -> Array:
        from flowkit_kernels.numba_cuda import operations

        return operations.mmcof(flow[None], params, region[None], 1)[0]


def _level_of(flow: Array) -> Any:
    """One running pair with this flow."""
    from flowkit_kernels.numba_cuda import tvl1

    level = tvl1.LevelMemory.room(1, *flow.shape[1:]).shaped(*flow.shape[1:])
    level.flow.copy_to_device(np.ascontiguousarray(flow, np.float32)[None])
    tvl1.fill_all(level.running, np.int32(1))
    return level


class Cuda:
    """The kernels of the backend cuda, one launch at a time."""

    dtype = np.float32

    def resize(self, image: Array, shape: tuple[int, int], step: float) -> Array:
        from flowkit_kernels.taps import Taps

        here = _gpu()
        target = here.empty(shape, np.float32)
        taps = Taps.of(here.upload, image.shape, shape, step)
        sides = map(np.int32, (*image.shape, *shape))
        here.launch("resize", *_pixels(shape), here.upload(image), target, *taps, *sides, np.float32(1))
        return here.read(target)

    def linearise(self, flow: Array, image: Array, moving: Array, rounded: bool = False) -> Array:
        here, shape = _gpu(), image.shape
        images, sides = here.upload(np.stack([image, moving])), tuple(map(np.int32, shape))
        pairs, texels = here.upload(np.array([[0, 1]], np.int32)), here.empty((*shape, 4), np.float32)
        data = here.empty((*shape, 4), np.float32)
        here.launch("gradient_texels", *_pixels(shape), images, pairs, texels, *sides)
        arrays = (here.upload(_together(flow)), images, pairs, texels, data)
        here.launch("linearise", *_pixels(shape), *arrays, *sides, np.int32(rounded))
        return _apart(here.read(data))[[0, 1, 3, 2]]

    def step(self, flow: Array, dual: Array, data: Array, params: TVL1Params) -> Array:
        from flowkit_kernels.cuda.tiling import tiling

        here, shape = _gpu(), flow.shape[1:]
        theta, cut = np.float32(params.theta), tiling(*shape, 1, here.limits.shared_bytes)
        given = map(_together, (flow, dual.reshape(4, *shape) * theta, data[[0, 1, 3, 2]]))
        results = (here.empty((*shape, 2), np.float32), here.empty((*shape, 4), np.float32))
        sizes = map(np.int32, (*shape, cut.own[1], cut.own[0], cut.halo))
        rates = map(np.float32, (params.lambda_ * params.theta, params.tau, params.tau / params.theta))
        arguments = (*map(here.upload, given), *results, *sizes, *rates, np.int32(1))
        grid, block = (*cut.tiles, 1), (*cut.block, 1)
        here.launch("iterate", grid, block, *arguments, shared_bytes=cut.shared_bytes())
        return np.concatenate([_apart(here.read(results[0])), _apart(here.read(results[1])) / theta])

    def median(self, plane: Array) -> Array:
        here, shape = _gpu(), plane.shape
        filtered, running = here.empty((*shape, 2), np.float32), here.upload(np.ones(1, np.int32))
        arrays = (here.upload(_together([plane, plane])), filtered, running)
        here.launch("median", *_pixels(shape), *arrays, *map(np.int32, shape))
        both = _apart(here.read(filtered))
        np.testing.assert_array_equal(both[0], both[1])
        return both[0]

    def mmcof(self, flow: Array, params: MMCOFParams, region: Array) -> Array:
        from flowkit_kernels.cuda import operations

        return operations.mmcof(flow[None], params, region[None], 1)[0]


def _together(planes: Array) -> Array:
    """Planes with the numbers of each pixel side by side."""
    return np.ascontiguousarray(np.moveaxis(np.asarray(planes, np.float32), 0, -1))


def _apart(pixels: Array) -> Array:
    """The planes again."""
    return np.moveaxis(pixels, -1, 0)


def _gpu() -> Any:
    from flowkit_kernels.cuda import device

    return device.device_of(device.current_index())


def _pixels(shape: tuple[int, int]) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Grid and block of the kernels that take a pixel a thread."""
    from flowkit_kernels.cuda.solver import PIXELS

    return (-(-shape[1] // PIXELS[0]), -(-shape[0] // PIXELS[1]), 1), (*PIXELS, 1)


EXACT, NAIVE = Twin(np.float64), Twin(np.float32)
FAST: dict[str, Operations] = {"cuda": Cuda(), "numba-cuda": NumbaCuda(), "cpu": Cpu()}
ALL: dict[str, Operations] = {**FAST, "reference": EXACT}
