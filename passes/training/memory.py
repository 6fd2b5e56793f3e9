"""How much memory a training graph takes when it runs: from shapes and liveness, without running it.

Counted are the constants (twice: ONNX Runtime keeps the model that it read), the state (two buffers each, since ONNX
Runtime does not update in place), the intermediate results that are alive at the same time, and the program itself.
Nodes are walked in the order in which ONNX Runtime executes them: depth first from the results, the last ones first. A
result that has the size of an operand which nothing reads later takes its place where the kernel allows it; a view
shares the memory of its operand.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from wootz.passes.ir.model import Constant, Graph, Model, Node, Tensor, captured_tensors
from wootz.passes.ir.shapes import inferred_types, set_batch_size
from wootz.passes.training.blocked_layout import BlockedLayout
from wootz.passes.training.fuse_elementwise import FuseElementwise
from wootz.passes.training.interface import TrainingInterface
from wootz.passes.training.lowerings.native import is_native, uses_native

VIEWS = {"Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"}
"""Operators whose result shares the memory of their first operand."""
IN_PLACE = {
    *("Abs", "Add", "Cast", "Ceil", "Clip", "Div", "Elu", "Exp", "Floor", "HardSigmoid", "LeakyRelu", "Log", "Mul"),
    *("Neg", "Not", "Reciprocal", "Relu", "Sigmoid", "Softmax", "Sqrt", "Sub", "Sum", "Tanh", "ThresholdedRelu"),
}
"""Operators whose kernels may write their result over an operand."""
BYTES_A_NODE = 11_000
"""What ONNX Runtime keeps of the program: measured on graphs of 2,000 to 10,000 nodes."""
ARENA_SLACK = 1.2
"""How much more ONNX Runtime's arena holds than what is alive: 1.1 to 1.5 times as much on the same graphs."""


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes: `constants` and a second copy that ONNX Runtime keeps, `state` with both buffers, `activations` at the
    moment at which most are alive, and the `program`."""

    constants: int
    state: int
    activations: int
    program: int

    @property
    def total(self) -> int:
        return self.constants + self.state + int(ARENA_SLACK * self.activations) + self.program


def training_memory(graph: Model, batch_size: int) -> MemoryEstimate:
    """What one step of a training graph takes, on batches of `batch_size` images."""
    interface, nodes = TrainingInterface.of(graph), len(graph.graph.nodes)
    if uses_native(graph.graph):  # as a session opens it; blocks of 8 channels take no more
        graph = BlockedLayout().apply(FuseElementwise().apply(graph).model).model
    sizes, shapes = _sizes(graph, batch_size)
    tensors = graph.graph.tensors()
    state = {slot.input for slot in interface.slots}
    given_back = {slot.output for slot in interface.slots}
    constants = (t.name for t in tensors.values() if isinstance(t, Constant) and t.name not in state)
    return MemoryEstimate(
        constants=2 * sum(sizes[name] for name in constants),
        state=2 * sum(sizes[name] for name in state),
        activations=_most_alive(graph.graph, sizes, shapes, given_back),
        program=BYTES_A_NODE * nodes,
    )


def _sizes(model: Model, batch_size: int) -> tuple[dict[str, int], dict[str, Sequence[int]]]:
    """The bytes and the extents of every tensor, where the inputs' first dimension is the batch if it isn't fixed."""
    sized = model.copy()
    set_batch_size(sized.graph, batch_size)
    constants = {name: t for name, t in sized.graph.tensors().items() if isinstance(t, Constant)}
    found = {name: t.values.nbytes for name, t in constants.items()}
    shapes: dict[str, Sequence[int]] = {name: t.values.shape for name, t in constants.items()}
    for name, (dtype, shape) in inferred_types(sized.graph).items():
        shapes[name] = [d if isinstance(d, int) else 1 for d in shape or ()]
        found.setdefault(name, math.prod(shapes[name]) * dtype.itemsize)
    return found, shapes


def _most_alive(
    graph: Graph, sizes: Mapping[str, int], shapes: Mapping[str, Sequence[int]], elsewhere: set[str]
) -> int:
    """The most bytes of intermediate results alive at once; those named in `elsewhere` have a place of their own."""
    order = execution_order(graph)
    buffers = _Buffers(sizes, order, graph.outputs)
    most = 0
    for node in order:
        results = [t for t in node.outputs if not t.is_empty() and t.name not in elsewhere]
        for tensor in results:
            buffers.place(tensor, node)
        most = max(most, buffers.alive)
        buffers.finish(node, results)
    return most + max((_copied(node, sizes, shapes) for node in order), default=0)


def _copied(node: Node, sizes: Mapping[str, int], shapes: Mapping[str, Sequence[int]]) -> int:
    """The bytes in which a node lays operands out anew, with pads; they are kept for the next one.

    As runtime/kernels does it: `weight_gradient` x and dy in one grid, x once for each remainder of its coordinates by
    the strides that the kernel meets; `blocked_weight_gradient` x alone.
    """
    if not is_native(node, "ConvWeightGrad", "BlockedConvWeightGrad"):
        return 0
    x, dy = (shapes[t.name] for t in node.inputs)
    grid, remainders = [], 1
    for axis, (size, count) in enumerate(zip(x[2:], dy[2:], strict=True)):
        pads, stride = node.attrs["pads"][axis::2], node.attrs["strides"][axis]
        extent = size + sum(pads)
        if node.op == "ConvWeightGrad":
            extent = max(size + max(pads) if stride == 1 else math.ceil(extent / stride), count)
            remainders *= min(stride, (node.attrs["kernel_shape"][axis] - 1) * node.attrs["dilations"][axis] + 1)
        grid.append(extent)
    pixels = math.prod(grid)
    if node.op == "BlockedConvWeightGrad":
        return sizes[node.inputs[0].name] // math.prod(x[2:]) * pixels if any(node.attrs["pads"]) else 0
    lines, columns = (
        (k - 1) * d // s + 1
        for k, d, s in zip(*(node.attrs[a] for a in ("kernel_shape", "dilations", "strides")), strict=True)
    )
    row = x[0] * pixels
    return 4 * (dy[1] * row + x[1] * remainders * (row + lines * grid[1] + columns))


class _Buffers:
    """The memory of results while a graph runs; tensors that share a buffer are its holders."""

    def __init__(self, sizes: Mapping[str, int], order: Iterable[Node], outputs: Iterable[Tensor]):
        self.alive = 0
        self._sizes = sizes
        self._uses = Counter(id(t) for node in order for t in _operands(node)) + Counter(id(t) for t in outputs)
        self._buffer_of: dict[int, int] = {}
        self._holders: Counter[int] = Counter()
        self._bytes: dict[int, int] = {}

    def place(self, result: Tensor, node: Node) -> None:
        buffer = self._taken_over(result, node)
        if buffer is None:
            buffer = id(result)
            self._bytes[buffer] = self._sizes.get(result.name, 0)
            self.alive += self._bytes[buffer]
        self._buffer_of[id(result)] = buffer
        self._holders[buffer] += 1

    def finish(self, node: Node, results: Iterable[Tensor]) -> None:
        """Gives back what nothing reads after `node`."""
        for operand in _operands(node):
            self._uses[id(operand)] -= 1
        for tensor in {id(t): t for t in (*_operands(node), *results)}.values():
            buffer = self._buffer_of.get(id(tensor))
            if buffer is not None and not self._uses[id(tensor)]:
                del self._buffer_of[id(tensor)]
                self._holders[buffer] -= 1
                self.alive -= 0 if self._holders[buffer] else self._bytes[buffer]

    def _taken_over(self, result: Tensor, node: Node) -> int | None:
        """The buffer of an operand that `result` looks into or is written over, if it is its node's first."""
        if result is not node.outputs[0] or node.domain:
            return None
        if node.op in VIEWS:
            return self._buffer_of.get(id(node.inputs[0]))
        for operand in node.inputs[:2] if node.op in IN_PLACE else ():
            buffer = self._buffer_of.get(id(operand))
            is_last = buffer is not None and self._uses[id(operand)] == 1 and self._holders[buffer] == 1
            if is_last and buffer is not None and self._bytes[buffer] == self._sizes.get(result.name):
                return buffer
        return None


def execution_order(graph: Graph) -> Sequence[Node]:
    """The nodes as ONNX Runtime executes them on one device.

    Its GraphViewer walks depth first from the nodes whose results nothing reads, and from operand to operand, each time
    beginning with the one that stands last in the graph (onnxruntime/core/graph, ReverseDFSFrom).
    """
    place = {id(node): i for i, node in enumerate(graph.nodes)}
    pending = [(node, False) for node in graph.nodes if not any(t.outputs for t in node.outputs)]
    seen: set[int] = set()
    order: list[Node] = []
    while pending:
        node, is_done = pending.pop()
        if is_done:
            order.append(node)
            continue
        if id(node) in seen:
            continue
        seen.add(id(node))
        pending.append((node, True))
        before = {id(n): n for t in _operands(node) for n in t.inputs if id(n) not in seen}
        pending += [(n, False) for n in sorted(before.values(), key=lambda n: place[id(n)])]
    return order


def _operands(node: Node) -> list[Tensor]:
    """The computed tensors that a node reads, each once."""
    tensors: Iterable[Tensor] = (*node.inputs, *captured_tensors(node))
    return list({id(t): t for t in tensors if t.inputs}.values())
