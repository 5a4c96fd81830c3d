"""Every operation once more, in plain NumPy and float64: the specification that the fast backends are held against.

Symbols, as in Zach 2007 and IPOL 2013; arrays of two components hold u (right) and v (down), in pixels:

    flow      (2, H, W)      u, v
    dual      (2, 2, H, W)   p of u and of v; along x and along y
    gradient  (2, H, W)      of the moving image, warped: Jx, Jy
    norm      (H, W)         |gradient|^2, at least EPSILON
    constant  (H, W)         J(x + flow0) - gradient . flow0 - I;   rho = constant + gradient . flow

Each operation computes in the dtype that it is given, so that the same code also says what plain float32 would give.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from flowkit_kernels.params import MMCOFParams, TVL1Params, level_shapes

Array = npt.NDArray[np.floating[Any]]

GREY = 255.0
"""White, on the scale that lambda_ is meant for."""
EPSILON = float(np.finfo(np.float32).eps)
CUBIC = -0.75
"""Slope of the cubic kernel at distance 1, OpenCV's choice."""


class Linearised(NamedTuple):
    """The data term about the flow of a warp."""

    gradient: Array
    norm: Array
    constant: Array


def tvl1_flow(
    stacks: Sequence[npt.NDArray[np.float32]], valid: npt.NDArray[np.bool_], params: TVL1Params, threads: int = 1
) -> npt.NDArray[np.float32]:
    """As `backend.Operations` says, one flow after the other; `threads` is not used."""
    images = [image for stack in stacks for image in stack.swapaxes(0, 1)]  # image s of every item
    flow = np.zeros((*valid.shape, 2, *images[0].shape[1:]), np.float32)
    for n, phase in np.argwhere(valid):
        reference, moving = (images[s][n].astype(np.float64) for s in (phase, phase + 1))
        flow[n, phase] = solve(reference, moving, params)
    return flow


def solve(reference: Array, moving: Array, params: TVL1Params) -> Array:
    """Flow of one pair, from the coarsest level of its pyramids to the finest."""
    levels = list(zip(pyramid(reference * GREY, params), pyramid(moving * GREY, params), strict=True))
    flow = np.zeros((2, *levels[-1][0].shape), reference.dtype)
    for coarse_reference, coarse_moving in reversed(levels):
        if flow.shape[1:] != coarse_reference.shape:
            flow = resize(flow, coarse_reference.shape) / params.scale_step
        flow = refine(flow, coarse_reference, coarse_moving, params)
    return flow


def pyramid(image: Array, params: TVL1Params) -> list[Array]:
    """The image and its smaller versions, finest first; no level is smaller than 16 px."""
    levels = [image]
    for shape in level_shapes(image.shape, params)[1:]:
        levels.append(resize(levels[-1], shape, 1 / params.scale_step))
    return levels


def resize(image: Array, shape: tuple[int, ...], step: float | None = None) -> Array:
    """Bilinear, with half-pixel centres and no smoothing; a pixel of the result is `step` pixels of the image wide."""
    rows, bottom = taps(image.shape[-2], shape[0], step, image.dtype)
    columns, right = taps(image.shape[-1], shape[1], step, image.dtype)
    left_part = image[..., columns] * (1 - right) + image[..., columns + 1] * right
    return left_part[..., rows, :] * (1 - bottom[:, None]) + left_part[..., rows + 1, :] * bottom[:, None]


def taps(source: int, target: int, step: float | None, dtype: Any) -> tuple[npt.NDArray[np.intp], Array]:
    """First of the two neighbours that each target pixel lies between, and the weight of the second."""
    centre = (np.arange(target) + 0.5) * (source / target if step is None else step) - 0.5
    centre = np.clip(centre, 0, source - 1)
    first = np.minimum(centre.astype(np.intp), source - 2)
    return first, (centre - first).astype(dtype)


def refine(flow: Array, reference: Array, moving: Array, params: TVL1Params) -> Array:
    """Flow of one level: the dual variables start at zero and live on over its warps."""
    dual = np.zeros((2, *flow.shape), flow.dtype)
    for _ in range(params.warps):
        data = linearise(flow, reference, moving, params.round_coordinates)
        for _ in range(params.outer_iterations):
            if params.median_filtering > 1:
                flow = np.stack([median(component) for component in flow])
            flow, dual, converged = iterate(flow, dual, data, params)
            if converged:
                break
    return flow


def linearise(flow: Array, reference: Array, moving: Array, round_coordinates: bool = False) -> Linearised:
    """The data term, from the moving image and its gradient warped by the flow."""
    warped, *gradient = (warp(plane, flow, round_coordinates) for plane in (moving, *image_gradient(moving)))
    slope = np.stack(gradient)
    norm = np.maximum((slope**2).sum(axis=0), EPSILON)
    return Linearised(slope, norm, warped - (slope * flow).sum(axis=0) - reference)


def image_gradient(image: Array) -> Array:
    """Central differences, replicated at the border: along x, along y."""
    padded = np.pad(image, 1, mode="edge")
    along_x = (padded[1:-1, 2:] - padded[1:-1, :-2]) / 2
    along_y = (padded[2:, 1:-1] - padded[:-2, 1:-1]) / 2
    return np.stack([along_x, along_y])


def warp(image: Array, flow: Array, round_coordinates: bool = False) -> Array:
    """image(x + flow(x)), bicubic, 0 outside."""
    height, width = image.shape
    position = np.stack([np.arange(width) + flow[0], np.arange(height)[:, None] + flow[1]]).astype(image.dtype)
    if round_coordinates:
        position = np.rint(position * 32) / 32
    corner = np.floor(position)
    weights = cubic_weights(position - corner)
    x, y = corner.astype(np.intp)
    total = np.zeros_like(image)
    for j in range(4):
        taps = (weights[i][0] * _pixel_or_zero(image, y + j - 1, x + i - 1) for i in range(4))
        total += weights[j][1] * sum(taps)
    return total


def cubic_weights(t: Array) -> tuple[Array, Array, Array, Array]:
    """Weights of the four neighbours at -1, 0, 1, 2 of a point at t in [0, 1)."""

    def near(d: Array) -> Array:
        return ((CUBIC + 2) * d - (CUBIC + 3)) * d * d + 1

    before = ((CUBIC * (t + 1) - 5 * CUBIC) * (t + 1) + 8 * CUBIC) * (t + 1) - 4 * CUBIC
    left, right = near(t), near(1 - t)
    return before, left, right, 1 - before - left - right


def _pixel_or_zero(image: Array, y: npt.NDArray[np.intp], x: npt.NDArray[np.intp]) -> Array:
    height, width = image.shape
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    return np.where(inside, image[y.clip(0, height - 1), x.clip(0, width - 1)], image.dtype.type(0))


def median(plane: Array) -> Array:
    """5 x 5 median with replicated borders."""
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(plane, 2, mode="edge"), (5, 5))
    return np.median(windows, axis=(-2, -1)).astype(plane.dtype)


def iterate(flow: Array, dual: Array, data: Linearised, params: TVL1Params) -> tuple[Array, Array, bool]:
    """Inner iterations: flow and dual after them, and whether the update fell to epsilon."""
    for _ in range(params.inner_iterations):
        before = flow
        flow = primal_step(flow, dual, data, params)
        dual = dual_step(flow, dual, params)
        if params.epsilon and ((flow - before) ** 2).sum(axis=0).mean() <= params.epsilon**2:
            return flow, dual, True
    return flow, dual, False


def primal_step(flow: Array, dual: Array, data: Linearised, params: TVL1Params) -> Array:
    """Towards rho = 0 by at most lambda theta |gradient|, then down the total variation by its dual."""
    limit = params.lambda_ * params.theta
    rho = data.constant + (data.gradient * flow).sum(axis=0)
    data_step = np.clip(-rho / data.norm, -limit, limit) * data.gradient
    moved: Array = flow + data_step + params.theta * divergence(dual)
    return moved


def dual_step(flow: Array, dual: Array, params: TVL1Params) -> Array:
    """Along the gradient of the flow, back into the unit ball."""
    rate = params.tau / params.theta
    gradient = forward_gradient(flow)
    length = np.sqrt((gradient**2).sum(axis=1, keepdims=True))
    moved: Array = (dual + rate * gradient) / (1 + rate * length)
    return moved


def forward_gradient(flow: Array) -> Array:
    """(..., H, W) -> (..., 2, H, W): forward differences along x and y, zero at the last column and row."""
    along_x = np.diff(flow, axis=-1, append=flow[..., :, -1:])
    along_y = np.diff(flow, axis=-2, append=flow[..., -1:, :])
    return np.stack([along_x, along_y], axis=-3)


def divergence(dual: Array) -> Array:
    """(..., 2, H, W) -> (..., H, W): backward differences, zero outside; minus the adjoint of `forward_gradient`."""
    along_x = np.diff(dual[..., 0, :, :], axis=-1, prepend=0)
    along_y = np.diff(dual[..., 1, :, :], axis=-2, prepend=0)
    return along_x + along_y


def mmcof(
    flow: npt.NDArray[np.float32], params: MMCOFParams, region: npt.NDArray[np.bool_], threads: int = 1
) -> npt.NDArray[np.float32]:
    """(N, 2, 2, H, W), (N, H, W) -> (N, 3, H, W), one clip after the other; `threads` is not used."""
    combined = np.empty((len(flow), 3, *flow.shape[-2:]), np.float32)
    for n in range(len(flow)):
        combined[n] = combine(flow[n].astype(np.float64), params, region[n])
    return combined


def combine(flow: Array, params: MMCOFParams, region: npt.NDArray[np.bool_]) -> Array:
    """(2 phases, 2 components, H, W) -> M' cos a, M' sin a, M' of one clip."""
    weights = (params.theta_1, params.theta_2)
    rise, fall = (
        weight * normalised_magnitude(phase, params, region) for weight, phase in zip(weights, flow, strict=True)
    )
    magnitude = modulated_magnitude(rise + fall, params, region)
    angle = direction(rise, fall, np.arctan2(flow[:, 1] + 0.0, flow[:, 0] + 0.0), params)
    return np.stack([magnitude * np.cos(angle), magnitude * np.sin(angle), magnitude])


def normalised_magnitude(phase: Array, params: MMCOFParams, region: npt.NDArray[np.bool_]) -> Array:
    """Mn_p: 0..1 over the region; 0 everywhere for a phase without motion."""
    magnitude = np.sqrt(phase[0] ** 2 + phase[1] ** 2)
    low, high = magnitude[region].min(), magnitude[region].max()
    if high - low < params.floor_px or high == low:
        return np.zeros_like(magnitude)
    normalised: Array = (magnitude - low) / (high - low)
    return normalised


def modulated_magnitude(combined: Array, params: MMCOFParams, region: npt.NDArray[np.bool_]) -> Array:
    """M': strong motion raised by alpha, weak motion lowered by beta."""
    if not params.modulate:
        return combined.clip(0, 1)
    excess = combined - (combined[region].mean() + params.c * combined[region].std())
    gain: Array = params.beta + (params.alpha - params.beta) * gate(excess, params)
    return (combined * gain).clip(0, 1)


def gate(excess: Array, params: MMCOFParams) -> Array:
    """0 below the threshold, 1 above it; the sigmoid in a form that cannot overflow."""
    if params.gate == "hard":
        return (excess >= 0).astype(excess.dtype)
    opened: Array = 0.5 + 0.5 * np.tanh(0.5 * params.k * excess)
    return opened


def direction(rise: Array, fall: Array, angles: Array, params: MMCOFParams) -> Array:
    """a_c: the angle of the weighted phases together, the fall turned round or not, or that of the rise."""
    if params.direction == "rise":
        rise_angle: Array = angles[0]
        return rise_angle
    sign = -1 if params.direction == "reverse" else 1
    x = rise * np.cos(angles[0]) + sign * fall * np.cos(angles[1])
    y = rise * np.sin(angles[0]) + sign * fall * np.sin(angles[1])
    angle: Array = np.arctan2(y, x)
    return angle
