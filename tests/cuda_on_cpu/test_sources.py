"""Every `.cu`, compiled as the backend compiles it: without a warning, a spill, or a double that nobody asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from resources import ARCHITECTURES, SOURCES, backend_source, compile_source

IN_DOUBLE = {"mmcof.cu"}
"""Sources that say in their first lines that they compute in double."""

sources = pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
architectures = pytest.mark.parametrize("architecture", ARCHITECTURES)


@sources
@architectures
def test_a_source_compiles_without_a_warning_or_a_spill(path: Path, architecture: int) -> None:
    compiled = compile_source(*backend_source(path), architecture)
    assert compiled.complaints == ""
    assert compiled.kernels
    for kernel in compiled.kernels:
        assert (kernel.stack_bytes, kernel.spill_bytes) == (0, 0), kernel
        assert kernel.instructions > 0, kernel
    assert (".f64" in compiled.ptx) == (path.name in IN_DOUBLE)


@sources
def test_the_backend_knows_every_kernel_of_a_source(path: Path) -> None:
    from flowkit_kernels.cuda import device

    compiled = compile_source(*backend_source(path), ARCHITECTURES[0])
    assert {kernel.kernel for kernel in compiled.kernels} == set(device.SOURCES[path.stem])


def test_a_warning_a_spill_and_a_double_are_seen() -> None:
    unused = 'extern "C" __global__ void kernel(float *x) { int unused; x[0] = 1.5f; }'
    assert "unused" in compile_source(unused, (), 90).complaints
    double = 'extern "C" __global__ void kernel(float *x) { x[0] = x[0] * 1.1; }'
    assert ".f64" in compile_source(double, (), 90).ptx
    spilled = """extern "C" __global__ void __launch_bounds__(1024) kernel(float *x, int n) {
        float kept[80];
        for (int i = 0; i < 80; i++) kept[i] = x[threadIdx.x * 80 + i];
        __syncthreads();
        for (int k = 0; k < n; k++) {
            #pragma unroll
            for (int i = 0; i < 80; i++) kept[i] = kept[i] * kept[(i + 7) % 80] + kept[(i + 1) % 80];
        }
        for (int i = 0; i < 80; i++) x[threadIdx.x * 80 + i] = kept[i];
    }"""
    assert compile_source(spilled, (), 75).kernels[0].spill_bytes > 0
