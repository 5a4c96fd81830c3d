"""Several networks of one shape trained together: one pass of `torch.func` over all of them (`vmap` over the networks).

Each network sees batches of its own, drawn from its own clips as training it alone would draw them, so no network ever meets
another's held-out clips, and without dropout the result is that of training alone, but for rounding. (Dropout draws other
masks here.) The networks of a group must take equally many steps an epoch; `plan.grouped` sees to that.

A batch shared by all networks, in which each weighs its held-out clips 0, would be faster, but would bring held-out clips into
the training code. On a CPU next to nothing is gained (benchmarks/training.py: 1.1 times the speed of one after the other at batch
16, 0.9 at 32, 0.8 at 64): there, one-thread processes side by side are the way, and the default.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from fmanet.batches import Batch, derived_seed, epoch_batches, filled
from fmanet.building import State, seen_by
from fmanet.dataset import Clips
from fmanet.errors import TrainingImpossible
from fmanet.loss import class_weights, classification_loss, right
from fmanet.settings import NetworkConfig, TrainSettings
from fmanet.training import (
    LogRow,
    OnEpoch,
    Optimizer,
    Trained,
    check_trainable,
    checked_loss,
    copied,
    is_closed_form,
    on_device,
    pinned,
    precision,
    started,
    tell,
    train,
)


def train_together(
    clips: Sequence[Clips],
    network: NetworkConfig,
    settings: TrainSettings,
    seeds: Sequence[int],
    *,
    on_epoch: Mapping[int, OnEpoch] | None = None,
) -> list[Trained]:
    """Train one network on each of several sets of clips, all at once.

    Parameters
    ----------
    clips : sequence of Clips
        Training clips of each network.
    network : NetworkConfig
    settings : TrainSettings
        `select` must be "fixed".
    seeds : sequence of int
        One a network.
    on_epoch : mapping, optional
        Callbacks as in `train`, by position.

    Returns
    -------
    list of Trained

    Raises
    ------
    TrainingImpossible, TrainingDiverged
        As `train`; also where the networks would not take equally many steps.
    """
    for own in clips:
        check_trainable(own, network)
    if len({settings.steps_an_epoch(len(own)) for own in clips}) != 1:
        raise TrainingImpossible(
            f"train: networks trained together must take equally many steps an epoch; got {[len(own) for own in clips]} clips "
            f"in batches of {settings.batch}. Group them with plan.grouped()."
        )
    told = on_epoch or {}
    if is_closed_form(started(network, settings, 0)):
        return [
            train(own, network, settings, seed, on_epoch=told.get(n))
            for n, (own, seed) in enumerate(zip(clips, seeds, strict=True))
        ]
    with pinned(settings):
        stack = _Stack([on_device(own, settings) for own in clips], network, settings, seeds)
        logs: list[list[LogRow]] = [[] for _ in clips]
        for rows in stack.epochs():
            for position, row in enumerate(rows):
                logs[position].append(row)
                if position in told:
                    tell(told[position], row.epoch, stack.state(position))
        return [Trained(stack.state(n), tuple(log), settings.epochs) for n, log in enumerate(logs)]


class _Stack:
    """Networks of one shape, their weights stacked along a leading axis."""

    def __init__(
        self, clips: Sequence[Clips], network: NetworkConfig, settings: TrainSettings, seeds: Sequence[int]
    ) -> None:
        models = [started(network, settings, seed) for seed in seeds]
        self._axes = {name: value.ndim for name, value in models[0].named_parameters()}
        self._parameters, self._buffers = stack_module_state(models)
        self._clips, self._settings, self._seeds = clips, settings, seeds
        weights = [class_weights(own.target, len(own.classes), settings.loss) for own in clips]
        self._weights = torch.stack(weights)
        self._run = vmap(_loss_of_one(models[0], settings), randomness="different")

    def state(self, position: int) -> State:
        """Weights of one network."""
        return copied({name: value[position] for name, value in (self._parameters | self._buffers).items()})

    def epochs(self) -> Iterator[list[LogRow]]:
        """Train epoch by epoch; each yields one row a network."""
        settings = self._settings
        optimizer = Optimizer(self._parameters, self._axes, settings)
        for epoch in range(settings.epochs):
            rate = settings.rate_at(epoch)
            torch.manual_seed(derived_seed(*self._seeds, epoch, "dropout"))
            steps = [self._step(optimizer, rate, batch) for batch in self._batches(epoch)]
            losses = torch.stack([loss for loss, _ in steps]).mean(0).tolist()
            correct = torch.stack([right for _, right in steps]).sum(0).tolist()
            yield [
                LogRow("train", epoch + 1, rate, checked_loss(losses[n], epoch + 1, rate), correct[n] / len(own))
                for n, own in enumerate(self._clips)
            ]

    def _step(self, optimizer: Optimizer, rate: float, batch: Batch) -> tuple[Tensor, Tensor]:
        losses, correct = self._run(self._parameters, self._buffers, self._weights, batch)
        optimizer.step(losses.sum(), rate)
        return losses.detach(), correct

    def _batches(self, epoch: int) -> Iterator[Batch]:
        """Batches of all networks, stacked; a short last one is filled up."""
        settings = self._settings
        each = [epoch_batches(own, settings, seed, epoch) for own, seed in zip(self._clips, self._seeds, strict=True)]
        for together in zip(*each, strict=True):
            size = max(len(batch.flow) for batch in together)
            rows = [filled(batch, size) for batch in together]
            yield Batch(*(torch.stack(parts) for parts in zip(*rows, strict=True)))


def _loss_of_one(model: nn.Module, settings: TrainSettings) -> Callable[..., tuple[Tensor, Tensor]]:
    """The loss of one network on one batch as a function of its weights."""
    skeleton = copy.deepcopy(model).to("meta").train()

    def loss_of(parameters: State, buffers: State, weights: Tensor, batch: Any) -> tuple[Tensor, Tensor]:
        with precision(settings):
            logits = functional_call(skeleton, (parameters, buffers), seen_by(skeleton, batch)).float()
        loss = classification_loss(logits, batch.target, weights, batch.present, settings.loss, settings.gamma)
        return loss, (right(logits, batch.target, each=weights.ndim == 2) * batch.present).sum()

    return loss_of
