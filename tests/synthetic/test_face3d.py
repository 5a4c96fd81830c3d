"""A second head: what is refused in words, that a file and a folder are the same face, and that it moves as its truth says."""

from __future__ import annotations

import dataclasses
import itertools
import os
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from flowkit.cli import main
from flowkit.errors import ConfigError
from flowkit.face.face_mesh import BLINK, LEFT, RIGHT
from flowkit.face.landmarks import EYES, FACE_OVAL, LEFT_EYE, LIPS, RIGHT_EYE, FaceLandmarker
from flowkit.synthetic import camera, face3d_files
from flowkit.synthetic.camera import head_of
from flowkit.synthetic.expressions import Blink
from flowkit.synthetic.face3d import load_head
from flowkit.synthetic.face3d_files import shape_names
from flowkit.synthetic.face_scenes import FaceScene
from flowkit.synthetic.head import EYE, HAIR, MOUTH, SKIN, Head, canonical_head
from flowkit.synthetic.people import make_person
from flowkit.synthetic.scenes import SynthConfig, make_scene, make_subject

FACE3D = Path(__file__).parents[3] / "shared" / "data" / "face3d" / "face3d.npz"
needs_face3d = pytest.mark.skipif(not FACE3D.is_file(), reason="no ../shared/data/face3d")
FLAT = SynthConfig(flat=True, noise=0, light=0, drift_px=4, drift_deg=1.5, turn_deg=1.5, blinks=0, face3d=str(FACE3D))


def made_up() -> dict[str, Any]:
    """Arrays of the right shapes, of a face that is none."""
    names = np.array(shape_names())
    return {
        "vertices": np.zeros((90, 3), np.float32) + np.linspace(-1, 1, 90, dtype=np.float32)[:, None],
        "triangles": np.arange(30, dtype=np.uint16).reshape(-1, 3),
        "uv": np.zeros((90, 2), np.float16),
        "part": np.arange(90, dtype=np.uint8) % 3,
        "expression_names": names,
        "expressions": np.zeros((len(names), 90, 3), np.float16),
        "identities": np.zeros((2, 90, 3), np.float16),
        "multipie68": np.arange(68, dtype=np.uint16),
        "mediapipe478_vertex": np.zeros(478, np.uint16),
    }


def refused(path: Path) -> str:
    with pytest.raises(ConfigError) as error:
        load_head(str(path))
    text = str(error.value)
    assert text.startswith(str(path))
    assert " must " in text
    assert "; got " in text
    return text


SPOILT: dict[str, tuple[dict[str, Any], str]] = {
    "an array missing": ({"identities": None}, "the array identities"),
    "another number of points": ({"uv": np.zeros((5, 2), np.float16)}, "uv must be 90 x 2"),
    "three dimensions instead of two": ({"part": np.zeros((90, 1), np.uint8)}, "part must be 90 whole"),
    "no identity": ({"identities": np.zeros((0, 90, 3))}, "identities must be K x 90 x 3"),
    "whole numbers": ({"vertices": np.zeros((90, 3), np.int32)}, "got 90 x 3 of int32"),
    "objects": ({"part": np.array([None] * 90)}, "part must be 90 whole numbers"),
    "not a number": ({"vertices": np.full((90, 3), np.nan, np.float32)}, "vertices must hold numbers between"),
    "infinity": ({"identities": np.full((2, 90, 3), np.inf)}, "identities must hold numbers between"),
    "other names": ({"expression_names": np.array([f"x{i}" for i in range(len(shape_names()))])}, "browInnerUp_L"),
    "points that are not there": (
        {"triangles": np.full((9, 3), 90, np.uint16)},
        "triangles must name points from 0 to 89",
    ),
    "landmarks that are not there": ({"mediapipe478_vertex": np.full(478, 90)}, "mediapipe478_vertex must name points"),
    "negative numbers": ({"multipie68": np.full(68, -1)}, "the 68 landmarks must name points"),
    "no eyeballs": ({"part": np.arange(90) % 2}, "part must be 0, 1 and 2"),
    "one eye": ({"vertices": np.ones((90, 3), np.float32)}, "eyeballs must lie on both sides"),
    "no face": ({}, "the 68 landmarks must lie as in a face"),
}


@pytest.mark.parametrize(("changes", "words"), SPOILT.values(), ids=SPOILT)
def test_a_file_of_another_shape_is_refused_in_words(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    arrays = {name: array for name, array in {**made_up(), **changes}.items() if array is not None}
    np.savez(tmp_path / "face.npz", **arrays)
    assert words in refused(tmp_path / "face.npz")


def test_what_is_no_npz_is_refused_in_words(tmp_path: Path) -> None:
    assert "got nothing there" in refused(tmp_path / "nowhere")
    for name, content in {"text": b"hello", "empty": b"", "npy": b"\x93NUMPY"}.items():
        (tmp_path / name).write_bytes(content)
        assert "face3d.npz" in refused(tmp_path / name)
    np.savez_compressed(tmp_path / "whole.npz", **{**made_up(), "vertices": np.random.default_rng(0).random((90, 3))})
    whole = (tmp_path / "whole.npz").read_bytes()
    (tmp_path / "damaged").write_bytes(whole[:300] + bytes(200) + whole[500:])
    refused(tmp_path / "damaged")
    os.mkfifo(tmp_path / "pipe")
    assert "regular file" in refused(tmp_path / "pipe")


def test_a_huge_array_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "bomb.npz", **{**made_up(), "vertices": np.zeros((1 << 23, 3), np.float32)})
    before = time.perf_counter()
    assert "vertices must be V x 3" in refused(tmp_path / "bomb.npz")
    assert time.perf_counter() - before < 1


def obj(points: np.ndarray, uv: np.ndarray | None = None, polygons: np.ndarray | None = None) -> str:
    lines = ["# made up", "mtllib none.mtl"]
    lines += [f"v {x:.5f} {y:.5f} {z:.5f}" for x, y, z in points.tolist()]
    lines += [f"vt {u:.5f} {v:.5f}" for u, v in ([] if uv is None else uv.tolist())]
    lines += [
        "f " + " ".join(f"{k}/{k}" for k in corners) for corners in ([] if polygons is None else polygons.tolist())
    ]
    return "\n".join(lines) + "\n"


def folder_of(path: Path, files: dict[str, str], other: str) -> Path:
    """A folder of ICT-FaceKit in which most shapes are the same file."""
    path.mkdir()
    (path / "other").write_text(other)
    for name in ["generic_neutral_mesh", *(f"identity{k:03d}" for k in range(50)), *shape_names()]:
        if name in files:
            (path / f"{name}.obj").write_text(files[name])
        else:
            (path / f"{name}.obj").hardlink_to(path / "other")
    return path


def test_a_folder_with_files_missing_names_them(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "ict", {}, obj(np.zeros((3, 3))))
    for name in ("identity007", "jawOpen", "mouthSmile_L"):
        (folder / f"{name}.obj").unlink()
    assert "must have identity007.obj, mouthSmile_L.obj, jawOpen.obj; got" in refused(folder)
    (tmp_path / "empty").mkdir()
    assert "generic_neutral_mesh.obj" in refused(tmp_path / "empty")


@pytest.mark.parametrize(
    ("neutral", "words"),
    {
        "v 0 0 0\n": "must have 26719 points; got 1",
        "v a b c\n" * 26719: "made of numbers; got",
        "v 0 0\n" * 26719: "3 numbers each",
        "v 0 0 0\n" * 26719: "must name points and places",
        "v 0 0 0\n" * 26719 + "vt 0 0\nf 1//1 2//2 3//3\n": "polygons must be lines",
        "v 0 0 0\n" * 26719 + "vt 0 0\nf 1/1 2/1 30000/1\n": "must name points and places",
    }.items(),
    ids=["few points", "words", "two numbers", "no polygons", "no places", "a point that is not there"],
)
def test_a_folder_with_another_mesh_is_refused_in_words(tmp_path: Path, neutral: str, words: str) -> None:
    folder = folder_of(tmp_path / "ict", {"generic_neutral_mesh": neutral}, "v 0 0 0\n")
    with pytest.raises(ConfigError, match=words):
        load_head(str(folder))


def test_a_shape_with_another_mesh_is_refused_by_its_name(tmp_path: Path) -> None:
    polygons = np.array([[1, 2, 3, 4]])
    neutral = obj(np.zeros((26719, 3)), np.zeros((4, 2)), polygons)
    folder = folder_of(tmp_path / "ict", {"generic_neutral_mesh": neutral}, "v 0 0 0\n")
    with pytest.raises(ConfigError, match=r"\.obj: the mesh must have 26719 points; got 1"):
        load_head(str(folder))


def test_the_command_says_what_is_wrong_and_writes_nothing(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["synth", "--out", str(tmp_path / "out"), "--face3d", str(tmp_path / "nowhere")])
    assert done.exit_code == 2
    assert "nowhere: --face3d must be a folder of ICT-FaceKit or a face3d.npz; got nothing there." in done.output
    assert not (tmp_path / "out").exists()


# --- the real face


@pytest.fixture(scope="module")
def head() -> Head:
    return load_head(str(FACE3D))


@needs_face3d
def test_a_head_has_all_that_our_own_has(head: Head) -> None:
    assert head.action_units.keys() == canonical_head().action_units.keys()
    assert set(head.part.tolist()) == {SKIN, HAIR, EYE, MOUTH}
    count = len(head.points)
    assert head.photo.shape == (count, 2)
    assert head.differences.shape == (50, count, 3)
    assert head.landmark.shape == (478,)
    assert head.triangles.min() == 0
    assert head.triangles.max() == count - 1
    assert head.photo.min() >= 0
    assert head.photo.max() <= 1
    skin = head.part == SKIN
    for unit in {unit for unit, _ in head.action_units} - {BLINK}:
        peaks = [np.linalg.norm(field[skin], axis=1).max() for (u, _), field in head.action_units.items() if u == unit]
        assert max(peaks) == pytest.approx(1)


@needs_face3d
def test_a_head_lies_where_our_own_lies(head: Head) -> None:
    ours = canonical_head()
    points = [10, 152, LEFT_EYE, RIGHT_EYE, 1, 61, 291]
    apart = head.points[head.landmark[points]] - ours.points[ours.landmark[points]]
    assert np.linalg.norm(apart, axis=1).max() < 2
    eyes = head.points[head.landmark[[LEFT_EYE, RIGHT_EYE]]]
    assert np.linalg.norm(eyes[1] - eyes[0]) == pytest.approx(8.9, abs=0.2)
    left, right = (head.action_units[12, side] for side in (LEFT, RIGHT))
    assert head.points[np.linalg.norm(left, axis=1).argmax(), 0] > 1
    assert head.points[np.linalg.norm(right, axis=1).argmax(), 0] < -1


@needs_face3d
def test_a_head_is_read_once() -> None:
    assert head_of(FLAT) is head_of(dataclasses.replace(FLAT, seed=1))
    assert head_of(SynthConfig()) is canonical_head()


@needs_face3d
@pytest.mark.slow
def test_a_folder_is_the_same_face(tmp_path: Path, head: Head, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(face3d_files, "MODES", 2)
    with np.load(FACE3D) as file:
        arrays = {name: file[name] for name in file.files}
    number = arrays["source_vertex"].astype(int)
    points, uv = np.tile([0.0, 0.0, -9.0], (26719, 1)), np.zeros((26719, 2))
    points[number], uv[number] = arrays["vertices"], arrays["uv"]
    names = arrays["expression_names"].tolist()
    shapes = {name: arrays["expressions"][names.index(name)] for name in ("mouthSmile_L", "mouthSmile_R", "jawOpen")}
    shapes |= {f"identity{k:03d}": arrays["identities"][k] for k in range(2)}
    files = {"generic_neutral_mesh": obj(points, uv, number[arrays["triangles"].astype(int)] + 1)}
    for name, field in shapes.items():
        moved = points.copy()
        moved[number] += field
        files[name] = obj(moved)
    folder_of(tmp_path / "FaceXModel", files, obj(points))
    other = load_head(str(tmp_path))
    np.testing.assert_array_equal(other.triangles, head.triangles)
    np.testing.assert_allclose(other.points, head.points, atol=1e-4)
    np.testing.assert_allclose(other.photo, head.photo, atol=1e-3)
    np.testing.assert_allclose(other.differences, head.differences[:2], atol=1e-4)
    for key in ((12, LEFT), (12, RIGHT), (26, "B")):
        np.testing.assert_allclose(other.action_units[key], head.action_units[key], atol=1e-3)
    apart = np.linalg.norm(head.points[other.landmark] - head.points[head.landmark], axis=1)
    assert np.median(apart) < 0.3
    assert np.quantile(apart, 0.9) < 0.8


@needs_face3d
def test_eyes_and_mouth_are_seen_through_their_openings_and_nowhere_else(head: Head) -> None:
    shown: dict[str, list[list[int]]] = {"rest": [], "open": [], "closed": []}
    for number in (0, 4, 6, 9):  # two of them with narrow jaws, on which a wide sheet shows
        person = make_person(f"q{number}", 1, head)
        units = person.action_units
        states = {"rest": np.zeros(3), "open": units[26, "B"], "closed": units[BLINK, LEFT] + units[BLINK, RIGHT]}
        for name, moved in states.items():
            shown[name].append(parts(head, person.points + moved))
    rest, opened, closed = (np.median(shown[name], axis=0) for name in ("rest", "open", "closed"))
    assert rest[0] > 300
    assert rest[1] < 40
    assert opened[1] > 150
    assert closed[0] < 0.05 * rest[0]
    assert not any(any(row[2:]) for rows in shown.values() for row in rows)


def parts(head: Head, points: np.ndarray) -> list[int]:
    """Pixels, at 10 px per cm, of eyes and mouth; of eyes and mouth outside lids and lips, and of background inside the face."""
    view = np.array([[10.0, 0, 120], [0, 10.0, 110]])
    projected = camera._projected(points, np.zeros(6), view)
    hit, _, _ = camera._raster(projected, head.triangles, (240, 240))
    seen = np.where(hit < 0, 0, head.part[head.triangles[hit, 0]])

    def inside(*rings: tuple[int, ...]) -> np.ndarray:
        mask = np.zeros(hit.shape, np.uint8)
        for ring in rings:
            cv2.fillPoly(mask, [np.rint(projected[head.landmark[list(ring)], :2]).astype(np.int32)], 1)
        return mask

    wide = np.ones((11, 11), np.uint8)
    eye, mouth = seen == EYE, seen == MOUTH
    strayed = eye & (cv2.dilate(inside(*EYES), wide) == 0) | mouth & (cv2.dilate(inside(LIPS), wide) == 0)
    holes = (seen == 0) & (cv2.erode(inside(FACE_OVAL), wide) > 0)
    return [int(area.sum()) for area in (eye, mouth, strayed, holes)]


def scene_of(label: str, config: SynthConfig) -> FaceScene:
    scene = make_scene("clip", make_subject("s01", config), label, config)
    assert isinstance(scene, FaceScene)
    return scene


@needs_face3d
@pytest.mark.parametrize("turn_deg", [0.0, 3.0])
@pytest.mark.parametrize("label", ["happiness", "surprise", "disgust"])
def test_the_true_flow_holds_on_this_face_too(label: str, turn_deg: float) -> None:
    scene = scene_of(label, dataclasses.replace(FLAT, turn_deg=turn_deg))
    truth = scene.truth()
    times = (0, scene.draw.apex, scene.draw.offset)
    y, x = np.indices(truth.visible[0].shape, np.float32)
    skin = scene.subject.person.head.part == SKIN
    triangles = scene.subject.person.head.triangles
    for phase, (start, end) in enumerate(itertools.pairwise(times)):
        seen = scene.projected(scene.points(start), scene.pose(start))
        hit, _, _ = camera._raster(seen, triangles, (scene.config.height, scene.config.width))
        on_skin = truth.visible[phase] & (hit >= 0) & skin[triangles[hit, 0]]
        assert on_skin.sum() > 3000
        before, after = scene.clean(start), scene.clean(end)
        for shift, holds in ((0.0, True), (0.5, False)):
            flow = truth.flow[phase] + np.float32(shift)
            warped = cv2.remap(after, x + flow[0], y + flow[1], cv2.INTER_CUBIC)
            assert ((np.abs(warped - before)[on_skin] <= 1).mean() >= 0.99) == holds


@needs_face3d
def test_what_a_lid_hides_of_this_eye_is_not_visible() -> None:
    scene = scene_of("anger", dataclasses.replace(FLAT, drift_px=0, drift_deg=0, turn_deg=0))
    blink = Blink(middle=float(scene.draw.apex), half=10.0, closed=1.0)
    closing = dataclasses.replace(scene, draw=dataclasses.replace(scene.draw, blinks=(blink,)))
    x, y = scene.landmarks[468].round().astype(int)
    assert scene.truth().visible[0, y, x]
    assert not closing.truth().visible[0, y, x]


@needs_face3d
@pytest.mark.slow
def test_mediapipe_finds_the_face() -> None:
    config = dataclasses.replace(FLAT, flat=False, noise=1, pose_deg=15)
    found = []
    with FaceLandmarker() as landmarker:
        for number in range(20):
            subject = make_subject(f"s{number:02d}", config)
            frame = make_scene(f"c{number}", subject, "fear", config).render(0)
            faces = landmarker.detect(np.repeat(frame[..., None], 3, axis=2))
            if len(faces) == 1:
                cm = 8.9 / np.linalg.norm(subject.landmarks[LEFT_EYE] - subject.landmarks[RIGHT_EYE])
                found.append(np.median(np.linalg.norm(faces[0] - subject.landmarks, axis=1)) * cm)
    assert len(found) >= 19
    assert np.median(found) < 0.35
