"""Discs, squares and triangles of one texture on a background of another, from scikit-learn's two photographs.

Each is brighter or darker than what it hides, in any colour.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from sklearn.datasets import load_sample_image

SHAPES = ("disc", "square", "triangle")
SMALLEST, LARGEST = 0.12, 0.22
"""Half the width of a shape, in widths of the image."""


@dataclass(frozen=True)
class Scene:
    """`image` uint8 [3, size, size]; `mask` [size, size], 0 for the background and a number from 1 on for each of
    SHAPES; `objects` [n, 5]: a number of SHAPES from 0 on, and left, top, right and bottom in pixels."""

    image: np.ndarray
    mask: np.ndarray
    objects: np.ndarray


@dataclass(frozen=True)
class Split:
    """Scenes of one split have textures from columns of the photographs that no other split sees."""

    first: float
    last: float
    seed: int


TRAIN, VALIDATION, TEST = Split(0, 0.6, 0), Split(0.6, 0.8, 1), Split(0.8, 1, 2)


@cache
def photograph(name: str) -> np.ndarray:
    """uint8 [3, height, width], a third of the original's size, so that a few pixels show something."""
    pixels = load_sample_image(name)[: 426 // 3 * 3, : 639 // 3 * 3]
    small = pixels.reshape(142, 3, 213, 3, 3).mean(axis=(1, 3))
    return np.ascontiguousarray(small.round().astype(np.uint8).transpose(2, 0, 1))


def scenes(count: int, size: int, split: Split, most: int = 3) -> list[Scene]:
    """Scenes of `size` pixels with one to `most` shapes."""
    random = np.random.default_rng(split.seed)
    return [_scene(size, split, most, random) for _ in range(count)]


def _scene(size: int, split: Split, most: int, random: np.random.Generator) -> Scene:
    names = random.permutation(["china.jpg", "flower.jpg"])
    image = _texture(names[0], size, split, random)
    mask = np.zeros((size, size), np.int64)
    objects: list[list[float]] = []
    for _ in range(random.integers(1, most + 1)):
        half = size * random.uniform(SMALLEST, LARGEST)
        x, y = random.uniform(half, size - half, 2)
        if any(abs(x - (o[1] + o[3]) / 2) < size / 4 and abs(y - (o[2] + o[4]) / 2) < size / 4 for o in objects):
            continue  # they would hide each other
        shape = int(random.integers(len(SHAPES)))
        inside = _inside(SHAPES[shape], size, x, y, half)
        texture = _texture(names[1], size, split, random) * random.uniform(0.3, 1, (3, 1, 1))
        is_bright = image[:, inside].mean() < 128
        image = np.where(inside, 128 + texture / 2 if is_bright else texture / 2, image)
        mask[inside] = shape + 1
        objects.append([shape, x - half, y - half, x + half, y + half])
    return Scene(image.round().astype(np.uint8), mask, np.array(objects, np.float32))


def _texture(name: str, size: int, split: Split, random: np.random.Generator) -> np.ndarray:
    """A window of the split's part of a photograph, [3, size, size]."""
    whole = photograph(name)
    height, width = whole.shape[1:]
    left = random.integers(int(split.first * width), max(int(split.last * width) - size, int(split.first * width)) + 1)
    left = min(left, width - size)
    top = random.integers(height - size + 1)
    return whole[:, top : top + size, left : left + size].astype(np.float64)


def _inside(shape: str, size: int, x: float, y: float, half: float) -> np.ndarray:
    """Which pixels [size, size] a shape in a square around (x, y) covers."""
    down, right = (np.mgrid[:size, :size] + 0.5 - np.array([y, x])[:, None, None]) / half
    if shape == "disc":
        return down**2 + right**2 <= 1
    within = (abs(down) <= 1) & (abs(right) <= 1)
    return within if shape == "square" else within & (abs(right) <= (down + 1) / 2)
