"""The light on a face that turns: its shading changes, and a flow would take that for motion.

A face that turns by 10 degrees below a lamp changes its shading by a fifth, and shading that wanders over the face looks like
motion of the face: half a pixel at 10 degrees. So a frame is multiplied by a gain that depends on where the surface of the face
points, as light on a matt surface does,

    gain = 1 + c . (1, nx, ny, nz - STRAIGHT),      n = normal of the surface

with the four numbers c that make the frame most like the onset. They are held back by a prior: light from one side changes by about
as much as the head turns, in radians, and not at all where it does not turn. An expression changes the light of some places only;
those count for less (Huber).
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from flowkit.face.head_shape import GRID, HeadShape
from flowkit.face.registration import Image
from flowkit.face.statistics import median

Array = npt.NDArray[np.float64]

_STRAIGHT = 0.8
"""What nz is in the mean of a face, so that the numbers hardly depend on each other."""
_NOISE = 0.02
"""What the gain cannot explain of a sample, grey in [0, 1]: noise, expression, a place not quite found again."""
_INDEPENDENT = 60.0
"""How many independent samples a face holds."""
_CHANGE = 1.0
"""Standard deviation of the numbers, relative to the turn of the head in radians."""
_HUBER, _ITERATIONS = 1.5, 2
_LEAST, _MOST = 0.3, 3.0


def match_shading(
    onset: Image, picture: Image, shape: HeadShape, inside: npt.NDArray[np.bool_], turn: npt.NDArray[np.float64]
) -> Image:
    """Return a picture with its shading made that of the onset.

    Parameters
    ----------
    onset, picture : (N, N) float32
        On one grid, the head's motion undone in `picture` and its light matched as a whole.
    shape : HeadShape
        The face at the onset.
    inside : (GRID, GRID) bool
        Samples that count: see `head_motion.sampled`.
    turn : (2,) float64
        Yaw and pitch of the head between both, radians.

    Returns
    -------
    (N, N) float32
        The picture itself where the head did not turn or no sample counts.
    """
    spread = _CHANGE * float(np.hypot(*turn))
    if not spread or not inside.any():
        return picture
    fields = _fields(shape)
    target, seen = (cv2.resize(p, (GRID, GRID), interpolation=cv2.INTER_AREA)[inside] for p in (onset, picture))
    numbers = _fitted(fields[:, inside] * seen, np.asarray(target - seen, np.float64), spread)
    gain = np.clip(1 + np.einsum("k,khw->hw", numbers, fields), _LEAST, _MOST).astype(np.float32)
    return np.asarray(picture * cv2.resize(gain, picture.shape[::-1], interpolation=cv2.INTER_LINEAR), np.float32)


def _fields(shape: HeadShape) -> Array:
    """What the gain is made of, (4, GRID, GRID): 1, and where the surface points."""
    across, down = shape.slopes
    ahead = 1 / np.sqrt(1 + across**2 + down**2)
    return np.stack([np.ones_like(ahead), -across * ahead, -down * ahead, ahead - _STRAIGHT])


def _fitted(columns: Array, target: Array, spread: float) -> Array:
    """The numbers (K,) for which sums of the columns (K, n) come nearest to the target (n,)."""
    share = _INDEPENDENT / len(target) / _NOISE**2
    prior = np.eye(len(columns)) / spread**2
    weights, numbers = np.ones_like(target), np.zeros(len(columns))
    for iteration in range(_ITERATIONS):
        if iteration:
            left = np.abs(target - np.einsum("k,kn->n", numbers, columns))
            weights = 1 / np.maximum(1, left / (_HUBER * median(left) + 1e-6))
        weighted = share * weights * columns
        matrix = np.einsum("in,jn->ij", weighted, columns) + prior
        numbers = np.linalg.solve(matrix, np.einsum("in,n->i", weighted, target))
    return numbers
