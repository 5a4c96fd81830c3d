"""The small part of CuPy that the CUDA backend uses, on this machine's memory, with kernels that `runner.py` runs.

It behaves as badly as CUDA allows. What is put on a stream waits there until the host forces it; then the streams are worked
off in an order that only events hold, chosen by `schedule`:

    lazy     the stream that the host waits for, and of the others what it waits for itself
    eager    all others as far as they come, that stream last
    random   any, by the seed

so a forgotten event shows as wrong numbers. New memory is NaN. Freed memory becomes NaN on the stream that it was allocated on,
as CuPy's pool may hand it out again there at once; freed pinned memory at once. Copies look at host memory when they run.
Streams never wait for the default stream: the backend's are all non-blocking.

Every launch, copy, allocation and capture is in `Machine.log`.
"""

from __future__ import annotations

import ctypes
import dataclasses
import errno
import importlib.machinery
import random
import sys
import threading
import time
import types
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from runner import SHARED_BYTES, CpuModule

VERSION = "14.2.0"
SCHEDULES = ("lazy", "eager", "random")
POOL_UNIT = 512
OPT_IN_SHARED_BYTES = 99 * 1024
POISON = 0xFF
STATUSES = {
    2: "cudaErrorMemoryAllocation: out of memory",
    101: "cudaErrorInvalidDevice: invalid device ordinal",
    700: "cudaErrorIllegalAddress: an illegal memory access was encountered",
    600: "cudaErrorNotReady: device not ready",
    719: "cudaErrorLaunchFailure: unspecified launch failure",
    900: "cudaErrorStreamCaptureUnsupported: operation not permitted when stream is capturing",
}


class CUDARuntimeError(RuntimeError):
    """As cupy.cuda.runtime has it."""

    def __init__(self, status: int) -> None:
        self.status = status
        super().__init__(STATUSES.get(status, f"cudaError {status}"))


class CUDADriverError(RuntimeError):
    """As cupy.cuda.driver has it."""

    def __init__(self, status: int) -> None:
        self.status = status
        super().__init__(STATUSES.get(status, f"CUDA_ERROR {status}"))


class OutOfMemoryError(MemoryError):
    """As cupy.cuda.memory has it."""

    def __init__(self, size: int, total: int, limit: int = 0) -> None:
        super().__init__(f"Out of memory allocating {size:,} bytes (allocated so far: {total:,} bytes).")


class CompileException(Exception):
    """As cupy.cuda.compiler has it."""


class StandinError(Exception):
    """A use of CuPy that is wrong on a GPU, or that the stand-in does not know."""


# What happens -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """One line of the log."""

    kind: str
    """launch, upload, download, copy, fill, allocate, capture, graph."""
    stream: int
    name: str = ""
    grid: tuple[int, ...] = ()
    block: tuple[int, ...] = ()
    arguments: tuple[str, ...] = ()
    """Type of each: `float32` of a scalar, `float32[2, 16, 16]` of an array."""
    shared_bytes: int = 0
    nbytes: int = 0


@dataclass
class Mark:
    """A place in a stream that an event stands for."""

    stream: Stream
    passed: bool = False
    time_s: float = 0.0

    def pass_by(self) -> None:
        self.passed, self.time_s = True, time.perf_counter()


@dataclass
class Operation:
    """Something on a stream; one that waits is held by its mark."""

    run: Callable[[], None]
    waits_for: Mark | None = None

    def ready(self) -> bool:
        return self.waits_for is None or self.waits_for.passed


@dataclass
class Memory:
    """Memory of a device, and CuPy's pool in it, which keeps what is given back for the stream that it was allocated on.

    The pool asks the device for more where that stream's free bytes do not suffice. Its limit counts free bytes of all streams,
    and no free byte is given up to keep it; where the device is full, all are.
    """

    total: int
    used: int = 0
    peak: int = 0
    limit: int = 0
    """Of the pool; 0: none."""
    free: Counter[int] = field(default_factory=Counter)
    """Bytes that the pool keeps, by stream."""

    @property
    def kept(self) -> int:
        return self.free.total()

    def take(self, size: int, stream: int) -> None:
        if self.free[stream] >= size:
            self.free[stream] -= size
        else:
            if self.limit and self.used + self.kept + size > self.limit:
                raise OutOfMemoryError(size, self.used + self.kept, self.limit)
            if self.used + self.kept + size > self.total:
                self.free.clear()
            if self.used + size > self.total:
                raise OutOfMemoryError(size, self.used)
        self.used += size
        self.peak = max(self.peak, self.used)

    def give_back(self, size: int, stream: int) -> None:
        self.used -= size
        self.free[stream] += size


class Current(threading.local):
    """Device and streams that a thread works with."""

    def __init__(self) -> None:
        self.device = 0
        self.streams: dict[int, Stream] = {}
        self.entered: dict[int, list[Stream]] = {}
        """Streams of the with-blocks that the thread is in, by device: `use` does not stand among them."""


@dataclass
class Machine:
    """The devices behind the stand-in."""

    schedule: str = "random"
    order: str = "forward"
    """Of threads and blocks, as in `CpuModule`."""
    seed: int = 0
    memory_bytes: int = 1 << 30
    devices: int = 1
    edit: Callable[[str], str] = lambda source: source
    """Applied to every source before it is built."""
    sanitize: bool = False
    log: list[Entry] = field(default_factory=list)
    attributes: dict[str, int] = field(default_factory=dict)
    """Of every device, where they are to differ."""
    lost: int = 0
    """A CUDA error code that everything answers with from now on; 0: all is well."""

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule must be one of {SCHEDULES}; got {self.schedule!r}")
        self.memory = [Memory(self.memory_bytes) for _ in range(self.devices)]
        self.current = Current()
        self.streams: list[Stream] = []
        self.default_streams = [Stream(_machine=self, _device=device) for device in range(self.devices)]
        self.pinned: dict[int, npt.NDArray[np.uint8]] = {}
        self._random = random.Random(self.seed)
        self._lock = threading.RLock()

    def launches(self, name: str = "") -> list[Entry]:
        """The launches so far, or those of one kernel."""
        return [entry for entry in self.log if entry.kind == "launch" and name in ("", entry.name)]

    def note(self, kind: str, stream: Stream, **details: Any) -> None:
        self.log.append(Entry(kind, stream.number, **details))

    def check(self) -> None:
        if self.lost:
            raise CUDARuntimeError(self.lost)

    def put(self, stream: Stream, run: Callable[[], None], waits_for: Mark | None = None) -> None:
        """At the end of a stream, or into the graph that it is captured for."""
        self.check()
        (stream.queue if stream.captured is None else stream.captured).append(Operation(run, waits_for))

    def finish(self, target: Stream, done: Callable[[], bool]) -> None:
        """What the host does while it waits."""
        self.check()
        with self._lock:
            while not done():
                self.step(target)

    def step(self, target: Stream) -> None:
        """One operation of one stream."""
        runnable = [stream for stream in self.streams if stream.queue and stream.queue[0].ready()]
        if not runnable:
            raise StandinError("the host waits for what nothing will ever do")
        self._choose(runnable, target).queue.popleft().run()

    def _choose(self, runnable: list[Stream], target: Stream) -> Stream:
        if self.schedule == "random":
            return self._random.choice(runnable)
        if self.schedule == "eager":
            return next((stream for stream in runnable if stream is not target), runnable[0])
        while target.queue and (mark := target.queue[0].waits_for) and not mark.passed:
            target = mark.stream
        return target if target in runnable else runnable[0]

    def host_memory(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The same bytes, without keeping pinned memory from being freed, as a copy on a GPU does not keep it either."""
        for start, storage in self.pinned.items():
            offset = array.ctypes.data - start
            if offset >= 0 and offset + array.nbytes <= storage.nbytes:
                return storage[offset : offset + array.nbytes].view(array.dtype).reshape(array.shape)
        return array

    def is_pinned(self, array: npt.NDArray[Any]) -> bool:
        return self.host_memory(array) is not array


_machine: Machine


# Streams ----------------------------------------------------------------------------------------------------------------


class Stream:
    """cupy.cuda.Stream."""

    null: Stream

    def __init__(
        self,
        null: bool = False,
        non_blocking: bool = False,
        ptds: bool = False,
        priority: int | None = None,
        *,
        _machine: Machine | None = None,
        _device: int = 0,
    ) -> None:
        if _machine is None:
            _machine, _device = globals()["_machine"], globals()["_machine"].current.device
            if null or ptds or not non_blocking:
                raise StandinError("the stand-in knows non-blocking streams only")
        self.machine, self.device_id = _machine, _device
        self.number = len(self.machine.streams)
        self.queue: deque[Operation] = deque()
        self.captured: list[Operation] | None = None
        self.machine.streams.append(self)

    @property
    def ptr(self) -> int:
        return 0 if self in self.machine.default_streams else 0x1000 + self.number

    @property
    def done(self) -> bool:
        if self.queue:
            self.machine.step(self)  # so that whoever asks again and again gets there
        return not self.queue

    def use(self) -> Stream:
        if self.device_id != self.machine.current.device:
            raise RuntimeError("the stream belongs to another device")
        self.machine.current.streams[self.device_id] = self
        return self

    def __enter__(self) -> Stream:
        self.use()
        self.machine.current.entered.setdefault(self.device_id, []).append(self)
        return self

    def __exit__(self, *_: object) -> None:
        entered = self.machine.current.entered[self.device_id]
        entered.pop()
        outer = entered[-1] if entered else self.machine.default_streams[self.device_id]
        self.machine.current.streams[self.device_id] = outer  # whatever `use` had chosen before: as CuPy has it

    def synchronize(self) -> None:
        if self.captured is not None:
            raise CUDARuntimeError(900)
        self.machine.finish(self, lambda: not self.queue)

    def record(self, event: Event | None = None) -> Event:
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        mark = event.mark
        if mark is not None and not (mark.stream is self and self.captured is not None):
            if self.captured is not None or mark.stream.captured is not None:
                raise StandinError("a capture must stay on its one stream here")
            self.machine.put(self, lambda: None, mark)

    def begin_capture(self, mode: int | None = None) -> None:
        if self.captured is not None or not self.ptr:
            raise CUDARuntimeError(900)
        self.captured = []

    def end_capture(self) -> Graph:
        if self.captured is None:
            raise CUDARuntimeError(900)
        operations, self.captured = self.captured, None
        self.machine.note("capture", self)
        return Graph(self.machine, operations)

    def is_capturing(self) -> bool:
        return self.captured is not None


class Graph:
    """cupy.cuda.Graph."""

    def __init__(self, machine: Machine, operations: list[Operation]) -> None:
        self._machine, self._operations = machine, operations

    def launch(self, stream: Stream | None = None) -> None:
        stream = stream or get_current_stream()
        self._machine.note("graph", stream)
        for operation in self._operations:
            self._machine.put(stream, operation.run)

    def upload(self, stream: Stream | None = None) -> None:
        """Nothing to do."""


class Event:
    """cupy.cuda.Event."""

    def __init__(self, block: bool = False, disable_timing: bool = False, interprocess: bool = False) -> None:
        self.mark: Mark | None = None

    def record(self, stream: Stream | None = None) -> None:
        stream = stream or get_current_stream()
        mark = self.mark = Mark(stream)
        stream.machine.put(stream, mark.pass_by)

    def synchronize(self) -> None:
        if self.mark is not None:
            mark = self.mark
            mark.stream.machine.finish(mark.stream, lambda: mark.passed)

    @property
    def done(self) -> bool:
        if self.mark is not None and not self.mark.passed:
            self.mark.stream.machine.step(self.mark.stream)
        return self.mark is None or self.mark.passed


def get_elapsed_time(start: Event, end: Event) -> float:
    """cupy.cuda.get_elapsed_time: milliseconds, of this CPU."""
    if start.mark is None or end.mark is None or not (start.mark.passed and end.mark.passed):
        raise CUDARuntimeError(600)
    return 1000 * (end.mark.time_s - start.mark.time_s)


def get_current_stream(device_id: int | None = None) -> Stream:
    """cupy.cuda.get_current_stream."""
    device = _machine.current.device if device_id is None else device_id
    return _machine.current.streams.get(device, _machine.default_streams[device])


class Device:
    """cupy.cuda.Device."""

    def __init__(self, device: int | Device | None = None) -> None:
        if device is None:
            device = _machine.current.device
        self.id = int(device)
        self._outer: list[int] = []

    def __int__(self) -> int:
        return self.id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    def use(self) -> None:
        _machine.check()
        if not 0 <= self.id < _machine.devices:
            raise CUDARuntimeError(101)
        _machine.current.device = self.id

    def __enter__(self) -> Device:
        self._outer.append(_machine.current.device)
        self.use()
        return self

    def __exit__(self, *_: object) -> None:
        _machine.current.device = self._outer.pop()

    def synchronize(self) -> None:
        for stream in list(_machine.streams):
            if stream.device_id == self.id:
                stream.synchronize()

    @property
    def compute_capability(self) -> str:
        return "90"

    @property
    def mem_info(self) -> tuple[int, int]:
        memory = _machine.memory[self.id]
        return memory.total - memory.used - memory.kept, memory.total

    @property
    def attributes(self) -> dict[str, int]:
        return {
            "ComputeCapabilityMajor": 9,
            "ComputeCapabilityMinor": 0,
            "L2CacheSize": 4 << 20,
            "MaxSharedMemoryPerBlock": SHARED_BYTES,
            "MaxSharedMemoryPerBlockOptin": OPT_IN_SHARED_BYTES,
            "MaxSharedMemoryPerMultiprocessor": 100 << 10,
            "MaxThreadsPerBlock": 1024,
            "MultiProcessorCount": 8,
            "WarpSize": 32,
            **_machine.attributes,
        }


# Memory -----------------------------------------------------------------------------------------------------------------


class Lease:
    """Memory of a device for as long as an array looks at it."""

    taken = False

    def __init__(self, nbytes: int) -> None:
        self.machine, self.stream = _machine, get_current_stream()
        if self.stream.captured is not None:
            raise StandinError("memory must not be allocated while a graph is captured")
        self.machine.check()
        self.size = -(-max(nbytes, 1) // POOL_UNIT) * POOL_UNIT
        self.machine.memory[self.stream.device_id].take(self.size, self.stream.number)
        self.taken = True
        self.storage = np.full(nbytes, POISON, np.uint8)
        self.machine.note("allocate", self.stream, nbytes=nbytes)

    def __del__(self) -> None:
        if self.taken:
            self.machine.memory[self.stream.device_id].give_back(self.size, self.stream.number)
            storage = self.storage
            self.stream.queue.append(Operation(lambda: storage.fill(POISON)))


@dataclass(frozen=True)
class Foreign:
    """Memory of somebody else's, which must live as long as an array looks at it."""

    owner: Any
    device_id: int


class ndarray:  # noqa: N801 - cupy's name
    """cupy.ndarray, as far as the backend uses it."""

    __array_priority__ = 100

    def __init__(self, contents: npt.NDArray[Any], owner: Lease | Foreign) -> None:
        self._contents = contents
        self._owner = owner

    shape = property(lambda self: self._contents.shape)
    dtype = property(lambda self: self._contents.dtype)
    ndim = property(lambda self: self._contents.ndim)
    size = property(lambda self: self._contents.size)
    nbytes = property(lambda self: self._contents.nbytes)
    itemsize = property(lambda self: self._contents.itemsize)
    strides = property(lambda self: self._contents.strides)
    flags = property(lambda self: self._contents.flags)

    @property
    def device(self) -> Device:
        owner = self._owner
        return Device(owner.stream.device_id if isinstance(owner, Lease) else owner.device_id)

    @property
    def data(self) -> Any:
        return types.SimpleNamespace(ptr=self._contents.ctypes.data, device=self.device, device_id=self.device.id)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        strides = None if self.flags.c_contiguous else self.strides
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.data.ptr, False),
            "strides": strides,
            "version": 3,
            "stream": get_current_stream().ptr or 1,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self.device.id

    def __dlpack__(self, *, stream: int | None = None, **_: Any) -> Any:
        get_current_stream().synchronize()
        return self._contents.__dlpack__()

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`.")

    def __len__(self) -> int:
        return len(self._contents)

    def __getitem__(self, index: Any) -> ndarray:
        parts = index if isinstance(index, tuple) else (index,)
        if not all(part is ... or part is None or isinstance(part, int | np.integer | slice) for part in parts):
            raise StandinError(f"the stand-in knows whole numbers and slices as an index; got {index!r}")
        return ndarray(self._contents[(*parts, ...)], self._owner)

    def reshape(self, *shape: Any) -> ndarray:
        return ndarray(self._contents.reshape(*shape, copy=False), self._owner)

    def ravel(self) -> ndarray:
        return self.reshape(-1)

    def view(self, dtype: npt.DTypeLike) -> ndarray:
        return ndarray(self._contents.view(dtype), self._owner)

    def fill(self, value: Any) -> None:
        stream, contents = get_current_stream(), self._contents
        _machine.note("fill", stream, nbytes=self.nbytes)
        _machine.put(stream, lambda: contents.fill(value))

    def set(self, arr: Any, stream: Stream | None = None) -> None:
        if not isinstance(arr, np.ndarray):
            raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
        if self.dtype != arr.dtype:
            raise TypeError(f"{arr.dtype} array cannot be set to {self.dtype} array")
        if self.shape != arr.shape:
            raise ValueError(f"Shape mismatch. Old shape: {self.shape}, new shape: {arr.shape}")
        if not self.flags.c_contiguous:
            raise RuntimeError("Cannot set to non-contiguous array")
        self._copy("upload", self._contents, np.ascontiguousarray(arr), arr, stream or get_current_stream())

    def get(
        self, stream: Stream | None = None, order: str = "C", out: npt.NDArray[Any] | None = None, blocking: bool = True
    ) -> npt.NDArray[Any]:
        if out is None:
            out = np.empty(self.shape, self.dtype)
        elif not isinstance(out, np.ndarray) or out.dtype != self.dtype:
            raise TypeError("Only numpy.ndarray of the same dtype can be obtained from cupy.ndarray")
        elif out.shape != self.shape or not out.flags.c_contiguous:
            raise ValueError(f"Shape or layout mismatch. Expected: {self.shape}, actual: {out.shape}")
        stream = stream or get_current_stream()
        self._copy("download", out, self._contents, out, stream)
        if blocking:
            stream.synchronize()
        return out

    def _copy(self, kind: str, target: Any, source: Any, on_host: Any, stream: Stream) -> None:
        if stream.captured is not None and not _machine.is_pinned(on_host):
            raise CUDARuntimeError(900)
        target, source = _machine.host_memory(target), _machine.host_memory(source)
        _machine.note(kind, stream, nbytes=target.nbytes)
        _machine.put(stream, lambda: np.copyto(target, source))


def empty(shape: Any, dtype: npt.DTypeLike = float, order: str = "C") -> ndarray:
    """cupy.empty."""
    count = int(np.prod(shape, dtype=np.int64))
    lease = Lease(count * np.dtype(dtype).itemsize)
    return ndarray(lease.storage.view(dtype).reshape(shape), lease)


def zeros(shape: Any, dtype: npt.DTypeLike = float, order: str = "C") -> ndarray:
    """cupy.zeros."""
    array = empty(shape, dtype)
    array.fill(0)
    return array


def asarray(a: Any, dtype: npt.DTypeLike = None, order: str | None = None, **_: Any) -> ndarray:
    """cupy.asarray: its own arrays, others' on a GPU without a copy, the host's copied."""
    if isinstance(a, ndarray):
        return a
    interface = getattr(a, "__cuda_array_interface__", None)
    if interface is not None:
        for stream in _machine.streams:
            if interface.get("stream") is not None and interface["stream"] in (stream.ptr, stream.ptr or 1):
                stream.synchronize()
        return _foreign(a, interface["data"][0], interface["shape"], interface["typestr"], interface.get("strides"))
    host = np.array(a, dtype, order="C")  # CuPy stages it in pinned memory of its own at once
    array = empty(host.shape, host.dtype)
    array.set(host)
    return array


def arange(*bounds: Any, dtype: npt.DTypeLike = None) -> ndarray:
    """cupy.arange."""
    return asarray(np.arange(*bounds, dtype=dtype))


def ones_like(a: ndarray) -> ndarray:
    """cupy.ones_like."""
    array = empty(a.shape, a.dtype)
    array.fill(1)
    return array


def copyto(dst: ndarray, src: ndarray) -> None:
    """cupy.copyto, on the device."""
    stream, target, source = get_current_stream(), dst._contents, src._contents
    _machine.note("copy", stream, nbytes=dst.nbytes)
    _machine.put(stream, lambda: np.copyto(target, source))


def asnumpy(a: Any) -> npt.NDArray[Any]:
    """cupy.asnumpy."""
    return a.get() if isinstance(a, ndarray) else np.asarray(a)


def from_dlpack(array: Any, *, device: Any = None, copy: bool | None = None) -> ndarray:
    """cupy.from_dlpack."""
    kind, number = array.__dlpack_device__()
    if kind != 2:
        raise BufferError("CPU arrays cannot be imported without a copy")
    capsule = array.__dlpack__(stream=1)
    holder = types.SimpleNamespace(__dlpack__=lambda **_: capsule, __dlpack_device__=lambda: (1, 0))
    seen = np.from_dlpack(holder)  # type: ignore[arg-type]
    return _foreign((array, seen), seen.ctypes.data, seen.shape, seen.dtype.str, seen.strides, number)


def _foreign(
    owner: Any, place: int, shape: tuple[int, ...], typestr: str, strides: tuple[int, ...] | None, device_id: int = 0
) -> ndarray:
    interface = {"data": (place, False), "shape": shape, "typestr": typestr, "strides": strides, "version": 3}
    contents = np.asarray(types.SimpleNamespace(__array_interface__=interface))
    return ndarray(contents, Foreign(owner, getattr(owner, "device_id", device_id)))


def alloc_pinned_memory(size: int) -> Any:
    """cupy.cuda.alloc_pinned_memory: a buffer, larger than asked for as the pool rounds up."""
    machine = _machine
    machine.check()
    storage = np.full(-(-max(size, 1) // POOL_UNIT) * POOL_UNIT, POISON, np.uint8)
    place = storage.ctypes.data

    def free(_: Any) -> None:
        machine.pinned.pop(place).fill(POISON)

    kind = type("PinnedMemoryPointer", (ctypes.c_ubyte * storage.size,), {"__del__": free, "ptr": place})
    machine.pinned[place] = storage
    return kind.from_buffer(storage)  # type: ignore[attr-defined]


class MemoryPool:
    """cupy.cuda.MemoryPool."""

    def set_limit(self, size: int = 0) -> None:
        _machine.memory[_machine.current.device].limit = size

    def free_all_blocks(self, stream: Stream | None = None) -> None:
        _machine.memory[_machine.current.device].free.clear()

    def free_bytes(self) -> int:
        return _machine.memory[_machine.current.device].kept

    def used_bytes(self) -> int:
        return _machine.memory[_machine.current.device].used

    def total_bytes(self) -> int:
        memory = _machine.memory[_machine.current.device]
        return memory.used + memory.kept


# Kernels ----------------------------------------------------------------------------------------------------------------


class RawModule:
    """cupy.RawModule."""

    def __init__(
        self,
        code: str | None = None,
        *,
        path: str | None = None,
        options: tuple[str, ...] = (),
        backend: str = "nvrtc",
        **_: Any,
    ) -> None:
        if code is None or not isinstance(options, tuple) or backend != "nvrtc":
            raise StandinError("the stand-in takes RawModule(code=..., options=(...), backend='nvrtc')")
        machine = self._machine = _machine
        self._module = CpuModule(machine.edit(code), options, machine.order, machine.seed, machine.sanitize)

    def compile(self, log_stream: Any = None) -> None:
        """It is."""

    def get_function(self, name: str) -> RawKernel:
        if name not in self._module.kernels:
            raise CUDADriverError(500)
        return RawKernel(self._machine, self._module, name)


class RawKernel:
    """cupy.RawKernel."""

    def __init__(self, machine: Machine, module: CpuModule, name: str) -> None:
        self._machine, self._module, self.name = machine, module, name
        self._max_dynamic_shared_size_bytes = SHARED_BYTES

    @property
    def max_dynamic_shared_size_bytes(self) -> int:
        return self._max_dynamic_shared_size_bytes

    @max_dynamic_shared_size_bytes.setter
    def max_dynamic_shared_size_bytes(self, value: int) -> None:
        if value > Device().attributes["MaxSharedMemoryPerBlockOptin"]:
            raise CUDADriverError(1)
        self._max_dynamic_shared_size_bytes = value

    def __call__(
        self,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        args: Sequence[Any],
        *,
        shared_mem: int = 0,
        stream: Stream | None = None,
    ) -> None:
        stream = stream or get_current_stream()
        self._check_devices(stream, args)
        values = [arg._contents if isinstance(arg, ndarray) else arg for arg in args]
        run = self._module.prepare(self.name, grid, block, values, shared_mem, self.max_dynamic_shared_size_bytes)
        self._machine.note(
            "launch",
            stream,
            name=self.name,
            grid=grid,
            block=block,
            arguments=tuple(map(_type_name, args)),
            shared_bytes=shared_mem,
        )
        self._machine.put(stream, run)

    def _check_devices(self, stream: Stream, args: Sequence[Any]) -> None:
        device = self._machine.current.device
        if stream.device_id != device:
            raise StandinError(f"{self.name}: its stream is of device {stream.device_id}, the current one is {device}")
        for arg in args:
            if isinstance(arg, np.ndarray) or (isinstance(arg, ndarray) and arg.device.id != device):
                raise StandinError(f"{self.name}: an argument does not lie on device {device}")


def _type_name(value: Any) -> str:
    if isinstance(value, ndarray):
        return f"{value.dtype}{list(value.shape)}"
    return type(value).__name__


# Installation -----------------------------------------------------------------------------------------------------------


def _device_properties(device: int) -> dict[str, Any]:
    attributes = Device(device).attributes
    return {
        "name": b"Stand-in on the CPU",
        "major": 9,
        "minor": 0,
        "totalGlobalMem": _machine.memory[device].total,
        "multiProcessorCount": attributes["MultiProcessorCount"],
        "sharedMemPerBlock": attributes["MaxSharedMemoryPerBlock"],
        "sharedMemPerBlockOptin": attributes["MaxSharedMemoryPerBlockOptin"],
        "l2CacheSize": attributes["L2CacheSize"],
        "warpSize": 32,
    }


def _pointer_attributes(place: int) -> Any:
    return types.SimpleNamespace(device=0, devicePointer=place, hostPointer=0, type=2)


def _modules() -> dict[str, types.ModuleType]:
    """Every module of cupy that the backend may import, by name."""
    contents: dict[str, dict[str, Any]] = {
        "cupy": {
            "__version__": VERSION,
            "ndarray": ndarray,
            "float32": np.float32,
            "empty": empty,
            "zeros": zeros,
            "asarray": asarray,
            "from_dlpack": from_dlpack,
            "arange": arange,
            "ones_like": ones_like,
            "copyto": copyto,
            "asnumpy": asnumpy,
            "RawModule": RawModule,
            "get_default_memory_pool": MemoryPool,
            "get_default_pinned_memory_pool": lambda: types.SimpleNamespace(free_all_blocks=lambda: None),
        },
        "cupy.cuda": {
            "Device": Device,
            "Stream": Stream,
            "Event": Event,
            "Graph": Graph,
            "get_current_stream": get_current_stream,
            "get_elapsed_time": get_elapsed_time,
            "alloc_pinned_memory": alloc_pinned_memory,
            "is_available": lambda: True,
        },
        "cupy.cuda.compiler": {"CompileException": CompileException},
        "cupy.cuda.nvrtc": {"getVersion": lambda: (13, 0)},
        "cupy.cuda.memory": {"OutOfMemoryError": OutOfMemoryError},
        "cupy.cuda.driver": {"CUDADriverError": CUDADriverError},
        "cupy.cuda.runtime": {
            "CUDARuntimeError": CUDARuntimeError,
            "memGetInfo": lambda: Device().mem_info,
            "getDeviceCount": lambda: _machine.devices,
            "getDevice": lambda: _machine.current.device,
            "getDeviceProperties": _device_properties,
            "deviceSynchronize": lambda: Device().synchronize(),
            "profilerStart": lambda: None,
            "profilerStop": lambda: None,
            "driverGetVersion": lambda: 13000,
            "runtimeGetVersion": lambda: 13000,
            "pointerGetAttributes": _pointer_attributes,
        },
    }
    modules = {}
    for name, names in contents.items():
        module = modules[name] = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
        module.__path__ = []
        vars(module).update(names)
        parent, _, own = name.rpartition(".")
        if parent:
            setattr(modules[parent], own, module)
    return modules


@contextmanager
def standin(**settings: Any) -> Iterator[Machine]:
    """CuPy replaced by the stand-in, and the backend "cuda" by a fresh one that runs on it, for as long as this lasts.

    Parameters
    ----------
    **settings
        Of `Machine`.
    """
    from flowkit_kernels import backend

    outer = globals().get("_machine")
    machine = _use(Machine(**settings))
    kept = _take_out("cupy"), _take_out("flowkit_kernels.cuda")
    entry = backend._BACKENDS["cuda"]
    sys.modules.update(_modules())
    backend._BACKENDS["cuda"] = dataclasses.replace(entry, obstacle=lambda: None)
    try:
        yield machine
    finally:
        backend._BACKENDS["cuda"] = entry
        for name in ("cupy", "flowkit_kernels.cuda"):
            _take_out(name)
        for modules in kept:
            sys.modules.update(modules)
        if outer is not None:
            _use(outer)


def install(*, cuda: Sequence[int] = (13, 0), nvrtc: bool = True, disk: str = "", **settings: Any) -> None:
    """Make the stand-in the CuPy of this process, for good.

    Parameters
    ----------
    cuda : (int, int)
        Newest CUDA version that the driver runs.
    nvrtc : bool
        Whether there is one.
    disk : str
        "full": no compiled kernel can be stored.
    **settings
        Of `Machine`.
    """
    _use(Machine(**settings))
    modules = _modules()
    runtime: Any = modules["cupy.cuda.runtime"]
    runtime.driverGetVersion = lambda: 1000 * cuda[0] + 10 * cuda[1]
    if not nvrtc:
        vars(modules["cupy.cuda.nvrtc"])["getVersion"] = _no_nvrtc
    if disk == "full":
        vars(modules["cupy"])["RawModule"] = _no_space
    sys.modules.update(modules)


def _no_nvrtc() -> Any:
    raise RuntimeError("CuPy failed to load libnvrtc.so.13: cannot open shared object file")


def _no_space(**_: Any) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device")


def _use(machine: Machine) -> Machine:
    global _machine
    _machine = machine
    Stream.null = machine.default_streams[0]
    return machine


def _take_out(package: str) -> dict[str, types.ModuleType]:
    """Remove a package's modules from Python's table, so that the next import makes fresh ones."""
    names = [name for name in sys.modules if name == package or name.startswith(f"{package}.")]
    return {name: sys.modules.pop(name) for name in names}
