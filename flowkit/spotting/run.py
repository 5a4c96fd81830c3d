"""`flowkit spot-intervals`: every movement of the recordings under a folder, in worker processes, resumable.

A recording is read in parts (`inputs.recording_frames`), several at once; what comes back of each is its course, some kilobytes a
second. The parent joins the courses in order and searches them, so the result is the same for any number of workers.
"""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import cv2

from flowkit.config import AlignConfig, ExtractConfig, FrameConfig
from flowkit.errors import ClipError, ConfigError, EnvironmentMissing, ManifestError
from flowkit.execution.memory import check_address_space, give_back, give_back_large_blocks
from flowkit.execution.progress import Reporter, Silent
from flowkit.execution.standard_streams import open_closed
from flowkit.execution.stop import Stop
from flowkit.execution.supervised_pool import SupervisedPool
from flowkit.execution.worker_process import Outcome, WorkerStartError
from flowkit.extraction.options import RunOptions
from flowkit.extraction.read_and_align import clip_error
from flowkit.face.align import Aligner, check_needs
from flowkit.inputs.clip import Clip
from flowkit.inputs.recording_frames import PART_FRAMES, Part, Recording, frames_of, survey
from flowkit.provenance import refuse_windows, versions
from flowkit.spotting.course import Course
from flowkit.spotting.face_track import FaceTrack
from flowkit.spotting.gathering import Gathering, Searched
from flowkit.spotting.intervals import LEAST_CONFIDENCE
from flowkit.spotting.parts_folder import PartsFolder
from flowkit_kernels import warm_up

LONGEST_PARTS: Final = 1000
"""A video that is one part, of unknown length, may take so many times as long as a usual part."""


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """A part of a recording, as a worker gets it."""

    recording: Recording
    part: Part


@dataclass(frozen=True, slots=True)
class SpotOptions:
    """What is looked for, and in what.

    Attributes
    ----------
    fps : float
        Frames per second of all recordings, where they are known better; NaN for those of the videos.
    least_confidence : float
        From 0 to 1: less sure movements are left out.
    """

    fps: float = math.nan
    least_confidence: float = LEAST_CONFIDENCE

    def __post_init__(self) -> None:
        if not (math.isnan(self.fps) or 1 <= self.fps <= 10000):
            raise ConfigError(f"options: fps must be from 1 to 10000; got {self.fps:g}. Correct it.")
        if not 0 < self.least_confidence <= 1:
            raise ConfigError(
                f"options: least_confidence must lie above 0 and be at most 1; got {self.least_confidence:g}. Correct it."
            )


def spot_recordings(
    paths: Sequence[str],
    root: Path,
    parts_folder: Path,
    frames: FrameConfig,
    align: AlignConfig,
    options: RunOptions,
    spot: SpotOptions | None = None,
    *,
    reporter: Reporter | None = None,
    stop: Stop | None = None,
) -> Iterator[Searched]:
    """Search recordings, and yield what each of them shows, in order.

    Parameters
    ----------
    paths : sequence of str
        Videos and folders of numbered images, relative to the root.
    root : Path
    parts_folder : Path
        Where parts are kept until the caller has stored the results and removes it.
    frames : FrameConfig
    align : AlignConfig
        Its method must be "mediapipe".
    options : RunOptions
        `workers`, `timeout_s` (for a part of `PART_FRAMES` frames) and `overwrite` (of parts that another search has left) matter.
    spot : SpotOptions, optional
    reporter, stop
        As of `pipeline.extract`; frames are counted.

    Raises
    ------
    ConfigError, EnvironmentMissing, DiskFull
    Interrupted
        What was read stays; the same call goes on there.
    """
    refuse_windows("spot-intervals")
    open_closed()
    spot, reporter, stop = spot or SpotOptions(), reporter or Silent(), stop or Stop("spot-intervals")
    if align.method != "mediapipe":
        raise ConfigError(
            f"align.method: must be mediapipe, for faces are looked for throughout a recording; got {align.method}. Leave it out."
        )
    if not root.is_dir():
        raise ManifestError(f"{root}: --root must be a folder; got none there. Check the path.")
    check_needs(align)
    check_address_space()
    surveyed = [_surveyed(path, root, frames, spot, stop) for path in paths]
    recordings = [one for one in surveyed if isinstance(one, Recording)]
    folder = PartsFolder(parts_folder, _plan(recordings, frames, align, spot), overwrite=options.overwrite)
    warm_up("cpu", reporter.note)
    total = sum(recording.frames for recording in recordings)
    reporter.start(total)
    try:
        courses = _courses(recordings, folder, partial(part_reader, root, frames, align), options, reporter, stop)
        for one in surveyed:
            yield _unreadable(one) if isinstance(one, ClipError) else _gathered(one, courses, spot)
    finally:
        reporter.finish()


def spot_all(
    clips: Sequence[Clip],
    root: Path,
    out: Path,
    config: ExtractConfig,
    options: RunOptions,
    spot: SpotOptions,
    reporter: Reporter,
    stop: Stop,
) -> list[Searched]:
    """Search all recordings for a result at `out`, and note problems as they come; arguments and errors as of `spot_recordings`."""
    searched = []
    paths = [clip.path for clip in clips]
    found = spot_recordings(
        paths, root, _parts_of(out), config.frames, config.align, options, spot, reporter=reporter, stop=stop
    )
    for one in found:
        searched.append(one)
        for code, message in one.problems:
            reporter.note(f"{code}: {message}")
    return searched


def discard_parts(out: Path) -> None:
    """Remove what was kept of a search whose result is at `out`."""
    shutil.rmtree(_parts_of(out), ignore_errors=True)


def _parts_of(out: Path) -> Path:
    return out.with_name(f"{out.name}.parts")


def _gathered(recording: Recording, courses: Iterator[Any], spot: SpotOptions) -> Searched:
    gathering = Gathering(recording, spot.least_confidence)
    for part in recording.parts:
        gathering.add(next(courses), part)
    return gathering.finish()


def _surveyed(path: str, root: Path, frames: FrameConfig, spot: SpotOptions, stop: Stop) -> Recording | ClipError:
    stop.check()
    try:
        return survey(path, root, frames, spot.fps)
    except ClipError as error:
        return ClipError(error.code, error.message, path)


def _unreadable(error: ClipError) -> Searched:
    """A recording that cannot even be opened."""
    return Searched(error.path, math.nan, 0, 0, 0.0, (), problems=((str(error.code), error.message),))


def _courses(
    recordings: Sequence[Recording],
    folder: PartsFolder,
    handler: Callable[[], Any],
    options: RunOptions,
    reporter: Reporter,
    stop: Stop,
) -> Iterator[Course]:
    """The course of every part of every recording, in order."""
    stored = {
        (i, j) for i, recording in enumerate(recordings) for j in range(len(recording.parts)) if folder.load(i, j)
    }
    places = [(i, j) for i, recording in enumerate(recordings) for j in range(len(recording.parts))]
    tasks = [
        Task(dataclasses.replace(recordings[i], parts=()), recordings[i].parts[j])
        for i, j in places
        if (i, j) not in stored
    ]
    if stored:
        reporter.note(f"Resuming: {len(stored)} of {len(places)} parts were read before.")
    workers = max(1, min(options.cores(options.workers), len(tasks)))
    with SupervisedPool(
        handler, workers=workers, timeout_s=partial(_allowed, options.timeout_s), window=2 * workers
    ) as pool:
        outcomes = pool.submit(tasks).outcomes(stop.check)
        for i, j in places:
            stop.check()
            course = folder.load(i, j)
            if course is None:
                course = _outcome(outcomes, recordings[i])
                if not course.problems:
                    folder.store(i, j, course)
            reporter.advance(
                len(course) - (j > 0) if len(course) else recordings[i].parts[j].frames, int(bool(course.problems))
            )
            yield course


def _outcome(outcomes: Iterator[tuple[Task, Outcome[Any]]], recording: Recording) -> Course:
    try:
        task, outcome = next(outcomes)
    except WorkerStartError as error:
        raise EnvironmentMissing(
            f"workers: a worker process must be able to start; got: {error}. Run flowkit doctor."
        ) from error
    if outcome.value is not None:
        found: Course = outcome.value
        return found
    where = f"{recording.path}, from frame {task.part.first} on"
    clip = Clip(where, recording.path, 0, None, None, "", "", "")
    failed = clip_error(clip, outcome)
    return Course.of(recording.fps, problems=[(str(failed.code), failed.message)])


def _allowed(timeout_s: float, task: Task) -> float:
    """Longest time for a part: that given, or more for a video that is one part."""
    frames = task.part.frames or task.recording.frames
    return timeout_s * (max(1.0, frames / PART_FRAMES) if frames else LONGEST_PARTS)


@contextmanager
def part_reader(root: Path, frames: FrameConfig, align: AlignConfig) -> Iterator[Callable[[Task], Any]]:
    """Set a worker process up and give the function that follows the face through one part.

    Raises
    ------
    EnvironmentMissing
        As `Aligner`.
    """
    cv2.setNumThreads(1)  # parallel over parts, not inside one
    give_back_large_blocks()
    with Aligner(align) as aligner:

        def read(task: Task) -> Course:
            track = FaceTrack(aligner, task.recording.path, task.recording.fps)
            course = track.course(frames_of(task.recording, task.part, root, frames))
            give_back()
            return course

        yield read


def _plan(
    recordings: Sequence[Recording], frames: FrameConfig, align: AlignConfig, spot: SpotOptions
) -> dict[str, Any]:
    """What decides the courses: parts on disk are taken for the same alone."""
    return {
        "versions": versions(),
        "frames": dataclasses.asdict(frames),
        "align": dataclasses.asdict(align),
        "fps": None if math.isnan(spot.fps) else spot.fps,
        "recordings": [
            [one.path, one.size, one.modified, one.frames, [part.first for part in one.parts]] for one in recordings
        ],
    }
