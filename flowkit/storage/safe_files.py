"""Files that somebody else may have made: opened only if they are regular, read only up to a limit.

Opening a pipe waits for whoever writes into it, a device may have no end, and either may bear any name, `run.json` as well as
`1.png`.
"""

from __future__ import annotations

import csv
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

MAX_JSON_BYTES = 1 << 30
"""Of a record, a plan or a run file; a plan of a million clips has a tenth of that."""


MAX_LINE = 1 << 20
"""Of a table."""
BINARY: int = getattr(os, "O_BINARY", 0)
"""Flag of `os.open` without which Windows changes the ends of lines, and takes byte 26 for the end of a file."""
_NO_WAITING: int = getattr(os, "O_NONBLOCK", 0)
"""Not even a pipe that takes the file's place after it was looked at makes the opening wait. Windows has no pipes in folders."""


class NotRegular(OSError):
    """A folder, a pipe, a device, or more bytes than such a file ever has."""


def regular(path: str, flags: int) -> int:
    """The `opener` of `open` for a file that somebody else may have made.

    Raises
    ------
    NotRegular
    OSError

    Examples
    --------
    >>> with open(__file__, opener=regular) as file:
    ...     line = file.readline()
    """
    mode = Path(path).stat().st_mode
    if not stat.S_ISREG(mode):
        number = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        raise NotRegular(number, "no regular file", str(path))
    return os.open(path, flags | _NO_WAITING)


def read_regular(path: Path, limit: int = MAX_JSON_BYTES) -> bytes:
    """Content of a regular file of at most `limit` bytes.

    Raises
    ------
    NotRegular
    OSError
    """
    with open(path, "rb", opener=regular) as file:
        length = os.fstat(file.fileno()).st_size
        if length > limit:
            raise NotRegular(errno.EINVAL, f"a file of {length} bytes where {limit} are the most", str(path))
        return file.read()


def lines(file: TextIO) -> Iterator[str]:
    """Lines of a table, one after the other.

    Raises
    ------
    csv.Error
        One has more than `MAX_LINE` characters, or no end.
    UnicodeDecodeError
    """
    while line := file.readline(MAX_LINE):
        if len(line) == MAX_LINE and not line.endswith(("\n", "\r")):
            raise csv.Error(f"a line of more than {MAX_LINE} characters")
        yield line


def stays_below(path: Path, folder: Path) -> bool:
    """Whether a file lies in a folder, or below it, when all links are followed."""
    try:
        resolved = path.resolve()
        return resolved.is_relative_to(folder.resolve()) and not resolved.is_symlink()
    except (OSError, RuntimeError):  # links that lead in a circle, before Python 3.13, which gives back the link
        return False
