"""Plain networks to measure FMANet against: a shallow one on three flow pictures, and a small CNN on one representation.

Both take what FMANet takes, mask what FMANet masks, average down to the same working grid, and leave out what lies outside the
face, so a difference in score is a difference in representation or in network, and in nothing else.
"""

from __future__ import annotations

import dataclasses
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

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
from fmanet.model import Head, Stream
from fmanet.settings import CHANNELS, NetworkConfig

KERNELS: Final = (3, 5, 8)


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
    """One stream, as long as FMANet's and twice as wide, on one representation of the motion.

    Parameters
    ----------
    config : NetworkConfig
        `inputs`: "rise", "fall": (Mn cos a, Mn sin a, Mn) of the phase; "both": those of both, the fall's turned round;
        "cof", "mmcof": the same three of the combined map, by the front end with its parameters held at their start.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        by_hand = dataclasses.replace(config, fusion=True, modulation=config.inputs == "mmcof", order="after")
        self.front = FrontEnd(by_hand, learned=False)
        pictures = 2 if config.inputs == "both" else 1
        self.stream = Stream(config.channels * pictures, 2 * config.width)
        self.head = Head(2 * config.width, config)

    def forward(self, flow: Tensor, valid: Tensor, region: Tensor) -> Tensor:
        """(B, 2, 2, H, W), (B, 2) bool, (B, H, W) bool -> (B, classes) float32; errors as in `FMANet.forward`."""
        check_input(flow, valid, region, self.config.working)
        seen = phases_seen(valid, self.config.inputs).any(1)
        pictures = self.pictures(self.front(flow, valid, region), region)
        averaged = area_average(pictures, self.config.working, self.config.working)  # (B, channels or twice that, h, w)
        features = torch.where(seen[:, None, None, None], self.stream(averaged), 0.0)
        logits: Tensor = self.head(area_average(features, self.config.grid, self.config.grid))
        return logits

    def pictures(self, motion: Motion, region: Tensor) -> Tensor:
        """What the stream looks at, (B, channels, H, W); twice as many channels for both phases."""
        if self.config.inputs in ("cof", "mmcof"):
            return picture_of_both(motion, region)
        seen = [p for p, phase in enumerate(PHASES) if self.config.inputs in ("both", phase)]
        return torch.cat([picture_of_phase(motion, p, region) for p in seen], dim=1)
