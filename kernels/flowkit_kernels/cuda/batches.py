"""Whole batches on a GPU: cut into chunks that fit, each through a solver on a stream of its own.

Two chunks are computed at the same time: while the last tiles of a launch run, those of the other chunk take what is left of the
GPU. Together they hold so many items that the GPU is full and the second-level cache not much more than that. NumPy arrays are
staged in pinned memory in slots, so that chunks are uploaded and downloaded while others are computed.
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import cupy
import numpy as np
import numpy.typing as npt

from flowkit_kernels.cuda.device import CUDA_ERRORS, CupyDevice, current
from flowkit_kernels.cuda.solver import Array, Limits, Phases, Solver
from flowkit_kernels.cuda.tiling import MAX_THREADS, ROWS
from flowkit_kernels.errors import CUDA_OUT_OF_MEMORY, cuda_failure
from flowkit_kernels.params import TVL1Params

PLANES_IN_CACHE = 16
"""Planes a pair that iterations go through: flow and dual twice, data term."""
TILES_PER_MULTIPROCESSOR = 2
"""Below so many, multiprocessors wait for each other."""
WATCHED_CHUNKS = 4
"""So many times as many pairs a chunk, where an epsilon may stop them."""
PLANES_OF_A_PHASE = 40
"""At most, in memory: flow, dual, data term, texels, pyramids, and twice what travels."""
USABLE = 0.8
"""Part of the free memory that a chunk may take: others use the GPU too."""
MAX_PAIRS = 8192
"""A launch's grid takes 65 535 planes along z; clearing the dual variables takes four a pair."""
COMPUTED_AT_ONCE = 2
"""Chunks. One where an epsilon may stop pairs: the host then waits for a chunk's answer before it starts what comes next."""
KEPT_SOLVERS = 2 * COMPUTED_AT_ONCE
KEPT_SCHEDULES = 4


class Schedule:
    """All launches for one pattern of valid phases, recorded as a CUDA graph where the host need not look in between.

    A chunk is more than a hundred launches, each of them a call from Python; a graph starts them in one.
    The first run goes launch by launch: it loads the kernels, which a recording may not.
    """

    def __init__(self, solver: Solver, phases: Phases) -> None:
        self.phases = phases
        self._solver = solver
        self._runs = 0
        self._graph: Any = None
        self._flow: Array = None

    def run(self) -> Array:
        """Flow of every pair, flat."""
        self._runs += 1
        if self._solver.params.epsilon or self._runs == 1:
            self._flow = self._solver.solve(self.phases)
            return self._flow
        if self._graph is None:
            self._graph = self._recorded()
        self._graph.launch()
        return self._flow

    def _recorded(self) -> Any:
        recorder = cupy.cuda.Stream(non_blocking=True)
        with current(recorder):
            recorder.begin_capture()
            try:
                self._flow = self._solver.solve(self.phases)
            finally:
                graph = recorder.end_capture()  # a recording left open would make the next wait for the GPU an error
        return graph


class Worker:
    """A solver with its schedules, on one stream; used by one thread."""

    def __init__(
        self, device: CupyDevice, params: TVL1Params, shape: tuple[int, int], items: int, images: int, stream: Any
    ) -> None:
        self.images, self.stream = images, stream
        self._device = device
        self._schedules: OrderedDict[bytes, Schedule] = OrderedDict()
        with current(self.stream):
            self._solver = Solver(device, params, shape, items, images)

    def compute(self, stacks: Sequence[Array], valid: npt.NDArray[np.bool_], result: Array) -> None:
        """Flow of the items of one chunk, all on the device, into `result`; queued on the worker's stream."""
        with current(self.stream):
            if not valid.all():
                size = result.size // len(result)
                grid = (-(-size // 256), 1, len(result))
                self._device.launch("clear", grid, (256, 1, 1), result, np.int32(size))
            if not valid.any():
                return
            first = 0
            for stack in stacks:
                self._solver.enter(stack, first, self.images)
                first += stack.shape[1]
            schedule = self._schedule(valid)
            self._solver.leave(schedule.run(), schedule.phases, result)

    def finish(self) -> None:
        """Wait until nothing of it runs any more: its memory may be given back."""
        self.stream.synchronize()

    def _schedule(self, valid: npt.NDArray[np.bool_]) -> Schedule:
        key = valid.tobytes()
        if key not in self._schedules:
            self._schedules[key] = Schedule(self._solver, Phases.of(self._device, valid))
        self._schedules.move_to_end(key)
        if len(self._schedules) > KEPT_SCHEDULES:
            self.finish()  # it may still run
            self._schedules.popitem(last=False)
        return self._schedules[key]


class Streams(NamedTuple):
    """On which a chunk comes from the host and goes back, and on which chunks are computed."""

    upload: Any
    download: Any
    compute: tuple[Any, ...]

    def finish(self) -> None:
        """Wait for all of them."""
        for stream in (self.upload, self.download, *self.compute):
            stream.synchronize()


class _Kept(threading.local):
    """Each thread's workers, the last used last, and its streams on each GPU: CuPy's pool keeps memory by stream."""

    def __init__(self) -> None:
        self.workers: OrderedDict[tuple[Any, ...], Worker] = OrderedDict()
        self.streams: dict[int, Streams] = {}


_KEPT = _Kept()


def workers_for(
    device: CupyDevice, params: TVL1Params, shape: tuple[int, int], items: int, images: int, count: int
) -> list[Worker]:
    """So many workers for chunks of up to so many items, each kept from an earlier call where there is one."""
    workers, found = _KEPT.workers, []
    for number, stream in enumerate(streams_of(device).compute[:count]):
        key = (device.index, params, shape, items, images, number)
        if key not in workers:
            if len(workers) >= KEPT_SOLVERS:
                workers.popitem(last=False)[1].finish()
            workers[key] = Worker(device, params, shape, items, images, stream)
        workers.move_to_end(key)
        found.append(workers[key])
    return found


def streams_of(device: CupyDevice) -> Streams:
    """Streams of the calling thread on a GPU."""
    if device.index not in _KEPT.streams:
        upload, download, *compute = (cupy.cuda.Stream(non_blocking=True) for _ in range(2 + COMPUTED_AT_ONCE))
        _KEPT.streams[device.index] = Streams(upload, download, tuple(compute))
    return _KEPT.streams[device.index]


def forget_workers() -> None:
    """Give back this thread's memory on the GPU, once everything there is done."""
    while _KEPT.workers:
        _KEPT.workers.popitem()[1].finish()  # no name may hold a worker when the pool is emptied: its memory would stay
    cupy.cuda.Device().synchronize()
    _KEPT.streams.clear()
    cupy.get_default_memory_pool().free_all_blocks()


def chunk_items(
    limits: Limits, shape: tuple[int, int], phases: int, count: int, *, free_bytes: int, watched: bool
) -> int:
    """Items that are computed at once: enough to fill the GPU and its second-level cache, no more than fit, and always as many.

    Parameters
    ----------
    limits : Limits
    shape : (int, int)
        Height and width of the images.
    phases, count : int
        Pairs an item has, and items in all.
    free_bytes : int
        Of the GPU's memory.
    watched : bool
        Whether an epsilon may stop pairs: that takes so many launches that their number counts for more than the cache.
    """
    pixels = shape[0] * shape[1]
    in_cache = limits.l2_bytes // (4 * PLANES_IN_CACHE * pixels)
    to_fill = -(-TILES_PER_MULTIPROCESSOR * limits.multiprocessors * MAX_THREADS * ROWS // pixels)
    pairs = min(max(in_cache, to_fill) * (WATCHED_CHUNKS if watched else 1), MAX_PAIRS)
    fitting = int(USABLE * free_bytes / (4 * PLANES_OF_A_PHASE * pixels * phases))
    wanted = max(1, min(pairs // phases, fitting))
    if count < wanted:
        return min(wanted, 1 << (count - 1).bit_length())  # so that batches of about one size share a worker
    return -(-count // -(-count // wanted))


def in_fitting_chunks(items: int, compute: Callable[[int], None]) -> None:
    """Call `compute` with a number of items a chunk, and with half as many each time the GPU's memory does not suffice.

    Raises
    ------
    DeviceOutOfMemory
        Not even one item fits.
    """
    while True:
        try:
            return compute(items)
        except (cupy.cuda.memory.OutOfMemoryError, *CUDA_ERRORS) as error:
            if getattr(error, "status", CUDA_OUT_OF_MEMORY) != CUDA_OUT_OF_MEMORY:
                raise
            if items == 1:
                forget_workers()
                raise cuda_failure(CUDA_OUT_OF_MEMORY, error) from error
        forget_workers()  # out of the handler: the call that failed holds on to memory as long as its error is there
        items //= 2


def flow_of_device_arrays(
    device: CupyDevice, stacks: Sequence[Array], valid: npt.NDArray[np.bool_], params: TVL1Params
) -> Array:
    """Flow of stacks that lie on the GPU; in order with the current stream, as if it were queued there."""
    count, phases = valid.shape
    shape = stacks[0].shape[2:]
    result = device.empty((count, phases, 2, *shape), np.float32)
    callers = cupy.cuda.get_current_stream()
    given = cupy.cuda.Event(disable_timing=True)
    given.record(callers)

    def compute(items: int) -> None:
        chunks, at_once = chunks_of(count, items, bool(params.epsilon))
        workers = workers_for(device, params, shape, -(-items // at_once), phases + 1, at_once)
        for worker in workers:
            worker.stream.wait_event(given)
        try:
            for number, chunk in enumerate(chunks):
                worker = workers[number % len(workers)]
                worker.compute([stack[chunk] for stack in stacks], valid[chunk], result[chunk])
        finally:
            for worker in workers:
                done = cupy.cuda.Event(disable_timing=True)
                done.record(worker.stream)
                callers.wait_event(done)

    in_fitting_chunks(_chunk_items(device, shape, phases, count, params), compute)
    return result


def flow_of_host_arrays(
    device: CupyDevice, stacks: Sequence[npt.NDArray[np.float32]], valid: npt.NDArray[np.bool_], params: TVL1Params
) -> npt.NDArray[np.float32]:
    """Flow of stacks of NumPy arrays; upload, computation and download of different chunks overlap."""
    count, phases = valid.shape
    shape = stacks[0].shape[2:]
    result = np.empty((count, phases, 2, *shape), np.float32)

    def compute(items: int) -> None:
        streams, (chunks, at_once) = streams_of(device), chunks_of(count, items, bool(params.epsilon))
        workers = workers_for(device, params, shape, -(-items // at_once), phases + 1, at_once)
        with current(streams.upload):
            room = range(min(2 * at_once, len(chunks)))
            slots = [Slot.of(device, stacks, chunks[0].stop, phases, shape) for _ in room]
        try:
            for number, chunk in enumerate(chunks):
                slot, worker = slots[number % len(slots)], workers[number % len(workers)]
                slot.collect(result)
                slot.start(worker, streams, [stack[chunk] for stack in stacks], valid[chunk], chunk)
            for slot in slots:
                slot.collect(result)
        finally:
            streams.finish()  # an error leaves copies on their way, from and to memory that is about to be given back

    in_fitting_chunks(_chunk_items(device, shape, phases, count, params), compute)
    return result


def _chunk_items(device: CupyDevice, shape: tuple[int, int], phases: int, count: int, params: TVL1Params) -> int:
    free_bytes = cupy.cuda.Device().mem_info[0] + cupy.get_default_memory_pool().free_bytes()
    return chunk_items(device.limits, shape, phases, count, free_bytes=free_bytes, watched=bool(params.epsilon))


def chunks_of(count: int, items: int, watched: bool) -> tuple[list[slice], int]:
    """Cut items into chunks.

    Parameters
    ----------
    count : int
        Items in all.
    items : int
        How many are computed at once, about.
    watched : bool
        As of `chunk_items`.

    Returns
    -------
    list of slice
        Alike but for one item, larger ones first: none is left over that would go through all launches alone.
    int
        How many of them are computed at once.
    """
    at_once = 1 if watched else min(COMPUTED_AT_ONCE, items, count)
    number = min(count, at_once * -(-count // items))
    ends = [-(-count * k // number) for k in range(number + 1)]
    return [slice(start, end) for start, end in itertools.pairwise(ends)], at_once


class Slot:
    """Pinned memory and memory on the GPU for one chunk on its way there and back."""

    def __init__(self, staged: list[Any], entered: list[Array], flow: Array, fetched: Any) -> None:
        self._staged, self._entered, self._flow, self._fetched = staged, entered, flow, fetched
        self._uploaded, self._computed, self._downloaded = (cupy.cuda.Event(disable_timing=True) for _ in range(3))
        self._chunk: slice | None = None

    @classmethod
    def of(cls, device: CupyDevice, stacks: Sequence[Any], items: int, phases: int, shape: tuple[int, int]) -> Slot:
        """Room for so many items."""
        shapes = [(items, *stack.shape[1:]) for stack in stacks]
        flow_shape = (items, phases, 2, *shape)
        entered = [device.empty(one, np.float32) for one in shapes]
        staged = [_pinned(one) for one in shapes]
        return cls(staged, entered, device.empty(flow_shape, np.float32), _pinned(flow_shape))

    def start(
        self, worker: Worker, streams: Streams, stacks: Sequence[Any], valid: npt.NDArray[np.bool_], chunk: slice
    ) -> None:
        """Queue a chunk's way there and back. The slot must be empty."""
        count = len(valid)
        for staged, entered, stack in zip(self._staged, self._entered, stacks, strict=True):
            staged[:count] = stack
            entered[:count].set(staged[:count], stream=streams.upload)
        self._uploaded.record(streams.upload)
        worker.stream.wait_event(self._uploaded)
        worker.compute([entered[:count] for entered in self._entered], valid, self._flow[:count])
        self._computed.record(worker.stream)
        streams.download.wait_event(self._computed)
        self._flow[:count].get(stream=streams.download, out=self._fetched[:count], blocking=False)
        self._downloaded.record(streams.download)
        self._chunk = chunk

    def collect(self, result: npt.NDArray[np.float32]) -> None:
        """Wait for the chunk that is on its way, if there is one, and take it out of the slot."""
        if self._chunk is None:
            return
        self._downloaded.synchronize()
        result[self._chunk] = self._fetched[: self._chunk.stop - self._chunk.start]
        self._chunk = None


def _pinned(shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Host memory that a GPU can copy from and to while the host goes on."""
    count = int(np.prod(shape))
    return np.frombuffer(cupy.cuda.alloc_pinned_memory(4 * count), np.float32, count).reshape(shape)
