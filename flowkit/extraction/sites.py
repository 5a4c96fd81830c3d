"""The machines that a run computes on: what every site offers, and this machine as one. They decide backend, versions and bytes."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from flowkit.extraction.devices import describe_devices
from flowkit.extraction.options import RunOptions
from flowkit.extraction.run_local import InProcess, Placement
from flowkit.extraction.run_on_gpus import OnDevices
from flowkit.provenance import versions
from flowkit_kernels import is_compiled, resolve_backend, warm_up
from flowkit_kernels.backend import GPU_BACKENDS, use_device
from flowkit_kernels.host import processor

Poll = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Survey:
    """What computes: versions of all that has a say in the bytes, GPUs by index as text, and the machine."""

    versions: Mapping[str, str]
    devices: Mapping[str, Mapping[str, Any]]
    machine: Mapping[str, str]


class Site(Protocol):
    """Where a run computes."""

    def resolve(self, backend: str, poll: Poll) -> str:
        """The backend that will run there; "auto" becomes a concrete one.

        Raises
        ------
        BackendUnavailable
        """

    def survey(self, backend: str, devices: Sequence[int], poll: Poll) -> Survey:
        """What computes there with a backend that is resolved.

        Raises
        ------
        BackendUnavailable
        """

    def warm_up(self, tell: Callable[[str], None], poll: Poll) -> float:
        """Have the CPU's kernels compiled there, and return the seconds that it took, 0 where they were compiled already.

        Raises
        ------
        BackendUnavailable
        """

    def staff(self, options: RunOptions, backend: str) -> tuple[int, int]:
        """Return numbers of worker processes and of threads that compute; 0 where the machine that computes is to decide."""

    def placement(self, backend: str, devices: Sequence[int], survey: Survey) -> Placement:
        """How tasks run there."""


class Here:
    """The machine on which the command was given."""

    def resolve(self, backend: str, poll: Poll) -> str:
        """As `Site.resolve`."""
        return resolve_backend(backend)

    def survey(self, backend: str, devices: Sequence[int], poll: Poll) -> Survey:
        """As `Site.survey`."""
        return survey_here(backend, devices, poll)

    def warm_up(self, tell: Callable[[str], None], poll: Poll) -> float:
        """As `Site.warm_up`."""
        return 0.0 if is_compiled() else warm_up("cpu", tell)  # this process itself needs none of them

    def staff(self, options: RunOptions, backend: str) -> tuple[int, int]:
        """As `Site.staff`: one a core by default."""
        return options.cores(options.workers), options.cores(options.threads)

    def placement(self, backend: str, devices: Sequence[int], survey: Survey) -> Placement:
        """GPU backends run on their devices, the others in this process."""
        return OnDevices(devices, partial(use_device, backend)) if backend in GPU_BACKENDS else InProcess()


def survey_here(backend: str, devices: Sequence[int], poll: Poll = lambda: None) -> Survey:
    """What computes on the machine where this is called.

    Raises
    ------
    BackendUnavailable
    """
    return Survey(
        versions(backend),
        describe_devices(backend, devices, poll),
        {"processor": processor(), "system": platform.platform()},
    )
