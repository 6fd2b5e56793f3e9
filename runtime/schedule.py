"""Which images make a training batch, and how each is cropped and mirrored: all random numbers of training data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from wootz.passes.plan.transform import InputTransform


@dataclass(frozen=True)
class Choice:
    """One batch: the indices of its images in the split, int64 [n].

    `tops` and `lefts`, int64 [n], are the corners of the crops, None where images are taken whole. `flips`, bool [n],
    tells which are mirrored from left to right, None where none is. `heights` and `widths`, int64 [n], are the extents
    of crops that are resized, None where all have the size that the network takes.
    """

    images: np.ndarray
    tops: np.ndarray | None
    lefts: np.ndarray | None
    flips: np.ndarray | None
    heights: np.ndarray | None = None
    widths: np.ndarray | None = None


NARROWEST, WIDEST = 3 / 4, 4 / 3
"""The proportions, width to height, of crops that are resized."""


def training_schedule(
    images: int, extents: tuple[int, int], transform: InputTransform, size: int, count: int, seed: int
) -> Iterator[Choice]:
    """`count` batches of `size` out of `images` images of `extents` (height, width).

    The images come in a new random order each epoch; an epoch's last ones and the next one's first share a batch, so
    that all batches have `size` images. The sequence depends on the arguments alone.
    """
    generator = np.random.default_rng(seed)
    order = np.empty(0, np.int64)
    for _ in range(count):
        while len(order) < size:
            order = np.concatenate([order, generator.permutation(images)])
        taken, order = order[:size], order[size:]
        heights, widths = _extents(extents, transform.least_area, size, generator)
        tops, lefts = _corners(extents, transform.crop_size, heights, widths, size, generator)
        flips = generator.random(size) < 0.5 if transform.mirror else None
        yield Choice(taken, tops, lefts, flips, heights, widths)


def _extents(
    extents: tuple[int, int], least_area: float, size: int, generator: np.random.Generator
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Heights and widths of crops: the share of the area is uniform from `least_area` to 1, and the logarithm of the
    proportions from 3:4 to 4:3. A side that would be longer than the image's is as long as that."""
    if least_area == 1:
        return None, None
    height, width = extents
    area = height * width * generator.uniform(least_area, 1, size)
    proportion = np.exp(generator.uniform(np.log(NARROWEST), np.log(WIDEST), size))
    sides = (np.sqrt(area / proportion), height), (np.sqrt(area * proportion), width)
    heights, widths = (np.clip(np.rint(side), 1, longest).astype(np.int64) for side, longest in sides)
    return heights, widths


def _corners(
    extents: tuple[int, int],
    crop_size: int,
    heights: np.ndarray | None,
    widths: np.ndarray | None,
    size: int,
    generator: np.random.Generator,
) -> tuple[np.ndarray | None, np.ndarray | None]:
    if heights is None and not crop_size:
        return None, None
    height, width = extents
    return (
        generator.integers(0, height - (crop_size if heights is None else heights) + 1, size),
        generator.integers(0, width - (crop_size if widths is None else widths) + 1, size),
    )
