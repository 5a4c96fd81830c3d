"""Videos: the frame asked for is the frame given, in every container, and nothing else is ever opened."""

from __future__ import annotations

import sys
from pathlib import Path

import av
import numpy as np
import pytest

from flowkit.errors import ClipError, FailureCode
from flowkit.inputs import images
from flowkit.inputs.videos import read_footage

WIDTH, HEIGHT, LENGTH = 96, 64, 60
CODECS = {
    "a.mp4": "libx264",
    "a.m4v": "libx264",
    "a.mov": "mpeg4",
    "a.avi": "mpeg4",
    "b.avi": "mjpeg",
    "a.mkv": "ffv1",
    "a.webm": "libvpx",
}
FACES = Path(__file__).parents[3] / "shared" / "data" / "faces"


def write(path: Path, codec: str, *, matrix: tuple[int, ...] = (), side: int = 0, pix_fmt: str = "yuv420p") -> Path:
    """A video whose frames carry their number, from 0, as six vertical bars, most significant bit last, brighter on top."""
    form = {".m4v": "mp4"}.get(path.suffix)
    with av.open(str(path), "w", format=form) as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height = side or WIDTH, side or HEIGHT
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else pix_fmt
        if matrix:
            stream.set_display_matrix(matrix)
        for number in range(LENGTH):
            bars = np.repeat([number >> bit & 1 for bit in range(6)], stream.width // 6)
            pixels = np.zeros((stream.height, stream.width, 3), np.uint8)
            pixels[:, : len(bars)] = 100 * bars[:, None]
            pixels[: stream.height // 4] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        container.mux(stream.encode())
    return path


def number_of(pixels: np.ndarray) -> int:
    middle = pixels[HEIGHT * 3 // 4, 8::16, 0] > 50
    return int(sum(int(bit) << place for place, bit in enumerate(middle)))


def packet_starts(path: Path) -> list[int]:
    with av.open(str(path)) as container:
        return [packet.pos for packet in container.demux(video=0) if packet.pos is not None]


def fails(path: Path, *numbers: int) -> tuple[FailureCode, str]:
    with pytest.raises(ClipError) as caught:
        read_footage(path, numbers or (0, 1, 2), path.name)
    assert caught.value.path == path.name
    return caught.value.code, caught.value.message


@pytest.mark.parametrize("name", CODECS)
def test_frames_are_exact_in_every_container(tmp_path: Path, name: str):
    footage = read_footage(write(tmp_path / name, CODECS[name]), (0, 45, 59, 45, 28), name)
    assert [number_of(picture.pixels) for picture in footage.pictures] == [0, 45, 59, 45, 28]
    assert footage.fps == 25
    assert not any(picture.rotated for picture in footage.pictures)
    assert footage.pictures[0].pixels.shape == (HEIGHT, WIDTH, 3)


def test_content_decides_not_the_suffix(tmp_path: Path):
    path = write(tmp_path / "a.mkv", "ffv1").rename(tmp_path / "clip.avi")
    assert number_of(read_footage(path, (17,), "clip.avi").pictures[0].pixels) == 17


def test_ten_bit_video_becomes_eight_bit_colour(tmp_path: Path):
    path = write(tmp_path / "a.mkv", "ffv1", pix_fmt="yuv420p10le")
    picture = read_footage(path, (33,), "a.mkv").pictures[0]
    assert picture.pixels.dtype == np.uint8
    assert number_of(picture.pixels) == 33
    assert picture.pixels[0, 0].min() >= 253


@pytest.mark.parametrize(
    ("matrix", "corner", "shape"),
    [
        ((1, 0, 0, 0, 1, 0), "top", (HEIGHT, WIDTH)),
        ((0, -1, 0, 1, 0, 0), "left", (WIDTH, HEIGHT)),  # a quarter turn against the clock
        ((0, 1, 0, -1, 0, 0), "right", (WIDTH, HEIGHT)),
        ((-1, 0, 0, 0, -1, 0), "bottom", (HEIGHT, WIDTH)),
        ((1, 0, 0, 0, -1, 0), "bottom", (HEIGHT, WIDTH)),  # mirrored
        ((0, 1, 0, 1, 0, 0), "left", (WIDTH, HEIGHT)),
    ],
)
@pytest.mark.parametrize("suffix", ["mp4", "mov"])
def test_rotation_metadata_is_applied_and_recorded(
    tmp_path: Path, suffix: str, matrix: tuple[int, ...], corner: str, shape: tuple[int, int]
):
    fixed_point = (*(65536 * value for value in matrix), 0, 0, 2**30)
    path = write(tmp_path / f"a.{suffix}", "libx264", matrix=fixed_point)
    (picture,) = read_footage(path, (0,), path.name).pictures
    assert picture.pixels.shape[:2] == shape
    bright = picture.pixels[..., 0] > 200
    middle = {"top": bright[0], "bottom": bright[-1], "left": bright[:, 0], "right": bright[:, -1]}
    assert [side for side, values in middle.items() if values.all()] == [corner]
    assert picture.rotated == (matrix != (1, 0, 0, 0, 1, 0))


def test_crooked_rotation_is_refused(tmp_path: Path):
    path = write(tmp_path / "a.mp4", "libx264", matrix=(46341, -46341, 0, 46341, 46341, 0, 0, 0, 2**30))
    assert fails(path)[0] == FailureCode.VIDEO_UNREADABLE


def test_declared_length_is_never_believed(tmp_path: Path):
    path = write(tmp_path / "a.avi", "mpeg4")
    start = packet_starts(path)[14] - 8  # before the header of the chunk
    path.write_bytes(path.read_bytes()[:start])
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == LENGTH
    assert number_of(read_footage(path, (13,), "a.avi").pictures[0].pixels) == 13
    code, message = fails(path, 0, 13, 28)
    assert code == FailureCode.FRAME_MISSING
    assert "frame 28" in message
    assert "14 decodable frames" in message


def test_cut_matroska_gives_what_it_has(tmp_path: Path):
    path = write(tmp_path / "a.mkv", "ffv1")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert number_of(read_footage(path, (9,), "a.mkv").pictures[0].pixels) == 9
    assert fails(path, 59)[0] in (FailureCode.FRAME_MISSING, FailureCode.VIDEO_UNREADABLE)


@pytest.mark.parametrize("name", ["a.mp4", "a.mov"])
def test_mp4_without_its_index_is_unreadable(tmp_path: Path, name: str):
    path = write(tmp_path / name, CODECS[name])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert fails(path)[0] == FailureCode.VIDEO_UNREADABLE


def damaged(path: Path, number: int) -> Path:
    """Spoil the packet of a frame."""
    start = packet_starts(path)[number]
    content = bytearray(path.read_bytes())
    content[start + 8 : start + 200] = b"\xa5" * 192
    path.write_bytes(content)
    return path


def test_damage_on_the_way_to_a_wanted_frame_is_unreadable(tmp_path: Path):
    """One key frame: each frame needs all before it."""
    path = damaged(write(tmp_path / "a.mp4", "libx264"), 30)
    assert number_of(read_footage(path, (3,), "a.mp4").pictures[0].pixels) == 3
    code, message = fails(path, 3, 50)
    assert code == FailureCode.VIDEO_UNREADABLE
    assert "undamaged" in message


def test_damage_that_no_wanted_frame_needs_fails_nothing(tmp_path: Path):
    """Every twelfth frame is complete, and where it lies is known without those before it."""
    path = damaged(write(tmp_path / "a.mkv", "ffv1"), 30)
    numbers = (3, 29, 36, 50)
    assert [number_of(picture.pixels) for picture in read_footage(path, numbers, "a.mkv").pictures] == [*numbers]
    code, message = fails(path, 3, 30)
    assert code == FailureCode.VIDEO_UNREADABLE
    assert "undamaged" in message


def test_concealed_damage_is_unreadable_because_numbers_shift_behind_it(tmp_path: Path):
    path = write(tmp_path / "a.avi", "mpeg4")
    start = packet_starts(path)[20]
    content = bytearray(path.read_bytes())
    content[start + 12 : start + 40] = bytes(28)
    path.write_bytes(content)
    with av.open(str(path)) as container:
        assert any(frame.is_corrupt for frame in container.decode(video=0))
    assert number_of(read_footage(path, (10,), "a.avi").pictures[0].pixels) == 10
    assert fails(path, 45)[0] == FailureCode.VIDEO_UNREADABLE


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.avi", "ffconcat version 1.0\nfile secret.mkv\n"),
        ("list.mp4", "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nsecret.mkv\n#EXT-X-ENDLIST\n"),
        ("text.mov", "no video at all"),
        ("short.avi", "RIFF"),
    ],
)
def test_playlists_and_text_are_refused(tmp_path: Path, name: str, text: str):
    write(tmp_path / "secret.mkv", "ffv1")
    (tmp_path / name).write_text(text)
    assert fails(tmp_path / name)[0] == FailureCode.VIDEO_FORMAT_REFUSED


def test_other_containers_are_refused(tmp_path: Path):
    path = write(tmp_path / "a.ts", "libx264").rename(tmp_path / "a.mp4")
    assert fails(path)[0] == FailureCode.VIDEO_FORMAT_REFUSED


@pytest.mark.parametrize("name", CODECS)
def test_container_is_never_probed_and_only_files_are_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    path = write(tmp_path / name, CODECS[name])
    settings = []
    av_open = av.open
    monkeypatch.setattr(av, "open", lambda *given, **named: settings.append(named) or av_open(*given, **named))
    read_footage(path, (0,), name)
    assert settings
    for used in settings:
        assert used["format"] in ("mp4", "matroska", "avi")
        assert used["container_options"] == {"protocol_whitelist": "file"}


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.avi", "a.mkv"])
def test_a_title_that_is_not_utf8_fails_no_video(tmp_path: Path, name: str):
    path = tmp_path / name
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "QQQQ"
        stream = container.add_stream(CODECS[name], rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8), "rgb24")
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    content = path.read_bytes()
    assert b"QQQQ" in content
    path.write_bytes(content.replace(b"QQQQ", b"\xff\xfe\xe9Q"))
    assert len(read_footage(path, (0,), name).pictures) == 1


def test_empty_video_is_unreadable(tmp_path: Path):
    (tmp_path / "a.mp4").touch()
    assert fails(tmp_path / "a.mp4")[0] == FailureCode.VIDEO_UNREADABLE


def test_container_without_a_video_is_unreadable(tmp_path: Path):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
    assert fails(path)[0] == FailureCode.VIDEO_UNREADABLE


def test_frame_sizes_have_the_limits_of_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert fails(write(tmp_path / "a.mkv", "ffv1", side=16))[0] == FailureCode.IMAGE_TOO_SMALL
    monkeypatch.setattr(images, "MAX_PIXELS", WIDTH * HEIGHT - 1)
    assert fails(write(tmp_path / "b.mkv", "ffv1"))[0] == FailureCode.IMAGE_TOO_LARGE


def test_folders_of_frames_need_no_video_library():
    import subprocess

    code = "import sys, flowkit.inputs.frames; sys.exit('av' in sys.modules)"
    path = ":".join(entry for entry in sys.path if entry)
    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": path}, check=False).returncode == 0


def test_real_video_is_read():
    path = FACES / "no_face.mp4"
    if not path.exists():
        pytest.skip("no ../shared/data/faces")
    footage = read_footage(path, (0, 50, 94), path.name)
    assert len({picture.pixels.tobytes() for picture in footage.pictures}) > 1
    assert footage.fps > 20
    assert fails(path, 95)[0] == FailureCode.FRAME_MISSING
