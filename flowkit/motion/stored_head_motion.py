"""The motion of the head that was taken out of a stored clip, computed again from the columns of its shard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from flowkit.face.head_motion import Array, Flow, motion_of
from flowkit.face.head_shape import NOMINAL_PX, HeadShape
from flowkit.face.head_tracking import turned
from flowkit.face.transforms import Transform, mapped


@dataclass(frozen=True, slots=True, eq=False)
class RemovedMotion:
    """Motion of the head in rise and fall, px of the crop, on the grid of the onset; zero where a phase is not valid.

    Attributes
    ----------
    undone : (2, 2, N, N) float32
        What was undone in the pictures before flow was computed.
    subtracted : (2, 2, N, N) float32
        What was subtracted from the flow: stored flow + `subtracted` is the flow as the solver gave it.
    """

    undone: Flow
    subtracted: Flow


def removed_motion(sample: Mapping[str, Any]) -> RemovedMotion | None:
    """Compute the motion of the head that was taken out of a clip.

    Parameters
    ----------
    sample : mapping
        All columns of one clip, as a shard holds them.

    Returns
    -------
    RemovedMotion or None
        None where head and expression were not told apart: in shards of version 0.1, in imported ones, and with other values of
        `align.stabilise` than "head".
    """
    if not np.isfinite(sample.get("separation", np.nan)).any():
        return None
    size = sample["flow"].shape[-1]
    pictured, found = np.asarray(sample["depth"], np.float64)
    shape = HeadShape.of(sample["landmarks"], sample["transform"], size).corrected(pictured)
    undone, removed = np.radians(sample["turn"]), np.radians(sample["removed_turn"])
    pose = np.stack([_pose(*numbers, shape, size) for numbers in zip(sample["removed"], removed, strict=True)])
    turn = np.diff(undone, axis=0, prepend=0) + removed
    there = [turned(shape, np.zeros(2), size)]
    there += [
        mapped(*moved) for moved in zip(sample["registration"], (turned(shape, t, size) for t in undone), strict=True)
    ]
    valid = np.reshape(sample["phase_valid"], (2, 1, 1, 1))
    return RemovedMotion(np.diff(np.stack(there), axis=0) * valid, motion_of(pose, turn, found, shape, size) * valid)


def _pose(similarity: Transform, turn: Array, shape: HeadShape, size: int) -> npt.NDArray[np.float64]:
    """A pose (6,) from what `similarity_of` made of its first four numbers, and its yaw and pitch."""
    scale = size / NOMINAL_PX
    linear = similarity[:, :2]
    shift = similarity[:, 2] + linear @ ((shape.centre + 0.5) * scale - 0.5)
    return np.array([*shift / scale, linear[1, 0], linear[0, 0], *turn])
