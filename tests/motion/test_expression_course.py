"""What spotting makes of faces whose every frame is known: movement, blinks, heads that move alone, frames without content."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from flowkit.config import AlignConfig
from flowkit.face.align import Aligner
from flowkit.inputs.clip import Clip
from flowkit.inputs.frames import Sequence
from flowkit.motion.expression_course import ExpressionFit
from flowkit.motion.peak_search import find_peak
from flowkit.motion.spotting import Spotted, spot_sequence
from flowkit.storage.schema import ACTION_UNITS
from flowkit.synthetic.expressions import Blink
from flowkit.synthetic.face_scenes import FaceScene
from flowkit.synthetic.scenes import SynthConfig, make_scene, make_subject

CONFIG = SynthConfig(
    width=240, height=240, noise=2, wander=True, phase_frames=(12, 18), blinks=0, seed=12, stray=0, incomplete=0,
    different=0, peak_px=(1.0, 1.0), drift_px=2, turn_deg=1, light=0.01,
)  # fmt: skip
Grey = npt.NDArray[np.float32]
RGB = np.zeros((1, 1, 3), np.uint8)
"""No detector looks at it."""


def scene(label: str = "surprise", config: SynthConfig = CONFIG, **drawn: Any) -> FaceScene:
    made = make_scene("clip", make_subject("s01", config), label, config)
    assert isinstance(made, FaceScene)
    return dataclasses.replace(made, draw=dataclasses.replace(made.draw, **drawn))


def frames_of(made: FaceScene) -> list[Grey]:
    return [made.render(t).astype(np.float32) / np.float32(255) for t in range(made.draw.offset + 1)]


@pytest.fixture(scope="module")
def aligner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aligner]:
    """Landmarks are those of the one person here."""
    file = tmp_path_factory.mktemp("landmarks") / "landmarks.csv"
    points = [f"clip,{i},{x:.3f},{y:.3f}" for i, (x, y) in enumerate(MOVED.landmarks)]
    file.write_text("\n".join(["clip_id,point,x,y", *points]))
    with Aligner(AlignConfig(method="landmarks", landmarks=str(file))) as made:
        yield made


def spotted(aligner: Aligner, frames: list[Grey]) -> Spotted:
    def later(keep: Callable[[Grey], Any]) -> dict[int, Any]:
        return {number: keep(grey) for number, grey in enumerate(frames) if number}

    clip = Clip("clip", "clip", 0, None, len(frames) - 1, "s", "made", "none")
    return spot_sequence(clip, Sequence(0, frames[0], RGB, 200.0, later), aligner)


MOVED = scene()
STILL = dataclasses.replace(CONFIG, peak_px=(0.0, 0.0))


def test_a_movement_is_found_where_the_head_turns_round_elsewhere(aligner: Aligner) -> None:
    made = scene(turn=4)
    found = spotted(aligner, frames_of(made))
    assert abs(found.apex - made.draw.apex) <= 2
    assert found.confidence > 0.4


@pytest.mark.parametrize("turn", [4, 20])
def test_a_head_and_a_light_that_move_alone_give_no_confidence(aligner: Aligner, turn: int) -> None:
    assert spotted(aligner, frames_of(scene(config=STILL, turn=turn))).confidence < 0.2


def test_a_blink_counts_as_no_movement_and_hides_none(aligner: Aligner) -> None:
    blink = (Blink(middle=9.0, half=5.0, closed=1.0),)
    made = scene(blinks=blink)
    with_movement = spotted(aligner, frames_of(made))
    assert abs(with_movement.apex - made.draw.apex) <= 3
    assert spotted(aligner, frames_of(scene(config=STILL, blinks=blink))).confidence < 0.5 * with_movement.confidence


def test_a_movement_that_never_goes_back_is_seen_and_ends_where_it_stops(aligner: Aligner) -> None:
    apex = MOVED.draw.movement.apex
    made = scene(movement=dataclasses.replace(MOVED.draw.movement, offset=apex))
    found = spotted(aligner, frames_of(made))
    assert abs(found.apex - made.draw.apex) <= 6
    assert found.confidence > 0.3


def same(_: int) -> Grey:
    return frames_of(MOVED)[0]


def flat(_: int) -> Grey:
    return np.full((240, 240), 0.5, np.float32)


@pytest.mark.parametrize("frame", [same, flat])
@pytest.mark.parametrize("count", [2, 3, 12])
def test_frames_that_are_all_alike_show_no_movement(aligner: Aligner, frame: Callable[[int], Grey], count: int) -> None:
    found = spotted(aligner, [frame(0)] * count)
    assert 0 < found.apex < max(count - 1, 2)
    assert found.confidence == 0
    assert max(found.curve) < 1e-6


def test_noise_alone_gives_no_confidence(aligner: Aligner) -> None:
    rng, face = np.random.default_rng(0), frames_of(MOVED)[0]
    assert (
        spotted(aligner, [face + rng.normal(0, 0.02, face.shape).astype(np.float32) for _ in range(30)]).confidence
        < 0.05
    )


def test_repeated_frames_of_a_variable_rate_do_no_harm(aligner: Aligner) -> None:
    frames = frames_of(MOVED)
    assert abs(spotted(aligner, [frames[number // 2 * 2] for number in range(len(frames))]).apex - MOVED.draw.apex) <= 3


def test_the_same_frames_give_the_same_answer(aligner: Aligner) -> None:
    frames = frames_of(MOVED)
    assert spotted(aligner, frames) == spotted(aligner, frames)


def test_strengths_say_which_action_units_moved(aligner: Aligner) -> None:
    """Brows that rise are brows that rise, in cm, and the head's motion is measured beside them."""
    made = scene(
        config=dataclasses.replace(CONFIG, noise=0, drift_px=0, drift_deg=0, drift_scale=0, turn_deg=0, light=0)
    )
    frames = frames_of(made)
    clip = Clip("clip", "clip", 0, None, len(frames) - 1, "s", "made", "none")
    anchor = aligner.anchor(clip, frames[0], RGB, 128)
    pictures = [aligner.place(anchor, anchor.shape, grey, (np.eye(2, 3), np.zeros(2)), "")[0] for grey in frames]
    fit = ExpressionFit.of(anchor, anchor.onset, 0.5)
    course = fit.course({number: fit.reading(picture) for number, picture in enumerate(pictures)})
    names = [name for name in ACTION_UNITS if name not in ("45L", "45R")]
    at_apex = dict(zip(names, course.strength_cm[made.draw.apex], strict=True))
    assert set(made.draw.movement.units) >= {1, 2}
    assert min(at_apex[name] for name in ("1L", "1R", "2L", "2R")) > 0.02
    assert find_peak(course.weighted, course.numbers).place == pytest.approx(made.draw.apex, abs=1)
    assert course.motion_px(course.strength_cm)[0] == 0
    shifted = aligner.place(anchor, anchor.shape, frames[0], (np.array([[1, 0, -0.2], [0, 1, 0.0]]), np.zeros(2)), "")[
        0
    ]
    x, y, *others = fit.head(fit.reading(shifted))
    assert x == pytest.approx(0.2 * 224 / 128, rel=0.25)
    assert abs(y) < 0.1
    assert np.abs(others).max() < 0.003
