"""run.json: the settings and versions of a folder, read and checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowkit.errors import ConfigError, EnvironmentMissing, SchemaTooNew, SettingsChanged, ShardCorrupt
from flowkit.storage.commit import RUN_FILE
from flowkit.storage.hashed_json import decode
from flowkit.storage.record_forms import is_run
from flowkit.storage.safe_files import NotRegular, read_regular
from flowkit.storage.schema import NEWER_SETTINGS, SHARD_SCHEMA


def stored_run(out: Path) -> dict[str, Any]:
    """Content of run.json.

    Raises
    ------
    ConfigError
        There is none.
    ShardCorrupt
    """
    run = read_run(out)
    if run is None:
        raise ConfigError(
            f"{out}: folder must hold the shards of an extraction; got no {RUN_FILE}. Give the --out of flowkit extract."
        )
    return run


def read_run(out: Path) -> dict[str, Any] | None:
    """Content of run.json, or None where there is none.

    Its `shard_schema` is that of the folder's shards, and its settings name every setting, also in folders of older versions.

    Raises
    ------
    ConfigError
        The folder is another tool's.
    ShardCorrupt, SchemaTooNew
    """
    path = out / RUN_FILE
    try:
        run = decode(read_regular(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except NotRegular:
        run = None
    except OSError as error:
        raise EnvironmentMissing(f"{path}: must be readable; got {error.strerror}. Check its permissions.") from error
    if run is not None and isinstance(run.get("kind"), str) and not is_run(run):
        raise ConfigError(f"{out}: folder must be one of flowkit extract; got another tool's. Give another folder.")
    if run is None or not is_run(run):
        raise ShardCorrupt(f"{path}: must be as it was written; got something else. Restore it from a copy.")
    run = {"shard_schema": 1, **run, "settings": completed(run["settings"])}
    if run["shard_schema"] > SHARD_SCHEMA:
        raise SchemaTooNew(
            f"{out}: schema of the shards must be at most {SHARD_SCHEMA}; got {run['shard_schema']}. Use the newer flowkit that "
            "wrote them."
        )
    return run


def completed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of an extraction with `NEWER_SETTINGS` where they name none; those of an import as they are."""
    if "import" in settings:
        return dict(settings)
    tables = {name: table for name in NEWER_SETTINGS if isinstance(table := settings.get(name), Mapping)}
    return {**settings, **{name: {**NEWER_SETTINGS[name], **table} for name, table in tables.items()}}


def refuse_older(out: Path, run: Mapping[str, Any], same_settings: str = "") -> None:
    """Refuse to add shards to a folder whose shards have fewer columns: it is read, and stays as it is.

    Parameters
    ----------
    out : Path
    run : mapping
        What `read_run` gave.
    same_settings : str
        How to get the folder's settings for another one.

    Raises
    ------
    SettingsChanged
    """
    if run["shard_schema"] < SHARD_SCHEMA:
        older = run["versions"].get("flowkit", "of then")
        raise SettingsChanged(
            f"{out}: this folder is of flowkit {older}, whose shards have fewer columns: it can be read, but this version adds no "
            f"clip to it. Use another --out{same_settings and f' ({same_settings})'}, or finish it with flowkit {older}."
        )
