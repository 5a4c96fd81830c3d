"""Flow of both phases, freed of the head's motion, and MM-COF over the face."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
import pytest

import flowkit_kernels
import portrait
from flowkit.config import AlignConfig
from flowkit.errors import ClipError, FailureCode
from flowkit.face.align import Aligner, Face
from flowkit.face.regions import regions
from flowkit.motion.flow import Flow, check_flow, dual_phase_flow
from flowkit.motion.mmcof import combine
from flowkit.storage.schema import FACE, RIGID
from flowkit_kernels import MMCOFParams, TVL1Params

SIZE = 128
SMILE = portrait.smile(1.2, SIZE)
BOTH = (True, True)


def clip(
    valid: tuple[bool, bool] = BOTH, drift_px: float = 2.0, align: Literal["none", "similarity"] = "similarity"
) -> Face:
    """A smile that comes and goes while the head drifts, cropped and aligned."""
    motions = portrait.drift(drift_px, 0.5, 1.005, SIZE), portrait.drift(-drift_px, -0.5, size=SIZE)
    onset = portrait.picture(SIZE, noise_seed=0)
    apex = portrait.picture(SIZE, motions[0], SMILE, noise_seed=1) if valid[0] else onset
    offset = portrait.picture(SIZE, motions[1], noise_seed=2) if valid[1] else apex
    with Aligner(AlignConfig(method="none", size=SIZE, stabilise=align)) as aligner:
        return aligner.align(portrait.frames(onset, apex, offset, valid))


def flow_of(faces: list[Face], valid: list[tuple[bool, bool]], stabilise: str = "similarity") -> list[Flow | ClipError]:
    return dual_phase_flow(faces, valid, TVL1Params(), "cpu", stabilise)


def good(result: Flow | ClipError) -> Flow:
    assert isinstance(result, Flow), result
    return result


@pytest.fixture(scope="module")
def smiling() -> tuple[Face, Flow]:
    face = clip()
    return face, good(*flow_of([face], [BOTH]))


def test_a_smile_comes_out_and_the_motion_of_the_head_does_not(smiling: tuple[Face, Flow]) -> None:
    face, flow = smiling
    truth, rigid = portrait.true_flow(SIZE, SMILE), (face.regions & RIGID) > 0
    moving = np.hypot(*truth) > 0.3 * 1.2
    for phase, sign in ((0, 1), (1, -1)):
        kept = (sign * flow.flow[phase] * truth)[:, moving].sum() / np.square(truth[:, moving]).sum()
        assert 0.5 < kept < 1.1
        still = rigid & (np.hypot(*truth) < 0.02)
        assert np.hypot(*flow.flow[phase])[still].mean() < 0.12
    assert (flow.residual < 0.1).all()


@pytest.mark.parametrize("stabilise", ["similarity", "affine"])
def test_what_is_left_of_the_heads_motion_is_subtracted_and_recorded(stabilise: str) -> None:
    face = clip(drift_px=0.6, align="none")
    left, raw = (good(*flow_of([face], [BOTH], name)) for name in (stabilise, "register"))
    y, x = np.mgrid[:SIZE, :SIZE]
    removed = np.einsum("pck,kyx->pcyx", left.removed, np.stack([x, y, np.ones_like(x)]))
    np.testing.assert_allclose(raw.flow - left.flow, removed, atol=1e-4)
    assert not raw.removed.any()
    assert (raw.residual > 0.4).all()
    assert (left.residual < 0.15).all()


def test_the_background_has_no_say_in_what_the_head_does() -> None:
    still = clip(drift_px=0)
    areas = regions(portrait.POINTS, portrait.canonical(SIZE), SIZE)
    moved = portrait.picture(SIZE, portrait.drift(0.8, size=SIZE))
    pixels = np.where(cv2.dilate(areas, np.ones((9, 9))) > 0, moved, portrait.picture(SIZE))
    face = dataclasses.replace(still, regions=areas, pixels=np.stack([portrait.picture(SIZE), pixels, pixels]))
    flow = good(*flow_of([face], [(True, False)]))
    np.testing.assert_allclose(flow.removed[0] @ (64, 64, 1), (0.64, 0.48), atol=0.05)
    assert flow.residual[0] < 0.1


def test_an_invalid_phase_has_no_flow_and_changes_nothing_else(smiling: tuple[Face, Flow]) -> None:
    face, flow = smiling
    rise, fall, none = (good(one) for one in flow_of([face] * 3, [(True, False), (False, True), (False, False)]))
    for result, phase in ((rise, 0), (fall, 1)):
        assert np.array_equal(result.flow[phase], flow.flow[phase])
        assert not result.flow[1 - phase].any()
        assert not result.removed[1 - phase].any()
        assert result.residual[1 - phase] == 0
    assert not none.flow.any()


def test_a_clip_in_a_batch_is_what_it_is_alone(smiling: tuple[Face, Flow]) -> None:
    face, flow = smiling
    other = dataclasses.replace(
        clip((True, False), drift_px=1), regions=regions(portrait.POINTS, portrait.canonical(SIZE), SIZE)
    )
    batch = [good(one) for one in flow_of([other, face], [(True, False), BOTH])]
    assert np.array_equal(batch[1].flow, flow.flow)
    assert np.array_equal(batch[0].flow, good(*flow_of([other], [(True, False)])).flow)


def test_identical_frames_give_exactly_no_flow() -> None:
    onset = portrait.picture(SIZE)
    with Aligner(AlignConfig(method="none", size=SIZE)) as aligner:
        face = aligner.align(portrait.frames(onset, onset.copy(), onset.copy()))
    flow = good(*flow_of([face], [BOTH]))
    assert not flow.flow.any()
    assert not flow.removed.any()
    assert not flow.residual.any()


def test_a_broken_flow_fails_its_clip_and_no_other(smiling: tuple[Face, Flow], monkeypatch: pytest.MonkeyPatch) -> None:
    face, flow = smiling
    solve = flowkit_kernels.phase_flow

    def solve_badly(*arguments: Any, **settings: Any) -> npt.NDArray[np.float32]:
        result = solve(*arguments, **settings)
        result[0, 0, 0, 5, 5], result[1, 0, 1, 9, 9] = np.nan, 2 * SIZE
        return result

    monkeypatch.setattr(flowkit_kernels, "phase_flow", solve_badly)
    results = dual_phase_flow([face] * 3, [BOTH] * 3, TVL1Params(), "cpu", "similarity", where=["a", "b", "c"])
    broken, long, third = results
    assert isinstance(broken, ClipError)
    assert broken.code == FailureCode.FLOW_NONFINITE
    assert isinstance(long, ClipError)
    assert long.code == FailureCode.FLOW_RANGE
    assert long.message.startswith("b: displacement must be at most the crop's side, 128 px; got 256")
    assert np.array_equal(good(third).flow, flow.flow)


def test_a_displacement_as_long_as_the_crop_is_still_accepted() -> None:
    flow = np.zeros((2, 2, 32, 32), np.float32)
    flow[0, 0, 3, 3] = 32
    check_flow(flow, "a")
    flow[0, 1, 3, 3] = 1
    with pytest.raises(ClipError, match=r"^a: displacement"):
        check_flow(flow, "a")


def test_mmcof_is_normalised_over_each_clips_own_face(smiling: tuple[Face, Flow]) -> None:
    face, flow = smiling
    wild = Flow(flow.flow.copy(), flow.removed, flow.residual)
    wild.flow[..., (face.regions & FACE) == 0] = 9
    plain, disturbed = combine([flow, wild], [face, face], MMCOFParams(), "cpu")
    inside = (face.regions & FACE) > 0
    assert plain.shape == (3, SIZE, SIZE)
    assert plain[2, inside].max() > 0.9
    np.testing.assert_allclose(plain[:, inside], disturbed[:, inside], atol=1e-6)
