"""The manifest: which clips there are.

A manifest is a CSV file with a header, `clip_id, path, onset, apex, offset, subject, dataset, label`; optional `fps` and
`source_hash`; further columns are carried into the shard. This module reads it as a whole (every problem is
listed at once) and writes one.
"""

from __future__ import annotations

import csv
import functools
import io
import itertools
import math
import operator
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from flowkit.errors import ManifestError
from flowkit.inputs.clip import Clip, Draft
from flowkit.listing import MAX_PROBLEMS, problem_lines
from flowkit.storage.durable_files import publish_file, replace_file
from flowkit.storage.row_table import no_garbage_collection
from flowkit.storage.safe_files import MAX_LINE, lines, regular

REQUIRED = ("clip_id", "path", "onset", "apex", "offset", "subject", "dataset", "label")
OPTIONAL = ("fps", "source_hash")
_FILLED = ("clip_id", "path", "subject", "dataset")
_KNOWN = frozenset(REQUIRED + OPTIONAL)
MAX_CARRIED = 16384
"""Most bytes of the further columns of a row: they are stored as one text."""
MAX_DIGITS = 9
"""Longest frame number."""
MAX_TEXT = 512
"""Longest text of a field, in UTF-8 bytes: shards store fixed-length strings."""
_TEXT = f"at most {MAX_TEXT} bytes of text without control characters"
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_PROTOCOL = re.compile("[A-Za-z][A-Za-z0-9+.-]*:")  # and drive letters
_PATTERN = re.compile("%[0-9]*d")


def read_manifest(path: str | Path, *, allow_empty: bool = False) -> list[Clip]:
    """All clips of a manifest, sorted by clip id, so that the order of its rows never matters.

    Parameters
    ----------
    path : str or Path
        A CSV file in UTF-8 (a byte-order mark is fine) with a header.
    allow_empty : bool
        Whether a header alone will do.

    Returns
    -------
    list of Clip

    Raises
    ------
    ManifestError
        Listing every problem of form: missing columns, numbers that are none, duplicate ids, refused paths, no clip.
    """
    path = Path(path)
    problems = _Problems()
    clips: dict[str, Clip] = {}
    try:
        with no_garbage_collection():
            for clip in _rows(path, problems):
                first = clips.setdefault(clip.clip_id, clip)
                if first is not clip:
                    problems.add(
                        f"{path.name}:{clip.line}: clip_id must be unique; got {clip.clip_id!r}, which stands in line {first.line} "
                        "too."
                    )
    except OSError as error:
        raise ManifestError(
            f"{path}: manifest must be a readable CSV file; got {error.strerror}. Check the path."
        ) from error
    except UnicodeDecodeError as error:
        raise ManifestError(
            f"{path.name}:{_undecodable_line(path)}: manifest must be UTF-8; got {error.reason}. Save it as UTF-8."
        ) from error
    if not clips and not problems.count and not allow_empty:
        problems.add(f"{path.name}: manifest must name at least one clip; got none. Add rows.")
    problems.refuse()
    return [clips[name] for name in sorted(clips)]


def write_manifest(path: str | Path, clips: Sequence[Clip], *, overwrite: bool = False) -> None:
    """Store clips as a manifest that `read_manifest` gives back, whole or not at all.

    Parameters
    ----------
    path : str or Path
        In a folder that exists.
    clips : sequence of Clip
        Rows are written in this order; a further column that one clip has, every row has.
    overwrite : bool
        Whether a file that is there is replaced.

    Raises
    ------
    ManifestError
        There is a file already, or a clip could not be read back: every problem is listed. Nothing was written.
    DiskFull
    """
    path = Path(path)
    content = manifest_bytes(clips, path.name)
    if overwrite:
        replace_file(path, content)
    elif not publish_file(path, content):
        raise ManifestError(f"{path}: file must not exist yet; got one. Choose another name, or pass --overwrite.")


def manifest_bytes(clips: Sequence[Clip], name: str, *, allow_empty: bool = False) -> bytes:
    """Return what `write_manifest` writes.

    Parameters
    ----------
    clips : sequence of Clip
    name : str
        What messages call the file.
    allow_empty : bool
        Whether a header alone will do, where there are no clips.

    Raises
    ------
    ManifestError
        A clip could not be read back: every problem is listed.
    """
    further = sorted({column for clip in clips for column, _ in clip.extra})
    columns = [*REQUIRED, *OPTIONAL, *further]
    rows = [dict.fromkeys(columns, "") | _cells(clip) for clip in clips]
    problems = _Problems()
    for row in rows:
        problems.add(*_row_problems(row, f"{name} ({row['clip_id']})"))
    twice = [clip_id for clip_id, count in Counter(row["clip_id"] for row in rows).items() if count > 1]
    problems.add(*(f"{name}: clip_id must be unique; got {clip_id!r} again. Rename one." for clip_id in twice))
    if not rows and not allow_empty:
        problems.add(f"{name}: manifest must name at least one clip; got none. Add clips.")
    problems.refuse()
    columns = [column for column in columns if column not in OPTIONAL or any(row[column] for row in rows)]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _cells(clip: Clip) -> dict[str, str]:
    """The row of a clip, with an empty cell for what is unknown."""
    numbers = {"onset": clip.onset, "apex": clip.apex, "offset": clip.offset}
    return {
        **dict(clip.extra),
        **{name: getattr(clip, name) for name in ("clip_id", "path", "subject", "dataset", "label", "source_hash")},
        **{name: "" if number is None else str(number) for name, number in numbers.items()},
        "fps": "" if math.isnan(clip.fps) else repr(clip.fps).removesuffix(".0"),
    }


class _Problems:
    """What is wrong with a manifest: the first problems in words, the rest only counted, so that memory stays bounded."""

    def __init__(self) -> None:
        self.count = 0
        self._listed: list[str] = []

    def add(self, *problems: str) -> None:
        self.count += len(problems)
        self._listed += problems[: MAX_PROBLEMS - len(self._listed)]

    def refuse(self) -> None:
        """Raise if there is any."""
        if self.count:
            raise ManifestError(problem_lines(self._listed, self.count))


class _Header:
    """Names of a manifest's columns, and where they stand in a row.

    Parameters
    ----------
    names : sequence of str
        At least `REQUIRED`, each once.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self.required = operator.itemgetter(*map(names.index, REQUIRED))
        self.fps, self.source_hash = (names.index(name) if name in names else None for name in OPTIONAL)
        further = sorted((name, place) for place, name in enumerate(names) if name not in _KNOWN)
        self._further = tuple(name for name, _ in further)
        self._cells = operator.itemgetter(*(place for _, place in further)) if further else None
        self._pairs = functools.lru_cache(maxsize=1 << 14)(self._named)  # one for many clips

    def extra(self, cells: Sequence[str]) -> tuple[tuple[str, str], ...]:
        """The further columns of a row as sorted (name, text) pairs."""
        return self._pairs(self._cells(cells)) if self._cells else ()

    def _named(self, texts: str | tuple[str, ...]) -> tuple[tuple[str, str], ...]:
        return tuple(zip(self._further, (texts,) if isinstance(texts, str) else texts, strict=True))


_csv_reader = functools.partial(csv.reader, skipinitialspace=True, strict=True)


def _rows(path: Path, problems: _Problems) -> Iterator[Clip]:
    """The clip of every row that has no problem, in order.

    Nearly all rows are plain: one test of the whole line and a few of its cells say so. Only the others go through the CSV
    parser and a test for each cell that tells what is wrong, which takes longer.
    """
    with open(path, newline="", encoding="utf-8-sig", opener=regular) as file:
        number, rows = 1, lines(file)
        try:
            reader = _csv_reader(rows)
            header = _usable_header([name.strip() for name in next(reader, [])], path, problems)
            number = max(1, reader.line_num)
            if header is None:
                return
            for line in rows:
                number += 1
                text = line.rstrip("\r\n")
                clip = _plain_clip(text, header, number) if _is_plain(text) else None
                if clip is None:
                    reader = _csv_reader(itertools.chain((line,), rows))
                    cells = [cell.strip() for cell in next(reader)]
                    last = number + reader.line_num - 1
                    clip = _checked_clip(cells, header, path, last, problems)
                    number = last
                if clip is not None:
                    yield clip
        except csv.Error as error:
            problems.add(f"{path.name}:{number}: row must be CSV; got {error}. Check the quotes from here on.")


def _usable_header(names: Sequence[str], path: Path, problems: _Problems) -> _Header | None:
    missing = [name for name in REQUIRED if name not in names]
    twice = sorted({name for name in names if names.count(name) > 1})
    if missing:
        problems.add(
            f"{path.name}:1: header must name {', '.join(REQUIRED)}; got {', '.join(names) or 'nothing'}. "
            f"{_header_advice(names, missing)}"
        )
    elif "" in names:
        problems.add(f"{path.name}:1: column names must not be empty; got an empty one. Remove the empty columns.")
    elif twice:
        problems.add(f"{path.name}:1: column names must be unique; got {', '.join(twice)} twice. Rename one.")
    elif any(not _is_text(name) for name in names):
        problems.add(f"{path.name}:1: column names must be {_TEXT}; got {names!r:.200}. Rename them.")
    return None if problems.count else _Header(names)


def _header_advice(names: Sequence[str], missing: Sequence[str]) -> str:
    if len(names) == 1 and re.search("[;\t]", names[0]):
        return "Save the file with commas between its fields."
    lower = {name.lower().replace(" ", "_"): name for name in names}
    renamed = [f"{lower[name]} to {name}" for name in missing if name in lower]
    if renamed:
        return f"Rename {', '.join(renamed)}."
    return f"Add: {', '.join(missing)}."


def _is_plain(text: str) -> bool:
    """Whether a line has no quotes, and every text in it is short, clean and normalised, because the line as a whole is."""
    if not text.isprintable() or '"' in text:
        return False
    if text.isascii():
        return len(text) <= MAX_TEXT
    return len(text.encode()) <= MAX_TEXT and unicodedata.is_normalized("NFC", text)


def _plain_clip(text: str, header: _Header, line: int) -> Clip | None:
    """The clip of a line that needs no CSV parser, or None: a closer look must tell what is wrong with it, if anything is."""
    cells = text.split(",")
    if len(cells) != len(header.names):
        return None
    try:
        return _clip([cell.strip() for cell in cells] if " " in text else cells, header, line)
    except ValueError:
        return None


def _checked_clip(cells: list[str], header: _Header, path: Path, line: int, problems: _Problems) -> Clip | None:
    """The clip of a row, or None after its problems were added; rows without content are none."""
    where = f"{path.name}:{line}"
    if cells and len(cells) != len(header.names):
        problems.add(
            f"{where}: row must have as many fields as the header; got another number. Check commas and quotes."
        )
        return None
    if not any(cells):
        return None  # spreadsheets leave rows of commas behind
    row = dict(zip(header.names, cells, strict=True))
    if found := _row_problems(row, where):
        problems.add(*found)
        return None
    normalised = {name: unicodedata.normalize("NFC", value) for name, value in row.items()}
    normalised["path"] = row["path"]  # as it is on disk: normalising could name another file
    return _clip(list(normalised.values()), header, line)


def _clip(cells: Sequence[str], header: _Header, line: int) -> Clip:
    """The clip of a row whose texts are clean; a ValueError without words if another cell is not as it must be."""
    clip_id, path, onset, apex, offset, subject, dataset, label = header.required(cells)
    if not (clip_id and path and subject and dataset) or path_problem(path):
        raise ValueError
    return Draft(
        clip_id,
        path,
        _frame_number(onset),
        _frame_number(apex) if apex else None,
        _frame_number(offset) if offset else None,
        sys.intern(subject),  # one text for a thousand clips
        sys.intern(dataset),
        sys.intern(label),
        _rate(cells[header.fps]) if header.fps is not None and cells[header.fps] else math.nan,
        cells[header.source_hash].lower() if header.source_hash is not None else "",
        header.extra(cells),
        line,
    ).frozen()


def _undecodable_line(path: Path) -> int:
    with open(path, "rb", opener=regular) as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_LINE), b""), start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return number
    return 0


def _row_problems(cells: dict[str, str], where: str) -> list[str]:
    problems = [
        f"{where}: {name} must not be empty; got an empty cell. Fill it in." for name in _FILLED if not cells[name]
    ]
    for name in ("onset", "apex", "offset"):
        text = cells[name]
        if (text or name == "onset") and not _fits(_frame_number, text):
            empty = "" if name == "onset" else ", or leave it empty if it is not known"
            problems.append(f"{where}: {name} must be a whole number from 0; got {text!r}. Correct the cell{empty}.")
    fps = cells.get("fps")
    if fps and not _fits(_rate, fps):
        problems.append(f"{where}: fps must be a positive number; got {fps!r}. Correct the cell, or leave it empty.")
    if not _is_text("".join(cells.values())):  # nearly every row as a whole is short and clean
        problems += [
            f"{where}: {name} must be {_TEXT}; got {value!r:.60}. Shorten or clean it."
            for name, value in cells.items()
            if not _is_text(value)
        ]
    carried = sum(len(name.encode()) + len(value.encode()) for name, value in cells.items() if name not in REQUIRED)
    if carried > MAX_CARRIED:
        problems.append(
            f"{where}: further columns must hold at most {MAX_CARRIED} bytes together; got {carried}. Leave some out."
        )
    reason = path_problem(cells["path"])
    if reason:
        problems.append(
            f"{where}: path must be relative to the root and stay in it; got {cells['path']!r} ({reason}). Write it relative "
            "to the root, with / between folders."
        )
    return problems


def _is_text(value: str) -> bool:
    return len(value.encode()) <= MAX_TEXT and not _CONTROL.search(value)


def _fits(convert: Callable[[str], float], text: str) -> bool:
    try:
        convert(text)
    except ValueError:
        return False
    return True


@functools.lru_cache(maxsize=1 << 16)
def _frame_number(text: str) -> int:
    digits = text.removesuffix(".0")  # spreadsheets write 8.0 where a column has empty cells
    if len(digits) > MAX_DIGITS or not digits.isascii() or not digits.isdecimal():
        raise ValueError
    return int(digits)


@functools.lru_cache(maxsize=256)  # one number for a thousand clips
def _rate(text: str) -> float:
    rate = float(text)
    if not 0 < rate < 1e6:
        raise ValueError
    return rate


def path_problem(path: str) -> str:
    """Why a manifest path is refused, or an empty string: it may only name something under the root."""
    if not (path[:1] in "~/" or ".." in path or "\\" in path or ":" in path or "%" in path or "\0" in path):
        return ""  # nearly every path: a quick look instead of six careful ones
    if path.startswith(("/", "~")):
        return "absolute"
    if "\\" in path:
        return "backslash"
    if "://" in path or _PROTOCOL.match(path):
        return "a URL or a protocol"
    if _PATTERN.search(path):
        return "a number pattern"
    if ".." in path.split("/"):
        return "leads upwards"
    if "\0" in path:
        return "a NUL character"
    return ""
