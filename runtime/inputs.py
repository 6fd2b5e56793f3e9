"""What networks are fed: images, or arrays by the names of the inputs, where there are several or one is no image."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from wootz.passes.errors import InputError, WootzError
from wootz.passes.ir.model import Model, tensor_shape
from wootz.runtime.digest import array_digest, digest

PIXEL_CHANNELS = (1, 3, 4)
"""Of what may be photographs: grey, colours, colours with transparency."""


@dataclass(frozen=True)
class NetworkInput:
    """An input of a network: its element type, and the shape of one sample, the batch left out."""

    name: str
    type: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.type}[{', '.join(map(str, ('N', *self.shape)))}]"

    @property
    def may_be_pixels(self) -> bool:
        return self.type == "float32" and len(self.shape) == 3 and self.shape[0] in PIXEL_CHANNELS

    def fitted(self, values: np.ndarray, name: str, file: str) -> np.ndarray:
        """The samples in `values`, called `name` in `file`, in the input's type. Raises InputError for other shapes,
        and for numbers that the type doesn't have."""
        if values.shape[1:] != self.shape or values.ndim == 0:
            raise InputError(f"{name} has shape {list(values.shape)}, the network takes {self}", file)
        if values.dtype.kind not in "buif":
            raise InputError(f"{name} holds {values.dtype}, the network takes {self}", file)
        with np.errstate(invalid="ignore", over="ignore"):
            kept = values.astype(self.type, copy=False)
        if np.dtype(self.type).kind == "f":
            if not np.isfinite(kept).all():
                raise InputError(f"{name} has numbers that are NaN, infinite or too large for {self.type}", file)
        elif not np.array_equal(kept, values):
            raise InputError(f"{name} has numbers that are no {self.type}, which the network takes ({self})", file)
        return kept


def inputs_of_network(model: Model) -> tuple[NetworkInput, ...]:
    """Those of a network in the form that is trained, whose extents are known but for the batch."""
    found = []
    for tensor in model.graph.inputs:
        _, *extents = tensor_shape(tensor) or (None,)
        if not all(isinstance(extent, int) for extent in extents):
            raise WootzError(f"input {tensor.name} leaves its size open: give --size, or export the network with it")
        found.append(NetworkInput(tensor.name, np.dtype(tensor.dtype).name, tuple(map(int, extents))))
    return tuple(found)


def are_images(inputs: Iterable[NetworkInput]) -> bool:
    """Whether these are one input of images, float32 [N, channels, height, width]."""
    first, *others = inputs
    return not others and first.type == "float32" and len(first.shape) == 3


@dataclass(frozen=True, eq=False)
class Inputs:
    """Samples for a network whose input isn't images alone: of each input an array [n, …] of its type, by name.

    The arrays of `pixels` are uint8 [n, channels, height, width], all with as many channels, and become float32 by the
    transform of a run; all others go to the network as they are. An index gives the samples that it names.
    """

    arrays: Mapping[str, np.ndarray]
    pixels: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def __getitem__(self, index: slice | np.ndarray) -> Inputs:
        return self.mapped(lambda values: values[index])

    def mapped(self, change: Callable[[np.ndarray], np.ndarray], names: Iterable[str] | None = None) -> Inputs:
        """With what `change` makes of the arrays, or of those that are named."""
        chosen = set(self.arrays if names is None else names)
        return replace(self, arrays={n: change(v) if n in chosen else v for n, v in self.arrays.items()})

    @cached_property
    def digest(self) -> str:
        """Of all arrays with their names, and of which are pixels."""
        return digest(repr(([(n, array_digest(v)) for n, v in self.arrays.items()], self.pixels)).encode())


Data = np.ndarray | Inputs
"""Samples as a network takes them: images float32 [n, channels, height, width], or the arrays of all inputs."""


def feeds(data: Data, first: str) -> Mapping[str, np.ndarray]:
    """The arrays by the names of inputs; images are those of the `first` one."""
    return data.arrays if isinstance(data, Inputs) else {first: data}


def zeros(model: Model, batch: int = 1) -> Data:
    """Samples of zeros for a network in the form that is trained."""
    inputs = inputs_of_network(model)
    arrays = {i.name: np.zeros((batch, *i.shape), i.type) for i in inputs}
    return arrays[inputs[0].name] if are_images(inputs) else Inputs(arrays)


def twice(sample: Data) -> Data:
    """One sample, two times."""
    return filled_up(sample, 2)


def filled_up(data: Data, batch: int) -> Data:
    """So many samples: the same again and again."""
    order = np.arange(batch) % len(data)
    return data[order]
