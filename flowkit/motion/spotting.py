"""The apex of a clip that has none, and the movement in a clip that is longer than its expression: found by optical flow.

Motion is the root mean square of the flow from the onset, in px of a crop of 128, over brows, eyes and mouth (without
outlines: over the ellipse of `align`), after the alignment that extraction does: one crop by the onset's landmarks, the head's
motion taken out of the pictures and again of the flow, light matched. The square weighs what moves above the noise.
`peak_search.find_peak` says at which frames it is computed.

About the highest value every frame is then looked at, without a flow: how far it has gone the way to that frame, which is the
projection of its difference to the onset upon the one that the flow there makes. Along one known way noise counts for little.

TV-L1 has its default parameters here, sees the crops as they are and runs on the CPU, whatever computes the flow that is stored.
The measures, the search and the confidence are ours.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from flowkit.config import AlignConfig, FrameConfig
from flowkit.errors import ClipError
from flowkit.face.align import Aligner, Anchor, Face
from flowkit.face.contrast import UNMATCHED
from flowkit.face.crops import face_crop
from flowkit.face.regions import mobile_region
from flowkit.face.registration import Image, compose, mapped
from flowkit.inputs.clip import Clip
from flowkit.inputs.frames import Sequence, nothing_to_search, open_sequence
from flowkit.motion.flow import dual_phase_flow
from flowkit.motion.peak_search import Curve, find_movement, find_peak, refine
from flowkit_kernels import TVL1Params

SIZE = 128
"""Side of the crop, px."""
MARGIN = SIZE // 4
"""What is kept about the crop of each frame, px: registration seldom finds a head that moved further."""
STEP_S = 0.1
"""Distance of the first values in a clip that is longer than its expression: half the shortest ones."""
LONGEST_S = 2.0
"""What lasts longer is no expression that is looked for."""
USUAL_FPS = 30.0
"""Assumed where the frame rate is unknown: a low one costs flows and misses nothing."""


@dataclass(frozen=True, slots=True)
class Spotted:
    """What was found in a clip.

    Attributes
    ----------
    onset, apex, offset : int
        Frame numbers: onset and offset are the clip's, unless they were looked for; then `offset` is never None.
    confidence : float
        0 to 1; see `peak_search.Peak`.
    frames : tuple of int
        Where motion was computed, in order.
    curve : tuple of float
        Motion there, px of a crop of `SIZE`; against the onset or, where that was looked for, the first frame of the clip.
    flows : int
        How many flows it took.
    """

    onset: int
    apex: int
    offset: int | None
    confidence: float
    frames: tuple[int, ...]
    curve: tuple[float, ...]
    flows: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return dataclasses.asdict(self)


def spot(clip: Clip, root: Path, frames: FrameConfig, aligner: Aligner, *, ends: bool = False) -> Spotted:
    """The frame of a clip in which the face has moved most.

    Parameters
    ----------
    clip : Clip
        Its apex is not looked at. Without an offset the search goes on to the last frame.
    root : Path
        The folder that the clip's path starts from.
    frames : FrameConfig
    aligner : Aligner
        Its method and stabilisation are those used; its size is not.
    ends : bool
        Whether the clip is longer than its expression: onset and offset, too, are looked for between those given. The first frame
        should show a face at rest.

    Returns
    -------
    Spotted
        The apex lies behind the onset, and before the last frame unless there is no other. Where nothing moves it lies anywhere:
        look at the curve.

    Raises
    ------
    ClipError
        What `open_sequence` and `Aligner.align` raise, FLOW_RANGE, or APEX_MISSING: no frame lies behind the onset. A frame that
        is looked at and cannot be used fails the clip: remove it, and its neighbours are looked at instead.

    Examples
    --------
    >>> with Aligner(AlignConfig()) as aligner:  # doctest: +SKIP
    ...     found = spot(clip, root, FrameConfig(), aligner)
    >>> found.apex, found.confidence, found.flows  # doctest: +SKIP
    (59, 0.71, 10)
    """
    with open_sequence(clip, root, frames) as sequence:
        return spot_sequence(clip, sequence, aligner, ends=ends)


def spot_sequence(clip: Clip, sequence: Sequence, aligner: Aligner, *, ends: bool = False) -> Spotted:
    """As `spot`, of frames that are open already."""
    motion = _Motion(aligner, clip, sequence)
    numbers, onset, offset = motion.numbers, clip.onset, clip.offset
    if len(numbers) < 2:
        raise nothing_to_search(clip)
    curve = Curve(motion, numbers[0])
    if ends:
        fps = USUAL_FPS if math.isnan(sequence.fps) else sequence.fps
        step, longest = (max(1, round(seconds * fps)) for seconds in (STEP_S, LONGEST_S))
        onset, offset = find_movement(curve, numbers, step, longest)
        numbers = [number for number in numbers if onset <= number <= offset]
    peak = find_peak(curve, numbers)
    apex = refine(motion.way_to(peak.number), numbers, peak.number) if curve[peak.number] > 0 else peak.number
    sampled = tuple(sorted(curve))
    values = tuple(round(curve[number], 4) for number in sampled)
    return Spotted(onset, apex, offset, round(peak.confidence, 4), sampled, values, motion.flows)


@contextmanager
def spotter(root: Path, frames: FrameConfig, align: AlignConfig, ends: bool) -> Iterator[Callable[[Clip], Spotted]]:
    """Set a worker process up and give the function that spots one clip; arguments as of `spot`.

    Raises
    ------
    EnvironmentMissing, ManifestError
        As `Aligner`.
    """
    cv2.setNumThreads(1)  # parallel over clips, not inside one
    with Aligner(align) as aligner:
        yield lambda clip: spot(clip, root, frames, aligner, ends=ends)


class _Motion:
    """Motion of the face from one frame to others, of a sequence that is open.

    Of each frame only the crop with its surroundings is kept, in the onset's place: 72 kB, however large the frames are.
    """

    def __init__(self, aligner: Aligner, clip: Clip, sequence: Sequence) -> None:
        anchor = aligner.anchor(clip, sequence.onset_grey, sequence.onset_rgb, SIZE)
        wide = compose(_shift(MARGIN), anchor.transform)
        self._aligner = aligner
        self._where = clip.where
        self._region = mobile_region(anchor.landmarks, anchor.transform, SIZE)

        def kept(grey: Image) -> npt.NDArray[np.float16]:
            """In 16 bits: a frame of 8 bits is kept to an eighth of a grey level."""
            return face_crop(grey, wide, SIZE + 2 * MARGIN).astype(np.float16)

        self._anchor: Anchor = dataclasses.replace(
            anchor,
            frame=kept(sequence.onset_grey).astype(np.float32),
            transform=_shift(-MARGIN),
            landmarks=mapped(wide, anchor.landmarks.T).T,
        )
        self._crops: Mapping[int, Any] = sequence.later(kept)
        self.numbers = [sequence.onset, *self._crops]
        self.flows = 0
        self._rises: dict[int, npt.NDArray[np.float64]] = {}

    def __call__(self, number: int) -> float:
        """Motion in a frame, px of the crop."""
        where, stabilise = f"{self._where}, frame {number}", self._aligner.config.stabilise
        face = self._face(number)
        (flow,) = dual_phase_flow([face], [(True, False)], TVL1Params(), "cpu", stabilise, 1, [where])
        if isinstance(flow, ClipError):
            raise flow
        self.flows += 1
        rise = self._rises[number] = flow.flow[0][:, self._region].astype(np.float64)
        return float(np.sqrt(np.mean(np.sum(rise * rise, axis=0))))

    def way_to(self, number: int) -> Callable[[int], float]:
        """How far other frames have gone the way from the onset to one whose motion was computed: 0 at the onset, 1 there."""
        onset, region = self._anchor.onset, self._region
        down, right = np.gradient(cv2.GaussianBlur(onset, (0, 0), 1.0).astype(np.float64))
        u, v = self._rises[number]
        way = -(u * right[region] + v * down[region])  # how grey values change when they move along
        length = max(float(np.sum(way * way)), 1e-12)

        def gone(other: int) -> float:
            change = cv2.GaussianBlur(self._face(other).pixels[1] - onset, (0, 0), 1.0)
            return float(np.sum(way * change[region])) / length

        return gone

    def _face(self, number: int) -> Face:
        """Onset and another frame, aligned."""
        grey = self._crops[number].astype(np.float32)
        face = self._aligner.carry(self._anchor, (grey, grey), (True, False), f"{self._where}, frame {number}")
        # All frames of a curve are seen in one way. To match contrast frame by frame was tried: no better at noise 1 to 6.
        return dataclasses.replace(face, signal=UNMATCHED)


def _shift(px: float) -> Any:
    return np.array([[1.0, 0.0, px], [0.0, 1.0, px]])
