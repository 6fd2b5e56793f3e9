"""What the lowering of one layer has to work with.

A lowering is a function `(site, parameter) -> Value` (or a list of values, one a top): it reads `site.inputs`, appends
nodes through `site.op`, and gives back the layer's tops with the shapes that Caffe computes for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from wootz.frontend.caffe.network import Layer, ParameterSpec, Phase
from wootz.frontend.caffe.shape import Dim, Shape, static_shape, text
from wootz.frontend.caffe.weights import Expected, WeightSource
from wootz.passes.errors import InputError
from wootz.passes.fillers import ZERO, Filler
from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import Constant, Node, Tensor, Variable


@dataclass(frozen=True)
class Value:
    """A tensor with the shape of the blob that it stands for."""

    tensor: Tensor
    shape: Shape
    takes_name: bool = False
    """The tensor was another layer's top, and now is this one's."""


Lower = Callable[["Site", Any], "Value | Sequence[Value]"]


@dataclass(frozen=True)
class LayerKind:
    """How one type of layer is lowered: the fields that hold its parameters, and the schema of all of them."""

    lower: Lower
    schema: type | None = None
    fields: tuple[str, ...] = ()


@dataclass
class Lowered:
    """What is collected while the layers of a network are lowered, one after the other."""

    builder: Builder
    weights: WeightSource
    phase: Phase
    notes: list[str] = field(default_factory=list)
    batch: int = 0
    """The declared number of images in a batch, for which the first dimension of inputs stands."""
    shared: dict[str, Constant] = field(default_factory=dict)
    multipliers: dict[str, tuple[float, float]] = field(default_factory=dict)
    plain_batch_norms: dict[int, Node] = field(default_factory=dict)
    """BatchNormalization nodes without scale and shift of their own, by the `id` of their output."""
    pooling_indices: dict[int, Tensor] = field(default_factory=dict)
    """ONNX's indices of maxima, by the `id` of the mask that Caffe would give."""
    pooled_shapes: dict[int, Shape] = field(default_factory=dict)
    """What was pooled when a mask was made, by the `id` of the mask."""


@dataclass
class Site:
    """One layer while it is lowered."""

    layer: Layer
    inputs: tuple[Value, ...]
    only_reader: tuple[bool, ...]
    """For each input whether no other layer reads it."""
    lowered: Lowered

    @property
    def input(self) -> Value:
        return self.inputs[0]

    @property
    def phase(self) -> Phase:
        return self.lowered.phase

    def expect_inputs(self, least: int, most: int | None = None) -> None:
        """Raises InputError unless the layer has that many bottoms."""
        most = least if most is None else most
        if not least <= len(self.inputs) <= most:
            wanted = str(least) if least == most else f"{least} to {most}"
            raise self.error(f"it has {len(self.inputs)} bottoms where {wanted} are wanted")

    def op(self, op_type: str, *inputs: Tensor | None, **attributes: Any) -> Variable:
        """Appends a node with one output. The node of a top gets the layer's name afterwards."""
        return self.lowered.builder.op(op_type, *inputs, hint=f"{self.layer.name}/{op_type.lower()}", **attributes)

    def ops(self, op_type: str, *inputs: Tensor | None, count: int, **attributes: Any) -> list[Variable]:
        return self.lowered.builder.ops(
            op_type, *inputs, count=count, hint=f"{self.layer.name}/{op_type.lower()}", **attributes
        )

    def constant(self, values: Any, name: str, dtype: Any = None) -> Constant:
        """A constant that no training changes."""
        return self.lowered.builder.constant(values, f"{self.layer.name}/{name}", dtype)

    def parameters(self, *expected: Expected) -> list[Constant]:
        """The layer's parameters as constants named `LAYER.NAME`; shared ones are the tensors of their first owner."""
        owners = [self.lowered.shared.get(self.layer.spec(e.index).name) for e in expected]
        if all(owners):
            values: Sequence[np.ndarray] = [o.values for o in owners if o is not None]
        else:
            values = self.lowered.weights.values(self.layer, expected)
        return [self._parameter(e, v, o) for e, v, o in zip(expected, values, owners, strict=True)]

    def set_parameter(self, constant: Constant, values: np.ndarray, spec: ParameterSpec) -> None:
        """Gives a parameter its values, and remembers how it is trained."""
        constant.values = values
        multipliers = (spec.lr_mult, spec.decay_mult)
        self.lowered.multipliers.pop(constant.name, None)
        if multipliers != (1.0, 1.0):
            self.lowered.multipliers[constant.name] = multipliers

    def _parameter(self, expected: Expected, values: np.ndarray, owner: Constant | None) -> Constant:
        spec = self.layer.spec(expected.index)
        if owner is not None:
            if owner.values.size != values.size or owner.values.size != int(np.prod(expected.shape)):
                raise self.error(
                    f"its {expected.name} of shape {text(expected.shape)} is shared as {spec.name!r} with one of "
                    f"shape {text(owner.values.shape)}"
                )
            return owner
        constant = self.lowered.builder.constant(values, f"{self.layer.name}.{expected.name}")
        self.set_parameter(constant, values, spec)
        if spec.name:
            self.lowered.shared[spec.name] = constant
        return constant

    def reshape(self, tensor: Tensor, before: Shape, after: Shape) -> Tensor:
        """`tensor` in another shape of as many elements; the tensor itself where the shape is the same."""
        if before == after:
            return tensor
        if isinstance(tensor, Constant):
            return self.constant(tensor.values.reshape(static_shape(after)), "reshaped")
        target: list[int] = []
        for i, dim in enumerate(after):
            if isinstance(dim, int):
                target.append(dim)
            else:
                target.append(0 if i < len(before) and before[i] == dim else -1)
        return self.op("Reshape", tensor, self.constant(target, "shape", np.int64))

    def axis(self, index: int, rank: int, name: str = "axis") -> int:
        """`index` counted from the front. Raises InputError when there is no such axis."""
        if not -rank <= index < rank:
            raise self.error(f"{name} {index} of a blob with {rank} dimensions")
        return index % rank

    def note(self, message: str) -> None:
        """Tells the user what was decided or left out at this layer."""
        self.lowered.notes.append(f"{self.layer.place}: layer {self.layer.name!r} ({self.layer.type}): {message}")

    def error(self, message: str, field: str | None = None) -> InputError:
        return self.layer.error(message, field)


def filled(index: int, name: str, shape: Iterable[Dim], filler: Filler | None = None) -> Expected:
    """A parameter that the layer expects; without a filler it starts at 0."""
    return Expected(index, name, static_shape(tuple(shape)), filler or ZERO)
