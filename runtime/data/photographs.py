"""Opens photographs with Pillow: in the formats that data sets have, and in no other, whatever a file's name says."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import numpy as np
from PIL import Image

from wootz.passes.errors import InputError, reading
from wootz.runtime.data.resizing import Resizing

FORMATS = ("JPEG", "PNG", "BMP", "PPM", "GIF", "WEBP")
"""Pillow knows others, of which some start programs (EPS)."""
A_PHOTOGRAPH = "an image that Pillow can read"
ORIENTATION = 0x0112
"""EXIF's tag: how a camera was held."""
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes of its values an image as it was seen."""
ON_ITS_SIDE = (5, 6, 7, 8)
"""Those with width and height exchanged."""
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".gif", ".webp"})
UNREAD = frozenset({".heic", ".heif", ".avif", ".tif", ".tiff", ".jp2", ".jxl", ".dng", ".cr2", ".nef", ".arw"})
"""Of files that hold photographs, too, in none of these formats."""


@contextmanager
def open_photograph(source: str | IO[bytes]) -> Iterator[Image.Image]:
    """The image, still to be decoded. Pillow raises almost anything for damage, and its warnings are not shown."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(source, formats=FORMATS) as image:
            yield image


def decode(source: str | IO[bytes], name: str, channels: int, resizing: Resizing) -> np.ndarray:
    """The pixels of a photograph as uint8 [channels, height, width], grey or in RGB, upright as its EXIF data say.

    Grey ones of 16 bits are scaled to 8. Raises InputError, with its `name`, for what is none.
    """
    with reading(name, A_PHOTOGRAPH), open_photograph(source) as opened:
        orientation = _orientation(opened)
        resizing.draft(opened, on_its_side=orientation in ON_ITS_SIDE)
        image = _with_8_bits(opened, name).convert("L" if channels == 1 else "RGB")
        if orientation in UPRIGHT:
            image = image.transpose(UPRIGHT[orientation])
    pixels = np.asarray(resizing.apply(image))
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of an opened photograph as it was seen, as far as is known before its pixels are decoded."""
    if image.format == "PNG" and "exif" not in image.info:
        return image.size
    return image.size[::-1] if _orientation(image) in ON_ITS_SIDE else image.size


def _orientation(image: Image.Image) -> int:
    """EXIF's, 1 (upright) where there is none, or none that can be read: damage to it is none to the pixels."""
    try:
        found = image.getexif().get(ORIENTATION, 1)
    except (SyntaxError, ValueError, TypeError, KeyError, IndexError, struct.error):
        return 1
    return found if isinstance(found, int) else 1


def _with_8_bits(image: Image.Image, name: str) -> Image.Image:
    """Grey pixels of 16 bits are scaled: Pillow would clip them at 255. Colours of 16 bits it scales itself."""
    if not image.mode.startswith(("I", "F")):
        return image
    pixels = np.asarray(image)
    if image.mode == "F" or pixels.min() < 0 or pixels.max() > 65535:
        raise InputError("pixels of another kind than 8 or 16 bits: save it as an 8-bit PNG", name)
    return Image.fromarray(np.rint(pixels / 257).astype(np.uint8))
