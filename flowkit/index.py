"""What is derived from the commit records, and can be made again from them at any time: index.json and failures.csv."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flowkit import commit
from flowkit.shards import ShardFolder

FAILURE_FIELDS = ("clip_id", "code", "message", "path", "attempt", "host", "task")


def finalise(out: Path) -> ShardFolder:
    """Write what is derived from the commit records: index.json and failures.csv."""
    folder = ShardFolder.open(out)
    commit.replace_file(out / "index.json", _index(folder))
    commit.replace_file(out / "failures.csv", _failures_csv(folder.failures()))
    return folder


def _index(folder: ShardFolder) -> bytes:
    clips = folder.clips()
    names = ("clip_id", "dataset", "subject", "label", "task", "position")
    index = {
        "schema": commit.SCHEMA,
        "fingerprint": folder.run["fingerprint"],
        "shards": {record.task: record.content["file"] for record in folder.records},
        "clips": {name: [clip[name] for clip in clips] for name in names},
    }
    return json.dumps(index, ensure_ascii=False).encode()


def _failures_csv(failures: Sequence[Mapping[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, FAILURE_FIELDS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(failures)
    return text.getvalue().encode()
