"""Objects through a pipe between two processes, with their arrays as they are: pickle would copy each of them on either side.

Without NumPy at the top: a worker chooses its threads before NumPy is imported (`worker_process.OneThread`).
"""

from __future__ import annotations

import os
import pickle
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_PROTOCOL = 5
"""The first that hands buffers out."""
_RAW = hasattr(os, "readv")
"""Whether a pipe is a file that can be read into memory that is there; elsewhere, as on Windows, each buffer is a message."""
_MOST = 1 << 30
"""Bytes that are asked for at once: not every system takes more than 2 GiB."""


def send(pipe: Connection, what: Any) -> None:
    """Send an object that can be pickled to whoever calls `receive` at the other end.

    Raises
    ------
    OSError
        The other end is closed.
    """
    buffers: list[pickle.PickleBuffer] = []
    content = pickle.dumps(what, _PROTOCOL, buffer_callback=buffers.append)
    views = [buffer.raw() for buffer in buffers]
    pipe.send_bytes(pickle.dumps((content, [view.nbytes for view in views])))
    for view in views:
        _send_buffer(pipe, view)


def receive(pipe: Connection) -> Any:
    """Return what was sent.

    Raises
    ------
    EOFError, OSError
        The other end was closed, perhaps amid the object.
    """
    content, sizes = pickle.loads(pipe.recv_bytes())
    return pickle.loads(content, buffers=[_received(pipe, size) for size in sizes])


def _send_buffer(pipe: Connection, view: memoryview) -> None:
    if not _RAW:
        pipe.send_bytes(view)
        return
    while view:
        view = view[os.write(pipe.fileno(), view[:_MOST]) :]


def _received(pipe: Connection, size: int) -> npt.NDArray[np.uint8]:
    import numpy as np

    buffer = np.empty(size, np.uint8)
    if not _RAW:
        pipe.recv_bytes_into(buffer)
        return buffer
    view = buffer.data
    while view:
        count = os.readv(pipe.fileno(), [view[:_MOST]])
        if count == 0:
            raise EOFError
        view = view[count:]
    return buffer
