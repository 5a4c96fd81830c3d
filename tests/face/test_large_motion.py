"""Heads that turn far: what a further turn moves, what is hidden, how the shading changes; the script that measures it."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

from flowkit.face.head_motion import POSE, head_fields, motion_of, tell_apart
from flowkit.face.head_shape import GRID, NOMINAL_PX, HeadShape
from flowkit.face.head_tracking import turned
from flowkit.face.landmarks import POINTS
from flowkit.face.shading import match_shading
from flowkit.storage.schema import DEPTH_MODES

SIZE = 64
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def shape() -> HeadShape:
    return HeadShape.of(np.full((POINTS, 2), np.nan, np.float32), np.eye(2, 3), SIZE)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import large_motion

    return large_motion


@pytest.mark.parametrize("turn", [[0.0, 0.0], [0.25, 0.0], [0.0, -0.25], [-0.2, 0.2]])
@pytest.mark.parametrize("axis", [0, 1])
def test_what_a_further_turn_moves_is_the_slope_of_the_turn(shape: HeadShape, turn: list[float], axis: int) -> None:
    further = np.zeros(2)
    further[axis] = 0.01
    there, here = (turned(shape, np.array(turn) + k * further, SIZE) for k in (1, 0))
    motion = np.zeros((2, POSE))
    motion[0, 4:] = further
    moved = motion_of(motion, np.array([turn, [0, 0]]) + motion[:, 4:], np.zeros(DEPTH_MODES), shape, SIZE)[0]
    inner = np.s_[:, 16:48, 16:48]
    slope, expected = moved[inner], (there - here)[inner]
    assert np.abs(slope - expected).max() < 0.1 * np.abs(expected).max() + 0.01
    fields = head_fields(shape.depth(SIZE) * NOMINAL_PX / SIZE, shape, NOMINAL_PX / SIZE, np.array(turn))
    assert np.allclose(fields[4 + axis][inner] * SIZE / NOMINAL_PX, slope, atol=0.02)


def test_a_turned_head_is_not_turned_on_by_its_own_foreshortening(shape: HeadShape) -> None:
    """The flow that a turn from 14 to 12 degrees makes is told apart as that."""
    turn = np.radians([[14.0, 0.0], [14.0, 0.0]])
    back = np.radians([-2.0, 0.0])
    flow = turned(shape, turn[0] + back, SIZE) - turned(shape, turn[0], SIZE)
    fit = tell_apart(
        np.stack([flow, 0 * flow]).astype(np.float32), shape, np.ones((GRID, GRID), bool), (True, False), turn
    )
    assert np.degrees(fit.motion[0, 4]) == pytest.approx(-2, abs=0.6)
    assert abs(np.degrees(fit.motion[0, 5])) < 0.3


def test_what_a_turn_hides_does_not_count(shape: HeadShape) -> None:
    turn = np.radians([[25.0, 0.0], [25.0, 0.0]])
    hidden = np.cos(turn[0, 0]) + np.sin(turn[0, 0]) * shape.slopes[0] < 0.5
    assert 5 < hidden.sum() < GRID * GRID / 3
    wild = cv2.resize(hidden.astype(np.float32), (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    flow = np.zeros((2, 2, SIZE, SIZE), np.float32)
    flow[:, 0] = 5 * (cv2.dilate(wild, np.ones((3, 3))) > 0) * (wild > 0.5)
    fit = tell_apart(flow, shape, np.ones((GRID, GRID), bool), (True, True), turn)
    facing = tell_apart(flow, shape, np.ones((GRID, GRID), bool), (True, True), 0 * turn)
    assert fit.moved_px.max() < 0.5 * facing.moved_px.max()


def test_shading_that_follows_the_surface_is_matched(shape: HeadShape) -> None:
    rng = np.random.default_rng(0)
    onset = (0.4 + 0.2 * rng.random((SIZE, SIZE), np.float32)).astype(np.float32)
    slope = np.kron(shape.slopes[0], np.ones((3, 3)))[:SIZE, :SIZE].astype(np.float32)
    picture = onset / (1 + 0.15 * -slope / np.sqrt(1 + slope**2))
    inside = np.zeros((GRID, GRID), bool)
    inside[6:18, 6:18] = True
    left = [
        np.abs(match_shading(onset, picture, shape, inside, np.array([turn, 0.0])) - onset)[16:40, 16:40].mean()
        for turn in (0.0, 0.2)
    ]
    assert left[1] < 0.6 * left[0]
    assert match_shading(onset, picture, shape, inside, np.zeros(2)) is picture
    assert match_shading(onset, picture, shape, ~(inside | ~inside), np.ones(2)) is picture


def test_the_shading_of_the_same_picture_is_left_alone(shape: HeadShape) -> None:
    picture = np.random.default_rng(1).random((SIZE, SIZE), np.float32)
    assert np.allclose(
        match_shading(picture, picture, shape, np.ones((GRID, GRID), bool), np.array([0.1, 0.1])), picture, atol=1e-6
    )


def test_the_benchmark_counts_what_is_lost_and_what_is_far_off(bench: ModuleType) -> None:
    found = [bench.Found("ours", "turning by 15", "head", "", 0.2, 0.4, True)]
    found += [bench.Found("ours", "turning by 15", "head", "", 1.2, 1.4, False)]
    found += [bench.Found("ours", "turning by 15", "head", "FACE_LOST")]
    found += [bench.Found("ours", "wall", "head", "FACE_LOST")]
    result = {"faces": bench.summary(found), "real_video": {}}
    figures = result["faces"]["ours"]["turning by 15"]["head"]
    assert (figures["frames"], figures["accepted"], figures["codes"]) == (3, 2, {"FACE_LOST": 1})
    assert (figures["too_far"], figures["landmark_starts"]) == (1, 1)
    printed = bench.tables(result)
    assert "| turning by 15 | `head` | 3 | FACE_LOST 1 | 0.70 |" in printed
    assert "| wall | `head` | 1 | FACE_LOST 1 |" in printed


def test_the_error_in_the_plane_is_that_of_a_similarity(bench: ModuleType) -> None:
    inside = np.ones((20, 20), bool)
    y, x = np.mgrid[:20, :20] - 9.5
    turn = np.stack([-0.01 * y, 0.01 * x]) + np.array([3.0, 4.0])[:, None, None]
    bowl = np.stack([x * x - (x * x).mean(), 0 * x]) / 50
    assert bench.in_plane((turn + bowl)[:, inside], inside) == pytest.approx(5, abs=0.05)


def test_scenes_differ_in_the_motion_they_are_named_for(bench: ModuleType) -> None:
    found = bench.groups("judging")
    assert [found[f"turning by {n}"].turn_deg for n in (5, 10, 15)] == [5, 10, 15]
    assert [found[f"shifted by {n}"].drift_px for n in (20, 30)] == [20, 30]
    assert found["grimace"].peaks_px == (6, 6)
    assert bench.HOSTILE in found
