"""What was taken out of a clip as motion of the head can be computed again from its shard alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from flowkit.face.align import Face
from flowkit.face.contrast import UNMATCHED
from flowkit.face.head_motion import motion_of
from flowkit.face.head_shape import HeadShape
from flowkit.face.landmarks import POINTS
from flowkit.face.regions import regions
from flowkit.motion.flow import Flow, stabilised
from flowkit.motion.stored_head_motion import RemovedMotion, removed_motion
from flowkit.storage.schema import DEPTH_MODES, FACE

SIZE = 96
TURN_DEG = np.array([[3.0, -1.0], [1.0, 2.0]])
SHIFTS_PX = ((2.0, -1.0), (5.0, 0.5))


def face() -> Face:
    """A face without landmarks that moved and turned before the pictures were made."""
    landmarks, transform = np.full((POINTS, 2), np.nan, np.float32), np.eye(2, 3)
    depth_cm = np.linspace(-0.3, 0.3, DEPTH_MODES)
    return Face(
        pixels=np.random.default_rng(0).random((3, SIZE, SIZE), np.float32),
        regions=regions(landmarks, transform, SIZE),
        transform=transform,
        registration=np.array([[[1, 0, x], [0, 1, y]] for x, y in SHIFTS_PX]),
        records={"light": np.array([[1.0, 0.0]] * 2)},
        landmarks=landmarks,
        n_faces=0,
        signal=UNMATCHED,
        turn=TURN_DEG,
        shape=HeadShape.of(landmarks, transform, SIZE).corrected(depth_cm),
        depth_cm=depth_cm,
    )


def columns(face: Face, flow: Flow, valid: tuple[bool, bool]) -> dict[str, Any]:
    """As a shard holds them."""
    return {
        "flow": flow.flow.astype(np.float16),
        "regions": face.regions,
        "phase_valid": np.array(valid),
        "transform": face.transform,
        "registration": face.registration,
        "removed": flow.removed,
        "turn": face.turn,
        "removed_turn": flow.removed_turn,
        "depth": np.stack([face.depth_cm, flow.depth_cm]).astype(np.float32),
        "separation": flow.separation,
        "landmarks": face.landmarks,
    }


def raw() -> npt.NDArray[np.float32]:
    """A flow with a motion of the head, and a bump."""
    size = np.arange(SIZE) / SIZE
    bump = np.exp(-((size - 0.5) ** 2 + (size[:, None] - 0.75) ** 2) / 0.02)
    pose = np.array([[1.0, -0.5, 0.01, 0.005, 0.02, -0.01], [-2.0, 0.3, -0.01, 0.0, 0.01, 0.03]])
    head = motion_of(pose, pose[:, 4:], np.zeros(DEPTH_MODES), face().shape, SIZE)
    return np.asarray(head + np.stack([bump, -bump])[:, None], np.float32)


def removed(valid: tuple[bool, bool] = (True, True)) -> tuple[Flow, RemovedMotion]:
    (flow,) = stabilised((raw() * np.reshape(valid, (2, 1, 1, 1)))[None], [face()], [valid], "head")
    assert isinstance(flow, Flow)
    found = removed_motion(columns(face(), flow, valid))
    assert found is not None
    return flow, found


def test_the_stored_flow_and_what_was_subtracted_are_the_flow_of_the_solver() -> None:
    flow, found = removed()
    assert np.hypot(*found.subtracted[0]).mean() > 0.3
    np.testing.assert_allclose(flow.flow + found.subtracted, raw(), atol=1e-4)


def test_what_was_undone_in_the_pictures_is_the_registration_and_the_turn() -> None:
    _, found = removed()
    inside = (face().regions & FACE) > 0
    depth = face().shape.depth(SIZE)
    for phase, shift, turn in (
        (0, np.array(SHIFTS_PX[0]), TURN_DEG[0]),
        (1, np.subtract(SHIFTS_PX[1], SHIFTS_PX[0]), TURN_DEG[1] - TURN_DEG[0]),
    ):
        expected = shift[:, None, None] + np.radians(turn)[:, None, None] * depth
        assert np.abs(found.undone[phase] - expected)[:, inside].max() < 0.4
        assert np.abs(found.undone[phase] - expected)[:, inside].mean() < 0.1


def test_an_invalid_phase_has_none() -> None:
    _, found = removed((True, False))
    assert found.undone[0].any()
    assert not found.undone[1].any()
    assert not found.subtracted[1].any()


@pytest.mark.parametrize("stabilise", ["none", "register", "similarity"])
def test_it_is_known_only_where_head_and_expression_were_told_apart(stabilise: str) -> None:
    (flow,) = stabilised(raw()[None], [face()], [(True, True)], stabilise)
    assert isinstance(flow, Flow)
    sample = columns(face(), flow, (True, True))
    assert removed_motion(sample) is None
    del sample["separation"], sample["turn"], sample["removed_turn"], sample["depth"]  # as in schema 1
    assert removed_motion(sample) is None
