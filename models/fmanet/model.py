"""FMANet: flow of the rise and the fall in, class logits out; what MM-COF does by hand, done inside with learned parameters.

`front_end` turns the flow into pictures of motion; here is the network behind it.

    flow -> magnitudes, directions -> modulate, fuse -> pictures -> 28 x 28 -> streams -> attention -> dropout -> head
           '---------- front end, full resolution, float32 ---------'

How sure we are of each part. The paper (arXiv 2510.07810) could be read in its abstract and in public summaries only.
From the abstract: dual-phase analysis, magnitude modulation, adaptive fusion, focus on salient regions, all learned inside.
From summaries: two streams that take flow directly; the formulas of the normalised and of the combined magnitude; that the
modulation is threshold-based. Everything else is ours: the form of the gate and of the fusion weights, the turning round of
the fall, the stream of the fused map, the attention, the streams' layers, the map kept to the end, every default value.

Shapes: B clips, P phases (rise, fall), S streams, C features, H x W as given, h x w on the way to the G x G map.
No operation looks at the values to decide what to do next, so `torch.func.functional_call` and `vmap` over stacked
parameters work, and so does export.
"""

from __future__ import annotations

from typing import Final, NamedTuple, cast

import torch
from torch import Tensor, nn

from fmanet.front_end import (
    PHASES,
    FrontEnd,
    Motion,
    area_average,
    check_input,
    phases_seen,
    picture_of_both,
    picture_of_phase,
)
from fmanet.settings import NetworkConfig

GROUPS: Final = 4
"""Of features that are normalised together."""
REDUCTION: Final = 4
"""Features for one hidden unit of the channel attention."""


class Stream(nn.Sequential):
    """Two light convolutions: (B, channels, h, w) -> (B, width, about h / 4, about w / 4), never less than h // 4."""

    def __init__(self, channels: int, width: int) -> None:
        # Strides instead of pooling: flow is smooth, and the second convolution at full stride cost as much as all the rest.
        # Not BatchNorm: folds are small, and stacked networks must not share statistics.
        super().__init__(
            nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=False),  # (B, width, h / 2, w / 2)
            nn.GroupNorm(GROUPS, width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, stride=2, padding=1, bias=False),  # (B, width, h / 4, w / 4)
            nn.GroupNorm(GROUPS, width),
            nn.ReLU(),
        )


class MotionAttention(nn.Module):
    """Channel, then spatial attention, each added to what comes in; both start at zero, so the whole starts at identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, channels // REDUCTION)
        self.excite = nn.Linear(channels // REDUCTION, channels)
        self.place = nn.Conv2d(2, 1, 3, padding=1)
        for layer in (self.excite, self.place):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(cast(Tensor, layer.bias))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, G, G) -> the same, attended; and the spatial factor (B, G, G), from 0 to 2, 1 where it changes nothing."""
        channel = torch.tanh(self.excite(torch.relu(self.squeeze(features.mean((-2, -1))))))  # (B, C, G, G) -> (B, C)
        features = features + features * channel[:, :, None, None]
        summary = torch.stack([features.mean(1), features.amax(1)], dim=1)  # (B, C, G, G) -> (B, 2, G, G)
        place = torch.tanh(self.place(summary))  # (B, 1, G, G)
        return features + features * place, 1.0 + place[:, 0]


class Maps(NamedTuple):
    """What a reader may want to see of a forward pass: `Motion` but the pictures' parts, and the attention.

    Attributes
    ----------
    phases, phase_weights, gate, motion, direction
        As in `Motion`.
    attention : (B, G, G) float32
        Factor on the features of each place, from 0 to 2; 1 where it changes nothing, and without attention.
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
        self.seen = [phase for phase in PHASES if config.inputs in ("both", phase)]
        self.front = FrontEnd(config)
        names = ["phase"] if config.share_streams else self.seen
        self.streams = nn.ModuleDict({name: Stream(config.channels, config.width) for name in [*names, "fused"]})
        features = config.width * (len(self.seen) + 1)
        if config.attention:
            self.attention = MotionAttention(features)
        self.head = Head(features, config)

    def forward(self, flow: Tensor, valid: Tensor, region: Tensor) -> Tensor:
        """Logits of each clip.

        Parameters
        ----------
        flow : (B, 2 phases, 2 components, H, W) float
            Rise and fall; u (right), v (down). H and W at least `working`.
        valid : (B, 2) bool
            Phases that hold motion; others are masked, whatever their flow says.
        region : (B, H, W) bool
            Inside the face.

        Returns
        -------
        (B, classes) float32

        Raises
        ------
        ShapeError
        """
        attended, _ = self.attended(self.features(self.motion(flow, valid, region), valid, region))
        logits: Tensor = self.head(attended)
        return logits

    def maps(self, flow: Tensor, valid: Tensor, region: Tensor) -> Maps:
        """Maps of gate, phase weights, motion and attention of the same pass as `forward`; the same arguments."""
        motion = self.motion(flow, valid, region)
        _, attention = self.attended(self.features(motion, valid, region))
        shown = (motion.phases, motion.phase_weights, motion.gate, motion.motion, motion.direction)
        return Maps(*shown, attention)

    def motion(self, flow: Tensor, valid: Tensor, region: Tensor) -> Motion:
        """What the front end makes of the flow."""
        check_input(flow, valid, region, self.config.working)
        motion: Motion = self.front(flow, valid, region)
        return motion

    def features(self, motion: Motion, valid: Tensor, region: Tensor) -> Tensor:
        """Features of every stream side by side, (B, C, G, G); zero where their phase is not valid."""
        valid = phases_seen(valid, self.config.inputs)
        names, pictures, present = [], [], []
        for phase in self.seen:
            p = PHASES.index(phase)
            names.append("phase" if self.config.share_streams else phase)
            pictures.append(picture_of_phase(motion, p, region))
            present.append(valid[:, p])
        names.append("fused")
        pictures.append(picture_of_both(motion, region))
        present.append(valid.any(1))
        side = self.config.working
        # S times (B, channels, H, W) -> (B, channels, h, w) -> (B, width, h / 4, w / 4)
        # Where no phase is, not even a norm's bias is left.
        streams = [
            torch.where(here[:, None, None, None], self.streams[name](area_average(maps, side, side)), 0.0)
            for name, here, maps in zip(names, present, pictures, strict=True)
        ]
        return area_average(torch.cat(streams, dim=1), self.config.grid, self.config.grid)

    def attended(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, C, G, G) after attention, and its spatial factor (B, G, G)."""
        if not self.config.attention:
            return features, torch.ones_like(features[:, 0], dtype=torch.float32)
        attended, attention = self.attention(features)
        return attended, attention.float()


class Dropout(nn.Module):
    """Drops a share of the numbers while training, as `nn.Dropout`, whose generator took longer than a convolution on a CPU."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, features: Tensor) -> Tensor:
        """The same shape; what is kept is scaled up, so that the mean stays."""
        if not self.training or not self.share:
            return features
        kept = (torch.rand_like(features) >= self.share).to(features.dtype)
        return features * (kept / (1 - self.share))


class Head(nn.Module):
    """Dropout and a linear layer over the map, or over its mean: (B, C, G, G) -> (B, classes) float32."""

    def __init__(self, features: int, config: NetworkConfig) -> None:
        super().__init__()
        self.pooling = config.pooling
        self.dropout = Dropout(config.dropout)
        places = 1 if config.pooling == "global" else config.grid**2
        self.linear = nn.Linear(features * places, config.classes)

    def forward(self, features: Tensor) -> Tensor:
        """Logits."""
        pooled = features.mean((-2, -1)) if self.pooling == "global" else features.flatten(1)  # (B, C) or (B, C G G)
        logits: Tensor = self.linear(self.dropout(pooled))
        return logits.float()
