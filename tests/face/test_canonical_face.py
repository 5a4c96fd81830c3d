"""Flow on the canonical face: a place is the same part of everybody's face, whatever that face's proportions."""

from __future__ import annotations

import numpy as np
import pytest

import flowkit
from flowkit.errors import ConfigError
from flowkit.face.canonical_face import ANCHORS, can_be_carried, canonical_places
from flowkit.face.landmarks import CANONICAL, POINTS

IDENTITY = np.eye(2, 3)
MOUTH_CORNER, CHIN, BROW = 61, 152, 105


def face(stretch: float = 0.0, size: int = 112) -> np.ndarray:
    """Landmarks in a crop of a face that is longer below the eyes than the canonical one by a share of its length there."""
    places = canonical_places()
    below = np.maximum(places[:, 1] - 0.3, 0)
    landmarks = np.full((POINTS, 2), np.nan, np.float32)
    landmarks[: len(places)] = (places + stretch * below[:, None] * [0, 1]) * size - 0.5
    return landmarks


def bump(centre: np.ndarray, size: int = 112) -> np.ndarray:
    """Flow to the right and down that rises around a place, in px, and falls back."""
    y, x = np.mgrid[:size, :size]
    height = np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * (0.06 * size) ** 2))
    return np.stack([np.stack([height, 0.5 * height]), np.stack([-height, -0.5 * height])]).astype(np.float32)


def peak(flow: np.ndarray) -> np.ndarray:
    """Where a flow is strongest: the weighted mean of places, in crops."""
    weight = np.hypot(*flow[0]) ** 4
    y, x = np.mgrid[: weight.shape[0], : weight.shape[1]] + 0.5
    return np.array([(x * weight).sum(), (y * weight).sum()]) / weight.sum() / len(weight)


@pytest.mark.parametrize("part", [MOUTH_CORNER, CHIN, BROW])
@pytest.mark.parametrize("stretch", [-0.15, 0.0, 0.12])
def test_what_moves_at_a_landmark_arrives_at_that_of_the_canonical_face(part: int, stretch: float) -> None:
    own = face(stretch)
    flow, _ = flowkit.canonical_flow(bump(own[part]), np.ones((112, 112), bool), own, IDENTITY, 28)
    assert np.abs(peak(flow) - canonical_places()[part]).max() < 0.5 / 28
    if stretch and part != BROW:
        assert np.abs(peak(bump(own[part])) - canonical_places()[part]).max() > 1 / 28


def test_a_face_that_is_canonical_but_moved_turned_and_scaled_is_taken_back_exactly() -> None:
    turned = np.array([[0.9, 0.1], [-0.1, 0.9]])
    landmarks = ((canonical_places() * 112 - 0.5) @ turned.T + [9, 7]).astype(np.float32)
    y, x = np.mgrid[:112, :112].astype(np.float32)
    flow = np.stack([np.stack([x, y]), np.stack([y, x + y])])  # linear, so that sampling between pixels is exact
    found, share = flowkit.canonical_flow(flow, np.ones((112, 112), bool), with_irises(landmarks), IDENTITY, 112)
    there = np.stack([x, y], axis=-1) @ turned.T + [9, 7]
    expected = np.moveaxis(there, -1, 0)
    within = ((there > 0) & (there < 111)).all(axis=-1)
    assert within.mean() > 0.9
    assert np.abs(found[0] - expected)[:, within].max() < 0.02
    assert np.abs(found[1, 1] - expected.sum(axis=0))[within].max() < 0.03
    np.testing.assert_allclose(share[within], 1)


def with_irises(landmarks: np.ndarray) -> np.ndarray:
    """Landmarks (468, 2) with the ten points of the irises, which nothing here looks at."""
    return np.concatenate([landmarks, np.full((POINTS - len(landmarks), 2), np.nan)]).astype(np.float32)


def test_landmarks_of_a_frame_are_brought_into_the_crop() -> None:
    own, transform = face(0.1), np.array([[0.5, 0, -10], [0, 0.5, -20]])
    in_frame = ((own - transform[:, 2]) / 0.5).astype(np.float32)
    inside = np.ones((112, 112), bool)
    flow, _ = flowkit.canonical_flow(bump(own[CHIN]), inside, in_frame, transform, 28)
    expected, _ = flowkit.canonical_flow(bump(own[CHIN]), inside, own, IDENTITY, 28)
    np.testing.assert_allclose(flow, expected, atol=1e-3)


def test_what_lies_outside_the_face_is_left_behind_and_the_face_goes_along() -> None:
    own = face(0.15)
    y, _ = np.mgrid[:112, :112]
    inside = y < own[CHIN, 1]
    flow = np.where(inside, 1.0, 99.0)[None, None].repeat(2, 0).repeat(2, 1)
    found, share = flowkit.canonical_flow(flow, inside, own, IDENTITY, 28)
    np.testing.assert_allclose(found, np.broadcast_to(share, found.shape), atol=1e-6)
    below = canonical_places()[CHIN, 1] * 28
    assert share[3 : int(below) - 1].min() > 0.99
    assert share[int(below) + 2 :].max() == 0


@pytest.mark.parametrize(("side", "size"), [(112, 28), (100, 28), (112, 112), (28, 56), (113, 31), (60, 59)])
def test_every_size_gives_the_same_picture(side: int, size: int) -> None:
    own = face(0.1, side)
    flow, share = flowkit.canonical_flow(
        bump(own[MOUTH_CORNER], side), np.ones((side, side), bool), own, IDENTITY, size
    )
    assert flow.shape == (2, 2, size, size)
    assert flow.dtype == share.dtype == np.float32
    assert np.abs(peak(flow) - canonical_places()[MOUTH_CORNER]).max() < 0.5 / 28
    assert 0.8 < flow[0, 0].max() <= 1


def test_a_mirrored_face_gives_the_mirrored_flow() -> None:
    own = face(0.1)
    pairs = {
        a: int(np.abs(canonical_places() - [1 - x, y]).sum(axis=1).argmin())
        for a, (x, y) in enumerate(canonical_places())
    }
    mirrored = own.copy()
    for a, b in pairs.items():
        mirrored[b] = [111 - own[a, 0], own[a, 1]]
    inside, flow = np.ones((112, 112), bool), bump(own[MOUTH_CORNER])
    plain, _ = flowkit.canonical_flow(flow, inside, own, IDENTITY, 28)
    other, _ = flowkit.canonical_flow(np.ascontiguousarray(flow[..., ::-1]), inside, mirrored, IDENTITY, 28)
    np.testing.assert_allclose(other[..., ::-1], plain, atol=0.02)


def test_the_eyes_of_the_canonical_face_lie_where_crops_have_them() -> None:
    for point, place in CANONICAL.items():
        assert np.abs(canonical_places()[point] - place).max() < 0.03
    assert len(set(ANCHORS)) == len(ANCHORS)


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_landmarks_that_are_missing_or_nowhere_near_are_refused(value: float) -> None:
    own = face()
    own[ANCHORS[5]] = value
    assert not can_be_carried(own, IDENTITY)
    with pytest.raises(ConfigError, match=r"landmarks must hold .* Extract"):
        flowkit.canonical_flow(bump(own[CHIN]), np.ones((112, 112), bool), own, IDENTITY, 28)
    assert not can_be_carried(face(), np.full((2, 3), np.nan))
    assert can_be_carried(face(), IDENTITY)


def test_anchors_outside_the_crop_do_no_harm() -> None:
    own = face() + np.float32(60)
    flow, share = flowkit.canonical_flow(bump(own[BROW]), np.ones((112, 112), bool), own, IDENTITY, 28)
    assert np.isfinite(flow).all()
    assert share.min() == 0
