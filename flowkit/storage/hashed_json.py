"""JSON that begins with the hash of its content: `encode` and `decode`."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from flowkit.errors import SchemaTooNew
from flowkit.storage.safe_files import NotRegular, regular

SCHEMA = 1
"""Of the JSON files: records, run.json, plans, and what fmanet writes. Shards count their own: `schema.SHARD_SCHEMA`."""
_HEAD, _MIDDLE, _TAIL = b'{"sha256": "', b'", "content": ', b"}\n"
_BODY = len(_HEAD) + 64 + len(_MIDDLE)
_INDENTED_HEAD = b'{\n "sha256": "'
"""Of version 0.1, which indented the JSON; its hash is that of the content without spaces and breaks, as `encode` writes it."""
_STATED = re.compile(rb'\{\s*"sha256": "([0-9a-f]{64})"')


def encode(content: Mapping[str, Any]) -> bytes:
    """JSON of a record, with the hash that proves it whole: that of the very bytes in which the content stands."""
    body = json.dumps(content, sort_keys=True, default=list).encode()  # list: of `Rows`
    return b"".join((_HEAD, hashlib.sha256(body).hexdigest().encode(), _MIDDLE, body, _TAIL))


def decode(text: bytes) -> dict[str, Any] | None:
    """What `encode` was given, or None if a byte is wrong, or the form, as in a file that nobody made with `encode`.

    Raises
    ------
    SchemaTooNew
    """
    try:
        content: dict[str, Any] = _verified(text)
        schema = content["schema"]
    except (ValueError, KeyError, TypeError, RecursionError):  # the last: thousands of brackets
        return None
    if type(schema) is not int:
        return None
    if schema > SCHEMA:
        raise SchemaTooNew(
            f"folder: schema must be at most {SCHEMA}; got {schema}. Read it with the newer flowkit that wrote it."
        )
    return content


def _verified(text: bytes) -> Any:
    """The content, if its hash is right."""
    hash_end = _BODY - len(_MIDDLE)
    if text.startswith(_HEAD) and text[hash_end:_BODY] == _MIDDLE and text.endswith(_TAIL):
        stated, body = text[len(_HEAD) : hash_end], text[_BODY : -len(_TAIL)]
        return json.loads(body.decode()) if stated == hashlib.sha256(body).hexdigest().encode() else None
    if not text.startswith(_INDENTED_HEAD):
        return None
    outer = json.loads(text.decode())  # of bytes, json would take other encodings too
    body = json.dumps(outer["content"], sort_keys=True).encode()
    return outer["content"] if outer["sha256"] == hashlib.sha256(body).hexdigest() else None


def stated_hash(path: str) -> str:
    """The hash that an encoded file states at its beginning, unproven; empty if it is no such file."""
    if path.endswith(".h5"):
        return ""
    try:
        with open(path, "rb", buffering=0, opener=regular) as file:
            found = _STATED.match(file.read(_BODY))
    except NotRegular:
        return ""
    return found[1].decode() if found else ""
