"""Makes a real command fall ill: with this folder first on PYTHONPATH, some clips end or stop the process that works on them.

Which clips do what stands in FLOWKIT_SICK, as JSON: {clip id: illness}.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

SICK: dict[str, str] = json.loads(os.environ.get("FLOWKIT_SICK", "{}"))


def fall_ill(illness: str) -> None:
    """Do what a broken decoder, a full memory or a stalled network disk would do."""
    if illness == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if illness == "killed":
        os.kill(os.getpid(), signal.SIGKILL)  # as when the memory is full
    if illness == "stopped":
        os.kill(os.getpid(), signal.SIGSTOP)
    if illness == "hangs":
        time.sleep(600)
    if illness == "bug":
        raise RuntimeError("nobody thought of this")


def read_or_fall_ill(read: Any, clip: Any, root: Path, *rest: Any) -> Any:
    """Stand in for `read_frames` in a worker."""
    illness = SICK.get(clip.clip_id, "")
    fall_ill(illness)
    if illness != "changes":
        return read(clip, root, *rest)
    read_bytes = Path.read_bytes

    def read_and_append(path: Path) -> bytes:
        content = read_bytes(path)
        with path.open("ab") as file:
            file.write(b"more")
        return content

    Path.read_bytes = read_and_append  # type: ignore[method-assign]
    try:
        return read(clip, root, *rest)
    finally:
        Path.read_bytes = read_bytes  # type: ignore[method-assign]


def spoil_flow(judge: Any, raw: Any, faces: Any, *rest: Any) -> Any:
    """Stand in for `stabilised`, where every flow is checked: some arrive there spoilt, or late."""
    for index, where in enumerate(rest[-1]):
        illness = next((what for name, what in SICK.items() if f"({name})" in where), "")
        if illness == "no number":
            raw[index][0, 0, 5, 5] = float("nan")
        if illness == "absurd":
            raw[index][0, 0, 5, 5] = 1e4
        if illness == "slow":
            Path(os.environ["FLOWKIT_SICK_MARK"]).touch()
            for _ in range(600):
                time.sleep(0.1)
    return judge(raw, faces, *rest)


if SICK and any("spawn_main" in argument for argument in sys.orig_argv):
    from flowkit.extraction import compute, read_and_align

    read_and_align.read_frames = functools.partial(read_or_fall_ill, read_and_align.read_frames)  # type: ignore[assignment]
    compute.stabilised = functools.partial(spoil_flow, compute.stabilised)  # type: ignore[assignment]
