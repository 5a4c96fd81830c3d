"""One run over every fault that concerns single clips: each is recorded with its code, none stops the run, none is lost."""

from __future__ import annotations

import csv
import functools
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image

import flowkit as package
from conftest import SIZE, SMALL, flowkit
from flowkit import feed, pipeline
from flowkit.config import AlignConfig, FrameConfig, load_config
from flowkit.feed import AlignedClip
from flowkit.inspection import inspect
from flowkit.manifest import Clip, read_manifest
from flowkit.quality import Flag
from flowkit.shards import ShardFolder

NAMES = ("1.png", "2.png", "3.png")


def key_frames(manifest: Path) -> list[np.ndarray]:
    """The three frames of the first clip."""
    clip = read_manifest(manifest)[0]
    return [cv2.imread(str(path)) for path in sorted((manifest.parent / clip.path).glob("*.png"))]


class Corpus:
    """A folder of clips made of three frames, each spoilt in its own way."""

    def __init__(self, root: Path, frames: list[np.ndarray]) -> None:
        self.root, self.frames, self.rows = root, frames, list[dict[str, str]]()

    def clip(self, name: str, code: str, **row: str) -> Path:
        """Add a good clip that is expected to end as `code` once the caller has spoilt its folder."""
        folder = self.root / name
        folder.mkdir(parents=True)
        for file, frame in zip(NAMES, self.frames, strict=True):
            cv2.imwrite(str(folder / file), frame)
        self.add(name, code, **row)
        return folder

    def add(self, name: str, code: str, **row: str) -> None:
        """Add a row."""
        defaults = {
            "path": name,
            "onset": "1",
            "apex": "2",
            "offset": "3",
            "subject": "s",
            "dataset": "d",
            "label": "x",
        }
        self.rows.append({"clip_id": name, **defaults, **row, "expected": code})

    def write(self) -> Path:
        """The manifest; what is expected goes along as a further column."""
        path = self.root / "manifest.csv"
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(self.rows[0]))
            writer.writeheader()
            writer.writerows(self.rows)
        return path


def spoil_images(corpus: Corpus) -> None:
    (corpus.clip("empty", "IMAGE_UNREADABLE") / "2.png").write_bytes(b"")
    (corpus.clip("text", "IMAGE_UNREADABLE") / "2.png").write_text("no picture")
    folder = corpus.clip("truncated", "IMAGE_TRUNCATED")
    cv2.imwrite(str(folder / "2.jpg"), corpus.frames[1])
    (folder / "2.png").unlink()
    (folder / "2.jpg").write_bytes((folder / "2.jpg").read_bytes()[:-600])
    (corpus.clip("missing", "FRAME_MISSING") / "3.png").unlink()
    shutil.copy(corpus.clip("ambiguous", "FRAME_AMBIGUOUS") / "2.png", corpus.root / "ambiguous" / "frame_002.png")
    folder = corpus.clip("tiny", "IMAGE_TOO_SMALL")
    for name in NAMES:
        cv2.imwrite(str(folder / name), np.zeros((8, 8), np.uint8))
    cv2.imwrite(
        str(corpus.clip("sizes", "SIZE_MISMATCH") / "3.png"), cv2.resize(corpus.frames[2], (SIZE + 4, SIZE + 4))
    )
    folder = corpus.clip("twelve-bit", "IMAGE_DEPTH")
    for name, frame in zip(NAMES, corpus.frames, strict=True):
        cv2.imwrite(str(folder / name), frame.astype(np.uint16) * 16)
    (corpus.clip("escape", "PATH_REFUSED") / "2.png").unlink()
    (corpus.root / "escape" / "2.png").symlink_to("/etc/hostname")
    corpus.add("nowhere", "FRAME_MISSING")


def spoil_annotations(corpus: Corpus) -> None:
    corpus.clip("apex-after-offset", "ANNOTATION_RANGE", apex="3", offset="2")
    corpus.clip("reversed", "ANNOTATION_RANGE", onset="3", offset="1")
    corpus.clip("no-apex", "APEX_MISSING", apex="")
    corpus.clip("no-offset", "OFFSET_MISSING", offset="")
    corpus.clip("checksum", "SOURCE_CHECKSUM", source_hash="0" * 32)


def spoil_videos(corpus: Corpus) -> None:
    (corpus.root / "list.avi").write_text("ffconcat version 1.0\nfile /etc/hostname\n")
    corpus.add("playlist", "VIDEO_FORMAT_REFUSED", path="list.avi")
    video(corpus.root / "good.mkv", [*corpus.frames] * 5)
    corpus.add("video", "ok", path="good.mkv", onset="0", apex="1", offset="2")
    corpus.add("past the end", "FRAME_MISSING", path="good.mkv", onset="0", apex="1", offset="15")
    video(corpus.root / "cut.mp4", [*corpus.frames] * 5)
    (corpus.root / "cut.mp4").write_bytes((corpus.root / "cut.mp4").read_bytes()[:-700])
    corpus.add("cut", "VIDEO_UNREADABLE", path="cut.mp4", onset="0", apex="1", offset="2")


def unusual_but_good(corpus: Corpus) -> None:
    corpus.clip("good", "ok")
    corpus.clip("zero", "ok", apex="1", offset="1")
    folder = corpus.clip("frozen", "ok")
    for name in NAMES[1:]:
        shutil.copy(folder / "1.png", folder / name)
    folder = corpus.clip("black", "ok")
    for name in NAMES:
        cv2.imwrite(str(folder / name), np.zeros((SIZE, SIZE), np.uint8))
    folder = corpus.clip("Gesicht ß 顔 with spaces", "ok")
    Image.open(folder / "1.png").convert("RGBA").save(folder / "1.png")
    Image.open(folder / "2.png").convert("L").save(folder / "2.png")


def video(path: Path, frames: list[np.ndarray]) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.width = stream.height = SIZE
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="bgr24")))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def corpus(cropped: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    made = Corpus(tmp_path_factory.mktemp("faults") / "clips", key_frames(cropped))
    for spoil in (spoil_images, spoil_annotations, spoil_videos, unusual_but_good):
        spoil(made)
    width = max(made.rows, key=len)
    made.rows = [{name: row.get(name, "") for name in width} for row in made.rows]
    return made


@pytest.fixture(scope="module")
def extracted(corpus: Corpus) -> ShardFolder:
    manifest, out = corpus.write(), corpus.root.parent / "out"
    done = flowkit("extract", manifest, "--out", out, *SMALL, "--max-error-rate", "1")
    assert done.code == 1, done.err
    return ShardFolder.open(out)


def test_every_fault_ends_as_its_code_and_every_clip_is_accounted_for(corpus: Corpus, extracted: ShardFolder) -> None:
    found = {clip["clip_id"]: "ok" for clip in extracted.clips()}
    found |= {failure["clip_id"]: failure["code"] for failure in extracted.failures()}
    assert found == {row["clip_id"]: row["expected"] for row in corpus.rows}
    with (extracted.path / "failures.csv").open(newline="") as file:
        listed = {row["clip_id"]: row for row in csv.DictReader(file)}
    assert {name: row["code"] for name, row in listed.items()} == {n: c for n, c in found.items() if c != "ok"}
    assert all(row["host"] and row["attempt"] == "1" for row in listed.values())


def test_every_message_says_what_what_else_and_what_next(extracted: ShardFolder) -> None:
    for failure in extracted.failures():
        assert " must " in failure["message"], failure
        assert "; got " in failure["message"], failure
        assert failure["message"].rstrip().endswith((".", ")")), failure


def test_unusual_clips_are_flagged_not_failed(extracted: ShardFolder) -> None:
    notes = {clip["clip_id"]: Flag(clip["qc"]) for clip in extracted.clips()}
    assert notes["good"] == Flag(0)
    assert Flag.ZERO_MOTION in notes["frozen"]
    assert Flag.BLANK in notes["black"]
    zero = next(clip for clip in extracted.clips() if clip["clip_id"] == "zero")
    assert zero["phase_valid"] == [False, False]


def test_check_finds_the_same_clips_before_anything_is_computed(corpus: Corpus) -> None:
    done = flowkit("check", corpus.write(), "--json")
    assert done.code == 1
    found = {problem["clip_id"]: problem["code"] for problem in json.loads(done.out)["problems"]}
    assert found == {row["clip_id"]: row["expected"] for row in corpus.rows if row["expected"] != "ok"}


def test_inspect_counts_what_was_planned(corpus: Corpus, extracted: ShardFolder) -> None:
    found = inspect(extracted.path)
    assert found["planned"] == len(corpus.rows) == found["ok"] + found["failed"]
    assert found["not_started"] == 0


@contextmanager
def ill_loader(root: Path, frames: FrameConfig, align: AlignConfig) -> Iterator[Callable[[Clip], AlignedClip]]:
    """The real loader, in a worker that falls ill as the clip's label says."""
    with feed.clip_loader(root, frames, align) as load:

        def ill(clip: Clip) -> AlignedClip:
            if clip.clip_id == "crash":
                os.kill(os.getpid(), signal.SIGSEGV)
            if clip.clip_id == "hang":
                time.sleep(600)
            if clip.clip_id == "bug":
                raise RuntimeError("nobody thought of this")
            return load(clip)

        yield ill


def test_a_crashing_hanging_or_unforeseen_clip_costs_itself_alone(
    cropped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = Corpus(tmp_path / "clips", key_frames(cropped))
    for name, code in {"a": "ok", "crash": "WORKER_CRASH", "hang": "TIMEOUT", "bug": "INTERNAL", "z": "ok"}.items():
        corpus.clip(name, code)
    monkeypatch.setattr(pipeline, "clip_loader", ill_loader)
    options = package.RunOptions(workers=2, timeout_s=4, max_error_rate=1)
    config = load_config(None, align__method="none", align__size=SIZE)
    summary = package.extract(corpus.write(), tmp_path / "out", config, options)
    assert (summary.ok, summary.failed, summary.exit_code) == (2, 3, 1)
    codes = {failure["clip_id"]: failure["code"] for failure in ShardFolder.open(tmp_path / "out").failures()}
    assert codes == {row["clip_id"]: row["expected"] for row in corpus.rows if row["expected"] != "ok"}


def test_a_kernel_that_refuses_one_clip_keeps_the_batch(
    cropped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not-a-number where no reader lets one through: the batch is split until the culprit is alone."""
    corpus = Corpus(tmp_path / "clips", key_frames(cropped))
    for name in ("a", "b", "poison", "d"):
        corpus.clip(name, "ok")
    monkeypatch.setattr(pipeline, "clip_loader", functools.partial(poisoned_loader, "poison"))
    config = load_config(None, align__method="none", align__size=SIZE)
    summary = package.extract(corpus.write(), tmp_path / "out", config, package.RunOptions(max_error_rate=1))
    (failure,) = ShardFolder.open(tmp_path / "out").failures()
    assert (summary.ok, failure["clip_id"], failure["code"]) == (3, "poison", "INTERNAL")


@contextmanager
def poisoned_loader(
    name: str, root: Path, frames: FrameConfig, align: AlignConfig
) -> Iterator[Callable[[Clip], AlignedClip]]:
    """The real loader, but one clip's apex has a pixel that is not a number."""
    with feed.clip_loader(root, frames, align) as load:

        def poison(clip: Clip) -> AlignedClip:
            aligned = load(clip)
            if clip.clip_id == name:
                aligned.face.pixels[1, 50, 50] = np.nan
            return aligned

        yield poison
