"""Every problem of a manifest and of the frames it names, found in one pass before anything is computed."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowkit.config import FrameConfig
from flowkit.errors import ClipError, FailureCode
from flowkit.frames import Frames, nothing_to_search, numbered_images, open_sequence, read_frames
from flowkit.manifest import Clip, read_manifest

LONG_S = 1.0
"""A micro-expression that lasts longer is worth a note."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One clip that would fail, as it would stand in failures.csv."""

    clip_id: str
    line: int
    code: FailureCode
    message: str
    path: str


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
    notes : tuple of str
        What is odd but fails nothing: gaps between the frames of a clip, clips longer than a second.
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
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        return dataclasses.asdict(self)


@dataclass(slots=True)
class _Tally:
    """What is counted while the clips go by."""

    sizes: Counter[str] = field(default_factory=Counter)
    rates: Counter[str] = field(default_factory=Counter)
    zero_rise: int = 0
    zero_fall: int = 0
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def check_manifest(
    path: str | Path,
    root: str | Path,
    config: FrameConfig | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> CheckReport:
    """Read a manifest and every key frame that it names.

    Parameters
    ----------
    path, root : str or Path
        The manifest, and the folder that its paths start from.
    config : FrameConfig, optional
    progress : callable, optional
        Is told (clips done, clips in all) after each clip.

    Returns
    -------
    CheckReport

    Raises
    ------
    ManifestError
        The manifest cannot be used as a whole.
    """
    clips = sorted(read_manifest(path), key=lambda clip: clip.line)
    tally = _Tally()
    for done, clip in enumerate(clips, start=1):
        _check_clip(clip, Path(root), config or FrameConfig(), tally)
        if progress:
            progress(done, len(clips))
    return CheckReport(
        clips=len(clips),
        subjects=len({(clip.dataset, clip.subject) for clip in clips}),
        datasets=_ordered(Counter(clip.dataset for clip in clips)),
        labels=_ordered(Counter(clip.label for clip in clips)),
        zero_rise=tally.zero_rise,
        zero_fall=tally.zero_fall,
        sizes=_ordered(tally.sizes),
        rates=_ordered(tally.rates),
        problems=tuple(tally.problems),
        notes=tuple(tally.notes),
    )


def _check_clip(clip: Clip, root: Path, config: FrameConfig, tally: _Tally) -> None:
    try:
        frames = read_frames(clip, root, config, _stand_in(clip, root, config))
        _check_sizes(clip, frames)
    except ClipError as error:
        tally.problems.append(Problem(clip.clip_id, clip.line, error.code, error.message, error.path))
        return
    key, fps = frames.source.key, frames.source.fps
    height, width = frames.grey[0].shape
    tally.sizes[f"{width}x{height}"] += 1
    tally.rates["unknown" if math.isnan(fps) else f"{fps:g}"] += 1
    tally.zero_rise += key.apex == key.onset
    tally.zero_fall += key.offset == key.apex
    tally.notes += _gap_note(clip, root / clip.path, key.onset, key.offset or key.apex)
    if key.offset is not None and (key.offset - key.onset) / fps > LONG_S:
        length = (key.offset - key.onset) / fps
        tally.notes.append(
            f"{clip.where}: the clip lasts {length:.2f} s, longer than a micro-expression ({LONG_S:g} s)."
        )


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


def _gap_note(clip: Clip, folder: Path, onset: int, last: int) -> list[str]:
    if not folder.is_dir():
        return []
    held = sum(onset <= number <= last for number in numbered_images(folder))
    missing = last - onset + 1 - held
    if not missing:
        return []
    return [
        f"{clip.where}: {missing} of the {last - onset + 1} frames from {onset} to {last} are missing in {clip.path}."
    ]


def _ordered(counts: Counter[str]) -> dict[str, int]:
    """Most frequent first, then by name."""
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
