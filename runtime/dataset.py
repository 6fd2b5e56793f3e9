"""Labelled images: class folders, `.npz`, a folder of `.npy`, IDX files, LMDB, and scikit-learn's digits.

Images are decoded once and kept as they are stored, uint8 where they are pixels; what a network needs is made of
them batch by batch (`batches`).
"""

from __future__ import annotations

import gzip
import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from wootz.passes.errors import InputError, WootzError
from wootz.runtime.caffe_lmdb import read_lmdb

VALIDATION_SHARE = 0.2
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".gif", ".webp"}


@dataclass(frozen=True)
class Split:
    """`images` [n, channels, height, width] in RGB (or grey), uint8 or float32; `labels` int64 [n]."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    """Three splits with common classes. Selection uses `validation`; `test` is for the report alone."""

    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: Split | None

    @cached_property
    def digest(self) -> str:
        """A hash of the training and validation data: what a training result depends on."""
        sha = hashlib.sha256(repr(self.classes).encode())
        for split in (self.train, self.validation):
            sha.update(np.ascontiguousarray(split.images).data)
            sha.update(split.labels.tobytes())
        return sha.hexdigest()


def load_dataset(location: str, image_shape: tuple[int, int, int], crop_size: int = 0, seed: int = 0) -> Dataset:
    """Reads the data set at `location` for a network that takes images of `image_shape` (channels, height, width).

    `location` is a folder with `train/CLASS/*.jpg|png` (and `val`, `test`), a folder with `x_train.npy`,
    `y_train.npy`, …, an `.npz` with the same keys, a folder of IDX files as MNIST has them, a folder with Caffe's
    databases `train_lmdb` (and `val_lmdb`, `test_lmdb`), or the word `digits`.
    Photographs are resized to the network's size; arrays must have it. With `crop_size`, images are larger than the
    network's (photographs: as large as the first one), and crops of that size are taken from them batch by batch.
    Without a validation split, a seeded, stratified 20 % of the training images serve as one. Raises InputError
    where something is missing or unequal.
    """
    if location == "digits":
        dataset = _digits(seed)
    else:
        path = Path(location)
        if path.suffix == ".npz" and path.is_file():
            dataset = _from_arrays(dict(np.load(path, allow_pickle=False)), path, seed)
        elif not path.is_dir():
            raise InputError("no such data set: give a folder, an .npz file, or the word 'digits'", path)
        elif (path / "train").is_dir():
            dataset = _from_class_folders(path, image_shape, crop_size, seed)
        elif (path / "x_train.npy").is_file():
            arrays = {f.stem: np.load(f, allow_pickle=False) for f in path.glob("[xy]_*.npy")}
            dataset = _from_arrays(arrays, path, seed)
        elif any(path.glob("*-images-idx3-ubyte*")):
            dataset = _from_idx(path, seed)
        elif (path / "train_lmdb").is_dir():
            dataset = _from_lmdb(path, seed)
        else:
            raise InputError(
                "neither train/CLASS/ folders, x_train.npy, IDX files nor train_lmdb are in this folder", path
            )
    _check(dataset, image_shape, crop_size, location)
    return dataset


def _check(dataset: Dataset, image_shape: tuple[int, int, int], crop_size: int, location: str) -> None:
    splits = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    for name, split in splits.items():
        if split is None:
            continue
        if not len(split):
            raise InputError(f"the {name} split has no images", location)
        shape = split.images.shape[1:]
        if shape != image_shape and not (crop_size and shape[0] == image_shape[0] and min(shape[1:]) >= crop_size):
            have, want = ("x".join(map(str, s)) for s in (shape, image_shape))
            raise InputError(f"the {name} images are {have}, the network takes {want}", location)
        if split.labels.min() < 0 or split.labels.max() >= len(dataset.classes):
            raise InputError(f"a {name} label lies outside 0..{len(dataset.classes) - 1}", location)


def stratified_split(labels: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the rest and of `share` of each class (at least one image of it), both ascending."""
    generator = np.random.default_rng(seed)
    taken = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        taken[members[: max(1, round(share * len(members)))]] = True
    return np.flatnonzero(~taken), np.flatnonzero(taken)


def _divide(data: Split, share: float, seed: int) -> tuple[Split, Split]:
    rest, part = stratified_split(data.labels, share, seed)
    return Split(data.images[rest], data.labels[rest]), Split(data.images[part], data.labels[part])


def _with_validation(
    classes: Sequence[str], train: Split, validation: Split | None, test: Split | None, seed: int
) -> Dataset:
    if validation is None:
        train, validation = _divide(train, VALIDATION_SHARE, seed)
    return Dataset(tuple(classes), train, validation, test)


def _digits(seed: int) -> Dataset:
    try:
        from sklearn.datasets import load_digits
    except ImportError as missing:
        raise WootzError("the digits come with scikit-learn: install wootz[examples]") from missing
    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)[:, None]
    rest, test = _divide(Split(images, digits.target.astype(np.int64)), 0.3, seed)
    return _with_validation([str(c) for c in digits.target_names], rest, None, test, seed)


def _from_class_folders(root: Path, image_shape: tuple[int, int, int], crop_size: int, seed: int) -> Dataset:
    listed = root / "classes.txt"
    if listed.is_file():
        classes = listed.read_text().split()
    else:
        classes = sorted(p.name for p in (root / "train").iterdir() if p.is_dir())
    if not classes:
        raise InputError("no class folders in train/", root)
    stored = _first_image_shape(root, image_shape[0]) if crop_size else image_shape
    names = [name for name in ("train", "val", "test") if (root / name).is_dir()]
    splits = {name: _read_split(root / name, classes, stored) for name in names}
    validation, test = splits.get("val"), splits.get("test")
    return _with_validation(classes, splits["train"], validation, test, seed)


def _first_image_shape(root: Path, channels: int) -> tuple[int, int, int]:
    for file in sorted((root / "train").glob("*/*")):
        if file.suffix.lower() in IMAGE_SUFFIXES:
            with Image.open(file) as image:
                return channels, image.height, image.width
    raise InputError("no images in train/", root)


def _read_split(folder: Path, classes: Sequence[str], image_shape: tuple[int, int, int]) -> Split:
    unknown = sorted({p.name for p in folder.iterdir() if p.is_dir()} - set(classes))
    if unknown:
        raise InputError(f"class {unknown[0]!r} is not among the classes {', '.join(classes[:8])}", folder)
    files = [
        (file, label)
        for label, name in enumerate(classes)
        for file in sorted((folder / name).glob("*"))
        if file.suffix.lower() in IMAGE_SUFFIXES
    ]
    channels, height, width = image_shape
    images = np.empty((len(files), channels, height, width), np.uint8)
    for image, (file, _) in zip(images, files, strict=True):
        image[:] = _decode(file, channels, height, width)
    return Split(images, np.array([label for _, label in files], dtype=np.int64))


def _decode(file: Path, channels: int, height: int, width: int) -> np.ndarray:
    if channels not in (1, 3):
        raise InputError(f"the network takes {channels} channels; photographs have 1 or 3", file)
    try:
        with Image.open(file) as opened:
            image = opened.convert("L" if channels == 1 else "RGB")
    except OSError as error:
        raise InputError("not an image that Pillow can read", file) from error
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(image)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def _from_arrays(arrays: dict[str, np.ndarray], file: Path, seed: int) -> Dataset:
    def split(name: str) -> Split | None:
        if f"x_{name}" not in arrays:
            return None
        if f"y_{name}" not in arrays:
            raise InputError(f"x_{name} has no labels y_{name} beside it", file)
        images, labels = arrays[f"x_{name}"], arrays[f"y_{name}"].reshape(-1)
        if len(images) != len(labels):
            raise InputError(f"{len(images)} images x_{name} but {len(labels)} labels y_{name}", file)
        images = images[:, None] if images.ndim == 3 else images
        kept = images if images.dtype == np.uint8 else images.astype(np.float32)
        return Split(kept, labels.astype(np.int64))

    train = split("train")
    if train is None:
        raise InputError("x_train is missing (keys: x_train, y_train, x_val, y_val, x_test, y_test)", file)
    classes = [str(c) for c in arrays.get("classes", np.arange(int(train.labels.max()) + 1))]
    return _with_validation(classes, train, split("val"), split("test"), seed)


def _from_lmdb(folder: Path, seed: int) -> Dataset:
    train, validation, test = (
        Split(*read_lmdb(folder / f"{name}_lmdb")) if (folder / f"{name}_lmdb").is_dir() else None
        for name in ("train", "val", "test")
    )
    assert train is not None
    classes = [str(c) for c in range(int(train.labels.max()) + 1)]
    return _with_validation(classes, train, validation, test, seed)


def _from_idx(folder: Path, seed: int) -> Dataset:
    train = _read_idx_split(folder, "train")
    test = _read_idx_split(folder, "t10k") if any(folder.glob("t10k-images-idx3-ubyte*")) else None
    classes = [str(c) for c in range(int(train.labels.max()) + 1)]
    return _with_validation(classes, train, None, test, seed)


def _read_idx_split(folder: Path, name: str) -> Split:
    images = _read_idx(folder, f"{name}-images-idx3-ubyte")
    labels = _read_idx(folder, f"{name}-labels-idx1-ubyte")
    return Split(images[:, None], labels.astype(np.int64))


def _read_idx(folder: Path, stem: str) -> np.ndarray:
    """An IDX file of unsigned bytes, gzipped or not: magic 0x0000 08 rank, sizes in big-endian uint32, then data."""
    files = [f for f in (folder / stem, folder / f"{stem}.gz") if f.is_file()]
    if not files:
        raise InputError("no such file, as it is or with .gz", folder / stem)
    content = gzip.decompress(files[0].read_bytes()) if files[0].suffix == ".gz" else files[0].read_bytes()
    if len(content) < 4 or content[:3] != b"\0\0\x08":
        raise InputError("not an IDX file of unsigned bytes", files[0])
    sizes = struct.unpack_from(f">{content[3]}I", content, 4)
    data = np.frombuffer(content, np.uint8, offset=4 + 4 * len(sizes))
    if data.size != np.prod(sizes):
        raise InputError(f"the header says {'x'.join(map(str, sizes))} values, {data.size} follow", files[0])
    return data.reshape(sizes)
