"""What TV-L1 and alignment make of a true flow: `degrade`, for the samples of `flowkit synth --level flow`.

The constants of `Degradation` were measured on extracted clips of synthetic faces. benchmarks/degradation.py measures both, clips
and degraded samples, and prints them side by side. Lengths are shares of the crop's side, because clips of 112 and of 224 px
gave nearly the same shares; so one set of constants serves every size.

The steps, for both phases:

1. Smear: a Gaussian blur.
2. Damping where there is little texture, more so for weak motion: gain = g / (g + half), where g is the local gradient of the
   face and half falls with the peak of the motion. On top comes a smooth random gain.
3. Alignment takes a part of the motion for the head's: a share of the similarity nearest to the flow is subtracted.
4. Noise, correlated at several scales, stronger where there is little texture. Rise and fall share the apex, whose noise has
   opposite signs in them.
5. Outliers: a few small spots in some samples.

A turn of the head out of the plane is no part of this module: it belongs to the flow that is handed in.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Flow = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Degradation:
    """How far a flow is degraded. Measured: see the module.

    Attributes
    ----------
    smear : float
        Standard deviation of the blur, shares of the side; each sample draws a factor from 1/1.5 to 1.5.
    half_gradient : float
        Gradient at which half of a motion with a peak of `PEAK` is measured: grey levels from 0 to 1, per side of the crop.
    half_power : float
        Power of the motion's peak to which that gradient is proportional.
    gain_spread, gain_scale : float
        Standard deviation of the logarithm of the random gain, and its correlation scale (share of the side).
    absorbed : float
        Largest share of the nearest similarity that alignment takes out; small ones are more frequent (square of an even draw).
    noise : float
        Standard deviation of the flow's noise at a noise of one grey level in the frames, shares of the side.
    noise_power : float
        Power of the frames' noise to which it is proportional.
    noise_texture : float
        Power of the local gradient to which it is proportional.
    noise_scales : tuple of (float, float)
        Correlation scale (share of the side; 0 is white) and share of the variance.
    noise_shared : float
        Share of the variance of the noise that comes from the apex, with opposite signs in rise and fall.
    noise_spread : float
        Standard deviation of the logarithm of a smooth factor of the noise.
    outliers : float
        Share of the samples that have some.
    """

    smear: float = 0.016
    half_gradient: float = 1.65
    half_power: float = -0.55
    gain_spread: float = 0.3
    gain_scale: float = 0.06
    absorbed: float = 0.6
    noise: float = 0.72e-4
    noise_power: float = 0.75
    noise_texture: float = -0.25
    noise_scales: tuple[tuple[float, float], ...] = ((0.0, 0.16), (0.022, 0.28), (0.06, 0.56))
    noise_shared: float = 0.38
    noise_spread: float = 0.35
    outliers: float = 0.3


PEAK = 0.005
"""Peak of the motion, as a share of the side, to which `half_gradient` belongs."""
GRADIENT = 2.5
"""Gradient of a usual place in a face, to which `noise` belongs; grey levels from 0 to 1, per side."""
MEASURED = Degradation()
_SPOTS = 6
"""Most outliers of a sample."""


def degrade(
    flow: Flow,
    gradient: Flow,
    rigid: npt.NDArray[np.bool_],
    grey_noise: float,
    rng: np.random.Generator,
    how: Degradation = MEASURED,
) -> Flow:
    """Return what extraction would measure of a flow.

    Parameters
    ----------
    flow : (2 phases, 2 components, S, S) float32
        True flow of rise and fall, px.
    gradient : (2 phases, S, S) float32
        Length of the local gradient of the face that each pixel shows: grey levels from 0 to 1, per side of the crop.
    rigid : (2 phases, S, S) bool
        Where alignment looks for the motion of the head.
    grey_noise : float
        Standard deviation of the noise of each frame, grey levels from 0 to 255.
    rng : numpy.random.Generator
        The same state gives the same result.
    how : Degradation, optional

    Returns
    -------
    (2, 2, S, S) float32

    Examples
    --------
    >>> still, plain = np.zeros((2, 2, 64, 64), np.float32), np.full((2, 64, 64), 2.5, np.float32)
    >>> bool(np.abs(degrade(still, plain, plain > 0, 1.0, np.random.default_rng(0))).max() < 0.1)
    True
    """
    side = flow.shape[-1]
    smear, taken = how.smear * side * 1.5 ** rng.uniform(-1, 1), how.absorbed * rng.uniform() ** 2
    texture = np.maximum(gradient, 1e-3)
    random_gain = np.exp(how.gain_spread * smooth_noise(rng, (2,), side, how.gain_scale * side))
    result = np.empty_like(flow)
    for phase in (0, 1):
        smeared = cv2.GaussianBlur(flow[phase].transpose(1, 2, 0), (0, 0), max(smear, 0.3)).transpose(2, 0, 1)
        peak = float(np.sqrt((smeared**2).sum(axis=0).max())) / side
        half = how.half_gradient * (max(peak, 1e-5) / PEAK) ** how.half_power
        damped = smeared * (random_gain[phase] * texture[phase] / (texture[phase] + half))
        result[phase] = damped - taken * nearest_similarity(damped, rigid[phase] * texture[phase] ** 2)
    result += _noise(texture, grey_noise, rng, how)
    if rng.random() < how.outliers:
        _spoil(result, rng)
    return result


def _noise(texture: Flow, grey_noise: float, rng: np.random.Generator, how: Degradation) -> Flow:
    """Noise of both phases."""
    side = texture.shape[-1]
    fields = np.zeros((6, side, side), np.float32)
    for scale, share in how.noise_scales:
        fields += np.float32(np.sqrt(share)) * smooth_noise(rng, (6,), side, scale * side)
    apex, own = fields[:2], fields[2:].reshape(2, 2, side, side)
    unit = np.sqrt(how.noise_shared) * np.stack([apex, -apex]) + np.sqrt(1 - how.noise_shared) * own
    uneven = np.exp(how.noise_spread * smooth_noise(rng, (1,), side, 0.1 * side))
    strength = how.noise * side * grey_noise**how.noise_power if grey_noise else 0.0
    local = strength * np.minimum((texture / GRADIENT) ** how.noise_texture, 2) * uneven
    return np.asarray(unit * local[:, None], np.float32)


def _spoil(flow: Flow, rng: np.random.Generator) -> None:
    """Add spots as wide as some pixels and as strong as the motion."""
    side = flow.shape[-1]
    strength = float(np.abs(flow).max())
    for _ in range(rng.integers(1, _SPOTS + 1)):
        phase, y, x = rng.integers(2), *rng.integers(0, side, 2)
        half = max(1, round(0.012 * side * rng.uniform(0.5, 1.5)))
        spot = flow[phase, :, max(0, y - half) : y + half, max(0, x - half) : x + half]
        spot += (0.3 * strength * rng.standard_normal(2)).astype(np.float32)[:, None, None]


def nearest_similarity(flow: Flow, weight: Flow) -> Flow:
    """Return the field of the shift, turn and size in the plane that is nearest to a flow in the mean square.

    Parameters
    ----------
    flow : (2, S, S) float32
    weight : (S, S) float32
        How much each pixel counts. Registration of grey values weighs by the squared gradient. Every second pixel is looked at.

    Returns
    -------
    (2, S, S) float32
        0 where nothing counts.
    """
    side = flow.shape[-1]
    y, x = np.indices((side, side), np.float32)
    place, motion = (x + 1j * y).astype(np.complex64), (flow[0] + 1j * flow[1]).astype(np.complex64)
    there, moved, share = (values[::2, ::2] for values in (place, motion, weight))
    total = float(share.sum())
    if not total > 0:
        return np.zeros_like(flow)
    middle, shift = (share * there).sum() / total, (share * moved).sum() / total
    apart = there - middle
    turn = (share * apart.conj() * moved).sum() / max(float((share * np.abs(apart) ** 2).sum()), 1e-9)
    field = shift + turn * (place - middle)
    return np.stack([field.real, field.imag]).astype(np.float32)


def smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], side: int, scale: float) -> Flow:
    """Return Gaussian noise of variance 1, (*shape, side, side), the blur of white noise by `scale` px; white below half a pixel.

    Wide noise is made on a coarse grid and enlarged.

    Examples
    --------
    >>> bool(abs(smooth_noise(np.random.default_rng(0), (40,), 64, 4.0).std() - 1) < 0.1)
    True
    """
    count = int(np.prod(shape))
    if scale < 0.5:
        return rng.standard_normal((*shape, side, side), np.float32)
    step = max(1.0, scale / 1.6)
    sigma = scale / step
    margin = int(np.ceil(2.5 * sigma))
    coarse = int(np.ceil(side / step)) + 2 + 2 * margin
    result = np.empty((count, side, side), np.float32)
    white = rng.standard_normal((count, coarse, coarse), np.float32)
    map_to = np.array([[1 / step, 0, margin + 0.5], [0, 1 / step, margin + 0.5]])
    for field, target in zip(white, result, strict=True):
        blurred = cv2.GaussianBlur(field, (0, 0), sigma)
        if step > 1:
            target[:] = cv2.warpAffine(blurred, map_to, (side, side), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        else:
            target[:] = blurred[margin : margin + side, margin : margin + side]
    # what blur and interpolation leave of the variance
    result *= 2 * np.sqrt(np.pi) * np.sqrt(sigma**2 + (1 / 6 if step > 1 else 0))
    return result.reshape(*shape, side, side)
