"""Data sets that Python code gives: arrays, or an iterable of them, with targets or without."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from wootz.passes.errors import InputError
from wootz.runtime.data.arrays import checked_split, dataset_of, numbered, targets_of
from wootz.runtime.data.dataset import SPLITS, Dataset, Split, Targets
from wootz.runtime.data.input_arrays import GivenSplit, array_of, check_targets, dataset_of_inputs, named_arrays
from wootz.runtime.inputs import NetworkInput, are_images
from wootz.runtime.user_code import UserCode, place_of, told_in_a_line

IMAGE = NetworkInput("image", "float32", (0, 0, 0))
"""What stands for the input of a network of images."""
NUMBERS = "The network gives one number, so the targets are no classes (--new-head: they are)."
PAIR = "images and targets are a pair, and several targets a dictionary of arrays"
PAD = "pad them to one length, such as by rows of -1 (docs/tasks.md)"


def read_python(code: UserCode, seed: int, inputs: Sequence[NetworkInput] = (), are_numbers: bool = False) -> Dataset:
    """The data set that `FILE.py:NAME` is, or returns. Raises InputError for what is none."""
    return from_python(code.load(), code.file, seed, inputs, are_numbers)


def from_python(
    data: Any, name: str, seed: int, inputs: Sequence[NetworkInput] = (), are_numbers: bool = False
) -> Dataset:
    """The data set in a value, or in what a function without parameters returns; all of it is read once.

    Images are an array, or an iterable of arrays, of which those with four axes are batches; `(images, targets)` are a
    tuple of both, or the items of an iterable. A dictionary with the keys `train`, and perhaps `val` and `test`, has
    the splits; another one has the arrays of a network's `inputs` (none: of images) by their names, and stands wherever
    images do. Targets are classes where they are whole numbers, one an image, unless these `are_numbers` beyond 0 and
    1, such as ages; else whatever a loss or a metric wants, an array or a dictionary of arrays. `name` stands for the
    data in errors. Raises InputError for anything else.
    """
    file, line = place_of(data) if callable(data) else (name, None)
    with told_in_a_line(file, line or 1):
        value = data() if callable(data) else data
        _check_train_is_there(value, inputs, file, line)
        parts = value if _has_splits(value) else {"train": value}
        given = {split: _given(part, inputs, file, line) for split, part in parts.items()}
    check_targets(given, file, line)
    are_numbers = are_numbers and any(_exceed_bits(part.targets) for part in given.values())
    if are_numbers:
        given = {split: _with_floats(part) for split, part in given.items()}
    dataset = _dataset(given, inputs, file, seed)
    return replace(dataset, notes=(*dataset.notes, NUMBERS)) if are_numbers else dataset


def _dataset(given: Mapping[str, GivenSplit], inputs: Sequence[NetworkInput], file: str, seed: int) -> Dataset:
    if inputs and not are_images(inputs):
        return dataset_of_inputs(given, inputs, file, seed)
    splits = {split: _split(part, split, file) for split, part in given.items()}
    channels = inputs[0].shape[0] if inputs else 0
    names = numbered(splits["train"])
    return dataset_of(splits["train"], splits.get("val"), splits.get("test"), names, file, seed, channels)


def _has_splits(value: Any) -> bool:
    return isinstance(value, Mapping) and "train" in value and set(value) <= set(SPLITS)


def _exceed_bits(targets: Targets | None) -> bool:
    """Whether there is a whole number a sample, and not 0 and 1 alone, which stand for classes."""
    if not isinstance(targets, np.ndarray) or targets.ndim != 1 or targets.dtype.kind not in "iu":
        return False
    return not np.isin(targets, (0, 1)).all()


def _with_floats(given: GivenSplit) -> GivenSplit:
    targets = given.targets
    return replace(given, targets=targets.astype(np.float32)) if isinstance(targets, np.ndarray) else given


def _check_train_is_there(value: Any, inputs: Sequence[NetworkInput], file: str, line: int | None) -> None:
    others = {*SPLITS} - {"train", *(each.name for each in inputs)}
    if isinstance(value, Mapping) and value and set(value) <= others:
        raise InputError(f"there is {' and '.join(value)}, and train is missing", file, line)


def _given(part: Any, inputs: Sequence[NetworkInput], file: str, line: int | None) -> GivenSplit:
    """The arrays and targets of a split."""
    if isinstance(part, tuple) and len(part) == 2:
        return GivenSplit(_arrays(part[0], inputs, file, line), _targets(part[1], file, line))
    if isinstance(part, Mapping) or hasattr(part, "__array__"):
        return GivenSplit(_arrays(part, inputs, file, line))
    if not isinstance(part, Iterable):
        raise InputError(f"the data are {type(part).__name__}: give arrays, or an iterable of them", file, line)
    samples: list[dict[str, np.ndarray]] = []
    targets: list[Targets] = []
    rank = 1 + len((inputs[0] if inputs else IMAGE).shape)
    for item in part:
        if isinstance(item, tuple) and len(item) != 2:
            raise InputError(f"a tuple of {len(item)}: {PAIR}", file, line)
        is_pair = isinstance(item, tuple)
        arrays = _arrays(item[0] if is_pair else item, inputs, file, line)
        is_batch = next(iter(arrays.values())).ndim >= rank
        samples.append(arrays if is_batch else {name: array[None] for name, array in arrays.items()})
        if is_pair:
            of_item = _targets(item[1], file, line)
            targets.append(of_item if is_batch else _as_batch(of_item))
    if not samples:
        raise InputError("there are no images", file, line)
    if targets and len(targets) != len(samples):
        raise InputError("some images have targets, others have none", file, line)
    shown = f"; {PAIR}" if isinstance(part, tuple) else ""
    whole = {
        name: _joined([sample[name] for sample in samples], name, f"have to have one shape{shown}", file, line)
        for name in samples[0]
    }
    return GivenSplit(whole, _concatenated(targets, file, line) if targets else None)


def _targets(value: Any, file: str, line: int | None) -> Targets:
    if isinstance(value, Mapping):
        return {str(name): array_of(values, f"the targets {name}", PAD, file, line) for name, values in value.items()}
    return array_of(value, "the targets", PAD, file, line)


def _joined(arrays: list[np.ndarray], what: str, wanted: str, file: str, line: int | None) -> np.ndarray:
    """Raises InputError for arrays that differ in shape."""
    shapes = dict.fromkeys(array.shape[1:] for array in arrays)
    if len(shapes) > 1:
        first, second, *_ = (f"[{', '.join(map(str, shape))}]" for shape in shapes)
        raise InputError(f"there are {what} of {first} and of {second}: they {wanted}", file, line)
    return np.concatenate(arrays)


def _as_batch(targets: Targets) -> Targets:
    """Those of a batch of the one image."""
    if isinstance(targets, Mapping):
        return {name: values[None] for name, values in targets.items()}
    return targets[None]


def _concatenated(parts: list[Targets], file: str, line: int | None) -> Targets:
    arrays = [part for part in parts if isinstance(part, np.ndarray)]
    if len(arrays) == len(parts):
        return _joined(arrays, "targets", f"have to have one shape: {PAD}", file, line)
    named = [part for part in parts if isinstance(part, Mapping)]
    if arrays or any(part.keys() != named[0].keys() for part in named):
        raise InputError("the targets of some images have other names than those of others", file, line)
    return {
        name: _joined([part[name] for part in named], f"targets {name}", f"have to have one shape: {PAD}", file, line)
        for name in named[0]
    }


def _arrays(value: Any, inputs: Sequence[NetworkInput], file: str, line: int | None) -> dict[str, np.ndarray]:
    if not inputs and isinstance(value, Mapping) and len(value) == 1:
        (value,) = value.values()
    return named_arrays(value, inputs or (IMAGE,), file, line)


def _split(given: GivenSplit, name: str, file: str) -> Split:
    (images,) = given.arrays.values()
    names = (f"the images of {name}", f"the targets of {name}")
    targets = given.targets
    if targets is None or (isinstance(targets, np.ndarray) and targets.ndim == 1 and targets.dtype.kind in "bui"):
        return checked_split(images, targets, names, file)
    kept = targets_of(targets, len(images), name, file)
    return Split(checked_split(images, None, names, file).images, kept)
