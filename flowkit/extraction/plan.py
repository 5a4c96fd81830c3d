"""The plan: which clips form which task, frozen before the first is read.

A plan is a list of generations, each published once under `plan/` and never changed. The first holds the clips of the first
run, sorted by id and cut into tasks of `shard.clips`; clips that come later, and failed ones that are tried again, form new
generations whose tasks are numbered after. So a clip that was committed keeps its shard, and a run that was killed resumes
with exactly the tasks that it had.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from flowkit.errors import ManifestError, ShardCorrupt
from flowkit.inputs.clip import Clip
from flowkit.listing import MAX_PROBLEMS, listed
from flowkit.storage.commit import Record
from flowkit.storage.generations import Entry, Generation, task_key, unplanned
from flowkit.storage.row_table import column, no_garbage_collection


@dataclass(frozen=True, slots=True)
class Task:
    """Clips that become one shard. `key` is equal exactly where settings and rows are."""

    index: int
    clips: tuple[Clip, ...]
    key: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done.

    Attributes
    ----------
    pending : tuple of Task
        In the order in which they run.
    ok, failed : frozenset of str
        Clip ids of the manifest that were committed, and that failed and are not tried again.
    foreign : frozenset of str
        Committed clip ids that the manifest does not name.
    new : Generation or None
        To be published before anything runs.
    """

    pending: tuple[Task, ...]
    ok: frozenset[str]
    failed: frozenset[str]
    foreign: frozenset[str]
    new: Generation | None


def make_plan(
    clips: Sequence[Clip],
    records: Iterable[Record],
    generations: Sequence[Generation],
    *,
    fingerprint: str,
    shard_clips: int,
    retry_failed: bool = False,
) -> Plan:
    """Compare a manifest with what is planned and what is done; pure.

    Parameters
    ----------
    clips : sequence of Clip
        Sorted by id.
    records : iterable of Record
        Valid commit records of the folder.
    generations : sequence of Generation
        Published before, in order.
    fingerprint : str
        Of the settings.
    shard_clips : int
        Clips a task.
    retry_failed : bool
        Whether clips that failed are tried again. One whose row was corrected always is.

    Returns
    -------
    Plan

    Raises
    ------
    ManifestError
        A clip was committed from a row that now says something else.
    ShardCorrupt
        A record does not belong to this plan and these settings.
    """
    with no_garbage_collection():
        return _compared(clips, list(records), generations, fingerprint, shard_clips, retry_failed)


def _compared(
    clips: Sequence[Clip],
    records: Sequence[Record],
    generations: Sequence[Generation],
    fingerprint: str,
    shard_clips: int,
    retry_failed: bool,
) -> Plan:
    problems = unplanned(records, generations, fingerprint)
    if problems:
        raise ShardCorrupt("\n".join(problems[:MAX_PROBLEMS]))
    rows = {clip.clip_id: clip.row_hash() for clip in clips}
    done_tasks, ok, failed = _committed(records)
    foreign = _refuse_changed(clips, rows, ok)
    open_tasks = _open_tasks(generations, done_tasks, rows, ok)
    covered = {name for _, entries in open_tasks for name, _ in entries}
    settled = {name for name, row in failed.items() if not retry_failed and rows.get(name) == row}
    seen = covered.union(settled, ok)
    rest = [clip for clip in clips if clip.clip_id not in seen]
    new = _generation(generations, [(clip.clip_id, rows[clip.clip_id]) for clip in rest], shard_clips)
    by_id = {clip.clip_id: clip for clip in clips} if open_tasks else {}
    pending = [
        _task(index, entries, [by_id[name] for name, _ in entries], fingerprint) for index, entries in open_tasks
    ]
    if new is not None:
        for number, entries in enumerate(new.tasks):
            chosen = rest[number * shard_clips : (number + 1) * shard_clips]
            pending.append(_task(new.first_task + number, entries, chosen, fingerprint))
    return Plan(
        pending=tuple(pending),
        ok=frozenset(ok) - foreign,
        failed=frozenset(settled.difference(ok, covered)),
        foreign=foreign,
        new=new,
    )


def _committed(records: Iterable[Record]) -> tuple[set[int], dict[str, str], dict[str, str]]:
    tasks: set[int] = set()
    ok: dict[str, str] = {}
    failed: dict[str, str] = {}
    for record in records:
        tasks.add(record.task)
        for rows, found in ((record.content["clips"], ok), (record.content["failures"], failed)):
            found.update(zip(column(rows, "clip_id"), column(rows, "row"), strict=True))
    return tasks, ok, failed


def _refuse_changed(clips: Sequence[Clip], rows: Mapping[str, str], ok: Mapping[str, str]) -> frozenset[str]:
    """Committed clips that the manifest does not name; those that it names must have the row that they had."""
    differ = {name for name, row in ok.items() if rows.get(name) != row}
    changed = [clip.where for clip in clips if clip.clip_id in differ] if differ else []
    if changed:
        raise ManifestError(
            f"manifest: rows of committed clips must stay as they were; got other contents in {listed(changed, MAX_PROBLEMS)}. "
            f"Use another --out, or discard all shards with flowkit extract --overwrite."
        )
    return frozenset(differ)


def _open_tasks(
    generations: Sequence[Generation], done: set[int], rows: Mapping[str, str], ok: Mapping[str, str]
) -> list[tuple[int, tuple[Entry, ...]]]:
    """Planned tasks that are not committed and still fit the manifest; of two that share a clip the older."""
    found: list[tuple[int, tuple[Entry, ...]]] = []
    covered: set[str] = set()
    for generation in generations:
        for index, entries in enumerate(generation.tasks, generation.first_task):
            if index in done or not all(rows.get(name) == row for name, row in entries):
                continue
            names = {name for name, _ in entries}
            if ok.keys().isdisjoint(names) and covered.isdisjoint(names):
                found.append((index, entries))
                covered |= names
    return found


def _generation(before: Sequence[Generation], entries: Sequence[Entry], shard_clips: int) -> Generation | None:
    if not entries:
        return None
    first = before[-1].first_task + len(before[-1].tasks) if before else 0
    tasks = tuple(tuple(entries[i : i + shard_clips]) for i in range(0, len(entries), shard_clips))
    return Generation(len(before), first, tasks)


def _task(index: int, entries: Sequence[Entry], clips: Sequence[Clip], fingerprint: str) -> Task:
    return Task(index, tuple(clips), task_key(entries, fingerprint))
