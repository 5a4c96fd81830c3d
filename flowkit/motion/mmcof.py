"""MM-COF of clips: both phases' flow as one picture of the motion, normalised over the face."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

import flowkit_kernels
from flowkit.face.align import Face
from flowkit.motion.flow import Flow
from flowkit.storage.schema import FACE
from flowkit_kernels import MMCOFParams


def combine(
    flows: Sequence[Flow], faces: Sequence[Face], params: MMCOFParams, backend: str, threads: int | None = None
) -> npt.NDArray[np.float32]:
    """MM-COF of each clip.

    Parameters
    ----------
    flows, faces : sequences of equal length
        Faces give the region over which magnitudes are normalised.
    params : MMCOFParams
    backend : str
    threads : int, optional

    Returns
    -------
    (n, 3, N, N) float32
        M' cos a, M' sin a, M'.

    Raises
    ------
    ShapeError, BackendUnavailable
    """
    flow = np.stack([one.flow for one in flows])
    mask = np.stack([(face.regions & FACE) > 0 for face in faces])
    combined: npt.NDArray[np.float32] = flowkit_kernels.mmcof(flow, params, mask=mask, backend=backend, threads=threads)
    return combined
