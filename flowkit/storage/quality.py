"""Notes on a clip's quality: bits that never fail it, stored in the column `qc`, for a trainer to filter by."""

from __future__ import annotations

from enum import IntFlag


class Flag(IntFlag):
    """One bit a note."""

    ZERO_MOTION = 1  # a valid phase in which nothing at all moves: the same frame twice, a frozen video
    BLANK = 2  # a frame without texture
    RESIDUAL = 4  # `residual` above its limit: head motion was left, or something moved that the fit knows nothing of
    MANY_FACES = 8  # several faces in the onset; the largest was taken
    ROTATED = 16  # EXIF or video metadata asked for a rotation, which was applied
    NEAREST = 32  # a missing frame was replaced by its nearest neighbour
    TURNED = 64  # the head turned by more than TURN_LIMIT_DEG (yaw or pitch) between the onset and another frame
    LANDMARK_START = 128  # registration of a frame started from that frame's own landmarks
    UNCERTAIN = 256  # head and expression could hardly be told apart: `separation` above SEPARATION_LIMIT_PX
    DARK = 512  # too little contrast beside the noise for the length of the flow to be trusted
    NEIGHBOURS = 1024  # a frame beside a key frame was there and was not averaged with it: unreadable, the same, or too different


RESIDUAL_LIMIT_PX, EXPLAINED_LIMIT_PX = 1.0, 0.3
"""Of the flow on the still part of the face; and, where head and expression were told apart, of what neither explains."""
TURN_LIMIT_DEG = 5.0
SEPARATION_LIMIT_PX = 0.3
BLANK_STD = 1 / 255
"""Grey standard deviation inside the face below which a frame counts as blank."""


def residual_limit_px(stabilise: str) -> float:
    """Return the residual above which a clip is noted, for a value of `align.stabilise`."""
    return EXPLAINED_LIMIT_PX if stabilise == "head" else RESIDUAL_LIMIT_PX


def names(flags: int) -> list[str]:
    """Names of the bits that are set."""
    return [flag.name or "" for flag in Flag if flags & flag]
