"""Objects through a pipe: what arrives is what was sent, whatever its arrays look like, or the end of the pipe."""

from __future__ import annotations

import os
import pickle
import threading
from multiprocessing import Pipe
from typing import Any

import numpy as np
import pytest

from flowkit.execution import messages
from flowkit.execution.messages import receive, send


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def read_only() -> np.ndarray:
    array = numbers(5, 7)
    array.flags.writeable = False
    return array


OBJECTS: dict[str, Any] = {
    "nothing": None,
    "text": "ä" * 100_000,
    "an array": numbers(3, 300, 300),
    "Fortran's order": numbers(40, 50).T,
    "every second": numbers(100, 100)[::2, ::2],
    "no number": numbers(0, 4),
    "one number": np.array(3.0),
    "read only": read_only(),
    "dates": np.array(["2026-11-30"], "datetime64[D]"),
    "objects": np.array(["a", None, 3], object),
    "many": {"flow": numbers(2, 2, 64, 64), "clips": [numbers(3), numbers(0), {"deep": numbers(1 << 18)}]},
}


@pytest.fixture(params=[True, False], ids=["raw", "messages"])
def raw(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Either way that buffers go; the second is that of Windows."""
    monkeypatch.setattr(messages, "_RAW", request.param)


def received(*sent: Any) -> list[Any]:
    """Objects that were sent in a thread, one after the other: a pipe takes no more than a part of a large one."""
    ours, theirs = Pipe()
    sender = threading.Thread(target=lambda: [send(theirs, what) for what in sent])
    sender.start()
    found = [receive(ours) for _ in sent]
    sender.join()
    return found


@pytest.mark.usefixtures("raw")
@pytest.mark.parametrize("name", OBJECTS)
def test_what_arrives_is_what_was_sent(name: str) -> None:
    what = OBJECTS[name]
    for found in received(what, what):
        assert pickle.dumps(found) == pickle.dumps(what)
        if isinstance(what, np.ndarray):
            assert found.flags.writeable == what.flags.writeable


@pytest.mark.usefixtures("raw")
def test_an_array_that_arrived_is_the_receivers_own() -> None:
    first, second = received(*[numbers(100)] * 2)
    first[:] = 0
    assert np.array_equal(second, numbers(100))


@pytest.mark.usefixtures("raw")
@pytest.mark.parametrize("part", [0, 3, 2000, 300_000])
def test_a_pipe_that_ends_amid_an_object_is_at_its_end(part: int) -> None:
    ours, theirs = Pipe()
    copy, end = Pipe()
    sender = threading.Thread(target=lambda: (send(theirs, numbers(200_000)), theirs.close()))
    sender.start()
    whole = b""
    while chunk := os.read(ours.fileno(), 1 << 20):
        whole += chunk
    sender.join()
    half = threading.Thread(target=lambda: (_written(end.fileno(), whole[:part]), end.close()))
    half.start()
    with pytest.raises((EOFError, OSError)):
        receive(copy)
    copy.close()
    half.join()


def _written(file: int, content: bytes) -> None:
    while content:
        content = content[os.write(file, content) :]
