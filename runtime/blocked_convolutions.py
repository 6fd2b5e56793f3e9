"""Convolutions for the CPU provider of ONNX Runtime in its own memory layout, NCHWc.

The layout keeps `block` channels of a pixel side by side: [N, C / block, H, W, block]. A convolution in it writes no
columns. ONNX Runtime takes it by itself where the weights are constant. In training they are not: here their order is
changed in every step, which costs little beside the convolution. docs/benchmarks.md has what it brings.

The operators (domain com.microsoft.nchwc) are in every build of ONNX Runtime, but the size of a block follows from the
processor. So a program takes them just before it runs on a machine, and is never stored with them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx

from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import Constant, Model, Node, Tensor
from wootz.passes.training.expression import Expression

DOMAIN = "com.microsoft.nchwc"

LEAST_PRODUCTS = 50
"""Of so many products for an element of the result, a convolution takes longer than changing the layout."""

MOST_PADDING = 1.5
"""Channels are padded to whole blocks. With so many times the products, blocks are still faster."""

REORDERED_TOGETHER = 4
"""ONNX Runtime reorders channels by so many."""


@dataclass(frozen=True)
class _Weights:
    """The weights of a convolution, [filters, channels, *kernel]; one channel where it is depthwise."""

    filters: int
    channels: int
    kernel: tuple[int, ...]
    is_depthwise: bool
    block: int

    @staticmethod
    def of(node: Node, block: int) -> _Weights | None:
        """None where the convolution can't run in blocks of channels, or where its weights are constant."""
        if node.op != "Conv" or node.domain or node.attrs.get("auto_pad", "NOTSET") != "NOTSET":
            return None
        tensor = node.inputs[1]
        if isinstance(tensor, Constant) or tensor.dtype != np.float32 or tensor.shape is None:
            return None
        shape, group = tuple(tensor.shape), node.attrs.get("group", 1)
        if len(shape) != 4 or not all(isinstance(n, int) for n in shape):
            return None
        filters, channels, *kernel = shape
        is_depthwise = 1 < group == filters and channels == 1
        if group > 1 and not is_depthwise:
            return None
        return _Weights(filters, channels, tuple(kernel), is_depthwise, block)

    @property
    def reads_blocks(self) -> bool:
        """Few channels are read in the usual layout."""
        return self.is_depthwise or self.channels >= self.block

    @property
    def channels_together(self) -> int:
        """How many channels of a filter lie side by side."""
        return self.block if self.reads_blocks and not self.is_depthwise else 1

    @property
    def padded(self) -> tuple[int, int]:
        """Filters and channels with what fills the last blocks."""
        return _round_up(self.filters, self.block), _round_up(self.channels, self.channels_together)

    @property
    def pays(self) -> bool:
        """Whether the convolution is faster in blocks. Measured on AVX-512; those of one tap never were."""
        if self.is_depthwise:
            return True
        taps = math.prod(self.kernel)
        if taps == 1 or taps * self.channels < LEAST_PRODUCTS:
            return False
        return not self.reads_blocks or math.prod(self.padded) <= MOST_PADDING * self.filters * self.channels


def with_blocked_convolutions(model: Model, block: int) -> Model:
    """`model` with those convolutions in blocks of `block` channels that are faster so and have no constant weights.

    With fewer than two channels to a block nothing changes: this machine has no such convolutions then.
    """
    if block < 2 or not any(_weights_to_block(node, block) for node in model.graph.nodes):
        return model
    result = model.copy()
    graph = result.graph
    graph.import_domains = [*graph.import_domains, onnx.helper.make_opsetid(DOMAIN, 1)]
    builder = Builder(graph)
    reordered: dict[int, Tensor] = {}
    nodes, graph.nodes = list(graph.nodes), []
    for node in nodes:
        builder.prefix = f"{node.name}/"
        if weights := _weights_to_block(node, block):
            _append_blocked(node, weights, builder, reordered)
        else:
            graph.nodes.append(node)
    return result


def _weights_to_block(node: Node, block: int) -> _Weights | None:
    weights = _Weights.of(node, block)
    return weights if weights and weights.pays else None


def _append_blocked(node: Node, weights: _Weights, builder: Builder, reordered: dict[int, Tensor]) -> None:
    """Appends what computes the result of `node`. Data that several convolutions read is reordered once."""
    data, w = (Expression.of(t, builder) for t in node.inputs[:2])
    filters = weights.padded[0]
    if weights.reads_blocks:
        if id(data.tensor) not in reordered:
            reordered[id(data.tensor)] = _reorder(data, weights).tensor
        data = Expression(reordered[id(data.tensor)], builder, data.dtype)
    biases = [Expression.of(t, builder) for t in node.inputs[2:] if not t.is_empty()]
    operands = [data, _order(w, weights), *(_pad(b, [filters - weights.filters]) for b in biases)]
    attributes = {**node.attrs, "kernel_shape": list(weights.kernel), "group": filters if weights.is_depthwise else 1}
    result = builder.op("Conv", *(o.tensor for o in operands), domain=DOMAIN, **attributes)
    outputs = list(node.outputs)
    node.inputs.clear()
    node.outputs.clear()
    builder.graph.nodes.append(
        Node("ReorderOutput", node.name, {"channels": weights.filters}, [result], outputs, domain=DOMAIN)
    )


def _reorder(data: Expression, weights: _Weights) -> Expression:
    """[N, C, H, W] in blocks."""
    channels = weights.filters if weights.is_depthwise else weights.channels
    aligned = _pad(data, [0, -channels % REORDERED_TOGETHER, 0, 0])
    return Expression(data.builder.op("ReorderInput", aligned.tensor, domain=DOMAIN), data.builder, data.dtype)


def _order(w: Expression, weights: _Weights) -> Expression:
    """The weights as the blocked convolution reads them: [filters / block, channels / block, kh, kw, block, block]."""
    filters, channels = weights.padded
    block, together, kernel = weights.block, weights.channels_together, weights.kernel
    padded = _pad(w, [filters - weights.filters, channels - weights.channels, 0, 0])
    split = padded.reshape([filters // block, block, channels // together, together, *kernel])
    return split.transpose(0, 2, 4, 5, 3, 1).reshape([filters, channels, *kernel])


def _pad(x: Expression, behind: list[int]) -> Expression:
    """Zeros behind each axis."""
    return x.op("Pad", x.integers([0] * len(behind) + behind)) if any(behind) else x


def _round_up(number: int, multiple: int) -> int:
    return math.ceil(number / multiple) * multiple
