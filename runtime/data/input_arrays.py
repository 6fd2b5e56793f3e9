"""Data sets of networks whose input isn't images alone: arrays by the names of the inputs."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from wootz.passes.arrays import read_npz
from wootz.passes.errors import InputError, reading
from wootz.runtime.data.arrays import class_names, numbered, read_npy_file, targets_of
from wootz.runtime.data.dataset import SPLITS, Dataset, Split, Targets, with_validation
from wootz.runtime.inputs import Inputs, NetworkInput

SAME = "all have to have one"
LARGEST_MASK = 1
"""Arrays of bytes with larger ones are pixels, where the input could be an image."""


@dataclass(frozen=True)
class GivenSplit:
    """The arrays of a split as they were given, by the names of inputs, and its targets, if it has some."""

    arrays: Mapping[str, np.ndarray]
    targets: Targets | None = None


def dataset_of_inputs(
    given: Mapping[str, GivenSplit],
    inputs: Sequence[NetworkInput],
    file: str,
    seed: int,
    classes: Sequence[str] | None = None,
) -> Dataset:
    """The data set of the splits `given`, of which `train` is one. Raises InputError where they don't fit `inputs`."""
    pixels = _pixels(given["train"], inputs, file)
    splits = {name: _split(part, inputs, pixels, name, file) for name, part in given.items()}
    names = numbered(splits["train"]) if classes is None else classes
    dataset = with_validation(names, splits["train"], splits.get("val"), splits.get("test"), seed, file)
    return replace(dataset, numbers="pixels" if pixels else "as given")


def named_arrays(value: object, inputs: Sequence[NetworkInput], file: str, line: int | None) -> dict[str, np.ndarray]:
    """The arrays in what Python code gives: a dictionary by the inputs' names, or of a single input the array. Raises
    InputError for other names."""
    names = [each.name for each in inputs]
    takes = f"the network takes {', '.join(names)}"
    if not isinstance(value, Mapping):
        if len(inputs) > 1:
            raise InputError(f"{takes}: give a dictionary with an array for each", file, line)
        return {names[0]: array_of(value, names[0], SAME, file, line)}
    if unknown := [str(name) for name in value if name not in names]:
        raise InputError(f"there is an array {unknown[0]}, and {takes} (splits are {', '.join(SPLITS)})", file, line)
    if missing := [name for name in names if name not in value]:
        raise InputError(f"there is no array for {missing[0]}: {takes}", file, line)
    return {name: array_of(value[name], name, SAME, file, line) for name in names}


def array_of(value: object, what: str, remedy: str, file: str, line: int | None) -> np.ndarray:
    """The array of `what` Python code gives. Raises InputError, with the `remedy`, where examples differ in shape, or
    aren't numbers."""
    try:
        found = np.asarray(value)
    except ValueError as error:
        raise InputError(f"{what} differ in shape from example to example: {remedy}", file, line) from error
    first = found.flat[0] if found.dtype == object and found.size else 0
    if isinstance(first, np.ndarray | list | tuple):
        raise InputError(f"{what} differ in shape from example to example: {remedy}", file, line)
    if isinstance(first, Mapping):
        raise InputError(f"{what} are a list of dictionaries: give a dictionary of arrays; {remedy}", file, line)
    if found.dtype == object:
        raise InputError(f"{what} hold {type(first).__name__}, which is no number", file, line)
    return found


def read_input_archive(file: Path, inputs: Sequence[NetworkInput], seed: int) -> Dataset:
    """The data set in an `.npz` file."""
    with reading(file, "an archive that numpy.savez wrote of arrays of numbers (text and Python objects are none)"):
        with zipfile.ZipFile(file) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
        arrays = read_npz(file, _checked_names(names, inputs, file))
    return _from_arrays(arrays, inputs, file, seed)


def read_input_folder(folder: Path, inputs: Sequence[NetworkInput], seed: int) -> Dataset:
    """The data set in a folder of `.npy` files."""
    names = _checked_names([file.stem for file in sorted(folder.glob("*.npy"))], inputs, folder)
    return _from_arrays({name: read_npy_file(folder / f"{name}.npy") for name in names}, inputs, folder, seed)


def read_input(file: Path, inputs: Sequence[NetworkInput], seed: int) -> Dataset:
    """The samples in an `.npy` file, for a network of a single input. Raises InputError for another one."""
    given = GivenSplit(named_arrays(read_npy_file(file), inputs, str(file), None))
    return dataset_of_inputs({"train": given}, inputs, str(file), seed)


def _keys(inputs: Sequence[NetworkInput], split: str) -> dict[str, list[str]]:
    """What the arrays of a split may be called, by their inputs: that of a single input is also called `x`. Arrays that
    are no split's are the training's."""
    names = {each.name: [each.name, *(["x"] if len(inputs) == 1 else [])] for each in inputs} | {"": ["y"]}
    bare = split == SPLITS[0]
    return {name: [*(f"{own}_{split}" for own in owns), *(owns if bare else ())] for name, owns in names.items()}


def _checked_names(names: Sequence[str], inputs: Sequence[NetworkInput], file: Path) -> tuple[str, ...]:
    """The names of arrays. Raises InputError for one that is neither an input's nor that of targets or classes."""
    known = {key for split in SPLITS for keys in _keys(inputs, split).values() for key in keys} | {"classes"}
    if unknown := [name for name in names if name not in known]:
        wanted = ", ".join(f"{each.name}_train" for each in inputs)
        raise InputError(f"the array {unknown[0]} isn't read: they are called {wanted}, y_train, …, classes", file)
    return tuple(names)


def _from_arrays(arrays: Mapping[str, np.ndarray], inputs: Sequence[NetworkInput], file: Path, seed: int) -> Dataset:
    given = {split: part for split in SPLITS if (part := _given_split(arrays, inputs, split, file)) is not None}
    if "train" not in given:
        wanted = ", ".join(f"{each.name}_train" for each in inputs)
        raise InputError(f"there are no training arrays: {wanted}, and y_train where there are targets", file)
    check_targets(given, str(file))
    return dataset_of_inputs(given, inputs, str(file), seed, class_names(arrays))


def check_targets(given: Mapping[str, GivenSplit], file: str, line: int | None = None) -> None:
    """Raises InputError where some splits have targets, and others have none."""
    if len({part.targets is not None for part in given.values()}) > 1:
        raise InputError("some splits have targets, others have none", file, line)


def _given_split(
    arrays: Mapping[str, np.ndarray], inputs: Sequence[NetworkInput], split: str, file: Path
) -> GivenSplit | None:
    found = {name: arrays[key] for name, keys in _keys(inputs, split).items() for key in keys if key in arrays}
    if not found:
        return None
    if missing := [each.name for each in inputs if each.name not in found]:
        raise InputError(f"the array {missing[0]}_{split} is missing: the network takes {_listed(inputs)}", file)
    return GivenSplit({each.name: found[each.name] for each in inputs}, found.get(""))


def _listed(inputs: Sequence[NetworkInput]) -> str:
    return ", ".join(map(str, inputs))


def _pixels(train: GivenSplit, inputs: Sequence[NetworkInput], file: str) -> tuple[str, ...]:
    """The inputs that are given pixels: bytes, of which some are no mask's, for what may be images. Raises InputError
    for pixels of several numbers of channels, which one transform can't be for."""
    found = [
        each
        for each in inputs
        if each.may_be_pixels
        and train.arrays[each.name].dtype == np.uint8
        and train.arrays[each.name].max(initial=0) > LARGEST_MASK
    ]
    if len({each.shape[0] for each in found}) > 1:
        raise InputError(
            f"there are pixels of several numbers of channels, {_listed(found)}: give all but one as floats, as the "
            f"network takes them",
            file,
        )
    return tuple(each.name for each in found)


def _split(given: GivenSplit, inputs: Sequence[NetworkInput], pixels: Sequence[str], name: str, file: str) -> Split:
    arrays = {}
    for each in inputs:
        values, title = given.arrays[each.name], f"{each.name} of {name}"
        fitted = each.fitted(values, title, file)
        if each.name in pixels and values.dtype != np.uint8:
            raise InputError(f"{title} holds {values.dtype}, and in train it has pixels, uint8", file)
        arrays[each.name] = values if each.name in pixels else fitted
    first, *others = (len(values) for values in arrays.values())
    if any(length != first for length in others):
        lengths = ", ".join(f"{len(values)} of {each}" for each, values in arrays.items())
        raise InputError(f"{name} has other numbers of samples for each input: {lengths}", file)
    if not first:
        raise InputError(f"the {name} split has no samples", file)
    return Split(Inputs(arrays, tuple(pixels)), targets_of(given.targets, first, name, file))
