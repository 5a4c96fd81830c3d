"""What computes here: versions and processor, which every run and report names."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from collections.abc import Sequence

from flowkit._version import __version__
from flowkit.errors import EnvironmentMissing
from flowkit_kernels.host import cores, processor

__all__ = ["cores", "processor", "refuse_windows", "versions", "versions_of"]
VERSIONED = ("numpy", "numba", "opencv-contrib-python", "h5py", "mediapipe", "av", "Pillow")
VERSIONED_ON_GPU = {"cuda": ("cupy-cuda12x", "cupy-cuda13x", "cupy"), "numba-cuda": ("numba-cuda",)}
"""What a GPU backend adds; CuPy goes by one of three names."""
ABSENT = "not installed"


def versions(backend: str = "cpu") -> dict[str, str]:
    """Of flowkit, Python, and each package that has a say in the bytes of a shard."""
    on_gpu = {name: _version(name) for name in VERSIONED_ON_GPU.get(backend, ())}
    return {
        **versions_of(VERSIONED),
        **{name: version for name, version in on_gpu.items() if version != ABSENT},
    }


def versions_of(packages: Sequence[str]) -> dict[str, str]:
    """Return the versions of flowkit, of Python, and of these packages, "not installed" for one that is absent."""
    return {
        "flowkit": __version__,
        "python": platform.python_version(),
        **{name: _version(name) for name in packages},
    }


def refuse_windows(command: str) -> None:
    """Refuse what needs Linux or macOS.

    Raises
    ------
    EnvironmentMissing
    """
    if sys.platform == "win32":
        raise EnvironmentMissing(
            f"{command}: this command needs Linux or macOS; this is Windows. Run it there or in WSL. Shards can be read, and "
            "networks trained, here."
        )


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ABSENT
