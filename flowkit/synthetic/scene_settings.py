"""What a synthetic data set looks like, and what is known about the motion in each of its clips."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from flowkit.errors import ConfigError

Array = npt.NDArray[np.float64]
Motion = Literal["faces", "bumps"]
Format = Literal["png", "jpg", "mkv", "mp4"]

LABELS: Final[dict[Motion, tuple[str, ...]]] = {
    "faces": ("happiness", "surprise", "disgust", "anger", "fear", "sadness", "contempt", "repression"),
    "bumps": ("smile", "smile_lopsided", "smile_frown", "smile_brow", "surprise", "surprise_held", "frown", "sulk"),
}
PEAK_PX: Final[dict[Motion, tuple[float, float]]] = {"faces": (0.5, 2.0), "bumps": (0.8, 2.5)}
"""Smallest and largest peak of the motion where nothing else is asked for."""
PEAK_SHARE: Final[dict[Motion, float]] = {"faces": 0.02, "bumps": 0.012}
"""Strongest motion, by the shorter side of the frame: beyond it a face could fold over itself."""
FACES_ONLY: Final = (
    *("turn_deg", "pose_deg", "exposure", "tone", "flat", "lamp_deg", "stray", "incomplete", "different", "blinks"),
    *("motion_blur", "face3d"),
)


@dataclass(frozen=True, slots=True)
class SynthConfig:
    """What a synthetic data set looks like.

    Attributes
    ----------
    subjects, clips : int
        Number of subjects, and of clips for each subject and class. Asking for more never changes those already there.
    classes : tuple of str, optional
        Labels, from `LABELS`; all of them by default.
    seed : int
    width, height : int
        Size of the frames, px.
    cropped : bool
        Put the face where the canonical crop has it (for `--align none`), instead of anywhere in the frame.
    fps : float
    phase_frames : (int, int)
        Shortest and longest distance, in frames, from onset to apex and from apex to offset.
    key_frames_only : bool
        Write the three key frames of each clip and nothing between.
    format : {"png", "jpg", "mkv", "mp4"}
        A folder of images, lossless or compressed; a lossless video (FFV1) or a compressed one (H.264).
    quality : int
        Of JPEG images, 1 to 100.
    crf : int
        Constant rate factor of H.264, 0 (lossless) to 51 (worst).
    peak_px : (float, float), optional
        Smallest and largest peak of the local motion of the rise, px; faces draw from it by the logarithm. By default `PEAK_PX`,
        scaled down as far as the frames are too small for it: see `peaks_px`.
    noise : float
        Standard deviation of the noise of each frame, grey levels.
    drift_px, drift_deg, drift_scale : float
        Largest drift of the head from the onset, along each axis, in the plane and in relative size.
    light : float
        Largest relative change of brightness from the onset (0.02 is 2 %).
    wander : bool
        Head and light turn round at a moment of their own, drawn anywhere between onset and offset, instead of at the apex, which
        they would give away.
    rest_frames : int
        Frames of a still face before the onset and behind the offset.
    motion : {"faces", "bumps"}
        Faces in three dimensions that move by action units, or round bumps on one photograph. What follows is for faces only.
    turn_deg : float
        Largest turn of the head out of the plane from the onset, about either axis.
    pose_deg : float
        How far to the side a head looks at the onset, at most; up and down 0.6 of it, tilted 0.5 of it.
    exposure : float
        Factor of all grey levels, before the noise.
    tone : (float, float)
        Range of the brightness of the skin, relative to the bundled photograph's.
    flat : bool
        No shading: the light comes from everywhere.
    lamp_deg : float
        Largest turn of the direction of the light from the onset.
    stray, incomplete, different : float
        Shares of clips with an action unit beside the expression, with an incomplete fall, and with a fall of its own: see
        `expressions.draw_movement`.
    blinks : float
        Share of clips in which the eyes close, wholly or in part, at some moment.
    motion_blur : float
        How long the shutter is open, as a share of the time between frames.
    face3d : str
        Another head: a folder of ICT-FaceKit, or a face3d.npz. Empty for the project's own.
    """

    subjects: int = 5
    clips: int = 1
    classes: tuple[str, ...] | None = None
    seed: int = 0
    width: int = 320
    height: int = 320
    cropped: bool = False
    fps: float = 200.0
    phase_frames: tuple[int, int] = (10, 30)
    key_frames_only: bool = False
    format: Format = "png"
    quality: int = 95
    crf: int = 5
    peak_px: tuple[float, float] | None = None
    noise: float = 1.0
    drift_px: float = 2.0
    drift_deg: float = 0.5
    drift_scale: float = 0.005
    light: float = 0.01
    wander: bool = False
    rest_frames: int = 0
    motion: Motion = "faces"
    turn_deg: float = 0.5
    pose_deg: float = 8.0
    exposure: float = 1.0
    tone: tuple[float, float] = (0.4, 1.05)
    flat: bool = False
    lamp_deg: float = 0.0
    stray: float = 0.25
    incomplete: float = 0.35
    different: float = 0.3
    blinks: float = 0.2
    motion_blur: float = 0.0
    face3d: str = ""

    def __post_init__(self) -> None:
        check(self.motion in LABELS, "motion", "faces or bumps", self.motion)
        self._check_people()
        self._check_frames()
        self._check_motion()
        self._check_faces()

    def _check_people(self) -> None:
        known = LABELS[self.motion]
        unknown = [label for label in self.labels if label not in known]
        check(1 <= self.subjects <= 9999, "subjects", "from 1 to 9999", self.subjects)
        check(1 <= self.clips <= 9999, "clips", "from 1 to 9999", self.clips)
        check(bool(self.labels) and not unknown, "classes", f"some of {', '.join(known)}", self.classes)
        check(len(set(self.labels)) == len(self.labels), "classes", "different from each other", self.classes)

    def _check_frames(self) -> None:
        check(64 <= self.width <= 4096 and self.width % 2 == 0, "width", "even, from 64 to 4096", self.width)
        check(64 <= self.height <= 4096 and self.height % 2 == 0, "height", "even, from 64 to 4096", self.height)
        check(not self.cropped or self.width == self.height, "height", "equal to width when cropped", self.height)
        check(0 < self.fps <= 10000, "fps", "above 0, at most 10000", self.fps)
        check(self.format in ("png", "jpg", "mkv", "mp4"), "format", "png, jpg, mkv or mp4", self.format)
        images = self.format in ("png", "jpg") or not self.key_frames_only
        check(images, "format", "png or jpg with key_frames_only", self.format)
        check(1 <= self.quality <= 100, "quality", "from 1 to 100", self.quality)
        check(0 <= self.crf <= 51, "crf", "from 0 to 51", self.crf)
        check(0 <= self.rest_frames <= 10000, "rest_frames", "from 0 to 10000", self.rest_frames)

    def _check_motion(self) -> None:
        low, high = self.phase_frames
        weak, strong = self.peaks_px
        check(1 <= low <= high <= 1000, "phase_frames", "two rising numbers from 1 to 1000", self.phase_frames)
        peaks = f"two rising numbers from 0 to {self._limit_px:g} (--peak-px) in frames of {self.width} x {self.height}"
        check(0 <= weak <= strong <= self._limit_px, "peak_px", peaks, self.peak_px)
        check(0 <= self.noise <= 50, "noise", "from 0 to 50", self.noise)
        check(0 <= self.drift_px <= 0.1 * self.width, "drift_px", "from 0 to a tenth of width", self.drift_px)
        check(0 <= self.drift_deg <= 15, "drift_deg", "from 0 to 15", self.drift_deg)
        check(0 <= self.drift_scale <= 0.2, "drift_scale", "from 0 to 0.2", self.drift_scale)
        check(0 <= self.light <= 0.2, "light", "from 0 to 0.2", self.light)

    def _check_faces(self) -> None:
        if self.motion == "bumps":
            for name in FACES_ONLY:
                given, unset = getattr(self, name), type(self).__dataclass_fields__[name].default
                check(given == unset, name, "left out with motion=bumps: it is for faces", given)
            return
        dark, bright = self.tone
        check(0 <= self.turn_deg <= 15, "turn_deg", "from 0 to 15", self.turn_deg)
        check(0 <= self.pose_deg <= 30, "pose_deg", "from 0 to 30", self.pose_deg)
        check(0.02 <= self.exposure <= 1.5, "exposure", "from 0.02 to 1.5", self.exposure)
        check(0.2 <= dark <= bright <= 1.2, "tone", "two rising numbers from 0.2 to 1.2", self.tone)
        check(0 <= self.lamp_deg <= 45, "lamp_deg", "from 0 to 45", self.lamp_deg)
        for name in ("stray", "incomplete", "different", "blinks", "motion_blur"):
            check(0 <= getattr(self, name) <= 1, name, "from 0 to 1", getattr(self, name))

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes asked for, or else all that there are."""
        return LABELS[self.motion] if self.classes is None else self.classes

    @property
    def peaks_px(self) -> tuple[float, float]:
        """Smallest and largest peak of the local motion: those given, or else what fits these frames."""
        weak, strong = PEAK_PX[self.motion]
        scale = min(1.0, self._limit_px / strong)
        return self.peak_px or (scale * weak, scale * strong)

    @property
    def _limit_px(self) -> float:
        return PEAK_SHARE[self.motion] * min(self.width, self.height)


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """What a perfect method would measure on one clip: `moving(x + flow(x)) = reference(x)`.

    Attributes
    ----------
    flow : (2 phases, 2 components, H, W) float32
        As the frames are: rise on the onset's grid, fall on the apex's; px. 0 in the background of faces, which stays.
    flow_local : (2, 2, H, W) float32
        The head's motion undone in apex and offset: what is left after perfect alignment, on the onset's head pose.
    visible : (2, H, W) bool
        Whether both frames of a phase show what the pixel of its first frame shows: not where a lid, a lip or the nose hides it,
        and not at the edge of something else.
    visible_local : (2, H, W) bool
        The same for `flow_local`, with every frame in the pose of the onset.
    drift : (3, 2, 3) float64
        The head at onset, apex, offset: onset px -> px of that frame. For faces, the similarity nearest to the head's motion.
    pose_deg : (3, 3) float64
        Yaw, pitch and roll of the head at onset, apex and offset; 0 for bumps.
    """

    flow: npt.NDArray[np.float32]
    flow_local: npt.NDArray[np.float32]
    visible: npt.NDArray[np.bool_]
    visible_local: npt.NDArray[np.bool_]
    drift: Array
    pose_deg: Array


def check(ok: bool, name: str, expectation: str, value: Any) -> None:
    """Refuse a setting of a synthetic data set, unless all is well."""
    if not ok:
        raise ConfigError(f"synth: {name} must be {expectation}; got {value!r}. Correct it.")
