"""Batches for training and testing, prepared ahead in a background thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from wootz.passes.plan.transform import InputTransform
from wootz.runtime.dataset import Split

PREPARED_AHEAD = 4


@dataclass(frozen=True)
class Batch:
    """`data` float32 [n, channels, height, width] as the network takes it, `labels` int64 [n]."""

    data: np.ndarray
    labels: np.ndarray


def training_batches(split: Split, transform: InputTransform, size: int, count: int, seed: int) -> Iterator[Batch]:
    """`count` batches of `size` images: the images in a new random order each epoch, cropped and flipped at random.

    An epoch's last images and the next one's first share a batch, so that all batches have `size` images. The
    sequence depends on the arguments alone.
    """
    return _ahead(_training_batches(split, transform, size, count, seed))


def ordered_batches(split: Split, transform: InputTransform, size: int) -> Iterator[Batch]:
    """All images once, in order, cropped in the centre; the last batch has what is left."""
    for start in range(0, len(split), size):
        images = split.images[start : start + size]
        yield Batch(normalize(_centre_crop(images, transform.crop_size), transform), split.labels[start : start + size])


def normalize(images: np.ndarray, transform: InputTransform) -> np.ndarray:
    """`(pixel - mean) * scale` in float32, channels in the transform's order; images are [n, c, h, w] in RGB."""
    if transform.channel_order == "BGR" and images.shape[1] == 3:
        images = images[:, ::-1]
    mean, scale = (np.asarray(v, np.float32).reshape(-1, 1, 1) for v in (transform.mean, transform.scale))
    return (images.astype(np.float32) - mean) * scale


def _training_batches(split: Split, transform: InputTransform, size: int, count: int, seed: int) -> Iterator[Batch]:
    generator = np.random.default_rng(seed)
    order = np.empty(0, np.int64)
    for _ in range(count):
        while len(order) < size:
            order = np.concatenate([order, generator.permutation(len(split))])
        taken, order = order[:size], order[size:]
        images = _random_crop(split.images[taken], transform.crop_size, generator)
        if transform.mirror:
            flipped = generator.random(size) < 0.5
            images[flipped] = images[flipped, ..., ::-1]
        yield Batch(normalize(images, transform), split.labels[taken])


def _random_crop(images: np.ndarray, crop_size: int, generator: np.random.Generator) -> np.ndarray:
    """A copy in any case: the caller flips it in place."""
    if not crop_size:
        return images.copy()
    n, _, height, width = images.shape
    tops = generator.integers(0, height - crop_size + 1, n)
    lefts = generator.integers(0, width - crop_size + 1, n)
    return np.stack(
        [
            image[:, top : top + crop_size, left : left + crop_size]
            for image, top, left in zip(images, tops, lefts, strict=True)
        ]
    )


def _centre_crop(images: np.ndarray, crop_size: int) -> np.ndarray:
    if not crop_size:
        return images
    top, left = ((extent - crop_size) // 2 for extent in images.shape[2:])
    return images[:, :, top : top + crop_size, left : left + crop_size]


def _ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The same batches, up to `PREPARED_AHEAD` of them made before they are asked for."""
    prepared: queue.Queue[Batch | BaseException | None] = queue.Queue(PREPARED_AHEAD)
    abandoned = threading.Event()

    def hand_over(item: Batch | BaseException | None) -> None:
        while not abandoned.is_set():
            try:
                prepared.put(item, timeout=0.1)
            except queue.Full:
                continue
            return

    def prepare() -> None:
        try:
            for batch in batches:
                hand_over(batch)
                if abandoned.is_set():
                    return
            hand_over(None)
        except BaseException as error:
            hand_over(error)

    threading.Thread(target=prepare, daemon=True).start()
    try:
        while (item := prepared.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        abandoned.set()
