"""Each operation of each backend against the float64 twin, and the twin against OpenCV."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import kernel_operations as operations
import numpy as np
import pytest
from kernel_scenes import backend_params, scene, texture

from flowkit_kernels import MMCOFParams, TVL1Params

SHAPES = [(16, 16), (17, 40), (61, 33), (128, 224)]
fast = backend_params(operations.FAST)
every = backend_params(operations.ALL)
shapes = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))


def resize(backend: Any, shape: tuple[int, int], rng: np.random.Generator) -> Any:
    image = rng.random(shape, dtype=np.float32) * 255
    return backend.resize(image, (round(shape[0] * 0.8), round(shape[1] * 0.8)), 1.25)


def linearise(backend: Any, shape: tuple[int, int], rng: np.random.Generator) -> Any:
    reference, moving, flow = scene(*shape)
    flow = flow + rng.normal(scale=3, size=flow.shape).astype(np.float32)  # points over every border too
    return backend.linearise(flow, reference[0] * 255, moving[0] * 255)


def linearise_alike(backend: Any, shape: tuple[int, int], rng: np.random.Generator) -> Any:
    """Neighbours move alike, here by less than a pixel, there across the border; without 1 / |gradient|^2, ill-posed there."""
    reference, moving, flow = scene(*shape)
    shift = np.array([[[-2.5]], [[4.25]]], np.float32)
    motions = (0.3 * flow, flow + shift, flow - shift)
    terms = [backend.linearise(motion, reference[0] * 255, moving[0] * 255)[[0, 1, 3]] for motion in motions]
    return np.concatenate(terms)


def step(backend: Any, shape: tuple[int, int], rng: np.random.Generator) -> Any:
    flow, gradient = (rng.normal(scale=scale, size=(2, *shape)).astype(np.float32) for scale in (1, 10))
    dual = rng.uniform(-0.7, 0.7, size=(2, 2, *shape)).astype(np.float32)
    dual[:, 0, :, -1], dual[:, 1, -1, :] = 0, 0  # what the forward gradient's border makes of them
    constant = rng.normal(scale=5, size=(1, *shape)).astype(np.float32)
    data = np.concatenate([gradient, 1 / (gradient**2).sum(0, keepdims=True), constant])
    return backend.step(flow, dual, data, TVL1Params(theta=0.25))  # theta = tau: no backend's units need rounding


def mmcof(backend: Any, shape: tuple[int, int], rng: np.random.Generator) -> Any:
    flow = rng.normal(size=(2, 2, *shape)).astype(np.float32)
    region = rng.random(shape) < 0.6
    return backend.mmcof(flow, MMCOFParams(), region)


@fast
@shapes
@pytest.mark.parametrize("operation", [resize, linearise, linearise_alike, step, mmcof])
def test_an_operation_is_at_most_twice_as_wrong_as_plain_float32(
    backend: Any, shape: tuple[int, int], operation: Callable[..., Any]
) -> None:
    exact, naive, ours = (
        np.asarray(operation(which, shape, np.random.default_rng(7)), np.float64)
        for which in (operations.EXACT, operations.NAIVE, backend)
    )
    rms = np.sqrt((exact**2).mean(axis=(-2, -1)))
    for measure in (np.mean, np.max):
        allowed = measure(abs(naive - exact), axis=(-2, -1)) + rms * np.finfo(np.float32).eps
        assert (measure(abs(ours - exact), axis=(-2, -1)) <= 2 * allowed).all()


@every
@shapes
def test_the_median_is_opencvs_bit_for_bit(backend: Any, shape: tuple[int, int]) -> None:
    plane = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    np.testing.assert_array_equal(backend.median(plane), cv2.medianBlur(plane, 5))


@every
@shapes
def test_the_pyramid_is_resized_as_opencv_does(backend: Any, shape: tuple[int, int]) -> None:
    image = texture(*shape, seed=2) * 255
    expected = cv2.resize(image, None, fx=0.8, fy=0.8, interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(backend.resize(image, expected.shape, 1.25), expected, atol=1e-3)


@every
def test_the_warp_is_bicubic_and_zero_outside(backend: Any) -> None:
    """An affine image has a constant gradient; cubic interpolation reproduces it, and flow out of the image finds 0."""
    y, x = np.mgrid[:32, :48].astype(np.float32)
    image, flow = 2 * x + 3 * y, np.full((2, 32, 48), 0.375, np.float32)
    flow[:, :, -8:] = 100
    gradient_x, gradient_y, _, constant = backend.linearise(flow, np.zeros_like(image), image)
    inner = np.s_[4:-12, 4:-12]
    np.testing.assert_allclose(gradient_x[inner], 2, rtol=1e-5)
    np.testing.assert_allclose(gradient_y[inner], 3, rtol=1e-5)
    np.testing.assert_allclose(constant[inner], image[inner], atol=0.15)  # A = -0.75 is 0.1 off on a ramp
    assert not gradient_x[:, -8:].any()
    assert not constant[:, -8:].any()


@every
def test_rounded_coordinates_are_multiples_of_a_32nd(backend: Any) -> None:
    reference, moving, flow = scene(40, 56)
    rounded_flow = (np.rint(flow * 32) / 32).astype(np.float32)
    rounded = backend.linearise(flow, reference[0], moving[0], rounded=True)
    before = backend.linearise(rounded_flow, reference[0], moving[0])
    np.testing.assert_array_equal(rounded[:2], before[:2])
    assert not np.array_equal(backend.linearise(flow, reference[0], moving[0])[:2], before[:2])
