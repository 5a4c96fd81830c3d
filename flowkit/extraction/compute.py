"""What an aligned face becomes: flow, MM-COF, and the sample that a shard stores of its clip."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from flowkit.config import ExtractConfig
from flowkit.errors import ClipError, DeviceOutOfMemory, FailureCode
from flowkit.execution.worker_process import Handler
from flowkit.extraction.read_and_align import AlignedClip, internal_error
from flowkit.extraction.stage_times import Spent, StageTimes
from flowkit.face.align import Face
from flowkit.inputs.clip import Clip
from flowkit.motion.flow import Flow, solve, stabilised
from flowkit.motion.mmcof import combine
from flowkit.storage.quality import EXPLAINED_LIMIT_PX, RESIDUAL_LIMIT_PX, SEPARATION_LIMIT_PX, TURN_LIMIT_DEG, Flag
from flowkit.storage.schema import COLUMNS, SPOTTED, Sample

Clock = Callable[[], float]
KERNEL_ERRORS = (ValueError, ArithmeticError, LookupError, MemoryError)
"""What a kernel that refuses its input raises: the batch is halved until one clip is left, which fails."""
_COLUMNS = {column.name for column in COLUMNS}


@dataclass(frozen=True, slots=True)
class ComputedClip:
    """What became of a clip whose flow was computed, and what that and all before it took."""

    result: Sample | ClipError
    times: StageTimes
    decoded_from_first: tuple[str, str] = ("", "")
    """As of `AlignedClip`."""


@contextmanager
def whole_clips(loader: Handler, config: ExtractConfig, threads: int) -> Iterator[Callable[[Clip], ComputedClip]]:
    """Set a worker up that reads and aligns a clip and computes its flow and MM-COF, too.

    Parameters
    ----------
    loader : callable
        Sets up what reads and aligns: see `read_and_align.clip_loader`.
    config : ExtractConfig
        Of a backend that computes on the CPU.
    threads : int
        Of this worker.
    """
    with loader() as load:

        def work(clip: Clip) -> ComputedClip:
            aligned: AlignedClip = load(clip)
            (result,) = compute([aligned], config, threads, aligned.times).values()
            return ComputedClip(result, aligned.times, aligned.decoded_from_first)

        yield work


def compute(
    aligned: Sequence[AlignedClip], config: ExtractConfig, threads: int, times: StageTimes
) -> dict[str, Sample | ClipError]:
    """Compute what is stored of some clips; an exception in the kernels costs the clip that causes it, not its neighbours.

    Parameters
    ----------
    aligned : sequence of AlignedClip
    config : ExtractConfig
    threads : int
    times : StageTimes
        Gets the time of each stage.

    Returns
    -------
    dict of str to Sample or ClipError
        By clip id, in the order of the clips.
    """
    if not aligned:
        return {}
    try:
        raw = _solved(aligned, config, threads, times)
        with times.measured("stabilise", len(aligned)):
            flows = _without_head_motion(aligned, raw, config, threads)
        return _samples(aligned, flows, config, threads, times)
    except KERNEL_ERRORS as error:
        if len(aligned) == 1:
            clip = aligned[0].source.clip
            return {clip.clip_id: _kernel_failure(clip, error)}
    middle = len(aligned) // 2  # out of the handler: what it caught may hold on to the memory that was short
    parts = (compute(part, config, threads, times) for part in (aligned[:middle], aligned[middle:]))
    return next(parts) | next(parts)


class Overlap:
    """Computes batches so that the flow of one is solved while the head's motion is taken out of the one before.

    Only the thread that calls calls the backend, so a GPU has one user. Results are those of `compute`.

    Parameters
    ----------
    config : ExtractConfig
    threads : int
        That take out the head's motion.
    """

    def __init__(self, config: ExtractConfig, threads: int) -> None:
        self._config, self._threads = config, threads
        self._pool = ThreadPoolExecutor(threads, "flowkit-stabilise")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def begin(self, aligned: Sequence[AlignedClip], times: StageTimes) -> Begun:
        """Solve the flow of a batch, and let the threads take it from there."""
        try:
            raw = _solved(aligned, self._config, self._threads, times, time.thread_time) if aligned else ()
        except KERNEL_ERRORS:
            return Begun(aligned, None)
        return Begun(
            aligned, [self._pool.submit(self._stabilised, one, flow) for one, flow in zip(aligned, raw, strict=True)]
        )

    def finish(self, begun: Begun, times: StageTimes) -> dict[str, Sample | ClipError]:
        """Wait for a batch; as `compute`."""
        if begun.flows is not None:
            try:
                flows = []
                for future in begun.flows:
                    flow, spent = future.result()
                    flows.append(flow)
                    times.add("stabilise", spent)
                return _samples(begun.aligned, flows, self._config, self._threads, times, time.thread_time)
            except KERNEL_ERRORS:
                pass
        return compute(begun.aligned, self._config, self._threads, times)

    def _stabilised(self, one: AlignedClip, raw: npt.NDArray[np.float32]) -> tuple[Flow | ClipError, Spent]:
        times = StageTimes()
        with times.measured("stabilise", 1, time.thread_time):
            (flow,) = _without_head_motion([one], raw[None], self._config, 1)
        return flow, times["stabilise"]


@dataclass(frozen=True, slots=True)
class Begun:
    """A batch whose flow is solved; `flows` is None where that failed."""

    aligned: Sequence[AlignedClip]
    flows: Sequence[Future[tuple[Flow | ClipError, Spent]]] | None


def _kernel_failure(clip: Clip, error: Exception) -> ClipError:
    if isinstance(error, DeviceOutOfMemory):
        return ClipError(
            FailureCode.GPU_OOM,
            f"{clip.where}: clip must fit into the free memory of the GPU, alone; got too little ({error}) End what else runs "
            "there and pass --retry-failed, or choose a smaller --size.",
            clip.path,
        )
    return internal_error(clip, error)


def _solved(
    aligned: Sequence[AlignedClip],
    config: ExtractConfig,
    threads: int,
    times: StageTimes,
    cpu: Clock = time.process_time,
) -> npt.NDArray[np.float32]:
    with times.measured("flow", len(aligned), cpu):
        valid = [one.source.key.phase_valid for one in aligned]
        return solve([one.face for one in aligned], valid, config.tvl1, config.backend, threads)


def _without_head_motion(
    aligned: Sequence[AlignedClip], raw: npt.NDArray[np.float32], config: ExtractConfig, threads: int
) -> list[Flow | ClipError]:
    names = [one.source.clip.where for one in aligned]
    valid = [one.source.key.phase_valid for one in aligned]
    return stabilised(raw, [one.face for one in aligned], valid, config.align.stabilise, threads, names)


def _samples(
    aligned: Sequence[AlignedClip],
    flows: Sequence[Flow | ClipError],
    config: ExtractConfig,
    threads: int,
    times: StageTimes,
    cpu: Clock = time.process_time,
) -> dict[str, Sample | ClipError]:
    """What is stored of each clip, or what is wrong with its flow."""
    good = [(one, flow) for one, flow in zip(aligned, flows, strict=True) if isinstance(flow, Flow)]
    results: dict[str, Sample | ClipError] = {
        one.source.clip.clip_id: flow for one, flow in zip(aligned, flows, strict=True) if isinstance(flow, ClipError)
    }
    if good:
        with times.measured("mmcof", len(good), cpu):
            combined = combine(
                [flow for _, flow in good], [one.face for one, _ in good], config.mmcof, config.backend, threads
            )
        for (one, flow), mmcof in zip(good, combined, strict=True):
            results[one.source.clip.clip_id] = _sample(one, flow, mmcof, config)
    return results


def _sample(aligned: AlignedClip, flow: Flow, mmcof: npt.NDArray[np.float32], config: ExtractConfig) -> Sample:
    # Numba takes a third of a second to load, and a process that only plans needs none.
    from flowkit_kernels.cpu.half import halves

    source, face = aligned.source, aligned.face
    clip, key = source.clip, source.key
    sample = {
        "flow": halves(flow.flow),
        "mmcof": halves(mmcof),
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
    return {**sample, "faces": halves(face.pixels)} if config.shard.keep_faces else sample


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
