"""Opens photographs with Pillow: in the formats that data sets have, and in no other, whatever a file's name says."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from PIL import Image

FORMATS = ("JPEG", "PNG", "BMP", "PPM", "GIF", "WEBP")
"""Pillow knows others, of which some start programs (EPS)."""
A_PHOTOGRAPH = "an image that Pillow can read"


@contextmanager
def open_photograph(source: Path | IO[bytes]) -> Iterator[Image.Image]:
    """The image, still to be decoded. Pillow raises almost anything for damage, and its warnings are not shown."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(source, formats=FORMATS) as image:
            yield image
