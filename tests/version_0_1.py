"""How version 0.1 wrote and read its files and hashed a manifest's row: what folders in the field are made of."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import xxhash

from flowkit.inputs.clip import Clip
from flowkit.storage import commit, hashed_json

COLUMNS = (
    *(
        "flow",
        "mmcof",
        "regions",
        "faces",
        "clip_id",
        "dataset",
        "subject",
        "label",
        "onset",
        "apex",
        "offset",
        "apex_source",
    ),
    *("fps", "phase_valid", "qc", "n_faces", "transform", "registration", "light", "removed", "residual", "landmarks"),
    *("source_hash", "extra", "sample_hash"),
)
"""Of its shards, in the order of the hash of a sample."""


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
    """Turn a folder of today into one of version 0.1: the same contents, its layout, its columns, its index."""
    for path in [out / commit.RUN_FILE, *out.glob("plan/*.json"), *out.glob("shards/*/*.json")]:
        content = hashed_json.decode(path.read_bytes())
        if content is None:
            raise ValueError(f"{path} is damaged")
        if content.pop("shard_schema", None):
            content["versions"]["flowkit"] = "0.1.0"
        if content.get("file"):
            content["file"] = _write_shard_anew(path.parent / content["file"]["name"])
        path.write_bytes(encode(content))
    (out / "index.npz").rename(out / "index.json")


def _write_shard_anew(path: Path) -> dict[str, Any]:
    """Put a shard of schema 1 in the place of one of today; what its record says of it."""
    with h5py.File(path, "r+") as file:
        for name in set(file) - set(COLUMNS):
            del file[name]
        file.attrs["schema"] = 1
        del file.attrs["action_units"]
        hashed = [name for name in COLUMNS if name in file and h5py.check_string_dtype(file[name].dtype) is None]
        for row in range(len(file["flow"])):
            numbers = b"".join(file[name][row].tobytes() for name in hashed)
            file["sample_hash"][row] = xxhash.xxh3_64_hexdigest(numbers)
    image = path.read_bytes()
    path.unlink()
    digest = hashlib.sha256(image).hexdigest()
    name = f"{path.name[:6]}-{digest[:12]}.h5"
    path.with_name(name).write_bytes(image)
    return {"name": name, "bytes": len(image), "sha256": digest}


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
