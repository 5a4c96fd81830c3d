"""SAMM Long Videos: macro- and micro-expressions as intervals of long videos, in a sheet without a header below prose.

The sheet has no emotions; those of the micro-expressions are taken from the workbook of SAMM where it is under the root.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from flowkit.datasets.base import MAX_NAMED, Annotation
from flowkit.datasets.sets.kinds import is_wanted, kind_column, passed_over, serial
from flowkit.datasets.sets.samm import subject_id
from flowkit.datasets.source import Source
from flowkit.listing import listed


def annotate(source: Source) -> Iterator[Annotation]:
    """Every row that says of which kind it is; rows above are prose, and have no number for an onset."""
    emotions = {row["clip"]: row["label"] for row in source.joined("emotions")}
    unreturned = []
    others: Counter[str] = Counter()
    for row in source.table():
        if not is_wanted(source, row["kind"]):
            others[row["kind"] or "no type"] += row["onset"].isdecimal()
            continue
        ended = row["offset"] not in ("0", "-1")
        video = "_".join(row["clip"].split("_")[:2])
        annotation = source.annotation(
            row,
            subject_id(row["subject"]),
            {"action_units": row["action_units"], **kind_column(source, row["kind"])},
            offset=row["offset"] if ended else row["apex"],
            label=emotions.get(row["clip"], "") if row["kind"].casefold().startswith("micro") else "",
            folders=source.tails(video=video),
            serial=serial(source, row),
        )
        if not ended:
            unreturned.append(annotation.clip_id)
        yield annotation
    passed_over(source, +others)
    if not emotions:
        source.note("the workbook of SAMM (Micro_FACS_Codes) is not there: no clip has an emotion.")
    if unreturned:
        source.note(f"{len(unreturned)} clips have no offset and end with their apex: {listed(unreturned, MAX_NAMED)}.")
