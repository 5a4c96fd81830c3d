"""`ShardFolder`: an output folder as readers see it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowkit.storage.commit import Record, listing, scan
from flowkit.storage.row_table import column as column_of
from flowkit.storage.run_file import stored_run
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
