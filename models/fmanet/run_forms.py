"""Which form run.json and the records of a run must have: a hash in a file does not prove that fmanet wrote it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flowkit.storage.record_forms import MAX_TIME, are_texts, is_count, is_tree

MAX_SIDE = 4096
FILES = ("weights", "predictions", "log")
MAY_BE = "every_epoch"


def is_run(content: Mapping[str, Any]) -> bool:
    """Whether this is what `run` stores as run.json, but for its settings, which have checks of their own."""
    try:
        clips = content["clips"]
        phases, components, *shape = clips["shape"]
        texts = [content["fingerprint"], clips["digest"], clips["units"], *clips["subjects"], *clips["classes"]]
        return (
            are_texts(texts)
            and are_texts(text or "" for text in (*clips["folders"], *clips["folders"].values()))
            and (phases, components, len(shape)) == (2, 2, 2)
            and all(type(side) is int and 0 < side <= MAX_SIDE for side in shape)
            and is_count(clips["count"])
            and all(map(is_tree, clips.get("alignment", [])))  # runs of earlier versions do not say
            and all(is_tree(content[name]) for name in ("settings", "versions", "device", "machine"))
            and len(clips["classes"]) == content["settings"]["network"]["classes"]
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        return False


def is_record(content: Mapping[str, Any]) -> bool:
    """Whether this is what `task` commits of a network, as far as readers rely on it before they look at its weights."""
    try:
        return (
            all(_is_file(content[name]) for name in FILES)
            and (MAY_BE not in content or _is_file(content[MAY_BE]))
            and is_count(content["epochs"])
            and type(content["seconds"]) in (int, float)
            and 0 <= content["seconds"] < MAX_TIME
            and are_texts([content["host"]])
        )
    except (KeyError, TypeError, ValueError):
        return False


def _is_file(entry: Mapping[str, Any]) -> bool:
    return are_texts([entry["name"], entry["sha256"]]) and type(entry["bytes"]) is int
