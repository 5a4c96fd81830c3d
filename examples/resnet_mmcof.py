"""A network that is no part of flowkit in its honest protocol: torchvision's ResNet-18 on pictures of MM-COF.

    pip install torchvision
    cd examples
    fmanet train shards --network resnet_mmcof:ResNetMMCOF --inputs mmcof --out resnet
    fmanet compare fmanet-run resnet

The class is given a `NetworkConfig` and returns logits; folds, seeds, scores, leak guard, report and `fmanet compare` are those of
every other network. docs/own-networks.md has the protocol.
"""

from __future__ import annotations

import torch
import torchvision
from torch import Tensor, nn

from flowkit.errors import ConfigError
from fmanet.front_end import FrontEnd, picture_of_both
from fmanet.settings import NetworkConfig

SIDE = 112
"""Of the pictures that ResNet is shown, px."""


class ResNetMMCOF(nn.Module):
    """ResNet-18 on three channels: M' cos a, M' sin a, M' (magnitude and direction of the motion of both phases).

    Parameters
    ----------
    config : NetworkConfig
        `inputs` must be "mmcof"; MM-COF has its hand-set parameters, none of them is learned.

    Raises
    ------
    ConfigError
    """

    keeps_its_start = True
    """torchvision draws the weights, from the seed of the fold."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        if config.inputs != "mmcof":
            raise ConfigError(f"ResNetMMCOF: inputs must be mmcof; got {config.inputs}. Pass --inputs mmcof.")
        self.front = FrontEnd(config, learned=False)
        # Group norm: the statistics of a batch would tie clips together, and folds are small.
        self.net = torchvision.models.resnet18(
            num_classes=config.classes, norm_layer=lambda count: nn.GroupNorm(8, count)
        )

    def forward(self, flow: Tensor, valid: Tensor, region: Tensor) -> Tensor:
        """(B, 2, 2, H, W) flow, (B, 2) valid, (B, H, W) region -> (B, classes) logits."""
        picture = picture_of_both(self.front(flow, valid, region), region)
        enlarged = nn.functional.interpolate(picture, (SIDE, SIDE), mode="bilinear", align_corners=False)
        logits: Tensor = self.net(torch.as_tensor(enlarged))
        return logits
