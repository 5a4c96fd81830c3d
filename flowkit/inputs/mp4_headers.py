"""The boxes of an MP4 or MOV file, looked at before FFmpeg believes what they declare.

FFmpeg makes an entry in memory for every sample that a header declares, however few bytes there are: 4 kB made it take 4.7 GB and
18 s, and in twelve bytes more an edit list multiplies that. So the headers are searched for the few boxes that declare counts,
wherever FFmpeg may look for them, and a file must have at least a byte for each entry.
"""

from __future__ import annotations

import re
from pathlib import Path

MAX_HEADER_BYTES = 1 << 28
"""Of all boxes but the pictures themselves."""
_COUNTED = re.compile(b"cmov|stsz|stz2|trun|elst")


def header_problem(path: Path) -> str:
    """Why FFmpeg should not read a file's headers, or an empty string.

    Raises
    ------
    OSError
    """
    length = path.stat().st_size
    samples = edits = held = 0
    kinds = set[bytes]()
    with path.open("rb") as file:
        while len(head := file.read(8)) == 8:
            size, kind = int.from_bytes(head[:4], "big"), head[4:]
            begin = file.tell() - 8
            if size == 1:
                size = int.from_bytes(file.read(8), "big")
            end = begin + size if size else length
            kinds.add(kind)
            if end < file.tell():
                break  # FFmpeg reads no further either
            if kind != b"mdat":
                held += min(end, length) - begin
                if held > MAX_HEADER_BYTES:
                    return f"more than {MAX_HEADER_BYTES} bytes of headers"
                file.seek(begin)
                header = file.read(size or length)
                if _is_compressed(header):
                    return "compressed headers, which may become anything"
                samples += sum(_counts(header, b"stsz", b"stz2", b"trun"))
                edits += sum(_counts(header, b"elst"))
            file.seek(min(end, length))
    if not kinds & {b"moov", b"moof"}:
        return "no list of its frames (moov), which comes last in most files: it is incomplete"
    declared = samples * max(1, edits)
    return f"headers that declare {declared} samples in {length} bytes" if declared > length else ""


def _is_compressed(header: bytes) -> bool:
    return any(header[match.end() + 4 : match.end() + 8] == b"dcom" for match in _COUNTED.finditer(header))


def _counts(header: bytes, *kinds: bytes) -> list[int]:
    """What boxes of these kinds declare; not what merely spells their name, which is no box of a size that fits."""
    found = []
    for match in _COUNTED.finditer(header):
        size = int.from_bytes(header[max(0, match.start() - 4) : match.start()], "big")
        if match[0] in kinds and 16 <= size <= len(header):
            at = match.end() + (8 if match[0] in (b"stsz", b"stz2") else 4)  # behind version, flags and, there, a size
            found.append(int.from_bytes(header[at : at + 4], "big"))
    return found
