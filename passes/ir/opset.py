"""Models of newer opsets in terms of an older one, where ONNX's own converter gives up or leaves something behind."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

ASIDE = "wootz.aside"
"""The domain of nodes that are already of the older opset, while the converter is at work."""

SET_ASIDE = frozenset({"ConstantOfShape", "GroupNormalization"})


def convert_to_opset(proto: onnx.ModelProto, version: int) -> onnx.ModelProto:
    """ONNX's conversion, which in addition knows how these come from newer opsets:

    1. Gelu (opset 20) becomes its formula.
    2. GroupNormalization with a scale and bias a channel (opset 21) becomes the one of opset 18, which has them a
       group, with ones and zeros, and a product and a sum behind it.
    3. ConstantOfShape stays as it is: the converter has no way from opset 20 to 19, where only element types differ.

    Raises RuntimeError or ValueError for what can't be converted, and for an attribute that the older form lacks.
    """
    before = {o.domain: o.version for o in proto.opset_import}
    prepared = onnx.ModelProto()
    prepared.CopyFrom(proto)
    newest = before.get("", before.get("ai.onnx", 0))
    if newest > version:
        _rewrite(prepared, newest)
    converted = onnx.version_converter.convert_version(prepared, version)
    for node in converted.graph.node:
        if node.domain == ASIDE:
            node.domain = ""
        _check_attributes(node, version)
    kept = [o for o in converted.opset_import if o.domain != ASIDE]
    del converted.opset_import[:]
    converted.opset_import.extend(kept)
    return converted


def _rewrite(proto: onnx.ModelProto, opset: int) -> None:
    graph = proto.graph
    inferred = onnx.shape_inference.infer_shapes(proto).graph
    types = {info.name: info.type.tensor_type for info in (*inferred.value_info, *inferred.input, *inferred.output)}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if _is_newer(node, opset):
            rewriting = _Rewriting(graph, node, types[node.input[0]])
            nodes.extend(rewriting.gelu() if node.op_type == "Gelu" else rewriting.group_normalization())
        else:
            nodes.append(node)
    for node in nodes:
        if node.op_type in SET_ASIDE and not node.domain:
            node.domain = ASIDE
    del graph.node[:]
    graph.node.extend(nodes)
    proto.opset_import.append(helper.make_opsetid(ASIDE, 1))


def _is_newer(node: onnx.NodeProto, opset: int) -> bool:
    return not node.domain and (node.op_type == "Gelu" or (node.op_type == "GroupNormalization" and opset >= 21))


class _Rewriting:
    """Nodes that compute the output of `node`, whose first operand is of `type`."""

    def __init__(self, graph: onnx.GraphProto, node: onnx.NodeProto, type: onnx.TypeProto.Tensor):
        self.graph, self.node, self.rank = graph, node, len(type.shape.dim)
        self.dtype = helper.tensor_dtype_to_np_dtype(type.elem_type)
        self.attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        self.count = 0

    def gelu(self) -> Iterator[onnx.NodeProto]:
        """x/2 (1 + erf(x/√2)), or with approximate="tanh" x/2 (1 + tanh(√(2/π) (x + 0.044715 x³)))."""
        x = self.node.input[0]
        if self.attributes.get("approximate", b"none") == b"tanh":
            square = yield from self.op("Mul", x, x)
            share = yield from self.op("Mul", square, self.constant(0.044715))
            bent = yield from self.op("Add", share, self.constant(1.0))
            product = yield from self.op("Mul", x, bent)
            scaled = yield from self.op("Mul", product, self.constant(math.sqrt(2 / math.pi)))
            curve = yield from self.op("Tanh", scaled)
        else:
            scaled = yield from self.op("Div", x, self.constant(math.sqrt(2)))
            curve = yield from self.op("Erf", scaled)
        shifted = yield from self.op("Add", curve, self.constant(1.0))
        product = yield from self.op("Mul", x, shifted)
        yield helper.make_node("Mul", [product, self.constant(0.5)], self.node.output, self.node.name)

    def group_normalization(self) -> Iterator[onnx.NodeProto]:
        """The ones and zeros are computed: they are no parameters that could be trained."""
        x, scale, bias = self.node.input
        groups = self.attributes["num_groups"]
        count = self.constant(np.array([groups]))
        ones = yield from self.op("ConstantOfShape", count, value=self.filled(1.0))
        zeros = yield from self.op("ConstantOfShape", count, value=self.filled(0.0))
        attributes = {"num_groups": groups, "epsilon": self.attributes.get("epsilon", 1e-5)}
        name = yield from self.op("GroupNormalization", x, ones, zeros, **attributes)
        axes = self.constant(np.arange(1, self.rank - 1))
        column = yield from self.op("Unsqueeze", scale, axes)
        scaled = yield from self.op("Mul", name, column)
        shift = yield from self.op("Unsqueeze", bias, axes)
        yield helper.make_node("Add", [scaled, shift], self.node.output)

    def op(self, op_type: str, *inputs: str, **attributes: Any) -> Generator[onnx.NodeProto, None, str]:
        name = self.fresh()
        yield helper.make_node(op_type, inputs, [name], name, **attributes)
        return name

    def constant(self, value: float | np.ndarray) -> str:
        """An initializer: a scalar of the operand's element type, or the array."""
        name = self.fresh()
        array = value if isinstance(value, np.ndarray) else np.asarray(value, self.dtype)
        self.graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    def filled(self, value: float) -> onnx.TensorProto:
        return numpy_helper.from_array(np.full(1, value, self.dtype))

    def fresh(self) -> str:
        self.count += 1
        return f"{self.node.output[0]}/{self.node.op_type.lower()}_{self.count}"


def _check_attributes(node: onnx.NodeProto, version: int) -> None:
    """The converter leaves attributes and modes behind that the older form lacks."""
    if node.domain or not onnx.defs.has(node.op_type, version, ""):
        return
    known = onnx.defs.get_schema(node.op_type, version, "").attributes
    for attribute in list(node.attribute):
        if attribute.name not in known:
            if node.op_type == "AveragePool" and set(attribute.ints) == {1}:
                node.attribute.remove(attribute)
                continue
            raise ValueError(f"{node.op_type} has the attribute {attribute.name}, which opset {version} lacks")
        if node.op_type == "Pad" and attribute.name == "mode" and attribute.s == b"wrap":
            raise ValueError(f"Pad has the mode wrap, which opset {version} lacks")
