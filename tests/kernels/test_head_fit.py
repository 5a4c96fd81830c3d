"""The compiled fit of head and expression against the same in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from plain_head_fit import COUNT, Case


@pytest.mark.parametrize("valid", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("steps", [1, 2, 4])
def test_the_fit_is_that_of_numpy(valid: tuple[bool, bool], steps: int) -> None:
    case = Case(steps, valid)
    for found, expected in zip(case.fitted(steps), case.expected(steps), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)


def test_samples_that_contradict_the_rest_count_for_less_with_each_step() -> None:
    case = Case(0)
    sound = np.ones(COUNT, np.bool_)
    sound[::7] = False
    case.flow[:, :COUNT:7] += 20
    first, last = case.fitted(1)[2], case.fitted(4)[2]
    assert (last < 0.8 * first).all()
