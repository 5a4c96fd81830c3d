"""The made-up data set: its frames move exactly as its truth says, and it is the same every time."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
from importlib import resources
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from flowkit.errors import ConfigError, DiskFull, Terminated
from flowkit.execution.progress import Silent
from flowkit.execution.stop import Stop
from flowkit.face.landmarks import LEFT_EYE, RIGHT_EYE
from flowkit.inputs.manifest import read_manifest
from flowkit.synthetic.bump_scenes import draw_clip
from flowkit.synthetic.dataset import read_truth, synthesise
from flowkit.synthetic.scenes import LABELS, SynthConfig, make_scene, make_subject, scenes

CLEAN = SynthConfig(motion="bumps", noise=0, light=0, peak_px=(2.5, 2.5), drift_px=3, drift_deg=1.5, drift_scale=0.01)
STILL = dataclasses.replace(CLEAN, drift_px=0, drift_deg=0, drift_scale=0)
TINY = SynthConfig(
    motion="bumps", subjects=1, classes=("smile", "sulk"), width=96, height=96, peak_px=(0.5, 1.0), phase_frames=(2, 4)
)


class StopsAfterOne(Silent):
    """Writes down what it is told, and has the run stopped after its first clip."""

    def __init__(self) -> None:
        self.stop = Stop("synth")
        self.told: list[tuple[str, int]] = []

    def start(self, total: int) -> None:
        self.told.append(("start", total))

    def advance(self, done: int, failed: int) -> None:
        self.told.append(("advance", done))
        self.stop.request(Terminated)

    def finish(self) -> None:
        self.told.append(("finish", 0))


def scene_of(label, config, name="s01"):
    return make_scene("clip", make_subject(name, config), label, config)


def key_frames(label, config):
    scene = scene_of(label, config)
    return [scene.render(t).astype(np.float32) for t in (0, scene.draw.apex, scene.draw.offset)]


def truth_of(label, config):
    return scene_of(label, config).truth()


def warped(moving, flow):
    y, x = np.indices(moving.shape, np.float32)
    return cv2.remap(moving, x + np.float32(flow[0]), y + np.float32(flow[1]), cv2.INTER_CUBIC)


def interior_error(reference, moving, flow):
    inner = (slice(12, -12), slice(12, -12))
    return np.abs(warped(moving, flow) - reference)[inner].mean()


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("label", ["smile", "smile_frown", "surprise_held", "sulk"])
@pytest.mark.parametrize("config", [STILL, CLEAN], ids=["still", "drifting"])
@pytest.mark.parametrize("phase", [0, 1], ids=["rise", "fall"])
def test_warping_by_the_true_flow_brings_the_frames_together(label, config, phase):
    frames, truth = key_frames(label, config), truth_of(label, config)
    reference, moving = frames[phase], frames[phase + 1]
    error = interior_error(reference, moving, truth.flow[phase])
    assert error < 0.7  # both frames are rounded to whole grey levels: 0.35 at best
    for shift in ((0.1, 0), (-0.1, 0), (0, 0.1), (0, -0.1)):  # the truth has no bias of a tenth of a pixel
        assert interior_error(reference, moving, truth.flow[phase] + np.reshape(shift, (2, 1, 1))) > 1.05 * error
    moves = np.hypot(*truth.flow_local[phase]) > 0.5
    wrong = np.abs(warped(moving, truth.flow[phase] - truth.flow_local[phase]) - reference)[moves].mean()
    right = np.abs(warped(moving, truth.flow[phase]) - reference)[moves].mean()
    assert wrong > 3 * right


def test_the_local_truth_is_the_truth_of_the_same_clip_without_drift():
    scene = scene_of("smile_frown", CLEAN)
    undrifted = dataclasses.replace(scene.draw, drift=np.zeros((2, 4)))
    still, drifting = dataclasses.replace(scene, draw=undrifted).truth(), scene.truth()
    np.testing.assert_allclose(still.flow, drifting.flow_local, atol=1e-5)
    assert np.abs(drifting.flow - drifting.flow_local).max() > 1


def test_the_stored_drift_is_where_the_head_went():
    truth = truth_of("frown", CLEAN)
    np.testing.assert_array_equal(truth.drift[0], np.eye(2, 3))
    y, x = 300, 20  # far from the face: only the head's motion is seen there
    for phase in (0, 1):
        before, after = truth.drift[phase], truth.drift[phase + 1]
        head = np.linalg.solve(before[:, :2], np.array([x, y]) - before[:, 2])
        np.testing.assert_allclose(truth.flow[phase, :, y, x], after[:, :2] @ head + after[:, 2] - [x, y], atol=1e-4)


@pytest.mark.parametrize(
    ("phase", "groups"),
    [
        (0, [{"smile", "smile_lopsided", "smile_frown"}, {"surprise", "surprise_held"}]),
        (1, [{"smile", "smile_brow"}, {"frown", "sulk"}]),
    ],
    ids=["rise", "fall"],
)
def test_exactly_the_classes_of_the_table_share_a_phase(phase, groups):
    flows = {label: truth_of(label, STILL).flow_local[phase] for label in LABELS["bumps"]}
    for one in LABELS["bumps"]:
        for other in LABELS["bumps"]:
            shared = one == other or any({one, other} <= group for group in groups)
            difference = np.abs(flows[one] - flows[other]).max()
            assert difference < 1e-5 if shared else difference > 0.5, (one, other, difference)


def test_the_peak_is_the_one_drawn():
    scene = scene_of("smile", STILL)
    peak = np.hypot(*scene.truth().flow_local[0]).max()
    assert 0.8 * scene.draw.peak_px < peak < 1.2 * scene.draw.peak_px


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(tmp_path):
    for name in ("first", "second"):
        synthesise(tmp_path / name, TINY)
    synthesise(tmp_path / "other", dataclasses.replace(TINY, seed=1))
    assert digests(tmp_path / "first") == digests(tmp_path / "second")
    frame = "frames/s01/s01_smile_01/0001.png"
    assert digests(tmp_path / "first")[frame] != digests(tmp_path / "other")[frame]


def test_asking_for_more_leaves_the_clips_already_there_as_they_were(tmp_path):
    synthesise(tmp_path / "few", TINY)
    synthesise(tmp_path / "more", dataclasses.replace(TINY, subjects=2, clips=2, classes=("frown", "sulk", "smile")))
    few, more = digests(tmp_path / "few"), digests(tmp_path / "more")
    kept = [name for name in few if name.startswith(("frames/", "truth/"))]
    assert len(kept) > 10
    assert all(few[name] == more[name] for name in kept)


def test_the_manifest_reads_and_names_frames_and_truth_that_exist(tmp_path):
    config = dataclasses.replace(TINY, key_frames_only=True)
    manifest = synthesise(tmp_path / "set", config)
    clips = read_manifest(manifest)
    assert [clip.label for clip in clips] == ["smile", "sulk"]
    for clip, scene in zip(clips, scenes(config), strict=True):
        numbers = [int(path.stem) for path in sorted((manifest.parent / clip.path).iterdir())]
        assert numbers == [clip.onset, clip.apex, clip.offset]
        expected = scene.truth()
        stored = read_truth(manifest.parent / "truth" / f"{clip.clip_id}.npz")
        np.testing.assert_array_equal(stored.flow, expected.flow)
        np.testing.assert_array_equal(stored.flow_local, expected.flow_local)
        np.testing.assert_array_equal(stored.drift, expected.drift)
    assert "synthetic" in (manifest.parent / "README.txt").read_text()


def test_an_interrupted_run_leaves_no_manifest(tmp_path):
    reporter = StopsAfterOne()
    with pytest.raises(Terminated, match="Run the same command again"):
        synthesise(tmp_path / "set", TINY, reporter=reporter, stop=reporter.stop)
    assert reporter.told == [("start", 2), ("advance", 1), ("finish", 0)]
    assert (tmp_path / "set" / "frames").is_dir()
    assert not list((tmp_path / "set").glob("manifest*"))


def test_a_folder_with_something_in_it_is_refused_and_kept(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(ConfigError, match="must be an empty folder"):
        synthesise(tmp_path, TINY)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_full_disk_is_named_as_such(tmp_path, monkeypatch):
    def full(*_args, **_arrays):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(DiskFull, match="Free some and run the same command again"):
        synthesise(tmp_path / "set", TINY)


@pytest.mark.parametrize(
    "wrong",
    [
        {"classes": ("smile", "joy")},
        {"classes": ()},
        {"subjects": 0},
        {"width": 321},
        {"cropped": True, "width": 224, "height": 320},
        {"peak_px": (2.0, 1.0)},
        {"peak_px": (1.0, 9.0)},
        {"phase_frames": (0, 3)},
        {"format": "gif"},
        {"format": "mp4", "key_frames_only": True},
        {"drift_deg": float("nan")},
    ],
    ids=str,
)
def test_a_setting_out_of_range_is_refused(wrong):
    with pytest.raises(ConfigError, match=r"^synth: \w+ must be .*; got "):
        SynthConfig(**wrong)


def test_the_default_motion_is_scaled_down_to_what_small_frames_allow():
    bumps = SynthConfig(motion="bumps")
    assert bumps.peaks_px == dataclasses.replace(bumps, width=224, height=224).peaks_px == (0.8, 2.5)
    small = SynthConfig(motion="bumps", width=96, height=96, cropped=True)
    assert small.peaks_px == pytest.approx((0.8 * 1.152 / 2.5, 1.152))
    assert all(scene.draw.peak_px <= 1.152 for scene in scenes(dataclasses.replace(small, classes=("smile",))))


def test_a_motion_too_large_for_the_frames_is_refused_with_its_option_and_their_size():
    with pytest.raises(ConfigError, match=r"from 0 to 1.152 \(--peak-px\) in frames of 96 x 96; got \(0.8, 2.5\)"):
        SynthConfig(motion="bumps", width=96, height=96, peak_px=(0.8, 2.5))


def test_the_strongest_motion_allowed_can_still_be_inverted():
    config = dataclasses.replace(STILL, peak_px=(3.84, 3.84))
    for label in LABELS["bumps"]:
        truth = truth_of(label, config)
        y, x = np.indices((config.height, config.width), np.float32)
        stretch = np.gradient(x + truth.flow_local[0, 0], axis=1) * np.gradient(y + truth.flow_local[0, 1], axis=0)
        assert stretch.min() > 0.2, label  # the face is nowhere folded over itself


@pytest.mark.parametrize(("form", "tolerance"), [("mkv", 0.0), ("mp4", 2.0)])
def test_a_video_holds_every_frame_from_onset_to_offset(tmp_path, form, tolerance):
    config = dataclasses.replace(TINY, format=form, classes=("smile",))
    (clip,) = read_manifest(synthesise(tmp_path / "set", config))
    with av.open(str(tmp_path / "set" / clip.path)) as video:
        stored = [frame.to_ndarray(format="gray") for frame in video.decode(video=0)]
        assert float(video.streams.video[0].average_rate) == pytest.approx(config.fps)
    assert clip.onset == 0
    assert len(stored) == clip.offset + 1
    (scene,) = scenes(config)
    for t, frame in enumerate(stored):
        assert np.abs(frame.astype(float) - scene.render(t)).mean() <= tolerance


def test_a_cropped_face_has_its_eyes_where_the_canonical_crop_has_them():
    config = dataclasses.replace(STILL, width=224, height=224, cropped=True)
    points = make_subject("s01", config).landmarks
    np.testing.assert_allclose(points[LEFT_EYE], [0.278 * 224 - 0.5, 0.296 * 224 - 0.5], atol=1e-6)
    np.testing.assert_allclose(points[RIGHT_EYE], [0.722 * 224 - 0.5, 0.296 * 224 - 0.5], atol=1e-6)


@pytest.mark.filterwarnings("ignore:::mediapipe")
def test_a_face_detector_finds_the_landmarks_of_both_a_plain_and_a_mirrored_subject():
    mediapipe = pytest.importorskip("mediapipe")
    vision, tasks = mediapipe.tasks.vision, mediapipe.tasks
    model = resources.files("flowkit.assets").joinpath("face_landmarker.task").read_bytes()
    options = vision.FaceLandmarkerOptions(base_options=tasks.BaseOptions(model_asset_buffer=model))
    config = SynthConfig(motion="bumps")
    with vision.FaceLandmarker.create_from_options(options) as detector:
        for name in ("s01", "s02", "s03"):
            scene = scene_of("smile", config, name)
            grey = scene.render(0)
            picture = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=cv2.merge([grey] * 3))
            (face,) = detector.detect(picture).face_landmarks
            found = np.array([(point.x * config.width, point.y * config.height) for point in face]) - 0.5
            apart = np.hypot(*(found - scene.subject.landmarks).T)
            assert np.median(apart) < 2, name
            assert np.percentile(apart, 95) < 5, name


@pytest.mark.parametrize("motion", ["bumps", "faces"])
def test_an_interrupted_run_is_resumed_and_ends_as_one_that_was_not(tmp_path: Path, motion: str) -> None:
    out, whole = tmp_path / "clips", tmp_path / "whole"
    config = TINY if motion == "bumps" else dataclasses.replace(TINY, motion="faces", classes=("fear", "anger"))
    reporter = StopsAfterOne()
    with pytest.raises(Terminated):
        synthesise(out, config, reporter=reporter, stop=reporter.stop)
    assert not (out / "manifest.csv").exists()
    (first,) = (out / "truth").iterdir()
    written = first.stat().st_mtime_ns
    with pytest.raises(ConfigError, match="settings must be those that the data set was begun with"):
        synthesise(out, dataclasses.replace(config, seed=1))
    assert len(read_manifest(synthesise(out, config))) == 2
    assert first.stat().st_mtime_ns == written
    synthesise(whole, config)
    assert digests(out) == digests(whole)


def test_a_folder_of_someone_elses_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "README.txt").write_text("mine")
    with pytest.raises(ConfigError, match="must be an empty folder"):
        synthesise(tmp_path, TINY)
    assert (tmp_path / "README.txt").read_text() == "mine"


def test_a_wandering_head_turns_round_elsewhere_and_changes_nothing_else():
    plain, wandering = draw_clip("clip", CLEAN), draw_clip("clip", dataclasses.replace(CLEAN, wander=True))
    assert plain.turn == plain.apex
    assert wandering.turn != wandering.apex
    same = ("apex", "offset", "peak_px", "residual", "noise_seed")
    assert all(getattr(plain, name) == getattr(wandering, name) for name in same)
    np.testing.assert_array_equal(plain.drift, wandering.drift)
    turns = [draw_clip(str(i), dataclasses.replace(CLEAN, wander=True)) for i in range(200)]
    shares = [draw.turn / draw.offset for draw in turns]
    assert min(shares) < 0.1 < 0.9 < max(shares)


@pytest.mark.parametrize("wander", [False, True])
def test_the_truth_holds_where_the_head_wanders(wander):
    config = dataclasses.replace(CLEAN, wander=wander)
    frames, truth = key_frames("smile", config), truth_of("smile", config)
    assert interior_error(frames[0], frames[1], truth.flow[0]) < 0.7


def test_the_face_rests_before_the_onset_and_behind_the_offset(tmp_path):
    config = dataclasses.replace(TINY, rest_frames=3, noise=0, classes=("smile",))
    (clip,) = read_manifest(synthesise(tmp_path / "set", config))
    assert clip.onset == 4
    frames = sorted((tmp_path / "set" / clip.path).iterdir())
    assert len(frames) == clip.offset - clip.onset + 1 + 6
    contents = [path.read_bytes() for path in frames]
    assert len(set(contents[:4])) == 1
    assert len(set(contents[-4:])) == 1
    assert contents[4] != contents[3]
    noisy = scene_of("smile", dataclasses.replace(config, noise=1))
    assert (noisy.render(-1) != noisy.render(-2)).any()
    (video,) = read_manifest(synthesise(tmp_path / "video", dataclasses.replace(config, format="mkv")))
    assert (video.onset, video.offset) == (3, clip.offset - 1)
