"""Image registration at one sampling distance: robust Gauss-Newton steps towards the similarity between two pictures, with Numba.

The steps are inverse compositional: gradients are those of the reference, so all that a step needs of it is made once, in `Level`.
Each step samples the moving picture, sets outliers' weights by Tukey's function, and solves for shift, size, rotation, gain and
offset. S. Baker, I. Matthews, Lucas-Kanade 20 years on, IJCV 56, 2004.

A similarity sends the pixel z = x + iy to factor z + shift, in complex numbers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from flowkit_kernels.cpu.simd import F32, I32, inlined, njit

Image = npt.NDArray[np.float32]
Similarity = tuple[complex, complex]
"""Factor and shift."""

UNKNOWNS = 6
TUKEY = 4.685
"""Usual cut-off, in robust standard deviations: 95 % efficient on Gaussian noise."""
CONVERGED_PX = 0.003
DAMPING = 1e-6
"""Share added to the diagonal: what nothing in the picture decides stays as it is. The end of the steps stays the same."""
LARGEST_FACTOR = 2.0
"""Change of size beyond which the steps have lost their way: they end before it."""

X, Y, GREY, FIRST, CONTRAST, ROWS = 0, 1, 2, 3, 7, 9
"""Rows of `Level.samples`: place, grey value, from FIRST on a column for each unknown, of which CONTRAST is the gain's."""
BLOCK = 1024
"""Samples whose sums are taken in float32; they and their columns stay in the nearest cache."""


class Level(NamedTuple):
    """The reference at one sampling distance.

    Attributes
    ----------
    samples : (9, P) float32
        x and y in px of the picture; grey value; its change with shift right and down, size, rotation, gain (grey value less the
        mean of all) and offset (1).
    spacing : float
        Px of the picture between two pixels of the smoothed images.
    centre : complex
        Mean of x + iy.
    spread : float
        Unit of the distance from the centre that size and rotation are solved in, px.
    side : float
        Of the picture, px: a shift beyond it has lost its way.
    """

    samples: Image
    spacing: float
    centre: complex
    spread: float
    side: float


@njit
def make_level(smooth: Image, spacing: int, mask: npt.NDArray[np.bool_], step: int, count: int) -> Level:
    """Take a level of the reference.

    Parameters
    ----------
    smooth : (h, w) float32
        The reference, smoothed; its pixel (i, j) is the picture's (i spacing, j spacing).
    spacing : int
        A divisor of `step`.
    mask : (N, N) bool
        Which pixels of the picture may be sampled.
    step : int
        Distance of the samples, px of the picture.
    count : int
        True values of mask[::step, ::step]; at least one.
    """
    samples = np.empty((ROWS, count), np.float32)
    height, width = mask.shape
    i = 0
    for y in range(0, height, step):
        for x in range(0, width, step):
            if mask[y, x]:
                row, column = y // spacing, x // spacing
                samples[X, i], samples[Y, i], samples[GREY, i] = x, y, smooth[row, column]
                samples[FIRST, i], samples[FIRST + 1, i] = gradient(smooth, row, column, spacing)
                i += 1
    across, along = mean_and_deviation(samples[X]), mean_and_deviation(samples[Y])
    centre, spread, grey = complex(across[0], along[0]), max(across[1], along[1]), mean_and_deviation(samples[GREY])[0]
    for i in range(count):
        left, top = (samples[X, i] - centre.real) / spread, (samples[Y, i] - centre.imag) / spread
        right, down = samples[FIRST, i], samples[FIRST + 1, i]
        samples[FIRST + 2, i], samples[FIRST + 3, i] = right * left + down * top, down * left - right * top
        samples[CONTRAST, i], samples[CONTRAST + 1, i] = samples[GREY, i] - grey, 1
    return Level(samples, float(spacing), centre, spread, float(height))


@inlined
def gradient(image: Image, y: int, x: int, spacing: int) -> tuple[Any, Any]:
    """Change of grey per px of the picture to the right and down, by Sobel's filter; the edge reflects."""
    above, below = abs(y - 1), image.shape[0] - 1 - abs(image.shape[0] - 2 - y)
    before, behind = abs(x - 1), image.shape[1] - 1 - abs(image.shape[1] - 2 - x)
    falling, rising = image[below, behind] - image[above, before], image[above, behind] - image[below, before]
    share = F32(1 / (8 * spacing))
    right = falling + rising + 2 * (image[y, behind] - image[y, before])
    down = falling - rising + 2 * (image[below, x] - image[above, x])
    return right * share, down * share


@inlined
def mean_and_deviation(values: Image) -> tuple[Any, Any]:
    """Mean and standard deviation, in float64."""
    total, square = 0.0, 0.0
    for i in range(len(values)):
        total += values[i]
        square += np.float64(values[i]) * values[i]
    mean = total / len(values)
    return mean, np.sqrt(max(square / len(values) - mean * mean, 1e-9))


@njit
def register_level(level: Level, moving: Image, start: Similarity, iterations: int) -> tuple[complex, complex, float]:
    """Take Gauss-Newton steps from a start.

    Parameters
    ----------
    level : Level
    moving : (h, w) float32
        Smoothed as the reference was.
    start : (complex, complex)
        Factor and shift, px of the picture.
    iterations : int
        The most steps.

    Returns
    -------
    factor, shift : complex
        Reference px -> moving px.
    correlation : float
        Of both pictures' samples at the end.
    """
    factor, shift = start
    samples, left = level.samples, iterations
    # One block: at a distance that depends on where the heap puts arrays, a loop would run in vectors or not, and round otherwise.
    error, weight, contrast = np.empty((3, samples.shape[1]), np.float32)
    contrast[:] = samples[CONTRAST]
    equations = np.empty((UNKNOWNS, UNKNOWNS + 1))
    while True:
        sample(level, moving, factor, shift, error)
        without_light(contrast, error, weight)
        tukey(weight)
        if left == 0:
            return factor, shift, correlation(samples, error, weight)
        normal_equations(samples, error, weight, equations)
        solve(equations)
        factor, shift, going = stepped(level, factor, shift, equations[:, UNKNOWNS])
        left = left - 1 if going else 0


@inlined
def stepped(
    level: Level, factor: complex, shift: complex, step: npt.NDArray[np.float64]
) -> tuple[complex, complex, bool]:
    """Factor and shift after a step, and whether another one may change them."""
    moved = factor / complex(1 + step[2] / level.spread, step[3] / level.spread)  # about the centre of the samples
    place = shift + factor * level.centre - moved * (level.centre + complex(step[0], step[1]))
    away = moved * level.centre + place - level.centre
    if not (1 / LARGEST_FACTOR < abs(moved) < LARGEST_FACTOR and abs(away) < level.side):
        return factor, shift, False
    turned = max(abs(step[2]), abs(step[3])) / level.spread * level.side
    return moved, place, turned + max(abs(step[0]), abs(step[1])) >= CONVERGED_PX


@inlined
def sample(level: Level, moving: Image, factor: complex, shift: complex, error: Image) -> None:
    """Set errors to moving(factor z + shift) - reference(z), bilinear; the picture's edge goes on beyond it."""
    samples = level.samples
    a, b = F32(factor.real / level.spacing), F32(factor.imag / level.spacing)
    right, down = F32(shift.real / level.spacing), F32(shift.imag / level.spacing)
    last_row, last_column = I32(moving.shape[0] - 2), I32(moving.shape[1] - 2)
    zero, one = F32(0), F32(1)
    for i in range(samples.shape[1]):
        x = a * samples[X, i] - b * samples[Y, i] + right
        y = b * samples[X, i] + a * samples[Y, i] + down
        column, row = min(max(I32(x), I32(0)), last_column), min(max(I32(y), I32(0)), last_row)
        across, along = min(max(x - F32(column), zero), one), min(max(y - F32(row), zero), one)
        top = moving[row, column] + across * (moving[row, column + 1] - moving[row, column])
        bottom = moving[row + 1, column] + across * (moving[row + 1, column + 1] - moving[row + 1, column])
        error[i] = top + along * (bottom - top) - samples[GREY, i]


@inlined
def without_light(contrast: Image, error: Image, size: Image) -> None:
    """Set sizes to |error less what a gain and an offset explain|: a change of light makes no outlier."""
    count = len(contrast)
    total, common, norm = 0.0, 0.0, 1e-9
    for i in range(count):
        wide = np.float64(contrast[i])
        total += error[i]
        common += wide * error[i]
        norm += wide * wide
    mean, gain = F32(total / count), F32(common / norm)
    for i in range(count):
        size[i] = abs(error[i] - mean - gain * contrast[i])


@inlined
def middle(bits: npt.NDArray[np.int32]) -> Any:
    """Median of non-negative float32 numbers given by their bits, the upper one of two, 2**-13 of it too small at most.

    Their bits rise with them: bit by bit, the largest that has no more than half of them below it.
    """
    found, half = I32(0), I32(len(bits) // 2)
    for place in range(30, 9, -1):
        candidate, below = I32(found | I32(1 << place)), I32(0)
        for i in range(len(bits)):
            below += I32(bits[i] < candidate)
        if below <= half:
            found = candidate
    median = I32(found)
    return median.view(np.float32)


@inlined
def normal_equations(samples: Image, error: Image, weight: Image, equations: npt.NDArray[np.float64]) -> None:
    """Sums of weight column column and weight column error, into the upper half of (6, 7); float32 within a block only."""
    equations[:] = 0
    for start in range(0, len(error), BLOCK):
        end = start + BLOCK
        for j in range(UNKNOWNS):
            column = samples[FIRST + j]
            for k in range(j, UNKNOWNS):
                other = samples[FIRST + k]
                equations[j, k] += weighted(weight[start:end], column[start:end], other[start:end])
            equations[j, UNKNOWNS] += weighted(weight[start:end], column[start:end], error[start:end])


@inlined
def weighted(weight: Image, a: Image, b: Image) -> Any:
    """Sum of weight a b."""
    total = F32(0)
    for i in range(len(weight)):
        total += weight[i] * a[i] * b[i]
    return total


@inlined
def tukey(size: Image) -> None:
    """Sizes of residuals become weights in [0, 1], 0 beyond the cut-off, in place."""
    scale = F32(1 / (TUKEY * (1.4826 * middle(size.view(np.int32)) + 1e-3)))
    for i in range(len(size)):
        share = size[i] * scale
        inside = max(F32(1) - share * share, F32(0))
        size[i] = inside * inside


@inlined
def solve(equations: npt.NDArray[np.float64]) -> None:
    """Solution of symmetric equations (6, 7) whose upper half is given, into their last column: L D L^T without pivots."""
    for j in range(UNKNOWNS):
        equations[j, j] += DAMPING * equations[j, j] + 1e-9
    for j in range(UNKNOWNS):
        for k in range(j + 1, UNKNOWNS):
            share = equations[j, k] / equations[j, j]
            for m in range(k, UNKNOWNS + 1):
                equations[k, m] -= share * equations[j, m]
    for j in range(UNKNOWNS - 1, -1, -1):
        for k in range(j + 1, UNKNOWNS):
            equations[j, UNKNOWNS] -= equations[j, k] * equations[k, UNKNOWNS]
        equations[j, UNKNOWNS] /= equations[j, j]


@inlined
def correlation(samples: Image, error: Image, weight: Image) -> Any:
    """Weighted correlation of the reference's samples with the moving picture's; 0 where either is flat."""
    total, mean, moved_mean, norm, moved_norm, common = 1e-9, 0.0, 0.0, 1e-9, 1e-9, 0.0
    for i in range(len(error)):
        w, contrast = np.float64(weight[i]), np.float64(samples[CONTRAST, i])
        moved = contrast + error[i]
        total += w
        mean += w * contrast
        moved_mean += w * moved
        norm += w * contrast * contrast
        moved_norm += w * moved * moved
        common += w * contrast * moved
    norm, moved_norm = norm - mean * mean / total, moved_norm - moved_mean * moved_mean / total
    return (common - mean * moved_mean / total) / np.sqrt(norm * moved_norm)
