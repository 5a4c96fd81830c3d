"""A synthetic person who does before the camera what a test asks for: poses of the head, action units, one frame at a time."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from flowkit.config import AlignConfig
from flowkit.face.face_mesh import BOTH, LEFT, RIGHT
from flowkit.synthetic.camera import FaceSubject, Moment, displaced, make_subject, photographed, picture
from flowkit.synthetic.expressions import BOTH_SIDED
from flowkit.synthetic.scene_settings import SynthConfig

Array = npt.NDArray[np.float64]
Picture = npt.NDArray[np.float32]
Landmarks = npt.NDArray[np.float32]
Units = Mapping[int, float]
"""Action units and their strength, cm; both sides move."""

AT_REST = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
"""Yaw, pitch and roll in degrees, x and y in px, logarithm of the size: from the onset."""
SMILE, BLINK, TALKING = {6: 0.1, 12: 0.15}, {45: 1.0}, {25: 0.2, 26: 0.4}


@dataclasses.dataclass(frozen=True, eq=False)
class Sitter:
    """A person before the camera."""

    subject: FaceSubject
    config: SynthConfig

    @classmethod
    def of(cls, name: str = "s01", average: bool = False, **settings: Any) -> Sitter:
        """A person of that name; with the geometry of the mean head, to the last point, if `average`."""
        config = SynthConfig(**settings)
        subject = make_subject(name, config)
        if average:
            person = dataclasses.replace(subject.person, points=subject.person.head.points)
            marks = subject.projected(person.points[person.head.landmark], subject.rest)[:, :2].astype(np.float64)
            subject = dataclasses.replace(subject, person=person, landmarks=marks)
        return cls(subject, config)

    def shot(self, seed: int, units: Units | None = None, pose: tuple[float, ...] = AT_REST) -> Picture:
        """One frame, (H, W) in [0, 1]."""
        moment = Moment(self._points(units), self.subject.rest + np.array(pose), np.zeros(2), np.zeros(2))
        frame = photographed(lambda _: picture(self.subject, moment, self.config), 0, self.config, seed)
        return frame.astype(np.float32) / np.float32(255)

    def landmarks(self, pose: tuple[float, ...] = AT_REST) -> Landmarks:
        """True landmarks of the face at rest, (478, 2), px of the frame."""
        at = self.subject.person.points[self.subject.person.head.landmark]
        return self.subject.projected(at, self.subject.rest + np.array(pose))[:, :2]

    def _points(self, units: Units | None) -> Array:
        person = self.subject.person
        sides = {
            (unit, side): strength
            for unit, strength in (units or {}).items()
            for side in ((BOTH,) if unit in BOTH_SIDED else (LEFT, RIGHT))
        }
        return person.points + displaced(person, sides)


def landmark_settings(path: Path, points: Landmarks, size: int, clip_id: str = "smile_1") -> AlignConfig:
    """Settings of an `Aligner` to which the landmarks of a clip are given, as far as they are not NaN."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("clip_id", "point", "x", "y"))
        writer.writerows((clip_id, i, *map(float, point)) for i, point in enumerate(points) if not np.isnan(point[0]))
    return AlignConfig(method="landmarks", landmarks=str(path), size=size)
