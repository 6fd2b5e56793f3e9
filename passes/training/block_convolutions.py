"""block-convolutions: convolutions for the CPU provider of ONNX Runtime in its own memory layout, NCHWc."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx

from wootz.passes.base import Pass, PassResult, option
from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import Graph, Model, Node, Tensor, is_fixed
from wootz.passes.ir.rewrite import replace_node, rewriting
from wootz.passes.training.expression import Expression
from wootz.passes.training.lowerings.sums import PANEL

DOMAIN = "com.microsoft.nchwc"

LEAST_PRODUCTS = 50
"""Of so many products for an element of the result, a convolution takes longer than changing the layout."""

MOST_PADDING = 1.5
"""Channels are padded to whole blocks. With so many times the products, blocks are still faster."""

REORDERED_TOGETHER = 4
"""ONNX Runtime reorders channels by so many."""

BLOCKS = (8, 16)
"""Channels in a block of ONNX Runtime's layout: 16 with AVX-512, else 8."""


@dataclass(frozen=True)
class BlockConvolutions(Pass):
    """Computes convolutions with trained weights in ONNX Runtime's own layout for CPUs, where that is faster.

    The layout keeps `channels` of a pixel side by side: [N, C / channels, H, W, channels]. A convolution in it writes
    no columns. ONNX Runtime takes it by itself where the weights are constant. In training they are not: here their
    order is changed in every step, which costs little beside the convolution. docs/benchmarks.md has what it brings.

    1. A Conv in float32 over two axes, depthwise or of one group, whose weights are an input of the graph or computed,
       becomes ReorderInput, Conv and ReorderOutput of domain `com.microsoft.nchwc`. Data that several read is reordered
       once; few channels are read as they are.
    2. It stays where its weights are constant, with `auto_pad`, of one tap, of few products, or where blocks would be
       mostly padding, unless the usual layout's order of sums depends on the number of threads.

    Refuses another size of blocks than 8 and 16. The outputs are the same on processors with blocks of that size:
    sessions on CPUs know it, and run this pass by themselves; a model with it is for this machine alone.
    """

    name: ClassVar[str] = "block-convolutions"
    preserves_outputs = True
    channels: int = option(16, "channels side by side in the layout of the processor: 16 with AVX-512, else 8")

    def apply(self, model: Model) -> PassResult:
        if self.channels not in BLOCKS:
            raise self.refuse(f"channels={self.channels}: ONNX Runtime's blocks are of 8 or 16 channels")
        if not any(_weights_to_block(node, model.graph, self.channels) for node in model.graph.nodes):
            return PassResult(model, False, {"convolutions": 0})
        result = model.copy()
        graph = result.graph
        graph.import_domains = [*graph.import_domains, onnx.helper.make_opsetid(DOMAIN, 1)]
        builder = Builder(graph)
        reordered: dict[int, Tensor] = {}
        blocked = 0
        for node in rewriting(graph):
            if weights := _weights_to_block(node, graph, self.channels):
                builder.prefix = f"{node.name}/"
                replace_node(node, [_blocked(node, weights, builder, reordered)])
                blocked += 1
        return PassResult(result, True, {"convolutions": blocked})


@dataclass(frozen=True)
class _Weights:
    """The weights of a convolution, [filters, channels, *kernel]; one channel where it is depthwise."""

    filters: int
    channels: int
    kernel: tuple[int, ...]
    is_depthwise: bool
    block: int

    @staticmethod
    def of(node: Node, graph: Graph, block: int) -> _Weights | None:
        """None where the convolution can't run in blocks of channels, or where its weights are constant."""
        if node.op != "Conv" or node.domain or node.attrs.get("auto_pad", "NOTSET") != "NOTSET":
            return None
        tensor = node.inputs[1]
        if is_fixed(tensor, graph) or tensor.dtype != np.float32 or tensor.shape is None:
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
        return round_up(self.filters, self.block), round_up(self.channels, self.channels_together)

    @property
    def pays(self) -> bool:
        """Whether the convolution is faster in blocks, or needs them to be the same on any number of threads.

        Measured on AVX-512, where those of one tap never were faster. Those with the most padding, which need blocks,
        make a training step 1.0 to 1.06 times as long.
        """
        if self.is_depthwise:
            return True
        taps = math.prod(self.kernel)
        if taps == 1 or taps * self.channels < LEAST_PRODUCTS:
            return False
        depends_on_threads = taps * self.channels > PANEL
        is_mostly_data = math.prod(self.padded) <= MOST_PADDING * self.filters * self.channels
        return not self.reads_blocks or is_mostly_data or depends_on_threads


def is_blocked(node: Node, graph: Graph, channels: int) -> bool:
    """Whether `block-convolutions` takes the node, with so many channels side by side."""
    return channels in BLOCKS and _weights_to_block(node, graph, channels) is not None


def _weights_to_block(node: Node, graph: Graph, block: int) -> _Weights | None:
    weights = _Weights.of(node, graph, block)
    return weights if weights and weights.pays else None


def _blocked(node: Node, weights: _Weights, builder: Builder, reordered: dict[int, Tensor]) -> Tensor:
    """What `node` gives, computed in blocks. Data that several convolutions read is reordered once."""
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
    return builder.op("ReorderOutput", result, domain=DOMAIN, channels=weights.filters)


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


def round_up(number: int, multiple: int) -> int:
    """The least multiple that is no smaller."""
    return math.ceil(number / multiple) * multiple
