"""The public 28 x 28 layout of STSTNet, HTNet and CausalNet, as it is read.

A CSV lists the clips (dataset, sub, filename_o, label). A clip has a picture of its rise, `{sub}_{filename_o} .png`, and in the
layout of both phases one of its fall, `{sub}_{filename_o}_1 .png`: red is u, green v, blue optical strain. Each channel of each
picture was min-max scaled to 0..255, so the grey level of "no motion", the magnitude, and how u compares with v are lost. They are
estimated for each channel of each picture.

Zero is the median by default. On 309 clips of the public files rise and fall should oppose each other: their cosine has a median
of -0.42 with it, against -0.33 with the mode, which holds 4 % of a channel's pixels only and so jumps.

Scale is the standard deviation by default, so that u and v weigh alike. With 127 grey levels for all ("range"), the one pixel that
moved most, often at the border, sets the scale of its channel, and networks learn less.
"""

from __future__ import annotations

import csv
import difflib
import io
import re
import struct
import unicodedata
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from flowkit.errors import ClipError, FailureCode, ManifestError
from flowkit.inputs.clip import Clip
from flowkit.inputs.manifest import MAX_TEXT
from flowkit.listing import problem_lines
from flowkit.storage.safe_files import lines, regular

Zero = Literal["mode", "median"]
Scale = Literal["spread", "range"]
Layout = Literal["both phases", "rise only"]
LIST_FILE: Final = "combined_3_class2_for_optical_flow.csv"
PICTURE_FOLDERS: Final = ("datasets/STSNet_whole_norm_u_v_os", "STSNet_whole_norm_u_v_os", ".")
COLUMNS: Final = ("dataset", "sub", "filename_o", "label")
LABELS: Final = {"0": "negative", "1": "positive", "2": "surprise"}
DATASETS: Final = {"casme2": "casme2", "casmeii": "casme2", "smic": "smic-hs", "smichs": "smic-hs", "samm": "samm"}
"""By name in lower case, without blanks, hyphens and underscores."""
SIDE: Final = 28
GREY_LEVELS: Final = 127
"""Grey levels that make one unit of the stored flow with the scale "range"."""
MAX_FILE_BYTES: Final = 1 << 20
SUFFIXES: Final = (" .png", "_1 .png", "_2 .png", "_3 .png")
"""Rise, fall, and the direction maps of both, which are not read."""
_UNSAFE = re.compile(r"[/\\\x00-\x1f\x7f-\x9f]")
_DAMAGE = (OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error)
"""What Pillow raises on damaged PNG files."""


# --- what is there


@dataclass(frozen=True, slots=True)
class StstFolder:
    """A folder in the layout: its list of clips, and which pictures there are."""

    root: Path
    list_file: Path
    pictures: Path
    clips: tuple[Clip, ...]
    layout: Layout
    extra_pictures: int

    @classmethod
    def find(cls, root: Path, list_file: Path | None, pictures: Path | None) -> StstFolder:
        """Find list and pictures of a folder, where they are not named, and read the list.

        Raises
        ------
        ManifestError
        """
        if not root.is_dir():
            raise ManifestError(f"{root}: DIR must be a folder; got none there. Check the path.")
        list_file = list_file or _find_list(root)
        clips = tuple(_read_list(list_file))
        pictures = pictures or _find_pictures(root)
        there = {path.name for path in pictures.glob("[!.]*.png")}
        rises = {clip.path + SUFFIXES[0] for clip in clips}
        falls = {clip.path + SUFFIXES[1] for clip in clips} - rises
        known = {clip.path + suffix for clip in clips for suffix in SUFFIXES}
        layout: Layout = "both phases" if falls & there else "rise only"
        return cls(root, list_file, pictures, clips, layout, len(there - known))


def _find_list(root: Path) -> Path:
    found = sorted(root.glob("[!.]*.csv"))
    named = [path for path in found if path.name == LIST_FILE]
    if len(named or found) == 1:
        return (named or found)[0]
    names = ", ".join(path.name for path in found) or "none"
    raise ManifestError(
        f"{root}: folder must hold the list of clips, {LIST_FILE} or one CSV file alone; got {names}. Name it with --csv."
    )


def _find_pictures(root: Path) -> Path:
    for name in PICTURE_FOLDERS:
        if any((root / name).glob("[!.]*.png")):
            return root / name
    raise ManifestError(
        f"{root}: pictures must lie in {', '.join(PICTURE_FOLDERS[:-1])} or in the folder itself; got no PNG file there. Name "
        "their folder with --pictures."
    )


def _read_list(path: Path) -> list[Clip]:
    """Every clip of the list, sorted by id; `path` of a clip is the common beginning of its pictures' names."""
    problems: list[str] = []
    by_picture: dict[str, Clip] = {}
    try:
        for clip in list_rows(path, problems):
            first = by_picture.setdefault(clip.path, clip)
            if first is not clip:
                problems.append(
                    f"{path.name}:{clip.line}: sub and filename_o must name another clip than every other row; got those of line "
                    f"{first.line} ({first.clip_id}). Remove one of the two."
                )
    except OSError as error:
        raise ManifestError(f"{path}: list must be a readable CSV file; got {error.strerror}. Check it.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ManifestError(f"{path}: list must be CSV in UTF-8; got {error}. Save it as such.") from error
    if not by_picture and not problems:
        problems.append(f"{path}: list must name at least one clip; got none. Add rows.")
    if problems:
        raise ManifestError(problem_lines(problems))
    return sorted(by_picture.values(), key=lambda clip: clip.clip_id)


def list_rows(path: Path, problems: list[str]) -> Iterator[Clip]:
    """Yield the clip of each row that has no problem; add the problems of the others."""
    with open(path, newline="", encoding="utf-8-sig", opener=regular) as file:
        reader = csv.DictReader(lines(file), skipinitialspace=True, strict=True)
        header = [name.strip() for name in reader.fieldnames or []]
        if missing := [name for name in COLUMNS if name not in header]:
            problems.append(_header_problem(path, header, missing))
            return
        reader.fieldnames = header
        for row in reader:
            if None in row or None in row.values():
                problems.append(
                    f"{path.name}:{reader.line_num}: row must have as many fields as the header; got another number. Check commas "
                    "and quotes."
                )
                continue
            cells = {name: value.strip() for name, value in row.items() if name}
            if any(cells.values()):
                found = list(_row_problems(cells, f"{path.name}:{reader.line_num}"))
                problems.extend(found)
                if not found:
                    yield _clip(cells, reader.line_num)


def _header_problem(path: Path, header: Sequence[str], missing: Sequence[str]) -> str:
    plain = {name.casefold().replace(" ", "_"): name for name in header}
    near = {name: difflib.get_close_matches(name, plain, 1, 0.7) for name in missing}
    advice = [f"rename {plain[found[0]]!r} to {name}" if found else f"add {name}" for name, found in near.items()]
    return (
        f"{path.name}:1: header must name {', '.join(COLUMNS)}; got {', '.join(header) or 'nothing'}. In it, "
        f"{', '.join(advice)}."
    )


def _row_problems(cells: Mapping[str, str], where: str) -> Iterator[str]:
    for name in ("sub", "filename_o"):
        if not cells[name] or _UNSAFE.search(cells[name]) or len(cells[name].encode()) > MAX_TEXT // 4:
            yield (
                f"{where}: {name} must be a short name without slashes and control characters; got {cells[name]!r:.80}. "
                "Correct the cell."
            )
    if _plain(cells["dataset"]) not in DATASETS:
        known = ", ".join(dict.fromkeys(DATASETS.values()))
        yield f"{where}: dataset must be one of {known}; got {cells['dataset']!r:.80}. Correct the cell, or remove the row."
    if cells["label"] not in LABELS:
        known = ", ".join(f"{number} ({word})" for number, word in LABELS.items())
        yield f"{where}: label must be one of {known}; got {cells['label']!r:.80}. Correct the cell, or remove the row."
    if sum(map(len, cells.values())) > MAX_TEXT * 4:
        yield f"{where}: row must hold at most {MAX_TEXT * 4} characters; got more. Shorten its further columns."


def _plain(name: str) -> str:
    return re.sub("[ _-]", "", name.casefold())


def _clip(cells: Mapping[str, str], line: int) -> Clip:
    dataset = DATASETS[_plain(cells["dataset"])]
    subject, name = (unicodedata.normalize("NFC", cells[column]) for column in ("sub", "filename_o"))
    return Clip(
        clip_id=f"{dataset}/{subject}/{name}",
        path=f"{cells['sub']}_{cells['filename_o']}",
        onset=-1,
        apex=None,
        offset=None,
        subject=subject,
        dataset=dataset,
        label=LABELS[cells["label"]],
        extra=tuple(sorted((name, value) for name, value in cells.items() if name not in COLUMNS and value)),
        line=line,
    )


def read_file(clip: Clip, source: StstFolder, suffix: str) -> tuple[str, bytes]:
    """Name and content of a clip's picture."""
    name = clip.path + suffix
    path = source.pictures / name
    if not path.is_file():
        raise _failed(FailureCode.FRAME_MISSING, name, "picture must be there", "none", "Restore it")
    homes = (source.root.resolve(), source.pictures.resolve())
    if not any(path.resolve().is_relative_to(home) for home in homes):
        raise _failed(FailureCode.PATH_REFUSED, name, "picture must lie in DIR", "a link that leads out", "Copy it")
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        reason = error.strerror or str(error)
        raise _failed(FailureCode.IMAGE_UNREADABLE, name, "picture must be readable", reason, "Restore it") from error
    if len(content) > MAX_FILE_BYTES:
        limit = f"file must be at most {MAX_FILE_BYTES} bytes"
        raise _failed(FailureCode.IMAGE_TOO_LARGE, name, limit, "more", "Restore it")
    return name, content


def decode(content: bytes, name: str) -> npt.NDArray[np.float32]:
    """(28, 28, 3): u, v, strain as grey levels."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the size is looked at before decoding
            with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
                if image.size != (SIDE, SIDE):
                    size = "{} x {}".format(*image.size)
                    wanted = f"picture must be {SIDE} x {SIDE} pixels"
                    raise _failed(FailureCode.SIZE_MISMATCH, name, wanted, size, "Restore the original")
                if image.mode != "RGB":
                    wanted = "picture must have the mode RGB"
                    raise _failed(FailureCode.IMAGE_UNREADABLE, name, wanted, image.mode, "Restore the original")
                return np.asarray(image, np.float32)
    except (*_DAMAGE, Image.DecompressionBombError) as error:
        reason = f"{len(content)} bytes that are none ({error})"
        raise _failed(FailureCode.IMAGE_UNREADABLE, name, "picture must be a PNG file", reason, "Restore it") from error


def zero_of(picture: npt.NDArray[np.float32], how: str) -> npt.NDArray[np.float32]:
    """(2,): the grey level of no motion in u and v; of several equally frequent ones the lowest."""
    channels = picture[..., :2].reshape(-1, 2)
    if how == "median":
        return np.median(channels, axis=0).astype(np.float32)
    return np.array([np.bincount(channel.astype(int)).argmax() for channel in channels.T], np.float32)


def scale_of(picture: npt.NDArray[np.float32], how: str) -> npt.NDArray[np.float32]:
    """(2,): the grey levels that make one unit of u and of v."""
    if how == "range":
        return np.full(2, GREY_LEVELS, np.float32)
    spread = picture[..., :2].reshape(-1, 2).astype(np.float64).std(axis=0)
    return np.where(spread > 0, spread, 1).astype(np.float32)  # one grey level alone is its own zero: nothing moves


def _failed(code: FailureCode, name: str, expectation: str, got: str, step: str) -> ClipError:
    return ClipError(code, f"{name}: {expectation}; got {got}. {step}, then import again with --retry-failed.", name)
