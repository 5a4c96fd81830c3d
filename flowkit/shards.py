"""Deprecated: the readers are `flowkit.Shard` and `flowkit.ShardFolder`. This module will be removed in version 0.3."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

_HOMES = ("schema", "folder", "run_file", "shard_reader", "shard_writer", "shard_checks")


def __getattr__(name: str) -> Any:
    """Find a name where it lies today, and say so."""
    for home in _HOMES if not name.startswith("__") else ():
        module = importlib.import_module(f"flowkit.storage.{home}")
        if hasattr(module, name):
            warnings.warn(
                f"flowkit.shards.{name}: this module will be removed in version 0.3. Use flowkit.Shard and flowkit.ShardFolder.",
                FutureWarning,
                stacklevel=2,
            )
            return getattr(module, name)
    raise AttributeError(f"module 'flowkit.shards' has no attribute {name!r}")
