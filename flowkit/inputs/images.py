"""Still images: bytes in, pixels out, at the full depth of the file and upright, or a failure that says why not.

One loader for everything: Pillow reads the header (format, size, orientation) and decodes strictly; samples of 16 bits, which
Pillow would cut to 8 in colour images, are decoded again by OpenCV. Palette, CMYK and YCbCr become RGB. Alpha is dropped where it
is opaque; otherwise the picture is laid over black.
"""

from __future__ import annotations

import io
import re
import struct
import warnings
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile

from flowkit.errors import ClipError, FailureCode

MIN_SIDE = 32
"""Frames with a shorter side fail with IMAGE_TOO_SMALL: TV-L1 returns nonsense below it."""
MAX_PIXELS = 50_000_000
"""Images with more fail with IMAGE_TOO_LARGE before they are decoded."""
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM")
LUMA = (0.299, 0.587, 0.114)
"""BT.601 weights of red, green and blue."""
DARK_16 = 2**13
"""16-bit frames that stay below an eighth of full scale hold fewer bits, most likely."""

Samples = npt.NDArray[Any]

_ORIENTATION = 0x0112
_BITS_PER_SAMPLE = 258
_PNG_END = b"IEND\xaeB`\x82"
_CONVERTED = {
    "1": "L",
    "P": "RGB",
    "CMYK": "RGB",
    "YCbCr": "RGB",
    "RGBX": "RGB",
    "PA": "RGBA",
    "RGBa": "RGBA",
    "La": "LA",
}
_KEPT = ("L", "LA", "RGB", "RGBA")
_DAMAGE = (  # what Pillow's readers raise on damaged files
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    TypeError,
    LookupError,
    OverflowError,
    RuntimeError,
    struct.error,
    zlib.error,
    cv2.error,
)
_UPRIGHT: dict[int, Callable[[Samples], Samples]] = {  # EXIF orientation -> what undoes it
    1: lambda pixels: pixels,
    2: np.fliplr,
    3: lambda pixels: np.rot90(pixels, 2),
    4: np.flipud,
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels, 2).swapaxes(0, 1),
    8: lambda pixels: np.rot90(pixels, 1),
}


@dataclass(frozen=True, slots=True)
class Picture:
    """One decoded frame.

    Attributes
    ----------
    pixels : (H, W) or (H, W, 3) uint8, uint16 or float32
        Grey or RGB, upright; floats lie in [0, 1].
    rotated : bool
        Whether metadata asked for a rotation or mirroring, which was applied.
    """

    pixels: Samples
    rotated: bool


def decode_image(data: bytes, name: str) -> Picture:
    """The picture in a file's bytes.

    Parameters
    ----------
    data : bytes
        A PNG, JPEG, BMP, TIFF, WebP or PNM file; of several pages, the first.
    name : str
        What messages call the file.

    Returns
    -------
    Picture

    Raises
    ------
    ClipError
        IMAGE_UNREADABLE, IMAGE_TRUNCATED, IMAGE_TOO_LARGE, IMAGE_TOO_SMALL or IMAGE_DEPTH.
    """
    try:
        with warnings.catch_warnings():  # Pillow warns of bombs and broken metadata; both are settled here
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                return _read(image, data, name)
    except Image.DecompressionBombError as error:
        raise _too_large(name, str(error)) from error
    except _DAMAGE as error:
        raise _damaged(data, name, str(error)) from error


def _read(image: ImageFile.ImageFile, data: bytes, name: str) -> Picture:
    check_size(image.width, image.height, name)
    stated = image.getexif().get(_ORIENTATION, 1)
    bits = _bits(image, data)
    image.load()  # strict: raises where the file ends too early
    if image.format == "PNG" and _PNG_END not in data:
        raise OSError("image file is truncated: it has no end chunk")
    pixels = _samples(image, data, bits, name)
    left = image.getexif().get(_ORIENTATION, 1)  # a TIFF has been turned by the decoder; the others have not
    return Picture(upright(_opaque(pixels), left), stated in _UPRIGHT and stated != 1)


def check_size(width: int, height: int, name: str) -> None:
    """Refuse frames that are too large to decode or too small for a flow that means something.

    Raises
    ------
    ClipError
        IMAGE_TOO_LARGE or IMAGE_TOO_SMALL.
    """
    if width * height > MAX_PIXELS:
        raise _too_large(name, f"{width} x {height}")
    if min(width, height) < MIN_SIDE:
        raise ClipError(
            FailureCode.IMAGE_TOO_SMALL,
            f"{name}: frame must be at least {MIN_SIDE} pixels wide and high; got {width} x {height}. "
            "Use larger frames: flow means nothing on these.",
            name,
        )


def upright(pixels: Samples, orientation: int) -> Samples:
    """The picture as it is to be looked at, given the EXIF orientation (1 to 8; others mean 1) of its file."""
    return np.ascontiguousarray(_UPRIGHT.get(orientation, _UPRIGHT[1])(pixels))


def full_scale(pictures: Sequence[Picture], bit_depth: int, name: str) -> int:
    """What 16-bit samples are divided by.

    Parameters
    ----------
    pictures : sequence of Picture
        The frames of one clip: they share a scale.
    bit_depth : int
        Significant bits; 0 means 16 unless that looks wrong.
    name : str
        What messages call them.

    Returns
    -------
    int
        2**bits - 1.

    Raises
    ------
    ClipError
        IMAGE_DEPTH: brighter than declared, or nothing declared and suspiciously dark.
    """
    peaks = [int(picture.pixels.max()) for picture in pictures if picture.pixels.dtype == np.uint16]
    full: int = 2 ** (bit_depth or 16) - 1
    if not peaks:
        return full
    peak = max(peaks)
    if peak > full:
        raise ClipError(
            FailureCode.IMAGE_DEPTH,
            f"{name}: 16-bit frames must stay within the {bit_depth} bits of frames.bit_depth (up to {full}); got {peak}. "
            "Correct frames.bit_depth.",
            name,
        )
    if not bit_depth and peak < DARK_16:
        bits = max(9, peak.bit_length() + peak.bit_length() % 2)  # sensors have 10, 12 or 14
        raise ClipError(
            FailureCode.IMAGE_DEPTH,
            f"{name}: bit depth must be known; got 16-bit frames whose brightest value is {peak}. Set "
            f"frames.bit_depth={bits}, or 16 if they are truly dark.",
            name,
        )
    return full


def grey(picture: Picture, full: int) -> npt.NDArray[np.float32]:
    """Luma (BT.601) of a picture, float32 in [0, 1]; `full` is the full scale of 16-bit samples."""
    luma = picture.pixels.astype(np.float32)
    if luma.ndim == 3:
        luma = cv2.transform(luma, np.array([LUMA], np.float32))
    luma /= np.float32(_scale(picture, full))
    return np.minimum(luma, np.float32(1), out=luma)


def without_colour(picture: Picture) -> Picture:
    """Return the luma of a picture in samples of the same type: a third of the memory."""
    if picture.pixels.ndim == 2:
        return picture
    return Picture(np.asarray(cv2.cvtColor(picture.pixels, cv2.COLOR_RGB2GRAY)), picture.rotated)


def rgb(picture: Picture, full: int) -> npt.NDArray[np.uint8]:
    """A picture as (H, W, 3) uint8; `full` is the full scale of 16-bit samples."""
    pixels = picture.pixels
    if pixels.dtype != np.uint8:
        pixels = np.rint(pixels * (255.0 / _scale(picture, full))).astype(np.uint8)
    return np.ascontiguousarray(pixels if pixels.ndim == 3 else cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB))


def _scale(picture: Picture, full: int) -> int:
    return {"u1": 255, "u2": full}.get(picture.pixels.dtype.str[1:], 1)


def _bits(image: ImageFile.ImageFile, data: bytes) -> int:
    """Bits of a sample as the file states them: Pillow's mode says 8 for colour of 16."""
    if image.format == "PNG":
        return data[24]
    if image.format == "TIFF":
        stated: tuple[int, ...] = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (1,))
        return max(stated)
    if image.format == "PPM":
        arguments = image.tile[0][3]
        wide = image.mode == "I" or (isinstance(arguments, tuple) and arguments[1] > 255)
        return 16 if wide else 8
    return 8


def _samples(image: ImageFile.ImageFile, data: bytes, bits: int, name: str) -> Samples:
    """Samples as stored, (H, W) or (H, W, channels), uint8, uint16, or float32 in [0, 1]."""
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)
    if image.mode == "F":
        return _floats(np.asarray(image, dtype=np.float32), name)
    if bits > 8:
        return _wide(image, data, bits, name)
    if image.has_transparency_data and image.mode in ("1", "L", "P", "RGB"):
        return np.asarray(image.convert("LA" if image.mode == "L" else "RGBA"))
    mode = _CONVERTED.get(image.mode, image.mode)
    if mode not in _KEPT:
        raise ClipError(
            FailureCode.IMAGE_UNREADABLE,
            f"{name}: image must be grey, RGB, palette, CMYK or YCbCr; got mode {image.mode}. Convert it.",
            name,
        )
    return np.asarray(image.convert(mode))


def _floats(pixels: npt.NDArray[np.float32], name: str) -> npt.NDArray[np.float32]:
    low, high = float(pixels.min()), float(pixels.max())  # a NaN anywhere makes both NaN
    if not (low >= 0 and high <= 1):
        raise _depth_unknown(name, f"values from {low:g} to {high:g}")
    return pixels


def _wide(image: ImageFile.ImageFile, data: bytes, bits: int, name: str) -> Samples:
    """16-bit samples, by OpenCV."""
    if bits != 16 or image.mode not in (*_KEPT, "RGBX", "I") or (image.format == "TIFF" and image.mode == "I"):
        raise _depth_unknown(name, f"{bits}-bit integers, mode {image.mode}")
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16 or pixels.shape[:2] != (image.height, image.width):
        raise _depth_unknown(name, "16-bit samples that OpenCV cannot read")
    if pixels.ndim == 3:
        order = [2, 1, 0, 3][: pixels.shape[2]]
        return np.asarray(pixels[..., order])
    return np.asarray(pixels)


def _opaque(pixels: Samples) -> Samples:
    """Without alpha: dropped where it is opaque, else laid over black."""
    if pixels.ndim == 2 or pixels.shape[2] == 3:
        return pixels
    colour, alpha = pixels[..., :-1], pixels[..., -1:]
    top = np.iinfo(pixels.dtype).max
    if alpha.min() < top:
        colour = np.rint(colour * (alpha / top)).astype(pixels.dtype)
    return colour[..., 0] if colour.shape[2] == 1 else colour


def _depth_unknown(name: str, got: str) -> ClipError:
    return ClipError(
        FailureCode.IMAGE_DEPTH,
        f"{name}: samples must be 8 or 16-bit unsigned integers, or floats in [0, 1]; got {got}. Convert the frames.",
        name,
    )


def _too_large(name: str, got: str) -> ClipError:
    return ClipError(
        FailureCode.IMAGE_TOO_LARGE,
        f"{name}: frame must have at most {MAX_PIXELS:,} pixels; got {got}. Scale it down, if it is a photograph at all.",
        name,
    )


def _damaged(data: bytes, name: str, reason: str) -> ClipError:
    if not data:
        return ClipError(
            FailureCode.IMAGE_UNREADABLE, f"{name}: image must not be empty; got 0 bytes. Copy the file again.", name
        )
    if re.search("truncated|EOF", reason, re.IGNORECASE) or _is_cut_webp(data):
        return ClipError(
            FailureCode.IMAGE_TRUNCATED,
            f"{name}: image must be complete; got {len(data)} bytes ({reason}). Copy the file again.",
            name,
        )
    reason = re.sub(r"<_io\.BytesIO.*>", "it", reason)
    return ClipError(
        FailureCode.IMAGE_UNREADABLE,
        f"{name}: image must be one of {', '.join(FORMATS)}; got {len(data)} bytes ({reason}). Replace the file.",
        name,
    )


def _is_cut_webp(data: bytes) -> bool:
    return data[:4] == b"RIFF" and len(data) >= 8 and int.from_bytes(data[4:8], "little") + 8 > len(data)
