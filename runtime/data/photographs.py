"""Opens photographs with Pillow: in the formats that data sets have, and in no other, whatever a file's name says."""

from __future__ import annotations

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
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".gif", ".webp"})


@contextmanager
def open_photograph(source: str | IO[bytes]) -> Iterator[Image.Image]:
    """The image, still to be decoded. Pillow raises almost anything for damage, and its warnings are not shown."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(source, formats=FORMATS) as image:
            yield image


def decode(source: str | IO[bytes], name: str, channels: int, resizing: Resizing) -> np.ndarray:
    """The pixels of a photograph as uint8 [channels, height, width], grey or in RGB.

    Grey ones of 16 bits are scaled to 8. Raises InputError, with its `name`, for what is none.
    """
    with reading(name, A_PHOTOGRAPH), open_photograph(source) as opened:
        resizing.draft(opened)
        image = _with_8_bits(opened, name).convert("L" if channels == 1 else "RGB")
    pixels = np.asarray(resizing.apply(image))
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def _with_8_bits(image: Image.Image, name: str) -> Image.Image:
    """Grey pixels of 16 bits are scaled: Pillow would clip them at 255. Colours of 16 bits it scales itself."""
    if not image.mode.startswith(("I", "F")):
        return image
    pixels = np.asarray(image)
    if image.mode == "F" or pixels.min() < 0 or pixels.max() > 65535:
        raise InputError("pixels of another kind than 8 or 16 bits: save it as an 8-bit PNG", name)
    return Image.fromarray(np.rint(pixels / 257).astype(np.uint8))
