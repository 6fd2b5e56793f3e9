"""Whatever the network: modules that are found are pieces of their own, in order, and can be pruned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import ModuleType

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wootz.passes.analysis.module_boundaries import check_modules
from wootz.passes.analysis.modules import find_modules
from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import Graph, Model, Tensor, Variable, module_nodes, subgraph_nodes
from wootz.passes.ir.verifier import verify
from wootz.passes.plan.subspace import SKIP
from wootz.passes.pruning.block_pruner import BlockPruner

SIZE = 4
WIDTHS = (2, 4, 6)


@dataclass
class Network:
    """A network under construction: `trunk` is where it goes on, `maps` what was there before, all of SIZE x SIZE."""

    integer: Callable[[int, int], int]
    graph: Graph = field(default_factory=lambda: Graph(opset=18))

    def __post_init__(self) -> None:
        self.builder = Builder(self.graph)
        self.random = np.random.default_rng(self.integer(0, 1 << 16))
        self.trunk: Tensor = Variable("image", np.dtype(np.float32), ["N", 3, SIZE, SIZE])
        self.graph.inputs.append(self.trunk)
        self.channels = {"image": 3}
        self.maps: list[Tensor] = [self.trunk]
        self.pieces = 0

    def width(self, x: Tensor) -> int:
        return self.channels[x.name]

    def op(self, kind: str, *operands: Tensor, channels: int | None = None, **attributes: object) -> Tensor:
        result = self.builder.op(kind, *operands, **attributes)
        self.channels[result.name] = self.width(operands[0]) if channels is None else channels
        return result

    def constant(self, values: object) -> Tensor:
        return self.builder.constant(np.asarray(values))

    def conv(self, x: Tensor, outputs: int, kernel: int = 1, group: int = 1) -> Tensor:
        shape = (outputs, self.width(x) // group, kernel, kernel)
        weight = self.constant((self.random.standard_normal(shape) / np.sqrt(shape[1])).astype(np.float32))
        name = f"/part{self.pieces // 2}/part{self.pieces // 2}.{self.pieces % 2}/conv{len(self.graph.nodes)}/Conv"
        result = self.op("Conv", x, weight, channels=outputs, group=group, pads=[kernel // 2] * 4)
        if self.pieces % 3:
            self.graph.nodes[-1].name = name
        return result

    def depthwise(self, x: Tensor) -> Tensor:
        return self.conv(x, self.width(x), 3, self.width(x))

    def norm(self, x: Tensor) -> Tensor:
        vectors = [self.constant((0.5 + self.random.random(self.width(x))).astype(np.float32)) for _ in range(4)]
        return self.op("BatchNormalization", x, *vectors)

    def relu(self, x: Tensor) -> Tensor:
        return self.op("Relu", x)

    def some_width(self) -> int:
        return WIDTHS[self.integer(0, 2)]


def layer(net: Network, x: Tensor) -> Tensor:
    return net.relu(net.conv(x, net.some_width(), 2 * net.integer(0, 1) + 1))


def depthwise(net: Network, x: Tensor) -> Tensor:
    return net.norm(net.depthwise(x))


def separable(net: Network, x: Tensor) -> Tensor:
    return net.conv(net.relu(net.depthwise(x)), net.some_width())


def gate(net: Network, x: Tensor) -> Tensor:
    squeezed = net.relu(net.conv(net.op("GlobalAveragePool", x), 2))
    return net.op("Mul", x, net.op("Sigmoid", net.conv(squeezed, net.width(x))))


def residual(net: Network, x: Tensor) -> Tensor:
    y = net.relu(net.conv(x, net.some_width()))
    y = gate(net, y) if net.integer(0, 1) else y
    y = net.conv(y, net.width(x)) if net.integer(0, 3) else net.norm(net.conv(net.depthwise(y), net.width(x)))
    return net.op("Add", y, x)


def inception(net: Network, x: Tensor) -> Tensor:
    paths = [layer(net, x), layer(net, layer(net, x)), net.op("MaxPool", x, kernel_shape=[1, 1])]
    paths = paths[: net.integer(2, 3)]
    return net.op("Concat", *paths, axis=1, channels=sum(map(net.width, paths)))


def aggregation(net: Network, x: Tensor) -> Tensor:
    maps = [x]
    for _ in range(net.integer(1, 3)):
        maps.append(net.relu(net.conv(maps[-1], 2)))
    return net.relu(net.conv(net.op("Concat", *maps, axis=1, channels=sum(map(net.width, maps))), net.some_width()))


def branches(net: Network, x: Tensor) -> Tensor:
    y = net.op("Add", net.norm(net.conv(x, net.width(x), 3)), net.conv(x, net.width(x)))
    return net.op("Add", y, net.norm(x)) if net.integer(0, 1) else y


def pooling(net: Network, x: Tensor) -> Tensor:
    return net.op("AveragePool", x, kernel_shape=[3, 3], pads=[1] * 4)


def skip(net: Network, x: Tensor) -> Tensor:
    """Joins what was there before, so that paths cross."""
    other = net.maps[net.integer(0, len(net.maps) - 1)]
    return net.op("Add", x, net.conv(other, net.width(x)))


def viewed(net: Network, x: Tensor) -> Tensor:
    """Takes its batch from the shape of what was there before."""
    other = net.maps[net.integer(0, len(net.maps) - 1)]
    batch = net.builder.op("Gather", net.builder.op("Shape", other), net.constant([0]), axis=0)
    target = net.builder.op("Concat", batch, net.constant([-1, SIZE, SIZE]), axis=0)
    return net.op("Reshape", x, target)


PIECES = (
    *(layer, layer, depthwise, separable, gate, residual, residual, inception, aggregation, branches),
    *(pooling, skip, viewed),
)


@st.composite
def networks(draw: st.DrawFn) -> Model:
    """CNNs made of the pieces that well-known ones are made of, with skips between them and one output or two."""
    net = Network(lambda low, high: draw(st.integers(low, high)))
    for _ in range(net.integer(1, 9)):
        net.pieces += 1
        piece = PIECES[net.integer(0, len(PIECES) - 1)]
        net.trunk = piece(net, net.trunk)
        net.maps.append(net.trunk)
    outputs = [net.conv(net.trunk, 3)]
    if net.integer(0, 3) == 0:
        outputs.append(net.conv(net.maps[net.integer(0, len(net.maps) - 1)], 3))
    for i, output in enumerate(outputs):
        output.name = f"output{i}"
        output.dtype = np.dtype(np.float32)
        net.graph.outputs.append(output)
    return Model(net.graph)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(model=networks())
def test_modules_are_pieces_of_their_own_in_order(model: Model) -> None:
    modules, _ = find_modules(model)
    if not modules:
        return
    check_modules(model, modules)
    names = [module.name for module in modules]
    assert len(set(names)) == len(names)
    assert not any(name.endswith((".", "/", "_")) or not name for name in names)
    nodes = [{id(node) for node in module_nodes(model, module)} for module in modules]
    assert sum(map(len, nodes)) == len(set().union(*nodes))
    tensors = model.graph.tensors()
    for i, module in enumerate(modules):
        before = subgraph_nodes([tensors[name] for name in module.entries])
        assert all(before.isdisjoint(later) for later in nodes[i:])


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(model=networks())
def test_modules_are_pruned_correctly(model: Model, oracles: ModuleType) -> None:
    verify(model)
    modules, _ = find_modules(model)
    pruner = BlockPruner.of(replace(model, modules=modules))
    plan = pruner.plan({table.module: 0.5 for table in pruner.convolutions if table.prunable})
    pruned = pruner.materialize(plan)
    verify(pruned)
    feeds = oracles.random_feeds(model)
    for a, b in zip(oracles.run(pruned, feeds), oracles.run(oracles.zero_masked(model, plan), feeds), strict=True):
        assert oracles.difference(a, b) <= oracles.TOLERANCE


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(model=networks(), data=st.data())
def test_modules_are_left_out_correctly(model: Model, data: st.DataObject, oracles: ModuleType) -> None:
    modules, _ = find_modules(model)
    pruner = BlockPruner.of(replace(model, modules=modules))
    skipped = data.draw(st.sets(st.sampled_from(pruner.skippable))) if pruner.skippable else set()
    pruned = {table.module: 0.5 for table in pruner.convolutions if table.prunable}
    plan = pruner.plan(pruned | dict.fromkeys(skipped, SKIP))
    assert {module.name for module in plan.skipped} == skipped
    network = pruner.materialize(plan)
    verify(network)
    reference = oracles.without_modules(oracles.zero_masked(model, plan), plan.skipped)
    feeds = oracles.random_feeds(model)
    for a, b in zip(oracles.run(network, feeds), oracles.run(reference, feeds), strict=True):
        assert oracles.difference(a, b) <= oracles.TOLERANCE
