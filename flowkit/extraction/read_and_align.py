"""What the worker processes do: turn a row of the manifest into an aligned face."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2

from flowkit.config import AlignConfig, FrameConfig
from flowkit.errors import ClipError, FailureCode
from flowkit.execution.worker_process import Outcome
from flowkit.face.align import Aligner, Face
from flowkit.inputs.clip import Clip
from flowkit.inputs.frames import Source, read_frames
from flowkit.motion.spotting import Spotted, spot

_OUT_OF_MEMORY = ("SIGKILL", "SIGABRT")
"""How a process ends that the system kills for its memory, or that gets none."""


@dataclass(frozen=True, slots=True)
class AlignedClip:
    """A clip on its way from a worker to the flow: where it came from, its face, and what that cost."""

    source: Source
    face: Face
    read_s: float
    align_s: float
    spotted: Spotted | None = None
    spot_s: float = 0.0


@contextmanager
def clip_loader(root: Path, frames: FrameConfig, align: AlignConfig) -> Iterator[Callable[[Clip], AlignedClip]]:
    """Set a worker up and give the function that reads and aligns one clip.

    Parameters
    ----------
    root : Path
        What the paths of the manifest are relative to.
    frames : FrameConfig
    align : AlignConfig

    Raises
    ------
    EnvironmentMissing
        The face model or a system library is missing.
    """
    cv2.setNumThreads(1)  # parallel over clips, not inside one
    with Aligner(align) as aligner:

        def load(clip: Clip) -> AlignedClip:
            times = [time.perf_counter()]
            spotted = None
            if clip.apex is None and frames.missing_apex == "spot":
                spotted = spot(clip, root, frames, aligner)
            times.append(time.perf_counter())
            read = read_frames(clip, root, frames, spotted.apex if spotted else None)
            times.append(time.perf_counter())
            face = aligner.align(read)
            times.append(time.perf_counter())
            spot_s, read_s, align_s = (after - before for before, after in itertools.pairwise(times))
            return AlignedClip(read.source, face, read_s, align_s, spotted, spot_s)

        yield load


def clip_error(clip: Clip, outcome: Outcome[AlignedClip]) -> ClipError:
    """The failure that an outcome other than "done" means for its clip.

    Raises
    ------
    Exception
        What a worker raised that is no fault of the clip, such as EnvironmentMissing.
    """
    error = outcome.error
    if isinstance(error, ClipError):
        return error
    if outcome.kind == "crashed":
        memory = " If memory was short, try it again with fewer workers." if outcome.detail in _OUT_OF_MEMORY else ""
        return ClipError(
            FailureCode.WORKER_CRASH,
            f"{clip.where}: worker must survive the clip; got {outcome.detail}, twice. Look at its files.{memory}",
            clip.path,
        )
    if outcome.kind == "timeout":
        return ClipError(
            FailureCode.TIMEOUT,
            f"{clip.where}: clip must be read and aligned in time; got {outcome.detail}, twice. Look at its files, or "
            "allow more time: --timeout of flowkit extract and flowkit spot.",
            clip.path,
        )
    if error is not None and hasattr(error, "exit_code"):
        raise error
    return internal_error(clip, error)


def internal_error(clip: Clip, error: Exception | None) -> ClipError:
    """An exception nobody foresaw, kept as the failure of the clip it befell."""
    return ClipError(
        FailureCode.INTERNAL,
        f"{clip.where}: clip must be processed; got {type(error).__name__}: {error}. Please report this as a bug.",
        clip.path,
    )
