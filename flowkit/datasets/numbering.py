"""Frame numbers of an annotation as numbers of files, and what is wrong with them: what `flowkit check` would say, said before."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from flowkit.datasets.base import FIRST, LAST, Annotation, Source
from flowkit.datasets.folders import Folder, fold_path
from flowkit.errors import ClipError, FailureCode
from flowkit.inputs.clip import Clip

NAMES: Final = ("onset", "apex", "offset")
MEND: Final = "Correct a copy of the file, and name it with --workbook."
_WHOLE: Final = re.compile(r"([0-9]{1,9})(\.0+)?")


def to_clip(source: Source, annotation: Annotation, folder: Folder | None) -> Clip:
    """The row of the manifest.

    Raises
    ------
    ClipError
        There can be none: `flowkit check` would find the same fault in it.
    """
    if folder is None:
        raise ClipError(FailureCode.FRAME_MISSING, _no_folder(source, annotation))
    onset, apex, offset = _frames(source, annotation, folder)
    if onset is None or offset is None:
        name = "onset" if onset is None else "offset"
        code = FailureCode.ANNOTATION_RANGE if onset is None else FailureCode.OFFSET_MISSING
        raise ClipError(code, _bad_cell(annotation, name))
    if not onset <= (onset if apex is None else apex) <= offset:
        shown = f"onset={onset}, apex={'none' if apex is None else apex}, offset={offset}"
        raise ClipError(
            FailureCode.ANNOTATION_RANGE,
            f"{annotation.where}: apex must lie between onset and offset; got {shown}. {MEND}",
        )
    for name, number in (("onset", onset), ("apex", apex), ("offset", offset)):
        if number is not None:
            _check_frame(annotation.where, name, number, folder)
    return Clip(
        clip_id=annotation.clip_id,
        path=folder.path,
        onset=onset,
        apex=apex,
        offset=offset,
        subject=unicodedata.normalize("NFC", annotation.subject),
        dataset=annotation.dataset,
        label=unicodedata.normalize("NFC", annotation.label),
        fps=float(source.layout.get("fps", "nan")),
        extra=tuple(sorted((name, unicodedata.normalize("NFC", text)) for name, text in annotation.extra.items())),
    )


def impossible(source: Source, annotation: Annotation, folder: Folder | None, name: str) -> bool:
    """Whether a frame number cannot be right: none at all, out of order, or of no frame."""
    numbers = {key: _number(source, getattr(annotation, key)) for key in NAMES}
    value = numbers[name]
    if value is None:
        return True
    others = [value if number is None else number for key, number in numbers.items() if key != name]
    low, high = {"onset": (value, min(others)), "apex": (others[0], others[1]), "offset": (max(others), value)}[name]
    absent = folder is not None and "counted" not in source.layout and not folder.holds(value)
    return absent or not low <= value <= high


def _number(source: Source, text: str) -> int | None:
    """A frame number; None for what is missing or none."""
    match = None if text.casefold() in source.layout["missing"] else _WHOLE.fullmatch(text)
    return int(match[1]) if match else None


def _frames(source: Source, annotation: Annotation, folder: Folder) -> tuple[int | None, int | None, int | None]:
    """Onset, apex and offset as numbers of files; None for one that is missing."""
    numbers: list[int | None] = []
    for name in NAMES:
        text = getattr(annotation, name)
        number = {FIRST: folder.first, LAST: folder.last}.get(text, _number(source, text))
        if number is None and text and text.casefold() not in source.layout["missing"]:
            raise ClipError(FailureCode.ANNOTATION_RANGE, _bad_cell(annotation, name))
        numbers.append(number)
    counted = source.layout.get("counted")
    if counted is not None:
        numbers, how = _named_by_files(numbers, counted, folder)
        if how:
            source.renumbered.setdefault(how, []).append(annotation.clip_id)
    onset, apex, offset = numbers
    return onset, apex, offset


def _named_by_files(numbers: list[int | None], counted: int, folder: Folder) -> tuple[list[int | None], str]:
    """The same frames by the numbers of their files, and what the numbers counted, empty where they are those of files.

    Where neither the clip's own frames nor a recording of which the folder holds just this clip can be meant, the numbers stay:
    they name files that are missing.
    """
    given = [number for number in numbers if number is not None]
    onset, _, offset = numbers
    length = len(folder.numbers)
    if not given or all(folder.holds(number) for number in given):
        return numbers, ""
    if folder.first != counted and counted <= min(given) and max(given) < counted + length:
        start, how = counted, f"their own frames from {counted}, written as the numbers of the files"
    elif onset == min(given) and offset == max(given) and offset - onset + 1 == length:
        start, how = onset, "frames of a recording, moved so that the onset is the first file"
    else:
        return numbers, ""
    return [None if number is None else int(folder.numbers[number - start]) for number in numbers], how


def _check_frame(where: str, name: str, number: int, folder: Folder) -> None:
    """Refuse a number that names no image of a folder, or several."""
    images = folder.holds(number)
    if not images:
        held = f"{len(folder.numbers)} images from {folder.first} to {folder.last}"
        raise ClipError(
            FailureCode.FRAME_MISSING,
            f"{where}: {name} must be a frame of {folder.path}; got {number}, but {held}. Get the missing frames.",
        )
    if images > 1:
        raise ClipError(
            FailureCode.FRAME_AMBIGUOUS,
            f"{where}: {name} must be one image of {folder.path}; got {images} with the number {number}. Remove all but one.",
        )


def _bad_cell(annotation: Annotation, name: str) -> str:
    return f"{annotation.where}: {name} must be a frame number; got {getattr(annotation, name)!r}. {MEND}"


def _no_folder(source: Source, annotation: Annotation) -> str:
    tails = [fold_path(tail) for tail in annotation.folders]
    empty = [path for path in source.folders.empty if any(fold_path(path)[-len(tail) :] == tail for tail in tails)]
    got = f"{empty[0]}, which is empty" if empty else "none"
    wanted = " or ".join(annotation.folders)
    return f"{annotation.where}: frames must lie in a folder {wanted}; got {got}. Get the missing frames."
