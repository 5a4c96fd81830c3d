"""What a network that is no part of flowkit must not do while it trains: open the shards, or remember one fold in the next.

It is given training clips and nothing else. These guards find mistakes (a cache, a class attribute, a path written into the
module), not malice: code that wants to cheat in its own process can.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from fmanet.dataset import Clips
from fmanet.errors import LeakError
from fmanet.own_networks.probing import fingerprint
from fmanet.settings import NetworkConfig

_watched: list[tuple[str, str]] = []
"""Real paths of folders that must not be opened now, and the network that must not."""
_installed: list[Callable[..., Any]] = []
"""What opened HDF5 files before, once the guard is in place; an audit hook cannot be removed."""


class Memory:
    """How a network starts and answers in this process before it has trained; later it must do the same.

    Parameters
    ----------
    network : NetworkConfig
    clips : Clips
    """

    def __init__(self, network: NetworkConfig, clips: Clips) -> None:
        self._network, self._clips = network, clips
        self._before = fingerprint(network, clips)

    def check(self, fold: str) -> None:
        """Refuse a network that starts or answers otherwise than before it was trained on any fold.

        Raises
        ------
        LeakError
        """
        if fingerprint(self._network, self._clips) != self._before:
            raise LeakError(
                f"network {self._network.network}: it must start and answer in fold {fold} as before any training; got other "
                "numbers. It keeps something of an earlier fold outside its weights (a global, a class attribute, a cache), so "
                "held-out clips may have been seen. Keep all of it in the module."
            )


@contextmanager
def unopened(folders: Sequence[Path], network: str) -> Iterator[None]:
    """Refuse to open any file of these folders, by Python or by HDF5, while the block runs.

    Raises
    ------
    LeakError
        From whatever opens the file.
    """
    _install()
    entries = [(os.path.realpath(path), network) for path in folders]
    _watched.extend(entries)
    try:
        yield
    finally:
        del _watched[len(_watched) - len(entries) :]


def _install() -> None:
    if _installed:
        return
    _installed.append(h5py.h5f.open)
    sys.addaudithook(_audited)
    h5py.h5f.open = _opened


def _opened(name: bytes | str, *arguments: Any, **named: Any) -> Any:
    _refuse(name)
    return _installed[0](name, *arguments, **named)


def _audited(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _watched:
        _refuse(arguments[0])


def _refuse(name: object) -> None:
    if not _watched or not isinstance(name, str | bytes | os.PathLike):
        return
    path = os.path.realpath(os.fsdecode(name))
    for folder, network in _watched:
        if path == folder or path.startswith(folder + os.sep):
            raise LeakError(
                f"network {network}: it must learn from the clips that it is given; got an attempt to open {path}, which holds the "
                "held-out clips too. Take it out of the network."
            )
