"""How much memory processes may have here, where somebody set a limit: for messages about processes that did not live."""

from __future__ import annotations

import ctypes
import gc
import importlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from flowkit.errors import EnvironmentMissing

_M_MMAP_THRESHOLD, _LARGE_BYTES = -3, 1 << 17
"""glibc's number for the size from which on a block is the system's own, and that size."""

NEEDED_BYTES = 5 * 2**28
"""Address space of a process that extracts. With 1 GiB it crashed, hung or ran out of threads; with 1.2 GB it ran."""
_SHORTAGE = re.compile(
    "SIG(ABRT|KILL|SEGV|BUS)|MemoryError|bad_alloc|Cannot allocate memory|failed to map segment|can't start new thread"
)
"""How a process or an exception ends that got no memory; other things may end so, too."""


def memory_advice(how: str) -> str:
    """Whether memory may be why a process ended as it did, and what to do; empty if nothing speaks for that.

    Parameters
    ----------
    how : str
        A signal's name, or an error's text.

    Returns
    -------
    str
        To be put behind a sentence: without a dot at its end, with one and a blank before it.
    """
    if not _SHORTAGE.search(how):
        return ""
    if limit := _address_space():
        return f". Memory may be why: a process may have {_gigabytes(limit)} here (ulimit -v). Raise that limit"
    if limit := _group_memory():
        return (
            f". Memory may be why: all processes of this container or job may have {_gigabytes(limit)} together. Use fewer "
            "workers, or raise that limit"
        )
    return ". Memory may be why: use fewer workers, or end what else runs here" if "SIGKILL" in how else ""


def check_address_space() -> None:
    """Refuse a limit of the address space under which native libraries hang or crash while their threads start.

    Raises
    ------
    EnvironmentMissing
    """
    limit = _address_space()
    if 0 < limit < NEEDED_BYTES:
        raise EnvironmentMissing(
            f"memory: a process may have {_gigabytes(limit)} here (ulimit -v), and extraction needs "
            f"{_gigabytes(NEEDED_BYTES)}. Raise that limit."
        )


def _gigabytes(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"


def _address_space() -> int:
    """Bytes that one process may map; 0 for no limit, or where the system knows none."""
    try:
        resource = importlib.import_module("resource")  # Windows has none
        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    except (ImportError, AttributeError, OSError):
        return 0
    return 0 if limit == resource.RLIM_INFINITY else int(limit)


def _group_memory() -> int:
    """Bytes that the control group of this process may use, if that is less than the machine has; else 0."""
    try:
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        limits = [limit for limit in _group_limits() if limit < machine]
    except (AttributeError, ValueError, OSError):
        return 0
    return min(limits, default=0)


def _group_limits(membership: Path = Path("/proc/self/cgroup"), groups: Path = Path("/sys/fs/cgroup")) -> Iterator[int]:
    """The limit of the control group and of each above it, by either version of control groups."""
    for line in membership.read_text(encoding="utf-8").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        root, name = (groups / controllers, "memory.limit_in_bytes" if controllers else "memory.max")
        group = root / path.lstrip("/")
        for folder in (group, *group.parents):
            if not folder.is_relative_to(root):
                break
            text = (folder / name).read_text(encoding="utf-8").strip() if (folder / name).is_file() else "max"
            if text.isdecimal():
                yield int(text)


def give_back_large_blocks() -> None:
    """Have the C library return each large block to the system when it is freed, where it can.

    By itself it learns from the first pictures that are freed to keep such blocks, and what comes between leaves them in pieces:
    a process that decodes grows.
    """
    choose = getattr(ctypes.CDLL(None), "mallopt", None)
    if choose is not None:
        choose(_M_MMAP_THRESHOLD, _LARGE_BYTES)


def give_back() -> None:
    """Return freed memory to the system, where the C library can.

    PyAV's containers and streams hold each other, with all the memory of a decoder, until such circles are looked for.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
