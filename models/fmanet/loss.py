"""What training minimises: cross-entropy on soft targets, weighted against class imbalance.

    L = sum_b m_b sum_c w_c t_bc f(p_bc) / sum_b m_b sum_c w_c t_bc,   p = softmax(logits)

f(p) = -log p, or -(1 - p)^gamma log p for the focal loss (Lin et al. 2017, eq. 5); w_c = N / (C N_c) from the training clips
alone; t is a one-hot row, or a mixture of two under mixup; m_b is 0 for rows that only fill a batch up. The form is ours.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fmanet.settings import LossName


def class_weights(target: Tensor, classes: int, loss: LossName) -> Tensor:
    """Weight of each class: the rarer, the heavier; they average to 1 over the clips.

    Parameters
    ----------
    target : (N,) int64
        Classes of the training clips, every one of them present.
    classes : int
    loss : {"weighted", "focal", "plain"}
        "plain" weighs all alike.

    Returns
    -------
    (C,) float32
    """
    if loss == "plain":
        return torch.ones(classes, device=target.device)
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
        Rows that sum to 1.
    weights : (C,) float32
        Of `class_weights`.
    present : (B,) float32
        1, or 0 for a row that does not count.
    loss : {"weighted", "focal", "plain"}
    gamma : float
        Of the focal loss; up: looks away from clips that are already right.

    Returns
    -------
    () float32
    """
    log_p = torch.log_softmax(logits if logits.ndim == 3 else logits[:, None], dim=2)
    cost = -log_p * (1 - log_p.exp()) ** gamma if loss == "focal" else -log_p
    share = present[:, None] * weights * target
    return (share[:, None] * cost).sum() / share.sum()


def right(logits: Tensor, target: Tensor) -> Tensor:
    """Whether each clip's answer, of several their mean, is right, (B,) bool; `target` as above."""
    answer = logits.mean(1) if logits.ndim == 3 else logits
    return answer.argmax(1) == target.argmax(1)
