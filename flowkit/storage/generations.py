"""The plan of a folder on disk: its generations, each published once under `plan/` and never changed.

A generation says which clips, by id and hash of their row, form which task. `extraction.plan` makes them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowkit.errors import ShardCorrupt
from flowkit.storage.commit import Record
from flowkit.storage.durable_files import publish_file
from flowkit.storage.hashed_json import SCHEMA, decode, encode
from flowkit.storage.record_forms import is_generation
from flowkit.storage.row_table import no_garbage_collection
from flowkit.storage.safe_files import NotRegular, read_regular

Entry = tuple[str, str]
"""Clip id and row hash: what a generation says of a clip."""


@dataclass(frozen=True, slots=True)
class Generation:
    """Tasks that were planned together, numbered from `first_task`."""

    number: int
    first_task: int
    tasks: tuple[tuple[Entry, ...], ...]


def unplanned(records: Iterable[Record], generations: Sequence[Generation], fingerprint: str) -> list[str]:
    """A message for each record that is not that of a planned task: it was made with other settings, or the plan is gone."""
    planned = {
        index: entries
        for generation in generations
        for index, entries in enumerate(generation.tasks, generation.first_task)
    }
    return [
        f"{record.path}: record must belong to the plan and the settings of its folder; got another key. Extract into another "
        "folder, or begin again with flowkit extract --overwrite."
        for record in records
        if record.task not in planned or record.content["key"] != task_key(planned[record.task], fingerprint)
    ]


def task_key(entries: Sequence[Entry], fingerprint: str) -> str:
    """Return the key of a task: equal exactly where the settings and the rows of its clips are."""
    return hashlib.sha256(json.dumps([fingerprint, entries]).encode()).hexdigest()


def read_generations(out: Path) -> list[Generation]:
    """Every generation of a folder, in order.

    Raises
    ------
    ShardCorrupt
        One is missing or damaged: which task holds which clip would be a guess.
    """
    found = []
    with no_garbage_collection():
        for number, path in enumerate(sorted(out.glob("plan/[0-9]*.json"))):
            try:
                content = decode(read_regular(path))
            except NotRegular:
                content = None
            if content is None or content.get("number") != number or not is_generation(content):
                raise ShardCorrupt(
                    f"{path}: plan must be generation {number} as it was written; got something else. Restore the file, or use "
                    "another folder."
                )
            tasks = tuple(tuple([(name, row) for name, row in task]) for task in content["tasks"])
            found.append(Generation(number, content["first_task"], tasks))
    return found


def publish_generation(out: Path, generation: Generation) -> bool:
    """Freeze a generation; False if another run was faster, whose generation then counts."""
    content: dict[str, Any] = {
        "schema": SCHEMA,
        "number": generation.number,
        "first_task": generation.first_task,
        "tasks": generation.tasks,
    }
    return publish_file(out / "plan" / f"{generation.number:06d}.json", encode(content))
