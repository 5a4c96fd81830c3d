"""Damage at random: readers give what was stored, or refuse; the figures are printed (`pytest -rP`)."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import hostile_media as media
from fuzz_child import Fuzzed, fuzzed
from shard_builder import build_folder


def mutations(few: int, many: int) -> pytest.MarkDecorator:
    """Run a test with a few mutations, and with many in `make test-slow`."""
    return pytest.mark.parametrize("count", [few, pytest.param(many, marks=pytest.mark.slow)])


def printed(what: str, found: Fuzzed, count: int) -> None:
    """Every mutation must have an outcome."""
    print(f"{what}: {', '.join(f'{name} {number}' for name, number in sorted(found.counts.items()))}")  # noqa: T201
    print(*(f"  {name}: {detail}" for name, detail in found.details.items()), sep="\n")  # noqa: T201
    assert found.counts.total() == count


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return build_folder(tmp_path / "out", clips=3, failures=1)


@mutations(500, 1000)
def test_a_damaged_shard_gives_identical_data_or_is_refused(folder: Path, count: int) -> None:
    """The reader as it is by default: no byte of it is ever given to libhdf5, which would crash."""
    found = fuzzed("shards", folder, count)
    printed("damaged shards, hashes compared", found, count)
    assert set(found.counts) <= {"identical", "refused"}
    assert found.counts["refused"] > 0.9 * count


@mutations(200, 1000)
def test_where_nothing_holds_libhdf5_back_no_other_numbers_come_out(folder: Path, count: int) -> None:
    """With `verify=False`, or a record that vouches for the damage. libhdf5 may crash or hang: that is why the hash comes first.

    Numbers have a hash of their own, clip by clip; texts have none, and may be others.
    """
    found = fuzzed("vouched", folder, count)
    printed("damaged shards, no hash compared", found, count)
    assert set(found.counts) <= {"identical", "refused", "other-texts", "crash", "hang"}
    assert found.counts["refused"] > 0.2 * count


@mutations(120, 400)
def test_damaged_records_run_and_plan_are_refused_or_told(folder: Path, count: int) -> None:
    """Under a hash that fits, a value of the right form may be another: nobody could know."""
    found = fuzzed("json", folder, count)
    printed("damaged JSON", found, count)
    assert set(found.counts) <= {"identical", "refused", "told", "another-value"}
    assert found.counts["refused"] + found.counts["told"] > 0.5 * count


@mutations(150, 300)
def test_damaged_images_and_videos_end_as_codes(cropped: Path, tmp_path: Path, count: int) -> None:
    """A decoder may crash: the supervisor says WORKER_CRASH then, of that clip alone (test_faults.py)."""
    import cv2

    from flowkit.inputs.manifest import read_manifest

    clip = read_manifest(cropped)[0]
    frames = [cv2.imread(str(path)) for path in sorted((cropped.parent / clip.path).glob("*.png"))]
    for suffix in ("png", "jpg", "tiff", "webp", "bmp"):
        cv2.imwrite(str(tmp_path / f"image.{suffix}"), frames[0])
    cv2.imwrite(str(tmp_path / "image16.png"), frames[0].astype("uint16") * 257)
    for name, codec in {
        "a.mp4": "libx264",
        "b.mov": "mpeg4",
        "c.avi": "mpeg4",
        "d.mkv": "ffv1",
        "e.webm": "libvpx",
    }.items():
        media.video(tmp_path / name, codec, frames)
    found = fuzzed("media", tmp_path, count)
    printed("damaged images and videos", found, count)
    assert set(found.counts) <= {"refused", "frames", "crash", "hang"}
    assert found.counts["refused"] > 0.3 * count
    shutil.rmtree(tmp_path / "clip")
