"""How flow came about, as far as that decides what it means: flow of other alignments is other data.

A folder's settings of the tables `align` and `tvl1` count, of an import how its zero and scale were estimated. The side of the
crop does not, because clips are resized, nor does the file of landmarks, because each data set has its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from flowkit.errors import ConfigError
from flowkit.settings_io import differences
from flowkit.storage.run_file import completed, stored_run

TABLES: Final = ("align", "tvl1", "import")
FREE: Final = ("size", "landmarks")
"""Settings of `align` that may differ."""
ESTIMATED: Final = ("zero", "scale")
"""Settings of an import that may not."""


def alignment(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a folder's settings say of the alignment and the solver, as JSON holds it."""
    tables = {name: dict(table) for name in TABLES if isinstance(table := settings.get(name), Mapping)}
    tables["align"] = {name: value for name, value in tables["align"].items() if name not in FREE}
    if "import" in tables:
        tables["import"] = {name: value for name, value in tables["import"].items() if name in ESTIMATED}
    return tables


def alignments(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """Return each alignment of some shard folders once, in an order that does not depend on that of the folders.

    Raises
    ------
    ConfigError, ShardCorrupt
    """
    each = (alignment(stored_run(path)["settings"]) for path in folders)
    found = {json.dumps(one, sort_keys=True): one for one in each}
    return [found[key] for key in sorted(found)]


def refuse_mixed(settings: Mapping[Path, Mapping[str, Any]]) -> None:
    """Refuse folders of which one is aligned otherwise than the first.

    Parameters
    ----------
    settings : mapping of Path to mapping
        Of each folder.

    Raises
    ------
    ConfigError
    """
    (first, wanted), *others = settings.items()
    for path, own in others:
        if changes := differences(alignment(wanted), alignment(own)):
            raise ConfigError(
                f"dataset: folders must be aligned alike, or their flow does not mean the same; got {first} and {path}, which "
                f"differ ({'; '.join(changes)}). Extract one of them again with the settings of the other, or pass "
                "--allow-mixed-alignment to fmanet train (in Python: mixed_alignment=True)."
            )


def refuse_unknown(
    folders: Sequence[Path], known: Sequence[Mapping[str, Any]], those: str = "those that the run was trained on"
) -> None:
    """Refuse folders that are aligned otherwise than all that a run was trained on.

    Parameters
    ----------
    folders : sequence of Path
    known : sequence of mapping
        As `alignments` gave them.
    those : str
        What the known ones are, for messages.

    Raises
    ------
    ConfigError, ShardCorrupt
    """
    wanted = [completed(one) for one in known]
    for path in folders:
        own = alignment(stored_run(path)["settings"])
        if own not in wanted:
            changes = min((differences(one, own) for one in wanted), key=len)
            raise ConfigError(
                f"{path}: clips must be aligned as {those}; got others ({'; '.join(changes)}). Extract them again with the known "
                "settings, or pass --allow-mixed-alignment."
            )
