"""Every frame of a recording comes once, in order, under the number that extraction knows it by, however its parts are cut."""

from __future__ import annotations

import fractions
import itertools
import math
import os
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from flowkit.config import FrameConfig
from flowkit.errors import ClipError, FailureCode
from flowkit.inputs import recording_frames
from flowkit.inputs.recording_frames import Part, Recording, frames_of, survey
from flowkit.inputs.videos import open_reel

Pictures = list[npt.NDArray[np.uint8]]
CONFIG = FrameConfig()
RATE = 30


def pictures(count: int, size: tuple[int, int] = (64, 48)) -> Pictures:
    """Pictures of smooth shades that differ from frame to frame."""
    width, height = size
    x, y = np.arange(width), np.arange(height)[:, None]
    found = []
    for number in range(count):
        shade = 120 + 80 * np.sin((x + 3 * number) / 9) * np.cos((y - number) / 7)
        found.append(np.repeat(shade[..., None], 3, axis=2).astype(np.uint8))
    return found


def write(
    path: Path, frames: Pictures, codec: str, pixels: str, times: list[int] | None = None, **options: str
) -> Path:
    """Write a video with a key frame at every tenth frame."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE, options=options)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        stream.gop_size = 10
        unit = fractions.Fraction(1, 1000 if times else RATE)
        stream.codec_context.time_base = unit
        for number, pixels_ in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels_, "rgb24")
            frame.pts, frame.time_base = (times[number] if times else number), unit
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def all_of(
    recording: Recording, root: Path, config: FrameConfig = CONFIG
) -> list[tuple[int, float, npt.NDArray[np.float32]]]:
    """Number, time and luma of all frames, those shared by two parts once."""
    found: list[tuple[int, float, npt.NDArray[np.float32]]] = []
    for part in recording.parts:
        for frame in frames_of(recording, part, root, config):
            if not found or found[-1][0] != frame.number:
                found.append((frame.number, frame.seconds, frame.grey()))
    return found


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [
        ("a.mp4", "libx264", "yuv420p"),
        ("a.m4v", "libx264", "yuv420p"),
        ("a.mkv", "ffv1", "yuv444p"),
        ("a.mkv", "ffv1", "gray"),
        ("a.mkv", "ffv1", "yuv420p10le"),
        ("a.mkv", "ffv1", "bgr0"),
        ("a.avi", "mjpeg", "yuvj420p"),
        ("a.avi", "mpeg4", "yuv420p"),
        ("a.webm", "libvpx-vp9", "yuv420p"),
        ("a.webm", "libvpx", "yuv420p"),
        ("a.gif", "gif", "rgb8"),
    ],
)
def test_a_video_gives_the_frames_that_extraction_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, codec: str, pixels: str
) -> None:
    monkeypatch.setattr(recording_frames, "PART_FRAMES", 12)
    options = {"crf": "4", "preset": "fast"} if codec == "libx264" else {}
    write(tmp_path / name, pictures(45), codec, pixels, **options)
    recording = survey(name, tmp_path, CONFIG)
    found = all_of(recording, tmp_path)
    assert [number for number, _, _ in found] == list(range(45))
    assert [seconds for _, seconds, _ in found] == pytest.approx([number / RATE for number in range(45)], abs=0.011)
    if recording.frames:
        assert abs(recording.frames - 45) <= 2, "a duration may be that of a sound track"
    with open_reel(tmp_path / name, name) as reel:
        for (_, _, luma), (_, picture) in zip(found, reel.pictures(range(45), 44), strict=True):
            wanted = picture.pixels.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32) / 255
            assert np.abs(luma - wanted).mean() < 0.012
            assert luma.dtype == np.float32


def test_parts_begin_where_decoding_can_start_and_share_one_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording_frames, "PART_FRAMES", 12)
    write(tmp_path / "a.mp4", pictures(95), "libx264", "yuv420p", preset="fast")
    recording = survey("a.mp4", tmp_path, CONFIG)
    assert [part.first for part in recording.parts] == [0, 20, 40, 60, 80]
    numbers = [[frame.number for frame in frames_of(recording, part, tmp_path, CONFIG)] for part in recording.parts]
    assert all(before[-1] == after[0] for before, after in itertools.pairwise(numbers))
    assert [part.frames for part in recording.parts] == [len(part) for part in numbers]


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.webm", "libvpx")])
def test_numbers_count_from_the_index_base(tmp_path: Path, name: str, codec: str) -> None:
    """Of a video whose index is trusted, and of one whose is not."""
    write(tmp_path / name, pictures(12), codec, "yuv420p")
    config = FrameConfig(index_base=1)
    assert [number for number, _, _ in all_of(survey(name, tmp_path, config), tmp_path, config)] == list(range(1, 13))


def test_times_are_true_where_the_frame_rate_varies(tmp_path: Path) -> None:
    times = list(itertools.accumulate([33, 33, 33, 100] * 10))
    write(tmp_path / "a.mkv", pictures(40), "ffv1", "yuv420p", times)
    recording = survey("a.mkv", tmp_path, CONFIG)
    found = [seconds for _, seconds, _ in all_of(recording, tmp_path)]
    assert found == pytest.approx([(time - times[0]) / 1000 for time in times], abs=0.002)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Fifty images of which three are missing and one is damaged."""
    (tmp_path / "images").mkdir()
    for number, picture in enumerate(pictures(50), start=100):
        if number not in (110, 111, 130):
            Image.fromarray(picture).save(tmp_path / "images" / f"img{number}.png")
    (tmp_path / "images" / "img140.png").write_bytes(b"no picture")
    return tmp_path


def test_images_come_by_number_and_a_damaged_one_fails_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording_frames, "PART_FRAMES", 20)
    recording = survey("images", folder, CONFIG, 50.0)
    assert recording.frames == 47
    assert len(recording.parts) == 3
    assert recording.notes == ("3 frame numbers between 100 and 149 are missing",)
    numbers = []
    for part in recording.parts:
        for frame in frames_of(recording, part, folder, CONFIG):
            numbers.append(frame.number)
            assert frame.seconds == pytest.approx((frame.number - 100) / 50)
            if frame.number == 140:
                with pytest.raises(ClipError) as raised:
                    frame.grey()
                assert raised.value.code == FailureCode.IMAGE_UNREADABLE
            else:
                assert frame.grey().shape == frame.rgb().shape[:2] == (48, 64)
    assert sorted(set(numbers)) == [number for number in range(100, 150) if number not in (110, 111, 130)]


def test_an_unknown_rate_of_images_is_said(folder: Path) -> None:
    recording = survey("images", folder, CONFIG)
    assert recording.fps == 30
    assert recording.notes[0] == "frames per second are unknown; 30 are assumed"


def test_a_video_that_changes_between_survey_and_reading_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", pictures(12), "libx264", "yuv420p")
    recording = survey("a.mp4", tmp_path, CONFIG)
    write(tmp_path / "a.mp4", pictures(14), "libx264", "yuv420p")
    with pytest.raises(ClipError) as raised:
        all_of(recording, tmp_path)
    assert raised.value.code == FailureCode.SOURCE_CHANGED


@pytest.mark.parametrize("number", [100, 125, 149])
def test_images_that_change_are_another_recording_and_are_refused(folder: Path, number: int) -> None:
    """A search that was stopped is resumed only if sizes and times of all images are what they were."""
    before = survey("images", folder, CONFIG)
    image = folder / "images" / f"img{number}.png"
    os.utime(image, ns=(before.modified + 1, before.modified + 1))
    after = survey("images", folder, CONFIG)
    assert (after.size, after.modified) == (before.size, before.modified + 1)
    frames = {frame.number: frame for part in before.parts for frame in frames_of(before, part, folder, CONFIG)}
    frames[120].grey()
    with pytest.raises(ClipError, match=rf"got a change: images/img{number}.png was modified") as raised:
        frames[number].grey()
    assert raised.value.code == FailureCode.SOURCE_CHANGED


@pytest.mark.parametrize(("name", "codec"), [("a.webm", "libvpx"), ("a.mkv", "mpeg4"), ("a.mkv", "libx264")])
def test_the_usual_distance_of_frames_goes_before_a_rate_that_is_stated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, codec: str
) -> None:
    """Some recorders state 1000 frames per second."""
    times = [33 * number + number % 2 for number in range(60)]
    write(tmp_path / name, pictures(60), codec, "yuv420p", times)
    monkeypatch.setattr(av.VideoStream, "average_rate", 1000, raising=False)
    assert survey(name, tmp_path, CONFIG).fps == pytest.approx(30, rel=0.05)


def test_the_usual_distance_of_frames_is_known_of_a_damaged_video_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a.webm", pictures(60), "libvpx", "yuv420p", [33 * number for number in range(60)])
    whole = (tmp_path / "a.webm").read_bytes()
    (tmp_path / "a.webm").write_bytes(whole[: len(whole) // 2] + bytes(5000))
    monkeypatch.setattr(av.VideoStream, "average_rate", 1000, raising=False)
    assert survey("a.webm", tmp_path, CONFIG).fps == pytest.approx(30, rel=0.05)


def test_what_is_no_recording_fails_with_a_code(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video, whatever it is called")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "empty").mkdir()
    codes = {}
    for name in ("text.mp4", "empty.mp4", "empty", "nowhere.mp4", "../out.mp4"):
        with pytest.raises(ClipError) as raised:
            survey(name, tmp_path, CONFIG)
        codes[name] = raised.value.code
    assert codes == {
        "text.mp4": FailureCode.VIDEO_FORMAT_REFUSED,
        "empty.mp4": FailureCode.VIDEO_UNREADABLE,
        "empty": FailureCode.FRAME_MISSING,
        "nowhere.mp4": FailureCode.FRAME_MISSING,
        "../out.mp4": FailureCode.PATH_REFUSED,
    }


def test_damage_amid_a_part_ends_that_part_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording_frames, "PART_FRAMES", 12)
    path = write(tmp_path / "a.mkv", pictures(80), "ffv1", "yuv420p")
    recording = survey("a.mkv", tmp_path, CONFIG)
    with av.open(str(path)) as container:
        packets = [packet.pos for packet in container.demux(video=0) if packet.size]
    content, stat = bytearray(path.read_bytes()), path.stat()
    content[packets[30] + 40 : packets[30] + 400] = bytes(360)
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    read = {part.first: read_as_far_as_possible(recording, part, tmp_path) for part in recording.parts}
    damaged = max(part.first for part in recording.parts if part.first <= 30)
    for part in recording.parts:
        numbers, message = read[part.first]
        if part.first == damaged:
            assert numbers == list(range(damaged, 30))
            assert "got damage at frame 30, 1.0 s" in message
        else:
            assert (len(numbers), message) == (part.frames, "")


def read_as_far_as_possible(recording: Recording, part: Part, root: Path) -> tuple[list[int], str]:
    """Numbers of the frames of a part, and what ended it."""
    numbers = []
    try:
        for frame in frames_of(recording, part, root, CONFIG):
            numbers.append(frame.number)
    except ClipError as error:
        return numbers, error.message
    return numbers, ""


def test_fps_of_the_user_win(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", pictures(12), "libx264", "yuv420p")
    assert survey("a.mp4", tmp_path, CONFIG, 200.0).fps == 200
    assert survey("a.mp4", tmp_path, CONFIG, math.nan).fps == 30
