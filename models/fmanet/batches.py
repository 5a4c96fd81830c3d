"""What one step of training sees: some training clips, in an order, augmented and mixed, all drawn from the run's seed.

Everything random is a function of (seed, epoch, purpose), never of what was drawn before: so a network gets the same bits
alone, beside others, or after a kill.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fmanet.dataset import Clips
from fmanet.loss import class_shares
from fmanet.settings import TrainSettings
from fmanet.transforms import draw, transform, transform_units


class Batch(NamedTuple):
    """Clips of one step; `target` holds class shares, `present` is 0 for rows that only fill up."""

    flow: Tensor
    valid: Tensor
    region: Tensor
    action_units: Tensor
    target: Tensor
    present: Tensor


def derived_seed(*parts: object) -> int:
    """63 bits that depend on every part and on their order.

    Parameters
    ----------
    *parts : int or str
        Such as the run's seed, a fold's name, an epoch, and what the numbers are for.
    """
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def epoch_batches(clips: Clips, settings: TrainSettings, seed: int, epoch: int) -> Iterator[Batch]:
    """The batches of one epoch.

    Parameters
    ----------
    clips : Clips
        Training clips, on the device that trains.
    settings : TrainSettings
    seed : int
        Of this network.
    epoch : int
        Counted from 0.
    """
    order = torch.randperm(len(clips), generator=_generator(seed, epoch, "order"))
    jitter = _generator(seed, epoch, "augment")
    mixing = np.random.default_rng(derived_seed(seed, epoch, "mixup"))
    shares = class_shares(clips.target, len(clips.classes))
    for rows in torch.split(order, settings.batch):
        rows = rows.to(clips.flow.device)
        draws = draw(len(rows), jitter)
        flow, valid, region = transform(
            clips.flow[rows], clips.valid[rows], clips.region[rows], draws, settings.augment
        )
        action_units = transform_units(clips.action_units[rows], draws, settings.augment)
        present = torch.ones(len(rows), device=flow.device)
        batch = Batch(flow, valid, region, action_units, shares[rows], present)
        yield _mixed(batch, settings.mixup, mixing) if settings.mixup else batch


def filled(batch: Batch, size: int) -> Batch:
    """The batch with its first clip repeated until there are `size` rows; the repeats are not present."""
    missing = size - len(batch.flow)
    if not missing:
        return batch
    rows = [torch.cat([part, part[:1].expand(missing, *part.shape[1:])]) for part in batch]
    rows[-1][len(batch.flow) :] = 0
    return Batch(*rows)


def _generator(seed: int, epoch: int, purpose: str) -> torch.Generator:
    return torch.Generator().manual_seed(derived_seed(seed, epoch, purpose))


def _mixed(batch: Batch, strength: float, mixing: np.random.Generator) -> Batch:
    """Mix each clip with another that has the same valid phases (Zhang et al. 2018); flow adds, so its mixture is a flow."""
    count, device = len(batch.flow), batch.flow.device
    partner = torch.from_numpy(mixing.permutation(count)).to(device)
    share = torch.from_numpy(mixing.beta(strength, strength, count)).float().to(device)
    region = batch.region & batch.region[partner]
    fits = (batch.valid == batch.valid[partner]).all(1) & region.flatten(1).any(1)
    share = torch.where(fits, share, 1.0)

    def mix(part: Tensor) -> Tensor:
        weight = share.view(-1, *[1] * (part.ndim - 1))
        return weight * part + (1 - weight) * part[partner]

    region = torch.where(fits[:, None, None], region, batch.region)
    mixed = {name: mix(getattr(batch, name)) for name in ("flow", "action_units", "target")}
    return batch._replace(region=region, **mixed)
