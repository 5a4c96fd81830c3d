"""Synthetic people in three dimensions: they move as their truth says, differ from each other, and are the same every time."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest

from flowkit.errors import ConfigError
from flowkit.face.face_mesh import BLINK, INNER_LIPS, LEFT, LOWER_LIDS, RIGHT, UPPER_LIDS, canonical_mesh
from flowkit.face.landmarks import FACE_OVAL, LEFT_EYE, RIGHT_EYE, FaceLandmarker
from flowkit.synthetic.camera import rotation
from flowkit.synthetic.dataset import synthesise
from flowkit.synthetic.expressions import EMOTIONS, Blink, draw_movement
from flowkit.synthetic.face_scenes import FaceScene
from flowkit.synthetic.head import EYE, HAIR, MOUTH, SKIN, canonical_head
from flowkit.synthetic.people import make_person
from flowkit.synthetic.scenes import LABELS, SynthConfig, make_scene, make_subject, scenes

FLAT = SynthConfig(flat=True, noise=0, light=0, peak_px=(2.0, 2.0), drift_px=4, drift_deg=1.5, turn_deg=1.5, blinks=0)
STILL = dataclasses.replace(FLAT, drift_px=0, drift_deg=0, drift_scale=0, turn_deg=0)
MOVING = {
    "in plane": dataclasses.replace(FLAT, turn_deg=0),
    "turning by 5 degrees": dataclasses.replace(FLAT, turn_deg=5),
    "blinking": dataclasses.replace(STILL, blinks=1),
    "still, at 640 x 480": dataclasses.replace(STILL, width=640, height=480),
}


def scene_of(label: str, config: SynthConfig, name: str = "s01", clip: str = "clip") -> FaceScene:
    scene = make_scene(clip, make_subject(name, config), label, config)
    assert isinstance(scene, FaceScene)
    return scene


def on_skin(scene: FaceScene, t: int) -> np.ndarray:
    """The face inside its outline in frame `t`."""
    points = scene.projected(scene.points(t), scene.pose(t))[scene.subject.person.head.landmark[list(FACE_OVAL)], :2]
    mask = np.zeros((scene.config.height, scene.config.width), np.uint8)
    return cv2.fillPoly(mask, [np.rint(points).astype(np.int32)], 1) > 0


def warp_errors(scene: FaceScene, flow: np.ndarray) -> list[np.ndarray]:
    """Of each phase: grey levels by which frame t + 1, warped back, differs from frame t on visible skin."""
    truth = scene.truth()
    times = (0, scene.draw.apex, scene.draw.offset)
    frames = [scene.clean(t) for t in times]
    y, x = np.indices(frames[0].shape, np.float32)
    errors = []
    for phase, (before, after) in enumerate(itertools.pairwise(frames)):
        warped = cv2.remap(after, x + flow[phase, 0], y + flow[phase, 1], cv2.INTER_CUBIC)
        errors.append(np.abs(warped - before)[truth.visible[phase] & on_skin(scene, times[phase])])
    return errors


@pytest.mark.parametrize("config", MOVING.values(), ids=MOVING)
@pytest.mark.parametrize("label", ["happiness", "surprise", "disgust"])
def test_the_true_flow_brings_the_frames_within_one_grey_level(config: SynthConfig, label: str) -> None:
    scene = scene_of(label, config)
    truth = scene.truth()
    for phase, errors in enumerate(warp_errors(scene, truth.flow)):
        assert (errors <= 1).mean() >= 0.99
        for shift in ((0.1, 0), (-0.1, 0), (0, 0.1), (0, -0.1)):  # no bias of a tenth of a pixel
            assert (
                warp_errors(scene, truth.flow + np.reshape(np.float32(shift), (2, 1, 1)))[phase].mean()
                > 1.2 * errors.mean()
            )


def test_the_local_truth_is_the_truth_of_the_same_clip_with_a_still_head() -> None:
    scene = scene_of("fear", FLAT)
    quiet = dataclasses.replace(scene.draw, drift=np.zeros((2, 4)), turned=np.zeros((2, 2)))
    still = dataclasses.replace(scene, draw=quiet).truth()
    truth = scene.truth()
    np.testing.assert_allclose(still.flow, truth.flow_local, atol=1e-4)
    np.testing.assert_allclose(still.flow, still.flow_local, atol=1e-6)
    assert np.abs(truth.flow - truth.flow_local).max() > 1


def test_the_truth_names_the_pose_and_the_drift_of_the_head() -> None:
    config = dataclasses.replace(FLAT, turn_deg=0)
    scene = scene_of("anger", config)
    truth, (drift, _) = scene.truth(), scene.draw.drift
    np.testing.assert_array_equal(truth.drift[0], np.eye(2, 3))
    linear = truth.drift[1][:, :2]
    turned, size = np.arctan2(linear[1, 0], linear[0, 0]), np.hypot(*linear[:, 0])
    assert turned == pytest.approx(drift[2], abs=2e-3)
    assert np.log(size) == pytest.approx(drift[3], abs=2e-3)
    assert truth.pose_deg[1, 2] - truth.pose_deg[0, 2] == pytest.approx(np.degrees(drift[2]))
    out_of_plane = scene_of("anger", dataclasses.replace(FLAT, turn_deg=5))
    moved = out_of_plane.truth().pose_deg[1:, :2] - out_of_plane.truth().pose_deg[0, :2]
    np.testing.assert_allclose(moved, out_of_plane.draw.turned)
    assert np.abs(moved).max() > 1


def test_what_a_lid_hides_is_not_visible() -> None:
    closing = scene_of("anger", STILL)
    blink = Blink(middle=float(closing.draw.apex), half=10.0, closed=1.0)
    closing = dataclasses.replace(closing, draw=dataclasses.replace(closing.draw, blinks=(blink,)))
    seen, open_eyes = closing.truth().visible[0], scene_of("anger", STILL).truth().visible[0]
    for eye in (LEFT_EYE, RIGHT_EYE):
        inner = {LEFT_EYE: 133, RIGHT_EYE: 362}[eye]
        x, y = closing.landmarks[[eye, inner]].mean(axis=0).round().astype(int)
        assert not seen[y - 1 : y + 2, x - 2 : x + 3].any()
        assert open_eyes[y - 4 : y + 5, x - 4 : x + 5].any()


@pytest.mark.parametrize("peak_px", [0.3, 2.0, 6.0])
def test_the_peak_is_the_one_drawn(peak_px: float) -> None:
    scene = scene_of("contempt", dataclasses.replace(STILL, peak_px=(peak_px, peak_px)))
    truth = scene.truth()
    assert np.hypot(*truth.flow_local[0])[truth.visible[0]].max() == pytest.approx(peak_px, rel=0.08)


def test_no_motion_is_no_motion() -> None:
    truth = scene_of("sadness", dataclasses.replace(STILL, peak_px=(0.0, 0.0))).truth()
    assert np.abs(truth.flow).max() < 1e-5


def test_peaks_are_drawn_by_their_logarithm() -> None:
    config = dataclasses.replace(STILL, subjects=1, clips=25, peak_px=(0.1, 6.0))
    subject = make_subject("s01", config)
    peaks = [make_scene(f"c{i}", subject, "fear", config).draw.peak_px for i in range(300)]
    assert 0.1 <= min(peaks) < 0.15
    assert 4 < max(peaks) <= 6
    assert np.median(peaks) == pytest.approx(np.sqrt(0.6), rel=0.25)


def test_light_exposure_blur_and_noise_do_what_they_say() -> None:
    lit = scene_of("anger", dataclasses.replace(FLAT, exposure=0.25))
    plain = scene_of("anger", FLAT)
    np.testing.assert_allclose(lit.clean(0), 0.25 * plain.clean(0), rtol=1e-5)
    noisy = scene_of("anger", dataclasses.replace(STILL, noise=4))
    difference = noisy.render(0).astype(float) - noisy.clean(0)
    assert difference[noisy.clean(0) > 20].std() == pytest.approx(4, rel=0.1)
    assert (noisy.render(0) != noisy.render(1)).mean() > 0.5
    shaded = scene_of("anger", dataclasses.replace(STILL, flat=False, lamp_deg=30))
    assert np.abs(shaded.clean(shaded.draw.apex, still=True) - shaded.clean(0)).mean() > 0.5
    fast = dataclasses.replace(FLAT, phase_frames=(2, 2), peak_px=(6.0, 6.0), drift_px=20)
    sharp, blurred = (scene_of("happiness", dataclasses.replace(fast, motion_blur=b)).render(1) for b in (0.0, 1.0))
    edges = [np.abs(np.diff(picture.astype(float), axis=1)).max() for picture in (sharp, blurred)]
    assert edges[1] < 0.9 * edges[0]


def test_people_differ_in_shape_and_skin_and_are_the_same_every_time() -> None:
    people = [make_person(f"s{i:02d}", 0) for i in range(1, 9)]
    skin = canonical_head().part == SKIN
    for one, other in itertools.combinations(people, 2):
        assert np.linalg.norm(one.points - other.points, axis=1)[skin].mean() > 0.1
        assert np.abs(one.texture - other.texture).mean() > 5
    again, other_seed = make_person("s01", 0), make_person("s01", 1)
    np.testing.assert_array_equal(again.texture, people[0].texture)
    np.testing.assert_array_equal(again.points, people[0].points)
    assert np.abs(other_seed.points - people[0].points).max() > 0.1
    dark, light = (
        make_person("s01", 0, tone=tone).texture[150:350, 220:380].mean() for tone in ((0.4, 0.4), (1.0, 1.0))
    )
    assert dark < 0.75 * light


@pytest.mark.filterwarnings("ignore:::mediapipe")
def test_a_face_detector_finds_people_who_look_to_the_side() -> None:
    config = SynthConfig(pose_deg=15)
    with FaceLandmarker() as detector:
        for name in ("s01", "s02", "s03", "s04"):
            scene = scene_of("fear", config, name)
            (found,) = detector.detect(cv2.merge([scene.render(0)] * 3))
            apart = np.hypot(*(found - 0.5 - scene.landmarks).T)
            assert np.median(apart) < 5, name


def test_a_cropped_face_has_its_eyes_where_the_canonical_crop_has_them() -> None:
    config = dataclasses.replace(STILL, width=224, height=224, cropped=True)
    points = make_subject("s01", config).landmarks
    middle = points[[LEFT_EYE, RIGHT_EYE]].mean(axis=0)
    np.testing.assert_allclose(middle, [0.5 * 224 - 0.5, 0.296 * 224 - 0.5], atol=0.05)
    assert np.hypot(*(points[RIGHT_EYE] - points[LEFT_EYE])) == pytest.approx(0.444 * 224, rel=0.05)


@pytest.mark.parametrize("side", [64, 2048])
def test_the_smallest_and_a_large_frame_are_rendered(side: int) -> None:
    scene = scene_of("happiness", SynthConfig(width=side, height=side))
    assert scene.render(0).shape == (side, side)
    assert scene.render(0).std() > 10
    assert np.isfinite(scene.points(scene.draw.apex)).all()


def test_all_labels_have_combinations_and_others_are_refused() -> None:
    assert tuple(EMOTIONS) == LABELS["faces"]
    for combinations in EMOTIONS.values():
        assert sum(one.share for one in combinations) == pytest.approx(1)
    with pytest.raises(ConfigError, match="classes must be some of happiness, surprise"):
        SynthConfig(classes=("smile",))
    with pytest.raises(ConfigError, match="turn_deg must be left out with motion=bumps"):
        SynthConfig(motion="bumps", turn_deg=2)


def test_one_class_draws_other_combinations_and_falls() -> None:
    draws = [draw_movement(np.random.default_rng(i), "happiness") for i in range(400)]
    assert len({draw.units for draw in draws}) == 4
    strongest = [max(draw.apex, key=lambda key: draw.apex[key]) for draw in draws]
    left = np.array([draw.offset[key] / draw.apex[key] for draw, key in zip(draws, strongest, strict=True)])
    assert 0.25 < (left > 0.4).mean() < 0.6
    own_fall = [set(draw.offset) - set(draw.apex) for draw in draws]
    assert 0.1 < np.mean([bool(units) for units in own_fall]) < 0.4
    plain = [draw_movement(np.random.default_rng(i), "anger", stray=0, incomplete=0, different=0) for i in range(50)]
    assert all(set(draw.apex) == set(draw.offset) for draw in plain)
    one_sided = [draw_movement(np.random.default_rng(i), "contempt", stray=0) for i in range(100)]
    ratio = [min(w[14, LEFT], w[14, RIGHT]) / max(w[14, LEFT], w[14, RIGHT]) for w in (d.apex for d in one_sided)]
    assert np.mean(np.array(ratio) < 0.45) > 0.5


def test_the_head_closes_its_eyes_and_its_mouth() -> None:
    head = canonical_head()
    for side, upper, lower in zip((RIGHT, LEFT), UPPER_LIDS, LOWER_LIDS, strict=True):
        closed = head.points + head.action_units[BLINK, side]
        gap = head.points[list(upper)] - head.points[list(lower)]
        left = closed[list(upper)] - closed[list(lower)]
        assert gap[2:5, 1].mean() > 0.3
        assert np.abs(left[2:5, 1]).max() < 0.15
    canonical, _ = canonical_mesh()
    half = len(INNER_LIPS) // 2
    gap = [head.points[INNER_LIPS[k], 1] - head.points[INNER_LIPS[-k], 1] for k in range(2, half - 1)]
    assert max(gap) < 0.15
    assert canonical[13, 1] - canonical[14, 1] > 0.4  # where the mesh came from has its mouth open


def test_the_head_is_a_head() -> None:
    head = canonical_head()
    assert set(head.part.tolist()) == {SKIN, HAIR, EYE, MOUTH}
    canonical, _ = canonical_mesh()
    assert np.linalg.norm(head.points[:468] - canonical, axis=1).mean() < 0.25
    assert np.hypot(
        *(head.points[head.landmark[RIGHT_EYE]] - head.points[head.landmark[LEFT_EYE]])[:2]
    ) == pytest.approx(8.9, abs=0.3)
    sides = {side for _, side in head.action_units}
    assert sides == {"L", "R", "B"}
    for (unit, side), field in head.action_units.items():
        length = np.linalg.norm(field[head.part == SKIN], axis=1)
        assert (0.4 if unit == BLINK else 0.75) < length.max() <= 1.01, (unit, side)
        x = head.points[head.part == SKIN, 0]
        pull = (length**2 * np.sign(x)).sum() / (length**2).sum()
        assert {"L": pull > 0.5, "R": pull < -0.5, "B": abs(pull) < 0.3}[side], (unit, side)


def test_left_and_right_are_mirror_images() -> None:
    head = canonical_head()
    left, right = (head.action_units[12, side][head.landmark[point]] for side, point in ((LEFT, 291), (RIGHT, 61)))
    np.testing.assert_allclose(left, right * [-1, 1, 1], atol=0.02)


def test_a_rotation_turns_as_its_names_say() -> None:
    nose = np.array([0, 0, 1.0])
    assert (rotation(10, 0, 0) @ nose)[0] > 0.1  # to the right of the image
    assert (rotation(0, 10, 0) @ nose)[1] < -0.1  # down
    assert (rotation(0, 0, 10) @ np.array([1.0, 0, 0]))[1] > 0.1


@pytest.mark.parametrize("form", ["png", "jpg", "mkv", "mp4"])
def test_a_data_set_of_faces_is_written_in_every_format(tmp_path: Path, form: str) -> None:
    config = SynthConfig(
        subjects=1,
        classes=("fear",),
        width=64,
        height=64,
        format=form,
        phase_frames=(2, 3),
        rest_frames=1,  # type: ignore[arg-type]
    )
    manifest = synthesise(tmp_path / "set", config)
    header, row = manifest.read_text().splitlines()
    assert "action_units" in header.split(",")
    scene = next(scenes(config))
    onset = int(row.split(",")[2])
    assert onset == (2 if form in ("png", "jpg") else 1)
    path = manifest.parent / row.split(",")[1]
    if form in ("png", "jpg"):
        stored = cv2.imread(str(path / f"{onset:04d}.{form}"), cv2.IMREAD_GRAYSCALE)
        assert stored is not None
        assert np.abs(stored.astype(float) - scene.render(0)).mean() <= (0 if form == "png" else 4)
    else:
        assert path.is_file()
