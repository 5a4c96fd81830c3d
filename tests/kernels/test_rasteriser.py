"""Triangles to pixels, against a search through all pixels for every triangle."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from flowkit_kernels.cpu.rasteriser import FARTHEST, NOTHING, interpolate, rasterise

Array = npt.NDArray[np.float64]
SIZE, COUNT = 48, 60
TRIANGLES = np.arange(3 * COUNT, dtype=np.int32).reshape(COUNT, 3)


def corners(kind: str, seed: int) -> npt.NDArray[np.float32]:
    """Corners of triangles that lie apart in depth, some of them outside the picture."""
    rng = np.random.default_rng(seed)
    first = rng.uniform(-0.3 * SIZE, 1.3 * SIZE, (COUNT, 1, 2))
    points = first + {"small": 4, "large": 60, "slivers": 20, "level": 20, "whole": 12}[kind] * rng.normal(
        size=(COUNT, 3, 2)
    )
    if kind == "slivers":
        points[:, 2] = points[:, :2].mean(axis=1) + 0.02 * rng.normal(size=(COUNT, 2))
    if kind == "level":
        points[:, 1, 1] = points[:, 0, 1] + rng.choice([0, 1e-6, -1e-5, 1e-3], COUNT)
    if kind == "whole":
        points = np.rint(points)
    depth = np.broadcast_to(rng.permutation(COUNT)[:, None, None], (COUNT, 3, 1))
    return np.concatenate([points, depth], axis=2).reshape(-1, 3).astype(np.float32)


def weights_everywhere(points: npt.NDArray[np.float32]) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Weights of the corners of each triangle at each pixel, (T, 3, H, W), and which triangles face the camera."""
    (x0, y0), (x1, y1), (x2, y2) = (points[k::3, :2].astype(np.float64).T[..., None, None] for k in range(3))
    x, y = np.arange(SIZE), np.arange(SIZE)[:, None]
    area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
    in_front = area.ravel() < 0
    area[area == 0] = np.inf
    first = ((x1 - x) * (y2 - y) - (x2 - x) * (y1 - y)) / area
    second = ((x2 - x) * (y0 - y) - (x0 - x) * (y2 - y)) / area
    return np.stack([first, second, 1 - first - second], axis=1), in_front


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["small", "large", "slivers", "level", "whole"])
def test_each_pixel_shows_the_nearest_triangle_that_holds_it(kind: str, seed: int) -> None:
    points = corners(kind, seed)
    hit, inside = np.empty((SIZE, SIZE), np.int32), np.empty((SIZE, SIZE, 2), np.float32)
    depth = np.empty((SIZE, SIZE), np.float32)
    rasterise(points, TRIANGLES, hit, inside, depth)
    weights, in_front = weights_everywhere(points)
    least = np.where(in_front[:, None, None], weights.min(axis=1), -1.0)
    undecided = (np.abs(least) < 1e-4).any(axis=0)  # on an edge, rounding decides
    order = np.where(least > 0, points[::3, 2, None, None], FARTHEST)
    expected = np.where((least > 0).any(axis=0), order.argmax(axis=0), NOTHING)
    assert (~undecided).mean() > 0.7
    assert np.array_equal(hit[~undecided], expected[~undecided])
    seen = ~undecided & (hit >= 0)
    rows, columns = np.nonzero(seen)
    np.testing.assert_allclose(inside[seen], weights[hit[seen], :2, rows, columns], atol=1e-4)
    np.testing.assert_allclose(depth[seen], points[3 * hit[seen], 2], rtol=1e-5)


def test_what_corners_carry_is_weighed_as_the_pixel_lies_among_them() -> None:
    points = corners("large", 0)
    hit, inside = np.empty((SIZE, SIZE), np.int32), np.empty((SIZE, SIZE, 2), np.float32)
    rasterise(points, TRIANGLES, hit, inside, np.empty((SIZE, SIZE), np.float32))
    hit[:3] = NOTHING
    result = np.empty((3, SIZE, SIZE), np.float32)
    carried = np.concatenate([points[:, :2], np.ones((len(points), 1), np.float32)], axis=1)
    interpolate(hit, inside, TRIANGLES, carried, result)
    seen = hit >= 0
    down, across = np.mgrid[:SIZE, :SIZE]
    np.testing.assert_allclose(result[:, seen], np.stack([across, down, 0 * down + 1])[:, seen], atol=0.01)
    assert not result[:, ~seen].any()
