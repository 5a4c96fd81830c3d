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
from flowkit_kernels import MMCOFParams, mmcof
from fmanet.building import build_network, multiply_adds, parameter_count
from fmanet.front_end import FrontEnd, area_average, strain
from fmanet.model import MotionAttention
from fmanet.networks import all_networks
from fmanet.settings import NetworkConfig

torch.set_num_threads(1)
Clips = tuple[Tensor, Tensor, Tensor]
LADDER: dict[str, dict[str, Any]] = {
    "whole": {},
    "rise": {"inputs": "rise"},
    "fall": {"inputs": "fall"},
    "no modulation": {"modulation": False},
    "no fusion": {"fusion": False},
    "no attention": {"attention": False},
    "before": {"order": "before"},
    "global": {"pooling": "global"},
    "shared, 4 x 4": {"share_streams": True, "grid": 4},
    "strain": {"strain": True},
    "cnn, strain": {"network": "cnn", "inputs": "both", "strain": True},
    **{
        f"{one.name}, {inputs}": {"network": one.name, "inputs": inputs}
        for one in all_networks()
        for inputs in one.inputs
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


def network_of(seed: int = 0, **change: Any) -> Any:
    return build_network(NetworkConfig(**change), seed).eval()


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


def test_modulating_before_fusing_gives_each_phase_a_threshold_of_its_own() -> None:
    flow, valid, region = clips()
    flow[:, 1] *= 0.2
    maps = network_of(order="before").maps(flow, valid, region)
    for phase in range(2):  # one phase alone at full weight is what MM-COF makes of it
        params = MMCOFParams(theta_1=1 - phase, theta_2=phase)
        alone = mmcof(flow.numpy(), params, mask=region.numpy(), backend="reference")[:, 2]
        np.testing.assert_allclose(maps.phases[:, phase].detach().numpy(), alone, rtol=0, atol=1e-5)
    torch.testing.assert_close(maps.motion, maps.phases.mean(1))


def test_the_fusion_learns_which_phase_counts_where() -> None:
    front = FrontEnd(NetworkConfig())
    with torch.no_grad():
        front.start += torch.tensor([1.0, 0.0])
        front.kernel[1, 1] = 2.0
    motion = front(*clips())
    wanted = torch.stack([torch.ones_like(motion.phases[:, 1]), 2 * motion.phases[:, 1]], 1).softmax(1)
    torch.testing.assert_close(motion.phase_weights, wanted)


def test_a_mirrored_face_gives_mirrored_maps() -> None:
    flow, valid, region = clips()
    network = shaken(network_of(strain=True))
    mirror = torch.tensor([-1.0, 1.0])
    plain = network.front(flow, valid, region)
    mirrored = network.front(flow.flip(-1) * mirror[:, None, None], valid, region.flip(-1))
    for name in ("phases", "phase_weights", "gate", "motion", "strains"):
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
    bias = dict(network.named_parameters())["linear.bias" if change.get("network") == "shallow" else "head.linear.bias"]
    torch.testing.assert_close(network(flow, ~valid, region), bias.expand(3, -1), rtol=0, atol=0)


@pytest.mark.parametrize("inputs", ["rise", "fall"])
def test_one_phase_alone_is_both_with_the_other_masked(inputs: str) -> None:
    flow, valid, region = clips()
    single = network_of(inputs=inputs, attention=False)
    assert list(single.streams) == [inputs, "fused"]
    masked = valid.clone()
    masked[:, 1 if inputs == "rise" else 0] = False
    front = network_of().front(flow, masked, region)
    torch.testing.assert_close(single.front(flow, valid, region), front, rtol=0, atol=0)


def test_a_phase_that_is_not_valid_leaves_its_features_at_zero() -> None:
    flow, valid, region = clips()
    valid[0, 0] = False
    network = shaken(network_of())
    features = network.features(network.motion(flow, valid, region), valid, region)
    assert features[0, :12].abs().max() == 0
    assert features[0, 12:24].abs().max() > 0
    assert features[1, :12].abs().max() > 0


@pytest.mark.parametrize("with_strain", [False, True])
def test_what_lies_outside_the_face_reaches_nothing(with_strain: bool) -> None:
    flow, valid, region = clips()
    network = shaken(network_of(strain=with_strain))
    inside = network(flow, valid, region)
    outside = torch.where(region[:, None, None], flow, 50.0)
    torch.testing.assert_close(network(outside, valid, region), inside, rtol=0, atol=0)


@pytest.mark.parametrize("scale", [0.02, 3.0])
def test_strain_is_seen_over_its_largest_inside_the_face(scale: float) -> None:
    flow, valid, _ = clips(count=1, height=32, width=32)
    flow, region = scale * flow, torch.zeros(1, 32, 32, dtype=torch.bool)
    region[:, 4:29, 3:30] = True
    valid[:, 1] = False
    strains = network_of(strain=True).front(flow, valid, region).strains
    inner = strain(flow)[:, :, 5:28, 4:29]
    largest = inner.amax((-2, -1), keepdim=True)
    torch.testing.assert_close(strains[:, 0, 5:28, 4:29], (inner / largest)[:, 0])
    strains[:, 0, 5:28, 4:29] = 0
    assert not strains.any()  # nothing at the edge, nothing of the invalid phase


# --------------------------------------------------------------------------------------------------------- the switches


@pytest.mark.parametrize(
    ("switch", "parts"),
    [
        ("modulation", {"front.alpha", "front.beta", "front.k", "front.c"}),
        ("fusion", {"front.start", "front.kernel"}),
        (
            "attention",
            {f"attention.{part}.{kind}" for part in ("squeeze", "excite", "place") for kind in ("weight", "bias")},
        ),
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
    features = torch.rand(2, 8, 4, 4)
    attention = MotionAttention(8)
    assert torch.equal(attention(features)[0], features)
    attended, factor = shaken(attention)(features)
    assert not torch.allclose(attended, features)
    assert 0 < factor.min() < factor.max() < 2


def test_without_fusion_both_phases_weigh_the_same() -> None:
    maps = shaken(network_of(fusion=False)).maps(*clips())
    assert torch.equal(maps.phase_weights, torch.full_like(maps.phase_weights, 0.5))


def test_the_maps_are_those_of_the_forward_pass() -> None:
    network, given = shaken(network_of(grid=4)), clips()
    maps = network.maps(*given)
    assert maps.attention.shape == (3, 4, 4)
    features = network.features(network.motion(*given), *given[1:])
    torch.testing.assert_close(network.head(network.attended(features)[0]), network(*given))


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
    network = network_of()
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


@pytest.mark.parametrize("make", FLOWS.values(), ids=FLOWS.keys())
@ladder
def test_all_slopes_are_finite(make: Any, change: dict[str, Any]) -> None:
    flow, valid, region = clips(4)
    valid[1, 1], valid[2] = False, False
    region[3] = False
    flow = make(flow).clone().requires_grad_()
    network = shaken(network_of(**change)).train()
    nn.functional.cross_entropy(network(flow, valid, region), torch.tensor([0, 1, 2, 0])).backward()
    for name, tensor in [("flow", flow), *network.named_parameters()]:
        assert tensor.grad is not None, name
        assert tensor.grad.isfinite().all(), name


@ladder
def test_every_parameter_learns(change: dict[str, Any]) -> None:
    network = shaken(network_of(**change))
    nn.functional.cross_entropy(network(*clips(4)), torch.tensor([0, 1, 2, 0])).backward()
    assert not [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]


# ------------------------------------------------------------------------------------------------ the same wherever it runs


@ladder
def test_stacked_networks_equal_one_by_one(change: dict[str, Any]) -> None:
    networks = [shaken(network_of(seed, **change), seed) for seed in range(3)]
    given = clips()

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


def test_parameters_are_about_twelve_thousand_and_never_a_million() -> None:
    assert 9_000 < parameter_count(network_of()) < 14_000
    largest = {"classes": 32, "width": 64}
    others = ({"network": "fmanet"}, {"network": "cnn"}, {"network": "shallow", "inputs": "rise", "working": 256})
    assert max(parameter_count(network_of(**{**largest, **other})) for other in others) < 1_000_000


def test_multiply_adds_are_those_counted_by_hand() -> None:
    network = network_of(width=4, classes=2, inputs="rise", grid=4, attention=False)
    stream = 14 * 14 * 4 * 3 * 9 + 7 * 7 * 4 * 4 * 9
    to_grid = 8 * (4 * 7 * 7 + 4 * 7 * 4)
    head = 8 * 4 * 4 * 2
    assert multiply_adds(network, 28, 28) == 2 * stream + to_grid + head
    to_working = 2 * 3 * (28 * 56 * 40 + 28 * 40 * 28)
    assert multiply_adds(network.train(), 56, 40) == 2 * stream + to_working + to_grid + head
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
        "order": None,
    }
    with pytest.raises(ConfigError) as caught:
        NetworkConfig.from_dict({**bad, "depth": 3})
    told = str(caught.value).splitlines()
    assert len(told) == len(bad) + 1
    assert all(any(f"network: {name} must be" in line for line in told) for name in bad)
    assert any("network: depth: unknown setting." in line for line in told)
    assert "network: width must be a multiple of 4 from 4 to 64; got 10. Correct it." in told


@pytest.mark.parametrize(
    "change", [{"inputs": "cof"}, {"network": "shallow"}, {"classes": True}, {"width": 12.0}, {"grid": 7.0}]
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
