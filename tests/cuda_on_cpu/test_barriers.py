"""Every `__syncthreads()` is needed: without it, some order of the threads gives another answer, or they part."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from backend_workload import run_everything
from cupy_standin import standin
from resources import SOURCES, backend_source
from runner import ORDERS, LaunchError, missing

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

BARRIER = re.compile(r"__syncthreads\w*\([^;]*\);")


def barriers() -> list[Any]:
    """Source and number of each barrier, named after its line."""
    found = []
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        for number, match in enumerate(BARRIER.finditer(text)):
            line = text.count("\n", 0, match.start()) + 1
            found.append(pytest.param(path, number, id=f"{path.name}:{line}"))
    return found


def without_barrier(source: str, number: int) -> str:
    match = list(BARRIER.finditer(source))[number]
    return f"{source[: match.start()]};{source[match.end() :]}"


@functools.cache
def intact() -> dict[str, Any]:
    with standin():
        return run_everything()


def is_caught(order: str, source: str, mutated: str) -> bool:
    with standin(order=order, edit=lambda text: mutated if text == source else text):
        try:
            results = run_everything()
        except LaunchError as error:
            return "divergent barrier" in str(error)
    return any(not np.array_equal(results[name], values) for name, values in intact().items())


def test_every_source_that_shares_memory_has_its_barriers_tried() -> None:
    sharing = {path.name for path in SOURCES if "SHARED" in path.read_text(encoding="utf-8").upper()}
    assert sharing == {barrier.values[0].name for barrier in barriers()}


@pytest.mark.parametrize(("path", "number"), barriers())
def test_a_removed_barrier_changes_the_answer(path: Path, number: int) -> None:
    source, _ = backend_source(path)
    mutated = without_barrier(source, number)
    assert any(is_caught(order, source, mutated) for order in ORDERS)


@pytest.mark.parametrize("order", ORDERS)
def test_with_all_barriers_every_order_gives_the_same_bits(order: str) -> None:
    with standin(order=order, seed=1):
        results = run_everything()
    for name, values in intact().items():
        np.testing.assert_array_equal(results[name], values, err_msg=name)
