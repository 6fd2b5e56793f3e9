"""`mixed-precision`: the network in half precision, with parameters and whatever needs the range in float32."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

import onnx

from wootz.passes.base import Pass, PassResult, option
from wootz.passes.ir.builder import Builder
from wootz.passes.ir.half_precision import (
    HALF,
    HALF_SUFFIX,
    SINGLE,
    SINGLE_SUFFIX,
    Casts,
    fits_in_half,
    is_square,
    state_clip_bounds,
)
from wootz.passes.ir.model import OPSET, Constant, Graph, Model, Node, Tensor
from wootz.passes.ir.rewrite import compute_as
from wootz.passes.ir.shapes import annotate_shapes
from wootz.passes.training.parameters import find_parameters
from wootz.passes.training.state import loss_outputs

Precision = Literal["float32", "float16"]
"""What convolutions and products are computed in.

There is no bfloat16: opset 18 has it for MatMul and Gemm, but not for Conv, ConvTranspose and pooling; ONNX Runtime's
CUDA provider (1.20 to 1.31) has no such kernels for ConvTranspose, BatchNormalization, MaxPool and Pad in any opset.
"""

PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
NORMALIZATIONS = frozenset(
    {"BatchNormalization", "GroupNormalization", "InstanceNormalization", "LRN", "LayerNormalization"}
    | {"MeanVarianceNormalization"}
)
FOLLOWING = frozenset(
    {"Add", "AveragePool", "Clip", "Concat", "DepthToSpace", "Dropout", "Elu", "Expand", "Flatten", "Gather"}
    | {"GlobalAveragePool", "GlobalMaxPool", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Max", "MaxPool"}
    | {"Min", "Mul", "Neg", "PRelu", "Pad", "Relu", "Reshape", "Resize", "Selu", "Sigmoid", "Slice", "SpaceToDepth"}
    | {"Split", "Squeeze", "Sum", "Tanh", "Tile", "Transpose", "Unsqueeze", "Where"}
)
"""Operators that neither sum over many elements nor amplify rounding errors."""


@dataclass(frozen=True)
class MixedPrecision(Pass):
    """Computes convolutions, products of matrices and what lies between them in float16, the rest in float32.

    Runs on the network with its losses, before build-gradients (Micikevicius et al. 2018, "Mixed precision training").

    1. Convolutions, Gemm and MatMul are in float16. Elementwise operators, pooling and operators that move elements
       follow: they are in float16 where all that they read is.
    2. Normalisations compute in float32, with float32 parameters and statistics; their result is float16 where their
       operand is. Everything else is in float32: reductions, quotients, powers, squares, differences (they lose
       digits), softmax, losses. So are the graph's inputs and outputs.
    3. Trained parameters stay float32 and are cast once in the graph, so that gradients come back in float32 through
       the Cast. All other constants, those that `frozen` names among them, become float16 constants.
    4. A node stays in float32 if one of its constants lies beyond float16's range, or if a single number that it reads
       would become zero (an epsilon).

    Refuses a graph without a scalar output to minimise, parameters of float16, control flow, and what build-gradients
    refuses of `frozen` and of weights that are computed. Gradients below 6e-8 vanish in float16:
    apply-optimizer{loss-scale=65536} scales the losses.
    """

    name: ClassVar[str] = "mixed-precision"
    requires = "a loss: attach-loss runs before"
    losses: tuple[str, ...] = option((), "the outputs to minimise; by default every scalar output")
    frozen: tuple[str, ...] = option((), "parameters that are not trained: names, or prefixes ending in / or *")
    trained: tuple[str, ...] = option((), "parameters that are trained though they look like an exporter's constants")

    def apply(self, model: Model) -> PassResult:
        result = model.copy()
        graph = result.graph
        for node in graph.nodes:
            if any(isinstance(value, Graph) for value in node.attrs.values()):
                raise self.refuse(f"{node.op} has a subgraph, which is not supported", node.name)
        annotate_shapes(graph)
        losses = loss_outputs(graph, self.losses, self)
        found = find_parameters(result, losses, self.frozen, self.trained, self.name)
        if narrow := [t.name for t in found.trained if t.dtype == HALF]:
            raise self.refuse(
                "a trained parameter is float32, and this one is float16: run to-float32 first", narrow[0]
            )
        rewrite = _Rewrite(graph, found.trained)
        return PassResult(
            result, bool(rewrite.in_half), {"float16 nodes": rewrite.in_half, "casts": rewrite.casts.count}
        )


class _Rewrite:
    """Visits the nodes in order. A tensor that is now float16 keeps its name; its casts are made once, when needed."""

    def __init__(self, graph: Graph, trained: Iterable[Constant]):
        self.builder = Builder(graph)
        self.casts = Casts(self.builder)
        self.in_half = 0
        self._trained = {id(t) for t in trained}
        nodes, graph.nodes = list(graph.nodes), []
        for node in nodes:
            self._visit(node)
        for index, output in enumerate(graph.outputs):
            if output.dtype == HALF:
                graph.outputs[index] = self.casts.to_single_under_its_name(output)

    def _visit(self, node: Node) -> None:
        if self._runs_in_half(node):
            self.in_half += 1
            if node.op == "Clip":
                state_clip_bounds(node, self.builder)
            node.inputs = [self._to_half(t) if _is_data(node, i) else t for i, t in enumerate(node.inputs)]
            self.builder.graph.nodes.append(node)
            for index, tensor in enumerate(node.outputs):
                if _is_data(node, index, of_outputs=True):
                    tensor.dtype = HALF
            return
        narrows = node.op in NORMALIZATIONS and not node.domain and node.inputs[0].dtype == HALF
        node.inputs = [self._to_single(t) for t in node.inputs]
        self.builder.graph.nodes.append(node)
        if narrows:
            self._narrow_result(node)

    def _runs_in_half(self, node: Node) -> bool:
        if node.domain or node.op not in PRODUCTS | FOLLOWING or is_square(node):
            return False
        data = [t for i, t in enumerate(node.inputs) if _is_data(node, i) and not t.is_empty()]
        if not all(t.dtype in (HALF, SINGLE) and self._fits(t) for t in data):
            return False
        computed = [t for t in data if not isinstance(t, Constant)]
        return node.op in PRODUCTS or (bool(computed) and all(t.dtype == HALF for t in computed))

    def _fits(self, tensor: Tensor) -> bool:
        if not isinstance(tensor, Constant) or id(tensor) in self._trained:
            return True
        return fits_in_half(tensor.values)

    def _to_half(self, tensor: Tensor) -> Tensor:
        if tensor.is_empty() or tensor.dtype == HALF:
            return tensor
        return self.casts.to_half(tensor, as_constant=id(tensor) not in self._trained)

    def _to_single(self, tensor: Tensor) -> Tensor:
        return tensor if tensor.is_empty() or tensor.dtype != HALF else self.casts.to_single(tensor)

    def _narrow_result(self, node: Node) -> None:
        """The first result of `node` is float16 under its own name, float32 under another."""
        result = node.outputs[0]
        wide = self.builder.variable(f"{result.name}{SINGLE_SUFFIX}", SINGLE, result.shape)
        node.outputs = [wide, *list(node.outputs)[1:]]
        compute_as(self.casts.cast(wide, HALF, f"{result.name}{HALF_SUFFIX}"), result)
        result.dtype = HALF
        self.casts.is_cast_of(wide, result)


def _is_data(node: Node, index: int, of_outputs: bool = False) -> bool:
    """Whether an operand (or result) has the element type of the node's first result."""
    schema = onnx.defs.get_schema(node.op, OPSET)
    formals = schema.outputs if of_outputs else schema.inputs
    return bool(formals[min(index, len(formals) - 1)].type_str == schema.outputs[0].type_str)
