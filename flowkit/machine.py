"""What computes here: versions and processor, which every run and report names."""

from __future__ import annotations

import importlib.metadata
import platform
from pathlib import Path

from flowkit import __version__

VERSIONED = ("numpy", "numba", "opencv-contrib-python", "h5py", "mediapipe", "av", "Pillow")


def versions() -> dict[str, str]:
    """Of flowkit, Python, and each package that has a say in the bytes of a shard."""
    return {"flowkit": __version__, "python": platform.python_version(), **{name: _version(name) for name in VERSIONED}}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def processor() -> str:
    """Model name of the CPU, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
