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
from flowkit_kernels.mmcof import MMCOFParams, mmcof
from flowkit_kernels.tvl1 import TVL1Params, phase_flow, tvl1_flow

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
