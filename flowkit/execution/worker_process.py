"""What a worker process does until it ends, and how its start keeps out its parent's signals and script."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Generic, Literal, TypeVar

from flowkit.execution.messages import receive, send

Item = TypeVar("Item")
Result = TypeVar("Result")
_PR_SET_PDEATHSIG = 1
Handler = Callable[[], AbstractContextManager[Callable[[Any], Any]]]
"""Called once in each worker; the context it returns yields the function that is applied to every item. It must live in
a module: the user's script is not imported by the workers."""
PARENTS_SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Reach the whole process group; the parent decides what they mean, and kills its workers."""
ALGEBRA_THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
"""What the libraries that NumPy may be built with read when they are loaded."""
KILL_TIMEOUT_S = 10.0
"""How long a killed process is waited for."""
_HIDING = threading.Lock()
"""There is one `__main__` for all pools."""


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Result]):
    """What became of one item.

    `kind` is "done" (then `value`), "raised" (then `error`), "crashed" or "timeout" (then `detail` says how, and `error` is what
    the worker raised, if that is what ended it). `before` says what the worker did before it began with the item.
    """

    kind: Literal["done", "raised", "crashed", "timeout"]
    value: Result | None = None
    error: Exception | None = None
    detail: str = ""
    before: Interlude | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Interlude:
    """What a worker did between two items, or before its first.

    Attributes
    ----------
    sent_s, sent_cpu_s : float
        Wall and CPU seconds in which it handed over the outcome before.
    waited_s : float
        Seconds in which it waited for an item.
    started_cpu_s : float
        CPU seconds of its start; 0 but for the first item.
    """

    sent_s: float = 0.0
    sent_cpu_s: float = 0.0
    waited_s: float = 0.0
    started_cpu_s: float = 0.0


class WorkerStartError(RuntimeError):
    """A worker could not set itself up; every other would fail alike."""


def await_end(process: BaseProcess) -> None:
    """Wait for a process that is ending, but not for ever.

    One that sits in the kernel, as in the driver of a GPU that hangs, dies only when the kernel lets go of it. It is left
    behind, and taken off the list of those that Python waits for at its own end.
    """
    process.join(KILL_TIMEOUT_S)
    if process.exitcode is None:
        multiprocessing.process._children.discard(process)  # type: ignore[attr-defined]


@contextmanager
def main_hidden() -> Iterator[None]:
    """Keep a spawned process from importing the user's script again.

    Nothing of it is needed there, and one without `if __name__ == "__main__"` would start itself once more in every worker.
    """
    with _HIDING:
        main = sys.modules["__main__"]
        file, spec = main.__dict__.pop("__file__", None), main.__spec__
        main.__spec__ = None
        try:
            yield
        finally:
            main.__spec__ = spec
            if file is not None:
                main.__file__ = file


class OneThread:
    """Unpickled in a new process, lets it do linear algebra in one thread, unless the user chose: several would spin, waiting.

    It must come before what imports NumPy, whose libraries read this once.
    """

    def __reduce__(self) -> tuple[Callable[[], OneThread], tuple[()]]:
        return _one_thread, ()


def _one_thread() -> OneThread:
    if "OMP_NUM_THREADS" not in os.environ:
        for name in ALGEBRA_THREADS:
            os.environ.setdefault(name, "1")
    return OneThread()


@contextmanager
def children_allowed() -> Iterator[None]:
    """Let a daemon start a process, as Dask's workers are: the ban is there lest children outlive it, and these do not."""
    config = multiprocessing.current_process()._config  # type: ignore[attr-defined]
    before = config.get("daemon")
    config["daemon"] = False
    try:
        yield
    finally:
        config["daemon"] = before


@contextmanager
def signals_held_back() -> Iterator[None]:
    """Let a new process inherit a mask: it takes no Ctrl-C or SIGTERM meant for the whole group before it can ignore them.

    Windows has no masks: Ctrl-C in the moment of a start ends that worker, and the pool starts another.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # its first start would lift the mask
    before = signal.pthread_sigmask(signal.SIG_BLOCK, PARENTS_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def serve(_: OneThread, handler: Handler, pipe: Connection) -> None:
    """Life of a worker: set up, then answer one item after the other until the pipe closes."""
    for number in PARENTS_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, PARENTS_SIGNALS)
    _die_with_parent()
    try:
        with handler() as function:
            sent = _timed(pipe, None)
            started_cpu_s = time.process_time()
            while True:
                began = time.perf_counter()
                item = receive(pipe)
                before = Interlude(*sent, time.perf_counter() - began, started_cpu_s)
                outcome: Outcome[Any]
                try:
                    outcome = Outcome("done", value=function(item), before=before)
                except Exception as error:  # noqa: BLE001 - whatever it was, it is this item's outcome
                    error.add_note("".join(traceback.format_exception(error)))  # lost on the way otherwise
                    outcome = Outcome("raised", error=_portable(error), before=before)
                sent, started_cpu_s = _timed(pipe, outcome), 0.0
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent is gone
    except Exception as error:  # noqa: BLE001 - told to the parent, which raises it
        send(pipe, WorkerStartError(f"{type(error).__name__}: {error}"))


def _timed(pipe: Connection, what: Any) -> tuple[float, float]:
    """Send something; return the wall and the CPU seconds that it took."""
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    send(pipe, what)
    return time.perf_counter() - wall_s, time.process_time() - cpu_s


def _portable(error: Exception) -> Exception:
    """The error, or its text where it cannot cross to another process."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 - an exception may do anything while it is pickled
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _die_with_parent() -> None:
    """On Linux, end when the supervisor does, even in the midst of an item that hangs; elsewhere, after the item."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
