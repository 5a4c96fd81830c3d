"""The measures of a movement are what they are called, and its confidence is a logistic function of them."""

from __future__ import annotations

import csv
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from flowkit.motion.peak_search import rise_and_fall
from flowkit.spotting.confidence import (
    MEASURES,
    REGIONS,
    WEIGHTS,
    confidence,
    face_motion,
    length_px,
    measured,
    region_of,
    weights_of,
)
from flowkit.spotting.course import UNITS
from flowkit.spotting.movements import Movement

Array = npt.NDArray[np.float64]
FPS, COUNT = 30.0, 200
ONSET, APEX, OFFSET = 90, 102, 120


def hill(rest: float = 0.0) -> Array:
    """A course that rises from 0 to 1 and falls to a rest."""
    risen, fallen = rise_and_fall(np.arange(COUNT, dtype=np.float64), ONSET, APEX, OFFSET).T
    return np.asarray(risen - (1 - rest) * fallen)


def movement(**other: Any) -> Movement:
    """The movement that `hill` is, and that its curve shows."""
    values: dict[str, Any] = {
        "onset": float(ONSET),
        "apex": float(APEX),
        "offset": float(OFFSET),
        "length_s": 1.0,
        "score": 200.0,
        "background": 3.0,
        "curve": hill()[60:160],
        "begin": 60,
    }
    return Movement(**(values | other))


def strengths(**of_units: float) -> Array:
    values = np.zeros(len(UNITS))
    for name, strength in of_units.items():
        values[UNITS.index(name.removeprefix("au"))] = strength
    return values


def measures(
    units: Array, lids: Array | None = None, turn: Array | None = None, one: Movement | None = None
) -> dict[str, float]:
    closing, turned = (np.zeros((len(units), 2)) if values is None else values for values in (lids, turn))
    found = measured(one or movement(), units, closing, turned, FPS)
    return dict(zip(MEASURES, found.measures.tolist(), strict=True))


def test_the_weights_are_those_of_the_measures_and_a_bias() -> None:
    with WEIGHTS.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["measure"] for row in rows] == ["bias", *MEASURES]
    bias, weights = weights_of()
    assert [bias, *weights.tolist()] == [float(row["weight"]) for row in rows]
    assert np.isfinite([bias, *weights]).all()


def test_logarithms_are_of_score_background_and_duration() -> None:
    found = measures(np.outer(hill(), strengths(au1L=0.3)))
    assert found["score"] == pytest.approx(math.log(200))
    assert found["background"] == pytest.approx(math.log(4))
    assert found["duration"] == pytest.approx(math.log((OFFSET - ONSET) / FPS))


def test_the_change_at_the_apex_is_that_of_the_strengths() -> None:
    units = strengths(au1L=0.3, au12R=-0.2)
    slope = np.outer(np.arange(COUNT) / COUNT, np.full(len(UNITS), 0.5))
    found = measured(movement(), 7 + slope + np.outer(hill(), units), np.zeros((COUNT, 2)), np.zeros((COUNT, 2)), FPS)
    assert found.units == pytest.approx(units, abs=0.025)
    assert found.motion_px == pytest.approx(length_px(units), rel=0.1)


def test_pull_is_the_share_of_the_units_that_pull() -> None:
    assert measures(np.outer(hill(), strengths(au1L=0.3, au12L=0.2)))["pull"] == pytest.approx(1)
    assert measures(np.outer(hill(), strengths(au1L=-0.3, au12L=-0.2)))["pull"] == pytest.approx(0)
    assert measures(np.outer(hill(), strengths(au12L=0.2, au12R=-0.2)))["pull"] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("name", UNITS)
def test_the_mouth_is_what_lies_below_the_nose(name: str) -> None:
    found = measures(np.outer(hill(), strengths(**{f"au{name}": 0.3})))
    assert found["mouth"] == pytest.approx(float(int(name.rstrip("LRB")) >= 16))
    assert found["mouth_background"] == pytest.approx(found["mouth"] * found["background"])


def test_lids_are_their_mean_closing_at_the_apex() -> None:
    units = np.outer(hill(), strengths(au1L=0.3))
    assert measures(units)["lids"] == 0
    closing = measures(units, np.outer(hill(), [0.6, 0.2]))["lids"]
    assert closing == pytest.approx(0.4, rel=0.1)
    assert measures(units, 5 - np.outer(hill(), [0.6, 0.2]))["lids"] == pytest.approx(-closing)


def test_turned_is_how_far_the_head_turns_and_comes_back() -> None:
    units = np.outer(hill(), strengths(au1L=0.3))
    assert measures(units)["turned"] == 0
    assert measures(units, turn=np.outer(hill(), [3, -4]))["turned"] == pytest.approx(math.log(6), rel=0.05)
    assert measures(units, turn=np.outer(np.arange(COUNT), [0.1, 0.2]))["turned"] < 0.1


def test_unreturned_is_what_is_left_at_the_end() -> None:
    units = strengths(au1L=0.3, au1R=0.3)
    back, half, full = (measures(np.outer(hill(rest), units))["unreturned"] for rest in (0.0, 0.5, 1.0))
    assert back == pytest.approx(math.log(0.05), abs=0.2)
    assert back < half < full


def test_the_shape_of_a_hill_is_one_and_that_of_noise_is_not() -> None:
    units = np.outer(hill(), strengths(au1L=0.3))
    noise = np.random.default_rng(0).standard_normal(100)
    assert measures(units)["shape"] == pytest.approx(1, abs=1e-6)
    assert measures(units, one=movement(curve=3 * hill()[60:160] + np.arange(100) / 10))["shape"] == pytest.approx(1)
    assert measures(units, one=movement(curve=noise))["shape"] < 0.3
    assert measures(units, one=movement(curve=np.zeros(100)))["shape"] == pytest.approx(1)


def test_a_movement_at_the_edge_of_a_run_can_be_measured() -> None:
    units = np.outer(hill(), strengths(au1L=0.3))[ONSET : OFFSET + 1]
    one = movement(onset=0.0, apex=12.0, offset=30.0, begin=0, curve=hill()[ONSET : OFFSET + 1])
    found = measured(one, units, *np.zeros((2, len(units), 2)), FPS)
    assert np.isfinite(found.measures).all()
    assert found.units[UNITS.index("1L")] == pytest.approx(0.3, rel=0.15)


def test_a_movement_of_nothing_has_finite_measures() -> None:
    assert np.isfinite(list(measures(np.zeros((COUNT, len(UNITS)))).values())).all()


@pytest.mark.parametrize("name", UNITS)
def test_the_region_of_a_single_unit_is_where_it_moves(name: str) -> None:
    number = int(name.rstrip("LRB"))
    region = region_of(strengths(**{f"au{name}": 0.3}))
    assert number in REGIONS[region]
    assert region_of(strengths(**{f"au{name}": -0.3})) == region


def test_every_unit_belongs_to_one_region() -> None:
    numbers = [number for region in REGIONS.values() for number in region]
    assert sorted(numbers) == sorted({int(name.rstrip("LRB")) for name in UNITS})


def test_a_second_region_is_named_if_it_moves_half_as_much() -> None:
    lengths = dict(zip(UNITS, np.sqrt(np.diag(face_motion())).tolist(), strict=True))
    for share, expected in ((0.6, "brows + mouth"), (0.4, "brows")):
        assert region_of(strengths(au1L=1 / lengths["1L"], au12L=share / lengths["12L"])) == expected
    assert region_of(strengths(au12L=1 / lengths["12L"], au6L=0.7 / lengths["6L"])) == "mouth + cheeks and nose"


def test_motion_is_a_length() -> None:
    motion = face_motion()
    assert motion == pytest.approx(motion.T)
    assert np.linalg.eigvalsh(motion).min() > 0
    units = np.random.default_rng(1).standard_normal(len(UNITS))
    assert length_px(3 * units) == pytest.approx(3 * length_px(units))
    assert length_px(strengths(au1L=0.1)) == pytest.approx(length_px(strengths(au1R=0.1)), rel=0.02)
    assert length_px(np.zeros(len(UNITS))) == 0


def typical(**other: float) -> Array:
    """Measures of a raised brow that is about as probable as not."""
    values = dict.fromkeys(MEASURES, 0.0) | {"score": 4.5, "background": 1.0, "shape": 0.85, "pull": 0.8, "mouth": 0.2}
    return np.array([(values | other)[name] for name in MEASURES])


def test_confidence_is_the_logistic_function_of_the_weighted_measures() -> None:
    bias, weights = weights_of()
    many = np.random.default_rng(0).standard_normal((4, 5, len(MEASURES)))
    found = confidence(many)
    assert found.shape == (4, 5)
    assert found[2, 3] == pytest.approx(1 / (1 + math.exp(-(bias + float(many[2, 3] @ weights)))))
    assert ((found > 0) & (found < 1)).all()


def test_confidence_rises_with_the_score_and_falls_with_closing_lids() -> None:
    by_score = confidence(np.stack([typical(score=value) for value in (4.0, 5.0, 6.0, 8.0)]))
    by_lids = confidence(np.stack([typical(lids=value) for value in (0.0, 0.1, 0.3, 0.8)]))
    assert (np.diff(by_score) > 0).all()
    assert (np.diff(by_lids) < 0).all()


def test_confidence_rises_with_a_good_shape_and_falls_with_speech() -> None:
    assert confidence(typical(shape=0.95)) > confidence(typical(shape=0.6))
    assert confidence(typical(pull=1.0)) > confidence(typical(pull=0.2))
    assert confidence(typical(mouth=0.9, mouth_background=0.9)) < confidence(typical(mouth=0.0, mouth_background=0.0))
