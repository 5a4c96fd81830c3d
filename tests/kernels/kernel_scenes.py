"""Scenes with known motion, OpenCV's answer to them, and the backends that tests are run on."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from flowkit_kernels import TVL1Params, reference
from flowkit_kernels.backend import GPU_BACKENDS
from flowkit_kernels.params import opencv_settings
from flowkit_kernels.probing import obstacles

Images = npt.NDArray[np.float32]
MARGIN = 12
INTERIOR = (..., slice(8, -8), slice(8, -8))


class Scene(NamedTuple):
    """One pair of (1, H, W) images in [0, 1], and the (2, H, W) flow between them."""

    reference: Images
    moving: Images
    flow: Images


def texture(height: int, width: int, seed: int) -> Images:
    noise = np.random.default_rng(seed).random((height, width), dtype=np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2.0) + 2 * cv2.GaussianBlur(noise, (0, 0), 6.0)
    return cv2.normalize(smooth, None, 0.05, 0.95, cv2.NORM_MINMAX)


def scene(height: int, width: int, seed: int = 0) -> Scene:
    """A texture that moves by up to 1.5 px along sinusoids; moving(x + flow(x)) = reference(x) by construction."""
    canvas = texture(height + 2 * MARGIN, width + 2 * MARGIN, seed)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    phase = np.random.default_rng(seed).random(4) * 2 * np.pi
    u = 1.5 * np.sin(2 * np.pi * y / 90 + phase[0]) * np.cos(2 * np.pi * x / 110 + phase[1])
    v = 1.0 * np.cos(2 * np.pi * (x + y) / 100 + phase[2]) + 0.3 * np.sin(phase[3])
    flow = np.stack([u, v]).astype(np.float32)
    reference = cv2.remap(canvas, x + flow[0] + MARGIN, y + flow[1] + MARGIN, cv2.INTER_LANCZOS4)
    moving = canvas[MARGIN:-MARGIN, MARGIN:-MARGIN]
    return Scene(reference[None].clip(0, 1), moving[None].copy(), flow)


def opencv_flow(reference_image: Images, moving: Images, params: TVL1Params) -> Images:
    """(2, H, W) from a fresh solver: a used one keeps state that changes its answer.

    OpenCV's builds without contrib, the usual ones on GPU machines, have no such solver: there the float64 twin answers, which
    other machines hold against OpenCV.
    """
    if not hasattr(cv2, "optflow"):
        return reference.solve(reference_image[0].astype(np.float64), moving[0].astype(np.float64), params)
    solver = cv2.optflow.DualTVL1OpticalFlow_create()
    for name, value in opencv_settings(params).items():
        getattr(solver, f"set{name}")(value)
    return solver.calc(reference_image[0], moving[0], None).transpose(2, 0, 1)


def end_point_error(flow: Images, truth: Images) -> float:
    """Mean over the interior, in pixels."""
    return float(np.hypot(*(flow - truth)[INTERIOR]).mean())


def numba_cuda_trouble() -> str:
    """Why the code of numba-cuda cannot be tried here, GPU or not, in the words of a skipped test; "" where it can."""
    obstacle = obstacles._numba_package_obstacle(None) or obstacles._numpy_obstacle(None)
    return f"no GPU packages: {obstacle.what}" if obstacle else ""


BACKENDS = (*GPU_BACKENDS, "cpu", "reference")
FAST = (*GPU_BACKENDS, "cpu")


def backend_params(backends: Iterable[str] | Mapping[str, Any]) -> Any:
    """`parametrize("backend", ...)` over names, or names and what stands for them; what needs a GPU bears the mark `gpu`.

    Backends that cannot run here are among them: conftest.py says when that is an error.
    """
    found = backends if isinstance(backends, Mapping) else {name: name for name in backends}
    params = [
        pytest.param(backend, marks=[pytest.mark.gpu(name)] if needs_gpu(name) else [], id=name)
        for name, backend in found.items()
    ]
    return pytest.mark.parametrize("backend", params)


def needs_gpu(backend: str) -> bool:
    """Whether a backend computes on a GPU; in Numba's simulator numba-cuda does not."""
    simulated = os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in ("", "0")
    return backend in GPU_BACKENDS and not (simulated and backend == "numba-cuda")
