"""How much memory a training graph takes when it runs: from shapes and liveness, without running it.

Counted are the constants (twice: ONNX Runtime keeps the model that it read), the state (two buffers each, since ONNX
Runtime does not update in place), the intermediate results that are alive at the same time, and the program itself.
Nodes are walked in the order in which ONNX Runtime executes them: depth first from the results, the last ones first. A
result that has the size of an operand which nothing reads later takes its place where the kernel allows it; a view
shares the memory of its operand.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from wootz.passes.ir.model import Constant, Graph, Model, Node, Tensor, captured_tensors
from wootz.passes.ir.shapes import inferred_types
from wootz.passes.training.interface import TrainingInterface

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
    interface = TrainingInterface.of(graph)
    sizes = _sizes(graph, batch_size)
    tensors = graph.graph.tensors()
    state = {slot.input for slot in interface.slots}
    given_back = {slot.output for slot in interface.slots}
    constants = (t.name for t in tensors.values() if isinstance(t, Constant) and t.name not in state)
    return MemoryEstimate(
        constants=2 * sum(sizes[name] for name in constants),
        state=2 * sum(sizes[name] for name in state),
        activations=_most_alive(graph.graph, sizes, given_back),
        program=BYTES_A_NODE * len(graph.graph.nodes),
    )


def _sizes(model: Model, batch_size: int) -> dict[str, int]:
    """The bytes of every tensor. The first dimension of the inputs is the batch where it isn't fixed."""
    sized = model.copy()
    for tensor in sized.graph.inputs:
        if tensor.shape and not isinstance(tensor, Constant):
            tensor.shape = [batch_size if i == 0 and isinstance(d, str) else d for i, d in enumerate(tensor.shape)]
    found = {name: t.values.nbytes for name, t in sized.graph.tensors().items() if isinstance(t, Constant)}
    for name, (dtype, shape) in inferred_types(sized.graph).items():
        extents = [d if isinstance(d, int) else 1 for d in shape or ()]
        found.setdefault(name, int(np.prod(extents, dtype=np.int64)) * dtype.itemsize)
    return found


def _most_alive(graph: Graph, sizes: dict[str, int], elsewhere: set[str]) -> int:
    """The most bytes of intermediate results alive at once; those named in `elsewhere` have a place of their own."""
    order = execution_order(graph)
    outputs = {id(t) for t in graph.outputs}
    uses: dict[int, int] = {}
    for node in order:
        for tensor in _operands(node):
            uses[id(tensor)] = uses.get(id(tensor), 0) + 1
    buffer_of: dict[int, int] = {}
    holders: dict[int, int] = {}
    bytes_of: dict[int, int] = {}
    alive = most = 0
    for node in order:
        operands = _operands(node)
        for tensor in (t for t in node.outputs if not t.is_empty()):
            if tensor.name in elsewhere:
                continue
            buffer = _shared_buffer(node, tensor, buffer_of, holders, bytes_of, uses, sizes)
            if buffer is None:
                buffer = id(tensor)
                bytes_of[buffer] = sizes.get(tensor.name, 0)
                alive += bytes_of[buffer]
            buffer_of[id(tensor)] = buffer
            holders[buffer] = holders.get(buffer, 0) + 1
        most = max(most, alive)
        for tensor in operands:
            uses[id(tensor)] -= 1
        for tensor in {id(t): t for t in [*operands, *node.outputs]}.values():
            buffer = buffer_of.get(id(tensor))
            if buffer is not None and not uses.get(id(tensor)) and id(tensor) not in outputs:
                del buffer_of[id(tensor)]
                holders[buffer] -= 1
                if not holders[buffer]:
                    alive -= bytes_of[buffer]
    return most


def _shared_buffer(
    node: Node,
    result: Tensor,
    buffer_of: dict[int, int],
    holders: dict[int, int],
    bytes_of: dict[int, int],
    uses: dict[int, int],
    sizes: dict[str, int],
) -> int | None:
    """The buffer of an operand that `result`, the first one of its node, takes over or looks into."""
    if result is not node.outputs[0] or node.domain:
        return None
    if node.op in VIEWS:
        return buffer_of.get(id(node.inputs[0]))
    if node.op in IN_PLACE:
        for operand in node.inputs[:2]:
            buffer = buffer_of.get(id(operand))
            is_last = buffer is not None and uses[id(operand)] == 1 and holders[buffer] == 1
            if is_last and buffer is not None and bytes_of[buffer] == sizes.get(result.name):
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
