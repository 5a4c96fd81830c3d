"""TV-L1 optical flow and MM-COF: arrays in, arrays out; knows nothing of clips or files."""

from __future__ import annotations

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
