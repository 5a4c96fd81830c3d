"""Every wait of one stream for another is needed: without it, some course of the streams gives another answer."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from backend_workload import FIXED, faces
from cupy_standin import SCHEDULES, Event, Stream, standin
from resources import SOURCES
from runner import missing

from flowkit_kernels import tvl1_flow

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

WAITS = [
    pytest.param(path.name, number, id=f"{path.name}:{number}")
    for path in sorted(SOURCES[0].parent.glob("*.py"))
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
    if ".wait_event(" in line
]


def flows_on_many_streams() -> list[Any]:
    """In chunks from the host; then from the device, on two streams of the caller's, one after the other."""
    import cupy

    from flowkit_kernels.cuda import batches, operations

    batches.chunk_items = lambda *_, **__: 2  # type: ignore[assignment]
    reference, moving = faces(5, 18, 24)
    results = [tvl1_flow(reference, moving, FIXED, backend="cuda")]
    on_device, pinned = [], [batches._pinned(images.shape) for images in (reference, moving)]
    pinned[0][:], pinned[1][:] = reference, moving
    for stream in (cupy.cuda.Stream(non_blocking=True) for _ in range(2)):
        with stream:
            arrays = [cupy.empty(images.shape, images.dtype) for images in (reference, moving)]
            for array, images in zip(arrays, pinned, strict=True):
                array.set(images, stream=stream)  # which the call must wait for
            stacks = [
                array[:, None] for array in arrays
            ]  # not by `tvl1_flow`, which looks at the numbers and so waits for them
            on_device.append((stream, operations.tvl1_flow(stacks, np.ones((5, 1), np.bool_), FIXED, 1), arrays))
    return results + [flow.get(stream=stream) for stream, flow, _ in reversed(on_device)]


@functools.cache
def expected() -> list[bytes]:
    with standin():
        return [flow.tobytes() for flow in flows_on_many_streams()]


def answers_without(name: str, number: int, schedule: str, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    wait_event = Stream.wait_event

    def wait_elsewhere(stream: Stream, event: Event) -> None:
        caller = sys._getframe(1)
        if (Path(caller.f_code.co_filename).name, caller.f_lineno) != (name, number):
            wait_event(stream, event)

    with monkeypatch.context() as patch, standin(schedule=schedule) as machine:
        patch.setattr(Stream, "wait_event", wait_elsewhere)
        answers = [flow.tobytes() for flow in flows_on_many_streams()]
        assert machine.launches()
    return answers


def test_the_waits_are_found() -> None:
    assert len(WAITS) >= 3


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_with_all_waits_every_course_gives_the_same_bits(schedule: str) -> None:
    for seed in range(2):
        with standin(schedule=schedule, seed=seed):
            assert [flow.tobytes() for flow in flows_on_many_streams()] == expected()


@pytest.mark.parametrize(("name", "number"), WAITS)
def test_a_forgotten_wait_changes_the_answer(name: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [answers_without(name, number, schedule, monkeypatch) for schedule in SCHEDULES]
    assert any(answer != expected() for answer in answers)
