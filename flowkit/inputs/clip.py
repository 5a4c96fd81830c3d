"""`Clip`: one row of the manifest."""

from __future__ import annotations

import functools
import hashlib
import math
from dataclasses import dataclass
from json.encoder import encode_basestring as _quoted
from typing import Literal

ApexSource = Literal["annotated", "midpoint", "offset", "spotted"]
APEX_SOURCE = "apex_source"
"""Further column in which a manifest may say so where an apex was not annotated: `flowkit spot` writes it."""

APEX_CONFIDENCE = "apex_confidence"
"""And how sure spotting is, from 0 to 1."""
SPOT_PROBLEM = "spot_problem"
"""Further column that says why a recording has no apex: `flowkit manifest videos` writes it."""


@dataclass(frozen=True, slots=True)
class Clip:
    """One row of the manifest.

    Frame numbers are those in the file names (folder of frames) or count from `frames.index_base` (video); `apex` and
    `offset` are None where the cell is empty. `extra` holds the further columns as sorted (name, text) pairs.
    """

    clip_id: str
    path: str
    onset: int
    apex: int | None
    offset: int | None
    subject: str
    dataset: str
    label: str
    fps: float = math.nan
    source_hash: str = ""
    extra: tuple[tuple[str, str], ...] = ()
    line: int = 0

    @property
    def where(self) -> str:
        """How messages name this clip."""
        return f"line {self.line} ({self.clip_id})" if self.line else self.clip_id

    def row_hash(self) -> str:
        """16 hex digits over everything in the row but its place in the file."""
        apex = "null" if self.apex is None else self.apex
        offset = "null" if self.offset is None else self.offset
        fields = (  # JSON, as json.dumps would write it in four times as long
            f"[{_quoted(self.clip_id)}, {_quoted(self.path)}, {self.onset}, {apex}, {offset}, "
            f"{_quoted_kind(self.subject, self.dataset, self.label, self.fps)}, {_quoted(self.source_hash)}, "
            f"{_quoted_pairs(self.extra)}]"
        )
        return hashlib.sha256(fields.encode()).hexdigest()[:16]


@functools.lru_cache(maxsize=1 << 14)  # one text for many clips
def _quoted_kind(subject: str, dataset: str, label: str, fps: float) -> str:
    texts = (subject, dataset, label, "" if math.isnan(fps) else repr(fps))
    return ", ".join(map(_quoted, texts))


@functools.lru_cache(maxsize=1 << 14)
def _quoted_pairs(pairs: tuple[tuple[str, str], ...]) -> str:
    return f"[{', '.join([f'[{_quoted(name)}, {_quoted(text)}]' for name, text in pairs])}]"


class Draft:
    """A clip in the making: of the same layout, but not frozen yet, which lets it be filled in a quarter of the time."""

    __slots__ = Clip.__slots__

    def __init__(
        self,
        clip_id: str,
        path: str,
        onset: int,
        apex: int | None,
        offset: int | None,
        subject: str,
        dataset: str,
        label: str,
        fps: float,
        source_hash: str,
        extra: tuple[tuple[str, str], ...],
        line: int,
    ) -> None:
        self.clip_id = clip_id
        self.path = path
        self.onset = onset
        self.apex = apex
        self.offset = offset
        self.subject = subject
        self.dataset = dataset
        self.label = label
        self.fps = fps
        self.source_hash = source_hash
        self.extra = extra
        self.line = line

    def frozen(self) -> Clip:
        """The clip that it now is."""
        self.__class__ = Clip  # type: ignore[assignment]
        return self  # type: ignore[return-value]
