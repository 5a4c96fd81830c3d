"""The frames beside the key frames: which are read, and that none of them fails a clip."""

from __future__ import annotations

import math
import shutil
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import xxhash
from PIL import Image

from flowkit.config import FrameConfig
from flowkit.errors import ClipError, FailureCode
from flowkit.inputs.beside import MOST_BESIDE, SHARE, reaches
from flowkit.inputs.clip import Clip
from flowkit.inputs.frames import Frames, read_frames, verify_neighbours
from flowkit.inputs.key_frames import key_frames

SIDE = 40
FRAMES = range(0, 31)


def clip(path: str, onset: int = 5, apex: int = 15, offset: int | None = 25, fps: float = 200.0) -> Clip:
    return Clip("c", path, onset, apex, offset, "s", "made", "joy", fps)


def picture(number: int, side: int = SIDE) -> np.ndarray:
    pixels = np.full((side, side), 4 * number, np.uint8)
    pixels[0] = 255
    return pixels


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames 0 to 30 as a folder of grey images, as one of colour, and as a video of 200 frames per second."""
    root = tmp_path_factory.mktemp("recordings")
    for number in FRAMES:
        for name, mode in (("grey", "L"), ("colour", "RGB")):
            (root / name).mkdir(exist_ok=True)
            Image.fromarray(picture(number)).convert(mode).save(root / name / f"{number}.png")
    with av.open(str(root / "video.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=Fraction(200))
        stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, "gray"
        for number in FRAMES:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number), "gray")))
        container.mux(stream.encode())
    return root


@pytest.fixture
def folder(recordings: Path, tmp_path: Path) -> Path:
    """A copy of the folder of grey images, to be spoiled."""
    return shutil.copytree(recordings / "grey", tmp_path / "grey")


def read(root: Path, given: Clip, **settings) -> Frames:
    return read_frames(given, root, FrameConfig(**settings))


def numbers(found: Frames) -> list[dict[int, int]]:
    """The frame that lies at each distance from onset, apex and offset, told by its grey value."""
    return [{d: round(float(grey[-1, -1]) * 255 / 4) for d, grey in near.items()} for near in found.beside]


@pytest.mark.parametrize(
    ("fps", "average", "gaps", "expected"),
    [
        (200, "auto", (10, 20), (2, 2, 2)),
        (200, "auto", (10, 9), (2, 1, 1)),
        (200, "auto", (2, 20), (0, 0, 2)),
        (200, "auto", (2, 2), (0, 0, 0)),
        (100, "auto", (10, 20), (1, 1, 1)),
        (119.88, "auto", (10, 20), (1, 1, 1)),
        (199.9, "auto", (10, 20), (2, 2, 2)),
        (60, "auto", (100, 100), (0, 0, 0)),
        (30, "auto", (100, 100), (0, 0, 0)),
        (math.nan, "auto", (100, 100), (0, 0, 0)),
        (2000, "auto", (100, 100), (MOST_BESIDE,) * 3),
        (200, "off", (100, 100), (0, 0, 0)),
        (30, 7, (100, 100), (3, 3, 3)),
        (math.nan, 7, (10, 100), (2, 2, 3)),
        (200, "auto", (0, 20), (2, 2, 2)),
        (200, "auto", (20, 0), (2, 2, 2)),
        (200, "auto", (20, None), (2, 2, 2)),
        (200, "auto", (0, 0), (0, 0, 0)),
    ],
)
def test_a_window_stays_clear_of_the_next_key_frame(fps, average, gaps, expected) -> None:
    rise, fall = gaps
    given = clip("x", 100, 100 + rise, None if fall is None else 100 + rise + fall)
    found = reaches(key_frames(given, missing_offset="invalid"), fps, average)
    assert found == expected
    near = [min([gap for gap in pair if gap], default=0) for pair in ((rise or fall,), gaps, (fall or rise,))]
    assert all(by <= gap / SHARE for by, gap in zip(found, near, strict=True))


@pytest.mark.parametrize("name", ["grey", "colour", "video.mkv"])
@pytest.mark.parametrize("fps", [200.0, math.nan])
def test_folders_and_videos_give_the_frames_within_ten_milliseconds(recordings: Path, name: str, fps: float) -> None:
    found = read(recordings, clip(name, fps=fps))
    known = fps == 200 or name == "video.mkv"  # a video has a rate of its own
    window = {d: d for d in (-2, -1, 1, 2)} if known else {}
    assert numbers(found) == [{d: key + d for d in window} for key in (5, 15, 25)]
    assert not found.source.neighbours_lost
    assert all(
        grey.shape == (SIDE, SIDE) and grey.dtype == np.float32 for near in found.beside for grey in near.values()
    )


@pytest.mark.parametrize("name", ["grey", "video.mkv"])
def test_what_lies_beside_changes_nothing_of_the_key_frames(recordings: Path, name: str) -> None:
    alone, found = read(recordings, clip(name), average="off"), read(recordings, clip(name))
    assert alone.beside == ({}, {}, {})
    assert found.source.source_hash == alone.source.source_hash
    assert all(np.array_equal(a, b) for a, b in zip(alone.grey, found.grey, strict=True))
    assert np.array_equal(alone.onset_rgb, found.onset_rgb)


@pytest.mark.parametrize("name", ["grey", "video.mkv"])
def test_the_ends_of_a_recording_have_neighbours_on_one_side(recordings: Path, name: str) -> None:
    found = read(recordings, clip(name, 0, 15, 30))
    assert numbers(found) == [{1: 1, 2: 2}, {d: 15 + d for d in (-2, -1, 1, 2)}, {-2: 28, -1: 29}]
    assert not found.source.neighbours_lost


@pytest.mark.parametrize("name", ["grey", "video.mkv"])
def test_onset_and_apex_two_frames_apart_have_none(recordings: Path, name: str) -> None:
    found = read(recordings, clip(name, 13, 15, 25))
    assert numbers(found) == [{}, {}, {d: 25 + d for d in (-2, -1, 1, 2)}]


def test_a_folder_with_the_key_frames_alone_has_none(folder: Path, tmp_path: Path) -> None:
    for number in set(FRAMES) - {5, 15, 25}:
        (folder / f"{number}.png").unlink()
    found = read(tmp_path, clip("grey"))
    assert found.beside == ({}, {}, {})
    assert (found.source.neighbours_hash, found.source.neighbours_lost) == ("", False)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:40])


def _other_size(path: Path) -> None:
    Image.fromarray(picture(14, 64)).save(path)


def _twice(path: Path) -> None:
    shutil.copy(path, path.with_suffix(".bmp"))


def _out_of_the_root(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/hostname")


SPOIL = {
    "missing": (Path.unlink, False),
    "cut off": (_cut, True),
    "empty": (lambda path: path.write_bytes(b""), True),
    "other size": (_other_size, True),
    "twice": (_twice, True),
    "a link that leads out": (_out_of_the_root, True),
}


@pytest.mark.parametrize("name", SPOIL)
def test_a_neighbour_that_cannot_be_used_is_left_out_and_fails_nothing(folder: Path, tmp_path: Path, name: str) -> None:
    spoil, lost = SPOIL[name]
    spoil(folder / "14.png")
    found = read(tmp_path, clip("grey"))
    assert numbers(found) == [
        {d: 5 + d for d in (-2, -1, 1, 2)},
        {-2: 13, 1: 16, 2: 17},
        {d: 25 + d for d in (-2, -1, 1, 2)},
    ]
    assert found.source.neighbours_lost is lost


def test_neighbours_of_another_type_or_brighter_than_the_key_frames_stay_within_bounds(
    folder: Path, tmp_path: Path
) -> None:
    Image.fromarray(np.full((SIDE, SIDE), 65535, np.uint16)).save(folder / "14.png")
    found = read(tmp_path, clip("grey"), bit_depth=12)
    assert found.beside[1][-1].max() == 1


def test_damage_behind_the_last_key_frame_of_a_video_hides_neighbours_and_fails_nothing(
    recordings: Path, tmp_path: Path
) -> None:
    whole = (recordings / "video.mkv").read_bytes()
    path = tmp_path / "video.mkv"
    given, alone = clip("video.mkv", 5, 15, 25), FrameConfig(average="off")
    for length in range(len(whole), 0, -7):
        path.write_bytes(whole[:length])
        try:
            expected = read_frames(given, tmp_path, alone)
        except ClipError:
            break
        found = read_frames(given, tmp_path, FrameConfig())
        assert np.array_equal(found.grey[2], expected.grey[2])
        missing = len(numbers(found)[2]) < 4
    assert missing


def test_a_changed_neighbour_has_another_hash_and_a_key_frame_has_none_of_its_own(folder: Path, tmp_path: Path) -> None:
    before = read(tmp_path, clip("grey")).source
    files = [folder / f"{key + d}.png" for key in (5, 15, 25) for d in (-2, -1, 1, 2)]
    assert before.neighbours_hash == xxhash.xxh3_128_hexdigest(b"".join(path.read_bytes() for path in files))
    verify_neighbours(before, before.neighbours_hash)
    Image.fromarray(picture(20)).save(folder / "14.png")
    after = read(tmp_path, clip("grey")).source
    assert after.source_hash == before.source_hash
    with pytest.raises(
        ClipError, match=f"extraction, hash {before.neighbours_hash}; got {after.neighbours_hash}"
    ) as caught:
        verify_neighbours(after, before.neighbours_hash)
    assert caught.value.code == FailureCode.SOURCE_CHECKSUM


def test_nearest_stand_ins_have_the_neighbours_of_where_they_lie(folder: Path, tmp_path: Path) -> None:
    (folder / "15.png").unlink()
    found = read(tmp_path, clip("grey"), nearest=True)
    assert found.source.key.apex == 14
    assert numbers(found)[1] == {-1: 13}  # nine frames behind the onset
