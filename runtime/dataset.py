"""Labelled images: class folders, `.npz`, a folder of `.npy`, IDX files, LMDB, and scikit-learn's digits.

Images are decoded once and kept as they are stored, uint8 where they are pixels; what a network needs is made of
them batch by batch (`batches`).
"""

from __future__ import annotations

import gzip
import hashlib
import math
import struct
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from wootz.passes.arrays import read_npy, read_npz
from wootz.passes.errors import InputError, WootzError, reading
from wootz.runtime.caffe_lmdb import read_lmdb
from wootz.runtime.photographs import A_PHOTOGRAPH, open_photograph

VALIDATION_SHARE = 0.2
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".gif", ".webp"}
ARRAYS = (*(f"{kind}_{split}" for split in ("train", "val", "test") for kind in "xy"), "classes")
"""What an `.npz` file, or a folder of `.npy` files, may hold."""
MISNAMED = ("valid", "validation", "dev", "Val", "Test")
"""What other programs call the splits: without a word, the training images would be divided instead."""
LABEL_BOUND = 1_000_000
"""Larger labels are no numbers of classes, but identifiers or damage."""


@dataclass(frozen=True)
class Split:
    """`images` [n, channels, height, width] in RGB (or grey), uint8 or float32; `labels` int64 [n]."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    """Three splits with common classes. Selection uses `validation`; `test` is for the report alone.

    `splits_training` says that there was no validation split: it was taken out of the training images. One that has a
    `source` is pickled as that, and opened again.
    """

    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: Split | None
    splits_training: bool = False
    source: DataSource | None = None

    @cached_property
    def digest(self) -> str:
        """A hash of all images, labels and classes."""
        sha = hashlib.sha256(repr((self.classes, self.splits_training)).encode())
        for split in filter(None, (self.train, self.validation, self.test)):
            sha.update(np.ascontiguousarray(split.images).data)
            sha.update(split.labels.tobytes())
        return sha.hexdigest()

    def __reduce__(self) -> tuple[Any, ...]:
        if self.source is not None:
            return _reopened, (self.source, self.digest)
        return Dataset, (self.classes, self.train, self.validation, self.test, self.splits_training)


@dataclass(frozen=True)
class DataSource:
    """What `load_dataset` was asked for."""

    location: str
    image_shape: tuple[int, int, int]
    crop_size: int
    seed: int


def _reopened(source: DataSource, digest: str) -> Dataset:
    """Raises InputError where the data are no longer what they were."""
    dataset = load_dataset(source.location, source.image_shape, source.crop_size, source.seed)
    if dataset.digest != digest:
        raise InputError("the data are not those that the run began with", source.location)
    return dataset


def load_dataset(location: str, image_shape: tuple[int, int, int], crop_size: int = 0, seed: int = 0) -> Dataset:
    """Reads the data set at `location` for a network that takes images of `image_shape` (channels, height, width).

    `location` is a folder with `train/CLASS/*.jpg|png` (and `val`, `test`), a folder with `x_train.npy`,
    `y_train.npy`, …, an `.npz` with the same keys, a folder of IDX files as MNIST has them, a folder with Caffe's
    databases `train_lmdb` (and `val_lmdb`, `test_lmdb`), or the word `digits`.
    Photographs are resized to the network's size, and grey ones of 16 bits scaled to 8; arrays must have the size, and
    may be [n, height, width, channels] as well as [n, channels, height, width]. With
    `crop_size`, images are larger than the network's (photographs: as large as the first one), and crops of that size
    are taken from them batch by batch. Without a validation split, a seeded, stratified 20 % of the training images
    serve as one. Raises InputError where something is missing, unequal, damaged, or neither pixel nor label.
    """
    if location == "digits":
        dataset = _digits(seed)
    else:
        path = Path(location)
        if path.suffix == ".npz" and path.is_file():
            dataset = _from_arrays(_read_npz(path), path, seed)
        elif not path.is_dir():
            raise InputError("no such data set: give a folder, an .npz file, or the word 'digits'", path)
        elif (path / "train").is_dir():
            dataset = _from_class_folders(path, image_shape, crop_size, seed)
        elif (path / "x_train.npy").is_file():
            _check_names((p.stem for p in path.glob("*.npy")), path)
            files = {name: path / f"{name}.npy" for name in ARRAYS}
            dataset = _from_arrays({name: _read_npy(f) for name, f in files.items() if f.is_file()}, path, seed)
        elif any(path.glob("*-images?idx3-ubyte*")):
            dataset = _from_idx(path, seed)
        elif (path / "train_lmdb").is_dir():
            dataset = _from_lmdb(path, seed)
        else:
            raise InputError(
                "neither train/CLASS/ folders, x_train.npy, IDX files nor train_lmdb are in this folder", path
            )
    dataset = _with_channels_first(dataset, image_shape[0])
    _check(dataset, image_shape, crop_size, location)
    absolute = location if location == "digits" else str(Path(location).absolute())
    return replace(dataset, source=DataSource(absolute, image_shape, crop_size, seed))


def _with_channels_first(dataset: Dataset, channels: int) -> Dataset:
    """Brings images [n, height, width, channels] into the order [n, channels, height, width]."""

    def turned(split: Split) -> Split:
        _, first, _, last = split.images.shape
        if first == channels or last != channels:
            return split
        return Split(np.ascontiguousarray(split.images.transpose(0, 3, 1, 2)), split.labels)

    test = dataset.test and turned(dataset.test)
    return replace(dataset, train=turned(dataset.train), validation=turned(dataset.validation), test=test)


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
    classes: Sequence[str], train: Split, validation: Split | None, test: Split | None, seed: int, location: str | Path
) -> Dataset:
    splits_training = validation is None
    if validation is None:
        rest, validation = _divide(train, VALIDATION_SHARE, seed)
        if len(train) and not len(rest):
            raise InputError(
                "each class has a single image, and validation takes it: give a validation split, or two images a "
                "class",
                location,
            )
        train = rest
    return Dataset(tuple(classes), train, validation, test, splits_training)


def _digits(seed: int) -> Dataset:
    try:
        from sklearn.datasets import load_digits
    except ImportError as missing:
        raise WootzError("the digits come with scikit-learn: install wootz[examples]") from missing
    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)[:, None]
    rest, test = _divide(Split(images, digits.target.astype(np.int64)), 0.3, seed)
    return _with_validation([str(c) for c in digits.target_names], rest, None, test, seed, "digits")


def _from_class_folders(root: Path, image_shape: tuple[int, int, int], crop_size: int, seed: int) -> Dataset:
    listed = root / "classes.txt"
    if listed.is_file():
        with reading(listed, "a text of class names in UTF-8"):
            lines = (line.strip() for line in listed.read_text(encoding="utf-8-sig").splitlines())
            classes = [line for line in lines if line]
        if repeated := [name for name in classes if classes.count(name) > 1]:
            raise InputError(f"it names the class {repeated[0]!r} twice", listed)
    else:
        classes = _class_folders(root / "train")
    if not classes:
        raise InputError("no class folders in train/", root)
    stored = _first_image_shape(root, image_shape[0]) if crop_size else image_shape
    names = [name for name in ("train", "val", "test") if (root / name).is_dir()]
    if misnamed := [name for name in MISNAMED if name.lower() not in names and (root / name).is_dir()]:
        raise InputError(f"the folder {misnamed[0]} isn't read: the splits are train, val and test", root)
    splits = {name: _read_split(root / name, classes, stored) for name in names}
    counts = np.bincount(splits["train"].labels, minlength=len(classes))
    if empty := [
        name for name, count in zip(classes, counts, strict=True) if not count and (root / "train" / name).is_dir()
    ]:
        formats = ", ".join(sorted(IMAGE_SUFFIXES))
        raise InputError(
            f"no images in it: they lie in the folder of the class, as {formats}", root / "train" / empty[0]
        )
    validation, test = splits.get("val"), splits.get("test")
    return _with_validation(classes, splits["train"], validation, test, seed, root)


def _class_folders(split: Path) -> list[str]:
    """The names of the classes; what editors and archives leave in a folder (`.cache`, `__MACOSX`) is none."""
    return sorted(p.name for p in split.iterdir() if p.is_dir() and not p.name.startswith((".", "__MACOSX")))


def _photographs(folder: Path) -> list[Path]:
    return sorted(f for f in folder.glob("*") if f.suffix.lower() in IMAGE_SUFFIXES and not f.name.startswith("."))


def _first_image_shape(root: Path, channels: int) -> tuple[int, int, int]:
    for folder in _class_folders(root / "train"):
        for file in _photographs(root / "train" / folder):
            with reading(file, A_PHOTOGRAPH), open_photograph(file) as image:
                return channels, image.height, image.width
    raise InputError("no images in train/", root)


def _read_split(folder: Path, classes: Sequence[str], image_shape: tuple[int, int, int]) -> Split:
    unknown = sorted(set(_class_folders(folder)) - set(classes))
    if unknown:
        raise InputError(f"class {unknown[0]!r} is not among the classes {', '.join(classes[:8])}", folder)
    files = [(file, label) for label, name in enumerate(classes) for file in _photographs(folder / name)]
    channels, height, width = image_shape
    images = np.empty((len(files), channels, height, width), np.uint8)
    for image, (file, _) in zip(images, files, strict=True):
        image[:] = _decode(file, channels, height, width)
    return Split(images, np.array([label for _, label in files], dtype=np.int64))


def _decode(file: Path, channels: int, height: int, width: int) -> np.ndarray:
    if channels not in (1, 3):
        raise InputError(f"the network takes {channels} channels; photographs have 1 or 3", file)
    with reading(file, A_PHOTOGRAPH), open_photograph(file) as opened:
        image = _with_8_bits(opened, file).convert("L" if channels == 1 else "RGB")
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(image)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def _with_8_bits(image: Image.Image, file: Path) -> Image.Image:
    """Grey pixels of 16 bits are scaled: Pillow would clip them at 255. Colours of 16 bits it scales itself."""
    if not image.mode.startswith(("I", "F")):
        return image
    pixels = np.asarray(image)
    if image.mode == "F" or pixels.min() < 0 or pixels.max() > 65535:
        raise InputError("pixels of another kind than 8 or 16 bits: save it as an 8-bit PNG", file)
    return Image.fromarray(np.rint(pixels / 257).astype(np.uint8))


def _read_npz(file: Path) -> dict[str, np.ndarray]:
    with reading(file, "an archive that numpy.savez wrote of arrays of numbers (text and Python objects are none)"):
        with zipfile.ZipFile(file) as archive:
            _check_names((name.removesuffix(".npy") for name in archive.namelist()), file)
        return read_npz(file, ARRAYS)


def _read_npy(file: Path) -> np.ndarray:
    with reading(file, "an array of numbers that numpy.save wrote (text and Python objects are none)"):
        return read_npy(file)


def _checked(images: np.ndarray, labels: np.ndarray, names: tuple[str, str], file: Path) -> Split:
    """A split of arrays as they were read from `file`, with their names there."""
    x, y = names
    if images.ndim not in (3, 4):
        raise InputError(
            f"{x} has shape {images.shape}: images are [n, channels, height, width], or [n, height, width]", file
        )
    if not len(images):
        raise InputError(f"{x} has no images", file)
    if labels.ndim == 0 or labels.size != len(labels):
        raise InputError(
            f"{y} has shape {labels.shape}: one label an image is wanted, for one-hot rows their argmax", file
        )
    if len(images) != len(labels):
        raise InputError(f"{len(images)} images {x} but {len(labels)} labels {y}", file)
    images = images[:, None] if images.ndim == 3 else images
    return Split(_checked_pixels(images, x, file), _checked_labels(labels.reshape(-1), y, file))


def _checked_pixels(images: np.ndarray, name: str, file: Path) -> np.ndarray:
    """The images in uint8 or float32."""
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind not in "buif":
        raise InputError(f"{name} holds {images.dtype}, which are no pixels: give uint8 or float32", file)
    with np.errstate(over="ignore"):
        kept = images.astype(np.float32, copy=False)
    broken = np.flatnonzero(~np.isfinite(kept).all(axis=(1, 2, 3)))
    if broken.size:
        raise InputError(
            f"NaN or infinite pixels in {broken.size} of {len(kept)} images of {name}, the first at index {broken[0]}: "
            f"mend them, or leave them out",
            file,
        )
    return kept


def _checked_labels(labels: np.ndarray, name: str, file: Path) -> np.ndarray:
    """The labels in int64."""
    if labels.dtype.kind not in "buif":
        raise InputError(
            f"{name} holds {labels.dtype}: labels are whole numbers from 0 on; names of classes go into 'classes'", file
        )
    broken = labels[~((labels >= 0) & (labels < LABEL_BOUND) & (labels == np.rint(labels)))]
    if broken.size:
        raise InputError(f"{name} has the label {broken[0]}: labels number the classes, from 0 on", file)
    return labels.astype(np.int64)


def _numbered(labels: np.ndarray) -> list[str]:
    """Names of classes that have none: their numbers, up to the largest label."""
    return [str(c) for c in range(int(labels.max()) + 1)]


def _check_names(names: Iterable[str], file: Path) -> None:
    """Raises InputError for an array that is meant as one of a split, but isn't called so."""
    misnamed = {f"{kind}_{split}" for kind in "xyXY" for split in ("train", "val", "test", *MISNAMED)} - set(ARRAYS)
    for name in names:
        if name in misnamed:
            raise InputError(f"the array {name} isn't read: they are called {', '.join(ARRAYS)}", file)


def _class_name(name: object) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)


def _from_arrays(arrays: dict[str, np.ndarray], file: Path, seed: int) -> Dataset:
    def split(name: str) -> Split | None:
        if f"x_{name}" not in arrays:
            if f"y_{name}" in arrays and name != "train":
                raise InputError(f"y_{name} has no images x_{name} beside it", file)
            return None
        if f"y_{name}" not in arrays:
            raise InputError(f"x_{name} has no labels y_{name} beside it", file)
        return _checked(arrays[f"x_{name}"], arrays[f"y_{name}"], (f"x_{name}", f"y_{name}"), file)

    train = split("train")
    if train is None:
        raise InputError("x_train is missing (keys: x_train, y_train, x_val, y_val, x_test, y_test)", file)
    classes = (
        [_class_name(c) for c in arrays["classes"].reshape(-1)] if "classes" in arrays else _numbered(train.labels)
    )
    validation, test = split("val"), split("test")
    for name, other in (("val", validation), ("test", test)):
        if other is None or other.images.dtype == train.images.dtype:
            continue
        if _is_fraction(train.images) != _is_fraction(other.images):
            raise InputError(f"of x_train and x_{name} one has pixels up to 1, the other larger ones", file)
    return _with_validation(classes, train, validation, test, seed, file)


def _is_fraction(images: np.ndarray) -> bool:
    """Whether pixels were divided by 255."""
    return images.dtype != np.uint8 and float(images.max()) <= 1


def _from_lmdb(folder: Path, seed: int) -> Dataset:
    def split(name: str) -> Split | None:
        database = folder / name
        if not database.is_dir():
            return None
        with reading(database, "a database of images that can be read"):
            images, labels = read_lmdb(database)
        return _checked(images, labels, (name, name), folder)

    train = split("train_lmdb")
    assert train is not None
    return _with_validation(_numbered(train.labels), train, split("val_lmdb"), split("test_lmdb"), seed, folder)


def _from_idx(folder: Path, seed: int) -> Dataset:
    train = _read_idx_split(folder, "train")
    test = _read_idx_split(folder, "t10k") if any(folder.glob("t10k-images?idx3-ubyte*")) else None
    return _with_validation(_numbered(train.labels), train, None, test, seed, folder)


def _read_idx_split(folder: Path, name: str) -> Split:
    names = f"{name}-images-idx3-ubyte", f"{name}-labels-idx1-ubyte"
    return _checked(_read_idx(folder, names[0]), _read_idx(folder, names[1]), names, folder)


def _read_idx(folder: Path, stem: str) -> np.ndarray:
    """An IDX file of unsigned bytes, gzipped or not: magic 0x0000 08 rank, sizes in big-endian uint32, then data."""
    stems = (stem, stem.replace("-idx", ".idx"))  # archives of MNIST have either
    files = [f for s in stems for f in (folder / s, folder / f"{s}.gz") if f.is_file()]
    if not files:
        raise InputError("no such file, as it is or with .gz", folder / stem)
    content = files[0].read_bytes()
    if files[0].suffix == ".gz":
        with reading(files[0], "a gzip file"):
            content = gzip.decompress(content)
    if len(content) < 4 or content[:3] != b"\0\0\x08" or len(content) < 4 + 4 * content[3]:
        raise InputError("not an IDX file of unsigned bytes", files[0])
    sizes = struct.unpack_from(f">{content[3]}I", content, 4)
    start = 4 + 4 * len(sizes)
    if len(content) - start != math.prod(sizes):
        raise InputError(f"the header says {'x'.join(map(str, sizes))} values, {len(content) - start} follow", files[0])
    with reading(files[0], "an IDX file of images or labels"):
        return (
            np.frombuffer(content, np.uint8, offset=start).reshape(sizes) if any(sizes) else np.empty(sizes, np.uint8)
        )
