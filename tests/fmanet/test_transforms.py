"""Transforms know what flow is: vectors go along with the field."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from flowkit.errors import ConfigError
from flowkit.storage.schema import ACTION_UNITS
from fmanet.settings import AugmentSettings
from fmanet.transforms import DRAWS, draw, flip, flipped, moved, transform, transform_units

NOTHING = AugmentSettings(0, 0, 0, 0, 0, 0)
STRONG = AugmentSettings(flip=0.5, rotation_deg=40, scale=0.3, translation_px=4, gain=0.5, drift=0.3)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def augment(
    flow: Tensor, valid: Tensor, region: Tensor, generator: torch.Generator, settings: AugmentSettings
) -> tuple[Tensor, Tensor, Tensor]:
    """Clips, changed at random: clip i by the i-th row of numbers drawn from the generator."""
    draws = draw(valid.shape[:-1].numel(), generator).reshape(*valid.shape[:-1], DRAWS)
    return transform(flow, valid, region, draws, settings)


def clips(count: int = 6, height: int = 28, width: int = 28) -> tuple[Tensor, Tensor, Tensor]:
    """Flow with an invalid fall in the first clip and an invalid rise in the second; half of the image is face."""
    flow = torch.randn(count, 2, 2, height, width, generator=seeded(7))
    valid = torch.ones(count, 2, dtype=torch.bool)
    valid[0, 1] = valid[1, 0] = False
    flow[~valid] = 0
    region = torch.rand(count, height, width, generator=seeded(8)) < 0.5
    return flow, valid, region


def coordinates(size: int) -> tuple[Tensor, Tensor]:
    """X and y of each pixel, from the middle."""
    axis = torch.arange(size) - (size - 1) / 2
    return axis.expand(size, size), axis[:, None].expand(size, size)


def test_flipping_mirrors_x_negates_u_and_twice_is_the_identity() -> None:
    flow, valid, region = clips(width=20)
    mirrored, mirrored_region = flipped(flow, region)
    assert torch.equal(mirrored[:, :, 0, :, 3], -flow[:, :, 0, :, 16])
    assert torch.equal(mirrored[:, :, 1, :, 3], flow[:, :, 1, :, 16])
    assert torch.equal(mirrored_region[..., 3], region[..., 16])
    again, region_again = flipped(mirrored, mirrored_region)
    assert torch.equal(again, flow)
    assert torch.equal(region_again, region)
    assert all(map(torch.equal, flip(flow, valid, region), (mirrored, valid, mirrored_region)))


def test_action_units_change_sides_where_the_flow_is_mirrored() -> None:
    flow, valid, region = clips(20)
    units = torch.randn(len(flow), 2, len(ACTION_UNITS), generator=seeded())
    *_, mirrored = flip(flow, valid, region, units)
    for own, other in (("1L", "1R"), ("45R", "45L"), ("17B", "17B"), ("26B", "26B")):
        assert torch.equal(mirrored[..., ACTION_UNITS.index(own)], units[..., ACTION_UNITS.index(other)])
    assert torch.equal(flip(flow, valid, region, mirrored)[3], units)
    half = AugmentSettings(flip=0.5, rotation_deg=0, scale=0, translation_px=0, gain=0, drift=0)
    draws = draw(len(flow), seeded())
    changed, _, _ = transform(flow, valid, region, draws, half)
    turned = (changed != flow).flatten(1).any(1)
    assert 0 < turned.sum() < len(flow)
    assert torch.equal(transform_units(units, draws, half), torch.where(turned[:, None, None], mirrored, units))
    assert torch.equal(transform_units(units, draws, NOTHING), units)


def test_zero_settings_return_the_input_bits() -> None:
    given = clips()
    given[0][2, 0, 0, 0, 0] = -0.0
    found = augment(*given, seeded(), NOTHING)
    assert all(map(torch.equal, found, given))
    assert torch.equal(torch.signbit(found[0]), torch.signbit(given[0]))


@pytest.mark.parametrize("size", [9, 28])
def test_turning_by_90_degrees_is_rot90_with_turned_vectors(size: int) -> None:
    flow, _, region = clips(height=size, width=size)
    count = len(flow)
    turned, turned_region = moved(
        flow, region, torch.full((count,), -math.pi / 2), torch.ones(count), torch.zeros(count, 2)
    )
    u, v = torch.rot90(flow, 1, (-2, -1)).unbind(2)  # against the clock: right becomes up
    assert torch.allclose(turned, torch.stack([v, -u], 2), atol=1e-4)
    assert torch.equal(turned_region, torch.rot90(region, 1, (-2, -1)))


def test_a_uniform_expansion_looks_the_same_at_every_size_and_angle() -> None:
    """It stretches by the same share everywhere, so its vectors must grow with the field."""
    x, y = coordinates(41)
    flow = 0.1 * torch.stack([x, y]).expand(3, 2, 2, 41, 41)
    found, _ = moved(
        flow,
        torch.ones(3, 41, 41).bool(),
        torch.tensor([0.0, 0.3, -1.0]),
        torch.tensor([1.3, 0.8, 1.1]),
        torch.zeros(3, 2),
    )
    inside = (slice(None), slice(None), slice(None), slice(12, -12), slice(12, -12))
    assert torch.allclose(found[inside], flow[inside], atol=1e-5)


def test_a_whole_shift_moves_pixels_and_leaves_zeros_behind() -> None:
    flow, _, region = clips(height=12, width=16)
    count = len(flow)
    found, found_region = moved(
        flow, region, torch.zeros(count), torch.ones(count), torch.tensor([3.0, -2.0]).expand(count, 2)
    )
    assert torch.allclose(found[..., :-2, 3:], flow[..., 2:, :-3], atol=1e-5)
    assert torch.equal(found_region[..., :-2, 3:], region[..., 2:, :-3])
    assert found[..., -2:, :].abs().max() < 1e-5
    assert found[..., :3].abs().max() < 1e-5
    assert not found_region[..., :2].any()


def test_gain_scales_each_phase_and_drift_adds_a_constant_to_each_component() -> None:
    flow, valid, region = clips()
    there = valid[..., None, None, None].expand_as(flow)
    gained = augment(flow, valid, region, seeded(), AugmentSettings(0, 0, 0, 0, 0.5, 0))[0]
    factor = (gained / flow).nan_to_num(1.0)
    assert torch.allclose(factor, factor[..., :1, :1, :1].expand_as(factor), atol=1e-5)
    assert 0.5 <= factor.min() < 0.9 < 1.1 < factor.max() <= 1.5
    drifted = augment(flow, valid, region, seeded(), AugmentSettings(0, 0, 0, 0, 0, 0.3))[0] - flow
    assert torch.allclose(drifted, drifted[..., :1, :1].expand_as(drifted), atol=1e-5)
    assert drifted[there].abs().max() <= 0.3 + 1e-5
    assert len(drifted[..., 0, 0].round(decimals=4).unique()) > 15


def test_strong_changes_keep_invalid_phases_exactly_zero_and_clips_finite() -> None:
    flow, valid, region = clips()
    changed, still_valid, changed_region = augment(flow, valid, region, seeded(), STRONG)
    assert not changed[~valid].any()
    assert not torch.signbit(changed[~valid]).any()
    assert torch.equal(valid, still_valid)
    assert changed.isfinite().all()
    assert changed_region.dtype == torch.bool
    assert (changed - flow).abs().amax((1, 2, 3, 4)).min() > 0.1


def test_the_same_state_changes_clip_i_the_same_way_whatever_follows_it() -> None:
    given = clips(8)
    whole = augment(*given, seeded(3), STRONG)
    part = augment(*(one[:3] for one in given), seeded(3), STRONG)
    for one, other in zip(whole, part, strict=True):
        assert torch.equal(one[:3], other)
    assert not torch.equal(augment(*given, seeded(4), STRONG)[0], whole[0])


def test_numbers_drawn_once_for_all_make_the_order_of_a_batch_irrelevant() -> None:
    flow, valid, region = clips(8)
    draws = draw(8, seeded(5))
    assert draws.shape == (8, DRAWS)
    order = torch.tensor([5, 0, 7, 2])
    whole = transform(flow, valid, region, draws, STRONG)
    batch = transform(flow[order], valid[order], region[order], draws[order], STRONG)
    for one, other in zip(whole, batch, strict=True):
        assert torch.equal(one[order], other)


def test_folds_as_a_leading_axis_give_what_each_fold_gives_alone() -> None:
    flow, valid, region = clips(6)
    folded = [one.reshape(2, 3, *one.shape[1:]) for one in (flow, valid, region)]
    together = augment(*folded, seeded(1), STRONG)  # type: ignore[arg-type]
    alone = augment(flow, valid, region, seeded(1), STRONG)
    for one, other in zip(together, alone, strict=True):
        assert torch.equal(one.flatten(0, 1), other)


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"augment\.flip must be a number from 0 to 1; got 2(.|\n)*augment\.gain"):
        AugmentSettings(flip=2, gain=float("nan"))
