"""What one clip becomes in each format of `flowkit export`: names and contents of its files, its row in the list.

`stst` is the layout that `flowkit import stst` reads (see stst_layout.py, whose constants it shares). Its pictures of direction
were looked up in the public files, of which this gives the same pixels but for one in a thousand: hue is the angle of the *scaled*
u and v, both from 0 to 255, halved and cut to a whole number. With the zero of motion lost, that is no direction of motion.
"""

from __future__ import annotations

import io
import re
import urllib.parse
import zipfile
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, ClassVar, Final, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from flowkit.errors import ConfigError
from flowkit.inputs.manifest import MAX_TEXT
from flowkit.interop.stst_layout import DATASETS, LABELS, LIST_FILE, PICTURE_FOLDERS, SIDE, SUFFIXES
from flowkit.labels.groupings import dataset_name, grouping
from flowkit.reports.pictures import mmcof_picture, png_bytes
from flowkit.storage.schema import FACE, Sample

GREYS: Final = 255
STILL_GREY: Final = 127
"""Grey of a channel in which nothing differs."""
MAX_NAME: Final = 200
"""Longest file name without its suffix, in bytes: what file systems take, less a temporary's prefix."""
_DEVICE: Final = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|$)", re.IGNORECASE)
"""Names that Windows keeps for devices, whatever suffix follows."""
_ESCAPED: Final = re.compile(r"(%..|[a-zA-Z])")
"""What of a name stays together."""
MAX_STST_NAME: Final = MAX_TEXT // 4
"""Longest `sub` and `filename_o` that an import takes."""


class Refused(Exception):
    """Why a clip is left out, and whether that is by design."""

    def __init__(self, reason: str, by_design: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.by_design = by_design


class Format(Protocol):
    """What `export` asks of a format."""

    list_file: ClassVar[str]
    columns: ClassVar[tuple[str, ...]]
    folder: ClassVar[str]

    def names(self, sample: Sample) -> tuple[str, ...]:
        """Names of a clip's files in `folder`; raises Refused."""

    def contents(self, sample: Sample, units: str) -> tuple[bytes, ...]:
        """Their contents, in the same order."""

    def row(self, sample: Sample, units: str) -> tuple[object, ...]:
        """Its row in the list."""


def file_name(text: str) -> str:
    """A name that every file system takes, from any text: all but letters, digits and `_ . - ~` becomes %XX.

    Different texts have different names, and `urllib.parse.unquote` gives the text back.

    Raises
    ------
    Refused
        It would be longer than `MAX_NAME`.

    Examples
    --------
    >>> file_name("sub01/EP02 01f")
    'sub01%2FEP02%2001f'
    """
    name = urllib.parse.quote(text, safe="")
    if name.startswith(".") or _DEVICE.match(name):
        name = _spelt(name[0]) + name[1:]  # neither hidden, nor a folder, nor a device
    return _short(name)


class FileNames:
    """File names of the clips of one export, which differ also where a file system takes `A` for `a`.

    The first of two texts that differ in capitals alone keeps its name; in that of the second each letter becomes %XX.
    """

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def of(self, text: str) -> str:
        """Return the name of a text, always the same one.

        Raises
        ------
        Refused

        Examples
        --------
        >>> names = FileNames()
        >>> names.of("Ab"), names.of("aB"), names.of("Ab")
        ('Ab', '%61%42', 'Ab')
        """
        name = file_name(text)
        if self._texts.setdefault(name.casefold(), text) != text:
            name = _short("".join(_spelt(sign) if sign.isalpha() else sign for sign in _ESCAPED.split(name)))
        return name


def _spelt(sign: str) -> str:
    return f"%{ord(sign):02X}"


def _short(name: str) -> str:
    if len(name) > MAX_NAME:
        raise Refused(f"its name as a file would be longer than {MAX_NAME} bytes")
    return name


class Npz:
    """Every column of the shard as an array of an .npz file, without pickle; the same clip gives the same bytes."""

    list_file: ClassVar[str] = "clips.csv"
    columns: ClassVar[tuple[str, ...]] = ("clip_id", "dataset", "subject", "label", "file")
    folder: ClassVar[str] = "clips"

    def __init__(self) -> None:
        self._stems = FileNames()

    def names(self, sample: Sample) -> tuple[str, ...]:
        """One file."""
        return (f"{self._stems.of(sample['clip_id'])}.npz",)

    def contents(self, sample: Sample, units: str) -> tuple[bytes, ...]:
        """The columns, and `units` of the flow."""
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for name, value in {**sample, "units": units}.items():
                array = io.BytesIO()
                np.lib.format.write_array(array, np.asarray(value), allow_pickle=False)
                archive.writestr(zipfile.ZipInfo(f"{name}.npy"), array.getvalue())  # ZipInfo: no time of day
        return (file.getvalue(),)

    def row(self, sample: Sample, units: str) -> tuple[object, ...]:
        """Which clip lies where."""
        return (*_who(sample), f"{self.folder}/{self.names(sample)[0]}")


class Png:
    """Rise, fall and MM-COF as HSV pictures: hue is direction, saturation full, value magnitude.

    The value of MM-COF is M'. That of rise and fall is their magnitude over `scale`, the largest magnitude of both phases inside
    the face, which stands in the list: so the two can be compared, and made into pixels again.
    """

    list_file: ClassVar[str] = "clips.csv"
    columns: ClassVar[tuple[str, ...]] = (
        *("clip_id", "dataset", "subject", "label", "rise", "fall", "mmcof", "scale", "units"),
        *("rise_valid", "fall_valid", "onset", "apex", "offset"),
    )
    folder: ClassVar[str] = "clips"

    def __init__(self) -> None:
        self._stems = FileNames()

    def names(self, sample: Sample) -> tuple[str, ...]:
        """Three files."""
        stem = self._stems.of(sample["clip_id"])
        return tuple(f"{stem}_{part}.png" for part in ("rise", "fall", "mmcof"))

    def contents(self, sample: Sample, units: str) -> tuple[bytes, ...]:
        """Three RGB pictures of the size of the crop."""
        scale = self._scale(sample) or 1.0
        phases = []
        for flow in np.asarray(sample["flow"], np.float64):
            value = np.minimum(np.hypot(*flow) / scale, 1)
            phases.append(mmcof_picture(np.stack([*flow, value])))
        return tuple(png_bytes(picture) for picture in (*phases, mmcof_picture(sample["mmcof"])))

    def row(self, sample: Sample, units: str) -> tuple[object, ...]:
        """Files, and what makes numbers of their values again."""
        files = [f"{self.folder}/{name}" for name in self.names(sample)]
        valid = [int(phase) for phase in sample["phase_valid"]]
        frames = [int(sample[name]) for name in ("onset", "apex", "offset")]
        return (*_who(sample), *files, f"{self._scale(sample):.6g}", units, *valid, *frames)

    @staticmethod
    def _scale(sample: Sample) -> float:
        magnitude = np.hypot(*np.asarray(sample["flow"], np.float64).transpose(1, 0, 2, 3))
        face = (np.asarray(sample["regions"]) & FACE) > 0
        return float(np.where(face, magnitude, 0).max())


class Stst:
    """The public 28 x 28 layout: four pictures a clip, and the list with classes 0, 1, 2."""

    list_file: ClassVar[str] = LIST_FILE
    columns: ClassVar[tuple[str, ...]] = (
        "dataset",
        "sub",
        "filename_o",
        "label",
        "apex",
        "imagename",
        "sub_filename",
        "clip_id",
    )
    folder: ClassVar[str] = PICTURE_FOLDERS[0]

    def __init__(self) -> None:
        self._numbers = {word: number for number, word in LABELS.items()}
        self._published = {name: written for written, name in reversed(DATASETS.items())}
        self._groups = grouping("3-class")
        self._subjects = FileNames()
        self._clips: defaultdict[str, FileNames] = defaultdict(FileNames)
        self._taken: dict[str, str] = {}

    def names(self, sample: Sample) -> tuple[str, ...]:
        """Rise, fall and the direction of both."""
        self._label(sample)
        stem = "_".join(self._names(sample))
        names = tuple(stem + suffix for suffix in SUFFIXES)
        others = {self._taken.setdefault(name.casefold(), sample["clip_id"]) for name in names} - {sample["clip_id"]}
        if others:
            raise Refused("its pictures would have the names of another clip's")
        return names

    def contents(self, sample: Sample, units: str) -> tuple[bytes, ...]:
        """28 x 28 RGB pictures: u, v and strain of each phase, each scaled to 0..255; then their directions."""
        phases = [scaled_picture(flow) for flow in np.asarray(sample["flow"], np.float32)]
        return tuple(png_bytes(picture) for picture in (*phases, *map(direction_picture, phases)))

    def row(self, sample: Sample, units: str) -> tuple[object, ...]:
        """As in the public list, and the clip's id."""
        dataset = dataset_name(sample["dataset"])
        apex = "" if sample["apex"] < 0 else int(sample["apex"])
        who = (self._published.get(dataset, dataset), *self._names(sample), self._label(sample))
        return (*who, apex, "", "", sample["clip_id"])

    def rise(self, row: tuple[object, ...]) -> tuple[str, str, str]:
        """Subject, class and name of the picture of the rise, of a row."""
        _, subject, name, label, *_ = map(str, row)
        return subject, label, f"{subject}_{name}{SUFFIXES[0]}"

    def _label(self, sample: Sample) -> str:
        try:
            found = self._groups.of(sample["dataset"], sample["label"])
        except ConfigError:
            raise Refused(
                f"{self._groups.name} does not know {sample['dataset']}: {sample['label'] or 'no label'}"
            ) from None
        if found is None:
            raise Refused(f"{self._groups.name} leaves out {sample['dataset']}: {sample['label']}", by_design=True)
        return self._numbers[found]

    def _names(self, sample: Sample) -> tuple[str, str]:
        """`sub` and `filename_o`: no blank, at which the published programs cut names; the id without data set and subject."""
        name = sample["clip_id"]
        for prefix in (f"{sample['dataset']}/", f"{sample['subject']}/"):
            name = name.removeprefix(prefix)
        found = self._subjects.of(sample["subject"]), self._clips[sample["subject"]].of(name)
        if max(map(len, found)) > MAX_STST_NAME or not all(found):
            raise Refused(f"its name would be longer than {MAX_STST_NAME} bytes, or empty")
        return found


FORMATS: Final[Mapping[str, type[Stst] | type[Png] | type[Npz]]] = {"stst": Stst, "png": Png, "npz": Npz}


def scaled_picture(flow: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """u, v and strain at 28 x 28, each channel min-max scaled to 0..255.

    Parameters
    ----------
    flow : (2, H, W) float32

    Returns
    -------
    (28, 28, 3) uint8
        A channel in which nothing differs is 127 everywhere, that of strain 0.
    """
    channels = [_shrunk(channel) for channel in (*flow, strain(flow))]
    still = (STILL_GREY, STILL_GREY, 0)
    return np.stack([_scaled(channel, grey) for channel, grey in zip(channels, still, strict=True)], axis=-1)


def direction_picture(scaled: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The public files' picture of direction, made of the scaled picture.

    Parameters
    ----------
    scaled : (28, 28, 3) uint8

    Returns
    -------
    (28, 28, 3) uint8
        Red and green alone: the angle of two numbers from 0 to 255 is at most a quarter turn.
    """
    u, v = scaled[..., 0].astype(np.float64), scaled[..., 1].astype(np.float64)
    hue = np.degrees(np.arctan2(v, u)) // 2
    full = np.full_like(scaled[..., 0], GREYS)
    return np.asarray(cv2.cvtColor(np.stack([hue.astype(np.uint8), full, full], axis=-1), cv2.COLOR_HSV2RGB))


def strain(flow: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.floating[Any]]:
    """Optical strain: how much the face is stretched at each pixel, whatever it is moved or turned.

    Parameters
    ----------
    flow : (2, H, W) float

    Returns
    -------
    (H, W) float
        sqrt(u_x^2 + v_y^2 + (u_y + v_x)^2 / 2), by central differences.
    """
    (u_y, u_x), (v_y, v_x) = (np.gradient(component) for component in flow)
    return np.asarray(np.sqrt(u_x**2 + v_y**2 + (u_y + v_x) ** 2 / 2))


def _shrunk(channel: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.floating[Any]]:
    if channel.shape == (SIDE, SIDE):
        return channel
    return np.asarray(cv2.resize(channel, (SIDE, SIDE), interpolation=cv2.INTER_AREA))


def _scaled(channel: npt.NDArray[np.floating[Any]], still: int) -> npt.NDArray[np.uint8]:
    low, high = float(channel.min()), float(channel.max())
    if not high > low:
        return np.full(channel.shape, still, np.uint8)
    return np.rint((channel.astype(np.float64) - low) / (high - low) * GREYS).astype(np.uint8)


def _who(sample: Sample) -> tuple[str, ...]:
    return tuple(str(sample[name]) for name in ("clip_id", "dataset", "subject", "label"))
