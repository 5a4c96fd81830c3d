"""What the NVIDIA driver says of itself and of its GPUs, without any package and without a CUDA context.

The driver's own library is asked through ctypes: where there is none, that is known within a millisecond.
"""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass
from typing import Any

LIBRARY = "libcuda.so.1"
SUCCESS, STUB_LIBRARY, NO_DEVICE = 0, 34, 100
"""Values of CUresult that are answers rather than trouble."""
CAPABILITY_MAJOR, CAPABILITY_MINOR = 75, 76
"""Values of CUdevice_attribute."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU that this process may use."""

    name: str
    memory_bytes: int
    capability: tuple[int, int]
    """Compute capability: (9, 0) for an H100."""


@dataclass(frozen=True, slots=True)
class Driver:
    """The installed driver."""

    cuda: tuple[int, int]
    """Newest CUDA version that it can run."""
    gpus: tuple[Gpu, ...] = ()
    """Those that CUDA_VISIBLE_DEVICES leaves, in CUDA's order."""
    trouble: str = ""
    """Why it does not start, in CUDA's words; "" where it does."""


@functools.cache
def find_driver() -> Driver | None:
    """The driver of this machine, or None where there is none; asked once a process.

    Returns
    -------
    Driver or None
        Never raises: a driver that does not start is told in `trouble`.
    """
    library = _load()
    if library is None:
        return None
    code = library.cuInit(0)
    if code == STUB_LIBRARY:
        return None
    if code == NO_DEVICE:
        return Driver(_version(library))
    if code != SUCCESS:
        return Driver(_version(library), trouble=_words(library, code))
    return Driver(_version(library), _gpus(library))


def _load() -> Any:
    try:
        return ctypes.CDLL(LIBRARY)
    except OSError:
        return None


def _version(library: Any) -> tuple[int, int]:
    version = ctypes.c_int()
    library.cuDriverGetVersion(ctypes.byref(version))
    return version.value // 1000, version.value % 1000 // 10


def _words(library: Any, code: int) -> str:
    text = ctypes.c_char_p()
    library.cuGetErrorString(code, ctypes.byref(text))
    return f"{(text.value or b'unknown error').decode(errors='replace')} (CUDA error {code})"


def _gpus(library: Any) -> tuple[Gpu, ...]:
    count = ctypes.c_int()
    library.cuDeviceGetCount(ctypes.byref(count))
    return tuple(_gpu(library, index) for index in range(count.value))


def _gpu(library: Any, index: int) -> Gpu:
    device, memory, name = ctypes.c_int(), ctypes.c_size_t(), ctypes.create_string_buffer(256)
    library.cuDeviceGet(ctypes.byref(device), index)
    library.cuDeviceGetName(name, len(name), device)
    library.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    capability = (_attribute(library, CAPABILITY_MAJOR, device), _attribute(library, CAPABILITY_MINOR, device))
    return Gpu(name.value.decode(errors="replace"), memory.value, capability)


def _attribute(library: Any, attribute: int, device: ctypes.c_int) -> int:
    value = ctypes.c_int()
    library.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
    return value.value
