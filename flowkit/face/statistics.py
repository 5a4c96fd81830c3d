"""Statistics of many small arrays: the same values as NumPy's, for a fraction of what its functions cost a call."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt


def median(values: npt.NDArray[np.floating]) -> float:
    """Return the median, as `np.median` gives it.

    Parameters
    ----------
    values : (n,) float

    Returns
    -------
    float
        NaN where a value is NaN, or there is none.

    Examples
    --------
    >>> median(np.array([4.0, 1.0, 2.0])), median(np.array([4.0, 1.0, 2.0, 3.0]))
    (2.0, 2.5)
    """
    middle, is_odd = divmod(len(values), 2)
    if not len(values):
        return math.nan
    ordered = np.partition(values, (middle - 1, middle))  # of one place alone, it takes three times as long
    if np.isnan(ordered[middle:].max()):  # NaN counts as the largest
        return math.nan
    return float(ordered[middle] if is_odd else (ordered[middle - 1] + ordered[middle]) / 2)
