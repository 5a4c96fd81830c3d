"""Which implementations of the operations exist, which of them run on this machine, and how they are loaded.

A backend is a module with the functions of `Operations` (on a GPU: `GpuOperations`), which take what the public functions have
checked. It is imported at its first call and not before: this module costs NumPy and nothing else.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from flowkit_kernels.errors import BackendUnavailable, ParameterError
from flowkit_kernels.params import MMCOFParams, TVL1Params
from flowkit_kernels.probing.obstacles import (
    Obstacle,
    cpu_obstacle,
    cupy_obstacle,
    gpu_is_here,
    numba_cuda_obstacle,
    numba_obstacle,
)


class Operations(Protocol):
    """What every backend module offers. Arrays are NumPy's, or, on a GPU backend, what its `adopt` made."""

    def tvl1_flow(self, stacks: Sequence[Any], valid: npt.NDArray[np.bool_], params: TVL1Params, threads: int) -> Any:
        """(N, S1, H, W), (N, S2, H, W), ... -> (N, S - 1, 2, H, W), S = S1 + S2 + ...

        Item n is the sequence of its S images, over all stacks; its flow p leads from image p to image p + 1, and is zero
        where `valid` (N, S - 1) is not. Nothing is computed for those.
        """

    def mmcof(self, flow: Any, params: MMCOFParams, region: Any, threads: int) -> Any:
        """(N, 2, 2, H, W), (N, H, W) -> (N, 3, H, W)."""


class GpuOperations(Operations, Protocol):
    """What a GPU backend's module offers beyond that."""

    def adopt(self, where: str, name: str, array: Any) -> Any:
        """The caller's array on the GPU as one of this backend's, without a copy; ShapeError where it cannot be."""

    def ranges(self, array: Any) -> npt.NDArray[np.float32]:
        """(N, ...) float32 or bool on the GPU -> (N, 2): minimum and maximum of each item, NaN where one is NaN."""

    def use_device(self, index: int) -> None:
        """Make a GPU the current one of this thread; BackendUnavailable where there is none of that number."""

    def describe_device(self) -> dict[str, Any]:
        """Name, compute capability, memory, driver and packages of the current GPU, as plain values."""


@dataclass(frozen=True, slots=True)
class _Backend:
    """Where a backend lives, what keeps it from running here (None: nothing), and which one to turn to instead."""

    module: str
    obstacle: Callable[[], Obstacle | None]
    instead: str


_BACKENDS = {
    "cuda": _Backend("flowkit_kernels.cuda.operations", cupy_obstacle, "cpu"),
    "numba-cuda": _Backend("flowkit_kernels.numba_cuda.operations", numba_cuda_obstacle, "cpu"),
    "cpu": _Backend("flowkit_kernels.cpu.operations", cpu_obstacle, "reference"),
    "reference": _Backend("flowkit_kernels.reference", lambda: None, "reference"),
}
GPU_BACKENDS = ("cuda", "numba-cuda")
_AUTO = ("cuda", "cpu")
"""What "auto" tries, in this order."""


def available_backends() -> tuple[str, ...]:
    """Names of the backends that run on this machine, fastest first."""
    return tuple(name for name in _BACKENDS if find_obstacle(name) is None)


def find_obstacle(name: str) -> Obstacle | None:
    """What keeps a backend from running on this machine, and what to do about it; None where it runs."""
    return _BACKENDS[name].obstacle()


def resolve_backend(name: str = "auto") -> str:
    """Name of the backend that will run: "auto" becomes a concrete one, every other name stands for itself.

    Parameters
    ----------
    name : {"auto", "cuda", "numba-cuda", "cpu", "reference"}

    Returns
    -------
    str
        One of `available_backends()`.

    Raises
    ------
    ParameterError
        There is no backend of this name.
    BackendUnavailable
        There is, but it cannot run here. A backend that was named never falls back to another.

    Examples
    --------
    >>> resolve_backend("reference")
    'reference'
    """
    if name == "auto":
        return _resolve_auto()
    if name not in _BACKENDS:
        known = ", ".join(("auto", *_BACKENDS))
        raise ParameterError(f"backend: name must be one of {known}; got {name!r}. Choose one of them.")
    obstacle = find_obstacle(name)
    if obstacle:
        raise BackendUnavailable(
            f"backend: {name} must be able to run here; got an obstacle: {obstacle.what}. {obstacle.next_step}; "
            f"or choose the backend {_BACKENDS[name].instead}."
        )
    return name


def load_operations(name: str) -> Operations:
    """Import the module behind a backend's name, which `resolve_backend` may still have to make concrete."""
    return cast(Operations, importlib.import_module(_BACKENDS[resolve_backend(name)].module))


def warm_up(backend: str = "auto", tell: Callable[[str], object] = lambda _: None) -> float:
    """Compile the kernels of a backend ahead of their first call, or load them where they are compiled.

    The first call on a machine takes some 20 s without this. Of processes that start together one compiles; the others wait for it.

    Parameters
    ----------
    backend : {"auto", "cuda", "numba-cuda", "cpu", "reference"}
        Of these only "cpu" is compiled ahead.
    tell : callable, optional
        Called with a sentence before anything is compiled, and with a second one where the code is stored in an unusual folder.

    Returns
    -------
    float
        Seconds spent on compiling; 0 where the code was loaded.

    Raises
    ------
    ParameterError
        There is no backend of this name.
    BackendUnavailable
        It cannot run here, for instance because no folder for compiled code can be written.

    Examples
    --------
    >>> warm_up("reference", print)
    0.0
    """
    name = backend if backend == "cpu" else resolve_backend(backend)
    if name != "cpu":
        return 0.0
    obstacle = compile_obstacle()
    if obstacle:
        raise BackendUnavailable(f"kernels: those of the CPU cannot run here: {obstacle.what}. {obstacle.next_step}.")
    seconds: float = _code_cache().warm_up(_entries(), tell)
    return seconds


def is_compiled() -> bool:
    """Return whether the CPU's kernels are compiled on this machine: `warm_up` would load them.

    Examples
    --------
    >>> isinstance(is_compiled(), bool)
    True
    """
    return compiled_folder() is not None


def compiled_folder() -> Path | None:
    """Return the folder from which the CPU's kernels would be loaded, None where they are still to be compiled."""
    found: Path | None = None if compile_obstacle() else _code_cache().folder_of(_entries())
    return found


def compile_obstacle() -> Obstacle | None:
    """Return what keeps the CPU's kernels from being compiled or loaded on this machine, if anything does; imports Numba."""
    found: Obstacle | None = find_obstacle("cpu") or numba_obstacle() or _code_cache().obstacle(_entries())
    return found


def _code_cache() -> Any:
    return importlib.import_module("flowkit_kernels.cpu.code_cache")


def _entries() -> Any:
    return importlib.import_module("flowkit_kernels.cpu.operations").entries()


def use_device(backend: str, index: int) -> None:
    """Choose the GPU that this thread computes on.

    Parameters
    ----------
    backend : {"auto", "cuda", "numba-cuda"}
    index : int
        As CUDA counts the visible ones, and `flowkit doctor` lists them: the fastest first. `nvidia-smi` goes by the slot in the
        machine, as CUDA does too where CUDA_DEVICE_ORDER is PCI_BUS_ID.

    Raises
    ------
    ParameterError
        The backend computes on the CPU.
    BackendUnavailable
        There is no such GPU.
    """
    name = resolve_backend(backend)
    if name not in GPU_BACKENDS:
        raise ParameterError(
            f"device: backend must be one of {', '.join(GPU_BACKENDS)}; got {name}. Leave the device out."
        )
    cast(GpuOperations, load_operations(name)).use_device(index)


def describe_device(backend: str) -> dict[str, Any]:
    """What the current GPU of this thread is, as plain values; empty for a backend that computes on the CPU."""
    name = resolve_backend(backend)
    return cast(GpuOperations, load_operations(name)).describe_device() if name in GPU_BACKENDS else {}


def auto_note() -> str:
    """What a user of "auto" should know: that there is a GPU, and why it computes nothing; "" where there is nothing to tell."""
    obstacle = find_obstacle("cuda")
    if obstacle is None or not gpu_is_here():
        return ""
    return f"A GPU is here, but {obstacle.what}: the CPU computes. {obstacle.next_step}; or pass --backend cpu."


def _resolve_auto() -> str:
    obstacles = []
    for name in _AUTO:
        obstacle = find_obstacle(name)
        if obstacle is None:
            return name
        obstacles.append((name, obstacle))
    reasons = "; ".join(f"{name}: {obstacle.what}" for name, obstacle in obstacles)
    raise BackendUnavailable(
        f"backend: auto must find one that runs here; got none ({reasons}). {obstacles[-1][1].next_step}."
    )
