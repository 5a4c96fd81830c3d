"""Whether a run may add to what a folder holds: it must have the settings of the folder and write its schema."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowkit.errors import SettingsChanged
from flowkit.settings_io import differences
from flowkit.storage import commit
from flowkit.storage.run_file import completed, refuse_older
from flowkit.storage.schema import SHARD_SCHEMA


def changed_settings(settings: Mapping[str, Any], stored: Mapping[str, Any]) -> list[str]:
    """What keeps this run from adding shards to those of a folder."""
    older = stored["shard_schema"] != SHARD_SCHEMA
    return (
        differences(stored["settings"], completed(settings))
        + [f"schema {stored['shard_schema']} -> {SHARD_SCHEMA}"] * older
    )


def refuse_changes(settings: Mapping[str, Any], stored: Mapping[str, Any], out: Path) -> bool:
    """Whether the folder was begun with other settings and holds nothing yet, so that it may be begun anew."""
    changes = changed_settings(settings, stored)
    shards = len(commit.read_records(out)) if changes else 0
    if shards:
        refuse_older(out, stored, f"for the same settings: flowkit settings --of {out} --out FILE, then --config FILE")
        raise SettingsChanged(
            f"{out} holds shards made with other settings ({'; '.join(changes)}). Use another --out, or --overwrite to discard "
            f"{shards} shards."
        )
    return bool(changes)
