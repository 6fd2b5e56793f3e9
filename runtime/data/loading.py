"""Opens a data set, whatever its form."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from wootz.passes.errors import InputError, WootzError
from wootz.passes.plan.transform import Resize
from wootz.runtime.data.arrays import read_archive, read_array, read_array_folder
from wootz.runtime.data.cache import Cache, default_cache_folder
from wootz.runtime.data.caffe_lmdb import read_lmdb_folder
from wootz.runtime.data.class_folders import (
    has_class_folders,
    has_photographs,
    has_split_folders,
    is_divided,
    list_class_folders,
    list_unlabelled,
)
from wootz.runtime.data.class_index import by_number
from wootz.runtime.data.dataset import Dataset, Split, divide, with_validation
from wootz.runtime.data.decoding import Listener, decode_listing
from wootz.runtime.data.idx import read_idx_folder
from wootz.runtime.data.input_arrays import read_input, read_input_archive, read_input_folder
from wootz.runtime.data.listing import Listing
from wootz.runtime.data.manifest import MANIFESTS, list_manifest
from wootz.runtime.data.parquet import PARQUET, list_parquet, parquet_files
from wootz.runtime.data.photographs import UNREAD
from wootz.runtime.data.python_data import from_python, read_python
from wootz.runtime.data.stored_images import StoredImages
from wootz.runtime.inputs import Inputs, NetworkInput, are_images
from wootz.runtime.user_code import UserCode

DIGITS = "digits"


@dataclass(frozen=True)
class DataSource:
    """What `load_dataset` is asked for; all paths are absolute, but for the word `digits`."""

    location: str
    image_shape: tuple[int, ...]
    crop_size: int = 0
    seed: int = 0
    classes: str | None = None
    outputs: int = 0
    resize: Resize = "squash"
    cache: str = ""
    resizes_all: bool = False
    inputs: tuple[NetworkInput, ...] = ()
    are_numbers: bool = False

    def open(self, listener: Listener | None = None) -> Dataset:
        code = UserCode.of(self.location)
        if code is not None:
            return self.opened(read_python(code, self.seed, self.inputs, self.are_numbers))
        return replace(self.opened(self._read(listener or Listener())), source=self)

    def opened(self, dataset: Dataset) -> Dataset:
        """What was read, in the form in which networks take it. Raises InputError where it isn't for this one."""
        if self._takes_images:
            dataset = _with_channels_first(dataset, self.image_shape[0])
        if dataset.resizing is None:
            dataset = self._without_index(dataset)
        crop_size = self.image_shape[1] if dataset.resizing and dataset.resizing.shorter else self.crop_size
        _check(dataset, self.image_shape, crop_size, self.location)
        return dataset

    @property
    def _takes_images(self) -> bool:
        return not self.inputs or are_images(self.inputs)

    def _read_inputs(self) -> Dataset:
        """Raises InputError for data that are no arrays by the inputs' names."""
        path = Path(self.location)
        if path.suffix == ".npz" and path.is_file():
            return read_input_archive(path, self.inputs, self.seed)
        if path.suffix == ".npy" and path.is_file():
            return read_input(path, self.inputs, self.seed)
        if path.is_dir() and any(path.glob("*.npy")):
            return read_input_folder(path, self.inputs, self.seed)
        wanted = ", ".join(f"{each.name}_train" for each in self.inputs)
        takes = ", ".join(map(str, self.inputs))
        raise InputError(
            f"the network takes {takes}: give an .npz file, or a folder of .npy files, with the arrays {wanted}, …",
            self.location,
        )

    def _read(self, listener: Listener) -> Dataset:
        if not self._takes_images:
            return self._read_inputs()
        path = Path(self.location)
        if self.location == DIGITS:
            return _digits(self.seed)
        if path.suffix == ".npz" and path.is_file():
            return read_archive(path, self.seed, self.image_shape[0])
        if path.suffix == ".npy" and path.is_file():
            return read_array(path, self.seed, self.image_shape[0])
        if path.suffix.lower() in MANIFESTS and path.is_file():
            return self._decoded(list_manifest(path, self._classes_file, self.outputs), listener)
        if path.suffix == PARQUET and path.is_file():
            return self._decoded(list_parquet(path, [path], self._classes_file, self.outputs), listener)
        if not path.is_dir():
            raise InputError(
                f"no such data set: give a folder, an .npz, .npy, .csv, .json or .parquet file, or the word {DIGITS!r}",
                path,
            )
        if is_divided(path):
            return self._decoded(list_class_folders(path, self._classes_file, self.outputs), listener)
        if (path / "x_train.npy").is_file():
            return read_array_folder(path, self.seed, self.image_shape[0])
        if any(path.glob("*-images?idx3-ubyte*")):
            return read_idx_folder(path, self.seed)
        if (path / "train_lmdb").is_dir():
            return read_lmdb_folder(path, self.seed)
        if has_split_folders(path):
            return self._decoded(list_unlabelled(path), listener)
        if has_class_folders(path):
            return self._decoded(list_class_folders(path, self._classes_file, self.outputs), listener)
        if files := parquet_files(path):
            return self._decoded(list_parquet(path, files, self._classes_file, self.outputs), listener)
        if has_photographs(path):
            return self._decoded(list_unlabelled(path), listener)
        raise InputError(f"no data set in this folder: {_what_is_looked_for(path)}", path)

    @property
    def _classes_file(self) -> Path | None:
        return Path(self.classes) if self.classes else None

    def _decoded(self, listing: Listing, listener: Listener) -> Dataset:
        cache = Cache(Path(self.cache) if self.cache else default_cache_folder())
        resize = self.resize, self.resizes_all
        channels, height, width = self.image_shape
        shape = channels, height, width
        return decode_listing(listing, shape, self.crop_size, *resize, self.seed, cache, listener)

    def _without_index(self, dataset: Dataset) -> Dataset:
        if self.classes is not None:
            raise InputError(
                f"--classes is for photographs: in {self.location} labels are the network's outputs", self.classes
            )
        return _counted_from_0(dataset, self.outputs) if dataset.train.has_classes else dataset


def load_dataset(
    location: str,
    image_shape: tuple[int, ...],
    crop_size: int = 0,
    seed: int = 0,
    classes: str | Path | None = None,
    outputs: int = 0,
    resize: Resize = "squash",
    cache: str | Path | None = None,
    listener: Listener | None = None,
    resizes_all: bool = False,
    given: Any = None,
    inputs: tuple[NetworkInput, ...] = (),
    are_numbers: bool = False,
) -> Dataset:
    """Reads the data set at `location`, or takes the one that is `given` by Python code and called so, for a network
    that takes images of `image_shape` (channels, height, width), or other `inputs`.

    `location` is a folder with `CLASS/*.jpg|png`, or with `train/CLASS/*` (and `val`, `test`), a folder with
    `x_train.npy`, `y_train.npy`, …, an `.npz` with the same keys, a folder of IDX files as MNIST has them, a folder
    with Caffe's databases `train_lmdb` (and `val_lmdb`, `test_lmdb`), a manifest (`.csv`, `.jsonl`), Parquet as the
    library `datasets` writes it (a file, or a folder of files), or the word `digits`. Images without labels are
    photographs in the folder itself, or in `train`, `val` and `test`, arrays without `y`, an `.npy`, and manifests and
    Parquet without a column of labels. `FILE.py:NAME` is what Python code gives (`python_data`), whose whole numbers
    `are_numbers`, and no classes, for a network that gives one.

    Photographs are turned upright and brought to the network's size as `resize` says (`InputTransform`), unless all of
    those that are looked at have it already and it does not say `resizes_all`; grey ones of 16 bits are scaled to 8.
    Arrays must have the size, and may be [n, height, width, channels] as well as [n, channels, height, width]. With
    `crop_size`, images are larger than the network's (squashed photographs: as large as the first one), and crops of
    that size are taken from them batch by batch. Photographs of more than 64 MiB are decoded once, into the folder
    `cache`, and stay there: `listener` hears.

    Without a validation split, a seeded, stratified 20 % of the training images serve as one. `classes` is a file that
    says which of the network's `outputs` each class is (0: not known how many; `class_index`). Raises InputError where
    something is missing, unequal, damaged, or neither pixel nor label.
    """
    where = location if location == DIGITS or given is not None else str(Path(location).absolute())
    named = None if classes is None else str(Path(classes).absolute())
    folder = str(Path(cache or default_cache_folder()).absolute())
    source = DataSource(
        where, image_shape, crop_size, seed, named, outputs, resize, folder, resizes_all, inputs, are_numbers
    )
    if given is None:
        return source.open(listener)
    return source.opened(from_python(given, location, seed, inputs, are_numbers))


def _what_is_looked_for(folder: Path) -> str:
    forms = "neither CLASS/*.jpg, train/CLASS/*.jpg, *.jpg, *.parquet, x_train.npy, IDX files nor train_lmdb are in it"
    if unread := sorted({file.suffix.lower() for file in folder.glob("*/*")} & UNREAD):
        forms += f"; {', '.join(unread)} isn't read: convert the photographs to JPEG or PNG"
    inside = [f for f in folder.iterdir() if f.is_dir() and not f.name.startswith(".")]
    deeper = [f for f in sorted(inside) if is_divided(f) or has_class_folders(f)]
    folders = [[f for f in folder.iterdir() if f.is_dir()] for folder in deeper]
    if len(deeper) > 1 and all(len(of_one) == 1 for of_one in folders):
        return f"{forms}; photographs lie in a folder within that of their class, {folders[0][0]}: put them into it"
    return forms + (f"; is {deeper[0]} meant?" if deeper else "")


def _with_channels_first(dataset: Dataset, channels: int) -> Dataset:
    """Brings images [n, height, width, channels] into the order [n, channels, height, width]."""

    def turned(split: Split) -> Split:
        assert not isinstance(split.images, Inputs)
        _, first, *_, last = split.images.shape
        if first == channels or last != channels or isinstance(split.images, StoredImages):
            return split
        return Split(np.ascontiguousarray(split.images.transpose(0, 3, 1, 2)), split.labels)

    test = dataset.test and turned(dataset.test)
    return replace(dataset, train=turned(dataset.train), validation=turned(dataset.validation), test=test)


def _counted_from_0(dataset: Dataset, outputs: int) -> Dataset:
    """Labels of arrays are numbers of outputs; where they were counted from 1, they become that."""
    are_numbers = dataset.classes == tuple(map(str, range(len(dataset.classes))))
    found = by_number(dataset.train.classes, None if are_numbers else dataset.classes, outputs)
    shift = int(dataset.train.classes[0] - found.labels[0])
    others = [split for split in (dataset.validation, dataset.test) if split is not None and len(split)]
    if shift and any(split.classes.min() < shift for split in others):
        return dataset

    def counted(split: Split) -> Split:
        return Split(split.images, split.classes - shift) if shift else split

    return replace(
        dataset,
        classes=found.names,
        train=counted(dataset.train),
        validation=counted(dataset.validation),
        test=dataset.test and counted(dataset.test),
        notes=(*dataset.notes, *found.notes),
    )


def _check(dataset: Dataset, image_shape: tuple[int, ...], crop_size: int, location: str) -> None:
    splits = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    for name, split in splits.items():
        if split is None:
            continue
        if not len(split):
            raise InputError(f"the {name} split has no images", location)
        if not isinstance(split.images, Inputs):
            _check_shape(split.images.shape[1:], image_shape, crop_size, name, location)
        if split.has_classes and (split.classes.min() < 0 or split.classes.max() >= len(dataset.classes)):
            raise InputError(f"a {name} label lies outside 0..{len(dataset.classes) - 1}", location)
    if not dataset.train.has_classes:
        return
    present = np.unique(dataset.train.classes)
    if len(present) < 2:
        raise InputError(
            f"all training images are of one class, {dataset.classes[present[0]]!r}: there is nothing to tell apart",
            location,
        )


def _check_shape(
    shape: tuple[int, ...], image_shape: tuple[int, ...], crop_size: int, name: str, location: str
) -> None:
    if shape != image_shape and not (crop_size and shape[0] == image_shape[0] and min(shape[1:]) >= crop_size):
        have, want = ("x".join(map(str, s)) for s in (shape, image_shape))
        raise InputError(f"the {name} images are {have}, the network takes {want}", location)


def _digits(seed: int) -> Dataset:
    try:
        from sklearn.datasets import load_digits
    except ImportError as missing:
        raise WootzError("the digits come with scikit-learn: install wootz[examples]") from missing
    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)[:, None]
    rest, test = divide(Split(images, digits.target.astype(np.int64)), 0.3, seed)
    return with_validation([str(c) for c in digits.target_names], rest, None, test, seed, DIGITS)
