"""The front end of the networks: flow of rise and fall in, normalised, fused and modulated motion out, and pictures of it.

    flow -> magnitudes, directions -> modulate, fuse -> pictures

It does with learned parameters what MM-COF does by hand. Symbols, as in MM-COF: Mn_p normalised magnitude of phase p; theta the
weights of the phases; M_c = sum_p theta_p Mn_p; g = sigmoid(k (M_c - t)), t = mean + c std of M_c over the region;
M' = clip(M_c (beta + (alpha - beta) g), 0, 1). With its parameters at their start, `FrontEnd` gives the M' and the direction of
`flowkit_kernels.mmcof`.

Shapes: B clips, P phases (rise, fall), H x W as given.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from flowkit.errors import ShapeError
from fmanet.settings import NetworkConfig

PHASES: Final = ("rise", "fall")
HUGE: Final = torch.finfo(torch.float32).max
LEAST_LENGTH: Final = 1e-8
"""Below this a flow vector has no direction, in the flow's units: the square root keeps a finite slope."""
LEAST_DEVIATION: Final = 1e-7
LEAST_COMBINED: Final = 1e-3
"""Below this the combined direction fades to nothing instead of turning ever faster: the slope stays below 1000."""


class Motion(NamedTuple):
    """What the front end makes of the flow, at full resolution; float32.

    Attributes
    ----------
    phases : (B, 2, H, W)
        Mn_p. Outside the region it may leave 0..1; 0 where the phase is invalid.
    directions : (B, 2 phases, 2, H, W)
        Unit vectors, the fall's turned round.
    phase_weights : (B, 2, H, W)
        Of rise and fall; they add up to 1.
    gate : (B, 1, H, W)
        g of the fused magnitude; 1 without modulation.
    motion : (B, H, W)
        M', in 0..1.
    direction : (B, 2, H, W)
        Of the combined motion: a unit vector; shorter where the combined motion is below `LEAST_COMBINED`.
    """

    phases: Tensor
    directions: Tensor
    phase_weights: Tensor
    gate: Tensor
    motion: Tensor
    direction: Tensor


def check_input(flow: Tensor, valid: Tensor, region: Tensor, least: int) -> None:
    """Refuse tensors of the wrong shape or dtype.

    Raises
    ------
    ShapeError
    """
    if flow.ndim != 5 or flow.shape[1:3] != (2, 2) or min(flow.shape[3:]) < least or not flow.is_floating_point():
        raise ShapeError(
            f"network: flow must be (B, 2, 2, H, W) of a floating type, H and W at least {least}; got {tuple(flow.shape)} "
            f"{flow.dtype}. Extract with a larger align.size, or pass another array."
        )
    wanted = {"valid": (valid, flow.shape[:2]), "region": (region, (flow.shape[0], *flow.shape[3:]))}
    for name, (tensor, shape) in wanted.items():
        if tensor.shape != shape or tensor.dtype != torch.bool:
            raise ShapeError(
                f"network: {name} must be {tuple(shape)} bool, to go with the flow; got {tuple(tensor.shape)} "
                f"{tensor.dtype}. Pass the {name} of the same clips."
            )


def phases_seen(valid: Tensor, inputs: str) -> Tensor:
    """Valid phases that the network may look at, (B, 2) bool."""
    seen = [valid[:, p] & (inputs not in PHASES or inputs == phase) for p, phase in enumerate(PHASES)]
    return torch.stack(seen, dim=1)


def without_invalid(flow: Tensor, valid: Tensor) -> Tensor:
    """Flow in float32, zero in phases that are not valid, whatever stood there."""
    # (B, P) -> (B, P, 1, 1, 1)
    return torch.where(valid[:, :, None, None, None], flow.float(), 0.0)


def normalised_magnitudes(flow: Tensor, valid: Tensor, region: Tensor, floor_px: float) -> tuple[Tensor, Tensor]:
    """Mn_p and the direction of each phase, the fall turned round.

    Parameters
    ----------
    flow : (B, 2, 2, H, W) float32
        Zero in phases that are not valid.
    valid : (B, 2) bool
    region : (B, H, W) bool
        Where minimum and maximum are taken. If it is empty, no phase has motion.
    floor_px : float

    Returns
    -------
    (B, 2, H, W), (B, 2, 2, H, W) float32
        Directions are unit vectors, nothing where there is no motion.
    """
    length = flow.square().sum(2).clamp(min=LEAST_LENGTH**2).sqrt()  # (B, P, 2, H, W) -> (B, P, H, W)
    inside = region[:, None]  # (B, 1, H, W)
    low = torch.where(inside, length, HUGE).amin((-2, -1), keepdim=True)  # (B, P, 1, 1)
    high = torch.where(inside, length, -HUGE).amax((-2, -1), keepdim=True)
    span = high - low
    moving = (span >= floor_px) & (span > 0) & valid[:, :, None, None]
    low, span = torch.where(moving, low, 0.0), torch.where(moving, span, 1.0)  # nothing infinite reaches a slope
    magnitudes = torch.where(moving, (length - low) / span, 0.0)
    directions = flow / length[:, :, None]
    return magnitudes, torch.stack([directions[:, 0], -directions[:, 1]], dim=1)


def strain(flow: Tensor) -> Tensor:
    """Optical strain, how much the face is stretched or sheared: sqrt(u_x^2 + v_y^2 + 0.5 (u_y + v_x)^2).

    Parameters
    ----------
    flow : (..., 2, H, W) float32

    Returns
    -------
    (..., H, W) float32
        By central differences; at the first and last row and column the outer neighbour is the pixel itself.
    """
    planes = flow.flatten(0, -4) if flow.ndim > 4 else flow
    padded = functional.pad(planes, (1, 1, 1, 1), mode="replicate")
    by_x = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2  # (..., 2, H, W): u_x, v_x
    by_y = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    shear = by_y[..., 0, :, :] + by_x[..., 1, :, :]
    squared = by_x[..., 0, :, :].square() + by_y[..., 1, :, :].square() + 0.5 * shear.square()
    return squared.clamp(min=LEAST_LENGTH**2).sqrt().reshape(*flow.shape[:-3], *flow.shape[-2:])


def phase_weights(magnitudes: Tensor, start: Tensor, kernel: Tensor) -> Tensor:
    """softmax(s + conv([Mn_1, Mn_2])) over the phases, (B, 2, H, W).

    The convolution is 1 x 1, so a mirrored face gets mirrored weights, and is written out, so that autocast leaves it in float32.
    """
    # (Q, P, 1, 1) * (B, 1, P, H, W) -> (B, Q, P, H, W) -> (B, Q, H, W)
    logits = start[:, None, None] + (kernel[:, :, None, None] * magnitudes[:, None]).sum(2)
    return logits.softmax(1)


def modulate(
    magnitudes: Tensor, region: Tensor, alpha: Tensor, beta: Tensor, k: Tensor, c: Tensor
) -> tuple[Tensor, Tensor]:
    """Strong motion raised by alpha, weak motion lowered by beta; and the gate g between the two.

    Parameters
    ----------
    magnitudes : (B, P, H, W) float32
        Each map gets a threshold of its own.
    region : (B, H, W) bool
        Where mean and deviation are taken.
    alpha, beta, k, c : () float32

    Returns
    -------
    (B, P, H, W), (B, P, H, W) float32
        Not clipped yet; the gate in 0..1.
    """
    inside = region[:, None].to(magnitudes.dtype)  # (B, 1, H, W)
    count = inside.sum((-2, -1), keepdim=True).clamp(min=1.0)
    mean = (magnitudes * inside).sum((-2, -1), keepdim=True) / count  # (B, P, 1, 1)
    variance = ((magnitudes - mean).square() * inside).sum((-2, -1), keepdim=True) / count
    threshold = mean + c * variance.clamp(min=LEAST_DEVIATION**2).sqrt()
    gate = torch.sigmoid(k * (magnitudes - threshold))
    return magnitudes * (beta + (alpha - beta) * gate), gate


def unit(vector: Tensor) -> Tensor:
    """(B, 2, H, W) -> unit vectors; those shorter than `LEAST_COMBINED` fade to nothing."""
    length = vector.square().sum(1, keepdim=True).clamp(min=LEAST_COMBINED**2).sqrt()
    return vector / length


def picture(magnitude: Tensor, direction: Tensor, region: Tensor) -> Tensor:
    """(B, H, W), (B, 2, H, W) -> (B, 3, H, W): magnitude times direction, and magnitude; nothing outside the region."""
    bounded = magnitude.clamp(0.0, 1.0)[:, None] * region[:, None]  # the border of a flow has the largest errors
    return torch.cat([bounded * direction, bounded], dim=1)


def picture_of_phase(motion: Motion, p: int, region: Tensor) -> Tensor:
    """Return what a stream sees of phase p, (B, 3, H, W)."""
    return picture(motion.phases[:, p], motion.directions[:, p], region)


def picture_of_both(motion: Motion, region: Tensor) -> Tensor:
    """Return what a stream sees of the combined motion, (B, 3, H, W)."""
    return picture(motion.motion, motion.direction, region)


def area_average(maps: Tensor, height: int, width: int) -> Tensor:
    """Maps (..., H, W) averaged down to (..., height, width), exactly by area; a side that is not larger stays.

    Each side is one product with an averaging matrix, P_h x P_w^T, so sizes that do not divide cost the same and export works.
    """
    if maps.shape[-2] > height:
        maps = _shares(maps.shape[-2], height, maps) @ maps  # (height, H) @ (..., H, W)
    if maps.shape[-1] > width:
        maps = maps @ _shares(maps.shape[-1], width, maps).transpose(0, 1)  # (..., height, W) @ (W, width)
    return maps


def _shares(size: int, cells: int, like: Tensor) -> Tensor:
    """(cells, size): the share of each pixel in each cell. Pixels count as `cells` long and cells as `size`, all whole numbers."""
    begin = torch.arange(cells, device=like.device, dtype=torch.float32)[:, None] * size
    pixel = torch.arange(size, device=like.device, dtype=torch.float32)[None, :] * cells
    overlap = torch.minimum(begin + size, pixel + cells) - torch.maximum(begin, pixel)
    return (overlap.clamp(min=0.0) / size).to(like.dtype)


def bounded(start: float, offset: Tensor) -> Tensor:
    """Return a positive number that training may move: `start` at an offset of 0, between a quarter and four times it."""
    return start * 4.0 ** torch.tanh(offset)


class FrontEnd(nn.Module):
    """Flow to `Motion`: the functions above, with their parameters.

    Every parameter is an offset from its hand-set start: 0 is MM-COF. `alpha`, `beta` and `k` stay within a factor of four of their
    start, `c` within two standard deviations of its own. Numbers without axes are trained at a rate of their own
    (`TrainSettings.scalar_rate`); at the rate of the weights they hardly move.

    Parameters
    ----------
    config : NetworkConfig
        `inputs`, `modulation`, `fusion`, `floor_px` and the start of the parameters.
    learned : bool
        False: the start stays as it is (buffers), as the baselines need it.
    """

    balance: Tensor
    kernel: Tensor
    alpha: Tensor
    beta: Tensor
    k: Tensor
    c: Tensor

    def __init__(self, config: NetworkConfig, *, learned: bool = True) -> None:
        super().__init__()
        self.config = config
        values: dict[str, Tensor] = {}
        if config.fusion:
            values |= {"balance": torch.tensor(0.0), "kernel": torch.zeros(2, 2)}
        if config.modulation:
            values |= {name: torch.tensor(0.0) for name in ("alpha", "beta", "k", "c")}
        for name, value in values.items():
            if learned:
                self.register_parameter(name, nn.Parameter(value))
            else:
                self.register_buffer(name, value)

    def forward(self, flow: Tensor, valid: Tensor, region: Tensor) -> Motion:
        """(B, 2, 2, H, W), (B, 2), (B, H, W) -> Motion."""
        valid = phases_seen(valid, self.config.inputs)
        flow = without_invalid(flow, valid)
        phases, directions = normalised_magnitudes(flow, valid, region, self.config.floor_px)
        weights = self.weights(phases)
        weighted = weights * phases  # (B, P, H, W)
        combined, gate = self.modulated(weighted.sum(1, keepdim=True), region)  # (B, 1, H, W)
        direction = unit((weighted[:, :, None] * directions).sum(1))  # (B, P, 2, H, W) -> (B, 2, H, W)
        return Motion(phases, directions, weights, gate, combined[:, 0], direction)

    def weights(self, magnitudes: Tensor) -> Tensor:
        """Return the weights of the phases, (B, 2, H, W)."""
        if not self.config.fusion:
            return torch.full_like(magnitudes, 0.5)
        theta_1 = self.config.theta_1
        start = torch.stack([math.log(theta_1) + self.balance, math.log(1 - theta_1) - self.balance])
        return phase_weights(magnitudes, start, self.kernel)

    def modulated(self, magnitudes: Tensor, region: Tensor) -> tuple[Tensor, Tensor]:
        """Return magnitudes (B, P, H, W) after modulation, in 0..1, and the gate."""
        if not self.config.modulation:
            return magnitudes.clamp(0.0, 1.0), torch.ones_like(magnitudes)
        alpha, beta, k = (bounded(getattr(self.config, name), getattr(self, name)) for name in ("alpha", "beta", "k"))
        modulated, gate = modulate(magnitudes, region, alpha, beta, k, self.config.c + 2 * torch.tanh(self.c))
        return modulated.clamp(0.0, 1.0), gate
