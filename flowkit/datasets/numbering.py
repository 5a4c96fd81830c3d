"""Frame numbers of an annotation as numbers of files, and what is wrong with them: what `flowkit check` would say, said before."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Final

import numpy as np

from flowkit.datasets.base import CORRECT_A_COPY, FIRST, LAST, Annotation, Unusable
from flowkit.datasets.folders import Folder, fold_path, links_not_followed, what_to_do
from flowkit.datasets.source import Source
from flowkit.inputs.clip import Clip
from flowkit.inputs.frame_numbers import numbered_images

NAMES: Final = ("onset", "apex", "offset")
MOVED: Final = "frames of a recording, moved so that the onset is the first file"
_WHOLE: Final = re.compile(r"([0-9]{1,9})(\.0+)?")
_RATE: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(?:fps|hz)?", re.IGNORECASE)


def to_clip(source: Source, annotation: Annotation, folder: Folder | None) -> Clip:
    """Return the row of the manifest.

    Raises
    ------
    Unusable
        There can be none: `flowkit check` would find the same fault in it.
    """
    if folder is None:
        raise Unusable(*_no_folder(source, annotation))
    onset, apex, offset = _frames(source, annotation, folder)
    if onset is None or offset is None:
        name = "onset" if onset is None else "offset"
        raise Unusable(f"no {name}", _bad_cell(annotation, name))
    if not onset <= (onset if apex is None else apex) <= offset:
        shown = f"onset={onset}, apex={'none' if apex is None else apex}, offset={offset}"
        raise Unusable(
            "frame numbers out of order",
            f"{annotation.where}: apex must lie between onset and offset; got {shown}. {CORRECT_A_COPY}",
        )
    if apex is None and onset == offset:
        raise Unusable(
            "a single frame, in which no apex can be found",
            f"{annotation.where}: offset must be behind the onset where there is no apex; got {onset} for both. {CORRECT_A_COPY}",
        )
    frames = _named(onset, apex, offset)
    absent = [name for name, number in frames if _is_absent(source, annotation, name, number, folder)]
    key_frames = [number for _, number in frames]
    if absent:
        _check_nearest(annotation, key_frames, folder, every=apex is None)
        source.nearest.append(annotation.clip_id)
    _check_links(source, annotation, _read(folder, key_frames, every=apex is None), folder)
    return Clip(
        clip_id=annotation.clip_id,
        path=folder.path,
        onset=onset,
        apex=apex,
        offset=offset,
        subject=unicodedata.normalize("NFC", annotation.subject),
        dataset=annotation.dataset,
        label=unicodedata.normalize("NFC", annotation.label),
        fps=_rate(source, annotation),
        extra=tuple(sorted((name, unicodedata.normalize("NFC", text)) for name, text in annotation.extra.items())),
    )


def impossible(source: Source, annotation: Annotation, folder: Folder | None, name: str) -> bool:
    """Return whether a frame number cannot be right: none at all, out of order, or of no frame."""
    numbers = {key: _number(source, getattr(annotation, key)) for key in NAMES}
    value = numbers[name]
    if value is None:
        return True
    others = [value if number is None else number for key, number in numbers.items() if key != name]
    low, high = {"onset": (value, min(others)), "apex": (others[0], others[1]), "offset": (max(others), value)}[name]
    return lacks(source, annotation, folder, name) or not low <= value <= high


def lacks(source: Source, annotation: Annotation, folder: Folder | None, name: str) -> bool:
    """Return whether a folder surely has no frame for one of an annotation's numbers."""
    value = _number(source, getattr(annotation, name))
    if folder is None or value is None:
        return False
    onset, offset = (_number(source, text) for text in (annotation.onset, annotation.offset))
    counted = source.layout.get("counted")
    if counted is not None and (counted <= value < counted + len(folder.numbers) or _is_whole(onset, offset, folder)):
        return False
    if source.options.renumbered and counted is None and folder.first <= 1:
        return name != "apex" and not _is_whole(onset, offset, folder)
    return not folder.holds(value)


def in_order(source: Source, annotation: Annotation) -> bool:
    """Return whether onset, apex and offset of an annotation follow each other, as far as they are given."""
    given = [number for name in NAMES if (number := _number(source, getattr(annotation, name))) is not None]
    return given == sorted(given)


# --- numbers


def _number(source: Source, text: str) -> int | None:
    """A frame number; None for what is missing or none."""
    text = unicodedata.normalize("NFKC", text)
    match = None if text.casefold() in source.layout["missing"] else _WHOLE.fullmatch(text)
    return int(match[1]) if match else None


def _named(onset: int, apex: int | None, offset: int) -> list[tuple[str, int]]:
    found = {"onset": onset, "apex": apex, "offset": offset}
    return [(name, number) for name, number in found.items() if number is not None]


def _frames(source: Source, annotation: Annotation, folder: Folder) -> tuple[int | None, int | None, int | None]:
    """Onset, apex and offset as numbers of files; None for one that is missing."""
    onset, apex, offset = (_cell(source, annotation, folder, name) for name in NAMES)
    if onset and 0 in (apex, offset):  # before the onset is no apex and no offset: 0 means none
        source.no_number.append(annotation.clip_id)
        apex, offset = apex or None, offset or None
    numbers: list[int | None] = [onset, apex, offset]
    counted, how = source.layout.get("counted"), ""
    if counted is not None:
        numbers, how = _named_by_files(numbers, counted, folder)
    elif source.options.renumbered and annotation.onset != FIRST:
        numbers, how = _from_onset(annotation, numbers, folder)
    if how:
        source.renumbered.setdefault(how, []).append(annotation.clip_id)
    onset, apex, offset = numbers
    return onset, apex, offset


def _cell(source: Source, annotation: Annotation, folder: Folder, name: str) -> int | None:
    text = getattr(annotation, name)
    if text in (FIRST, LAST):
        return folder.first if text == FIRST else folder.last
    number = _number(source, text)
    if number is None and text and unicodedata.normalize("NFKC", text).casefold() not in source.layout["missing"]:
        raise Unusable(f"{name} is no frame number", _bad_cell(annotation, name))
    return number


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
    elif onset == min(given) and offset == max(given) and _is_whole(onset, offset, folder):
        start, how = onset, MOVED
    else:
        return numbers, ""
    return _moved(numbers, start, folder), how


def _from_onset(annotation: Annotation, numbers: list[int | None], folder: Folder) -> tuple[list[int | None], str]:
    """The same frames of a folder that was renumbered: its first image is the onset, its last the offset.

    Raises
    ------
    Unusable
        The folder begins with 0 or 1, and has not one image for each frame from onset to offset.
    """
    onset, apex, offset = numbers
    if annotation.offset == LAST:
        if folder.first == 0:
            return numbers, ""
        raise Unusable(
            "no offset by which renumbered images could be checked",
            f"{annotation.where}: --renumbered: offset must be annotated; got none, and images from {folder.first} on. Add it in a "
            "copy of the file, or leave --renumbered out.",
        )
    if onset is None or offset is None or not onset <= (onset if apex is None else apex) <= offset:
        return numbers, ""  # named as such by whoever checks the order
    if folder.first > 1:
        return numbers, ""  # images with numbers of the recording
    if not _is_whole(onset, offset, folder):
        raise Unusable(
            "not as many images as frames from onset to offset",
            f"{annotation.where}: --renumbered: {folder.path} must have {offset - onset + 1} images, one for each frame from "
            f"{onset} to {offset}; got {len(folder.numbers)}. Get the missing frames, or leave --renumbered out.",
        )
    return (numbers, "") if folder.first == onset else (_moved(numbers, onset, folder), MOVED)


def _is_whole(onset: int | None, offset: int | None, folder: Folder) -> bool:
    """Whether a folder has one image for each frame from onset to offset, and no gap."""
    length = folder.last - folder.first + 1
    return onset is not None and offset is not None and offset - onset + 1 == length == len(folder.numbers)


def _moved(numbers: list[int | None], start: int, folder: Folder) -> list[int | None]:
    return [None if number is None else int(folder.numbers[number - start]) for number in numbers]


def _rate(source: Source, annotation: Annotation) -> float:
    """Frames per second of a clip: its own, else those of the set."""
    usual = float(source.layout.get("fps", "nan"))
    match = _RATE.fullmatch(annotation.fps)
    own = float(match[1]) if match else 0.0
    if annotation.fps and not own:
        source.odd_rates[annotation.clip_id] = annotation.fps
    return own or usual


# --- what is wrong


def _is_absent(source: Source, annotation: Annotation, name: str, number: int, folder: Folder) -> bool:
    """Refuse a number that names no image of a folder, or several; True for none where the nearest is read.

    Nothing is near where no image is of the clip at all, or where all were renumbered.
    """
    where, images = annotation.where, folder.holds(number)
    if images > 1:
        raise Unusable(
            "several images with one number",
            f"{where}: {name} must be one image of {folder.path}; got {images} with the number {number}. Remove all but one.",
        )
    if images:
        return False
    held = f"{len(folder.numbers)} images from {folder.first} to {folder.last}"
    onset, offset = (_number(source, text) for text in (annotation.onset, annotation.offset))
    advice = "Get the missing frames."
    if _is_whole(onset, offset, folder) and folder.first <= 1 and folder.first != onset:
        advice = "There is one per frame from onset to offset: if they were renumbered, pass --renumbered."
    elif onset is not None and offset is not None and _within(folder, onset, offset):
        if source.options.nearest:
            return True
        advice = "Get the missing frames, or pass --nearest to keep the clip with the nearest ones."
    raise Unusable(
        "key frames that are not there",
        f"{where}: {name} must be a frame of {folder.path}; got {number}, but {held}. {advice}",
    )


def _within(folder: Folder, first: int, last: int) -> int:
    """How many images have numbers from the first to the last."""
    return int(np.count_nonzero((folder.numbers >= first) & (folder.numbers <= last)))


def _nearest(folder: Folder, number: int) -> int:
    return int(folder.numbers[np.abs(folder.numbers - number).argmin()])


def _check_nearest(annotation: Annotation, key_frames: Sequence[int], folder: Folder, *, every: bool) -> None:
    """Refuse what no nearest image can take the place of: `flowkit check` would."""
    if every and not _within(folder, key_frames[0] + 1, key_frames[-1]):
        raise Unusable(
            "no image behind the onset, in which an apex could be found",
            f"{annotation.where}: {folder.path} must have images behind the onset; got none to {key_frames[-1]}. Get the missing "
            "frames.",
        )
    doubled = [number for number in (_nearest(folder, key) for key in key_frames) if folder.holds(number) > 1]
    if doubled:
        raise Unusable(
            "several images with one number",
            f"{annotation.where}: the nearest image must be one; got several of {folder.path} with the number {doubled[0]}. Remove "
            "all but one.",
        )


def _read(folder: Folder, key_frames: list[int], *, every: bool) -> list[int]:
    """Numbers of the images that `flowkit check` reads: the nearest ones to the key frames, or all between the first and last."""
    if every:
        return [int(number) for number in folder.numbers if key_frames[0] <= number <= key_frames[-1]]
    return [_nearest(folder, number) for number in key_frames]


def _check_links(source: Source, annotation: Annotation, numbers: list[int], folder: Folder) -> None:
    """Refuse images that are links to nowhere, or out of the root where those are not followed."""
    if not folder.links:
        return
    place, root = source.root / folder.path, source.root.resolve()
    names = numbered_images(place)
    for path in (place / name for number in numbers for name in names.get(number, ())):
        if not path.exists():
            raise Unusable(
                "links to files that are not there",
                f"{annotation.where}: {folder.path}/{path.name} must be an image; got a link to a file that is not there. Get "
                "the file (git annex get, dvc pull), or fix the link.",
            )
        if not source.options.follow_symlinks and not path.resolve().is_relative_to(root):
            raise Unusable(
                "links that lead out of ROOT",
                f"{annotation.where}: {folder.path}/{path.name} must be in {source.root}; got a link that leads out. Pass "
                "--follow-symlinks to follow it.",
            )


def _bad_cell(annotation: Annotation, name: str) -> str:
    return f"{annotation.where}: {name} must be a frame number; got {getattr(annotation, name)!r}. {CORRECT_A_COPY}"


def _no_folder(source: Source, annotation: Annotation) -> tuple[str, str]:
    tails = [fold_path(tail) for tail in annotation.folders]
    empty = [path for path in source.folders.empty if any(fold_path(path)[-len(tail) :] == tail for tail in tails)]
    wanted = f"{annotation.where}: frames must be in a folder {' or '.join(annotation.folders)}; got "
    if empty:
        return (
            "a folder without a numbered image",
            f"{wanted}{empty[0]}, which has no numbered image. Get the missing frames.",
        )
    advice = what_to_do(source.folders) if source.folders.links else "Get the missing frames."
    videos = [
        path for path in source.folders.videos if fold_path(path[: path.rfind(".")])[-1] in {t[-1] for t in tails}
    ]
    if videos:
        advice = f"There is a video, {videos[0]}: convert it into a folder of images."
    return "no folder of frames", f"{wanted}none{links_not_followed(source.folders)}. {advice}"
