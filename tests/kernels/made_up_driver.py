# ruff: noqa: N802 - FakeLibcuda has the names of the library that it stands for
"""A made-up NVIDIA driver, for tests of what is asked of a real one."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, NamedTuple

CAPABILITY_MAJOR = 75
"""Of CUdevice_attribute; the minor number has the next value."""


class FakeGpu(NamedTuple):
    """What such a driver says of a GPU; `flowkit_kernels.probing.driver.Gpu` has the same fields."""

    name: str
    memory_bytes: int
    capability: tuple[int, int]


H100 = FakeGpu("NVIDIA H100", 80 * 2**30, (9, 0))


class FakeLibcuda:
    """The few functions of libcuda.so.1 that are asked, with its calling convention."""

    def __init__(self, cuda: tuple[int, int] = (13, 0), gpus: Sequence[Any] = (H100,), code: int = 0) -> None:
        self.version, self.gpus, self.code = 1000 * cuda[0] + 10 * cuda[1], gpus, code

    def cuInit(self, _flags: int) -> int:
        return self.code

    def cuDriverGetVersion(self, version: Any) -> None:
        version._obj.value = self.version

    def cuGetErrorString(self, _code: int, text: Any) -> None:
        text._obj.value = b"system not yet initialized"

    def cuDeviceGetCount(self, count: Any) -> None:
        count._obj.value = len(self.gpus)

    def cuDeviceGet(self, device: Any, index: int) -> None:
        device._obj.value = index

    def cuDeviceGetName(self, name: Any, _length: int, device: ctypes.c_int) -> None:
        name.value = self.gpus[device.value].name.encode()

    def cuDeviceTotalMem_v2(self, memory: Any, device: ctypes.c_int) -> None:
        memory._obj.value = self.gpus[device.value].memory_bytes

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: ctypes.c_int) -> None:
        value._obj.value = self.gpus[device.value].capability[attribute - CAPABILITY_MAJOR]

    def cuDevicePrimaryCtxGetState(self, _device: int, flags: Any, active: Any) -> int:
        flags._obj.value = active._obj.value = 0
        return 0
