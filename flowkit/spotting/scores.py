"""Scores of spotting, as the field's challenges define them (MEGC 2020 to 2025).

An interval that was found is a hit if it and a true one of the same kind, in the same video, have an intersection over union of at
least 0.5; each true interval and each found one count once. Hits, false alarms and misses are added up over all videos before any
ratio is taken. "all" adds up micro- and macro-expressions: the right place under the wrong kind is a false alarm and a miss.

STRS (spot then recognise; Liong, See and Chan 2023) is the F1 of spotting micro-expressions times the F1 of their classes: mean
precision and mean recall over classes, among the hits alone, and their harmonic mean. A class that stands in either table counts,
also where no hit has it.
"""

from __future__ import annotations

import dataclasses
import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from flowkit.errors import ManifestError
from flowkit.inputs.clip import SPOT_PROBLEM, Clip
from flowkit.inputs.manifest import read_manifest
from flowkit.labels.class_maps import RAW, UNLABELLED
from flowkit.labels.groupings import grouping
from flowkit.listing import problem_lines
from flowkit.spotting.intervals import MICRO_S, TOLERANCE_S, overlap

IOU: Final = 0.5
"""Least intersection over union of a hit."""
KINDS: Final = ("micro", "macro")
DRAWS: Final = 2000
"""Of the bootstrap."""
LEVEL: Final = 0.95
MOST_AT_ONCE: Final = 1 << 24
"""Numbers of confusion matrices that are in memory together."""

Counts = npt.NDArray[np.int64]
"""Hits, found, true."""


@dataclass(frozen=True, slots=True)
class Expression:
    """An interval of a table.

    Attributes
    ----------
    video : str
    onset, offset : int
        Frame numbers, both included.
    kind : {"micro", "macro"}
    label : str
        Class; empty where there is none.
    """

    video: str
    onset: int
    offset: int
    kind: str
    label: str = ""


@dataclass(frozen=True, slots=True)
class KindScore:
    """Scores of one kind, or of all.

    Attributes
    ----------
    true, found, hits : int
    precision, recall, f1 : float
        0 where nothing was found, or nothing is true.
    f1_interval : (float, float)
        95 % bootstrap interval over videos; NaN of fewer than two.
    """

    true: int
    found: int
    hits: int
    precision: float
    recall: float
    f1: float
    f1_interval: tuple[float, float]


@dataclass(frozen=True, slots=True)
class SpotScores:
    """What `score_spotting` says.

    Attributes
    ----------
    videos : int
        That either table names.
    only_true, only_found : int
        How many of these one table alone names.
    iou : float
    kinds : dict of str to KindScore
        "micro", "macro" and "all".
    class_f1, strs : float
        F1 of the classes of micro-expressions among the hits, and spot-then-recognise score; NaN where a table has no classes.
    strs_interval : (float, float)
    """

    videos: int
    only_true: int
    only_found: int
    iou: float
    kinds: dict[str, KindScore]
    class_f1: float
    strs: float
    strs_interval: tuple[float, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them: None where a number is not defined."""

        def plain(value: Any) -> Any:
            if isinstance(value, dict):
                return {name: plain(one) for name, one in value.items()}
            if isinstance(value, tuple):
                return [plain(one) for one in value]
            return None if isinstance(value, float) and math.isnan(value) else value

        found: dict[str, Any] = plain(dataclasses.asdict(self))
        return found


def read_expressions(path: str | Path, *, fps: float = math.nan, classes: str = RAW) -> list[Expression]:
    """Read the expressions of a manifest, such as `flowkit manifest samm-lv` or `flowkit spot-intervals` writes.

    Parameters
    ----------
    path : str or Path
        Its column `kind` says which rows are micro-expressions; rows of other kinds, such as blinks, are left out. Without one,
        what lasts at most half a second is. Rows whose `spot_problem` says that nothing was found are left out, too.
    fps : float
        Frames per second of rows that do not say.
    classes : str
        Grouping that makes a class of each label; see `flowkit.grouping`. A label that is a class already stays.

    Raises
    ------
    ManifestError
        The file cannot be used: every problem is listed.
    """
    path, groups = Path(path), grouping(classes)
    found: list[Expression] = []
    problems: list[str] = []
    for clip in read_manifest(path, allow_empty=True):
        where = f"{path.name}:{clip.line}"
        end = clip.apex if clip.offset is None else clip.offset
        kind = _kind(clip, fps)
        if end is None and dict(clip.extra).get(SPOT_PROBLEM):
            continue
        if end is None or end < clip.onset:
            got = "none, and no apex" if end is None else end
            problems.append(f"{where}: offset must be a frame behind the onset; got {got}. Correct the row.")
        elif not kind:
            problems.append(
                f"{where}: kind or fps must be known, to tell micro- from macro-expressions; got neither. Add a column kind, or "
                "pass --fps."
            )
        elif kind not in (*KINDS, "blink"):
            problems.append(f"{where}: kind must be micro, macro or blink; got {kind!r}. Correct the cell.")
        elif kind in KINDS:
            found.append(Expression(clip.path, clip.onset, end, kind, _class_of(clip, groups)))
    if problems:
        raise ManifestError(problem_lines(problems))
    return found


def score_spotting(
    truth: Sequence[Expression], found: Sequence[Expression], *, iou: float = IOU, draws: int = DRAWS
) -> SpotScores:
    """Compare intervals that were found with true ones.

    Parameters
    ----------
    truth, found : sequence of Expression
    iou : float
        Least intersection over union of a hit.
    draws : int
        Of the bootstrap over videos.

    Returns
    -------
    SpotScores

    Raises
    ------
    ManifestError
        No video is in both tables.

    Examples
    --------
    >>> truth = [Expression("a", 10, 19, "micro"), Expression("a", 50, 99, "macro")]
    >>> found = [Expression("a", 12, 21, "micro"), Expression("a", 70, 120, "macro")]
    >>> {kind: round(score.f1, 2) for kind, score in score_spotting(truth, found).kinds.items()}
    {'micro': 1.0, 'macro': 0.0, 'all': 0.5}
    """
    videos = sorted({one.video for one in (*truth, *found)})
    if truth and found and not {one.video for one in truth} & {one.video for one in found}:
        raise ManifestError(
            f"spot-score: both tables must name the same videos in the column path; got {truth[0].video} in the first and "
            f"{found[0].video} in the second. Write the paths alike."
        )
    micro = [one for one in (*truth, *found) if one.kind == "micro"]
    names = [*sorted({one.label for one in micro} - {""}), ""]
    counts = np.zeros((len(videos), len(KINDS), 3), np.int64)
    labels = np.zeros((len(videos), len(names), len(names)), np.int64)
    for place, video in enumerate(videos):
        for which, kind in enumerate(KINDS):
            here, there = ([one for one in table if (one.video, one.kind) == (video, kind)] for table in (truth, found))
            pairs = matched(here, there, iou)
            counts[place, which] = len(pairs), len(there), len(here)
            if kind == "micro":
                for i, j in pairs:
                    labels[place, names.index(here[i].label), names.index(there[j].label)] += 1
    named = all(any(one.label for one in table if one.kind == "micro") for table in (truth, found))
    return _scores(counts, labels[:, :-1] if named else None, iou, draws)


def matched(truth: Sequence[Expression], found: Sequence[Expression], iou: float = IOU) -> list[tuple[int, int]]:
    """Pair as many true with found intervals as possible, each once, whose intersection over union is at least `iou`.

    Examples
    --------
    >>> matched([Expression("a", 0, 9, "micro")], [Expression("a", 30, 39, "micro"), Expression("a", 0, 19, "micro")])
    [(0, 1)]
    """
    pairs = sorted(_overlapping(truth, found, iou), key=lambda pair: (-pair[2], pair[0], pair[1]))
    of_truth, of_found = dict[int, int](), dict[int, int]()
    for i, j, _ in pairs:  # the best first
        if i not in of_truth and j not in of_found:
            of_truth[i], of_found[j] = j, i
    if len(of_truth) < min(len({i for i, _, _ in pairs}), len({j for _, j, _ in pairs})):
        return _most(pairs, len(truth), len(found))
    return sorted(of_truth.items())


def _overlapping(
    truth: Sequence[Expression], found: Sequence[Expression], iou: float
) -> Iterator[tuple[int, int, float]]:
    """Places of every true and found interval that overlap enough, and by how much."""
    order = sorted(range(len(found)), key=lambda j: found[j].onset)
    onsets = [found[j].onset for j in order]
    longest = max((one.offset - one.onset for one in found), default=0)
    for i, one in enumerate(truth):
        first, last = bisect_left(onsets, one.onset - longest), bisect_right(onsets, one.offset)
        for j in order[first:last]:
            share = overlap((one.onset, one.offset), (found[j].onset, found[j].offset))
            if share >= iou - 1e-12:
                yield i, j, share


def _most(pairs: Sequence[tuple[int, int, float]], true: int, found: int) -> list[tuple[int, int]]:
    """As many pairs as possible, each place once."""
    from scipy.sparse import csr_array  # here: hardly ever needed
    from scipy.sparse.csgraph import maximum_bipartite_matching

    rows, columns, shares = zip(*pairs, strict=True)
    graph = csr_array((np.ones(len(shares), np.int8), (rows, columns)), shape=(true, found))
    return [(i, j) for i, j in enumerate(maximum_bipartite_matching(graph, "column").tolist()) if j >= 0]


def _scores(counts: Counts, labels: Counts | None, iou: float, draws: int) -> SpotScores:
    """Scores of counts by video and kind (V, kinds, 3), and of the classes of hits by video: see `_class_f1`."""
    drawn = _drawn(len(counts), draws)
    kinds = {kind: _kind_score(counts[:, which], drawn) for which, kind in enumerate(KINDS)}
    kinds["all"] = _kind_score(counts.sum(axis=1), drawn)
    class_f1 = strs = math.nan
    interval = (math.nan, math.nan)
    if labels is not None:
        class_f1 = float(_class_f1(labels.sum(axis=0)))
        strs = kinds["micro"].f1 * class_f1
        if len(drawn):
            pieces = np.array_split(drawn, 1 + labels[0].size * len(drawn) // MOST_AT_ONCE)
            of_classes = np.concatenate([_class_f1(np.einsum("dv,vij->dij", piece, labels)) for piece in pieces])
            interval = _bounds(_f1(np.einsum("dv,vc->dc", drawn, counts[:, 0])) * of_classes)
    _, without_found, without_true = (counts.sum(axis=1) == 0).sum(axis=0).tolist()
    return SpotScores(len(counts), without_found, without_true, iou, kinds, class_f1, strs, interval)


def _kind_score(counts: Counts, drawn: Counts) -> KindScore:
    hits, found, true = counts.sum(axis=0).tolist()
    interval = _bounds(_f1(np.einsum("dv,vc->dc", drawn, counts))) if len(drawn) else (math.nan, math.nan)
    precision, recall = (hits / total if total else 0.0 for total in (found, true))
    return KindScore(true, found, hits, precision, recall, float(_f1(counts.sum(axis=0))), interval)


def _f1(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """F1 of hits, found and true, (..., 3)."""
    return np.asarray(2 * counts[..., 0] / np.maximum(counts[..., 1] + counts[..., 2], 1))


def _class_f1(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Harmonic mean of mean precision and mean recall of confusion matrices (..., true, found); found also has "no class", last."""
    right = np.diagonal(labels, axis1=-2, axis2=-1)
    precision = (right / np.maximum(labels.sum(axis=-2)[..., :-1], 1)).mean(axis=-1)
    recall = (right / np.maximum(labels.sum(axis=-1), 1)).mean(axis=-1)
    return np.asarray(2 * precision * recall / np.maximum(precision + recall, 1e-300))


def _drawn(videos: int, draws: int) -> Counts:
    """How often each video is in each draw with replacement, (draws, videos); none of fewer than two videos."""
    if videos < 2:
        return np.zeros((0, videos), np.int64)
    rng = np.random.default_rng(0)
    return np.asarray(rng.multinomial(videos, np.full(videos, 1 / videos), size=draws), np.int64)


def _bounds(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    return low, high


def _kind(clip: Clip, fps: float) -> str:
    """Kind of a row: as it says, or by its length; empty where neither can tell."""
    stated = dict(clip.extra).get("kind", "").strip().casefold()
    if stated:
        return next((kind for kind in KINDS if stated.startswith(kind)), stated)
    rate = fps if math.isnan(clip.fps) else clip.fps
    end = clip.apex if clip.offset is None else clip.offset
    if math.isnan(rate) or end is None:
        return ""
    return "micro" if (end - clip.onset) / rate <= MICRO_S + TOLERANCE_S else "macro"


def _class_of(clip: Clip, groups: Any) -> str:
    """Class of a row's label; empty where it has none."""
    label = clip.label.strip()
    if not label or label.casefold() == UNLABELLED:
        return ""
    if groups.name == RAW or label in groups.classes:
        return label.casefold()
    return str(groups.of(clip.dataset, label) or "")
