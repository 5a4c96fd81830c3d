"""Seconds that `flowkit extract` takes to read the frames of 200 clips of one 20-minute video, one worker.

The video is H.264 in MP4, as x264 makes it by itself: 256 x 256 pixels, 25 frames per second, a key frame every 250. The clips are
spread over all of it. The first figures count: an older version decodes the video from its first frame for each clip, which takes
minutes.
"""

from __future__ import annotations

import json
from pathlib import Path

from _common import Figures, command, main

CLIPS, SECONDS, RATE, SIDE = 200, 1200, 25, 256


def prepare(inputs: Path, people: int) -> None:
    """Encode a texture that moves, and list the clips."""
    import av
    import numpy as np

    inputs.mkdir(parents=True)
    ground = np.random.default_rng(0).integers(60, 200, (SIDE // 8, SIDE // 8), np.uint8).repeat(8, 0).repeat(8, 1)
    with av.open(str(inputs / "long.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"preset": "veryfast"})
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        for number in range(SECONDS * RATE):
            picture = np.roll(ground, (number // 5 % SIDE, number // 3 % SIDE), axis=(0, 1))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "gray8")))
        container.mux(stream.encode())
    step = SECONDS * RATE // CLIPS
    rows = [f"c{n:03d},long.mp4,{n * step + 50},{n * step + 58},{n * step + 66},s,d,l,25" for n in range(CLIPS)]
    text = "\n".join(["clip_id,path,onset,apex,offset,subject,dataset,label,fps", *rows, ""])
    (inputs / "manifest.csv").write_text(text, encoding="utf-8")


def run(inputs: Path, scratch: Path) -> Figures:
    """Extract, without alignment: the frames are square."""
    words = ("--align", "none", "--size", 64, "--workers", 1, "--threads", 1, "--backend", "cpu", "--json")
    words = (*words, "--stabilise", "none", "--max-error-rate", 1)
    summary = json.loads(command("flowkit.cli", "extract", inputs / "manifest.csv", "--out", scratch / "out", *words))
    if summary["failed"]:
        raise SystemExit(f"extract: every clip must succeed; got {summary['failed']} that failed.")
    return {"read s": summary["stage_seconds"]["read"], "whole run s": summary["seconds"]}


if __name__ == "__main__":
    main(prepare, run, repeat=False)
