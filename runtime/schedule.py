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
    tells which are mirrored from left to right, None where none is.
    """

    images: np.ndarray
    tops: np.ndarray | None
    lefts: np.ndarray | None
    flips: np.ndarray | None


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
        tops, lefts = _corners(extents, transform.crop_size, size, generator)
        flips = generator.random(size) < 0.5 if transform.mirror else None
        yield Choice(taken, tops, lefts, flips)


def _corners(
    extents: tuple[int, int], crop_size: int, size: int, generator: np.random.Generator
) -> tuple[np.ndarray | None, np.ndarray | None]:
    if not crop_size:
        return None, None
    height, width = extents
    return (
        generator.integers(0, height - crop_size + 1, size),
        generator.integers(0, width - crop_size + 1, size),
    )
