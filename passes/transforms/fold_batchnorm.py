"""fold-batchnorm: folds inference-mode BatchNormalization into the layer before it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wootz.passes.base import Pass, PassResult
from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import Constant, Graph, Model, Node, Tensor, constant_behind, producer
from wootz.passes.ir.rewrite import erase_nodes, replace_node

FOLDABLE = {"Conv": 0, "ConvTranspose": 1}
"""The axis of the weight along which the filters (of a group) lie."""


@dataclass(frozen=True)
class FoldBatchNorm(Pass):
    """Folds BatchNormalization in inference mode into the convolution before it.

    With s = scale / sqrt(variance + epsilon): weight' = weight * s along the filters, and bias' = (bias - mean) * s +
    shift, where shift is the bias of the BatchNormalization, whose output the convolution then computes.

    1. Conv and ConvTranspose with constant operands, read by nothing but the BatchNormalization, are folded into.
    2. A BatchNormalization behind anything else, in training mode, or at the boundary of a module stays.

    The outputs of the network stay equal within rounding.
    """

    name = "fold-batchnorm"
    preserves_outputs = True

    def apply(self, model: Model) -> PassResult:
        result = model.copy()
        boundaries = {name for m in model.modules for name in m.ends}
        graph = result.graph
        folded = [n for n in graph.nodes if n.op == "BatchNormalization" and _can_fold(n, graph, boundaries)]
        for node in folded:
            _fold(graph, node)
        erase_nodes(graph, folded)
        left = sum(n.op == "BatchNormalization" for n in graph.nodes)
        return PassResult(result, bool(folded), {"folded": len(folded), "left": left})


def _can_fold(node: Node, graph: Graph, boundaries: set[str]) -> bool:
    before = producer(node.inputs[0])
    if before is None or before.op not in FOLDABLE or node.attrs.get("training_mode", 0):
        return False
    between = node.inputs[0]
    is_read_elsewhere = len(between.outputs) > 1 or any(between is t for t in graph.outputs)
    operands = [t for t in (*before.inputs[1:], *node.inputs[1:]) if not t.is_empty()]
    return (
        not is_read_elsewhere
        and between.name not in boundaries
        and all(constant_behind(t) is not None for t in operands)
    )


def _fold(graph: Graph, node: Node) -> None:
    convolution = producer(node.inputs[0])
    assert convolution is not None, "checked by _can_fold"
    scale, shift, mean, variance = (_values(t).astype(np.float64) for t in node.inputs[1:5])
    factor = scale / np.sqrt(variance + node.attrs.get("epsilon", 1e-5))
    weight = convolution.inputs[1]
    has_bias = len(convolution.inputs) > 2 and not convolution.inputs[2].is_empty()
    bias = _values(convolution.inputs[2]).astype(np.float64) if has_bias else 0.0
    new_weight = _scaled(_values(weight), factor, convolution)
    new_bias = ((bias - mean) * factor + shift).astype(new_weight.dtype)
    _set_constant(graph, convolution, 1, new_weight, weight.name)
    _set_constant(graph, convolution, 2, new_bias, f"{weight.name.removesuffix('.weight')}.bias")
    replace_node(node, convolution.outputs)


def _values(tensor: Tensor) -> np.ndarray:
    constant = constant_behind(tensor)
    assert constant is not None, "checked by _can_fold"
    return constant.values


def _scaled(weight: np.ndarray, factor: np.ndarray, convolution: Node) -> np.ndarray:
    """The weight with each filter scaled; a ConvTranspose has the filters of group g in its g-th block of inputs."""
    if convolution.op == "Conv":
        return (weight * factor.reshape(-1, *(1,) * (weight.ndim - 1))).astype(weight.dtype)
    groups = convolution.attrs.get("group", 1)
    blocks = weight.reshape(groups, -1, *weight.shape[1:])
    scaled = blocks * factor.reshape(groups, 1, -1, *(1,) * (weight.ndim - 2))
    return scaled.reshape(weight.shape).astype(weight.dtype)


def _set_constant(graph: Graph, node: Node, operand: int, values: np.ndarray, name: str) -> None:
    """Gives an operand new values; a constant that others read stays as it is."""
    if operand < len(node.inputs) and not node.inputs[operand].is_empty():
        tensor = node.inputs[operand]
        if isinstance(tensor, Constant) and len(tensor.outputs) == 1:
            tensor.values = values
            return
    constant = Constant(Builder(graph).fresh(name), values)
    if operand < len(node.inputs):
        node.inputs[operand] = constant
    else:
        node.inputs.append(constant)
