"""`ShardFolder`: an output folder as readers see it, and its file run.json."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowkit.errors import ConfigError, EnvironmentMissing, SchemaTooNew, SettingsChanged, ShardCorrupt
from flowkit.storage.commit import RUN_FILE, Record, listing, scan
from flowkit.storage.hashed_json import decode
from flowkit.storage.record_forms import is_run
from flowkit.storage.row_table import column as column_of
from flowkit.storage.safe_files import NotRegular, read_regular
from flowkit.storage.schema import NEWER_SETTINGS, SHARD_SCHEMA
from flowkit.storage.shard_reader import Shard


@dataclass(frozen=True)
class ShardFolder:
    """An output folder as readers see it: its run file and its valid commit records.

    Attributes
    ----------
    path : Path
    run : dict
        Content of run.json: schema, shard_schema, settings, fingerprint, backend, versions.
    records : tuple of Record
    invalid : tuple of Path
        Commit records that are torn, or whose shard is missing or of another length.
    listing : tuple
        `commit.listing` of the folder, made before the records were read.
    """

    path: Path
    run: dict[str, Any]
    records: tuple[Record, ...]
    invalid: tuple[Path, ...] = ()
    listing: tuple[tuple[str, int, str], ...] = ()

    @classmethod
    def open(cls, path: str | Path) -> ShardFolder:
        """Read run.json and the commit records.

        Raises
        ------
        ConfigError
            The folder holds no run.
        ShardCorrupt
            run.json is damaged.
        """
        path = Path(path)
        run = stored_run(path)
        files = listing(path)
        records, invalid = scan(path)
        return cls(path, run, tuple(records), tuple(invalid), tuple(files))

    def shards(self, *, verify: bool = True) -> Iterator[Shard]:
        """Each shard in task order; those of tasks in which every clip failed have none."""
        for record in self.records:
            if record.content["file"] is not None:
                yield Shard(record, self.run["settings"], verify=verify)

    @property
    def clip_count(self) -> int:
        """Committed clips."""
        return sum(len(record.content["clips"]) for record in self.records)

    def clips(self) -> list[dict[str, Any]]:
        """One dict a committed clip (clip_id, dataset, subject, label, row hash, task, position), in stored order."""
        return [*self.each_clip()]

    def each_clip(self) -> Iterator[dict[str, Any]]:
        """As `clips`, one at a time: all of them are a gigabyte for a million."""
        for record in self.records:
            for position, clip in enumerate(record.content["clips"]):
                yield {**clip, "task": record.task, "position": position}

    def failures(self) -> list[dict[str, Any]]:
        """One dict a clip whose latest attempt failed, by clip id."""
        latest: dict[str, dict[str, Any]] = {}
        for record in self.records:
            for failure in record.content["failures"]:
                earlier = latest.get(failure["clip_id"], {"attempt": 0})
                latest[failure["clip_id"]] = {**failure, "task": record.task, "attempt": earlier["attempt"] + 1}
        if latest:
            for record in self.records:
                for name in column_of(record.content["clips"], "clip_id"):
                    latest.pop(name, None)
        return [latest[name] for name in sorted(latest)]


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
