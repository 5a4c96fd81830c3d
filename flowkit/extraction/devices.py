"""The GPUs of a run: what each is, asked in a process of its own, and what changed since."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from flowkit.errors import BackendUnavailable
from flowkit.execution.supervised_pool import START_TIMEOUT_S, SupervisedPool
from flowkit.execution.worker_process import Outcome, WorkerStartError
from flowkit_kernels.backend import describe_device, use_device


def describe_devices(
    backend: str, indices: Sequence[int], poll: Callable[[], None] = lambda: None
) -> dict[str, dict[str, Any]]:
    """What each GPU is, by its index as text; asked in a process of its own, so that this one holds no GPU.

    `poll` is called several times a second, and may raise to stop.

    Raises
    ------
    BackendUnavailable
        There is no such GPU, or it does not answer.
    """
    if not indices:
        return {}
    with SupervisedPool(partial(_describer, backend), workers=1, timeout_s=START_TIMEOUT_S, window=1) as pool:
        try:
            return {str(index): _answer(index, outcome) for index, outcome in pool.submit(indices).outcomes(poll)}
        except WorkerStartError as error:
            raise BackendUnavailable(
                f"device: a process on the GPU must be able to start; got: {error}. Run flowkit doctor."
            ) from error


def _answer(index: int, outcome: Outcome[dict[str, Any]]) -> dict[str, Any]:
    if outcome.value is not None:
        return outcome.value
    if outcome.error is not None:
        raise outcome.error
    raise BackendUnavailable(
        f"device {index}: GPU must say what it is; got {outcome.detail}, twice. Run flowkit doctor."
    )


@contextmanager
def _describer(backend: str) -> Iterator[Callable[[int], dict[str, Any]]]:
    def describe(index: int) -> dict[str, Any]:
        use_device(backend, index)
        return describe_device(backend)

    yield describe


def other_devices(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What changed of the GPUs' models and drivers, as "one model -> another"; empty if nothing did."""
    models, drivers = (
        [sorted({str(device.get(key, "?")) for device in devices.values()}) for devices in (before, now)]
        for key in ("name", "driver")
    )
    if models[0] != models[1]:
        return _change(*models)
    return "" if drivers[0] == drivers[1] else f"driver {_change(*drivers)}"


def _change(before: Sequence[str], now: Sequence[str]) -> str:
    return " -> ".join(", ".join(names) or "unknown" for names in (before, now))
