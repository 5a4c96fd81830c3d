"""A run says once, by each reason, that videos had to be decoded from the first frame on."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from flowkit import RunOptions, extract, load_config
from flowkit.execution.progress import Silent
from flowkit.inputs.frames import FAR

CONFIG = load_config(None, align__method="none", align__size=64, align__stabilise="none", backend="cpu")


class Notes(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


def video(path: Path, codec: str) -> None:
    """Noise that moves by a pixel per frame, a few frames longer than is far."""
    ground = np.random.default_rng(0).integers(60, 200, (16, 16), np.uint8).repeat(4, 0).repeat(4, 1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for number in range(FAR + 12):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.roll(ground, number, axis=1), "gray8")))
        container.mux(stream.encode())


@pytest.mark.parametrize(("codec", "onset", "notes"), [("mpeg4", FAR, 1), ("mpeg4", 5, 0), ("libx264", FAR, 0)])
def test_decoding_from_the_first_frame_on_is_noted_where_it_costs_much(
    tmp_path: Path, codec: str, onset: int, notes: int
) -> None:
    rows = []
    for name in ("a.avi", "b.avi") if codec == "mpeg4" else ("a.mp4", "b.mp4"):
        video(tmp_path / name, codec)
        rows += [f"{name}{n},{name},{onset + n},{onset + n + 2},{onset + n + 4},s,d,l" for n in (0, 3)]
    text = "\n".join(["clip_id,path,onset,apex,offset,subject,dataset,label", *rows, ""])
    (tmp_path / "clips.csv").write_text(text)
    said = Notes()
    summary = extract(tmp_path / "clips.csv", tmp_path / "out", CONFIG, RunOptions(workers=2), reporter=said)
    assert (summary.ok, summary.failed) == (4, 0)
    found = [note for note in said.said if "where its frames lie is not certain" in note]
    assert len(found) == notes
    assert all("the codec mpeg4 does not tell where decoding may start" in note for note in found)
