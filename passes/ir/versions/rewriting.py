"""What a rule sees of the node that it brings to the next opset, and what it can put in its place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
import onnx
from onnx import helper, numpy_helper

STANDARD_DOMAINS = ("", "ai.onnx")


class Unconvertible(ValueError):
    """A node that the other opset can't express; the message says which and why."""


@dataclass
class Scope:
    """What is known of the tensors that the nodes of one graph can read: the graph's own and those around it."""

    names: set[str]
    """All names of tensors and nodes of the model; new ones are added."""
    read: set[str]
    """The names of all tensors that a node or a graph's output reads."""
    types: dict[str, onnx.TypeProto] = field(default_factory=dict)
    values: dict[str, onnx.TensorProto] = field(default_factory=dict)
    """The constants."""

    def inside(self, types: Mapping[str, onnx.TypeProto], values: Mapping[str, onnx.TensorProto]) -> Scope:
        """The scope of a subgraph, whose own tensors hide those of the same names."""
        return Scope(self.names, self.read, {**self.types, **types}, {**self.values, **values})


class Rewriting:
    """One standard node, its attributes as Python values, and the nodes that take its place (`nodes`)."""

    def __init__(self, node: onnx.NodeProto, scope: Scope):
        self.node = node
        self.scope = scope
        self.inputs = list(node.input)
        self.outputs = list(node.output)
        self.attributes = {a.name: a for a in node.attribute}
        self.nodes: list[onnx.NodeProto] = []

    # What there is

    def input(self, index: int) -> str:
        """The name of an operand; empty where it is omitted."""
        return self.inputs[index] if index < len(self.inputs) else ""

    def get(self, name: str, default: Any = None) -> Any:
        """The value of an attribute. Raises Unconvertible where it is known to the caller of a function only."""
        if name not in self.attributes:
            return default
        if self.attributes[name].ref_attr_name:
            self.refuse(f"takes its attribute {name} from the caller of a function")
        value = helper.get_attribute_value(self.attributes[name])
        return value.decode() if isinstance(value, bytes) else value

    def take(self, name: str, default: Any = None) -> Any:
        """`get`, which removes the attribute."""
        value = self.get(name, default)
        self.attributes.pop(name, None)
        return value

    def put(self, **attributes: Any) -> None:
        """Sets attributes."""
        self.attributes.update({name: helper.make_attribute(name, value) for name, value in attributes.items()})

    def element_type(self, name: str) -> int | None:
        """ONNX's number of a tensor's element type, if it is known."""
        known = self.scope.types.get(name)
        return known.tensor_type.elem_type or None if known is not None else None

    def shape(self, name: str) -> list[int | None] | None:
        """The extents of a tensor as far as they are known."""
        known = self.scope.types.get(name)
        if known is None or not known.tensor_type.HasField("shape"):
            return None
        return [d.dim_value if d.HasField("dim_value") else None for d in known.tensor_type.shape.dim]

    def rank(self, name: str) -> int | None:
        shape = self.shape(name)
        return None if shape is None else len(shape)

    def known_rank(self, name: str) -> int:
        """The rank of a tensor. Raises Unconvertible where it isn't known."""
        rank = self.rank(name)
        if rank is None:
            self.refuse(f"needs the number of dimensions of {name!r}, which can't be inferred")
        return rank

    def value(self, name: str) -> np.ndarray | None:
        """The value of a tensor if it is a constant."""
        tensor = self.scope.values.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def known_value(self, index: int, what: str) -> np.ndarray:
        """The value of an operand. Raises Unconvertible where it is computed."""
        value = self.value(self.input(index))
        if value is None:
            self.refuse(f"computes its {what}, which the other opset has as an attribute")
        return value

    def is_read(self, index: int) -> bool:
        """Whether anything reads a result."""
        return index < len(self.outputs) and self.outputs[index] != "" and self.outputs[index] in self.scope.read

    def refuse(self, reason: str) -> NoReturn:
        where = repr(self.node.name) if self.node.name else f"that computes {next(iter(self.outputs), '')!r}"
        raise Unconvertible(f"{self.node.op_type} node {where} {reason}")

    # What takes its place

    def keep(self, op_type: str = "") -> None:
        """Places the node itself, with the operands, results and attributes that it has by now."""
        kept = onnx.NodeProto()
        kept.CopyFrom(self.node)
        kept.op_type = op_type or kept.op_type
        del kept.input[:], kept.output[:], kept.attribute[:]
        kept.input.extend(self.inputs)
        kept.output.extend(self.outputs)
        kept.attribute.extend(self.attributes.values())
        self.nodes.append(kept)

    def op(self, op_type: str, *inputs: str, outputs: Sequence[str] = (), **attributes: Any) -> str:
        """Places a new node and gives its first result, which has a new name unless `outputs` gives names.

        Without new names it is the node that computes what this one did, and has its name.
        """
        name = self.node.name if outputs else self.fresh(op_type)
        results = outputs or [name]
        attributes = {key: value for key, value in attributes.items() if value is not None}
        self.nodes.append(helper.make_node(op_type, inputs, results, name, **attributes))
        return results[0]

    def constant(self, value: Any, dtype: Any = None) -> str:
        """Places a constant: integers are int64, and floats float32, unless `dtype` says otherwise."""
        array = np.asarray(value, dtype)
        if dtype is None and not isinstance(value, np.ndarray):
            array = array.astype(np.float32 if array.dtype.kind == "f" else np.int64)
        name = self.fresh("Constant")
        tensor = numpy_helper.from_array(array, name)
        self.nodes.append(helper.make_node("Constant", [], [name], name, value=tensor))
        self.scope.values[name] = tensor
        self.scope.types[name] = helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
        return name

    def scalar(self, value: float, like: str) -> str:
        """Places a scalar constant of the element type of another tensor."""
        known = self.element_type(like)
        if known is None:
            return self.op("CastLike", self.constant(float(value)), like)
        return self.constant(value, helper.tensor_dtype_to_np_dtype(known))

    def fresh(self, hint: str) -> str:
        """A name that no tensor or node has."""
        stem = f"{next(iter(self.outputs), '') or self.node.op_type}/{hint.lower()}"
        number = 0
        name = stem
        while name in self.scope.names:
            number += 1
            name = f"{stem}_{number}"
        self.scope.names.add(name)
        return name


def non_negative(axes: Iterable[int], rank: int) -> list[int]:
    return [int(a) + rank if a < 0 else int(a) for a in axes]


def padding_beyond_last_window(node: Rewriting) -> list[int]:
    """What a pool with `ceil_mode` has of its rear padding, by axis, only for a window that begins in it; else zeros.

    Of an extent in + front + rear, windows of k at distances of s leave a rest r; with `ceil_mode` it gets a window of
    its own, which begins in the rear padding if rear + s - r ≥ k. Without r elements of the padding there is none.
    """
    kernel = node.get("kernel_shape")
    rank = len(kernel)
    none = [0] * rank
    if not node.get("ceil_mode", 0) or node.get("auto_pad", "NOTSET").startswith("SAME"):
        return none
    strides, dilations = node.get("strides", [1] * rank), node.get("dilations", [1] * rank)
    pads = node.get("pads", [0] * 2 * rank)
    windows = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    if all(rear + s <= k for rear, s, k in zip(pads[rank:], strides, windows, strict=True)):
        return none
    shape = node.shape(node.input(0))
    extents = None if shape is None else shape[2:]
    if extents is None or None in extents:
        node.refuse("has ceil_mode, and the extents of the images, which say what it does, can't be inferred")
    rests = [
        (extent + pads[i] + pads[rank + i] - k) % s
        for i, (extent, k, s) in enumerate(zip(extents, windows, strides, strict=True))
    ]
    return [
        r if r and rear + s - r >= k else 0 for r, rear, s, k in zip(rests, pads[rank:], strides, windows, strict=True)
    ]
