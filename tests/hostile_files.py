"""What lies in the place of a file and is none, and a limit on the memory that reading it may take."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MOST_MB = 100
"""What reading a hostile file of a few kB may take."""


@contextmanager
def little_memory() -> Iterator[None]:
    """Fail if the process grows by more than `MOST_MB` meanwhile."""
    status, refs = Path("/proc/self/status"), Path("/proc/self/clear_refs")

    def held(name: str) -> int:
        return next(int(line.split()[1]) >> 10 for line in status.read_text().splitlines() if line.startswith(name))

    refs.write_text("5")  # forget the peak so far
    before = held("VmRSS")
    yield
    assert held("VmHWM") - before < MOST_MB


def no_file(path: Path, kind: str) -> None:
    """Put something in the place of a file that is none, and that a careless reader would read for ever."""
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listening:
            here = Path.cwd()
            os.chdir(path.parent)  # the name of a socket must be short
            try:
                listening.bind(path.name)
            finally:
                os.chdir(here)
    elif kind == "endless":
        path.touch()
        os.truncate(path, 1 << 40)  # takes no room on the disk


KINDS = ("pipe", "folder", "device", "socket", "endless")
