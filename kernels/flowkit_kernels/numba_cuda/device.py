"""The current GPU through Numba: its errors, its memory, other libraries' arrays on it, what it is."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numba import cuda

from flowkit_kernels.errors import BackendUnavailable, DeviceOutOfMemory, ShapeError, cuda_failure

Array = Any

FILL = 0.8
"""Part of the free memory that a chunk may take: allocations are rounded up, and others use the GPU too."""


@contextmanager
def device_errors() -> Iterator[None]:
    """CUDA's errors in the project's words; every other error passes as it is.

    Raises
    ------
    DeviceOutOfMemory, DeviceLost, BackendUnavailable
    """
    try:
        yield
    except Exception as error:
        code = cuda_error(error)
        if code:
            raise cuda_failure(code, error) from error
        raise


def cuda_error(error: Exception) -> int:
    """Code of the CUDA error behind an exception, 0 if there is none.

    Numba raises one class, and the library that it launches kernels with another; both name the error in their message.
    """
    found = re.search(r"CUDA_ERROR_\w+", str(error))
    if not found or not type(error).__module__.startswith(("numba.", "cuda.")):
        return 0
    from numba.cuda.cudadrv.driver import binding

    return int(getattr(binding.CUresult, found[0], 0))


def in_chunks(count: int, most: int, item_bytes: int, compute: Callable[[slice], None]) -> None:
    """Call `compute` with slices of `count` items that fit into the free memory, half as long each time one does not.

    Raises
    ------
    DeviceOutOfMemory
        Not even one item fits.
    """
    fitting = FILL * cuda.current_context().get_memory_info().free / item_bytes
    length = int(max(1, min(count, most, fitting)))
    first = 0
    while first < count:
        try:
            with device_errors():
                compute(slice(first, min(first + length, count)))
        except DeviceOutOfMemory:
            if length == 1:
                raise
            length //= 2
        else:
            first += length


def adopt(where: str, name: str, array: Any) -> Array:
    """The caller's array on the current GPU as one of Numba's over the same memory.

    Raises
    ------
    ShapeError
        It is not on a GPU, not on the current one, or not C-contiguous: kernels go through memory as it lies.
    """
    interface = _interface(where, name, array)
    if not _contiguous(interface):
        raise ShapeError(
            f"{where}: {name} must be C-contiguous on the GPU, where nothing is copied in passing; got strides "
            f"{interface['strides']} for shape {interface['shape']}. Pass cupy.ascontiguousarray(...), or .contiguous() of a "
            "torch tensor."
        )
    with device_errors():
        if 0 not in interface["shape"]:
            _on_current_device(where, name, interface["data"][0])
        if interface.get("stream") is None:  # torch names none: its work on the array may still be queued on any stream
            cuda.synchronize()
        return cuda.as_cuda_array(array)


def _interface(where: str, name: str, array: Any) -> dict[str, Any]:
    try:
        interface = array.__cuda_array_interface__
    except (AttributeError, RuntimeError, TypeError) as error:  # torch: a tensor on the CPU, or one with a gradient
        raise ShapeError(
            f"{where}: {name} must offer __cuda_array_interface__; got {type(array).__name__} ({error}). Pass an array on the "
            "GPU, or a NumPy array."
        ) from error
    if interface.get("mask") is not None:
        raise ShapeError(f"{where}: {name} must have no mask; got one. Fill it in first.")
    found: dict[str, Any] = interface
    return found


def _contiguous(interface: dict[str, Any]) -> bool:
    shape, strides = interface["shape"], interface.get("strides")
    if strides is None or 0 in shape:
        return True
    expected = np.dtype(interface["typestr"]).itemsize
    for side, stride in zip(reversed(shape), reversed(strides), strict=True):
        if side > 1 and stride != expected:
            return False
        expected *= side
    return True


def _on_current_device(where: str, name: str, pointer: int) -> None:
    from numba.cuda.cudadrv import driver

    attribute = driver.binding.CUpointer_attribute.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
    owner = int(driver.driver.cuPointerGetAttribute(attribute, driver.binding.CUdeviceptr(pointer)))
    current = cuda.get_current_device().id
    if owner != current:
        raise ShapeError(
            f"{where}: {name} must be on GPU {current}, the current one of this thread; got an array on GPU {owner}. Copy it "
            "there, or choose its GPU with use_device."
        )


def use_device(index: int) -> None:
    """As `backend.GpuOperations` says."""
    count = len(cuda.gpus)
    if not 0 <= index < count:
        raise BackendUnavailable(
            f"device: number must be that of a GPU here, 0 to {count - 1}; got {index}. flowkit doctor lists them; "
            "CUDA_VISIBLE_DEVICES may hide some."
        )
    with device_errors():
        cuda.select_device(index)


def describe_device() -> dict[str, Any]:
    """As `backend.GpuOperations` says."""
    from numba.cuda.cudadrv.driver import driver

    with device_errors():
        device = cuda.get_current_device()
        return {
            "index": int(device.id),
            "name": str(device.name),
            "compute_capability": ".".join(map(str, device.compute_capability)),
            "multiprocessors": int(device.MULTIPROCESSOR_COUNT),
            "memory_bytes": int(cuda.current_context().get_memory_info().total),
            "driver": ".".join(map(str, driver.get_version())),
            "numba": importlib.metadata.version("numba"),
            "numba_cuda": importlib.metadata.version("numba-cuda"),
        }
