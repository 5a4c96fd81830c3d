"""CAS(ME)^2: three sheets without headers; two of them say which folder belongs to a participant and a stimulus.

Clips are intervals of long videos: one folder of frames holds many. The set casme-sq is of the micro-expressions alone,
casme-sq-lv of all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from flowkit.datasets.base import CORRECT_A_COPY, MAX_NAMED, Annotation
from flowkit.datasets.sets.kinds import is_wanted, kind_column, passed_over, serial
from flowkit.datasets.source import Source
from flowkit.datasets.tables.workbooks import Row
from flowkit.listing import listed


def annotate(source: Source) -> Iterator[Annotation]:
    """Every row of a wanted kind whose participant and stimulus the naming rules know."""
    subjects = {_number(row["participant"]): row["subject"] for row in source.table("subjects")}
    videos = {row["stimulus"].casefold(): row["code"].zfill(4) for row in source.table("videos")}
    others: Counter[str] = Counter()
    unreturned = []
    for row in source.table():
        if not is_wanted(source, row["kind"]):
            others[row["kind"] or "no type"] += 1
            continue
        subject = subjects.get(_number(row["participant"]), "")
        code = videos.get(row["clip"].split("_")[0].casefold(), "")
        if not subject or not code:
            missing = f"stimulus of {row['clip']} must have a row in the sheet naming rule2"
            if not subject:
                missing = f"participant {row['participant']} must have a row in the sheet naming rule1"
            source.leave_out(
                f"{source.name}/{row['participant']}/{row['clip']}",
                "no naming rule",
                f"{row.where}: {missing}; got none. {CORRECT_A_COPY}",
            )
            continue
        annotation = _annotation(source, row, subject, code)
        if row["offset"] == "0":
            unreturned.append(annotation.clip_id)
        yield annotation
    passed_over(source, others)
    if unreturned:
        source.note(
            f"{len(unreturned)} clips have offset 0, never back at rest, and end with their apex: {listed(unreturned, MAX_NAMED)}."
        )


def _annotation(source: Source, row: Row, subject: str, code: str) -> Annotation:
    apex = "" if row["apex"] == "0" else row["apex"]
    return source.annotation(
        row,
        subject,
        {"action_units": row["action_units"], "self_report": row["self_report"], **kind_column(source, row["kind"])},
        apex=apex,
        offset=apex if row["offset"] == "0" else row["offset"],
        folders=source.tails(subject=subject, number=subject.lstrip("sS"), code=code),
        serial=serial(source, row),
    )


def _number(text: str) -> str:
    """A participant's number without leading zeros."""
    return text.lstrip("0") or text
