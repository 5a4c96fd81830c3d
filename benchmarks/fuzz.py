"""More mutations than the tests have time for: damaged shards that libhdf5 does see, images and videos.

    python benchmarks/fuzz.py --shards 10000 --media 5000

Prints outcomes as JSON. Needs the development installation: the mutations are those of tests/fuzz_child.py.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT), str(ROOT / "kernels"), str(ROOT / "models")]

import cv2  # noqa: E402
import numpy as np  # noqa: E402

import hostile_media as media  # noqa: E402
from fuzz_child import fuzzed  # noqa: E402
from shard_builder import build_folder  # noqa: E402

CODECS = {"a.mp4": "libx264", "b.mov": "mpeg4", "c.avi": "mpeg4", "d.mkv": "ffv1", "e.webm": "libvpx"}


def main() -> None:
    """Run both and print what came of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=10_000)
    parser.add_argument("--media", type=int, default=5_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        shards = fuzzed("vouched", build_folder(Path(folder, "out"), clips=3, failures=1), given.shards)
        pictures = fuzzed("media", _pictures(Path(folder, "media")), given.media)
    print(json.dumps({"shards": shards.counts, "media": pictures.counts}, indent=1))


def _pictures(folder: Path) -> Path:
    """An image of each format and a video of each container."""
    folder.mkdir()
    draw = np.random.default_rng(0)
    noise = (draw.integers(0, 255, (96, 96, 3), np.uint8) for _ in range(3))
    frames = [np.asarray(cv2.GaussianBlur(frame, (9, 9), 0)) for frame in noise]
    for suffix in ("png", "jpg", "tiff", "webp", "bmp"):
        cv2.imwrite(str(folder / f"image.{suffix}"), frames[0])
    cv2.imwrite(str(folder / "image16.png"), frames[0].astype(np.uint16) * 257)
    for name, codec in CODECS.items():
        media.video(folder / name, codec, frames)
    return folder


if __name__ == "__main__":
    main()
