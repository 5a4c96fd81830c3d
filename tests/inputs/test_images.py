"""Still images: every mode, depth and orientation gives the right grey; every damage gives its code."""

from __future__ import annotations

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from flowkit.errors import ClipError, FailureCode
from flowkit.inputs import images
from flowkit.inputs.images import decode_image, full_scale, grey, rgb

HEIGHT, WIDTH = 40, 48
RAMP_16 = np.linspace(0, 65535, HEIGHT * WIDTH).astype(np.uint16).reshape(HEIGHT, WIDTH)
COLOUR_16 = np.stack([RAMP_16, RAMP_16[::-1], RAMP_16[:, ::-1]], axis=2)
RAMP = (RAMP_16 >> 8).astype(np.uint8)
COLOUR = (COLOUR_16 >> 8).astype(np.uint8)
SIDES = {  # EXIF's own definition: which side of the upright picture the stored row 0 and column 0 are
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}
OPPOSITE = {"top": "bottom", "bottom": "top", "left": "right", "right": "left"}
CORNERS = {("top", "left"): 40, ("top", "right"): 90, ("bottom", "right"): 140, ("bottom", "left"): 190}


def saved(picture: Image.Image, form: str, **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def encoded(suffix: str, pixels: np.ndarray) -> bytes:
    """By OpenCV, from RGB: it writes the 16-bit colour that Pillow cannot."""
    ok, data = cv2.imencode(suffix, pixels if pixels.ndim == 2 else pixels[..., [2, 1, 0, 3][: pixels.shape[2]]])
    assert ok
    return data.tobytes()


def luma(colour: np.ndarray, full: float) -> np.ndarray:
    return (colour.astype(np.float64) @ [0.299, 0.587, 0.114]) / full


def code_of(data: bytes) -> FailureCode:
    with pytest.raises(ClipError) as caught:
        decode_image(data, "s01/1.png")
    assert caught.value.path == "s01/1.png"
    assert caught.value.message.startswith("s01/1.png: ")
    return caught.value.code


def in_file(stored: np.ndarray, form: str, orientation: int) -> bytes:
    picture = Image.fromarray(stored)
    exif = picture.getexif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(form, {})
    return saved(picture, form, exif=exif, **options)


def tiff_16(stored: np.ndarray, orientation: int) -> bytes:
    """An uncompressed 16-bit RGB TIFF, written by hand: no library here writes one with an orientation."""
    height, width, _ = stored.shape
    pixels = stored.astype("<u2").tobytes()
    end = 8 + 2 + 12 * 10 + 4
    shorts = ((256, width), (257, height), (258, None), (259, 1), (262, 2), (273, None), (274, orientation), (277, 3))
    values = dict(shorts) | {258: end, 273: end + 6, 278: height, 279: len(pixels)}
    entries = b"".join(
        struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 3 if tag == 258 else 1, values[tag])
        for tag in sorted(values)
    )
    return b"II*\0\x08\0\0\0\x0a\0" + entries + bytes(4) + struct.pack("<3H", 16, 16, 16) + pixels


def png_16(stored: np.ndarray, orientation: int) -> bytes:
    """A 16-bit RGB PNG with an eXIf chunk."""
    data = encoded(".png", stored)
    exif = b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHII", 0x0112, 3, 1, orientation) + bytes(4)
    chunk = struct.pack(">I", len(exif)) + b"eXIf" + exif + struct.pack(">I", zlib.crc32(b"eXIf" + exif))
    return data[:33] + chunk + data[33:]


def quadrants(orientation: int) -> np.ndarray:
    """Stored pixels whose upright picture shows CORNERS."""
    row, column = SIDES[orientation]
    sides = [[(r, c) for c in (column, OPPOSITE[column])] for r in (row, OPPOSITE[row])]
    values = [[CORNERS.get((r, c)) or CORNERS[c, r] for r, c in pair] for pair in sides]
    tall, wide = (HEIGHT, WIDTH) if orientation < 5 else (WIDTH, HEIGHT)
    return np.kron(np.array(values, np.uint8), np.ones((tall // 2, wide // 2), np.uint8))


@pytest.mark.parametrize(
    ("mode", "form"),
    [
        ("1", "PNG"),
        ("L", "PNG"),
        ("L", "JPEG"),
        ("LA", "PNG"),
        ("P", "PNG"),
        ("P", "BMP"),
        ("RGB", "TIFF"),
        ("RGB", "PPM"),
        ("RGBA", "PNG"),
        ("RGB", "WEBP"),
        ("CMYK", "TIFF"),
        ("CMYK", "JPEG"),
        ("YCbCr", "TIFF"),
        ("L", "PPM"),
    ],
)
def test_every_mode_of_eight_bits_gives_the_grey_that_went_in(mode: str, form: str):
    plain = np.where(RAMP > 127, 255, 0).astype(np.uint8) if mode == "1" else RAMP // 16 * 16
    picture = Image.fromarray(plain).convert("RGB" if mode in ("CMYK", "YCbCr") else "L").convert(mode)
    options = {"quality": 100} if form == "JPEG" else {"lossless": True} if form == "WEBP" else {}
    read = decode_image(saved(picture, form, **options), "x")
    lossy = 3 if form == "JPEG" or mode == "YCbCr" else 0.01
    assert np.abs(grey(read, 65535) * 255 - plain).max() <= lossy
    assert rgb(read, 65535).shape == (HEIGHT, WIDTH, 3)
    assert not read.rotated


def test_luma_is_bt601_and_white_is_exactly_one():
    read = decode_image(saved(Image.fromarray(COLOUR), "PNG"), "x")
    np.testing.assert_allclose(grey(read, 65535), luma(COLOUR, 255), atol=1e-6)
    assert grey(read, 65535).dtype == np.float32
    white = decode_image(saved(Image.new("RGB", (WIDTH, HEIGHT), "white"), "PNG"), "x")
    assert set(grey(white, 65535).ravel()) == {1.0}


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
def test_16_bit_grey_keeps_every_bit(suffix: str):
    read = decode_image(encoded(suffix, RAMP_16), "x")
    assert np.array_equal(read.pixels, RAMP_16)
    np.testing.assert_allclose(grey(read, 65535), RAMP_16 / 65535, atol=1e-7)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".ppm"])
def test_16_bit_colour_keeps_every_bit_and_its_channel_order(suffix: str):
    read = decode_image(encoded(suffix, COLOUR_16), "x")
    assert np.array_equal(read.pixels, COLOUR_16)
    np.testing.assert_allclose(grey(read, 65535), luma(COLOUR_16, 65535), atol=1e-6)
    assert np.array_equal(rgb(read, 65535), np.rint(COLOUR_16 / 257).astype(np.uint8))


def test_16_bit_samples_scale_by_the_declared_depth():
    read = decode_image(encoded(".png", RAMP_16 >> 4), "x")
    full = full_scale([read], 12, "x")
    assert grey(read, full).max() == 1
    assert rgb(read, full).max() == 255


@pytest.mark.parametrize(
    ("peak", "bit_depth", "advice"),
    [
        (3900, 0, "Set frames.bit_depth=12"),
        (900, 0, "bit_depth=10"),
        (8191, 0, "bit_depth=14"),
        (0, 0, "bit_depth=9"),
        (5000, 12, "up to 4095"),
    ],
)
def test_16_bit_depth_that_cannot_be_right_fails_with_advice(peak: int, bit_depth: int, advice: str):
    frame = np.zeros((HEIGHT, WIDTH), np.uint16)
    frame[3, 3] = peak
    with pytest.raises(ClipError, match=advice) as caught:
        full_scale([decode_image(encoded(".png", frame), "x")], bit_depth, "x")
    assert caught.value.code == FailureCode.IMAGE_DEPTH


def test_one_bright_frame_settles_the_depth_of_all_three():
    dark = decode_image(encoded(".png", RAMP_16 >> 4), "x")
    bright = decode_image(encoded(".png", RAMP_16), "x")
    assert full_scale([dark, dark, bright], 0, "x") == 65535


@pytest.mark.parametrize("wide", [False, True])
def test_opaque_alpha_is_dropped_and_other_alpha_lies_over_black(wide: bool):
    colour = COLOUR_16 if wide else COLOUR
    top = np.iinfo(colour.dtype).max
    alpha = np.full((HEIGHT, WIDTH, 1), top, colour.dtype)
    opaque = decode_image(encoded(".png", np.dstack([colour, alpha])), "x")
    assert np.array_equal(opaque.pixels, colour)
    half = decode_image(encoded(".png", np.dstack([colour, alpha // 2])), "x")
    np.testing.assert_allclose(half.pixels, colour / 2, atol=1)


def test_transparent_palette_entry_is_black():
    picture = Image.fromarray(RAMP // 128 * 128).convert("P")
    seen = decode_image(saved(picture, "PNG", transparency=picture.getpixel((WIDTH - 1, HEIGHT - 1))), "x")
    assert seen.pixels.max() == 0


@pytest.mark.parametrize("orientation", SIDES)
@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP", "TIFF 16", "PNG 16", "TIFF grey 16"])
def test_orientation_is_applied_and_recorded(form: str, orientation: int):
    stored = quadrants(orientation)
    if form == "TIFF grey 16":
        data = in_file(stored.astype(np.uint16) * 256, "TIFF", orientation)
    elif form.endswith("16"):
        write = tiff_16 if form == "TIFF 16" else png_16
        data = write(np.repeat(stored.astype(np.uint16)[..., None] * 256, 3, axis=2), orientation)
    else:
        data = in_file(stored, form, orientation)
    read = decode_image(data, "x")
    seen = rgb(read, 256 * 255)[..., 0].astype(int)
    assert seen.shape == (HEIGHT, WIDTH)
    found = {
        ("top", "left"): seen[0, 0],
        ("top", "right"): seen[0, -1],
        ("bottom", "right"): seen[-1, -1],
        ("bottom", "left"): seen[-1, 0],
    }
    assert found == pytest.approx(CORNERS, abs=2)
    assert read.rotated == (orientation != 1)


@pytest.mark.parametrize("orientation", [0, 9, 999])
def test_orientation_outside_the_standard_means_upright(orientation: int):
    read = decode_image(in_file(RAMP, "PNG", orientation), "x")
    assert np.array_equal(read.pixels, RAMP)
    assert not read.rotated


def test_float_tiff_within_zero_and_one_is_accepted():
    read = decode_image(encoded(".tif", (RAMP_16 / 65535).astype(np.float32)), "x")
    np.testing.assert_allclose(grey(read, 65535), RAMP_16 / 65535, atol=1e-7)
    assert rgb(read, 65535).max() == 255


@pytest.mark.parametrize(
    "pixels",
    [
        RAMP.astype(np.float32),
        np.full((HEIGHT, WIDTH), np.nan, np.float32),
        RAMP.astype(np.int32),
        RAMP / np.float32(-255),
    ],
)
def test_tiff_of_unknown_scale_is_refused(pixels: np.ndarray):
    assert code_of(encoded(".tif", pixels)) == FailureCode.IMAGE_DEPTH


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "BMP", "WEBP", "PPM"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_truncated_image_is_never_half_a_picture(form: str, share: float):
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    data = saved(Image.fromarray(noise), form)
    assert code_of(data[: int(len(data) * share)]) == FailureCode.IMAGE_TRUNCATED


@pytest.mark.parametrize(("form", "lost"), [("PNG", 1), ("PNG", 12), ("PNG", 20), ("JPEG", 2), ("BMP", 4), ("PPM", 1)])
def test_losing_the_last_bytes_is_truncation(form: str, lost: int):
    data = saved(Image.fromarray(COLOUR), form)
    assert code_of(data[:-lost]) == FailureCode.IMAGE_TRUNCATED


@pytest.mark.parametrize(
    "data",
    [b"", b"frame 12 goes here\n" * 9, b"\x89PNG\r\n\x1a\n", saved(Image.fromarray(RAMP), "GIF"), bytes(5000), b"RIFF"],
)
def test_what_is_no_accepted_image_is_unreadable(data: bytes):
    assert code_of(data) == FailureCode.IMAGE_UNREADABLE


def test_damaged_png_is_unreadable():
    data = bytearray(saved(Image.fromarray(COLOUR), "PNG"))
    data[len(data) // 2] ^= 0xFF
    assert code_of(bytes(data)) == FailureCode.IMAGE_UNREADABLE


@pytest.mark.parametrize(("width", "height"), [(1, 1), (8, 8), (31, 100), (100, 31)])
def test_tiny_image_is_too_small(width: int, height: int):
    assert code_of(saved(Image.new("L", (width, height)), "PNG")) == FailureCode.IMAGE_TOO_SMALL
    decode_image(saved(Image.new("L", (images.MIN_SIDE, images.MIN_SIDE)), "PNG"), "x")


@pytest.mark.parametrize("side", [7072, 9500, 12000, 20000, 40000])
def test_bomb_is_refused_by_its_header(side: int):
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    end = b"IEND"
    chunks = [header, b"IDAT" + zlib.compress(b""), end]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks
    )
    assert code_of(data) == FailureCode.IMAGE_TOO_LARGE


def test_random_damage_gives_a_code_and_nothing_else():
    rng = np.random.default_rng(7)
    seeds = [in_file(COLOUR, form, 6) for form in ("PNG", "JPEG", "TIFF", "WEBP")]
    seeds += [encoded(suffix, COLOUR_16) for suffix in (".png", ".ppm")]
    codes = set()
    for _ in range(400):
        data = bytearray(seeds[rng.integers(len(seeds))])
        for place in rng.integers(0, min(len(data), 300), 4):
            data[place] = rng.integers(256)
        try:
            decode_image(bytes(data), "x")
        except ClipError as error:
            codes.add(error.code)
    assert {FailureCode.IMAGE_UNREADABLE, FailureCode.IMAGE_TRUNCATED} <= codes
