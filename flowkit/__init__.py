"""flowkit: dual-phase TV-L1 optical flow and MM-COF of micro-expression clips, into HDF5 shards.

    import flowkit

    summary = flowkit.extract("clips.csv", "out")

Names are loaded on first use, so that a reader of shards pays for h5py and nothing else.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowkit.config import ExtractConfig, load_config
    from flowkit.execution.progress import LoggingReporter
    from flowkit.execution.stop import Stop
    from flowkit.extraction.options import RunOptions
    from flowkit.extraction.pipeline import extract
    from flowkit.extraction.summary import Summary
    from flowkit.storage.folder import ShardFolder
    from flowkit.storage.shard_reader import Shard

__version__ = "0.2.0"

_HOME = {
    "ExtractConfig": "flowkit.config",
    "LoggingReporter": "flowkit.execution.progress",
    "RunOptions": "flowkit.extraction.options",
    "Shard": "flowkit.storage.shard_reader",
    "ShardFolder": "flowkit.storage.folder",
    "Stop": "flowkit.execution.stop",
    "Summary": "flowkit.extraction.options",
    "extract": "flowkit.extraction.pipeline",
    "load_config": "flowkit.config",
}

__all__ = [
    "ExtractConfig",
    "LoggingReporter",
    "RunOptions",
    "Shard",
    "ShardFolder",
    "Stop",
    "Summary",
    "__version__",
    "extract",
    "load_config",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'flowkit' has no attribute {name!r}")
