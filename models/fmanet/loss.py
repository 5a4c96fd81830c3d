"""What training minimises: cross-entropy on soft targets, weighted against class imbalance.

    L = sum_b m_b sum_c w_c t_bc f(p_bc) / sum_b m_b sum_c w_c t_bc,   p = softmax(logits)

f(p) = -log p, or -(1 - p)^gamma log p for the focal loss (Lin et al. 2017, eq. 5); w_c = N / (C N_c) from the training clips
alone; t is a one-hot row, or a mixture of two under mixup; m_b is 0 for rows that only fill a batch up. The form is ours.

Where the classes are action units, each is a question by itself: the sum goes over both answers of every unit, with
p = sigmoid(logit), and each answer is weighted by how rare it is.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from fmanet.settings import LossName

LEAST: Final = 1e-12
"""A probability below is taken as this one where its logarithm is needed."""


def class_shares(target: Tensor, classes: int) -> Tensor:
    """Return targets as shares, (N, C) float32, one row a clip; of action units, they are that already."""
    return target.float() if target.ndim == 2 else functional.one_hot(target, classes).float()


def probabilities(logits: Tensor, each: bool) -> Tensor:
    """Return what logits (B, C) mean: shares that sum to 1, or for `each` class by itself whether it is shown."""
    return logits.sigmoid() if each else logits.softmax(1)


def logits_of(shares: Tensor, each: bool) -> Tensor:
    """Return logits that have these probabilities."""
    logits = shares.clamp_min(LEAST).log()  # logarithms of shares are logits of themselves
    return logits - (1 - shares).clamp_min(LEAST).log() if each else logits


def class_weights(target: Tensor, classes: int, loss: LossName) -> Tensor:
    """Weight of each class: the rarer, the heavier; they average to 1 over the clips.

    Parameters
    ----------
    target : (N,) int64
        Classes of the training clips, every one of them present; of action units (N, C), each shown by some and not by others.
    classes : int
    loss : {"weighted", "focal", "plain"}
        "plain" weighs all alike.

    Returns
    -------
    (C,) float32
        Of action units (2, C): of the answers no and yes.
    """
    each = target.ndim == 2
    if loss == "plain":
        return torch.ones((2, classes) if each else classes, device=target.device)
    if each:
        shown = target.sum(0)
        return len(target) / (2 * torch.stack([len(target) - shown, shown]).float())
    counts = torch.bincount(target.cpu(), minlength=classes)
    return (len(target) / (classes * counts)).float().to(target.device)


def classification_loss(
    logits: Tensor, target: Tensor, weights: Tensor, present: Tensor, loss: LossName, gamma: float
) -> Tensor:
    """The loss of a batch, averaged by weight.

    Parameters
    ----------
    logits : (B, C) or (B, S, C) float32
        With S answers for each clip, their losses are added up.
    target : (B, C) float32
        Rows that sum to 1; of action units, each from 0 to 1.
    weights : (C,) float32
        Of `class_weights`; (2, C) of action units.
    present : (B,) float32
        1, or 0 for a row that does not count.
    loss : {"weighted", "focal", "plain"}
    gamma : float
        Of the focal loss; up: looks away from clips that are already right.

    Returns
    -------
    () float32
    """
    answers = logits if logits.ndim == 3 else logits[:, None]
    if weights.ndim == 2:
        said = torch.stack([functional.logsigmoid(-answers), functional.logsigmoid(answers)], dim=2)  # (B, S, 2, C)
        share = present[:, None, None] * weights * torch.stack([1 - target, target], dim=1)  # (B, 2, C)
    else:
        said = torch.log_softmax(answers, dim=2)
        share = present[:, None] * weights * target
    cost = -said * (1 - said.exp()) ** gamma if loss == "focal" else -said
    return (share[:, None] * cost).sum() / share.sum()


def right(logits: Tensor, target: Tensor, *, each: bool = False) -> Tensor:
    """Whether each clip's answer, of several their mean, is right, (B,) bool; of `each` class by itself, whether all are."""
    answer = logits.mean(1) if logits.ndim == 3 else logits
    if each:
        return ((answer > 0) == (target > 0.5)).all(1)
    return answer.argmax(1) == target.argmax(1)
