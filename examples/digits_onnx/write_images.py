"""Writes scikit-learn's digits as image files in class folders: train/, val/ and test/ with a folder for each digit.

    python examples/digits_onnx/write_images.py FOLDER

They are 1,797 grey images of 8×8 pixels by 43 writers. Of every four, two are for training, one is for validation and
one for testing.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

SPLITS = ("train", "train", "val", "test")
"""Of the images, in turn."""


def write_images(folder: Path) -> int:
    """Writes SPLIT/DIGIT/NUMBER.png; gives the number of images."""
    digits = load_digits()
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)
    for number, (image, digit) in enumerate(zip(pixels, digits.target, strict=True)):
        file = folder / SPLITS[number % len(SPLITS)] / str(digit) / f"{number:04}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)
    return len(pixels)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    print(f"{write_images(Path(sys.argv[1])):,} images in {sys.argv[1]}")
