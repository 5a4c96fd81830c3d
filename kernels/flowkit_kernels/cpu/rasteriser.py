"""Triangles to pixels: a depth buffer, what each pixel shows of them, and a texture sampled there.

`rasterise` finds, for each pixel centre, the nearest triangle that faces the camera and where in it the pixel lies.
`interpolate` and `shade` then look up what the corners of that triangle carry. So one rasterised frame serves its grey values,
its flow and its depth.

Within a triangle everything is linear in screen coordinates, motion too. So the flow that `interpolate` gives is exactly the motion
of the texture that `shade` draws, as long as the same triangle is seen.

Numba compiles all of it; arrays in, arrays out. Axes: x to the right, y down, pixel centres at whole numbers, larger z is nearer.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from flowkit_kernels.cpu.simd import inlined, njit

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]

NOTHING = -1
"""What `hit` holds where no triangle is seen."""
FARTHEST = np.float32(-1e30)


@njit
def rasterise(points: Floats, triangles: Ints, hit: Ints, inside: Floats, depth: Floats) -> None:
    """Find the triangle that each pixel shows.

    Parameters
    ----------
    points : (V, 3) float32
        x and y in pixels; z, larger is nearer.
    triangles : (T, 3) int32
        Counter-clockwise in y-up coordinates as seen from the front. The others face away and are left out.
    hit : (H, W) int32
        Result: number of the triangle, or `NOTHING`.
    inside : (H, W, 2) float32
        Result: weights of its first and second corner; that of the third is what is left of 1.
    depth : (H, W) float32
        Result: z, `FARTHEST` where there is nothing.
    """
    height, width = hit.shape
    hit[:] = NOTHING
    depth[:] = FARTHEST
    for t in range(triangles.shape[0]):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        x0, y0, x1, y1, x2, y2 = points[a, 0], points[a, 1], points[b, 0], points[b, 1], points[c, 0], points[c, 1]
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if area >= 0:  # y points down here, so a front side turns the other way round
            continue
        left, right = max(0, math.ceil(min(x0, x1, x2))), min(width - 1, math.floor(max(x0, x1, x2)))
        top, bottom = max(0, math.ceil(min(y0, y1, y2))), min(height - 1, math.floor(max(y0, y1, y2)))
        z0, z1, z2 = points[a, 2], points[b, 2], points[c, 2]
        share = np.float32(1) / area
        for y in range(top, bottom + 1):
            begin, end = _span(x0, y0, x1, y1, x2, y2, share, y, left, right)
            for x in range(begin, end + 1):
                w0 = ((x1 - x) * (y2 - y) - (x2 - x) * (y1 - y)) * share
                w1 = ((x2 - x) * (y0 - y) - (x0 - x) * (y2 - y)) * share
                w2 = np.float32(1) - w0 - w1
                if min(w0, w1, w2) < 0:  # one branch: the processor cannot foresee any of three
                    continue
                z = w0 * z0 + w1 * z1 + w2 * z2
                if z > depth[y, x]:
                    depth[y, x], hit[y, x] = z, t
                    inside[y, x, 0], inside[y, x, 1] = w0, w1


@inlined
def _span(x0: Any, y0: Any, x1: Any, y1: Any, x2: Any, y2: Any, share: Any, y: int, left: int, right: int) -> Any:
    """First and last pixel of a row, from `left` to `right`, that may lie in a triangle: half of those around it do not."""
    w0 = ((x1 - left) * (y2 - y) - (x2 - left) * (y1 - y)) * share
    w1 = ((x2 - left) * (y0 - y) - (x0 - left) * (y2 - y)) * share
    by_0, by_1 = (np.float64(y1) - y2) * share, (np.float64(y2) - y0) * share  # what one pixel to the right adds
    begin, end = np.float64(left), np.float64(right)
    for weight, by in ((w0, by_0), (w1, by_1), (1 - w0 - w1, -by_0 - by_1)):
        if by > 0:
            begin = min(max(begin, left - weight / by), np.float64(right + 1))
        elif by < 0:
            end = max(min(end, left - weight / by), np.float64(left - 1))
    return math.floor(begin), math.ceil(end)


@njit
def interpolate(hit: Ints, inside: Floats, triangles: Ints, carried: Floats, result: Floats) -> None:
    """Interpolate what corners carry, (V, K) float32, into `result`, (K, H, W) float32; 0 where there is nothing."""
    height, width = hit.shape
    for y in range(height):
        for x in range(width):
            t = hit[y, x]
            if t < 0:
                for k in range(carried.shape[1]):
                    result[k, y, x] = 0
                continue
            corners, weights = (triangles[t, 0], triangles[t, 1], triangles[t, 2]), (inside[y, x, 0], inside[y, x, 1])
            for k in range(carried.shape[1]):
                result[k, y, x] = _at(corners, weights, carried, k)


@njit
def shade(
    hit: Ints, inside: Floats, triangles: Ints, places: Floats, light: Floats, texture: Floats, picture: Floats
) -> None:
    """Draw a textured surface over a picture.

    Parameters
    ----------
    hit, inside, triangles
        As of `rasterise`.
    places : (V, 2) float32
        Where in the texture each corner lies, px; kept one pixel off its edges.
    light : (V,) float32
        Factor of the grey value at each corner.
    texture : (h, w) float32
        Sampled by Keys' bicubic interpolation, a = -1/2.
    picture : (H, W) float32
        Drawn over where there is a triangle, left as it is elsewhere.
    """
    height, width = hit.shape
    for y in range(height):
        for x in range(width):
            t = hit[y, x]
            if t >= 0:
                corners, weights = triangles[t], inside[y, x]
                grey = _bicubic(texture, _at(corners, weights, places, 0), _at(corners, weights, places, 1))
                a, b, c = corners[0], corners[1], corners[2]
                w0, w1 = weights[0], weights[1]
                picture[y, x] = grey * (w0 * light[a] + w1 * light[b] + (1 - w0 - w1) * light[c])


@njit
def normals(points: Floats, triangles: Ints, result: Floats) -> None:
    """Unit normals of a surface at its corners, (V, 3) float32: the mean of the triangles around, weighted by their areas."""
    result[:] = 0
    for t in range(triangles.shape[0]):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        u0, u1, u2 = points[b, 0] - points[a, 0], points[b, 1] - points[a, 1], points[b, 2] - points[a, 2]
        v0, v1, v2 = points[c, 0] - points[a, 0], points[c, 1] - points[a, 1], points[c, 2] - points[a, 2]
        n0, n1, n2 = u1 * v2 - u2 * v1, u2 * v0 - u0 * v2, u0 * v1 - u1 * v0
        for k in range(3):
            corner = triangles[t, k]
            result[corner, 0] += n0
            result[corner, 1] += n1
            result[corner, 2] += n2
    for i in range(result.shape[0]):
        length = math.sqrt(result[i, 0] ** 2 + result[i, 1] ** 2 + result[i, 2] ** 2)
        if length > 0:
            for k in range(3):
                result[i, k] /= length


@inlined
def _at(corners: Any, weights: Any, carried: Floats, k: int) -> Any:
    """Value `k` at one place of a triangle."""
    w0, w1 = weights[0], weights[1]
    return w0 * carried[corners[0], k] + w1 * carried[corners[1], k] + (1 - w0 - w1) * carried[corners[2], k]


@inlined
def _bicubic(texture: Floats, x: Any, y: Any) -> Any:
    height, width = texture.shape
    x, y = min(max(x, np.float32(1)), np.float32(width - 2.001)), min(max(y, np.float32(1)), np.float32(height - 2.001))
    column, row = int(x), int(y)
    across, along = _keys(np.float32(x - column)), _keys(np.float32(y - row))
    grey = np.float32(0)
    for j in range(4):
        line = np.float32(0)
        for i in range(4):
            line += across[i] * texture[row - 1 + j, column - 1 + i]
        grey += along[j] * line
    return grey


@inlined
def _keys(f: Any) -> tuple[Any, Any, Any, Any]:
    """Weights of the four neighbours at -1, 0, 1, 2."""
    half, one = np.float32(0.5), np.float32(1)
    return (
        f * (f * (one - half * f) - half),
        f * f * (f * np.float32(1.5) - np.float32(2.5)) + one,
        f * (f * (np.float32(2) - f * np.float32(1.5)) + half),
        f * f * (f - one) * half,
    )
