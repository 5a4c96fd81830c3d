"""The stand-in for CuPy sees what would go wrong on a GPU now and then, every time."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from cupy_standin import (
    CUDADriverError,
    CUDARuntimeError,
    Device,
    Event,
    MemoryPool,
    OutOfMemoryError,
    RawModule,
    StandinError,
    Stream,
    alloc_pinned_memory,
    asarray,
    empty,
    from_dlpack,
    get_current_stream,
    standin,
    zeros,
)
from runner import LaunchError, missing

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

TWICE = """
extern "C" __global__ void twice(const float *in, float *out, float factor) {
    out[threadIdx.x] = factor * in[threadIdx.x];
}
"""
TWO = np.float32(2)
SCHEDULES = ("lazy", "eager", "random")
schedules = pytest.mark.parametrize("schedule", SCHEDULES)
VALUES = np.arange(1, 9, dtype=np.float32)


@pytest.fixture
def machine() -> Iterator[Any]:
    with standin(schedule="lazy", memory_bytes=1 << 20, devices=2) as machine:
        yield machine


def pinned(values: Any) -> Any:
    buffer = np.frombuffer(alloc_pinned_memory(values.nbytes), values.dtype, values.size)
    buffer[:] = values
    return buffer


def twice(source: Any, target: Any, factor: Any = TWO, **launch: Any) -> None:
    RawModule(code=TWICE).get_function("twice")((1,), (8,), (source, target, factor), **launch)


def doubled_over_three_streams(*, wait_for_upload: bool = True, wait_for_kernel: bool = True) -> Any:
    upload, compute, download = (Stream(non_blocking=True) for _ in range(3))
    source, target, result = empty(8, np.float32), empty(8, np.float32), np.zeros(8, np.float32)
    source.set(VALUES, stream=upload)
    if wait_for_upload:
        compute.wait_event(upload.record())
    twice(source, target, stream=compute)
    if wait_for_kernel:
        download.wait_event(compute.record())
    target.get(stream=download, out=result, blocking=False)
    download.synchronize()
    return result


@schedules
def test_events_carry_an_answer_over_streams(schedule: str) -> None:
    with standin(schedule=schedule):
        np.testing.assert_array_equal(doubled_over_three_streams(), 2 * VALUES)


@pytest.mark.parametrize("missing_wait", ["wait_for_upload", "wait_for_kernel"])
def test_a_forgotten_event_shows_as_a_wrong_answer(missing_wait: str) -> None:
    with standin(schedule="lazy"):
        assert np.isnan(doubled_over_three_streams(**{missing_wait: False})).all()


@pytest.mark.parametrize("schedule", ["eager", "random"])
def test_a_buffer_that_is_filled_again_too_early_shows(schedule: str) -> None:
    answers = []
    for seed in range(8):
        with standin(schedule=schedule, seed=seed):
            upload, compute = (Stream(non_blocking=True) for _ in range(2))
            source, target = empty(8, np.float32), empty(8, np.float32)
            source.set(VALUES, stream=upload)
            compute.wait_event(upload.record())
            twice(source, target, stream=compute)
            source.set(-VALUES, stream=upload)  # nobody made sure that the kernel had read it
            answers.append(target.get(stream=compute)[0])
    assert -2 in answers


def test_nothing_happens_before_the_host_waits(machine: Any) -> None:
    with Stream(non_blocking=True) as stream:
        host = pinned(VALUES)
        array = empty(8, np.float32)
        array.set(host)
        host[:] = 7
        np.testing.assert_array_equal(array.get(), 7)
        result = np.zeros(8, np.float32)
        array.get(out=result, blocking=False)
        np.testing.assert_array_equal(result, 0)
        stream.synchronize()
        np.testing.assert_array_equal(result, 7)


def test_a_wait_counts_for_the_record_before_it_and_not_for_the_next(machine: Any) -> None:
    first, second = (Stream(non_blocking=True) for _ in range(2))
    event, array = Event(disable_timing=True), empty(8, np.float32)
    array.set(VALUES, stream=first)
    event.record(first)
    second.wait_event(event)
    with first:
        array.fill(0)
    event.record(first)
    assert array.get(stream=second)[0] == 1
    event.synchronize()
    assert event.done
    assert array.get(stream=second)[0] == 0


def test_new_memory_is_nan_and_zeros_come_in_stream_order(machine: Any) -> None:
    assert np.isnan(empty((2, 3), np.float32).get()).all()
    with Stream(non_blocking=True):
        array = zeros((2, 3), np.float32)
    assert np.isnan(array.get()).all()


def test_memory_that_another_stream_still_reads_when_it_is_freed_shows(machine: Any) -> None:
    other, target = Stream(non_blocking=True), empty(8, np.float32)
    source = asarray(VALUES)
    get_current_stream().synchronize()
    twice(source, target, stream=other)
    del source
    get_current_stream().synchronize()
    assert np.isnan(target.get(stream=other)).all()


def test_pinned_memory_that_is_freed_before_its_copy_shows(machine: Any) -> None:
    array, host = empty(8, np.float32), pinned(VALUES)
    array.set(host)
    del host
    assert np.isnan(array.get()).all()


@pytest.mark.parametrize("factor", [2.0, 2, np.float64(2)])
def test_a_scalar_of_another_type_is_refused(machine: Any, factor: Any) -> None:
    with pytest.raises(LaunchError, match=r"factor must be a numpy\.float32"):
        twice(empty(8, np.float32), empty(8, np.float32), factor)


def test_a_view_with_gaps_and_memory_of_the_host_are_refused(machine: Any) -> None:
    with pytest.raises(LaunchError, match="in must be contiguous"):
        twice(empty((8, 2), np.float32)[:, 0], empty(8, np.float32))
    with pytest.raises(StandinError, match="does not lie on device 0"):
        twice(VALUES, empty(8, np.float32))
    with pytest.raises(TypeError, match="Implicit conversion"):
        np.asarray(empty(8, np.float32))


def test_arrays_and_streams_of_another_device_are_refused(machine: Any) -> None:
    with Device(1):
        there, stream = empty(8, np.float32), Stream(non_blocking=True)
        twice(there, there)
    assert there.device.id == 1
    with pytest.raises(StandinError, match="does not lie on device 0"):
        twice(there, there)
    with pytest.raises(StandinError, match="stream is of device 1"):
        twice(empty(8, np.float32), empty(8, np.float32), stream=stream)
    with pytest.raises(CUDARuntimeError, match="cudaErrorInvalidDevice"):
        Device(2).use()


def test_memory_ends_and_the_pool_keeps_what_was_freed(machine: Any) -> None:
    array = empty(800_000, np.uint8)
    with pytest.raises(OutOfMemoryError):
        empty(400_000, np.uint8)
    del array
    held = 800_256
    assert (MemoryPool().used_bytes(), MemoryPool().total_bytes()) == (0, held)
    assert Device().mem_info == ((1 << 20) - held, 1 << 20)
    empty(900_000, np.uint8)
    MemoryPool().free_all_blocks()
    assert Device().mem_info == (1 << 20, 1 << 20)


def test_a_kernel_gets_more_than_48_kib_of_shared_memory_only_if_it_asks(machine: Any) -> None:
    kernel = RawModule(code=TWICE).get_function("twice")
    arguments = (empty(8, np.float32), empty(8, np.float32), np.float32(1))
    with pytest.raises(LaunchError, match="limited to 49152 bytes"):
        kernel((1,), (8,), arguments, shared_mem=50_000)
    kernel.max_dynamic_shared_size_bytes = 50_000
    kernel((1,), (8,), arguments, shared_mem=50_000)
    with pytest.raises(CUDADriverError):
        kernel.max_dynamic_shared_size_bytes = 100 * 1024


def test_a_graph_runs_as_often_as_it_is_launched_and_not_when_it_is_captured(machine: Any) -> None:
    source, target = asarray(VALUES), asarray(0 * VALUES)
    recorder = Stream(non_blocking=True)
    with recorder:
        recorder.begin_capture()
        twice(source, target)
        with pytest.raises(StandinError, match="while a graph is captured"):
            empty(1, np.float32)
        with pytest.raises(CUDARuntimeError):
            recorder.synchronize()
        with pytest.raises(CUDARuntimeError):
            source.set(VALUES)
        graph = recorder.end_capture()
        recorder.synchronize()
    assert target.get()[0] == 0
    graph.launch()
    assert target.get()[0] == 2
    source.fill(5)
    graph.launch()
    assert target.get()[0] == 10
    assert [entry.kind for entry in machine.log if entry.kind in ("capture", "graph")] == ["capture", "graph", "graph"]


def test_arrays_of_others_are_taken_over_without_a_copy(machine: Any) -> None:
    array = asarray(VALUES)
    get_current_stream().synchronize()
    for other in (
        asarray(SimpleNamespace(__cuda_array_interface__=array.__cuda_array_interface__)),
        from_dlpack(array),
    ):
        assert other.data.ptr == array.data.ptr
        assert (other.shape, other.dtype, other.device.id) == (array.shape, array.dtype, 0)
    with pytest.raises(BufferError, match="CPU arrays"):
        from_dlpack(VALUES)


def test_a_lost_device_answers_everything_with_its_error(machine: Any) -> None:
    array = asarray(VALUES)
    machine.lost = 700
    for call in (array.get, lambda: empty(1), lambda: asarray(VALUES), get_current_stream().synchronize):
        with pytest.raises(CUDARuntimeError, match="cudaErrorIllegalAddress"):
            call()


def test_the_log_tells_what_was_launched_with_what(machine: Any) -> None:
    twice(asarray(VALUES), empty((2, 4), np.float32), shared_mem=16)
    (launch,) = machine.launches("twice")
    assert launch.arguments == ("float32[8]", "float32[2, 4]", "float32")
    assert (launch.grid, launch.block, launch.shared_bytes, launch.stream) == ((1,), (8,), 16, 0)
    assert [entry.kind for entry in machine.log] == ["allocate", "upload", "allocate", "launch"]


def test_the_stand_in_leaves_nothing_behind() -> None:
    from flowkit_kernels import available_backends

    before = available_backends(), {name for name in sys.modules if name.startswith(("cupy", "flowkit_kernels.cuda"))}
    with standin():
        import cupy

        assert cupy.RawModule is RawModule
        assert "cuda" in available_backends()
    after = available_backends(), {name for name in sys.modules if name.startswith(("cupy", "flowkit_kernels.cuda"))}
    assert after == (before[0], {name for name in before[1] if not name.startswith("cupy_standin")} | {"cupy_standin"})
