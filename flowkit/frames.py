"""The three key frames of a clip, read from a folder of images or from a video, and verified."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flowkit.manifest import Clip, KeyFrames

MIN_SIDE = 32
"""Frames with a shorter side fail with IMAGE_TOO_SMALL: TV-L1 returns nonsense below it."""
MAX_PIXELS = 50_000_000
"""Images with more fail with IMAGE_TOO_LARGE before they are decoded."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a clip came from: everything known of it but its pixels.

    Attributes
    ----------
    clip : Clip
    key : KeyFrames
    fps : float
        Frames per second: the manifest's, else the video's, else NaN.
    source_hash : str
        32 hex digits (xxh3-128) over the bytes of the files read: the three images in order, or the video.
    rotated : bool
        Whether EXIF or video metadata asked for a rotation or mirroring, which was applied.
    substituted : bool
        Whether a missing frame was replaced by the nearest (`frames.nearest`).
    """

    clip: Clip
    key: KeyFrames
    fps: float
    source_hash: str
    rotated: bool
    substituted: bool


@dataclass(frozen=True, slots=True)
class Frames:
    """Onset, apex and offset of one clip, as read.

    Attributes
    ----------
    source : Source
    grey : tuple of three (H, W) float32 in [0, 1]
        Luma (BT.601) of onset, apex, offset; sizes may differ; the apex once more where the offset is missing.
    onset_rgb : (H, W, 3) uint8
        What a face detector looks at.
    """

    source: Source
    grey: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]
    onset_rgb: npt.NDArray[np.uint8]
