"""Where the frames of a video lie, so that one can be decoded without all before it.

The packets are listed once, without decoding. A video is cut into segments that begin with a frame from which decoding can start:
nothing in a segment but its leading pictures (shown before that frame) refers to an earlier one. Each packet of the codecs in
`SEEKABLE`, and of those whose every frame is complete, becomes one frame, so the number of a frame follows from the place of its
packet and the order of the time stamps in its segment. Any other video is not trusted; `problem` says why.

What is decoded is compared with the list: see `videos.Reel`.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import av
    from av.packet import Packet as AnyPacket
    from av.video.stream import VideoStream

    Packet = AnyPacket[VideoStream]

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Start:
    """Where decoding starts.

    Attributes
    ----------
    place : int
        Of its packet, in the order of decoding.
    time : int
        Its presentation time stamp.
    number : int
        Of the frame that it becomes.
    """

    place: int
    time: int
    number: int


@dataclass(frozen=True, slots=True)
class VideoIndex:
    """The frames of a video.

    Attributes
    ----------
    times : (n,) int64
        Presentation time stamp of each frame, by its number: they grow.
    places : (n,) int64
        Place of the packet that becomes it, in the order of decoding.
    starts : tuple of Start
        In order.
    problem : str
        Why no frame may be looked for by this index; then it is empty.
    """

    times: Numbers
    places: Numbers
    starts: tuple[Start, ...]
    problem: str = ""

    @classmethod
    def untrusted(cls, problem: str) -> Self:
        """Return the index of a video whose frames are decoded from the first on."""
        return cls(np.zeros(0, np.int64), np.zeros(0, np.int64), (), problem)

    def start_before(self, number: int) -> Start:
        """Return the last start from which a frame can be decoded."""
        return self.starts[bisect.bisect_right(self.starts, number, key=lambda start: start.number) - 1]

    def place_of(self, time: int | None) -> int:
        """Return the place of the packet with a presentation time stamp; behind the last where there is none."""
        if time is None:
            return len(self.places)
        number = int(np.searchsorted(self.times, time))
        found = number < len(self.times) and int(self.times[number]) == time
        return int(self.places[number]) if found else len(self.places)


def index_of(container: av.container.InputContainer, stream: VideoStream) -> VideoIndex:
    """List the packets of a video stream, from its first; reads the file to its end, and decodes nothing.

    Raises
    ------
    av.FFmpegError
        The container is damaged.
    """
    codec = stream.codec_context.codec
    is_start = _always if codec.intra_only else SEEKABLE.get(codec.name)
    if is_start is None:
        return VideoIndex.untrusted(f"the codec {codec.name} does not tell where decoding may start")
    header = bytes(stream.codec_context.extradata or b"")
    times, starts = list[int](), list[int]()
    for packet in container.demux(stream):
        if packet.size == 0 and packet.dts is None and packet.pts is None:
            continue  # PyAV's sign of the end
        if packet.pts is None:
            return VideoIndex.untrusted("packets without time stamps")
        if problem := _packet_problem(packet):
            return VideoIndex.untrusted(problem)
        if packet.is_keyframe and is_start(packet, header):
            starts.append(len(times))
        times.append(packet.pts)
    found = np.array(times, np.int64)
    if stream.frames != len(found) and (container.format.name == "avi" or not _is_steady(found)):
        return VideoIndex.untrusted(
            "another number of frames than the file states, or uneven distances: one may be missing"
        )
    return _indexed(found, starts)


def _packet_problem(packet: Packet) -> str:
    if packet.size == 0:
        return "empty packets"
    if packet.is_discard:
        return "an edit list that hides frames"
    return "damaged packets" if packet.is_corrupt else ""


def _indexed(times: Numbers, starts: list[int]) -> VideoIndex:
    """Put the frames in the order in which they are shown, given the times of the packets and which of them are starts."""
    if not starts or starts[0]:
        return VideoIndex.untrusted("no frame at the beginning from which decoding may start")
    places, found = np.empty_like(times), list[Start]()
    for begin, end in itertools.pairwise([*starts, len(times)]):
        order = np.argsort(times[begin:end], kind="stable")
        places[begin:end] = begin + order
        found.append(Start(begin, int(times[begin]), begin + int(np.flatnonzero(order == 0)[0])))
    shown = times[places]
    if (np.diff(shown) <= 0).any():
        return VideoIndex.untrusted("time stamps out of order")
    if found[0].number:
        return VideoIndex.untrusted("frames that are shown before the first from which decoding may start")
    return VideoIndex(shown, places, tuple(found))


def _is_steady(times: Numbers) -> bool:
    """Whether the distances of frames are alike: where damage swallows a packet, one is twice as long, and numbers shift.

    AVI has no times, so FFmpeg counts packets there, and this says nothing.
    """
    ordered = np.sort(times)
    distances = ordered[1:] - ordered[:-1]
    usual = float(np.median(distances)) if len(distances) else 1.0
    return bool((np.abs(distances - usual) <= usual / 2).all())


# --- packets from which decoding may start


def _always(packet: Packet, header: bytes) -> bool:
    return True


def _h264_starts(packet: Packet, header: bytes) -> bool:
    """IDR pictures: what follows refers to nothing before. After another key frame it may."""
    return any(unit[0] & 31 == 5 for unit in _units(bytes(packet), header, length_at=4))


def _hevc_starts(packet: Packet, header: bytes) -> bool:
    """BLA, IDR and CRA pictures: of what follows, leading pictures alone may refer to something before."""
    return any(16 <= (unit[0] >> 1 & 63) <= 21 for unit in _units(bytes(packet), header, length_at=21))


def _units(data: bytes, header: bytes, length_at: int) -> Iterator[bytes]:
    """Yield the first byte of each NAL unit of a packet.

    In MP4 and Matroska, lengths go before the units, and the header says how long a length is (ISO/IEC 14496-15). Elsewhere, start
    codes do.
    """
    if header[:1] != b"\x01" or len(header) <= length_at:
        yield from (part[:1] for part in data.split(b"\0\0\1")[1:] if part)
        return
    width, at = (header[length_at] & 3) + 1, 0
    while at + width < len(data):
        yield data[at + width : at + width + 1]
        at += width + int.from_bytes(data[at : at + width], "big")


SEEKABLE: dict[str, Callable[[Packet, bytes], bool]] = {
    "h264": _h264_starts,
    "hevc": _hevc_starts,
    "mpeg1video": _always,
    "mpeg2video": _always,
    "ffv1": _always,
    "png": _always,
    "vp9": _always,
    "av1": _always,
    "libdav1d": _always,
}
"""Codecs, by the name of their decoder, each of whose packets becomes one frame, and which key frames are a start.

Not MPEG-4 Part 2, some of whose packets hold two frames or none, and not VP8, some of whose frames are never shown."""
