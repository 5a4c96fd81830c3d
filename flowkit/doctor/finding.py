"""One thing that was looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warning", "missing"]
BROKEN = (ImportError, OSError, AttributeError, RuntimeError, ValueError, TypeError, SystemError)
"""What the import of a damaged or mismatched package raises."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes
    ----------
    name : str
    status : {"ok", "warning", "missing"}
        "missing": extract cannot run, or not as it should. What is optional and absent is "ok".
    detail : str
        What was found.
    next_step : str
        What to do; never empty unless the status is "ok".
    """

    name: str
    status: Status
    detail: str
    next_step: str = ""
