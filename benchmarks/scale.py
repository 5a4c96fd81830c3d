"""Seconds and peak memory of what must stay quick for a million clips; and what so many clips take (--capacity).

    python benchmarks/scale.py --out benchmarks/results/scale.json
    python benchmarks/scale.py --capacity

The manifest, the plan and the commit records are real; the shard files are of the recorded length and hold nothing, so they
take no room. Each step is a process of its own: its time and CPU time are those of the whole process where the name says "command",
else those of the step, the start of Python left out; its peak memory is always that of the whole process.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import machine
from flowkit.config import AlignConfig, ExtractConfig, ShardConfig
from flowkit.errors import ClipError, FailureCode
from flowkit.extraction.plan import Task, make_plan
from flowkit.extraction.sites import Here
from flowkit.extraction.task import record_content
from flowkit.inputs.clip import Clip
from flowkit.inputs.manifest import REQUIRED, read_manifest
from flowkit.storage import commit, durable_files, hashed_json
from flowkit.storage.generations import publish_generation
from flowkit.storage.index import INDEX_FILE, Index, finalise
from flowkit.storage.quality import Flag
from flowkit.storage.row_table import no_garbage_collection
from flowkit.storage.schema import COLUMNS, SHARD_SCHEMA, SIZE, TEXT, sample_bytes
from flowkit.storage.shard_writer import shard_image

CONFIG = ExtractConfig(align=AlignConfig(method="none"), shard=ShardConfig(compress="zstd"), backend="cpu")
FLAGS = ("--align", "none", "--compress", "zstd", "--backend", "cpu")
"""What `CONFIG` is on the command line; zstd, so that no terabyte must be free."""
SUBJECTS = 500
LABELS = ("disgust", "happiness", "repression", "surprise", "others")
FAILS_EVERY = 1009
"""One clip in so many failed."""
PERSON = ("casme3-a", "spNO.17")

BARS = {
    "plan command (--dry-run)": {"seconds": 10.0, "peak_gb": 1.0},
    "plan and publish": {"seconds": 10.0, "peak_gb": 1.0},
    "resume, half done": {"seconds": 10.0, "peak_gb": 1.5},
    "resume, all done": {"seconds": 10.0, "peak_gb": 1.5},
    "finalise": {"seconds": 10.0, "peak_gb": 1.5},
    "index load": {"seconds": 1.0, "peak_gb": 1.0},
    "leave one subject out": {"seconds": 0.2, "peak_gb": 1.0},
    "inspect command, index current": {"seconds": 2.0, "peak_gb": 1.0},
    "inspect command, no index": {"seconds": 20.0, "peak_gb": 1.5},
    "extract command, all done": {"seconds": 30.0, "peak_gb": 1.5},
}
"""Of a million clips, on an idle machine."""


# --- a large folder that holds no flow


def write_manifest(path: Path, clips: int) -> None:
    """A manifest of so many clips of `SUBJECTS` subjects, with one further column."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow((*REQUIRED, "fps", "au"))
        writer.writerows(_manifest_rows(clips))


def _manifest_rows(clips: int) -> Iterator[tuple[object, ...]]:
    for number in range(clips):
        subject, onset = f"spNO.{number % SUBJECTS}", number * 37 % 5000
        where = f"casme3-a/{subject}/{number:07d}", f"part_A/{subject}/clip{number:07d}"
        yield (*where, onset, onset + 15, onset + 31, subject, "casme3-a", LABELS[number % len(LABELS)], "30", "4+7")


def build(manifest: Path, out: Path, tasks: int) -> None:
    """Plan the clips of a manifest and commit the first tasks, as `flowkit extract` with `FLAGS` would."""
    commit.probe(out)
    run = {
        **{"schema": hashed_json.SCHEMA, "shard_schema": SHARD_SCHEMA},
        **{"fingerprint": CONFIG.fingerprint(), "settings": CONFIG.to_dict()},
        **{"backend": CONFIG.backend, "versions": {}, "device": {}, "machine": {}},
    }
    durable_files.publish_file(out / commit.RUN_FILE, hashed_json.encode(run))
    clips = read_manifest(manifest)
    plan = make_plan(clips, [], [], fingerprint=CONFIG.fingerprint(), shard_clips=CONFIG.shard.clips)
    if plan.new is not None:
        publish_generation(out, plan.new)
    for task in plan.pending[:tasks]:
        _commit(out, task)


def _commit(out: Path, task: Task) -> None:
    """Write a task's record, and its shard as a file without content, of the length that it would have."""
    samples = [_sample(clip) for clip in task.clips if clip.line % FAILS_EVERY]
    failures = [
        (clip, ClipError(FailureCode.FACE_NOT_FOUND, f"{clip.where}: one face must be visible; got none. Look at it."))
        for clip in task.clips
        if clip.line % FAILS_EVERY == 0
    ]
    length, digest = len(samples) * sample_bytes(CONFIG.align.size, keep_faces=False), f"{task.index:064x}"
    file = {"name": f"{task.index:06d}-{digest[-12:]}.h5", "bytes": length, "sha256": digest}
    folder = commit.task_folder(out, task.index)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / str(file["name"])).open("wb") as opened:
        opened.truncate(length)
    content = record_content(task, samples, failures, began=1.0e9)
    record = {"schema": hashed_json.SCHEMA, "task": task.index, "file": file, **content}
    commit.record_path(out, task.index).write_bytes(hashed_json.encode(record))


def _sample(clip: Clip) -> dict[str, Any]:
    return {
        **{name: getattr(clip, name) for name in ("clip_id", "dataset", "subject", "label", "apex")},
        "source_hash": f"{clip.line:032x}",
        "phase_valid": [True, clip.line % 7 != 0],
        "qc": int(Flag.MANY_FACES) if clip.line % 50 == 0 else 0,
    }


# --- steps: what is timed in a process of its own


class Spent(NamedTuple):
    """Seconds by the clock and on the CPU."""

    wall: float
    cpu: float

    @classmethod
    def now(cls) -> Spent:
        """What both clocks show; only differences mean something."""
        return cls(time.perf_counter(), time.process_time())

    def since(self, began: Spent) -> Spent:
        """What lies between two readings."""
        return Spent(self.wall - began.wall, self.cpu - began.cpu)


def _prepare(manifest: Path, out: Path) -> tuple[Spent, Spent, dict[str, Any]]:
    """All that an extraction does before its first task: reading the manifest, what comes after it, and what it found."""
    from flowkit.execution.progress import Silent
    from flowkit.extraction.options import RunOptions
    from flowkit.extraction.pipeline import _Run

    began = Spent.now()
    run = _Run(manifest, out, CONFIG, RunOptions(), Silent(), None, Here())
    read = Spent.now()
    with no_garbage_collection():
        plan = run._prepare()
    reading, preparing = read.since(began), Spent.now().since(read)
    found = {"pending": len(plan.pending), "ok": len(plan.ok), "failed": len(plan.failed)}
    return reading, preparing, {**found, "parts": {"manifest": reading._asdict(), "prepare": preparing._asdict()}}


def step_plan(manifest: Path, out: Path) -> tuple[Spent, dict[str, Any]]:
    """Read the manifest, plan, publish the plan in a new folder."""
    reading, preparing, found = _prepare(manifest, out)
    return Spent(reading.wall + preparing.wall, reading.cpu + preparing.cpu), found


def step_resume(manifest: Path, out: Path) -> tuple[Spent, dict[str, Any]]:
    """Take a folder up again: what comes after reading the manifest."""
    _, preparing, found = _prepare(manifest, out)
    return preparing, found


def step_finalise(manifest: Path, out: Path) -> tuple[Spent, dict[str, Any]]:
    """What an extraction does after its last task, the report apart."""
    began = Spent.now()
    index = finalise(out)
    return Spent.now().since(began), {"clips": len(index), "index_bytes": (out / INDEX_FILE).stat().st_size}


def step_load(manifest: Path, out: Path) -> tuple[Spent, dict[str, Any]]:
    """Load the index; an index that is not current ends the benchmark."""
    began = Spent.now()
    index = Index.load(out, _refuse)
    return Spent.now().since(began), {"clips": len(index)}


def step_loso(manifest: Path, out: Path) -> tuple[Spent, dict[str, Any]]:
    """Which clips are a subject's and which are not; with the ids of the held-out ones."""
    index = Index.load(out, _refuse)
    began = Spent.now()
    held_out = index.of_person(*PERSON)
    ids, others = index.clip_ids(held_out), np.flatnonzero(~held_out)
    spent = Spent.now().since(began)
    return spent, {"held_out": len(ids), "others": len(others), "persons": len(index.persons())}


def _refuse(note: str) -> None:
    raise SystemExit(f"scale: the index must be current; got: {note}")


def step_build(manifest: Path, out: Path, tasks: str) -> tuple[Spent, dict[str, Any]]:
    """Make a folder in which so many tasks are committed."""
    began = Spent.now()
    build(manifest, out, int(tasks))
    return Spent.now().since(began), {}


STEPS: dict[str, Callable[..., tuple[Spent, dict[str, Any]]]] = {
    "build": step_build,
    "plan": step_plan,
    "resume": step_resume,
    "finalise": step_finalise,
    "load": step_load,
    "loso": step_loso,
}


# --- measuring


def measure(command: list[str], *, codes: tuple[int, ...] = (0,)) -> dict[str, Any]:
    """A process: its seconds, CPU seconds, peak memory, and the JSON that it prints."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if process.stdout is None or process.stderr is None:
        raise SystemExit("scale: no pipe")
    text, note = process.stdout.read(), process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - began
    if process.returncode not in codes:
        raise SystemExit(f"scale: {' '.join(command)} must end with {codes}; got {process.returncode}: {note.decode()}")
    return {
        "seconds": seconds,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_gb": usage.ru_maxrss * 1024 / 1e9,
        "printed": json.loads(text),
    }


def command(*arguments: str | Path, codes: tuple[int, ...] = (0,)) -> dict[str, Any]:
    """`flowkit ...`, as a whole process."""
    found = measure([sys.executable, "-m", "flowkit.cli", *map(str, arguments), "--json"], codes=codes)
    kept = ("planned", "ok", "failed", "not_started", "pending", "computed")
    return found | {"printed": {name: found["printed"][name] for name in kept if name in found["printed"]}}


def step(name: str, manifest: Path, out: Path, *more: int) -> dict[str, Any]:
    """A step, in a process of its own."""
    found = measure([sys.executable, __file__, "--step", name, "--in", *map(str, (manifest, out, *more))])
    (seconds, cpu_seconds), printed = found["printed"]
    return found | {"seconds": seconds, "cpu_seconds": cpu_seconds, "printed": printed}


def measured(clips: int, folder: Path, repeats: int) -> dict[str, Any]:
    """Every row of `BARS`."""
    manifest, full, half = folder / "clips.csv", folder / "full", folder / "half"
    write_manifest(manifest, clips)
    tasks = -(-clips // CONFIG.shard.clips)
    for out, share in ((half, tasks // 2), (full, tasks)):
        step("build", manifest, out, share)  # in a process of its own: a child's peak memory is at least its parent's
    (full / "report.html").write_text("")  # else `extract` would make one from shards that hold nothing

    def new_folder(number: int) -> Path:
        return folder / f"new{number}"

    rows: dict[str, Callable[[int], dict[str, Any]]] = {
        "plan command (--dry-run)": lambda n: command(
            "extract", manifest, "--out", new_folder(-1), *FLAGS, "--dry-run"
        ),
        "plan and publish": lambda n: step("plan", manifest, new_folder(n)),
        "resume, half done": lambda n: step("resume", manifest, half),
        "resume, all done": lambda n: step("resume", manifest, full),
        "inspect command, no index": lambda n: command("inspect", full),
        "finalise": lambda n: step("finalise", manifest, full),
        "index load": lambda n: step("load", manifest, full),
        "leave one subject out": lambda n: step("loso", manifest, full),
        "inspect command, index current": lambda n: command("inspect", full),
        "extract command, all done": lambda n: command("extract", manifest, "--out", full, *FLAGS, codes=(0, 1)),
    }
    results = {}
    for name, run in rows.items():
        results[name] = _summary([run(number) for number in range(repeats)])
        sys.stdout.write(f"{name}: {json.dumps(results[name])}\n")
        sys.stdout.flush()
    return results


def _summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Median and worst time, worst memory; what was printed, which must not differ but for times."""
    numbers = {name: [run[name] for run in runs] for name in runs[0] if name != "printed"}
    return {
        "seconds": round(statistics.median(numbers["seconds"]), 3),
        "worst_seconds": round(max(numbers["seconds"]), 3),
        "cpu_seconds": round(statistics.median(numbers["cpu_seconds"]), 3),
        "peak_gb": round(max(numbers["peak_gb"]), 3),
        "load_average": round(os.getloadavg()[0], 2),
        "found": json.loads(json.dumps(runs[-1]["printed"]), parse_float=lambda text: round(float(text), 3)),
    }


# --- capacity

CLIPS = (1_000, 10_000, 100_000, 1_000_000)
RATES = (5, 15, 50, 200, 1_000)
FORMS = ((128, False), (128, True), (224, False), (224, True))


def shard_bytes(size: int, keep_faces: bool, clips: int) -> int:
    """Bytes of a shard file of so many clips, from two small ones that are really made: what the file costs, what a clip."""
    small, large = 2, 6
    settings = {
        "align": {"size": size},
        "shard": {"compress": "none", "keep_faces": keep_faces},
        "backend": "cpu",
    }
    image = [len(shard_image([_empty_sample(size, keep_faces)] * n, settings)) for n in (small, large)]
    a_clip = (image[1] - image[0]) / (large - small)
    return round(image[0] + (clips - small) * a_clip)


def _empty_sample(size: int, keep_faces: bool) -> dict[str, Any]:
    texts = {"clip_id": "casme3-a/spNO.123/0000123", "source_hash": "0" * 32, "extra": '{"au": "4+7"}'}
    return {
        column.name: texts.get(column.name, "surprise")
        if column.dtype == TEXT
        else np.zeros([size if n == SIZE else n for n in column.shape], column.dtype)
        for column in COLUMNS
        if column.name != "sample_hash" and (keep_faces or not column.optional)
    }


def record_bytes(clips: int) -> int:
    """Bytes of a commit record of so many clips."""
    rows = [
        Clip(f"casme3-a/spNO.{n}/{n:07d}", f"part_A/{n:07d}", 1, 9, 19, f"spNO.{n}", "casme3-a", "surprise", line=n)
        for n in range(1, clips + 1)
    ]
    content = record_content(Task(0, tuple(rows), "0" * 64), [_sample(clip) for clip in rows], [], began=time.time())
    file = {"name": f"{0:06d}-{'0' * 12}.h5", "bytes": 10**8, "sha256": "0" * 64}
    return len(hashed_json.encode({"schema": hashed_json.SCHEMA, "task": 0, "file": file, **content}))


def capacity() -> str:
    """The tables of docs/capacity.md."""
    per_shard = CONFIG.shard.clips
    lines = [
        "| crop | faces kept | bytes a clip, texts apart | a shard of 256 | 1,000 clips | 10,000 | 100,000 | 1,000,000 |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for size, faces in FORMS:
        shard = shard_bytes(size, faces, per_shard)
        cells = [f"{size} x {size}", "yes" if faces else "no", f"{sample_bytes(size, faces):,}", _size(shard)]
        lines.append("| " + " | ".join([*cells, *(_size(shard * clips / per_shard) for clips in CLIPS)]) + " |")
    record = record_bytes(per_shard)
    lines += [
        "",
        "| clips | tasks | files under shards/ | folders | commit records | time at "
        + " | ".join(f"{rate:,} clips/s" for rate in RATES)
        + " |",
        "| --- |" + " --- |" * (4 + len(RATES)),
    ]
    for clips in CLIPS:
        tasks = -(-clips // per_shard)
        cells = [f"{clips:,}", f"{tasks:,}", f"{2 * tasks:,}", f"{-(-tasks // commit.TASKS_PER_FOLDER)}"]
        times = [_time(clips / rate) for rate in RATES]
        lines.append("| " + " | ".join([*cells, _size(record * clips / per_shard), *times]) + " |")
    return "\n".join(lines)


def _size(size: float) -> str:
    for unit, step_ in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if size >= step_:
            return f"{size / step_:.3g} {unit}"
    return f"{size / 1e3:.3g} kB"


def _time(seconds: float) -> str:
    for unit, step_ in (("h", 3600), ("min", 60)):
        if seconds >= step_:
            return f"{seconds / step_:.3g} {unit}"
    return f"{seconds:.3g} s"


def main() -> None:
    """Measure, print, store; or print what so many clips take."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, help="where to store the result as JSON")
    parser.add_argument("--capacity", action="store_true", help="print bytes, files and hours, and measure nothing")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--in", dest="given", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.capacity:
        sys.stdout.write(capacity() + "\n")
    elif options.step:
        manifest, out, *more = options.given
        sys.stdout.write(json.dumps(STEPS[options.step](Path(manifest), Path(out), *more)))
    else:
        with tempfile.TemporaryDirectory() as folder:
            rows = measured(options.clips, Path(folder), options.repeats)
        if options.out:
            results = {"clips": options.clips, "repeats": options.repeats, "bars": BARS, "steps": rows}
            machine.write(options.out, "scale", results)


if __name__ == "__main__":
    main()
