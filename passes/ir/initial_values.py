"""Graph inputs with an initial value: the state of a training graph, and the parameters of a graph of gradients.

In the IR and in its text such an input is a `Constant`: an input with an initializer of the same name. ONNX Runtime
warns about each of these, so the binary form has plain inputs, and their first values lie beside it, in an `.npz` that
`numpy.load` reads: `training.onnx` names `training.initial.npz` in its metadata, under `wootz.initial-values`.
"""

from __future__ import annotations

import zipfile
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from wootz.passes.errors import InputError
from wootz.passes.ir.model import INITIAL_VALUES_KEY, Constant, Model, Variable, to_variable

MEMBER_SUFFIX = ".npy"
LARGEST_HEADER = 10_000
"""Bytes of an array's header, its shape and type: NumPy reads no longer ones."""
OLDEST_DATE = (1980, 1, 1, 0, 0, 0)
"""Of each member, so that equal values give equal files."""


def without_initial_values(model: Model, names: Collection[str] | None = None) -> tuple[Model, dict[str, np.ndarray]]:
    """The model with its graph inputs (those of `names`, if given) free of initial values, and these values."""
    program = model.copy()
    wanted = None if names is None else set(names)
    initial = {}
    for tensor in program.graph.inputs:
        if isinstance(tensor, Constant) and (wanted is None or tensor.name in wanted):
            initial[tensor.name] = tensor.values
            to_variable(tensor)
    return program, initial


def with_location(program: Model, location: str) -> Model:
    """The model with a note that the initial values of its inputs lie in the file `location` beside it."""
    return replace(program, metadata={**program.metadata, INITIAL_VALUES_KEY: location})


def read_initial_values(model: Model, file: Path) -> Model:
    """The model with the initial values that its metadata says lie beside its `file`; itself if it says nothing.

    Raises InputError when they aren't there, or aren't those of the model's inputs.
    """
    if INITIAL_VALUES_KEY not in model.metadata:
        return model
    metadata = dict(model.metadata)
    location = metadata.pop(INITIAL_VALUES_KEY)
    if Path(location).name != location:
        raise InputError(f"its initial values have to lie beside it, and not in {location!r}", file)
    source = file.parent / location
    if not source.is_file():
        raise InputError(f"the file with its initial values is missing: {source}", file)
    inputs = {t.name: t for t in model.graph.inputs if isinstance(t, Variable)}
    try:
        initial = _read_arrays(source, inputs)
    except (OSError, ValueError, EOFError, KeyError, NotImplementedError, RuntimeError, zipfile.BadZipFile) as error:
        raise InputError(f"not the initial values of {file}: {error}", source) from error
    for name, values in initial.items():
        inputs[name].to_constant(values)
    return replace(model, metadata=metadata)


def write_arrays(arrays: Mapping[str, np.ndarray], content: BinaryIO) -> None:
    """Writes an `.npz`, uncompressed (numpy.savez takes the names as Python's keywords: not every name is free)."""
    with zipfile.ZipFile(content, "w") as archive:
        for name, values in arrays.items():
            with archive.open(zipfile.ZipInfo(name + MEMBER_SUFFIX, OLDEST_DATE), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(values), allow_pickle=False)


def _read_arrays(source: Path, inputs: Mapping[str, Variable]) -> dict[str, np.ndarray]:
    """The arrays by name. Those that no input has, or in another type or shape than it, raise ValueError unread."""
    arrays = {}
    with zipfile.ZipFile(source) as archive:
        for info in archive.infolist():
            name = info.filename.removesuffix(MEMBER_SUFFIX)
            if name not in inputs:
                raise ValueError(f"{name!r} is no input of the model")
            dtype, shape = _type(inputs[name])
            size = dtype.itemsize * int(np.prod(shape, dtype=object))
            if not size <= info.file_size <= size + LARGEST_HEADER:
                raise ValueError(f"{name!r} has {info.file_size} bytes, and {dtype} {shape} belongs there")
            with archive.open(info) as member:
                values = np.lib.format.read_array(member, allow_pickle=False, max_header_size=LARGEST_HEADER)
            if values.dtype == np.dtype((np.void, dtype.itemsize)):
                values = values.view(dtype)  # files of NumPy have no name for bfloat16
            if values.shape != shape or values.dtype != dtype:
                raise ValueError(f"{name!r} is {values.dtype} {values.shape}, and {dtype} {shape} belongs there")
            arrays[name] = values
    return arrays


def _type(tensor: Variable) -> tuple[np.dtype, tuple[int, ...]]:
    shape = tuple(tensor.shape or ())
    if tensor.dtype is None or not all(isinstance(d, int) for d in shape):
        raise ValueError(f"the input {tensor.name!r} has no static shape")
    return np.dtype(tensor.dtype), shape
