"""Faces found by the real model, and landmark files read."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import cv2
import numpy as np
import pytest

import portrait
from flowkit.config import FrameConfig
from flowkit.errors import EnvironmentMissing, ManifestError
from flowkit.face import landmarks, landmarks_file
from flowkit.face.landmarks import FaceLandmarker
from flowkit.face.landmarks_file import read_landmarks_file
from flowkit.inputs.clip import Clip
from flowkit.inputs.frames import read_frames

VIDEOS = Path(__file__).parents[3] / "shared" / "data" / "faces"
MODEL = resources.files("flowkit.assets") / "face_landmarker.task"


@pytest.fixture(scope="module")
def landmarker() -> Iterator[FaceLandmarker]:
    with FaceLandmarker() as made:
        yield made


def test_the_points_of_the_bundled_face_are_found_again(landmarker: FaceLandmarker) -> None:
    (found,) = landmarker.detect(portrait.RGB)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, portrait.POINTS, atol=0.1)


def test_the_largest_face_comes_first(landmarker: FaceLandmarker) -> None:
    small = cv2.resize(portrait.RGB, (180, 180), interpolation=cv2.INTER_AREA)
    padded = np.pad(small, ((60, 60), (0, 0), (0, 0)))
    for left, right in ((padded, portrait.RGB), (portrait.RGB, padded)):
        first, second = landmarker.detect(np.concatenate([left, right], axis=1))
        assert np.ptp(first[:, 0]) == pytest.approx(np.ptp(portrait.POINTS[:, 0]), rel=0.1)
        assert np.ptp(second[:, 0]) == pytest.approx(0.6 * np.ptp(portrait.POINTS[:, 0]), rel=0.1)


def test_noise_shows_no_face(landmarker: FaceLandmarker) -> None:
    assert landmarker.detect(np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)) == []


@pytest.mark.parametrize(("name", "faces"), [("single_face.mp4", 1), ("no_face.mp4", 0)])
def test_real_videos_show_as_many_faces_as_they_say(landmarker: FaceLandmarker, name: str, faces: int) -> None:
    if not VIDEOS.is_dir():
        pytest.skip("no ../shared: the test videos are not part of the repository")
    clip = Clip(name, name, 0, 0, 0, "s", "faces", "")
    assert len(landmarker.detect(read_frames(clip, VIDEOS, FrameConfig()).onset_rgb)) == faces


def test_the_model_starts_without_a_word(capfd: pytest.CaptureFixture[str]) -> None:
    FaceLandmarker().close()
    assert capfd.readouterr() == ("", "")


DRAWINGS = """
import sys
from flowkit.face.landmarks import FaceLandmarker
{before}
FaceLandmarker().close()
print("matplotlib" in sys.modules)
from mediapipe.tasks.python.vision import drawing_utils
import matplotlib.pyplot
print(drawing_utils.plt.figure is matplotlib.pyplot.figure, type(matplotlib.pyplot) is type(sys))
"""


@pytest.mark.parametrize(("before", "imported"), [("", False), ("import matplotlib", True)])
def test_matplotlib_is_imported_when_a_drawing_of_mediapipe_needs_it(before: str, imported: bool) -> None:
    command = [sys.executable, "-c", DRAWINGS.format(before=before)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [str(imported), "True True"]


def test_only_chatter_is_silenced(capfd: pytest.CaptureFixture[str]) -> None:
    lines = (
        "W0000 00:00:1795375022.092504 18019 face_landmarker_graph.cc:174] Sets acceleration.\n",
        "E0000 00:00:1795375022.092504 18019 graph.cc:17] Broken.\n",
        "flowkit: something of ours.\n",
    )

    def fail_after_printing() -> None:
        with landmarks._without_chatter():
            os.write(2, "".join(lines).encode())
            raise KeyError

    with pytest.raises(KeyError):
        fail_after_printing()
    os.write(2, b"later\n")
    assert capfd.readouterr().err == "".join(lines[1:3]) + "later\n"


def test_a_bundled_model_that_was_tampered_with_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytearray(MODEL.read_bytes())
    content[1000] ^= 1
    (tmp_path / "face_landmarker.task").write_bytes(content)
    monkeypatch.setattr(landmarks, "MODEL", tmp_path / "face_landmarker.task")
    with pytest.raises(EnvironmentMissing, match=r"must have the sha256 64184e22.*Install flowkit again"):
        FaceLandmarker()


def test_a_model_of_ones_own_may_differ_from_the_bundled_one(tmp_path: Path) -> None:
    own = tmp_path / "own.task"
    content = MODEL.read_bytes()
    own.write_bytes(content[:-2] + b"\x04\x00mine")  # a comment at the end of the archive
    with FaceLandmarker(str(own)) as landmarker:
        assert len(landmarker.detect(portrait.RGB)) == 1


@pytest.mark.parametrize(("content", "got"), [(None, "No such file"), (b"no model", "one it refuses")])
def test_a_model_of_ones_own_must_exist_and_be_one(tmp_path: Path, content: bytes | None, got: str) -> None:
    own = tmp_path / "own.task"
    if content is not None:
        own.write_bytes(content)
    with pytest.raises(EnvironmentMissing, match=rf"own\.task: face model must .* got {got}.*align.face_model"):
        FaceLandmarker(str(own))


def test_a_missing_system_library_is_named_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = [("libGL.so.1", "libgl1"), ("libEGL.so.1", "libegl1")]
    monkeypatch.setattr(landmarks, "missing_system_libraries", lambda: missing)
    with pytest.raises(EnvironmentMissing, match=r"libEGL\.so\.1\. Run sudo apt-get install -y libegl1, or"):
        FaceLandmarker()


def test_a_landmark_file_gives_points_by_clip_and_nan_for_the_rest(tmp_path: Path) -> None:
    file = tmp_path / "landmarks.csv"
    file.write_text(
        "\ufeffpoint, clip_id ,y,x,by\n33,\u00e9,2.5,1.5,me\n0,b,4,-3,me\n477,e\u0301,6,5,you\n", encoding="utf-8"
    )
    read = read_landmarks_file(file)
    assert set(read) == {"\u00e9", "b"}  # composed, as clip_id is in a manifest
    assert read["\u00e9"].dtype == np.float32
    assert read["\u00e9"][[33, 477]].tolist() == [[1.5, 2.5], [5, 6]]
    assert read["b"][0].tolist() == [-3, 4]
    assert np.isnan(read["\u00e9"]).sum() == 2 * 476


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"landmarks\.csv:1: header must name clip_id, point, x, y once each; got nothing"),
        ("clip_id,point,x\na,1,2\n", r":1: header must name clip_id, point, x, y"),
        ("clip_id,point,x,y\na,1,2\n", r":2: row must have 4 fields; got 3"),
        ("clip_id,point,x,y\n,1,2,3\n", r":2: clip_id must not be empty"),
        ("clip_id,point,x,y\na,478,2,3\n", r":2: point must be a whole number from 0 to 477; got '478'"),
        ("clip_id,point,x,y\na,-1,2,3\n", r":2: point must be a whole number from 0 to 477; got '-1'"),
        ("clip_id,point,x,y\na,1,nan,3\n", r":2: x and y must be numbers of pixels; got 'nan', '3'"),
        ("clip_id,point,x,y\na,1,2,wide\n", r":2: x and y must be numbers of pixels; got '2', 'wide'"),
        ("clip_id,point,x,y\na,1,2,3\na,1,2,3\n", r":3: point must stand once a clip; got 1 of a a second time"),
        ('clip_id,point,x,y\n"a,1,2,3\n', r"landmarks must be a readable CSV file"),
    ],
)
def test_a_landmark_file_is_refused_with_the_line_that_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "landmarks.csv"
    file.write_text(text)
    with pytest.raises(ManifestError, match=message):
        read_landmarks_file(file)


def test_all_problems_of_a_landmark_file_are_listed_up_to_a_limit(tmp_path: Path) -> None:
    file = tmp_path / "landmarks.csv"
    file.write_text("clip_id,point,x,y\n" + "a,x,1,1\n" * 30)
    with pytest.raises(ManifestError, match=r"(?s):2: point.*:21: point.*\n\.\.\. and 10 more\.$"):
        read_landmarks_file(file)


def test_a_landmark_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"absent\.csv: landmarks must be a readable CSV file"):
        read_landmarks_file(tmp_path / "absent.csv")


@pytest.mark.parametrize(
    ("rows", "plain"),
    [
        ("a,0,1.5,2\na,1,-3,4.25\nb,477,5.,6\na,2,0,0\n", True),
        ("\u00e9,0,1,2\ne\u0301,1,3,4\n", False),  # one clip, spelt in two ways
        ("a,0,1,2\r\nb,1,3,4\r\n", False),
        ("a,0,1,2\nb,1,3,4", False),  # no end of the last line
        ("a, 0 ,1,2\n", False),
        ('"a,b",0,1,2\n', False),
        ("a,0,1e2,2\n", False),
        ("a,0,1_0,2\n", False),
        ("a,0,.5,2\n", False),
        ("a,\u0663,1,2\n", False),
        ("a,0,1000000,2\n", False),
        ("a,478,1,2\n", False),
        ("a,0,1,2\nb,0,1,2\na,0,1,2\n", False),
        ("a,0,1,2,3\n", False),
        ("a,0,1\n", False),
        ("\n", False),
        ("", True),
    ],
)
def test_the_short_way_through_a_landmark_file_gives_what_the_careful_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: str, plain: bool
) -> None:
    file = tmp_path / "landmarks.csv"
    file.write_text("clip_id,point,x,y\n" + rows, encoding="utf-8", newline="")

    def read() -> dict[str, list[object]] | str:
        try:
            return {name: np.nan_to_num(points, nan=-1).tolist() for name, points in read_landmarks_file(file).items()}
        except ManifestError as error:
            return str(error)

    assert (landmarks_file._read_plain(file) is not None) == plain
    found = read()
    monkeypatch.setattr(landmarks_file, "_read_plain", lambda _: None)
    assert found == read()


def test_a_landmark_file_is_read_the_short_way_across_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "landmarks.csv"
    rows = [f"clip{n},{k},{n + k / 8},{k}" for n in range(9) for k in range(0, 478, 7)]
    file.write_text("\n".join(["clip_id,point,x,y", *rows, ""]))
    monkeypatch.setattr(landmarks_file, "_BLOCK", 300)
    found = landmarks_file._read_plain(file)
    assert found is not None
    assert list(found) == [f"clip{n}" for n in range(9)]
    assert found["clip8"][476].tolist() == [8 + 476 / 8, 476]
