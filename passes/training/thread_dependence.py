"""Which nodes of a graph give other bits on so many threads than on one, with ONNX Runtime's CPU provider.

Threads can change the order in which a sum is taken, and how roots and logarithms are rounded where a thread's part of
a large tensor ends. `lowerings/sums` says what ONNX Runtime divides over them, and writes training graphs so that
little is left: products for which the cure costs too much, what has no cure (ConvGrad of onnxruntime-training), and
what no lowering knows. Where a shape isn't known, the answer is yes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from wootz.passes.ir.model import Graph, Model, Node, Tensor, constant_behind, copy_graph, is_fixed, producer
from wootz.passes.ir.shapes import annotate_shapes, set_batch_size
from wootz.passes.training.block_convolutions import REORDERED_TOGETHER, is_blocked
from wootz.passes.training.blocked_layout import runs_in_blocks
from wootz.passes.training.lowerings.native import uses_native
from wootz.passes.training.lowerings.sums import DEALT_OUT, NARROWEST, ONE_THREAD_PRODUCTS, ONE_THREAD_ROOTS, PANEL

ONE_THREAD_LOGARITHMS = 1 << 13
"""So many logarithms are taken on one thread: measured, twice as many are."""

REDUCTIONS = frozenset({"ReduceL1", "ReduceL2", "ReduceLogSumExp", "ReduceMean", "ReduceSum", "ReduceSumSquare"})


def nodes_depending_on_threads(
    model: Model, threads: int, batch: int, block: int, native_block: int = 0
) -> tuple[Node, ...]:
    """Nodes of `model`, a program as it is opened, that give other bits on `threads` threads than on one.

    `batch` is the number of images at once, `block` the channels side by side in the machine's own layout (0: it has
    none), and `native_block` those of a graph of the target `native` (0: it stays in the usual layout).
    """
    if threads < 2:
        return ()
    graph = copy_graph(model.graph)
    set_batch_size(graph, batch)
    annotate_shapes(graph)
    kernels = _Kernels(graph, threads, block, native_block)
    return tuple(node for node in graph.nodes if kernels.divide(node))


@dataclass(frozen=True)
class _Kernels:
    """Those of ONNX Runtime for the nodes of `graph`, on so many threads, with so many channels to a block."""

    graph: Graph
    threads: int
    block: int
    native_block: int

    def divide(self, node: Node) -> bool:
        """Whether the threads divide the node so that its bits depend on their number."""
        rule = _RULES.get(node.op)
        try:
            return rule is not None and rule(self, node)
        except _UnknownShape:
            return True

    def _is_blocked_by_us(self, node: Node) -> bool:
        if uses_native(self.graph):
            return self.native_block > 0 and runs_in_blocks(node, self.graph, self.native_block)
        return is_blocked(node, self.graph, self.block)

    def conv(self, node: Node) -> bool:
        weights = node.inputs[1]
        if self._is_blocked_by_us(node) or (is_fixed(weights, self.graph) and self._is_blocked_by_the_runtime(node)):
            return False
        (images, *_), (filters, channels, *kernel), (_, _, *count) = map(
            _shape, (node.inputs[0], weights, node.outputs[0])
        )
        group = node.attrs.get("group", 1)
        filters, positions, depth = filters // group, math.prod(count), channels * math.prod(kernel)
        if _is_product(node, kernel):
            return images * group == 1 and self._product(filters, positions, depth)
        if filters > positions:
            return self._product(filters, positions, depth)
        most = self._threads_for(filters * positions * depth)
        width = math.ceil(positions / (most * DEALT_OUT)) * DEALT_OUT
        return not _equal_panels(depth, positions, *_parts(positions, width))

    def gemm(self, node: Node) -> bool:
        left, right = node.inputs[:2]
        if is_fixed(right, self.graph):
            return False
        turned = [bool(node.attrs.get(a, 0)) != _is_transposed(t) for a, t in (("transA", left), ("transB", right))]
        (rows, depth), (columns, _) = _turned(left, "transA", node), _turned(right, "transB", node)[::-1]
        has_bias = len(node.inputs) > 2 and not node.inputs[2].is_empty()
        if not has_bias and [user.op for user in node.outputs[0].outputs] == ["Transpose"]:
            rows, columns, turned = columns, rows, [not turned[1], not turned[0]]
        scaled = node.attrs.get("alpha", 1.0) != 1 or (has_bias and node.attrs.get("beta", 1.0) not in (0, 1))
        if turned[0] and columns > 1:
            return False
        return self._product(rows, columns, depth, has_row_kernel=not scaled)

    def matmul(self, node: Node) -> bool:
        left, right = map(_shape, node.inputs)
        if is_fixed(node.inputs[1], self.graph) and len(right) == 2:
            return False
        if len(left) < 2 or len(right) < 2:
            return True
        if len(right) == 2:
            left = (math.prod(left[:-1]), left[-1])
        images = math.prod(np.broadcast_shapes(left[:-2], right[:-2]))
        return self._product(left[-2], right[-1], left[-1], images)

    def reduction(self, node: Node) -> bool:
        extents = _shape(node.inputs[0])
        axes = node.attrs.get("axes")
        if axes is None and len(node.inputs) > 1 and not node.inputs[1].is_empty():
            constant = constant_behind(node.inputs[1])
            if constant is None:
                return True
            axes = constant.values.tolist()
        reduced = {int(a) % len(extents) for a in axes or range(len(extents))}
        parts = [
            (is_reduced, math.prod(extents[i] for i in members))
            for is_reduced, members in itertools.groupby(range(len(extents)), key=lambda i: i in reduced)
        ]
        if len(parts) != 3:
            return False
        kept = next(extent for is_reduced, extent in parts if not is_reduced)
        return 2 <= kept < self.threads

    def roots(self, node: Node) -> bool:
        return node.inputs[0].dtype != np.float64 and math.prod(_shape(node.inputs[0])) >= ONE_THREAD_ROOTS

    def logarithms(self, node: Node) -> bool:
        return math.prod(_shape(node.inputs[0])) >= ONE_THREAD_LOGARITHMS

    def always(self, node: Node) -> bool:
        return True

    def _product(self, rows: int, columns: int, depth: int, count: int = 1, has_row_kernel: bool = True) -> bool:
        most = math.ceil(self._threads_for(rows * columns * depth) / count)
        if columns > rows:
            blocks = math.ceil(columns / DEALT_OUT)
            few, extra = divmod(blocks, min(most, blocks))
            widths = [*([(few + 1) * DEALT_OUT] if extra else []), few * DEALT_OUT, _last(columns, few)]
            return most > 1 and not _equal_panels(depth, columns, *widths)
        lone = rows < 2 * most or columns == 1
        return has_row_kernel and depth > 1 and most > 1 and rows > 1 and lone

    def _threads_for(self, products: int) -> int:
        return min(self.threads, products // ONE_THREAD_PRODUCTS + 1)

    def _is_blocked_by_the_runtime(self, node: Node) -> bool:
        """Whether ONNX Runtime takes a convolution with constant weights in blocks of channels."""
        filters, channels, *kernel = _shape(node.inputs[1])
        group = node.attrs.get("group", 1)
        if self.block < 2 or len(kernel) != 2:
            return False
        if group > 1:
            depthwise = channels == 1 and filters == group
            return depthwise or not (channels % self.block or filters // group % self.block)
        return channels < self.block or channels % REORDERED_TOGETHER == 0


_RULES: Mapping[str, Callable[[_Kernels, Node], bool]] = {
    "Celu": _Kernels.logarithms,
    "Conv": _Kernels.conv,
    "ConvGrad": _Kernels.always,
    "Gemm": _Kernels.gemm,
    "Log": _Kernels.logarithms,
    "MatMul": _Kernels.matmul,
    "Sqrt": _Kernels.roots,
    **dict.fromkeys(REDUCTIONS, _Kernels.reduction),
}


class _UnknownShape(Exception):
    """A rule needs a shape that could not be inferred."""


def _shape(tensor: Tensor) -> tuple[int, ...]:
    if tensor.shape is None or not all(isinstance(n, int) for n in tensor.shape):
        raise _UnknownShape
    return tuple(int(n) for n in tensor.shape)


def _turned(tensor: Tensor, attribute: str, node: Node) -> tuple[int, ...]:
    shape = _shape(tensor)
    return shape[::-1] if node.attrs.get(attribute, 0) else shape


def _is_transposed(tensor: Tensor) -> bool:
    """Whether ONNX Runtime replaces a Transpose before a Gemm by its attribute."""
    node = producer(tensor)
    return node is not None and node.op == "Transpose"


def _is_product(node: Node, kernel: Sequence[int]) -> bool:
    """Whether a convolution is one product of matrices an image."""
    plain = math.prod(kernel) == 1 and all(n == 1 for n in node.attrs.get("strides") or [])
    return plain and not any(node.attrs.get("pads") or [])


def _equal_panels(depth: int, *widths: int) -> bool:
    return len({min(_panel(width), depth) for width in widths}) == 1


def _panel(width: int) -> int:
    """How many products are added up before they are added to a result of so many columns."""
    panel, narrow = PANEL, NARROWEST
    while width <= narrow and narrow >= DEALT_OUT:
        panel, narrow = 2 * panel, narrow // 2
    return panel


def _parts(extent: int, width: int) -> set[int]:
    """Widths of the parts when `extent` is cut every `width`."""
    return {min(width, extent), extent - (math.ceil(extent / width) - 1) * width}


def _last(columns: int, blocks: int) -> int:
    """Columns of the last thread, to which `blocks` are dealt out."""
    return columns - (math.ceil(columns / DEALT_OUT) - blocks) * DEALT_OUT
