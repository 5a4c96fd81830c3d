"""All kernels once under ASan and UBSan, each time in a process of its own, which must load ASan before anything else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from runner import missing

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

WHOLE_BACKEND = """
from backend_workload import run_everything
from cupy_standin import standin
with standin(sanitize=True, edit=EDIT) as machine:
    for shape in ((16, 16), (17, 67), (17, 67), (61, 33)):  # a graph at the second time
        run_everything(shape)
print(len(machine.launches()), "launches")
"""

PLANTS = {
    "a write behind an array": ("out[size + threadIdx.x] = 1;", "heap-buffer-overflow"),
    "a read before an array": ("out[0] = out[-1 - (int)threadIdx.x];", "heap-buffer-overflow"),
    "a write behind static shared memory": ("kept[threadIdx.x + size - 299] = 1;", "out of bounds"),
    "the same by pointer": ("fill(kept, threadIdx.x + size - 299);", "global-buffer-overflow"),
    "a write behind dynamic shared memory": ("memory[threadIdx.x + 1] = 1;", "heap-buffer-overflow"),
    "a number beyond int": ("out[0] = size * 10000000;", "signed integer overflow"),
    "a shift beyond int": ("out[0] = 1 << (size - 260);", "shift exponent 40"),
    "a misaligned vector": ("out[0] = reinterpret_cast<int4 *>(out + 1)->x;", "misaligned address"),
}
PLANTED = """
__device__ __noinline__ void fill(int *place, int index) { place[index] = 1; }
extern "C" __global__ void kernel(int *out, int size, int plant) {
    __shared__ int kept[32];
    DYNAMIC_SHARED(int, memory);
    switch (plant) {
    CASES
    default: kept[threadIdx.x] = memory[threadIdx.x] = threadIdx.x; out[threadIdx.x] = kept[0] + memory[0];
    }
}
""".replace("CASES", "".join(f"case {i}: {body} break;\n" for i, (body, _) in enumerate(PLANTS.values())))
RUN_PLANTED = f"""
import numpy as np
from runner import CpuModule
arguments = (np.zeros(300, np.int32), np.int32(300), np.int32(PLANT))
CpuModule({PLANTED!r}, sanitize=True).launch("kernel", (1,), (32,), arguments, 128)
print("survived")
"""


def in_child(code: str) -> subprocess.CompletedProcess[str]:
    asan = subprocess.run(["g++", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    environment = {
        **os.environ,
        "LD_PRELOAD": asan.stdout.strip(),
        "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)]),
        "PYTHONMALLOC": "malloc",
    }
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_whole_backend_is_clean_at_odd_sizes() -> None:
    done = in_child(WHOLE_BACKEND.replace("EDIT", "lambda text: text"))
    assert (done.returncode, done.stderr) == (0, ""), done.stderr[-4000:]
    assert int(done.stdout.split()[0]) > 100


def test_one_pixel_too_many_is_found_in_the_whole_backend() -> None:
    done = in_child(WHOLE_BACKEND.replace("EDIT", "lambda text: text.replace('if (i < size)', 'if (i <= size)')"))
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr, done.stderr[-4000:]


def test_a_kernel_without_a_plant_survives() -> None:
    done = in_child(RUN_PLANTED.replace("PLANT", "-1"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "survived\n", "")


@pytest.mark.parametrize("name", PLANTS)
def test_what_is_planted_is_found(name: str) -> None:
    done = in_child(RUN_PLANTED.replace("PLANT", str(list(PLANTS).index(name))))
    assert done.returncode != 0
    assert PLANTS[name][1] in done.stderr, done.stderr[-4000:]
