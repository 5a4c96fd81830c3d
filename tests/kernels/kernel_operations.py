"""The single operations of each backend behind one face: plain arrays in, plain arrays out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from flowkit_kernels import MMCOFParams, TVL1Params, available_backends, reference

Array = Any


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
        from flowkit_kernels import cpu_tvl1

        return cpu_tvl1.resize(image, shape, step, step)

    def linearise(self, flow: Array, image: Array, moving: Array, rounded: bool = False) -> Array:
        from flowkit_kernels import cpu_tvl1

        work, plane = _entered(flow)
        cpu_tvl1.linearise(work.state, image, cpu_tvl1.gradient_texels(moving), rounded, work)
        planes = (cpu_tvl1.JX, cpu_tvl1.JY, cpu_tvl1.INVERSE, cpu_tvl1.CONSTANT)
        return np.stack([plane(number) for number in planes])

    def step(self, flow: Array, dual: Array, data: Array, params: TVL1Params) -> Array:
        from flowkit_kernels import cpu_tvl1

        work, plane = _entered(flow)
        duals = range(cpu_tvl1.P11, cpu_tvl1.P22 + 1)
        for number, values in zip(range(cpu_tvl1.JX, cpu_tvl1.CONSTANT + 1), data, strict=True):
            plane(number)[:] = values
        for number, values in zip(duals, dual.reshape(4, *flow.shape[1:]), strict=True):
            plane(number)[:] = values * np.float32(params.theta)
        cpu_tvl1.sweep(work.state, *flow.shape[1:], 1, cpu_tvl1.Settings.of(params))
        after = [plane(number) / np.float32(params.theta) for number in duals]
        return np.stack([plane(cpu_tvl1.U), plane(cpu_tvl1.V), *after])

    def median(self, plane: Array) -> Array:
        from flowkit_kernels import cpu_tvl1

        work, read = _entered(np.stack([plane, np.zeros_like(plane)]))
        cpu_tvl1.median(work.state, cpu_tvl1.U, *plane.shape, work)
        return read(cpu_tvl1.U).copy()

    def mmcof(self, flow: Array, params: MMCOFParams, region: Array) -> Array:
        from flowkit_kernels import cpu

        return cpu.mmcof(flow[None], params, region[None], 1)[0]


def _entered(flow: Array) -> tuple[Any, Callable[[int], Array]]:
    """A workspace that holds this flow, and a view of each of its planes by number."""
    from flowkit_kernels import cpu_tvl1, simd

    height, width = flow.shape[1:]
    work = cpu_tvl1.Workspace.of(height, width)
    cpu_tvl1.enter(work.state, flow[0], flow[1])
    rows = work.state.reshape(height + 1, cpu_tvl1.PLANES, -1)[1:, :, simd.LEFT : simd.LEFT + width]
    return work, lambda number: rows[:, number]


EXACT, NAIVE = Twin(np.float64), Twin(np.float32)
_FAST: dict[str, Operations] = {"cpu": Cpu()}
FAST = {name: operations for name, operations in _FAST.items() if name in available_backends()}
ALL: dict[str, Operations] = {**FAST, "reference": EXACT}
