"""Data sets that Python code gives: arrays, or an iterable of them, with targets or without."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from wootz.passes.errors import InputError
from wootz.runtime.data.arrays import checked_split, dataset_of, numbered
from wootz.runtime.data.dataset import SPLITS, Dataset, Split
from wootz.runtime.user_code import UserCode, place_of, told_in_a_line

BATCH_RANK = 4
"""Items of an iterable of this rank are batches; of a lower one single images."""


def read_python(code: UserCode, seed: int) -> Dataset:
    """The data set that `FILE.py:NAME` is, or returns. Raises InputError for what is none."""
    return from_python(code.load(), code.file, seed)


def from_python(data: Any, name: str, seed: int) -> Dataset:
    """The data set in a value, or in what a function without parameters returns; all of it is read once.

    Images are an array, or an iterable of arrays, of which those with four axes are batches; `(images, targets)` are a
    tuple of both, or the items of an iterable. A dictionary with the keys `train`, and perhaps `val` and `test`, has
    the splits; one with a single array is that of the network's input. Targets are classes where they are whole
    numbers, one an image; else whatever a metric wants. `name` stands for the data in errors. Raises InputError for
    anything else.
    """
    file, line = place_of(data) if callable(data) else (name, None)
    with told_in_a_line(file, line or 1):
        value = data() if callable(data) else data
        parts = value if _has_splits(value) else {"train": value}
        arrays = {split: _arrays(part, file, line) for split, part in parts.items()}
    labelled = {targets is not None for _, targets in arrays.values()}
    if len(labelled) > 1:
        raise InputError("some splits have targets, others have none", file, line)
    splits = {split: _split(*found, split, file) for split, found in arrays.items()}
    return dataset_of(splits["train"], splits.get("val"), splits.get("test"), numbered(splits["train"]), file, seed)


def _has_splits(value: Any) -> bool:
    return isinstance(value, Mapping) and "train" in value and set(value) <= set(SPLITS)


def _arrays(part: Any, file: str, line: int | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Images and targets of a split."""
    if isinstance(part, tuple) and len(part) == 2:
        return _image(part[0], file, line), np.asarray(part[1])
    if isinstance(part, Mapping) or hasattr(part, "__array__"):
        return _image(part, file, line), None
    if not isinstance(part, Iterable):
        raise InputError(f"the data are {type(part).__name__}: give arrays, or an iterable of them", file, line)
    images: list[np.ndarray] = []
    targets: list[np.ndarray] = []
    for item in part:
        is_pair = isinstance(item, tuple) and len(item) == 2
        image = _image(item[0] if is_pair else item, file, line)
        is_batch = image.ndim >= BATCH_RANK
        images.append(image if is_batch else image[None])
        if is_pair:
            targets.append(np.asarray(item[1]) if is_batch else np.asarray(item[1])[None])
    if not images:
        raise InputError("there are no images", file, line)
    if targets and len(targets) != len(images):
        raise InputError("some images have targets, others have none", file, line)
    return np.concatenate(images), np.concatenate(targets) if targets else None


def _image(value: Any, file: str, line: int | None) -> np.ndarray:
    if isinstance(value, Mapping):
        if len(value) != 1:
            raise InputError(f"there are arrays for {', '.join(map(str, value))}: a network has one input", file, line)
        (value,) = value.values()
    return np.asarray(value)


def _split(images: np.ndarray, targets: np.ndarray | None, name: str, file: str) -> Split:
    names = (f"the images of {name}", f"the targets of {name}")
    if targets is None or (targets.ndim == 1 and targets.dtype.kind in "bui"):
        return checked_split(images, targets, names, file)
    if targets.dtype.kind not in "buif":
        raise InputError(f"{names[1]} hold {targets.dtype}, which are no numbers", file)
    if len(targets) != len(images):
        raise InputError(f"{len(images)} images but {len(targets)} targets in {name}", file)
    kept = targets.astype(np.float32 if targets.dtype.kind == "f" else np.int64)
    return Split(checked_split(images, None, names, file).images, kept)
