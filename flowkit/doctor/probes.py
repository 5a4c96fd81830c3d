"""Small tasks that `flowkit doctor` carries out.

They find what a look at versions cannot: a package that is installed, is imported, and no longer does what extraction asks of
it. Each function takes a folder for its files and returns what it saw. It raises whatever the package raises.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from flowkit.config import ExtractConfig
from flowkit.errors import FlowkitError

SIDE = 64
"""Side of the pictures, in pixels: small, and above the smallest frame that extraction accepts."""
CONTAINERS = (("video.mkv", "ffv1", "gray"), ("video.avi", "ffv1", "gray"), ("video.mp4", "mpeg4", "yuv420p"))
"""File, encoder and pixel format."""
LOSS = 8.0
"""Largest mean difference of a frame, in grey levels: less than half of what tells two frames apart."""


class ProbeFailed(FlowkitError):
    """A package ran without an error and gave a wrong answer."""


def image(folder: Path) -> str:
    """Write one still image, and read it as extraction does."""
    from PIL import Image

    from flowkit.inputs.images import decode_image

    pixels = _square(8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    path = folder / "image.png"
    path.write_bytes(file.getvalue())
    found = decode_image(path.read_bytes(), path.name).pixels
    if not np.array_equal(np.squeeze(found), pixels):
        raise ProbeFailed(f"{path}: the image does not read back as written. Reinstall Pillow.")
    return "a PNG reads back as written"


def video(folder: Path) -> str:
    """Write a short video into each kind of container with encoders that every FFmpeg has, and read its frames by number."""
    import av

    from flowkit.inputs.videos import read_footage

    frames = [_square(8 * number) for number in range(4)]
    for name, codec, pixels in CONTAINERS:
        with av.open(str(folder / name), "w") as container:
            stream = cast(av.VideoStream, container.add_stream(codec, rate=25))
            stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, pixels
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "gray")))
            container.mux(stream.encode())
        for number, picture in zip((3, 0), read_footage(folder / name, (3, 0), name).pictures, strict=True):
            if np.abs(picture.pixels[..., 0].astype(float) - frames[number]).mean() > LOSS:
                raise ProbeFailed(f"{name}: frame {number} does not read back as written. Reinstall av.")
    return f"{', '.join(name.rpartition('.')[2] for name, *_ in CONTAINERS)} give the frames that are asked for"


def kernels(folder: Path) -> str:
    """Run one pair whose motion is known through TV-L1, and its flow through MM-COF."""
    import flowkit_kernels

    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    reference = (0.5 + 0.25 * np.sin(x / 3) + 0.2 * np.cos(y / 4))[None]
    moving = (0.5 + 0.25 * np.sin((x - 1) / 3) + 0.2 * np.cos(y / 4))[None]
    backend = flowkit_kernels.resolve_backend("auto")
    flow = flowkit_kernels.tvl1_flow(reference, moving, backend=backend)
    inside = np.median(np.asarray(flow)[0, :, 8:-8, 8:-8], axis=(1, 2))
    if not np.allclose(inside, (1, 0), atol=0.2):
        raise ProbeFailed(
            f"kernels: a pair that moves by (1, 0) px has a flow of ({inside[0]:.2f}, {inside[1]:.2f}) px on the backend "
            f"{backend}. Please report this with what flowkit doctor --json prints."
        )
    both = np.stack([flow, -np.asarray(flow)], axis=1)
    if not np.isfinite(flowkit_kernels.mmcof(both, backend=backend)).all():
        raise ProbeFailed(
            f"kernels: MM-COF is not finite on the backend {backend}. Please report this with what flowkit doctor --json prints."
        )
    return f"TV-L1 and MM-COF on {backend}: a motion of 1 px is found as {inside[0]:.2f} px"


def shard(folder: Path) -> str:
    """Make one shard of one clip, write it durably, and read it back."""
    from flowkit.storage import durable_files
    from flowkit.storage.schema import COLUMNS, SIZE, TEXT
    from flowkit.storage.shard_writer import shard_image

    side = 16
    settings = ExtractConfig().to_dict()
    settings["align"]["size"] = side
    sample = {
        column.name: "doctor"
        if column.dtype == TEXT
        else np.zeros([side if n == SIZE else n for n in column.shape], column.dtype)
        for column in COLUMNS
    }
    content = shard_image([sample], settings)  # compares with what it was given
    path = folder / "shard.h5"
    durable_files.publish_file(path, content)
    if path.read_bytes() != content:
        raise ProbeFailed(f"{path}: the file does not read back as written. Check the disk.")
    return f"a shard of {len(content)} bytes is written and reads back"


def _square(left: int) -> npt.NDArray[np.uint8]:
    """Return a picture of a bright square that begins at column `left`."""
    pixels = np.full((SIDE, SIDE), 40, np.uint8)
    pixels[16:48, left : left + 32] = 200
    return pixels
