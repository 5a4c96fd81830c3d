"""What a face shows beside its noise, and how the solver sees it: the same motion has one length, bright or dark.

TV-L1 weighs differences of grey values against the smoothness of the flow. Half the contrast is half the weight: the same
motion would come out shorter in a dark recording, or on dark skin. So the solver sees the pictures of each clip blurred and
multiplied:

    blur        = BLUR_PX noise / contrast, within MIN_BLUR_PX and MAX_BLUR_PX
    data weight = CONTRAST / contrast / (1 + (noise / (NOISIEST contrast))^4)

CONTRAST / contrast makes the weight independent of contrast. That amplifies noise, and where noise is much of what there is, the
weight falls, so that amplified noise is not taken for motion. Noise also shortens the flow; the blur grows with it and takes some
of it away. Some blur helps in any case: detail that is finer than the motion misleads.

The constants were chosen on synthetic people together with the solver's preset "micro": at peaks of 0.1 to 6 px, with noise of 1 to
4 grey levels and at exposures of 0.25 to 1 (benchmarks/solver.py, exposure.py). Little weight costs length where motion is strong,
much weight turns noise into motion where it is faint. To the solver a quarter of the exposure is four times the noise: what keeps
the length there costs some accuracy of faint motion in noisy recordings.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import cv2
import numpy as np
import numpy.typing as npt

from flowkit.face.statistics import median

CONTRAST = 25.0
"""Contrast at which the data weight is 1, grey levels of 0 to 255: that of a usual face at full exposure."""
BLUR_PX = 9.0
"""Standard deviation of the blur for noise of the strength of the contrast."""
MIN_BLUR_PX, MAX_BLUR_PX = 0.5, 0.9
NOISIEST = 0.2
"""Noise relative to contrast at which the data weight is halved."""
DARKEST = 0.17
"""Noise relative to contrast above which the length of the flow cannot be trusted: at most 0.15 at full exposure and noise 2."""
MIN_WEIGHT, MAX_WEIGHT = 0.25, 16.0
ROUNDING = 12**-0.5
"""Noise that rounding to 8 bits leaves in every picture, grey levels. Differences do not show it where nothing else changes."""

_GREY = 255.0
_REACH_PX = 2.0
"""Distance of the pixels that the noise is measured from, in pixels of the frame: neighbours share noise after resampling."""
_STRIDE = 2
_DIFFERENCE_OF_NOISE = math.sqrt(2 * 36)
"""Standard deviation of a second difference in both directions of a difference of two pictures, relative to their noise."""
_NORMAL = 1.4826
"""Standard deviation relative to the median absolute value, of a normal distribution."""


@dataclass(frozen=True, slots=True)
class Signal:
    """Noise and contrast of a clip's face.

    Attributes
    ----------
    noise : float
        Standard deviation of the noise in one crop, grey levels of 0 to 255; 0 where all pictures are the same.
    contrast : float
        Standard deviation of the onset inside the face without that noise, grey levels.
    data_weight : float
        Factor of the grey values that the solver sees; 1 leaves them as they are.
    blur_px : float
        Standard deviation of the blur of the pictures that the solver sees; 0 leaves them as they are.
    """

    noise: float
    contrast: float
    data_weight: float = 1.0
    blur_px: float = 0.0

    @classmethod
    def of(
        cls,
        pixels: npt.NDArray[np.float32],
        inside: npt.NDArray[np.bool_],
        valid: Sequence[bool] = (True, True),
        enlarged: float = 1.0,
        match: bool = True,
    ) -> Self:
        """Measure a clip's face and choose how the solver sees it.

        Parameters
        ----------
        pixels : (3, N, N) float32 in [0, 1]
            Aligned onset, apex and offset.
        inside : (N, N) bool
            Pixels of the face; at least one.
        valid : (bool, bool)
            Whether rise and fall have a length.
        enlarged : float
            Crop pixels per frame pixel.
        match : bool
            Choose weight and blur; otherwise the solver sees the pictures as they are.

        Returns
        -------
        Signal

        Examples
        --------
        >>> rng = np.random.default_rng(0)
        >>> face = np.linspace(0.3, 0.7, 64, dtype=np.float32) + 2 / 255 * rng.standard_normal((3, 64, 64), np.float32)
        >>> signal = Signal.of(face, np.ones((64, 64), np.bool_))
        >>> round(signal.noise), round(signal.contrast)
        (2, 30)
        """
        noise = measure_noise(pixels, inside, valid, enlarged)
        spread = float(pixels[0][inside].std(dtype=np.float64)) * _GREY
        contrast = math.sqrt(max(spread**2 - noise**2, 0.0))
        if not match:
            return cls(noise, contrast)
        blur_px = min(max(BLUR_PX * _noise_share(noise, contrast), MIN_BLUR_PX), MAX_BLUR_PX)
        return cls(noise, contrast, data_weight(noise, contrast), blur_px)

    @property
    def is_dark(self) -> bool:
        """Return whether contrast is too low beside the noise for the length of the flow to be trusted."""
        return _noise_share(self.noise, self.contrast) > DARKEST

    def apply(self, pixels: npt.NDArray[np.float32]) -> None:
        """Turn pictures (3, N, N) into what the solver sees, in place: blurred and multiplied."""
        if self.data_weight != 1:
            pixels *= np.float32(self.data_weight)
        if self.blur_px:
            for picture in pixels:
                cv2.GaussianBlur(picture, (0, 0), self.blur_px, dst=picture)


UNMATCHED = Signal(0.0, 0.0)
"""Nothing was measured, and the solver sees the pictures as they are."""


def data_weight(noise: float, contrast: float) -> float:
    """Return the factor of the grey values that makes the flow independent of exposure; see the module.

    Parameters
    ----------
    noise, contrast : float, in grey levels
        As of `Signal`.

    Examples
    --------
    >>> round(data_weight(1.0, 25.0), 2), round(data_weight(1.0, 10.0), 2)
    (1.0, 2.4)
    """
    amplified = _noise_share(noise, contrast) / NOISIEST
    return min(max(CONTRAST / max(contrast, 1.0) / (1 + amplified**4), MIN_WEIGHT), MAX_WEIGHT)


def _noise_share(noise: float, contrast: float) -> float:
    """Noise relative to contrast."""
    return max(noise, ROUNDING) / max(contrast, 1.0)


def measure_noise(
    pixels: npt.NDArray[np.float32],
    inside: npt.NDArray[np.bool_],
    valid: Sequence[bool] = (True, True),
    enlarged: float = 1.0,
) -> float:
    """Return the noise of one crop, grey levels, from the differences of the frames of each phase.

    Parameters
    ----------
    pixels, inside, valid, enlarged
        As of `Signal.of`.

    Returns
    -------
    float
        The lower value of the two phases: an expression or a turn adds to it. Phases whose frames are the same say nothing.

    Notes
    -----
    In a difference of aligned pictures the skin's texture cancels. Second differences in both directions remove what light and
    broad motion leave, and the median ignores places that move.
    """
    step = max(1, min(round(_REACH_PX * max(enlarged, 1.0)), len(inside) // 8))
    pairs = itertools.compress(itertools.pairwise(pixels), valid)
    found = [_noise(moving - reference, inside, step) for reference, moving in pairs]
    return min((noise for noise in found if noise > 0), default=0.0)


def _noise(difference: npt.NDArray[np.float32], inside: npt.NDArray[np.bool_], step: int) -> float:
    second = _second_difference(_second_difference(difference, step).T, step).T
    chosen = second[inside[step:-step:_STRIDE, step:-step:_STRIDE]]
    if not chosen.size:
        return 0.0
    return median(np.abs(chosen)) * _NORMAL / _DIFFERENCE_OF_NOISE * _GREY


def _second_difference(plane: npt.NDArray[np.float32], step: int) -> npt.NDArray[np.float32]:
    """Second differences of rows `step` apart, at every second row."""
    before, here, behind = plane[: -2 * step : _STRIDE], plane[step:-step:_STRIDE], plane[2 * step :: _STRIDE]
    return before - np.float32(2) * here + behind
