"""The host side of numba-cuda on Numba's own device arrays, which refuse what the simulator's let pass; no kernel runs.

Their memory is this machine's. What a kernel would be launched with is kept.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from kernel_scenes import numba_cuda_trouble

from flowkit_kernels import MMCOFParams, TVL1Params, backend, mmcof, phase_flow, tvl1_flow

if numba_cuda_trouble():
    pytest.skip(numba_cuda_trouble(), allow_module_level=True)

STOPPING = TVL1Params(scales=2, scale_step=0.8, warps=1, outer_iterations=2, inner_iterations=2, epsilon=0.1)
RNG = np.random.default_rng(0)
FACES = RNG.random((3, 3, 20, 24), dtype=np.float32)
FLOW = RNG.normal(size=(3, 2, 2, 20, 24)).astype(np.float32)


class Memory:
    """Memory of a device, as Numba's arrays hold it."""

    def __init__(self, contents: Any) -> None:
        self.contents, self.size = contents, contents.nbytes

    @property
    def device_ctypes_pointer(self) -> ctypes.c_void_p:
        return ctypes.c_void_p(self.contents.ctypes.data)

    def view(self, start: int, stop: int) -> Memory:
        return Memory(self.contents[start:stop])


class Context:
    """What Numba asks of a context here."""

    def memalloc(self, size: int) -> Memory:
        return Memory(np.zeros(size, np.uint8))

    def get_memory_info(self) -> Any:
        return SimpleNamespace(free=1 << 30)


def copy(target: Any, source: Any, size: int) -> None:
    parts = (
        one.gpu_data.contents if hasattr(one, "gpu_data") else one.reshape(-1).view(np.uint8)
        for one in (target, source)
    )
    to, from_ = parts
    to[:size] = from_[:size]


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[Any, ...]]]:
    """Name and arguments of each kernel that would have been launched."""
    from numba import cuda
    from numba.cuda.cudadrv import devicearray, devices, driver

    from flowkit_kernels.numba_cuda import blocks, operations, tvl1
    from flowkit_kernels.numba_cuda import mmcof as cuda_numba_mmcof

    kept: list[tuple[str, tuple[Any, ...]]] = []
    context = Context()
    monkeypatch.setattr(devices._runtime, "ensure_context", contextlib.nullcontext)
    monkeypatch.setattr(devices, "get_context", lambda *_: context)
    monkeypatch.setattr(cuda, "current_context", lambda *_: context)
    monkeypatch.setattr(cuda, "synchronize", lambda: None)
    for name in ("host_to_device", "device_to_host", "device_to_device"):
        monkeypatch.setattr(driver, name, lambda dst, src, size, stream=0: copy(dst, src, size))
    getitem = devicearray.DeviceNDArray.__getitem__

    def contiguous_part(array: Any, index: Any) -> Any:
        """Of any other, Numba goes through the rows in Python: half a millisecond a pair of 128 x 128."""
        part = getitem(array, index)
        assert part.flags["C_CONTIGUOUS"], index
        return part

    monkeypatch.setattr(devicearray.DeviceNDArray, "__getitem__", contiguous_part)
    for module in (operations, blocks, cuda_numba_mmcof, tvl1):
        replace_kernels(module, kept, monkeypatch)
    monkeypatch.setattr(operations, "adopt", lambda _where, _name, array: array)
    monkeypatch.setattr(operations, "ranges", lambda array: np.tile(np.float32([0, 1]), (len(array), 1)))
    entry = dataclasses.replace(backend._BACKENDS["numba-cuda"], obstacle=lambda: None)
    monkeypatch.setitem(backend._BACKENDS, "numba-cuda", entry)
    return kept


def replace_kernels(module: ModuleType, kept: list[tuple[str, tuple[Any, ...]]], patch: pytest.MonkeyPatch) -> None:
    class Kernel:
        def __init__(self, name: str) -> None:
            self.name = name

        def __getitem__(self, _grid: Any) -> Any:
            return lambda *arguments: kept.append((self.name, arguments))

    for name, value in list(vars(module).items()):
        if hasattr(value, "overloads"):
            patch.setattr(module, name, Kernel(name))


def on_device(array: Any) -> Any:
    from numba import cuda

    return cuda.to_device(array)


@pytest.mark.parametrize("place", [lambda array: array, on_device], ids=["host", "device"])
@pytest.mark.parametrize("params", [TVL1Params.preset("fixed"), STOPPING], ids=["fixed", "opencv"])
def test_the_flow_is_computed_on_contiguous_arrays(launches: Any, place: Any, params: TVL1Params) -> None:
    pairs = place(FACES[:, 0].copy()), place(FACES[:, 1].copy())
    assert tvl1_flow(*pairs, params, backend="numba-cuda").shape == (3, 2, 20, 24)
    valid = np.array([[True, False], [False, False], [True, True]])
    assert phase_flow(place(FACES), params, valid=valid, backend="numba-cuda").shape == (3, 2, 2, 20, 24)
    assert {"enter", "resize", "linearise", "median", "primal_step"} <= {name for name, _ in launches}
    assert all_contiguous(launches)


@pytest.mark.parametrize("place", [lambda array: array, on_device], ids=["host", "device"])
@pytest.mark.parametrize("region", ["face", "image"])
def test_one_region_serves_all_clips(launches: Any, place: Any, region: Any) -> None:
    params = MMCOFParams(region=region, border_px=4)
    assert mmcof(place(FLOW), params, backend="numba-cuda").shape == (3, 3, 20, 24)
    ((name, (_, regions, *_)),) = launches
    assert (name, regions.shape) == ("combine", (3, 480))
    expected = 12 * 16 if region == "face" else 480
    assert regions.copy_to_host().sum(axis=1).tolist() == [expected] * 3
    assert all_contiguous(launches)


def test_a_single_clip_may_be_the_view_that_none_makes_of_it(launches: Any) -> None:
    one = FLOW[0][None]
    assert one.strides[0] == 0
    mmcof(one, backend="numba-cuda")
    mmcof(one, mask=np.ones((20, 24), bool)[None], backend="numba-cuda")
    mmcof(FLOW[:1], MMCOFParams(region="image"), backend="numba-cuda")
    assert [regions.copy_to_host().sum() for _, (_, regions, *_) in launches] == [4 * 8, 480, 480]
    assert all_contiguous(launches)


@pytest.mark.parametrize("place", [lambda array: array, on_device], ids=["host", "device"])
def test_each_clip_may_have_a_region(launches: Any, place: Any) -> None:
    mask = np.arange(3 * 480).reshape(3, 20, 24) % 3 == 0
    assert mmcof(place(FLOW), mask=place(mask), backend="numba-cuda").shape == (3, 3, 20, 24)
    assert all_contiguous(launches)


def all_contiguous(launches: Any) -> bool:
    arrays = [value for _, arguments in launches for value in arguments if hasattr(value, "gpu_data")]
    return bool(arrays) and all(array.flags["C_CONTIGUOUS"] and 0 not in array.strides for array in arrays)
