"""The backend numba-cuda without a GPU: its kernels in Numba's simulator, in a process of its own, and compiled for real GPUs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from kernel_scenes import numba_cuda_trouble

from flowkit_kernels import BackendUnavailable, DeviceLost, DeviceOutOfMemory, MMCOFParams, ShapeError, TVL1Params

if numba_cuda_trouble():
    pytest.skip(numba_cuda_trouble(), allow_module_level=True)

FOLDER = Path(__file__).parent
OPERATIONS = "numba-cuda and (16x16 or 17x40 or bicubic)"
"""Tests of single operations at sizes that the simulator, a Python thread for each of CUDA's, gets through in seconds."""


def simulated(*arguments: str) -> int:
    """Run tests with the simulator on; how many passed, if all did."""
    paths = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
        env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1", "PYTHONPATH": paths},
        cwd=FOLDER.parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" not in done.stdout, done.stdout
    passed = re.search(r"(\d+) passed", done.stdout)
    return int(passed[1]) if passed else 0


def test_each_kernel_holds_in_the_simulator() -> None:
    assert simulated(str(FOLDER / "test_kernel_operations.py"), "-k", OPERATIONS) == 15


@pytest.mark.slow
def test_the_whole_backend_holds_in_the_simulator() -> None:
    assert simulated(str(FOLDER / "cuda_simulator_cases.py"), "-m", "not slow") >= 10


@pytest.mark.slow
def test_the_backend_holds_in_the_simulator_where_it_takes_long() -> None:
    assert simulated(str(FOLDER / "cuda_simulator_cases.py"), "-m", "slow") == 3


def signatures() -> list[tuple[Any, tuple[Any, ...]]]:
    """Every kernel and the types it is launched with."""
    from numba.cuda import types
    from numba.cuda.typing.typeof import typeof

    from flowkit_kernels.numba_cuda import blocks, mmcof, tvl1
    from flowkit_kernels.numba_shared import MMCOFSettings

    line, flat, planes, result = (types.Array(types.float32, axes, "C") for axes in (1, 2, 4, 5))
    clips, region = types.Array(types.float32, 3, "C"), types.Array(types.boolean, 2, "C")
    few, many = types.Array(types.int32, 1, "C"), types.Array(types.int64, 1, "C")
    real, settings = types.float32, typeof(tvl1.Settings.of(TVL1Params()))
    return [
        (tvl1.fill, (line, real)),
        (tvl1.fill, (few, types.int32)),
        (tvl1.enter, (planes, many, types.int64, planes)),
        (tvl1.leave, (planes, many, many, result)),
        (tvl1.resize, (planes, planes, few, line, few, line, real)),
        (tvl1.image_gradient, (planes, few, planes)),
        (tvl1.linearise, (planes, planes, few, few, planes, planes, types.boolean)),
        (tvl1.median, (planes, planes, few)),
        (tvl1.primal_step, (planes, planes, planes, planes, few, settings)),
        (tvl1.dual_step, (planes, planes, few, real)),
        (tvl1.converge, (flat, few, types.float64)),
        (mmcof.combine, (planes, region, clips, typeof(MMCOFSettings.of(MMCOFParams())))),
        (blocks.item_ranges, (flat, flat)),
        (blocks.item_ranges, (region, flat)),
    ]


IN_DOUBLE = {"linearise", "converge", "combine", "item_ranges"}
"""Kernels that may compute in float64 (`linearise` only to round coordinates)."""


@pytest.fixture(params=[(7, 5), (9, 0)], ids=["sm_75", "sm_90"])
def capability(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, int]]:
    """Numba compiles device functions for the current GPU, whatever it is asked for, and keeps them: not here."""
    from numba.cuda import dispatcher

    from flowkit_kernels.numba_cuda import blocks as cuda_numba_blocks
    from flowkit_kernels.numba_cuda import mmcof as cuda_numba_mmcof
    from flowkit_kernels.numba_cuda import tvl1 as cuda_numba_tvl1

    modules = (cuda_numba_blocks, cuda_numba_mmcof, cuda_numba_tvl1)
    compiled = [value for module in modules for value in vars(module).values() if hasattr(value, "overloads")]
    monkeypatch.setattr(dispatcher, "get_current_device", lambda: SimpleNamespace(compute_capability=request.param))
    forget(compiled)
    yield request.param
    forget(compiled)


def forget(compiled: list[Any]) -> None:
    for function in compiled:
        function.overloads.clear()


def test_each_kernel_compiles_and_computes_in_float32(capability: tuple[int, int]) -> None:
    from numba.cuda import compile_ptx

    for kernel, types in signatures():
        text, _ = compile_ptx(kernel.py_func, types, cc=capability)
        assert f".target sm_{capability[0]}{capability[1]}" in text
        arithmetic = re.findall(r"(?:add|sub|mul|fma|div|sqrt|cvt)\.\S*f64", text)
        assert not arithmetic or kernel.py_func.__name__ in IN_DOUBLE, kernel.py_func.__name__


@pytest.mark.parametrize(
    ("name", "becomes"),
    [
        ("OUT_OF_MEMORY", DeviceOutOfMemory),
        ("ILLEGAL_ADDRESS", DeviceLost),
        ("ECC_UNCORRECTABLE", DeviceLost),
        ("LAUNCH_FAILED", DeviceLost),
        ("INVALID_VALUE", BackendUnavailable),  # nothing is lost
    ],
)
def test_cuda_errors_are_told_apart(name: str, becomes: type[Exception]) -> None:
    from cuda.core._utils.cuda_utils import CUDAError
    from numba.cuda.cudadrv.driver import CudaAPIError

    from flowkit_kernels.numba_cuda.device import device_errors

    message = f"Call to cuLaunchKernel results in CUDA_ERROR_{name}"
    for error in (CudaAPIError(0, message), CUDAError(f"CUDA_ERROR_{name}: a description")):
        with pytest.raises(becomes, match=f"^GPU: .* must .*; got .*CUDA_ERROR_{name}.*"), device_errors():
            raise error
    with pytest.raises(ValueError, match="CUDA_ERROR_"), device_errors():
        raise ValueError(message)


class OnGpu:
    """What another library says of its array."""

    def __init__(self, shape: tuple[int, ...], strides: tuple[int, ...] | None, **more: Any) -> None:
        self.__cuda_array_interface__ = {
            "shape": shape,
            "strides": strides,
            "typestr": "<f4",
            "data": (1, False),
            "version": 3,
        } | more


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (OnGpu((2, 20, 24), (4, 8, 160)), r"faces must be C-contiguous on the GPU, .*; got strides \(4, 8, 160\)"),
        (OnGpu((2, 20, 24), None, mask=object()), "faces must have no mask; got one"),
        (np.zeros(3), "faces must offer __cuda_array_interface__; got ndarray"),
    ],
)
def test_arrays_that_cannot_be_used_where_they_lie_are_refused_in_words(array: Any, message: str) -> None:
    from flowkit_kernels.numba_cuda.operations import adopt

    with pytest.raises(ShapeError, match=f"^tvl1_flow: {message}"):
        adopt("tvl1_flow", "faces", array)


def test_an_array_on_another_gpu_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    from numba import cuda
    from numba.cuda.cudadrv.driver import driver

    from flowkit_kernels.numba_cuda.operations import adopt

    monkeypatch.setitem(vars(driver), "cuPointerGetAttribute", lambda _attribute, _pointer: 1)
    monkeypatch.setattr(cuda, "get_current_device", lambda: SimpleNamespace(id=0))
    with pytest.raises(
        ShapeError,
        match=r"^tvl1_flow: moving must be on GPU 0, the current one of this thread; got an array on GPU 1\. Copy it there",
    ):
        adopt("tvl1_flow", "moving", OnGpu((2, 20, 24), None))


@pytest.mark.parametrize(("stream", "waits"), [({}, True), ({"stream": None}, True), ({"stream": 1}, False)], ids=str)
def test_an_array_that_names_no_stream_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, stream: dict[str, Any], waits: bool
) -> None:
    """A torch tensor: what fills it may be queued on a stream that nobody told of. Numba itself waits for one that is named."""
    from numba import cuda

    from flowkit_kernels.numba_cuda import device

    done: list[str] = []
    monkeypatch.setattr(device, "_on_current_device", lambda *_: None)
    monkeypatch.setattr(cuda, "synchronize", lambda: done.append("waited"))
    monkeypatch.setattr(cuda, "as_cuda_array", lambda _: done.append("taken over"))
    device.adopt("tvl1_flow", "faces", OnGpu((2, 20, 24), None, **stream))
    assert done == ["waited"] * waits + ["taken over"]


@pytest.mark.gpu("numba-cuda")
def test_an_adopted_array_is_the_same_memory() -> None:
    from numba import cuda

    from flowkit_kernels.numba_cuda.operations import adopt, describe_device

    images = np.random.default_rng(0).random((2, 1, 3), dtype=np.float32)
    for array in (cuda.to_device(images), cuda.to_device(images[:0])):
        adopted = adopt("tvl1_flow", "faces", array)
        assert adopted.__cuda_array_interface__["data"] == array.__cuda_array_interface__["data"]
    assert describe_device()["memory_bytes"] > 0
