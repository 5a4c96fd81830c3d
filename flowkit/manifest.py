"""The manifest: which clips there are, and which three frames of each matter.

A manifest is a CSV file with a header, `clip_id, path, onset, apex, offset, subject, dataset, label`; optional `fps` and
`source_hash`; further columns are carried into the shard. This module reads it as a whole (every problem is
listed at once), writes one, and turns one row into its three key frames (a problem there is a failure of that clip alone).
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from flowkit.commit import publish_file, replace_file
from flowkit.errors import ClipError, FailureCode, ManifestError

REQUIRED = ("clip_id", "path", "onset", "apex", "offset", "subject", "dataset", "label")
OPTIONAL = ("fps", "source_hash")
_FILLED = ("clip_id", "path", "subject", "dataset")
_KNOWN = frozenset(REQUIRED + OPTIONAL)
MAX_LISTED = 20
"""Problems printed before the rest is only counted."""
MAX_CARRIED = 16384
"""Most bytes of the further columns of a row: they are stored as one text."""
MAX_TEXT = 512
"""Longest text of a field, in UTF-8 bytes: shards store fixed-length strings."""

_TEXT = f"at most {MAX_TEXT} bytes of text without control characters"
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_NUMBER = re.compile(r"([0-9]{1,9})(\.0)?")  # spreadsheets write 8.0 where a column has empty cells
_PROTOCOL = re.compile("[A-Za-z][A-Za-z0-9+.-]*:")  # and drive letters
_PATTERN = re.compile("%[0-9]*d")

ApexSource = Literal["annotated", "midpoint", "offset"]


@dataclass(frozen=True, slots=True)
class Clip:
    """One row of the manifest.

    Frame numbers are those in the file names (folder of frames) or count from `frames.index_base` (video); `apex` and
    `offset` are None where the cell is empty. `extra` holds the further columns as sorted (name, text) pairs.
    """

    clip_id: str
    path: str
    onset: int
    apex: int | None
    offset: int | None
    subject: str
    dataset: str
    label: str
    fps: float = math.nan
    source_hash: str = ""
    extra: tuple[tuple[str, str], ...] = ()
    line: int = 0

    @property
    def where(self) -> str:
        """How messages name this clip."""
        return f"line {self.line} ({self.clip_id})" if self.line else self.clip_id

    def row_hash(self) -> str:
        """16 hex digits over everything in the row but its place in the file."""
        fields = [
            self.clip_id,
            self.path,
            self.onset,
            self.apex,
            self.offset,
            self.subject,
            self.dataset,
            self.label,
        ]
        fields += ["" if math.isnan(self.fps) else repr(self.fps), self.source_hash, self.extra]
        return hashlib.sha256(json.dumps(fields, ensure_ascii=False).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class KeyFrames:
    """The frame numbers that will be read, and what they mean.

    `phase_valid` is (rise, fall): False where the phase has no length, or its frame is missing under
    `missing_offset="invalid"`; `offset` is then None or the number that made it so.
    """

    onset: int
    apex: int
    offset: int | None
    apex_source: ApexSource
    phase_valid: tuple[bool, bool]


def key_frames(
    clip: Clip,
    missing_apex: str = "fail",
    missing_offset: str = "fail",
    strict_phases: bool = False,
) -> KeyFrames:
    """Onset, apex and offset of a clip after the declared policies.

    Parameters
    ----------
    clip : Clip
    missing_apex : {"fail", "midpoint", "offset"}
        What an empty apex means.
    missing_offset : {"fail", "invalid"}
        What an empty offset means.
    strict_phases : bool
        Whether a phase of no length fails the clip.

    Returns
    -------
    KeyFrames

    Raises
    ------
    ClipError
        ANNOTATION_RANGE, APEX_MISSING, OFFSET_MISSING or PHASE_INVALID.
    """
    if clip.offset is None and missing_offset == "fail":
        raise ClipError(
            FailureCode.OFFSET_MISSING,
            f"{clip.where}: offset must be a frame number; got an empty cell. Fill it in, or extract into a new --out with "
            "--missing-offset invalid.",
        )
    apex, source = _apex(clip, missing_apex)
    end = apex if clip.offset is None else clip.offset
    if not clip.onset <= apex <= end:
        raise ClipError(
            FailureCode.ANNOTATION_RANGE,
            f"{clip.where}: apex must lie between onset and offset; got onset={clip.onset}, apex={apex}, "
            f"offset={clip.offset}. Correct the manifest.",
        )
    valid = (apex > clip.onset, clip.offset is not None and clip.offset > apex)
    if strict_phases and not all(valid):
        phase = "rise" if not valid[0] else "fall"
        raise ClipError(
            FailureCode.PHASE_INVALID,
            f"{clip.where}: {phase} must have a length under --strict-phases; got onset={clip.onset}, apex={apex}, "
            f"offset={clip.offset}. Correct the manifest, or leave the flag out.",
        )
    return KeyFrames(clip.onset, apex, clip.offset, source, valid)


def _apex(clip: Clip, missing_apex: str) -> tuple[int, ApexSource]:
    if clip.apex is not None:
        return clip.apex, "annotated"
    if missing_apex == "fail" or clip.offset is None:
        raise ClipError(
            FailureCode.APEX_MISSING,
            f"{clip.where}: apex must be a frame number; got an empty cell. Fill it in, or extract into a new --out with "
            "--missing-apex midpoint or offset (both need an offset).",
        )
    if missing_apex == "offset":
        return clip.offset, "offset"
    return (clip.onset + clip.offset) // 2, "midpoint"


def read_manifest(path: str | Path) -> list[Clip]:
    """All clips of a manifest, sorted by clip id, so that the order of its rows never matters.

    Parameters
    ----------
    path : str or Path
        A CSV file in UTF-8 (a byte-order mark is fine) with a header.

    Returns
    -------
    list of Clip

    Raises
    ------
    ManifestError
        Listing every problem of form: missing columns, numbers that are none, duplicate ids, refused paths, no clip.
    """
    path = Path(path)
    problems: list[str] = []
    clips: dict[str, Clip] = {}
    try:
        for clip in _rows(path, problems):
            first = clips.setdefault(clip.clip_id, clip)
            if first is not clip:
                problems.append(
                    f"{path.name}:{clip.line}: clip_id must be unique; got {clip.clip_id!r}, which stands in line {first.line} too."
                )
    except OSError as error:
        raise ManifestError(
            f"{path}: manifest must be a readable CSV file; got {error.strerror}. Check the path."
        ) from error
    except UnicodeDecodeError as error:
        raise ManifestError(
            f"{path.name}:{_undecodable_line(path)}: manifest must be UTF-8; got {error.reason}. Save it as UTF-8."
        ) from error
    if not clips and not problems:
        problems.append(f"{path.name}: manifest must name at least one clip; got none. Add rows.")
    _refuse(problems)
    return sorted(clips.values(), key=lambda clip: clip.clip_id)


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
    further = sorted({name for clip in clips for name, _ in clip.extra})
    columns = [*REQUIRED, *OPTIONAL, *further]
    rows = [dict.fromkeys(columns, "") | _cells(clip) for clip in clips]
    problems = [problem for row in rows for problem in _row_problems(row, f"{path.name} ({row['clip_id']})")]
    twice = [name for name, count in Counter(row["clip_id"] for row in rows).items() if count > 1]
    problems += [f"{path.name}: clip_id must be unique; got {name!r} again. Rename one." for name in twice]
    if not rows:
        problems.append(f"{path.name}: manifest must name at least one clip; got none. Add clips.")
    _refuse(problems)
    columns = [name for name in columns if name not in OPTIONAL or any(row[name] for row in rows)]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    content = text.getvalue().encode()
    if overwrite:
        replace_file(path, content)
    elif not publish_file(path, content):
        raise ManifestError(f"{path}: file must not exist yet; got one. Choose another name, or pass --overwrite.")


def _cells(clip: Clip) -> dict[str, str]:
    """The row of a clip, with an empty cell for what is unknown."""
    numbers = {"onset": clip.onset, "apex": clip.apex, "offset": clip.offset}
    return {
        **dict(clip.extra),
        **{name: getattr(clip, name) for name in ("clip_id", "path", "subject", "dataset", "label", "source_hash")},
        **{name: "" if number is None else str(number) for name, number in numbers.items()},
        "fps": ""
        if math.isnan(clip.fps)
        else f"{clip.fps:g}"
        if float(f"{clip.fps:g}") == clip.fps
        else repr(clip.fps),
    }


def _refuse(problems: Sequence[str]) -> None:
    if problems:
        shown = "\n".join(problems[:MAX_LISTED])
        more = f"\n... and {len(problems) - MAX_LISTED} more." if len(problems) > MAX_LISTED else ""
        raise ManifestError(shown + more)


def _rows(path: Path, problems: list[str]) -> Iterator[Clip]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, skipinitialspace=True, strict=True)
        try:
            if _usable_header(reader, path, problems):
                yield from _read_rows(reader, path, problems)
        except csv.Error as error:
            problems.append(
                f"{path.name}:{reader.line_num + 1}: row must be CSV; got {error}. Check the quotes from here on."
            )


def _usable_header(reader: csv.DictReader[str], path: Path, problems: list[str]) -> bool:
    header = [name.strip() for name in reader.fieldnames or []]
    missing = [name for name in REQUIRED if name not in header]
    twice = sorted({name for name in header if header.count(name) > 1})
    if missing:
        problems.append(
            f"{path.name}:1: header must name {', '.join(REQUIRED)}; got {', '.join(header) or 'nothing'}. "
            f"{_header_advice(header, missing)}"
        )
    elif "" in header:
        problems.append(f"{path.name}:1: column names must not be empty; got an empty one. Remove the empty columns.")
    elif twice:
        problems.append(f"{path.name}:1: column names must be unique; got {', '.join(twice)} twice. Rename one.")
    elif any(not _is_text(name) for name in header):
        problems.append(f"{path.name}:1: column names must be {_TEXT}; got {header!r:.200}. Rename them.")
    reader.fieldnames = header
    return not problems


def _header_advice(header: list[str], missing: list[str]) -> str:
    if len(header) == 1 and re.search("[;\t]", header[0]):
        return "Save the file with commas between its fields."
    lower = {name.lower().replace(" ", "_"): name for name in header}
    renamed = [f"{lower[name]} to {name}" for name in missing if name in lower]
    if renamed:
        return f"Rename {', '.join(renamed)}."
    return f"Add: {', '.join(missing)}."


def _read_rows(reader: csv.DictReader[str], path: Path, problems: list[str]) -> Iterator[Clip]:
    for row in reader:
        where = f"{path.name}:{reader.line_num}"
        if None in row or None in row.values():
            problems.append(
                f"{where}: row must have as many fields as the header; got another number. Check commas and quotes."
            )
            continue
        cells = {name: value.strip() for name, value in row.items()}
        if not any(cells.values()):
            continue  # spreadsheets leave rows of commas behind
        found = _row_problems(cells, where)
        if found:
            problems.extend(found)
        else:
            yield _clip(cells, reader.line_num)


def _undecodable_line(path: Path) -> int:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
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
        if (text or name == "onset") and not _NUMBER.fullmatch(text):
            empty = "" if name == "onset" else ", or leave it empty if it is not known"
            problems.append(f"{where}: {name} must be a whole number from 0; got {text!r}. Correct the cell{empty}.")
    fps = cells.get("fps")
    if fps and not _is_rate(fps):
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
            "to --root, with / between folders."
        )
    return problems


def _is_text(value: str) -> bool:
    return len(value.encode()) <= MAX_TEXT and not _CONTROL.search(value)


def _is_rate(text: str) -> bool:
    try:
        return 0 < float(text) < 1e6
    except ValueError:
        return False


def path_problem(path: str) -> str:
    """Why a manifest path is refused, or an empty string: it may only name something under the root."""
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


def _clip(cells: dict[str, str], line: int) -> Clip:
    text = {name: unicodedata.normalize("NFC", value) for name, value in cells.items()}
    return Clip(
        clip_id=text["clip_id"],
        path=cells["path"],  # as it is on disk: normalising could name another file
        onset=int(float(text["onset"])),
        apex=int(float(text["apex"])) if text["apex"] else None,
        offset=int(float(text["offset"])) if text["offset"] else None,
        subject=text["subject"],
        dataset=text["dataset"],
        label=text["label"],
        fps=float(text["fps"]) if text.get("fps") else math.nan,
        source_hash=text.get("source_hash", "").lower(),
        extra=tuple(sorted(item for item in text.items() if item[0] not in _KNOWN)),
        line=line,
    )
