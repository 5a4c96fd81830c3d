"""The GPU backends under NVIDIA's compute-sanitizer: no access out of bounds, no race on shared memory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flowkit_kernels import available_backends
from flowkit_kernels.backend import GPU_BACKENDS

FOUND = 86
WORKLOADS = Path(__file__).parents[1] / "cuda_on_cpu"
EVERYTHING = """
from backend_workload import run_everything
if BACKEND == "cuda":
    import cupy
    cupy.cuda.set_allocator(None)  # a pool's blocks lie side by side, and a step from one into the next goes unseen
for shape in ((16, 16), (23, 41), (23, 41)):  # a graph at the second time
    run_everything(shape, backend=BACKEND)
print("done")
"""
PLANTED = {
    "memcheck": "out[4096 * 1024 + threadIdx.x] = 1.0f;",
    "racecheck": "__shared__ float kept[64]; kept[threadIdx.x] = out[threadIdx.x]; out[threadIdx.x] = kept[63 - threadIdx.x];",
}
"""What each tool must find in a kernel of 64 threads that has been given 64 floats."""
RUN_PLANTED = """
import cupy
cupy.cuda.set_allocator(None)
kernel = cupy.RawKernel('extern "C" __global__ void kernel(float *out) { BODY }', "kernel")
kernel((1,), (64,), (cupy.zeros(64, cupy.float32),))
cupy.cuda.Device().synchronize()
print("done")
"""


def sanitized(tool: str, code: str) -> subprocess.CompletedProcess[str]:
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        pytest.skip("no GPU tool compute-sanitizer on PATH: it comes with the CUDA toolkit")
    command = [sanitizer, "--tool", tool, "--error-exitcode", str(FOUND), sys.executable, "-c", code]
    paths = os.pathsep.join([str(WORKLOADS), *filter(None, sys.path)])
    environment = {**os.environ, "PYTHONPATH": paths}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=500)


def need(backend: str) -> None:
    if backend not in available_backends():
        pytest.skip(f"no GPU that {backend} runs on")


@pytest.mark.gpu
@pytest.mark.parametrize("tool", PLANTED)
@pytest.mark.parametrize("backend", GPU_BACKENDS)
def test_a_small_run_is_clean(backend: str, tool: str) -> None:
    need(backend)
    done = sanitized(tool, EVERYTHING.replace("BACKEND", repr(backend)))
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "done" in done.stdout


@pytest.mark.gpu
@pytest.mark.parametrize("tool", PLANTED)
def test_what_is_planted_is_found(tool: str) -> None:
    need("cuda")
    done = sanitized(tool, RUN_PLANTED.replace("BODY", PLANTED[tool]))
    assert done.returncode == FOUND, done.stdout[-4000:] + done.stderr[-2000:]
