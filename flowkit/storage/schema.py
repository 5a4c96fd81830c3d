"""The schema of a shard: its columns, their shapes, types, units and meaning.

The writer makes exactly these datasets and the reader accepts nothing else. Add a column here under the newest schema or, once
that is released, under a next one, and give it a value in `extraction.task`, unless it is the record of a step of
`face.picture_steps`. Older shards are read without it. This module imports no HDF5.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

SHARD_SCHEMA: Final = 2
"""Of the shards that are written; all from 1 on are read. 1 is that of flowkit 0.1.

The JSON files of a folder keep a number of their own (`hashed_json.SCHEMA`), because their form has not changed: so version 0.1
still reads what a folder of today says of its clips, and refuses its shards alone, in clear words.
"""
NEWER_SETTINGS: Final[dict[str, dict[str, Any]]] = {
    "frames": {"average": "off"},
    "align": {"match_contrast": False},
}
"""By table and name: settings that folders of an older version do not name, with the value that stands for what it did."""
FACE, RIGID = 1, 2
"""Bits of the column `regions`: the face, and the part of it that expressions move least."""
_NAMES = """
    1L 1R 2L 2R 4L 4R 5L 5R 6L 6R 7L 7R 9L 9R 10L 10R 12L 12R 14L 14R 15L 15R 16L 16R 17B 20L 20R 24L 24R 25L 25R 26B 45L 45R
"""
ACTION_UNITS: Final = tuple(_NAMES.split())
"""Action units whose strength a shard holds (column `au_hint`), in order: number and side; L and R are the subject's left and
right, B is both."""
DEPTH_MODES: Final = 16
"""Smooth changes by which the depth of faces differs: `face.head_shape` has them."""
SIZE: Final = -1
"""Stands in a shape for the side of the face crop."""
TEXT: Final = "text"
"""Fixed-length UTF-8, as long as the longest value of the shard."""
MAX_TEXT_BYTES: Final = 1 << 16
FACES: Final = "faces"
"""The optional column that takes space."""
SPOTTED: Final = ("apex_confidence", "apex_curve")
"""What the column `extra` says of an apex that was found, beside the further columns of the manifest."""
UNITS: Final = ("px", "minmax")
"""What flow may be measured in: pixels, as extraction does, or values that were min-max scaled for each picture (imports)."""

_UNKNOWN: Final[dict[str, float | str]] = {"f": math.nan, "i": -1, "u": 0, "b": False, TEXT: ""}
"""What stands where nothing is known, by the kind of the type."""


@dataclass(frozen=True, slots=True)
class Column:
    """One dataset of a shard: (N, *shape), stored one sample a chunk if `chunked`, in shards from the schema `since` on.

    An `optional` one is there under some settings only: its meaning says which.
    `unknown` stands where nothing is known of a clip; None for that of the type: NaN, -1, 0 of what has no sign, False or "".
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    meaning: str
    chunked: bool = False
    optional: bool = False
    since: int = 1
    unknown: float | str | None = None

    def nothing_known(self, size: int) -> Any:
        """Return what a clip has in this column of which nothing is known; `size` is the side of the crop."""
        kind = self.dtype if self.dtype == TEXT else np.dtype(self.dtype).kind
        value = _UNKNOWN[kind] if self.unknown is None else self.unknown
        return np.full(sized(self.shape, size), value) if self.shape else value


def _since(schema: int, *columns: Column) -> tuple[Column, ...]:
    """Columns of shards from this schema on."""
    return tuple(replace(column, since=schema) for column in columns)


COLUMNS: Final = (
    Column("flow", (2, 2, SIZE, SIZE), "<f2", "phase (rise, fall), component (u right, v down); px of the crop", True),
    Column("mmcof", (3, SIZE, SIZE), "<f2", "M' cos a, M' sin a, M'", True),
    Column("regions", (SIZE, SIZE), "|u1", "bit 1: face; bit 2: the part that expressions move least", True),
    Column(FACES, (3, SIZE, SIZE), "<f2", "grey onset, apex, offset in [0, 1]; only with shard.keep_faces", True, True),
    Column("clip_id", (), TEXT, "as in the manifest"),
    Column("dataset", (), TEXT, "as in the manifest"),
    Column("subject", (), TEXT, "as in the manifest; unique only together with dataset"),
    Column("label", (), TEXT, "raw emotion word of the data set"),
    Column("onset", (), "<i4", "frame number"),
    Column("apex", (), "<i4", "frame number"),
    Column("offset", (), "<i4", "frame number; -1 where there is none"),
    Column("apex_source", (), TEXT, "annotated, midpoint, offset or spotted", unknown="unknown"),
    Column("fps", (), "<f4", "frames per second; NaN where unknown"),
    Column("phase_valid", (2,), "|b1", "rise, fall"),
    Column("qc", (), "<u4", "bits of flowkit.quality.Flag"),
    Column("n_faces", (), "<i2", "faces found in the onset; 0 where none was looked for", unknown=0),
    Column("transform", (2, 3), "<f8", "T0: onset image px -> crop px"),
    Column("registration", (2, 2, 3), "<f8", "apex, offset: onset crop px -> their crop px under T0"),
    Column("light", (2, 2), "<f8", "gain and offset applied to apex and offset, grey in [0, 1]"),
    Column("removed", (2, 2, 3), "<f8", "motion subtracted from each phase: (u, v) = A [x, y, 1]"),
    Column(
        "residual",
        (2,),
        "<f4",
        "median length of what was left to explain, px: with align.stabilise=head of what is neither the head's motion nor an "
        "expression's, otherwise of the flow on the still part of the face",
    ),
    *_since(
        2,
        Column(
            "turn",
            (2, 2),
            "<f8",
            "apex, offset: yaw and pitch of the head relative to the onset that were undone in the pictures, degrees",
        ),
        Column(
            "removed_turn", (2, 2), "<f8", "rise, fall: yaw and pitch of the head subtracted from the flow, degrees"
        ),
        Column(
            "depth",
            (2, DEPTH_MODES),
            "<f4",
            "how the face's depth differs from the canonical one, cm in each mode of flowkit.head_shape: as known when the "
            "pictures were made, and what the flow added",
        ),
        Column(
            "separation",
            (2,),
            "<f4",
            "rise, fall: how well head and expression could be told apart: standard deviation of the head's motion in the face, "
            "px; NaN unless align.stabilise is head",
        ),
        Column(
            "au_hint",
            (2, len(ACTION_UNITS)),
            "<f4",
            "apex, offset: strength of each of the file's action_units relative to the onset, cm where it is strongest; a "
            "by-product of the head fit, no FACS coding; NaN unless align.stabilise is head",
        ),
        Column("noise", (), "<f4", "standard deviation of the frames' noise, grey levels; NaN where unknown"),
        Column(
            "contrast", (), "<f4", "standard deviation of the onset inside the face, grey levels; NaN where unknown"
        ),
        Column(
            "data_weight",
            (),
            "<f4",
            "factor by which the weight of TV-L1's data term was raised for contrast and noise; 1 without",
            unknown=1.0,
        ),
    ),
    Column(
        "frames_averaged",
        (3,),
        "|u1",
        "onset, apex, offset: how many frames the key frame is the mean of, itself included; only with frames.average",
        optional=True,
        since=2,
    ),
    Column("landmarks", (478, 2), "<f4", "of the onset, image px (x, y); NaN where there are none", True),
    Column("source_hash", (), TEXT, "xxh3-128 of the files read"),
    Column(
        "neighbours_hash",
        (),
        TEXT,
        "xxh3-128 of the files read beside the key frames; empty where there are none, or a video; only with frames.average",
        optional=True,
        since=2,
    ),
    Column(
        "extra",
        (),
        TEXT,
        "further manifest columns, JSON; of a spotted apex also apex_confidence and apex_curve; records of align.steps",
    ),
    Column("sample_hash", (), TEXT, "xxh3-64 of this clip's numbers"),
)
"""The meanings are stored in every shard, so their words do not change: the modules `flowkit.quality` and `flowkit.head_shape` that
two of them name are `storage.quality` and `face.head_shape` today."""
HASHED: Final = tuple(c.name for c in COLUMNS if c.dtype != TEXT)
Sample = Mapping[str, Any]
"""One clip's value for each column but `sample_hash`; arrays without the leading N."""


def sample_bytes(size: int, keep_faces: bool) -> int:
    """Bytes a clip takes in an uncompressed shard, texts apart.

    Parameters
    ----------
    size : int
        Side of the crop in pixels.
    keep_faces : bool
    """
    columns = [c for c in COLUMNS if c.dtype != TEXT and (keep_faces or c.name != FACES)]
    return sum(np.dtype(c.dtype).itemsize * int(np.prod(sized(c.shape, size))) for c in columns)


def sized(shape: tuple[int, ...], size: int) -> tuple[int, ...]:
    """Return a shape of `COLUMNS` with the side of the crop in the place of `SIZE`."""
    return tuple(size if n == SIZE else n for n in shape)
