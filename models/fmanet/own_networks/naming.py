"""A class named on the command line becomes a registered network, known by its name and the hash of its source.

Nothing is imported because a stored run names it: whoever reads a run of such a network names the class again.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Final

from flowkit.errors import ConfigError, SettingsChanged
from flowkit.named_code import is_name, load
from fmanet.networks import INPUTS, OWN, SOURCE, Network, adopt, network_names

DIGITS: Final = 12


def own_network(name: str) -> str:
    """Import a class, register it as a network, and return the name under which settings know it.

    The working folder is searched last, so a module in it is found and hides nothing.

    Parameters
    ----------
    name : str
        "package.module:Class", or the same with the hash of its source, as a run stores it.

    Returns
    -------
    str
        "package.module:Class@HASH": the source of the module decides the hash.

    Raises
    ------
    ConfigError
        It cannot be imported, or is not called with a configuration.
    SettingsChanged
        The source is not that of the hash.

    Examples
    --------
    >>> own_network("mypackage.net:MyNet")  # doctest: +SKIP
    'mypackage.net:MyNet@3f0c5b1e9a77'
    """
    place, _, wanted = name.partition("@")
    if not is_name(place):
        raise ConfigError(
            f"--network: must be one of {', '.join(network_names())}, or package.module:Class; got {name!r}."
        )
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    if not callable(load(place, "network.network")):
        raise ConfigError(f"--network: {place} must be a class of networks; got no class. Name one.")
    digest = _source_hash(place)
    if wanted and wanted != digest:
        raise SettingsChanged(
            f"network {place}: its source must be that of {wanted}; got {digest}: the module was changed since. Restore it, or "
            "train again in another folder."
        )
    pinned = f"{place}@{digest}"
    adopt(Network(pinned, place, INPUTS, OWN, (), SOURCE))
    return pinned


def _source_hash(place: str) -> str:
    """Hash of the module's file, of its name where it has none."""
    module = sys.modules[place.partition(":")[0]]
    file = getattr(module, "__file__", None)
    content = Path(file).read_bytes() if file else place.encode()
    return hashlib.sha256(content).hexdigest()[:DIGITS]
