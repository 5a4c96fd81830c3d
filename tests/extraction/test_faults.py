"""One run over every fault that concerns single clips: each is recorded with its code, none stops the run, none is lost.

The numbers are those of the fault table in docs/reliability.md.
"""

from __future__ import annotations

import csv
import functools
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image

import flowkit as package
from conftest import SIZE, SMALL, flowkit
from flowkit.config import AlignConfig, FrameConfig, load_config
from flowkit.extraction import pipeline, read_and_align
from flowkit.extraction.read_and_align import AlignedClip
from flowkit.inputs.clip import Clip
from flowkit.inputs.frames import read_frames
from flowkit.inputs.manifest import read_manifest
from flowkit.storage.folder import ShardFolder
from flowkit.storage.inspection import inspect
from flowkit.storage.quality import Flag

NAMES = ("1.png", "2.png", "3.png")
SICK = Path(__file__).parent / "sick"
ILLNESSES = {
    "!segfault first": "segfault",
    "segfault": "segfault",
    "killed": "killed",
    "hangs": "hangs",
    "stopped": "stopped",
    "bug": "bug",
    "changes": "changes",
    "no number": "no number",
    "absurd": "absurd",
}
"""Clips on which a process falls ill, and how; see sick/sitecustomize.py."""


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
    """Rows 1, 2, 4, 9, 10, 11."""
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


def flip_bits(corpus: Corpus) -> None:
    """Row 3: a JPEG with one wrong byte is an image, and only a checksum tells."""
    for name, code in (("flipped", "ok"), ("flipped, with checksum", "SOURCE_CHECKSUM")):
        folder = corpus.clip(name, code)
        for file in NAMES:
            Image.open(folder / file).save(folder / file.replace("png", "jpg"), quality=95)
            (folder / file).unlink()
        if code != "ok":
            corpus.rows[-1]["source_hash"] = source_hash(corpus.root, name)
        content = bytearray((folder / "2.jpg").read_bytes())
        content[len(content) // 2] ^= 4
        (folder / "2.jpg").write_bytes(content)


def source_hash(root: Path, name: str) -> str:
    """Of a clip, as it is now."""
    clip = Clip(name, name, 1, 2, 3, "s", "d", "x")
    return read_frames(clip, root, FrameConfig()).source.source_hash


def fall_ill(corpus: Corpus) -> None:
    """Rows 7, 23, 30, 31: good clips on which the process that works on them falls ill."""
    codes = {
        "segfault": "WORKER_CRASH",
        "killed": "WORKER_CRASH",
        "hangs": "TIMEOUT",
        "stopped": "TIMEOUT",
        "bug": "INTERNAL",
        "changes": "SOURCE_CHANGED",
        "no number": "FLOW_NONFINITE",
        "absurd": "FLOW_RANGE",
    }
    for name, illness in ILLNESSES.items():
        corpus.clip(name, codes[illness])


def spoil_annotations(corpus: Corpus) -> None:
    """Row 5."""
    corpus.clip("apex-after-offset", "ANNOTATION_RANGE", apex="3", offset="2")
    corpus.clip("reversed", "ANNOTATION_RANGE", onset="3", offset="1")
    corpus.clip("no-apex", "APEX_MISSING", apex="")
    corpus.clip("no-offset", "OFFSET_MISSING", offset="")
    corpus.clip("checksum", "SOURCE_CHECKSUM", source_hash="0" * 32)


def spoil_videos(corpus: Corpus) -> None:
    """Rows 14 and 15."""
    (corpus.root / "list.avi").write_text("ffconcat version 1.0\nfile /etc/hostname\n")
    corpus.add("playlist", "VIDEO_FORMAT_REFUSED", path="list.avi")
    video(corpus.root / "good.mkv", [*corpus.frames] * 5)
    corpus.add("video", "ok", path="good.mkv", onset="0", apex="1", offset="2")
    corpus.add("past the end", "FRAME_MISSING", path="good.mkv", onset="0", apex="1", offset="15")
    video(corpus.root / "cut.mp4", [*corpus.frames] * 5)
    (corpus.root / "cut.mp4").write_bytes((corpus.root / "cut.mp4").read_bytes()[:-700])
    corpus.add("cut", "VIDEO_UNREADABLE", path="cut.mp4", onset="0", apex="1", offset="2")
    video(corpus.root / "half.mkv", [*corpus.frames] * 5)
    (corpus.root / "half.mkv").write_bytes(
        (corpus.root / "half.mkv").read_bytes()[: (corpus.root / "half.mkv").stat().st_size // 2]
    )
    corpus.add("half", "FRAME_MISSING", path="half.mkv", onset="0", apex="1", offset="14")


def unusual_but_good(corpus: Corpus) -> None:
    """Rows 5, 6, 11, 12, 13."""
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
    corpus.clip("n" * 250, "ok")
    folder = corpus.clip("formats", "ok")
    Image.open(folder / "1.png").convert("CMYK").save(folder / "1.tif")
    Image.open(folder / "2.png").convert("P").save(folder / "2.bmp")
    cv2.imwrite(str(folder / "3.tif"), cv2.imread(str(folder / "3.png"), cv2.IMREAD_GRAYSCALE).astype(np.float32) / 255)
    for name in NAMES:
        (folder / name).unlink()
    folder = corpus.clip("upside down", "ok")
    for name in NAMES:
        exif = Image.Exif()
        exif[0x0112] = 3
        Image.open(folder / name).save(folder / name, exif=exif)


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
    for spoil in (spoil_images, flip_bits, spoil_annotations, spoil_videos, fall_ill, unusual_but_good):
        spoil(made)
    width = max(made.rows, key=len)
    made.rows = [{name: row.get(name, "") for name in width} for row in made.rows]
    return made


def sick(illnesses: Mapping[str, str]) -> dict[str, str]:
    """Environment of a command whose processes fall ill."""
    return {"PYTHONPATH": os.pathsep.join([str(SICK), *filter(None, sys.path)]), "FLOWKIT_SICK": json.dumps(illnesses)}


@pytest.fixture(scope="module")
def extracted(corpus: Corpus) -> ShardFolder:
    manifest, out = corpus.write(), corpus.root.parent / "out"
    flags = (*SMALL, "--max-error-rate", "1", "--timeout", "12")
    done = flowkit("extract", manifest, "--out", out, *flags, "--json", **sick(ILLNESSES))
    assert done.code == 1, done.err
    summary = json.loads(done.out)
    assert summary["planned"] == summary["ok"] + summary["failed"] == len(corpus.rows)
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
    assert Flag.ROTATED in notes["upside down"]
    zero = next(clip for clip in extracted.clips() if clip["clip_id"] == "zero")
    assert zero["phase_valid"] == [False, False]


def test_check_finds_the_same_clips_before_anything_is_computed(corpus: Corpus) -> None:
    done = flowkit("check", corpus.write(), "--json")
    assert done.code == 1
    found = {problem["clip_id"]: problem["code"] for problem in json.loads(done.out)["problems"]}
    expected = {row["clip_id"]: row["expected"] for row in corpus.rows if row["clip_id"] not in ILLNESSES}
    assert found == {name: code for name, code in expected.items() if code != "ok"}


def test_inspect_counts_what_was_planned(corpus: Corpus, extracted: ShardFolder) -> None:
    found = inspect(extracted.path)
    assert found["planned"] == len(corpus.rows) == found["ok"] + found["failed"]
    assert found["not_started"] == 0


def test_no_face_is_a_failure_and_of_several_the_largest_counts(uncropped: Path, tmp_path: Path) -> None:
    """Row 8: with mediapipe, which finds faces."""
    frames = key_frames(uncropped)
    corpus = Corpus(tmp_path / "clips", frames)
    corpus.clip("one", "ok")
    folder = corpus.clip("none", "FACE_NOT_FOUND")
    cv2.imwrite(str(folder / "1.png"), np.random.default_rng(0).integers(0, 256, frames[0].shape, np.uint8))
    folder = corpus.clip("two", "ok")
    for file, frame in zip(NAMES, frames, strict=True):
        small = cv2.resize(frame, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA)
        above = (len(frame) - len(small)) // 2
        smaller = np.pad(small, ((above, len(frame) - len(small) - above), (0, 0), (0, 0)))
        cv2.imwrite(str(folder / file), np.hstack([frame, smaller]))
    out = tmp_path / "out"
    done = flowkit("extract", corpus.write(), "--out", out, "--max-error-rate", "1", "--size", "128")
    assert done.code == 1, done.err
    found = ShardFolder.open(out)
    assert {failure["clip_id"]: failure["code"] for failure in found.failures()} == {"none": "FACE_NOT_FOUND"}
    (shard,) = found.shards()
    one, two = shard.samples()
    assert (one["n_faces"], two["n_faces"]) == (1, 2)
    assert Flag.MANY_FACES in Flag(int(two["qc"]))
    scale = [np.hypot(*sample["transform"][0, :2]) for sample in (one, two)]
    assert scale[1] == pytest.approx(scale[0], rel=0.1)  # the other face is 0.6 times as large


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
    with read_and_align.clip_loader(root, frames, align) as load:

        def poison(clip: Clip) -> AlignedClip:
            aligned = load(clip)
            if clip.clip_id == name:
                aligned.face.pixels[1, 50, 50] = np.nan
            return aligned

        yield poison
