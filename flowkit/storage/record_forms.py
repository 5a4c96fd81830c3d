"""Which form the JSON files of a folder must have.

A hash in a file proves that nobody damaged it, not that flowkit wrote it. So whatever readers rely on (which keys there are, that
a count is a count) is checked here, once. A million clips take about a second: columns are looked at, not cells.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

CLIP_TEXTS = ("clip_id", "dataset", "subject", "label", "row", "source_hash")
FAILURE_TEXTS = ("clip_id", "row", "code", "message", "path", "host")
COMPRESSIONS = ("none", "zstd")
MAX_NUMBER = 10**9
"""Above the number of any task."""
MAX_TIME = 1e11
"""Above any time of day, in seconds since 1970; the year is 5138."""
MAX_SIDE = 4096
MAX_DEPTH = 5

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


def is_record(content: Mapping[str, Any]) -> bool:
    """Whether this is what `task.record_content` makes, published with `commit.publish`."""
    try:
        return _is_record(content)
    except (KeyError, TypeError, ValueError):
        return False


def is_run(content: Mapping[str, Any]) -> bool:
    """Whether this is what an extraction or import stores as run.json."""
    try:
        return _is_run(content)
    except (KeyError, TypeError, ValueError):
        return False


def is_generation(content: Mapping[str, Any]) -> bool:
    """Whether this is what `generations.publish_generation` stores."""
    try:
        texts = [text for task in content["tasks"] for name, row in task for text in (name, row)]
        return is_count(content["first_task"]) and are_texts(texts)
    except (KeyError, TypeError, ValueError):
        return False


def _is_record(content: Mapping[str, Any]) -> bool:
    clips, failures = content["clips"], content["failures"]
    return (
        is_count(content["task"])
        and are_texts([content["key"], content["host"], content.get("run", ""), content.get("device", "")])
        and all(type(time) in (int, float) and 0 <= time < MAX_TIME for time in (content["began"], content["ended"]))
        and (content["file"] is None or _is_file(content["file"]))
        and type(clips) is type(failures) is list
        and all(are_texts(list(map(itemgetter(name), clips)), printable=True) for name in CLIP_TEXTS)
        and all(are_texts(list(map(itemgetter(name), failures))) for name in FAILURE_TEXTS)
        and _are_between(list(map(itemgetter("qc"), clips)), 0, 1 << 32)
        and _are_between([clip.get("apex", -1) for clip in clips], -1, MAX_NUMBER)  # -1: an import that knows of none
        and {*map(tuple, map(itemgetter("phase_valid"), clips))}
        <= {(a, b) for a in (True, False) for b in (True, False)}
    )


def _are_between(values: Sequence[Any], least: int, end: int) -> bool:
    """Whether these are whole numbers, none of them below `least` or at `end` and above."""
    return not values or ({*map(type, values)} == {int} and least <= min(values) and max(values) < end)


def _is_file(file: Mapping[str, Any]) -> bool:
    return are_texts([file["name"], file["sha256"]]) and type(file["bytes"]) is int and file["bytes"] >= 0


def _is_run(content: Mapping[str, Any]) -> bool:
    settings = content["settings"]
    size = settings["align"]["size"]
    return (
        are_texts([content["fingerprint"], content["backend"], settings["backend"], settings["align"]["stabilise"]])
        and all(is_tree(content[name]) for name in ("settings", "versions", "machine"))
        and is_tree(content.get("device", {}))
        and all(isinstance(device, Mapping) for device in content.get("device", {}).values())
        and type(size) is int
        and 0 < size <= MAX_SIDE
        and settings["shard"]["compress"] in COMPRESSIONS
        and type(settings["shard"]["keep_faces"]) is bool
        and type(settings.get("units", "")) is str
        and is_count(content.get("shard_schema", 1), 1)
    )


def is_tree(values: Any, depth: int = MAX_DEPTH) -> bool:
    """Whether these are names and plain values, or names and such again."""
    if not isinstance(values, Mapping) or not depth or not are_texts(list(values)):
        return False
    return all(_is_plain(value) or is_tree(value, depth - 1) for value in values.values())


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(not isinstance(entry, list) and _is_plain(entry) for entry in value)
    return are_texts([value]) if isinstance(value, str) else value is None or isinstance(value, bool | int | float)


def is_count(value: Any, least: int = 0) -> bool:
    """Whether this is a whole number that something here can have."""
    return type(value) is int and least <= value < MAX_NUMBER


def are_texts(values: Iterable[Any], *, printable: bool = False) -> bool:
    """Whether these are texts; TypeError where one is none, UnicodeEncodeError where one holds half a character."""
    joined = "".join(values)
    joined.encode()
    return not printable or joined.isprintable() or not _CONTROL.search(joined)  # nearly all is, which is told faster
