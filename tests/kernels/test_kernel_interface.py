"""What the public functions refuse, in which words, and what they accept."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import flowkit_kernels
from flowkit_kernels import (
    BackendUnavailable,
    MMCOFParams,
    ParameterError,
    ShapeError,
    TVL1Params,
    available_backends,
    mmcof,
    resolve_backend,
    tvl1_flow,
)

FACES = np.random.default_rng(0).random((2, 20, 24), dtype=np.float32)
FLOW = np.random.default_rng(0).normal(size=(2, 2, 2, 20, 24)).astype(np.float32)


def with_value(array: Any, index: Any, value: float) -> Any:
    changed = array.copy()
    changed[index] = value
    return changed


@pytest.mark.parametrize(
    ("reference", "moving", "message"),
    [
        (FACES.astype(np.float64), FACES, r"reference must be of dtype float32; got float64\. Convert"),
        (FACES, (FACES * 255).astype(np.uint8), r"moving must be of dtype float32; got uint8"),
        (FACES, FACES * 255, r"moving must be grey values from 0 to 1, or at most 16 times that; got .* Divide 8-bit"),
        (FACES - 0.5, FACES, r"reference must be grey values from 0 to 1, .*; got -0\.4"),
        (FACES, with_value(FACES, (1, 3, 4), np.nan), r"moving of pair 1 must be finite everywhere; got NaN"),
        (with_value(FACES, (0, 0, 0), np.inf), FACES, r"reference of pair 0 must be finite"),
        (FACES[0], FACES[0], r"reference must be \(N, H, W\); got shape \(20, 24\)"),
        (FACES, FACES[:1], r"moving must be of the shape of reference, \(2, 20, 24\); got \(1, 20, 24\)"),
        (FACES[:0], FACES[:0], r"reference must be one pair or more; got 0 pairs"),
        (FACES[:, :15], FACES[:, :15], r"reference must be at least 16 x 16 pixels; got 15 x 24"),
        (FACES.tolist(), FACES, r"reference must be a NumPy array \(N, H, W\); got list"),
    ],
)
def test_images_that_cannot_be_used_are_refused_in_words(reference: Any, moving: Any, message: str) -> None:
    with pytest.raises(ShapeError, match=f"^tvl1_flow: {message}"):
        tvl1_flow(reference, moving)


EMPTY = with_value(np.ones((2, 20, 24), bool), 1, False)


@pytest.mark.parametrize(
    ("flow", "mask", "message"),
    [
        (FLOW.astype(np.float16), None, r"flow must be of dtype float32; got float16"),
        (FLOW[:, 0], None, r"flow must be \(N, 2, 2, H, W\); got shape \(2, 2, 20, 24\)"),
        (FLOW[:, :1], None, r"flow must be \(N, 2 phases, 2 components, H, W\); got \(2, 1, 2, 20, 24\)"),
        (FLOW[:0], None, r"flow must be one pair or more; got 0 pairs"),
        (with_value(FLOW, (1, 0, 0, 0, 0), np.nan), None, r"flow of pair 1 must be finite everywhere"),
        (
            FLOW[..., :16, :],
            None,
            r"flow must be larger than two borders of border_px=8; got 16 x 24\. Lower border_px",
        ),
        (FLOW, EMPTY, r"mask of pair 1 must be True somewhere; got an empty mask"),
        (FLOW, EMPTY[:1], r"mask must be \(2, 20, 24\), as the flow; got \(1, 20, 24\)"),
        (FLOW, EMPTY.astype(np.uint8), r"mask must be of dtype bool; got uint8"),
    ],
)
def test_flow_and_masks_that_cannot_be_used_are_refused_in_words(flow: Any, mask: Any, message: str) -> None:
    with pytest.raises(ShapeError, match=f"^mmcof: {message}"):
        mmcof(flow, mask=mask)


def test_what_no_kernel_could_count_is_refused_before_anything_is_read() -> None:
    def huge(*axes: int) -> Any:
        return np.broadcast_to(np.float32(0), (*axes, 1 << 15, 1 << 14))

    for call in (lambda: tvl1_flow(huge(1), huge(1)), lambda: mmcof(huge(1, 2, 2))):
        with pytest.raises(
            ShapeError, match=r"must be at most 536870656 pixels each; got 32768 x 16384\. Use a smaller"
        ):
            call()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TVL1Params(tau=0.0), r"TVL1Params: tau must be above 0 and finite; got 0\.0"),
        (lambda: TVL1Params(lambda_=float("nan")), r"lambda_ must be above 0 and finite; got nan"),
        (lambda: TVL1Params(theta=float("inf")), "theta must be above 0 and finite; got inf"),
        (lambda: TVL1Params(scale_step=1.0), "scale_step must be above 0 and below 1"),
        (lambda: TVL1Params(epsilon=-0.1), "epsilon must be 0 or more"),
        (lambda: TVL1Params(scales=0), "scales must be a whole number, 1 or more; got 0"),
        (lambda: TVL1Params(warps=2.0), "warps must be a whole number, 1 or more; got 2.0"),  # type: ignore[arg-type]
        (lambda: TVL1Params(median_filtering=3), "median_filtering must be a whole number, 1 or 5; got 3"),
        (lambda: TVL1Params.preset("fast"), "name must be one of micro, fixed, opencv; got 'fast'"),
        (lambda: MMCOFParams(theta_1=-1.0), "MMCOFParams: theta_1 must be 0 or more"),
        (lambda: MMCOFParams(k=0.0), "k must be above 0"),
        (lambda: MMCOFParams(gate="firm"), "gate must be one of soft, hard; got 'firm'"),  # type: ignore[arg-type]
        (lambda: MMCOFParams(border_px=-1), "border_px must be a whole number, 0 or more"),
        (lambda: tvl1_flow(FACES, FACES, threads=0), "tvl1_flow: threads must be a whole number, 1 or more; got 0"),
        (lambda: resolve_backend("gpu"), "backend: name must be one of auto, cuda, .*; got 'gpu'"),
    ],
)
def test_parameters_out_of_range_are_refused_in_words(make: Any, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        make()


def test_the_default_is_the_preset_micro_and_the_others_are_what_they_were() -> None:
    assert TVL1Params() == TVL1Params.preset("micro")
    fixed = TVL1Params(theta=0.3, scale_step=0.8, warps=5, inner_iterations=20)
    assert TVL1Params.preset("fixed") == fixed
    assert TVL1Params.preset("opencv") == replace(fixed, outer_iterations=10, inner_iterations=30, epsilon=0.01)


def test_a_tiny_overshoot_of_resampling_is_accepted() -> None:
    overshooting = with_value(FACES, (0, 0, 0), 1.0005)
    assert np.isfinite(tvl1_flow(overshooting, FACES)).all()


def test_any_memory_layout_gives_the_same_answer() -> None:
    reference, moving = FACES, np.roll(FACES, 1, axis=2)
    expected = tvl1_flow(reference, moving)
    read_only = moving.copy()
    read_only.flags.writeable = False
    for variant in (np.asfortranarray(moving), np.repeat(moving, 2, axis=2)[..., ::2], read_only):
        np.testing.assert_array_equal(tvl1_flow(reference, variant), expected)


def test_auto_becomes_a_backend_that_runs_here() -> None:
    assert resolve_backend("auto") in available_backends()
    assert {"cpu", "reference"} <= set(available_backends())


@pytest.mark.parametrize("name", ["cuda", "numba-cuda"])
def test_a_named_backend_that_cannot_run_is_an_error_and_never_falls_back(name: str) -> None:
    if name in available_backends():
        pytest.skip(f"no GPU must be here; {name} runs on this machine")
    for call in (lambda: resolve_backend(name), lambda: tvl1_flow(FACES, FACES, backend=name)):
        with pytest.raises(
            BackendUnavailable, match=f"{name} must be able to run here; got an obstacle: .*; or choose the backend cpu"
        ):
            call()


def test_every_public_name_is_found_and_no_other() -> None:
    for name in flowkit_kernels.__all__:
        assert getattr(flowkit_kernels, name).__name__ == name
    assert set(flowkit_kernels._HOME) == set(flowkit_kernels.__all__)
    with pytest.raises(AttributeError, match="module 'flowkit_kernels' has no attribute 'tv_l1'"):
        _ = flowkit_kernels.tv_l1


BITS = """
import hashlib, sys
import numpy as np
from flowkit_kernels import mmcof, tvl1_flow
from flowkit_kernels.cpu import tvl1, warp

operation, how = sys.argv[1:]
random = np.random.default_rng(0)
if operation == "tvl1":
    if how == "parts":  # compiled on its own before the entry that calls it
        tvl1.shrinkage(np.float32(1), np.float32(2))
        warp.cubic_weights(np.float32(0.5))
    y, x = np.mgrid[:96, :96].astype(np.float32)
    image = 0.5 + 0.2 * np.sin(x / 3) * np.cos(y / 5) + 0.1 * random.random((96, 96), np.float32)
    found = tvl1_flow(image[None], np.roll(image, 1, axis=1)[None], backend="cpu")
else:
    found = mmcof(random.random((1, 2, 2, 96, 96), np.float32), backend="cpu")
print(hashlib.sha256(found.tobytes()).hexdigest())
"""


@pytest.mark.parametrize("operation", ["mmcof", pytest.param("tvl1", marks=pytest.mark.slow)])
def test_the_run_that_compiles_gives_the_bits_of_those_that_load(tmp_path: Path, operation: str) -> None:
    """Of functions that are not inlined, another copy runs in the process that compiles them than in all later ones."""
    paths = os.pathsep.join(path for path in sys.path if path)
    environment = {**os.environ, "PYTHONPATH": paths, "NUMBA_CACHE_DIR": str(tmp_path)}
    bits = [
        subprocess.run(
            [sys.executable, "-c", BITS, operation, how], env=environment, capture_output=True, text=True, check=True
        ).stdout
        for how in ("cold", "warm", "parts")
    ]
    assert len(bits[0]) == 65
    assert len(set(bits)) == 1
    assert any(tmp_path.rglob("*.nbc"))
