"""Compiled loops: the same bits wherever the arrays happen to lie in memory.

LLVM compiles some loops twice and chooses by the distance of the arrays: vectors where they are far apart, one value at a time
where they may overlap, or lie closer than a few vectors. Both round differently. So arrays of a hundred bytes, which the heap puts
side by side or not, gave the first clip of a run one of two results.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numba.core.registry import cpu_target
from numba.core.runtime import rtsys
from plain_head_fit import Case

from flowkit.face.registration import RegistrationTarget
from flowkit_kernels import MMCOFParams, TVL1Params, mmcof, phase_flow
from flowkit_kernels.cpu import gauss_newton, rasteriser

LAYOUTS = 300


def picture(seed: int, size: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.kron(rng.random((size // 4, size // 4)), np.ones((4, 4))).astype(np.float32)


def flow_of_a_pair() -> bytes:
    frames = np.stack([picture(seed, 16) for seed in range(3)])[None]
    solver = TVL1Params(scales=1, warps=1, inner_iterations=2)
    return bytes(phase_flow(frames, solver, backend="cpu", threads=1))


def combined_flow() -> bytes:
    flow = np.random.default_rng(0).normal(size=(1, 2, 2, 20, 20)).astype(np.float32)
    return bytes(mmcof(flow, MMCOFParams(), backend="cpu", threads=1))


def registration() -> bytes:
    reference = RegistrationTarget.of(picture(0, 40), np.ones((40, 40), np.bool_))
    transform, quality = reference.register(np.roll(picture(0, 40), 1, axis=1) + np.float32(0.01) * picture(1, 40))
    return transform.tobytes() + np.float64(quality).tobytes()


def level() -> bytes:
    found = gauss_newton.make_level(picture(0, 16), 1, np.ones((16, 16), np.bool_), 4, 16)
    return b"".join(np.asarray(part).tobytes() for part in found)


def fit() -> bytes:
    return b"".join(array.tobytes() for array in Case(0).fitted(3))


def drawn() -> bytes:
    points = np.random.default_rng(0).random((6, 3)).astype(np.float32) * 8
    triangles = np.array([[0, 1, 2], [2, 1, 0], [3, 4, 5], [5, 4, 3]], np.int32)
    hit, inside, depth = np.zeros((8, 8), np.int32), np.zeros((8, 8, 2), np.float32), np.zeros((8, 8), np.float32)
    rasteriser.rasterise(points, triangles, hit, inside, depth)
    carried, shown = np.zeros((3, 8, 8), np.float32), np.zeros((8, 8), np.float32)
    rasteriser.interpolate(hit, inside, triangles, points, carried)
    slopes = np.zeros((6, 3), np.float32)
    rasteriser.normals(points, triangles, slopes)
    rasteriser.shade(hit, inside, triangles, points[:, :2].copy(), points[:, 2].copy(), picture(0, 16), shown)
    return b"".join(array.tobytes() for array in (hit, inside, depth, carried, slopes, shown))


@pytest.mark.parametrize("case", [flow_of_a_pair, combined_flow, registration, level, fit, drawn])
def test_results_do_not_depend_on_where_arrays_lie(case: Callable[[], bytes]) -> None:
    rng, alive, results = np.random.default_rng(0), [], set()
    rtsys.initialize(cpu_target.target_context)
    for _ in range(LAYOUTS):
        alive += [rtsys.meminfo_alloc(size) for size in rng.integers(16, 512, 20)]  # where compiled loops get theirs
        for index in sorted(rng.choice(len(alive), len(alive) // 3, replace=False), reverse=True):
            del alive[index]
        results.add(case())
    assert len(results) == 1
