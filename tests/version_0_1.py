"""How version 0.1 wrote and read its JSON files and hashed a manifest's row: what folders in the field are made of."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowkit import commit
from flowkit.manifest import Clip


def encode(content: Mapping[str, Any]) -> bytes:
    """Indented JSON, with the hash of the content as it would stand without the indentation."""
    return json.dumps({"sha256": _digest(content), "content": content}, indent=1, ensure_ascii=False).encode() + b"\n"


def decode(text: bytes) -> dict[str, Any] | None:
    """What `encode` was given, or None."""
    outer = json.loads(text)
    content: dict[str, Any] = outer["content"]
    return content if _digest(content) == outer["sha256"] else None


def row_hash(clip: Clip) -> str:
    """16 hex digits over everything in the row but its place in the file."""
    fields = [clip.clip_id, clip.path, clip.onset, clip.apex, clip.offset, clip.subject, clip.dataset, clip.label]
    fields += ["" if math.isnan(clip.fps) else repr(clip.fps), clip.source_hash, clip.extra]
    return hashlib.sha256(json.dumps(fields, ensure_ascii=False).encode()).hexdigest()[:16]


def write_anew(out: Path) -> None:
    """Turn a folder of today into one of version 0.1: the same contents, its layout, its index."""
    for path in [out / commit.RUN_FILE, *out.glob("plan/*.json"), *out.glob("shards/*/*.json")]:
        content = commit.decode(path.read_bytes())
        if content is None:
            raise ValueError(f"{path} is damaged")
        path.write_bytes(encode(content))
    (out / "index.npz").rename(out / "index.json")


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
