"""What the worker processes do: turn a row of the manifest into an aligned face."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2

from flowkit.config import AlignConfig, FrameConfig
from flowkit.errors import ClipError, FailureCode
from flowkit.execution.worker_process import Outcome
from flowkit.extraction.stage_times import StageTimes
from flowkit.face.align import Aligner, Face
from flowkit.inputs.clip import Clip
from flowkit.inputs.frames import Source, read_frames
from flowkit.inputs.videos import Recordings
from flowkit.motion.spotting import Spotted, spot

_OUT_OF_MEMORY = ("SIGKILL", "SIGABRT")
"""How a process ends that the system kills for its memory, or that gets none."""


@dataclass(frozen=True, slots=True)
class AlignedClip:
    """A clip on its way from a worker to the flow: where it came from, its face, and what that cost."""

    source: Source
    face: Face
    spotted: Spotted | None = None
    times: StageTimes = field(default_factory=StageTimes)

    @property
    def decoded_from_first(self) -> tuple[str, str]:
        """Path of the clip, and why many frames before it had to be decoded; the reason is empty where they had not."""
        return self.source.clip.path, self.source.decoded_from_first


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
    with Aligner(align) as aligner, closing(Recordings()) as recordings:

        def load(clip: Clip) -> AlignedClip:
            times, spotted = StageTimes(), None
            if clip.apex is None and frames.missing_apex == "spot":
                with times.measured("spot", 1):
                    spotted = spot(clip, root, frames, aligner, recordings=recordings)
            with times.measured("read", 1):
                read = read_frames(clip, root, frames, spotted.apex if spotted else None, recordings)
            with times.measured("align", 1):
                face = aligner.align(read)
            return AlignedClip(read.source, face, spotted, times)

        yield load


def clip_error(clip: Clip, outcome: Outcome[Any]) -> ClipError:
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
            f"{clip.where}: clip must be done in time; got {outcome.detail}, twice. Look at its files, or "
            "allow more time: --timeout of flowkit extract, flowkit spot and flowkit spot-intervals.",
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
