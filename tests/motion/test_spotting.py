"""Spotting finds the apex that `flowkit synth` made, in folders and videos, however the face is located, and says so in shards."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import Done, flowkit, shard_bytes, start
from flowkit.checking.check import check_manifest
from flowkit.config import AlignConfig, FrameConfig
from flowkit.errors import ClipError, FailureCode
from flowkit.face.align import Aligner
from flowkit.inputs.clip import Clip
from flowkit.inputs.manifest import read_manifest, write_manifest
from flowkit.motion import spotting
from flowkit.motion.spotting import Spotted, spot
from flowkit.storage.folder import ShardFolder
from flowkit.synthetic.dataset import SynthConfig, synthesise

WHOLE = SynthConfig(
    motion="bumps", subjects=1, classes=("smile", "surprise"), wander=True, phase_frames=(8, 20), seed=4
)
CROPPED = dataclasses.replace(WHOLE, cropped=True, width=96, height=96, peak_px=(0.9, 1.1), noise=0.5)
NONE = AlignConfig(method="none", size=96)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifest of 2 clips with all their frames, a face anywhere in them."""
    return synthesise(tmp_path_factory.mktemp("whole") / "clips", WHOLE)


@pytest.fixture(scope="module")
def cropped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifest of 2 clips with all their frames, cropped already."""
    return synthesise(tmp_path_factory.mktemp("cropped") / "clips", CROPPED)


def found_in(manifest: Path, align: AlignConfig, clip: Clip) -> Spotted:
    with Aligner(align) as aligner:
        return spot(dataclasses.replace(clip, apex=None), manifest.parent, FrameConfig(), aligner)


def without_apex(manifest: Path, path: Path, keep: int = 0) -> Path:
    """The manifest with its apexes taken out, but for the first ones."""
    with manifest.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows[keep:]:
        row["apex"] = ""
    return write_rows(path, rows)


def write_rows(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("method", ["landmarks", "mediapipe"])
def test_the_apex_is_found_where_the_head_drifts(whole: Path, method: str) -> None:
    given = str(whole.parent / "landmarks.csv") if method == "landmarks" else ""
    for clip in read_manifest(whole):
        found = found_in(whole, AlignConfig(method=method, landmarks=given), clip)
        assert abs(found.apex - clip.apex) <= 2
        assert (found.onset, found.offset) == (clip.onset, clip.offset)
        assert found.frames == tuple(range(clip.onset, clip.offset + 1))
        assert len(found.curve) == len(found.frames)
        assert found.frames[0] == clip.onset
        assert found.curve[0] == 0
        assert found.confidence > 0.3


def test_the_apex_is_found_in_frames_that_are_cropped(cropped: Path) -> None:
    for clip in read_manifest(cropped):
        assert abs(found_in(cropped, NONE, clip).apex - clip.apex) <= 2


def test_a_video_gives_what_its_frames_give(cropped: Path, tmp_path: Path) -> None:
    video = synthesise(tmp_path / "video", dataclasses.replace(CROPPED, format="mkv"))
    for folder_clip, video_clip in zip(read_manifest(cropped), read_manifest(video), strict=True):
        a, b = found_in(cropped, NONE, folder_clip), found_in(video, NONE, video_clip)
        shift = folder_clip.onset - video_clip.onset
        assert b.apex + shift == a.apex
        assert [number + shift for number in b.frames] == list(a.frames)
        assert b.curve == pytest.approx(a.curve, abs=2e-3)  # a video's colours are rounded


def test_missing_frames_are_left_out_of_the_search(cropped: Path, tmp_path: Path) -> None:
    clip = read_manifest(cropped)[0]
    folder = shutil.copytree(cropped.parent / clip.path, tmp_path / clip.path)
    gone = [clip.apex, clip.apex + 1, clip.onset + 3]
    for number in gone:
        (folder / f"{number:04d}.png").unlink()
    with Aligner(NONE) as aligner:
        found = spot(clip, tmp_path, FrameConfig(), aligner)
    assert not {found.apex, *found.frames} & set(gone)
    assert abs(found.apex - clip.apex) <= 3


def still(folder: Path, count: int, seed: int = -1) -> Clip:
    """A clip in which nothing moves, with noise of two grey levels if a seed is given."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    face = np.kron(rng.integers(60, 200, (24, 24)), np.ones((4, 4)))
    for number in range(count):
        noise = np.random.default_rng([seed, number]).normal(0, 2, face.shape) if seed >= 0 else 0
        Image.fromarray(np.clip(face + noise, 0, 255).astype(np.uint8)).save(folder / f"{number}.png")
    return Clip(folder.name, folder.name, 0, None, count - 1, "s", "made", "none")


@pytest.mark.parametrize("seed", [-1, 1, 2])
def test_where_nothing_moves_confidence_is_near_0(tmp_path: Path, seed: int) -> None:
    clip = still(tmp_path / "still", 40, seed)
    found = found_in(tmp_path / "clips.csv", NONE, clip)
    assert clip.onset < found.apex < 39
    assert found.confidence < 0.05
    assert max(found.curve) < 0.12, "noise"


@pytest.mark.parametrize(("count", "apex"), [(3, 1), (2, 1)])
def test_the_shortest_clips_have_one_choice(tmp_path: Path, count: int, apex: int) -> None:
    found = found_in(tmp_path / "clips.csv", NONE, still(tmp_path / "short", count, 1))
    assert found.apex == apex
    assert found.confidence == 0, "of so few frames nothing can be said"


def test_without_an_offset_the_search_goes_on_to_the_last_frame(cropped: Path, tmp_path: Path) -> None:
    clip = dataclasses.replace(read_manifest(cropped)[0], offset=None)
    found = found_in(cropped, NONE, clip)
    assert found.offset is None
    assert found.frames[-1] == read_manifest(cropped)[0].offset
    assert abs(found.apex - clip.apex) <= 2


def failure(manifest: Path, clip: Clip, align: AlignConfig = NONE) -> FailureCode:
    with pytest.raises(ClipError) as raised:
        found_in(manifest, align, clip)
    assert raised.value.message.endswith(".")
    return raised.value.code


def test_what_cannot_be_searched_fails_with_a_code(cropped: Path, tmp_path: Path) -> None:
    clip = read_manifest(cropped)[0]
    shutil.copytree(cropped.parent / clip.path, tmp_path / clip.path)
    copied = tmp_path / "clips.csv"
    assert failure(copied, dataclasses.replace(clip, offset=clip.onset - 1)) == FailureCode.ANNOTATION_RANGE
    assert failure(copied, dataclasses.replace(clip, offset=clip.onset)) == FailureCode.APEX_MISSING
    assert failure(copied, dataclasses.replace(clip, onset=999, offset=1000)) == FailureCode.FRAME_MISSING
    assert failure(copied, dataclasses.replace(clip, path="nowhere")) == FailureCode.FRAME_MISSING
    assert failure(copied, dataclasses.replace(clip, path="../out")) == FailureCode.PATH_REFUSED
    frame = tmp_path / clip.path / f"{clip.offset:04d}.png"
    Image.new("L", (64, 64)).save(frame)
    assert failure(copied, clip) == FailureCode.SIZE_MISMATCH
    frame.write_bytes(b"")
    assert failure(copied, clip) == FailureCode.IMAGE_UNREADABLE
    faceless = still(tmp_path / "faceless", 5)
    assert failure(copied, faceless, AlignConfig()) == FailureCode.FACE_NOT_FOUND


def test_a_damaged_frame_that_is_looked_at_fails_the_clip_and_removing_it_helps(cropped: Path, tmp_path: Path) -> None:
    clip = read_manifest(cropped)[0]
    shutil.copytree(cropped.parent / clip.path, tmp_path / clip.path)
    looked_at = found_in(cropped, NONE, clip).frames[2]
    frame = tmp_path / clip.path / f"{looked_at:04d}.png"
    frame.write_bytes(frame.read_bytes()[:-30])
    assert failure(tmp_path / "clips.csv", clip) == FailureCode.IMAGE_TRUNCATED
    frame.unlink()
    assert abs(found_in(tmp_path / "clips.csv", NONE, clip).apex - clip.apex) <= 2


def test_a_recording_is_no_clip_and_takes_no_memory(
    cropped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = synthesise(tmp_path / "video", dataclasses.replace(CROPPED, format="mkv", classes=("smile",)))
    (clip,) = read_manifest(manifest)
    monkeypatch.setattr(spotting, "MOST_FRAMES", 10)
    for source, one in ((manifest, clip), (cropped, read_manifest(cropped)[0])):
        with pytest.raises(
            ClipError, match=r"at most 10 frames .* Search a recording with flowkit spot-intervals"
        ) as raised:
            found_in(source, NONE, one)
        assert raised.value.code == FailureCode.ANNOTATION_RANGE


def test_a_cut_video_fails(tmp_path: Path) -> None:
    manifest = synthesise(tmp_path / "video", dataclasses.replace(CROPPED, format="mkv", classes=("smile",)))
    (clip,) = read_manifest(manifest)
    assert failure(manifest, dataclasses.replace(clip, offset=clip.offset + 5)) == FailureCode.FRAME_MISSING
    assert failure(manifest, dataclasses.replace(clip, onset=900, offset=None)) == FailureCode.FRAME_MISSING


def extract(manifest: Path, out: Path, *more: str | Path) -> Done:
    return flowkit(
        "extract", manifest, "--out", out, "--align", "none", "--size", "96", "--missing-apex", "spot", *more
    )


def test_extract_spots_what_has_no_apex_and_says_so(cropped: Path, tmp_path: Path) -> None:
    manifest, root = without_apex(cropped, tmp_path / "clips.csv", keep=1), cropped.parent
    one = extract(manifest, tmp_path / "one", "--root", root, "--workers", "1", "--json")
    assert one.code == 0, one.err
    assert json.loads(one.out)["stage_clips"]["spot"] == 1
    assert extract(manifest, tmp_path / "two", "--root", root, "--workers", "2", "--batch", "1").code == 0
    assert shard_bytes(tmp_path / "one") == shard_bytes(tmp_path / "two")
    (shard,) = ShardFolder.open(tmp_path / "one").shards()
    given, spotted = shard.samples()
    assert (given["apex_source"], spotted["apex_source"]) == ("annotated", "spotted")
    clip = read_manifest(cropped)[1]
    found = found_in(cropped, NONE, clip)
    extra = json.loads(spotted["extra"])
    assert spotted["apex"] == found.apex
    assert extra["apex_confidence"] == pytest.approx(found.confidence, abs=2e-4)
    numbers, curve = zip(*extra["apex_curve"], strict=True)
    assert numbers == found.frames
    assert curve == pytest.approx(found.curve, abs=2e-4)  # OpenCV sums over more threads here than in a worker
    assert "peak_px" in extra
    assert "apex_curve" not in json.loads(given["extra"])
    again = extract(manifest, tmp_path / "one", "--root", root, "--verify-sources", "--json")
    assert (again.code, json.loads(again.out)["computed"]) == (0, 0), again.err
    changed = flowkit("extract", manifest, "--out", tmp_path / "one", "--align", "none", "--size", "96", "--root", root)
    assert changed.code == 2
    assert "frames.missing_apex spot -> fail" in changed.err


def test_a_clip_that_cannot_be_spotted_fails_alone(cropped: Path, tmp_path: Path) -> None:
    root = shutil.copytree(cropped.parent, tmp_path / "clips")
    manifest = without_apex(cropped, root / "spot.csv")
    bad = read_manifest(cropped)[0]
    for number in range(bad.onset + 1, bad.offset + 1):
        (root / bad.path / f"{number:04d}.png").unlink()
    done = extract(manifest, tmp_path / "out", "--max-error-rate", "1")
    assert done.code == 1
    assert [row["code"] for row in read_rows(tmp_path / "out" / "failures.csv")] == ["APEX_MISSING"]
    report = check_manifest(manifest, root, FrameConfig(missing_apex="spot"))
    assert [(problem.clip_id, problem.code) for problem in report.problems] == [(bad.clip_id, FailureCode.APEX_MISSING)]
    assert (report.zero_rise, report.zero_fall) == (0, 0)


SPOT = ("--align", "none", "--workers", "1")


def test_spot_writes_a_manifest_that_extract_takes(cropped: Path, tmp_path: Path) -> None:
    manifest, out = without_apex(cropped, tmp_path / "clips.csv", keep=1), tmp_path / "spotted.csv"
    before = manifest.read_bytes()
    done = flowkit("spot", manifest, "--out", out, "--root", cropped.parent, *SPOT)
    assert done.code == 0, done.err
    assert manifest.read_bytes() == before
    assert done.out.splitlines()[0] == "2 clips: 1 had an apex, 1 spotted, 0 failed."
    assert done.out.splitlines()[-1] == str(out)
    assert f"pass --root {cropped.parent}" in done.err
    rows, truth = read_rows(out), read_rows(cropped)
    assert list(rows[0]) == [*truth[0], "apex_source", "apex_confidence"]
    assert [row["apex_source"] for row in rows] == ["annotated", "spotted"]
    assert rows[0] == truth[0] | {"apex_source": "annotated", "apex_confidence": ""}
    assert abs(int(rows[1]["apex"]) - int(truth[1]["apex"])) <= 2
    assert 0.3 < float(rows[1]["apex_confidence"]) <= 1
    extracted = flowkit(
        "extract", out, "--root", cropped.parent, "--out", tmp_path / "out", "--align", "none", "--size", "96"
    )
    assert extracted.code == 0, extracted.err
    (shard,) = ShardFolder.open(tmp_path / "out").shards()
    assert [sample["apex_source"] for sample in shard.samples()] == ["annotated", "spotted"]


def test_spot_tells_programs_the_curve_and_goes_on_after_bad_clips(cropped: Path, tmp_path: Path) -> None:
    rows = read_rows(without_apex(cropped, tmp_path / "clips.csv"))
    rows[0]["path"] = "frames/nowhere"
    manifest, out = write_rows(tmp_path / "clips.csv", rows), tmp_path / "spotted.csv"
    done = flowkit("spot", manifest, "--out", out, "--root", cropped.parent, "--json", *SPOT)
    assert done.code == 1
    found = json.loads(done.out)
    assert (found["clips"], found["with_apex"]) == (2, 0)
    assert [(one["clip_id"], one["code"]) for one in found["failed"]] == [(rows[0]["clip_id"], "FRAME_MISSING")]
    spotted = found["spotted"][rows[1]["clip_id"]]
    assert len(spotted["frames"]) == len(spotted["curve"])
    written = read_rows(out)
    assert (written[0]["apex"], written[0]["apex_source"], written[0]["apex_confidence"]) == ("", "", "")
    assert int(written[1]["apex"]) == spotted["apex"]
    people = flowkit("spot", manifest, "--out", out, "--root", cropped.parent, "--overwrite", *SPOT)
    assert people.code == 1
    assert "FRAME_MISSING" in people.out
    assert read_rows(out) == written


def test_where_nothing_moves_spot_leaves_the_row_empty_and_says_why(tmp_path: Path) -> None:
    clip = still(tmp_path / "still", 40)
    manifest, out = tmp_path / "clips.csv", tmp_path / "spotted.csv"
    write_manifest(manifest, [clip])
    done = flowkit("spot", manifest, "--out", out, *SPOT)
    assert (done.code, "APEX_MISSING" in done.out, "nothing in it rises and falls" in done.out) == (1, True, True)
    (row,) = read_rows(out)
    assert (row["apex"], row["apex_source"], row["apex_confidence"]) == ("", "", "")


def test_spot_refuses_what_it_cannot_write_before_it_begins(cropped: Path, tmp_path: Path) -> None:
    manifest = without_apex(cropped, tmp_path / "clips.csv")
    (tmp_path / "old.csv").write_text("precious")
    (tmp_path / "link.csv").symlink_to(manifest)
    for out, more, says in (
        ("old.csv", (), "--out must not exist yet"),
        ("clips.csv", ("--overwrite",), "must be another file than the manifest"),
        ("link.csv", ("--overwrite",), "must be another file than the manifest"),
        (".", ("--overwrite",), "must name a file"),
        ("nowhere/new.csv", (), "must lie in a folder that exists"),
        ("new.csv", ("--root", tmp_path / "nowhere"), "--root must be a folder"),
        ("new.csv", ("--align", "landmarks"), "align.landmarks=FILE"),
        ("new.csv", ("--workers", "-1"), "workers must be from 0"),
    ):
        done = flowkit("spot", manifest, "--out", tmp_path / out, *more)
        assert (done.code, done.out) == (2, ""), (out, done.err)
        assert says in done.err
    assert (tmp_path / "old.csv").read_text() == "precious"
    assert not (tmp_path / "new.csv").exists()
    assert flowkit("spot", tmp_path / "old.csv", "--out", tmp_path / "new.csv").code == 2


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 75, marks=pytest.mark.slow)]
)
def test_a_spotting_that_is_stopped_leaves_nothing(
    cropped: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    rows = read_rows(without_apex(cropped, tmp_path / "clips.csv"))
    many = [row | {"clip_id": f"{row['clip_id']}_{i}"} for i in range(300) for row in rows]
    manifest, out = write_rows(tmp_path / "clips.csv", many), tmp_path / "spotted.csv"
    out.write_text("old")
    process = start("spot", manifest, "--out", out, "--overwrite", "--root", cropped.parent, *SPOT)
    time.sleep(4)
    assert process.poll() is None
    os.killpg(process.pid, number)
    stdout, err = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (code, ""), err
    assert "nothing was written" in err
    assert "Traceback" not in err
    assert out.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clips.csv", "spotted.csv"]
