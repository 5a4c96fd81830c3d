"""Videos: the wanted frames by number, decoded one after the other from the first, never by seeking.

The container is told by its first bytes and given to FFmpeg by name, so nothing is ever probed: a playlist that calls itself
`clip.avi` cannot make another file be read, nor can an MP4 whose pictures lie elsewhere (`enable_drefs` stays off). Colour comes
as 8-bit RGB, also of 10-bit videos.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from flowkit.errors import ClipError, FailureCode
from flowkit.inputs.images import MAX_PIXELS, Picture, check_size, upright, without_colour
from flowkit.inputs.mp4_headers import header_problem

if TYPE_CHECKING:
    import av
    from av.video.stream import VideoStream

_MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot")
_ORIENTATIONS = {  # signs of the display matrix (a, b, c, d) -> the EXIF orientation that means the same
    (1, 0, 0, 1): 1,
    (-1, 0, 0, 1): 2,
    (-1, 0, 0, -1): 3,
    (1, 0, 0, -1): 4,
    (0, 1, 1, 0): 5,
    (0, 1, -1, 0): 6,
    (0, -1, -1, 0): 7,
    (0, -1, 1, 0): 8,
}


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
        further, last = frozenset(beside(reel.fps)).difference(numbers), max(numbers)
        keys, there = dict[int, Picture](), dict[int, Picture]()
        for number, picture in reel.pictures(further.union(numbers), last):
            if number in further:
                there[number] = without_colour(picture)
            else:
                keys[number] = picture
        damaged = reel.add_rest(there, further, last)
        return Footage(tuple(keys[number] for number in numbers), reel.fps, there, damaged)


class Reel:
    """A video that is open: its rate in frames per second (NaN: unknown), and its frames, once through."""

    def __init__(self, container: av.container.InputContainer, name: str) -> None:
        self._container = container
        self._name = name
        self._stream = _stream(container, name)
        rate = self._stream.average_rate
        self.fps = float(rate) if rate else math.nan
        self._frames = enumerate(_decoded(container, self._stream, name))

    def pictures(self, numbers: Container[int], last: int | None) -> Iterator[tuple[int, Picture]]:
        """Number, from 0, and picture of each frame wanted, in order.

        Parameters
        ----------
        numbers : container of int
            Those wanted.
        last : int, optional
            The last one, which must be there; left out, the video is read to its end.

        Raises
        ------
        ClipError
            VIDEO_UNREADABLE, FRAME_MISSING, IMAGE_TOO_LARGE or IMAGE_TOO_SMALL.
        """
        count = 0
        for number, frame in self._frames:
            if number in numbers:
                yield number, _picture(frame, self._name)
            count = number + 1
            if number == last:
                return
        if last is not None:
            raise ClipError(
                FailureCode.FRAME_MISSING,
                f"{self._name}: frame {last} (counted from 0) must exist; got a video of {count} decodable frames. Correct the "
                "manifest, frames.index_base, or copy the file again.",
                self._name,
            )

    def add_rest(self, found: dict[int, Picture], numbers: frozenset[int], last: int) -> bool:
        """Add those of further frames that lie behind `last`; return whether damage, which fails nothing here, hides some."""
        end = max(numbers, default=last)
        try:
            for number, picture in self.pictures(numbers, end) if end > last else ():
                found[number] = without_colour(picture)
        except ClipError as error:
            return error.code != FailureCode.FRAME_MISSING
        return False


@contextmanager
def open_reel(path: Path, name: str) -> Iterator[Reel]:
    """Open a video; arguments and errors as of `read_footage`."""
    import av  # here: folders of frames need none of it

    container_format = _sniff(path, name)
    try:
        with av.open(
            str(path),
            format=container_format,
            container_options={"protocol_whitelist": "file"},
            **_metadata_options(),
        ) as container:
            yield Reel(container, name)
    except av.FFmpegError as error:
        _unreadable(name, "readable", f"{error.strerror}", error)


def _metadata_options() -> dict[str, Any]:
    """Return the arguments with which a title that is not UTF-8 does not fail a file.

    PyAV before 19 reads all metadata when it opens a file, strictly by default; later ones have no such argument and need none.
    """
    import av

    return {"metadata_errors": "replace"} if hasattr(av.container.InputContainer, "metadata_errors") else {}


def _sniff(path: Path, name: str) -> str:
    """FFmpeg's name of the container."""
    with path.open("rb") as file:
        head = file.read(12)
    if not head:
        _unreadable(name, "a video", "an empty file")
    if head[4:8] in _MP4_BOXES:
        if problem := header_problem(path):
            _unreadable(name, "one whose headers fit its length", problem)
        return "mp4"
    if head.startswith(b"\x1aE\xdf\xa3"):
        return "matroska"
    if head.startswith(b"RIFF") and head[8:] == b"AVI ":
        return "avi"
    raise ClipError(
        FailureCode.VIDEO_FORMAT_REFUSED,
        f"{name}: video must be MP4, MOV, Matroska, WebM or AVI; got a file that begins with {head!r}. Convert it, or pass a "
        "folder of frames.",
        name,
    )


def _stream(container: av.container.InputContainer, name: str) -> VideoStream:
    if not container.streams.video:
        _unreadable(name, "a video", "no video stream")
    stream = container.streams.best("video") or container.streams.video[0]
    codec = getattr(stream, "codec_context", None)  # None where FFmpeg knows no decoder
    if codec is None:
        _unreadable(name, "decodable", "a stream without a known decoder")
    if codec.width and codec.height:
        check_size(codec.width, codec.height, name)
    codec.thread_count = 1
    codec.options = {"max_pixels": str(MAX_PIXELS)}  # of what is inside, whatever the container says
    return stream  # type: ignore[return-value]


def _decoded(container: av.container.InputContainer, stream: VideoStream, name: str) -> Iterator[av.VideoFrame]:
    """All frames from the first; damage ends it, because a decoder may drop frames there and so shift all later numbers."""
    import av

    number = 0
    try:
        for number, frame in enumerate(container.decode(stream), start=1):
            if frame.is_corrupt:
                _unreadable(name, "undamaged up to the last frame wanted", f"damage at frame {number - 1}")
            yield frame
    except av.FFmpegError as error:
        _unreadable(name, "undamaged up to the last frame wanted", f"{error.strerror} after {number} frames", error)


def _picture(frame: av.VideoFrame, name: str) -> Picture:
    check_size(frame.width, frame.height, name)
    orientation = _orientation(frame, name)
    return Picture(upright(frame.to_ndarray(format="rgb24"), orientation), orientation != 1)


def _orientation(frame: av.VideoFrame, name: str) -> int:
    matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return 1
    a, b, _, c, d = np.sign(np.frombuffer(bytes(matrix), np.int32)[:5]).tolist()
    if (a, b, c, d) not in _ORIENTATIONS:
        _unreadable(name, "upright or turned by a multiple of 90 degrees", f"a turn of {frame.rotation} degrees")
    return _ORIENTATIONS[a, b, c, d]


def _unreadable(name: str, expectation: str, got: str, cause: BaseException | None = None) -> NoReturn:
    raise ClipError(
        FailureCode.VIDEO_UNREADABLE,
        f"{name}: video must be {expectation}; got {got}. Copy the file again, or convert it.",
        name,
    ) from cause
