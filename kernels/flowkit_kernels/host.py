"""The machine as this process sees it: how many cores it may use, and which processor it has. Standard library only."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

ANSWER_S = 5.0
"""How long a command of the system may take to answer."""


def cores() -> int:
    """Return how many cores this process may use.

    Returns
    -------
    int
        On Linux fewer than the machine has where a batch system, a container or `taskset` grants fewer. macOS and Windows grant
        all of them.

    Examples
    --------
    >>> cores() >= 1
    True
    """
    if sys.version_info >= (3, 13):
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return the model name of the processor, as far as the system tells it.

    Parameters
    ----------
    cpuinfo : Path
        Where Linux tells it.
    """
    if sys.platform == "darwin":
        return _sysctl("machdep.cpu.brand_string") or platform.machine()
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _sysctl(name: str) -> str:
    """Ask the kernel of macOS, which has no /proc; its own command lies in no folder that a user's PATH must have."""
    try:
        done = subprocess.run(
            ["/usr/sbin/sysctl", "-n", name], capture_output=True, text=True, timeout=ANSWER_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
