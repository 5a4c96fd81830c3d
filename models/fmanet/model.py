"""FMANet: flow of the rise and the fall in, class logits out. Read from top to bottom; MM-COF itself is in `front_end`.

    flow -> signed flow relative to a still face -> (modulate) -> rise, fall, difference, lengths -.
      '---> MM-COF with learned parameters (front_end), full size ---------------------------------+-> attend -> streams -> logits

- Dual-phase analysis: the fall is turned round (a fall is roughly the rise run backwards); a stream sees rise, fall and their
  difference. The difference is what onset and offset disagree about; the noise of the apex, which is in both phases, is not in it.
- Magnitude modulation: a learned, bounded power of the length of each vector, and the gate of MM-COF. Both start by hand. Off by
  default; MM-COF is COF then.
- Fusion: early. Both phases, their difference and MM-COF meet at each place in the first convolution.
- Motion attention: a factor for each place, from how well both phases agree there, how strong the motion is, and which part of the
  face it is. Starts at 1 everywhere. Off by default.
- Light streams: several small networks, each of which learns to answer alone; the answer is the mean of theirs.
- Action units: one more stream, on the strengths that the head fit of extraction found. Where they are known, its answer is half.

How sure we are of each part. The paper (arXiv 2510.07810) could be read in its abstract and in public summaries only. From the
abstract: dual-phase analysis, magnitude modulation, adaptive fusion, focus on salient regions, all learned inside. From summaries:
streams that take flow directly; the formulas of MM-COF. Everything else is ours: the scale, the power, the turning round of the
fall, the form of the attention, the streams, the heads, every default value. `fmanet ablate` says what each part is worth.

Shapes: B clips, P phases (rise, fall), C channels, K streams, H x W as given, h x w the working grid, G x G the map that is kept.
No operation looks at the values to decide what to do next, so `torch.func.functional_call` and `vmap` over stacked parameters work,
and so does export.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple, cast

import torch
from torch import Tensor, nn

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
    without_invalid,
)
from fmanet.settings import NetworkConfig

GROUPS: Final = 4
"""Of features of a stream that are normalised together."""
LEAST_STRENGTH: Final = 0.01
"""Below this, relative to the clip's motion, a power changes nothing more: its slope stays finite."""
POWER_RANGE: Final = 0.75
"""How far the power of modulation may go from 1, either way."""
LEAST_AGREEMENT: Final = 0.05
"""Product of two relative lengths below which phases neither agree nor disagree."""
FEATURES_OF_A_PHASE: Final = 3
"""Channels: right, down, length."""
HIDDEN: Final = 64
"""Features of the stream of action units, of which training drops `HIDDEN_DROPOUT`."""
HIDDEN_DROPOUT: Final = 0.5
STILL_CM: Final = 0.02
"""Length of all strengths of a phase together below which they stay weak."""


# --- signed flow


def signed_flow(flow: Tensor, valid: Tensor, region: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Return rise and fall on the working grid, the fall turned round.

    Parameters
    ----------
    flow : (B, 2, 2, H, W) float32
    valid : (B, 2) bool
        Phases that may be looked at; others become zero.
    region : (B, H, W) bool
        Inside the face; what lies outside is zero.
    side : int
        Of the grid, in its pixels; flow keeps its unit.

    Returns
    -------
    (B, 2, 2, h, w) float32
        Phase, component.
    (B, 1, h, w) float32
        Share of each place that lies inside the face.
    """
    inside = torch.where(region[:, None, None], without_invalid(flow, valid), 0.0)
    turned = torch.stack([inside[:, 0], -inside[:, 1]], dim=1)
    return area_average(turned, side, side), area_average(region[:, None].float(), side, side)


def relative(signed: Tensor, covered: Tensor, floor: float) -> Tensor:
    """Divide each phase by its root mean square inside the face and by `floor`, what a still face shows.

    So a phase that is no stronger than `floor` stays weak, and a strong one comes out at 1 on average.

    Parameters
    ----------
    signed : (B, P, 2, h, w) float32
    covered : (B, 1, h, w) float32
    floor : float, in the unit of the flow
    """
    count = covered.sum((-2, -1)).clamp(min=1.0)  # (B, 1)
    mean = signed.square().sum((2, 3, 4)) / count  # (B, P)
    scale = (mean + floor**2).clamp(min=LEAST_LENGTH**2).sqrt()
    return signed / scale[:, :, None, None, None]


def lengths(vectors: Tensor) -> Tensor:
    """(..., 2, h, w) -> (..., h, w); slopes stay finite."""
    return vectors.square().sum(-3).clamp(min=LEAST_STRENGTH**2).sqrt()


class Modulation(nn.Module):
    """v |v|^(power - 1): above 1 strong motion counts for more, below 1 weak motion does. The power is learned."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.start = math.atanh((start - 1) / POWER_RANGE)
        self.offset = nn.Parameter(torch.tensor(0.0))

    def forward(self, vectors: Tensor) -> Tensor:
        """(B, P, 2, h, w) relative flow -> the same, modulated."""
        power = 1 + POWER_RANGE * torch.tanh(self.start + self.offset)
        return vectors * lengths(vectors).unsqueeze(-3) ** (power - 1)


# --- motion attention


class MotionAttention(nn.Module):
    """A factor from 0 to 2 for each place: 1 + tanh(agreement + strength + place), each with learned weights that start at zero.

    A face and its mirror image get mirrored factors.
    """

    def __init__(self, grid: int, phases: int) -> None:
        super().__init__()
        if phases == 2:
            self.agreement = nn.Parameter(torch.tensor(0.0))
        self.strength = nn.Parameter(torch.tensor(0.0))
        self.place = nn.Parameter(torch.zeros(grid, (grid + 1) // 2))

    def forward(self, motion: Tensor) -> Tensor:
        """(B, P, 2, h, w) -> (B, h, w)."""
        strength = motion.square().sum(2).mean(1)  # (B, h, w)
        evidence = self.strength * strength / (1 + strength)
        if motion.shape[1] == 2:
            evidence = evidence + self.agreement * agreement(motion)
        left = self.place
        place = torch.cat([left, left[:, : left.shape[0] // 2].flip(1)], dim=1)  # (G, G)
        return 1 + torch.tanh(evidence + smooth(place, motion.shape[-2], motion.shape[-1]))


def agreement(motion: Tensor) -> Tensor:
    """Cosine between rise and turned fall around each place, (B, 2, 2, h, w) -> (B, h, w); near 0 where there is little motion."""
    around = _near(motion.shape[-2], motion) @ motion @ _near(motion.shape[-1], motion)
    product = (around[:, 0] * around[:, 1]).sum(1)
    return product / (lengths(around).prod(1) + LEAST_AGREEMENT)


def _near(size: int, like: Tensor) -> Tensor:
    """(size, size): 1/3 for each place and its two neighbours; products with it are faster than pooling, and deterministic."""
    place = torch.arange(size, device=like.device)
    return ((place[:, None] - place).abs() <= 1).to(like.dtype) / 3


def smooth(coarse: Tensor, height: int, width: int) -> Tensor:
    """(g, g) -> (height, width), linear between the middles of the coarse places; two products, so that export works."""
    return _hats(height, coarse.shape[0], coarse) @ coarse @ _hats(width, coarse.shape[1], coarse).transpose(0, 1)


def _hats(size: int, places: int, like: Tensor) -> Tensor:
    """(size, places): weight of each coarse place at each pixel; rows add up to 1."""
    at = (torch.arange(size, device=like.device, dtype=torch.float32) + 0.5) * (places / size) - 0.5
    at = at.clamp(0, places - 1)[:, None]
    return (1 - (at - torch.arange(places, device=like.device)).abs()).clamp(min=0).to(like.dtype)


# --- light streams


class Dropout(nn.Module):
    """Drops a share of the numbers while training, as `nn.Dropout`, whose generator took longer than a convolution on a CPU."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, features: Tensor) -> Tensor:
        """Return the same shape; what is kept is scaled up, so that the mean stays."""
        if not self.training or not self.share:
            return features
        kept = (torch.rand_like(features) >= self.share).to(features.dtype)
        return features * (kept / (1 - self.share))


class Streams(nn.Module):
    """K small networks side by side, as one of grouped convolutions: (B, C, h, w) -> logits of each, (B, K, classes) float32.

    Parameters
    ----------
    channels : int
        Of what each stream sees.
    count, width : int
        K, and the features of each.
    config : NetworkConfig
        `grid`, `pooling`, `dropout`, `classes`.
    apart : bool
        Each stream has channels of its own, side by side in the input; else all see the same.
    """

    def __init__(self, channels: int, count: int, width: int, config: NetworkConfig, *, apart: bool = False) -> None:
        super().__init__()
        self.count, self.grid, self.pooling = count, config.grid, config.pooling
        wide, groups = count * width, count if apart else 1
        # Strides instead of pooling: flow is smooth, and the second convolution at full stride cost as much as all the rest.
        # Not BatchNorm: folds are small, and stacked networks must not share statistics.
        self.layers = nn.Sequential(
            # (B, wide, h / 2, w / 2)
            nn.Conv2d(channels * groups, wide, 3, stride=2, padding=1, bias=False, groups=groups),
            nn.GroupNorm(GROUPS * count, wide),
            nn.ReLU(),
            # (B, wide, h / 4, w / 4)
            nn.Conv2d(wide, wide, 3, stride=2, padding=1, bias=False, groups=count),
            nn.GroupNorm(GROUPS * count, wide),
            nn.ReLU(),
        )
        self.dropout = Dropout(config.dropout)
        side = 1 if config.pooling == "global" else config.grid
        self.heads = nn.Conv2d(wide, count * config.classes, side, groups=count)

    def forward(self, channels: Tensor, seen: Tensor) -> Tensor:
        """(B, C, h, w), and (B, K) bool: whether a stream has anything to look at -> (B, K, classes)."""
        features = area_average(self.layers(channels), self.grid, self.grid)
        if self.pooling == "global":
            features = features.mean((-2, -1), keepdim=True)
        apart = torch.unflatten(features, 1, (self.count, -1))
        features = torch.where(seen[:, :, None, None, None], apart, 0.0).flatten(1, 2)  # not even a norm's bias is left
        # The grouped convolution written as a product, which takes a quarter of the time on a CPU.
        numbers = torch.unflatten(self.dropout(features), 1, (self.count, -1)).flatten(2)  # (B, K, width G G)
        weight = torch.unflatten(self.heads.weight, 0, (self.count, -1)).flatten(2)  # (K, classes, width G G)
        bias = torch.unflatten(cast(Tensor, self.heads.bias), 0, (self.count, -1))
        return (torch.einsum("bkn,kcn->bkc", numbers, weight) + bias).float()


def mean_answer(answers: Tensor, seen: Tensor, by_units: Tensor | None = None, known: Tensor | None = None) -> Tensor:
    """Return the mean over the streams that see something; half of it, where it is known, what the action units say.

    Parameters
    ----------
    answers : (B, K, classes) float32
    seen : (B, K) bool
        Where no stream sees anything, all are heard: what is left of them is their bias.
    by_units : (B, classes) float32, optional
    known : (B,) bool, optional
        Whether anything is known of a clip's action units.

    Returns
    -------
    (B, classes) float32
    """
    weight = (seen | ~seen.any(1, keepdim=True)).float()
    of_flow = (answers * weight[:, :, None]).sum(1) / weight.sum(1, keepdim=True)
    if by_units is None or known is None:
        return of_flow
    units = known.float()[:, None]
    flow = torch.maximum(seen.any(1, keepdim=True).float(), 1 - units)
    return (flow * of_flow + units * by_units) / (flow + units)


# --- the stream of action units


class ActionUnitStream(nn.Module):
    """A small network on the strengths of action units: those of the rise, of the turned fall, and their difference.

    Parameters
    ----------
    seen : sequence of int
        Phases that are looked at.
    classes : int
    """

    def __init__(self, seen: Sequence[int], classes: int) -> None:
        super().__init__()
        self.seen = list(seen)
        kinds = 2 * len(self.seen) - 1
        self.hidden = nn.Linear(kinds * len(ACTION_UNITS), HIDDEN)
        self.dropout = Dropout(HIDDEN_DROPOUT)
        self.head = nn.Linear(HIDDEN, classes)

    def forward(self, action_units: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 2, U) cm at apex and offset, (B, 2) bool -> (B, classes) float32, and whether anything is known, (B,) bool."""
        phases = torch.stack([action_units[:, 0], action_units[:, 0] - action_units[:, 1]], dim=1)
        phases = (phases * valid[:, :, None])[:, self.seen]
        relative = phases / (phases.square().sum(2, keepdim=True) + STILL_CM**2).sqrt()
        parts = [*relative.unbind(1)]
        if len(parts) == 2:
            parts.append((relative[:, 0] - relative[:, 1]) * valid.all(1, keepdim=True))
        known = relative.any(2).any(1)
        features = torch.relu(self.hidden(torch.cat(parts, dim=1)))
        features = torch.where(known[:, None], features, 0.0)  # not even the bias is left
        return self.head(self.dropout(features)).float(), known


# --- the network


class Maps(NamedTuple):
    """What a reader may want to see of a forward pass.

    Attributes
    ----------
    phases, phase_weights, gate, motion, direction
        As in `Motion`.
    attention : (B, h, w) float32
        Factor on what the streams see of each place, from 0 to 2; 1 where it changes nothing, and without attention.
    """

    phases: Tensor
    phase_weights: Tensor
    gate: Tensor
    motion: Tensor
    direction: Tensor
    attention: Tensor


class FMANet(nn.Module):
    """The network; `build_network` gives it a start that depends on the seed alone.

    Parameters
    ----------
    config : NetworkConfig

    Examples
    --------
    >>> network = build_network(NetworkConfig(), seed=0)
    >>> flow, valid = torch.zeros(1, 2, 2, 64, 64), torch.ones(1, 2, dtype=torch.bool)
    >>> network(flow, valid, torch.ones(1, 64, 64, dtype=torch.bool)).shape
    torch.Size([1, 3])
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.sees_action_units = config.action_units
        self.seen = [p for p, phase in enumerate(PHASES) if config.inputs in ("both", phase)]
        self.front = FrontEnd(config, learned=config.fusion)
        phases = len(self.seen)
        if config.modulation:
            self.modulation = Modulation(config.power)
        if config.attention:
            self.attention = MotionAttention(config.grid, phases)
        if config.action_units:
            self.units = ActionUnitStream(self.seen, config.classes)
        if config.fusion:
            channels = FEATURES_OF_A_PHASE * phases + 2 * (phases - 1) + 3  # a phase's, the difference, MM-COF
            self.streams = Streams(channels, config.streams, config.width, config)
        else:
            self.streams = Streams(FEATURES_OF_A_PHASE, config.streams, config.width, config, apart=True)

    def forward(self, flow: Tensor, valid: Tensor, region: Tensor, action_units: Tensor | None = None) -> Tensor:
        """Return logits of each clip; in training those of every stream, which are judged one by one.

        Parameters
        ----------
        flow : (B, 2 phases, 2 components, H, W) float
            Rise and fall; u (right), v (down). H and W at least `working`.
        valid : (B, 2) bool
            Phases that hold motion; others are masked, whatever their flow says.
        region : (B, H, W) bool
            Inside the face.
        action_units : (B, 2, U) float32, optional
            Strength of each of the ACTION_UNITS at the apex and at the offset, cm; all 0, or left out: unknown.

        Returns
        -------
        (B, classes) float32, or in training (B, streams, classes)

        Raises
        ------
        ShapeError
        """
        check_input(flow, valid, region, self.config.working)
        valid = phases_seen(valid, self.config.inputs)
        phases, attention = self.attended(flow, valid, region)
        motion = self.front(flow, valid, region) if self.config.fusion else None
        channels, seen = self.channels(phases, attention, valid, motion, region)
        answers = self.streams(channels, seen)
        by_units, known = None, None
        if self.config.action_units and action_units is not None:
            by_units, known = self.units(action_units, valid)
        if self.training:
            return answers if by_units is None else torch.cat([answers, by_units[:, None]], dim=1)
        return mean_answer(answers, seen, by_units, known)

    def maps(self, flow: Tensor, valid: Tensor, region: Tensor) -> Maps:
        """Return MM-COF, its gate and phase weights, and the attention of the same pass as `forward`; the same arguments."""
        check_input(flow, valid, region, self.config.working)
        valid = phases_seen(valid, self.config.inputs)
        _, attention = self.attended(flow, valid, region)
        motion: Motion = self.front(flow, valid, region)
        return Maps(motion.phases, motion.phase_weights, motion.gate, motion.motion, motion.direction, attention)

    def attended(self, flow: Tensor, valid: Tensor, region: Tensor) -> tuple[Tensor, Tensor]:
        """Return the phases that are seen, (B, P, 2, h, w), relative and modulated, and the attention, (B, h, w)."""
        side = self.config.working
        signed, covered = signed_flow(flow, valid, region, side)
        phases = relative(signed, covered, self.config.floor_px)[:, self.seen]
        if self.config.modulation:
            phases = self.modulation(phases)
        if self.config.attention:
            return phases, self.attention(phases)
        return phases, torch.ones_like(phases[:, 0, 0])

    def channels(
        self, phases: Tensor, attention: Tensor, valid: Tensor, motion: Motion | None, region: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return what the streams see, (B, C, h, w), and which of them see a phase that is valid, (B, K)."""
        each = torch.cat([phases, lengths(phases).unsqueeze(2)], dim=2)  # (B, P, 3, h, w)
        valid = valid[:, self.seen]
        each = each * valid[:, :, None, None, None]
        if motion is None:
            turns = [k % len(self.seen) for k in range(self.config.streams)]
            return (each[:, turns] * attention[:, None, None]).flatten(1, 2), valid[:, turns]
        parts = [*each.unbind(1)]
        if len(self.seen) == 2:
            parts.append((phases[:, 0] - phases[:, 1]) * valid.all(1)[:, None, None, None])
        parts.append(area_average(picture_of_both(motion, region), *phases.shape[-2:]))
        return torch.cat(parts, dim=1) * attention[:, None], valid.any(1, keepdim=True).expand(-1, self.config.streams)
