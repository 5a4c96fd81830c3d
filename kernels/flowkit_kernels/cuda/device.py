"""A GPU through CuPy: its kernels, compiled once, its memory, its errors. With batches.py the only module that knows CuPy."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cupy
import numpy as np
import numpy.typing as npt

from flowkit_kernels.cuda.solver import Array, Limits
from flowkit_kernels.cuda.tiling import PITCH, ROWS
from flowkit_kernels.errors import CUDA_OUT_OF_MEMORY, BackendUnavailable, cuda_failure

SOURCES = {
    "pyramid": ("grey", "resize", "resize_flow", "clear", "leave"),
    "warp": ("gradient_texels", "linearise"),
    "median": ("median",),
    "iterate": ("iterate", "iterate_watched", "start_running", "decide", "settle"),
    "mmcof": ("mmcof",),
    "ranges": ("ranges", "ranges_of_mask"),
}
"""Source files and their kernels."""
OPTIONS = ("--std=c++17", f"-DROWS={ROWS}", f"-DPITCH={PITCH}", "--fmad=false", "--prec-sqrt=false", "--ftz=true")
"""Fused multiply-adds stand in the sources where they are wanted; roots may be off in the last bit, which TV-L1 forgives."""
TILED = ("iterate", "iterate_watched")
"""Kernels that ask for more shared memory than a block gets unasked."""
_HEADER = "common.cuh"
CUDA_ERRORS = (cupy.cuda.runtime.CUDARuntimeError, cupy.cuda.driver.CUDADriverError)


def read_source(name: str) -> str:
    """Text of a .cu file with what it includes: CuPy's cache on disk would not see a change in a header."""
    folder = Path(__file__).parent
    text = (folder / f"{name}.cu").read_text(encoding="utf-8")
    return text.replace(f'#include "{_HEADER}"', (folder / _HEADER).read_text(encoding="utf-8"))


class CupyDevice:
    """One GPU; see `solver.Device`."""

    def __init__(self, index: int) -> None:
        self.index = index
        with translated_errors(), cupy.cuda.Device(index):
            attributes = cupy.cuda.Device(index).attributes
            self.limits = Limits(
                shared_bytes=attributes["MaxSharedMemoryPerBlockOptin"],
                multiprocessors=attributes["MultiProcessorCount"],
                l2_bytes=attributes["L2CacheSize"],
            )
            self._kernels = {
                kernel: module.get_function(kernel)
                for name, kernels in SOURCES.items()
                for module in (cupy.RawModule(code=read_source(name), options=OPTIONS, backend="nvrtc"),)
                for kernel in kernels
            }
            for name in TILED:
                self._kernels[name].max_dynamic_shared_size_bytes = self.limits.shared_bytes

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """New memory with nothing particular in it."""
        return cupy.empty(shape, dtype)

    def upload(self, array: npt.NDArray[Any]) -> Array:
        """A copy on the device."""
        return cupy.asarray(array)

    def read(self, array: Array) -> npt.NDArray[Any]:
        """A copy on the host, once all that was launched is done."""
        result: npt.NDArray[Any] = array.get()
        return result

    def launch(
        self,
        kernel: str,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        *arguments: Any,
        shared_bytes: int = 0,
    ) -> None:
        """Start a kernel on the current stream."""
        self._kernels[kernel](grid, block, arguments, shared_mem=shared_bytes)


@functools.cache
def device_of(index: int) -> CupyDevice:
    """The GPU of this number; its kernels are compiled at the first call, or come from CuPy's cache on disk."""
    return CupyDevice(index)


def current_index() -> int:
    """Number of this thread's current GPU."""
    index: int = cupy.cuda.Device().id
    return index


@contextmanager
def current(stream: Any) -> Iterator[None]:
    """A stream as the current one. CuPy's own `with stream` gives none back that was chosen by `use`."""
    outer = cupy.cuda.get_current_stream()
    stream.use()
    try:
        yield
    finally:
        outer.use()


def use(index: int) -> None:
    """Make a GPU the current one of this thread.

    Raises
    ------
    BackendUnavailable
        There is none of that number.
    """
    with translated_errors():
        count = cupy.cuda.runtime.getDeviceCount()
        if not 0 <= index < count:
            raise BackendUnavailable(
                f"device: number must be that of a GPU here, 0 to {count - 1}; got {index}. flowkit doctor lists them; "
                "CUDA_VISIBLE_DEVICES may hide some."
            )
        cupy.cuda.Device(index).use()


def describe() -> dict[str, Any]:
    """What the current GPU is and what drives it, as plain values."""
    with translated_errors():
        index = current_index()
        properties = cupy.cuda.runtime.getDeviceProperties(index)
        return {
            "index": index,
            "name": properties["name"].decode(),
            "compute_capability": f"{properties['major']}.{properties['minor']}",
            "multiprocessors": int(properties["multiProcessorCount"]),
            "memory_bytes": int(properties["totalGlobalMem"]),
            "driver": _version(cupy.cuda.runtime.driverGetVersion()),
            "runtime": _version(cupy.cuda.runtime.runtimeGetVersion()),
            "nvrtc": ".".join(map(str, cupy.cuda.nvrtc.getVersion())),
            "cupy": cupy.__version__,
        }


def _version(number: int) -> str:
    """13.0 of 13000."""
    return f"{number // 1000}.{number % 1000 // 10}"


@contextmanager
def translated_errors() -> Iterator[None]:
    """CUDA's errors in the project's words.

    Raises
    ------
    DeviceOutOfMemory
    DeviceLost
        Nothing will work on the GPU any more in this process.
    BackendUnavailable
        Something else that CUDA refused, or kernels that do not compile or cannot be kept on disk.
    """
    try:
        yield
    except cupy.cuda.memory.OutOfMemoryError as error:
        raise cuda_failure(CUDA_OUT_OF_MEMORY, error) from error
    except CUDA_ERRORS as error:
        raise cuda_failure(error.status, error) from error
    except cupy.cuda.compiler.CompileException as error:
        raise BackendUnavailable(f"GPU: kernels must compile; got {error}. Run flowkit doctor.") from error
    except OSError as error:  # nothing here touches files but CuPy's cache
        raise BackendUnavailable(
            f"GPU: compiled kernels must be kept on disk; got {error}. Set CUPY_CACHE_DIR to a folder that can be written."
        ) from error


def ranges(device: CupyDevice, array: Array) -> npt.NDArray[np.float32]:
    """(N, ...) float32 or bool -> (N, 2) minimum and maximum of each item, NaN where one is NaN."""
    limits = device.empty((len(array), 2), np.float32)
    kernel = "ranges_of_mask" if array.dtype == np.bool_ else "ranges"
    size = array.size // len(array)
    device.launch(kernel, (len(array), 1, 1), (1024, 1, 1), array, limits, np.int32(size))
    return device.read(limits)
