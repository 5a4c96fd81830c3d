"""The operations of the backend "numba-cuda". See `backend.GpuOperations` for what each function takes and returns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import cuda

from flowkit_kernels.numba_cuda import mmcof as kernels
from flowkit_kernels.numba_cuda import tvl1
from flowkit_kernels.numba_cuda.blocks import F32, THREADS, Array, item_ranges
from flowkit_kernels.numba_cuda.device import adopt, describe_device, device_errors, in_chunks, use_device
from flowkit_kernels.numba_shared import MMCOFSettings
from flowkit_kernels.params import MMCOFParams, TVL1Params

__all__ = ["adopt", "describe_device", "mmcof", "ranges", "tvl1_flow", "use_device"]


def tvl1_flow(stacks: Sequence[Any], valid: npt.NDArray[np.bool_], params: TVL1Params, threads: int) -> Any:
    """As `backend.Operations` says: Numba's device arrays to one of these, NumPy arrays to a NumPy array; `threads` is not used."""
    images, (height, width) = valid.shape[1] + 1, stacks[0].shape[2:]
    with device_errors():
        flow = _zeros((*valid.shape, 2, height, width), stacks[0])
        items = np.flatnonzero(valid.any(axis=1))

        def compute(chunk: slice) -> None:
            chosen = items[chunk]
            entered = _entered(stacks, chosen, images)
            _hand_over(tvl1.solve(entered, valid[chosen], params), chosen, valid, flow)
            cuda.synchronize()  # an error shows here, and not in some later call

        most = tvl1.MAX_PLANES // (2 * images)
        in_chunks(len(items), most, tvl1.item_bytes(images, height, width, params), compute)
    return flow


def mmcof(flow: Any, params: MMCOFParams, region: Any, threads: int) -> Any:
    """As `backend.Operations` says; arrays as in `tvl1_flow`."""
    with device_errors():
        height, width = flow.shape[3:]
        combined = _empty((len(flow), 3, height, width), flow)
        settings = MMCOFSettings.of(params)

        def compute(chunk: slice) -> None:
            arrays = _uploaded(flow[chunk]), _uploaded(region[chunk])
            if isinstance(combined, np.ndarray):
                result = cuda.device_array(combined[chunk].shape, F32)
                kernels.mmcof(*arrays, result, settings)
                combined[chunk] = result.copy_to_host()
            else:
                kernels.mmcof(*arrays, combined[chunk], settings)
            cuda.synchronize()

        in_chunks(len(flow), len(flow), 30 * height * width, compute)  # 4 + 3 planes of float32, and the region
    return combined


def ranges(array: Array) -> npt.NDArray[np.float32]:
    """As `backend.GpuOperations` says."""
    with device_errors():
        limits = cuda.device_array((len(array), 2), F32)
        item_ranges[len(array), THREADS](array.reshape(len(array), array.size // len(array)), limits)
        result: npt.NDArray[np.float32] = limits.copy_to_host()
        return result


def _entered(stacks: Sequence[Any], items: npt.NDArray[np.intp], images: int) -> Array:
    """(I, S, H, W) in 0..255 on the device: the images of the chosen items, over all stacks."""
    entered = cuda.device_array((len(items), images, *stacks[0].shape[2:]), F32)
    first = 0
    for stack in stacks:
        if isinstance(stack, np.ndarray):
            source, indices = cuda.to_device(np.ascontiguousarray(stack[items])), np.arange(len(items))
        else:
            source, indices = stack, items
        grid = tvl1.grid_over((len(items), *stack.shape[1:]))
        tvl1.enter[grid](source, cuda.to_device(indices), first, entered)
        first += stack.shape[1]
    return entered


def _hand_over(solved: Array, chosen: npt.NDArray[np.intp], valid: npt.NDArray[np.bool_], flow: Any) -> None:
    """The flow of the valid pairs of the chosen items, to its place in the result."""
    item, phase = np.nonzero(valid[chosen])
    if isinstance(flow, np.ndarray):
        flow[chosen[item], phase] = solved.copy_to_host()
        return
    places = cuda.to_device(chosen[item]), cuda.to_device(np.ascontiguousarray(phase))
    tvl1.leave[tvl1.grid_of(solved)](solved, *places, flow)


def _uploaded(array: Any) -> Array:
    """On the device, with the strides of its shape: Numba keeps others, and then does not reshape.

    A region that serves all clips has a stride of 0, and so may have any axis of length 1, contiguous as NumPy calls it.
    """
    if not isinstance(array, np.ndarray):
        return array
    return cuda.to_device(np.ascontiguousarray(array).reshape(-1).reshape(array.shape))


def _empty(shape: tuple[int, ...], like: Any) -> Any:
    """A new array where `like` is: NumPy's, or on the device."""
    return np.empty(shape, F32) if isinstance(like, np.ndarray) else cuda.device_array(shape, F32)


def _zeros(shape: tuple[int, ...], like: Any) -> Any:
    zeros = _empty(shape, like)
    if isinstance(zeros, np.ndarray):
        zeros[:] = 0
    else:
        tvl1.fill_all(zeros, F32(0))
    return zeros
