"""Which implementations of the operations exist, which of them run on this machine, and how they are loaded.

A backend is a module with two functions, `tvl1_flow(reference, moving, params, threads)` and
`mmcof(flow, params, region, threads)`, that take what the public functions of the same name have checked. It is imported at
its first call and not before: `import flowkit_kernels` costs NumPy and nothing else.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
import numpy.typing as npt

from flowkit_kernels.errors import BackendUnavailable, ParameterError

if TYPE_CHECKING:
    from flowkit_kernels.mmcof import MMCOFParams
    from flowkit_kernels.tvl1 import TVL1Params


class Operations(Protocol):
    """What every backend module offers."""

    def tvl1_flow(
        self,
        reference: npt.NDArray[np.float32],
        moving: npt.NDArray[np.float32],
        params: TVL1Params,
        threads: int,
    ) -> npt.NDArray[np.float32]:
        """(N, H, W), (N, H, W) -> (N, 2, H, W)."""

    def mmcof(
        self,
        flow: npt.NDArray[np.float32],
        params: MMCOFParams,
        region: npt.NDArray[np.bool_],
        threads: int,
    ) -> npt.NDArray[np.float32]:
        """(N, 2, 2, H, W), (N, H, W) -> (N, 3, H, W)."""


@dataclass(frozen=True, slots=True)
class _Backend:
    """Where a backend lives, and a probe that says in words why it cannot run here ("" where it can)."""

    module: str
    obstacle: Callable[[], str]


def _absent() -> str:
    return "it is not part of this version"


def _numba_obstacle() -> str:
    return "" if importlib.util.find_spec("numba") else "numba is not installed"


_BACKENDS = {
    "cuda": _Backend("flowkit_kernels.cuda", _absent),
    "numba-cuda": _Backend("flowkit_kernels.cuda_numba", _absent),
    "cpu": _Backend("flowkit_kernels.cpu", _numba_obstacle),
    "reference": _Backend("flowkit_kernels.reference", lambda: ""),
}
_AUTO = ("cuda", "cpu")
"""What "auto" tries, in this order."""


def available_backends() -> tuple[str, ...]:
    """Names of the backends that run on this machine, fastest first."""
    return tuple(name for name, backend in _BACKENDS.items() if not backend.obstacle())


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
    obstacle = _BACKENDS[name].obstacle()
    if obstacle:
        raise BackendUnavailable(
            f"backend: {name} must be able to run here; got an obstacle: {obstacle}. Pass --backend cpu."
        )
    return name


def load_operations(name: str) -> Operations:
    """Import the module behind a backend's name, which `resolve_backend` may still have to make concrete."""
    return cast(Operations, importlib.import_module(_BACKENDS[resolve_backend(name)].module))


def _resolve_auto() -> str:
    obstacles = {name: _BACKENDS[name].obstacle() for name in _AUTO}
    for name, obstacle in obstacles.items():
        if not obstacle:
            return name
    reasons = "; ".join(f"{name}: {obstacle}" for name, obstacle in obstacles.items())
    raise BackendUnavailable(f"backend: auto must find one that runs here; got none ({reasons}). Install numba.")
