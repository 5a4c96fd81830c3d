"""Video files: opened as the container that their first bytes tell, and decoded.

FFmpeg is given the container by name, so nothing is ever probed: a playlist that calls itself `clip.avi` cannot make another file
be read, nor can an MP4 whose pictures lie elsewhere (`enable_drefs` stays off). Colour comes as 8-bit RGB, also of 10-bit videos.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import cv2
import numpy as np
import numpy.typing as npt

from flowkit.errors import ClipError, FailureCode
from flowkit.inputs.images import MAX_PIXELS, Picture, check_size, grey, upright
from flowkit.inputs.mp4_headers import header_problem

if TYPE_CHECKING:
    import av
    from av.video.stream import VideoStream

_LUMA_FIRST = ("yuv4", "yuvj4", "yuva4", "nv12", "gray")
"""Names of pixel formats whose first plane is luma begin so."""
_FULL_RANGE = 2
"""FFmpeg's number for samples that use all values."""
_FULL_8 = 255
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


def open_container(path: Path, name: str) -> av.container.InputContainer:
    """Open a video file.

    Raises
    ------
    ClipError
        VIDEO_FORMAT_REFUSED or VIDEO_UNREADABLE.
    OSError
    """
    import av  # here: folders of frames need none of it

    form, options = _format_of(path, name), {"protocol_whitelist": "file"}
    with readable(name):
        container: av.container.InputContainer = av.open(
            str(path), format=form, container_options=options, **_metadata_options()
        )
    return container


@contextmanager
def readable(name: str) -> Iterator[None]:
    """Make a failure of the clip of what FFmpeg raises."""
    import av

    try:
        yield
    except av.FFmpegError as error:
        unreadable(name, "readable", f"{error.strerror}", error)


def _metadata_options() -> dict[str, Any]:
    """Return the arguments with which a title that is not UTF-8 does not fail a file.

    PyAV before 19 reads all metadata when it opens a file, strictly by default; later ones have no such argument and need none.
    """
    import av

    return {"metadata_errors": "replace"} if hasattr(av.container.InputContainer, "metadata_errors") else {}


def _format_of(path: Path, name: str) -> str:
    """FFmpeg's name of the container."""
    with path.open("rb") as file:
        head = file.read(12)
    if not head:
        unreadable(name, "a video", "an empty file")
    if head[4:8] in _MP4_BOXES:
        if problem := header_problem(path):
            unreadable(name, "one whose headers fit its length", problem)
        return "mp4"
    if head.startswith(b"\x1aE\xdf\xa3"):
        return "matroska"
    if head.startswith(b"RIFF") and head[8:] == b"AVI ":
        return "avi"
    if head.startswith(b"GIF8"):
        return "gif"
    raise ClipError(
        FailureCode.VIDEO_FORMAT_REFUSED,
        f"{name}: video must be MP4, MOV, Matroska, WebM, AVI or GIF; got a file that begins with {head!r}. Convert it, or pass a "
        "folder of frames.",
        name,
    )


def video_stream(container: av.container.InputContainer, name: str, strict: bool = False) -> VideoStream:
    """Return the video stream of a container, to be decoded in one thread.

    Parameters
    ----------
    container : av.container.InputContainer
    name : str
        What messages call the file.
    strict : bool
        Whether decoding is to end at every error that the decoder sees, even where it could go on with a guess.

    Raises
    ------
    ClipError
        VIDEO_UNREADABLE: there is none, or no decoder.
    """
    if not container.streams.video:
        unreadable(name, "a video", "no video stream")
    stream = container.streams.best("video") or container.streams.video[0]
    codec = getattr(stream, "codec_context", None)  # None where FFmpeg knows no decoder
    if codec is None:
        unreadable(name, "decodable", "a stream without a known decoder")
    if codec.width and codec.height:
        check_size(codec.width, codec.height, name)
    codec.thread_count = 1
    codec.options = {"max_pixels": str(MAX_PIXELS)}  # of what is inside, whatever the container says
    if strict:
        codec.options |= {"err_detect": "crccheck+bitstream+buffer+explode"}
    return stream  # type: ignore[return-value]


def all_frames(container: av.container.InputContainer, stream: VideoStream, name: str) -> Iterator[av.VideoFrame]:
    """All frames from the first; damage ends it, because a decoder may drop frames there and so shift all later numbers."""
    import av

    number = 0
    try:
        for number, frame in enumerate(container.decode(stream), start=1):
            if frame.is_corrupt:
                unreadable(name, "undamaged up to the last frame wanted", f"damage at frame {number - 1}")
            yield frame
    except av.FFmpegError as error:
        unreadable(name, "undamaged up to the last frame wanted", f"{error.strerror} after {number} frames", error)


def picture_of(frame: av.VideoFrame, name: str) -> Picture:
    """Return a frame as RGB, upright; raises `ClipError` where it is too large, too small, or crooked."""
    check_size(frame.width, frame.height, name)
    orientation = _orientation(frame, name)
    return Picture(upright(frame.to_ndarray(format="rgb24"), orientation), orientation != 1)


def luma_of(frame: av.VideoFrame, name: str) -> npt.NDArray[np.float32]:
    """Return the luma of a frame, upright, (H, W) float32 in [0, 1]; raises as `picture_of`.

    Taken from the plane that has it, where there is one: a tenth of the time that conversion to RGB takes.
    """
    planar = frame.format.name.startswith(_LUMA_FIRST) and frame.format.components[0].bits in (8, 10, 12, 16)
    if not planar:
        return grey(picture_of(frame, name), _FULL_8)
    check_size(frame.width, frame.height, name)
    plane, bits = frame.planes[0], frame.format.components[0].bits
    samples = np.frombuffer(memoryview(plane), np.uint8 if bits == 8 else "<u2")
    samples = samples.reshape(plane.height, -1)[: frame.height, : frame.width]
    full = frame.color_range == _FULL_RANGE or frame.format.name.startswith(("yuvj", "gray"))
    values = np.arange(1 << bits, dtype=np.float32) / np.float32(2 ** (bits - 8))
    table = np.clip(values / 255 if full else (values - 16) / 219, 0, 1)
    luma = cv2.LUT(samples, table) if bits == 8 else table[np.minimum(samples, len(table) - 1)]
    return np.ascontiguousarray(upright(luma, _orientation(frame, name)))


def _orientation(frame: av.VideoFrame, name: str) -> int:
    matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return 1
    a, b, _, c, d = np.sign(np.frombuffer(bytes(matrix), np.int32)[:5]).tolist()
    if (a, b, c, d) not in _ORIENTATIONS:
        unreadable(name, "upright or turned by a multiple of 90 degrees", f"a turn of {frame.rotation} degrees")
    return _ORIENTATIONS[a, b, c, d]


def unreadable(name: str, expectation: str, got: str, cause: BaseException | None = None) -> NoReturn:
    """Raise the failure of a clip whose video should be what it is not."""
    raise ClipError(
        FailureCode.VIDEO_UNREADABLE,
        f"{name}: video must be {expectation}; got {got}. Copy the file again, or convert it.",
        name,
    ) from cause
