"""How a head moved between two pictures, and how to take that motion out: from grey values, and from the flow.

Transforms are (2, 3) matrices A that send the pixel x = (x, y) to A [x, y, 1]. The estimates are robust (Tukey's weights), so
that what expressions move does not pull on what the head does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from flowkit.errors import ClipError, FailureCode
from flowkit.quality import BLANK_STD

Transform = npt.NDArray[np.float64]
Image = npt.NDArray[np.float32]
FlowModel = Literal["similarity", "affine"]
_Number = TypeVar("_Number", np.float64, np.complex128)

_LEVELS = ((8, 10), (4, 8), (2, 6), (1, 6))
"""(distance of the samples in px, most iterations), coarse to fine; three levels would lose 20 px of drift at 224."""
_MIN_SAMPLES = 24
"""Four for each of the six unknowns; coarser levels of small crops have fewer and are left out."""
_CONVERGED_PX = 0.003
_TUKEY_GREY = 4.685
"""Usual cut-off: 95 % efficient on Gaussian noise."""
_TUKEY_FLOW = 1.5
"""Tight: a sub-pixel local motion is an outlier in the flow, and only there."""
_FLOW_ITERATIONS = 20
_FLOW_SAMPLES = 112
"""Rows and columns of the grid on which the motion left in the flow is fitted: every pixel would say the same again."""
_MAX_SHIFT, _MAX_SCALE = 0.25, 1.25
"""Share of the crop's side, and factor, beyond which a registration has lost its way."""


def fit_similarity(source: npt.ArrayLike, target: npt.ArrayLike) -> Transform:
    """Rotation, size and shift that carry points onto others with the least squared error.

    Parameters
    ----------
    source, target : (P, 2) float
        At least two different points (x, y).

    Returns
    -------
    (2, 3) float64
    """
    a, b = (np.asarray(points, np.float64) @ np.array([1, 1j]) for points in (source, target))
    centred = a - a.mean()
    factor = np.vdot(centred, b) / np.vdot(centred, centred).real
    return _similarity(factor, b.mean() - factor * a.mean())


def compose(outer: Transform, inner: Transform) -> Transform:
    """The transform that applies `inner` first and `outer` to what comes out."""
    return np.column_stack([outer[:, :2] @ inner[:, :2], outer[:, :2] @ inner[:, 2] + outer[:, 2]])


def invert(transform: Transform) -> Transform:
    """The transform that undoes another."""
    inverse: Transform = cv2.invertAffineTransform(transform)
    return inverse


def register(reference: Image, moving: Image, mask: npt.NDArray[np.bool_], where: str = "registration") -> Transform:
    """Similarity S of the head's motion: moving(S x) = gain reference(x) + offset inside the mask.

    Parameters
    ----------
    reference, moving : (N, N) float32 in [0, 1]
        Grey crops on the same grid.
    mask : (N, N) bool
        Pixels of the reference that show what is rigid.
    where : str
        What messages call the moving picture.

    Returns
    -------
    (2, 3) float64
        Reference px -> moving px. Exactly the identity for identical pictures, and where one of them is blank inside the mask:
        there is nothing to register.

    Raises
    ------
    ClipError
        REGISTRATION_FAILED: the motion found is no motion of a head (a shift over a quarter of the crop, a size changed by more
        than a quarter), or there is too little to find one in.

    Notes
    -----
    Gauss-Newton on grey values with the gradients of the reference (inverse compositional), over four sampling distances, with
    gain and offset as two more unknowns. S. Baker, I. Matthews, Lucas-Kanade 20 years on, IJCV 56, 2004.
    """
    transform = np.eye(2, 3)
    _check_usable(reference, moving, mask, where)
    if _is_blank(reference, mask) or _is_blank(moving, mask):
        return transform
    for step, iterations in _LEVELS:
        level = _Level.of(reference, mask, step)
        if level is not None:
            transform = _refine(level, _smooth(moving, step), transform, iterations)
            _check_plausible(transform, len(reference), where)
    return transform


def match_light(reference: Image, moving: Image, mask: npt.NDArray[np.bool_]) -> tuple[Image, float, float]:
    """A picture with the mean and the standard deviation that another has inside the mask.

    Parameters
    ----------
    reference, moving : (N, N) float32
    mask : (N, N) bool

    Returns
    -------
    matched : (N, N) float32
        gain moving + offset; not clipped.
    gain, offset : float
        Gain is 1 where either picture is blank inside the mask: it would blow noise up.
    """
    inside, wanted = moving[mask].astype(np.float64), reference[mask].astype(np.float64)
    blank = _is_blank(reference, mask) or _is_blank(moving, mask)
    gain = 1.0 if blank else float(wanted.std() / inside.std())
    offset = float(wanted.mean() - gain * inside.mean())
    return np.float32(gain) * moving + np.float32(offset), gain, offset


def remove_motion(
    flow: npt.NDArray[np.float32], mask: npt.NDArray[np.bool_], model: FlowModel = "similarity"
) -> tuple[npt.NDArray[np.float32], Transform, float]:
    """Flow without the motion that most of the mask shares: what registration has left of the head's motion.

    Parameters
    ----------
    flow : (2, N, N) float32
        u, v in px.
    mask : (N, N) bool
        Pixels that show what is rigid; at least one.
    model : {"similarity", "affine"}
        "affine" takes more of a turning head away, and 6 to 11 % of a smile with it.

    Returns
    -------
    flow : (2, N, N) float32
    fitted : (2, 3) float64
        What was subtracted: (u, v) = A [x, y, 1]. Exactly zero where there is no motion.
    residual_px : float
        Median length inside the mask of what is left.
    """
    size = flow.shape[-1]
    stride = max(1, size // _FLOW_SAMPLES)
    y, x = np.nonzero(mask[::stride, ::stride])
    y, x = y * stride, x * stride
    fitted = _fit_flow(x, y, flow[0, y, x] + 1j * flow[1, y, x].astype(np.float64), model)
    across, down = np.arange(size), np.arange(flow.shape[-2])[:, None]
    motion = np.stack([row[0] * across + row[1] * down + row[2] for row in fitted])
    left = flow - motion.astype(np.float32)
    return left, fitted, residual_px(left, mask)


def residual_px(flow: npt.NDArray[np.float32], mask: npt.NDArray[np.bool_]) -> float:
    """Median length of the flow (2, N, N) inside the mask, px."""
    return float(np.median(np.hypot(flow[0][mask], flow[1][mask])))


@dataclass(frozen=True, slots=True)
class _Level:
    """The reference at one sampling distance: all that stays the same while the transform is refined.

    Attributes
    ----------
    step : int
        Distance of the samples in px.
    chosen : (n, n) bool
        Samples inside the mask.
    centre, spread_px : (2,) float64 and float
        Origin and unit of the coordinates that the rotation and the size are solved in.
    grey, contrast : (P,) float64
        Samples in 0..255, and the same less their mean.
    jacobian : (6, P) float64
        Change of a sample with shift right, shift down, size, rotation, gain and offset.
    """

    step: int
    chosen: npt.NDArray[np.bool_]
    centre: npt.NDArray[np.float64]
    spread_px: float
    grey: npt.NDArray[np.float64]
    contrast: npt.NDArray[np.float64]
    jacobian: npt.NDArray[np.float64]

    @classmethod
    def of(cls, reference: Image, mask: npt.NDArray[np.bool_], step: int) -> _Level | None:
        """The level, or None where the mask leaves too few samples."""
        chosen = mask[::step, ::step]
        y, x = np.array(np.nonzero(chosen)) * step
        if len(x) < _MIN_SAMPLES:
            return None
        smooth = _smooth(reference, step)
        right, down = (_gradient(smooth, axes)[::step, ::step][chosen] for axes in ((1, 0), (0, 1)))
        grey = smooth[::step, ::step][chosen].astype(np.float64)
        contrast = grey - grey.mean()
        centre, spread = np.array([x.mean(), y.mean()]), max(x.std(), y.std())
        from_left, from_top = (x - centre[0]) / spread, (y - centre[1]) / spread
        size, rotation = right * from_left + down * from_top, down * from_left - right * from_top
        jacobian = np.stack([right, down, size, rotation, contrast, np.ones_like(grey)])
        return cls(step, chosen, centre, float(spread), grey, contrast, jacobian)


def _refine(level: _Level, moving: Image, transform: Transform, iterations: int) -> Transform:
    """Gauss-Newton steps from a start."""
    for _ in range(iterations):
        error = _sample(moving, transform, level) - level.grey
        weights = _tukey(_without_light(error, level.contrast), _TUKEY_GREY)
        step = _least_squares(level.jacobian, weights, error)
        update = _similarity(complex(1 + step[2] / level.spread_px, step[3] / level.spread_px), complex(*step[:2]))
        update[:, 2] += level.centre - update[:, :2] @ level.centre  # it turns about the centre of the samples
        transform = compose(transform, invert(update))
        if np.abs(step[2:4]).max() / level.spread_px * len(moving) + np.abs(step[:2]).max() < _CONVERGED_PX:
            break
    return transform


def _sample(image: Image, transform: Transform, level: _Level) -> npt.NDArray[np.float64]:
    """Grey values of an image at the transformed samples."""
    to_pixels = transform * [level.step, level.step, 1]
    height, width = level.chosen.shape
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = cv2.warpAffine(image, to_pixels, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    samples: npt.NDArray[np.float64] = warped[level.chosen].astype(np.float64)
    return samples


def _smooth(image: Image, step: int) -> Image:
    """Image in 0..255, blurred as far as sampling at this distance asks for."""
    sigma = 0.8 if step == 1 else 1.2 * (0.5 * np.sqrt(step * step - 1) + 0.3)
    smooth: Image = cv2.GaussianBlur(image * np.float32(255), (0, 0), sigma)
    return smooth


def _gradient(image: Image, axes: tuple[int, int]) -> Image:
    gradient: Image = cv2.Sobel(image, cv2.CV_32F, *axes, ksize=3, scale=1 / 8)
    return gradient


def _without_light(error: npt.NDArray[np.float64], contrast: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Errors less what a gain and an offset explain: a change of light makes no outlier."""
    centred: npt.NDArray[np.float64] = (
        error - error.mean() - contrast * float(_dot(contrast, error) / (_dot(contrast, contrast) + 1e-9))
    )
    return centred


def _tukey(residuals: npt.NDArray[np.float64], cutoff: float) -> npt.NDArray[np.float64]:
    """Weights in [0, 1]; zero beyond `cutoff` robust standard deviations."""
    size = np.abs(residuals)
    scaled = size / (cutoff * (1.4826 * np.median(size) + 1e-3))
    weights: npt.NDArray[np.float64] = np.square(np.maximum(1 - scaled * scaled, 0))
    return weights


def _fit_flow(
    x: npt.NDArray[np.int64], y: npt.NDArray[np.int64], flow: npt.NDArray[np.complex128], model: FlowModel
) -> Transform:
    """(2, 3) matrix of the motion that most samples of the flow, u + iv, share.

    Notes
    -----
    In complex numbers a similarity is t + s z and an affine motion t + p x + q y: linear in its coefficients.
    """
    centre, spread = (x.mean(), y.mean()), max(x.std(), y.std(), 1.0)
    across, down = (x - centre[0]) / spread, (y - centre[1]) / spread
    columns = [across + 1j * down] if model == "similarity" else [across, down]
    basis = np.stack([np.ones(len(x)), *columns]).astype(np.complex128)
    weights = np.ones(len(x))
    solution: npt.NDArray[np.complex128] = np.zeros(len(basis), np.complex128)
    for _ in range(_FLOW_ITERATIONS):
        before, solution = solution, _least_squares(basis, weights, flow)
        weights = _tukey(np.abs(flow - np.einsum("i,ip->p", solution, basis)), _TUKEY_FLOW)
        if np.abs(solution - before).max() < 1e-5:
            break
    slopes = (solution[1], 1j * solution[1]) if model == "similarity" else solution[1:]
    a, b = slopes[0] / spread, slopes[1] / spread
    c = solution[0] - a * centre[0] - b * centre[1]
    return np.array([[a.real, b.real, c.real], [a.imag, b.imag, c.imag]])


def _least_squares(
    columns: npt.NDArray[_Number], weights: npt.NDArray[np.float64], target: npt.NDArray[_Number]
) -> npt.NDArray[_Number]:
    """Coefficients of the columns (K, P) that come closest to the target (P,); the smallest, where several do.

    Sums by einsum, not by BLAS: there they would depend on the number of threads.
    """
    weighted = (columns * weights).conj()
    normal, projected = np.einsum("ip,jp->ij", weighted, columns), np.einsum("ip,p->i", weighted, target)
    solution: npt.NDArray[_Number] = np.linalg.lstsq(normal, projected, rcond=None)[0]
    return solution


def _dot(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    return float(np.einsum("p,p->", a, b))


def _similarity(factor: complex, shift: complex) -> Transform:
    return np.array([[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]])


def _is_blank(image: Image, mask: npt.NDArray[np.bool_]) -> bool:
    return bool(image[mask].std(dtype=np.float64) < BLANK_STD)


def _check_usable(reference: Image, moving: Image, mask: npt.NDArray[np.bool_], where: str) -> None:
    if np.count_nonzero(mask) < _MIN_SAMPLES:
        raise ClipError(
            FailureCode.REGISTRATION_FAILED,
            f"{where}: mask must hold at least {_MIN_SAMPLES} pixels; got {np.count_nonzero(mask)}. Check the landmarks, or set "
            "align.stabilise=none.",
        )
    if not (np.isfinite(reference).all() and np.isfinite(moving).all()):
        raise ClipError(
            FailureCode.REGISTRATION_FAILED,
            f"{where}: grey values must be finite; got NaN or infinity. Check the frames.",
        )


def _check_plausible(transform: Transform, size: int, where: str) -> None:
    centre = np.full(2, (size - 1) / 2)
    shift = np.linalg.norm(transform[:, :2] @ centre + transform[:, 2] - centre)
    scale = np.hypot(transform[0, 0], transform[1, 0])
    if not (shift <= _MAX_SHIFT * size and 1 / _MAX_SCALE <= scale <= _MAX_SCALE):
        raise ClipError(
            FailureCode.REGISTRATION_FAILED,
            f"{where}: face must have moved by at most {_MAX_SHIFT:g} of the crop and changed its size by at most "
            f"{_MAX_SCALE - 1:.0%}; got {shift:.1f} of {size} px and a factor of {scale:.2f}. Check the frame numbers, or set "
            "align.stabilise=none.",
        )
