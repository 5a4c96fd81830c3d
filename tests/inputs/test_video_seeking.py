"""Frames that are looked for are those that decoding from the first on gives, in every container, however odd it is."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from flowkit.errors import ClipError, FailureCode
from flowkit.inputs import videos
from flowkit.inputs.video_index import VideoIndex, index_of
from flowkit.inputs.videos import Recordings, Reel, open_reel

WIDTH, HEIGHT, LENGTH, GROUP = 96, 64, 96, 12
MPEG = {"g": str(GROUP), "bf": "2", "strict": "experimental"}
X264 = {"x264-params": f"keyint={GROUP}:min-keyint={GROUP}:scenecut=0:bframes=3:b-pyramid=normal"}
X265 = f"keyint={GROUP}:min-keyint={GROUP}:scenecut=0:bframes=3:log-level=none"
VP9 = {"g": str(GROUP), "auto-alt-ref": "1", "lag-in-frames": "16", "deadline": "realtime", "cpu-used": "8"}
AV1 = {"g": str(GROUP), "preset": "12", "svtav1-params": "lookahead=8"}
SEEKABLE: dict[str, tuple[str, dict[str, str]]] = {
    "closed.mp4": ("libx264", X264),
    "closed.mov": ("libx264", X264),
    "closed.mkv": ("libx264", X264),
    "closed.avi": ("libx264", X264),
    "no-b-frames.mp4": ("libx264", {"x264-params": f"keyint={GROUP}:bframes=0:scenecut=0"}),
    "open.mp4": ("libx264", {"x264-params": f"keyint={GROUP}:open-gop=1:bframes=3:scenecut=0"}),
    "intra-refresh.mp4": ("libx264", {"x264-params": f"keyint={GROUP}:intra-refresh=1:bframes=0"}),
    "closed-hevc.mp4": ("libx265", {"x265-params": f"{X265}:open-gop=0"}),
    "open-hevc.mkv": ("libx265", {"x265-params": f"{X265}:open-gop=1"}),
    "open-hevc.mp4": ("libx265", {"x265-params": f"{X265}:open-gop=1"}),
    "vp9.webm": ("libvpx-vp9", VP9),
    "vp9.mp4": ("libvpx-vp9", VP9),
    "av1.mp4": ("libsvtav1", AV1),
    "av1.mkv": ("libsvtav1", AV1),
    "mpeg2.mkv": ("mpeg2video", MPEG),
    "mjpeg.avi": ("mjpeg", {}),
    "mjpeg.mov": ("mjpeg", {}),
    "huffyuv.avi": ("huffyuv", {}),
    "ffv1.mkv": ("ffv1", {"g": "5"}),
    "fragments.mp4": ("libx264", {**X264, "movflags": "frag_keyframe+empty_moov+default_base_moof"}),
    "one-group.mp4": ("libx264", {"x264-params": "keyint=infinite:scenecut=0:bframes=3"}),
    "small-groups.mp4": ("libx264", {"x264-params": "keyint=2:bframes=1:scenecut=0:open-gop=0"}),
}
"""Files whose index is trusted."""
OTHERS: dict[str, tuple[str, dict[str, str]]] = {
    "mpeg4.mp4": ("mpeg4", MPEG),
    "mpeg4.avi": ("mpeg4", MPEG),
    "vp8.webm": ("libvpx", {"auto-alt-ref": "1", "lag-in-frames": "16", "g": str(GROUP)}),
    "wmv2.avi": ("wmv2", {"g": str(GROUP)}),
}
"""Files that are decoded from the first frame on."""


def write(
    path: Path, codec: str, options: dict[str, str], times: Callable[[int], int] = lambda number: 40 * number
) -> Path:
    """A video whose frames differ, with a time stamp (ms) for each; muxer options go to the container."""
    muxing = {name: value for name, value in options.items() if name == "movflags"}
    draw = np.random.default_rng(0)
    ground = draw.integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    with av.open(str(path), "w", options=muxing) as container:
        stream = container.add_stream(codec, rate=25, options={k: v for k, v in options.items() if k not in muxing})
        stream.width, stream.height = WIDTH, HEIGHT
        stream.pix_fmt = {"mjpeg": "yuvj420p", "huffyuv": "yuv422p"}.get(codec, "yuv420p")
        stream.codec_context.time_base = Fraction(1, 1000) if path.suffix != ".avi" else Fraction(1, 25)
        for number in range(LENGTH):
            pixels = np.roll(ground, number, axis=1)
            pixels[:8] = number * 2
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
            frame.pts = times(number) if path.suffix != ".avi" else number
            frame.time_base = stream.codec_context.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def index(path: Path) -> VideoIndex:
    with av.open(str(path)) as container:
        return index_of(container, container.streams.video[0])


def answer(reel: Reel, number: int) -> bytes | tuple[FailureCode, str]:
    """The pixels of a frame, or the failure that it is."""
    try:
        ((_, picture),) = reel.pictures([number], number)
    except ClipError as error:
        return error.code, error.message
    return picture.pixels.tobytes()


def sequential(path: Path, monkeypatch: pytest.MonkeyPatch) -> list[bytes | tuple[FailureCode, str]]:
    """What decoding from the first frame on answers to each number; behind an error, it begins anew for each."""
    with monkeypatch.context() as without_index:
        without_index.setattr(videos, "index_of", lambda *_: VideoIndex.untrusted("not asked"))
        with open_reel(path, path.name) as reel:
            return [answer(reel, number) for number in range(LENGTH + 3)]


def all_answers(path: Path) -> dict[int, set[bytes | tuple[FailureCode, str]]]:
    """What one open video answers to all numbers, each asked for twice, in any order."""
    numbers = [*range(LENGTH + 3)] * 2
    random.Random(0).shuffle(numbers)
    found: dict[int, set[bytes | tuple[FailureCode, str]]] = {number: set() for number in numbers}
    with open_reel(path, path.name) as reel:
        for number in numbers:
            found[number].add(answer(reel, number))
    return found


def shuffled(path: Path) -> dict[int, bytes | tuple[FailureCode, str]]:
    """As `all_answers`, which must be the same each time."""
    found = all_answers(path)
    assert [number for number, answers in found.items() if len(answers) > 1] == []
    return {number: one for number, (one,) in found.items()}


def check_damaged(path: Path, sound: list[bytes | tuple[FailureCode, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each frame must be that of the sound video, or what sequential decoding gives.

    Where that gives another picture, the decoder did not see the damage and has guessed: nothing can be compared.
    """
    truth, found = sequential(path, monkeypatch), all_answers(path)
    guessed = {n for n in range(LENGTH) if isinstance(truth[n], bytes) and truth[n] != sound[n]}
    assert [n for n in range(LENGTH) if n not in guessed and not found[n] <= {truth[n], sound[n]}] == []


def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the frames that are decoded, by what asked for them: a list that grows."""
    count: list[int] = []
    take = videos._Lookup._decoded

    def counting(lookup: videos._Lookup, start: videos.Start):  # type: ignore[no-untyped-def]
        for frame in take(lookup, start):
            count.append(0)
            yield frame

    monkeypatch.setattr(videos._Lookup, "_decoded", counting)
    return count


@pytest.mark.parametrize("name", [*SEEKABLE, *OTHERS])
def test_every_frame_is_that_of_sequential_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    path = write(tmp_path / name, *(SEEKABLE | OTHERS)[name])
    assert (index(path).problem == "") == (name in SEEKABLE), index(path).problem
    truth = sequential(path, monkeypatch)
    assert len({*truth[:LENGTH]}) == LENGTH
    assert shuffled(path) == dict(enumerate(truth))


@pytest.mark.parametrize("name", ["closed.mp4", "closed.mkv", "closed-hevc.mp4", "vp9.webm", "mpeg2.mkv", "mjpeg.avi"])
def test_only_frames_of_the_group_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    path = write(tmp_path / name, *SEEKABLE[name])
    monkeypatch.setattr(videos, "_Pass", None)  # a pass from the first frame on would fail
    count = decoded(monkeypatch)
    for number in (LENGTH - 1, 3 * GROUP + 1, 3 * GROUP + 3, 3 * GROUP):
        with open_reel(path, name) as reel:
            assert isinstance(answer(reel, number), bytes)
        assert len(count) <= GROUP
        count.clear()


def test_frames_that_follow_each_other_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "closed.mp4", *SEEKABLE["closed.mp4"])
    count = decoded(monkeypatch)
    with open_reel(path, path.name) as reel:
        assert len(list(reel.pictures(range(GROUP, 5 * GROUP), None))) == 4 * GROUP
    assert len(count) == 4 * GROUP


@pytest.mark.parametrize("name", ["closed.mp4", "closed.mkv", "vp9.webm"])
def test_a_variable_rate_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    gaps = np.random.default_rng(1).integers(1, 400, LENGTH).cumsum().tolist()
    path = write(tmp_path / name, *SEEKABLE[name], times=gaps.__getitem__)
    assert (index(path).problem == "") == (name == "closed.mp4")  # which says how many frames it has
    assert shuffled(path) == dict(enumerate(sequential(path, monkeypatch)))


def rewritten(path: Path, target: Path, times: Callable[[int, int, int], tuple[int, int]]) -> Path:
    """The same packets with other time stamps: given number, pts and dts, `times` returns pts and dts."""
    with av.open(str(path)) as source, av.open(str(target), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        packets = [packet for packet in source.demux(video=0) if packet.pts is not None and packet.dts is not None]
        for number, packet in enumerate(packets):
            packet.pts, packet.dts = times(number, packet.pts, packet.dts)
            packet.stream = stream
            container.mux(packet)
    return target


def wrong_times() -> dict[str, Callable[[int, int, int], tuple[int, int]]]:
    """How time stamps may be wrong; each keeps what a muxer asks for: dts that grow, none behind its pts."""
    draw = random.Random(0)
    later = [draw.randrange(0, 4000) for _ in range(LENGTH)]
    return {
        "swapped in a group": lambda n, pts, dts: (pts + (60000 if n % GROUP == 5 else 0), dts),
        "all as decoded": lambda n, pts, dts: (dts, dts),
        "at random": lambda n, pts, dts: (max(dts, pts) + later[n] * 40, dts),
        "twice": lambda n, pts, dts: (max(dts, pts - pts % 1280), dts),
        "a jump": lambda n, pts, dts: (pts + 900000 * (n >= 4 * GROUP), dts + 900000 * (n >= 4 * GROUP)),
    }


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("wrong", wrong_times())
def test_wrong_time_stamps_change_no_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str, suffix: str
) -> None:
    right = write(tmp_path / f"right{suffix}", "libx264", X264)
    path = rewritten(right, tmp_path / f"wrong{suffix}", wrong_times()[wrong])
    assert shuffled(path) == dict(enumerate(sequential(path, monkeypatch)))


def without_boxes(path: Path, *kinds: bytes) -> Path:
    """An AVI or Matroska file whose index is called something else."""
    content = path.read_bytes()
    for kind in kinds:
        content = content.replace(kind, b"JUNK" if len(kind) == 4 and kind.isalnum() else b"\xec" + kind[1:])
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", ["mjpeg.avi", "huffyuv.avi"])
def test_an_avi_without_its_index_gives_the_same_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = without_boxes(write(tmp_path / name, *SEEKABLE[name]), b"idx1", b"indx")
    assert shuffled(path) == dict(enumerate(sequential(path, monkeypatch)))


def test_a_matroska_file_without_cues_gives_the_same_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "closed.mkv", *SEEKABLE["closed.mkv"])
    content = path.read_bytes()
    cues = content.rindex(bytes.fromhex("1c53bb6b"))
    path.write_bytes(content[:cues])
    assert shuffled(path) == dict(enumerate(sequential(path, monkeypatch)))


def spoilt(path: Path, number: int, how: bytes = b"\xa5" * 192) -> None:
    """Spoil the packet that is decoded as the n-th."""
    with av.open(str(path)) as container:
        starts = [packet.pos for packet in container.demux(video=0) if packet.pos is not None]
    with path.open("r+b") as file:
        file.seek(starts[number] + 8)
        file.write(how)


@pytest.mark.parametrize("name", SEEKABLE)
@pytest.mark.parametrize("number", [4 * GROUP, 4 * GROUP + 5])
def test_a_damaged_middle_gives_true_frames_or_the_error_of_sequential_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, number: int
) -> None:
    """Frames that need none of the damaged ones are those of the file before; where any is needed, the error is sequential."""
    path = write(tmp_path / name, *SEEKABLE[name])
    sound = sequential(path, monkeypatch)
    spoilt(path, number)
    check_damaged(path, sound, monkeypatch)
    assert all(answers == {sound[n]} for n, answers in all_answers(path).items() if n < 3 * GROUP)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*SEEKABLE, *OTHERS])
def test_damage_anywhere_gives_true_frames_or_what_sequential_decoding_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = write(tmp_path / name, *(SEEKABLE | OTHERS)[name])
    sound, content = sequential(path, monkeypatch), path.read_bytes()
    for seed in range(6):
        draw = random.Random(seed)
        at, length = draw.randrange(len(content)), draw.choice((1, 4, 30, 400))
        path.write_bytes(content[:at] + draw.randbytes(length) + content[at + length :])
        try:
            check_damaged(path, sound, monkeypatch)
        except ClipError:  # it cannot even be opened
            continue


@pytest.mark.parametrize("name", ["closed.mp4", "closed.mkv", "mjpeg.avi", "ffv1.mkv", "fragments.mp4", "vp9.webm"])
def test_a_file_that_was_cut_off_gives_what_sequential_decoding_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = write(tmp_path / name, *SEEKABLE[name])
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    try:
        truth = sequential(path, monkeypatch)
    except ClipError as error:  # an MP4 without its headers cannot even be opened
        with pytest.raises(ClipError, match=error.message[:30]):
            shuffled(path)
        return
    assert shuffled(path) == dict(enumerate(truth))


def test_an_edit_list_that_hides_frames_is_not_looked_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "closed.mp4", *SEEKABLE["closed.mp4"])
    content = bytearray(path.read_bytes())
    at = content.index(b"elst")
    (media_time,) = struct.unpack(">i", content[at + 16 : at + 20])
    content[at + 16 : at + 20] = struct.pack(">i", media_time + 40 * 512 * 5 // 40)
    path.write_bytes(content)
    assert shuffled(path) == dict(enumerate(sequential(path, monkeypatch)))


def test_a_recording_stays_open_between_clips_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "closed.mp4", *SEEKABLE["closed.mp4"])
    opened: list[Path] = []
    open_container = videos.open_container

    def counted(path: Path, name: str) -> av.container.InputContainer:
        opened.append(path)
        return open_container(path, name)

    monkeypatch.setattr(videos, "open_container", counted)
    kept = Recordings()
    for modified in (1, 1, 2):
        with kept.reel(path, path.name, 9, modified) as reel:
            assert isinstance(answer(reel, 5), bytes)
    assert len(opened) == 2
    with pytest.raises(RuntimeError), kept.reel(path, path.name, 9, 2):
        raise RuntimeError
    with kept.reel(path, path.name, 9, 2) as reel:
        assert isinstance(answer(reel, 7), bytes)
    assert len(opened) == 3
    kept.close()
