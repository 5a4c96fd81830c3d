"""Plain networks and classifiers to measure FMANet against.

All take what FMANet takes, mask what FMANet masks, average down to a grid, and leave out what lies outside the face, so that a
difference in score is a difference in representation or in classifier, and in nothing else.

The last two are closed forms: `training.train` calls their `fit` in place of epochs. They choose their one number by inner folds of
the training subjects.
"""

from __future__ import annotations

import abc
import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from flowkit.errors import EnvironmentMissing
from flowkit.storage.schema import ACTION_UNITS
from fmanet.front_end import (
    LEAST_LENGTH,
    PHASES,
    FrontEnd,
    Motion,
    area_average,
    check_input,
    phases_seen,
    picture_of_both,
    picture_of_phase,
    strain,
    without_invalid,
)
from fmanet.model import ActionUnitStream, Streams, relative, signed_flow
from fmanet.settings import CHANNELS, NetworkConfig
from fmanet.transforms import flip

if TYPE_CHECKING:
    from fmanet.dataset import Clips

KERNELS: Final = (3, 5, 8)
WIDER: Final = 3
"""Times the width of one of FMANet's four streams: then the CNN has about as many parameters as FMANet."""
SIDE: Final = 14
"""Of the pictures that the closed forms see."""
SHRINKAGES: Final = (0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.95)
USUAL_SHRINKAGE: Final = 0.6
COSTS: Final = (0.3, 1.0, 3.0, 10.0, 30.0)
USUAL_COST: Final = 3.0
"""Where there are too few subjects for inner folds."""
INNER_FOLDS: Final = 5


class ActionUnitsAlone(nn.Module):
    """FMANet's stream of action units by itself: what the by-product of extraction says without any flow.

    Parameters
    ----------
    config : NetworkConfig
        `inputs` "both", "rise" or "fall"; `classes`, and `working`, which flow must reach.
    """

    sees_action_units = True

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        seen = [p for p, phase in enumerate(PHASES) if config.inputs in ("both", phase)]
        self.stream = ActionUnitStream(seen, config.classes)

    def forward(self, flow: Tensor, valid: Tensor, region: Tensor, action_units: Tensor | None = None) -> Tensor:
        """As `FMANet.forward`, (B, classes) float32; flow and region are not looked at."""
        check_input(flow, valid, region, self.config.working)
        if action_units is None:
            action_units = torch.zeros(len(valid), 2, len(ACTION_UNITS), device=valid.device)
        answers: Tensor = self.stream(action_units, phases_seen(valid, self.config.inputs))[0]
        return answers


class ShallowStreams(nn.Module):
    """Three streams of one convolution each on u, v and strain of one phase.

    After the public description of STSTNet (Liong, Gan, See, Khor, Huang 2019, arXiv 1902.03634): each stream sees the picture of
    the three; 3, 5 and 8 kernels of 3 x 3, maximum over 3 x 3 with stride 3, streams side by side, mean over 2 x 2, one linear
    layer; on 28 x 28 that is 5 x 5 x 16 features. Ours: the scale of the input (the largest magnitude inside the face is 1, as
    the pictures of that work are scaled one by one), ReLU, dropout before the linear layer, and the masking.

    Parameters
    ----------
    config : NetworkConfig
        `inputs` "rise" or "fall"; `classes`, `dropout`, `working` and `floor_px`.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.streams = nn.ModuleList(
            nn.Sequential(nn.Conv2d(CHANNELS, kernels, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, stride=3, padding=1))
            for kernels in KERNELS
        )
        side = ((config.working - 1) // 3 + 1) // 2
        self.dropout = nn.Dropout(config.dropout)
        self.linear = nn.Linear(sum(KERNELS) * side**2, config.classes)

    def forward(self, flow: Tensor, valid: Tensor, region: Tensor) -> Tensor:
        """(B, 2, 2, H, W), (B, 2) bool, (B, H, W) bool -> (B, classes) float32; errors as in `FMANet.forward`."""
        check_input(flow, valid, region, self.config.working)
        seen = phases_seen(valid, self.config.inputs).any(1)
        pictures = self.pictures(without_invalid(flow, valid), region)  # (B, 3, h, w)
        maps = torch.cat([stream(pictures) for stream in self.streams], dim=1)  # (B, 16, h / 3, w / 3)
        pooled = functional.avg_pool2d(maps, 2).flatten(1)  # (B, 16, h / 6, w / 6) -> (B, 16 h w / 36)
        pooled = torch.where(seen[:, None], pooled, 0.0)
        logits: Tensor = self.linear(self.dropout(pooled))
        return logits.float()

    def pictures(self, flow: Tensor, region: Tensor) -> Tensor:
        """(B, 2, 2, H, W) -> u, v and strain on the working grid, (B, 3, h, w); strain per pixel of that grid."""
        phase = flow[:, PHASES.index(self.config.inputs)]  # (B, 2, H, W)
        length = phase.square().sum(1).clamp(min=LEAST_LENGTH**2).sqrt()
        largest = (length * region).amax((-2, -1)).clamp(min=max(self.config.floor_px, LEAST_LENGTH))  # (B,)
        side = self.config.working
        phase = area_average(phase, side, side).float() / largest[:, None, None, None]
        covered = area_average(region[:, None].float(), side, side)  # (B, 1, h, w)
        return torch.cat([phase, strain(phase)[:, None]], dim=1) * covered


class SmallCNN(nn.Module):
    """One stream, as long as one of FMANet's and as large as all of them, on one representation of the motion.

    Parameters
    ----------
    config : NetworkConfig
        `inputs`: "rise", "fall": (Mn cos a, Mn sin a, Mn) of the phase; "both": those of both, the fall's turned round;
        "cof", "mmcof": the same three of the combined map, by the front end with its parameters held at their start.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        by_hand = dataclasses.replace(config, fusion=True, modulation=config.inputs == "mmcof")
        self.front = FrontEnd(by_hand, learned=False)
        pictures = 2 if config.inputs == "both" else 1
        self.stream = Streams(CHANNELS * pictures, 1, WIDER * config.width, config)

    def forward(self, flow: Tensor, valid: Tensor, region: Tensor) -> Tensor:
        """(B, 2, 2, H, W), (B, 2) bool, (B, H, W) bool -> (B, classes) float32; errors as in `FMANet.forward`."""
        check_input(flow, valid, region, self.config.working)
        seen = phases_seen(valid, self.config.inputs).any(1)
        pictures = self.pictures(self.front(flow, valid, region), region)
        averaged = area_average(pictures, self.config.working, self.config.working)  # (B, 3 or 6, h, w)
        logits: Tensor = self.stream(averaged, seen[:, None])[:, 0]
        return logits

    def pictures(self, motion: Motion, region: Tensor) -> Tensor:
        """Return what the stream looks at, (B, 3, H, W); twice as many channels for both phases."""
        if self.config.inputs in ("cof", "mmcof"):
            return picture_of_both(motion, region)
        seen = [p for p, phase in enumerate(PHASES) if self.config.inputs in ("both", phase)]
        return torch.cat([picture_of_phase(motion, p, region) for p in seen], dim=1)


# --- closed forms


class ClosedForm(nn.Module, abc.ABC):
    """What the closed forms have in common: signed flow of the phases, relative to a still face, as one row of numbers per clip."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.seen = [p for p, phase in enumerate(PHASES) if config.inputs in ("both", phase)]
        self.features = len(self.seen) * 2 * SIDE**2

    def forward(self, flow: Tensor, valid: Tensor, region: Tensor) -> Tensor:
        """Return logits (B, classes) float32; arguments and errors as of `FMANet.forward`."""
        return self.decide(self.rows(flow, valid, region)).float()

    @abc.abstractmethod
    def decide(self, rows: Tensor) -> Tensor:
        """(B, features) -> logits (B, classes)."""

    def rows(self, flow: Tensor, valid: Tensor, region: Tensor) -> Tensor:
        """(B, 2, 2, H, W), (B, 2) bool, (B, H, W) bool -> (B, features) float32; errors as in `FMANet.forward`."""
        check_input(flow, valid, region, self.config.working)
        signed, covered = signed_flow(flow, phases_seen(valid, self.config.inputs), region, self.config.working)
        phases = relative(signed, covered, self.config.floor_px)[:, self.seen]
        return area_average(phases, SIDE, SIDE).flatten(1)

    def views(self, clips: Clips) -> tuple[Tensor, Tensor, tuple[str, ...]]:
        """Rows, in float64, of all clips and of their mirror images; their classes and subjects."""
        given = (clips.flow, clips.valid, clips.region)
        with torch.no_grad():
            rows = torch.cat([self.rows(*given), self.rows(*flip(*given))]).double().cpu()
        return rows, clips.target.repeat(2).cpu(), clips.subject * 2


class LinearDiscriminant(ClosedForm):
    """Linear discriminant analysis with one covariance, shrunk: (1 - s) S + s mean(diag S) I, equal priors; s by inner folds.

    Parameters
    ----------
    config : NetworkConfig
        `inputs` "both", "rise" or "fall"; `classes`, `working` and `floor_px`.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        self.linear = nn.Linear(self.features, config.classes)

    def decide(self, rows: Tensor) -> Tensor:
        """(B, features) -> logits (B, classes)."""
        logits: Tensor = self.linear(rows)
        return logits

    def fit(self, clips: Clips, seed: int) -> None:
        """Set the weights from training clips."""
        rows, target, subjects = self.views(clips)
        classes = self.config.classes

        def answers(train: Tensor, test: Tensor) -> Tensor:
            solved = [discriminant(rows[train], target[train], classes, s) for s in SHRINKAGES]
            return torch.stack([(rows[test] @ weight.T + bias).argmax(1) for weight, bias in solved])

        shrinkage = chosen(SHRINKAGES, USUAL_SHRINKAGE, target, subjects, classes, seed, answers)
        weight, bias = discriminant(rows, target, classes, shrinkage)
        with torch.no_grad():
            self.linear.weight.copy_(weight)
            self.linear.bias.copy_(bias)


def discriminant(rows: Tensor, target: Tensor, classes: int, shrinkage: float) -> tuple[Tensor, Tensor]:
    """Return weights (classes, features) and biases (classes,) of shrunken linear discriminant analysis, float64."""
    means = torch.stack([rows[target == number].mean(0) for number in range(classes)])
    left = rows - means[target]
    # (1 - s) R^T R / n + s t I is inverted by the rows, of which there are fewer than features or about as many.
    variance = left.square().mean().clamp(min=1e-12)
    ridge = shrinkage * variance
    spread = left * ((1 - shrinkage) / len(rows)) ** 0.5
    inner = spread @ spread.T + ridge * torch.eye(len(rows), dtype=rows.dtype)
    weight = (means - torch.linalg.solve(inner, spread @ means.T).T @ spread) / ridge
    return weight, -0.5 * (weight * means).sum(1)


class SupportVectors(ClosedForm):
    """A support vector machine for each class against the others, with a Gaussian kernel; its cost by inner folds.

    The kernel is exp(-|x - y|^2 / (features x variance)). scikit-learn fits it.

    Parameters
    ----------
    config : NetworkConfig
        `inputs` "both", "rise" or "fall"; `classes`, `working` and `floor_px`.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        self._take(torch.zeros(1, self.features), torch.zeros(config.classes, 1))
        self.bias = nn.Parameter(torch.zeros(config.classes))
        self.width = nn.Parameter(torch.ones(1))

    def decide(self, rows: Tensor) -> Tensor:
        """(B, features) -> decision values (B, classes)."""
        return kernel(rows, self.vectors, self.width) @ self.weight.T + self.bias

    def fit(self, clips: Clips, seed: int) -> None:
        """Set the support vectors from training clips.

        Raises
        ------
        EnvironmentMissing
            scikit-learn is not installed.
        """
        rows, target, subjects = self.views(clips)
        width = rows.shape[1] * rows.var().clamp(min=1e-12)
        products, classes = kernel(rows, rows, width), self.config.classes

        def answers(train: Tensor, test: Tensor) -> Tensor:
            solved = [machines(products[train][:, train], target[train], classes, cost) for cost in COSTS]
            return torch.stack([(products[test][:, train] @ weight.T + bias).argmax(1) for weight, bias in solved])

        cost = chosen(COSTS, USUAL_COST, target, subjects, classes, seed, answers)
        weight, bias = machines(products, target, classes, cost)
        used = weight.any(0)
        with torch.no_grad():
            self._take(rows[used].float(), weight[:, used].float())
            self.bias.copy_(bias)
            self.width.copy_(width)

    def sized_like(self, state: dict[str, Tensor]) -> None:
        """Make room for as many vectors as stored weights hold; for none if these are no vectors of this machine."""
        shape = state["vectors"].shape if "vectors" in state else ()
        if len(shape) == 2 and shape[1] == self.features:  # so the file has the bytes for which memory is taken
            count = shape[0]
            self._take(torch.zeros(count, self.features), torch.zeros(self.config.classes, count))

    def _take(self, vectors: Tensor, weight: Tensor) -> None:
        self.vectors, self.weight = nn.Parameter(vectors), nn.Parameter(weight)


def kernel(rows: Tensor, others: Tensor, width: Tensor) -> Tensor:
    """(N, F), (M, F) -> exp(-|x - y|^2 / width), (N, M)."""
    apart = rows.square().sum(1)[:, None] - 2 * rows @ others.T + others.square().sum(1)
    return torch.exp(-apart.clamp(min=0) / width)


def machines(products: Tensor, target: Tensor, classes: int, cost: float) -> tuple[Tensor, Tensor]:
    """Return weights (classes, N) and biases (classes,) of one machine for each class, from kernel values (N, N) of its clips.

    Raises
    ------
    EnvironmentMissing
    """
    try:
        from sklearn.svm import SVC  # type: ignore[import-untyped]
    except ImportError as error:
        raise EnvironmentMissing(
            f"train: scikit-learn must be installed for the network svm; got: {error}. Install the extra train: pip install "
            "'flowkit-mer[train]'."
        ) from error
    weight, bias = torch.zeros(classes, len(products), dtype=torch.float64), torch.zeros(classes, dtype=torch.float64)
    for number in range(classes):
        machine: Any = SVC(C=cost, kernel="precomputed", class_weight="balanced")
        machine.fit(products.numpy(), (target == number).numpy())
        weight[number, torch.from_numpy(machine.support_).long()] = torch.from_numpy(machine.dual_coef_[0])
        bias[number] = float(machine.intercept_[0])
    return weight, bias


def chosen(
    values: Sequence[float],
    usual: float,
    target: Tensor,
    subjects: Sequence[str],
    classes: int,
    seed: int,
    answers: Callable[[Tensor, Tensor], Tensor],
) -> float:
    """Return the value with the best UF1 over inner folds by subject; `usual` where no inner fold can be trained.

    Parameters
    ----------
    values : sequence of float
    usual : float
    target : (N,) int64
    subjects : sequence of str
    classes : int
    seed : int
        Deals the subjects to the folds.
    answers : callable
        Given rows to train on and rows to answer, both int64: the class of each, for each value, (values, rows).
    """
    right, said, truth = (torch.zeros(len(values), classes) for _ in range(3))
    for train, test in inner_folds(subjects, seed):
        if len(set(target[train].tolist())) < classes:
            continue
        for n, found in enumerate(answers(train, test)):
            right[n] += torch.bincount(found[found == target[test]], minlength=classes)
            said[n] += torch.bincount(found, minlength=classes)
            truth[n] += torch.bincount(target[test], minlength=classes)
    if not truth.any():
        return usual
    uf1 = (2 * right / (said + truth).clamp(min=1)).mean(1)
    return values[int(uf1.argmax())]


def inner_folds(subjects: Sequence[str], seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield rows to train on and rows to answer, so that each subject is answered once."""
    names = sorted(set(subjects), key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())
    count = min(INNER_FOLDS, len(names))
    for number in range(count if count > 1 else 0):
        aside = set(names[number::count])
        held = torch.tensor([subject in aside for subject in subjects])
        yield held.logical_not().nonzero()[:, 0], held.nonzero()[:, 0]
