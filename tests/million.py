"""A large folder that holds no flow: a real manifest, plan, run file and commit records, and shard files of the right length."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from flowkit import commit
from flowkit.config import AlignConfig, ExtractConfig
from flowkit.errors import ClipError, FailureCode
from flowkit.manifest import REQUIRED, Clip, read_manifest
from flowkit.plan import Task, make_plan, publish_generation
from flowkit.quality import Flag
from flowkit.shards import sample_bytes
from flowkit.task import record_content

CONFIG = ExtractConfig(align=AlignConfig(method="none"), backend="cpu")
FLAGS = ("--align", "none", "--backend", "cpu")
"""What `CONFIG` is on the command line."""
SUBJECTS = 500
LABELS = ("disgust", "happiness", "repression", "surprise", "others")
FAILS_EVERY = 1009
"""One clip in so many failed."""

Encode = Callable[[Mapping[str, Any]], bytes]


def write_manifest(path: Path, clips: int) -> Path:
    """A manifest of so many clips of `SUBJECTS` subjects, with one further column."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow((*REQUIRED, "fps", "au"))
        writer.writerows(_manifest_rows(clips))
    return path


def _manifest_rows(clips: int) -> Iterator[tuple[object, ...]]:
    for number in range(clips):
        subject, onset = f"spNO.{number % SUBJECTS}", number * 37 % 5000
        frames = (onset, onset + 15, onset + 31)
        where = f"casme3-a/{subject}/{number:07d}", f"part_A/{subject}/clip{number:07d}"
        yield (*where, *frames, subject, "casme3-a", LABELS[number % len(LABELS)], "30", "4+7")


def build(manifest: Path, out: Path, *, share: float = 1.0, encode: Encode = commit.encode) -> None:
    """Plan the clips of a manifest and commit the first share of the tasks, as `flowkit extract` with `FLAGS` would."""
    clips = read_manifest(manifest)
    commit.probe(out)
    versions = {"flowkit": "0.1.0", "python": "3.11.7"}
    run = {
        **{"schema": commit.SCHEMA, "fingerprint": CONFIG.fingerprint(), "settings": CONFIG.to_dict()},
        **{"backend": CONFIG.backend, "versions": versions, "device": {}, "machine": {}},
    }
    (out / commit.RUN_FILE).write_bytes(encode(run))
    plan = make_plan(clips, [], [], fingerprint=CONFIG.fingerprint(), shard_clips=CONFIG.shard.clips)
    if plan.new is not None:
        publish_generation(out, plan.new)
    for task in plan.pending[: round(share * len(plan.pending))]:
        commit_task(out, task, encode)


def commit_task(out: Path, task: Task, encode: Encode = commit.encode) -> None:
    """Write a task's record, and its shard as a file without content, of the length that it would have."""
    samples = [_sample(clip) for clip in task.clips if not _fails(clip)]
    failures = [
        (clip, ClipError(FailureCode.FACE_NOT_FOUND, f"{clip.where}: no face.")) for clip in task.clips if _fails(clip)
    ]
    digest = f"{task.index:064x}"
    name, length = (
        f"{task.index:06d}-{digest[-12:]}.h5",
        len(samples) * sample_bytes(CONFIG.align.size, keep_faces=False),
    )
    folder = commit.task_folder(out, task.index)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("wb") as file:
        file.truncate(length)  # sparse: takes no room
    content = record_content(task, samples, failures, began=1.0e9)
    file_facts = {"name": name, "bytes": length, "sha256": digest}
    record = {"schema": commit.SCHEMA, "task": task.index, "file": file_facts, **content}
    commit.record_path(out, task.index).write_bytes(encode(record))


def _fails(clip: Clip) -> bool:
    return clip.line % FAILS_EVERY == 0


def _sample(clip: Clip) -> dict[str, Any]:
    return {
        **{name: getattr(clip, name) for name in ("clip_id", "dataset", "subject", "label", "apex")},
        "source_hash": f"{clip.line:032x}",
        "phase_valid": [True, clip.line % 7 != 0],
        "qc": int(Flag.MANY_FACES) if clip.line % 50 == 0 else 0,
    }
