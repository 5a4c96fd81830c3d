"""Another face on disk: a face3d.npz, or somebody's own folder of ICT-FaceKit, read with every size checked before it is used.

Both hold one mesh whose points are numbered as in ICT-FaceKit's light face model (https://github.com/ICT-VGL/ICT-FaceKit, folder
FaceXModel): the npz a choice of them, the folder all. Of the folder we read the skin and the front of the eyeballs, as its README
numbers them, the first `MODES` identities, and the expression shapes that our action units are made of.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import numpy.typing as npt

from flowkit.errors import ConfigError
from flowkit.listing import listed
from flowkit.storage.safe_files import read_regular, regular

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.intp]

FACE, SCALP, EYEBALLS = 0, 1, 2
"""Parts of the mesh: narrow face; scalp, ears and neck; eyeballs."""
SHAPES: Final[dict[int, tuple[str, ...]]] = {
    1: ("browInnerUp",),
    2: ("browOuterUp",),
    4: ("browDown",),
    5: ("eyeWide",),
    6: ("cheekRaiser", "cheekSquint"),
    7: ("eyeSquint",),
    9: ("noseSneer",),
    10: ("mouthUpperUp",),
    12: ("mouthSmile",),
    14: ("mouthDimple",),
    15: ("mouthFrown",),
    16: ("mouthLowerDown",),
    17: ("mouthShrugLower",),
    20: ("mouthStretch",),
    24: ("mouthPress",),
    25: ("mouthLowerDown", "mouthUpperUp"),
    26: ("jawOpen",),
    45: ("eyeBlink",),
}
"""The shapes whose sum is an action unit."""
WHOLE: Final = frozenset({"mouthShrugLower", "jawOpen"})
"""Shapes of the middle of the face. All others come as NAME_L and NAME_R."""
MODES = 50
"""Identity modes of a folder that are used: the others change little."""

_LANDMARKS_68 = (
    *(1225, 1888, 1052, 367, 1719, 1722, 2199, 1447, 966, 3661, 4390, 3927, 3924, 2608, 3272, 4088, 3443),
    *(268, 493, 1914, 2044, 1401, 3615, 4240, 4114, 2734, 2509, 978, 4527, 4942, 4857, 1140, 2075, 1147),
    *(4269, 3360, 1507, 1542, 1537, 1528, 1518, 1511, 3742, 3751, 3756, 3721, 3725, 3732, 5708, 5695, 2081),
    *(0, 4275, 6200, 6213, 6346, 6461, 5518, 5957, 5841, 5702, 5711, 5533, 6216, 6207, 6470, 5517, 5966),
)
"""Vertices of the 68 iBUG points in the folder's mesh, as its README gives them."""
_FOLDER_POINTS, _NARROW, _SKIN = 26719, 6706, 9409
_SCLERAS = ((21451, 22221), (23021, 23791))
_MAX_BYTES = 1 << 27
_MOST_CM = 100
_LIMITS = {"V": 1 << 16, "T": 1 << 18, "E": 256, "K": 256}
_ARRAYS: Final[dict[str, tuple[str, tuple[str | int, ...]]]] = {
    "vertices": ("f", ("V", 3)),
    "triangles": ("iu", ("T", 3)),
    "uv": ("f", ("V", 2)),
    "part": ("iu", ("V",)),
    "expression_names": ("U", ("E",)),
    "expressions": ("f", ("E", "V", 3)),
    "identities": ("f", ("K", "V", 3)),
    "multipie68": ("iu", (68,)),
    "mediapipe478_vertex": ("iu", (478,)),
}
_KINDS = {"f": "floating-point numbers", "iu": "whole numbers", "U": "text"}
_GET = "Get the file again, or leave --face3d out."
_GET_FOLDER = "Get the folder again from https://github.com/ICT-VGL/ICT-FaceKit, or leave --face3d out."


@dataclass(frozen=True, slots=True, eq=False)
class FaceModel:
    """A morphable face, as read.

    Attributes
    ----------
    points : (V, 3) float64
        The mean, cm; x to the image's right, y up, z towards the camera.
    triangles : (T, 3) int
        Counter-clockwise as seen from outside.
    uv : (V, 2) float64
        Place of each point of the skin in a picture of the opened surface: lips and lids lie apart.
    part : (V,) int
        `FACE`, `SCALP` or `EYEBALLS`.
    shapes : mapping of str to (V, 3) float64
        Displacement by each expression shape, cm.
    identities : (K, V, 3) float64
        One standard deviation each, cm.
    landmarks_68 : (68,) int
        The points of iBUG's landmarks.
    mediapipe : (478,) int, optional
        The points nearest to MediaPipe's landmarks, where they are known.
    """

    points: Array
    triangles: Index
    uv: Array
    part: Index
    shapes: dict[str, Array]
    identities: Array
    landmarks_68: Index
    mediapipe: Index | None


def shape_names() -> list[str]:
    """Names of all shapes that `SHAPES` asks for."""
    bases = dict.fromkeys(base for bases in SHAPES.values() for base in bases)
    return [name for base in bases for name in ([base] if base in WHOLE else [f"{base}_L", f"{base}_R"])]


def read_face(path: Path) -> FaceModel:
    """Read a face3d.npz or a folder of ICT-FaceKit.

    Parameters
    ----------
    path : Path

    Raises
    ------
    ConfigError
        There is no such file or folder, something is missing in it, or it holds something else.

    Examples
    --------
    >>> read_face(Path("nowhere"))
    Traceback (most recent call last):
    flowkit.errors.ConfigError: nowhere: --face3d must be a folder of ICT-FaceKit or a face3d.npz; got nothing there. Correct it.
    """
    if not path.exists():
        raise ConfigError(
            f"{path}: --face3d must be a folder of ICT-FaceKit or a face3d.npz; got nothing there. Correct it."
        )
    return _checked(path, _read_folder(path) if path.is_dir() else _read_npz(path))


# --- one file


def _read_npz(path: Path) -> FaceModel:
    try:
        with open(path, "rb", opener=regular) as file, zipfile.ZipFile(file) as bundle:
            sizes: dict[str, int] = {}
            held = {name: _read_array(path, bundle, name, sizes) for name in _ARRAYS}
    except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise ConfigError(
            f"{path}: --face3d must be a face3d.npz; got a file that cannot be read as one ({error}). {_GET}"
        ) from error
    names = [str(name) for name in held["expression_names"]]
    missing = [name for name in shape_names() if name not in names]
    if missing:
        raise ConfigError(f"{path}: expression_names must have {listed(missing)}; got none of that name. {_GET}")
    expressions = held["expressions"].astype(np.float64)
    return FaceModel(
        points=held["vertices"].astype(np.float64),
        triangles=held["triangles"].astype(np.intp),
        uv=held["uv"].astype(np.float64),
        part=held["part"].astype(np.intp),
        shapes={name: expressions[names.index(name)] for name in shape_names()},
        identities=held["identities"].astype(np.float64),
        landmarks_68=held["multipie68"].astype(np.intp),
        mediapipe=held["mediapipe478_vertex"].astype(np.intp),
    )


def _read_array(path: Path, bundle: zipfile.ZipFile, name: str, sizes: dict[str, int]) -> npt.NDArray[Any]:
    """One array, its type and shape checked before its content is unpacked; `sizes` are those that other arrays have."""
    kinds, shape = _ARRAYS[name]
    if f"{name}.npy" not in bundle.namelist():
        raise ConfigError(f"{path}: a face3d.npz must have the array {name}; got none. {_GET}")
    try:
        with bundle.open(f"{name}.npy") as file:
            got, dtype = _header(file)
        expected = [sizes.get(axis, axis) if isinstance(axis, str) else axis for axis in shape]
        fits = len(got) == len(shape) and all(
            1 <= there <= _LIMITS[here] if isinstance(here, str) else there == here
            for here, there in zip(expected, got, strict=True)
        )
        if not fits or dtype.kind not in kinds or dtype.itemsize > 256:
            wanted = " x ".join(str(axis) for axis in expected)
            there = " x ".join(str(axis) for axis in got) or "nothing"
            raise ConfigError(f"{path}: {name} must be {wanted} {_KINDS[kinds]}; got {there} of {dtype}. {_GET}")
        sizes.update({axis: size for axis, size in zip(shape, got, strict=True) if isinstance(axis, str)})
        with bundle.open(f"{name}.npy") as file:
            return np.asarray(np.lib.format.read_array(file, allow_pickle=False))
    except ConfigError:
        raise
    except ValueError as error:  # ConfigError is one
        raise ConfigError(f"{path}: {name} must be an array; got {error}. {_GET}") from error


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(file)
    if version not in read:
        raise ValueError(f"an array of format {version}")
    shape, _, dtype = read[version](file)
    return shape, dtype


# --- a folder


def _read_folder(path: Path) -> FaceModel:
    neutral = "generic_neutral_mesh"
    folder = path / "FaceXModel" if (path / "FaceXModel").is_dir() else path
    names = [neutral, *(f"identity{number:03d}" for number in range(MODES)), *shape_names()]
    missing = [f"{name}.obj" for name in names if not (folder / f"{name}.obj").exists()]
    if missing:
        raise ConfigError(
            f"{folder}: a folder of ICT-FaceKit (FaceXModel) must have {listed(missing)}; got none of that name. {_GET_FOLDER}"
        )
    points, polygons, uv = _read_mesh(folder / f"{neutral}.obj")
    kept, triangles = _kept(points, polygons)
    number = np.full(len(points), -1)
    number[kept] = np.arange(len(kept))

    def moved(name: str) -> Array:
        there = _read_points(folder / f"{name}.obj", _content(folder / f"{name}.obj"))
        return there[kept] - points[kept]

    return FaceModel(
        points=points[kept],
        triangles=number[triangles],
        uv=uv[kept],
        part=np.where(kept < _NARROW, FACE, np.where(kept < _SKIN, SCALP, EYEBALLS)),
        shapes={name: moved(name) for name in shape_names()},
        identities=np.stack([moved(name) for name in names[1 : 1 + MODES]]),
        landmarks_68=number[list(_LANDMARKS_68)],
        mediapipe=None,
    )


def _kept(points: Array, polygons: Index) -> tuple[Index, Index]:
    """Numbers of the points of skin and of the front of the eyeballs, and the triangles between them."""
    wanted = np.arange(len(points)) < _SKIN
    for first, end in _SCLERAS:
        depth = points[first:end, 2]
        wanted[first:end] = depth > (depth.min() + depth.max()) / 2
    corners = polygons[wanted[polygons].all(axis=1)]
    triangles = np.concatenate([corners[:, [0, 1, 2]], corners[:, [0, 2, 3]]])
    triangles = triangles[triangles[:, 1] != triangles[:, 2]]
    used = np.zeros(len(points), bool)
    used[triangles] = True
    used[:_SKIN] = True
    return np.flatnonzero(used), triangles


def _content(path: Path) -> bytes:
    try:
        return read_regular(path, _MAX_BYTES)
    except OSError as error:
        raise ConfigError(
            f"{path}: a shape of ICT-FaceKit must be a file that can be read; got {error}. {_GET_FOLDER}"
        ) from error


def _read_points(path: Path, content: bytes) -> Array:
    """The points of a Wavefront OBJ file, (_FOLDER_POINTS, 3)."""
    found = re.findall(rb"^v[ \t]+(.*)$", content, re.MULTILINE)
    if len(found) != _FOLDER_POINTS:
        raise ConfigError(f"{path}: the mesh must have {_FOLDER_POINTS} points; got {len(found)}. {_GET_FOLDER}")
    return _numbers(path, found, 3)


def _numbers(path: Path, found: list[bytes], columns: int) -> Array:
    try:
        values = np.array(b" ".join(found).split(), np.float64)
    except ValueError as error:
        raise ConfigError(f"{path}: a mesh must be made of numbers; got {error}. {_GET_FOLDER}") from error
    if values.size != len(found) * columns:
        raise ConfigError(f"{path}: points must have {columns} numbers each; got other lines. {_GET_FOLDER}")
    return values.reshape(-1, columns)


def _read_mesh(path: Path) -> tuple[Array, Index, Array]:
    """Points; polygons (P, 4), the third corner of a triangle twice; place of each point in the texture."""
    content = _content(path)
    points = _read_points(path, content)
    places = _numbers(path, re.findall(rb"^vt[ \t]+(\S+[ \t]+\S+)", content, re.MULTILINE), 2)
    faces = [line.split() for line in re.findall(rb"^f[ \t]+(.*)$", content, re.MULTILINE)]
    corners = [(face[0], face[1], face[2], face[-1]) for face in faces if len(face) in (3, 4)]
    try:
        pairs = np.array([corner.split(b"/")[:2] for face in corners for corner in face], np.intp).reshape(-1, 4, 2) - 1
    except ValueError as error:
        raise ConfigError(f"{path}: polygons must be lines 'f point/place ...'; got {error}. {_GET_FOLDER}") from error
    if not pairs.size or pairs.min() < 0 or (pairs.max(axis=(0, 1)) >= [len(points), len(places)]).any():
        raise ConfigError(f"{path}: polygons must name points and places of the mesh; got others. {_GET_FOLDER}")
    uv = np.zeros((len(points), 2))
    uv[pairs[..., 0]] = places[pairs[..., 1]]
    return points, pairs[..., 0], uv


# --- both


def _checked(path: Path, face: FaceModel) -> FaceModel:
    """The face, if it can be drawn."""
    held = {"vertices": face.points, "uv": face.uv, "identities": face.identities, **face.shapes}
    bad = [name for name, values in held.items() if not np.abs(values).max() < _MOST_CM]  # nor is NaN
    if bad:
        raise ConfigError(
            f"{path}: {listed(bad)} must hold numbers between -{_MOST_CM} and {_MOST_CM} (cm); got others, or NaN. {_GET}"
        )
    chosen = {"triangles": face.triangles, "the 68 landmarks": face.landmarks_68}
    if face.mediapipe is not None:
        chosen["mediapipe478_vertex"] = face.mediapipe
    for name, numbers in chosen.items():
        if numbers.min() < 0 or numbers.max() >= len(face.points):
            raise ConfigError(
                f"{path}: {name} must name points from 0 to {len(face.points) - 1}; "
                f"got {numbers.min()} to {numbers.max()}. {_GET}"
            )
    if set(face.part.tolist()) != {FACE, SCALP, EYEBALLS}:
        raise ConfigError(f"{path}: part must be 0, 1 and 2; got {sorted(set(face.part.tolist()))[:9]}. {_GET}")
    across = face.points[face.part == EYEBALLS, 0]
    if not across.min() < 0 < across.max():
        raise ConfigError(
            f"{path}: eyeballs must lie on both sides of x = 0; got them from x = {across.min():.3g} to {across.max():.3g}. {_GET}"
        )
    return face
