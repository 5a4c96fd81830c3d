"""CAS(ME)^2: three sheets without headers; two of them say which folder belongs to a participant and a stimulus.

Clips are intervals of long videos: one folder of frames holds many, macro-expressions among them, which are left out.
"""

from __future__ import annotations

from collections.abc import Iterator

from flowkit.datasets.base import Annotation, Source, named
from flowkit.datasets.workbooks import Row

MICRO = "micro"
"""What the type of a micro-expression begins with."""


def annotate(source: Source) -> Iterator[Annotation]:
    """Every row of a micro-expression whose participant and stimulus the naming rules know."""
    subjects = {_number(row["participant"]): row["subject"] for row in source.table("subjects")}
    videos = {row["stimulus"].casefold(): row["code"].zfill(4) for row in source.table("videos")}
    others, unreturned = 0, []
    for row in source.table():
        if not row["kind"].casefold().startswith(MICRO):
            others += 1
            continue
        subject = subjects.get(_number(row["participant"]), "")
        code = videos.get(row["clip"].split("_")[0].casefold(), "")
        if not subject or not code:
            rule = "naming rule1 the participant" if not subject else "naming rule2 the stimulus"
            source.leave_out(
                f"{source.name}/{row['participant']}/{row['clip']}",
                f"{row.where}: {rule} must be named; got no row for it. Correct a copy, and name it with --workbook.",
            )
            continue
        annotation = _annotation(source, row, subject, code)
        if row["offset"] == "0":
            unreturned.append(annotation.clip_id)
        yield annotation
    if others:
        source.note(f"{others} rows are of macro-expressions and were left out.")
    if unreturned:
        source.note(
            f"{len(unreturned)} clips have offset 0, never back at rest: their apex is their end: {named(unreturned)}."
        )


def _annotation(source: Source, row: Row, subject: str, code: str) -> Annotation:
    apex = "" if row["apex"] == "0" else row["apex"]
    return Annotation(
        dataset=source.name,
        subject=subject,
        clip=row["clip"],
        onset=row["onset"],
        apex=apex,
        offset=apex if row["offset"] == "0" else row["offset"],
        label=row["label"],
        where=row.where,
        folders=source.tails(subject=subject, number=subject.lstrip("sS"), code=code),
        extra={"action_units": row["action_units"], "self_report": row["self_report"]},
        serial=row["onset"],
    )


def _number(text: str) -> str:
    """A participant's number without leading zeros."""
    return text.lstrip("0") or text
