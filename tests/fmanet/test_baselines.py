"""The baselines: pictures that mean what they say, networks of the size they claim, closed forms that are those of the textbook."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from made_clips import made_clips
from torch import Tensor

from flowkit_kernels import MMCOFParams, mmcof
from fmanet.baselines import (
    SHRINKAGES,
    ShallowStreams,
    SmallCNN,
    chosen,
    discriminant,
    inner_folds,
    kernel,
    machines,
)
from fmanet.building import build_network, load_weights, parameter_count
from fmanet.front_end import strain
from fmanet.settings import NetworkConfig, TrainSettings
from fmanet.training import predict, train

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


# ---------------------------------------------------------------------------------------------------------- closed forms


def blobs(count: int = 20, features: int = 30) -> tuple[Tensor, Tensor]:
    """Rows around three means, as many of each class."""
    generator = torch.Generator().manual_seed(1)
    target = torch.arange(3).repeat(count)
    means = torch.randn(3, features, generator=generator, dtype=torch.float64)
    return means[target] + torch.randn(3 * count, features, generator=generator, dtype=torch.float64), target


@pytest.mark.parametrize("shrinkage", [0.05, 0.6])
@pytest.mark.parametrize("features", [10, 200], ids=["more rows", "more features"])
def test_the_discriminant_is_that_of_the_textbook(shrinkage: float, features: int) -> None:
    sklearn = pytest.importorskip("sklearn.discriminant_analysis")
    rows, target = blobs(features=features)
    known = sklearn.LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage, priors=[1 / 3] * 3)
    weight, bias = discriminant(rows, target, 3, shrinkage)
    found = (rows @ weight.T + bias).softmax(1)
    np.testing.assert_allclose(found, known.fit(rows.numpy(), target.numpy()).predict_proba(rows.numpy()), atol=1e-9)


def test_each_machine_separates_its_class_from_the_others() -> None:
    pytest.importorskip("sklearn")
    from sklearn.svm import SVC

    rows, target = blobs()
    width = torch.tensor(40.0, dtype=torch.float64)
    weight, bias = machines(kernel(rows, rows, width), target, 3, cost=3.0)
    found = kernel(rows, rows, width) @ weight.T + bias
    for number in range(3):
        known = SVC(C=3.0, gamma=1 / 40, class_weight="balanced").fit(rows.numpy(), (target == number).numpy())
        np.testing.assert_allclose(found[:, number], known.decision_function(rows.numpy()), atol=2e-3)


def test_inner_folds_answer_each_subject_once_and_train_on_the_others() -> None:
    subjects = [f"s{n % 7}" for n in range(28)]
    held = [sorted({subjects[row] for row in test.tolist()}) for _, test in inner_folds(subjects, 0)]
    assert sorted(name for part in held for name in part) == sorted(set(subjects))
    for train_rows, test in inner_folds(subjects, 0):
        assert {subjects[row] for row in train_rows.tolist()}.isdisjoint(subjects[row] for row in test.tolist())
        assert len(train_rows) + len(test) == 28
    assert not list(inner_folds(["alone"] * 5, 0))
    assert [sorted(test.tolist()) for _, test in inner_folds(subjects, 1)] != [
        sorted(test.tolist()) for _, test in inner_folds(subjects, 0)
    ]


def test_the_value_with_the_best_inner_answers_is_chosen_or_the_usual_one() -> None:
    target, subjects = torch.tensor([0, 1, 2] * 6), [f"s{n // 3}" for n in range(18)]
    right = {0.1: 5, 0.4: 18, 0.8: 9}

    def answers(train_rows: Tensor, test: Tensor) -> Tensor:
        assert len(train_rows) + len(test) == 18
        return torch.stack(
            [torch.where(test < count, target[test], (target[test] + 1) % 3) for count in right.values()]
        )

    assert chosen(list(right), 0.6, target, subjects, 3, 0, answers) == 0.4
    assert chosen(list(right), 0.6, target, ["alone"] * 18, 3, 0, answers) == 0.6
    one_each = [f"s{number}" for number in target.tolist()]  # each inner fold would lack a class
    assert chosen(list(right), 0.6, target, one_each, 3, 0, answers) == 0.6


@pytest.mark.parametrize("inputs", ["both", "rise", "fall"])
@pytest.mark.parametrize("name", ["lda", "svm"])
def test_a_closed_form_is_fitted_in_one_go_and_knows_clips_of_others(name: str, inputs: str) -> None:
    pytest.importorskip("sklearn")
    clips, others = made_clips(5, 2, noise=0.3), made_clips(3, 2, noise=0.3)
    config = NetworkConfig(network=name, inputs=inputs)  # type: ignore[arg-type]
    told: list[int] = []
    trained = train(clips, config, TrainSettings(), 0, on_epoch=lambda epoch, state: told.append(epoch))
    assert (trained.epochs, told, len(trained.log)) == (1, [1], 1)
    again = train(clips, config, TrainSettings(epochs=3), 0)
    assert all(torch.equal(again.state[part], trained.state[part]) for part in trained.state)
    model = build_network(config, 5)
    load_weights(model, trained.state)
    found = predict(model, others, TrainSettings())
    assert (found.argmax(1) == others.target.numpy()).mean() > 0.9
    blind = dataclasses.replace(others, valid=torch.zeros_like(others.valid))
    assert np.ptp(predict(model, blind, TrainSettings()), axis=0).max() == 0


@pytest.mark.parametrize("shape", [(10**6, 0), (10**6,), ()], ids=str)
def test_stored_vectors_of_another_form_take_no_memory(shape: tuple[int, ...]) -> None:
    model: Any = build_network(NetworkConfig(network="svm"), 0)
    model.sized_like({"vectors": torch.zeros(shape)})
    assert model.vectors.shape == (1, model.features)


def test_the_shrinkage_is_chosen_from_training_clips_alone() -> None:
    noisy = made_clips(6, 3, noise=4.0)
    state = train(noisy, NetworkConfig(network="lda"), TrainSettings(), 0).state
    model: Any = build_network(NetworkConfig(network="lda"), 0)
    rows, target, _ = model.views(noisy)
    solved = [discriminant(rows, target, 3, shrinkage)[0].float() for shrinkage in SHRINKAGES]
    assert sum(torch.equal(state["linear.weight"], weight) for weight in solved) == 1
