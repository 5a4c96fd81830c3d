"""Standard input, output and error as a process finds them: closed, full, cut off, or unable to say a character."""

from __future__ import annotations

import codecs
import io
import os
import sys
from typing import Any, Final, Literal, TextIO

NUMBERS: Final = {"stdin": 0, "stdout": 1, "stderr": 2}


def open_closed() -> None:
    """Open descriptors 0 to 2 on the null device where they are closed.

    The next file that a process opens takes the lowest free number: without this, a warning of a library, which goes to number 2,
    would end up in a shard.
    """
    for number in NUMBERS.values():
        try:
            os.fstat(number)
        except OSError:  # those below are open by now, so this is the number that the system gives
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def secure() -> None:
    """Let neither a closed stream nor a character that it cannot encode end a command; `is_broken` works from now on."""
    open_closed()
    if sys.stdin is None:
        sys.stdin = open(NUMBERS["stdin"], encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout, sys.stderr = (_secured(getattr(sys, name), NUMBERS[name]) for name in ("stdout", "stderr"))


def is_broken(name: Literal["stdout", "stderr"]) -> bool:
    """Return whether a stream could not be written to. What is left of it then goes nowhere, or Python would fail at its end."""
    raw = getattr(getattr(getattr(sys, name), "buffer", None), "raw", None)
    if not (isinstance(raw, _Watched) and raw.failed):
        return False
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, NUMBERS[name])
    os.close(nowhere)
    return True


class _Watched(io.FileIO):
    """A descriptor that remembers that it could not be written to: an OSError does not say which file it is about."""

    failed = False

    def write(self, content: Any, /) -> int:
        try:
            return super().write(content)
        except OSError:
            self.failed = True
            raise


def _secured(stream: TextIO | None, number: int) -> TextIO:
    if stream is None:
        encoding, errors = "utf-8", "backslashreplace"
    elif isinstance(stream, io.TextIOWrapper) and _is_plain(stream):
        encoding, errors = stream.encoding, _never_failing(stream)
        stream.flush()
    else:  # a console of Windows, which knows all characters; or what a test or a notebook put there
        return stream
    raw = _Watched(number, "w", closefd=False)
    lines = number == NUMBERS["stderr"] or raw.isatty()
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, errors, line_buffering=lines)


def _is_plain(stream: io.TextIOWrapper) -> bool:
    """Whether a stream is Python's own, on a descriptor; with PYTHONUNBUFFERED there is no buffer between."""
    return type(getattr(stream.buffer, "raw", stream.buffer)) is io.FileIO


def _never_failing(stream: io.TextIOWrapper) -> str:
    """How to treat what cannot be encoded: a name may be any bytes, and an encoding may know ASCII only."""
    is_utf8 = codecs.lookup(stream.encoding).name == "utf-8"
    if stream.errors == "strict" or (stream.errors == "surrogateescape" and not is_utf8):
        return "backslashreplace"
    return stream.errors or "backslashreplace"
