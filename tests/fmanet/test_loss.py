"""The loss against what it says by hand."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as nnf

from fmanet.loss import class_weights, classification_loss, right

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 0.5]])
TARGET = torch.tensor([0, 2])
SHARES = nnf.one_hot(TARGET, 3).float()
ALL = torch.ones(2)


def test_rare_classes_weigh_more_and_clips_weigh_one_on_average() -> None:
    target = torch.tensor([0, 0, 0, 0, 1, 2, 2, 2])
    weights = class_weights(target, 3, "weighted")
    assert weights.tolist() == pytest.approx([8 / 12, 8 / 3, 8 / 9])
    assert weights[target].mean().item() == pytest.approx(1.0)
    assert class_weights(target, 3, "plain").tolist() == [1, 1, 1]


def test_the_weighted_loss_is_that_of_torch() -> None:
    weights = torch.tensor([0.5, 1.0, 3.0])
    found = classification_loss(LOGITS, SHARES, weights, ALL, "weighted", 2.0)
    assert found.item() == pytest.approx(nnf.cross_entropy(LOGITS, TARGET, weights).item(), rel=1e-6)


def test_the_focal_loss_looks_away_from_clips_that_are_right() -> None:
    plain = torch.ones(3)
    p = LOGITS.softmax(1)[torch.arange(2), TARGET].tolist()
    expected = sum(-((1 - x) ** 2) * math.log(x) for x in p) / 2
    assert classification_loss(LOGITS, SHARES, plain, ALL, "focal", 2.0).item() == pytest.approx(expected, rel=1e-5)


def test_a_mixed_target_costs_the_mixture() -> None:
    mixed = 0.3 * SHARES[[0, 0]] + 0.7 * SHARES[[1, 1]]
    both = [classification_loss(LOGITS, SHARES[[row, row]], torch.ones(3), ALL, "plain", 2.0) for row in (0, 1)]
    found = classification_loss(LOGITS, mixed, torch.ones(3), ALL, "plain", 2.0)
    assert found.item() == pytest.approx((0.3 * both[0] + 0.7 * both[1]).item(), rel=1e-6)


@pytest.mark.parametrize("loss", ["weighted", "focal", "plain"])
def test_rows_that_only_fill_up_change_neither_loss_nor_slope(loss: str) -> None:
    logits = LOGITS.clone().requires_grad_()
    padded = torch.cat([LOGITS, torch.full((1, 3), 9.0)]).requires_grad_()
    weights = torch.tensor([0.5, 1.0, 3.0])
    alone = classification_loss(logits, SHARES, weights, ALL, loss, 2.0)
    filled = classification_loss(padded, SHARES[[0, 1, 0]], weights, torch.tensor([1.0, 1, 0]), loss, 2.0)
    alone.backward()
    filled.backward()
    assert torch.equal(alone, filled)
    assert torch.equal(padded.grad[:2], logits.grad)
    assert not padded.grad[2].any()


@pytest.mark.parametrize("loss", ["weighted", "focal", "plain"])
def test_several_answers_are_judged_one_by_one(loss: str) -> None:
    weights, present = torch.tensor([0.5, 1.0, 3.0]), torch.tensor([1.0, 0.0])
    answers = torch.stack([LOGITS, LOGITS.flip(1), 2 * LOGITS], dim=1)
    apart = [classification_loss(answers[:, n], SHARES, weights, present, loss, 2.0) for n in range(3)]
    found = classification_loss(answers, SHARES, weights, present, loss, 2.0)
    assert found.item() == pytest.approx(sum(one.item() for one in apart), rel=1e-6)


def test_of_several_answers_the_mean_is_right_or_wrong() -> None:
    assert right(LOGITS, SHARES).tolist() == [True, False]
    answers = torch.stack([LOGITS, torch.tensor([[0.0, 9.0, 0.0], [0.0, 0.0, 9.0]])], dim=1)
    assert right(answers, SHARES).tolist() == [False, True]
