"""Pyramids of images on the CPU, with Numba, and the flow on its way from one level to the next."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from flowkit_kernels.cpu.simd import F32, ONE, U64, inlined
from flowkit_kernels.numba_shared import WHITE
from flowkit_kernels.params import MIN_SIZE

Image = npt.NDArray[np.float32]


@inlined
def pyramid(image: Image, scales: int, scale_step: float) -> list[Image]:
    """The image in 0..255 and its smaller versions, finest first; no level is smaller than 16 px."""
    levels = [image * WHITE]
    step = 1 / scale_step
    for _ in range(scales - 1):
        height, width = levels[-1].shape
        height, width = round(height * scale_step), round(width * scale_step)
        if min(height, width) < MIN_SIZE:
            break
        levels.append(resize(levels[-1], (height, width), step, step))
    return levels


@inlined
def finer(component: Image, shape: tuple[int, int], scale_step: float) -> Image:
    """One component of the flow on the next finer level, in its pixels."""
    height, width = component.shape
    resized = resize(component, shape, height / shape[0], width / shape[1])
    return resized * F32(1 / scale_step)


@inlined
def resize(image: Image, shape: tuple[int, int], step_y: float, step_x: float) -> Image:
    """Bilinear, with half-pixel centres and no smoothing; a pixel of the result is `step` pixels of the image wide."""
    result = np.empty(shape, F32)
    height, width = image.shape
    columns, right = np.empty(shape[1], U64), np.empty(shape[1], F32)
    for x in range(shape[1]):
        columns[x], right[x] = neighbours(x, step_x, width)
    for y in range(shape[0]):
        row, bottom = neighbours(y, step_y, height)
        for x in range(shape[1]):
            i, weight = columns[x], right[x]
            above = image[row, i] * (F32(1) - weight) + image[row, i + ONE] * weight
            below = image[row + ONE, i] * (F32(1) - weight) + image[row + ONE, i + ONE] * weight
            result[y, x] = above * (F32(1) - bottom) + below * bottom
    return result


@inlined
def neighbours(target: int, step: float, size: int) -> tuple[np.uint64, np.float32]:
    """First of the two pixels that a target pixel lies between, and the weight of the second."""
    centre = min(max((target + 0.5) * step - 0.5, 0.0), size - 1.0)
    first = min(int(centre), size - 2)
    return U64(first), F32(centre - first)
