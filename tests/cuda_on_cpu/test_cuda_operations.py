"""Each kernel of the backend "cuda" on the CPU, through the very test bodies that the other backends pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import test_kernel_operations as bodies
from cupy_standin import standin
from kernel_operations import Cuda
from runner import missing

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())


@pytest.fixture(params=["forward", "reverse", "random"])
def kernels(request: pytest.FixtureRequest) -> Iterator[Cuda]:
    """The kernels, with the threads of a block and the blocks of a grid in some order."""
    with standin(order=request.param):
        yield Cuda()


@bodies.shapes
@pytest.mark.parametrize("operation", [bodies.resize, bodies.linearise, bodies.step, bodies.mmcof])
def test_a_kernel_is_at_most_twice_as_wrong_as_plain_float32(
    kernels: Cuda, shape: tuple[int, int], operation: Callable[..., Any]
) -> None:
    bodies.test_an_operation_is_at_most_twice_as_wrong_as_plain_float32(kernels, shape, operation)


@bodies.shapes
def test_the_median_is_opencvs_bit_for_bit(kernels: Cuda, shape: tuple[int, int]) -> None:
    bodies.test_the_median_is_opencvs_bit_for_bit(kernels, shape)


@bodies.shapes
def test_the_pyramid_is_resized_as_opencv_does(kernels: Cuda, shape: tuple[int, int]) -> None:
    bodies.test_the_pyramid_is_resized_as_opencv_does(kernels, shape)


def test_the_warp_is_bicubic_and_zero_outside(kernels: Cuda) -> None:
    bodies.test_the_warp_is_bicubic_and_zero_outside(kernels)


def test_rounded_coordinates_are_multiples_of_a_32nd(kernels: Cuda) -> None:
    bodies.test_rounded_coordinates_are_multiples_of_a_32nd(kernels)
