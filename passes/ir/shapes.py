"""Shapes and element types of all tensors, by ONNX's own inference."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import shape_inference

from wootz.passes.errors import VerificationError
from wootz.passes.ir.evaluate import DIRECT, can_evaluate, evaluate_node
from wootz.passes.ir.model import (
    OPSET,
    Constant,
    Graph,
    Model,
    Node,
    Tensor,
    Variable,
    constants,
    copy_graph,
    has_subgraphs,
    is_constant,
    name_inner_weights_apart,
    node_proto,
    producer,
    shell_proto,
    tensor_proto,
    value_info,
)

TensorType = tuple[np.dtype, list[int | str] | None]
"""Element type and shape; None where nothing is known of the shape."""

INFERENCE_ERRORS = (shape_inference.InferenceError, onnx.checker.ValidationError, ValueError, RuntimeError)
"""What ONNX's inference raises: for shapes, for types, and what its C++ does for extents beyond all bounds."""

LARGEST_SHAPE_OPERAND, LARGEST_SCALES = 1024, 16
"""Larger constants, of integers and of floats, are weights: inference needs their shape only."""


def infer_shapes(model: Model) -> Model:
    """The same model with the shape and type of every tensor that can be inferred.

    What was annotated before is inferred anew, except graph inputs. Raises VerificationError where the shapes of
    the operands of a node contradict each other.
    """
    result = model.copy()
    annotate_shapes(result.graph)
    return result


def annotate_shapes(graph: Graph) -> None:
    """`infer_shapes` in place."""
    inferred = inferred_types(graph)
    for name, tensor in graph.tensors().items():
        if isinstance(tensor, Variable) and name in inferred:
            tensor.dtype, tensor.shape = inferred[name]


def inferred_types(graph: Graph, strict: bool = True) -> dict[str, TensorType]:
    """What inference finds, by tensor name; of constants it says nothing.

    Raises VerificationError if `strict` and a node's shapes contradict.
    """
    try:
        bare = _with_computed_values(skeleton(graph), graph)
        proto = shape_inference.infer_shapes(bare, strict_mode=strict, data_prop=True)
    except INFERENCE_ERRORS as error:
        raise VerificationError(" ".join(str(error).split())) from error
    inputs = itertools.islice(proto.graph.input, len(graph.inputs))  # weights follow
    return {
        info.name: (_dtype(info), _dimensions(info))
        for info in itertools.chain(proto.graph.value_info, inputs, proto.graph.output)
        if info.type.HasField("tensor_type") and info.type.tensor_type.elem_type
    }


class NodeInference:
    """Inference one node at a time, in order, for those who know more values on the way than ONNX's inference does."""

    def __init__(self, graph: Graph):
        proto = skeleton(graph)
        self._nodes = {id(node): bare for node, bare in zip(graph.nodes, proto.graph.node, strict=True)}
        self._types = {info.name: info.type for info in proto.graph.input}
        self._values: dict[str, onnx.TensorProto] = {}
        for tensor in proto.graph.initializer:
            self._types[tensor.name] = onnx.helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
            self._values[tensor.name] = tensor

    def set_value(self, name: str, value: np.ndarray) -> None:
        """States what a tensor holds."""
        self._values[name] = onnx.numpy_helper.from_array(value, name)
        self._types[name] = onnx.helper.make_tensor_type_proto(self._values[name].data_type, value.shape)

    def set_shape(self, name: str, shape: Sequence[int | str], like: str) -> None:
        """States a tensor's shape; it has the element type of another tensor, or float32 if that isn't known."""
        known = self._types.get(like)
        elem_type = known.tensor_type.elem_type if known is not None else onnx.TensorProto.FLOAT
        self._types[name] = onnx.helper.make_tensor_type_proto(elem_type, shape)

    def infer(self, node: Node) -> dict[str, list[int | str] | None]:
        """The shapes of the results of `node`, None where unknown. Raises VerificationError for a contradiction."""
        bare = self._nodes[id(node)]
        known = all(name in self._types for name in bare.input if name)
        if not known or not onnx.defs.has(bare.op_type, OPSET, bare.domain):
            return dict.fromkeys(bare.output)
        schema = onnx.defs.get_schema(bare.op_type, OPSET, bare.domain)
        types = {name: self._types[name] for name in bare.input if name}
        values = {name: self._values[name] for name in bare.input if name in self._values}
        try:
            inferred = shape_inference.infer_node_outputs(
                schema, bare, types, values, opset_imports=[onnx.helper.make_opsetid("", OPSET)]
            )
        except INFERENCE_ERRORS as error:
            raise VerificationError(f"{bare.op_type} {bare.name!r}: {' '.join(str(error).split())}") from error
        self._types.update(inferred)
        return {name: _dimensions(onnx.ValueInfoProto(name=name, type=t)) for name, t in inferred.items()}


def set_batch_size(graph: Graph, size: int) -> None:
    """Gives the inputs' first dimension, where that is a symbol, this size; results of custom operators likewise."""
    symbols = {t.shape[0] for t in graph.inputs if t.shape and isinstance(t.shape[0], str)}
    sized = [*graph.inputs, *(t for t in graph.tensors().values() if _is_of_other_domain(t))]
    for tensor in sized:
        if tensor.shape and not isinstance(tensor, Constant):
            tensor.shape = [size if d in symbols else d for d in tensor.shape]


def skeleton(graph: Graph) -> onnx.ModelProto:
    """The model with its weights as graph inputs, annotated where inference can't tell: inputs, custom operators."""
    if has_subgraphs(graph):  # they would be written with what is annotated around them
        graph = _without_annotations(graph)
    inputs = {t.name: Variable(t.name, t.dtype, t.shape) if is_constant(t) else t for t in graph.inputs}
    outputs = [inputs.get(t.name, t if _is_of_other_domain(t) else Variable(t.name)) for t in graph.outputs]
    proto = shell_proto(graph, list(inputs.values()), outputs)
    written = {*inputs, *(t.name for t in outputs)}
    for node in graph.nodes:
        proto.graph.node.append(_inferable(node_proto(node)))
    for name, tensor in graph.tensors().items():
        if isinstance(tensor, Constant):
            if _may_state_shapes(tensor.values):
                proto.graph.initializer.append(tensor_proto(tensor))
            elif name not in inputs:
                _declare(proto.graph.input.add(), name, tensor.values)
        elif name not in written and _is_of_other_domain(tensor) and (tensor.dtype or tensor.shape) is not None:
            proto.graph.value_info.append(value_info(tensor))
    if has_subgraphs(graph):
        name_inner_weights_apart(proto.graph, dict.fromkeys(constants(graph)))
    return proto


def _may_state_shapes(values: np.ndarray) -> bool:
    """Whether inference may look at the values: those of integers, and of the scales of a Resize."""
    return values.size <= (LARGEST_SHAPE_OPERAND if values.dtype.kind in "ib" else LARGEST_SCALES)


def _with_computed_values(proto: onnx.ModelProto, graph: Graph) -> onnx.ModelProto:
    """The skeleton of `graph` with Constant nodes for what nodes compute of small constants alone, in place: inference
    computes no axes, scales or numbers of elements itself."""
    inputs = {t.name for t in graph.inputs}
    values = {
        name: t.values
        for name, t in graph.tensors().items()
        if isinstance(t, Constant) and name not in inputs and _may_state_shapes(t.values)
    }
    for node, bare in zip(graph.nodes, proto.graph.node, strict=True):
        value = _small_value(node, values)
        if value is not None:
            values[bare.output[0]] = value
            constant = onnx.numpy_helper.from_array(value)
            bare.CopyFrom(onnx.helper.make_node("Constant", (), bare.output, bare.name, value=constant))
    return proto


def _small_value(node: Node, values: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """What a node computes of these `values` alone, where that may state shapes."""
    if not node.inputs or not can_evaluate(node) or any(t.name not in values for t in node.inputs if not t.is_empty()):
        return None
    operands = [None if t.is_empty() else values[t.name] for t in node.inputs]
    if node.op not in DIRECT and any(o is not None and o.dtype.kind == "f" for o in operands):
        return None  # of weights
    try:
        (value,) = evaluate_node(node, operands)
    except ValueError:
        return None
    return value if _may_state_shapes(value) else None


def _declare(info: onnx.ValueInfoProto, name: str, values: np.ndarray) -> None:
    """Writes element type and shape; onnx's helpers take several times as long, and a network has hundreds."""
    info.name = name
    info.type.tensor_type.elem_type = onnx.helper.np_dtype_to_tensor_dtype(values.dtype)
    info.type.tensor_type.shape.SetInParent()
    for extent in values.shape:
        info.type.tensor_type.shape.dim.add().dim_value = extent


def _without_annotations(graph: Graph) -> Graph:
    """A copy in which only what inference can't tell is annotated."""
    bare = copy_graph(graph)
    inputs = {t.name for t in bare.inputs}
    for name, tensor in bare.tensors().items():
        if isinstance(tensor, Variable) and name not in inputs and not _is_of_other_domain(tensor):
            tensor.shape = None
            tensor.dtype = None
    return bare


def _inferable(node: onnx.NodeProto) -> onnx.NodeProto:
    """Two operators that ONNX has no inference for in opset 18: their results are like their first operands."""
    if node.op_type not in ("GroupNormalization", "MeanVarianceNormalization"):
        return node
    return onnx.helper.make_node("Identity", node.input[:1], node.output, node.name)


def _is_of_other_domain(tensor: Tensor) -> bool:
    """Whether a custom operator computes the tensor: what is annotated is all that is known of its shape."""
    node = producer(tensor)
    return node is not None and node.domain not in (None, "", "ai.onnx")


def _dtype(info: onnx.ValueInfoProto) -> np.dtype:
    return onnx.helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)


def _dimensions(info: onnx.ValueInfoProto) -> list[int | str] | None:
    if not info.type.tensor_type.HasField("shape"):
        return None
    dimensions: list[int | str] = []
    for i, d in enumerate(info.type.tensor_type.shape.dim):
        dimensions.append(d.dim_value if d.HasField("dim_value") else d.dim_param or f"{info.name}_{i}")
    return dimensions


def same_extents(a: Tensor, b: Tensor) -> bool:
    """Whether they have one shape, as far as that is known: symbols of two names may differ."""
    return a.shape is not None and b.shape is not None and list(a.shape) == list(b.shape) and None not in a.shape
