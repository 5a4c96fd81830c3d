"""Where the parts of a face lie: MediaPipe's 478 points, found in a picture. `landmarks_file` reads them from a file.

Points are numbered as in MediaPipe's face mesh; coordinates are (x, y) in pixels of the image. Left is the image's left.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import itertools
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from flowkit.errors import EnvironmentMissing
from flowkit.storage.safe_files import read_regular
from flowkit.system_libraries import install_line, missing_system_libraries

POINTS = 478
MAX_MODEL_BYTES = 1 << 28
LEFT_EYE, RIGHT_EYE = 33, 263
"""Outer eye corners."""
CANONICAL = {
    33: (0.278, 0.296),  # eye corners: outer left, inner left, inner right, outer right
    133: (0.415, 0.304),
    362: (0.585, 0.304),
    263: (0.722, 0.296),
    168: (0.5, 0.278),  # nose ridge, downwards from between the eyes
    6: (0.5, 0.317),
    197: (0.5, 0.351),
    195: (0.5, 0.381),
    5: (0.5, 0.413),
}
"""Points that place the crop, and where they lie in it (unit square): the mirrored mean of five faces."""

FACE_OVAL = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)
EYES = (
    (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246),
    (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466),
)
BROWS = (
    (70, 63, 105, 66, 107, 55, 65, 52, 53, 46),
    (336, 296, 334, 293, 300, 276, 283, 282, 295, 285),
)
LIPS = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146)

Landmarks = npt.NDArray[np.float32]
"""(478, 2) of a frame, px (x, y); NaN where a point is not given."""
MAX_FACES = 4
_TILES = 3
"""Per side; each overlaps the next by half."""
MODEL = resources.files("flowkit.assets") / "face_landmarker.task"
MODEL_SHA256 = "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff"

_NEEDED = frozenset({"libEGL.so.1", "libGLESv2.so.2"})
_CHATTER = re.compile(
    rb"WARNING: All log messages before absl::InitializeLog|INFO: Created TensorFlow Lite|[IW][0-9]{4} [0-9:. ]+[a-z_]+\.cc:"
)
"""What MediaPipe prints on stderr when all is well: information and warnings, never errors."""


class FaceLandmarker:
    """Finder of faces in single pictures; close it, or use it in a `with` block.

    Parameters
    ----------
    model : str
        A face landmarker file of MediaPipe; empty for the bundled one, whose content is checked.

    Raises
    ------
    EnvironmentMissing
        The model, mediapipe or a system library is missing or damaged.

    Notes
    -----
    Pictures are independent of each other (MediaPipe's IMAGE mode): its VIDEO mode smooths over time and lags behind the head.
    """

    def __init__(self, model: str = "") -> None:
        content = _read_model(model)
        _require_libraries()
        with _without_chatter():
            self._mediapipe, self._landmarker = _start(content, model or str(MODEL))
            self.detect(np.zeros((64, 64, 3), np.uint8))  # some of the chatter comes with the first picture

    def __enter__(self) -> FaceLandmarker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the model."""
        self._landmarker.close()

    def detect(self, rgb: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.float32]]:
        """Points of every face in a picture, at most `MAX_FACES`, the largest face first.

        Parameters
        ----------
        rgb : (H, W, 3) uint8

        Returns
        -------
        list of (478, 2) float32
            Pixels (x, y). Largest: by the area of the points' bounding box.
        """
        image = self._mediapipe.Image(
            image_format=self._mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(rgb, np.uint8)
        )
        size = np.array(rgb.shape[1::-1], np.float32)
        found = self._landmarker.detect(image).face_landmarks
        faces = [np.array([[p.x for p in face], [p.y for p in face]], np.float32).T.copy() * size for face in found]
        return sorted(faces, key=lambda points: -float(np.prod(np.ptp(points, axis=0))))

    def search(self, rgb: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.float32]]:
        """Find faces as `detect` does and, where the whole picture shows none, in overlapping tiles of half its sides.

        MediaPipe looks at a picture of 128 x 128 px, in which faces of less than about a tenth of the width are lost. In a tile
        they are twice as large.
        """
        if found := self.detect(rgb):
            return found
        height, width = rgb.shape[0] // 2, rgb.shape[1] // 2
        for down, right in itertools.product(range(_TILES), range(_TILES)):
            top, left = down * height // (_TILES - 1), right * width // (_TILES - 1)
            tile = self.detect(rgb[top : top + height, left : left + width])
            new = [points + np.array([left, top], np.float32) for points in tile]
            found += [points for points in new if not any(_same_face(points, other) for other in found)]
        return sorted(found, key=lambda points: -float(np.prod(np.ptp(points, axis=0))))


def _same_face(points: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> bool:
    """Whether the middle of a face lies inside another: tiles overlap."""
    middle = points.mean(axis=0)
    return bool((other.min(axis=0) < middle).all() and (middle < other.max(axis=0)).all())


def check_landmarker(model: str = "") -> None:
    """Whether a `FaceLandmarker` could start here, without the second that starting one takes.

    Raises
    ------
    EnvironmentMissing
        As `FaceLandmarker`.
    """
    _read_model(model)
    _require_libraries()
    if importlib.util.find_spec("mediapipe") is None:
        raise _no_mediapipe("no such package")


def _no_mediapipe(found: object) -> EnvironmentMissing:
    return EnvironmentMissing(
        f"mediapipe: package must be installed for align.method=mediapipe; got {found}. Install flowkit with its "
        "dependencies, or set align.method to landmarks or none."
    )


def _read_model(file: str) -> bytes:
    """Content of the model: the bundled one only as it was shipped."""
    source = Path(file) if file else MODEL
    try:
        content = read_regular(Path(file), MAX_MODEL_BYTES) if file else MODEL.read_bytes()
    except OSError as error:
        step = "Check align.face_model" if file else "Install flowkit again, or set align.face_model"
        raise EnvironmentMissing(
            f"{source}: face model must be a readable file; got {error.strerror}. {step}."
        ) from error
    digest = hashlib.sha256(content).hexdigest()
    if not file and digest != MODEL_SHA256:
        raise EnvironmentMissing(
            f"{source}: bundled face model must have the sha256 {MODEL_SHA256}; got {digest}. Install flowkit again, or set "
            "align.face_model."
        )
    return content


def _require_libraries() -> None:
    missing = [(library, package) for library, package in missing_system_libraries() if library in _NEEDED]
    if missing:
        names = ", ".join(library for library, _ in missing)
        raise EnvironmentMissing(
            f"mediapipe: system libraries must be installed; got no {names}. Run {install_line(missing)}, or "
            "set align.method to landmarks or none."
        )


def _start(content: bytes, name: str) -> tuple[Any, Any]:
    """The module mediapipe and a running landmarker."""
    try:
        with _drawings_later():  # only pictures without given landmarks need it
            import mediapipe
            from mediapipe.tasks.python import BaseOptions, vision
    except ImportError as error:
        raise _no_mediapipe(error) from error
    options = vision.FaceLandmarkerOptions(
        base_options=BaseOptions(model_asset_buffer=content),
        running_mode=vision.RunningMode.IMAGE,
        num_faces=MAX_FACES,
    )
    try:
        return mediapipe, vision.FaceLandmarker.create_from_options(options)
    except (RuntimeError, ValueError) as error:
        raise EnvironmentMissing(
            f"{name}: face model must be a face landmarker of MediaPipe; got one it refuses ({error}). Check align.face_model."
        ) from error


class _Later(ModuleType):
    """Stands for a module of Matplotlib until something of it is asked for."""

    def __getattr__(self, name: str) -> Any:
        _forget(self)
        return getattr(importlib.import_module(self.__name__), name)


@contextmanager
def _drawings_later() -> Iterator[None]:
    """Keep MediaPipe from importing Matplotlib, half of its own start, before one of its drawings is asked for."""
    names = ("matplotlib", "matplotlib.pyplot")
    if any(name in sys.modules for name in names) or importlib.util.find_spec(names[0]) is None:
        yield
        return
    whole, pyplot = (_Later(name) for name in names)
    vars(whole)["pyplot"] = pyplot
    sys.modules.update({whole.__name__: whole, pyplot.__name__: pyplot})
    try:
        yield
    finally:
        _forget(whole, pyplot)


def _forget(*modules: ModuleType) -> None:
    """Take modules out of those that count as imported."""
    for module in modules:
        if sys.modules.get(module.__name__) is module:
            del sys.modules[module.__name__]


@contextmanager
def _without_chatter() -> Iterator[None]:
    """Keep MediaPipe's start-up lines off stderr; every other line appears there when the block ends.

    They come from C++, so the file descriptor itself is turned aside.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as aside:
        os.dup2(aside.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            aside.seek(0)
            for line in aside:
                if not _CHATTER.match(line):
                    os.write(2, line)
