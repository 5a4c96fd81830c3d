"""What a shard folder holds (`flowkit inspect`), and whether every byte of it is still right (`flowkit verify`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowkit.commit import invalid_records
from flowkit.errors import ShardCorrupt
from flowkit.index import finalise
from flowkit.plan import read_generations, unplanned
from flowkit.quality import Flag
from flowkit.shards import ShardFolder


def inspect(out: str | Path) -> dict[str, Any]:
    """Counts, settings and versions of a folder, from its records alone.

    Parameters
    ----------
    out : str or Path
        The `--out` of an extraction.

    Returns
    -------
    dict
        Plain values, for a table or JSON.

    Raises
    ------
    ConfigError, ShardCorrupt
    """
    folder = ShardFolder.open(out)
    clips, failures = folder.clips(), folder.failures()
    planned = set().union(*_planned_clips(folder).values())
    files = [record.content["file"] for record in folder.records if record.content["file"]]
    return {
        "path": str(out),
        "planned": len(planned),
        "ok": len(clips),
        "failed": len(failures),
        "not_started": len(planned) - len({c["clip_id"] for c in clips} | {f["clip_id"] for f in failures}),
        "shards": len(files),
        "bytes": sum(file["bytes"] for file in files),
        "subjects": len({(clip["dataset"], clip["subject"]) for clip in clips}),
        "labels": {
            dataset: dict(sorted(Counter(c["label"] for c in clips if c["dataset"] == dataset).items()))
            for dataset in sorted({clip["dataset"] for clip in clips})
        },
        "phases_invalid": sum(not all(clip["phase_valid"]) for clip in clips),
        "qc": {flag.name: n for flag in Flag if (n := sum(bool(clip["qc"] & flag) for clip in clips))},
        "failure_codes": dict(sorted(Counter(failure["code"] for failure in failures).items())),
        "backend": folder.run["backend"],
        "fingerprint": folder.run["fingerprint"],
        "settings": folder.run["settings"],
        "versions": folder.run["versions"],
        "machine": folder.run["machine"],
        "device": folder.run.get("device", {}),  # folders of version 0.1 do not say
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
            problems += _order_problem(shard.path, stored, [c["clip_id"] for c in shard.record.content["clips"]])
        except ShardCorrupt as error:
            problems.append(str(error))
    return Verification(len(shards), clips, tuple(problems), _remake_index(folder.path))


def _remake_index(out: Path) -> tuple[str, ...]:
    try:
        finalise(out)
    except OSError as error:
        return (f"{out}: index.json and failures.csv were not made again: {error.strerror}.",)
    return ()


def _record_problems(folder: ShardFolder) -> list[str]:
    problems = [
        f"{path}: commit record and its shard must be whole; got something else. Run extract again: it redoes the task."
        for path in invalid_records(folder.path)
    ]
    seen: Counter[str] = Counter(clip["clip_id"] for clip in folder.clips())
    problems += [
        f"{folder.path}: clip {name} must be committed once; got {count} times. Two runs with different manifests worked here "
        "at once: use another --out."
        for name, count in seen.items()
        if count > 1
    ]
    problems += unplanned(folder.records, read_generations(folder.path), folder.run["fingerprint"])
    planned = _planned_clips(folder)
    for record in folder.records:
        recorded = {entry["clip_id"] for entry in record.content["clips"] + record.content["failures"]}
        if recorded != planned.get(record.task):
            problems.append(
                f"{record.path}: record must account for the clips of its task in the plan; got {len(recorded)} others. "
                "Please report this as a bug."
            )
    return problems


def _planned_clips(folder: ShardFolder) -> dict[int, set[str]]:
    return {
        index: {name for name, _ in entries}
        for generation in read_generations(folder.path)
        for index, entries in enumerate(generation.tasks, generation.first_task)
    }


def _order_problem(path: Path, stored: list[str], recorded: list[str]) -> list[str]:
    if stored == recorded:
        return []
    return [
        f"{path}: clips must stand as in the commit record; got another order or other clips. Restore it from a copy."
    ]
