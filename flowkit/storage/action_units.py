"""The action units whose strength a shard holds (column `au_hint`), by name and in order; imports nothing."""

from __future__ import annotations

from typing import Final

_NAMES = """
    1L 1R 2L 2R 4L 4R 5L 5R 6L 6R 7L 7R 9L 9R 10L 10R 12L 12R 14L 14R 15L 15R 16L 16R 17B 20L 20R 24L 24R 25L 25R 26B 45L 45R
"""
ACTION_UNITS: Final = tuple(_NAMES.split())
"""Number and side: L and R are the subject's left and right, B is both."""
DEPTH_MODES: Final = 16
"""Smooth changes by which the depth of faces differs: `head_shape` has them."""
