"""System libraries that pip cannot install: which of them are missing, and the line that installs them.

Imports nothing but the standard library, so that `make` can run this file before anything is installed.
"""

from __future__ import annotations

import ctypes
import sys

LIBRARIES = {
    "libGL.so.1": "libgl1",  # cv2
    "libglib-2.0.so.0": "libglib2.0-0",  # cv2
    "libEGL.so.1": "libegl1",  # mediapipe
    "libGLESv2.so.2": "libgles2",  # mediapipe
}
"""Library and the Debian package that brings it."""


def missing_system_libraries() -> list[tuple[str, str]]:
    """Return (library, Debian package) of each that cannot be loaded; only on Linux do the wheels need any."""
    if sys.platform != "linux":
        return []
    return [(library, package) for library, package in LIBRARIES.items() if not _loads(library)]


def install_line(missing: list[tuple[str, str]]) -> str:
    """The command that installs them on Debian and Ubuntu."""
    return "sudo apt-get install -y " + " ".join(sorted({package for _, package in missing}))


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    absent = missing_system_libraries()
    if absent:
        sys.stderr.write(
            f"system: libraries must be installed; missing: {', '.join(library for library, _ in absent)}. "
            f"Install them: {install_line(absent)}\n"
        )
        sys.exit(3)
