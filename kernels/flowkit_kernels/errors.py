"""What can go wrong in the kernels, and the root of the whole project's error tree.

The root lives here because this package imports nothing else of ours; `flowkit.errors` grows the rest of the tree.

    FlowkitError
    ├─ ShapeError (ValueError)            shape, dtype or value of an array
    ├─ ParameterError (ValueError)        a solver parameter out of its range
    ├─ BackendUnavailable (RuntimeError)  the chosen backend cannot run on this machine
    ├─ DeviceOutOfMemory (MemoryError)    not even one clip fits into what is free on the GPU
    └─ DeviceLost (RuntimeError)          the GPU, or this process's hold on it, is gone

Every message reads *where: name must be expectation; got value. Next step.*
"""

from __future__ import annotations


class FlowkitError(Exception):
    """Root of every error that the project raises on purpose.

    `exit_code` is what a command returns when the error ends it.
    """

    exit_code = 1


class ShapeError(FlowkitError, ValueError):
    """An array has a shape, dtype or value that the operation cannot take."""

    exit_code = 2


class ParameterError(FlowkitError, ValueError):
    """A parameter lies outside its range."""

    exit_code = 2


class BackendUnavailable(FlowkitError, RuntimeError):
    """The chosen backend cannot run on this machine."""

    exit_code = 3


class DeviceOutOfMemory(FlowkitError, MemoryError):
    """Not even a single clip fits into the free memory of the GPU; the process should be started anew."""

    exit_code = 3


class DeviceLost(FlowkitError, RuntimeError):
    """A CUDA error after which nothing on the GPU works any more in this process; only a new process can go on."""

    exit_code = 75


CUDA_OUT_OF_MEMORY = 2
"""CUDA's code of the error, in its runtime and its driver alike, as all of these."""
_STICKY = frozenset(
    {4, 46, 100, 101, 214, 220, 226, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721, 802, 911, 999}
)
"""Codes after which no call of this process on the GPU succeeds any more."""


def cuda_failure(code: int, error: Exception) -> FlowkitError:
    """What a CUDA error means to a caller: too little memory, DeviceLost, or BackendUnavailable where other calls survive."""
    found = str(error).rstrip(".")
    if code == CUDA_OUT_OF_MEMORY:
        return DeviceOutOfMemory(
            f"GPU: free memory must hold a single item and its result; got {found}. Use smaller images or a smaller batch, or "
            "end what else runs on this GPU; or choose the backend cpu."
        )
    if code in _STICKY:
        return DeviceLost(
            f"GPU: every call must succeed; got {found}, after which none does in this process. Run the same command again; "
            "if it comes back, run flowkit doctor."
        )
    return BackendUnavailable(f"GPU: every call must succeed; got {found}. Run flowkit doctor.")
