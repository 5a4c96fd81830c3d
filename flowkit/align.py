"""One aligned face a clip: canonical crop, head motion taken out, light matched."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


FACE, RIGID = 1, 2
"""Bits of `Face.regions`: inside the face; the part of it that expressions move least."""


@dataclass(frozen=True, slots=True)
class Face:
    """Onset, apex and offset on one grid of N x N pixels, and how they got there.

    Attributes
    ----------
    pixels : (3, N, N) float32 in [0, 1]
        Grey onset, apex, offset.
    regions : (N, N) uint8
        Bits FACE and RIGID.
    transform : (2, 3) float64
        T0: onset image pixels -> crop pixels.
    registration : (2, 2, 3) float64
        S of apex and offset: onset crop pixels -> crop pixels of that frame under T0. Identity without stabilisation.
    light : (2, 2) float64
        Gain and offset (grey in [0, 1]) that were applied to apex and offset; (1, 0) without matching.
    landmarks : (478, 2) float32
        Of the onset, in onset image pixels (x, y); NaN where there are none.
    n_faces : int
        Faces found in the onset image; 0 if none was looked for.
    """

    pixels: npt.NDArray[np.float32]
    regions: npt.NDArray[np.uint8]
    transform: npt.NDArray[np.float64]
    registration: npt.NDArray[np.float64]
    light: npt.NDArray[np.float64]
    landmarks: npt.NDArray[np.float32]
    n_faces: int
