"""Flow as networks see it: carried onto the canonical face where a clip has landmarks, and brought to their size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as nnf
from torch import Tensor

from flowkit.face.canonical_face import can_be_carried, canonical_flow

Units = Literal["px", "minmax"]


def seen_flow(
    flow: Tensor,
    region: Tensor,
    places: Sequence[tuple[npt.NDArray[Any], npt.NDArray[Any]]] | None,
    size: int,
    units: Units,
) -> tuple[Tensor, Tensor, list[bool]]:
    """Return flow and region as networks see them, and which clips were carried onto the canonical face.

    Parameters
    ----------
    flow : (N, 2, 2, H, H) float32
    region : (N, H, H) bool
    places : sequence of (landmarks, transform), optional
        Of each clip, as `canonical_flow` takes them; clips without landmarks stay on their own face, and so do all without places.
    size : int
    units : {"px", "minmax"}
    """
    moved, inside = resized(flow, region, size, units)
    known = list(places or ())
    carried = [can_be_carried(*own) for own in known] or [False] * len(flow)
    scale = size / flow.shape[-1] if units == "px" else 1.0
    for row in np.flatnonzero(carried):
        landmarks, transform = known[row]
        own, share = canonical_flow(flow[row].numpy(), region[row].numpy(), landmarks, transform, size)
        moved[row], inside[row] = torch.from_numpy(own) * scale, torch.from_numpy(share >= 0.5)
    return moved, inside, carried


def resized(flow: Tensor, region: Tensor, size: int, units: Units) -> tuple[Tensor, Tensor]:
    """Flow and region at another size.

    Parameters
    ----------
    flow : (N, 2, 2, H, H) float
        Area means where it shrinks, bilinear where it grows; vectors in pixels shrink or grow as much.
    region : (N, H, H) bool
        Where most of a new pixel's area, or of what it is interpolated from, lies inside.
    size : int
    units : {"px", "minmax"}

    Returns
    -------
    tuple of Tensor
    """
    side = flow.shape[-1]
    if side == size:
        return flow, region
    planes = torch.cat([flow.flatten(1, 2), region[:, None].to(flow.dtype)], 1)
    if size < side:
        planes = nnf.interpolate(planes, (size, size), mode="area")
    else:
        planes = nnf.interpolate(planes, (size, size), mode="bilinear", align_corners=False)
    moved = planes[:, :4].reshape(-1, 2, 2, size, size)
    return (moved * (size / side) if units == "px" else moved), planes[:, 4] >= 0.5
