"""Videos: the wanted frames by number, looked for by the index of the video, or decoded one after the other from the first.

`video_files` opens and decodes, `video_index` says where the frames lie.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from flowkit.errors import ClipError, FailureCode
from flowkit.inputs.images import Picture, without_colour
from flowkit.inputs.video_files import all_frames, open_container, picture_of, readable, video_stream
from flowkit.inputs.video_index import Start, VideoIndex, index_of

if TYPE_CHECKING:
    import av
    from av.video.stream import VideoStream


@dataclass(frozen=True, slots=True)
class Footage:
    """The wanted frames of a video, in the order they were asked for, and its rate in frames per second (NaN: unknown).

    `beside` has the further frames that there are, by number and without colour; `damaged` says whether damage hides some.
    """

    pictures: tuple[Picture, ...]
    fps: float
    beside: Mapping[int, Picture] = field(default_factory=dict)
    damaged: bool = False


def _none(_: float) -> tuple[int, ...]:
    return ()


def read_footage(
    path: Path, numbers: tuple[int, ...], name: str, beside: Callable[[float], Sequence[int]] = _none
) -> Footage:
    """Frames of a video by number, from 0.

    Parameters
    ----------
    path : Path
        An MP4, MOV, Matroska, WebM or AVI file.
    numbers : tuple of int
        In any order, with repetitions.
    name : str
        What messages call the file.
    beside : callable
        Given the rate in frames per second, or NaN, returns the numbers of further frames, in order, which need not be there.

    Returns
    -------
    Footage

    Raises
    ------
    ClipError
        VIDEO_FORMAT_REFUSED, VIDEO_UNREADABLE, FRAME_MISSING, IMAGE_TOO_LARGE or IMAGE_TOO_SMALL.
    OSError
        The system could not read the file.
    """
    with open_reel(path, name) as reel:
        return footage_of(reel, numbers, beside)


def footage_of(reel: Reel, numbers: tuple[int, ...], beside: Callable[[float], Sequence[int]] = _none) -> Footage:
    """As `read_footage`, of a video that is open."""
    further, last = frozenset(beside(reel.fps)).difference(numbers), max(numbers)
    keys, there = dict[int, Picture](), dict[int, Picture]()
    for number, picture in reel.pictures(sorted(further.union(numbers)), last):
        if number in further:
            there[number] = without_colour(picture)
        else:
            keys[number] = picture
    damaged = reel.add_rest(there, further, last)
    return Footage(tuple(keys[number] for number in numbers), reel.fps, there, damaged)


class Reel:
    """A video that is open: its rate in frames per second (NaN: unknown), and its frames by number, from 0.

    Frames are looked for by the video's index where it can be trusted. Whatever in the decoded frames is not as the index says,
    damage included, is left to a pass from the first frame on, whose result counts. So what a frame is, or which error it gives,
    does not depend on the frames that were asked for before.

    Attributes
    ----------
    fps : float
    problem : str
        Why the index is not trusted and frames are decoded from the first on; empty where it is.
    """

    def __init__(self, path: Path, name: str, stack: ExitStack) -> None:
        self._path, self._name, self._stack = path, name, stack
        self._passes, lookup = stack.enter_context(ExitStack()), stack.enter_context(ExitStack())
        container, stream = self._opened(lookup, strict=True)
        rate = stream.average_rate
        self.fps = float(rate) if rate else math.nan
        index = _index(container, stream)
        self.problem = index.problem
        self._lookup = None if index.problem else _Lookup(container, stream, index)
        if index.problem:
            lookup.close()
        self._pass: _Pass | None = None

    def pictures(self, numbers: Iterable[int], last: int | None) -> Iterator[tuple[int, Picture]]:
        """Number, from 0, and picture of each frame wanted, in order.

        Parameters
        ----------
        numbers : iterable of int
            Those wanted, in order; those behind `last` are left out.
        last : int, optional
            The last one, which must be there; left out, the end of the video ends the pictures.

        Raises
        ------
        ClipError
            VIDEO_UNREADABLE, FRAME_MISSING, IMAGE_TOO_LARGE or IMAGE_TOO_SMALL.
        """
        for number in numbers:
            if last is not None and number > last:
                return
            with readable(self._name):
                frame = self._frame(number)
                picture = None if frame is None else picture_of(frame, self._name)
            if picture is None and last is None:
                return
            if picture is None:
                raise ClipError(
                    FailureCode.FRAME_MISSING,
                    f"{self._name}: frame {last} (counted from 0) must exist; got a video of {self._decodable()} decodable frames. "
                    "Correct the manifest, frames.index_base, or copy the file again.",
                    self._name,
                )
            yield number, picture

    def add_rest(self, found: dict[int, Picture], numbers: frozenset[int], last: int) -> bool:
        """Add those of further frames that lie behind `last`; return whether damage, which fails nothing here, hides some."""
        rest = sorted(number for number in numbers if number > last)
        try:
            for number, picture in self.pictures(rest, max(rest, default=last)):
                found[number] = without_colour(picture)
        except ClipError as error:
            return error.code != FailureCode.FRAME_MISSING
        return False

    def _frame(self, number: int) -> av.VideoFrame | None:
        """A frame, or None behind the end of the video."""
        frame = self._lookup.frame(number) if self._lookup else None
        if frame is not None:
            return frame
        if self._pass is None or not self._pass.reaches(number):
            self._end_pass()
            self._pass = _Pass(*self._opened(self._passes, strict=False), self._name)
        try:
            return self._pass.frame(number)
        except ClipError:
            self._end_pass()
            raise

    def _end_pass(self) -> None:
        self._pass = None
        self._passes.close()

    def _decodable(self) -> int:
        """How many frames there are; known where one behind the end was asked for."""
        return 0 if self._pass is None else self._pass.count

    def _opened(self, stack: ExitStack, *, strict: bool) -> tuple[av.container.InputContainer, VideoStream]:
        container = stack.enter_context(open_container(self._path, self._name))
        return container, video_stream(container, self._name, strict)


class _Pass:
    """All frames of a video, once, from the first on."""

    def __init__(self, container: av.container.InputContainer, stream: VideoStream, name: str) -> None:
        self._frames = all_frames(container, stream, name)
        self.count = 0
        """Frames that were decoded."""
        self._ended = False

    def reaches(self, number: int) -> bool:
        """Whether a frame is still to come, or lies behind the end."""
        return number >= self.count

    def frame(self, number: int) -> av.VideoFrame | None:
        """Decode up to a frame that is still to come; None behind the end."""
        if self._ended:
            return None
        for frame in self._frames:
            self.count += 1
            if self.count > number:
                return frame
        self._ended = True
        return None


class _Lookup:
    """Frames of a video that are looked for by its index."""

    def __init__(self, container: av.container.InputContainer, stream: VideoStream, index: VideoIndex) -> None:
        self._container, self._stream, self._index = container, stream, index
        self._frames: Iterator[av.VideoFrame] = iter(())
        self._next = -1  # number of the next frame; -1 where decoding must start anew

    def frame(self, number: int) -> av.VideoFrame | None:
        """A frame, or None where what was decoded is not what the index says, or damaged."""
        import av

        if number >= len(self._index.times):
            return None
        start = self._index.start_before(number)
        try:
            if not start.number <= self._next <= number:
                self._frames, self._next = self._decoded(start), start.number
            for frame in self._frames:
                if frame.is_corrupt or frame.pts != self._index.times[self._next]:
                    break
                self._next += 1
                if self._next > number:
                    return frame
        except av.FFmpegError:
            pass
        self._next = -1
        return None

    def _decoded(self, start: Start) -> Iterator[av.VideoFrame]:
        """Frames from a start on, without its leading pictures; none where it is not found."""
        self._container.seek(start.time, stream=self._stream, backward=True)
        packets = self._container.demux(self._stream)
        first = next(packets, None)
        place = len(self._index.places) if first is None else self._index.place_of(first.pts)
        if first is None or place > start.place:
            return
        leading = True
        for packet in itertools.islice(itertools.chain([first], packets), start.place - place, None):
            for frame in packet.decode():
                leading = leading and frame.pts is not None and frame.pts < start.time
                if not leading:
                    yield frame


@contextmanager
def open_reel(path: Path, name: str) -> Iterator[Reel]:
    """Open a video; arguments and errors as of `read_footage`."""
    with ExitStack() as stack:
        yield Reel(path, name, stack)


class Recordings:
    """Keeps the video open that was read last: clips of one recording often follow each other."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._key: tuple[Path, str, int, int] | None = None
        self._reel: Reel | None = None

    @contextmanager
    def reel(self, path: Path, name: str, size: int, modified: int) -> Iterator[Reel]:
        """As `open_reel`; size and time of modification (ns) tell that the file is still the same.

        A video that gave an error is closed.
        """
        key = path, name, size, modified
        if self._reel is None or key != self._key:
            self.close()
            self._reel, self._key = self._stack.enter_context(open_reel(path, name)), key
        try:
            yield self._reel
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the video, if one is open."""
        self._reel = self._key = None
        self._stack.close()


def _index(container: av.container.InputContainer, stream: VideoStream) -> VideoIndex:
    import av

    try:
        return index_of(container, stream)
    except av.FFmpegError as error:
        return VideoIndex.untrusted(f"a damaged container ({error.strerror})")
