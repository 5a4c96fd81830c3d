"""The operations of the backend "cuda". See `backend.GpuOperations` for what each function takes and returns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cupy
import numpy as np
import numpy.typing as npt

from flowkit_kernels.cuda import batches, device
from flowkit_kernels.errors import ShapeError
from flowkit_kernels.params import MMCOFParams, TVL1Params

MMCOF_THREADS = 512
"""Block of mmcof.cu."""


def tvl1_flow(stacks: Sequence[Any], valid: npt.NDArray[np.bool_], params: TVL1Params, threads: int) -> Any:
    """As `backend.Operations` says: CuPy arrays to a CuPy array, queued on the current stream; NumPy arrays to a NumPy array."""
    with device.translated_errors():
        if isinstance(stacks[0], np.ndarray):
            return batches.flow_of_host_arrays(device.device_of(device.current_index()), stacks, valid, params)
        with stacks[0].device:
            here = device.device_of(device.current_index())
            return batches.flow_of_device_arrays(here, stacks, valid, params)


def mmcof(flow: Any, params: MMCOFParams, region: Any, threads: int) -> Any:
    """As `backend.Operations` says; arrays as in `tvl1_flow`."""
    with device.translated_errors():
        if not isinstance(flow, np.ndarray):
            with flow.device:
                here = device.device_of(device.current_index())
                return _mmcof_of_chunk(here, flow, params, _region_of(here, region))
        combined = np.empty((len(flow), 3, *flow.shape[-2:]), np.float32)
        here = device.device_of(device.current_index())

        def compute(items: int) -> None:
            for start in range(0, len(flow), items):
                chunk = slice(start, start + items)
                on_gpu, regions = here.upload(flow[chunk]), _region_of(here, region[chunk])
                combined[chunk] = here.read(_mmcof_of_chunk(here, on_gpu, params, regions))

        batches.in_fitting_chunks(min(len(flow), batches.MAX_PAIRS), compute)
        return combined


def _region_of(here: device.CupyDevice, region: Any) -> Any:
    """The region on the GPU: (N, H, W), or (1, H, W) of one that serves all, which NumPy has as a stride of 0."""
    if not isinstance(region, np.ndarray):
        return region
    return here.upload(np.ascontiguousarray(region[:1] if region.strides[0] == 0 else region))


def _mmcof_of_chunk(here: device.CupyDevice, flow: Any, params: MMCOFParams, region: Any) -> Any:
    height, width = flow.shape[-2:]
    combined = here.empty((len(flow), 3, height, width), np.float32)
    falls = {"reverse": -1.0, "sum": 1.0, "rise": 0.0}
    weights = (params.theta_1, params.theta_2, params.alpha, params.beta, params.k, params.c, params.floor_px)
    numbers = (np.float64(number) for number in (*weights, falls[params.direction]))
    flags = (np.int32(params.modulate), np.int32(params.gate == "hard"))
    arrays = (flow, region, combined)
    grid, block = (len(flow), 1, 1), (MMCOF_THREADS, 1, 1)
    size, step = height * width, height * width if len(region) == len(flow) else 0
    here.launch("mmcof", grid, block, *arrays, np.int32(size), np.int32(step), *numbers, *flags)
    return combined


def adopt(where: str, name: str, array: Any) -> Any:
    """The caller's array as a CuPy array over the same memory.

    Raises
    ------
    ShapeError
        It is not C-contiguous: kernels go through memory as it lies.
    """
    with device.translated_errors():
        adopted = array if isinstance(array, cupy.ndarray) else _view(where, name, array)
    if not adopted.flags.c_contiguous:
        raise ShapeError(
            f"{where}: {name} must be C-contiguous on the GPU, where nothing is copied in passing; got strides "
            f"{adopted.strides}. Pass cupy.ascontiguousarray(...), or .contiguous() of a torch tensor."
        )
    return adopted


def _view(where: str, name: str, array: Any) -> Any:
    try:
        return cupy.from_dlpack(array) if hasattr(array, "__dlpack__") else cupy.asarray(array)
    except (BufferError, RuntimeError, TypeError, NotImplementedError) as error:
        if isinstance(error, device.CUDA_ERRORS):
            raise
        raise ShapeError(  # of torch: a tensor with a gradient, or of a type that nobody else knows
            f"{where}: {name} must be an array that CuPy can take over; got {type(array).__name__} ({error}). Convert it to "
            "plain float32 first, a torch tensor with .detach()."
        ) from error


def ranges(array: Any) -> npt.NDArray[np.float32]:
    """As `backend.GpuOperations` says."""
    with device.translated_errors(), array.device:
        return device.ranges(device.device_of(device.current_index()), array)


def use_device(index: int) -> None:
    """As `backend.GpuOperations` says."""
    device.use(index)


def describe_device() -> dict[str, Any]:
    """As `backend.GpuOperations` says."""
    return device.describe()
