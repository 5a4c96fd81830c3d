"""Every problem of a manifest and of the frames it names, found in one pass before anything is computed."""

from __future__ import annotations

import dataclasses
import itertools
import math
import posixpath
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from flowkit.checking.census import Census, take_census
from flowkit.checking.expected_counts import frame_rates
from flowkit.config import FrameConfig
from flowkit.errors import ClipError, FailureCode
from flowkit.inputs.clip import Clip
from flowkit.inputs.frame_numbers import numbered_images
from flowkit.inputs.frames import Frames, nothing_to_search, open_sequence, read_frames
from flowkit.inputs.key_frames import KeyFrames, key_frames
from flowkit.inputs.manifest import read_manifest
from flowkit.listing import word_counts

LONG_S: Final = 1.0
"""A micro-expression that lasts longer is worth a note."""
RATE_TOLERANCE: Final = 0.02
"""How far, as a share, a frame rate may be from the data set's: 29.97 is 30."""
GAPS_SHOWN: Final = 5


class NoteKind(StrEnum):
    """What is odd about a clip that can be used: the closed list."""

    ZERO_RISE = "ZERO_RISE"  # the apex is the onset
    ZERO_FALL = "ZERO_FALL"  # the apex is the offset
    GAP = "GAP"  # frames between onset and offset are missing
    LONG = "LONG"  # longer than a micro-expression
    ODD_RATE = "ODD_RATE"  # a frame rate that the data set was not recorded with
    SAME_FRAMES = "SAME_FRAMES"  # another row names the same frames
    SAME_SOURCE = "SAME_SOURCE"  # the files are a copy of another clip's


@dataclass(frozen=True, slots=True)
class Problem:
    """One clip that would fail, as it would stand in failures.csv."""

    clip_id: str
    line: int
    code: FailureCode
    message: str
    path: str


@dataclass(frozen=True, slots=True)
class Note:
    """What is odd about a clip, but fails nothing."""

    clip_id: str
    line: int
    kind: NoteKind
    message: str


@dataclass(frozen=True, slots=True)
class Measured:
    """What was found of a clip whose frames can be read.

    Attributes
    ----------
    clip_id : str
    line : int
    size : str
        Of the onset, "640x480".
    fps : float or None
        Frames per second: the manifest's, else the video's.
    rise, fall : int or None
        Length of each phase, in frames; None where there is no offset.
    missing : int
        Frames between the first and the last that are not there.
    """

    clip_id: str
    line: int
    size: str
    fps: float | None
    rise: int
    fall: int | None
    missing: int


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a manifest holds, and what is wrong with it.

    Attributes
    ----------
    clips, subjects : int
        Subjects count as `dataset/subject`.
    datasets, labels : dict of str to int
        Clips of each.
    zero_rise, zero_fall : int
        Clips whose phase has no length.
    sizes, rates : dict of str to int
        Clips of each size of the onset ("640x480") and frame rate ("200", "unknown").
    problems : tuple of Problem
        Clips that would fail, in order of their line.
    notes : tuple of Note
        What is odd but fails nothing, in order of line.
    census : Census
        Clips of each class and subject, beside what is expected of known data sets.
    measured : tuple of Measured
        Each clip whose frames can be read.
    """

    clips: int
    subjects: int
    datasets: dict[str, int]
    labels: dict[str, int]
    zero_rise: int
    zero_fall: int
    sizes: dict[str, int]
    rates: dict[str, int]
    problems: tuple[Problem, ...]
    notes: tuple[Note, ...]
    census: Census
    measured: tuple[Measured, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        return dataclasses.asdict(self)


@dataclass(slots=True)
class _Tally:
    """What is gathered while the clips go by."""

    problems: list[Problem] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    measured: list[Measured] = field(default_factory=list)
    by_frames: dict[tuple[str, int, int | None, int | None], Clip] = field(default_factory=dict)
    by_source: dict[str, Clip] = field(default_factory=dict)

    def note(self, clip: Clip, kind: NoteKind, text: str) -> None:
        self.notes.append(Note(clip.clip_id, clip.line, kind, f"{clip.where}: {text}"))


def check_manifest(
    path: str | Path,
    root: str | Path,
    config: FrameConfig | None = None,
    progress: Callable[[int, int], None] | None = None,
    *,
    classes: str | None = None,
    frames: bool = True,
) -> CheckReport:
    """Read a manifest and every key frame that it names.

    Parameters
    ----------
    path, root : str or Path
        The manifest, and the folder that its paths start from.
    config : FrameConfig, optional
    progress : callable, optional
        Is told (clips done, clips in all) after each clip.
    classes : str, optional
        The grouping whose classes are counted; see `take_census`.
    frames : bool
        Whether frames are read; without, the root need not exist.

    Returns
    -------
    CheckReport

    Raises
    ------
    ManifestError
        The manifest cannot be used as a whole.
    ConfigError
        No grouping has that name.
    """
    clips = sorted(read_manifest(path), key=lambda clip: clip.line)
    census = take_census(clips, classes)
    tally = _Tally()
    for done, clip in enumerate(clips, start=1):
        _check_clip(clip, Path(root) if frames else None, config or FrameConfig(), tally)
        if progress:
            progress(done, len(clips))
    kinds = Counter(note.kind for note in tally.notes)
    return CheckReport(
        clips=len(clips),
        subjects=len({(clip.dataset, clip.subject) for clip in clips}),
        datasets=_ordered(Counter(clip.dataset for clip in clips)),
        labels=word_counts(clip.label for clip in clips),
        zero_rise=kinds[NoteKind.ZERO_RISE],
        zero_fall=kinds[NoteKind.ZERO_FALL],
        sizes=_ordered(Counter(found.size for found in tally.measured)),
        rates=_ordered(Counter("unknown" if m.fps is None else f"{m.fps:g}" for m in tally.measured)),
        problems=tuple(tally.problems),
        notes=tuple(tally.notes),
        census=census,
        measured=tuple(tally.measured),
    )


def _check_clip(clip: Clip, root: Path | None, config: FrameConfig, tally: _Tally) -> None:
    """Everything about one clip; without a root, what its row alone tells."""
    _compare_rows(clip, tally)
    try:
        if root is None:
            middle = _middle(clip, config)
            key = key_frames(clip, config.missing_apex, config.missing_offset, config.strict_phases, middle)
            _check_lengths(clip, key, clip.fps, tally)
            return
        alone = dataclasses.replace(config, average="off")  # what lies beside the key frames fails no clip
        frames = read_frames(clip, root, alone, _stand_in(clip, root, config))
        _check_sizes(clip, frames)
    except ClipError as error:
        tally.problems.append(Problem(clip.clip_id, clip.line, error.code, error.message, error.path))
        return
    key, fps = frames.source.key, frames.source.fps
    _check_lengths(clip, key, fps, tally)
    _compare_sources(clip, frames.source.source_hash, tally)
    height, width = frames.grey[0].shape
    tally.measured.append(
        Measured(
            clip_id=clip.clip_id,
            line=clip.line,
            size=f"{width}x{height}",
            fps=None if math.isnan(fps) else fps,
            rise=key.apex - key.onset,
            fall=None if key.offset is None else key.offset - key.apex,
            missing=_check_gaps(clip, root / clip.path, key, tally),
        )
    )


def _check_lengths(clip: Clip, key: KeyFrames, fps: float, tally: _Tally) -> None:
    """Phases without length, a clip that lasts too long, and the rate by which that is told."""
    numbers = f"onset={key.onset}, apex={key.apex}, offset={key.offset}"
    if key.apex == key.onset:
        tally.note(clip, NoteKind.ZERO_RISE, f"the rise has no length ({numbers}); its flow will be zero and invalid.")
    if key.apex == key.offset:
        tally.note(clip, NoteKind.ZERO_FALL, f"the fall has no length ({numbers}); its flow will be zero and invalid.")
    known = frame_rates(clip.dataset)
    usual = " or ".join(f"{rate:g}" for rate in known)
    if known and not math.isnan(fps) and all(abs(fps / rate - 1) > RATE_TOLERANCE for rate in known):
        tally.note(
            clip, NoteKind.ODD_RATE, f"the frame rate is {fps:g}, where {clip.dataset} was recorded with {usual}."
        )
    guessed = math.isnan(fps) and len(known) == 1
    rate = known[0] if guessed else fps
    if key.offset is not None and (key.offset - key.onset) / rate > LONG_S:
        told = f", at the {usual} frames a second of {clip.dataset}" if guessed else ""
        length = (key.offset - key.onset) / rate
        tally.note(
            clip, NoteKind.LONG, f"the clip lasts {length:.2f} s{told}, longer than a micro-expression ({LONG_S:g} s)."
        )


def _middle(clip: Clip, config: FrameConfig) -> int | None:
    """Stands in, where no frame is looked at, for an apex that is to be spotted."""
    if clip.apex is not None or clip.offset is None or config.missing_apex != "spot":
        return None
    return (clip.onset + clip.offset) // 2


def _stand_in(clip: Clip, root: Path, config: FrameConfig) -> int | None:
    """The middle one of the frames among which an apex is to be spotted: it is not looked for here, faces are not."""
    if clip.apex is not None or config.missing_apex != "spot":
        return None
    with open_sequence(clip, root, config) as sequence:
        numbers = [sequence.onset, *sequence.later(lambda _: None)]
    if len(numbers) < 2:
        raise nothing_to_search(clip)
    return numbers[len(numbers) // 2]


def _check_sizes(clip: Clip, frames: Frames) -> None:
    sizes = [f"{grey.shape[1]}x{grey.shape[0]}" for grey in frames.grey]
    if len(set(sizes)) > 1:
        raise ClipError(
            FailureCode.SIZE_MISMATCH,
            f"{clip.where}: the three frames must have one size; got {', '.join(sizes)}. Use frames of one recording.",
            clip.path,
        )


def _check_gaps(clip: Clip, folder: Path, key: KeyFrames, tally: _Tally) -> int:
    """How many frames from the first to the last are missing in a folder."""
    if not folder.is_dir():
        return 0  # a video was decoded without a gap
    first, last = key.onset, key.apex if key.offset is None else key.offset
    held = [number for number in numbered_images(folder) if first <= number <= last]
    missing = last - first + 1 - len(held)
    if missing:
        tally.note(
            clip,
            NoteKind.GAP,
            f"{missing} of the {last - first + 1} frames from {first} to {last} are missing in {clip.path}: "
            f"{_shown(_gaps(held, first, last))}.",
        )
    return missing


def _gaps(held: Sequence[int], first: int, last: int) -> Iterator[tuple[int, int]]:
    """First and last number of each run of missing ones; `held` in order."""
    for before, after in itertools.pairwise([first - 1, *held, last + 1]):
        if after - before > 1:
            yield before + 1, after - 1


def _shown(gaps: Iterator[tuple[int, int]]) -> str:
    texts = [f"{first}-{last}" if last > first else str(first) for first, last in itertools.islice(gaps, GAPS_SHOWN)]
    return ", ".join(texts) + (" and more" if next(gaps, None) else "")


def _compare_rows(clip: Clip, tally: _Tally) -> None:
    frames = (posixpath.normpath(clip.path), clip.onset, clip.apex, clip.offset)
    first = tally.by_frames.setdefault(frames, clip)
    if first is not clip:
        tally.note(
            clip, NoteKind.SAME_FRAMES, f"the row names the same frames as {first.where}{_conflict(clip, first)}."
        )


def _compare_sources(clip: Clip, source_hash: str, tally: _Tally) -> None:
    """A copy under another path; clips of one folder or video are none."""
    first = tally.by_source.setdefault(source_hash, clip)
    if posixpath.normpath(first.path) != posixpath.normpath(clip.path):
        tally.note(
            clip,
            NoteKind.SAME_SOURCE,
            f"{clip.path} holds the same bytes as {first.path} of {first.where}{_conflict(clip, first)}.",
        )


def _conflict(clip: Clip, first: Clip) -> str:
    """What makes a duplicate worse: a network would be tested on what it was trained on, or taught two answers."""
    differ = [
        f"{name} {getattr(clip, name)!r} where that has {getattr(first, name)!r}"
        for name in ("dataset", "subject", "label")
        if getattr(clip, name) != getattr(first, name)
    ]
    return ", but has " + ", ".join(differ) if differ else ""


def _ordered(counts: Counter[str]) -> dict[str, int]:
    """Most frequent first, then by name."""
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
