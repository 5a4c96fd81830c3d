"""One task: its clips' flow and MM-COF, composed into a shard and committed."""

from __future__ import annotations

import itertools
import json
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from flowkit.config import ExtractConfig
from flowkit.errors import ClipError, DeviceOutOfMemory, FailureCode
from flowkit.execution.progress import Reporter
from flowkit.execution.worker_process import Outcome
from flowkit.extraction.plan import Task
from flowkit.extraction.read_and_align import AlignedClip, clip_error, internal_error
from flowkit.extraction.summary import StageSeconds
from flowkit.face.align import Face
from flowkit.inputs.clip import Clip
from flowkit.motion.flow import Flow, solve, stabilised
from flowkit.motion.mmcof import combine
from flowkit.storage import commit
from flowkit.storage.quality import EXPLAINED_LIMIT_PX, RESIDUAL_LIMIT_PX, SEPARATION_LIMIT_PX, TURN_LIMIT_DEG, Flag
from flowkit.storage.schema import COLUMNS, SPOTTED, Sample
from flowkit.storage.shard_writer import shard_image

AlignedClips = Callable[[], Iterator[tuple[Clip, Outcome[AlignedClip]]]]
"""Gives each clip of a task, in its order, with the outcome of reading and aligning it."""
_COLUMNS = {column.name for column in COLUMNS}


@dataclass(frozen=True, slots=True)
class TaskWork:
    """What `run_task` needs besides the task.

    `settings` is the configuration as run.json has it, made once: the files that it names may change while a run goes on.
    `run_id` and `device` go into the record: which run it was, and the GPU that computed.
    """

    config: ExtractConfig
    settings: Mapping[str, Any]
    threads: int
    batch: int
    stage_seconds: StageSeconds
    reporter: Reporter
    run_id: str = ""
    device: str = ""


def run_task(task: Task, clips: AlignedClips, out: Path, work: TaskWork) -> commit.Record:
    """Compute one task and commit it; nothing happens if it is committed already.

    Parameters
    ----------
    task : Task
    clips : callable
        Gives (clip, outcome of reading and aligning it) in the task's order.
    out : Path
    work : TaskWork

    Returns
    -------
    Record
        The task's commit record: this run's, or that of another one that was faster.

    Raises
    ------
    DiskFull, ShardCorrupt
        As `commit.publish`.
    """
    record = commit.read_record(commit.record_path(out, task.index))
    if record is not None and record.content["key"] == task.key:
        return record
    began = time.time()
    samples: list[Sample] = []
    failures: list[tuple[Clip, ClipError]] = []
    for batch in _batches(clips(), work.batch):
        done = _compute_batch(batch, work)
        samples += [result for _, result in done if not isinstance(result, ClipError)]
        failed = [(clip, result) for clip, result in done if isinstance(result, ClipError)]
        failures += failed
        work.reporter.advance(len(done), len(failed))
    with work.stage_seconds.timed("store", len(samples)):
        image = shard_image(samples, work.settings) if samples else None
        content = record_content(task, samples, failures, began, work.run_id, work.device)
        return commit.publish(out, task.index, image, content)


def _compute_batch(
    batch: Sequence[tuple[Clip, Outcome[AlignedClip]]], work: TaskWork
) -> list[tuple[Clip, Sample | ClipError]]:
    """Results in the batch's order; an exception in the kernels costs the clip that causes it, not its neighbours."""
    good = {clip.clip_id: outcome.value for clip, outcome in batch if outcome.value is not None}
    for aligned in good.values():
        if aligned.spotted:
            work.stage_seconds.add("spot", aligned.spot_s, 1)
        work.stage_seconds.add("read", aligned.read_s, 1)
        work.stage_seconds.add("align", aligned.align_s, 1)
    computed = _compute(list(good.values()), work)
    return [
        (clip, computed[clip.clip_id] if clip.clip_id in good else clip_error(clip, outcome)) for clip, outcome in batch
    ]


def _compute(aligned: list[AlignedClip], work: TaskWork) -> dict[str, Sample | ClipError]:
    if not aligned:
        return {}
    try:
        return _flow_and_mmcof(aligned, work)
    except (ValueError, ArithmeticError, LookupError, MemoryError) as error:
        if len(aligned) == 1:
            clip = aligned[0].source.clip
            return {clip.clip_id: _kernel_failure(clip, error)}
    middle = len(aligned) // 2  # out of the handler: what it caught may hold on to the memory that was short
    return _compute(aligned[:middle], work) | _compute(aligned[middle:], work)


def _kernel_failure(clip: Clip, error: Exception) -> ClipError:
    if isinstance(error, DeviceOutOfMemory):
        return ClipError(
            FailureCode.GPU_OOM,
            f"{clip.where}: clip must fit into the free memory of the GPU, alone; got too little ({error}) End what else runs "
            "there and pass --retry-failed, or choose a smaller --size.",
            clip.path,
        )
    return internal_error(clip, error)


def _flow_and_mmcof(aligned: list[AlignedClip], work: TaskWork) -> dict[str, Sample | ClipError]:
    config, threads = work.config, work.threads
    faces = [one.face for one in aligned]
    with work.stage_seconds.timed("flow", len(faces)):
        valid = [one.source.key.phase_valid for one in aligned]
        raw = solve(faces, valid, config.tvl1, config.backend, threads)
    with work.stage_seconds.timed("stabilise", len(faces)):
        flows = stabilised(
            raw, faces, valid, config.align.stabilise, threads, [one.source.clip.where for one in aligned]
        )
    results: dict[str, Sample | ClipError] = {}
    good: list[tuple[AlignedClip, Flow]] = []
    for one, flow in zip(aligned, flows, strict=True):
        if isinstance(flow, ClipError):
            results[one.source.clip.clip_id] = flow
        else:
            good.append((one, flow))
    if good:
        with work.stage_seconds.timed("mmcof", len(good)):
            combined = combine(
                [flow for _, flow in good], [one.face for one, _ in good], config.mmcof, config.backend, threads
            )
        for (one, flow), mmcof in zip(good, combined, strict=True):
            results[one.source.clip.clip_id] = _sample(one, flow, mmcof, config)
    return results


def _sample(aligned: AlignedClip, flow: Flow, mmcof: npt.NDArray[np.float32], config: ExtractConfig) -> Sample:
    source, face = aligned.source, aligned.face
    clip, key = source.clip, source.key
    sample = {
        "flow": flow.flow.astype(np.float16),
        "mmcof": mmcof.astype(np.float16),
        "regions": face.regions,
        "clip_id": clip.clip_id,
        "dataset": clip.dataset,
        "subject": clip.subject,
        "label": clip.label,
        "onset": key.onset,
        "apex": key.apex,
        "offset": -1 if key.offset is None else key.offset,
        "apex_source": key.apex_source,
        "fps": source.fps,
        "phase_valid": np.array(key.phase_valid),
        "qc": int(_quality(aligned, flow)),
        "n_faces": face.n_faces,
        "transform": face.transform,
        "registration": face.registration,
        "removed": flow.removed,
        "residual": flow.residual,
        "turn": face.turn,
        "removed_turn": flow.removed_turn,
        "depth": np.stack([face.depth_cm, flow.depth_cm]),
        "separation": flow.separation,
        "au_hint": flow.au_hint,
        "noise": face.signal.noise,
        "contrast": face.signal.contrast,
        "data_weight": face.signal.data_weight,
        "landmarks": face.landmarks,
        "source_hash": source.source_hash,
        **{name: values for name, values in face.records.items() if name in _COLUMNS},
        "extra": json.dumps(dict(clip.extra) | _further_records(face) | _spotting(aligned), ensure_ascii=False),
    }
    if config.frames.average != "off":
        sample |= {"frames_averaged": np.array(face.averaged, np.uint8), "neighbours_hash": source.neighbours_hash}
    return {**sample, "faces": face.pixels.astype(np.float16)} if config.shard.keep_faces else sample


def _spotting(aligned: AlignedClip) -> dict[str, Any]:
    """How the apex was found, where it was."""
    found = aligned.spotted
    if found is None:
        return {}
    return dict(zip(SPOTTED, (found.confidence, list(zip(found.frames, found.curve, strict=True))), strict=True))


def _further_records(face: Face) -> dict[str, str]:
    """Records of steps that have no column of their own: the numbers of the apex, then those of the offset."""
    further = {name: values.ravel().tolist() for name, values in face.records.items() if name not in _COLUMNS}
    return {name: " ".join(repr(value).removesuffix(".0") for value in values) for name, values in further.items()}


def _quality(aligned: AlignedClip, flow: Flow) -> Flag:
    source, face = aligned.source, aligned.face
    moving = [bool(flow.flow[phase].any()) for phase in (0, 1) if source.key.phase_valid[phase]]
    told_apart = bool(np.isfinite(flow.au_hint).all())
    # NaN where hardly any of the face is seen: nothing is known of the head's motion then.
    known = ~np.array(face.comparable(source.key.phase_valid)) | (flow.separation <= SEPARATION_LIMIT_PX)
    notes = {
        Flag.ZERO_MOTION: not all(moving),
        Flag.BLANK: bool(face.is_blank.any()),
        Flag.RESIDUAL: bool((flow.residual > (EXPLAINED_LIMIT_PX if told_apart else RESIDUAL_LIMIT_PX)).any()),
        Flag.MANY_FACES: face.n_faces > 1,
        Flag.ROTATED: source.rotated,
        Flag.NEAREST: source.substituted,
        Flag.TURNED: bool((np.abs(_turn(face, flow)) > TURN_LIMIT_DEG).any()),
        Flag.LANDMARK_START: face.landmark_start,
        Flag.DARK: face.signal.is_dark,
        Flag.UNCERTAIN: told_apart and not known.all(),
        Flag.NEIGHBOURS: source.neighbours_lost or face.neighbour_refused,
    }
    return Flag(sum(flag for flag, holds in notes.items() if holds))


def _turn(face: Face, flow: Flow) -> npt.NDArray[np.float64]:
    """Yaw and pitch of the head at apex and offset: what was undone in the pictures, and what the flow still had."""
    turn: npt.NDArray[np.float64] = face.turn + flow.removed_turn.cumsum(axis=0)
    return turn


def record_content(
    task: Task,
    samples: Sequence[Sample],
    failures: Sequence[tuple[Clip, ClipError]],
    began: float,
    run_id: str = "",
    device: str = "",
) -> dict[str, Any]:
    """What the commit record of a task says: its key, where, when and by which run it was done, and a line a clip."""
    rows = {clip.clip_id: clip.row_hash() for clip in task.clips}
    host = platform.node()
    return {
        "key": task.key,
        "run": run_id,
        "host": host,
        "device": device,
        "began": began,
        "ended": time.time(),
        "clips": [
            {
                "clip_id": sample["clip_id"],
                "dataset": sample["dataset"],
                "subject": sample["subject"],
                "label": sample["label"],
                "apex": int(sample["apex"]),
                "row": rows[sample["clip_id"]],
                "source_hash": sample["source_hash"],
                "phase_valid": [bool(valid) for valid in sample["phase_valid"]],
                "qc": sample["qc"],
                **{name: sample[name] for name in ("neighbours_hash",) if name in sample},
            }
            for sample in samples
        ],
        "failures": [
            {
                "clip_id": clip.clip_id,
                "row": rows[clip.clip_id],
                "code": str(error.code),
                "message": error.message,
                "path": error.path or clip.path,
                "host": host,
            }
            for clip, error in failures
        ],
    }


def _batches(
    outcomes: Iterator[tuple[Clip, Outcome[AlignedClip]]], size: int
) -> Iterator[list[tuple[Clip, Outcome[AlignedClip]]]]:
    while batch := list(itertools.islice(outcomes, size)):
        yield batch
