"""Where the values of parameters come from: a file, matched by the name of the layer, or fillers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from wootz.frontend.caffe.caffemodel import Blob, read_caffemodel
from wootz.frontend.caffe.network import Layer
from wootz.passes.errors import InputError, WootzError
from wootz.passes.fillers import Filler, fill

LARGEST_BLOB = 2**31 - 1
"""Elements; Caffe's own limit (`Blob::Reshape`)."""
LARGEST_PARAMETER, LARGEST_FILLED = 2**27, 2**28
"""Elements of one parameter, and of all together, that start from fillers: the largest known have 103 million (VGG) and
252 million (DeconvNet)."""


@dataclass(frozen=True)
class Expected:
    """One parameter of a layer: its place among the blobs, its shape, and what it starts from."""

    index: int
    name: str
    shape: tuple[int, ...]
    filler: Filler


class WeightSource(Protocol):
    """Gives the values of the parameters of a layer; the shapes are those that are expected."""

    def values(self, layer: Layer, expected: Sequence[Expected]) -> list[np.ndarray]: ...

    def stored_sizes(self, layer: Layer) -> list[int]:
        """How many elements each blob that is stored for the layer has; none where it starts from fillers."""

    @property
    def initialised(self) -> Sequence[str]:
        """The layers that started from their fillers."""


@dataclass
class FilledWeights:
    """Every parameter starts from its filler, seeded. `initialised` lists the layers that did."""

    seed: int
    initialised: list[str] = field(default_factory=list)
    sizes: dict[tuple[int, int], int] = field(default_factory=dict)
    """Elements of each parameter filled, by the place of its layer in the file and its index."""
    total: int = 0

    def values(self, layer: Layer, expected: Sequence[Expected]) -> list[np.ndarray]:
        self.initialised.append(layer.name)
        return [self._fill(layer, e) for e in expected]

    def stored_sizes(self, layer: Layer) -> list[int]:
        return []

    def _fill(self, layer: Layer, expected: Expected) -> np.ndarray:
        key, size = (layer.message.offset, expected.index), math.prod(expected.shape)
        self.total += size - self.sizes.get(key, 0)
        self.sizes[key] = size
        if size > LARGEST_PARAMETER or self.total > LARGEST_FILLED:
            raise layer.error(
                f"its {expected.name} of shape {_text(expected.shape)} would start from its filler: up to "
                f"{LARGEST_PARAMETER:,} elements do, {LARGEST_FILLED:,} in a network; give the weights in a file"
            )
        try:
            return fill(expected.filler, expected.shape, self.seed, f"{layer.name}.{expected.name}")
        except WootzError as error:
            raise layer.error(f"{expected.name}: {error}") from error


@dataclass
class FileWeights:
    """Parameters by the name of their layer, as Caffe's `Net::CopyTrainedLayersFrom`; fillers where it is missing."""

    path: Path
    blobs: Mapping[str, list[Blob]]
    fillers: FilledWeights
    used: set[str] = field(default_factory=set)

    @property
    def initialised(self) -> Sequence[str]:
        return self.fillers.initialised

    def values(self, layer: Layer, expected: Sequence[Expected]) -> list[np.ndarray]:
        """Raises InputError when the file has the layer with other shapes or another number of blobs."""
        if layer.name not in self.blobs:
            return self.fillers.values(layer, expected)
        self.used.add(layer.name)
        stored = self.blobs[layer.name]
        needed = max((e.index for e in expected), default=-1) + 1
        if len(stored) != needed:
            raise layer.error(
                f"{self.path} has {len(stored)} blobs for it, the network needs {needed}: rename the layer to start "
                f"it from its fillers"
            )
        return [self._matched(layer, e, stored[e.index]) for e in expected]

    def stored_sizes(self, layer: Layer) -> list[int]:
        return [blob.values.size for blob in self.blobs.get(layer.name, ())]

    def unused(self) -> list[str]:
        """Layers of the file that the network lacks."""
        return sorted(set(self.blobs) - self.used)

    def _matched(self, layer: Layer, expected: Expected, blob: Blob) -> np.ndarray:
        if not _same_shape(blob.values.shape, expected.shape):
            raise layer.error(
                f"its {expected.name} has shape {_text(blob.values.shape)} in {self.path}, the network needs "
                f"{_text(expected.shape)}: rename the layer to start it from its fillers"
            )
        return blob.values.reshape(expected.shape)


def open_weights(path: Path | None, seed: int) -> FilledWeights | FileWeights:
    """The parameters in a `.caffemodel` or `.h5` file; without one, all from fillers."""
    fillers = FilledWeights(seed)
    if path is None:
        return fillers
    if not path.is_file():
        raise InputError("no such file", path)
    return FileWeights(path, _read(path), fillers)


def _read(path: Path) -> Mapping[str, list[Blob]]:
    with path.open("rb") as file:
        is_hdf5 = file.read(8) == b"\x89HDF\r\n\x1a\n"
    if is_hdf5:
        from wootz.frontend.caffe.hdf5 import read_hdf5

        return read_hdf5(path)
    return read_caffemodel(path)


def _same_shape(stored: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    """Equal but for dimensions of 1: old files pad shapes to four dimensions."""
    return [d for d in stored if d != 1] == [d for d in expected if d != 1]


def _text(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "scalar"
