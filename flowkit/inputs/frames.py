"""The three key frames of a clip, or all those from its onset on, read from a folder of images or a video, and verified."""

from __future__ import annotations

import dataclasses
import math
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from flowkit.config import FrameConfig
from flowkit.errors import ClipError, FailureCode
from flowkit.inputs.beside import GreyBeside, by_distance, numbers_beside, reaches
from flowkit.inputs.clip import Clip
from flowkit.inputs.frame_numbers import choose_number, images_by_number
from flowkit.inputs.images import Picture, decode_image, full_scale, grey, rgb, without_colour
from flowkit.inputs.key_frames import KeyFrames, key_frames
from flowkit.inputs.manifest import path_problem
from flowkit.inputs.source_files import file_hash, on_disk, read_image, resolve_below, status_of, unchanged, verify_hash
from flowkit.inputs.videos import Recordings, Reel, footage_of

FAR = 300
"""Number of a frame of a video from which on it matters that all before it were decoded."""

Grey = npt.NDArray[np.float32]
_Read = tuple["Source", list[Picture], list[dict[int, Picture]]]
"""Where a clip came from, its three key frames, and the frames beside each, by distance."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a clip came from: everything known of it but its pixels.

    Attributes
    ----------
    clip : Clip
    key : KeyFrames
        The numbers that were read: with `frames.nearest`, those of the frames taken instead.
    fps : float
        Frames per second: the manifest's, else the video's, else NaN.
    source_hash : str
        32 hex digits (xxh3-128) over the bytes of the files read: the three images in order (the apex once more where the
        offset is missing), or the video.
    rotated : bool
        Whether EXIF or video metadata asked for a rotation or mirroring, which was applied.
    substituted : bool
        Whether a missing frame was replaced by the nearest (`frames.nearest`).
    neighbours_hash : str
        The same over the files of the frames beside the key frames; empty where none was read, and for a video, whose hash covers
        them.
    neighbours_lost : bool
        Whether a frame beside a key frame is there and could not be used: unreadable, or of another size.
    decoded_from_first : str
        Why many frames before the clip had to be decoded; empty where they had not.
    """

    clip: Clip
    key: KeyFrames
    fps: float
    source_hash: str
    rotated: bool
    substituted: bool
    neighbours_hash: str = ""
    neighbours_lost: bool = False
    decoded_from_first: str = ""


def verify_neighbours(source: Source, content_hash: str) -> None:
    """Refuse frames beside the key frames that are not those of a content hash.

    Raises
    ------
    ClipError
        SOURCE_CHECKSUM.
    """
    if source.neighbours_hash != content_hash:
        path = source.clip.path
        raise ClipError(
            FailureCode.SOURCE_CHECKSUM,
            f"{path}: frames beside the key frames must be those of the extraction, hash {content_hash or 'none'}; got "
            f"{source.neighbours_hash or 'none'}. Restore the files.",
            path,
        )


def slow_video_note(path: str, reason: str) -> str:
    """Return what a run says of the first video whose index cannot be trusted."""
    return (
        f"Note: {path}: where its frames lie is not certain ({reason}), so each worker decodes it from the first frame on, and so "
        "others like it. Convert long ones to be faster: ffmpeg -i IN -c:v libx264 -crf 0 OUT.mp4."
    )


@dataclass(frozen=True, slots=True)
class Frames:
    """Onset, apex and offset of one clip, as read.

    Attributes
    ----------
    source : Source
    grey : tuple of three (H, W) float32 in [0, 1]
        Luma (BT.601) of onset, apex, offset; sizes may differ; the apex once more where the offset is missing.
    onset_rgb : (H, W, 3) uint8
        What a face detector looks at.
    beside : tuple of three mappings of int to (H, W) float32
        Frames beside onset, apex and offset, of their size, by their distance: -1 is the frame before. See `frames.average`.
    """

    source: Source
    grey: tuple[Grey, Grey, Grey]
    onset_rgb: npt.NDArray[np.uint8]
    beside: tuple[Mapping[int, Grey], Mapping[int, Grey], Mapping[int, Grey]] = ({}, {}, {})


def read_frames(
    clip: Clip, root: Path, config: FrameConfig, spotted: int | None = None, recordings: Recordings | None = None
) -> Frames:
    """Onset, apex and offset of a clip.

    Parameters
    ----------
    clip : Clip
        Its path names a folder of images, whose numbers are those of `frame_numbers`, or a video, whose frames count from
        `frames.index_base`. Hidden files, other files and sub-folders of a folder are ignored.
    root : Path
        The folder that the path starts from and may not leave.
    config : FrameConfig
    spotted : int, optional
        The apex that `spotting.spot` found, for a clip without one.
    recordings : Recordings, optional
        Keeps a video open between clips; the caller closes it.

    Returns
    -------
    Frames

    Raises
    ------
    ClipError
        FRAME_MISSING, FRAME_AMBIGUOUS, PATH_REFUSED, SOURCE_CHANGED, SOURCE_CHECKSUM, any IMAGE_ or VIDEO_ code, or what
        `key_frames.key_frames` raises.
    """
    key = _key(clip, config, spotted)
    path = resolve_below(on_disk(root, clip.path), clip.path, root, config, path_problem(clip.path))
    is_folder = stat.S_ISDIR(status_of(path, clip.path, FailureCode.IMAGE_UNREADABLE).st_mode)
    if is_folder:
        source, pictures, beside = _from_folder(clip, key, path, root, config)
    else:
        with _kept_or_new(recordings) as kept:
            source, pictures, beside = _from_video(clip, key, path, config, kept)
    full = full_scale(pictures, config.bit_depth, clip.path)
    onset, apex, offset = (grey(picture, full) for picture in pictures)
    by_onset, by_apex, by_offset = (GreyBeside(near, full) for near in beside)
    return Frames(source, (onset, apex, offset), rgb(pictures[0], full), (by_onset, by_apex, by_offset))


@dataclass(frozen=True, slots=True)
class Sequence:
    """The frames of a clip from its onset to its offset, or to the last there is.

    Attributes
    ----------
    onset : int
        Its number; with `frames.nearest`, that of the frame taken instead.
    onset_grey : (H, W) float32 in [0, 1]
    onset_rgb : (H, W, 3) uint8
    fps : float
        Frames per second: the manifest's, else the video's, else NaN.
    later : callable
        Given a function of a grey frame, (H, W) float32, maps the number of each later frame to what the function makes of it.
        Call it once, while the sequence is open. A folder's frames are read when they are asked for, so one that nobody asks for
        may be damaged; a video's are decoded in one pass, at once. Raises what `read_frames` raises for a frame, and SIZE_MISMATCH
        where a frame has not the onset's size.
    """

    onset: int
    onset_grey: Grey
    onset_rgb: npt.NDArray[np.uint8]
    fps: float
    later: Callable[[Callable[[Grey], Any]], Mapping[int, Any]]


@contextmanager
def _kept_or_new(recordings: Recordings | None) -> Iterator[Recordings]:
    """Those of the caller, or some that are closed afterwards."""
    if recordings is not None:
        yield recordings
        return
    with closing(Recordings()) as own:
        yield own


@contextmanager
def open_sequence(
    clip: Clip, root: Path, config: FrameConfig, recordings: Recordings | None = None
) -> Iterator[Sequence]:
    """The frames of a clip, from its onset on; arguments and errors as of `read_frames`."""
    if clip.offset is not None and clip.offset < clip.onset:
        raise ClipError(
            FailureCode.ANNOTATION_RANGE,
            f"{clip.where}: offset must not lie before the onset; got onset={clip.onset}, offset={clip.offset}. Correct the "
            "manifest.",
        )
    path = resolve_below(on_disk(root, clip.path), clip.path, root, config, path_problem(clip.path))
    if stat.S_ISDIR(status_of(path, clip.path, FailureCode.IMAGE_UNREADABLE).st_mode):
        yield _folder_sequence(clip, path, root, config)
        return
    _check_first(clip, config)
    with (
        unchanged(path, clip.path, FailureCode.VIDEO_UNREADABLE) as status,
        _kept_or_new(recordings) as kept,
        kept.reel(path, clip.path, *status) as reel,
    ):
        yield _video_sequence(clip, reel, config)


def nothing_to_search(clip: Clip) -> ClipError:
    """The failure of a clip whose apex is to be found and that has no frame behind its onset."""
    return ClipError(
        FailureCode.APEX_MISSING,
        f"{clip.where}: clip must have frames behind its onset for an apex to be found; got none up to "
        f"{'its end' if clip.offset is None else clip.offset}. Correct onset and offset.",
        clip.path,
    )


def _folder_sequence(clip: Clip, folder: Path, root: Path, config: FrameConfig) -> Sequence:
    files = images_by_number(folder, clip.path)
    onset = choose_number(clip.onset, files, clip.path, config.nearest)

    def picture(number: int) -> Picture:
        name, content = read_image(folder, files[number], clip.path, root, config)
        return decode_image(content, name)

    first = picture(onset)
    end = max(files) if clip.offset is None else clip.offset
    numbers = [number for number in files if onset < number <= end]

    def later(carry: Callable[[Grey], Any]) -> Mapping[int, Any]:
        return _OnDemand(numbers, lambda number: carry(_like(first, picture(number), number, clip, config)))

    full = full_scale([first], config.bit_depth, clip.path)
    return Sequence(onset, grey(first, full), rgb(first, full), clip.fps, later)


def _video_sequence(clip: Clip, reel: Reel, config: FrameConfig) -> Sequence:
    base = config.index_base
    begin, end = clip.onset - base, None if clip.offset is None else clip.offset - base
    pictures = reel.pictures(range(begin, sys.maxsize if end is None else end + 1), end)
    _, first = next(pictures, (0, None))
    if first is None:
        raise ClipError(
            FailureCode.FRAME_MISSING,
            f"{clip.where}: onset must be a frame of the video; got {clip.onset}, behind its end. Correct the manifest or "
            "frames.index_base.",
            clip.path,
        )

    def later(carry: Callable[[Grey], Any]) -> Mapping[int, Any]:
        return {base + number: carry(_like(first, one, base + number, clip, config)) for number, one in pictures}

    full = full_scale([first], config.bit_depth, clip.path)
    fps = reel.fps if math.isnan(clip.fps) else clip.fps
    return Sequence(clip.onset, grey(first, full), rgb(first, full), fps, later)


class _OnDemand(Mapping[int, Any]):
    """What a function makes of numbers, made when it is first asked for."""

    def __init__(self, numbers: list[int], make: Callable[[int], Any]) -> None:
        self._numbers = numbers
        self._make = make
        self._made: dict[int, Any] = {}

    def __getitem__(self, number: int) -> Any:
        if number not in self._made:
            self._made[number] = self._make(number)
        return self._made[number]

    def __iter__(self) -> Iterator[int]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)


def _like(first: Picture, picture: Picture, number: int, clip: Clip, config: FrameConfig) -> Grey:
    """Grey values on the scale of the onset, whose size the picture must have."""
    (height, width), (wanted_height, wanted_width) = picture.pixels.shape[:2], first.pixels.shape[:2]
    if (height, width) != (wanted_height, wanted_width):
        raise ClipError(
            FailureCode.SIZE_MISMATCH,
            f"{clip.where}: frame {number} must have the onset's size, {wanted_width} x {wanted_height} pixels; got {width} x "
            f"{height}. Use frames of one recording.",
            clip.path,
        )
    return grey(picture, full_scale([first, picture], config.bit_depth, clip.path))


def _key(clip: Clip, config: FrameConfig, spotted: int | None = None) -> KeyFrames:
    return key_frames(clip, config.missing_apex, config.missing_offset, config.strict_phases, spotted)


def _numbers(key: KeyFrames) -> tuple[int, int, int]:
    return key.onset, key.apex, key.apex if key.offset is None else key.offset


def _from_folder(clip: Clip, key: KeyFrames, folder: Path, root: Path, config: FrameConfig) -> _Read:
    files = images_by_number(folder, clip.path)
    wanted = _numbers(key)
    taken = [choose_number(number, files, clip.path, config.nearest) for number in wanted]
    read = {number: read_image(folder, files[number], clip.path, root, config) for number in taken}
    source_hash = xxhash.xxh3_128_hexdigest(b"".join(read[number][1] for number in taken))
    verify_hash(clip, source_hash)
    decoded = {number: decode_image(content, name) for number, (name, content) in read.items()}
    pictures = [decoded[number] for number in taken]
    if taken != list(wanted):
        key = _moved(clip, key, taken, config)
    rotated = any(picture.rotated for picture in pictures)
    reach = reaches(key, clip.fps, config.average)
    further = {number: files[number] for number in numbers_beside(taken, reach) if number in files}
    neighbours, neighbours_hash, lost = _neighbours(further, folder, clip, root, config)
    beside, other_size = by_distance(neighbours, taken, reach, pictures)
    substituted = taken != list(wanted)
    source = Source(clip, key, clip.fps, source_hash, rotated, substituted, neighbours_hash, lost or other_size)
    return source, pictures, beside


def _neighbours(
    files: Mapping[int, list[str]], folder: Path, clip: Clip, root: Path, config: FrameConfig
) -> tuple[dict[int, Picture], str, bool]:
    """Pictures of further frames by number, the hash of their files, and whether one cannot be read: that fails no clip."""
    pictures: dict[int, Picture] = {}
    digest = xxhash.xxh3_128()
    for number, names in files.items():
        try:
            name, content = read_image(folder, names, clip.path, root, config)
            digest.update(content)
            pictures[number] = without_colour(decode_image(content, name))
        except ClipError:
            continue
    return pictures, digest.hexdigest() if files else "", len(pictures) < len(files)


def _from_video(clip: Clip, key: KeyFrames, path: Path, config: FrameConfig, recordings: Recordings) -> _Read:
    _check_first(clip, config)
    numbers = tuple(number - config.index_base for number in _numbers(key))

    def beside(fps: float) -> list[int]:
        reach = reaches(key, fps if math.isnan(clip.fps) else clip.fps, config.average)
        return [number for number in numbers_beside(numbers, reach) if number >= 0]

    with unchanged(path, clip.path, FailureCode.VIDEO_UNREADABLE) as (size, modified):
        source_hash = file_hash(path, size, modified)
        verify_hash(clip, source_hash)
        with recordings.reel(path, clip.path, size, modified) as reel:
            footage = footage_of(reel, numbers, beside)
            problem = reel.problem if max(numbers) >= FAR else ""
    fps = footage.fps if math.isnan(clip.fps) else clip.fps
    pictures = list(footage.pictures)
    near, other_size = by_distance(footage.beside, numbers, reaches(key, fps, config.average), pictures)
    rotated = any(picture.rotated for picture in pictures)
    lost = footage.damaged or other_size
    return Source(clip, key, fps, source_hash, rotated, False, "", lost, problem), pictures, near


def _check_first(clip: Clip, config: FrameConfig) -> None:
    if clip.onset < config.index_base:
        raise ClipError(
            FailureCode.FRAME_MISSING,
            f"{clip.where}: onset must be at least frames.index_base ({config.index_base}); got {clip.onset}. Correct the "
            "manifest or the setting.",
            clip.path,
        )


def _moved(clip: Clip, key: KeyFrames, taken: list[int], config: FrameConfig) -> KeyFrames:
    """The key frames that stand in for missing ones: two may have become one, and their phase with it."""
    onset, apex, offset = taken
    stand_in = dataclasses.replace(clip, onset=onset, apex=apex, offset=None if key.offset is None else offset)
    return dataclasses.replace(_key(stand_in, config), apex_source=key.apex_source)
