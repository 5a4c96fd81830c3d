"""All frames of a recording, in order, and in parts that can be read by themselves: of a video, or of a folder of images.

A video is cut where decoding can start (`video_index.py`), so every frame is decoded once, except the first of each part: it is
the last of the part before, too, so that what is measured in both can be joined. A video whose index is not trusted is one part.
"""

from __future__ import annotations

import functools
import math
import stat
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
UNEVEN = 1.5
"""Frames count as uneven in time where a twentieth of the distances is so many times the usual one."""

Grey = npt.NDArray[np.float32]


class Frame:
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

    def grey(self) -> Grey:
        """Luma, (H, W) float32 in [0, 1]; raises `ClipError` where this frame cannot be used."""
        raise NotImplementedError

    def rgb(self) -> npt.NDArray[np.uint8]:
        """What a face detector looks at, (H, W, 3) uint8."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A stretch of a recording.

    Attributes
    ----------
    first : int
        Number of its first frame, from 0; of a folder, its place among the numbers.
    times : (n,) int64
        Presentation time stamps of its frames, of a video whose index is trusted; else empty.
    numbers : (n,) int64
        Frame numbers, of a folder; else empty.
    """

    first: int
    times: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    numbers: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    @property
    def frames(self) -> int:
        """How many frames there are; 0 where nobody knows before they are decoded."""
        return max(len(self.times), len(self.numbers))


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
        Bytes and time of modification (ns) of a video; of a folder, the number of images and 0.
    start : int
        Time stamp, or frame number, from which seconds count.
    notes : tuple of str
        What a user should know of it.
    """

    path: str
    fps: float
    frames: int
    parts: tuple[Part, ...]
    size: int
    modified: int
    start: int = 0
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
        return _video(path, place, fps, size, modified)


def frames_of(recording: Recording, part: Part, root: Path, config: FrameConfig) -> Iterator[Frame]:
    """Yield the frames of a part, in order.

    Raises
    ------
    ClipError
        SOURCE_CHANGED: the recording is not the one that was surveyed. VIDEO_UNREADABLE: the rest of the part cannot be read. An
        image that cannot be read says so when its pixels are asked for.
    """
    place = resolve_below(on_disk(root, recording.path), recording.path, root, config, path_problem(recording.path))
    if len(part.numbers):
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
    numbers = np.array(sorted(images_by_number(folder, path)), np.int64)
    notes = []
    if math.isnan(fps):
        notes.append(f"frames per second are unknown; {USUAL_FPS:g} are assumed")
        fps = USUAL_FPS
    if missing := int(numbers[-1] - numbers[0]) + 1 - len(numbers):
        notes.append(f"{missing} frame numbers between {numbers[0]} and {numbers[-1]} are missing")
    step = _part_frames(fps)
    bounds = [*range(0, max(len(numbers) - 1, 1), step)]
    parts = [Part(begin, numbers=numbers[begin : begin + step + 1]) for begin in bounds]
    return Recording(path, fps, len(numbers), tuple(parts), len(numbers), 0, int(numbers[0]), tuple(notes))


class _Image(Frame):
    """An image of a folder, read when its pixels are asked for."""

    def __init__(self, number: int, seconds: float, read: Callable[[], tuple[Picture, int]]) -> None:
        super().__init__(number, seconds)
        self._read = functools.cache(read)

    def grey(self) -> Grey:
        return grey(*self._read())

    def rgb(self) -> npt.NDArray[np.uint8]:
        return rgb(*self._read())


def _images(recording: Recording, part: Part, folder: Path, root: Path, config: FrameConfig) -> Iterator[Frame]:
    files = images_by_number(folder, recording.path)

    def read(number: int) -> tuple[Picture, int]:
        if number not in files:
            raise ClipError(
                FailureCode.SOURCE_CHANGED,
                f"{recording.path}: images must stay while they are searched; got none with the number {number} any more. Run "
                "again when nothing writes to the folder.",
                recording.path,
            )
        name, content = read_image(folder, files[number], recording.path, root, config)
        picture = decode_image(content, name)
        return picture, full_scale([picture], config.bit_depth, name)

    for number in part.numbers.tolist():
        yield _Image(number, (number - recording.start) / recording.fps, functools.partial(read, number))


# --- videos


def _video(path: str, place: Path, fps: float, size: int, modified: int) -> Recording:
    with open_container(place, path) as container:
        stream = video_stream(container, path, strict=True)
        with readable(path):
            index = index_of(container, stream)
        rate = float(stream.average_rate or 0) or math.nan
        unit = float(stream.time_base or 0)
        told = stream.frames or round(float(container.duration or 0) / 1e6 * (0 if math.isnan(rate) else rate))
    notes = []
    if math.isnan(fps):
        fps = rate
    if len(index.times) > 1 and unit:
        distances = np.diff(index.times) * unit
        usual, long = float(np.median(distances)), float(np.quantile(distances, 0.95))
        if long > UNEVEN * usual:
            notes.append(
                f"its frame rate varies: frames are {1000 * usual:.0f} to {1000 * long:.0f} ms apart. Short movements may be "
                "missed where they are far apart"
            )
    if math.isnan(fps):
        notes.append(f"frames per second are unknown; {USUAL_FPS:g} are assumed")
        fps = USUAL_FPS
    if index.problem:
        notes.append(f"where its frames lie is not certain ({index.problem}), so one process searches all of it")
        return Recording(path, fps, told, (Part(0),), size, modified, notes=tuple(notes))
    start = int(index.times[0])
    return Recording(path, fps, len(index.times), _cut(index, fps), size, modified, start, tuple(notes))


def _cut(index: VideoIndex, fps: float) -> tuple[Part, ...]:
    """Parts that begin where decoding can start."""
    step, bounds, last = _part_frames(fps), [0], len(index.times) - 1
    for start in index.starts:
        if start.number - bounds[-1] >= step and last - start.number >= step // 2:
            bounds.append(start.number)
    ends = [*bounds[1:], last]
    return tuple(Part(begin, times=index.times[begin : end + 1]) for begin, end in zip(bounds, ends, strict=True))


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
    name = recording.path
    with open_container(place, name) as container:
        stream = video_stream(container, name, strict=bool(len(part.times)))
        unit = float(stream.time_base or 0)
        if not len(part.times):
            for number, decoded in enumerate(all_frames(container, stream, name)):
                seconds = number / recording.fps if decoded.pts is None else decoded.pts * unit
                yield _Decoded(number + config.index_base, seconds, decoded, name)
            return
        frames = _from(container, stream, int(part.times[0]), name)
        for place_, time in enumerate(part.times.tolist()):
            number = part.first + place_
            frame = next(frames, None)
            if frame is None or frame.is_corrupt or frame.pts != time:
                unreadable(name, "undamaged to its end", f"damage at frame {number}")
            yield _Decoded(number + config.index_base, (time - recording.start) * unit, frame, name)


def _from(
    container: av.container.InputContainer, stream: av.VideoStream, time: int, name: str
) -> Iterator[av.VideoFrame]:
    """Decode from the key frame with a time stamp on, without its leading pictures."""
    container.seek(time, stream=stream, backward=True)
    began = False
    with readable(name):
        for packet in container.demux(stream):
            began = began or packet.pts == time
            if began:
                yield from (frame for frame in packet.decode() if frame.pts is None or frame.pts >= time)
