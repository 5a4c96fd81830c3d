"""How long a call takes: on the host until it returns, and on the device from its first to its last command.

Before each timed call a copy that is larger than the caches puts its inputs out of them, and the device comes to rest; so every
call begins alike. On a GPU two events are recorded on the backend's current stream, before and after the call; what the backend
does on other streams must have joined that one when the call returns, which holds for every array that a caller may use there.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from flowkit_kernels.backend import resolve_backend
from flowkit_kernels.host import cores

CPU_COPY_BYTES = 64 * 2**20
GPU_COPY_BYTES = 256 * 2**20
"""Size of a copy that is larger than the caches, and so long that its launch does not count."""
MIN_CALLS, MAX_CALLS = 3, 1000

Call = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Spread:
    """Repeated measurements of one thing, in seconds.

    Attributes
    ----------
    median, low, high : float
        The quartiles.
    least, most : float
    """

    median: float
    low: float
    high: float
    least: float
    most: float

    @classmethod
    def of(cls, seconds: list[float]) -> Spread:
        """Of two measurements or more."""
        low, median, high = statistics.quantiles(seconds, n=4, method="inclusive")
        return cls(median, low, high, min(seconds), max(seconds))


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a call takes.

    Attributes
    ----------
    calls : int
        Calls that were timed.
    host_s : Spread
        Until the call returned. With device arrays that may be before the device is done.
    device_s : Spread, optional
        Between the events around the call; None on the CPU.
    """

    calls: int
    host_s: Spread
    device_s: Spread | None


class Stopwatch(Protocol):
    """Where a backend keeps its arrays, and the clocks that it can be timed with; the first copy makes the buffers for it."""

    copy_bytes: int

    def place(self, array: npt.NDArray[Any]) -> Any:
        """The array in the memory that the backend computes in."""

    def fetch(self, array: Any) -> npt.NDArray[Any]:
        """An array of the backend as one of NumPy's."""

    def copy(self) -> None:
        """Copy `copy_bytes` from one buffer to another in that memory."""

    def lap(self, call: Call) -> tuple[float, float | None]:
        """Seconds of one call: until it returned, and on the device. Nothing runs on the device before or after it."""


def stopwatch(backend: str) -> Stopwatch:
    """The stopwatch for a backend; on a GPU, for the current one of this thread.

    Raises
    ------
    ParameterError, BackendUnavailable
    """
    made: dict[str, Callable[[], Stopwatch]] = {"cuda": _CupyStopwatch, "numba-cuda": _NumbaStopwatch}
    return made.get(resolve_backend(backend), _CpuStopwatch)()


def time_call(watch: Stopwatch, call: Call, seconds: float, warm_up_s: float = 0.0) -> Timing:
    """How long a call takes, over as many calls as fit into a time.

    Parameters
    ----------
    watch : Stopwatch
    call : callable
        Takes nothing. Compiles and allocates at its first call, which should have been made.
    seconds : float
        Time to spend, with all that goes on between the calls; 3 calls are timed at least, 1000 at most.
    warm_up_s : float
        Time of calls that are not counted, before that.
    """
    end = time.perf_counter() + warm_up_s
    while time.perf_counter() < end:
        watch.lap(call)
    laps: list[tuple[float, float | None]] = []
    end = time.perf_counter() + seconds
    while len(laps) < MIN_CALLS or (len(laps) < MAX_CALLS and time.perf_counter() < end):
        watch.copy()
        laps.append(watch.lap(call))
    device = [on_device for _, on_device in laps if on_device is not None]
    return Timing(len(laps), Spread.of([host for host, _ in laps]), Spread.of(device) if device else None)


def copy_bandwidth(watch: Stopwatch, seconds: float = 1.0) -> float:
    """Bytes a second of the best of several large copies, of what is read and what is written. On the CPU every core copies.

    The best and not the median: it is to say what the memory can do, and whatever else the machine does only slows a copy.
    """
    timing = time_call(watch, watch.copy, seconds, warm_up_s=seconds / 4)
    return 2 * watch.copy_bytes / (timing.device_s or timing.host_s).least


class _CpuStopwatch:
    copy_bytes = CPU_COPY_BYTES

    def __init__(self) -> None:
        self._threads = cores()
        source = np.arange(self.copy_bytes // 4, dtype=np.float32)
        self._sources = np.array_split(source, self._threads)
        self._targets = np.array_split(np.ones_like(source), self._threads)

    def place(self, array: npt.NDArray[Any]) -> Any:
        return array

    def fetch(self, array: Any) -> npt.NDArray[Any]:
        return np.asarray(array)

    def copy(self) -> None:
        with ThreadPoolExecutor(self._threads) as pool:
            list(pool.map(np.copyto, self._targets, self._sources))

    def lap(self, call: Call) -> tuple[float, float | None]:
        start = time.perf_counter()
        call()
        return time.perf_counter() - start, None


class _CupyStopwatch:
    copy_bytes = GPU_COPY_BYTES

    def __init__(self) -> None:
        import cupy

        from flowkit_kernels.cuda.device import translated_errors

        self._cupy, self._errors = cupy, translated_errors

    @functools.cached_property
    def _source(self) -> Any:
        with self._errors():
            return self._cupy.arange(self.copy_bytes // 4, dtype=self._cupy.float32)

    @functools.cached_property
    def _target(self) -> Any:
        with self._errors():
            return self._cupy.ones_like(self._source)

    def place(self, array: npt.NDArray[Any]) -> Any:
        with self._errors():
            return self._cupy.asarray(array)

    def fetch(self, array: Any) -> npt.NDArray[Any]:
        return np.asarray(self._cupy.asnumpy(array))

    def copy(self) -> None:
        self._cupy.copyto(self._target, self._source)

    def lap(self, call: Call) -> tuple[float, float | None]:
        stream = self._cupy.cuda.get_current_stream()
        before, after = self._cupy.cuda.Event(), self._cupy.cuda.Event()
        self._cupy.cuda.Device().synchronize()
        before.record(stream)
        start = time.perf_counter()
        call()
        host_s = time.perf_counter() - start
        after.record(stream)
        after.synchronize()
        return host_s, self._cupy.cuda.get_elapsed_time(before, after) / 1000


class _NumbaStopwatch:
    copy_bytes = GPU_COPY_BYTES

    def __init__(self) -> None:
        from numba import cuda

        from flowkit_kernels.numba_cuda.device import device_errors

        self._cuda, self._errors = cuda, device_errors

    @functools.cached_property
    def _source(self) -> Any:
        return self.place(np.arange(self.copy_bytes // 4, dtype=np.float32))

    @functools.cached_property
    def _target(self) -> Any:
        return self.place(np.ones(self.copy_bytes // 4, np.float32))

    def place(self, array: npt.NDArray[Any]) -> Any:
        with self._errors():
            return self._cuda.to_device(array)

    def fetch(self, array: Any) -> npt.NDArray[Any]:
        return np.asarray(array.copy_to_host() if hasattr(array, "copy_to_host") else array)

    def copy(self) -> None:
        self._target.copy_to_device(self._source)

    def lap(self, call: Call) -> tuple[float, float | None]:
        before, after = self._cuda.event(), self._cuda.event()
        self._cuda.synchronize()
        before.record()
        start = time.perf_counter()
        call()
        host_s = time.perf_counter() - start
        after.record()
        after.synchronize()
        elapsed_ms = before.elapsed_time(after)
        return host_s, elapsed_ms / 1000 if elapsed_ms >= 0 else None  # Numba's simulator knows no device time
