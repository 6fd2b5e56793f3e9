"""Batches for training and testing, prepared ahead in a background thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice

import numpy as np

from wootz.passes.plan.transform import InputTransform
from wootz.passes.training.embed_batches import PARTS
from wootz.runtime.data.dataset import Split, Targets, part_of_targets
from wootz.runtime.inputs import Data, Inputs
from wootz.runtime.schedule import Choice, training_schedule

PREPARED_AHEAD = 4


@dataclass(frozen=True)
class Batch:
    """`data` as the network takes them, `labels` what the data say of them, if they do; `teacher` what the full network
    gives for them, by the names of a training graph's inputs, where that isn't computed in the graph."""

    data: Data
    labels: Targets | None
    teacher: Mapping[str, np.ndarray] = field(default_factory=dict)


def training_batches(
    split: Split,
    transform: InputTransform,
    size: int,
    count: int,
    seed: int,
    first: int = 0,
    teacher: Callable[[Choice], Mapping[str, np.ndarray]] = lambda _: {},
) -> Iterator[Batch]:
    """`count` batches of `size` images, chosen, cropped and flipped by `training_schedule`; those from `first` on.

    `teacher` says what the full network gives for those chosen."""
    schedule = training_schedule(len(split), extents(split), transform, size, count, seed)
    chosen = islice(schedule, first, None)
    return _ahead(replace(training_batch(split, transform, choice), teacher=teacher(choice)) for choice in chosen)


def extents(split: Split) -> tuple[int, int]:
    """Height and width of images, of which crops are taken; of other samples there are none, nor are they mirrored."""
    if isinstance(split.images, Inputs):
        return 0, 0
    height, width = split.images.shape[2:]
    return height, width


def training_batch(split: Split, transform: InputTransform, choice: Choice) -> Batch:
    """The batch that `choice` describes."""
    labels = part_of_targets(split.labels, choice.images)
    samples = split.images[choice.images]
    if isinstance(samples, Inputs):
        return Batch(_with_normalized_pixels(samples, transform), labels)
    images = _crop(samples, transform.crop_size, choice)
    if choice.flips is not None:
        images[choice.flips] = images[choice.flips, ..., ::-1]
    return Batch(normalize(images, transform), labels)


def ordered_batches(split: Split, transform: InputTransform, size: int) -> Iterator[Batch]:
    """All images once, in order, cropped in the centre; the last batch has what is left."""
    for start in range(0, len(split), size):
        images = split.images[start : start + size]
        labels = part_of_targets(split.labels, slice(start, start + size))
        if isinstance(images, Inputs):
            yield Batch(_with_normalized_pixels(images, transform), labels)
        else:
            yield Batch(normalize(_centre_crop(images, transform.crop_size), transform), labels)


def _with_normalized_pixels(samples: Inputs, transform: InputTransform) -> Inputs:
    return samples.mapped(partial(normalize, transform=transform), samples.pixels)


def normalize(images: np.ndarray, transform: InputTransform) -> np.ndarray:
    """`(pixel - mean) * scale` in float32, channels in the transform's order; images are [n, c, h, w] in RGB."""
    if transform.channel_order == "BGR" and images.shape[1] == 3:
        images = images[:, ::-1]
    mean, scale = (np.asarray(v, np.float32).reshape(-1, 1, 1) for v in (transform.mean, transform.scale))
    return (images.astype(np.float32) - mean) * scale


def _crop(images: np.ndarray, crop_size: int, choice: Choice) -> np.ndarray:
    """The windows that `choice` names, copied: the caller flips them in place."""
    if choice.tops is None or choice.lefts is None:
        return images
    if choice.heights is not None and choice.widths is not None:
        size = (crop_size, crop_size) if crop_size else images.shape[2:]
        return _resized(images, (choice.tops, choice.heights, size[0]), (choice.lefts, choice.widths, size[1]))
    return np.stack(
        [
            image[:, top : top + crop_size, left : left + crop_size]
            for image, top, left in zip(images, choice.tops, choice.lefts, strict=True)
        ]
    )


def _resized(
    images: np.ndarray, rows: tuple[np.ndarray, np.ndarray, int], columns: tuple[np.ndarray, np.ndarray, int]
) -> np.ndarray:
    """Windows of uint8 images, each resized bilinearly, in float32. Along rows and columns: begin and extent of each
    window [n], and the size that all get.

    Positions are in 1/256 of a pixel, so that no sum has more than 24 bits: the result is exact, in whatever order a
    graph computes it (`embed-batches`).
    """
    (lows, highs, shares), (lefts, rights, mixes) = places(*rows), places(*columns)
    resized = np.empty((*images.shape[:2], rows[2], columns[2]), np.float32)
    for target, image, low, high, share, left, right, mix in zip(
        resized, images, lows, highs, shares, lefts, rights, mixes, strict=True
    ):
        first = left.min()
        window = image[:, :, first : right.max() + 1].astype(np.float32)
        between = window[:, low] * (PARTS - share)[:, None]
        between += window[:, high] * share[:, None]
        np.multiply(between.take(left - first, axis=2), PARTS - mix, out=target)
        target += between.take(right - first, axis=2) * mix
    resized *= np.float32(1 / PARTS**2)
    return resized


def places(begins: np.ndarray, extents: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where `size` pixels lie that are spread over each window of an image: the pixel before, the one behind it, and
    how many `PARTS` of the way it is, [n, size] each (float32 the last)."""
    middles = (2 * np.arange(size) + 1) * extents[:, None] * PARTS // (2 * size) - PARTS // 2
    middles = np.clip(middles, 0, (extents[:, None] - 1) * PARTS)
    before = middles // PARTS
    behind = np.minimum(before + 1, extents[:, None] - 1)
    return begins[:, None] + before, begins[:, None] + behind, (middles % PARTS).astype(np.float32)


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
