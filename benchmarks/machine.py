"""What a benchmark ran on, and how its results are stored: one JSON form for every script of this folder."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import multiprocessing
import os
import platform
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from flowkit_kernels.host import cores, processor

Task = TypeVar("Task")
Found = TypeVar("Found")
PACKAGES = (
    *("numpy", "numba", "llvmlite", "opencv-contrib-python", "opencv-python-headless", "h5py", "av", "mediapipe"),
    *("torch", "cupy-cuda12x", "cupy-cuda13x", "numba-cuda"),
)


def describe() -> dict[str, Any]:
    """CPU, cores, memory, system, versions of Python and of the packages that are installed, and the date."""
    return {
        "cpu": processor(),
        "cores": cores(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": _versions(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def spread(
    todo: Sequence[Task], start: Callable[[], None], work: Callable[[Task], list[Found]], workers: int
) -> list[Found]:
    """Do pieces of work in processes of their own, in order; say on stderr how far it is."""
    found: list[Found] = []
    began = time.monotonic()
    with multiprocessing.get_context("spawn").Pool(workers, start) as pool:
        for done, more in enumerate(pool.imap(work, todo), 1):
            found += more
            print(
                f"\r{done} of {len(todo)} people and groups, {time.monotonic() - began:.0f} s", end="", file=sys.stderr
            )
    print(file=sys.stderr)
    return found


def write(path: str | Path, name: str, results: Any) -> None:
    """Store the results of a benchmark, with the machine's description, as JSON."""
    document = {"benchmark": name, "machine": describe(), "results": results}
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(_folded(json.dumps(document, indent=2)) + "\n", encoding="utf-8")


def _folded(text: str) -> str:
    """Return indented JSON with each innermost object on one line; strings in JSON hold no line breaks, so none is changed."""
    innermost = re.compile(r'\{\n *("[^{}\[\]]*?)\n *\}')
    return innermost.sub(lambda found: "{" + re.sub(r"\n *", " ", found[1]) + "}", text)


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # not installed, so it had no part in the run
    return found
