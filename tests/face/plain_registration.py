"""Image registration once more, in plain NumPy and float64: what the compiled loops are held against."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from flowkit.face.transforms import Transform, compose, invert

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

LEVELS = ((8, 10), (4, 8), (2, 6), (1, 6))
SIGMA = {8: 5.122, 4: 2.684, 2: 1.399, 1: 0.8}


def register(
    reference: npt.NDArray[np.float32], moving: npt.NDArray[np.float32], mask: Mask
) -> tuple[Transform, float]:
    """Similarity from reference to moving px, and the weighted correlation under it."""
    transform, quality = np.eye(2, 3), np.nan
    for step, iterations in LEVELS:
        if np.count_nonzero(mask[::step, ::step]) < 24:
            continue
        smooth, warped = (cv2.GaussianBlur(255.0 * image, (0, 0), SIGMA[step]) for image in (reference, moving))
        y, x = np.array(np.nonzero(mask[::step, ::step])) * step
        columns, centre, spread = jacobian(smooth, x, y)
        for _ in range(iterations):
            error = bilinear(warped, transform, x, y) - smooth[y, x]
            shift = weighted_solution(columns, tukey(without_light(error, columns[4])), error)
            transform = compose(transform, invert(update(shift, centre, spread)))
            if np.abs(shift[2:4]).max() / spread * len(mask) + np.abs(shift[:2]).max() < 0.003:
                break
        error = bilinear(warped, transform, x, y) - smooth[y, x]
        quality = correlation(columns[4], columns[4] + error, tukey(without_light(error, columns[4])))
    return transform, quality


def jacobian(smooth: Any, x: Any, y: Any) -> tuple[Array, Array, float]:
    """(6, P) change with shift right and down, size, rotation, gain and offset; centre and spread of the samples."""
    right, down = (cv2.Sobel(smooth, -1, *axes, ksize=3, scale=1 / 8)[y, x] for axes in ((1, 0), (0, 1)))
    grey, centre, spread = smooth[y, x], np.array([x.mean(), y.mean()]), max(x.std(), y.std())
    left, top = (x - centre[0]) / spread, (y - centre[1]) / spread
    columns = [right, down, right * left + down * top, down * left - right * top, grey - grey.mean(), np.ones(len(x))]
    return np.stack(columns), centre, spread


def bilinear(image: Any, transform: Transform, x: Any, y: Any) -> Array:
    u, v = transform @ np.stack([x, y, np.ones(len(x))])
    u, v = u.clip(0, image.shape[1] - 1), v.clip(0, image.shape[0] - 1)
    i, j = np.minimum(u.astype(int), image.shape[1] - 2), np.minimum(v.astype(int), image.shape[0] - 2)
    s, t = u - i, v - j
    top = image[j, i] * (1 - s) + image[j, i + 1] * s
    bottom = image[j + 1, i] * (1 - s) + image[j + 1, i + 1] * s
    grey: Array = top * (1 - t) + bottom * t
    return grey


def without_light(error: Array, contrast: Array) -> Array:
    return error - error.mean() - contrast * (contrast @ error / (contrast @ contrast))  # type: ignore[no-any-return]


def tukey(residuals: Array) -> Array:
    size = np.abs(residuals)
    return np.maximum(1 - (size / (4.685 * (1.4826 * np.median(size) + 1e-3))) ** 2, 0) ** 2  # type: ignore[no-any-return]


def weighted_solution(columns: Array, weights: Array, error: Array) -> Array:
    weighted = columns * weights
    return np.asarray(np.linalg.lstsq(weighted @ columns.T, weighted @ error, rcond=None)[0], np.float64)


def update(step: Array, centre: Array, spread: float) -> Transform:
    a, b = 1 + step[2] / spread, step[3] / spread
    turn = np.array([[a, -b], [b, a]])
    return np.column_stack([turn, step[:2] + centre - turn @ centre])


def correlation(a: Array, b: Array, weights: Array) -> float:
    covariance = np.cov(a, b, aweights=weights)
    return float(covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1]))
