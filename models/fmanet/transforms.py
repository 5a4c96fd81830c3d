"""What may be done to flow without making it a lie: mirror, turn, scale, shift, and errors such as real flow has.

Flow is not a picture. Where a field is mirrored, u changes its sign; where it is turned or scaled, its vectors are too; colours
do not exist. What comes from outside the image is zero, an invalid phase stays exactly zero, and the region goes along.

Random numbers. `draw` gives one row of numbers a clip, always as many whatever the settings, and row i is the same however many
are drawn. So a generator's state decides how the i-th clip of a call is changed, whoever its neighbours are. Where the order of
a batch must not matter either, draw once for all clips and hand `transform` the rows of a batch.

Every function also takes arrays with further leading axes, such as (folds, B, ...).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as nnf
from torch import Tensor

from flowkit.storage.schema import ACTION_UNITS
from fmanet.settings import AugmentSettings

MIRRORED = [ACTION_UNITS.index(name[:-1] + {"L": "R", "R": "L"}.get(name[-1], name[-1])) for name in ACTION_UNITS]
"""Where the same action unit of the other side stands."""
DRAWS = 11
"""Random numbers a clip: flip, angle, scale, shift (x, y), gain (rise, fall), drift (rise u, v, fall u, v)."""


def draw(count: int, generator: torch.Generator) -> Tensor:
    """Random numbers for so many clips.

    Returns
    -------
    (count, DRAWS) float32
        From 0 up to 1, on the generator's device.
    """
    return torch.rand(count, DRAWS, generator=generator, device=generator.device)


def transform(
    flow: Tensor, valid: Tensor, region: Tensor, draws: Tensor, settings: AugmentSettings
) -> tuple[Tensor, Tensor, Tensor]:
    """Clips, changed as their random numbers say: gain and drift first, then the mirror, then angle, size and place.

    Parameters
    ----------
    flow : (..., 2, 2, H, W) float
        Phases rise and fall, components u and v.
    valid : (..., 2) bool
    region : (..., H, W) bool
        Inside the face.
    settings : AugmentSettings
    draws : (..., DRAWS) float
        From `draw`; one row a clip.

    Returns
    -------
    tuple of Tensor
        flow, valid and region.
    """
    draws = draws.to(flow)
    around = 2 * draws - 1
    changed = flow
    if settings.gain:
        changed = changed * (1 + settings.gain * around[..., 5:7, None, None, None])
    if settings.drift:
        changed = changed + settings.drift * around[..., 7:11].reshape(*valid.shape, 2, 1, 1)
    if settings.flip:
        chosen = draws[..., 0] < settings.flip
        mirrored, mirrored_region = flipped(changed, region)
        changed = torch.where(chosen[..., None, None, None, None], mirrored, changed)
        region = torch.where(chosen[..., None, None], mirrored_region, region)
    if settings.rotation_deg or settings.scale or settings.translation_px:
        angle = math.radians(settings.rotation_deg) * around[..., 1]
        changed, region = moved(
            changed, region, angle, 1 + settings.scale * around[..., 2], settings.translation_px * around[..., 3:5]
        )
    if changed is not flow:
        changed = torch.where(
            valid[..., None, None, None], changed, torch.zeros((), dtype=flow.dtype, device=flow.device)
        )
    return changed, valid, region


def flipped(flow: Tensor, region: Tensor) -> tuple[Tensor, Tensor]:
    """Flow and region in a mirror: left and right change places, and u its sign.

    Parameters
    ----------
    flow : (..., 2, 2, H, W) float
    region : (..., H, W) bool

    Returns
    -------
    tuple of Tensor
        Twice is the identity, bit for bit.
    """
    mirrored = flow.flip(-1)
    return torch.stack([-mirrored[..., 0, :, :], mirrored[..., 1, :, :]], dim=-3), region.flip(-1)


def flip(flow: Tensor, valid: Tensor, region: Tensor, *action_units: Tensor) -> tuple[Tensor, ...]:
    """What a network takes, in a mirror: predictions are averaged over a clip and this. Action units, (..., U), change sides."""
    mirrored, mirrored_region = flipped(flow, region)
    return mirrored, valid, mirrored_region, *(one[..., MIRRORED] for one in action_units)


def transform_units(action_units: Tensor, draws: Tensor, settings: AugmentSettings) -> Tensor:
    """Strengths of action units, (..., 2, U), changed as `transform` changes the flow: mirrored where the flow is."""
    chosen = draws[..., 0].to(action_units) < settings.flip
    return torch.where(chosen[..., None, None], action_units[..., MIRRORED], action_units)


def moved(flow: Tensor, region: Tensor, angle: Tensor, scale: Tensor, shift_px: Tensor) -> tuple[Tensor, Tensor]:
    """Flow and region turned and scaled about the middle of the image, then shifted; vectors are turned and scaled too.

    Parameters
    ----------
    flow : (..., 2, 2, H, W) float
        Sampled bilinearly; 0 outside.
    region : (..., H, W) bool
        The nearest pixel's; False outside.
    angle : (...) float
        Radians, from right to down: clockwise as one sees it.
    scale : (...) float
        Above 1: larger.
    shift_px : (..., 2) float
        To the right, and down.

    Returns
    -------
    tuple of Tensor
    """
    height, width = flow.shape[-2:]
    cos, sin = scale * torch.cos(angle), scale * torch.sin(angle)
    grid = _sources(cos, sin, shift_px, height, width).reshape(-1, height, width, 2)
    planes = flow.reshape(-1, 4, height, width)
    sampled = nnf.grid_sample(planes, grid, padding_mode="zeros", align_corners=False).reshape(flow.shape)
    u, v = sampled.unbind(-3)
    cos, sin = cos[..., None, None, None], sin[..., None, None, None]
    turned = torch.stack([cos * u - sin * v, sin * u + cos * v], -3)
    inside = region.reshape(-1, 1, height, width).to(flow.dtype)
    taken = nnf.grid_sample(inside, grid, mode="nearest", padding_mode="zeros", align_corners=False)
    return turned, (taken > 0.5).reshape(region.shape)


def _sources(cos: Tensor, sin: Tensor, shift_px: Tensor, height: int, width: int) -> Tensor:
    """(..., H, W, 2): for each pixel the place it comes from, as `grid_sample` counts: -1 to 1 from edge to edge.

    `cos` and `sin` are multiplied by the scale.
    """
    dx, dy = shift_px[..., None, None, :].unbind(-1)
    x = torch.arange(width, dtype=cos.dtype, device=cos.device) - (width - 1) / 2 - dx  # (..., 1, W)
    y = torch.arange(height, dtype=cos.dtype, device=cos.device)[:, None] - (height - 1) / 2 - dy  # (..., H, 1)
    area = (cos**2 + sin**2)[..., None, None]
    cos, sin = cos[..., None, None] / area, sin[..., None, None] / area
    return torch.stack([(cos * x + sin * y) * (2 / width), (cos * y - sin * x) * (2 / height)], -1)
