"""Data sets as arrays: an `.npz` file, or a folder of `.npy` files."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from wootz.passes.arrays import read_npy, read_npz
from wootz.passes.errors import InputError, reading
from wootz.runtime.data.dataset import SPLITS, Dataset, Numbers, Split, Targets, with_validation
from wootz.runtime.data.stored_images import Images
from wootz.runtime.inputs import PIXEL_CHANNELS

ARRAYS = (*(f"{kind}_{split}" for split in SPLITS for kind in "xy"), "classes")
"""What an `.npz` file, or a folder of `.npy` files, may hold."""
MISNAMED = ("valid", "validation", "dev", "Val", "Test")
"""What other programs call the splits: without a word, the training images would be divided instead."""
NOTES: Mapping[Numbers, tuple[str, ...]] = {
    "pixels": (),
    "fractions": ("The arrays have pixels from 0 to 1: they are multiplied by 255, to be pixels as all others.",),
    "as given": (
        "The arrays have negative numbers, so they are no pixels: they are taken as they are, and what is delivered "
        "wants such numbers.",
    ),
}
NO_PIXELS = "Maps of {} channels are no pixels: the arrays are taken as they are."
CHUNK = 256
"""Images that are multiplied at a time."""
ROUNDED = 0.1
"""By how much pixels that were divided by 255, even in float16, may miss whole numbers."""
LABEL_BOUND = 1_000_000
"""Larger labels are no numbers of classes, but identifiers or damage."""


def read_archive(file: Path, seed: int, channels: int = 0) -> Dataset:
    """The data set in an `.npz` file, for a network of images of so many channels (0: unknown)."""
    with reading(file, "an archive that numpy.savez wrote of arrays of numbers (text and Python objects are none)"):
        with zipfile.ZipFile(file) as archive:
            _check_names((name.removesuffix(".npy") for name in archive.namelist()), file)
        arrays = read_npz(file, ARRAYS)
    return _from_arrays(arrays, file, seed, channels)


def read_array_folder(folder: Path, seed: int, channels: int = 0) -> Dataset:
    """The data set in a folder with `x_train.npy`, `y_train.npy`, …"""
    _check_names((file.stem for file in folder.glob("*.npy")), folder)
    files = {name: folder / f"{name}.npy" for name in ARRAYS}
    return _from_arrays({name: read_npy_file(f) for name, f in files.items() if f.is_file()}, folder, seed, channels)


def read_array(file: Path, seed: int, channels: int = 0) -> Dataset:
    """The images in an `.npy` file, which has no labels."""
    return _from_arrays({"x_train": read_npy_file(file)}, file, seed, channels)


def checked_split(images: np.ndarray, labels: np.ndarray | None, names: tuple[str, str], file: str | Path) -> Split:
    """A split of arrays as they were read from `file`, with their names there. Raises InputError for what is none."""
    x, y = names
    if images.ndim not in (3, 4):
        raise InputError(
            f"{x} has shape {images.shape}: images are [n, channels, height, width], or [n, height, width]", file
        )
    if not len(images):
        raise InputError(f"{x} has no images", file)
    if labels is None:
        images = images[:, None] if images.ndim == 3 else images
        return Split(_checked_pixels(images, x, file))
    if labels.ndim == 0 or labels.size != len(labels):
        raise InputError(
            f"{y} has shape {labels.shape}: one label an image is wanted, for one-hot rows their argmax", file
        )
    if len(images) != len(labels):
        raise InputError(f"{len(images)} images {x} but {len(labels)} labels {y}", file)
    images = images[:, None] if images.ndim == 3 else images
    return Split(_checked_pixels(images, x, file), _checked_labels(labels.reshape(-1), y, file))


def _checked_pixels(images: np.ndarray, name: str, file: str | Path) -> np.ndarray:
    """The images in uint8 or float32."""
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind not in "uif":
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


def targets_of(targets: Targets | None, samples: int, name: str, file: str | Path) -> Targets | None:
    """The targets of a split of so many samples: classes, int64 [n], where they are whole numbers, one a sample, else
    int64 or float32 [n, …], or several of these by name. Raises InputError for others."""
    if targets is None:
        return None
    if isinstance(targets, Mapping):
        return {key: _checked_targets(values, samples, f"{name}, {key},", file) for key, values in targets.items()}
    checked = _checked_targets(targets, samples, name, file)
    if targets.ndim == 1 and targets.dtype.kind in "bui":
        return _checked_labels(targets, f"the targets of {name}", file)
    return checked


def _checked_targets(targets: np.ndarray, samples: int, name: str, file: str | Path) -> np.ndarray:
    title = f"the targets of {name}"
    if targets.dtype.kind not in "buif":
        raise InputError(f"{title} hold {targets.dtype}, which are no numbers", file)
    if targets.ndim == 0 or len(targets) != samples:
        raise InputError(f"{samples} samples but {len(targets) if targets.ndim else 'no'} targets in {name}", file)
    return targets.astype(np.float32 if targets.dtype.kind == "f" else np.int64)


def class_names(arrays: Mapping[str, np.ndarray]) -> list[str] | None:
    """What the classes are called; None where the arrays don't say it."""
    return [_class_name(c) for c in arrays["classes"].reshape(-1)] if "classes" in arrays else None


def _checked_labels(labels: np.ndarray, name: str, file: str | Path) -> np.ndarray:
    """The labels in int64."""
    if labels.dtype.kind not in "buif":
        raise InputError(
            f"{name} holds {labels.dtype}: labels are whole numbers from 0 on; names of classes go into 'classes'", file
        )
    broken = labels[~((labels >= 0) & (labels < LABEL_BOUND) & (labels == np.rint(labels)))]
    if broken.size:
        raise InputError(f"{name} has the label {broken[0]}: labels number the classes, from 0 on", file)
    return labels.astype(np.int64)


def numbered(train: Split) -> list[str]:
    """Names of classes that have none: their numbers, up to the largest label; none where there are no labels."""
    return [str(c) for c in range(int(train.classes.max()) + 1)] if train.has_classes else []


def read_npy_file(file: Path) -> np.ndarray:
    with reading(file, "an array of numbers that numpy.save wrote (text and Python objects are none)"):
        return read_npy(file)


def _check_names(names: Iterable[str], file: Path) -> None:
    """Raises InputError for an array that is meant as one of a split, but isn't called so."""
    misnamed = {f"{kind}_{split}" for kind in "xyXY" for split in ("train", "val", "test", *MISNAMED)} - set(ARRAYS)
    for name in names:
        if name in misnamed:
            raise InputError(f"the array {name} isn't read: they are called {', '.join(ARRAYS)}", file)


def _class_name(name: object) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)


def _from_arrays(arrays: dict[str, np.ndarray], file: Path, seed: int, channels: int) -> Dataset:
    are_labelled = any(name.startswith("y_") for name in arrays)

    def split(name: str) -> Split | None:
        if f"x_{name}" not in arrays:
            if f"y_{name}" in arrays and name != "train":
                raise InputError(f"y_{name} has no images x_{name} beside it", file)
            return None
        if are_labelled and f"y_{name}" not in arrays:
            raise InputError(f"x_{name} has no labels y_{name} beside it", file)
        return checked_split(arrays[f"x_{name}"], arrays.get(f"y_{name}"), (f"x_{name}", f"y_{name}"), file)

    train = split("train")
    if train is None:
        raise InputError(
            "x_train is missing (keys: x_train, y_train, x_val, y_val, x_test, y_test; y only where there are labels)",
            file,
        )
    classes = class_names(arrays) or numbered(train)
    return dataset_of(train, split("val"), split("test"), classes, file, seed, channels)


def dataset_of(
    train: Split,
    validation: Split | None,
    test: Split | None,
    classes: Sequence[str],
    file: str | Path,
    seed: int,
    channels: int = 0,
) -> Dataset:
    """The data set of splits of arrays, whose pixels are brought into the range 0 to 255; of so many `channels`, where
    the network takes another number than images have, they are none."""
    if channels and channels not in PIXEL_CHANNELS:
        dataset = with_validation(classes, train, validation, test, seed, file)
        return replace(dataset, numbers="as given", notes=(NO_PIXELS.format(channels),))
    numbers = _numbers({"train": train, "val": validation, "test": test}, file)
    if numbers == "fractions":
        train = _in_255ths(train)
        validation, test = (part and _in_255ths(part) for part in (validation, test))
    dataset = with_validation(classes, train, validation, test, seed, file)
    return replace(dataset, numbers=numbers, notes=NOTES[numbers])


def _numbers(splits: Mapping[str, Split | None], file: str | Path) -> Numbers:
    """What the images of all splits are. Raises InputError where some have pixels up to 1, others larger ones."""
    ranges = {name: _range(_images_of(split)) for name, split in splits.items() if split is not None}
    if any(least < 0 for least, _ in ranges.values()):
        return "as given"
    train_is_fraction = ranges["train"][1] <= 1
    for name, (_, most) in ranges.items():
        if (most <= 1) != train_is_fraction:
            raise InputError(f"of x_train and x_{name} one has pixels up to 1, the other larger ones", file)
    return "fractions" if train_is_fraction else "pixels"


def _images_of(split: Split) -> Images:
    assert split.pixels is not None, "arrays of other inputs are taken as they are"
    return split.pixels


def _range(images: Images) -> tuple[float, float]:
    """The least and the largest number; whole numbers are pixels, 0 and 1 too."""
    if images.dtype == np.uint8:
        return 0.0, 255.0
    return float(np.min(images)), float(np.max(images))


def _in_255ths(split: Split) -> Split:
    """Pixels from 0 to 1 as pixels from 0 to 255; as uint8 where they were whole numbers before they were divided."""
    images = _images_of(split)
    pixels = np.empty(images.shape, np.uint8)
    for start in range(0, len(split), CHUNK):
        scaled = np.asarray(images[start : start + CHUNK]) * np.float32(255)
        rounded = np.rint(scaled)
        if np.abs(scaled - rounded).max() > ROUNDED:
            return Split(np.asarray(images) * np.float32(255), split.labels)
        pixels[start : start + CHUNK] = rounded
    return Split(pixels, split.labels)
