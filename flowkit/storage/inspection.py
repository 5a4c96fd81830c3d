"""What a shard folder holds (`flowkit inspect`), and whether every byte of it is still right (`flowkit verify`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowkit.errors import ShardCorrupt
from flowkit.storage.folder import ShardFolder
from flowkit.storage.generations import read_generations, unplanned
from flowkit.storage.index import INDEX_FILE, Index, finalise
from flowkit.storage.quality import Flag
from flowkit.storage.row_table import column
from flowkit.storage.run_file import stored_run


def inspect(out: str | Path, tell: Callable[[str], None] = lambda note: None) -> dict[str, Any]:
    """Counts, settings and versions of a folder: from its index if that is current, else from its records.

    Parameters
    ----------
    out : str or Path
        The `--out` of an extraction.
    tell : callable
        Told why the records are read, which takes seconds for a million clips.

    Returns
    -------
    dict
        Plain values, for a table or JSON.

    Raises
    ------
    ConfigError, ShardCorrupt
    """
    run, index = stored_run(Path(out)), Index.load(out, tell)
    return {
        "path": str(out),
        "planned": int(index.planned),
        "ok": len(index),
        "failed": len(index.failed_clip_id),
        "not_started": int(index.not_started),
        "shards": len(index.shard_bytes),
        "bytes": int(index.shard_bytes.sum()),
        "subjects": len(index.persons()),
        "labels": index.label_counts(),
        "phases_invalid": int(index.phase_missing().sum()),
        "qc": {flag.name: n for flag in Flag if (n := int(((index.qc & flag) > 0).sum()))},
        "failure_codes": dict(sorted(Counter(code for _, code in index.failures()).items())),
        "schema": run["shard_schema"],
        "backend": run["backend"],
        "fingerprint": run["fingerprint"],
        "settings": run["settings"],
        "versions": run["versions"],
        "machine": run["machine"],
        "device": run.get("device", {}),  # folders of version 0.1 do not say
    }


@dataclass(frozen=True, slots=True)
class Verification:
    """Outcome of `verify`: what was checked, every problem, and notes that are none (a folder that cannot be written)."""

    shards: int
    clips: int
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()


def verify(out: str | Path, tell: Callable[[int, int], None] = lambda done, total: None) -> Verification:
    """Read every byte of a folder: records, files against their hashes, each clip against its own; remake the index.

    Parameters
    ----------
    out : str or Path
    tell : callable
        Called with (shards done, shards in all).

    Returns
    -------
    Verification

    Raises
    ------
    ConfigError, ShardCorrupt
        run.json or the plan itself is missing or damaged.
    """
    folder = ShardFolder.open(out)
    shards = list(folder.shards())
    problems = _record_problems(folder)
    clips = 0
    for number, shard in enumerate(shards):
        tell(number, len(shards))
        try:
            with shard:
                stored = [sample["clip_id"] for sample in shard.samples()]
            clips += len(stored)
            problems += _order_problem(shard.path, stored, column(shard.record.content["clips"], "clip_id"))
        except ShardCorrupt as error:
            problems.append(str(error))
    return Verification(len(shards), clips, tuple(problems), _remake_index(folder.path))


def _remake_index(out: Path) -> tuple[str, ...]:
    try:
        finalise(out)
    except OSError as error:
        return (f"{out}: {INDEX_FILE} and failures.csv were not made again: {error.strerror}.",)
    return ()


def _record_problems(folder: ShardFolder) -> list[str]:
    problems = [
        f"{path}: commit record and its shard must be whole; got something else. Run extract again: it redoes the task."
        for path in folder.invalid
    ]
    seen = Counter(name for record in folder.records for name in column(record.content["clips"], "clip_id"))
    problems += [
        f"{folder.path}: clip {name} must be committed once; got {count} times. Two runs with different manifests worked here "
        "at once: use a folder for each."
        for name, count in seen.items()
        if count > 1
    ]
    generations = read_generations(folder.path)
    problems += unplanned(folder.records, generations, folder.run["fingerprint"])
    planned = dict(task for generation in generations for task in enumerate(generation.tasks, generation.first_task))
    for record in folder.records:
        recorded = {name for part in ("clips", "failures") for name in column(record.content[part], "clip_id")}
        if recorded != {name for name, _ in planned.get(record.task, ())}:
            problems.append(
                f"{record.path}: record must account for the clips of its task in the plan; got {len(recorded)} others. "
                "Please report this as a bug."
            )
    return problems


def _order_problem(path: Path, stored: list[str], recorded: list[str]) -> list[str]:
    if stored == recorded:
        return []
    return [
        f"{path}: clips must stand as in the commit record; got another order or other clips. Restore it from a copy."
    ]
