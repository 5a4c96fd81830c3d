"""The shim and its runner: they compute what CUDA would, and see what CUDA would not say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runner import ORDERS, CpuModule, LaunchError, find_kernels, missing

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

STENCIL = """
#ifndef DYNAMIC_SHARED
#define DYNAMIC_SHARED(type, name) extern __shared__ type name[]
#endif

// Each value plus its two neighbours.
extern "C" __global__ void __launch_bounds__(32 * (2))
    stencil(const float *__restrict__ line, float *__restrict__ sums, int size) {
    DYNAMIC_SHARED(float, tile);
    const int i = blockIdx.x * blockDim.x + threadIdx.x, t = threadIdx.x + 1;
    tile[t] = i < size ? line[i] : 0.0f;
    if (threadIdx.x == 0) tile[0] = i > 0 ? line[i - 1] : 0.0f;
    if (threadIdx.x == blockDim.x - 1) tile[t + 1] = i + 1 < size ? line[i + 1] : 0.0f;
    __syncthreads();
    if (i < size) sums[i] = tile[t - 1] + tile[t] + tile[t + 1];
}
"""
LINE = np.arange(100, dtype=np.float32) ** 2
SUMS = np.convolve(LINE, np.ones(3, np.float32), "same")


def stencil(source: str = STENCIL, order: str = "forward", shared_bytes: int = 4 * 34) -> Any:
    sums = np.full_like(LINE, np.nan)
    CpuModule(source, order=order).launch("stencil", (4,), (32,), (LINE, sums, np.int32(100)), shared_bytes)
    return sums


def run(
    body: str, output: Any, block: tuple[int, ...] = (32,), grid: tuple[int, ...] = (1,), order: str = "forward"
) -> Any:
    """What a kernel with this body leaves in `output`, a float array that it calls `out`."""
    CpuModule(f'extern "C" __global__ void kernel(float *out) {{ {body} }}', order=order).launch(
        "kernel", grid, block, (output,)
    )
    return output


@pytest.mark.parametrize("order", ORDERS)
def test_a_kernel_with_shared_memory_gives_the_known_answer_in_every_order(order: str) -> None:
    np.testing.assert_array_equal(stencil(order=order), SUMS)


@pytest.mark.parametrize("order", ORDERS)
def test_a_forgotten_barrier_shows(order: str) -> None:
    assert (stencil(STENCIL.replace("__syncthreads();", ""), order) != SUMS).any()


def test_threads_and_blocks_run_in_the_order_that_was_asked_for() -> None:
    body = "out[blockIdx.x * 8 + threadIdx.y * 4 + threadIdx.x] = out[16]++;"
    turns = {order: run(body, np.zeros(17, np.float32), (4, 2), (2,), order)[:16] for order in ORDERS}
    np.testing.assert_array_equal(turns["forward"], np.arange(16))
    np.testing.assert_array_equal(turns["reverse"], np.arange(16)[::-1])
    assert sorted(turns["random"]) == list(range(16))
    assert (turns["random"] != turns["forward"]).any()


@pytest.mark.parametrize(
    "body",
    [
        "if (threadIdx.x < 8) return; __syncthreads();",
        "if (threadIdx.x < 8) __syncthreads();",
        "if (threadIdx.x < 8) { __syncthreads(); }\n else { __syncthreads(); }",
        "for (int i = 0; i < threadIdx.x; i++) __syncthreads();",
    ],
)
def test_threads_that_part_at_a_barrier_are_an_error(body: str) -> None:
    with pytest.raises(LaunchError, match="divergent barrier"):
        run(body, np.zeros(1, np.float32))


def test_shared_memory_holds_nothing_of_the_block_before() -> None:
    body = (
        "__shared__ float kept[32]; out[blockIdx.x * 32 + threadIdx.x] = kept[threadIdx.x]; kept[threadIdx.x] = 1.0f;"
    )
    assert np.isnan(run(body, np.zeros(96, np.float32), grid=(3,))).all()
    source = STENCIL.replace("tile[t] = i < size ? line[i] : 0.0f;", "")
    assert np.isnan(stencil(source)).sum() > 90


def test_shared_memory_of_a_template_is_its_own_for_each_type() -> None:
    source = """
        template <class T> __device__ T total(T value) {
            __shared__ T parts[4];
            parts[threadIdx.x] = value;
            __syncthreads();
            return parts[0] + parts[1] + parts[2] + parts[3];
        }
        extern "C" __global__ void kernel(float *out) {
            out[threadIdx.x] = total<float>(0.5f) + total<int>(threadIdx.x);
        }"""
    out = np.zeros(4, np.float32)
    CpuModule(source).launch("kernel", (1,), (4,), (out,))
    np.testing.assert_array_equal(out, 8)


def test_a_step_past_dynamic_shared_memory_is_seen() -> None:
    with pytest.raises(LaunchError, match="past 132 bytes"):
        stencil(shared_bytes=4 * 33)


def test_votes_at_a_barrier_reach_every_thread() -> None:
    body = "out[threadIdx.x] = __syncthreads_count(threadIdx.x < 5) + 100 * __syncthreads_or(threadIdx.x == 3)"
    np.testing.assert_array_equal(
        run(f"{body} + 1000 * __syncthreads_and(threadIdx.x < 31);", np.zeros(32, np.float32)), 105
    )


@pytest.mark.parametrize(
    ("arguments", "expectation"),
    [
        ((LINE, LINE, 100), "size must be a numpy.int32; got int 100"),
        ((LINE, LINE, 100.0), "size must be a numpy.int32; got float"),
        ((LINE, LINE, np.int64(100)), "size must be a numpy.int32; got int64"),
        ((LINE, LINE.astype(np.float64), np.int32(100)), "sums must lead to float; got an array of float64"),
        ((LINE[::2], LINE, np.int32(50)), "line must be contiguous"),
        ((np.zeros(9, np.uint8)[1:].view(np.float32), LINE, np.int32(1)), "line must hold whole, aligned float"),
        ((LINE, LINE), "takes 3 arguments; got 2"),
        ((LINE, np.float32(1), np.int32(100)), "sums must be an array"),
    ],
)
def test_an_argument_of_the_wrong_type_is_refused(arguments: tuple[Any, ...], expectation: str) -> None:
    with pytest.raises(LaunchError, match=expectation):
        CpuModule(STENCIL).launch("stencil", (4,), (32,), arguments, 4 * 34)


@pytest.mark.parametrize(
    ("grid", "block", "shared_bytes", "expectation"),
    [
        ((1,), (65,), 0, "__launch_bounds__ allows 64"),
        ((1,), (32, 33), 0, "at most 1024 threads"),
        ((1,), (1, 1, 65), 0, "block must lie between 1"),
        ((1, 65536), (1,), 0, "grid must lie between 1"),
        ((1, 1, 65536), (1,), 0, "grid must lie between 1"),
        ((0,), (1,), 0, "grid must lie between 1"),
        ((np.int64(1),), (1,), 0, "grid must be a tuple of one to three int"),
        ((1,), (1,), 48 * 1024 + 1, "limited to 49152 bytes"),
    ],
)
def test_a_launch_beyond_cudas_limits_is_refused(
    grid: tuple[int, ...], block: tuple[int, ...], shared_bytes: int, expectation: str
) -> None:
    with pytest.raises(LaunchError, match=expectation):
        CpuModule(STENCIL).launch("stencil", grid, block, (LINE, LINE.copy(), np.int32(100)), shared_bytes)


def test_a_kernel_that_cannot_be_read_is_not_left_out() -> None:
    with pytest.raises(ValueError, match="every kernel must read"):
        find_kernels("template <class T> __global__ void kernel(T *x) {}")
    with pytest.raises(ValueError, match="a pointer to a known type; got `half \\*x`"):
        find_kernels('extern "C" __global__ void kernel(half *x) {}')


def test_processes_may_build_the_same_source_at_once(tmp_path: Path) -> None:
    code = (
        f"import sys; sys.path[:0] = {[str(Path(__file__).parent), *sys.path]!r}\n"
        "import runner\n"
        f"runner.CpuModule('extern \"C\" __global__ void kernel(float *out) {{ }}')"
    )
    environment = {"TMPDIR": str(tmp_path), "PATH": "/usr/bin:/bin"}
    processes = [subprocess.Popen([sys.executable, "-c", code], env=environment) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert len(list(tmp_path.rglob("*.so"))) == 1
