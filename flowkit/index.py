"""Deprecated: the index is `flowkit.Index`. This module will be removed in version 0.3."""

from __future__ import annotations

import importlib
import warnings
from typing import Any


def __getattr__(name: str) -> Any:
    """Find a name where it lies today, and say so."""
    module = importlib.import_module("flowkit.storage.index")
    if name.startswith("__") or not hasattr(module, name):
        raise AttributeError(f"module 'flowkit.index' has no attribute {name!r}")
    warnings.warn(
        f"flowkit.index.{name}: this module will be removed in version 0.3. Use flowkit.Index.",
        FutureWarning,
        stacklevel=2,
    )
    return getattr(module, name)
