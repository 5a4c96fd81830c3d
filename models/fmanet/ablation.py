"""The ladder: from one phase alone to the whole network, one run a row, each compared with the row before it and with FMANet."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from flowkit.errors import ConfigError
from flowkit.labels.action_units import ACTION_UNIT_TARGETS
from flowkit.storage import durable_files, hashed_json
from fmanet.networks import all_networks, registered
from fmanet.results import gather
from fmanet.scoring.intervals import paired_difference
from fmanet.settings import RunSettings

METHOD: Final = "fmanet"
"""The network that the rows of others are compared with."""
ABLATION_FILE = "ablation.json"
COLUMNS = (
    "row",
    "UF1, average over seeds",
    "mean of seeds",
    "UAR",
    "ACC",
    "UF1 against the row before",
    "UF1 against FMANet",
)


@dataclass(frozen=True, slots=True)
class Row:
    """One run of the ladder."""

    title: str
    folder: str
    settings: RunSettings


def ladder(settings: RunSettings, *, action_units: bool = True) -> list[Row]:
    """The runs, in order; they differ in the network alone.

    Parameters
    ----------
    settings : RunSettings
        `network.network` and `network.inputs` are set by the ladder.
    action_units : bool
        Whether any clip has strengths of action units; without them, rows that ask what they are worth are left out. Closed forms
        are left out where action units are the targets.

    Raises
    ------
    ConfigError
        One subject alone is held out: nothing can be compared.
    """
    if settings.is_final:
        raise ConfigError("ablate: protocol.name must hold somebody out; got 'final'. Leave it out.")
    held_out = settings.protocol.hold_out
    if len(held_out) == 1:
        raise ConfigError(
            f"ablate: two subjects or more must be held out, or no interval means anything; got {held_out[0]} alone. Hold out "
            "more with --hold-out."
        )
    return [
        Row(
            title,
            f"{number:02d}-{title.lower().replace(',', '').replace(' ', '-')}",
            replace(settings, network=replace(settings.network, **changes)),
        )
        for number, (title, changes) in enumerate(rungs())
        if (action_units or not about_action_units(changes))
        and not (settings.classes == ACTION_UNIT_TARGETS and registered(str(changes["network"])).closed_form)
    ]


def about_action_units(changes: Mapping[str, Any]) -> bool:
    """Return whether a row, by what it sets of the network, says nothing where no clip has strengths of action units."""
    return changes["network"] == "action-units" or "action_units" in changes


def rungs() -> list[tuple[str, dict[str, Any]]]:
    """Return the title of each row and what it sets of the network: those of other networks first, the whole FMANet last."""
    by_name = {
        network.name: [
            (title, {"inputs": "both", **changes, "network": network.name}) for title, changes in network.ladder
        ]
        for network in all_networks()
    }
    method = by_name.pop(METHOD)
    return [row for rows in by_name.values() for row in rows] + method


def compare(out: Path, rows: Sequence[Row], scores: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the scores of every row, and paired differences over the same draws of subjects; written to ablation.json.

    Parameters
    ----------
    out : Path
        Folder of the runs.
    rows : sequence of Row
        Of `ladder`.
    scores : sequence of mapping
        Those of each row, as `write_results` gives them.

    Raises
    ------
    FoldsMissing, ShardCorrupt, TableDamaged, ConfigError
    """
    predicted = [gather(out / row.folder) for row in rows]
    whole = predicted[-1][0]
    found = []
    for number, row in enumerate(rows):
        own, classes = predicted[number]
        before = predicted[number - 1][0] if number else None
        found.append(
            {
                "row": row.title,
                "folder": row.folder,
                "network": row.settings.network.to_dict(),
                "seed_average": scores[number]["seed_average"],
                "interval": scores[number]["interval"],
                "spread": scores[number]["spread"],
                "against_row_before": None if before is None else asdict(paired_difference(own, before, classes)),
                "against_fmanet": None if own is whole else asdict(paired_difference(own, whole, classes)),
            }
        )
    compared = {"schema": hashed_json.SCHEMA, "rows": found}
    durable_files.replace_file(out / ABLATION_FILE, json.dumps(compared, indent=1).encode() + b"\n")
    return compared


def table(compared: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The comparison as a table for people."""
    rows = []
    for row in compared["rows"]:
        cells = []
        for metric in ("uf1", "uar", "acc"):
            bounds = row["interval"][metric]
            cells.append(f"{row['seed_average'][metric]:.4f} [{bounds['low']:.4f}, {bounds['high']:.4f}]")
        std = row["spread"]["uf1"]["std"]
        mean = f"{row['spread']['uf1']['mean']:.4f}" + ("" if std is None else f" +- {std:.4f}")
        against = (_difference(row[name]) for name in ("against_row_before", "against_fmanet"))
        rows.append((row["row"], cells[0], mean, cells[1], cells[2], *against))
    return rows


def _difference(found: Mapping[str, Any] | None) -> str:
    return "" if found is None else f"{found['value']:+.4f} [{found['low']:+.4f}, {found['high']:+.4f}]"
