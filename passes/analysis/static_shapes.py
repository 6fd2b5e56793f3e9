"""Every shape of a graph as plain numbers, and the values of the small integer tensors that shapes are computed with.

Symbolic dimensions are bound: the first of an input to 1, all others to a size that the usual down- and upsampling
divides. What Shape, Gather, Concat and the like then compute is known, and is used to infer the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from wootz.passes.errors import VerificationError
from wootz.passes.ir.evaluate import can_evaluate, evaluate_node
from wootz.passes.ir.model import Constant, Graph, Model, Node, Tensor, copy_graph, is_constant
from wootz.passes.ir.shapes import NodeInference, inferred_types

BOUND_BATCH, BOUND_EXTENT = 1, 224
OTHER_BATCH, OTHER_EXTENT = 2, 256
"""Whatever differs when symbolic dimensions are bound to these depends on them."""
LARGEST_VALUE = 64
"""Tensors with more elements are data, not shapes."""


@dataclass(frozen=True, eq=False)
class StaticShapes:
    """Shapes of all tensors (None: not inferable) and the values known of computed tensors, by tensor name."""

    shapes: Mapping[str, tuple[int, ...] | None]
    values: Mapping[str, np.ndarray]

    def value(self, tensor: Tensor) -> np.ndarray | None:
        """The value of a constant or of a tensor that only shapes were computed into."""
        return tensor.values if isinstance(tensor, Constant) else self.values.get(tensor.name)

    def values_after(self, graph: Graph, changed: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray | None]:
        """What the values come to that aren't the same when the tensors in `changed` have other shapes.

        None: it can't be computed.
        """
        found: dict[str, np.ndarray | None] = {}
        known = dict(self.values)
        for node in graph.nodes:
            name = node.outputs[0].name if node.outputs else ""
            reads_changed = node.op in ("Shape", "Size") and node.inputs[0].name in changed
            if name not in self.values or not (reads_changed or any(t.name in found for t in node.inputs)):
                continue
            value = _value(node, changed, known)
            if value is None:
                found[name] = None
                known.pop(name)
            elif not np.array_equal(value, self.values[name]):
                found[name] = known[name] = value
        return found


def static_shapes(model: Model, batch: int = BOUND_BATCH, extent: int = BOUND_EXTENT) -> StaticShapes:
    """Binds the symbolic dimensions of `model` and infers. Raises VerificationError for shapes that contradict.

    Where no shape is annotated for what an operator of another domain computes, it is assumed to be that of the
    operator's first operand, with the channels that a convolution behind it reads, if nothing contradicts that.
    """
    graph = copy_graph(model.graph)
    unknown = _of_unknown_operators(graph)
    for tensor in [*graph.inputs, *(t for node in graph.nodes if node.domain for t in node.outputs)]:
        channels = None if tensor.shape is None or len(tensor.shape) < 2 else _channels_read(tensor, len(tensor.shape))
        if channels is not None and isinstance(tensor.shape[1], str):
            tensor.shape[1] = channels
        tensor.shape = _bound(tensor.shape, batch, extent)
    if unknown:
        try:
            return _infer_in_order(graph, unknown)
        except VerificationError:
            return _infer_in_order(graph, ())
    if any(_computes_small_values(node) for node in graph.nodes):
        return _infer_in_order(graph, ())
    shapes = {name: _static(t.shape) for name, t in graph.tensors().items()}
    return StaticShapes(shapes | {name: _static(shape) for name, (_, shape) in inferred_types(graph).items()}, {})


def _of_unknown_operators(graph: Graph) -> tuple[Tensor, ...]:
    """The tensors of which nothing says the shape: no annotation, no function, and no inference."""
    functions = {(f.domain, f.name) for f in graph.functions}
    nodes = [n for n in graph.nodes if n.domain and n.domain != "ai.onnx" and (n.domain, n.op) not in functions]
    return tuple(t for node in nodes for t in node.outputs if not t.is_empty() and t.shape is None)


def _infer_in_order(graph: Graph, assumed: Sequence[Tensor]) -> StaticShapes:
    """Inference node by node, with the values of shape operands: ONNX's own doesn't follow divisions and the like.

    The shapes of the tensors in `assumed` are guessed.
    """
    shapes = {name: _static(t.shape) for name, t in graph.tensors().items() if is_constant(t) or t in graph.inputs}
    values: dict[str, np.ndarray] = {}
    inference = NodeInference(graph)
    for node in graph.nodes:
        value = _value(node, shapes, values)
        if value is not None:
            values[node.outputs[0].name] = value
            inference.set_value(node.outputs[0].name, value)
            shapes[node.outputs[0].name] = value.shape
            continue
        shapes.update((name, _static(shape)) for name, shape in inference.infer(node).items())
        for tensor in node.outputs:
            if node.domain and not tensor.is_empty() and shapes.get(tensor.name) is None:
                is_assumed = any(tensor is t for t in assumed)
                shape = _likely_shape(node, tensor, shapes) if is_assumed else _static(tensor.shape)
                if shape is not None:
                    shapes[tensor.name] = shape
                    inference.set_shape(tensor.name, shape, like=node.inputs[0].name)
    return StaticShapes(shapes, values)


def _likely_shape(node: Node, result: Tensor, shapes: Mapping[str, tuple[int, ...] | None]) -> tuple[int, ...] | None:
    """The shape of the node's first operand, with the channels that a convolution reads from `result`."""
    shape = shapes.get(node.inputs[0].name) if node.inputs else None
    for reader in result.outputs:
        if reader.op in ("Conv", "ConvTranspose") and reader.inputs[0] is result and is_constant(reader.inputs[1]):
            weight = reader.inputs[1].shape
            channels = weight[0] if reader.op == "ConvTranspose" else weight[1] * reader.attrs.get("group", 1)
            if shape is None or len(shape) != len(weight):
                shape = (BOUND_BATCH, channels, *(BOUND_EXTENT,) * (len(weight) - 2))
            return (shape[0], channels, *shape[2:])
    return shape


def _channels_read(tensor: Tensor, rank: int) -> int | None:
    """The channels that a convolution needs of its operand `tensor`; None if none reads it."""
    for reader in tensor.outputs:
        if reader.op in ("Conv", "ConvTranspose") and reader.inputs[0] is tensor and is_constant(reader.inputs[1]):
            weight = reader.inputs[1].shape
            if len(weight) == rank:
                return int(weight[0] if reader.op == "ConvTranspose" else weight[1] * reader.attrs.get("group", 1))
    return None


def _computes_small_values(node: Node) -> bool:
    """Whether a node reads a shape, or nothing but small constants: what it gives may be an operand of a Reshape."""
    if node.op in ("Shape", "Size"):
        return True
    small = (t.is_empty() or (isinstance(t, Constant) and np.prod(t.shape) <= LARGEST_VALUE) for t in node.inputs)
    return all(small) and can_evaluate(node)


def has_static_inputs(model: Model) -> bool:
    """Whether no dimension of an input is symbolic."""
    return all(isinstance(d, int) and d > 0 for t in model.graph.inputs for d in t.shape or ["unknown"])


def other_static_shapes(model: Model) -> StaticShapes | None:
    """Those with symbolic dimensions bound to other sizes; None where none fit."""
    for extent in (OTHER_EXTENT, BOUND_EXTENT):
        try:
            return static_shapes(model, OTHER_BATCH, extent)
        except VerificationError:
            continue
    return None


def _bound(shape: list[int | str] | None, batch: int, extent: int) -> list[int | str] | None:
    """`batch` for a symbolic first dimension, `extent` for any other."""
    if shape is None:
        return None
    bounds = [batch, *(extent,) * (len(shape) - 1)][: len(shape)]
    return [d if isinstance(d, int) and d > 0 else bound for d, bound in zip(shape, bounds, strict=True)]


def _static(shape: list[int | str] | tuple[int, ...] | None) -> tuple[int, ...] | None:
    if shape is None or not all(isinstance(d, int) for d in shape):
        return None
    return tuple(int(d) for d in shape)


def _value(
    node: Node, shapes: Mapping[str, tuple[int, ...] | None], known: Mapping[str, np.ndarray]
) -> np.ndarray | None:
    """The result of a node that computes with shapes and small constants."""
    if node.op in ("Shape", "Size"):
        shape = shapes.get(node.inputs[0].name)
        if shape is None:
            return None
        extents = np.asarray(shape, dtype=np.int64)
        return (
            np.asarray(extents.prod())
            if node.op == "Size"
            else extents[node.attrs.get("start", 0) : node.attrs.get("end")]
        )
    if not can_evaluate(node):
        return None
    operands = [None if t.is_empty() else t.values if is_constant(t) else known.get(t.name) for t in node.inputs]
    missing = any(o is None and not t.is_empty() for o, t in zip(operands, node.inputs, strict=True))
    if missing or any(o is not None and o.size > LARGEST_VALUE for o in operands):
        return None
    if node.op == "Identity" and operands[0] is not None and operands[0].dtype.kind not in "iub":
        return None  # weights of equal values
    try:
        (value,) = evaluate_node(node, operands)
    except (RuntimeError, NotImplementedError, ValueError, IndexError, TypeError):  # operands that don't fit
        return None
    return value if value.size <= LARGEST_VALUE else None
