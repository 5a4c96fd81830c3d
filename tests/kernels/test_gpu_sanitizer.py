"""The GPU backends under NVIDIA's compute-sanitizer: no access out of bounds, no race on shared memory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from kernel_scenes import backend_params

from flowkit_kernels.backend import GPU_BACKENDS

FOUND = 86
WORKLOADS = Path(__file__).parents[1] / "cuda_on_cpu"
FLAGS = ("--destroy-on-device-error", "kernel", "--report-api-errors", "no")
"""An error ends the kernel and not the context, so that the program goes on to its end: the exit code for what was found is given
only where the program itself succeeds. Calls that fail on purpose, with which libraries ask what there is, are no errors."""
EVERYTHING = """
from backend_workload import run_everything
if BACKEND == "cuda":
    import cupy
    cupy.cuda.set_allocator(None)  # a pool's blocks lie side by side, and a step from one into the next goes unseen
for shape in ((16, 16), (23, 41), (23, 41)):  # a graph at the second time
    run_everything(shape, backend=BACKEND)
print("done")
"""
IN_PARTS = """
from backend_workload import run_in_parts
if BACKEND == "cuda":
    import cupy
    cupy.cuda.set_allocator(None)
run_in_parts(BACKEND)
print("done")
"""
WORK = {"small": EVERYTHING, "in parts": IN_PARTS}
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
    command = [sanitizer, "--tool", tool, *FLAGS, "--error-exitcode", str(FOUND), sys.executable, "-c", code]
    paths = os.pathsep.join([str(WORKLOADS), *filter(None, sys.path)])
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=500)
    if "Device not supported" in done.stdout:
        pytest.skip(
            "no GPU that compute-sanitizer can look at: it says 'Device not supported', as some virtual machines do"
        )
    return done


@pytest.mark.sanitizer
@pytest.mark.parametrize("tool", PLANTED)
@pytest.mark.parametrize("work", WORK)
@backend_params(GPU_BACKENDS)
def test_nothing_is_found_in_what_a_backend_does(backend: str, work: str, tool: str) -> None:
    done = sanitized(tool, WORK[work].replace("BACKEND", repr(backend)))
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "done" in done.stdout


@pytest.mark.sanitizer
@pytest.mark.gpu("cuda")
@pytest.mark.parametrize("tool", PLANTED)
def test_what_is_planted_is_found(tool: str) -> None:
    done = sanitized(tool, RUN_PLANTED.replace("BODY", PLANTED[tool]))
    assert done.returncode == FOUND, done.stdout[-4000:] + done.stderr[-2000:]


FAKE = """#!/bin/sh
# As the tool does: an error that destroys the context fails the program, whose own exit code is then given, and so does an API
# call that fails on purpose where such calls are reported.
echo "$*" | grep -q -e "--destroy-on-device-error kernel" || exit 1
echo "$*" | grep -q -e "--report-api-errors no" || exit 86
echo "$*" | grep -q -e "kept\\\\[63" -e "4096 \\\\* 1024" && exit 86
echo done
"""


def test_the_tool_is_called_so_that_its_exit_code_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "compute-sanitizer"
    fake.write_text(FAKE)
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for tool, body in PLANTED.items():
        assert sanitized(tool, EVERYTHING).returncode == 0
        assert sanitized(tool, RUN_PLANTED.replace("BODY", body)).returncode == FOUND
