"""Flow and MM-COF as pictures for people, and as PNG files.

A flow picture follows the colour code of Baker et al., "A Database and Evaluation Methodology for Optical Flow" (IJCV 2011),
which most optical flow papers use: the hue is the direction, the saturation the magnitude, and white is no motion. An MM-COF
picture is HSV with H = direction, S = 1, V = M', so there black is no motion. In both, red points right, and the hues go on
clockwise as one sees the picture: to yellow or green (down), to cyan (left), and back through blue or violet (up).
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from flowkit.storage.schema import FACE

RGB = npt.NDArray[np.uint8]
"""(H, W, 3)."""

_ARCS = (15, 6, 4, 11, 13, 6)
"""Steps of Baker's wheel from red to yellow, green, cyan, blue, magenta and back to red; the sum is one turn.

The published table stops one step short of a turn and so jumps at red; closing it shifts colours by 15 of 255 at most."""
_ARC_ENDS = np.concatenate([[0], np.cumsum(_ARCS)]) / sum(_ARCS)
_ARC_COLOURS = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1], [1, 0, 1], [1, 0, 0]], np.float64)
_BEYOND_SCALE = 0.75
_OUTLINE_GREY = 128
_SEPARATOR_PX = 2


def flow_picture(flow: npt.NDArray[np.floating[Any]], scale_px: float) -> RGB:
    """Direction as hue, magnitude as saturation.

    Parameters
    ----------
    flow : (2, H, W) float
        u (right) and v (down), in pixels.
    scale_px : float
        Magnitude of full saturation, above 0; what exceeds it is darkened. Up: paler.

    Returns
    -------
    (H, W, 3) uint8
        White where nothing moves.
    """
    u, v = flow.astype(np.float64)
    magnitude = np.hypot(u, v)[..., None] / scale_px
    pale = 1 - np.minimum(magnitude, 1) * (1 - _baker_hue(_turns(u, v)))
    return _bytes(np.where(magnitude > 1, pale * _BEYOND_SCALE, pale))


def mmcof_picture(mmcof: npt.NDArray[np.floating[Any]]) -> RGB:
    """HSV with H = direction, S = 1, V = M'.

    Parameters
    ----------
    mmcof : (3, H, W) float
        M' cos a, M' sin a, M'.

    Returns
    -------
    (H, W, 3) uint8
        Black where nothing moves.
    """
    x, y, value = mmcof.astype(np.float64)
    return _bytes(value[..., None] * _hsv_hue(_turns(x, y)))


def colour_wheel(side: int) -> RGB:
    """Legend of `flow_picture`, made by it: each point of the disc shows the flow that leads there from the centre.

    Parameters
    ----------
    side : int
        In pixels; the rim of the disc stands for `scale_px`.

    Returns
    -------
    (side, side, 3) uint8
        White outside the disc.
    """
    flow = _outward(side)
    return flow_picture(np.where(np.hypot(*flow) <= 1, flow, 0), 1.0)


def mmcof_wheel(side: int) -> RGB:
    """Legend of `mmcof_picture`, made by it: direction around, M' from 0 in the centre to 1 at the rim.

    Parameters
    ----------
    side : int
        In pixels.

    Returns
    -------
    (side, side, 3) uint8
        Black outside the disc.
    """
    flow = _outward(side)
    inside = np.where(np.hypot(*flow) <= 1, flow, 0)
    return mmcof_picture(np.stack([*inside, np.hypot(*inside)]))


def clip_panels(sample: Mapping[str, Any], scale_px: float) -> dict[str, RGB]:
    """Pictures of one clip by name, in the order in which they are read.

    Parameters
    ----------
    sample : mapping
        `flow`, `mmcof`, `regions` and, where the shard keeps them, `faces`: the columns of one clip.
    scale_px : float
        As for `flow_picture`.

    Returns
    -------
    dict of str to (N, N, 3) uint8
        onset, apex and offset (if there are faces), rise, fall, mmcof; on the last three a grey line runs round the face.
    """
    panels: dict[str, RGB] = {}
    if "faces" in sample:
        for name, face in zip(("onset", "apex", "offset"), sample["faces"], strict=True):
            panels[name] = _grey(face)
    rise, fall = sample["flow"]
    for name, picture in (
        ("rise", flow_picture(rise, scale_px)),
        ("fall", flow_picture(fall, scale_px)),
        ("mmcof", mmcof_picture(sample["mmcof"])),
    ):
        panels[name] = _outlined(picture, sample["regions"])
    return panels


def head_panels(motion: npt.NDArray[Any], regions: npt.NDArray[np.uint8], scale_px: float) -> tuple[RGB, RGB]:
    """Return pictures of the head's motion that was taken out of rise and fall.

    Parameters
    ----------
    motion : (2, 2, N, N)
        Rise and fall of the head, (u, v) in px: what was undone in the pictures and what was subtracted from the flow.
    regions : (N, N) uint8
        As a shard holds them.
    scale_px : float
        As for `flow_picture`.

    Returns
    -------
    two (N, N, 3) uint8
        A grey line runs round the face; white outside it.
    """
    inside = motion * ((regions & FACE) > 0)
    rise, fall = (_outlined(flow_picture(phase, scale_px), regions) for phase in inside)
    return rise, fall


def clip_strip(sample: Mapping[str, Any], scale_px: float) -> RGB:
    """The panels of one clip side by side, as one picture.

    Parameters
    ----------
    sample, scale_px
        As for `clip_panels`.

    Returns
    -------
    (N, M, 3) uint8
    """
    panels = list(clip_panels(sample, scale_px).values())
    separator = np.full((len(panels[0]), _SEPARATOR_PX, 3), _OUTLINE_GREY, np.uint8)
    row = [part for panel in panels for part in (separator, panel)]
    return np.hstack(row[1:])


def png_bytes(rgb: RGB) -> bytes:
    """A PNG file without metadata; the same picture gives the same bytes.

    Parameters
    ----------
    rgb : (H, W, 3) uint8
    """
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "PNG")
    return file.getvalue()


def data_uri(png: bytes) -> str:
    """A PNG file as text that a page can hold in place of an address."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _turns(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Direction in turns: 0 right, 0.25 down."""
    return np.arctan2(y, x) / (2 * np.pi) % 1


def _baker_hue(turns: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Full colour, (H, W, 3): the eye tells hues apart unevenly, so the arcs of Baker's wheel are uneven too."""
    return np.stack([np.interp(turns, _ARC_ENDS, channel) for channel in _ARC_COLOURS.T], axis=-1)


def _hsv_hue(turns: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Full colour, (H, W, 3), with the six arcs of HSV, all of one length."""
    return np.stack([np.interp(turns * 6, range(7), channel) for channel in _ARC_COLOURS.T], axis=-1)


def _outward(side: int) -> npt.NDArray[np.float64]:
    """(2, side, side): each pixel's offset from the centre, 1 at the middle of an edge."""
    axis = np.linspace(-1, 1, side)
    return np.stack(np.meshgrid(axis, axis))


def _outlined(picture: RGB, regions: npt.NDArray[np.uint8]) -> RGB:
    """A picture with a line one pixel wide along the inner rim of the face."""
    face = (regions & FACE) > 0
    around = np.pad(face, 1)
    inner = around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    return np.where((face & ~inner)[..., None], np.uint8(_OUTLINE_GREY), picture)


def _grey(values: npt.NDArray[np.floating[Any]]) -> RGB:
    return _bytes(np.repeat(values.astype(np.float64)[..., None], 3, axis=-1))


def _bytes(values: npt.NDArray[np.float64]) -> RGB:
    return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
