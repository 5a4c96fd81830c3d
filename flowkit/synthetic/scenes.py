"""The clips of a synthetic data set, whichever kind of motion they have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from flowkit.synthetic import bump_scenes, camera, face_scenes
from flowkit.synthetic.scene_settings import LABELS, SynthConfig, Truth

__all__ = ["LABELS", "Scene", "SynthConfig", "Truth", "make_scene", "make_subject", "scenes"]


class Subject(Protocol):
    """Somebody who is shown."""

    @property
    def name(self) -> str:
        """Of the person, as in the manifest."""


class Draw(Protocol):
    """What chance decides about one clip."""

    @property
    def peak_px(self) -> float:
        """Peak of the local motion of the rise."""

    @property
    def apex(self) -> int:
        """Frames after the onset."""

    @property
    def offset(self) -> int:
        """Frames after the onset."""

    @property
    def noise_seed(self) -> int:
        """Seed of the noise of all frames."""

    @property
    def drift(self) -> npt.NDArray[np.float64]:
        """Head at its turn and at the offset, (2, 4): x and y in px, angle in rad, logarithm of the size."""


class Scene(Protocol):
    """One clip, ready to be rendered: who shows what, with which luck."""

    @property
    def clip_id(self) -> str:
        """As in the manifest."""

    @property
    def subject(self) -> Subject:
        """Who is shown."""

    @property
    def label(self) -> str:
        """One of `LABELS`."""

    @property
    def draw(self) -> Draw:
        """What chance decided."""

    @property
    def config(self) -> SynthConfig:
        """Settings of the data set."""

    @property
    def landmarks(self) -> npt.NDArray[np.float64]:
        """Of the onset, (478, 2), px."""

    @property
    def facts(self) -> dict[str, str]:
        """Further columns of the manifest."""

    def render(self, t: int) -> npt.NDArray[np.uint8]:
        """Frame `t` (0 at the onset; the face rests before it and behind the offset) of a clip, (H, W) uint8."""

    def truth(self) -> Truth:
        """The true flow of a clip."""


def scenes(config: SynthConfig) -> Iterator[Scene]:
    """Yield every clip of a data set, subject by subject.

    Examples
    --------
    >>> [scene.clip_id for scene in scenes(SynthConfig(subjects=1, classes=("fear", "anger")))]
    ['s01_fear_01', 's01_anger_01']
    """
    for number in range(1, config.subjects + 1):
        subject = make_subject(f"s{number:02d}", config)
        for label in config.labels:
            for repeat in range(1, config.clips + 1):
                yield make_scene(f"{subject.name}_{label}_{repeat:02d}", subject, label, config)


def make_subject(name: str, config: SynthConfig) -> Any:
    """Return a synthetic person: the same for the same name and seed, whoever else is in the data set."""
    makers = {"faces": camera.make_subject, "bumps": bump_scenes.make_subject}
    return makers[config.motion](name, config)


def make_scene(clip_id: str, subject: Any, label: str, config: SynthConfig) -> Scene:
    """Return one clip of a person: the same for the same id and seed, whatever else is in the data set."""
    makers: dict[str, Any] = {"faces": face_scenes.make_scene, "bumps": bump_scenes.make_scene}
    scene: Scene = makers[config.motion](clip_id, subject, label, config)
    return scene
