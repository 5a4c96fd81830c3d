"""Gives a process, and all that it starts, a GPU that is none: with this folder first on PYTHONPATH and FLOWKIT_STANDIN set.

The driver is made up (kernels/made_up_driver.py), and so is CuPy, whose kernels run on the CPU (cupy/, beside this file).
Everything else is real: commands, workers, tests, benchmarks. FLOWKIT_STANDIN is a JSON object, `{}` for a GPU in good order:

    cuda             newest CUDA version that the driver runs, [13, 0] unless told
    nvrtc            false: CuPy does not find NVRTC
    disk             "full": no compiled kernel can be stored
    memory_bytes     of the GPU; what Machine of cupy_standin.py takes is passed on to it
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
ASKING = ("flowkit_kernels.driver", "__main__")
"""Modules that see the made-up driver. Numba, which would go on to call it in earnest, finds the truth: none."""


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
