"""How a head moved between two pictures, and how to take that motion out: from grey values, and from the flow.

Transforms are (2, 3) matrices A that send the pixel x = (x, y) to A [x, y, 1]. The estimates are robust (Tukey's weights), so
that what expressions move does not pull on what the head does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from flowkit.errors import ClipError, FailureCode
from flowkit.face.statistics import median
from flowkit.face.transforms import Transform, similarity
from flowkit.storage.quality import BLANK_STD

if TYPE_CHECKING:
    from flowkit_kernels.cpu.gauss_newton import Level

Image = npt.NDArray[np.float32]
FlowModel = Literal["similarity", "affine"]
_Number = TypeVar("_Number", np.float64, np.complex128)

LOST_BELOW = 0.8
"""Quality below which a registration has lost its way. On 672 pairs of pictures of synthetic people (head still to turned by 15
degrees, shifted by up to 35 px of 224, grimaces, changed exposure and light) all 620 that ended within 3 px of the truth reach it,
and 26 of 27 that ended more than 8 px off do not. It does not tell people apart: another face, well aligned, has 0.70 to 0.85."""
_LEVELS = ((8, 10), (4, 8), (2, 6), (1, 6))
"""(distance of the samples in px, most iterations), coarse to fine; three levels would lose 20 px of drift at 224."""
_MIN_SAMPLES = 24
"""Four for each of the six unknowns; coarser levels of small crops have fewer and are left out."""
_TUKEY_FLOW = 1.5
"""Tight: a sub-pixel local motion is an outlier in the flow, and only there."""
_FLOW_ITERATIONS = 20
_FLOW_SAMPLES = 112
"""Rows and columns of the grid on which the motion left in the flow is fitted: every pixel would say the same again."""


class Registration(NamedTuple):
    """What `RegistrationTarget.register` found.

    Attributes
    ----------
    transform : (2, 3) float64
        Target px -> moving px.
    quality : float
        Correlation of both pictures' grey values in the mask under the transform, outliers left out: 1 for the same picture under
        whatever light. Below `LOST_BELOW` the registration has lost its way. NaN where a picture is blank inside the mask.
    """

    transform: Transform
    quality: float


@dataclass(frozen=True, slots=True)
class RegistrationTarget:
    """The picture that others are registered on; what that needs of it is made once, when it is first asked for.

    Attributes
    ----------
    picture : (N, N) float32
        Grey values.
    mask : (N, N) bool
        Pixels that show what is rigid.
    is_blank : bool
        Whether there is nothing to see inside the mask.
    levels : dict
        By the distance of the samples in px: as far as made, None where the mask leaves too few samples.
    """

    picture: Image
    mask: npt.NDArray[np.bool_]
    is_blank: bool
    levels: dict[int, Level | None]

    @classmethod
    def of(cls, picture: Image, mask: npt.NDArray[np.bool_]) -> RegistrationTarget:
        """Return the target for a crop in [0, 1] and the pixels of it that show what is rigid."""
        plain = np.array(mask, order="C")  # whatever the caller's memory looks like: compiled code knows one kind
        return cls(picture, plain, is_blank(picture, plain), {})

    def register(
        self, moving: Image, where: str = "registration", start: Transform | None = None, finest: int = 1
    ) -> Registration:
        """Estimate the similarity S of the head's motion: moving(S x) = gain reference(x) + offset inside the mask.

        No motion is refused for its size: `quality` tells whether the registration has lost its way.

        Parameters
        ----------
        moving : (N, N) float32 in [0, 1]
            Grey crop on the reference's grid.
        where : str
            What messages call the moving picture.
        start : (2, 3) float64, optional
            A similarity near the motion; the identity by default.
        finest : {1, 2, 4, 8}
            Distance of the samples, px, at which the estimate ends; the least work at 8.

        Returns
        -------
        Registration
            Exactly the start for identical pictures under the identity, and where a picture is blank inside the mask: there is
            nothing to register.

        Raises
        ------
        ClipError
            REGISTRATION_FAILED: too few pixels in the mask, or grey values that are not finite.

        Examples
        --------
        >>> onset = cv2.GaussianBlur(np.random.default_rng(0).random((64, 64), np.float32), (0, 0), 3)
        >>> target = RegistrationTarget.of(onset, np.ones((64, 64), np.bool_))
        >>> transform, quality = target.register(np.roll(onset, 2, axis=1))
        >>> float(transform[0, 2].round(1)), quality > LOST_BELOW
        (2.0, True)
        """
        # Numba takes a third of a second to load, and a process that only plans needs none.
        from flowkit_kernels.cpu.gauss_newton import register_level

        _check_usable(self.picture, moving, self.mask, where)
        transform = np.eye(2, 3) if start is None else start
        if self.is_blank or is_blank(moving, self.mask):
            return Registration(transform, math.nan)
        (factor, shift), quality, grey = _complex(transform), math.nan, _grey_levels(moving)
        for step, iterations in _LEVELS:
            if step < finest and not math.isnan(quality):
                break  # a small mask may leave finer levels only
            if level := self._level(step):
                factor, shift, quality = register_level(level, _smooth(grey, step)[0], (factor, shift), iterations)
        return Registration(similarity(factor, shift), quality)

    def _level(self, step: int) -> Level | None:
        if step not in self.levels:
            self.levels[step] = _level(self.picture, self.mask, step)
        return self.levels[step]


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
    mean, deviation = _mean_and_deviation(moving, mask)
    wanted_mean, wanted_deviation = _mean_and_deviation(reference, mask)
    gain = 1.0 if min(deviation, wanted_deviation) < BLANK_STD else wanted_deviation / deviation
    offset = wanted_mean - gain * mean
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
    return median(np.hypot(flow[0][mask], flow[1][mask]))


def _level(picture: Image, mask: npt.NDArray[np.bool_], step: int) -> Level | None:
    """The reference at one sampling distance, or None where the mask leaves too few samples."""
    from flowkit_kernels.cpu.gauss_newton import make_level

    count = int(np.count_nonzero(mask[::step, ::step]))
    return make_level(*_smooth(_grey_levels(picture), step), mask, step, count) if count >= _MIN_SAMPLES else None


def _grey_levels(picture: Image) -> Image:
    return picture * np.float32(255)


def _smooth(picture: Image, step: int) -> tuple[Image, int]:
    """Picture blurred as far as sampling at this distance asks for, and its pixels' distance: half that of the samples."""
    spacing, sigma = 1, 0.8 if step == 1 else 1.2 * (0.5 * math.sqrt(step * step - 1) + 0.3)
    variance = sigma * sigma
    while 2 * spacing < step:
        picture = cv2.pyrDown(picture)  # which blurs by one of its pixels
        variance -= spacing * spacing
        spacing *= 2
    smooth: Image = cv2.GaussianBlur(picture, (0, 0), math.sqrt(variance) / spacing)
    return smooth, spacing


def _tukey(residuals: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Weights in [0, 1]; zero beyond the cut-off."""
    size = np.abs(residuals)
    scaled = size / (_TUKEY_FLOW * (1.4826 * median(size) + 1e-3))
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
        weights = _tukey(np.abs(flow - np.einsum("i,ip->p", solution, basis)))
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


def _complex(similarity: Transform) -> tuple[complex, complex]:
    """Factor and shift that send x + iy where the matrix sends (x, y)."""
    (a, _, right), (b, _, down) = similarity.tolist()
    return complex(a, b), complex(right, down)


def is_blank(image: Image, mask: npt.NDArray[np.bool_]) -> bool:
    """Whether a picture shows no texture inside a mask that holds at least one pixel."""
    return bool(mask.any()) and _mean_and_deviation(image, mask)[1] < BLANK_STD


def _mean_and_deviation(image: Image, mask: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Mean and standard deviation inside a mask of at least one pixel, in float64."""
    values = image[mask].astype(np.float64)
    mean = values.mean()
    values -= mean
    return float(mean), float(np.sqrt(np.einsum("i,i->", values, values) / len(values)))


def lost(where: str, quality: float) -> ClipError:
    """Return the failure of a registration whose quality lies below `LOST_BELOW`."""
    return ClipError(
        FailureCode.REGISTRATION_FAILED,
        f"{where}: the face could not be registered on that of the onset: under the best motion found, the correlation of "
        f"their grey values is {quality:.2f} and must be at least {LOST_BELOW:g}. The head moved or turned too far, "
        "something hides the face, or the frame shows another scene: check the frame numbers and the picture.",
    )


def _check_usable(reference: Image, moving: Image, mask: npt.NDArray[np.bool_], where: str) -> None:
    if np.count_nonzero(mask) < _MIN_SAMPLES:
        raise ClipError(
            FailureCode.REGISTRATION_FAILED,
            f"{where}: mask must hold at least {_MIN_SAMPLES} pixels; got {np.count_nonzero(mask)}. Check the landmarks.",
        )
    if not (np.isfinite(reference).all() and np.isfinite(moving).all()):
        raise ClipError(
            FailureCode.REGISTRATION_FAILED,
            f"{where}: grey values must be finite; got NaN or infinity. Check the frames.",
        )
