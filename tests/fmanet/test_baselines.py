"""The baselines: pictures that mean what they say, networks of the size they claim."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from flowkit_kernels import MMCOFParams, mmcof
from fmanet.baselines import ShallowStreams, SmallCNN
from fmanet.building import build_network, parameter_count
from fmanet.front_end import strain
from fmanet.settings import NetworkConfig

torch.set_num_threads(1)
ALL = torch.ones(1, 40, 40, dtype=torch.bool)
BOTH = torch.ones(1, 2, dtype=torch.bool)


def random_flow(size: int = 40) -> Tensor:
    return torch.randn(1, 2, 2, size, size, generator=torch.Generator().manual_seed(3))


def network_of(**change: Any) -> Any:
    return build_network(NetworkConfig(**change), seed=0).eval()


@pytest.mark.parametrize(
    ("matrix", "value"),
    [
        ([[0.0, 0.0], [0.0, 0.0]], 0.0),
        ([[0.3, 0.0], [0.0, 0.0]], 0.3),
        ([[0.3, 0.0], [0.0, 0.4]], 0.5),
        ([[0.0, 0.2], [0.2, 0.0]], 0.4 * 0.5**0.5),
        ([[0.0, 0.2], [-0.2, 0.0]], 0.0),
    ],
    ids=["shift", "stretch", "both", "shear", "rotation"],
)
def test_strain_of_linear_motion_is_its_formula(matrix: list[list[float]], value: float) -> None:
    y, x = torch.meshgrid(torch.arange(9.0), torch.arange(7.0), indexing="ij")
    flow = torch.einsum("ij,jyx->iyx", torch.tensor(matrix), torch.stack([x, y])) + 5
    found = strain(flow[None])[0, 1:-1, 1:-1]
    torch.testing.assert_close(found, torch.full_like(found, value), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("inputs", ["rise", "fall"])
def test_the_shallow_network_sees_u_v_and_strain_of_its_phase_in_one_scale(inputs: str) -> None:
    network, flow = network_of(network="shallow", inputs=inputs, working=40), random_flow()
    phase = flow[:, 0 if inputs == "rise" else 1]
    largest = phase.norm(dim=1).max()
    pictures = network.pictures(flow, ALL)
    torch.testing.assert_close(pictures[:, :2], phase / largest)
    torch.testing.assert_close(pictures[:, 2], strain(phase) / largest)
    torch.testing.assert_close(network.pictures(3 * flow, ALL), pictures)


def test_the_shallow_network_is_that_of_its_description() -> None:
    network = network_of(network="shallow", inputs="rise")
    assert isinstance(network, ShallowStreams)
    assert [(s[0].out_channels, s[0].kernel_size) for s in network.streams] == [(3, (3, 3)), (5, (3, 3)), (8, (3, 3))]
    assert network.linear.in_features == 5 * 5 * 16


@pytest.mark.parametrize(("inputs", "modulate"), [("cof", False), ("mmcof", True)])
def test_the_cnn_looks_at_the_combined_map_of_the_kernels(inputs: str, modulate: bool) -> None:
    network, flow = network_of(network="cnn", inputs=inputs), random_flow()
    given = network.pictures(network.front(flow, BOTH, ALL), ALL)
    wanted = mmcof(flow.numpy(), MMCOFParams(modulate=modulate), mask=ALL.numpy(), backend="reference")
    np.testing.assert_allclose(given.numpy(), wanted, rtol=0, atol=2e-3)
    np.testing.assert_allclose(given[:, 2].numpy(), wanted[:, 2], rtol=0, atol=1e-5)


def test_the_cnn_looks_at_the_phases_it_names() -> None:
    flow = random_flow()
    pictures = {}
    for inputs in ("rise", "fall", "both"):
        network = network_of(network="cnn", inputs=inputs)
        pictures[inputs] = network.pictures(network.front(flow, BOTH, ALL), ALL)
    assert torch.equal(pictures["both"], torch.cat([pictures["rise"], pictures["fall"]], 1))
    u, v = pictures["fall"][0, 0], pictures["fall"][0, 1]
    assert (u * flow[0, 1, 0] <= 0).all()  # turned round
    assert (v * flow[0, 1, 1] <= 0).all()
    torch.testing.assert_close(torch.hypot(u, v), pictures["fall"][0, 2], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("inputs", ["rise", "both", "mmcof"])
def test_the_cnn_is_of_about_the_size_of_fmanet_and_learns_nothing_by_its_front_end(inputs: str) -> None:
    network = network_of(network="cnn", inputs=inputs)
    assert isinstance(network, SmallCNN)
    assert 0.75 < parameter_count(network) / parameter_count(network_of()) < 1.25
    assert not list(network.front.parameters())
