"""Gives a process and its children a stand-in for a GPU, if this folder is first on PYTHONPATH and FLOWKIT_STANDIN is set.

The driver is synthetic (kernels/made_up_driver.py), and so is CuPy, whose kernels run on the CPU (cupy/, next to this file).
Everything else is real: commands, workers, tests, benchmarks. FLOWKIT_STANDIN is a JSON object, `{}` for a GPU in order:

    cuda             newest CUDA version that the driver runs (default: [13, 0])
    nvrtc            false: CuPy does not find NVRTC
    disk             "full": no compiled kernel can be stored
    memory_bytes     memory of the GPU; other keys are arguments of Machine in cupy_standin.py
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]
NAME = "Stand-in on the CPU"
ASKING = ("flowkit_kernels.probing.driver", "__main__")
"""Modules that see the synthetic driver. Numba would call it in earnest; it finds no driver."""


def pretend(settings: dict[str, Any]) -> None:
    """Let `ctypes` find a driver with one GPU from now on."""
    sys.path += [str(TESTS / name) for name in ("kernels", "cuda_on_cpu") if str(TESTS / name) not in sys.path]
    from made_up_driver import FakeGpu, FakeLibcuda

    gpu = FakeGpu(NAME, settings.get("memory_bytes", 1 << 30), (9, 0))
    driver, real = FakeLibcuda(tuple(settings.get("cuda", (13, 0))), (gpu,)), ctypes.CDLL

    class LibraryOrDriver(real):  # type: ignore[valid-type, misc]
        """`ctypes.CDLL`; the driver's library is the made-up one."""

        def __new__(cls, name: Any = None, *_: Any, **__: Any) -> Any:
            asked_by = sys._getframe(1).f_globals["__name__"]
            return driver if name == "libcuda.so.1" and asked_by in ASKING else super().__new__(cls)

    ctypes.CDLL = LibraryOrDriver  # type: ignore[misc]


if os.environ.get("FLOWKIT_STANDIN"):
    pretend(json.loads(os.environ["FLOWKIT_STANDIN"]))
