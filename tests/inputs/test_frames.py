"""One verb, two kinds of source: numbers become the right three frames, or a failure with its code and its path."""

from __future__ import annotations

import math
import os
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from flowkit.config import FrameConfig
from flowkit.errors import ClipError, FailureCode
from flowkit.inputs import frames
from flowkit.inputs.clip import Clip
from flowkit.inputs.frame_numbers import frame_numbers, numbered_images
from flowkit.inputs.frames import Frames, read_frames
from flowkit.storage.safe_files import stays_below

SIDE = 40


def clip(path: str = "s01/c1", onset: int = 1, apex: int | None = 2, offset: int | None = 3, **fields) -> Clip:
    return Clip("c1", path, onset, apex, offset, "s01", "made", "joy", line=2, **fields)


def image(path: Path, value: int = 0) -> Path:
    """A frame that is `value` all over but for its first row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((SIDE, SIDE), value, np.uint8)
    pixels[0] = 255
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """s01/c1 with the frames 1 to 5, of grey 10 to 50."""
    for number in range(1, 6):
        image(tmp_path / "s01" / "c1" / f"{number}.png", 10 * number)
    return tmp_path / "s01" / "c1"


def values(found: Frames) -> list[int]:
    return [round(float(grey[-1, -1]) * 255) for grey in found.grey]


def fails(given: Clip, root: Path, **settings) -> ClipError:
    with pytest.raises(ClipError) as caught:
        read_frames(given, root, FrameConfig(**settings))
    return caught.value


def video(path: Path, length: int = 30) -> Path:
    """A lossless video whose frame n, from 0, is grey 5 n."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=50)
        stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, "gray"
        for number in range(length):
            pixels = np.full((SIDE, SIDE), 5 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "gray")))
        container.mux(stream.encode())
    return path


def test_folder_gives_onset_apex_and_offset(folder: Path, tmp_path: Path):
    found = read_frames(clip(onset=1, apex=3, offset=5), tmp_path, FrameConfig())
    assert values(found) == [10, 30, 50]
    assert found.grey[0].dtype == np.float32
    assert found.onset_rgb.shape == (SIDE, SIDE, 3)
    assert found.onset_rgb.dtype == np.uint8
    assert found.onset_rgb[-1, -1].tolist() == [10, 10, 10]
    source = found.source
    assert (source.key.onset, source.key.apex, source.key.offset) == (1, 3, 5)
    assert (source.rotated, source.substituted) == (False, False)
    assert math.isnan(source.fps)


def test_source_hash_covers_the_three_files_in_order(folder: Path, tmp_path: Path):
    found = read_frames(clip(onset=1, apex=3, offset=5, fps=200.0), tmp_path, FrameConfig())
    content = b"".join((folder / f"{number}.png").read_bytes() for number in (1, 3, 5))
    assert found.source.source_hash == xxhash.xxh3_128_hexdigest(content)
    assert found.source.fps == 200


@pytest.mark.parametrize(
    "names",
    [
        ["reg_img45.jpg", "reg_img46.JPG", "reg_img460.jpg"],
        ["006_00045.png", "006_46.png", "006_0460.png"],
        ["45.bmp", "0046.Tiff", "46.txt"],
        ["画像 45.webp", "画像 46.PGM", "cam2 n 460.png"],
        ["image 0000000045.ppm", "img46 .jpeg", "46"],
    ],
)
def test_number_is_the_last_run_of_digits(tmp_path: Path, names: list[str]):
    place = tmp_path / "sub 01" / "EP02_01f ü"
    for name in names[:2]:
        image(place / f"{name[: name.rindex('.')]}.png", 45 if "45" in name else 46).rename(place / name)
    (place / names[2]).write_text("never opened")
    found = read_frames(clip("sub 01/EP02_01f ü", 45, 46, 46), tmp_path, FrameConfig())
    assert values(found) == [45, 46, 46]


def test_hidden_files_sub_folders_and_other_files_are_ignored(folder: Path, tmp_path: Path):
    (folder / "._2.png").write_text("what macOS leaves on foreign disks")
    (folder / "2.png.txt").write_text("")
    (folder / "Thumbs2.db").write_text("")
    (folder / "old2.png").mkdir()
    assert values(read_frames(clip(), tmp_path, FrameConfig())) == [10, 20, 30]
    assert numbered_images(folder) == {number: [f"{number}.png"] for number in range(1, 6)}


def test_two_files_with_one_needed_number_are_ambiguous(folder: Path, tmp_path: Path):
    image(folder / "img002.png", 99)
    image(folder / "img005.png", 99)
    error = fails(clip(), tmp_path)
    assert error.code == FailureCode.FRAME_AMBIGUOUS
    assert "2.png" in error.message
    assert "img002.png" in error.message
    assert values(read_frames(clip(onset=1, apex=3, offset=4), tmp_path, FrameConfig())) == [10, 30, 40]


def test_missing_frame_says_what_there_is(folder: Path, tmp_path: Path):
    error = fails(clip(offset=9), tmp_path)
    assert error.code == FailureCode.FRAME_MISSING
    assert "number 9; got 5 numbers from 1 to 5" in error.message
    assert error.path == "s01/c1"


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [((1, 3, 9), [10, 30, 50]), ((1, 7, 10), [10, 60, 100]), ((1, 9, 20), [10, 100, 100]), ((0, 8, 9), [10, 60, 100])],
)
def test_nearest_substitutes_and_records(
    folder: Path, tmp_path: Path, numbers: tuple[int, int, int], expected: list[int]
):
    if 60 in expected or 100 in expected:
        image(folder / "6.png", 60)
        image(folder / "10.png", 100)
    found = read_frames(clip("s01/c1", *numbers), tmp_path, FrameConfig(nearest=True))
    assert values(found) == expected
    assert found.source.substituted
    assert [found.source.key.onset * 10, found.source.key.apex * 10, found.source.key.offset * 10] == expected
    assert found.source.key.phase_valid == (expected[0] < expected[1], expected[1] < expected[2])


def test_nearest_leaves_present_frames_alone(folder: Path, tmp_path: Path):
    found = read_frames(clip(), tmp_path, FrameConfig(nearest=True))
    assert not found.source.substituted
    assert fails(clip("s01/none"), tmp_path, nearest=True).code == FailureCode.FRAME_MISSING
    (tmp_path / "empty").mkdir()
    assert "no numbered image" in fails(clip("empty"), tmp_path, nearest=True).message


def test_nearest_keeps_the_midpoint_on_record(folder: Path, tmp_path: Path):
    config = FrameConfig(nearest=True, missing_apex="midpoint")
    found = read_frames(clip(onset=1, apex=None, offset=9), tmp_path, config)
    assert found.source.key.apex_source == "midpoint"
    assert values(found) == [10, 50, 50]


def test_nearest_never_invents_an_offset(folder: Path, tmp_path: Path):
    config = FrameConfig(nearest=True, missing_offset="invalid")
    key = read_frames(clip(onset=0, apex=9, offset=None), tmp_path, config).source.key
    assert (key.onset, key.apex, key.offset, key.phase_valid) == (1, 5, None, (True, False))


def test_missing_offset_repeats_the_apex(folder: Path, tmp_path: Path):
    found = read_frames(clip(offset=None), tmp_path, FrameConfig(missing_offset="invalid"))
    assert values(found) == [10, 20, 20]
    assert found.source.key.offset is None
    assert found.source.key.phase_valid == (True, False)
    assert fails(clip(offset=None), tmp_path).code == FailureCode.OFFSET_MISSING


@pytest.mark.parametrize("path", ["s01/none", "s01/none/deeper", "s01/c1/1.png/x", "n" * 300])
def test_missing_path_is_named(folder: Path, tmp_path: Path, path: str):
    error = fails(clip(path), tmp_path)
    assert error.code == FailureCode.FRAME_MISSING
    assert error.path == path
    assert error.message.startswith(f"{path}: ")


@pytest.mark.parametrize("path", ["../outside", "/etc", "s01/../../outside", "a\\b", "file:///etc", "a\0b"])
def test_paths_that_leave_the_root_are_refused_without_a_manifest_too(tmp_path: Path, path: str):
    assert fails(clip(path), tmp_path, follow_symlinks=True).code == FailureCode.PATH_REFUSED


def test_links_may_not_leave_the_root(folder: Path, tmp_path: Path):
    root = tmp_path / "root"
    (root / "s02").mkdir(parents=True)
    (root / "s02" / "c1").symlink_to(folder)
    assert fails(clip("s02/c1"), root).code == FailureCode.PATH_REFUSED
    assert values(read_frames(clip("s02/c1"), root, FrameConfig(follow_symlinks=True))) == [10, 20, 30]


def test_link_of_one_frame_may_not_leave_the_root(folder: Path, tmp_path: Path):
    secret = image(tmp_path / "secret" / "x.png", 77)
    (folder / "2.png").unlink()
    (folder / "2.png").symlink_to(secret)
    error = fails(clip("c1"), tmp_path / "s01")
    assert error.code == FailureCode.PATH_REFUSED
    assert error.path == "c1/2.png"
    assert values(read_frames(clip("c1"), tmp_path / "s01", FrameConfig(follow_symlinks=True))) == [10, 77, 30]


def test_links_inside_the_root_and_a_linked_root_are_fine(folder: Path, tmp_path: Path):
    (tmp_path / "s01" / "again").symlink_to(folder)
    (tmp_path / "root").symlink_to(tmp_path / "s01")
    assert values(read_frames(clip("again"), tmp_path / "root", FrameConfig())) == [10, 20, 30]


def test_broken_and_circular_links_are_codes(folder: Path, tmp_path: Path):
    (folder / "2.png").unlink()
    (folder / "2.png").symlink_to(folder / "gone.png")
    assert fails(clip(), tmp_path).code == FailureCode.FRAME_MISSING
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    error = fails(clip("loop"), tmp_path)
    assert error.code == FailureCode.PATH_REFUSED
    assert "circle" in error.message
    assert not stays_below(tmp_path / "loop", tmp_path)
    assert stays_below(folder / "1.png", tmp_path)


@pytest.mark.parametrize("name", ["s01/c1", "pipe.mp4"])
def test_pipes_are_never_opened(folder: Path, tmp_path: Path, name: str):
    (folder / "2.png").unlink()
    os.mkfifo(folder / "2.png")
    os.mkfifo(tmp_path / "pipe.mp4")
    assert fails(clip(name), tmp_path).code in (FailureCode.IMAGE_UNREADABLE, FailureCode.VIDEO_UNREADABLE)


def test_damaged_image_names_its_file(folder: Path, tmp_path: Path):
    path = folder / "2.png"
    path.write_bytes(path.read_bytes()[:-20])
    error = fails(clip(), tmp_path)
    assert (error.code, error.path) == (FailureCode.IMAGE_TRUNCATED, "s01/c1/2.png")


def test_system_errors_become_codes(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    video(tmp_path / "v.mkv")

    def broken(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "read_bytes", broken)
    error = fails(clip(), tmp_path)
    assert (error.code, error.path) == (FailureCode.IMAGE_UNREADABLE, "s01/c1/1.png")
    assert "Input/output error" in error.message
    monkeypatch.setattr(Path, "open", broken)
    assert fails(clip("v.mkv"), tmp_path).code == FailureCode.VIDEO_UNREADABLE
    monkeypatch.setattr(os, "scandir", broken)
    assert fails(clip(), tmp_path).code == FailureCode.IMAGE_UNREADABLE


def test_image_that_changes_while_it_is_read_is_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    read = Path.read_bytes

    def read_and_append(path: Path) -> bytes:
        content = read(path)
        with path.open("ab") as file:
            file.write(b"more")
        return content

    monkeypatch.setattr(Path, "read_bytes", read_and_append)
    error = fails(clip(), tmp_path)
    assert (error.code, error.path) == (FailureCode.SOURCE_CHANGED, "s01/c1/1.png")


@pytest.mark.parametrize("spoil", [False, True])
def test_video_that_changes_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: bool):
    path = video(tmp_path / "v.mkv")
    read = frames.footage_of

    def touch_and_read(*arguments):
        if spoil:
            path.write_bytes(path.read_bytes()[:20])
        os.utime(path, ns=(1, 1))  # the size alone would not tell
        return read(*arguments)

    monkeypatch.setattr(frames, "footage_of", touch_and_read)
    assert fails(clip("v.mkv"), tmp_path).code == FailureCode.SOURCE_CHANGED


def test_source_hash_of_the_manifest_is_checked(folder: Path, tmp_path: Path):
    video(tmp_path / "v.mkv")
    for path in ("s01/c1", "v.mkv"):
        right = read_frames(clip(path), tmp_path, FrameConfig()).source.source_hash
        assert read_frames(clip(path, source_hash=right), tmp_path, FrameConfig()).source.source_hash == right
        error = fails(clip(path, source_hash="0" * 32), tmp_path)
        assert error.code == FailureCode.SOURCE_CHECKSUM
        assert right in error.message


def test_video_hash_is_of_the_file_and_follows_its_changes(tmp_path: Path):
    path = video(tmp_path / "v.mkv")
    first = read_frames(clip("v.mkv"), tmp_path, FrameConfig()).source.source_hash
    assert first == xxhash.xxh3_128_hexdigest(path.read_bytes())
    video(path, length=20)
    second = read_frames(clip("v.mkv"), tmp_path, FrameConfig()).source.source_hash
    assert second == xxhash.xxh3_128_hexdigest(path.read_bytes()) != first


def test_video_numbers_count_from_the_index_base(tmp_path: Path):
    video(tmp_path / "v.mkv")
    given = clip("v.mkv", 1, 15, 29)
    assert values(read_frames(given, tmp_path, FrameConfig())) == [5, 75, 145]
    assert values(read_frames(given, tmp_path, FrameConfig(index_base=1))) == [0, 70, 140]
    assert fails(clip("v.mkv", 0), tmp_path, index_base=1).code == FailureCode.FRAME_MISSING
    error = fails(clip("v.mkv", 0, 1, 30), tmp_path)
    assert error.code == FailureCode.FRAME_MISSING
    assert "30 decodable frames" in error.message
    assert values(read_frames(clip("v.mkv", 1, 2, 30), tmp_path, FrameConfig(index_base=1))) == [0, 5, 145]


def test_folder_numbers_ignore_the_index_base(folder: Path, tmp_path: Path):
    assert values(read_frames(clip(), tmp_path, FrameConfig(index_base=1))) == [10, 20, 30]


def test_frame_rate_of_the_manifest_wins_over_the_video(tmp_path: Path):
    video(tmp_path / "v.mkv")
    assert read_frames(clip("v.mkv"), tmp_path, FrameConfig()).source.fps == 50
    assert read_frames(clip("v.mkv", fps=200.0), tmp_path, FrameConfig()).source.fps == 200


def test_16_bit_frames_share_one_scale(tmp_path: Path):
    for number, value in ((1, 1000), (2, 2000), (3, 4095)):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((SIDE, SIDE), value, np.uint16))
    error = fails(clip("."), tmp_path)
    assert error.code == FailureCode.IMAGE_DEPTH
    assert "frames.bit_depth=12" in error.message
    found = read_frames(clip("."), tmp_path, FrameConfig(bit_depth=12))
    assert [float(grey[0, 0]) for grey in found.grey] == pytest.approx([1000 / 4095, 2000 / 4095, 1])
    assert found.onset_rgb[0, 0].tolist() == [62, 62, 62]
    assert values(read_frames(clip("."), tmp_path, FrameConfig(bit_depth=16))) == [4, 8, 16]


def test_rotation_is_recorded(folder: Path, tmp_path: Path):
    picture = Image.fromarray(np.zeros((SIDE, SIDE + 8), np.uint8))
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(folder / "2.png", exif=exif)
    found = read_frames(clip(), tmp_path, FrameConfig())
    assert found.source.rotated
    assert found.grey[1].shape == (SIDE + 8, SIDE)


def test_sizes_may_differ(folder: Path, tmp_path: Path):
    Image.new("L", (64, 48)).save(folder / "3.png")
    assert [grey.shape for grey in read_frames(clip(), tmp_path, FrameConfig()).grey] == [(40, 40), (40, 40), (48, 64)]


def test_annotation_problems_come_before_any_file_is_touched(tmp_path: Path):
    assert fails(clip("none", 5, 2, 9), tmp_path).code == FailureCode.ANNOTATION_RANGE
    assert fails(clip("none", 1, 1, 9), tmp_path, strict_phases=True).code == FailureCode.PHASE_INVALID


@pytest.mark.parametrize(
    ("names", "numbers"),
    [
        (["cam2_0001_v3.png", "cam2_0002_v3.png"], [1, 2]),
        (["7_of_90.png", "12_of_90.PNG"], [7, 12]),
        (["s01_0001.png", "s01_0002.png", "s02_0001.png"], [1, 2, 1]),  # the last one varies: it counts, as always
        (["cam2_0001_v3.png"], [3]),
        (["cam2_0001_v3.png", "cam2_0001_v4.png"], [3, 4]),
        (["f1_t5_v3.png", "f2_t9_v3.png"], [3, 3]),  # two others vary
        (["f1_v3.png", "g2_v3.png"], [3, 3]),  # the names differ elsewhere, too
        (["f1_v3.png", "v3.png"], [3, 3]),
        (["f1_v3.png", "f01_v3.png"], [3, 3]),
        ([], []),
    ],
)
def test_the_frame_number_is_the_last_unless_that_is_the_same_in_all_names_and_one_other_varies(
    names: list[str], numbers: list[int]
):
    assert frame_numbers(names) == numbers
    assert frame_numbers(reversed(names)) == numbers[::-1]


@given(st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=1, max_size=6, unique=True))
def test_no_frame_is_read_by_another_number_than_the_last_while_that_could_be_read(runs: list[tuple[int, int, int]]):
    """Only where every image has one and the same last number, so that none of them could ever be read by it."""
    found = frame_numbers([f"a{first}_b{second}_c{third}.png" for first, second, third in runs])
    last = [third for _, _, third in runs]
    assert found == last or (len(set(last)) == 1 < len(runs) and len(set(found)) == len(runs))


def test_the_number_that_varies_finds_the_frames_of_a_folder(tmp_path: Path):
    for number in range(1, 6):
        image(tmp_path / "s01" / "c1" / f"cam2_{number:04d}_v3.png", 10 * number)
    assert values(read_frames(clip(onset=1, apex=3, offset=5), tmp_path, FrameConfig())) == [10, 30, 50]
    image(tmp_path / "s01" / "c1" / "cam2_0003_v3.jpg", 99)
    error = fails(clip(onset=1, apex=3, offset=5), tmp_path)
    assert error.code == FailureCode.FRAME_AMBIGUOUS
    assert "cam2_0003_v3.jpg and cam2_0003_v3.png" in error.message


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["f1_t5_v3.png", "f2_t9_v3.png"], "whose last number is 3 (f1_t5_v3.png, f2_t9_v3.png). Rename them"),
        (["cam2_0001_v3.png"], "got 3 alone, such as 3 in cam2_0001_v3.png"),
        (["1.heic", "2.HEIC", "3"], "do not end as those of images do (.heic 2, no extension 1)"),
        (["apex.png", "notes.txt"], "1 images have no number in their names (apex.png)"),
        (["sub/1.png"], "it holds folders alone (sub)"),
        ([".1.png"], "it is empty, hidden files apart"),
        (["画.\udcff"], r"(.\xff 1)"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("nearest", [False, True])
def test_what_a_folder_holds_instead_is_named(tmp_path: Path, names: list[str], says: str, nearest: bool):
    for name in names:
        path = tmp_path / "s01" / "c1" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    error = fails(clip(), tmp_path, nearest=nearest)
    if nearest and "alone, such as" in says:
        assert error.code == FailureCode.IMAGE_UNREADABLE  # the only one there is was taken, and is empty
    else:
        assert says in error.message
        assert "nearest" not in error.message or "frames.nearest=true" in error.message
