"""Where the caller's arrays lie, and what they become: NumPy arrays stay with NumPy, what lies on a GPU stays there."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from flowkit_kernels import backend as backends
from flowkit_kernels.checks import Ranges
from flowkit_kernels.errors import ShapeError

_ON_GPU = (2, 13)
"""DLPack's numbers for memory of a GPU, plain and managed."""


class CallArrays(NamedTuple):
    """Arrays of one call where they will be computed."""

    operations: backends.Operations
    arrays: list[Any]
    ranges: Ranges
    give_back: Callable[[Any], Any]
    """The result as an array of the library that the first array came from."""


def place(where: str, arrays: Mapping[str, Any], backend: str) -> CallArrays:
    """Find out where a call runs.

    Parameters
    ----------
    where : str
        What messages call the function.
    arrays : mapping of str to array
        Arguments by name: all NumPy arrays (or others that lie in the host's memory and speak DLPack), or all on one GPU
        (CuPy arrays, or others with `__cuda_array_interface__` or DLPack).
    backend : str

    Returns
    -------
    CallArrays
        Nothing is copied.

    Raises
    ------
    ShapeError
        Some lie on a GPU and others do not, they lie on two GPUs, or on one while the backend computes on the CPU.
    ParameterError, BackendUnavailable
        As `backend.resolve_backend`.
    """
    first_name, first = next(iter(arrays.items()))
    on_gpu = lies_on_gpu(first)
    for name, array in arrays.items():
        if lies_on_gpu(array) != on_gpu:
            raise ShapeError(
                f"{where}: {name} must lie where {first_name} does; got one on a GPU, the other not. Move one of them."
            )
    if not on_gpu:
        adopted = [_in_host_memory(where, name, array) for name, array in arrays.items()]
        return CallArrays(
            backends.load_operations(backend), adopted, host_ranges, lambda result: _as_library_of(first, result)
        )
    name = backends.resolve_backend("cuda" if backend == "auto" else backend)
    if name not in backends.GPU_BACKENDS:
        raise ShapeError(
            f"{where}: {first_name} must lie in the host's memory for the backend {name}; got {_kind(first)} on a GPU. Pass "
            f"one of the backends {', '.join(backends.GPU_BACKENDS)}, or copy it."
        )
    operations = cast(backends.GpuOperations, backends.load_operations(name))
    adopted = [operations.adopt(where, name, array) for name, array in arrays.items()]
    _on_one_gpu(where, dict(zip(arrays, adopted, strict=True)))

    def give_back(result: Any) -> Any:
        with getattr(result, "device", nullcontext()):  # CuPy lets the taker wait for the current GPU's stream
            return _as_library_of(first, result)

    return CallArrays(operations, adopted, operations.ranges, give_back)


def lies_on_gpu(array: Any) -> bool:
    """Whether an array says that its memory is a GPU's."""
    if isinstance(array, np.ndarray):
        return False
    if hasattr(array, "__dlpack_device__"):
        return int(array.__dlpack_device__()[0]) in _ON_GPU
    return hasattr(array, "__cuda_array_interface__")


def host_ranges(array: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """As `Ranges`, of a NumPy array."""
    axes = tuple(range(1, array.ndim))
    return np.stack([array.min(axis=axes), array.max(axis=axes)], axis=1).astype(np.float32)


def _in_host_memory(where: str, name: str, array: Any) -> Any:
    """A NumPy array over the same memory, where DLPack gives one; `checks` refuses everything else."""
    if isinstance(array, np.ndarray) or not hasattr(array, "__dlpack__"):
        return array
    try:
        return np.from_dlpack(array)
    except (BufferError, RuntimeError, TypeError, NotImplementedError) as error:
        raise ShapeError(  # of torch: a tensor with a gradient, or of a type that nobody else knows
            f"{where}: {name} must be an array that NumPy can take over; got {type(array).__name__} ({error}). Convert it to "
            "plain float32 first, a torch tensor with .detach()."
        ) from error


def _as_library_of(like: Any, result: Any) -> Any:
    """The result over the same memory, through DLPack, in the library of `like` where that knows how."""
    library = sys.modules.get(type(like).__module__.partition(".")[0])
    takes = getattr(library, "from_dlpack", None)
    same = type(result).__module__.partition(".")[0] == getattr(library, "__name__", "")
    return result if same or takes is None or not hasattr(result, "__dlpack__") else takes(result)


def _on_one_gpu(where: str, arrays: Mapping[str, Any]) -> None:
    """Arrays that name their GPU must name the same; those that do not were adopted on the current one."""
    numbers = {name: int(array.device.id) for name, array in arrays.items() if hasattr(array, "device")}
    if len(set(numbers.values())) > 1:
        found = ", ".join(f"{name} on {number}" for name, number in numbers.items())
        raise ShapeError(f"{where}: arrays must lie on one GPU; got {found}. Move them together.")


def _kind(array: Any) -> str:
    return f"{type(array).__module__.partition('.')[0]}.{type(array).__name__}"
