"""Images and videos that an attacker made."""

from __future__ import annotations

import functools
import io
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import numpy as np
from PIL import Image

SIDE = 96
"""Of the frames of `cropped`."""
BARE = ((256, 3, 1, SIDE), (257, 3, 1, SIDE), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 300))
STRIP = ((277, 3, 1, 1), (278, 3, 1, SIDE), (279, 4, 1, SIDE * SIDE))


def png(side: int, *chunks: bytes) -> bytes:
    """Header, these chunks and an end; each chunk with a sum that is right."""
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    parts = [
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in (header, *chunks, b"IEND")
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@functools.cache
def pixels(side: int) -> bytes:
    """So many black pixels, in a two hundredth of their bytes."""
    squeeze = zlib.compressobj(1)
    strips, rest = divmod(side, 100)
    parts = [squeeze.compress(bytes((3 * side + 1) * rows)) for rows in (*[100] * strips, rest)]
    return b"IDAT" + b"".join(parts) + squeeze.flush()


def tiff(**changes: tuple[int, int, int]) -> bytes:
    """A grey TIFF; `t258=(3, 1, 8)` sets type, count and value of tag 258."""
    tags = {tag: (kind, count, value) for tag, kind, count, value in (*BARE, *STRIP)}
    tags |= {int(name[1:]): entry for name, entry in changes.items()}
    entries = b"".join(struct.pack("<HHII", tag, *tags[tag]) for tag in sorted(tags))
    head = b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4)
    return head.ljust(300, b"\0") + bytes(SIDE * SIDE)


def animated(form: str) -> bytes:
    """Three frames: black, grey, white."""
    frames = [Image.new("RGB", (SIDE, SIDE), (value,) * 3) for value in (0, 128, 255)]
    file = io.BytesIO()
    frames[0].save(file, form, save_all=True, append_images=frames[1:], duration=40, lossless=True)
    return file.getvalue()


def postscript(mark: Path) -> bytes:
    """A program that an interpreter of PostScript would run: it makes a file."""
    return (
        f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 {SIDE} {SIDE}\n({mark}) (w) file closefile\n"
        f"(%pipe%touch {mark}) (w) file closefile\nshowpage\n%%EOF\n"
    ).encode()


def svg(link: str) -> bytes:
    return f'<svg xmlns="http://www.w3.org/2000/svg" width="96" height="96"><image href="{link}"/></svg>'.encode()


# --- videos


def video(path: Path, codec: str, frames: Sequence[np.ndarray], *, pix_fmt: str = "yuv420p") -> Path:
    """A video of (H, W, 3) uint8 frames."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pix_fmt
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(stream.encode())
    return path


def boxes(data: bytes, begin: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    while begin + 8 <= end:
        size = int.from_bytes(data[begin : begin + 4], "big")
        yield data[begin + 4 : begin + 8], begin, begin + size
        begin += size


def inner(data: bytes, *names: bytes) -> tuple[list[int], int, int]:
    """Where the boxes of a path begin, and the content of the last."""
    begin, end, way = 0, len(data), []
    for name in names:
        start, stop = next((a, b) for kind, a, b in boxes(data, begin, end) if kind == name)
        way.append(start)
        begin, end = start + 8, stop
    return way, begin, end


TABLE = (b"moov", b"trak", b"mdia", b"minf", b"stbl")


def with_pictures_elsewhere(data: bytes, name: bytes) -> bytes:
    """A MOV whose data reference is an alias of another file; its own pictures are zeros."""
    target = b":" + name
    alias = bytes(4) + bytes(10) + b"\0" + bytes(27) + bytes(12) + b"\0" + bytes(63) + bytes(16)
    alias += struct.pack(">HH", 1, 1) + bytes(16)  # levels up from here, and down to there
    alias += struct.pack(">HH", 2, len(target)) + target + bytes(len(target) & 1) + struct.pack(">hH", -1, 0)
    entry = struct.pack(">I", len(alias) + 8) + b"alis" + alias
    way, begin, end = inner(data, b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref")
    changed = bytearray(data[: begin + 8] + entry + data[end:])
    for start in way:
        size = int.from_bytes(data[start : start + 4], "big") + len(entry) - (end - begin - 8)
        changed[start : start + 4] = size.to_bytes(4, "big")
    _, begin, end = inner(bytes(changed), b"mdat")
    changed[begin:end] = bytes(end - begin)
    return bytes(changed)


def declaring(data: bytes, samples: int) -> bytes:
    """An MP4 whose tables declare so many frames, each of a byte."""
    changed = bytearray(data)
    _, sizes, _ = inner(data, *TABLE, b"stsz")
    changed[sizes + 4 : sizes + 12] = struct.pack(">II", 1, samples)
    _, chunks, _ = inner(data, *TABLE, b"stsc")
    changed[chunks + 12 : chunks + 16] = samples.to_bytes(4, "big")
    _, times, _ = inner(data, *TABLE, b"stts")
    changed[times + 8 : times + 12] = samples.to_bytes(4, "big")
    return bytes(changed)


def edited(data: bytes, edits: int) -> bytes:
    """An MP4 with an edit list that shows all of it so many times."""
    way, begin, end = inner(data, b"moov", b"trak", b"edts", b"elst")
    entry = data[begin + 8 : begin + 20]
    changed = bytearray(data[:begin] + bytes(4) + edits.to_bytes(4, "big") + edits * entry + data[end:])
    grown = 8 + edits * len(entry) - (end - begin)
    for start in way:
        changed[start : start + 4] = (int.from_bytes(data[start : start + 4], "big") + grown).to_bytes(4, "big")
    return bytes(changed)


def fragmented(samples: int) -> bytes:
    """A file of one fragment that declares so many samples."""
    run = struct.pack(">I4sII", 16, b"trun", 0, samples)
    traf = struct.pack(">I4s", 8 + len(run), b"traf") + run
    return struct.pack(">I4s4sI", 16, b"ftyp", b"isom", 0) + struct.pack(">I4s", 8 + len(traf), b"moof") + traf


def compressed_header(size: int) -> bytes:
    """A QuickTime file whose headers become `size` bytes."""
    packed = zlib.compress(bytes(size), 1)
    inside = struct.pack(">I4s4s", 12, b"dcom", b"zlib")
    inside += struct.pack(">I4sI", 12 + len(packed), b"cmvd", size) + packed
    moov = struct.pack(">I4s", 8 + len(inside), b"cmov") + inside
    return struct.pack(">I4s", 8, b"wide") + struct.pack(">I4s", 8 + len(moov), b"moov") + moov


def pretending(path: Path, side: int, pretended: int) -> Path:
    """An AVI whose container says it is small, and whose frames are large."""
    frame = np.zeros((side, side, 3), np.uint8)
    data = video(path, "mjpeg", [frame] * 3, pix_fmt="yuvj420p").read_bytes()
    large, small = (struct.pack("<II", n, n) for n in (side, pretended))
    path.write_bytes(data.replace(large, small))
    return path
