"""FMANet: its hand-set start is MM-COF, invalid phases stay out, slopes are finite, and it is the same wherever it runs."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

from flowkit.errors import ConfigError, ShapeError
from flowkit.storage.schema import ACTION_UNITS
from flowkit_kernels import MMCOFParams, mmcof
from fmanet.building import build_network, multiply_adds, parameter_count, seen_names
from fmanet.front_end import FrontEnd, area_average
from fmanet.loss import classification_loss
from fmanet.model import (
    ActionUnitStream,
    Modulation,
    MotionAttention,
    agreement,
    mean_answer,
    relative,
    signed_flow,
    smooth,
)
from fmanet.networks import all_networks
from fmanet.settings import NetworkConfig, RunSettings

torch.set_num_threads(1)
Clips = tuple[Tensor, Tensor, Tensor]
WHOLE = {"modulation": True, "attention": True}
"""FMANet with all its parts, which is what most tests look at: modulation and attention are off by default."""
LADDER: dict[str, dict[str, Any]] = {
    "whole": {},
    "as by default": {"modulation": False, "attention": False},
    "no modulation": {"modulation": False},
    "rise": {"inputs": "rise"},
    "fall": {"inputs": "fall"},
    "no fusion": {"fusion": False},
    "no attention": {"attention": False},
    "global": {"pooling": "global"},
    "4 x 4, one stream": {"streams": 1, "grid": 4},
    "late": {"fusion": False, "modulation": False, "attention": False, "streams": 3},
    **{
        f"{one.name}, {inputs}": {"network": one.name, "inputs": inputs}
        for one in all_networks()
        for inputs in one.inputs
        if one.name != "svm"  # nothing but zeros until it is fitted: test_baselines.py
    },
}
"""Variants of FMANet, and every registered network on each of its inputs."""
ladder = pytest.mark.parametrize("change", LADDER.values(), ids=LADDER.keys())


def clips(count: int = 3, height: int = 40, width: int = 36, seed: int = 0) -> Clips:
    """Smooth random flow of a pixel or two, all phases valid, an oval region."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 4, 7, 7, generator=generator)
    flow = nn.functional.interpolate(coarse, (height, width), mode="bilinear").reshape(count, 2, 2, height, width)
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1.2, 1, width), indexing="ij")
    region = (x.square() + y.square() < 0.9).expand(count, height, width).clone()
    return flow, torch.ones(count, 2, dtype=torch.bool), region


def strengths(count: int = 3, seed: int = 5) -> Tensor:
    """Of action units at apex and offset."""
    return torch.randn(count, 2, len(ACTION_UNITS), generator=torch.Generator().manual_seed(seed))


def all_given(network: nn.Module, count: int = 3) -> tuple[Tensor, ...]:
    """Everything that a network takes."""
    return (*clips(count), strengths(count))[: len(seen_names(network))]


def network_of(seed: int = 0, **change: Any) -> Any:
    return build_network(NetworkConfig(**{**WHOLE, **change}), seed).eval()


def shaken(network: nn.Module, seed: int = 9) -> Any:
    """The network with every parameter moved away from its start."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.3)
    return network


# ------------------------------------------------------------------------------------------ the hand-set start is MM-COF


@pytest.mark.parametrize(
    ("change", "params"),
    [
        ({}, {}),
        ({"modulation": False}, {"modulate": False}),
        ({"theta_1": 0.8}, {"theta_1": 0.8, "theta_2": 0.2}),
        ({"alpha": 3.0, "beta": 0.1, "k": 7.0, "c": -0.5}, {"alpha": 3.0, "beta": 0.1, "k": 7.0, "c": -0.5}),
        ({"floor_px": 2.6}, {"floor_px": 2.6}),
    ],
    ids=["mmcof", "cof", "theta", "gate", "floor"],
)
@pytest.mark.parametrize("noise", [False, True], ids=["smooth", "noise"])
def test_the_hand_set_start_is_mmcof(change: dict[str, Any], params: dict[str, Any], noise: bool) -> None:
    flow, valid, region = clips(6, 64, 56)
    if noise:
        flow = torch.randn(flow.shape, generator=torch.Generator().manual_seed(1)) * 2
    flow[1, 1], valid[1, 1] = 0, False
    flow[2, 0] *= 0.01  # below the floor
    expected = mmcof(flow.numpy(), MMCOFParams(**params), mask=region.numpy(), backend="reference")
    maps = network_of(**change).maps(flow, valid, region)

    np.testing.assert_allclose(maps.motion.detach().numpy(), expected[:, 2], rtol=0, atol=1e-5)
    weighted = (maps.phase_weights * maps.phases)[:, :, None] * nn.functional.normalize(flow, dim=2)
    combined = (weighted[:, 0] - weighted[:, 1]).norm(dim=1)
    seen = ((combined > 1e-3) & (maps.motion > 1e-3)).detach().numpy()
    assert seen.mean() > 0.3
    given = maps.direction.detach().numpy().transpose(0, 2, 3, 1)[seen]
    wanted = (expected[:, :2] / np.maximum(expected[:, 2:], 1e-9)).transpose(0, 2, 3, 1)[seen]
    np.testing.assert_allclose(given, wanted, rtol=0, atol=5e-4)


def test_the_fusion_learns_which_phase_counts_where() -> None:
    front = FrontEnd(NetworkConfig(modulation=True))
    with torch.no_grad():
        front.balance += 0.5
        front.kernel[1, 1] = 2.0
    motion = front(*clips())
    wanted = torch.stack([torch.ones_like(motion.phases[:, 1]), 2 * motion.phases[:, 1]], 1).softmax(1)
    torch.testing.assert_close(motion.phase_weights, wanted)


def test_a_mirrored_face_gives_mirrored_maps() -> None:
    flow, valid, region = clips()
    network = shaken(network_of())
    mirror = torch.tensor([-1.0, 1.0])
    plain = network.front(flow, valid, region)
    mirrored = network.front(flow.flip(-1) * mirror[:, None, None], valid, region.flip(-1))
    for name in ("phases", "phase_weights", "gate", "motion"):
        torch.testing.assert_close(getattr(mirrored, name), getattr(plain, name).flip(-1), rtol=0, atol=1e-6)
    wanted = plain.direction.flip(-1) * mirror[:, None, None]
    torch.testing.assert_close(mirrored.direction, wanted, rtol=0, atol=1e-6)


# ------------------------------------------------------------------------------------------------- phases that are not there


@ladder
def test_what_an_invalid_phase_holds_reaches_nothing(change: dict[str, Any]) -> None:
    flow, valid, region = clips()
    valid[:, 1] = False
    network = shaken(network_of(**change))
    clean = network(flow, valid, region)
    flow[:, 1] = torch.nan
    torch.testing.assert_close(network(flow, valid, region), clean, rtol=0, atol=0)


@ladder
def test_a_clip_without_a_valid_phase_gets_the_bias_of_the_head(change: dict[str, Any]) -> None:
    flow, valid, region = clips()
    network = shaken(network_of(**change))
    (bias,) = (
        own
        for name, own in network.named_parameters()
        if name in ("linear.bias", "stream.heads.bias", "streams.heads.bias", "stream.head.bias")
    )
    wanted = bias.reshape(-1, 3).mean(0)  # of every stream
    torch.testing.assert_close(network(flow, ~valid, region), wanted.expand(3, -1), rtol=0, atol=1e-6)


def test_one_phase_alone_sees_the_front_end_with_the_other_masked() -> None:
    flow, valid, region = clips()
    for p, inputs in enumerate(("rise", "fall")):
        masked = valid.clone()
        masked[:, 1 - p] = False
        front = network_of().front(flow, masked, region)
        torch.testing.assert_close(network_of(inputs=inputs).front(flow, valid, region), front, rtol=0, atol=0)


def test_a_stream_that_sees_an_invalid_phase_alone_has_no_say() -> None:
    flow, valid, region = clips()
    valid[:, 1] = False
    late = shaken(network_of(fusion=False, attention=False, streams=2))
    rise_alone = mean_answer(
        late.streams(*late.channels(*late.attended(flow, valid, region), valid, None, region)), valid
    )
    torch.testing.assert_close(late(flow, valid, region), rise_alone)
    with torch.no_grad():
        late.streams.heads.bias[3:] += 100  # of the stream of the fall
    torch.testing.assert_close(late(flow, valid, region), rise_alone)


@pytest.mark.parametrize(
    "name", [name for name in LADDER if not name.startswith("shallow")]
)  # its strain looks at neighbours
def test_what_lies_outside_the_face_reaches_nothing(name: str) -> None:
    change = LADDER[name]
    flow, valid, region = clips()
    network = shaken(network_of(**change))
    inside = network(flow, valid, region)
    outside = torch.where(region[:, None, None], flow, 50.0)
    torch.testing.assert_close(network(outside, valid, region), inside, rtol=0, atol=0)


# ------------------------------------------------------------------------------------------------------------- signed flow


def test_signed_flow_keeps_strength_and_turns_the_fall_round() -> None:
    flow, valid, region = clips(4, 56, 56)
    signed, covered = signed_flow(flow, valid, region, 28)
    weighed = area_average(flow * region[:, None, None], 28, 28)
    torch.testing.assert_close(signed[:, 0], weighed[:, 0])
    torch.testing.assert_close(signed[:, 1], -weighed[:, 1])
    strong = relative(100 * signed, covered, 0.05)
    power = strong.square().sum((2, 3, 4)) / covered.sum((-2, -1))
    torch.testing.assert_close(power, torch.ones(4, 2), rtol=1e-3, atol=0)
    weak = relative(1e-4 * signed, covered, 0.05)
    torch.testing.assert_close(weak, 1e-4 * signed / 0.05, rtol=1e-3, atol=1e-6)


def test_the_difference_of_a_fall_that_is_the_rise_run_backwards_is_nothing() -> None:
    flow, valid, region = clips()
    flow[:, 1] = -flow[:, 0]
    network = network_of(modulation=False)
    phases, attention = network.attended(flow, valid, region)
    channels, seen = network.channels(phases, attention, valid, network.front(flow, valid, region), region)
    assert channels.shape[1] == 3 + 3 + 2 + 3
    assert channels[:, 6:8].abs().max() < 1e-5
    torch.testing.assert_close(channels[:, 0:3], channels[:, 3:6])
    assert seen.shape == (3, 4)
    assert seen.all()


def test_the_map_of_mmcof_reaches_the_logits() -> None:
    flow, valid, region = clips()
    network = shaken(network_of())
    before = network(flow, valid, region)
    moved = torch.autograd.grad(before.square().sum(), [network.front.alpha, network.front.k, network.front.kernel])
    assert all(slope.any() for slope in moved)
    motion = network.front(flow, valid, region)
    phases, attention = network.attended(flow, valid, region)
    channels, _ = network.channels(phases, attention, valid, motion, region)
    wanted = area_average((motion.motion * region)[:, None], 28, 28)[:, 0] * attention
    torch.testing.assert_close(channels[:, 10], wanted)


@pytest.mark.parametrize("start", [0.5, 1.0, 1.6])
def test_the_power_starts_where_it_is_told_and_stays_bounded(start: float) -> None:
    vectors = torch.randn(2, 2, 2, 5, 5, generator=torch.Generator().manual_seed(4))
    modulation = Modulation(start)
    length = vectors.norm(dim=2)
    torch.testing.assert_close(modulation(vectors).norm(dim=2), length**start, rtol=1e-4, atol=1e-3)
    for offset, power in ((50.0, 1.75), (-50.0, 0.25)):
        with torch.no_grad():
            modulation.offset.fill_(offset)
        torch.testing.assert_close(modulation(vectors).norm(dim=2), length**power, rtol=1e-3, atol=1e-2)


def test_the_gate_stays_within_a_factor_of_its_start() -> None:
    flow, valid, region = clips()
    front = FrontEnd(NetworkConfig(modulation=True))
    with torch.no_grad():
        for name, offset in (("alpha", 50.0), ("beta", -50.0), ("k", 50.0), ("c", -50.0)):
            getattr(front, name).fill_(offset)
    wanted = mmcof(
        flow.numpy(), MMCOFParams(alpha=6.0, beta=0.125, k=80.0, c=-1.0), mask=region.numpy(), backend="reference"
    )
    np.testing.assert_allclose(front(flow, valid, region).motion.detach().numpy(), wanted[:, 2], rtol=0, atol=1e-4)


# --------------------------------------------------------------------------------------------------------- the switches


@pytest.mark.parametrize(
    ("switch", "parts"),
    [
        ("modulation", {"front.alpha", "front.beta", "front.k", "front.c", "modulation.offset"}),
        ("attention", {"attention.agreement", "attention.strength", "attention.place"}),
    ],
)
def test_a_switch_takes_its_part_out_and_leaves_the_start_of_the_rest(switch: str, parts: set[str]) -> None:
    whole, less = network_of().state_dict(), network_of(**{switch: False}).state_dict()
    assert set(whole) - set(less) == parts
    assert all(torch.equal(less[name], whole[name]) for name in less)


def test_attention_starts_at_identity_and_then_does_something() -> None:
    given = clips()
    whole, without = network_of(), network_of(attention=False)
    assert torch.equal(whole(*given), without(*given))
    motion = torch.randn(2, 2, 2, 28, 28)
    attention = MotionAttention(7, 2)
    assert torch.equal(attention(motion), torch.ones(2, 28, 28))
    factor = shaken(attention)(motion)
    assert 0 < factor.min() < factor.max() < 2
    mirrored = motion.flip(-1) * torch.tensor([-1.0, 1.0])[:, None, None]
    torch.testing.assert_close(attention(mirrored), factor.flip(-1), rtol=1e-5, atol=1e-5)


def test_phases_agree_where_they_move_alike() -> None:
    rise = torch.ones(1, 1, 2, 12, 12)
    for fall, cosine in (
        (rise, 1.0),
        (-rise, -1.0),
        (rise * torch.tensor([1.0, -1.0])[:, None, None], 0.0),
        (0 * rise, 0.0),
    ):
        found = agreement(torch.cat([rise, fall], 1))[0, 3:-3, 3:-3]
        torch.testing.assert_close(found, torch.full_like(found, cosine), rtol=0.03, atol=1e-6)


@pytest.mark.parametrize("places", [4, 7])
def test_a_coarse_map_is_made_smooth_and_keeps_its_level(places: int) -> None:
    assert torch.equal(smooth(torch.full((places, places), 2.0), 28, 31), torch.full((28, 31), 2.0))
    coarse = torch.arange(float(places)).expand(places, places)
    fine = smooth(coarse, 28, 28)
    assert (fine.diff(dim=1) >= 0).all()
    assert fine[0, 0] == 0
    assert fine[-1, -1] == places - 1


def test_in_training_each_stream_is_judged_alone() -> None:
    network, (flow, valid, region) = shaken(network_of(dropout=0.0, streams=3)), clips()
    units = strengths()
    whole = network(flow, valid, region, units)
    network.units.dropout.share = 0.0
    each = network.train()(flow, valid, region, units)
    assert each.shape == (3, 4, 3)
    torch.testing.assert_close(whole, (each[:, :3].mean(1) + each[:, 3]) / 2)
    assert network(flow, valid, region).shape == (3, 3, 3)  # nothing is known of action units


def test_the_mean_answer_hears_only_who_sees_something() -> None:
    answers = torch.arange(4.0)[None, :, None].expand(5, 4, 2)
    seen = torch.ones(5, 4, dtype=torch.bool)
    seen[1, 1:] = False
    seen[2:4] = False
    by_units, known = torch.full((5, 2), 9.5), torch.tensor([True, True, True, False, False])
    wanted = torch.tensor([(1.5 + 9.5) / 2, (0 + 9.5) / 2, 9.5, 1.5, 1.5])
    torch.testing.assert_close(mean_answer(answers, seen, by_units, known)[:, 0], wanted)
    torch.testing.assert_close(mean_answer(answers, seen)[:, 1], torch.tensor([1.5, 0, 1.5, 1.5, 1.5]))


# --------------------------------------------------------------------------------------------------------- action units


def test_action_units_are_heard_where_they_are_known() -> None:
    network, given = shaken(network_of()), clips()
    without = network(*given)
    units = strengths()
    units[1] = 0
    found = network(*given, units)
    torch.testing.assert_close(found[1], without[1])
    assert not torch.isclose(found[[0, 2]], without[[0, 2]]).any()
    torch.testing.assert_close(network(*given, torch.zeros_like(units)), without)
    assert "units.head.bias" not in network_of(action_units=False).state_dict()
    assert not network_of(action_units=False).sees_action_units


@pytest.mark.parametrize(("inputs", "unseen"), [("rise", 1), ("fall", 0)])
def test_action_units_of_a_phase_that_is_not_looked_at_reach_nothing(inputs: str, unseen: int) -> None:
    flow, valid, region = clips()
    units = strengths()
    alone, both = shaken(network_of(inputs=inputs)), shaken(network_of())
    invalid = valid.clone()
    invalid[:, unseen] = False
    other = units + torch.tensor([0.0, 1.0])[:, None] if unseen else units + 1.0  # the fall is what the apex has more
    torch.testing.assert_close(alone(flow, valid, region, other), alone(flow, valid, region, units))
    torch.testing.assert_close(both(flow, invalid, region, other), both(flow, invalid, region, units))


def test_a_fall_that_takes_all_back_differs_in_nothing_from_the_rise() -> None:
    stream = shaken(ActionUnitStream((0, 1), 3)).eval()
    units = strengths()
    units[:, 1] = 0  # at the offset nothing is left
    with torch.no_grad():
        stream.hidden.weight[:, 2 * len(ACTION_UNITS) :] += 5.0  # what looks at the difference
    changed, _ = stream(units, torch.ones(3, 2, dtype=torch.bool))
    with torch.no_grad():
        stream.hidden.weight[:, 2 * len(ACTION_UNITS) :] -= 5.0
    plain, known = stream(units, torch.ones(3, 2, dtype=torch.bool))
    torch.testing.assert_close(changed, plain)
    assert known.all()
    assert not stream(units, torch.zeros(3, 2, dtype=torch.bool))[1].any()


def test_the_length_of_strengths_counts_only_where_it_is_small() -> None:
    stream = shaken(ActionUnitStream((0, 1), 3)).eval()
    valid = torch.ones(3, 2, dtype=torch.bool)
    strong, stronger, weak = (stream(factor * strengths(), valid)[0] for factor in (10, 20, 1e-4))
    torch.testing.assert_close(strong, stronger, atol=1e-3, rtol=1e-3)
    assert not torch.isclose(weak, strong, atol=1e-2).all()


def test_wild_strengths_give_finite_answers_and_slopes() -> None:
    network, given = shaken(network_of()).train(), clips()
    units = 100.0 * torch.sign(strengths())
    units[0] = 0
    network(*given, units).square().sum().backward()
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in network.parameters())


def test_without_fusion_each_phase_has_streams_of_its_own() -> None:
    flow, valid, region = clips()
    late = shaken(network_of(fusion=False, attention=False))
    motion = late.attended(flow, valid, region)
    answers = late.streams(*late.channels(*motion, valid, None, region))
    other = flow.clone()
    other[:, 1] = flow[:, 1].flip(-1)
    changed = late.streams(*late.channels(*late.attended(other, valid, region), valid, None, region))
    assert torch.equal(changed[:, 0::2], answers[:, 0::2])
    assert not torch.isclose(changed[:, 1::2], answers[:, 1::2]).any()


def test_the_maps_are_those_of_the_forward_pass() -> None:
    network, given = shaken(network_of(grid=4)), clips()
    maps = network.maps(*given)
    assert maps.attention.shape == (3, 28, 28)
    phases, attention = network.attended(*given)
    assert torch.equal(maps.attention, attention)
    channels, seen = network.channels(phases, attention, given[1], network.front(*given), given[2])
    torch.testing.assert_close(mean_answer(network.streams(channels, seen), seen, False), network(*given))


# -------------------------------------------------------------------------------------------------------- sizes and slopes


@pytest.mark.parametrize(("height", "width"), [(28, 28), (56, 84), (45, 31), (29, 256)])
def test_averaging_down_is_exact_by_area(height: int, width: int) -> None:
    maps = torch.rand(2, 3, height, width, dtype=torch.float64)
    fine = maps.repeat_interleave(28, -2).repeat_interleave(28, -1)  # each cell is now a whole number of these
    wanted = fine.reshape(2, 3, 28, height, 28, width).mean((-3, -1))
    torch.testing.assert_close(area_average(maps, 28, 28), wanted)


@pytest.mark.parametrize("size", [28, 29, 112, 256])
@ladder
def test_every_size_gives_logits(size: int, change: dict[str, Any]) -> None:
    logits = network_of(**change, classes=5)(*clips(2, size, size + 3))
    assert logits.shape == (2, 5)
    assert logits.isfinite().all()


def test_the_same_motion_at_twice_the_size_gives_the_same_logits() -> None:
    flow, valid, region = clips(3, 56, 56)
    network = network_of(floor_px=0.0)
    large, larger = (t.repeat_interleave(2, -2).repeat_interleave(2, -1) for t in (2 * flow, region))
    torch.testing.assert_close(network(large, valid, larger), network(flow, valid, region), rtol=0, atol=1e-4)


FLOWS = {
    "zero": lambda flow: 0 * flow,
    "constant": lambda flow: torch.full_like(flow, 0.7),
    "random": lambda flow: flow,
    "still background": lambda flow: flow * (torch.arange(36) > 18),
    "opposed": lambda flow: flow[:, :1].expand_as(flow),
    "huge": lambda flow: 1e6 * flow,
}


def loss_of(logits: Tensor) -> Tensor:
    """Of four clips, of whatever form the answers are."""
    target = nn.functional.one_hot(torch.tensor([0, 1, 2, 0]), 3).float()
    return classification_loss(logits, target, torch.ones(3), torch.ones(4), "plain", 2.0)


@pytest.mark.parametrize("make", FLOWS.values(), ids=FLOWS.keys())
@pytest.mark.parametrize("name", [name for name in LADDER if not name.startswith("action-units")])  # which see no flow
def test_all_slopes_are_finite(make: Any, name: str) -> None:
    change = LADDER[name]
    flow, valid, region = clips(4)
    valid[1, 1], valid[2] = False, False
    region[3] = False
    flow = make(flow).clone().requires_grad_()
    network = shaken(network_of(**change)).train()
    given = (flow, valid, region, *all_given(network, 4)[3:])
    loss_of(network(*given)).backward()
    for name, tensor in [("flow", flow), *network.named_parameters()]:
        assert tensor.grad is not None, name
        assert tensor.grad.isfinite().all(), name


@ladder
def test_every_parameter_learns(change: dict[str, Any]) -> None:
    network = shaken(network_of(**change))
    loss_of(network(*all_given(network, 4))).backward()
    assert not [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]


# ------------------------------------------------------------------------------------------------ the same wherever it runs


@ladder
def test_stacked_networks_equal_one_by_one(change: dict[str, Any]) -> None:
    networks = [shaken(network_of(seed, **change), seed) for seed in range(3)]
    given = all_given(networks[0])

    def loss(parameters: dict[str, Tensor], buffers: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        logits = functional_call(networks[0], (parameters, buffers), given)
        return logits.square().mean(), logits

    parameters, buffers = stack_module_state(networks)
    slopes, stacked = torch.func.vmap(torch.func.grad(loss, has_aux=True))(parameters, buffers)
    for i, network in enumerate(networks):
        logits = network(*given)
        torch.testing.assert_close(stacked[i], logits, rtol=1e-5, atol=1e-5)
        names, own = zip(*network.named_parameters(), strict=True)
        for name, slope in zip(names, torch.autograd.grad(logits.square().mean(), own), strict=True):
            torch.testing.assert_close(slopes[name][i], slope, rtol=1e-3, atol=1e-4, msg=name)


@ladder
def test_a_seed_names_its_bits_whatever_ran_before(change: dict[str, Any]) -> None:
    torch.manual_seed(1)
    first = network_of(7, **change).state_dict()
    before = torch.get_rng_state()
    second = network_of(7, **change).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = network_of(8, **change).state_dict()
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_autocast_leaves_the_front_end_in_full_precision() -> None:
    network, given = shaken(network_of()), clips()
    plain = network.maps(*given)
    with torch.autocast("cpu", torch.bfloat16):
        mixed, logits = network.maps(*given), network(*given)
    for name in ("phases", "phase_weights", "gate", "motion", "direction"):
        assert torch.equal(getattr(mixed, name), getattr(plain, name)), name
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, network(*given), rtol=0.1, atol=0.1)


def test_half_precision_flow_is_taken_as_the_shards_store_it() -> None:
    network, (flow, valid, region) = network_of(), clips()
    assert torch.equal(network(flow.half(), valid, region), network(flow.half().float(), valid, region))


def test_clips_do_not_look_at_their_neighbours() -> None:
    network, (flow, valid, region) = shaken(network_of()), clips()
    torch.testing.assert_close(network(flow[1:2], valid[1:2], region[1:2]), network(flow, valid, region)[1:2])


# ------------------------------------------------------------------------------------------------------------------ size


def test_parameters_are_about_sixteen_thousand_and_never_a_million() -> None:
    assert 14_000 < parameter_count(network_of(action_units=False)) < 18_000
    assert (
        parameter_count(network_of()) - parameter_count(network_of(action_units=False)) == (102 + 1) * 64 + (64 + 1) * 3
    )
    largest = {"classes": 32, "width": 64, "streams": 4}
    others = ({"network": "fmanet"}, {"network": "cnn"}, {"network": "shallow", "inputs": "rise", "working": 256})
    assert max(parameter_count(network_of(**{**largest, **other})) for other in others) < 1_000_000


def test_multiply_adds_are_those_counted_by_hand() -> None:
    network = network_of(width=4, classes=2, inputs="rise", grid=4, streams=2, attention=False)
    streams = 14 * 14 * 8 * 6 * 9 + 7 * 7 * 8 * 4 * 9
    to_grid = 8 * (4 * 7 * 7 + 4 * 7 * 4)
    heads = 2 * 4 * 4 * 4 * 2 + 34 * 64 + 64 * 2  # of the streams, and of the action units
    assert multiply_adds(network, 28, 28) == streams + to_grid + heads
    to_working = (4 + 1 + 3) * (28 * 56 * 40 + 28 * 40 * 28)
    assert multiply_adds(network.train(), 56, 40) == streams + to_working + to_grid + heads
    assert network.training


# ------------------------------------------------------------------------------------------------------------ what is refused


def test_settings_survive_json() -> None:
    config = NetworkConfig(network="cnn", inputs="mmcof", classes=5, grid=4, k=7.5)
    assert NetworkConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_every_bad_setting_is_told_at_once() -> None:
    bad = {
        "network": "resnet",
        "classes": 1,
        "modulation": 1,
        "grid": 5,
        "width": 10,
        "working": 27,
        "dropout": 1.0,
        "theta_1": 0,
        "k": float("nan"),
        "streams": 0,
        "power": 2.0,
    }
    with pytest.raises(ConfigError) as caught:
        NetworkConfig.from_dict({**bad, "depth": 3})
    told = str(caught.value).splitlines()
    assert len(told) == len(bad) + 1
    assert all(any(f"network: {name} must be" in line for line in told) for name in bad)
    assert any("network: depth: unknown setting." in line for line in told)
    assert "network: width must be a multiple of 4 from 4 to 64; got 10. Correct it." in told


@pytest.mark.parametrize(
    "change",
    [
        {"streams": 16, "width": 20},
        {"inputs": "cof"},
        {"network": "shallow"},
        {"classes": True},
        {"width": 12.0},
        {"grid": 7.0},
    ],
)
def test_a_setting_that_does_not_fit_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="must be"):
        replace(NetworkConfig(), **change)


def test_settings_that_are_no_table_are_refused() -> None:
    with pytest.raises(ConfigError, match="table"):
        NetworkConfig.from_dict([("width", 8)])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda f, v, r: (f[..., :27, :], v, r[:, :27]), "flow"),
        (lambda f, v, r: (f[:, 0], v, r), "flow"),
        (lambda f, v, r: (f.long(), v, r), "flow"),
        (lambda f, v, r: (f, v[:2], r), "valid"),
        (lambda f, v, r: (f, v.float(), r), "valid"),
        (lambda f, v, r: (f, v, r[..., 1:]), "region"),
    ],
)
@pytest.mark.parametrize("kind", [{}, {"network": "cnn"}, {"network": "shallow", "inputs": "fall"}], ids=str)
def test_tensors_of_the_wrong_kind_are_refused_by_name(change: Any, name: str, kind: dict[str, Any]) -> None:
    with pytest.raises(ShapeError, match=f"network: {name} must be"):
        network_of(**kind)(*change(*clips()))


def test_settings_that_an_earlier_version_had_are_named_as_such() -> None:
    with pytest.raises(
        ConfigError, match=r"^settings: .* got network\.order, network\.strain of an earlier one.* Leave out"
    ):
        RunSettings.from_dict({"network": {"strain": True, "order": "after", "width": 8}})
    with pytest.raises(ConfigError, match=r"network\.ordr: unknown setting"):
        RunSettings.from_dict({"network": {"ordr": "after"}})
