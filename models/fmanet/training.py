"""Training of one network, from training clips alone, and what a trained network says of clips.

The held-out clips are no argument of anything here that trains. What is fitted besides the weights (class weights, the number
of epochs) is fitted on the clips that are given.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Literal, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from fmanet.batches import derived_seed, epoch_batches
from fmanet.building import State, answers_each, build_network, seen_by
from fmanet.dataset import Clips
from fmanet.errors import TrainingDiverged, TrainingImpossible
from fmanet.loss import class_shares, class_weights, classification_loss, logits_of, probabilities, right
from fmanet.pretrained.start import begin_from
from fmanet.protocol import inner_split
from fmanet.settings import NetworkConfig, TrainSettings
from fmanet.transforms import flip

OnEpoch = Callable[[int, State], None]
"""Told the epoch, counted from 1, and a copy of the weights after it."""
PREDICTED_TOGETHER = 64
"""Clips a forward pass without gradients: the memory it takes does not grow with their number."""


@dataclass(frozen=True, slots=True)
class LogRow:
    """One epoch: learning rate, mean loss and share correct on the augmented training clips, loss on clips set aside."""

    stage: Literal["select", "train"]
    epoch: int
    rate: float
    loss: float
    accuracy: float
    validation_loss: float | None = None


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained network.

    Attributes
    ----------
    state : dict of str to Tensor
        Its weights, on the CPU.
    log : tuple of LogRow
    epochs : int
        How long it was trained.
    """

    state: State
    log: tuple[LogRow, ...]
    epochs: int


def train(
    clips: Clips, network: NetworkConfig, settings: TrainSettings, seed: int, *, on_epoch: OnEpoch | None = None
) -> Trained:
    """Train one network on these clips.

    Parameters
    ----------
    clips : Clips
        Training clips: those of the held-out subjects are not among them.
    network : NetworkConfig
    settings : TrainSettings
    seed : int
        The same seed, clips and settings give the same bits.
    on_epoch : callable, optional
        Told of every epoch of the final training. It gets a copy, so nothing it does reaches the training.

    Returns
    -------
    Trained

    Raises
    ------
    TrainingImpossible
        A class has no training clip, or a number is not finite.
    TrainingDiverged
        The loss is not finite.
    """
    check_trainable(clips, network)
    with pinned(settings):
        clips = on_device(clips, settings)
        model = started(network, settings, seed)
        if is_closed_form(model):
            return _fitted(model, clips, settings, seed, on_epoch)
        epochs, log = settings.epochs, list[LogRow]()
        if settings.select == "inner":
            epochs, log = _select_epochs(clips, network, settings, derived_seed(seed, "inner"))
        for row in _epochs(model, clips, settings, seed, epochs, "train"):
            log.append(row)
            if on_epoch is not None:
                tell(on_epoch, row.epoch, model.state_dict())
    return Trained(copied(model.state_dict()), tuple(log), epochs)


def predict(model: nn.Module, clips: Clips, settings: TrainSettings) -> npt.NDArray[np.float64]:
    """Return class probabilities of clips; their targets are never looked at.

    A network that was made for action units (`NetworkConfig.multi_label`) gives one for each unit by itself.

    Parameters
    ----------
    model : nn.Module
    clips : Clips
    settings : TrainSettings
        `flip_test`, `threads` and `device` count.

    Returns
    -------
    (N, C) float64
        Rows that sum to 1, those of action units excepted.

    Raises
    ------
    TrainingDiverged
        A probability is not finite.
    """
    device = torch.device(settings.device)
    model = model.to(device).eval()
    parts = []
    with pinned(settings), torch.no_grad(), precision(settings):
        for begin in range(0, len(clips), PREDICTED_TOGETHER):
            rows = slice(begin, begin + PREDICTED_TOGETHER)
            seen = tuple(one[rows].to(device) for one in seen_by(model, clips))
            views = [seen, flip(*seen)] if settings.flip_test else [seen]
            answers = [probabilities(model(*view).double(), answers_each(model)) for view in views]
            parts.append(torch.stack(answers).mean(0).cpu())
    found: npt.NDArray[np.float64] = torch.cat(parts).numpy()
    if not np.isfinite(found).all():
        raise TrainingDiverged("predict: probabilities must be finite; got NaN. Train with a smaller train.rate.")
    return found


def check_trainable(clips: Clips, network: NetworkConfig) -> None:
    """Refuse clips that no network can be trained on.

    Raises
    ------
    TrainingImpossible
    """
    if len(clips.classes) != network.classes:
        raise TrainingImpossible(
            f"train: network.classes must be {len(clips.classes)}, as the clips have; got {network.classes}. Correct it."
        )
    if missing := clips.lacking():
        raise TrainingImpossible(
            f"train: every class must have a training clip; got none of {', '.join(missing)} among {len(clips)} clips of "
            f"{len(set(clips.subject))} subjects. Hold out fewer subjects, or choose "
            "other classes."
        )
    if not torch.isfinite(clips.flow).all():
        raise TrainingImpossible("train: flow must be finite; got NaN or infinity. Run flowkit verify on the shards.")


@contextmanager
def pinned(settings: TrainSettings) -> Iterator[None]:
    """Threads and algorithms as recorded, and random numbers of our own; everything is put back afterwards."""
    threads, mode = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    filling = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS asks of whoever wants the same bits twice
    devices = [torch.cuda.current_device()] if settings.device == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.set_num_threads(settings.threads)
        # As use_deterministic_algorithms(True), which imports torch's compiler: that takes as long as importing torch.
        torch.set_deterministic_debug_mode("error")
        # Nothing here reads what it did not write, and filling every new tensor took a tenth of the time.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.set_deterministic_debug_mode(mode)
            torch.utils.deterministic.fill_uninitialized_memory = filling  # type: ignore[attr-defined]


def precision(settings: TrainSettings) -> AbstractContextManager[object]:
    """Where the forward pass runs in."""
    if settings.mixed_precision:
        return torch.autocast(settings.device, dtype=torch.bfloat16)
    return nullcontext()


def on_device(clips: Clips, settings: TrainSettings) -> Clips:
    """The clips with their tensors where they are trained on."""
    device = torch.device(settings.device)
    names = ("flow", "valid", "region", "action_units", "target")
    return replace(clips, **{name: getattr(clips, name).to(device) for name in names})


def started(network: NetworkConfig, settings: TrainSettings, seed: int) -> nn.Module:
    """A network as it is before training: a function of the seed, and of the weights that `settings.start` names."""
    model = build_network(network, derived_seed(seed, "network"))
    if settings.start:
        begin_from(model, settings.start)
    return model.to(settings.device)


@dataclass(frozen=True)
class _Group:
    """Parameters that are treated alike, and their running means; steps counts per parameter."""

    parameters: list[Tensor]
    weight_decay: float
    factor: float
    means: list[Tensor]
    squares: list[Tensor]
    steps: list[Tensor]


class Optimizer:
    """`torch.optim.AdamW(fused=True)`, to the bit, by the function behind it.

    The class imports torch's compiler when the first one is made. Nothing here is compiled, and each worker would spend as long
    on that as on importing torch.

    Parameters
    ----------
    parameters : dict of str to Tensor
    axes : dict of str to int
        Of each parameter: those with two or more have weight decay; those with none (numbers) a learning rate of their own.
    settings : TrainSettings
    """

    def __init__(self, parameters: Mapping[str, Tensor], axes: Mapping[str, int], settings: TrainSettings) -> None:
        kinds = ((2, settings.weight_decay, 1.0), (1, 0.0, 1.0), (0, 0.0, settings.scalar_rate))
        self._groups = []
        for kind, weight_decay, factor in kinds:
            own = [parameter for name, parameter in parameters.items() if min(axes[name], 2) == kind]
            means, squares = ([torch.zeros_like(one) for one in own] for _ in range(2))
            steps = [torch.zeros((), device=one.device) for one in own]
            self._groups.append(_Group(own, weight_decay, factor, means, squares, steps))

    def step(self, loss: Tensor, rate: float) -> None:
        """Go one step down the gradient of a loss."""
        for group in self._groups:
            for parameter in group.parameters:
                parameter.grad = None
        loss.backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for group in self._groups:
                self._step(group, rate * group.factor)

    @staticmethod
    def _step(group: _Group, rate: float) -> None:
        used = [n for n, parameter in enumerate(group.parameters) if parameter.grad is not None]
        adamw(
            [group.parameters[n] for n in used],
            [cast(Tensor, group.parameters[n].grad) for n in used],
            [group.means[n] for n in used],
            [group.squares[n] for n in used],
            [],
            [group.steps[n] for n in used],
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=rate,
            weight_decay=group.weight_decay,
            eps=1e-8,
            maximize=False,
        )


def tell(on_epoch: OnEpoch, epoch: int, state: Mapping[str, Tensor]) -> None:
    """Call back with a copy of the weights, and with random numbers that nobody else draws from."""
    with torch.random.fork_rng():
        on_epoch(epoch, copied(state))


def copied(state: Mapping[str, Tensor]) -> State:
    """Weights of their own, on the CPU."""
    return {name: value.detach().cpu().clone() for name, value in state.items()}


def checked_loss(loss: float, epoch: int, rate: float) -> float:
    """The loss itself.

    Raises
    ------
    TrainingDiverged
    """
    if not np.isfinite(loss):
        raise TrainingDiverged(
            f"train: loss must be finite; got {loss} in epoch {epoch} at rate {rate:g}. Lower train.rate."
        )
    return loss


def is_closed_form(model: nn.Module) -> bool:
    """Return whether a network is fitted in one go, by a method `fit(clips, seed)` of its own, and not in epochs."""
    return callable(getattr(model, "fit", None))


def _fitted(model: nn.Module, clips: Clips, settings: TrainSettings, seed: int, on_epoch: OnEpoch | None) -> Trained:
    model.fit(clips, derived_seed(seed, "inner"))  # type: ignore[operator]
    found = torch.from_numpy(predict(model, clips, settings))
    target = clips.target.cpu()
    loss = float(-found[torch.arange(len(found)), target].clamp_min(1e-12).log().mean())
    if on_epoch is not None:
        tell(on_epoch, 1, model.state_dict())
    row = LogRow("train", 1, 0.0, loss, float((found.argmax(1) == target).double().mean()))
    return Trained(copied(model.state_dict()), (row,), 1)


def _epochs(
    model: nn.Module, clips: Clips, settings: TrainSettings, seed: int, epochs: int, stage: Literal["select", "train"]
) -> Iterator[LogRow]:
    """Train epoch by epoch; the model has that epoch's weights when its row is yielded."""
    named = dict(model.named_parameters())
    optimizer = Optimizer(named, {name: value.ndim for name, value in named.items()}, settings)
    weights = class_weights(clips.target, len(clips.classes), settings.loss)
    for epoch in range(epochs):
        rate = settings.rate_at(epoch)
        torch.manual_seed(derived_seed(seed, epoch, "dropout"))
        model.train()
        losses, correct = [], 0
        for batch in epoch_batches(clips, settings, seed, epoch):
            with precision(settings):
                logits = model(*seen_by(model, batch)).float()
            loss = classification_loss(logits, batch.target, weights, batch.present, settings.loss, settings.gamma)
            optimizer.step(loss, rate)
            losses.append(loss.item())
            correct += int(right(logits, batch.target, each=clips.multi_label).sum())
        mean = checked_loss(float(np.mean(losses)), epoch + 1, rate)
        yield LogRow(stage, epoch + 1, rate, mean, correct / len(clips))


def _select_epochs(
    clips: Clips, network: NetworkConfig, settings: TrainSettings, seed: int
) -> tuple[int, list[LogRow]]:
    """How long to train: as long as the loss on some subjects of the training clips, set aside, still falls.

    The schedule is that of `settings.epochs` in both trainings, so what was measured is what is done again.
    """
    kept, aside = inner_split(clips, settings.inner_share, seed)
    check_trainable(kept, network)
    model = started(network, settings, seed)
    weights = class_weights(kept.target, len(kept.classes), settings.loss)
    log = []
    for row in _epochs(model, kept, settings, seed, settings.epochs, "select"):
        log.append(replace(row, validation_loss=_validation_loss(model, aside, weights, settings)))
    best = min(log, key=lambda row: row.validation_loss or 0.0)
    return best.epoch, log


def _validation_loss(model: nn.Module, clips: Clips, weights: Tensor, settings: TrainSettings) -> float:
    found = torch.from_numpy(predict(model, clips, settings)).float()
    target = class_shares(clips.target.cpu(), len(clips.classes))
    present = torch.ones(len(clips))
    return classification_loss(
        logits_of(found, each=clips.multi_label), target, weights.cpu(), present, settings.loss, settings.gamma
    ).item()
