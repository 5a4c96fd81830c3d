"""All frames of a recording, in order, and in parts that can be read by themselves: of a video, or of a folder of images.

A video is cut where decoding can start (`video_index.py`), so every frame is decoded once, except the first of each part: it is
the last of the part before, too, so that what is measured in both can be joined. A video whose index is not trusted is one part.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from flowkit.config import FrameConfig
from flowkit.errors import ClipError, FailureCode
from flowkit.inputs.frame_numbers import images_by_number
from flowkit.inputs.images import Picture, decode_image, full_scale, grey, rgb
from flowkit.inputs.manifest import path_problem
from flowkit.inputs.source_files import on_disk, read_image, resolve_below, status_of, unchanged
from flowkit.inputs.video_files import (
    all_frames,
    luma_of,
    open_container,
    picture_of,
    readable,
    unreadable,
    video_stream,
)
from flowkit.inputs.video_index import VideoIndex, index_of

if TYPE_CHECKING:
    import av

PART_S, PART_FRAMES = 60.0, 4000
"""Length of a part: about so many seconds, or so many frames, whichever is less."""
USUAL_FPS = 30.0
"""Assumed where the frame rate is unknown."""

_PAUSES = 0.2
"""A usual rate that differs by so much from the average is taken in its place."""
Grey = npt.NDArray[np.float32]


class Frame(ABC):
    """One frame of a recording; its pixels are made when they are asked for.

    Attributes
    ----------
    number : int
        As in a manifest.
    seconds : float
        Since the first frame of the recording.
    interlaced : bool
        Whether its lines are of two moments.
    """

    def __init__(self, number: int, seconds: float, interlaced: bool = False) -> None:
        self.number, self.seconds, self.interlaced = number, seconds, interlaced

    @abstractmethod
    def grey(self) -> Grey:
        """Luma, (H, W) float32 in [0, 1]; raises `ClipError` where this frame cannot be used."""

    @abstractmethod
    def rgb(self) -> npt.NDArray[np.uint8]:
        """What a face detector looks at, (H, W, 3) uint8."""


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A stretch of a recording; all arrays are empty where nobody knows its frames before they are decoded.

    Attributes
    ----------
    numbers : (n,) int64
        Of its frames, as in a manifest.
    seconds : (n,) float64
        Their times since the first frame of the recording.
    times : (n,) int64
        Their presentation time stamps; empty for images.
    """

    numbers: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    seconds: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(0, np.float64))
    times: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    @property
    def frames(self) -> int:
        """How many frames there are; 0 where nobody knows."""
        return len(self.numbers)

    @property
    def first(self) -> int:
        """Number of the first frame; 0 where nobody knows."""
        return int(self.numbers[0]) if len(self.numbers) else 0


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """What is known of a recording before any frame is decoded.

    Attributes
    ----------
    path : str
        As in a manifest.
    fps : float
        Frames per second.
    frames : int
        How many; an estimate, or 0, where the index of a video is not trusted.
    parts : tuple of Part
        In order, at least one.
    size, modified : int
        Bytes and time of modification (ns) of a video; of a folder, those of all its images, and of the last that was modified.
    stated, stated_s : int, float
        Frames and seconds that the file says it has; 0 where it does not.
    notes : tuple of str
        What a user should know of it.
    """

    path: str
    fps: float
    frames: int
    parts: tuple[Part, ...]
    size: int
    modified: int
    stated: int = 0
    stated_s: float = 0.0
    notes: tuple[str, ...] = ()


def survey(path: str, root: Path, config: FrameConfig, fps: float = math.nan) -> Recording:
    """Find out where the frames of a recording lie; a video is read to its end, and nothing is decoded.

    Parameters
    ----------
    path : str
        Below the root: a video, or a folder of numbered images.
    root : Path
    config : FrameConfig
    fps : float
        Frames per second, where they are known better; NaN for those of the video.

    Raises
    ------
    ClipError
        PATH_REFUSED, FRAME_MISSING, FRAME_AMBIGUOUS, IMAGE_UNREADABLE, VIDEO_FORMAT_REFUSED or VIDEO_UNREADABLE.
    """
    place = resolve_below(on_disk(root, path), path, root, config, path_problem(path))
    if stat.S_ISDIR(status_of(place, path, FailureCode.IMAGE_UNREADABLE).st_mode):
        return _folder(path, place, fps)
    with unchanged(place, path, FailureCode.VIDEO_UNREADABLE) as (size, modified):
        return _video(path, place, fps, config.index_base, size, modified)


def frames_of(recording: Recording, part: Part, root: Path, config: FrameConfig) -> Iterator[Frame]:
    """Yield the frames of a part, in order.

    Raises
    ------
    ClipError
        SOURCE_CHANGED: the recording is not the one that was surveyed. VIDEO_UNREADABLE: the rest of the part cannot be read. An
        image that cannot be read says so when its pixels are asked for.
    """
    place = resolve_below(on_disk(root, recording.path), recording.path, root, config, path_problem(recording.path))
    if len(part.numbers) and not len(part.times):
        yield from _images(recording, part, place, root, config)
        return
    with unchanged(place, recording.path, FailureCode.VIDEO_UNREADABLE) as status:
        if status != (recording.size, recording.modified):
            raise ClipError(
                FailureCode.SOURCE_CHANGED,
                f"{recording.path}: file must not change while it is searched; got another size or time of modification. Run "
                "again when nothing writes to it.",
                recording.path,
            )
        yield from _decoded(recording, part, place, config)


# --- folders


def _folder(path: str, folder: Path, fps: float) -> Recording:
    files = images_by_number(folder, path)
    numbers = np.array(sorted(files), np.int64)
    notes = []
    if math.isnan(fps):
        notes.append(f"frames per second are unknown; {USUAL_FPS:g} are assumed")
        fps = USUAL_FPS
    if missing := int(numbers[-1] - numbers[0]) + 1 - len(numbers):
        notes.append(f"{missing} frame numbers between {numbers[0]} and {numbers[-1]} are missing")
    step, seconds = _part_frames(fps), (numbers - numbers[0]) / fps
    begins = range(0, max(len(numbers) - 1, 1), step)
    parts = [Part(numbers[begin : begin + step + 1], seconds[begin : begin + step + 1]) for begin in begins]
    size, modified = _extent(folder, files)
    return Recording(path, fps, len(numbers), tuple(parts), size, modified, notes=tuple(notes))


def _extent(folder: Path, files: dict[int, list[str]]) -> tuple[int, int]:
    """Bytes of all images, and when (ns) the last of them was modified; one that cannot be read says so later."""
    size = modified = 0
    for name in itertools.chain.from_iterable(files.values()):
        with contextlib.suppress(OSError):
            status = (folder / name).stat()
            size, modified = size + status.st_size, max(modified, status.st_mtime_ns)
    return size, modified


class _Image(Frame):
    """An image of a folder, read when its pixels are asked for."""

    def __init__(self, number: int, seconds: float, read: Callable[[], tuple[Picture, int]]) -> None:
        super().__init__(number, seconds)
        self._read = functools.cache(read)

    def grey(self) -> Grey:
        return grey(*self._read())

    def rgb(self) -> npt.NDArray[np.uint8]:
        return rgb(*self._read())


def _changed(recording: Recording, what: str) -> ClipError:
    return ClipError(
        FailureCode.SOURCE_CHANGED,
        f"{recording.path}: images must stay as they are while they are searched; got a change: {what}. Run again when nothing "
        "writes to the folder.",
        recording.path,
    )


def _images(recording: Recording, part: Part, folder: Path, root: Path, config: FrameConfig) -> Iterator[Frame]:
    files = images_by_number(folder, recording.path)

    def read(number: int) -> tuple[Picture, int]:
        if number not in files:
            raise _changed(recording, f"there is none with the number {number} any more")
        name, content = read_image(folder, files[number], recording.path, root, config)
        place = folder / files[number][0]
        if status_of(place, name, FailureCode.IMAGE_UNREADABLE).st_mtime_ns > recording.modified:
            raise _changed(recording, f"{name} was modified")
        picture = decode_image(content, name)
        return picture, full_scale([picture], config.bit_depth, name)

    for number, seconds in zip(part.numbers.tolist(), part.seconds.tolist(), strict=True):
        yield _Image(number, seconds, functools.partial(read, number))


# --- videos


def _video(path: str, place: Path, fps: float, base: int, size: int, modified: int) -> Recording:
    with open_container(place, path) as container:
        stream = video_stream(container, path, strict=True)
        with readable(path):
            index = index_of(container, stream)
        rate, unit = float(stream.average_rate or 0) or math.nan, float(stream.time_base or 0)
        alone = len(container.streams) == 1  # otherwise the length may be that of a sound track
        stated = stream.frames, (container.duration or 0) / 1e6 if alone else 0.0
    notes = []
    times = index.times.astype(np.float64) * unit
    if math.isnan(fps):
        sent = _packet_times(place, path) if index.problem else index.times
        fps = _usual_rate(sent.astype(np.float64) * unit, rate)
    if math.isnan(fps):
        notes.append(f"frames per second are unknown; {USUAL_FPS:g} are assumed")
        fps = USUAL_FPS
    if index.problem:
        notes.append(f"where its frames lie is not certain ({index.problem}), so one process searches all of it")
        frames = stated[0] or round(stated[1] * fps)
        return Recording(path, fps, frames, (Part(),), size, modified, *stated, tuple(notes))
    numbers = np.arange(len(times)) + base
    parts = [
        Part(numbers[begin:end], times[begin:end] - times[0], index.times[begin:end]) for begin, end in _cut(index, fps)
    ]
    return Recording(path, fps, len(times), tuple(parts), size, modified, *stated, tuple(notes))


def _packet_times(place: Path, path: str) -> npt.NDArray[np.int64]:
    """Time stamps of all packets that can be read, in order: of single frames they need not be, but they tell the usual rate."""
    import av  # here: folders of images need none of it

    times = set[int]()
    with open_container(place, path) as container, contextlib.suppress(av.FFmpegError):
        for packet in container.demux(video_stream(container, path)):
            if packet.pts is not None:
                times.add(packet.pts)
    return np.array(sorted(times), np.int64)


def _usual_rate(times: npt.NDArray[np.float64], average: float) -> float:
    """Frames per second: the average, or where pauses make it another, that of most frames."""
    usual = float(np.median(np.diff(times))) if len(times) > 2 else 0.0
    return 1 / usual if usual and not abs(usual * average - 1) < _PAUSES else average


def _cut(index: VideoIndex, fps: float) -> list[tuple[int, int]]:
    """First frame of each part, where decoding can start, and the one behind its last."""
    step, bounds, last = _part_frames(fps), [0], len(index.times) - 1
    for start in index.starts:
        if start.number - bounds[-1] >= step and last - start.number >= step // 2:
            bounds.append(start.number)
    return [(begin, end + 1) for begin, end in zip(bounds, [*bounds[1:], last], strict=True)]


def _part_frames(fps: float) -> int:
    return max(1, min(round(PART_S * fps), PART_FRAMES))


class _Decoded(Frame):
    """A frame of a video."""

    def __init__(self, number: int, seconds: float, frame: av.VideoFrame, name: str) -> None:
        super().__init__(number, seconds, bool(frame.interlaced_frame))
        self._frame, self._name = frame, name

    def grey(self) -> Grey:
        return luma_of(self._frame, self._name)

    def rgb(self) -> npt.NDArray[np.uint8]:
        return np.asarray(picture_of(self._frame, self._name).pixels, np.uint8)


def _decoded(recording: Recording, part: Part, place: Path, config: FrameConfig) -> Iterator[Frame]:
    import av  # here: folders of images need none of it

    name = recording.path
    with open_container(place, name) as container:
        stream = video_stream(container, name, strict=bool(len(part.times)))
        unit = float(stream.time_base or 0)
        if not len(part.times):
            first = 0
            for number, decoded in enumerate(all_frames(container, stream, name)):
                first = first if number else decoded.pts or 0
                seconds = number / recording.fps if decoded.pts is None else (decoded.pts - first) * unit
                yield _Decoded(number + config.index_base, seconds, decoded, name)
            return
        frames = _from(container, stream, int(part.times[0]))
        for number, seconds, time in zip(
            part.numbers.tolist(), part.seconds.tolist(), part.times.tolist(), strict=True
        ):
            try:
                frame = next(frames, None)
            except av.FFmpegError:
                frame = None
            if frame is None or frame.is_corrupt or frame.pts != time:
                unreadable(name, "undamaged to its end", f"damage at frame {number}, {seconds:.1f} s")
            yield _Decoded(number, seconds, frame, name)


def _from(container: av.container.InputContainer, stream: av.VideoStream, time: int) -> Iterator[av.VideoFrame]:
    """Decode from the key frame with a time stamp on, without its leading pictures."""
    container.seek(time, stream=stream, backward=True)
    began = False
    for packet in container.demux(stream):
        began = began or packet.pts == time
        if began:
            yield from (frame for frame in packet.decode() if frame.pts is None or frame.pts >= time)
