"""Images, or other samples, in three splits, labelled or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from wootz.passes.errors import InputError
from wootz.runtime.data.resizing import Resizing
from wootz.runtime.data.stored_images import Images, part_of
from wootz.runtime.digest import array_digest, digest
from wootz.runtime.inputs import Inputs

VALIDATION_SHARE = 0.2
SPLITS = ("train", "val", "test")

Numbers = Literal["pixels", "fractions", "as given"]
"""What images were given as: pixels from 0 to 255; pixels from 0 to 1, which are multiplied by 255; or numbers of which
some are negative, so that they are no pixels: they are as they were given."""

Targets = np.ndarray | Mapping[str, np.ndarray]
"""What images are labelled with, [n, …]; or several such arrays, by name."""


@dataclass(frozen=True)
class Split:
    """`images` [n, channels, height, width] in RGB (or grey), uint8 or float32; `labels` int64 [n], the classes, or
    whatever else they are labelled with, None where they aren't.

    Images that don't fit into memory stay in a file: an index reads those that it names (`StoredImages`). For a network
    that takes anything but images there are `Inputs` instead.
    """

    images: Images | Inputs
    labels: Targets | None = None

    @cached_property
    def digests(self) -> tuple[str, str]:
        """Of the images, and of the labels. They are never written to: both are read once."""
        images = self.images
        of_images = array_digest(images) if isinstance(images, np.ndarray) else images.digest
        return of_images, "" if self.labels is None else _digest(self.labels)

    @property
    def pixels(self) -> Images | None:
        """The images; of other inputs the first one of pixels, if there is one."""
        images = self.images
        if not isinstance(images, Inputs):
            return images
        return images.arrays[images.pixels[0]] if images.pixels else None

    @property
    def has_classes(self) -> bool:
        """Whether each image has a class."""
        return isinstance(self.labels, np.ndarray) and self.labels.ndim == 1 and self.labels.dtype.kind in "iu"

    @property
    def classes(self) -> np.ndarray:
        """The class of each image, int64 [n]."""
        assert isinstance(self.labels, np.ndarray), "these images have no classes"
        assert self.has_classes, "these images have no classes"
        return self.labels

    def part(self, index: slice | np.ndarray) -> Split:
        """The images that `index` names; those that are in a file stay there."""
        images = self.images[index] if isinstance(self.images, Inputs) else part_of(self.images, index)
        return Split(images, part_of_targets(self.labels, index))

    def spread(self, count: int) -> np.ndarray:
        """The numbers of `count` images, or all, evenly spread: of all classes where images are sorted by class."""
        return np.unique(np.linspace(0, len(self) - 1, count).astype(np.int64))

    def __len__(self) -> int:
        return len(self.images)


def part_of_targets(targets: Targets | None, index: slice | np.ndarray) -> Targets | None:
    """Those of the images that `index` names."""
    if isinstance(targets, Mapping):
        return {name: values[index] for name, values in targets.items()}
    return None if targets is None else targets[index]


def differ_by_ones(shape: Sequence[int | str], other: Sequence[int | str]) -> bool:
    """Whether two shapes of batches are the same but for axes of extent 1, whatever their first extents are."""
    extents, others = ([extent for extent in extents[1:] if extent != 1] for extents in (shape, other))
    return extents == others


def _digest(targets: Targets) -> str:
    if isinstance(targets, np.ndarray):
        return array_digest(targets)
    return digest(repr([(name, array_digest(values)) for name, values in targets.items()]).encode())


class Source(Protocol):
    """Where a data set comes from: small, picklable, and the same on all machines."""

    @property
    def location(self) -> str: ...

    def open(self) -> Dataset: ...


@dataclass(frozen=True)
class Dataset:
    """Three splits with common classes. Selection uses `validation`; `test` is for the report alone.

    `splits_training` says that there was no validation split: it was taken out of the training images. `notes` say what
    of the data isn't used; `resizing` how photographs got their size, None for arrays, and `numbers` what these held.
    One that has a `source` is pickled as that, and opened again.
    """

    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: Split | None
    splits_training: bool = False
    notes: tuple[str, ...] = ()
    resizing: Resizing | None = None
    source: Source | None = None
    numbers: Numbers = "pixels"

    @cached_property
    def digest(self) -> str:
        """A hash of all images, labels and classes."""
        splits = [None if s is None else s.digests for s in (self.train, self.validation, self.test)]
        return digest(repr((self.classes, self.splits_training, splits)).encode())

    def __reduce__(self) -> tuple[Any, ...]:
        if self.source is not None:
            return _reopened, (self.source, self.digest)
        return Dataset, tuple(getattr(self, f.name) for f in fields(self))


def _reopened(source: Source, digest: str) -> Dataset:
    """Raises InputError where the data are no longer what they were."""
    dataset = source.open()
    if dataset.digest != digest:
        raise InputError("the data are not those that the run began with", source.location)
    return dataset


def stratified_split(labels: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the rest and of `share` of each class (at least one image of it), both ascending."""
    generator = np.random.default_rng(seed)
    taken = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        taken[members[: max(1, round(share * len(members)))]] = True
    return np.flatnonzero(~taken), np.flatnonzero(taken)


def divide(data: Split, share: float, seed: int) -> tuple[Split, Split]:
    """The rest, and `share` of each class; of images without classes `share` of all."""
    groups = data.classes if data.has_classes else np.zeros(len(data), np.int64)
    rest, part = stratified_split(groups, share, seed)
    return data.part(rest), data.part(part)


def with_validation(
    classes: Sequence[str], train: Split, validation: Split | None, test: Split | None, seed: int, location: str | Path
) -> Dataset:
    """The data set, whose training split gives a part for validation if there is none. Raises InputError where a class
    would have no training image left."""
    splits_training = validation is None
    if validation is None:
        whole = train
        train, validation = divide(whole, VALIDATION_SHARE, seed)
        if whole.has_classes and (single := np.setdiff1d(whole.classes, train.classes)).size:
            name = classes[single[0]] if 0 <= single[0] < len(classes) else single[0]
            raise InputError(
                f"the class {name!r} has a single image, and validation takes it: give a validation split, or two "
                f"images a class",
                location,
            )
        if not len(train):
            raise InputError("there is a single image, and validation takes it: give at least two", location)
    return Dataset(tuple(classes), train, validation, test, splits_training)
