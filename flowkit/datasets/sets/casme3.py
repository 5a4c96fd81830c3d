"""CAS(ME)^3: micro-expressions of part A (with apex) and part C (without), as intervals of long videos.

The authors' exception lists are read where they are under the root: what they call damaged or poor is a fact of the frames. The
sheet of macro- and micro-expressions has no emotions; those of the other workbook count for it.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from flowkit.datasets.base import MAX_NAMED, Annotation
from flowkit.datasets.sets.kinds import is_wanted, kind_column, passed_over, serial
from flowkit.datasets.source import Source
from flowkit.datasets.tables.text_files import read_text
from flowkit.datasets.tables.workbooks import Row
from flowkit.errors import ManifestError
from flowkit.labels.class_maps import UNLABELLED
from flowkit.listing import listed

_IMAGE: Final = re.compile(r"(spNO\.[0-9]+)[\s/]+([a-z])[\s/]+(?:color/)?([0-9]+)\.jpg", re.IGNORECASE)
"""An image in an exception list: "spNO.3 J 498.jpg  the image cannot open", ".../spNO.138/a/color/1294.jpg"."""

Images = dict[tuple[str, str], set[int]]
"""Frame numbers by folded subject and video."""


def annotate_a(source: Source) -> Iterator[Annotation]:
    """Every row of part A; of a workbook with an expression type, those of the wanted kind."""
    damaged, poor = _images(source, "damaged"), _images(source, "poor")
    touched: dict[str, list[str]] = {}
    others: Counter[str] = Counter()
    rows = source.table()
    emotions = _Emotions(source, rows)
    for row in rows:
        if row["kind"] and not is_wanted(source, row["kind"]):
            others[row["kind"]] += 1
            continue
        annotation = _part_a(source, row, emotions.of(row))
        broken = _listed(annotation, damaged)
        if set(broken) & _key_frames(annotation):
            source.leave_out(
                annotation.clip_id,
                "damaged key frames",
                f"{annotation.where}: key frames must be readable; got {', '.join(map(str, broken))} in the authors' list of "
                "damaged images. Get better copies of them, and take them off the list.",
            )
            continue
        if broken:
            touched.setdefault("damaged, but no key frame", []).append(f"{annotation.clip_id} ({len(broken)})")
        if poor:
            number = len(_listed(annotation, poor))
            annotation = dataclasses.replace(annotation, extra={**annotation.extra, "poor_frames": str(number)})
            if number:
                touched.setdefault("poor", []).append(f"{annotation.clip_id} ({number})")
        yield annotation
    passed_over(source, others)
    emotions.tell(source)
    for word, clips in touched.items():
        source.note(f"{len(clips)} clips hold frames that the authors call {word}: {listed(clips, MAX_NAMED)}.")


def annotate_c(source: Source) -> Iterator[Annotation]:
    """Every row of part C, which has no apex."""
    rows = source.table()
    tails = [source.tails(subject=row["subject"].zfill(2), clip=row["clip"]) for row in rows]
    by_video = any(source.find(tail) for *videos, _ in tails for tail in videos)
    for row, (*videos, whole) in zip(rows, tails, strict=True):
        subject = row["subject"].zfill(2)
        yield Annotation(
            dataset=source.name,
            subject=subject,
            clip=row["clip"],
            onset=row["onset"],
            apex="",
            offset=row["offset"],
            label=row["label"],
            where=row.where,
            folders=videos if by_video else _of_person(source, whole),
            extra={"action_units": re.sub(r"\s*[,\uff0c]\s*", "+", row["action_units"])},
            serial=row["onset"],
        )


def _of_person(source: Source, tail: str) -> list[str]:
    """Folders of a person, without those of a video with that number of another person: 01/color is the end of 30/1/color."""
    found = [folder.path for folder in source.find(tail)]
    return [f"./{path}" for path in found if not re.search(r"(^|/)[0-9]+/[0-9]+/[^/]+$", path)] or [f"./{tail}"]


class _Emotions:
    """The emotion of each row: its own, else that of the same expression in the workbook of emotions, where one is there."""

    def __init__(self, source: Source, rows: Sequence[Row]) -> None:
        self._asked = bool(rows) and not source.options.label_from and not any(row["label"] for row in rows)
        known = source.joined("emotions") if self._asked else []
        self._there = bool(known)
        self._known: dict[tuple[str, ...], set[str]] = {}
        for row in known:
            for key in _keys(row):
                self._known.setdefault(key, set()).add(row["label"])
        self._missing = 0

    def of(self, row: Row) -> str:
        """The label of a row; macro-expressions have none."""
        if not self._asked:
            return row["label"]
        if row["kind"] and not row["kind"].casefold().startswith("micro"):
            return ""
        found = next((labels for key in _keys(row) if (labels := self._known.get(key, ()))), ())
        self._missing += len(found) != 1
        return next(iter(found)) if len(found) == 1 else ""

    def tell(self, source: Source) -> None:
        if self._there:
            source.note("this sheet has no emotions: they are from the workbook of micro-expressions (JpgIndex).")
        if self._missing and self._there:
            source.note(
                f"{self._missing} micro-expressions are not in that workbook and are {UNLABELLED}. --label-from objective_class "
                "takes the objective class instead."
            )
        elif self._missing:
            source.note(
                f"{self._missing} micro-expressions have no emotion in this sheet and are {UNLABELLED}. Put "
                "cas(me)3_part_A_ME_label_JpgIndex_v2.xlsx under ROOT, or pass --label-from objective_class."
            )


def _keys(row: Row) -> list[tuple[str, ...]]:
    """What an expression is recognised by in another sheet, which may have corrected one of its frame numbers."""
    video = (row["subject"].casefold(), row["clip"].casefold())
    onset, apex, offset = row["onset"], row["apex"], row["offset"]
    return [(*video, onset, apex, offset), (*video, "onset", onset), (*video, "end", apex, offset)]


def _part_a(source: Source, row: Row, label: str) -> Annotation:
    clip, onset = row["clip"].lower(), row["onset"]
    return Annotation(
        dataset=source.name,
        subject=row["subject"],
        clip=clip,
        onset=onset,
        apex=row["apex"],
        offset=row["offset"],
        label=label,
        where=row.where,
        folders=source.tails(subject=row["subject"], clip=clip, onset=onset),
        extra={
            "action_units": row["action_units"],
            "objective_class": row["objective_class"],
            **kind_column(source, row["kind"]),
        },
        serial=serial(source, row),
    )


def _images(source: Source, name: str) -> Images:
    """What the lists of a name in layouts.toml hold; nothing where there are none."""
    found: Images = {}
    for path in source.lists(name):
        try:
            text, _ = read_text(path)
        except OSError as error:
            raise ManifestError(
                f"{path}: list must be readable; got {error.strerror or error}. Get the file, or remove it."
            ) from error
        for match in _IMAGE.finditer(text):
            found.setdefault((match[1].casefold(), match[2].lower()), set()).add(int(match[3]))
    return found


def _key_frames(annotation: Annotation) -> set[int]:
    texts = (annotation.onset, annotation.apex, annotation.offset)
    return {int(text) for text in texts if text.isascii() and text.isdigit()}


def _listed(annotation: Annotation, images: Images) -> list[int]:
    """Those frames of a clip that a list names."""
    numbers = _key_frames(annotation)
    there = images.get((annotation.subject.casefold(), annotation.clip), ())
    return sorted(frame for frame in there if numbers and min(numbers) <= frame <= max(numbers))
