"""TV-L1 optical flow and MM-COF: arrays in, arrays out; knows nothing of clips or files.

Names are loaded on first use, so that whoever needs only the errors does not pay for NumPy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowkit_kernels.backend import available_backends, is_compiled, resolve_backend, warm_up
    from flowkit_kernels.errors import (
        BackendUnavailable,
        DeviceLost,
        DeviceOutOfMemory,
        FlowkitError,
        ParameterError,
        ShapeError,
    )
    from flowkit_kernels.operations import mmcof, phase_flow, tvl1_flow
    from flowkit_kernels.params import MMCOFParams, TVL1Params

_HOME = {
    "BackendUnavailable": "flowkit_kernels.errors",
    "DeviceLost": "flowkit_kernels.errors",
    "DeviceOutOfMemory": "flowkit_kernels.errors",
    "FlowkitError": "flowkit_kernels.errors",
    "MMCOFParams": "flowkit_kernels.params",
    "ParameterError": "flowkit_kernels.errors",
    "ShapeError": "flowkit_kernels.errors",
    "TVL1Params": "flowkit_kernels.params",
    "available_backends": "flowkit_kernels.backend",
    "is_compiled": "flowkit_kernels.backend",
    "mmcof": "flowkit_kernels.operations",
    "phase_flow": "flowkit_kernels.operations",
    "resolve_backend": "flowkit_kernels.backend",
    "tvl1_flow": "flowkit_kernels.operations",
    "warm_up": "flowkit_kernels.backend",
}

__all__ = [
    "BackendUnavailable",
    "DeviceLost",
    "DeviceOutOfMemory",
    "FlowkitError",
    "MMCOFParams",
    "ParameterError",
    "ShapeError",
    "TVL1Params",
    "available_backends",
    "is_compiled",
    "mmcof",
    "phase_flow",
    "resolve_backend",
    "tvl1_flow",
    "warm_up",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'flowkit_kernels' has no attribute {name!r}")
