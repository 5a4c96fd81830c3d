"""Numbers of 16 bits: those of NumPy, for every number of 32 bits that there is a reason to look at."""

from __future__ import annotations

import numpy as np
import pytest

from flowkit_kernels.cpu.half import halves


def same(values: np.ndarray) -> None:
    """Check that the same bits come out as of NumPy, and a NaN where it gives one."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        expected = values.astype(np.float16)
    found, nothing = halves(values), np.isnan(values)
    assert found.dtype == np.float16
    assert found.shape == values.shape
    assert np.array_equal(found[~nothing].view(np.uint16), expected[~nothing].view(np.uint16))
    assert np.isnan(found[nothing]).all()
    assert np.array_equal(np.signbit(found), np.signbit(values))


def test_every_half_and_what_lies_between_two() -> None:
    every = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)
    same(every)
    bits = every[np.isfinite(every)].view(np.uint32)
    for half_way in (0x1000, 0xFFF, 0x1001, 1, 0x1FFF):
        same((bits + np.uint32(half_way)).view(np.float32))


@pytest.mark.parametrize("seed", range(4))
def test_any_bits(seed: int) -> None:
    bits = np.random.default_rng(seed).integers(0, 2**32, 500_000, np.uint32)
    same(bits.view(np.float32))


def test_numbers_too_small_and_too_large() -> None:
    small = np.ldexp(np.linspace(0.5, 1, 1000), np.random.default_rng(0).integers(-27, -12, 1000)).astype(np.float32)
    edges = np.array([0, 65503, 65504, 65519.996, 65520, 65536, 1e38, np.inf, np.nan], np.float32)
    same(np.concatenate([small, -small, edges, -edges]))


def test_any_layout() -> None:
    values = np.random.default_rng(0).normal(size=(6, 5, 4)).astype(np.float32)
    for view in (values.T, values[::2, ::-1], values[:0], values[0, 0, 0]):
        same(np.asarray(view))
