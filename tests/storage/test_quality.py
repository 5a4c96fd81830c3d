"""What is noted of a clip, and that what the flow stage hands over is what the shard says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from flowkit.config import ExtractConfig, ShardConfig
from flowkit.extraction.compute import _quality, _sample
from flowkit.extraction.read_and_align import AlignedClip
from flowkit.face.align import Face
from flowkit.face.contrast import Signal
from flowkit.face.head_shape import HeadShape
from flowkit.inputs.clip import Clip
from flowkit.inputs.frames import Source
from flowkit.inputs.key_frames import KeyFrames
from flowkit.motion.flow import Flow
from flowkit.storage.quality import Flag
from flowkit.storage.schema import ACTION_UNITS, COLUMNS, DEPTH_MODES, FACE

SIDE = 32
TOLD_APART = {"au_hint": np.zeros((2, len(ACTION_UNITS)), np.float32)}
CERTAIN = {"separation": np.full(2, 0.1, np.float32)}


def made(face: dict[str, Any], flow: dict[str, Any]) -> tuple[AlignedClip, Flow]:
    """A clip without a note, but for what is given."""
    draw = np.random.default_rng(0)
    identity = np.eye(2, 3)
    pixels = draw.random((3, SIDE, SIDE), np.float32)
    areas = np.full((SIDE, SIDE), FACE, np.uint8)
    points = np.zeros((478, 2), np.float32)
    plain = Face(
        pixels,
        areas,
        identity,
        np.stack([identity] * 2),
        {"light": np.array([[1.0, 0.0]] * 2)},
        points,
        1,
        Signal(1.0, 30.0),
        HeadShape.of(points, identity, SIDE),
    )
    motion = draw.random((2, 2, SIDE, SIDE), np.float32)
    found = Flow(motion, np.zeros((2, 2, 3)), np.zeros(2, np.float32))
    clip = Clip("a", "a.mp4", 0, 5, 9, "s1", "d", "happiness")
    source = Source(clip, KeyFrames(0, 5, 9, "annotated", (True, True)), 200.0, "0" * 32, False, False)
    return AlignedClip(source, replace(plain, **face)), replace(found, **flow)


@pytest.mark.parametrize(
    ("face", "flow", "noted"),
    [
        ({}, {}, Flag(0)),
        ({"turn": np.array([[5.1, 0], [0, 0]])}, {}, Flag.TURNED),
        ({"turn": np.array([[0, 0], [0, -5.1]])}, {}, Flag.TURNED),
        ({"turn": np.array([[4.9, -4.9], [4.9, 0]])}, {}, Flag(0)),
        ({}, {"removed_turn": np.array([[0, 3.0], [0, 3.0]])}, Flag.TURNED),
        ({"turn": np.array([[4.0, 0], [0, 0]])}, {"removed_turn": np.array([[2.0, 0], [-2.0, 0]])}, Flag.TURNED),
        ({}, {"removed_turn": np.array([[3.0, 0], [-3.0, 0]])}, Flag(0)),
        ({"landmark_start": True}, {}, Flag.LANDMARK_START),
        ({"neighbour_refused": True}, {}, Flag.NEIGHBOURS),
        ({"signal": Signal(5.2, 30.0)}, {}, Flag.DARK),
        ({"signal": Signal(5.0, 30.0)}, {}, Flag(0)),
        ({}, {"separation": np.array([0.1, 0.31], np.float32), **TOLD_APART}, Flag.UNCERTAIN),
        ({}, {"separation": np.array([0.29, np.nan], np.float32), **TOLD_APART}, Flag.UNCERTAIN),
        ({}, {"separation": np.array([0.29, 0.1], np.float32), **TOLD_APART}, Flag(0)),
        ({}, {"residual": np.array([0.31, 0], np.float32), **TOLD_APART, **CERTAIN}, Flag.RESIDUAL),
        ({}, {"residual": np.array([0.31, 0], np.float32)}, Flag(0)),
        ({}, {"residual": np.array([0, 1.1], np.float32)}, Flag.RESIDUAL),
    ],
)
def test_a_note_is_made_where_its_limit_is_passed(face: dict[str, Any], flow: dict[str, Any], noted: Flag) -> None:
    assert _quality(*made(face, flow)) == noted


def test_a_sample_has_each_column_with_the_value_that_was_found() -> None:
    face = {
        "turn": np.array([[1.0, 2.0], [3.0, 4.0]]),
        "depth_cm": np.full(DEPTH_MODES, 0.1),
        "signal": Signal(1.5, 30.0, data_weight=2.0),
        "averaged": (1, 3, 5),
    }
    flow = {
        "removed_turn": np.array([[5.0, 6.0], [7.0, 8.0]]),
        "depth_cm": np.full(DEPTH_MODES, 0.2),
        "separation": np.array([0.1, 0.2], np.float32),
        "au_hint": np.arange(2 * len(ACTION_UNITS), dtype=np.float32).reshape(2, -1),
    }
    config = ExtractConfig(shard=ShardConfig(keep_faces=True))
    sample = _sample(*made(face, flow), np.zeros((3, SIDE, SIDE), np.float32), config)
    assert set(sample) == {column.name for column in COLUMNS} - {"sample_hash"}
    for name in ("turn", "removed_turn", "separation", "au_hint"):
        assert np.array_equal(sample[name], (face | flow)[name]), name
    assert sample["frames_averaged"].tolist() == [1, 3, 5]
    assert (sample["noise"], sample["contrast"], sample["data_weight"]) == (1.5, 30.0, 2.0)
    assert np.array_equal(sample["depth"][:, 0], [0.1, 0.2]), "in the pictures, then what the flow added"


def test_the_names_of_action_units_are_those_of_the_columns_places() -> None:
    assert (len(ACTION_UNITS), len(set(ACTION_UNITS))) == (34, 34)
    assert (ACTION_UNITS[0], ACTION_UNITS[16:18], ACTION_UNITS[-1]) == ("1L", ("12L", "12R"), "45R")
