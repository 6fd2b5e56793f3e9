"""blocked-layout: a training graph of the target `native` in ONNX Runtime's own memory layout for CPUs, NCHWc."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx

from wootz.passes.base import Pass, PassResult, option
from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import Graph, Model, Node, Tensor, Variable, is_fixed, producer
from wootz.passes.ir.rewrite import erase_dead_nodes, replace_node, rewriting
from wootz.passes.ir.shapes import same_extents
from wootz.passes.training.block_convolutions import BLOCKS, DOMAIN, LEAST_PRODUCTS, REORDERED_TOGETHER, round_up
from wootz.passes.training.fuse_elementwise import gives_zeros_for_zeros
from wootz.passes.training.lowerings.native import DOMAIN as NATIVE
from wootz.passes.training.lowerings.native import is_native, uses_native

MOST_PADDING = 2.0
"""With so many times the products that the last blocks' fill brings, blocks are still faster."""

ELEMENTWISE = frozenset({"Add", "Mul", "Neg", "Relu", "Sub"})
"""Operators that take numbers in any order, and give zeros for zeros."""


@dataclass(frozen=True)
class BlockedLayout(Pass):
    """Brings a training graph into blocks of channels: the layout in which ONNX Runtime's convolutions are fastest.

    `channels` of a pixel lie side by side (`block-convolutions` has more about it, and does the same for graphs of
    standard operators, convolution by convolution). Here what lies between convolutions stays in blocks, too:

    1. A Conv in float32 over two axes, depthwise or of one group, whose weights are trained, runs in blocks, and
       ConvWeightGrad and DepthwiseInputGrad likewise, unless most of the blocks would be fill. Fewer channels than a
       block has are read as they are.
    2. Batch normalizations, ReluGrad, MaxPool over two axes, their gradients, elementwise operators and programs
       (`fuse-elementwise`) run in blocks where an operand is computed there. One that is reordered for another node
       doesn't count: sums of batch normalizations round otherwise in blocks, and a block mustn't depend on those that
       are trained beside it. What fills the last block of channels stays zero.
    3. Others get their operands in the usual layout.

    Refuses another size of blocks than 8 and 16. The outputs are the same but for rounding on processors with blocks of
    that size: sessions on CPUs know it, and run this pass by themselves.
    """

    name: ClassVar[str] = "blocked-layout"
    preserves_outputs = True
    channels: int = option(16, "channels side by side in the layout of the processor: 16 with AVX-512, else 8")

    def apply(self, model: Model) -> PassResult:
        if self.channels not in BLOCKS:
            raise self.refuse(f"channels={self.channels}: ONNX Runtime's blocks are of 8 or 16 channels")
        if not uses_native(model.graph):
            return PassResult(model, False, {"nodes": 0})
        result = model.copy()
        result.graph.import_domains = [*result.graph.import_domains, onnx.helper.make_opsetid(DOMAIN, 1)]
        layout = _Layout(result.graph, self.channels)
        blocked = sum(layout.bring_in(node) for node in rewriting(result.graph))
        erase_dead_nodes(result.graph)
        return PassResult(result, blocked > 0, {"nodes": blocked})


@dataclass(frozen=True)
class _Result:
    """What an output of a node is computed as: in the usual layout, and in blocks where it has channels."""

    usual: Tensor
    blocked: Tensor | None = None


class _Layout:
    """Which tensors of a graph there are in blocks, while it is rewritten."""

    def __init__(self, graph: Graph, block: int):
        self.graph, self.block = graph, block
        self.builder = Builder(graph)
        self._blocked: dict[int, Tensor] = {}
        self._computed: set[int] = set()
        self._seen: list[Tensor] = []  # so that no other tensor gets the identity of one

    def bring_in(self, node: Node) -> bool:
        """Whether the node now runs in blocks."""
        self.builder.prefix = f"{node.name}/"
        results = self._in_blocks(node)
        if results is None:
            return False
        outputs = list(node.outputs)
        replace_node(node, [result.usual for result in results])
        for output, result in zip(outputs, results, strict=True):
            if result.blocked is not None:
                self._remember(output, result.blocked)
                self._computed.add(id(output))
        return True

    def _in_blocks(self, node: Node) -> list[_Result] | None:
        if node.op == "Conv" and not node.domain:
            return self._convolution(node)
        if is_native(node, "ConvWeightGrad"):
            return self._weight_gradient(node)
        if is_native(node, "DepthwiseInputGrad"):
            return self._depthwise_input_gradient(node)
        if is_native(node, "BatchNormalization", "BatchNormalizationAdd"):
            return self._batch_normalization(node, images=[0, 3], deciding=[0])
        if is_native(node, "BatchNormalizationGrad", "BatchNormalizationReluGrad"):
            return self._batch_normalization(node, images=[0, 1, 5], deciding=[0, 1, 5])
        if is_native(node, "MaxPoolGrad") or (node.op == "MaxPool" and not node.domain):
            return self._max_pooling(node)
        if is_native(node, "ReluGrad", "Elementwise") or (not node.domain and node.op in ELEMENTWISE):
            return self._elementwise(node)
        return None

    def _convolution(self, node: Node) -> list[_Result] | None:
        if not runs_in_blocks(node, self.graph, self.block):
            return None
        x, w, *bias = node.inputs
        filters, channels, *kernel = (int(n) for n in w.shape)
        is_depthwise = node.attrs.get("group", 1) > 1
        reads_blocks = is_depthwise or channels >= self.block
        together = self.block if reads_blocks and not is_depthwise else 1
        turned, source = 0, producer(w)
        if source is not None and is_native(source, "TurnWeights") and not is_depthwise:
            turned, w = 1, source.inputs[0]
        ordered = self.builder.op("OrderWeights", w, domain=NATIVE, block=self.block, together=together, turned=turned)
        data = self._blocks(x) if reads_blocks else x
        biases = [self._filled(b, filters) for b in bias if not b.is_empty()]
        attributes = {**node.attrs, "kernel_shape": kernel, "group": self._whole(filters) if is_depthwise else 1}
        y = self.builder.op("Conv", data, ordered, *biases, domain=DOMAIN, **attributes)
        return [self._result(y, node.outputs[0])]

    def _weight_gradient(self, node: Node) -> list[_Result] | None:
        x, dy = node.inputs
        if not _is_planar(x) or not _is_planar(dy):
            return None
        channels, filters, group = int(x.shape[1]), int(dy.shape[1]), node.attrs["group"]
        is_depthwise = 1 < group == channels == filters
        if not is_depthwise and (
            group > 1 or channels < self.block or _is_mostly_fill(filters, 8, channels, self.block)
        ):
            return None
        attributes = {**node.attrs, "channels": channels, "filters": filters}
        operands = [self._blocks(x), self._blocks(dy)]
        return [_Result(self.builder.op("BlockedConvWeightGrad", *operands, domain=NATIVE, **attributes))]

    def _depthwise_input_gradient(self, node: Node) -> list[_Result]:
        dy, w = node.inputs
        blocked = self.builder.op(f"Blocked{node.op}", self._blocks(dy), w, domain=NATIVE, **node.attrs)
        return [self._result(blocked, node.outputs[0])]

    def _batch_normalization(self, node: Node, images: Sequence[int], deciding: Sequence[int]) -> list[_Result] | None:
        """`images` are the places of operands that have channels; of `deciding` one has to be computed in blocks."""
        if not self._any_computed_in_blocks(t for i, t in enumerate(node.inputs) if i in deciding):
            return None
        operands = [self._blocks(t) if i in images else t for i, t in enumerate(node.inputs)]
        outputs = self.builder.ops(f"Blocked{node.op}", *operands, count=3, domain=NATIVE, **node.attrs)
        return [self._result(outputs[0], node.outputs[0]), _Result(outputs[1]), _Result(outputs[2])]

    def _max_pooling(self, node: Node) -> list[_Result] | None:
        """A MaxPool that nobody asks for indices, or its gradient."""
        y, *indices = node.outputs
        if any(t.outputs or any(t is o for o in self.graph.outputs) for t in indices) or not _is_planar(y):
            return None
        if not self._any_computed_in_blocks(node.inputs):
            return None
        name, domain = ("MaxPool", DOMAIN) if node.op == "MaxPool" else (f"Blocked{node.op}", NATIVE)
        blocked = self.builder.op(name, *map(self._blocks, node.inputs), domain=domain, **node.attrs)
        return [self._result(blocked, y)]

    def _elementwise(self, node: Node) -> list[_Result] | None:
        whole = [t for t in node.inputs if same_extents(t, node.outputs[0])]
        if not self._any_computed_in_blocks(whole):
            return None
        if is_native(node, "Elementwise"):
            if not gives_zeros_for_zeros(node):
                return None
        elif len(whole) < len(node.inputs):
            return None
        operands = [self._blocks(t) if any(t is w for w in whole) else t for t in node.inputs]
        count = len(node.outputs)
        outputs = self.builder.ops(node.op, *operands, count=count, domain=node.domain or "", **node.attrs)
        return [self._result(y, like) for y, like in zip(outputs, node.outputs, strict=True)]

    def _any_computed_in_blocks(self, tensors: Iterable[Tensor]) -> bool:
        return any(id(t) in self._computed for t in tensors)

    def _blocks(self, x: Tensor) -> Tensor:
        """`x` in blocks, reordered once."""
        if id(x) not in self._blocked:
            channels = int(x.shape[1])
            aligned = self._filled(x, channels, axis=1, multiple=REORDERED_TOGETHER)
            self._remember(x, self._described(self.builder.op("ReorderInput", aligned, domain=DOMAIN), x))
        return self._blocked[id(x)]

    def _result(self, blocked: Variable, like: Tensor) -> _Result:
        self._described(blocked, like)
        usual = self.builder.op("ReorderOutput", blocked, domain=DOMAIN, channels=int(like.shape[1]))
        usual.dtype, usual.shape = like.dtype, like.shape
        return _Result(usual, blocked)

    def _described(self, blocked: Variable, like: Tensor) -> Variable:
        batch, channels, *space = like.shape
        blocked.dtype, blocked.shape = np.dtype(np.float32), [batch, self._whole(int(channels)), *space]
        return blocked

    def _remember(self, usual: Tensor, blocked: Tensor) -> None:
        self._blocked[id(usual)] = blocked
        self._seen.append(usual)

    def _filled(self, x: Tensor, extent: int, axis: int = 0, multiple: int = 0) -> Tensor:
        """With zeros behind an axis of that extent, to whole blocks."""
        missing = -extent % (multiple or self.block)
        if not missing:
            return x
        pads = [0] * len(x.shape) + [missing if i == axis else 0 for i in range(len(x.shape))]
        return self.builder.op("Pad", x, self.builder.constant(pads))

    def _whole(self, channels: int) -> int:
        return round_up(channels, self.block)


def runs_in_blocks(node: Node, graph: Graph, block: int) -> bool:
    """Whether `blocked-layout` brings a convolution of a graph of the target `native` into blocks."""
    if node.op != "Conv" or node.domain or node.attrs.get("auto_pad", "NOTSET") != "NOTSET":
        return False
    x, w, y = node.inputs[0], node.inputs[1], node.outputs[0]
    shape = _static(w)
    if shape is None or len(shape) != 4 or is_fixed(w, graph) or not _is_planar(x) or not _is_planar(y):
        return False
    filters, channels, group = *shape[:2], node.attrs.get("group", 1)
    if group > 1:
        return group == filters and channels == 1
    if channels < block:
        return channels * math.prod(shape[2:]) >= LEAST_PRODUCTS
    return not _is_mostly_fill(filters, block, channels, block)


def _is_mostly_fill(filters: int, filter_block: int, channels: int, block: int) -> bool:
    """Whether more products than allowed would be with the last blocks' fill."""
    return round_up(filters, filter_block) * round_up(channels, block) > MOST_PADDING * filters * channels


def _is_planar(x: Tensor) -> bool:
    """Whether it is float32 [N, C, H, W] of a known number of channels."""
    return x.dtype == np.float32 and x.shape is not None and len(x.shape) == 4 and isinstance(x.shape[1], int)


def _static(w: Tensor) -> tuple[int, ...] | None:
    if w.dtype != np.float32 or w.shape is None or not all(isinstance(n, int) for n in w.shape):
        return None
    return tuple(int(n) for n in w.shape)
